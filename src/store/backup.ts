/**
 * Backups of what is recorded: two lines of JSON, the first says what the second is. A restore puts a new state file in the place of
 * the old one in one step, with the old one kept beside it: a crash at any moment leaves one of the two, whole.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { getSystemErrorMessage } from 'node:util';
import * as errors from '../errors.ts';
import { type Records, TABLES, type TableName } from '../model.ts';
import { peekNode, renameNode } from './etcd/identity.ts';
import { canonical, DATABASE, holdDirectory, readLocalStore, RESTORED, storeFailure } from './local.ts';
import { MIGRATIONS, migrate } from './schema.ts';
import { HELD_IN } from './snapshot.ts';
import { conflictKey, leaseKey, nameKey, tenancyKey } from './store.ts';

/** Says that a file is a backup, and which form it has. */
const FORMAT = 'tsmacvlan backup 1';
/** Of every file that has been written here. */
const BEGINNING = '{"format":"tsmacvlan backup ';

/** Between the name of the state file and the time of a restore: what was there before it. Only the last is kept. */
const BEFORE = '.before-';

/** The first line. */
interface Head {
  readonly format: typeof FORMAT;
  /** Of the records, as PRAGMA user_version has it. */
  readonly schema: number;
  /** Of the program that told the records. */
  readonly version: string;
  readonly host: string;
  /** The host's name in a shared store; null where it was in none. */
  readonly node: string | null;
  /** ISO 8601. */
  readonly madeAt: string;
  /** Of the second line. */
  readonly sha256: string;
}

/** A backup that was read and found whole. */
export interface Backup extends Omit<Head, 'format' | 'sha256'> {
  /** As they are written down: of an older schema they may lack fields, and tables. */
  readonly tables: Readonly<Partial<Record<TableName, readonly unknown[]>>>;
}

/** Writes it whole or not at all, for root alone (0600); an older backup of that name is replaced. Throws BACKUP_NOT_WRITABLE. */
export function writeBackup(file: string, found: Pick<Backup, 'schema' | 'version' | 'node' | 'tables'>): void {
  const { schema, version, node, tables } = found;
  const text = JSON.stringify(tables);
  const madeAt = new Date().toISOString();
  const head: Head = { format: FORMAT, schema, version, host: hostname(), node, madeAt, sha256: sha256(text) };
  const target = resolve(file);
  refuseOther(file, target);
  const scratch = `${target}.new`;
  refuseOther(`${file}.new`, scratch);
  try {
    rmSync(scratch, { force: true });
    writeFileSync(scratch, `${JSON.stringify(head)}\n${text}\n`, { mode: 0o600, flag: 'wx', flush: true });
    renameSync(scratch, target);
    syncDirectory(dirname(target));
  } catch (error) {
    rmSync(scratch, { force: true });
    throw errors.backupNotWritable(file, reasonOf(error));
  }
}

/** Throws BACKUP_NOT_WRITABLE for what is there and no backup, or cannot be known for one. */
function refuseOther(file: string, target: string): void {
  let isRefused: boolean;
  try {
    const present = lstatSync(target, { throwIfNoEntry: false });
    isRefused = present !== undefined && !isReplaceable(target, present);
  } catch (error) {
    throw errors.backupNotWritable(file, reasonOf(error));
  }
  if (isRefused) throw errors.backupNotWritable(file, 'it is there and no backup');
}

/** An empty file or a backup of any form. The state file, or whatever else a slip of the hand names, stays. */
function isReplaceable(target: string, present: Stats): boolean {
  if (!present.isFile()) return false;
  const first = Buffer.alloc(BEGINNING.length);
  const fd = openSync(target, 'r');
  try {
    return present.size === 0 || first.toString('utf8', 0, readSync(fd, first)) === BEGINNING;
  } finally {
    closeSync(fd);
  }
}

/** Throws BACKUP_NOT_READABLE, BACKUP_DAMAGED or BACKUP_NEWER. */
export function readBackup(file: string): Backup {
  const [first = '', second = ''] = readText(file).split('\n');
  const { format, sha256: sum, ...head } = parse(file, first) as unknown as Head;
  if (format !== FORMAT) throw errors.backupDamaged(file, 'it does not begin as a backup of tsmacvlan does');
  if (!Number.isInteger(head.schema) || head.schema < 1) throw errors.backupDamaged(file, 'it names no schema');
  if (head.schema > MIGRATIONS.length) throw errors.backupNewer(file, head.schema, MIGRATIONS.length);
  if (sha256(second) !== sum) throw errors.backupDamaged(file, 'its checksum is not that of its records');
  return { ...head, tables: parse(file, second) };
}

/**
 * Makes it the state of `directory`, which is made where it is missing. Answers where what was there is kept; null where there was
 * nothing. Throws STORE_HELD while a daemon has it, STORE_NOT_WRITABLE, STORE_FULL or BACKUP_DAMAGED, and then nothing was changed.
 */
