/**
 * The embedded store: one SQLite file, `tsmacvlan.db`, in the state directory. No server, one writer.
 *
 * Every change is one autocommitted statement in WAL mode: what SQLite has written survives kill -9, and wal.ts makes it
 * durable, many changes at once. The log has one order: a power cut takes the last changes, never an earlier one alone.
 * Other processes may read at any time.
 */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { getSystemErrorMessage } from 'node:util';
import { makeDirectories } from '../directories.ts';
import * as errors from '../errors.ts';
import type { Conflict, Endpoint, Lease, Network, Pool, Remembered, Tenancy } from '../model.ts';
import { type Codec, ENDPOINT_CODEC, plainCodec } from './codec.ts';
import { Mirror } from './mirror.ts';
import { MIGRATIONS, migrate, schemaVersion } from './schema.ts';
import { conflictKey, leaseKey, nameKey, type Store, type Table, tenancyKey } from './store.ts';
import { WriteAheadLog } from './wal.ts';

export const DATABASE = 'tsmacvlan.db';
const LOCK = 'tsmacvlan.lock';

/** SQLite waits inside a call, with our event loop: longer than anyone but a forgotten sqlite3 session holds the file. */
const BE_PATIENT = 'PRAGMA busy_timeout = 500';

/** SQLite brings its log over at 1000 pages of 4 KiB. */
const MOST_LOG_BYTES = 8 * 1024 * 1024;

export type ReadonlyTable<T> = Pick<Table<T>, 'get' | 'list'>;

/** The store as the CLI sees it. */
export interface ReadonlyStore {
  readonly networks: ReadonlyTable<Network>;
  readonly endpoints: ReadonlyTable<Endpoint>;
  readonly pools: ReadonlyTable<Pool>;
  readonly leases: ReadonlyTable<Lease>;
  readonly conflicts: ReadonlyTable<Conflict>;
  readonly names: ReadonlyTable<Remembered>;
  readonly tenancies: ReadonlyTable<Tenancy>;
  close(): Promise<void>;
}

/** What only the one who writes has. */
interface Writer {
  readonly lock: DatabaseSync;
  readonly log: WriteAheadLog;
}

/** The embedded store, opened by openLocalStore() to be written or by readLocalStore() to be looked at. */
export class LocalStore implements Store {
  readonly networks: Table<Network>;
  readonly endpoints: Table<Endpoint>;
  readonly pools: Table<Pool>;
  readonly leases: Table<Lease>;
  readonly conflicts: Table<Conflict>;
  readonly names: Table<Remembered>;
  readonly tenancies: Table<Tenancy>;
  readonly isRestored: boolean;
  readonly #database: DatabaseSync;
  /** Null for a reader. */
  readonly #writer: Writer | null;

  constructor(file: string, database: DatabaseSync, writer: Writer | null) {
    this.#database = database;
    this.#writer = writer;
    this.isRestored = hasMark(database);
    const table = <T>(name: string, keyOf: (record: T) => string, codec = plainCodec<T>()) =>
      new LocalTable<T>({ file, database, log: writer?.log ?? null, name, keyOf, codec });
    // A reader would not hear of the daemon's changes.
    const mirrored = <T extends object>(
      name: string,
      keyOf: (record: T) => string,
      codec = plainCodec<T>(),
    ): Table<T> => {
      const below = table(name, keyOf, codec);
      return writer === null ? below : new Mirror(below, keyOf, below.from(''));
    };
    this.networks = mirrored<Network>('network_records', ({ id }) => id);
    this.endpoints = mirrored<Endpoint>('endpoint_records', ({ id }) => id, ENDPOINT_CODEC);
    this.pools = mirrored<Pool>('pool_records', ({ id }) => id);
    // A /16 of leases would take more memory than all the rest; who searches among them keeps an index (ipam/realm.ts).
    this.leases = table<Lease>('lease_records', leaseKey);
    this.conflicts = mirrored<Conflict>('conflict_records', conflictKey);
    this.names = mirrored<Remembered>('name_records', nameKey);
    this.tenancies = mirrored<Tenancy>('tenancy_records', tenancyKey);
  }

