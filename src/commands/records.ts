/** The records that a command shows: those of the daemon that runs, or of the state file where none does. */
import { globSync } from 'node:fs';
import { join } from 'node:path';
import * as errors from '../errors.ts';
import type { Records, TableName } from '../model.ts';
import { readSettings, SETTINGS } from '../settings.ts';
import { askDaemon, STATE } from '../server/client.ts';
import { ENDPOINT_CODEC } from '../store/codec.ts';
import { findDaemon } from './daemon.ts';

/** Where an engine keeps what the managed plugin remembers. */
const MANAGED = '/var/lib/docker/plugins/*/propagated-mount/tsmacvlan.db';

/** Some of the records, all of one moment, and what only a running daemon knows. */
export type Seen<T extends TableName> = Pick<Records, T> & {
  /** Parents whose network port delivers to their own MAC address only; none where no daemon runs. */
  readonly filteredParents: readonly string[];
};

/** Throws what stands in the way of reading them: STORE_MISSING, ROOT_NEEDED, … */
export async function readRecords<const T extends TableName>(...tables: readonly T[]): Promise<Seen<T>> {
  const socket = await daemonToAsk();
  const answer = socket === null ? await readFile(tables) : await ask(socket, tables);
  const { endpoints } = answer.Tables;
  const decoded = endpoints === undefined ? {} : { endpoints: endpoints.map((json) => ENDPOINT_CODEC.fromJson(json)) };
  return { ...answer.Tables, ...decoded, filteredParents: answer.FilteredParents } as unknown as Seen<T>;
}

interface Answer {
  readonly FilteredParents: readonly string[];
  readonly Tables: Readonly<Partial<Record<TableName, readonly unknown[]>>>;
}

/** Who names a state directory and no socket wants to see what is in there. */
async function daemonToAsk(): Promise<string | null> {
  const { STATE_DIR, SOCKET } = process.env;
  return STATE_DIR?.trim() && !SOCKET?.trim() ? null : findDaemon();
}

async function ask(socket: string, tables: readonly TableName[]): Promise<Answer> {
  return (await askDaemon(socket, STATE, { Tables: tables })) as Answer;
}

async function readFile(tables: readonly TableName[]): Promise<Answer> {
  const { readSnapshot } = await import('../store/snapshot.ts');
  const pieces = await readSnapshot(stateDirectory(), tables);
  return { FilteredParents: [], Tables: JSON.parse(Buffer.concat(pieces).toString()) as Answer['Tables'] };
}

/** STATE_DIR, or the usual place; where there is none, that of a managed plugin which does not run, when there is one only. */
export function stateDirectory(): string {
  const { stateDirectory: usual } = readSettings(process.env);
  if (process.env[SETTINGS.STATE_DIR.name]?.trim() || globSync(join(usual, 'tsmacvlan.db')).length > 0) return usual;
  const managed = globSync(MANAGED).map((file) => file.replace(/\/[^/]*$/, ''));
  if (managed.length > 1) throw errors.severalStates(managed);
  return managed[0] ?? usual;
}
