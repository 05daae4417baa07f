/**
 * The administrator's program for conflicts, the setting HOOK: run for each that begins or ends, without a shell, with what there is
 * to say in its environment. Strangers on the LAN decide how often that is, so it is bounded in every way.
 */
import { spawn } from 'node:child_process';
import { lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { getSystemErrorMessage } from 'node:util';
import { type Clock, backgroundClock, systemClock } from './clock.ts';
import * as errors from './errors.ts';
import type { ConflictNews, ToldHappening } from './happenings.ts';
import type { Log } from './log.ts';

/** One of it. */
const RUN_MS = 10_000;
/** At once, on one address never. */
const MOST_RUNNING = 4;
/** That wait for their turn. */
const MOST_WAITING = 100;
/** So many at any time, and then one a second. */
const BURST = 60;
const REFILL_MS = 1000;
/** What was left out is said so often. */
const SAY_MS = 60_000;
/** Characters that it said on its standard error output. */
const MOST_SAID = 1000;
/** After its end. */
const LAST_WORDS_MS = 100;
/** What waits for a device or a dead file server cannot be killed: the daemon does not wait for it longer than this. */
const END_MS = 2000;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** What became of one run. */
interface Outcome {
  /** Null where it ended by itself with exit code 0. */
  readonly failure: string | null;
  readonly said: string;
}

/** Runs the program until it ends or the signal fires, which kills it and all that it started. Never throws. */
type Run = (path: string, env: Readonly<Record<string, string>>, signal: AbortSignal) => Promise<Outcome>;

interface HookParts {
  readonly path: string;
  readonly log: Pick<Log, 'info' | 'warn'>;
  readonly clock?: Clock;
  /** For the end: the process lives until what runs was killed. */
  readonly endClock?: Clock;
  readonly run?: Run;
  /** How each run ended. */
  readonly onRun?: (outcome: 'ok' | 'failed' | 'dropped') => void;
}

/** The file behind all links. Throws HOOK_UNUSABLE for a program that is not root's alone: the daemon would run it as root. */
export function checkHook(path: string): string {
  const refuse = (reason: string): never => {
    throw errors.hookUnusable(path, reason);
  };
  if (!isAbsolute(path)) refuse('it is not an absolute path');
  try {
    const file = realpathSync(path);
    const found = statSync(file);
    if (!found.isFile()) refuse('it is not a file');
    if ((found.mode & 0o111) === 0) refuse('it is not executable');
    for (const place of placesOnTheWay(path)) {
      const entry = lstatSync(place);
      const { uid, mode } = entry;
      // A link has no mode of its own.
      const isOpen = (mode & 0o022) !== 0 && !entry.isSymbolicLink();
      const isSticky = place !== file && (mode & 0o1000) !== 0;
      if (uid !== 0) refuse(`${errors.quote(place)} does not belong to root`);
      if (isOpen && !isSticky) refuse(`others than root may write ${errors.quote(place)}`);
    }
    return file;
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    return refuse(getSystemErrorMessage(errno));
  }
}

/** Each directory and link that leads to the file, and the file: whoever may change one of them says what is run. */
function* placesOnTheWay(path: string): Generator<string> {
  const ahead = path.split('/');
  let place = '/';
  for (let name = ahead.shift(); name !== undefined; name = ahead.shift()) {
    const next = join(place, name);
    yield next;
    if (!lstatSync(next).isSymbolicLink()) place = next;
    else {
      const target = readlinkSync(next);
      if (isAbsolute(target)) place = '/';
      ahead.unshift(...target.split('/'));
    }
  }
}

/** Hears of conflicts, and has the program run. */
export class Hook {
  readonly #parts: HookParts;
  readonly #clock: Clock;
  readonly #waiting: ConflictEvent[] = [];
  /** By address or MAC address. */
  readonly #running = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();
  #tokens = BURST;
  #tokensAtMs: number;
  #dropped = 0;
  #cancelSaying: (() => void) | undefined;

  constructor(parts: HookParts) {
    this.#parts = parts;
    this.#clock = parts.clock ?? backgroundClock;
    this.#tokensAtMs = this.#clock.nowMs();
  }

  /** For a conflict of a container that begins or ends the program runs soon, or is left out where that is too often. */
  hear(happening: ToldHappening): void {
    if (happening.what !== 'conflict' || this.#stop.signal.aborted) return;
    if (happening.state !== 'begun' && happening.state !== 'ended') return;
    // Somebody who has an address of the range is in nobody's way.
    if (happening.ourMacAddress === null) return;
    if (this.#waiting.length >= MOST_WAITING || !this.#takeToken()) return this.#leaveOut();
    this.#waiting.push(happening);
    this.#pump();
  }

  /** What runs is killed, and left behind if it does not end. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#cancelSaying?.();
    this.#waiting.length = 0;
    const { endClock = systemClock, log, path } = this.#parts;
    const { promise: late, resolve } = Promise.withResolvers<'late'>();
    const cancel = endClock.after(END_MS, () => resolve('late'));
    const end = await Promise.race([Promise.all(this.#running.values()), late]);
    cancel();
    if (end === 'late') log.warn('the hook cannot be killed, and is left behind', { hook: path });
  }

  #takeToken(): boolean {
    const nowMs = this.#clock.nowMs();
    const refilled = Math.floor((nowMs - this.#tokensAtMs) / REFILL_MS);
    this.#tokens = Math.min(BURST, this.#tokens + refilled);
    this.#tokensAtMs = this.#tokens === BURST ? nowMs : this.#tokensAtMs + refilled * REFILL_MS;
    if (this.#tokens === 0) return false;
    this.#tokens--;
    return true;
  }

  #leaveOut(): void {
    this.#dropped++;
    this.#parts.onRun?.('dropped');
    this.#cancelSaying ??= this.#clock.after(SAY_MS, () => {
      this.#cancelSaying = undefined;
      this.#parts.log.warn('conflicts began or ended too often: the hook was not run for each', {
        left_out: this.#dropped,
      });
      this.#dropped = 0;
    });
  }

  #pump(): void {
    while (this.#running.size < MOST_RUNNING) {
      const at = this.#waiting.findIndex((one) => !this.#running.has(keyOf(one)));
      const [next] = at < 0 ? [] : this.#waiting.splice(at, 1);
      if (next === undefined) return;
      const key = keyOf(next);
      const running = this.#runFor(next).then(() => {
        this.#running.delete(key);
        this.#pump();
      });
      this.#running.set(key, running);
    }
  }

  async #runFor(event: ConflictEvent): Promise<void> {
    const { path, log, run = runProgram } = this.#parts;
    const late = new AbortController();
    const cancel = this.#clock.after(RUN_MS, () => late.abort());
    const signal = AbortSignal.any([late.signal, this.#stop.signal]);
    const { failure, said } = await run(path, environmentOf(event), signal);
    cancel();
    const isLate = late.signal.aborted;
    const fields = { hook: path, event: event.state, address: event.address, parent: event.parent };
    this.#parts.onRun?.(failure === null ? 'ok' : 'failed');
    if (failure === null) return log.info('the hook has run', fields);
    if (this.#stop.signal.aborted) return;
    const error = isLate ? `it did not end within ${RUN_MS / 1000} seconds and was killed` : failure;
    log.warn('the hook failed', { ...fields, error, ...(said && { said }) });
  }
}

type ConflictEvent = ConflictNews & Pick<ToldHappening, 'time'>;

function keyOf({ kind, parent, address, ourMacAddress }: ConflictEvent): string {
  return `${parent} ${kind === 'mac' ? ourMacAddress : address}`;
}

/** Names of hosts come from elsewhere: no control character goes on. */
function environmentOf(event: ConflictEvent): Record<string, string> {
  const values = {
    EVENT: `conflict-${event.state}`,
    TIME: event.time,
    KIND: event.kind,
    ADDRESS: event.address,
    PARENT: event.parent,
    MAC: event.macAddress,
    OUR_MAC: event.ourMacAddress,
    HOST_LINK: event.hostLink,
    NODE: event.node,
    COUNT: String(event.count),
    SINCE: event.firstSeenAt,
    ENDPOINT: event.endpointId,
    NETWORK: event.networkId,
  };
  const named = Object.entries(values).map(([name, value]) => [
    `TSMACVLAN_${name}`,
    errors.escapeControls(value ?? ''),
  ]);
  return { PATH, ...(Object.fromEntries(named) as Record<string, string>) };
}

/** Its process group goes with it: what it has started in the background too. */
const runProgram: Run = (path, env, signal) => {
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  let said = '';
  try {
    // It may have been replaced since the start.
    const file = checkHook(path);
    const child = spawn(file, [], {
      argv0: path,
      env,
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    const kill = () => {
      killGroup(child.pid);
      // One that cannot be killed does not keep the daemon's process.
      child.unref();
      (child.stderr as Socket | null)?.unref();
    };
    const end = (failure: string | null) => {
      signal.removeEventListener('abort', kill);
      child.stderr?.destroy();
      resolve({ failure, said: said.trim() });
    };
    signal.addEventListener('abort', kill, { once: true });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(0, MOST_SAID)));
    child.on('error', ({ message }) => end(message));
    child.on('exit', (code, by) => {
      const failure = code === 0 ? null : code === null ? `ended by ${by}` : `exit code ${code}`;
      // Something in the background may hold the pipe for ever.
      const late = setTimeout(() => end(failure), LAST_WORDS_MS);
      child.once('close', () => {
        clearTimeout(late);
        end(failure);
      });
    });
    if (signal.aborted) kill();
  } catch (error) {
    resolve({ failure: error instanceof Error ? error.message : String(error), said });
  }
  return promise;
};

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, constants.signals.SIGKILL);
  } catch {
    // It has ended.
  }
}
