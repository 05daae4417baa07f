/** ReleaseAddress, and addresses that were answered to nobody. */
import { formatAddress, parseAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Lease } from '../model.ts';
import { leaseKey, type Store } from '../store/store.ts';
import type { Leases } from './leases.ts';
import type { Names } from './names.ts';
import { isGlobal, isServed, realmOfPoolId } from './pool.ts';
import type { ServedPools } from './served.ts';
import type { Standby } from './standby.ts';
import { areSisters, isManagers } from './swarm.ts';

interface Parts {
  readonly store: Pick<Store, 'pools' | 'leases'>;
  readonly leases: Leases;
  readonly names: Names;
  readonly standby: Standby;
  readonly served: ServedPools;
}

/** Calls of the last seconds. */
const MOST_CLAIMED = 256;

/** Takes addresses back. */
export class Releases {
  readonly #store: Parts['store'];
  readonly #leases: Leases;
  readonly #names: Names;
  readonly #standby: Standby;
  readonly #served: ServedPools;
  /** By its key, the lease of an address that might be answered to nobody although another call may get it meanwhile. */
  readonly #claimed = new LatestMap<string, Lease>(MOST_CLAIMED);

  constructor({ store, leases, names, standby, served }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#names = names;
    this.#standby = standby;
    this.#served = served;
  }

  /** Of an address that was nobody's, named or remembered: the lease that a call made, for takeBack(). */
  noteClaim(lease: Lease): void {
    this.#claimed.put(leaseKey(lease), lease);
  }

  /** The pool named may be a sister of the one that holds the address: the engine knows only the one it asked. */
  async release({ poolId, address: text }: { poolId: string; address: string }): Promise<void> {
    const address = parseAddress(text);
    if (address === undefined) return;
    const key = leaseKey({ realm: realmOfPoolId(poolId), address: formatAddress(address) });
    const lease = await this.#store.leases.get(key);
    if (lease === undefined) return;
    const holder = await this.#holderOf(lease, poolId);
    if (holder === undefined) return;
    const pool = await this.#store.pools.get(holder);
    // Other networks of the swarm may have the pool: its gateway goes with it.
    if (lease.kind === 'gateway' && pool !== undefined && isManagers(pool)) return;
    await this.#leases.giveUp(address, lease.realm, holder, true);
    if (pool === undefined || lease.kind !== 'container') return;
    if (isServed(pool)) return this.#served.returned(pool, address);
    await this.#names.returned(lease, pool.options['order'] === 'rested');
    await this.#standby.released(pool, address);
  }

  /** RequestAddress is answered now. What it costs is paid by swarm's managers only. */
  async answer({ poolId, address: text }: { poolId: string; address: string }): Promise<void> {
    const [address, realm] = [parseAddress(text), realmOfPoolId(poolId)];
    if (address !== undefined && isGlobal(realm)) await this.#leases.answer(address, realm);
  }

  /**
   * RequestAddress was answered when its engine had given up, which asks for the address again: it goes if that call leased it, and
   * nobody has changed the lease since.
   */
  async takeBack(given: { poolId: string; address: string }): Promise<void> {
    const key = leaseKey({ realm: realmOfPoolId(given.poolId), address: given.address });
    const [claimed, lease] = [this.#claimed.get(key), await this.#store.leases.get(key)];
    if (claimed !== undefined && lease?.changedAt === claimed.changedAt) await this.release(given);
  }

  /** The pool through which the release reaches the lease; undefined when it is about another lease of that address. */
  async #holderOf({ poolIds }: Lease, poolId: string): Promise<string | undefined> {
    if (poolIds.includes(poolId)) return poolId;
    const pools = new Map((await this.#store.pools.list()).map((pool) => [pool.id, pool]));
    const named = pools.get(poolId);
    return poolIds.find((id) => {
      const holder = pools.get(id);
      return holder === undefined || (named !== undefined && areSisters(holder, named));
    });
  }
}
