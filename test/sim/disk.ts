/**
 * The disk of a host, as far as it is not a real one: how long a sync takes and whether it fails, and what a power cut leaves of
 * the embedded store's files: all that was synced, and of what was written since a part that ends anywhere, in the middle of a page too.
 */
import { existsSync, fstatSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Disk } from './globals.ts';
import type { Random } from './random.ts';

const DATABASE = 'tsmacvlan.db';
/** Of the write-ahead log: what is before tells of the format, these bytes are other ones each time that SQLite begins it anew. */
const SALT = { at: 16, length: 8 } as const;

export class HostDisk implements Disk {
  readonly #random: Random;
  readonly #directory: string;
  fails = false;
  #synced = { salt: '', bytes: 0 };

  constructor(random: Random, directory: string) {
    [this.#random, this.#directory] = [random, directory];
  }

  sync(fd: number): { delayMs: number; error: NodeJS.ErrnoException | null; ended: () => void } {
    const error = this.fails ? Object.assign(new Error('EIO'), { errno: -5, code: 'EIO' }) : null;
    const synced = { salt: saltOf(fd), bytes: fstatSync(fd).size };
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
    // A log that began anew since was synced by SQLite itself.
    const isSame = records.toString('hex', SALT.at, SALT.at + SALT.length) === this.#synced.salt;
    const safe = isSame ? Math.min(this.#synced.bytes, records.length) : records.length;
    const left = records.subarray(0, this.#random.int(safe, records.length));
    return () => {
      writeFileSync(file, data);
      writeFileSync(log, left);
      rmSync(`${file}-shm`, { force: true });
    };
  }
}

function saltOf(fd: number): string {
  const salt = Buffer.alloc(SALT.length);
  readSync(fd, salt, 0, SALT.length, SALT.at);
  return salt.toString('hex');
}
