/**
 * How many frames a second are sent on one parent. Switches that inspect ARP shut a port, or drop what is too much, when a
 * host sends more than some number a second (Cisco's Dynamic ARP Inspection: 15 on an untrusted port). A token bucket:
 * a fifth of a second's frames may go at once, and the bucket fills by the other four fifths a second, so that no second has
 * more than the setting says.
 */
import type { Clock } from '../clock.ts';

/** Whoever sends asks here first. */
export class Pacer {
  readonly #clock: Clock;
  /** Frames that may go at once; infinite without a limit. */
  readonly #burst: number;
  readonly #perMs: number;
  /** What nobody waits for and has not gone yet, in the order in which it came. */
  readonly #line = new Set<{ readonly run: () => void }>();
  #isServing = false;
  /** Below zero when frames are promised that are not due yet. */
  #left: number;
  #atMs: number;

  /** `mostPerSecond`: frames; 0 for no limit. */
  constructor(clock: Clock, mostPerSecond: number) {
    this.#clock = clock;
    this.#burst = mostPerSecond === 0 ? Number.POSITIVE_INFINITY : Math.max(1, Math.floor(mostPerSecond / 5));
    // Of one frame a second the bucket alone would allow two within a second.
    this.#perMs = Math.max(mostPerSecond - this.#burst, mostPerSecond / 2) / 1000;
    this.#left = this.#burst;
    this.#atMs = clock.nowMs();
  }

  /** Reserves the next frames, which have to be sent so many milliseconds from now: 0 is at once. */
  turn(frames = 1): number {
    if (this.#burst === Number.POSITIVE_INFINITY) return 0;
    this.#fill();
    this.#left -= frames;
    return this.#left >= 0 ? 0 : Math.ceil(-this.#left / this.#perMs);
  }

  /**
   * Calls `run` when its frame may go: what somebody waits for as turn() says, the rest in its order, however long that takes, with
   * frames that leave half of the burst, so that there is always one for a container's own question and for spare().
   * Null when that was at once; else how to call it off.
   */
  inTurn(isWaitedFor: boolean, run: () => void): (() => void) | null {
    const waitMs = isWaitedFor ? this.turn() : 0;
    if (waitMs > 0) return this.#clock.after(waitMs, run);
    if (isWaitedFor || (this.#line.size === 0 && this.#takes())) {
      run();
      return null;
    }
    const one = { run };
    this.#line.add(one);
    this.#serveLater();
    return () => void this.#line.delete(one);
  }

  #takes(): boolean {
    if (this.#burst === Number.POSITIVE_INFINITY) return true;
    this.#fill();
    if (this.#left < this.#leastForLine) return false;
    this.#left--;
    return true;
  }

  /** A bucket of one or two frames has no half to leave. */
  get #leastForLine(): number {
    return Math.min(this.#burst, this.#burst / 2 + 1);
  }

  #serveLater(): void {
    if (this.#isServing || this.#line.size === 0) return;
    this.#isServing = true;
    this.#clock.after(Math.ceil(Math.max(0, this.#leastForLine - this.#left) / this.#perMs), () => this.#serve());
  }

  #serve(): void {
    this.#isServing = false;
    for (const one of this.#line) {
      if (!this.#takes()) break;
      this.#line.delete(one);
      one.run();
    }
    this.#serveLater();
  }

  /**
   * Whether a frame that can as well be left out may go now, as most answers to others. False where it would take from our own questions what they
   * need: others must not be able to keep us from asking.
   */
  spare(): boolean {
    if (this.#burst === Number.POSITIVE_INFINITY) return true;
    this.#fill();
    if (this.#left < Math.max(1, this.#burst / 2)) return false;
    this.#left--;
    return true;
  }

  /** Frames that turn() has just reserved are not sent. */
  giveBack(frames: number): void {
    this.#left = Math.min(this.#burst, this.#left + frames);
  }

  #fill(): void {
    const nowMs = this.#clock.nowMs();
    this.#left = Math.min(this.#burst, this.#left + (nowMs - this.#atMs) * this.#perMs);
    this.#atMs = nowMs;
  }
}

/** Defences against a flood of probes are held to 100 a second. */
const DEFENCE_PERIOD_MS = 100;
const DEFENCES_PER_PERIOD = 10;
/** So many of one guard go whatever else is to be sent, as a rival that asks is told once or twice; the rest if frames are left. */
const ASSURED_DEFENCES = 3;

/** How often one address is defended, whoever asks for it and whatever the parent's rate. */
export class DefenceLimit {
  readonly #clock: Clock;
  #sinceMs = Number.NEGATIVE_INFINITY;
  #count = 0;
  #assured = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether one goes also where no frame is left for it; each that is asked about counts. */
  isAssured(): boolean {
    return ++this.#assured <= ASSURED_DEFENCES;
  }

  /** Whether one more may go; it counts whether it goes or not. */
  allows(): boolean {
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#sinceMs >= DEFENCE_PERIOD_MS) [this.#sinceMs, this.#count] = [nowMs, 0];
    this.#count++;
    return this.#count <= DEFENCES_PER_PERIOD;
  }
}
