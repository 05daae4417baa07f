/**
 * Addresses of pools: gateways, auxiliary addresses and those of containers, named by the user or chosen here.
 */
import { type Address, contains, formatAddress, lowestHost, parseAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import * as errors from '../errors.ts';
import { type HeldVerdict, NOT_HELD } from '../lan/verdict.ts';
import type { Lease, LeaseKind, Pool } from '../model.ts';
import type { AddressRequest, CallLimit } from '../requests.ts';
import { realmOf, type Store } from '../store/store.ts';
import type { Ages } from './ages.ts';
import { MOST_ON_STANDBY } from './demand.ts';
import type { Leases } from './leases.ts';
import type { Nearby } from './nearby.ts';
import type { Offers } from './offers.ts';
import {
  isBeingCreated,
  isGlobal,
  isSearched,
  isServed,
  known,
  type Layout,
  layoutOf,
  reservedMeaning,
  withLength,
} from './pool.ts';
import { type PoolUse, poolUse } from './pooluse.ts';
import type { Realm } from './realm.ts';
import type { Recalls } from './recalls.ts';
import type { Releases } from './releases.ts';
import type { ServedPools } from './served.ts';
import { rangeRefusal } from './exhausted.ts';
import { Search } from './search.ts';
import type { Standby } from './standby.ts';
import { areSisters, isManagers, sistersOf } from './swarm.ts';

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly ages: Ages;
  readonly clock: Clock;
  readonly offers: Offers;
  readonly releases: Releases;
  readonly recalls: Recalls;
  readonly standby: Standby;
  readonly nearby: Nearby;
  readonly served: ServedPools;
  /** Of the host's default routes. */
  readonly hostGateways?: () => Promise<readonly Address[]>;
}

/** An address to try, and whether it was on standby. */
interface Candidate {
  readonly address: Address;
  readonly isReady: boolean;
}

/** An address that is passed over is not asked for again sooner, though nothing else is free. */
const RETRY_MS = 2000;
/** How often it is looked whether that time is over. */
const LOOK_MS = 100;
/** Furthest that hosts of a shared store go out of each other's way, in addresses. */
const WIDEST = 256;

/** Gives out addresses. A lease is recorded before its address is answered. */
export class Allocator {
  readonly #store: Store;
  readonly #leases: Leases;
  readonly #ages: Ages;
  readonly #clock: Clock;
  readonly #offers: Offers;
  readonly #releases: Releases;
  readonly #recalls: Recalls;
  readonly #standby: Standby;
  readonly #nearby: Nearby;
  readonly #served: ServedPools;
  readonly #hostGateways: () => Promise<readonly Address[]>;
  /** By pool id, the last address tried or given out, where sequential order goes on; before the first its pool's record has it. */
  readonly #lastGiven = new Map<string, bigint>();

  constructor({ store, leases, ages, clock, offers, releases, recalls, standby, nearby, served, hostGateways }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#ages = ages;
    this.#clock = clock;
    this.#offers = offers;
    this.#releases = releases;
    this.#recalls = recalls;
    this.#standby = standby;
    this.#nearby = nearby;
    this.#served = served;
    this.#hostGateways = hostGateways ?? (async () => []);
  }

