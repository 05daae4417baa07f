/**
 * A model of etcd v3, as far as the product uses it: one linear history of revisions, transactions, leases that end, watches,
 * compaction, an alarm when its disk is full, snapshots and what is restored from one.
 */
import { scheduler } from '../time.ts';

/** A key and what stands there. */
export interface Stored {
  readonly key: string;
  readonly value: Buffer;
  readonly revision: number;
  readonly lease: number;
}

export interface Change {
  readonly isGone: boolean;
  readonly stored: Stored;
}

interface Lease {
  readonly seconds: number;
  endsAtMs: number;
}

/** All that a cluster remembers. */
export interface Snapshot {
  readonly revision: number;
  readonly keys: readonly Stored[];
}

export type Operation =
  | { readonly put: { readonly key: string; readonly value: Buffer; readonly lease: number } }
  | { readonly delete: string }
  | { readonly range: string };

/** A call that etcd refuses, with gRPC's code. */
export class EtcdRefusal extends Error {
  readonly code: 'resource exhausted' | 'out of range' | 'not found' | 'unavailable';

  constructor(code: EtcdRefusal['code'], message: string) {
    super(message);
    this.code = code;
  }
}

type Watcher = (changes: readonly Change[], revision: number) => void;

/** So often leases are looked at. */
const LEASE_LOOK_MS = 500;

export class Cluster {
  readonly id: number;
  revision: number;
  readonly #keys = new Map<string, Stored>();
  readonly #history: { readonly revision: number; readonly changes: readonly Change[] }[] = [];
  readonly #leases = new Map<number, Lease>();
  readonly #watchers = new Set<{ readonly prefix: string; readonly tell: Watcher }>();
  #compacted = 0;
  /** Its disk is full: nothing is written any more. */
  isFull = false;
  /** It has no leader: nothing is answered. */
  isHeadless = false;

  constructor(id: number, from: Snapshot = { revision: 1, keys: [] }) {
    this.id = id;
    this.revision = from.revision;
    // Leases are restored too, and begin anew.
    for (const stored of from.keys) this.#keys.set(stored.key, stored);
    for (const { lease } of from.keys)
      if (lease !== 0) this.#leases.set(lease, { seconds: 30, endsAtMs: scheduler.nowMs + 30_000 });
    const look = () => {
      this.#endLeases();
      scheduler.world(LEASE_LOOK_MS, look);
    };
    scheduler.world(LEASE_LOOK_MS, look);
  }

  snapshot(): Snapshot {
    return { revision: this.revision, keys: [...this.#keys.values()] };
  }

  get(key: string): Stored | undefined {
    return this.#keys.get(key);
  }

  /** In order of key. `end` empty: the key alone. */
  range(key: string, end: string, limit: number): { kvs: Stored[]; more: boolean } {
    this.#check();
    const found = [...this.#keys.values()].filter((one) =>
      end === '' ? one.key === key : one.key >= key && one.key < end,
    );
    found.sort((one, other) => (one.key < other.key ? -1 : 1));
    const kvs = limit > 0 ? found.slice(0, limit) : found;
    return { kvs, more: kvs.length < found.length };
  }

  /** All of one when each key stands at its revision (0: there is none), else all of the other. */
  transact(
    conditions: readonly { key: string; revision: number }[],
    success: readonly Operation[],
    failure: readonly Operation[],
  ) {
    this.#check();
    const isMet = conditions.every(({ key, revision }) => (this.#keys.get(key)?.revision ?? 0) === revision);
    const operations = isMet ? success : failure;
    const writes = operations.filter((operation) => !('range' in operation));
    // etcd refuses a transaction for what either branch would write.
    if (this.isFull && success.some((operation) => 'put' in operation))
      throw new EtcdRefusal('resource exhausted', 'etcdserver: mvcc: database space exceeded');
    if (writes.length > 0) this.#write(writes);
    const found = operations.map((operation) => ('range' in operation ? this.#keys.get(operation.range) : undefined));
    return { succeeded: isMet, revision: this.revision, found };
  }

  #write(operations: readonly Operation[]): void {
    this.revision++;
    const changes: Change[] = [];
    for (const operation of operations) {
      if ('put' in operation) {
        const { key, value, lease } = operation.put;
        if (lease !== 0 && !this.#leases.has(lease))
          throw new EtcdRefusal('not found', 'etcdserver: requested lease not found');
        const stored = { key, value, lease, revision: this.revision };
        this.#keys.set(key, stored);
        changes.push({ isGone: false, stored });
      } else if ('delete' in operation && this.#keys.delete(operation.delete)) {
        const stored = { key: operation.delete, value: Buffer.alloc(0), lease: 0, revision: this.revision };
        changes.push({ isGone: true, stored });
      }
    }
    if (changes.length === 0) return void this.revision--;
    this.#history.push({ revision: this.revision, changes });
    for (const { prefix, tell } of this.#watchers) this.#tell(prefix, changes, tell);
  }

  #tell(prefix: string, changes: readonly Change[], tell: Watcher): void {
    const some = changes.filter(({ stored }) => stored.key.startsWith(prefix));
    if (some.length > 0) tell(some, this.revision);
  }

  /** What is from that revision on, and all that comes. Returns how to end it. */
  watch(prefix: string, from: number, tell: Watcher): () => void {
    this.#check();
    if (from <= this.#compacted)
      throw new EtcdRefusal('out of range', 'etcdserver: mvcc: required revision has been compacted');
    for (const { revision, changes } of this.#history) if (revision >= from) this.#tell(prefix, changes, tell);
    const watcher = { prefix, tell };
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  compact(): void {
    this.#compacted = this.revision;
    this.#history.length = 0;
  }

  grant(id: number, seconds: number): void {
    this.#check();
    if (this.isFull) throw new EtcdRefusal('resource exhausted', 'etcdserver: mvcc: database space exceeded');
    this.#leases.set(id, { seconds, endsAtMs: scheduler.nowMs + seconds * 1000 });
  }

  /** Seconds that are left; 0: it has ended. */
  keepAlive(id: number): number {
    this.#check();
    const lease = this.#leases.get(id);
    if (lease === undefined) return 0;
    lease.endsAtMs = scheduler.nowMs + lease.seconds * 1000;
    return lease.seconds;
  }

  /** A cluster without a leader ends no lease, and its next leader lets each begin anew. */
  #endLeases(): void {
    for (const [id, lease] of this.#leases) {
      if (this.isHeadless) lease.endsAtMs = scheduler.nowMs + lease.seconds * 1000;
      if (lease.endsAtMs > scheduler.nowMs) continue;
      this.#leases.delete(id);
      const keys = [...this.#keys.values()].filter(({ lease: of }) => of === id);
      if (keys.length > 0) this.#write(keys.map(({ key }) => ({ delete: key })));
    }
  }

  #check(): void {
    if (this.isHeadless) throw new EtcdRefusal('unavailable', 'etcdserver: no leader');
  }
}

/** One member, at an address. What hosts reach behind an address may be another cluster's. */
export class Member {
  cluster: Cluster;
  /** It does not run. */
  isDown = false;

  constructor(cluster: Cluster) {
    this.cluster = cluster;
  }
}

/** The members that a machine may reach, and whether it does at this moment. */
export interface EtcdNetwork {
  reach(address: string): Member | null;
}
