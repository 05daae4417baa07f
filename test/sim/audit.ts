/**
 * What is looked at when nothing has happened for a while: whether each running container's address is in the store, and whether
 * the daemons hold more of anything than they need. By the records themselves, not by what a daemon says of them.
 */
import { DatabaseSync } from 'node:sqlite';
import { join } from 'node:path';
import type { Rule } from './judge.ts';
import type { Engine } from './engine.ts';
import type { EtcdWorld } from './etcd/world.ts';
import type { Host } from './host.ts';
import { scheduler } from './time.ts';

/** Timers, sockets and what else ends with the process, of a daemon to which nothing happens, and for each of its containers. */
const MOST_THINGS = 60;
const MOST_THINGS_EACH = 8;

interface Parts {
  readonly hosts: readonly Host[];
  readonly engines: readonly Engine[];
  readonly etcd: EtcdWorld | null;
  readonly directoryOf: (host: Host) => string;
  readonly violate: (rule: Rule, what: string) => void;
}

export class Audit {
  readonly #parts: Parts;
  /** The most that was seen. */
  mostThings = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Nothing is under way anywhere. `isSettled`: long since, so that daemons have let go of what they held only for a while. */
  look(isSettled: boolean): void {
    for (const engine of this.#parts.engines) {
      if (!engine.host.isServing) continue;
      this.#lookAtLeases(engine);
      if (!isSettled) continue;
      this.#lookAtThings(engine);
      if (this.#parts.etcd === null) this.#lookForLeases(engine);
    }
  }

  /** What calls that died left leased is taken back long since. */
  #lookForLeases({ host, ownAddresses }: Engine): void {
    const own = new Set(ownAddresses);
    for (const { address, realm, kind } of leaseRecords(join(this.#parts.directoryOf(host), 'tsmacvlan.db')))
      if (kind === 'container' && !isManagers(realm) && !own.has(address))
        this.#parts.violate('left over', `the store of ${host.name} still has ${address}, which no container has`);
  }

  #lookAtLeases({ host, ownAddresses }: Engine): void {
    const { etcd, directoryOf, violate } = this.#parts;
    const addresses = ownAddresses;
    if (addresses.length === 0) return;
    const records = leaseRecords(join(directoryOf(host), 'tsmacvlan.db'));
    const leased = new Set(records.filter(({ realm }) => !isManagers(realm)).map(({ address }) => address));
    for (const address of addresses) {
      if (!leased.has(address))
        violate('lease', `the store of ${host.name} has lost ${address}, which a container has`);
      else if (etcd !== null && !etcd.hasClaim(address, host.name))
        violate('lease', `etcd does not say that ${host.name} has ${address}, as its container does`);
    }
  }

  #lookAtThings({ host, containers }: Engine): void {
    const { daemon } = host;
    if (daemon === null) return;
    const things = scheduler.pendingOf(daemon) + daemon.onKilled.size;
    this.mostThings = Math.max(this.mostThings, things - MOST_THINGS_EACH * containers.size);
    if (things > MOST_THINGS + MOST_THINGS_EACH * containers.size)
      this.#parts.violate(
        'memory',
        `the daemon of ${host.name} has ${things} timers and sockets while nothing happens`,
      );
  }
}

/** Of addresses that a swarm's managers give out. */
export function isManagers(realm: string): boolean {
  return realm.startsWith('TsmacvlanGlobal');
}

interface LeaseRecord {
  readonly address: string;
  readonly realm: string;
  readonly kind: string;
  /** Of an address of a swarm that was not answered with yet. */
  readonly askedBy?: string;
}

/** All leases that are recorded. */
export function leaseRecords(file: string): LeaseRecord[] {
  const database = new DatabaseSync(file, { readOnly: true });
  try {
    const rows = database.prepare('SELECT record FROM lease_records ORDER BY key').all();
    return rows.map(({ record }) => JSON.parse(String(record)) as LeaseRecord);
  } finally {
    database.close();
  }
}

/** All that is recorded, without the moments. */
export function recordsIn(file: string): string[] {
  const database = new DatabaseSync(file, { readOnly: true });
  try {
    return RECORDS.flatMap((table) =>
      database
        .prepare(`SELECT record FROM ${table} ORDER BY key`)
        .all()
        .map(({ record }) => `${table} ${String(record).replaceAll(MOMENT, '')}`),
    );
  } finally {
    database.close();
  }
}

const RECORDS = ['network_records', 'endpoint_records', 'pool_records', 'lease_records', 'name_records'];
const MOMENT = /\d{4}-\d\d-\d\dT[\d:.]+Z/g;
