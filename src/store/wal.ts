/**
 * The write-ahead log of the embedded store (https://sqlite.org/wal.html), as far as its durability goes. SQLite only writes a
 * change into it (synchronous=NORMAL), after which a kill cannot take it back, but a power cut can. One fdatasync(2) then
 * serves all that wait, in a thread of the pool: SQLite itself would sync after each change, one after the other, with our
 * event loop standing (synchronous=FULL). What has to be synced for the file to stay whole, SQLite does in either mode: the
 * head of a new log, and both files at a checkpoint. The log is one file for as long as the store is open.
 */
import { closeSync, fdatasync, openSync, statSync } from 'node:fs';
import { getSystemErrorMessage } from 'node:util';
import * as errors from '../errors.ts';

/** What nobody waits for is synced so much later. */
const SOON_MS = 50;

/** Makes durable what was written to the log. */
export class WriteAheadLog {
  readonly #file: string;
  readonly #fd: number;
  /** The database and its log, as they were opened. */
  readonly #opened: readonly { path: string; ino: number; dev: number }[];
  /** Something was written since the last sync began; at first perhaps by a process that was killed. */
  #isBehind = true;
  #running: Promise<void> | undefined;
  /** The sync that begins when that one has ended, for all who wait for it. */
  #next: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #fault: errors.PluginError | undefined;

  /** `file`: the database's, which is open. Throws the system's errors. */
  constructor(file: string) {
    this.#file = file;
    this.#fd = openSync(`${file}-wal`, 'r');
    this.#opened = [file, `${file}-wal`].map((path) => ({ path, ...statSync(path) }));
  }

  /**
   * Throws STORE_UNSYNCED when nothing can be made durable any more, and STORE_GONE as long as the files are not where they were
   * opened: what is written to them then is gone with this process.
   */
  check(): void {
    this.#checkDisk();
    for (const { path, ino, dev } of this.#opened) {
      const found = statSync(path, { throwIfNoEntry: false });
      if (found?.ino !== ino || found.dev !== dev) throw errors.storeGone(this.#file);
    }
  }

  #checkDisk(): void {
    if (this.#fault !== undefined) throw this.#fault;
  }

  /** A change was written. It is durable soon, and before any later one. */
  written(): void {
    this.#isBehind = true;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.durable().catch(() => undefined);
    }, SOON_MS).unref();
  }

  /** Resolves when all that was written before this call is on the disk. Throws STORE_UNSYNCED. */
  async durable(): Promise<void> {
    this.#checkDisk();
    if (!this.#isBehind) return this.#running;
    // A sync that runs may have begun before the write.
    this.#next ??= this.#begin(this.#running);
    return this.#next;
  }

  /** Syncs a last time. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.durable().catch(() => undefined);
    closeSync(this.#fd);
  }

  async #begin(before: Promise<void> | undefined): Promise<void> {
    await before?.catch(() => undefined);
    [this.#next, this.#isBehind] = [undefined, false];
    this.#running = this.#sync();
    await this.#running.finally(() => (this.#running = undefined));
  }

  #sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#checkDisk();
      fdatasync(this.#fd, (error) => {
        if (error === null) return resolve();
        this.#fault = errors.storeUnsynced(this.#file, getSystemErrorMessage(error.errno ?? 0), error);
        reject(this.#fault);
      });
    });
  }
}