  async settleRestore(): Promise<void> {
    this.#database.exec('PRAGMA application_id = 0');
  }

  async durable(): Promise<void> {
    await this.#writer?.log.durable();
  }

  async close(): Promise<void> {
    if (!this.#database.isOpen) return;
    this.#database.close();
    if (this.#writer === null) return;
    await this.#writer.log.close();
    this.#writer.lock.close();
  }
}

/** In a state file that was made of a backup, until the first start is done with it. */
export const RESTORED = 'PRAGMA application_id = 1';

function hasMark(database: DatabaseSync): boolean {
  return database.prepare('PRAGMA application_id').get()?.['application_id'] === 1;
}

/**
 * Opens the state of this host for writing; makes the directory (0700) and the file when missing, and brings an older
 * schema up to date. Throws STORE_HELD, STORE_NEWER, STORE_DAMAGED or STORE_NOT_WRITABLE and then changed nothing.
 */
export function openLocalStore(directory: string): LocalStore {
  const file = join(resolve(directory), DATABASE);
  const lock = holdDirectory(directory);
  try {
    const database = openForWriting(directory, file);
    return new LocalStore(file, database, { lock, log: openLog(directory, file, database) });
  } catch (error) {
    lock.close();
    throw error;
  }
}

/**
 * Opens the same state for reading, beside a running daemon or without one. Leaves no file behind.
 * For short looks: without a daemon it assumes that none starts while it is open.
 */
export function readLocalStore(directory: string, name = DATABASE): ReadonlyStore {
  const { file, database } = openToRead(directory, name);
  try {
    return new LocalStore(file, database, null);
  } catch (error) {
    database.close();
    throw storeFailure(error, file);
  }
}

/** The database below it, of this program's schema. Throws STORE_MISSING, STORE_NOT_READABLE, STORE_NEWER or STORE_OLDER. */
export function openToRead(directory: string, name = DATABASE): { file: string; database: DatabaseSync } {
  const file = join(resolve(directory), name);
  const database = openForReading(file);
  try {
    database.exec(BE_PATIENT);
    checkVersion(database, file);
    if (schemaVersion(database) < MIGRATIONS.length) throw errors.storeOlder(file);
    return { file, database };
  } catch (error) {
    database.close();
    throw storeFailure(error, file);
  }
}

/** Makes the directory when missing, and keeps it from every other writer until the lock is closed. Throws STORE_HELD. */
export function holdDirectory(directory: string): DatabaseSync {
  makeDirectory(directory);
  return takeLock(directory);
}

/** Root may be kept from a directory too, by a unit's sandbox: then the directory is to be changed. */
function cannotKeep(directory: string, error: unknown): errors.PluginError {
  const isRefused = (error as NodeJS.ErrnoException).code === 'EACCES';
  if (isRefused && process.geteuid?.() !== 0) return errors.rootNeeded(`directory ${errors.quote(directory)}`);
  return errors.storeNotWritable(directory, systemReason(error));
}

function makeDirectory(directory: string): void {
  try {
    makeDirectories(resolve(directory), 0o700);
  } catch (error) {
    throw cannotKeep(directory, error);
  }
}

/**
 * One writer per directory. The lock is an exclusive transaction on an empty second database: an fcntl lock that the
 * kernel drops when its process dies, however it dies. The file itself stays and means nothing.
 */
function takeLock(directory: string): DatabaseSync {
  const file = join(resolve(directory), LOCK);
  const lock = openFile(directory, file);
  try {
    // Without journal_mode=MEMORY an empty rollback journal would lie beside the lock.
    lock.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return lock;
  } catch (error) {
    lock.close();
    if (primaryCode(error) === SQLITE.BUSY) throw errors.storeHeld(directory, lockHolder(file));
    throw storeFailure(error, file);
  }
}

/** The process holding an fcntl lock on the file; null when it lives in a PID namespace out of our sight. */
function lockHolder(file: string): number | null {
  // proc_locks(5): `1: POSIX  ADVISORY  WRITE 1234 fe:00:2147126 1073741824 1073742335`
  const { ino } = statSync(file);
  const line = readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .find((text) => text.includes(`:${ino} `));
  return Number(line?.split(/\s+/)[4]) || null;
}

function openForWriting(directory: string, file: string): DatabaseSync {
  const database = openFile(directory, file);
  try {
    database.exec(BE_PATIENT);
    checkVersion(database, file);
    checkIntegrity(database, file);
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    migrate(database);
    // From here on wal.ts syncs.
    database.exec('PRAGMA synchronous = NORMAL');
    // A reader that stays long makes the log grow; when it has gone the next round of the log is cut to this again.
    database.exec(`PRAGMA journal_size_limit = ${MOST_LOG_BYTES}`);
    return database;
  } catch (error) {
    database.close();
    throw storeFailure(error, file);
  }
}

/** SQLite has made the log with its first look at the database. */
function openLog(directory: string, file: string, database: DatabaseSync): WriteAheadLog {
  try {
    return new WriteAheadLog(file);
  } catch (error) {
    database.close();
    throw cannotKeep(directory, error);
  }
}

/** The system is asked before SQLite is, which only says "unable to open database file". */
function openFile(directory: string, file: string): DatabaseSync {
  try {
    accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK);
    createPrivately(file);
    accessSync(file, constants.R_OK | constants.W_OK);
    return new DatabaseSync(file);
  } catch (error) {
    throw cannotKeep(directory, error);
  }
}

/** SQLite would create it readable for all. Only a new file is opened here: closing one drops its fcntl locks. */
function createPrivately(file: string): void {
  if (!existsSync(file)) closeSync(openSync(file, 'wx', 0o600));
}

function openForReading(file: string): DatabaseSync {
  try {
    // A reader of a WAL database makes the files -wal and -shm when they are missing, as they are without a daemon.
    const isLive = existsSync(`${file}-wal`);
    accessSync(file, constants.R_OK);
    return new DatabaseSync(isLive ? file : immutable(file), { readOnly: true });
  } catch (error) {
    if (systemCode(error) === 'ENOENT') throw errors.storeMissing(file);
    throw errors.storeNotReadable(file, systemReason(error));
  }
}

/** https://sqlite.org/uri.html: no locks, no files beside the database. */
function immutable(file: string): URL {
  const location = pathToFileURL(file);
  location.search = 'immutable=1';
  return location;
}

function checkVersion(database: DatabaseSync, file: string): void {
  const found = schemaVersion(database);
  if (found > MIGRATIONS.length) throw errors.storeNewer(file, found, MIGRATIONS.length);
}

/** A damaged state is refused whole: half of the leases would be worse than none. */
function checkIntegrity(database: DatabaseSync, file: string): void {
  const answer = database.prepare('PRAGMA quick_check(1)').get()?.['quick_check'];
  if (answer !== 'ok') throw errors.storeDamaged(file, answer);
}

interface TableParts<T> {
  /** For error messages. */
  readonly file: string;
  readonly database: DatabaseSync;
  /** Null where nothing is written. */
  readonly log: WriteAheadLog | null;
  readonly name: string;
  readonly keyOf: (record: T) => string;
  readonly codec: Codec<T>;
}

/** One kind of record. Equality is that of the canonical text, so `replace` and `remove` are one atomic statement. */
class LocalTable<T> implements Table<T> {
  readonly #file: string;
  readonly #log: WriteAheadLog | null;
  readonly #keyOf: (record: T) => string;
  readonly #codec: Codec<T>;
  readonly #get: StatementSync;
  readonly #from: StatementSync;
  readonly #insert: StatementSync;
  readonly #replace: StatementSync;
  readonly #remove: StatementSync;

