/**
 * Runs test levels or single test files: `node test/run.ts unit docker`, `node test/run.ts test/docker/lab.test.ts`.
 * All files stand in one queue (queue.ts), and each begins as soon as the downloads of its level are there. The last line is
 * `N passed, N failed`, with `, N skipped` when there are any; the exit code is 1 when a test failed or none ran.
 *
 * `DURATIONS=yes` writes how long each file took, and how much of a core, into the table that the queue goes by.
 */
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join, relative, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { obstacle } from './lab/enclosure.ts';
import {
  buildSite,
  fetchBare,
  fetchBrowser,
  fetchDhcp,
  fetchEngines,
  fetchEtcd,
  fetchUml,
  installTools,
} from './lab/packages.ts';
import { type Job, type Load, Queue } from './queue.ts';
import type { Outcome } from './reporter.ts';
import { type Conditions, type FileResult, killAll, runFile } from './testfile.ts';

const DOWNLOADS = {
  tools: installTools,
  etcd: fetchEtcd,
  engines: fetchEngines,
  uml: fetchUml,
  bare: fetchBare,
  browser: fetchBrowser,
  dhcp: fetchDhcp,
  site: buildSite,
};
type Download = keyof typeof DOWNLOADS;

/** `cores` is for files that are not in the table yet. */
interface Level extends Conditions, Load {
  readonly needs: readonly Download[];
}

interface TestFile extends Job {
  readonly level: Level;
}

/** How long a file took on a machine that did not much else, and what part of a core it kept busy. */
interface Duration {
  readonly seconds: number;
  readonly cores: number;
}

const MINUTE_MS = 60_000;
const LAB_NEEDS: readonly Download[] = ['tools', 'etcd'];

/** A kernel of its own takes up to 2 GB and its tests' own files. */
const LEVELS: Record<string, Level> = {
  unit: { timeoutMs: 5 * MINUTE_MS, isEnclosed: false, needs: [], cores: 1, memoryMb: 300 },
  // They keep a core busy each, and wait for what the files need that need calm: those come first.
  sim: { timeoutMs: 5 * MINUTE_MS, isEnclosed: false, needs: LAB_NEEDS, cores: 1, memoryMb: 700 },
  package: { timeoutMs: 10 * MINUTE_MS, isEnclosed: false, needs: LAB_NEEDS, cores: 1, memoryMb: 500 },
  netns: { timeoutMs: 10 * MINUTE_MS, isEnclosed: true, needs: LAB_NEEDS, cores: 0.25, memoryMb: 500 },
  docker: {
    timeoutMs: 20 * MINUTE_MS,
    isEnclosed: true,
    needs: [...LAB_NEEDS, 'engines'],
    cores: 0.75,
    memoryMb: 1500,
  },
  install: {
    timeoutMs: 10 * MINUTE_MS,
    isEnclosed: true,
    needs: ['tools', 'engines', 'bare'],
    cores: 0.75,
    memoryMb: 1500,
  },
  vlan: {
    timeoutMs: 20 * MINUTE_MS,
    isEnclosed: true,
    needs: [...LAB_NEEDS, 'engines', 'uml'],
    cores: 1,
    memoryMb: 2500,
  },
  swarm: { timeoutMs: 25 * MINUTE_MS, isEnclosed: true, needs: [...LAB_NEEDS, 'engines'], cores: 1.5, memoryMb: 3000 },
};

const TESTS = import.meta.dirname;
const TABLE = join(TESTS, 'durations.json');
const durations = JSON.parse(readFileSync(TABLE, 'utf8')) as Record<string, Duration>;
/** A file that nobody has measured begins early: it may be a long one. */
const UNKNOWN_SECONDS = 100;

/** For runs that are longer than a level's usual file, and whose figures are wanted. */
const FILE_MINUTES = Number(process.env.FILE_MINUTES ?? 0);

/** Whatever else runs on the machine needs memory too. */
const MEMORY_MB = (totalmem() / 2 ** 20) * 0.75;
/** How long the machine is looked at before the first file, and what is left to the tests on one that is never idle. */
const LOOK_MS = 1000;
const MOST_LOOKS = 8;
const LEAST_CORES = 0.75;
/**
 * The table has averages; the rest is for moments in which several files want more. Two of a machine's cores may be one that is
 * shared, and then more at once is more work and not sooner done: the same files took 1,170 core-seconds with 0.7 and 1,330 with 0.95,
 * and the same time.
 */
