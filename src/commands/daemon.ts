/** Which daemon runs here, whatever way it was installed, and questions to it. */
import { type Dirent, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as errors from '../errors.ts';
import { SETTINGS, readSettings } from '../settings.ts';
import { parseSettingsFile } from '../settingsfile.ts';
import { askDaemon, knock } from '../server/client.ts';

/** Where the unit has its settings. */
export const SERVICE_SETTINGS = '/etc/default/tsmacvlan';

/** What the service of this host is told; nothing to a user who may not read it, nor may he ask the service. */
export function settingsOfService(): Record<string, string> {
  try {
    return parseSettingsFile(readFileSync(SERVICE_SETTINGS, 'utf8'));
  } catch {
    return {};
  }
}

/** What SOCKET says is the only one asked; without it the service's and the sockets that engines look for are. Null: none answers. */
export async function findDaemon(): Promise<string | null> {
  const named = process.env[SETTINGS.SOCKET.name]?.trim();
  if (named) return (await answers(named)) ? named : null;
  const usual = SETTINGS.SOCKET.fallback;
  if (await answers(usual)) return usual;
  const ofService = settingsOfService()[SETTINGS.SOCKET.name]?.trim() || usual;
  const others = [ofService, ...socketsBelow(dirname(usual))].filter((path) => path !== usual);
  const heard = await Promise.all(others.map(answers));
  return others.find((_, position) => heard[position]) ?? null;
}

/** Throws DAEMON_ABSENT where none runs, else as askDaemon(). */
export async function askRunning(call: string, body: object): Promise<unknown> {
  return askDaemon(await findOrThrow(), call, body);
}

/** As findDaemon(), but throws DAEMON_ABSENT where none runs. */
export async function findOrThrow(): Promise<string> {
  const socket = await findDaemon();
  if (socket !== null) return socket;
  const named = readSettings(process.env).sockets[0] ?? '';
  throw errors.daemonAbsent(named, process.env[SETTINGS.SOCKET.name]?.trim() ? 'nothing answers' : NO_SOCKET);
}

const NO_SOCKET = 'nor does one on another socket there';

/** Throws ROOT_NEEDED: what may not be asked may well be the daemon. */
async function answers(path: string): Promise<boolean> {
  const outcome = await knock(path);
  if (outcome === 'forbidden') throw errors.rootNeeded(`socket ${errors.quote(path)}`);
  return outcome === 'ours';
}

/** Those of legacy plugins, and of managed ones in a directory each, with the engine's own name of it. */
function socketsBelow(directory: string): string[] {
  const managed = entriesOf(directory).filter((entry) => entry.isDirectory());
  return [directory, ...managed.map(({ name }) => join(directory, name))].flatMap(socketsIn);
}

function socketsIn(directory: string): string[] {
  return entriesOf(directory).flatMap((entry) => (entry.isSocket() ? [join(directory, entry.name)] : []));
}

/** None where the directory is not there: one of a plugin goes with it, also while it is looked at. Throws ROOT_NEEDED. */
function entriesOf(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES') throw errors.rootNeeded(`directory ${errors.quote(directory)}`);
    return [];
  }
}
