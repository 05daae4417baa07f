/**
 * Weeks in which nothing happens, in seconds. Between two bursts of steps the world goes on event by event for SETTLED_MS; what is
 * left until the next burst is cut out: the calendar goes on, and no clock, timer or lease of the world notices.
 *
 * Nothing that the product remembers of what happened is older than ten minutes (the longest are REFRESH_MS of lan/prober.ts, NEWS_MS
 * of lan/takers.ts, KNOWN_MS of lan/portfilter.ts and SILENCE_MS of store/conflicts.ts), and nothing that it does again and again has
 * a longer period (PERIOD_MS of collector.ts). So after twelve minutes in which nobody did anything, what the world does is what it did
 * in the ten before, and it would go on like that. What has a longer memory is not in these worlds: names that are remembered for days, and
 * parents that go; but for a proxy, which a line of the log reports once an hour (lan/proxyarp.ts).
 */
import type { Step } from './scenario.ts';

/** Longer than all memory of the product, and than all that a step of the last burst sets going. */
export const SETTLED_MS = 720_000;

/** Steps that are too close to each other for anything to be cut out between them. */
export interface Burst {
  readonly atMs: number;
  readonly steps: readonly Step[];
}

/** The steps, in order, by burst. */
export function burstsOf(steps: readonly Step[]): Burst[] {
  const bursts: { atMs: number; steps: Step[] }[] = [];
  let lastMs = Number.NEGATIVE_INFINITY;
  for (const step of steps) {
    const burst = bursts.at(-1);
    if (burst !== undefined && step.atMs - lastMs <= 2 * SETTLED_MS) burst.steps.push(step);
    else bursts.push({ atMs: step.atMs, steps: [step] });
    lastMs = step.atMs;
  }
  return bursts;
}
