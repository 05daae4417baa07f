/**
 * The address that a container's name had last on its network, or that is reserved for it. The LAN is asked for it as for any
 * other, and the container gets it again if nobody else has it.
 */
import { type Address, contains, parseAddress } from '../address.ts';
import { PluginError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Lease, Pool, Remembered } from '../model.ts';
import { realmOf, type Store } from '../store/store.ts';
import { MOST_ON_STANDBY } from './demand.ts';
import type { Leases } from './leases.ts';
import type { Names } from './names.ts';
import type { Offers } from './offers.ts';
import { isSearched, layoutOf, withLength } from './pool.ts';
import type { Realm } from './realm.ts';
import type { Releases } from './releases.ts';
import type { Search } from './search.ts';
import type { Standby } from './standby.ts';
import { areSisters, sistersOf } from './swarm.ts';

interface Parts {
  readonly store: Pick<Store, 'pools'>;
  readonly leases: Leases;
  readonly offers: Offers;
  readonly releases: Releases;
  readonly names: Names;
  readonly standby: Standby;
  readonly log: Pick<Log, 'info'>;
}

/** What a name has in one of its network's pools. */
interface Last {
  readonly pool: Pool;
  readonly address: Address;
  readonly record: Remembered;
}

/** Gives containers what they had. */
export class Recalls {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** What the name has on this network, in whichever of its pools, as `192.168.1.2/24`; undefined when it cannot be had. */
  async again(asked: Pool, search: Search): Promise<string | undefined> {
    if (search.name === null) return undefined;
    const found: Last[] = [];
    for (const pool of [asked, ...(await this.#sistersOf(asked))]) {
      const record = await this.#parts.names.find(pool.id, search.name);
      const address = parseAddress(record?.address ?? '');
      if (record !== undefined && address !== undefined && isSearched(pool, address))
        found.push({ pool, address, record });
    }
    const last = found.find(({ record }) => record.isReserved) ?? found[0];
    return last && this.#recall(last, search);
  }

  /**
   * The container got the address; `name` null where no engine says it, and where a search would not give the address. Its name
   * has no other one on this network from now on, but what is reserved for it.
   */
  async given(pool: Pool, address: Address, name: string | null): Promise<void> {
    const { names } = this.#parts;
    await names.given(pool, address, name);
    if (name === null) return;
    for (const sister of await this.#sistersOf(pool)) {
      const other = await names.find(sister.id, name);
      if (other?.isReserved === false) await names.forget(other);
    }
  }

  async #recall(last: Last, search: Search): Promise<string | undefined> {
    const { leases, offers, releases, standby } = this.#parts;
    const { pool, address, record } = last;
    const realm = await leases.realm(realmOf(pool));
    // Who had it a while ago mostly has it still; for what is reserved he is asked each time.
    if (!record.isReserved && realm.isPassedOver(address)) return this.#lost(last, 'somebody had it a while ago');
    standby.expect(pool);
    const lease = await this.#claim(last, search);
    if (lease === undefined) return undefined;
    await offers.confirm(pool, address);
    const isReady = await standby.isReady(pool, address);
    const asked = offers.ask(pool, address, lease, { limit: search.limit, refusal: null });
    asked.catch(() => undefined);
    if (!isReady) await this.#recallOthers(pool, realm);
    const verdict = await asked;
    if (verdict.held) return this.#lost(last, `${verdict.macAddress} has it, seen on ${verdict.linkName}`);
    releases.noteClaim(lease);
    await this.given(pool, address, search.name);
    return withLength(pool, address);
  }

  /** Undefined when somebody has it, which is no reason to refuse: the container gets another one. */
  async #claim(last: Last, { name, limit }: Search): Promise<Lease | undefined> {
    const wanted = this.#parts.offers.lease(last.pool, last.address, 'container', name);
    try {
      const lease = await this.#parts.leases.claim(last.address, wanted, '', limit);
      // In a swarm a gateway's lease answers for whoever claims it (successorInSwarm in leases.ts).
      return lease === wanted ? lease : this.#lost(last, `it is a ${lease.kind}`);
    } catch (error) {
      if (!(error instanceof PluginError) || error.kind !== 'mistake') throw error;
      return this.#lost(last, error.message);
    }
  }

  #lost({ record: { name, address, isReserved } }: Last, why: string): undefined {
    const kept = isReserved ? 'reserved' : 'remembered';
    this.#parts.log.info('a container does not get the address of its name', { name, address, kept, why });
  }

  /** Containers that start together come back to their own addresses: all of them are asked for in one window. */
  async #recallOthers(pool: Pool, realm: Realm): Promise<void> {
    const { store, names, standby } = this.#parts;
    const pools = (await store.pools.list()).filter((other) => areSisters(other, pool));
    for (const one of pools) {
      const { range } = layoutOf(one);
      const isFree = (address: Address) => contains(range, address) && realm.isFree(address);
      standby.recalled(one, realm, names.latest(realm.name, isFree, MOST_ON_STANDBY));
    }
  }

  async #sistersOf(pool: Pool): Promise<Pool[]> {
    return sistersOf(pool, await this.#parts.store.pools.list());
  }
}
