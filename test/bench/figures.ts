/** Many values in a few words, and how far a measurement has come. */
export interface Spread {
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
  readonly p99: number;
  readonly count: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { median: at(0.5), p10: at(0.1), p90: at(0.9), p99: at(0.99), count: sorted.length };
}

export function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

export function progress(what: string, done: number, total: number): void {
  if (process.stdout.isTTY)
    process.stdout.write(`\r${what}: ${done} of ${total}\x1b[K${done === total ? '\r\x1b[K' : ''}`);
  else if (done === total) console.log(`${what}: ${total} done`);
}

/** Runs `count` tasks, at most `width` at once. */
export async function inTurns(count: number, width: number, task: () => Promise<void>): Promise<void> {
  let begun = 0;
  const work = async () => {
    while (begun++ < count) await task();
  };
  await Promise.all(Array.from({ length: width }, work));
}
