/**
 * Addresses of pools: gateways, auxiliary addresses and those of containers, named by the user or chosen here.
 */
import { type Address, contains, formatAddress, formatInterfaceAddress, parseAddress } from '../address.ts';
import * as errors from '../errors.ts';
import { NOT_HELD, type Verdict } from '../lan/verdict.ts';
import type { Lease, LeaseKind, Pool } from '../model.ts';
import type { AddressRequest, CallLimit } from '../requests.ts';
import { leaseKey, realmOf, type Store } from '../store/store.ts';
import type { Leases } from './leases.ts';
import {
  isBeingCreated,
  isGlobal,
  known,
  layoutOf,
  nameOf,
  realmOfPoolId,
  reservedMeaning,
  sizeWithin,
} from './pool.ts';
import type { Standby } from './standby.ts';
import { isManagers, shareSwarmNetwork } from './swarm.ts';

/** Asks the LAN of the pool whether a stranger uses the address. Throws when the limit's signal fires or nothing can be asked. */
export type Probe = (pool: Pool, address: Address, limit: CallLimit | null) => Promise<Verdict>;

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly now: () => Date;
  readonly probe: Probe;
  readonly standby: Standby;
}

/** A search for a free address, which may go through several pools. */
interface Search {
  readonly kind: LeaseKind;
  readonly serial: boolean;
  /** Null for what no engine waits for. */
  readonly limit: CallLimit | null;
  /** How many more addresses may be asked for on the LAN. */
  tries: number;
}

/** Addresses asked for on the LAN in one call; more, and the caller's patience ends before the range does. */
const TRIES = 16;
/** Furthest that hosts of a shared store go out of each other's way, in addresses. */
const WIDEST = 256;

/** Gives out addresses and takes them back. A lease is durable before its address is answered. */
export class Allocator {
  readonly #store: Store;
  readonly #leases: Leases;
  readonly #now: () => Date;
  readonly #probe: Probe;
  readonly #standby: Standby;
  /** By pool id, the last address given out, where sequential order goes on. After a start it begins at the lowest. */
  readonly #lastGiven = new Map<string, bigint>();

  constructor({ store, leases, now, probe, standby }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#now = now;
    this.#probe = probe;
    this.#standby = standby;
  }