  /**
   * RequestAddress: answers `192.168.1.2/24`. Throws POOL_UNKNOWN, RANGE_EXHAUSTED or RANGE_HELD; for an address that was
   * named also ADDRESS_MALFORMED, ADDRESS_OUTSIDE, ADDRESS_RESERVED, ADDRESS_RESERVED_FOR, ADDRESS_TAKEN, ADDRESS_HELD or ADDRESS_WANTED.
   */
  async request({ poolId, address, isGateway, serial, name, limit }: AddressRequest): Promise<string> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    // The managers of a swarm keep the addresses of its tasks themselves.
    const container = isManagers(pool) ? null : name;
    if (address !== null) return this.#name(pool, address, this.#kindOf(pool, isGateway), container, limit);
    const search = new Search(isGateway ? 'gateway' : 'container', container, serial, limit, this.#clock);
    if (isGateway) return this.#chooseGateway(pool, search);
    const served = await this.#served.request(pool, { name, limit }, (lease) => this.#releases.noteClaim(lease));
    if (served !== undefined) return served;
    return (await this.#recalls.again(pool, search)) ?? this.#choose(pool, search);
  }

  /** The host's own end on the parent; asked for again it is the same. */
  async reserveForHost(poolId: string, address: string | null): Promise<string> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    const search = new Search('host', null, false, null, this.#clock);
    const held = await this.#addressOf(pool, 'host');
    if (held !== undefined && (address === null || held.startsWith(`${address}/`))) return held;
    if (address !== null) return this.#name(pool, address, 'host', null, null);
    return (await this.#searched([pool], search)) ?? this.#refuse([pool], search);
  }

  /** An auxiliary address is asked for like a container's `--ip`, only before there is a network. */
  #kindOf(pool: Pool, isGateway: boolean): LeaseKind {
    if (isGateway) return 'gateway';
    const isBefore = pool.networkId === null && pool.swarm === undefined && isBeingCreated(pool, this.#ages);
    return isBefore ? 'auxiliary' : 'container';
  }

  /** How much of the pool's range is used, and what whoever comes gets next, at this moment. */
  async use(pool: Pool): Promise<PoolUse> {
    const realm = await this.#leases.realm(realmOf(pool));
    const layout = layoutOf(pool);
    const after = layout.order === 'sequential' ? (this.#lastGiven.get(pool.id) ?? lastOf(pool)) : null;
    const next = this.#standby.next(pool, realm, after) ?? realm.next(layout, after) ?? realm.spares(layout, 1)[0];
    return poolUse(pool, realm.marks(layout.subnet.family), next);
  }

  // --- named by the user -----------------------------------------------------------------------------------------

  async #name(
    named: Pool,
    text: string,
    kind: LeaseKind,
    container: string | null,
    limit: CallLimit | null,
    option = optionOf(kind, named),
  ): Promise<string> {
    const address = parseAddress(text);
    if (address === undefined) throw errors.addressMalformed(text, option);
    const pool = await this.#poolWith(address, named, kind, option);
    refuseReserved(pool, address, option);
    const wanted = this.#offers.lease(pool, address, kind, container);
    const lease = await this.#leases.claim(address, wanted, option, limit);
    await this.#offers.confirm(pool, address);
    // What a swarm's manager claims by address is mostly a running container's: the node that gets it asks.
    const isAsked = lease === wanted && !isManagers(pool);
    const refusal = ({ simultaneous, isOnHost, macAddress, linkName }: HeldVerdict) => {
      const held = isOnHost ? errors.addressOnHost : errors.addressHeld;
      return (simultaneous ? errors.addressWanted : held)(lease.address, macAddress, linkName, option);
    };
    if (isAsked && kind === 'container' && !isServed(pool)) await this.#expectNearby(pool, address);
    const verdict = isAsked ? await this.#offers.ask(pool, address, lease, { limit, refusal }) : NOT_HELD;
    if (verdict.held) throw refusal(verdict);
    if (lease === wanted && kind === 'container') this.#releases.noteClaim(lease);
    await this.#recalls.given(pool, address, isSearched(pool, address) && !isServed(pool) ? container : null);
    return withLength(pool, address);
  }

  /** Of a stack whose containers are given addresses the next is likely to lie near this one. */
  async #expectNearby(pool: Pool, address: Address): Promise<void> {
    if (await this.#standby.isReady(pool, address)) return;
    const realm = await this.#leases.realm(realmOf(pool));
    this.#nearby.missed(pool, address, (one) => realm.isFree(one));
  }

  /** Swarm's allocator tries its pools in any order, so the address may be that of a sister pool (cnmallocator). */
  async #poolWith(address: Address, named: Pool, kind: LeaseKind, option: string): Promise<Pool> {
    if (contains(known(named.subnet), address)) return named;
    const pools = kind === 'container' ? await this.#store.pools.list() : [];
    const pool = pools.find((other) => areSisters(other, named) && contains(known(other.subnet), address));
    if (pool === undefined) throw errors.addressOutside(formatAddress(address), named.subnet, option);
    return pool;
  }

  // --- chosen here -----------------------------------------------------------------------------------------------

  async #chooseGateway(pool: Pool, search: Search): Promise<string> {
    const common = (await this.#gatewayOf(pool)) ?? (await this.#gatewayOfOthers(pool));
    const likely = common ?? (isManagers(pool) ? undefined : await this.#likelyGateway(pool));
    return likely ?? (await this.#searched([pool], search)) ?? this.#refuse([pool], search);
  }

  /** In the global space a request is repeated by every new leader of the swarm, and the answer stays the same. */
  async #gatewayOf(pool: Pool): Promise<string | undefined> {
    return isGlobal(pool.addressSpace) ? this.#addressOf(pool, 'gateway') : undefined;
  }

  /**
   * What the host itself uses there is a gateway, else mostly the lowest address, wherever containers get theirs; whether either
   * is, on the network's LAN, the network room finds out.
   */
  async #likelyGateway(pool: Pool): Promise<string | undefined> {
    const subnet = known(pool.subnet);
    const hosts = (await this.#hostGateways()).find((one) => contains(subnet, one));
    const claimed = hosts && (await this.#claimGateway(pool, hosts));
    return claimed ?? this.#claimGateway(pool, lowestHost(subnet));
  }

  /** Undefined when somebody else has it. */
  async #claimGateway(pool: Pool, address: Address): Promise<string | undefined> {
    const wanted = this.#offers.gateway(pool, address);
    const claimed = await this.#leases.claim(address, wanted, '--gateway').catch((error: unknown) => {
      if (error instanceof errors.PluginError && error.kind === 'mistake') return undefined;
      throw error;
    });
    return claimed && withLength(pool, address);
  }

