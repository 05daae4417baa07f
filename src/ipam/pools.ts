/** Pools: which may stand beside which, and when the same one may be asked for again. */
import { overlaps } from '../address.ts';
import * as errors from '../errors.ts';
import type { Leak } from '../leak.ts';
import { isOfSwarm, type Pool } from '../model.ts';
import { Serial } from '../serial.ts';
import type { PoolRequest } from '../requests.ts';
import { realmOf, type Store } from '../store/store.ts';
import { isAllocated, isManagers } from './swarm.ts';
import type { Ages } from './ages.ts';
import type { Leases } from './leases.ts';
import {
  type ChooseSubnet,
  isBeingCreated,
  isGlobal,
  isServed,
  known,
  nameOf,
  newPool,
  readPoolRequest,
  realmOfPoolId,
} from './pool.ts';
import { freeSubnet } from './subnets.ts';

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly now: () => Date;
  readonly ages: Ages;
  readonly hostId: string;
  readonly onReleased: (poolId: string) => void;
}

/** RequestPool and ReleasePool, one at a time. */
export class Pools {
  readonly #store: Store;
  readonly #leases: Leases;
  readonly #now: () => Date;
  readonly #ages: Ages;
  readonly #hostId: string;
  readonly #onReleased: (poolId: string) => void;
  /** One change at a time, so that two overlapping pools never both find the place free. */
  readonly #serial = new Serial();

  constructor({ store, leases, now, ages, hostId, onReleased }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#now = now;
    this.#ages = ages;
    this.#hostId = hostId;
    this.#onReleased = onReleased;
  }

  /** The pool of the request, new or asked for again. Throws POOL_OVERLAPS, POOL_TAKEN, DHCP_POOL_TAKEN, POOL_PENDING and what readPoolRequest throws. */
  async request(request: PoolRequest): Promise<Pool> {
    return this.#serial.run('pools', () => this.#request(request));
  }

