/** The daemon as a process: one in its network namespace, with signals, systemd and settings that are read again. */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import * as errors from './errors.ts';
import { returnFreedMemory } from './kernel/libc.ts';
import { type NamespaceHolder, lockNetworkNamespace, ownPidNamespace } from './kernel/oneprocess.ts';
import { sendDatagram } from './kernel/unix.ts';
import { createLog, type DaemonLog, type Log } from './log.ts';
import { type Daemon, startDaemon } from './main.ts';
import { changedSettings, liveSettings, readSettings, type Setting, type Settings } from './settings.ts';
import { parseSettingsFile } from './settingsfile.ts';
import { Systemd } from './systemd.ts';

/** How often freed memory is given back to the kernel, and the socket's file is looked for. */
const TEND_MS = 5000;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Runs until SIGTERM or SIGINT; SIGHUP has the settings read again. Throws a sentence when it cannot start, and under systemd
 * the process then ends some seconds later.
 */
export async function serveUntilSignal(environment: Environment): Promise<void> {
  stayLean();
  const systemd = new Systemd(environment, sendDatagram);
  // Before anything can take time: SIGHUP would end the process.
  let hangUp = (): void => undefined;
  process.on('SIGHUP', () => hangUp());
  const { daemon, log, settings, unlock } = await start(environment).catch((error: unknown) => {
    systemd.refused(messageOf(error));
    throw error;
  });
  hangUp = rereading(environment, daemon, log);
  systemd.ready(`listening on ${settings.sockets.join(' and ')}`);
  setInterval(() => {
    // What Maglev allocated while it compiled, glibc would keep for ever.
    returnFreedMemory();
    void daemon.listenAgain();
  }, TEND_MS).unref();
  const signal = await new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, resolve);
  });
  log.info('stopping', { signal });
  systemd.stopping();
  await daemon.stop();
  unlock();
}

async function start(environment: Environment) {
  const settings = readSettings(environment);
  const log = createLog(settings.logLevel, settings.logFormat);
  const unlock = await lock(settings, log);
  try {
    return { settings, log, unlock, daemon: await startDaemon(settings, log) };
  } catch (error) {
    unlock();
    throw error;
  }
}

/** Answers what gives the lock back. Throws DAEMON_HELD. */
async function lock({ sockets, stateDirectory }: Settings, log: Log): Promise<() => void> {
  const taken = await lockNetworkNamespace({ sockets, stateDirectory });
  if (taken.holder !== null) throw refusal(taken.holder);
  if (!taken.isUsual)
    log.warn('a program that is no tsmacvlan has the name of its lock; the lock has another name', {
      lock: taken.name,
    });
  return () => taken.release();
}

function refusal({ pid, says }: NamespaceHolder): errors.PluginError {
  const isSeen = says === null || says.pidNamespace === ownPidNamespace();
  return errors.daemonHeld(isSeen ? pid : null, says);
}

/**
 * What SIGHUP does: what the settings' file says by now is taken over as far as a running daemon can, and what it cannot is named.
 * A mistake in it changes nothing. Systemd reads that file into the environment of a start, and the unit says where it is.
 */
function rereading(environment: Environment, daemon: Daemon, log: DaemonLog): () => void {
  const path = environment['SETTINGS_FILE'];
  if (path === undefined)
    return () =>
      log.warn('nothing is read again: the settings come from the environment; restart tsmacvlan to change them');
  const beside = without(environment, path);
  let current = environment;
  return () => {
    try {
      const next = { ...beside, ...readSettingsFile(path) };
      const live = liveSettings(readSettings(next));
      const changed = changedSettings(current, next);
      daemon.change(live);
      const [taken, left] = [changed.filter(({ isLive }) => isLive), changed.filter(({ isLive }) => !isLive)];
      current = { ...current, ...Object.fromEntries(taken.map(({ name }) => [name, next[name]])) };
      log.info('settings are read again', { file: path, changed: namesOf(taken) });
      log.setLevel(live.logLevel);
      if (left.length > 0) log.warn('changed settings need a restart of tsmacvlan', { settings: namesOf(left) });
    } catch (error) {
      log.error('the settings stay as they are', { file: path, error: messageOf(error) });
    }
  };
}

/** Nothing when there is no such file, as for systemd. Throws the system's other errors. */
function readSettingsFile(path: string): Record<string, string> {
  try {
    return parseSettingsFile(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
}

/** The environment without what the file brought into it. */
function without(environment: Environment, path: string): Environment {
  let brought: Record<string, string> = {};
  try {
    brought = readSettingsFile(path);
  } catch {
    // Whoever could read it at the start, systemd, is another user; the first SIGHUP says so.
  }
  return Object.fromEntries(Object.entries(environment).filter(([name, value]) => brought[name] !== value));
}

function namesOf(settings: readonly Setting[]): string {
  return settings.map(({ name }) => name).join(' ') || 'none';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Of V8's optimizing compilers the first, Maglev, makes a call 2.6 times as fast; the second makes it no faster.
 * Garbage is collected when the heap has grown by a fifth: V8 would let that of a thousand new endpoints lie, another
 * 20 MB. The machine has other work to do with its memory. docs/dependencies.md has the figures.
 */
function stayLean(): void {
  for (const flag of ['--no-opt', '--heap-growing-percent=20']) setFlagsFromString(flag);
}