  constructor({ file, database, log, name, keyOf, codec }: TableParts<T>) {
    this.#file = file;
    this.#log = log;
    this.#keyOf = keyOf;
    this.#codec = codec;
    this.#get = database.prepare(`SELECT record FROM ${name} WHERE key = ?`);
    this.#from = database.prepare(`SELECT key, record FROM ${name} WHERE key >= ? ORDER BY key`);
    this.#insert = database.prepare(`INSERT INTO ${name} (key, record) VALUES (?, ?) ON CONFLICT DO NOTHING`);
    this.#replace = database.prepare(`UPDATE ${name} SET record = ? WHERE key = ? AND record = ?`);
    this.#remove = database.prepare(`DELETE FROM ${name} WHERE key = ? AND record = ?`);
  }

  async get(key: string): Promise<T | undefined> {
    const row = this.#translated(() => this.#get.get(key));
    return row && this.#read(row);
  }

  async list(prefix = ''): Promise<T[]> {
    return this.from(prefix);
  }

  from(prefix: string): T[] {
    return this.#translated(() => {
      const records: T[] = [];
      for (const row of this.#from.iterate(prefix)) {
        if (!String(row['key']).startsWith(prefix)) break;
        records.push(this.#read(row));
      }
      return records;
    });
  }

  async insert(record: T): Promise<boolean> {
    return this.#changed(this.#insert, this.#keyOf(record), this.#write(record));
  }

