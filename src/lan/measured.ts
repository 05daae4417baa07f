/** How long the LAN was asked for addresses of containers, and what was found: for the metrics. */
import type { Verdict } from './verdict.ts';

/** A question that has ended. */
export interface EndedProbe {
  readonly ms: number;
  /** `contended`: somebody asked for the address at the same moment. `failed`: the LAN could not be asked. */
  readonly verdict: 'free' | 'held' | 'contended' | 'failed';
  /** The address was ready: one short question was left. */
  readonly isStandby: boolean;
}

/** Asks, and tells how that ended. Answers and throws what `ask` does. */
export async function measured(
  ask: () => Promise<Verdict>,
  isStandby: boolean,
  tell: (probe: EndedProbe) => void,
): Promise<Verdict> {
  const beganAtMs = performance.now();
  const note = (verdict: EndedProbe['verdict']) => tell({ verdict, isStandby, ms: performance.now() - beganAtMs });
  try {
    const verdict = await ask();
    note(verdict.held ? (verdict.simultaneous ? 'contended' : 'held') : 'free');
    return verdict;
  } catch (error) {
    note('failed');
    throw error;
  }
}
