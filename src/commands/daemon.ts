/** Which daemon runs here, whatever way it was installed, and questions to it. */
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as errors from '../errors.ts';
import { SETTINGS, readSettings } from '../settings.ts';
import { askDaemon, knock } from '../server/client.ts';

/** What SOCKET says is the only one asked; without it the sockets that engines look for are. Null: none answers. */
export async function findDaemon(): Promise<string | null> {
  const named = process.env[SETTINGS.SOCKET.name]?.trim();
  if (named) return (await answers(named)) ? named : null;
  const usual = SETTINGS.SOCKET.fallback;
  if (await answers(usual)) return usual;
  const others = socketsBelow(dirname(usual)).filter((path) => path !== usual);
  const heard = await Promise.all(others.map(answers));
  return others.find((_, position) => heard[position]) ?? null;
}

/** Throws DAEMON_ABSENT where none runs, else as askDaemon(). */
export async function askRunning(call: string, body: object): Promise<unknown> {
  const socket = await findDaemon();
  if (socket !== null) return askDaemon(socket, call, body);
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
  try {
    const entries = readdirSync(directory, { withFileTypes: true });
    const managed = entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(directory, name));
    return [directory, ...managed].flatMap(socketsIn);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES') throw errors.rootNeeded(`directory ${errors.quote(directory)}`);
    return [];
  }
}

function socketsIn(directory: string): string[] {
  const entries = readdirSync(directory, { withFileTypes: true });
  return entries.filter((entry) => entry.isSocket()).map(({ name }) => join(directory, name));
}
