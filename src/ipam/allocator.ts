/**
 * Addresses of pools: gateways, auxiliary addresses and those of containers, named by the user or chosen here.
 */
import { type Address, contains, formatAddress, formatInterfaceAddress, parseAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import * as errors from '../errors.ts';
import { type HeldVerdict, NOT_HELD, type Verdict } from '../lan/verdict.ts';
import type { Lease, LeaseKind, Pool } from '../model.ts';
import type { AddressRequest, CallLimit } from '../requests.ts';
import { leaseKey, realmOf, type Store } from '../store/store.ts';
import type { Ages } from './ages.ts';
import type { Leases } from './leases.ts';
import {
  isBeingCreated,
  isGlobal,
  known,
  type Layout,
  layoutOf,
  nameOf,
  realmOfPoolId,
  reservedMeaning,
  sizeWithin,
} from './pool.ts';
import type { Realm } from './realm.ts';
import { Search } from './search.ts';
import type { Standby } from './standby.ts';
import { isManagers, shareSwarmNetwork } from './swarm.ts';

/** How an address is to be asked for. */
export interface PoolQuestion {
  /** Null for what no engine waits for. */
  readonly limit: CallLimit | null;
  /**
   * What is said of who has it, where no other address will do: he is asked again until the limit is near. Null where another
   * one does.
   */
  readonly refusal: ((holder: HeldVerdict) => errors.PluginError) | null;
}

/** Asks the LAN of the pool whether a stranger uses the address. Throws when the limit's signal fires or nothing can be asked. */
export type Probe = (pool: Pool, address: Address, question: PoolQuestion) => Promise<Verdict>;

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly now: () => Date;
  readonly ages: Ages;
  readonly clock: Clock;
  readonly probe: Probe;
  readonly standby: Standby;
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

/** Calls of the last seconds. */
const MOST_CLAIMED = 256;

/** Gives out addresses and takes them back. A lease is recorded before its address is answered. */
export class Allocator {
  readonly #store: Store;
  readonly #leases: Leases;
  readonly #now: () => Date;
  readonly #ages: Ages;
  readonly #clock: Clock;
  readonly #probe: Probe;
  readonly #standby: Standby;
  /** By pool id, the last address given out, where sequential order goes on. After a start it begins at the lowest. */
  readonly #lastGiven = new Map<string, bigint>();
  /** By its key, the lease of an address that was named and nobody's. */
  readonly #claimed = new LatestMap<string, Lease>(MOST_CLAIMED);

  constructor({ store, leases, now, ages, clock, probe, standby }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#now = now;
    this.#ages = ages;
    this.#clock = clock;
    this.#probe = probe;
    this.#standby = standby;
  }

  /**
   * RequestAddress: answers `192.168.1.2/24`. Throws POOL_UNKNOWN, RANGE_EXHAUSTED or RANGE_HELD; for an address that was
   * named also ADDRESS_MALFORMED, ADDRESS_OUTSIDE, ADDRESS_RESERVED, ADDRESS_TAKEN, ADDRESS_HELD or ADDRESS_WANTED.
   */
  async request({ poolId, address, isGateway, serial, limit }: AddressRequest): Promise<string> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    if (address !== null) return this.#name(pool, address, this.#kindOf(pool, isGateway), limit);
    const search = new Search(isGateway ? 'gateway' : 'container', serial, limit, this.#clock);
    return isGateway ? this.#chooseGateway(pool, search) : this.#choose(pool, search);
  }

  /** The host's own end on the parent; asked for again it is the same. */
  async reserveForHost(poolId: string, address: string | null): Promise<string> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    const search = new Search('host', false, null, this.#clock);
    const held = await this.#addressOf(pool, 'host');
    if (held !== undefined && (address === null || held.startsWith(`${address}/`))) return held;
    if (address !== null) return this.#name(pool, address, 'host', null);
    return (await this.#searched([pool], search)) ?? this.#refuse([pool], search);
  }

  /** An auxiliary address is asked for like a container's `--ip`, only before there is a network. */
  #kindOf(pool: Pool, isGateway: boolean): LeaseKind {
    if (isGateway) return 'gateway';
    const isBefore = pool.networkId === null && pool.swarm === undefined && isBeingCreated(pool, this.#ages);
    return isBefore ? 'auxiliary' : 'container';
  }

  // --- named by the user -----------------------------------------------------------------------------------------

  async #name(named: Pool, text: string, kind: LeaseKind, limit: CallLimit | null): Promise<string> {
    const option = optionOf(kind, named);
    const address = parseAddress(text);
    if (address === undefined) throw errors.addressMalformed(text, option);
    const pool = await this.#poolWith(address, named, kind, option);
    refuseReserved(pool, address, option);
    const wanted = this.#newLease(pool, address, kind);
    const lease = await this.#leases.claim(address, wanted, option, limit);
    await this.#confirm(pool, address);
    // What a swarm's manager claims by address is mostly a running container's: the node that gets it asks.
    const isAsked = lease === wanted && !isManagers(pool);
    const refusal = ({ simultaneous, macAddress, linkName }: HeldVerdict) =>
      (simultaneous ? errors.addressWanted : errors.addressHeld)(lease.address, macAddress, linkName, option);
    const verdict = isAsked ? await this.#ask(pool, address, lease, { limit, refusal }) : NOT_HELD;
    if (verdict.held) throw refusal(verdict);
    if (lease === wanted && kind === 'container') this.#claimed.put(leaseKey(lease), lease);
    return formatInterfaceAddress({ ...address, length: known(pool.subnet).length });
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
    return common ?? (await this.#searched([pool], search)) ?? this.#refuse([pool], search);
  }

  /** In the global space a request is repeated by every new leader of the swarm, and the answer stays the same. */
  async #gatewayOf(pool: Pool): Promise<string | undefined> {
    return isGlobal(pool.addressSpace) ? this.#addressOf(pool, 'gateway') : undefined;
  }

  /** Hosts that share the subnet share its gateway. */
  async #gatewayOfOthers(pool: Pool): Promise<string | undefined> {
    const realm = await this.#leases.realm(realmOf(pool));
    const subnet = known(pool.subnet);
    for (const address of realm.index.gatewaysOfOthers(subnet)) {
      if (await realm.insert(address, this.#newLease(pool, address, 'gateway')))
        return formatInterfaceAddress({ ...address, length: subnet.length });
    }
    return undefined;
  }

  async #addressOf(pool: Pool, wanted: LeaseKind): Promise<string | undefined> {
    const { index } = await this.#leases.realm(realmOf(pool));
    const address = index.find(wanted, pool.id);
    return address && formatInterfaceAddress({ ...address, length: known(pool.subnet).length });
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
      const found = await this.#firstFreeOf(pools, search);
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
    const { family } = known(pool.subnet);
    const others = (await this.#store.pools.list()).filter(({ id }) => id !== pool.id);
    return others.filter((other) => areSisters(other, pool) && known(other.subnet).family === family);
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
      const lease = this.#newLease(pool, address, search.kind);
      const tried = await this.#leases.underway(lease, async () =>
        (await realm.insert(address, lease)) ? this.#isFree(pool, realm, candidate, lease, search) : 'taken',
      );
      if (tried === true) return formatInterfaceAddress({ ...address, length: layout.subnet.length });
      if (tried === 'taken') {
        // Others write to the same store.
        await realm.catchUp();
        beyond = address.value + distance(misses++);
      }
    }
    return undefined;
  }

  /**
   * One on standby, or one that is about to be; else the next free one, for which this call waits a window. Undefined when
   * there is none.
   */
  #candidate(pool: Pool, realm: Realm, search: Search, beyond: bigint | null): Candidate | 'to come' | undefined {
    const layout = layoutOf(pool);
    const after = isSequential(layout, search) ? (this.#lastGiven.get(pool.id) ?? null) : null;
    const ready = this.#standby.next(pool, realm, after);
    if (ready !== undefined) return { address: ready, isReady: true };
    if (search.kind === 'container' && this.#standby.toWaitFor(pool) > 0) return 'to come';
    const address = this.#nextUnasked(pool, realm, layout, beyond ?? after);
    if (address !== undefined) return { address, isReady: false };
    return this.#standby.isAsking(pool) ? 'to come' : undefined;
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
    await this.#confirm(pool, address);
    this.#standby.refill(pool);
    // First its own question, for which the call waits.
    const asked = this.#ask(pool, address, lease, { limit: search.limit, refusal: null });
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
    const layouts = pools.map(layoutOf);
    const ranges = layouts.map(({ range }) => range);
    const realm = await this.#leases.realm(pools.map(realmOf)[0] ?? '');
    const counts = realm.count(ranges);
    const excluded = layouts.reduce((sum, layout) => sum + sizeWithin(layout.range, layout.excluded), 0n);
    const uses = [
      [counts.container, 'leased'],
      [counts.gateway, 'gateway'],
      [counts.auxiliary, 'auxiliary'],
      [counts.host, 'of this host'],
      [excluded, 'excluded'],
      [counts.used, 'used by others on the LAN'],
      [counts.wanted, 'asked for by others on the LAN'],
    ] as const;
    const names = pools.map(nameOf);
    const { last, suspect } = search;
    if (last !== undefined && suspect !== null) throw errors.rangeAnsweredByOne(names, uses, last, suspect);
    const lost = await this.#leases.ofLostHosts(realm.name, ranges);
    if (last !== undefined) throw errors.rangeHeld(names, uses, last, lost);
    const isRangeGiven = pools.some(({ range }) => range !== null);
    throw errors.rangeExhausted(names, uses, isRangeGiven, lost);
  }

  // --- leases ----------------------------------------------------------------------------------------------------

  #newLease(pool: Pool, address: Address, kind: LeaseKind): Lease {
    return {
      realm: realmOf(pool),
      address: formatAddress(address),
      kind,
      poolIds: [pool.id],
      endpointId: null,
      ...(pool.swarm && { round: pool.swarm.round }),
      changedAt: this.#now().toISOString(),
    };
  }

  /** A pool that was released after the request had read it must not leave an address behind. */
  async #confirm(pool: Pool, address: Address): Promise<void> {
    if ((await this.#store.pools.get(pool.id)) !== undefined) return;
    await this.#leases.giveUp(address, realmOf(pool), pool.id);
    throw errors.poolUnknown(pool.id);
  }

  /** Gateways are expected to answer, and auxiliary addresses belong to others. */
  async #ask(pool: Pool, address: Address, lease: Lease, question: PoolQuestion): Promise<Verdict> {
    if (lease.kind === 'gateway' || lease.kind === 'auxiliary') return NOT_HELD;
    return this.#leases.underway(lease, () => this.#askFor(pool, address, lease, question));
  }

  async #askFor(pool: Pool, address: Address, lease: Lease, question: PoolQuestion): Promise<Verdict> {
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
    await this.#leases.giveUp(address, lease.realm, holder);
    if (pool !== undefined && lease.kind === 'container') await this.#standby.released(pool, address);
  }

  /**
   * RequestAddress was answered when its engine had given up, which asks for the address again: one that was named goes if that call
   * leased it, and nobody has changed the lease since.
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

/**
 * Hosts that want an address at the same moment all want the lowest, and all but one have to try again: with sixteen of
 * them that would be eleven tries for each claim. So who was refused twice leaves some out, which the next claims fill.
 */
function distance(misses: number): bigint {
  return BigInt(Math.floor(Math.random() * Math.min(16 ** misses, WIDEST)));
}

function isSequential({ order }: Layout, { kind, isSerial }: Search): boolean {
  return kind === 'container' && (isSerial || order === 'sequential');
}

/** Pools of one network. */
function areSisters(a: Pool, b: Pool): boolean {
  if (realmOf(a) !== realmOf(b)) return false;
  return a.networkId === null ? shareSwarmNetwork(a, b) : a.networkId === b.networkId;
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
