/** What many runs came to, as plain data, so that the sums of processes can be added. */
import type { Outcome } from './world.ts';

const YEAR_MS = 365.25 * 24 * 3_600_000;
const HOUR_MS = 3_600_000;

const COUNTS = [
  'steps',
  'hostMs',
  'playedMs',
  'bursts',
  'containers',
  'containerMs',
  'refusals',
  'doubles',
  'frames',
] as const satisfies readonly (keyof Outcome)[];

/** Of all worlds that were played. */
export interface Sum extends Record<(typeof COUNTS)[number], number> {
  seeds: number;
  /** Doubles of which nobody could have known, and what was done to the worlds, by kind. */
  readonly excused: Record<string, number>;
  readonly faults: Record<string, number>;
  readonly failed: string[];
  /** How often each rule was broken. */
  readonly broken: Record<string, number>;
  /** How long it kept cores busy, all processes together. */
  coreMs: number;
}

export function newSum(): Sum {
  const counts = Object.fromEntries(COUNTS.map((key) => [key, 0])) as Record<(typeof COUNTS)[number], number>;
  return { seeds: 0, ...counts, excused: {}, faults: {}, failed: [], broken: {}, coreMs: 0 };
}

/** One more world. */
export function addOutcome(sum: Sum, seed: string, outcome: Outcome): void {
  sum.seeds++;
  for (const key of COUNTS) sum[key] += outcome[key];
  addCounts(sum.excused, outcome.excused);
  addCounts(sum.faults, outcome.faults);
  if (outcome.violations.length > 0) sum.failed.push(seed);
  for (const { rule } of outcome.violations) sum.broken[rule] = (sum.broken[rule] ?? 0) + 1;
}

/** What another process came to. */
export function addSum(sum: Sum, other: Sum): void {
  sum.seeds += other.seeds;
  for (const key of COUNTS) sum[key] += other[key];
  sum.coreMs += other.coreMs;
  addCounts(sum.excused, new Map(Object.entries(other.excused)));
  addCounts(sum.faults, new Map(Object.entries(other.faults)));
  sum.failed.push(...other.failed);
  addCounts(sum.broken, new Map(Object.entries(other.broken)));
}

function addCounts(counts: Record<string, number>, others: ReadonlyMap<string, number>): void {
  for (const [name, count] of others) counts[name] = (counts[name] ?? 0) + count;
}

/** As it is told at the end of a run that took so long by the clock on the wall, which others shared the machine with. */
export function describeSum(sum: Sum, wallMs: number): string[] {
  const years = sum.hostMs / YEAR_MS;
  const rate = (ms: number) => Math.round((years * HOUR_MS) / ms);
  const table = (counts: Record<string, number>) =>
    Object.entries(counts)
      .toSorted()
      .map(([name, count]) => `  ${String(count).padStart(7)} ${name}`);
  return [
    `${sum.seeds} seeds, ${sum.bursts} bursts; ${years.toFixed(3)} host-years (${rate(sum.coreMs)} in an hour of one core, ${rate(wallMs)} in an hour of this run), of which ` +
      `${(sum.playedMs / HOUR_MS / 24).toFixed(2)} host-days event by event; ${sum.containers} containers lived ${(sum.containerMs / YEAR_MS).toFixed(3)} years`,
    `${sum.steps} events, ${sum.frames} frames, ${sum.refusals} starts refused, ${sum.doubles} doubles, of which nobody could have known:`,
    ...table(sum.excused),
    'what was done to the worlds:',
    ...table(sum.faults),
    `${(sum.coreMs / 1000).toFixed(1)} s of one core, ${(wallMs / 1000).toFixed(1)} s by the clock`,
    ...(sum.failed.length === 0 ? [] : [`FAILED: ${sum.failed.join(', ')}; make sim STORY='…' tells each as a story`]),
  ];
}
