/**
 * What is looked at when nothing has happened for a while: whether each running container's address stands in the store, and whether
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
      if (isSettled) this.#lookAtThings(engine);
    }
  }

  #lookAtLeases({ host, ownAddresses }: Engine): void {
    const { etcd, directoryOf, violate } = this.#parts;
    const addresses = ownAddresses;
    if (addresses.length === 0) return;
    const leased = leasesIn(join(directoryOf(host), 'tsmacvlan.db'));
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

/** Addresses for which there is a record, whosever. */
function leasesIn(file: string): Set<string> {
  const database = new DatabaseSync(file, { readOnly: true });
  try {
    const rows = database.prepare('SELECT key FROM lease_records').all();
    return new Set(rows.map((row) => String(row['key']).replace(/^.*\//, '')));
  } finally {
    database.close();
  }
}
