/** Many values in a few words, tasks side by side and by turns, and how far a measurement has come. */
export interface Spread {
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  readonly count: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  const median = sorted.length % 2 ? at(0.5) : (at(0.5) + (sorted[sorted.length / 2 - 1] ?? Number.NaN)) / 2;
  return { median, p10: at(0.1), p90: at(0.9), p99: at(0.99), max: at(1), count: sorted.length };
}

export function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

export function progress(what: string, done: number, total: number): void {
  if (process.stdout.isTTY)
    process.stdout.write(`\r${what}: ${done} of ${total}\x1b[K${done === total ? '\r\x1b[K' : ''}`);
  else if (done === total) console.log(`${what}: ${total} done`);
}

/** Runs `count` tasks, numbered from 0, at most `width` at once. */
export async function inTurns(count: number, width: number, task: (number: number) => Promise<void>): Promise<void> {
  let begun = 0;
  const work = async () => {
    while (begun < count) await task(begun++);
  };
  await Promise.all(Array.from({ length: width }, work));
}

/** Lets every one act once a round. The first of each round changes, so that none has the warmer machine. */
export async function inRotation<T>(
  what: string,
  rounds: number,
  all: readonly T[],
  act: (one: T, round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const first = round % all.length;
    for (const one of [...all.slice(first), ...all.slice(0, first)]) await act(one, round);
    progress(what, round + 1, rounds);
  }
}

/** How long a task took, in milliseconds. */
export async function timeOf(task: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await task();
  return performance.now() - begin;
}
