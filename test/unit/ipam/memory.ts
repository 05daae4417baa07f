/** A store that keeps the contract in memory, for IPAM tests that care for interleaving: every answer comes a turn later. */
import { setImmediate } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Endpoint, Lease, Network, Pool } from '../../../src/model.ts';
import { leaseKey, type Store, type Table } from '../../../src/store/store.ts';

class MemoryTable<T> implements Table<T> {
  readonly #records = new Map<string, string>();
  readonly #keyOf: (record: T) => string;

  constructor(keyOf: (record: T) => string) {
    this.#keyOf = keyOf;
  }

  async get(key: string): Promise<T | undefined> {
    await setImmediate();
    return this.#read(key);
  }

  async list(prefix = ''): Promise<T[]> {
    await setImmediate();
    const keys = [...this.#records.keys()].filter((key) => key.startsWith(prefix)).sort();
    return keys.flatMap((key) => this.#read(key) ?? []);
  }

  async insert(record: T): Promise<boolean> {
    await setImmediate();
    const key = this.#keyOf(record);
    if (this.#records.has(key)) return false;
    this.#records.set(key, JSON.stringify(record));
    return true;
  }

  async replace(previous: T, next: T): Promise<boolean> {
    await setImmediate();
    const key = this.#keyOf(previous);
    if (!isDeepStrictEqual(this.#read(key), previous)) return false;
    this.#records.set(key, JSON.stringify(next));
    return true;
  }

  async remove(record: T): Promise<boolean> {
    await setImmediate();
    const key = this.#keyOf(record);
    return isDeepStrictEqual(this.#read(key), record) && this.#records.delete(key);
  }

  #read(key: string): T | undefined {
    const text = this.#records.get(key);
    return text === undefined ? undefined : (JSON.parse(text) as T);
  }
}

export class MemoryStore implements Store {
  readonly networks: Table<Network> = new MemoryTable<Network>(({ id }) => id);
  readonly endpoints: Table<Endpoint> = new MemoryTable<Endpoint>(({ id }) => id);
  readonly pools: Table<Pool> = new MemoryTable<Pool>(({ id }) => id);
  readonly leases: Table<Lease> = new MemoryTable<Lease>(leaseKey);

  async close(): Promise<void> {}
}