const SHARE_TO_FILL = 0.75;
/**
 * Files that play moments of some milliseconds on many hosts at once. Beside others that fill the machine the kernel's queues between
 * those hosts stand longer than the moments last, and nothing is learnt.
 */
const NEED_CALM: ReadonlySet<string> = new Set(
  ['frames', 'probe-load', 'probe-race', 'returning', 'takers'].map((name) => join('netns', `${name}.test.ts`)),
);

/** What a file needs beside what its level does, by the word that it asks with whether that is there: begun too early it would skip itself. */
const NEED_OF_WORD: Readonly<Record<string, Download>> = {
  withoutBrowser: 'browser',
  withoutDhcp: 'dhcp',
  'dist/site': 'site',
};

/** Lines that a file prints for people to see although it passed, such as an engine that died of a fault of its own. */
const NOTES = /^note: .*$/gm;

const results: (Outcome & { file: string })[] = [];
const measured: Record<string, Duration> = {};

async function main(args: string[]): Promise<number> {
  const files = [...new Set(args.flatMap(findFiles))].map(toTestFile);
  await runAll(skipWhatCannotRun(files));
  if (process.env.DURATIONS) writeDurations();
  return summarize();
}

/** A level's name stands for all its files. */
function findFiles(arg: string): string[] {
  if (LEVELS[arg]) return globSync(`${arg}/**/*.test.ts`, { cwd: TESTS });
  const file = relative(TESTS, arg);
  if (LEVELS[levelOf(file)] && existsSync(join(TESTS, file))) return [file];
  console.error(`"${arg}" is neither a level (${Object.keys(LEVELS).join(', ')}) nor a test file of one`);
  process.exit(2);
}

function levelOf(file: string): string {
  return file.split(sep)[0] ?? '';
}

function toTestFile(file: string): TestFile {
  const usual = LEVELS[levelOf(file)] as Level;
  const level = {
    ...usual,
    needs: [...usual.needs, ...needsInWords(file)],
    timeoutMs: Math.max(usual.timeoutMs, FILE_MINUTES * MINUTE_MS),
  };
  const { seconds, cores } = durations[file] ?? { seconds: UNKNOWN_SECONDS, cores: level.cores };
  // What only computes bears its like: as many as there are cores.
  const share = level.isEnclosed ? cores : Math.min(cores, SHARE_TO_FILL);
  return { file, level, seconds, cores: share, memoryMb: level.memoryMb, needsCalm: NEED_CALM.has(file) };
}

function needsInWords(file: string): Download[] {
  const text = readFileSync(join(TESTS, file), 'utf8');
  return Object.entries(NEED_OF_WORD).flatMap(([word, need]) => (text.includes(word) ? [need] : []));
}

/** Answers the others. */
function skipWhatCannotRun(files: readonly TestFile[]): TestFile[] {
  const reason = files.some(({ level }) => level.isEnclosed) ? obstacle() : undefined;
  if (!reason) return [...files];
  const { true: skipped = [], false: rest = [] } = Object.groupBy(files, ({ level }) => `${level.isEnclosed}` as const);
  for (const { file } of skipped) results.push({ file, name: [], result: 'skipped', durationMs: 0, detail: reason });
  return rest;
}

async function runAll(files: readonly TestFile[]): Promise<void> {
  const cores = files.length > 1 ? await idleCores() : 1;
  if (files.length > 1)
    console.log(`${files.length} files on ${cores} cores that have nothing else to do, the largest first`);
  const queue = new Queue(files, { cores, memoryMb: MEMORY_MB });
  const downloads = new Downloads(files.flatMap(({ level }) => level.needs));
  const running = new Set<Promise<void>>();
  const isThere = (need: Download) => downloads.present.has(need);
  // Unpacking what was downloaded fills the machine too.
  const isReady = ({ level, needsCalm }: TestFile) =>
    level.needs.every(isThere) && (!needsCalm || downloads.pending.size === 0);
  for (;;) {
    for (let file = queue.next(isReady); file; file = queue.next(isReady)) {
      const begun: TestFile = file;
      const run = runAndShow(begun, files.length === 1).finally(() => {
        queue.ended(begun);
        running.delete(run);
      });
      running.add(run);
    }
    const events = [...running, ...downloads.pending];
    if (events.length === 0) return;
    await Promise.race(events);
  }
}

