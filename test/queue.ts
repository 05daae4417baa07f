/**
 * The order in which test files run: one queue over all levels, the largest first, and as many at once as the machine
 * carries. What a file takes is known from a run before (test/durations.json); a file that is new there gets its level's share.
 */

/** What there is of a machine, or what a file takes of it while it runs. */
export interface Load {
  /** Cores kept busy; a file that mostly waits takes a part of one. */
  readonly cores: number;
  readonly memoryMb: number;
}

/** A test file that is to run. */
export interface Job extends Load {
  /** Its path below test/, as `netns/link.test.ts`. */
  readonly file: string;
  /** How long it is expected to run. */
  readonly seconds: number;
  /** Whether it learns nothing on a machine that is full. */
  readonly needsCalm: boolean;
}

/** What of the machine's cores may be kept busy while a file runs that needs calm. */
const CALM_SHARE = 0.5;

export class Queue<J extends Job> {
  readonly #waiting: J[];
  readonly #capacity: Load;
  readonly #running = new Set<J>();

  constructor(jobs: readonly J[], capacity: Load) {
    this.#waiting = [...jobs].sort(
      (one, other) =>
        Number(other.needsCalm) - Number(one.needsCalm) ||
        sizeOf(other) - sizeOf(one) ||
        (one.file < other.file ? -1 : 1),
    );
    this.#capacity = capacity;
  }

  /**
   * The largest waiting file that is ready and fits beside those that run; it counts as running from now on. What is too
   * big for the machine runs alone. Undefined when none may begin now. What needs calm comes first, all at once, and the
   * machine is not filled before it is over.
   */
  next(isReady: (job: J) => boolean = () => true): J | undefined {
    const ready = this.#waiting.filter(isReady);
    const isCalm = [...this.#running, ...ready].some(({ needsCalm }) => needsCalm);
    const { cores, memoryMb } = this.#capacity;
    const capacity = { cores: isCalm ? cores * CALM_SHARE : cores, memoryMb };
    const next = ready.find((job) => this.#fits(job, capacity));
    if (next === undefined) return undefined;
    this.#waiting.splice(this.#waiting.indexOf(next), 1);
    this.#running.add(next);
    return next;
  }

  /** A file that `next` answered has ended, and its place is free. */
  ended(job: J): void {
    this.#running.delete(job);
  }

  #fits(job: J, capacity: Load): boolean {
    if (this.#running.size === 0) return true;
    const isRoom = (of: keyof Load) => {
      let used = job[of];
      for (const other of this.#running) used += other[of];
      // A sum of fractions is not exact.
      return used <= capacity[of] + 1e-9;
    };
    return isRoom('cores') && isRoom('memoryMb');
  }
}

/**
 * Files that keep a core busy would not fit beside each other at the end: they begin while those that only wait fill what
 * they leave. But a long one that only waits must not be the last either.
 */
function sizeOf({ seconds, cores }: Job): number {
  return seconds * (0.5 + cores);
}
