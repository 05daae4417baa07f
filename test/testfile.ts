/** Runs one test file in a process of its own and collects what became of its tests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { enclose, removeCgroups } from './lab/enclosure.ts';
import type { Outcome } from './reporter.ts';

export interface Conditions {
  /** Longest run of the file. */
  timeoutMs: number;
  /** Whether it gets namespaces of its own. */
  isEnclosed: boolean;
}

export interface FileResult {
  outcomes: Outcome[];
  /** What went wrong with the file itself: it died, hung, or holds no test. */
  fault: string | undefined;
  /** What it printed. */
  output: string;
  durationMs: number;
  /** Of all its processes together. */
  cpuMs: number;
}

/** What is compiled already starts in a third of the time from the sources, and with a quarter less work from the bundle. */
const COMPILED = join(import.meta.dirname, '../node_modules/.cache/compiled');
const REPORTER = join(import.meta.dirname, 'reporter.ts');
const UNTRACKED = join(import.meta.dirname, 'untracked.ts');
const running = new Set<ChildProcess>();

/** Runs a file; `onOutcome` hears of every test as soon as it ends. */
export async function runFile(
  path: string,
  conditions: Conditions,
  onOutcome: (outcome: Outcome) => void,
): Promise<FileResult> {
  const startedMs = Date.now();
  const child = start(path, conditions.isEnclosed);
  running.add(child);
  let cpuMs = 0;
  child.once('exit', () => (cpuMs = cpuSinceLastEnd()));
  const deadline = setTimeout(() => child.kill('SIGKILL'), conditions.timeoutMs);
  const output = collect(child);
  const outcomes = await readOutcomes(child, onOutcome);
  if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
  clearTimeout(deadline);
  running.delete(child);
  // Those of files that run beside it are in use.
  if (conditions.isEnclosed && running.size === 0) await removeCgroups();
  const durationMs = Date.now() - startedMs;
  const fault = findFault(outcomes, child, durationMs, conditions.timeoutMs);
  return { outcomes, fault, output: output(), durationMs, cpuMs };
}

/** Kills the files that run, with everything in their namespaces. */
export async function killAll(): Promise<void> {
  for (const child of running) child.kill('SIGKILL');
  for (const child of running) if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  await removeCgroups();
}

function start(path: string, isEnclosed: boolean): ChildProcess {
  const command = [process.execPath, `--import=${UNTRACKED}`, `--test-reporter=${REPORTER}`, path];
  const stdio: ('ignore' | 'pipe')[] = ['ignore', 'pipe', 'pipe', 'pipe'];
  // What a failed test leaves running in an enclosure shall not keep the file from ending; it dies with the enclosure.
  const env = { NODE_COMPILE_CACHE: COMPILED, ...process.env };
  if (isEnclosed) return enclose(command.toSpliced(1, 0, '--test-force-exit'), stdio, env);
  return spawn(process.execPath, command.slice(1), { stdio, env });
}

/** What this process's ended children have used, by the time at which one was asked about before (proc_pid_stat(5)). */
let countedMs = 0;
const TICK_MS = 10;

/** What a child that has just ended has used, with all its children: the kernel counts it when it is reaped, not before. */
function cpuSinceLastEnd(): number {
  // The name in parentheses may hold spaces; cutime and cstime are the 14th and 15th field behind it.
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  const nowMs = (Number(fields[13]) + Number(fields[14])) * TICK_MS;
  const sinceMs = nowMs - countedMs;
  countedMs = nowMs;
  return sinceMs;
}

function collect(child: ChildProcess): () => string {
  const chunks: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk));
  }
  return () => chunks.join('');
}

async function readOutcomes(child: ChildProcess, onOutcome: (outcome: Outcome) => void): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for await (const line of createInterface(child.stdio[3] as Readable)) {
    const outcome = JSON.parse(line) as Outcome;
    outcomes.push(outcome);
    onOutcome(outcome);
  }
  return outcomes;
}

function findFault(
  outcomes: Outcome[],
  child: ChildProcess,
  durationMs: number,
  timeoutMs: number,
): string | undefined {
  const expected = outcomes.some((outcome) => outcome.result === 'failed') ? 1 : 0;
  if (durationMs >= timeoutMs) return `the file was still running after ${timeoutMs} ms`;
  if (child.exitCode !== expected) return `the file ended with ${child.signalCode ?? `exit code ${child.exitCode}`}`;
  return outcomes.length === 0 ? 'the file holds no test' : undefined;
}
