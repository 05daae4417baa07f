/**
 * Plays worlds from seeds until the time is over, or one seed alone. What is printed is the same for the same seeds; how long
 * it took is printed last.
 */
import { realNowMs } from './globals.ts';
import type { Violation } from './judge.ts';
import { BY_TIME, LIFE, SHARED, SWARM, type Scenario, drawScenario, tell } from './scenario.ts';
import { NAMED_SEEDS } from './seeds.ts';
import { shrink } from './shrink.ts';
import { type Sum, addOutcome, describeSum, newSum } from './sum.ts';
import { drawSweep, sharedSweepSeeds, swarmSweepSeeds, sweepSeeds } from './sweep.ts';
import { play } from './world.ts';

const SHRINK_MS = 60_000;
/** In shorter runs only each thirtieth of the directed scenarios is played, and no lives but of hosts that have nothing but the LAN in common. */
const LEAST_MINUTES_FOR_ALL = 5;
/** Lines of the log that a story ends with. */
const LAST_LINES = 25;

/** Which worlds are played. */
export interface Selection {
  /** Of the first seed, and from one to the next. */
  readonly first: number;
  readonly stride: number;
  /** Seeds beyond this one are not played; infinite without a limit. */
  readonly last: number;
  readonly minutes: number;
  /** `life`, `etcd`, `etcd life`, `swarm`, `swarm life`: seeds of these alone. Empty: the named seeds, the directed ones, then those of each kind in turn. */
  readonly kind: string;
  /** The run ends with the first seed that breaks this rule; empty: with the time. */
  readonly until: string;
  /** The sum is for another process. */
  readonly asJson: boolean;
}

/** Kernels and etcd refuse thousands of times, and nobody reads where: a fault of the simulation shows its place when its seed is told as a story. */
function takeNoStacks(): void {
  Error.stackTraceLimit = 0;
}

/** Answers the exit code. */
export async function runSeeds({ first, stride, last, minutes, kind, until, asJson }: Selection): Promise<number> {
  takeNoStacks();
  const sum = newSum();
  const isOver = () => coreMs() > minutes * 60_000 || (until !== '' && sum.broken[until] !== undefined);
  if (kind === '') {
    for (const { seed } of NAMED_SEEDS) if (!isOver()) await runOne(seed, sum);
  }
  for (const seed of partOf(directedSeeds(kind), first, stride, minutes)) if (!isOver()) await runOne(seed, sum);
  const kinds = kind === '' ? kindsFor(minutes) : [`${kind} `];
  for (let seed = first; seed <= last && !isOver(); seed += stride)
    for (const prefix of kinds) if (!isOver()) await runOne(`${prefix}${seed}`, sum);
  sum.coreMs = coreMs();
  console.log(asJson ? JSON.stringify(sum) : describeSum(sum, realNowMs()).join('\n'));
  return sum.failed.length === 0 ? 0 : 1;
}

/** These seeds, in this order. */
export async function runThese(seeds: readonly string[]): Promise<number> {
  takeNoStacks();
  const sum = newSum();
  for (const seed of seeds) await runOne(seed, sum);
  sum.coreMs = coreMs();
  console.log(describeSum(sum, realNowMs()).join('\n'));
  return sum.failed.length === 0 ? 0 : 1;
}

/** Of one kind: those of swarms with those that have no kind, and those of hosts that share an etcd by themselves. */
function directedSeeds(kind: string): string[] {
  if (kind === '') return [...sweepSeeds(), ...swarmSweepSeeds()];
  if (kind === SWARM.trim()) return swarmSweepSeeds();
  return kind === SHARED.trim() ? sharedSweepSeeds() : [];
}

/** How long this process has kept a core busy: what it waited for others does not count. */
function coreMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Beginnings of seeds. Lives of hosts that share an etcd or are in a swarm take more time than short runs have. */
function kindsFor(minutes: number): string[] {
  const kinds = ['', LIFE, SHARED, SWARM];
  return minutes < LEAST_MINUTES_FOR_ALL ? kinds : [...kinds, `${SHARED}${LIFE}`, `${SWARM}${LIFE}`];
}

/** In an order that leaves no moment out for long. */
function partOf(seeds: readonly string[], first: number, stride: number, minutes: number): string[] {
  const part = minutes >= LEAST_MINUTES_FOR_ALL ? stride : 30 * stride;
  return seeds.filter((_, index) => index % part === first % part);
}

async function runOne(seed: string, sum: Sum): Promise<void> {
  const outcome = await play(scenarioOf(seed));
  addOutcome(sum, seed, outcome);
  for (const violation of outcome.violations) console.log(`seed ${seed}: ${describe(violation)}`);
}

/** One seed: its story, made as short as it can be when it fails; twice, to see that it is the same. */
export async function runStory(seed: string, isLogWanted: boolean): Promise<number> {
  const scenario = scenarioOf(seed);
  const [outcome, again] = [await play(scenario, { keepsLog: true }), await play(scenario)];
  if (isLogWanted) console.log(outcome.log.join('\n'));
  console.log(
    `seed ${seed}: ${outcome.steps} events, log ${outcome.digest.slice(0, 16)}, again ${again.digest.slice(0, 16)}`,
  );
  if (outcome.digest !== again.digest) return 1;
  const [violation] = outcome.violations;
  if (violation === undefined) return 0;
  console.log(describe(violation));
  const untilMs = coreMs() + SHRINK_MS;
  await tellStory(await shrink(scenario, violation.rule, () => coreMs() > untilMs));
  return 1;
}

/** Whether a seed ends with the same records when nothing is cut out of its quiet stretches (quiet.ts). */
export async function runWhole(seed: string): Promise<number> {
  const scenario = scenarioOf(seed);
  const [cut, whole] = [await play(scenario), await play(scenario, { isWhole: true })];
  const isAlike = cut.records.join('\n') === whole.records.join('\n');
  const played = [cut, whole].map(({ playedMs, steps }) => `${Math.round(playedMs / 1000)} s in ${steps} events`);
  console.log(
    `seed ${seed}: ${cut.records.length} records, ${isAlike ? 'the same' : 'others'}: ${played.join(' and ')}`,
  );
  for (const record of whole.records)
    if (!cut.records.includes(record)) console.log(`only when nothing is cut out: ${record}`);
  for (const record of cut.records) if (!whole.records.includes(record)) console.log(`only with the cut: ${record}`);
  for (const violation of [...cut.violations, ...whole.violations]) console.log(describe(violation));
  return isAlike && cut.violations.length + whole.violations.length === 0 ? 0 : 1;
}

async function tellStory(scenario: Scenario): Promise<void> {
  const { hosts, strangers, addresses, quality } = scenario;
  const ipam = hosts.map(({ isDockersIpam }) => (isDockersIpam ? 'Docker’s' : 'own'));
  console.log(
    `hosts with IPAM: ${ipam.join(', ')}; ${strangers.length} strangers; ${addresses} addresses; ${quality} LAN`,
  );
  for (const step of scenario.steps) console.log(`  ${tell(step, scenario)}`);
  const { log } = await play(scenario, { keepsLog: true });
  for (const line of log.filter((one) => !one.includes(' STEP ')).slice(-LAST_LINES)) console.log(`    ${line}`);
}

function scenarioOf(seed: string): Scenario {
  const drawn = seed.replace(BY_TIME, '');
  return { ...(drawSweep(drawn) ?? drawScenario(drawn)), seed, looksByTime: drawn !== seed };
}

function describe({ rule, atMs, what }: Violation): string {
  return `${rule} at ${(atMs / 1000).toFixed(3)} s: ${what}`;
}