  async replace(previous: T, next: T): Promise<boolean> {
    const key = this.#keyOf(next);
    if (key !== this.#keyOf(previous)) throw new TypeError(`replace must keep the key ${this.#keyOf(previous)}`);
    return this.#changed(this.#replace, this.#write(next), key, this.#write(previous));
  }

  async remove(record: T): Promise<boolean> {
    return this.#changed(this.#remove, this.#keyOf(record), this.#write(record));
  }

  #write(record: T): string {
    return canonical(this.#codec.toJson(record));
  }

  /** A record that says what no program of ours wrote is damage, as an unreadable page is. */
  #read(row: Record<string, unknown>): T {
    const json: unknown = JSON.parse(String(row['record']));
    try {
      return this.#codec.fromJson(json);
    } catch (error) {
      throw errors.storeDamaged(this.#file, error instanceof Error ? error.message : error);
    }
  }

  #changed(statement: StatementSync, ...values: string[]): boolean {
    this.#log?.check();
    const isDone = this.#translated(() => statement.run(...values).changes) === 1;
    if (isDone) this.#log?.written();
    return isDone;
  }

  #translated<R>(action: () => R): R {
    try {
      return action();
    } catch (error) {
      throw storeFailure(error, this.#file);
    }
  }
}

/** JSON with sorted keys: equal records have equal texts. */
export function canonical(record: unknown): string {
  return JSON.stringify(record, (_key, value: unknown) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(
          Object.keys(value)
            .sort()
            .map((key) => [key, (value as Record<string, unknown>)[key]]),
        )
      : value,
  );
}

/** Primary result codes, https://sqlite.org/rescode.html */
const SQLITE = { PERM: 3, BUSY: 5, LOCKED: 6, READONLY: 8, CORRUPT: 11, FULL: 13, CANTOPEN: 14, NOTADB: 26 } as const;

/** The only place where a failure of SQLite becomes a sentence. */
export function storeFailure(error: unknown, file: string): unknown {
  if (error instanceof errors.PluginError) return error;
  const reason = systemReason(error);
  switch (primaryCode(error)) {
    case SQLITE.FULL:
      return errors.storeFull(file, error);
    case SQLITE.BUSY:
    case SQLITE.LOCKED:
      return errors.storeBusy(file, error);
    case SQLITE.CORRUPT:
    case SQLITE.NOTADB:
      return errors.storeDamaged(file, error);
    case SQLITE.PERM:
    case SQLITE.READONLY:
    case SQLITE.CANTOPEN:
      return errors.storeNotWritable(dirname(file), reason);
    default:
      return errors.storeFailed(file, reason, error);
  }
}

/** SQLite puts details above the low byte: SQLITE_IOERR_FSYNC is 10 | 4 << 8. */
function primaryCode(error: unknown): number | null {
  const { errcode } = error as { errcode?: unknown };
  return typeof errcode === 'number' ? errcode & 0xff : null;
}

function systemCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** The system's own words: `read-only file system`. */
function systemReason(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return errno === undefined ? message : getSystemErrorMessage(errno);
}
