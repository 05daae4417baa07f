/**
 * Quiet stretches made cheap. The product reads its sockets by timers, up to twenty times a second, and mostly finds nothing. A run of
 * such a timer that found its sockets empty, sent nothing, changed nothing at a socket and set no timer but its own next one is
 * *empty*; so would the following ones be until something arrives in a socket of the process or other code of it runs. These are
 * left out: the timer is parked. It runs again
 *
 * - at its usual moment, the next multiple of its period, after something arrived in any socket of the process;
 * - just before other code of the process runs, if it was due;
 * - in any case MOST_MS after it was due, since what it does may also depend on the time alone.
 *
 * So nothing is read later than it would have been, nor by other code in another state, and what depends on the time alone
 * comes late by MOST_MS at most, as it may on a busy machine.
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
}

export const MOST_MS = 2500;
/** Timers with shorter periods are not there to wait for something. */
const LEAST_PERIOD_MS = 50;

/** What one process did since a moment, and which of its timers are parked. */
export class Idle {
  /** Readings that found nothing, and all else that a process does to the world. */
  emptyReads = 0;
  effects = 0;
  readonly #parked = new Set<Parkable>();
  /** Timers that were set in the run under way. */
  set: Parkable[] = [];

  get hasParked(): boolean {
    return this.#parked.size > 0;
  }

  /** Runs a timer, and parks what comes after it when that run was empty. */
  watch(run: () => void, itself: Parkable | null): void {
    const [reads, effects] = [this.emptyReads, this.effects];
    this.set = [];
    run();
    const next = itself ?? (this.set.length === 1 ? this.set[0] : undefined);
    const isAlone = this.set.length === (itself === null ? 1 : 0);
    this.set = [];
    if (next === undefined || !isAlone || this.emptyReads === reads || this.effects !== effects) return;
    if (next.periodMs < LEAST_PERIOD_MS) return;
    this.#parked.add(next);
    next.moveTo(next.dueMs + MOST_MS);
  }

  /** Something waits in a socket of the process. */
  arrived(nowMs: number): void {
    for (const timer of this.#parked) timer.moveTo(nextPhase(timer, nowMs));
    this.#parked.clear();
  }

  /** Other code of the process is about to run, as number `order`: what was due before runs before. */
  disturbed(nowMs: number, order: number): boolean {
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

  /** It runs by itself, or was called off. */
  leave(timer: Parkable): void {
    this.#parked.delete(timer);
  }
}

function nextPhase({ dueMs, periodMs }: Parkable, nowMs: number): number {
  return dueMs >= nowMs ? dueMs : dueMs + Math.ceil((nowMs - dueMs) / periodMs) * periodMs;
}
