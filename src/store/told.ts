/** A store whose changes are told, once they are made. */
import type { Conflict, Endpoint, Network, Tenancy } from '../model.ts';
import type { Store, Table } from './store.ts';

/** A record before and after a change; null where there was, or is, none. It must not throw. */
type Told<T> = (before: T | null, after: T | null) => void;

/** Who is told of which records. */
export interface StoreListeners {
  readonly networks: Told<Network>;
  readonly endpoints: Told<Endpoint>;
  readonly conflicts: Told<Conflict>;
  readonly tenancies: Told<Tenancy>;
}

/** The same store; all that is changed by way of this one is told. */
export function toldStore(store: Store, listeners: StoreListeners): Store {
  const { pools, leases, names } = store;
  return {
    networks: new ToldTable(store.networks, listeners.networks),
    endpoints: new ToldTable(store.endpoints, listeners.endpoints),
    conflicts: new ToldTable(store.conflicts, listeners.conflicts),
    pools,
    leases,
    names,
    tenancies: new ToldTable(store.tenancies, listeners.tenancies),
    get isRestored() {
      return store.isRestored === true;
    },
    settleRestore: async () => store.settleRestore?.(),
    sharing: () => store.sharing?.() ?? null,
    durable: () => store.durable(),
    close: () => store.close(),
  };
}

class ToldTable<T> implements Table<T> {
  readonly #table: Table<T>;
  readonly #tell: Told<T>;

  constructor(table: Table<T>, tell: Told<T>) {
    this.#table = table;
    this.#tell = tell;
  }

  get(key: string): Promise<T | undefined> {
    return this.#table.get(key);
  }

  list(prefix?: string): Promise<T[]> {
    return this.#table.list(prefix);
  }

  insert(record: T): Promise<boolean> {
    return this.#told(this.#table.insert(record), null, record);
  }

  replace(previous: T, next: T): Promise<boolean> {
    return this.#told(this.#table.replace(previous, next), previous, next);
  }

  remove(record: T): Promise<boolean> {
    return this.#told(this.#table.remove(record), record, null);
  }

  async #told(change: Promise<boolean>, before: T | null, after: T | null): Promise<boolean> {
    const isDone = await change;
    if (isDone) this.#tell(before, after);
    return isDone;
  }
}
