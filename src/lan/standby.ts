/**
 * Addresses on standby, by parent: those that somebody wants kept, and those that a container has just left and may want
 * back. The detection of each listens; here is who is to be told when it ends, and for how long it goes on.
 *
 * Several may want one address kept: at a boot the network room, for the container that had it, and the pool's own standby,
 * whose next address it is. It is asked for once and kept once. Each who wants it says so with a listener of his own and takes
 * back nothing but that; a container that has left it counts as one more for two minutes. It is over when nobody is left who
 * wants it, or for all of them at once: when a container is to get it, when somebody uses or wants it, when the LAN is gone.
 * A question belongs to who began it, until a container waits for it. When it ends with its owner, whose pool or network is gone, the
 * others who want the address ask again.
 */
import { type Prefix, contains } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { Detection } from './detection.ts';
import type { Profile } from './timing.ts';
import { type Loss, type LossListener, NOT_HELD, type Verdict } from './verdict.ts';

/** A question whose address is to be kept on standby. */
export interface StandbyQuestion {
  /** Null until it is asked. */
  detection: Detection | null;
  /** A container waits for the answer, so that it is not its owner's any more. */
  isJoined: boolean;
}

interface Asked extends StandbyQuestion {
  outcome: Promise<Verdict | 'ended'>;
}

interface Entry {
  readonly detection: Detection;
  readonly listeners: Set<LossListener>;
  /** Calls off the end of its time as one that a container has left; null when it is none, or that time is over. */
  cancelEnd: (() => void) | null;
}

/** An address is kept this long after its container's end: engines start one again within a minute. */
const LEFT_MS = 120_000;
/** More containers than this that ended within that time have to wait for a probe. */
const MOST_LEFT = 256;

/** All addresses that this host has on standby. Keys name parent and address. */
export class StandbyList {
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #asked = new Map<string, Asked>();
  #left = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether the address is on standby. */
  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /**
   * The one who gave `lost` wants the address kept: answers as soon as it is, else why it is not. `ask` puts it on standby by add();
   * it is not called while another's question about the address is under way. Throws what it throws, and the signal's reason.
   */
  async keep(
    key: string,
    lost: LossListener,
    signal: AbortSignal | undefined,
    ask: (question: StandbyQuestion) => Promise<Verdict | 'ended'>,
  ): Promise<Verdict | 'ended'> {
    for (;;) {
      if (this.join(key, lost)) return NOT_HELD;
      const other = this.#asked.get(key);
      if (other === undefined) return this.#ask(key, ask);
      const outcome = await other.outcome.catch(() => null);
      signal?.throwIfAborted();
      if (outcome === 'ended' || outcome?.held) return outcome;
    }
  }

  #ask(key: string, ask: (question: StandbyQuestion) => Promise<Verdict | 'ended'>): Promise<Verdict | 'ended'> {
    const asked: Asked = { detection: null, isJoined: false, outcome: Promise.resolve('ended') };
    this.#asked.set(key, asked);
    asked.outcome = ask(asked).finally(() => this.#asked.delete(key));
    return asked.outcome;
  }

  /** A container is to get an address that is being asked for to be kept: the question that is its own from here on. See Detection.join(). */
  joinQuestion(key: string, profile: Profile): Detection | undefined {
    const asked = this.#asked.get(key);
    if (!asked?.detection?.join(profile)) return undefined;
    asked.isJoined = true;
    return asked.detection;
  }

  /** Keeps an address that was just found free. False when it is kept already: then the detection is one too many. */
  add(key: string, detection: Detection, lost: LossListener): boolean {
    if (this.join(key, lost)) return false;
    this.#entries.set(key, { detection, listeners: new Set([lost]), cancelEnd: null });
    return true;
  }

  /** Keeps an address that a container has just left. False when there is no room, or it is kept already. */
  addLeft(key: string, detection: Detection): boolean {
    if (this.#left >= MOST_LEFT || this.#entries.has(key)) return false;
    const entry: Entry = { detection, listeners: new Set<LossListener>(), cancelEnd: null };
    entry.cancelEnd = this.#clock.after(LEFT_MS, () => this.#unleave(entry));
    this.#entries.set(key, entry);
    this.#left++;
    return true;
  }

  /** One more who wants the address kept; false when it is not. */
  join(key: string, lost: LossListener): boolean {
    const entry = this.#entries.get(key);
    entry?.listeners.add(lost);
    return entry !== undefined;
  }

  /** The one who gave `lost` wants the address kept no longer. */
  leave(key: string, lost: LossListener): void {
    const entry = this.#entries.get(key);
    if (entry?.listeners.delete(lost)) endUnlessWanted(entry);
  }

  /** Their network is gone: nobody comes back for them. */
  endLeft(parentName: string, subnet: Prefix): void {
    for (const [key, entry] of this.#entries) {
      if (key.startsWith(`${parentName} `) && contains(subnet, entry.detection.address)) this.#unleave(entry);
    }
  }

  /**
   * A container is to get the address: the detection that asks for it at this moment. Undefined when it is not kept, or is
   * lost, or may be, or was asked for less thoroughly than this profile wants; then it is kept no longer.
   */
  grant(key: string, profile: Profile): Detection | undefined {
    const detection = this.#entries.get(key)?.detection;
    if (detection === undefined) return undefined;
    const isGranted = detection.grant(profile);
    this.remove(key, detection, 'ended', null);
    if (isGranted) return detection;
    detection.end(new Error('asked for by others, or not as it should be'));
    return undefined;
  }

  /** A container may get it soon: see Detection.askAhead(). Nothing where it is not kept. */
  askAhead(key: string): void {
    this.#entries.get(key)?.detection.askAhead();
  }

  /** The address is kept no longer: a container has it by now, or it is asked for as if nothing was known of it. */
  end(key: string): void {
    this.#entries.get(key)?.detection.end(new Error('not on standby any more'));
  }

  /** The detection is over, or a container has the address: whoever wanted it kept is told. */
  remove(key: string, detection: Detection, loss: Loss, by: string | null): void {
    const entry = this.#entries.get(key);
    if (entry?.detection !== detection) return;
    this.#entries.delete(key);
    this.#unleave(entry);
    for (const lost of entry.listeners) lost(loss, by);
  }

  #unleave(entry: Entry): void {
    if (entry.cancelEnd === null) return;
    entry.cancelEnd();
    entry.cancelEnd = null;
    this.#left--;
    endUnlessWanted(entry);
  }
}

/** Ends only what is still on standby: a container may have the address by now. */
function endUnlessWanted({ detection, listeners, cancelEnd }: Entry): void {
  if (detection.isOnStandby && cancelEnd === null && listeners.size === 0)
    detection.end(new Error('not wanted any more'));
}
