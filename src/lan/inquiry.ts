/**
 * One address on one LAN: asked for, and when nobody has it, guarded until its container can speak for itself.
 *
 * Asking follows RFC 5227 2.1.1 and RFC 4862 5.4. Guarding continues to listen, as both RFCs want, and defends the
 * address against others that ask for it: between our verdict and the moment the container's own kernel answers there
 * would otherwise be a gap in which the address looks free to everybody.
 */
import type { Address } from '../address.ts';
import type { Clock } from './clock.ts';
import { defenceFrame, makeNonce, probeFrames } from './frames.ts';
import type { ProxyWatch } from './proxy.ts';
import { Rivalry } from './rivalry.ts';
import type { Sighting } from './sighting.ts';
import type { Timing } from './timing.ts';

export type Verdict =
  | { readonly held: false }
  | {
      readonly held: true;
      readonly macAddress: string;
      /** It is only asking for the address at this moment, as we were. */
      readonly simultaneous: boolean;
    };

/** The LAN as seen from one link. */
export interface Wire {
  /** Our frames come from it. */
  readonly macAddress: string;
  send(frame: Buffer): void;
  /** Hands the frames that wait to those concerned, before it returns. */
  drain(): void;
}

export interface Question {
  readonly address: Address;
  readonly timing: Timing;
  /** How long a free address is guarded; 0 not at all. */
  readonly guardMs: number;
  /** MAC addresses of our own containers and links, whose use of the address is no conflict. */
  readonly isOwn: (macAddress: string) => boolean;
  /** Somebody began to use the address while it was guarded, which ends the guard. */
  readonly onLateConflict: (macAddress: string) => void;
  readonly onOver: () => void;
}

export interface Surroundings {
  readonly wire: Wire;
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  /** Undefined where proxies cannot be told from holders. */
  readonly proxies: ProxyWatch | undefined;
}

/** An answer later than this may have been overtaken by the same router's answer to the control probe. */
const PROMPT_MS = 50;
/** Defences against a flood of probes are held to 100 a second. */
const DEFENCE_PERIOD_MS = 100;
const DEFENCES_PER_PERIOD = 10;

export class Inquiry {
  readonly address: Address;
  readonly verdict: Promise<Verdict>;
  readonly #question: Question;
  readonly #surroundings: Surroundings;
  readonly #rivalry: Rivalry;
  /** Of our solicitations: 12 hexadecimal digits. */
  readonly #nonce: string;
  readonly #settle: PromiseWithResolvers<Verdict>;
  #phase: 'asking' | 'guarding' | 'over' = 'asking';
  #sent = 0;
  #sentAtMs = 0;
  /** They answered so late that they may be proxies. */
  readonly #suspects = new Set<string>();
  #defences = { sinceMs: Number.NEGATIVE_INFINITY, count: 0 };
  #cancelTimer: () => void = () => undefined;

  constructor(question: Question, surroundings: Surroundings) {
    this.address = question.address;
    this.#question = question;
    this.#surroundings = surroundings;
    this.#rivalry = new Rivalry(surroundings.wire.macAddress, surroundings.clock);
    this.#nonce = makeNonce(surroundings.random);
    this.#settle = Promise.withResolvers<Verdict>();
    this.verdict = this.#settle.promise;
  }

  get isAsking(): boolean {
    return this.#phase === 'asking';
  }

  start(): void {
    const { timing } = this.#question;
    this.#in(timing.firstWaitMs * this.#surroundings.random(), () => this.#step());
  }

  /** A sighting of this address. */
  hear(sighting: Sighting): void {
    if (this.#phase === 'over' || this.#isOurs(sighting)) return;
    if (sighting.kind === 'use') this.#hearUse(sighting);
    else if (this.#phase === 'asking') this.#hearRival(sighting.macAddress);
    else this.#defend(sighting);
  }

  /** Ends it; a verdict that is still awaited becomes `reason`. */
  end(reason: Error): void {
    this.#over();
    this.#settle.reject(reason);
  }

  #step(): void {
    // What came first counts first: a rival that reasserted itself while we were busy must not get another probe.
    this.#surroundings.wire.drain();
    if (this.#phase !== 'asking') return;
    const { timing } = this.#question;
    if (this.#sent < timing.probes) {
      this.#sent++;
      this.#probe();
    }
    const restMs = this.#restMs();
    if (restMs > 0) this.#in(restMs, () => this.#step());
    else this.#conclude();
  }

  /** Until the next step. The last wait counts from the last frame, be it one of the timing or a reassertion. */
  #restMs(): number {
    const { timing } = this.#question;
    const { random, clock } = this.#surroundings;
    if (this.#sent < timing.probes) return timing.minGapMs + (timing.maxGapMs - timing.minGapMs) * random();
    return this.#sentAtMs + timing.lastWaitMs - clock.nowMs();
  }

  #probe(): void {
    const { wire, proxies, clock } = this.#surroundings;
    proxies?.ask();
    this.#sentAtMs = clock.nowMs();
    for (const frame of probeFrames(this.address, wire.macAddress, this.#nonce)) wire.send(frame);
  }

  #isOurs({ macAddress, nonce }: Sighting): boolean {
    return (
      macAddress === this.#surroundings.wire.macAddress || nonce === this.#nonce || this.#question.isOwn(macAddress)
    );
  }

  #hearUse({ macAddress, isAnswer }: Sighting): void {
    if (isAnswer && this.#surroundings.proxies?.isProxy(macAddress)) return;
    if (this.#phase === 'guarding') {
      this.#over();
      this.#question.onLateConflict(macAddress);
    } else if (isAnswer && this.#mayBeProxy()) this.#suspects.add(macAddress);
    else this.#lose(macAddress, false);
  }

  #mayBeProxy(): boolean {
    const { proxies, clock } = this.#surroundings;
    return proxies !== undefined && clock.nowMs() - this.#sentAtMs > PROMPT_MS;
  }

  #hearRival(macAddress: string): void {
    const response = this.#rivalry.hear(macAddress);
    if (response === 'yield') this.#lose(macAddress, true);
    else if (response === 'reassert') this.#probe();
  }

  #conclude(): void {
    const holder = [...this.#suspects].find((mac) => !this.#surroundings.proxies?.isProxy(mac));
    if (holder === undefined) this.#win();
    else this.#lose(holder, false);
  }

  #lose(macAddress: string, simultaneous: boolean): void {
    this.#over();
    this.#settle.resolve({ held: true, macAddress, simultaneous });
  }

  #win(): void {
    this.#phase = 'guarding';
    this.#settle.resolve({ held: false });
    if (this.#question.guardMs > 0) this.#in(this.#question.guardMs, () => this.#over());
    else this.#over();
  }

  #defend({ packet }: Sighting): void {
    if (this.#isFlooded()) return;
    const { wire } = this.#surroundings;
    wire.send(defenceFrame(packet, this.address, wire.macAddress));
  }

  #isFlooded(): boolean {
    const nowMs = this.#surroundings.clock.nowMs();
    if (nowMs - this.#defences.sinceMs >= DEFENCE_PERIOD_MS) this.#defences = { sinceMs: nowMs, count: 0 };
    this.#defences.count++;
    return this.#defences.count > DEFENCES_PER_PERIOD;
  }

  #over(): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#cancelTimer();
    this.#question.onOver();
  }

  #in(delayMs: number, run: () => void): void {
    this.#cancelTimer();
    // Sending can fail and so end it.
    if (this.#phase === 'over') return;
    this.#cancelTimer = this.#surroundings.clock.after(delayMs, run);
  }
}
