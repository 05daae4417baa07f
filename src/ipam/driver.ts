/**
 * The IpamDriver's verbs. Each may be repeated, its record is there when it returns, and the delete side succeeds
 * for what is unknown: engines repeat calls after a crash and never ask twice for a release.
 */
import { hostname } from 'node:os';
import { backgroundClock, type Clock } from '../clock.ts';
import type { Leak } from '../leak.ts';
import type { Pool } from '../model.ts';
import type { AddressRequest, AllocationRequest, PoolRequest } from '../requests.ts';
import { realmOf, type Store } from '../store/store.ts';
import { Ages } from './ages.ts';
import { Allocator, type Probe } from './allocator.ts';
import { type EndpointWitness, Leases } from './leases.ts';
import { ADDRESS_SPACES } from './pool.ts';
import { Pools } from './pools.ts';
import { type Keeper, Standby } from './standby.ts';
import { SwarmPools } from './swarm.ts';

export type { Probe, PoolQuestion } from './allocator.ts';
export type { EndpointWitness } from './leases.ts';
export type { Keeper } from './standby.ts';

interface Parts {
  readonly store: Store;
  /** For what is recorded. */
  readonly now?: () => Date;
  /** For spans of time. */
  readonly clock?: Clock;
  readonly probe: Probe;
  readonly keeper: Keeper;
  /** Left out, endpoints are what their records say. */
  readonly endpoints?: EndpointWitness;
  /** Tells this host from others: IPv6 subnets that nobody named are derived from it. */
  readonly hostId?: string;
}

/** The IPAM driver as the server calls it. What it throws is a sentence for the user (errors.ts). */
export class IpamDriver {
  readonly #pools: Pools;
  readonly #allocator: Allocator;
  readonly #leases: Leases;
  readonly #swarmPools: SwarmPools;
  readonly #standby: Standby;

  constructor({
    store,
    now = () => new Date(),
    clock = backgroundClock,
    probe,
    keeper,
    endpoints,
    hostId = hostname(),
  }: Parts) {
    const ages = new Ages(now, clock);
    this.#leases = new Leases({ store, now, ages, clock, ...(endpoints && { endpoints }) });
    this.#swarmPools = new SwarmPools(store, now);
    const leases = this.#leases;
    const realmOfPool = (pool: Pool) => leases.realm(realmOf(pool));
    this.#standby = new Standby({ pools: store.pools, realmOf: realmOfPool, keeper, clock });
    const standby = this.#standby;
    this.#pools = new Pools({ store, leases, now, ages, hostId, onReleased: (poolId) => standby.forget(poolId) });
    this.#allocator = new Allocator({ store, leases, now, ages, clock, probe, standby });
  }

  /** The names of the two address spaces. */
  defaultAddressSpaces(): { local: string; global: string } {
    return ADDRESS_SPACES;
  }

  /** `pool` in the answer is the subnet, as `--subnet` or chosen here. */
  async requestPool(request: PoolRequest): Promise<{ poolId: string; pool: string }> {
    const { id, subnet } = await this.#pools.request(request);
    return { poolId: id, pool: subnet };
  }

  /** Succeeds for a pool that is unknown. Addresses of living endpoints stay until their own release. */
  async releasePool(poolId: string): Promise<void> {
    await this.#pools.release(poolId);
  }

  /** The engine takes up with the plugin; a swarm's manager does so too when it begins to lead. */
  register(): void {
    this.#swarmPools.register();
    this.#leases.takeUp();
  }

  /** Sent to a swarm's leader, after RequestPool and the gateway. */
  async allocateNetwork(request: AllocationRequest): Promise<void> {
    await this.#swarmPools.allocate(request);
  }

  /** Sent to a swarm's leader when a network goes, before its gateway and pools. */
  async freeNetwork(networkId: string): Promise<void> {
    await this.#swarmPools.free(networkId);
  }

  /** Answers with prefix length: `192.168.1.2/24`. */
  async requestAddress(request: AddressRequest): Promise<string> {
    return this.#allocator.request(request);
  }

  /** An address for the host itself on the network's LAN, kept from containers until the pool is released. */
  async reserveHostAddress(poolId: string, address: string | null): Promise<string> {
    const given = await this.#allocator.reserveForHost(poolId, address);
    return given.slice(0, given.indexOf('/'));
  }

  /** Succeeds for an address that is unknown, and leaves one alone that a living endpoint has. */
  async releaseAddress(request: { poolId: string; address: string }): Promise<void> {
    await this.#allocator.release(request);
  }

  /** An address that was named was answered to nobody: see Allocator.takeBack(). */
  async takeBackAddress(request: { poolId: string; address: string }): Promise<void> {
    await this.#allocator.takeBack(request);
  }

  /** From now on addresses of the network's pools are kept ready; without an id those of all networks. */
  async startStandby(networkId?: string): Promise<void> {
    await this.#standby.start(networkId);
  }

  /** Ends the probes under way; nothing is on standby any more. */
  async close(): Promise<void> {
    await this.#standby.close();
  }

  /** Pools and addresses whose release will not come. */
  async leaks(): Promise<Leak[]> {
    return [...(await this.#pools.leaks()), ...(await this.#leases.leaks())];
  }
}