/**
 * What other work leaves of the machine: files that were begun beside it as if it were not there would stand still for seconds. Looked
 * at more than once, as what was built a moment ago is still written to the disk.
 */
async function idleCores(): Promise<number> {
  const enough = SHARE_TO_FILL * availableParallelism() - 0.1;
  let most = LEAST_CORES;
  for (let look = 0; look < MOST_LOOKS && most < enough; look++) most = Math.max(most, await idleCoresNow());
  return most;
}

async function idleCoresNow(): Promise<number> {
  const idleMs = () => cpus().reduce((sum, { times }) => sum + times.idle, 0);
  const [beganMs, before] = [performance.now(), idleMs()];
  await sleep(LOOK_MS);
  const idle = (SHARE_TO_FILL * (idleMs() - before)) / (performance.now() - beganMs);
  return Math.min(availableParallelism(), Math.round(idle * 10) / 10);
}

/** All that the files need is fetched at once, beside the first of them. */
class Downloads {
  readonly present = new Set<Download>();
  readonly pending = new Set<Promise<void>>();

  constructor(needs: readonly Download[]) {
    for (const need of new Set(needs)) {
      const fetching = this.#fetch(need).finally(() => this.pending.delete(fetching));
      this.pending.add(fetching);
    }
  }

  /** A level that cannot get what it needs has failed, and the others go on. */
  async #fetch(need: Download): Promise<void> {
    try {
      await DOWNLOADS[need](console.log);
      this.present.add(need);
    } catch (error) {
      const failure: Outcome = { name: ['set-up'], result: 'failed', durationMs: 0, detail: String(error) };
      results.push({ file: need, ...failure });
      show(failure);
    }
  }
}

async function runAndShow({ file, level }: TestFile, isAlone: boolean): Promise<void> {
  // Files that run side by side would talk in each other's lines: they show at their end what was not a pass.
  const onOutcome = isAlone ? show : () => {};
  const before = timesNeighboursWereFull();
  const result = await runFile(join(TESTS, file), level, onOutcome);
  const { outcomes, fault, output, durationMs } = result;
  measured[file] = toDuration(result);
  if (fault) outcomes.push({ name: [], result: 'failed', durationMs, detail: fault });
  for (const outcome of outcomes) results.push({ file, ...outcome });
  console.log(`  ${file}: ${count(outcomes)} in ${seconds(durationMs)}, ${measured[file].cores.toFixed(2)} cores`);
  for (const outcome of isAlone ? outcomes.filter(isFault) : outcomes) if (outcome.result !== 'passed') show(outcome);
  if (output && (FILE_MINUTES > 0 || outcomes.some(({ result }) => result === 'failed')))
    console.log(indent(`it printed:\n${output}`));
  else for (const [note] of output.matchAll(NOTES)) console.log(indent(note));
  const times = timesNeighboursWereFull() - before;
  if (times > 0)
    console.log(
      indent(`note: the kernel's table of neighbours was full ${times} times while this ran: nobody answered then`),
    );
}

/**
 * The table (ARP and IPv6, 1,024 rows each) is one for all namespaces: a file that fills it fails the files beside it. The last column of
 * each line, one line for each core, in hexadecimal (net/core/neighbour.c, neigh_stat_seq_show).
 */
function timesNeighboursWereFull(): number {
  const lines = ['arp_cache', 'ndisc_cache']
    .map((name) => `/proc/net/stat/${name}`)
    .filter((path) => existsSync(path))
    .flatMap((path) => readFileSync(path, 'utf8').trim().split('\n').slice(1));
  return lines.reduce((sum, line) => sum + Number.parseInt(line.split(/\s+/).at(-1) ?? '0', 16), 0);
}

function toDuration({ durationMs, cpuMs }: FileResult): Duration {
  const round = (value: number, digits: number) => Number(value.toFixed(digits));
  return { seconds: round(durationMs / 1000, 1), cores: round(cpuMs / Math.max(durationMs, 1), 2) };
}

/** Rows of files that did not run stay, those of files that are gone go. */
function writeDurations(): void {
  const isThere = (file: string) => globSync(file, { cwd: TESTS }).length > 0;
  const rows = Object.entries({ ...durations, ...measured }).filter(([file]) => isThere(file));
  const lines = rows
    .sort()
    .map(([file, { seconds, cores }]) => `"${file}": { "seconds": ${seconds}, "cores": ${cores} }`);
  writeFileSync(TABLE, `{\n  ${lines.join(',\n  ')}\n}\n`);
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
