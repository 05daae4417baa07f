/**
 * A table kept in memory as well: reads cost no query and no parsing, however many records there are. Right only where
 * one process writes, which the embedded store's lock makes sure of. A change is in memory when it is made below.
 */
import type { Table } from './store.ts';

/** A table that is read in memory and written below it first. */
export class Mirror<T extends object> implements Table<T> {
  readonly #below: Table<T>;
  readonly #keyOf: (record: T) => string;
  readonly #records = new Map<string, T>();
  /** In order of key; undefined after a key came or went. */
  #keys: string[] | undefined;

  /** `records`: all that is below. */
  constructor(below: Table<T>, keyOf: (record: T) => string, records: readonly T[]) {
    this.#below = below;
    this.#keyOf = keyOf;
    for (const record of records) this.#records.set(keyOf(record), frozen(record));
  }

  async get(key: string): Promise<T | undefined> {
    return this.#records.get(key);
  }

  async list(prefix = ''): Promise<T[]> {
    this.#keys ??= byBytes([...this.#records.keys()]);
    const keys = prefix === '' ? this.#keys : this.#keys.filter((key) => key.startsWith(prefix));
    return keys.flatMap((key) => this.#records.get(key) ?? []);
  }

  async insert(record: T): Promise<boolean> {
    if (!(await this.#below.insert(record))) return false;
    this.#keys = undefined;
    this.#records.set(this.#keyOf(record), frozen(structuredClone(record)));
    return true;
  }

  async replace(previous: T, next: T): Promise<boolean> {
    if (!(await this.#below.replace(previous, next))) return false;
    this.#records.set(this.#keyOf(next), frozen(structuredClone(next)));
    return true;
  }

  async remove(record: T): Promise<boolean> {
    if (!(await this.#below.remove(record))) return false;
    this.#keys = undefined;
    this.#records.delete(this.#keyOf(record));
    return true;
  }
}

/** As SQLite sorts: by the bytes of UTF-8, from which JavaScript's own order, ten times as fast, differs beyond U+FFFF. */
export function byBytes(keys: readonly string[]): string[] {
  if (!keys.some((key) => /[\ud800-\udfff]/.test(key))) return keys.toSorted();
  const ranked = keys.map((key) => [Buffer.from(key).toString('latin1'), key] as const);
  return ranked.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, key]) => key);
}

/** All readers get the same object. */
function frozen<R>(value: R): R {
  if (value !== null && typeof value === 'object' && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) frozen(part);
  }
  return value;
}
