/**
 * Plays worlds from seeds until the time is over, or one seed alone. What is printed is the same for the same seeds; how long
 * it took is printed last.
 */
import { realNowMs } from './globals.ts';
import type { Violation } from './judge.ts';
import { SHARED, type Scenario, drawScenario, tell } from './scenario.ts';
import { NAMED_SEEDS } from './seeds.ts';
import { shrink } from './shrink.ts';
import { drawSweep, sweepSeeds } from './sweep.ts';
import { type Outcome, play } from './world.ts';

const YEAR_MS = 365.25 * 24 * 3_600_000;
const SHRINK_MS = 60_000;
/** In shorter runs only each eighth of the directed scenarios is played. */
const LEAST_MINUTES_FOR_ALL = 5;

/** What many runs came to. */
interface Sum {
  seeds: number;
  steps: number;
  hostMs: number;
  containers: number;
  refusals: number;
  doubles: number;
  frames: number;
  readonly excused: Map<string, number>;
  readonly faults: Map<string, number>;
}

/** Named seeds, directed ones, then seeds `first`, `first`+1 and so on for so many minutes; or those of hosts that share an etcd. Answers the exit code. */
export async function runSeeds(first: number, minutes: number, isShared: boolean): Promise<number> {
  const beganMs = realNowMs();
  const sum: Sum = newSum();
  const failed: string[] = [];
  const isOver = () => realNowMs() - beganMs > minutes * 60_000;
  for (const { seed } of isShared ? [] : NAMED_SEEDS) if (!(await runOne(seed, sum))) failed.push(seed);
  // A part of the time at most for the directed ones, in an order that leaves no moment out for long.
  const directed =
    minutes >= LEAST_MINUTES_FOR_ALL ? sweepSeeds() : sweepSeeds().filter((_, index) => index % 8 === first % 8);
  for (const seed of isShared ? [] : directed) if (!isOver() && !(await runOne(seed, sum))) failed.push(seed);
  for (let seed = first; !isOver(); seed++) {
    const name = isShared ? `${SHARED}${seed}` : String(seed);
    if (!(await runOne(name, sum))) failed.push(name);
  }
  print(sum, (realNowMs() - beganMs) / 1000);
  if (failed.length > 0) console.log(`FAILED: ${failed.join(' ')}; make sim SEED=… tells each as a story`);
  return failed.length === 0 ? 0 : 1;
}

async function runOne(seed: string, sum: Sum): Promise<boolean> {
  const outcome = await play(scenarioOf(seed));
  add(sum, outcome);
  for (const violation of outcome.violations) console.log(`seed ${seed}: ${describe(violation)}`);
  return outcome.violations.length === 0;
}

/** One seed: its story, made as short as it can be when it fails; twice, to see that it is the same. */
export async function runStory(seed: string, isLogWanted: boolean): Promise<number> {
  const scenario = scenarioOf(seed);
  const [outcome, again] = [await play(scenario, true), await play(scenario)];
  if (isLogWanted) console.log(outcome.log.join('\n'));
  console.log(
    `seed ${seed}: ${outcome.steps} events, log ${outcome.digest.slice(0, 16)}, again ${again.digest.slice(0, 16)}`,
  );
  if (outcome.digest !== again.digest) return 1;
  const [violation] = outcome.violations;
  if (violation === undefined) return 0;
  console.log(describe(violation));
  const untilMs = realNowMs() + SHRINK_MS;
  const short = await shrink(scenario, violation.rule, () => realNowMs() > untilMs);
  const { hosts, strangers, addresses, quality } = short;
  const ipam = hosts.map(({ isDockersIpam }) => (isDockersIpam ? 'Docker’s' : 'own'));
  console.log(
    `hosts with IPAM: ${ipam.join(', ')}; ${strangers.length} strangers; ${addresses} addresses; ${quality} LAN`,
  );
  for (const step of short.steps) console.log(`  ${tell(step, short)}`);
  const last = await play(short, true);
  console.log(
    last.log
      .filter((line) => !line.includes(' STEP '))
      .slice(-25)
      .map((line) => `    ${line}`)
      .join('\n'),
  );
  return 1;
}

function scenarioOf(seed: string): Scenario {
  return drawSweep(seed) ?? drawScenario(seed);
}

function describe({ rule, atMs, what }: Violation): string {
  return `${rule} at ${(atMs / 1000).toFixed(3)} s: ${what}`;
}

function newSum(): Sum {
  return {
    seeds: 0,
    steps: 0,
    hostMs: 0,
    containers: 0,
    refusals: 0,
    doubles: 0,
    frames: 0,
    excused: new Map(),
    faults: new Map(),
  };
}

function add(sum: Sum, outcome: Outcome): void {
  sum.seeds++;
  for (const key of ['steps', 'hostMs', 'containers', 'refusals', 'doubles', 'frames'] as const)
    sum[key] += outcome[key];
  for (const key of ['excused', 'faults'] as const)
    for (const [name, count] of outcome[key]) sum[key].set(name, (sum[key].get(name) ?? 0) + count);
}

function print(sum: Sum, realS: number): void {
  const table = (counts: Map<string, number>) => {
    for (const [name, count] of [...counts].sort()) console.log(`  ${String(count).padStart(7)} ${name}`);
  };
  console.log(
    `${sum.seeds} seeds, ${(sum.hostMs / YEAR_MS).toFixed(4)} host-years, ${sum.containers} containers’ lives`,
  );
  console.log(
    `${sum.steps} events, ${sum.frames} frames, ${sum.refusals} starts refused, ${sum.doubles} doubles, of which nobody could have known:`,
  );
  table(sum.excused);
  console.log('what was done to the world:');
  table(sum.faults);
  console.log(`${realS.toFixed(1)} s`);
}