export async function restoreBackup(directory: string, file: string, backup: Backup): Promise<string | null> {
  const lock = holdDirectory(directory);
  const target = join(resolve(directory), DATABASE);
  const scratch = `${target}.restoring`;
  try {
    build(scratch, backup);
    await check(scratch, file);
    const { node } = backup;
    const aside = putInPlace(scratch, target, node !== null && (await isToBeNamed(directory, node)) ? node : null);
    syncDirectory(dirname(target));
    if (aside !== null) removeOlder(target, aside);
    return aside;
  } catch (error) {
    throw storeFailure(error, target);
  } finally {
    for (const left of [scratch, `${scratch}-journal`]) rmSync(left, { force: true });
    lock.close();
  }
}

/**
 * Whether the host is to have the backup's name in a shared store. It keeps one under which it has addresses; a daemon that was
 * started on a new disk before the restore got a name, and has none yet.
 */
async function isToBeNamed(directory: string, node: string): Promise<boolean> {
  const present = peekNode(directory);
  return present === null || (present !== node && (await hasNoAddresses(directory)));
}

async function hasNoAddresses(directory: string): Promise<boolean> {
  try {
    const store = readLocalStore(directory);
    const leases = await store.leases.list().finally(() => store.close());
    return leases.length === 0;
  } catch {
    // What is damaged, or gone, perhaps had some.
    return false;
  }
}

/**
 * The host's name, null where it keeps what it has, goes before its records: with these alone, after a crash, it would begin in a
 * shared store as a new host whose addresses are all another one's. With its name alone it is a host that asks the LAN before it
 * gives back what it does not know of.
 */
function putInPlace(scratch: string, target: string, node: string | null): string | null {
  const undo = node === null ? () => undefined : renameNode(dirname(target), node);
  try {
    const aside = setAside(target);
    renameSync(scratch, target);
    return aside;
  } catch (error) {
    undo();
    throw error;
  }
}

function build(scratch: string, { schema, tables }: Backup): void {
  for (const left of [scratch, `${scratch}-journal`]) rmSync(left, { force: true });
  closeSync(openSync(scratch, 'wx', 0o600));
  const database = new DatabaseSync(scratch);
  try {
    database.exec('PRAGMA synchronous = FULL');
    migrate(database, MIGRATIONS.slice(0, schema));
    database.exec('BEGIN');
    for (const name of TABLES) {
      const records = tables[name] ?? [];
      if (records.length === 0) continue;
      const insert = database.prepare(`INSERT INTO ${HELD_IN[name]} (key, record) VALUES (?, ?)`);
      for (const record of records) insert.run(keyOf(name, record), canonical(record));
    }
    database.exec('COMMIT');
    migrate(database);
    database.exec(RESTORED);
  } finally {
    database.close();
  }
}

type Keys = { readonly [Name in TableName]: (record: Records[Name][number]) => string };
const byId = ({ id }: { id: string }) => id;
const KEYS: Keys = {
  networks: byId,
  endpoints: byId,
  pools: byId,
  leases: leaseKey,
  conflicts: conflictKey,
  names: nameKey,
  tenancies: tenancyKey,
};

function keyOf(name: TableName, record: unknown): string {
  return (KEYS[name] as (record: unknown) => string)(record);
}

/** Every record is read as the daemon will read it. */
async function check(scratch: string, file: string): Promise<void> {
  const directory = dirname(scratch);
  const store = readLocalStore(directory, basename(scratch));
  try {
    for (const name of TABLES) await store[name].list();
  } catch (error) {
    throw errors.backupDamaged(file, error instanceof Error ? error.message : String(error));
  } finally {
    await store.close();
  }
}

/** Without its log first: one that is left beside another file would be played into it (https://sqlite.org/wal.html). */
function setAside(target: string): string | null {
  const isThere = existsSync(target);
  const aside = `${target}${BEFORE}${new Date().toISOString().replaceAll(':', '-')}`;
  if (isThere) foldLog(target);
  for (const end of ['-wal', '-shm']) if (existsSync(target + end)) renameSync(target + end, aside + end);
  if (!isThere) return null;
  linkSync(target, aside);
  return aside;
}

/** What earlier restores have kept, logs as well. The restore is done by now: what cannot be removed is left to the next one. */
function removeOlder(target: string, aside: string): void {
  const isOlder = (name: string) => name.startsWith(basename(target) + BEFORE) && !name.startsWith(basename(aside));
  try {
    for (const name of readdirSync(dirname(target)).filter(isOlder)) rmSync(join(dirname(target), name));
  } catch {
    // As with a disk that fails at this moment.
  }
}

/** The last who closes a database takes its log into it. Of one that is damaged the log is kept beside it as it is. */
function foldLog(target: string): void {
  try {
    const database = new DatabaseSync(target);
    try {
      database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    } finally {
      database.close();
    }
  } catch {
    // What is damaged is to be replaced.
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw errors.backupNotReadable(file, reasonOf(error));
  }
}

function parse(file: string, text: string): Record<string, unknown[]> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown[]>;
  } catch {
    throw errors.backupDamaged(file, 'it is no JSON, or not whole');
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function reasonOf(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return errno === undefined ? message : getSystemErrorMessage(errno);
}
