/**
 * How many addresses of a pool are to be on standby. Engines ask for one after the other, each at once after the last, and
 * never say how many are to come; so twice as many are expected as were asked for within the last second.
 */

/** Addresses on standby for each pool while nothing happens. */
export const ON_STANDBY = 4;
/** For one pool, whatever is asked of it. */
export const MOST_ON_STANDBY = 64;
/**
 * For a pool of which nothing was ready when an address was asked for: after a start of this host, or of a stack of containers,
 * others follow. An engine starts some thirty while these are asked for.
 */
const FIRST_BATCH = 48;
/** Requests so long ago do not count any more. */
const LATELY_MS = 1000;
/** After so long without as much demand, what it raised falls back. */
export const HOLD_MS = 60_000;

/** What was asked of one pool lately. Times are those of a monotonic clock, in milliseconds. */
export class Demand {
  /** When addresses were asked for lately, no more than count. */
  #requestsMs: number[] = [];
  #raised = ON_STANDBY;
  #untilMs = Number.NEGATIVE_INFINITY;

  /** An address that nobody named is asked for. */
  request(nowMs: number): void {
    const lately = this.#requestsMs.filter((atMs) => nowMs - atMs < LATELY_MS);
    this.#requestsMs = [...lately, nowMs].slice(-MOST_ON_STANDBY / 2);
    this.#raise(2 * this.#requestsMs.length, nowMs);
  }

  /** None was ready when one was asked for. */
  miss(nowMs: number): void {
    this.#raise(FIRST_BATCH, nowMs);
  }

  /** How many are wanted on standby. */
  wanted(nowMs: number): number {
    return nowMs < this.#untilMs ? this.#raised : ON_STANDBY;
  }

  #raise(wanted: number, nowMs: number): void {
    if (wanted <= ON_STANDBY || wanted < this.wanted(nowMs)) return;
    this.#raised = wanted;
    this.#untilMs = nowMs + HOLD_MS;
  }
}
