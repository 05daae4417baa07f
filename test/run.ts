/**
 * Runs test levels or single test files: `node test/run.ts unit docker`, `node test/run.ts test/docker/lab.test.ts`.
 * The last line is `N passed, N failed`, with `, N skipped` when there are any; the exit code is 1 when a test failed or
 * none ran.
 */
import { globSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { join, relative, sep } from 'node:path';
import { obstacle } from './lab/enclosure.ts';
import { fetchEngines, fetchEtcd, fetchUml, installTools } from './lab/packages.ts';
import type { Outcome } from './reporter.ts';
import { type Conditions, killAll, runFile } from './testfile.ts';

interface Level extends Conditions {
  /** How many files run side by side. */
  atOnce: number;
  /** Whether it needs Docker engines. */
  hasEngines: boolean;
  /** Whether it boots a kernel that has VLANs. */
  hasVlanKernel?: boolean;
}

const MINUTE_MS = 60_000;
/** For runs that are longer than a level's usual file, and whose figures are wanted. */
const FILE_MINUTES = Number(process.env.FILE_MINUTES ?? 0);

const CORES = availableParallelism();
/** A kernel of its own keeps one core busy and takes up to 2 GB. */
const GUESTS = Math.max(1, Math.min(CORES, Math.floor(totalmem() / (6 * 2 ** 30))));

/** Most tests wait for the LAN's silence or an engine; a swarm keeps all cores busy. */
const LEVELS: Record<string, Level> = {
  unit: { timeoutMs: 5 * MINUTE_MS, atOnce: CORES, isEnclosed: false, hasEngines: false },
  package: { timeoutMs: 10 * MINUTE_MS, atOnce: CORES, isEnclosed: false, hasEngines: false },
  netns: { timeoutMs: 10 * MINUTE_MS, atOnce: CORES, isEnclosed: true, hasEngines: false },
  docker: { timeoutMs: 20 * MINUTE_MS, atOnce: CORES, isEnclosed: true, hasEngines: true },
  vlan: { timeoutMs: 20 * MINUTE_MS, atOnce: GUESTS, isEnclosed: true, hasEngines: true, hasVlanKernel: true },
  swarm: { timeoutMs: 25 * MINUTE_MS, atOnce: 1, isEnclosed: true, hasEngines: true },
};

const TESTS = import.meta.dirname;
const results: (Outcome & { file: string })[] = [];

async function main(args: string[]): Promise<number> {
  const byLevel = Object.groupBy(args.flatMap(findFiles), levelOf);
  for (const [name, files = []] of Object.entries(byLevel)) await runLevel(name, files);
  return summarize();
}

/** A level's name stands for all its files. */
function findFiles(arg: string): string[] {
  if (LEVELS[arg]) return globSync(`${arg}/**/*.test.ts`, { cwd: TESTS }).sort();
  const file = relative(TESTS, arg);
  if (LEVELS[levelOf(file)]) return [file];
  console.error(`"${arg}" is neither a level (${Object.keys(LEVELS).join(', ')}) nor a test file of one`);
  process.exit(2);
}

function levelOf(file: string): string {
  return file.split(sep)[0] ?? '';
}

async function runLevel(name: string, files: string[]): Promise<void> {
  const usual = LEVELS[name] as Level;
  const level = { ...usual, timeoutMs: Math.max(usual.timeoutMs, FILE_MINUTES * MINUTE_MS) };
  console.log(`\n${name}: ${files.length} ${files.length === 1 ? 'file' : 'files'}`);
  const reason = level.isEnclosed ? obstacle() : undefined;
  if (reason) {
    for (const file of files) results.push({ file, name: [], result: 'skipped', durationMs: 0, detail: reason });
    return;
  }
  if (!(await prepare(name, level))) return;
  if (level.hasVlanKernel) await fetchUml(console.log);
  const queue = [...files];
  const work = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) await runAndShow(file, level);
  };
  await Promise.all(Array.from({ length: level.atOnce }, work));
}

/** Fetches what the level needs; a level that cannot get it has failed, and the others go on. */
async function prepare(name: string, level: Level): Promise<boolean> {
  try {
    if (level.isEnclosed) {
      await installTools(console.log);
      await fetchEtcd(console.log);
    }
    if (level.hasEngines) await fetchEngines(console.log);
    return true;
  } catch (error) {
    const failure: Outcome = { name: ['set-up'], result: 'failed', durationMs: 0, detail: String(error) };
    results.push({ file: name, ...failure });
    show(failure);
    return false;
  }
}

async function runAndShow(file: string, level: Level): Promise<void> {
  // Files that run side by side would talk in each other's lines: they show at their end what was not a pass.
  const isAlone = level.atOnce === 1;
  const onOutcome = isAlone ? show : () => {};
  const { outcomes, fault, output, durationMs } = await runFile(join(TESTS, file), level, onOutcome);
  if (fault) outcomes.push({ name: [], result: 'failed', durationMs, detail: fault });
  for (const outcome of outcomes) results.push({ file, ...outcome });
  console.log(`  ${file}: ${count(outcomes)} in ${seconds(durationMs)}`);
  for (const outcome of isAlone ? outcomes.filter(isFault) : outcomes) if (outcome.result !== 'passed') show(outcome);
  if (output && (FILE_MINUTES > 0 || outcomes.some(({ result }) => result === 'failed')))
    console.log(indent(`it printed:\n${output}`));
}

/** A failure of the file itself has no test's name. */
function isFault(outcome: Outcome): boolean {
  return outcome.name.length === 0;
}

function show(outcome: Outcome): void {
  const mark = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' }[outcome.result];
  console.log(`    ${mark} ${outcome.name.join(' > ') || 'the file'} (${seconds(outcome.durationMs)})`);
  if (outcome.detail) console.log(indent(outcome.detail));
}

function summarize(): number {
  const failed = results.filter((outcome) => outcome.result === 'failed');
  const skipped = results.filter((outcome) => outcome.result === 'skipped');
  console.log('');
  for (const { file, name, detail } of skipped) console.log(`skipped: ${[file, ...name].join(' > ')}: ${detail}`);
  for (const { file, name } of failed) console.log(`failed: ${[file, ...name].join(' > ')}`);
  if (results.length === 0) console.log('no test was found');
  console.log(count(results));
  return failed.length > 0 || results.length === skipped.length ? 1 : 0;
}

function count(outcomes: Outcome[]): string {
  const of = (result: Outcome['result']) => outcomes.filter((outcome) => outcome.result === result).length;
  return `${of('passed')} passed, ${of('failed')} failed${of('skipped') ? `, ${of('skipped')} skipped` : ''}`;
}

function indent(text: string): string {
  return text.trimEnd().replaceAll(/^/gm, '         ');
}

function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(1)} s`;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    // Files that are killed now have not failed: nothing more is said.
    console.log = () => {};
    void killAll().finally(() => process.exit(130));
  });
}

process.exitCode = await main(process.argv.slice(2));
