/**
 * The disk of a host, as far as it is not a real one: how long a sync takes and whether it fails, whether writes fail, and what a
 * power cut leaves of the embedded store's files: all that was synced, and of what was written since a part that ends anywhere, in
 * the middle of a page too.
 *
 * The files are real, and so is their SQLite. A write that is to fail fails in the kernel: while a statement runs the process may
 * write no byte beyond a place in its files (RLIMIT_FSIZE, setrlimit(2)), so that a change ends after any of its bytes, in the log or
 * in the database while the log is brought over into it. Node ignores the signal that comes with that (SIGXFSZ), and SQLite is told
 * EFBIG, which it takes for EIO. It takes ENOSPC for a full disk by its number alone (unixWrite, os_unix.c), as is done here.
 */
import { closeSync, existsSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import type { Disk } from './globals.ts';
import type { Random } from './random.ts';

const DATABASE = 'tsmacvlan.db';
/** WalIndexHdr and WalCkptInfo of SQLite's wal.c: frames that are valid, the log's salt, frames that may have been brought over. */
const INDEX = { bytes: 136, frames: 16, salt: { at: 32, length: 8 }, checkpointed: 96, attempted: 128 } as const;
const LOG_HEADER = 32;
const FRAME = 24 + 4096;
/** A change of a record takes no more frames than these. */
const MOST_FRAMES = 4;

/** How writes fail: there is no room, or the medium is at fault. */
export type WriteFault = 'full' | 'broken';

const SQLITE_IOERR = 10;
const SQLITE_FULL = 13;

export class HostDisk implements Disk {
  readonly #random: Random;
  readonly #directory: string;
  /** Syncs fail. */
  fails = false;
  /** Writes fail. */
  fault: WriteFault | null = null;
  #breaking: { left: number; readonly fault: WriteFault; readonly onBreak: () => void } | null = null;
  #synced = { salt: '', bytes: 0 };

  constructor(random: Random, directory: string) {
    [this.#random, this.#directory] = [random, directory];
  }

  // --- writes ------------------------------------------------------------------------------------------------------

  /** After so many changes of a record the next one ends in the middle, and no other succeeds until mend(). */
  breakAfter(changes: number, fault: WriteFault, onBreak: () => void): void {
    this.#breaking = { left: changes, fault, onBreak };
  }

  mend(): void {
    this.fault = null;
    this.#breaking = null;
  }

  /** Runs what writes to the files. `isChange`: of a record. */
  write<T>(run: () => T, isChange: boolean): T {
    const fault = this.fault;
    if (fault !== null) return failing(run, 0, fault);
    const breaking = this.#breaking;
    if (breaking === null || !isChange || breaking.left-- > 0) return run();
    this.#breaking = null;
    this.fault = breaking.fault;
    breaking.onBreak();
    return failing(run, this.#end() + this.#random.int(0, MOST_FRAMES * FRAME), breaking.fault);
  }

  // --- syncs and power cuts ----------------------------------------------------------------------------------------

  sync(): { delayMs: number; error: NodeJS.ErrnoException | null; ended: () => void } {
    const error = this.fails ? Object.assign(new Error('EIO'), { errno: -5, code: 'EIO' }) : null;
    const synced = { salt: this.#index()?.salt ?? '', bytes: this.#end() };
    const ended = () => {
      if (error === null) this.#synced = synced;
    };
    return { delayMs: this.#random.delay(1.5, 40), error, ended };
  }

  /** The files as they are found after the power went at this moment: to be written back when the daemon is dead. */
  loseCache(): () => void {
    const [file, log] = [join(this.#directory, DATABASE), join(this.#directory, `${DATABASE}-wal`)];
    if (!existsSync(log)) return () => undefined;
    const [data, records] = [readFileSync(file), readFileSync(log)];
    const left = records.subarray(0, this.#random.int(Math.min(this.#safeBytes(), records.length), records.length));
    return () => {
      writeFileSync(file, data);
      writeFileSync(log, left);
      rmSync(`${file}-shm`, { force: true });
    };
  }

  /** Of the log: what was synced, by the product, or by SQLite before it brought frames over into the database. */
  #safeBytes(): number {
    const index = this.#index();
    if (index === null) return Number.POSITIVE_INFINITY;
    const own = index.salt === this.#synced.salt ? this.#synced.bytes : LOG_HEADER;
    return Math.max(own, LOG_HEADER + index.attempted * FRAME);
  }

  /** Where the log ends; where it begins once more, when all of it was brought over. */
  #end(): number {
    const index = this.#index();
    return index === null || index.frames === index.checkpointed ? 0 : LOG_HEADER + index.frames * FRAME;
  }

  /** What SQLite keeps in memory of its log, in a file that is mapped; null while there is none. */
  #index(): { salt: string; frames: number; checkpointed: number; attempted: number } | null {
    const file = join(this.#directory, `${DATABASE}-shm`);
    if (!existsSync(file)) return null;
    const bytes = Buffer.alloc(INDEX.bytes);
    const fd = openSync(file, 'r');
    readSync(fd, bytes, 0, bytes.length, 0);
    closeSync(fd);
    return {
      salt: bytes.toString('hex', INDEX.salt.at, INDEX.salt.at + INDEX.salt.length),
      frames: bytes.readUInt32LE(INDEX.frames),
      checkpointed: bytes.readUInt32LE(INDEX.checkpointed),
      attempted: bytes.readUInt32LE(INDEX.attempted),
    };
  }
}

// --- the limit of the process ----------------------------------------------------------------------------------------

const RLIMIT_FSIZE = 1;
const NO_LIMIT = 2n ** 64n - 1n;
const libc = koffi.load(null);
const getrlimit = libc.func('int getrlimit(int resource, uint8_t *limits)') as Limits;
const setrlimit = libc.func('int setrlimit(int resource, const uint8_t *limits)') as Limits;
type Limits = (resource: number, limits: Buffer) => number;

/** Nothing beyond so many bytes is written to a file while this runs. */
export function within<T>(bytes: number, run: () => T): T {
  setLimit(BigInt(bytes));
  try {
    return run();
  } finally {
    setLimit(NO_LIMIT);
  }
}

function setLimit(bytes: bigint): void {
  const limits = Buffer.alloc(16);
  getrlimit(RLIMIT_FSIZE, limits);
  const most = limits.readBigUInt64LE(8);
  limits.writeBigUInt64LE(bytes < most ? bytes : most);
  if (setrlimit(RLIMIT_FSIZE, limits) !== 0) throw new Error('this process cannot limit what it writes');
}

function failing<T>(run: () => T, bytes: number, fault: WriteFault): T {
  try {
    return within(bytes, run);
  } catch (error) {
    const failure = error as Error & { errcode?: number };
    if (fault !== 'full' || ((failure.errcode ?? 0) & 0xff) !== SQLITE_IOERR) throw error;
    throw Object.assign(new Error('database or disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: SQLITE_FULL });
  }
}