  /** The network room found out that this is the gateway. Throws ADDRESS_TAKEN. */
  async reserveGateway(poolId: string, text: string): Promise<void> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    await this.#name(pool, text, 'gateway', null, null, '-o gateway=');
  }

  /** Hosts that share the subnet share its gateway. */
  async #gatewayOfOthers(pool: Pool): Promise<string | undefined> {
    const realm = await this.#leases.realm(realmOf(pool));
    const subnet = known(pool.subnet);
    for (const address of realm.index.gatewaysOfOthers(subnet)) {
      if (await realm.insert(address, this.#offers.gateway(pool, address))) return withLength(pool, address);
    }
    return undefined;
  }

  async #addressOf(pool: Pool, wanted: LeaseKind): Promise<string | undefined> {
    const { index } = await this.#leases.realm(realmOf(pool));
    const address = index.find(wanted, pool.id);
    return address && withLength(pool, address);
  }

  // --- chosen from what containers had ---------------------------------------------------------------------------

  /** Nothing else is free: what was remembered for longest without use goes to who asks, before others what is on standby. */
  async #fromMemory(pools: readonly Pool[], search: Search): Promise<string | undefined> {
    const realm = await this.#leases.realm(pools.map(realmOf)[0] ?? '');
    while (!search.isOver) {
      const spares = pools.flatMap((pool) =>
        realm.spares(layoutOf(pool), MOST_ON_STANDBY).map((address) => ({ pool, address })),
      );
      const [first] = spares;
      const ready = spares.find(({ pool, address }) => this.#standby.isReadyFor(pool, address));
      const chosen = ready ?? first;
      if (chosen === undefined) return undefined;
      const candidate = { address: chosen.address, isReady: ready !== undefined };
      const tried = await this.#try(chosen.pool, realm, candidate, search);
      if (tried !== 'taken' && tried !== 'held') return tried;
    }
    return undefined;
  }

  /**
   * Goes on in the sister pools when the range is exhausted: engines try the next pool of a network only for an error
   * value of their own, which no plugin can answer (libnetwork endpoint.go assignAddressVersion).
   */
  async #choose(pool: Pool, search: Search): Promise<string> {
    this.#standby.expect(pool);
    search.share(2);
    const found = await this.#firstFree(pool, search);
    if (found !== undefined) return found;
    const pools = [pool, ...(await this.#sistersOf(pool))];
    const spilled = await this.#firstFreeOf(pools, search);
    if (spilled !== undefined) return spilled;
    await this.#leases.reclaim(realmOf(pool));
    return (await this.#searched(pools, search)) ?? this.#refuse(pools, search);
  }

  /** When nothing is free those passed over longest are asked for again, until the time is used up. */
  async #searched(pools: readonly Pool[], search: Search): Promise<string | undefined> {
    for (;;) {
      const found = (await this.#firstFreeOf(pools, search)) ?? (await this.#fromMemory(pools, search));
      if (found !== undefined) return found;
      if (!(await this.#retry(pools, search))) return undefined;
    }
  }

  async #firstFreeOf(pools: readonly Pool[], search: Search): Promise<string | undefined> {
    for (const [index, pool] of pools.entries()) {
      search.share(pools.length - index);
      const address = await this.#firstFree(pool, search);
      if (address !== undefined) return address;
    }
    return undefined;
  }

  /** False when none of the pools' addresses is passed over, or the time is used up. */
  async #retry(pools: readonly Pool[], search: Search): Promise<boolean> {
    const realm = await this.#leases.realm(pools.map(realmOf)[0] ?? '');
    const ranges = pools.map((pool) => layoutOf(pool).range);
    search.limit?.signal.throwIfAborted();
    for (; !search.isOverForGood; await this.#pass(LOOK_MS)) {
      const { used, wanted } = realm.count(ranges);
      if (used + wanted === 0) return false;
      if (realm.retry(ranges, search.batch, RETRY_MS) > 0) return true;
    }
    return false;
  }

  #pass(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#clock.after(ms, resolve));
  }

  async #sistersOf(pool: Pool): Promise<Pool[]> {
    return sistersOf(pool, await this.#store.pools.list());
  }

  /** The lease is inserted before the LAN is asked, so that whoever wants the address meanwhile finds it taken. */
  async #firstFree(pool: Pool, search: Search): Promise<string | undefined> {
    const realm = await this.#leases.realm(realmOf(pool));
    const layout = layoutOf(pool);
    let beyond: bigint | null = null;
    for (let misses = 0; !search.isOver; ) {
      search.limit?.signal.throwIfAborted();
      // No await from here to the insert, so that calls at the same time choose different addresses.
      const candidate = this.#candidate(pool, realm, search, beyond);
      if (candidate === undefined) return undefined;
      if (candidate === 'to come') {
        this.#standby.missed(pool, realm, 0);
        await this.#standby.decided(pool, realm, search.waitUntilMs);
        continue;
      }
      const { address } = candidate;
      if (isSequential(layout, search)) this.#lastGiven.set(pool.id, address.value);
      const tried = await this.#try(pool, realm, candidate, search);
      if (tried === 'taken') beyond = address.value + distance(misses++);
      else if (tried !== 'held') return tried;
    }
    return undefined;
  }

  /** The address with its length; `taken` when others who write to the same store were first, `held` when somebody has it. */
  async #try(pool: Pool, realm: Realm, candidate: Candidate, search: Search): Promise<string> {
    const { address } = candidate;
    const lease =
      search.kind === 'gateway'
        ? this.#offers.gateway(pool, address)
        : this.#offers.lease(pool, address, search.kind, search.name);
    const isFree = await this.#leases.underway(lease, async () =>
      (await realm.insert(address, lease)) ? this.#isFree(pool, realm, candidate, lease, search) : null,
    );
    if (isFree === null) await realm.catchUp();
    if (isFree !== true) return isFree === null ? 'taken' : 'held';
    if (search.kind === 'container') this.#releases.noteClaim(lease);
    await this.#recalls.given(pool, address, search.name);
    if (isSequential(layoutOf(pool), search)) await this.#noteLast(pool.id, lease.address);
    return withLength(pool, address);
  }

  /** A swarm's manager or CreateNetwork may change the pool meanwhile; then the next address says it. */
  async #noteLast(poolId: string, lastGiven: string): Promise<void> {
    const pool = await this.#store.pools.get(poolId);
    if (pool !== undefined) await this.#store.pools.replace(pool, { ...pool, lastGiven });
  }

  /**
   * One on standby, or one that is about to be; else the next free one, for which this call waits a window. Undefined when
   * there is none.
   */
  #candidate(pool: Pool, realm: Realm, search: Search, beyond: bigint | null): Candidate | 'to come' | undefined {
    const layout = layoutOf(pool);
    const after = isSequential(layout, search) ? (this.#lastGiven.get(pool.id) ?? lastOf(pool)) : null;
    const ready = this.#standby.next(pool, realm, after);
    if (ready !== undefined) return { address: ready, isReady: true };
    if (search.kind === 'container' && this.#standby.toWaitFor(pool, realm) > 0) return 'to come';
    const address = this.#nextUnasked(pool, realm, layout, beyond ?? after);
    if (address !== undefined) return { address, isReady: false };
    return this.#standby.isAsking(pool, realm) ? 'to come' : undefined;
  }

  /** Undefined when all that are free are asked for at this moment. */
  #nextUnasked(pool: Pool, realm: Realm, layout: Layout, after: bigint | null): Address | undefined {
    const first = realm.next(layout, after);
    for (let address = first; address !== undefined; ) {
      if (!this.#standby.isAsked(pool, address)) return address;
      address = realm.next(layout, address.value);
      if (address?.value === first?.value) return undefined;
    }
    return undefined;
  }

  async #isFree(
    pool: Pool,
    realm: Realm,
    { address, isReady }: Candidate,
    lease: Lease,
    search: Search,
  ): Promise<boolean> {
    await this.#offers.confirm(pool, address);
    this.#standby.refill(pool);
    // First its own question, for which the call waits.
    const asked = this.#offers.ask(pool, address, lease, { limit: search.limit, refusal: null });
    this.#standby.askAhead(pool, realm);
    if (search.kind === 'container') {
      if (isReady) this.#standby.used(pool, realm);
      else this.#standby.missed(pool, realm, search.batch - 1);
    }
    const verdict = await asked;
    if (verdict.held) search.meet(address, verdict);
    return !verdict.held;
  }

  async #refuse(pools: readonly Pool[], search: Search): Promise<never> {
    const realm = await this.#leases.realm(pools.map(realmOf)[0] ?? '');
    const lost = await this.#leases.ofLostHosts(
      realm.name,
      pools.map((pool) => layoutOf(pool).range),
    );
    throw rangeRefusal(pools, realm, search, lost);
  }
}

/**
 * Hosts that want an address at the same moment all want the lowest, and all but one have to try again: with sixteen of
 * them that would be eleven tries for each claim. So who was refused twice leaves some out, which the next claims fill.
 */
function distance(misses: number): bigint {
  return BigInt(Math.floor(Math.random() * Math.min(16 ** misses, WIDEST)));
}

function lastOf({ lastGiven }: Pool): bigint | null {
  return lastGiven === undefined ? null : (parseAddress(lastGiven)?.value ?? null);
}

function isSequential({ order }: Layout, { kind, isSerial }: Search): boolean {
  return kind === 'container' && (isSerial || order === 'sequential');
}

function refuseReserved(pool: Pool, address: Address, option: string): void {
  const meaning = reservedMeaning(known(pool.subnet), address);
  if (meaning !== undefined) throw errors.addressReserved(formatAddress(address), pool.subnet, meaning, option);
}

/** Where the user gave an address of this kind. */
function optionOf(kind: LeaseKind, pool: Pool): string {
  if (kind === 'gateway') return '--gateway';
  if (kind === 'auxiliary') return '--aux-address';
  if (kind === 'host') return '-o host_ip';
  return known(pool.subnet).family === 'IPv4' ? '--ip' : '--ip6';
}
