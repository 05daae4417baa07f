/** A store that keeps the contract in memory. A slow one answers a turn of the event loop later, so that calls interleave. */
import { setImmediate } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Conflict, Endpoint, Lease, Network, Pool, Remembered, Tenancy } from '../../../src/model.ts';
import { conflictKey, leaseKey, nameKey, type Store, type Table, tenancyKey } from '../../../src/store/store.ts';

class MemoryTable<T> implements Table<T> {
  readonly #records = new Map<string, T>();
  readonly #keyOf: (record: T) => string;
  readonly #isSlow: boolean;

  constructor(isSlow: boolean, keyOf: (record: T) => string) {
    this.#isSlow = isSlow;
    this.#keyOf = keyOf;
  }

  async get(key: string): Promise<T | undefined> {
    if (this.#isSlow) await setImmediate();
    return this.#read(key);
  }

  async list(prefix = ''): Promise<T[]> {
    if (this.#isSlow) await setImmediate();
    const keys = [...this.#records.keys()].filter((key) => key.startsWith(prefix)).sort();
    return keys.flatMap((key) => this.#read(key) ?? []);
  }

  async insert(record: T): Promise<boolean> {
    if (this.#isSlow) await setImmediate();
    const key = this.#keyOf(record);
    if (this.#records.has(key)) return false;
    this.#records.set(key, structuredClone(record));
    return true;
  }

  async replace(previous: T, next: T): Promise<boolean> {
    if (this.#isSlow) await setImmediate();
    const key = this.#keyOf(previous);
    if (!isDeepStrictEqual(this.#read(key), previous)) return false;
    this.#records.set(key, structuredClone(next));
    return true;
  }

  async remove(record: T): Promise<boolean> {
    if (this.#isSlow) await setImmediate();
    const key = this.#keyOf(record);
    return isDeepStrictEqual(this.#read(key), record) && this.#records.delete(key);
  }

  #read(key: string): T | undefined {
    return structuredClone(this.#records.get(key));
  }
}

export class MemoryStore implements Store {
  readonly networks: Table<Network>;
  readonly endpoints: Table<Endpoint>;
  readonly pools: Table<Pool>;
  readonly leases: Table<Lease>;
  readonly conflicts: Table<Conflict>;
  readonly names: Table<Remembered>;
  readonly tenancies: Table<Tenancy>;

  constructor({ isSlow = true } = {}) {
    this.networks = new MemoryTable<Network>(isSlow, ({ id }) => id);
    this.endpoints = new MemoryTable<Endpoint>(isSlow, ({ id }) => id);
    this.pools = new MemoryTable<Pool>(isSlow, ({ id }) => id);
    this.leases = new MemoryTable<Lease>(isSlow, leaseKey);
    this.conflicts = new MemoryTable<Conflict>(isSlow, conflictKey);
    this.names = new MemoryTable<Remembered>(isSlow, nameKey);
    this.tenancies = new MemoryTable<Tenancy>(isSlow, tenancyKey);
  }

  async durable(): Promise<void> {}

  async close(): Promise<void> {}
}
