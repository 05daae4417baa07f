/**
 * The IpamDriver's verbs. Each may be repeated, its record is there when it returns, and the delete side succeeds
 * for what is unknown: engines repeat calls after a crash and never ask twice for a release.
 */
import { hostname } from 'node:os';
import { setImmediate as immediate } from 'node:timers/promises';
import type { Address } from '../address.ts';
import { backgroundClock, type Clock } from '../clock.ts';
import * as errors from '../errors.ts';
import type { Leak } from '../leak.ts';
import type { Log } from '../log.ts';
import type { Pool, Remembered } from '../model.ts';
import type {
  AddressRequest,
  AllocationRequest,
  CallLimit,
  NameRequest,
  PoolRequest,
  ReserveRequest,
} from '../requests.ts';
import { realmOf, type Store } from '../store/store.ts';
import { Ages } from './ages.ts';
import { Allocator } from './allocator.ts';
import { KeptClaims } from './kept-claims.ts';
import { type EndpointWitness, Leases } from './leases.ts';
import { Names } from './names.ts';
import { Nearby } from './nearby.ts';
import { Offers, type Probe } from './offers.ts';
import { ADDRESS_SPACES } from './pool.ts';
import { Pools } from './pools.ts';
import type { PoolUse } from './pooluse.ts';
import { Recalls } from './recalls.ts';
import { Releases } from './releases.ts';
import { Reservations } from './reservations.ts';
import type { Keeper } from './keeper.ts';
import { type AddressServer, ServedPools } from './served.ts';
import { Standby } from './standby.ts';
import { SwarmPools } from './swarm.ts';

export type { Probe, PoolQuestion } from './offers.ts';
export type { EndpointWitness } from './leases.ts';
export type { Keeper } from './keeper.ts';
export type { AddressServer } from './served.ts';

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
  /** Left out, there are no addresses of DHCP servers. */
  readonly server?: AddressServer;
  /** Tells this host from others: IPv6 subnets that nobody named are derived from it. */
  readonly hostId?: string;
  /** How long a container's name keeps its address without use, in days; see the setting REMEMBER. */
  readonly rememberDays?: number;
  readonly log?: Pick<Log, 'info' | 'warn'>;
  /** Of the host's default routes; left out, none. */
  readonly hostGateways?: () => Promise<readonly Address[]>;
}

const USUAL_DAYS = 30;
const SILENT = { info: () => undefined, warn: () => undefined };

/** The IPAM driver as the server calls it. What it throws is a sentence for the user (errors.ts). */
export class IpamDriver {
  readonly #store: Pick<Store, 'pools'>;
  readonly #pools: Pools;
  readonly #allocator: Allocator;
  readonly #releases: Releases;
  readonly #names: Names;
  readonly #reservations: Reservations;
  readonly #leases: Leases;
  readonly #keptClaims: KeptClaims;
  readonly #swarmPools: SwarmPools;
  readonly #standby: Standby;
  readonly #nearby: Nearby;
  readonly #served: ServedPools;

