/**
 * Quiet stretches made cheap. The product reads its sockets by timers, up to twenty times a second, and mostly finds nothing. A run of
 * such a timer that found its sockets empty, sent nothing, changed nothing at a socket and set no timer but its own next one is
 * *empty*; so would the following ones be until something arrives in a socket of the process or other code of it runs. These are
 * left out: the timer is parked. It runs again
 *
 * - at its usual moment, the next multiple of its period, after something arrived in any socket of the process;
 * - just before other code of the process runs, if it was due. Timers that did nothing to the world when they ran last are no such
 *   code, unless it turns out that this time they do something;
 * - in any case some time after it was due, since what it does may also depend on the time alone: FIRST_MS, and half as long again
 *   each time that it is found empty, up to MOST_MS.
 *
 * So nothing is read later than it would have been, nor by other code in another state, and what depends on the time alone
 * comes late by MOST_MS at most, in a process to which nothing happens.
 */

/** A timer that can be parked. */
export interface Parkable {
  readonly periodMs: number;
  /** When it would run next. */
  readonly dueMs: number;
  fire(): void;
  /** Sets it to that moment. `order`: among those of the same moment; left out, after all others. */
  moveTo(atMs: number, order?: number): void;
  /** It sets itself again when it runs, and sees how late it was called. */
  readonly isChain: boolean;
  /** When it ran last, or the one that it follows with the same period, nothing but its next run came of it. */
  isQuiet: boolean;
}

const FIRST_MS = 2500;
const GROWTH = 1.5;
const MOST_MS = 20_000;
/** Timers with shorter periods are not there to wait for something. */
const LEAST_PERIOD_MS = 50;

/** What one process did since a moment, and which of its timers are parked. */
export class Idle {
  /** Readings that found nothing, and all else that a process does to the world. */
  emptyReads = 0;
  effects = 0;
  /** Timers that were set in the run under way. */
  set: Parkable[] = [];
  readonly #parked = new Set<Parkable>();
  /** How long the next one is parked at most. */
  #restMs = FIRST_MS;
  /** At the end of a run that did nothing. What waited for its promises may have done something since. */
  #quietEffects: number | null = null;

  /** Runs a timer, and parks what comes after it when that run was empty. */
  watch(run: () => void, timer: Parkable, nowMs: number): void {
    const [reads, effects] = [this.emptyReads, this.effects];
    this.set = [];
    run();
    const next = timer.isChain ? this.set[0] : timer;
    const isAlone = this.set.length === (timer.isChain ? 1 : 0);
    this.set = [];
    const isQuiet = isAlone && this.effects === effects;
    if (isQuiet) this.#quietEffects = effects;
    else if (timer.isQuiet) this.#wake(nowMs);
    if (next === undefined) return;
    next.isQuiet = isQuiet && next.periodMs === timer.periodMs;
    if (!next.isQuiet || this.emptyReads === reads || next.periodMs < LEAST_PERIOD_MS) return;
    this.#parked.add(next);
    next.moveTo(next.dueMs + this.#restMs);
    this.#restMs = Math.min(MOST_MS, this.#restMs * GROWTH);
  }

  /** Something waits in a socket of the process. */
  arrived(nowMs: number): void {
    if (this.#parked.size > 0) this.#wake(nowMs);
  }

  #wake(nowMs: number): void {
    this.#restMs = FIRST_MS;
    for (const timer of this.#parked) timer.moveTo(nextPhase(timer, nowMs));
    this.#parked.clear();
  }

  /** An event of the process is about to run, as number `order`. True when parked timers have to run before it. */
  begins(timer: Parkable | null, nowMs: number, order: number): boolean {
    if (timer !== null) this.#parked.delete(timer);
    if (this.#quietEffects !== null && this.#quietEffects !== this.effects) this.#wake(nowMs);
    this.#quietEffects = null;
    if (this.#parked.size === 0 || timer?.isQuiet === true) return false;
    return this.#disturb(nowMs, order);
  }

  #disturb(nowMs: number, order: number): boolean {
    this.#restMs = FIRST_MS;
    let isFirst = false;
    for (const timer of this.#parked) {
      if (timer.isChain && timer.dueMs <= nowMs) {
        timer.moveTo(nowMs, order - 0.5);
        isFirst = true;
      } else timer.moveTo(nextPhase(timer, nowMs));
    }
    this.#parked.clear();
    return isFirst;
  }

  /** It was called off. */
  leave(timer: Parkable): void {
    this.#parked.delete(timer);
  }
}

function nextPhase({ dueMs, periodMs }: Parkable, nowMs: number): number {
  return dueMs >= nowMs ? dueMs : dueMs + Math.ceil((nowMs - dueMs) / periodMs) * periodMs;
}
