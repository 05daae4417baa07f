/** One address on its way to a container: its lease, the LAN's verdict about it, and the lease's end when somebody has it. */
import { randomBytes } from 'node:crypto';
import { type Address, formatAddress } from '../address.ts';
import * as errors from '../errors.ts';
import { type HeldVerdict, NOT_HELD, type Verdict } from '../lan/verdict.ts';
import type { Lease, LeaseKind, Pool } from '../model.ts';
import type { CallLimit } from '../requests.ts';
import { realmOf, type Store } from '../store/store.ts';
import type { Leases } from './leases.ts';
import { isManagers } from './swarm.ts';

/** How an address is to be asked for. */
export interface PoolQuestion {
  /** Null for what no engine waits for. */
  readonly limit: CallLimit | null;
  /**
   * What is said of who has it, where no other address will do: he is asked again until the limit is near. Null where another
   * one does.
   */
  readonly refusal: ((holder: HeldVerdict) => errors.PluginError) | null;
  /** See AddressCheck. */
  readonly isBrief?: boolean;
}

/** Asks the LAN of the pool whether a stranger uses the address. Throws when the limit's signal fires or nothing can be asked. */
export type Probe = (pool: Pool, address: Address, question: PoolQuestion) => Promise<Verdict>;

interface Parts {
  readonly store: Pick<Store, 'pools'>;
  readonly leases: Leases;
  readonly now: () => Date;
  readonly probe: Probe;
}

/** What every way to an address has in common. */
export class Offers {
  readonly #pools: Store['pools'];
  readonly #leases: Leases;
  readonly #now: () => Date;
  readonly #probe: Probe;
  /** Tells this process from those before it; drawn for the first lease of a swarm's manager. */
  #life = '';

  constructor({ store, leases, now, probe }: Parts) {
    this.#pools = store.pools;
    this.#leases = leases;
    this.#now = now;
    this.#probe = probe;
  }

  /** The lease that would be the address's. `name`: the container's, where the engine says it. */
  lease(pool: Pool, address: Address, kind: LeaseKind, name: string | null): Lease {
    return {
      realm: realmOf(pool),
      address: formatAddress(address),
      kind,
      poolIds: [pool.id],
      endpointId: null,
      ...(name !== null && { name }),
      ...(pool.swarm && { round: pool.swarm.round }),
      ...(kind === 'container' && isManagers(pool) && { askedBy: this.#ownLife() }),
      changedAt: this.#now().toISOString(),
    };
  }

  #ownLife(): string {
    this.#life ||= randomBytes(6).toString('hex');
    return this.#life;
  }

  /** The lease of a gateway that nobody named. */
  gateway(pool: Pool, address: Address): Lease {
    return { ...this.lease(pool, address, 'gateway', null), isUnnamed: true };
  }

  /** A pool that was released after the request had read it must not leave an address behind. Throws POOL_UNKNOWN. */
  async confirm(pool: Pool, address: Address): Promise<void> {
    if ((await this.#pools.get(pool.id)) !== undefined) return;
    await this.#leases.giveUp(address, realmOf(pool), pool.id);
    throw errors.poolUnknown(pool.id);
  }

  /** The lease is there; it goes when somebody has the address. Gateways are expected to answer, and auxiliary addresses belong to others. */
  async ask(pool: Pool, address: Address, lease: Lease, question: PoolQuestion): Promise<Verdict> {
    if (lease.kind === 'gateway' || lease.kind === 'auxiliary') return NOT_HELD;
    return this.#leases.underway(lease, () => this.#ask(pool, address, lease, question));
  }

  async #ask(pool: Pool, address: Address, lease: Lease, question: PoolQuestion): Promise<Verdict> {
    const verdict = await this.#probe(pool, address, question).catch(async (error: unknown) => {
      // The first error goes on; a lease left behind by a second one is reclaimed later.
      await this.#leases.giveUp(address, lease.realm, pool.id).catch(() => undefined);
      throw error;
    });
    const realm = await this.#leases.realm(lease.realm);
    if (!verdict.held) realm.foundFree(address);
    else {
      await this.#leases.giveUp(address, lease.realm, pool.id);
      realm.passOver(address, verdict.simultaneous ? 'wanted' : 'used');
    }
    return verdict;
  }
}