  constructor({
    store,
    now = () => new Date(),
    clock = backgroundClock,
    probe,
    keeper,
    endpoints,
    server,
    hostId = hostname(),
    rememberDays = USUAL_DAYS,
    log = SILENT,
    hostGateways = async () => [],
  }: Parts) {
    this.#store = store;
    const ages = new Ages(now, clock);
    const names = new Names({ store, now, days: rememberDays, log });
    this.#names = names;
    this.#leases = new Leases({ store, now, ages, clock, names, ...(endpoints && { endpoints }) });
    this.#swarmPools = new SwarmPools(store, now);
    const leases = this.#leases;
    this.#keptClaims = new KeptClaims({ store, probe, clock });
    const realmOfPool = (pool: Pool) => leases.realm(realmOf(pool));
    this.#standby = new Standby({ pools: store.pools, realmOf: realmOfPool, keeper, clock });
    this.#nearby = new Nearby({ keeper, clock });
    const [standby, nearby] = [this.#standby, this.#nearby];
    const onReleased = (poolId: string) => {
      standby.forget(poolId);
      nearby.forget(poolId);
    };
    this.#pools = new Pools({ store, leases, now, ages, hostId, onReleased });
    const offers = new Offers({ store, leases, now, probe });
    const served = new ServedPools({ leases, offers, ...(server && { server }) });
    this.#served = served;
    const releases = new Releases({ store, leases, names, standby, served });
    this.#releases = releases;
    this.#reservations = new Reservations({ store, leases, offers, names, standby, keeper, log });
    const recalls = new Recalls({ store, leases, offers, releases, names, standby, log });
    const rooms = { store, leases, ages, clock, offers, releases, recalls, standby, nearby, served };
    this.#allocator = new Allocator({ ...rooms, hostGateways });
  }

  /** The names of the two address spaces. */
  defaultAddressSpaces(): { local: string; global: string } {
    return ADDRESS_SPACES;
  }

  /** `pool` in the answer is the subnet, as `--subnet`, chosen here, or told by a DHCP server with the gateway. */
  async requestPool(
    wanted: PoolRequest,
    limit: CallLimit | null = null,
  ): Promise<{ poolId: string; pool: string; gateway: string | null }> {
    const { request, gateway } = await this.#served.complete(wanted, limit);
    const { id, subnet } = await this.#pools.request(request).catch((error: unknown) => {
      // An engine asks on for another subnet while the host has an address in what it is answered (libnetwork requestPoolHelper).
      const isAskedAgain = error instanceof errors.PluginError && error.code === 'POOL_PENDING';
      throw isAskedAgain && wanted.pool === null && request.pool !== null ? errors.dhcpSubnetHere(request.pool) : error;
    });
    return { poolId: id, pool: subnet, gateway };
  }

  /** How long requestAddress() may take of this pool, in milliseconds; null as long as any call. */
  async patienceMs(poolId: string): Promise<number | null> {
    return this.#served.patienceMs(await this.#store.pools.get(poolId));
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

  /** A gateway that the network room chose: no container gets it until the pool is released. */
  async reserveGateway(poolId: string, address: string): Promise<void> {
    await this.#allocator.reserveGateway(poolId, address);
  }

  /** The reply with the address goes out now. */
  async answerAddress(given: { poolId: string; address: string }): Promise<void> {
    await this.#releases.answer(given);
  }

  /** Succeeds for an address that is unknown, and leaves one alone that a living endpoint has. */
  async releaseAddress(request: { poolId: string; address: string }): Promise<void> {
    await this.#releases.release(request);
  }

  /** An address that was named, or that its container had before, was answered to nobody: see Releases.takeBack(). */
  async takeBackAddress(request: { poolId: string; address: string }): Promise<void> {
    await this.#releases.takeBack(request);
  }

  /** See Reservations.reserve(). */
  async reserveName(request: ReserveRequest): Promise<Remembered> {
    return this.#reservations.reserve(request);
  }

  /** See Reservations.unreserve(). */
  async unreserveName(request: NameRequest): Promise<{ forgotten: Remembered[] }> {
    return { forgotten: await this.#reservations.unreserve(request) };
  }

  /** How much of each pool is used, at this moment; see Allocator.use(). */
  async poolUses(): Promise<PoolUse[]> {
    const uses: PoolUse[] = [];
    for (const pool of await this.#store.pools.list()) {
      uses.push(await this.#allocator.use(pool));
      // Each looks at all addresses of its realm: engines are answered between two.
      await immediate();
    }
    return uses;
  }

  /** From time to time: what containers had that have not been here for long is anybody's again. */
  async forgetUnused(): Promise<void> {
    await this.#names.forgetUnused();
  }

  /** From now on addresses of the network's pools are kept ready; without an id those of all networks. */
  async startStandby(networkId?: string): Promise<void> {
    await this.#standby.start(networkId);
  }

  /** Ends the probes under way; nothing is on standby any more. */
  async close(): Promise<void> {
    this.#nearby.close();
    await this.#standby.close();
  }

  /** Pools and addresses whose release will not come. */
  async leaks(): Promise<Leak[]> {
    return [...(await this.#pools.leaks()), ...(await this.#leases.leaks()), ...(await this.#keptClaims.leaks())];
  }
}