  /**
   * RequestAddress: answers `192.168.1.2/24`. Throws POOL_UNKNOWN, RANGE_EXHAUSTED or RANGE_HELD; for an address that was
   * named also ADDRESS_MALFORMED, ADDRESS_OUTSIDE, ADDRESS_RESERVED, ADDRESS_TAKEN or ADDRESS_HELD.
   */
  async request({ poolId, address, isGateway, serial, limit }: AddressRequest): Promise<string> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    if (address !== null) return this.#name(pool, address, this.#kindOf(pool, isGateway), limit);
    const search: Search = { kind: isGateway ? 'gateway' : 'container', serial, limit, tries: TRIES };
    return isGateway ? this.#chooseGateway(pool, search) : this.#choose(pool, search);
  }

  /** The host's own end on the parent; asked for again it is the same. */
  async reserveForHost(poolId: string, address: string | null): Promise<string> {
    const pool = await this.#store.pools.get(poolId);
    if (pool === undefined) throw errors.poolUnknown(poolId);
    const search: Search = { kind: 'host', serial: false, limit: null, tries: TRIES };
    const held = await this.#addressOf(pool, 'host');
    if (held !== undefined && (address === null || held.startsWith(`${address}/`))) return held;
    if (address !== null) return this.#name(pool, address, 'host', null);
    return (await this.#firstFree(pool, search)) ?? this.#refuse([pool]);
  }

  /** An auxiliary address is asked for like a container's `--ip`, only before there is a network. */
  #kindOf(pool: Pool, isGateway: boolean): LeaseKind {
    if (isGateway) return 'gateway';
    const isBefore = pool.networkId === null && pool.swarm === undefined && isBeingCreated(pool, this.#now());
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
    const lease = await this.#leases.claim(address, wanted, option);
    await this.#confirm(pool, address);
    // What a swarm's manager claims by address is mostly a running container's: the node that gets it asks.
    const isAsked = lease === wanted && !isManagers(pool);
    const verdict = isAsked ? await this.#ask(pool, address, lease, limit) : NOT_HELD;
    if (verdict.held) throw errors.addressHeld(lease.address, verdict.macAddress, verdict.linkName, option);
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
    return common ?? (await this.#firstFree(pool, search)) ?? this.#refuse([pool]);
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
    const found = await this.#firstFree(pool, search);
    if (found !== undefined) return found;
    const sisters = await this.#sistersOf(pool);
    const spilled = await this.#firstFreeOf(sisters, search);
    if (spilled !== undefined) return spilled;
    await this.#leases.reclaim(realmOf(pool));
    const pools = [pool, ...sisters];
    return (await this.#firstFreeOf(pools, search)) ?? this.#refuse(pools);
  }

  async #firstFreeOf(pools: readonly Pool[], search: Search): Promise<string | undefined> {
    for (const pool of pools) {
      const address = await this.#firstFree(pool, search);
      if (address !== undefined) return address;
    }
    return undefined;
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
    const isSequential = search.kind === 'container' && (search.serial || layout.order === 'sequential');
    let beyond: bigint | null = null;
    for (let misses = 0; ; ) {
      search.limit?.signal.throwIfAborted();
      const after = isSequential ? (this.#lastGiven.get(pool.id) ?? null) : null;
      const ready = this.#standby.next(pool, realm, after);
      const address: Address | undefined = ready ?? realm.next(layout, beyond ?? after);
      if (address === undefined) return undefined;
      if (isSequential) this.#lastGiven.set(pool.id, address.value);
      const lease = this.#newLease(pool, address, search.kind);
      if (await realm.insert(address, lease)) {
        if (await this.#isFree(pool, address, lease, search))
          return formatInterfaceAddress({ ...address, length: layout.subnet.length });
      } else {
        // Others write to the same store.
        await realm.catchUp();
        beyond = address.value + distance(misses++);
      }
    }
  }

  async #isFree(pool: Pool, address: Address, lease: Lease, search: Search): Promise<boolean> {
    await this.#confirm(pool, address);
    this.#standby.refill(pool);
    const verdict = await this.#ask(pool, address, lease, search.limit);
    if (!verdict.held) return true;
    if (--search.tries > 0) return false;
    throw errors.rangeHeld(nameOf(pool), TRIES, lease.address, verdict.macAddress, verdict.linkName);
  }

  async #refuse(pools: readonly Pool[]): Promise<never> {
    const layouts = pools.map(layoutOf);
    const ranges = layouts.map(({ range }) => range);
    const realm = await this.#leases.realm(pools.map(realmOf)[0] ?? '');
    const { container, gateway, auxiliary, host, held } = realm.count(ranges);
    const excluded = layouts.reduce((sum, layout) => sum + sizeWithin(layout.range, layout.excluded), 0n);
    throw errors.rangeExhausted(
      pools.map(nameOf),
      [
        [container, 'leased'],
        [gateway, 'gateway'],
        [auxiliary, 'auxiliary'],
        [host, 'of this host'],
        [held, 'held by others on the LAN'],
        [excluded, 'excluded'],
      ],
      pools.some(({ range }) => range !== null),
    );
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
  async #ask(pool: Pool, address: Address, lease: Lease, limit: CallLimit | null): Promise<Verdict> {
    if (lease.kind === 'gateway' || lease.kind === 'auxiliary') return NOT_HELD;
    const verdict = await this.#probe(pool, address, limit).catch(async (error: unknown) => {
      // The first error goes on; a lease left behind by a second one is reclaimed later.
      await this.#leases.giveUp(address, lease.realm, pool.id).catch(() => undefined);
      throw error;
    });
    if (!verdict.held) return verdict;
    await this.#leases.giveUp(address, lease.realm, pool.id);
    (await this.#leases.realm(lease.realm)).hold(address);
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
