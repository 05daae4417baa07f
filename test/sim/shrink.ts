/** Makes a scenario smaller while it fails by the same rule, until nothing more can be left out. */
import type { Rule } from './judge.ts';
import type { Scenario, Step } from './scenario.ts';
import { play } from './world.ts';

/** `isOverTime`: so far is good enough. */
export async function shrink(scenario: Scenario, rule: Rule, isOverTime: () => boolean): Promise<Scenario> {
  const fails = async (smaller: Scenario) =>
    (await play(smaller)).violations.some((violation) => violation.rule === rule);
  let smallest = await cutEnd(scenario, fails);
  for (let size = Math.ceil(smallest.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < smallest.steps.length && !isOverTime(); ) {
      const steps = [...smallest.steps.slice(0, from), ...smallest.steps.slice(from + size)];
      const smaller = { ...smallest, steps };
      if (await fails(smaller)) smallest = smaller;
      else from += size;
    }
  }
  return smallest;
}

/** What comes after the failure has no part in it. */
async function cutEnd(scenario: Scenario, fails: (smaller: Scenario) => Promise<boolean>): Promise<Scenario> {
  const { virtualMs } = await play(scenario);
  const isBefore = ({ atMs }: Step) => atMs <= virtualMs;
  const cut = {
    ...scenario,
    steps: scenario.steps.filter(isBefore),
    lengthMs: Math.min(scenario.lengthMs, virtualMs + 1),
  };
  return (await fails(cut)) ? cut : scenario;
}