  async #request(request: PoolRequest): Promise<Pool> {
    const pools = await this.#store.pools.list();
    const wanted = newPool(readPoolRequest(request, this.#chooser(pools)), this.#now());
    const existing = pools.find((pool) => pool.id === wanted.id);
    // Every new leader of a swarm asks again for all pools (moby cnmallocator). AllocateNetwork follows, which is about
    // the pool asked for last.
    if (existing !== undefined && isManagers(existing)) {
      await this.#store.pools.replace(existing, { ...existing, changedAt: wanted.changedAt });
      return existing;
    }
    for (const pool of pools) {
      const refusal = refusalBeside(pool, wanted);
      if (refusal !== undefined) await this.#makeWay(pool, wanted, refusal);
    }
    if (await this.#store.pools.insert(wanted)) this.#ages.note({ key: wanted.id, changedAt: wanted.changedAt });
    return wanted;
  }

  #chooser(pools: readonly Pool[]): ChooseSubnet {
    return (family, length) => {
      const taken = pools.map(({ subnet }) => known(subnet));
      const subnet = freeSubnet(taken, family, length, this.#hostId);
      if (subnet === undefined) throw errors.defaultSubnetsUsedUp(family);
      return subnet;
    };
  }

  /**
   * Removes a pool that only seems to be in the way. Nodes of a swarm create their part of a network again after each
   * start of the engine, without a release before. Other pools were left behind: see isAbandoned.
   */
  async #makeWay(pool: Pool, wanted: Pool, refusal: errors.PluginError): Promise<void> {
    const { index } = await this.#leases.realm(realmOf(pool));
    const isRenewed = pool.id === wanted.id && pool.networkId !== null && isOfSwarm(pool.networkId);
    if (!isRenewed && !(await this.#isAbandoned(pool, index.hasContainers(pool.id)))) throw refusal;
    // In a renewed pool containers keep their leases; gateway and auxiliary addresses are asked for again.
    const addresses = isRenewed ? index.specialsOf(pool.id) : index.ofPool(pool.id);
    for (const address of addresses) await this.#leases.giveUp(address, realmOf(pool), pool.id);
    await this.#store.pools.remove(pool);
  }

  /**
   * No network has it, and none is on its way. Engines leave pools behind when they die before CreateNetwork, when a
   * later pool of the network is refused (26 to 28), and when the plugin is away while a network is removed.
   */
  async #isAbandoned(pool: Pool, hasContainers: boolean): Promise<boolean> {
    if (isBeingCreated(pool, this.#ages)) return false;
    if (pool.networkId !== null) return this.#isForgotten(pool.networkId);
    // Networks of other drivers are never known here; their containers are.
    return !hasContainers;
  }

  /** An engine that is started again has forgotten its networks of a swarm, and asks for those it needs once more. */
  async #isForgotten(networkId: string): Promise<boolean> {
    if ((await this.#store.networks.get(networkId)) === undefined) return true;
    if (!isOfSwarm(networkId)) return false;
    return (await this.#store.endpoints.list()).every((endpoint) => endpoint.networkId !== networkId);
  }

  /**
   * Drops the pool and its addresses, save those that a living endpoint uses: they go with the endpoint's release. One that
   * networks of a swarm share goes with the last of them.
   */
  async release(poolId: string): Promise<void> {
    await this.#serial.run('pools', () => this.#release(poolId));
  }

  async #release(poolId: string): Promise<void> {
    let pool = await this.#store.pools.get(poolId);
    if (pool !== undefined && isAllocated(pool)) return;
    this.#onReleased(poolId);
    // The pool first: a request under way finds it gone and gives its address back.
    while (pool !== undefined && !(await this.#store.pools.remove(pool))) pool = await this.#store.pools.get(poolId);
    const realm = await this.#leases.realmWithLeases(realmOfPoolId(poolId));
    for (const address of realm?.index.ofPool(poolId) ?? [])
      await this.#leases.giveUp(address, realmOfPoolId(poolId), poolId);
  }

  /** Pools whose network went while their ReleasePool was lost. */
  async leaks(): Promise<Leak[]> {
    const networks = new Set((await this.#store.networks.list()).map(({ id }) => id));
    return (await this.#store.pools.list())
      .filter((pool) => (pool.networkId === null ? isLeftBySwarm(pool) : !networks.has(pool.networkId)))
      .map((pool) => ({
        key: `pool ${pool.id} ${pool.changedAt}`,
        kind: 'pool',
        name: nameOf(pool),
        why: `its network ${errors.short(pool.networkId ?? 'of the swarm')} is gone, and no ReleasePool came`,
        patience: 'late',
        collect: () => this.#serial.run('pools', () => this.#collect(pool)),
      }));
  }

  async #collect(pool: Pool): Promise<boolean> {
    const current = await this.#store.pools.get(pool.id);
    if (current?.changedAt !== pool.changedAt) return false;
    if (!isLeftBySwarm(current) && !(await this.#isAbandoned(current, false))) return false;
    await this.#release(pool.id);
    return true;
  }
}

function isLeftBySwarm(pool: Pool): boolean {
  return isManagers(pool) && pool.swarm !== undefined && !isAllocated(pool);
}

/**
 * Why the wanted pool cannot stand beside this one; undefined when it can. Pools of one realm share one set of
 * addresses, so subnets may overlap, of different length too. As with the built-in IPAM it takes an `--ip-range` to say
 * that this is meant. In the global space the other may be a network that was removed while another manager led, and
 * whose release never came: no ground to refuse.
 */
function refusalBeside(pool: Pool, wanted: Pool): errors.PluginError | undefined {
  const { addressSpace, subnet, range } = wanted;
  if (pool.id === wanted.id) return refusalOfSame(pool);
  if (pool.addressSpace !== addressSpace || !overlaps(known(pool.subnet), known(subnet))) return undefined;
  if (realmOf(pool) === realmOf(wanted))
    return range === null && !isGlobal(addressSpace)
      ? errors.poolOverlaps(subnet, nameOf(pool), pool.networkId)
      : undefined;
  return pool.options['parent'] === undefined || wanted.options['parent'] === undefined
    ? errors.poolNeedsParent(subnet, nameOf(pool), pool.networkId)
    : undefined;
}

function refusalOfSame(pool: Pool): errors.PluginError {
  if (pool.networkId === null) return errors.poolPending(nameOf(pool));
  return (isServed(pool) ? errors.dhcpPoolTaken : errors.poolTaken)(nameOf(pool), pool.networkId);
}
