/**
 * Addresses of a realm that others on the LAN were found to use, or to ask for. They are passed over, and come back by being
 * asked for again: what answers again rests twice as long as before, so that a LAN full of hosts costs few questions, and
 * one device that answered for everything is soon forgotten. All of it is in memory, and time is monotonic: no clock that is
 * set keeps an address away.
 */
import { type Address, contains, formatAddress, type Range } from '../address.ts';
import { LatestMap } from '../bounded.ts';

/** Who was found: one who uses the address, or one who asks for it at the same moment and may or may not take it. */
export type Finding = 'used' | 'wanted';

/** What is known of one address. */
interface Entry {
  readonly address: Address;
  readonly finding: Finding;
  readonly foundAtMs: number;
  /** How long it rests, counted from then. */
  readonly restMs: number;
  /** False when its time is over, or it was taken up before: only the length of its rest is remembered. */
  isResting: boolean;
  /** Its time was over when it was taken up: an answer now makes the next rest longer. */
  isRested: boolean;
}

/**
 * The first rest, longer than any call searches, which so tries all others before it comes back. Each further one of an
 * address that somebody uses is twice as long. Who only asks for it uses it within that time (RFC 5227: 9 s), or not at all.
 */
const FIRST_REST_MS = 10_000;
const LONGEST_REST_MS = 300_000;
/** More than a call can ask for; the one found longest ago makes room. */
const MOST = 4096;

/** The addresses of one realm that are passed over, and for how long. */
export class PassedOver {
  readonly #nowMs: () => number;
  /** In the order in which they were found. */
  readonly #entries = new LatestMap<string, Entry>(MOST);
  /** No rest ends before. */
  #dueMs = Number.POSITIVE_INFINITY;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Whether the address is passed over at present. */
  has(address: Address): boolean {
    return this.#entries.get(formatAddress(address))?.isResting === true;
  }

  /** Passes the address over for a while. Answers the one that had to make room for it. */
  add(address: Address, finding: Finding): Address | undefined {
    const text = formatAddress(address);
    const restMs = restAfter(this.#entries.get(text), finding);
    const foundAtMs = this.#nowMs();
    this.#dueMs = Math.min(this.#dueMs, foundAtMs + restMs);
    const dropped = this.#entries.put(text, { address, finding, foundAtMs, restMs, isResting: true, isRested: false });
    return dropped?.isResting === true ? dropped.address : undefined;
  }

  /** The address is being asked for, by whoever named it. */
  takeUp(address: Address): void {
    const entry = this.#entries.get(formatAddress(address));
    if (entry !== undefined) end(entry, this.#nowMs());
  }

  /** Nobody else has the address, so that its next rest is a first one. */
  forget(address: Address): void {
    this.#entries.delete(formatAddress(address));
  }

  /** Those whose time is over: they are passed over no longer. */
  expire(): Address[] {
    const nowMs = this.#nowMs();
    if (nowMs < this.#dueMs) return [];
    this.#dueMs = Number.POSITIVE_INFINITY;
    const over: Address[] = [];
    for (const entry of this.#resting()) {
      const untilMs = entry.foundAtMs + entry.restMs;
      if (untilMs > nowMs) this.#dueMs = Math.min(this.#dueMs, untilMs);
      else over.push(end(entry, nowMs));
    }
    return over;
  }

  /**
   * Ends the rest of those of `ranges` that were found longest ago, `most` of them and none that was found within `leastMs`.
   */
  takeLongest(ranges: readonly Range[], most: number, leastMs: number): Address[] {
    const nowMs = this.#nowMs();
    const taken: Address[] = [];
    for (const entry of this.#resting()) {
      if (taken.length === most || nowMs - entry.foundAtMs < leastMs) break;
      if (ranges.some((range) => contains(range, entry.address))) taken.push(end(entry, nowMs));
    }
    return taken;
  }

  /** Those that are passed over, in the order in which they were found. */
  *resting(): Generator<{ readonly address: Address; readonly finding: Finding }> {
    yield* this.#resting();
  }

  /** Those that somebody had when they were last asked for, also when they will be asked for again before another waits for it. */
  *held(): Generator<Address> {
    for (const { address, isResting, finding } of this.#entries.values())
      if (isResting || finding === 'used') yield address;
  }

  *#resting(): Generator<Entry> {
    for (const entry of this.#entries.values()) if (entry.isResting) yield entry;
  }
}

function restAfter(last: Entry | undefined, finding: Finding): number {
  if (finding === 'wanted' || last?.finding !== 'used') return FIRST_REST_MS;
  return last.isRested ? Math.min(2 * last.restMs, LONGEST_REST_MS) : last.restMs;
}

function end(entry: Entry, nowMs: number): Address {
  entry.isRested = nowMs >= entry.foundAtMs + entry.restMs;
  entry.isResting = false;
  return entry.address;
}
