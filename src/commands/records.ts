/** The records that a command shows: those of the daemon that runs, or of the state file where none does. */
import type { Records, TableName } from '../model.ts';
import { askDaemon, STATE } from '../server/client.ts';
import { ENDPOINT_CODEC } from '../store/codec.ts';
import { VERSION } from '../version.ts';
import { findDaemon } from './daemon.ts';
import { stateToRead } from './places.ts';

/** Some of the records, all of one moment, and what only a running daemon knows. */
export type Seen<T extends TableName> = Pick<Records, T> & {
  /** Parents whose network port delivers to their own MAC address only; none where no daemon runs. */
  readonly filteredParents: readonly string[];
  /** Of the program that told them. */
  readonly version: string;
  /** Of the state that they are from. */
  readonly schema: number;
};

/** Throws why they cannot be read: STORE_MISSING, ROOT_NEEDED, … */
export async function readRecords<const T extends TableName>(...tables: readonly T[]): Promise<Seen<T>> {
  const answer = await readTold(tables);
  const { endpoints } = answer.Tables;
  const decoded = endpoints === undefined ? {} : { endpoints: endpoints.map((json) => ENDPOINT_CODEC.fromJson(json)) };
  const { FilteredParents: filteredParents, Version: version, Schema: schema } = answer;
  return { ...answer.Tables, ...decoded, filteredParents, version, schema } as unknown as Seen<T>;
}

/** The same as it is told. */
export async function readTold(tables: readonly TableName[]): Promise<ToldState> {
  const socket = await daemonToAsk();
  return socket === null ? readFile(tables) : ((await askDaemon(socket, STATE, { Tables: tables })) as ToldState);
}

/** What Tsmacvlan.State answers. */
export interface ToldState {
  /** Of the program that answers. */
  readonly Version: string;
  readonly Schema: number;
  /** The host's name in a shared store; null where it is in none. */
  readonly Node: string | null;
  readonly FilteredParents: readonly string[];
  readonly Tables: Readonly<Partial<Record<TableName, readonly unknown[]>>>;
}

/** Who names a state directory and no socket wants to see what is in there. */
export async function daemonToAsk(): Promise<string | null> {
  const { STATE_DIR, SOCKET } = process.env;
  return STATE_DIR?.trim() && !SOCKET?.trim() ? null : findDaemon();
}

async function readFile(tables: readonly TableName[]): Promise<ToldState> {
  const { readSnapshot } = await import('../store/snapshot.ts');
  const { schema, node, pieces } = await readSnapshot(await stateToRead(), tables);
  const Tables = JSON.parse(Buffer.concat(pieces).toString()) as ToldState['Tables'];
  return { Version: VERSION, Schema: schema, Node: node, FilteredParents: [], Tables };
}
