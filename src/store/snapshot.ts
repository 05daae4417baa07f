/**
 * What is recorded at one moment, as the texts that stand in the state file: for the command line, which the daemon answers,
 * and for backups. A reader of its own sees one state of all tables however long it reads (https://sqlite.org/isolation.html),
 * and nothing is parsed here: an answer of ten thousand leases is put together a page at a time, with the event loop free between.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { DatabaseSync } from 'node:sqlite';
import type { TableName } from '../model.ts';
import { peekNode } from './etcd/identity.ts';
import { openToRead, storeFailure } from './local.ts';
import { schemaVersion } from './schema.ts';

/** What holds each in the file. */
export const HELD_IN: Readonly<Record<TableName, string>> = {
  networks: 'network_records',
  endpoints: 'endpoint_records',
  pools: 'pool_records',
  leases: 'lease_records',
  conflicts: 'conflict_records',
  names: 'name_records',
  tenancies: 'tenancy_records',
};

/** Rows that are read in one turn of the event loop: half a millisecond. */
const PAGE = 250;

/** Records of one moment. */
export interface Snapshot {
  /** PRAGMA user_version. */
  readonly schema: number;
  /** The host's name in a shared store; null where it is in none. */
  readonly node: string | null;
  /** The JSON text `{"networks": [record, …], …}`, each record as it is written down. */
  readonly pieces: readonly Buffer[];
}

/** Throws what openToRead() does, STORE_BUSY or STORE_FAILED. */
export async function readSnapshot(directory: string, tables: readonly TableName[]): Promise<Snapshot> {
  const { file, database } = openToRead(directory);
  try {
    database.exec('BEGIN');
    const pieces: Buffer[] = [];
    for (const table of tables) {
      pieces.push(Buffer.from(`${pieces.length === 0 ? '{' : '],'}${JSON.stringify(table)}:[`));
      await readTable(database, HELD_IN[table], pieces);
    }
    pieces.push(Buffer.from(pieces.length === 0 ? '{}' : ']}'));
    return { schema: schemaVersion(database), node: peekNode(directory), pieces };
  } catch (error) {
    throw storeFailure(error, file);
  } finally {
    database.close();
  }
}

async function readTable(database: DatabaseSync, name: string, pieces: Buffer[]): Promise<void> {
  const page = database.prepare(`SELECT key, record FROM ${name} WHERE key > ? ORDER BY key LIMIT ${PAGE}`);
  for (let last = ''; ; await nextTurn()) {
    const rows = page.all(last);
    if (rows.length === 0) return;
    const text = rows.map(({ record }) => record).join(',');
    pieces.push(Buffer.from(last === '' ? text : `,${text}`));
    last = String(rows.at(-1)?.['key']);
    if (rows.length < PAGE) return;
  }
}
