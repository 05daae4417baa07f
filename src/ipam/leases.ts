/**
 * Leases and who may have them: claiming a named address, giving one up, and taking back what nobody will release.
 */
import { type Address, contains, parseAddress, type Range } from '../address.ts';
import * as errors from '../errors.ts';
import type { Leak } from '../leak.ts';
import type { Lease, LeaseKind } from '../model.ts';
import { leaseKey, type Store } from '../store/store.ts';
import { Realm } from './realm.ts';
import { isManagersLease, isStale, isUnused, readEvidence, secondsUntilStale } from './stale.ts';

/** Another's change came between reading a record and writing it: read again. */
const ATTEMPTS = 8;

export class Leases {
  readonly #store: Store;
  readonly #now: () => Date;
  readonly #realms = new Map<string, Promise<Realm>>();

  constructor(store: Store, now: () => Date) {
    this.#store = store;
    this.#now = now;
    store.leases.follow?.(
      (lease, isTaken) => void this.#realms.get(lease.realm)?.then((realm) => realm.hear(lease, isTaken)),
    );
  }

  /** The store is read once per realm; from then on the index follows our own changes. */
  realm(name: string): Promise<Realm> {
    const loaded = this.#realms.get(name) ?? this.#load(name);
    this.#realms.set(name, loaded);
    return loaded;
  }

  async #load(name: string): Promise<Realm> {
    try {
      const realm = new Realm(name, this.#store.leases, this.#now);
      await realm.refresh();
      return realm;
    } catch (error) {
      this.#realms.delete(name);
      throw error;
    }
  }

