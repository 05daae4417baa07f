/**
 * Programs started by posix_spawn(3), which copies nothing of this process. Node's own way is a fork: the kernel copies the tables of
 * all its memory, and then each page that is written to, for a program that replaces it at once. That is 1 to 3 ms of a core here, and
 * 10 in the VLAN kernel, as much as `ip` itself takes.
 */
import { closeSync, constants, existsSync, readFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { getSystemErrorMessage } from 'node:util';
import koffi from 'koffi';

const libc = koffi.load(null);
type Actions = Buffer;
const pipe2 = libc.func('int pipe2(_Out_ int *fds, int flags)') as (fds: number[], flags: number) => number;
const waitpid = libc.func('int waitpid(int pid, _Out_ int *status, int flags)') as (
  pid: number,
  status: number[],
  flags: number,
) => number;
const spawnFile = libc.func(
  'int posix_spawn(_Out_ int *pid, const char *path, void *actions, void *attributes, const char **argv, const char **env)',
) as (
  pid: number[],
  path: string,
  actions: Actions,
  attributes: Buffer,
  argv: (string | null)[],
  env: (string | null)[],
) => number;
const initActions = libc.func('int posix_spawn_file_actions_init(void *actions)') as (actions: Actions) => number;
const destroyActions = libc.func('int posix_spawn_file_actions_destroy(void *actions)') as typeof initActions;
const addDup = libc.func('int posix_spawn_file_actions_adddup2(void *actions, int from, int to)') as (
  actions: Actions,
  from: number,
  to: number,
) => number;
const addOpen = libc.func(
  'int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, int mode)',
) as (actions: Actions, fd: number, path: string, flags: number, mode: number) => number;
const initAttributes = libc.func('int posix_spawnattr_init(void *attributes)') as (attributes: Buffer) => number;
const setFlags = libc.func('int posix_spawnattr_setflags(void *attributes, short flags)') as (
  attributes: Buffer,
  flags: number,
) => number;
const setDefaults = libc.func('int posix_spawnattr_setsigdefault(void *attributes, const void *signals)') as (
  attributes: Buffer,
  signals: Buffer,
) => number;
const setMask = libc.func(
  'int posix_spawnattr_setsigmask(void *attributes, const void *signals)',
) as typeof setDefaults;

/** Of spawn.h and fcntl.h. */
const [POSIX_SPAWN_SETSIGDEF, POSIX_SPAWN_SETSIGMASK, O_CLOEXEC, WNOHANG] = [0x04, 0x08, 0o2000000, 1];
/** More than the structures of any C library take. */
const STRUCTURE_BYTES = 1024;
const SIGNALS_BYTES = 128;
const LOOK_MS = 2;

/** A program has the signals as a shell gives them: Node ignores SIGPIPE. */
const ATTRIBUTES = Buffer.alloc(STRUCTURE_BYTES);
initAttributes(ATTRIBUTES);
setFlags(ATTRIBUTES, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
setDefaults(ATTRIBUTES, Buffer.alloc(SIGNALS_BYTES, 0xff));
setMask(ATTRIBUTES, Buffer.alloc(SIGNALS_BYTES));

type Pipe = readonly [reads: number, writes: number];

/** A program that runs, with pipes at its standard output and its standard error. */
export class Program {
  readonly pid: number;
  /** Our end of its standard input; null where that is empty. */
  readonly #stdin: number | null;
  readonly #outputs: readonly [stdout: number, stderr: number];

  private constructor(pid: number, stdin: number | null, outputs: readonly [number, number]) {
    this.pid = pid;
    this.#stdin = stdin;
    this.#outputs = outputs;
  }

  /** Throws when it cannot be run. `hasInput`: something is written to its standard input. */
  static start(argv: readonly string[], env: NodeJS.ProcessEnv, hasInput: boolean): Program {
    const [command = '', ...args] = argv;
    const path = pathOf(command, env.PATH);
    const input = hasInput ? makePipe() : null;
    const [out, err] = [makePipe(), makePipe()];
    const actions: Actions = Buffer.alloc(STRUCTURE_BYTES);
    initActions(actions);
    if (input) addDup(actions, input[0], 0);
    else addOpen(actions, 0, '/dev/null', constants.O_RDONLY, 0);
    addDup(actions, out[1], 1);
    addDup(actions, err[1], 2);
    const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : `${name}=${value}`));
    const pid = [0];
    const errno = spawnFile(pid, path, actions, ATTRIBUTES, [command, ...args, null], [...variables, null]);
    destroyActions(actions);
    for (const fd of [out[1], err[1], ...(input ? [input[0]] : [])]) closeSync(fd);
    if (errno === 0) return new Program(pid[0] ?? 0, input?.[1] ?? null, [out[0], err[0]]);
    for (const fd of [out[0], err[0], ...(input ? [input[1]] : [])]) closeSync(fd);
    throw new Error(`${command} cannot be run: ${getSystemErrorMessage(-errno)}`);
  }

  /** What it prints until it and all that it leaves behind have closed their outputs, or until the signal; then its exit code. */
  async ended(input: string | Buffer, signal: AbortSignal): Promise<{ code: number; stdout: string; stderr: string }> {
    if (this.#stdin !== null) new Socket({ fd: this.#stdin, readable: false }).on('error', () => undefined).end(input);
    const [stdout, stderr] = await Promise.all(this.#outputs.map((fd) => textOf(fd, signal)));
    for (;;) {
      const code = this.#exitCode(WNOHANG);
      if (code !== undefined) return { code, stdout: stdout ?? '', stderr: stderr ?? '' };
      await sleep(LOOK_MS);
    }
  }

  /** The same while this process stands still; what is written and its complaints fit into a pipe. */
  endedSync(input: string): { code: number; stdout: string; stderr: string } {
    if (this.#stdin !== null) {
      writeSync(this.#stdin, input);
      closeSync(this.#stdin);
    }
    const [stdout = '', stderr = ''] = this.#outputs.map((fd) => {
      const text = readFileSync(fd, 'utf8');
      closeSync(fd);
      return text;
    });
    return { code: this.#exitCode(0) ?? 0, stdout, stderr };
  }

  /** Undefined while it runs; 128 when a signal ended it. */
  #exitCode(flags: number): number | undefined {
    const status = [0];
    const ended = waitpid(this.pid, status, flags);
    if (ended === 0) return undefined;
    // Without it a program of which nothing is known would count as one that succeeded.
    if (ended < 0) throw new Error(`process ${this.pid}: ${getSystemErrorMessage(-koffi.errno())}`);
    const [word = 0] = status;
    return (word & 0x7f) === 0 ? (word >> 8) & 0xff : 128;
  }
}

function makePipe(): Pipe {
  const ends = [0, 0];
  if (pipe2(ends, O_CLOEXEC) < 0) throw new Error(`no pipe: ${getSystemErrorMessage(-koffi.errno())}`);
  return ends as unknown as Pipe;
}

function textOf(fd: number, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: string[] = [];
    const socket = new Socket({ fd, writable: false, signal });
    socket.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk));
    socket.once('close', () => resolve(chunks.join('')));
    socket.once('error', (error) => signal.aborted || reject(error));
  });
}

/** Found as a shell finds it, in the PATH that the program gets. */
function pathOf(command: string, searched = process.env.PATH ?? ''): string {
  if (command.includes('/')) return command;
  const paths = searched.split(delimiter).map((directory) => join(directory, command));
  return paths.find((path) => existsSync(path)) ?? command;
}