  /**
   * The address as `wanted`, or the lease that already serves the wish: a gateway is shared by the networks of its
   * subnet.
   * Throws ADDRESS_TAKEN, naming the holder. `option`: where the user named it, for the sentence.
   */
  async claim(address: Address, wanted: Lease, option: string): Promise<Lease> {
    const realm = await this.realm(wanted.realm);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (await realm.insert(address, wanted)) return wanted;
      const existing = await this.#store.leases.get(leaseKey(wanted));
      if (existing === undefined) continue;
      const next = await this.#successor(existing, wanted, option);
      if (next === existing || (await this.#store.leases.replace(existing, next))) return next;
    }
    throw errors.recordContended(leaseKey(wanted));
  }

  async #successor(existing: Lease, wanted: Lease, option: string): Promise<Lease> {
    if (existing.kind === 'gateway' && wanted.kind === 'gateway') return shared(existing, wanted);
    if (existing.holder !== undefined) throw errors.addressOfNode(existing.address, existing.holder.node, option);
    const evidence = await readEvidence(this.#store);
    if (isManagersLease(existing, evidence)) return successorInSwarm(existing, wanted, option);
    if (isStale(existing, evidence, this.#now())) return wanted;
    const pool = existing.poolIds.map((id) => evidence.pools.get(id)).find((found) => found !== undefined);
    throw this.#refusal(existing, pool?.networkId ?? null, option);
  }

  #refusal(lease: Lease, networkId: string | null, option: string): errors.PluginError {
    const { address, kind, endpointId } = lease;
    if (kind === 'gateway') return errors.addressIsGateway(address, networkId, option);
    if (kind === 'auxiliary') return errors.addressIsAuxiliary(address, networkId, option);
    if (kind === 'host') return errors.addressOfHost(address, networkId, option);
    if (endpointId !== null) return errors.addressOfEndpoint(address, endpointId, networkId, option);
    const waitSeconds = networkId === null ? null : secondsUntilStale(lease, this.#now());
    return errors.addressLeased(address, networkId, waitSeconds, option);
  }

  /**
   * The pool holds the address no longer; the last one to give it up frees it. A living endpoint keeps its address
   * even then: a release that comes late must not free what is in use again.
   */
  async giveUp(lease: Lease, poolId: string): Promise<void> {
    const realm = await this.realm(lease.realm);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const current = await this.#store.leases.get(leaseKey(lease));
      if (current === undefined || !current.poolIds.includes(poolId)) return;
      const poolIds = current.poolIds.filter((id) => id !== poolId);
      if (poolIds.length > 0) {
        if (await this.#store.leases.replace(current, this.#changed(current, { poolIds }))) return;
      } else if ((await this.#isInUse(current)) || (await realm.remove(current))) return;
    }
    throw errors.recordContended(leaseKey(lease));
  }

  async #isInUse({ endpointId }: Lease): Promise<boolean> {
    const endpoint = endpointId === null ? undefined : await this.#store.endpoints.get(endpointId);
    return endpoint !== undefined && endpoint.state !== 'deleting';
  }

  #changed(lease: Lease, change: Partial<Lease>): Lease {
    return { ...lease, ...change, changedAt: this.#now().toISOString() };
  }

  /** Frees the addresses of the realm whose release will not come, and offers those of hosts that are lost. */
  async reclaim(realmName: string): Promise<void> {
    const realm = await this.realm(realmName);
    const [leases, evidence] = await Promise.all([realm.refresh(), readEvidence(this.#store)]);
    for (const lease of leases) {
      if (lease.holder?.isAlive === false) realm.hear(lease, false);
      else if (isStale(lease, evidence, this.#now())) await realm.remove(lease);
    }
  }

  /**
   * Leases of all realms that nobody uses. One that was never tied may be on its way to an endpoint: it is waited for by
   * the collector's clock, since the record's was perhaps set meanwhile.
   */
  async leaks(): Promise<Leak[]> {
    const [leases, evidence] = await Promise.all([this.#store.leases.list(), readEvidence(this.#store)]);
    return leases
      .filter((lease) => isUnused(lease, evidence))
      .map((lease) => ({
        key: `lease ${leaseKey(lease)} ${lease.changedAt}`,
        kind: 'lease',
        name: lease.address,
        why: whyUnused(lease),
        patience: lease.endpointId === null ? 'late' : 'soon',
        collect: () => this.#collect(lease),
      }));
  }

  async #collect(lease: Lease): Promise<boolean> {
    const realm = await this.realm(lease.realm);
    return isUnused(lease, await readEvidence(this.#store)) && (await realm.remove(lease));
  }

  /** What the addresses of the ranges are used for, by kind of lease. */
  async count(realmName: string, ranges: readonly Range[]): Promise<Record<LeaseKind, number>> {
    const counts = { container: 0, gateway: 0, auxiliary: 0, host: 0 };
    for (const { address: text, kind } of await this.#store.leases.list(`${realmName}/`)) {
      const address = parseAddress(text);
      if (address !== undefined && ranges.some((range) => contains(range, address))) counts[kind]++;
    }
    return counts;
  }
}

/**
 * What was claimed in an earlier round, or out of the pool of another network, may be over: the claim is granted, and the
 * node that gets the task asks its LAN. A gateway always goes to who asks for it: a network whose gateway is refused
 * keeps all its tasks from starting for ever.
 */
function successorInSwarm(existing: Lease, wanted: Lease, option: string): Lease {
  if (wanted.kind === 'gateway') return wanted;
  if (existing.kind === 'gateway') return existing;
  const isHeld = existing.poolIds[0] === wanted.poolIds[0] && existing.round === wanted.round;
  if (isHeld) throw errors.addressOfTask(existing.address, option);
  return wanted;
}

function whyUnused({ kind, round }: Lease): string {
  if (round !== undefined) return 'no task of the swarm has it any more, and another leader was told to release it';
  return `no ${kind === 'container' ? 'container' : 'pool'} has it, and no ReleaseAddress came`;
}

function shared(existing: Lease, { poolIds, changedAt }: Lease): Lease {
  const added = poolIds.filter((id) => !existing.poolIds.includes(id));
  return added.length === 0 ? existing : { ...existing, poolIds: [...existing.poolIds, ...added], changedAt };
}
