/**
 * The next addresses of each pool in use, probed on the LAN ahead of need and then kept on standby (lan/standby.ts), so that
 * the usual container start waits for no probe. Nothing is stored: after a start of the daemon they are probed anew.
 *
 * Cost on the LAN of one pool: 6 frames for each of its 4 addresses in nine to ten minutes, thus at most 2.7 a minute; for
 * IPv6 also one multicast report each in two minutes.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { backgroundClock, type Clock } from '../clock.ts';
import type { Kept, Loss } from '../lan/verdict.ts';
import { isOfSwarm, type Pool } from '../model.ts';
import { realmOf, type Store } from '../store/store.ts';
import type { Leases } from './leases.ts';
import { type Layout, layoutOf } from './pool.ts';
import type { Realm } from './realm.ts';

/** What it needs of the LANs of the pools. */
export interface Keeper {
  /** Null when there is nothing to ask: an isolated network, the profile `off`. Throws while the parent is down or gone. */
  keep(pool: Pool, address: Address, lost: (loss: Loss) => void, signal: AbortSignal): Promise<Kept | Loss | null>;
  /** Whether somebody has the address kept. */
  isKept(pool: Pool, address: Address): Promise<boolean>;
  /** Ends the guard of an address that nobody got. */
  release(pool: Pool, address: Address): Promise<void>;
}

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly keeper: Keeper;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
}

/** An address on standby. */
interface Ready {
  readonly address: Address;
  readonly handle: Kept;
}

/** What is on standby for one pool. */
interface PoolStandby {
  readonly poolId: string;
  readonly kept: Map<string, Ready>;
  /** The first of them have all been probed: until then a higher one may be on standby while a lower one is not yet. */
  isFilled: boolean;
  /** Addresses that others wanted, by text, and until when (ms of the clock) they are left alone. */
  readonly avoided: Map<string, number>;
  readonly controller: AbortController;
  /** The last one given where the order is sequential. */
  after: bigint | null;
  refilling: Promise<void> | undefined;
  cancelTimer: () => void;
  dueMs: number;
}

/** Addresses on standby for each pool. */
const ON_STANDBY = 4;
/** Only the pools that were used last have addresses on standby. */
const MOST_POOLS = 64;
/** Probes at a time, of all pools together. */
const AT_ONCE = 8;
/** How long a refill waits, so that a container that starts has the machine to itself first. */
const REFILL_MS = 2000;
/** Hosts that start together shall not probe together: each waits up to so long. */
const START_SPREAD_MS = 3000;
/** How long until the next try, half as much more or less, where the LAN could not be asked. */
const RETRY_MS = 15_000;
/** How long an address is left alone that another host wanted, up to twice as long. */
const AVOID_MS = 20_000;

/** Addresses on standby for the pools in use. Never throws into a call: what cannot be probed now is tried again. */
export class Standby {
  readonly #store: Store;
  readonly #leases: Leases;
  readonly #keeper: Keeper;
  readonly #clock: Clock;
  readonly #random: () => number;
  /** In order of their last use. */
  readonly #pools = new LatestMap<string, PoolStandby>(MOST_POOLS);
  readonly #waiting: (() => void)[] = [];
  #asking = 0;

  constructor({ store, leases, keeper, clock = backgroundClock, random = Math.random }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#keeper = keeper;
    this.#clock = clock;
    this.#random = random;
  }

  /**
   * The pools of a network, or of all networks: from now on addresses of them are kept ready. Not those of a swarm's: where
   * its managers choose the addresses, the nodes' questions would only be in the way of the one that needs the address.
   */
  async start(networkId?: string): Promise<void> {
    const pools = (await this.#store.pools.list()).filter(
      (pool) => pool.networkId !== null && !isOfSwarm(pool.networkId),
    );
    const wanted = pools.filter((pool) => networkId === undefined || pool.networkId === networkId);
    const latest = wanted.sort((a, b) => a.changedAt.localeCompare(b.changedAt)).slice(-MOST_POOLS);
    for (const { id } of latest) this.#refillIn(this.#ofPool(id), START_SPREAD_MS * this.#random());
  }

  /** An address of the pool was chosen here: soon as many are on standby for it as before. */
  refill({ id, networkId }: Pool): void {
    if (networkId !== null) this.#refillIn(this.#ofPool(id), REFILL_MS);
  }

  /** The address to give out next among those on standby; undefined when there is none, or not yet. `after`: see nextAddress in pool.ts. */
  next({ id }: Pool, realm: Realm, after: bigint | null): Address | undefined {
    const standby = this.#pools.get(id);
    if (standby === undefined) return undefined;
    standby.after = after;
    if (!standby.isFilled) return undefined;
    const free = Array.from(standby.kept.values(), ({ address }) => address).filter((one) => realm.isFree(one));
    free.sort((a, b) => (a.value < b.value ? -1 : 1));
    return free.find(({ value }) => after !== null && value > after) ?? free[0];
  }

  /** An address was given back. If the LAN room has kept it since its container left, it is on standby at once. */
  async released(pool: Pool, address: Address): Promise<void> {
    await this.#keeper.release(pool, address);
    const standby = this.#pools.get(pool.id);
    if (standby === undefined || !(await this.#keeper.isKept(pool, address))) return;
    await this.#keep(standby, pool, await this.#leases.realm(realmOf(pool)), address);
    this.#trim(standby);
  }

  /** The pool was released: nothing is on standby for it any more. */
  forget(poolId: string): void {
    const standby = this.#pools.get(poolId);
    if (standby !== undefined) void this.#drop(standby);
  }

  /** Ends the probes under way and lets go of everything. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#pools.values(), (standby) => this.#drop(standby)));
  }

  async #drop(standby: PoolStandby): Promise<void> {
    this.#pools.delete(standby.poolId);
    standby.cancelTimer();
    standby.controller.abort(new Error('the pool is gone'));
    await standby.refilling;
    const kept = [...standby.kept.values()];
    standby.kept.clear();
    for (const { handle } of kept) handle.release();
  }

  #ofPool(poolId: string): PoolStandby {
    const standby = this.#pools.get(poolId) ?? this.#begin(poolId);
    const longestUnused = this.#pools.put(poolId, standby);
    if (longestUnused !== undefined) void this.#drop(longestUnused);
    return standby;
  }

  #begin(poolId: string): PoolStandby {
    return {
      poolId,
      kept: new Map(),
      isFilled: false,
      avoided: new Map(),
      controller: new AbortController(),
      after: null,
      refilling: undefined,
      cancelTimer: () => undefined,
      dueMs: Number.POSITIVE_INFINITY,
    };
  }

  // --- refilling ------------------------------------------------------------------------------------------------------

  #refillIn(standby: PoolStandby, delayMs: number): void {
    const dueMs = this.#clock.nowMs() + delayMs;
    if (dueMs >= standby.dueMs || standby.controller.signal.aborted) return;
    standby.cancelTimer();
    standby.dueMs = dueMs;
    standby.cancelTimer = this.#clock.after(delayMs, () => {
      standby.dueMs = Number.POSITIVE_INFINITY;
      standby.refilling = (standby.refilling ?? Promise.resolve())
        .then(() => this.#refillNow(standby))
        .catch(() => this.#retry(standby));
    });
  }

  #retry(standby: PoolStandby): void {
    this.#refillIn(standby, RETRY_MS * (0.5 + this.#random()));
  }

  async #refillNow(standby: PoolStandby): Promise<void> {
    const pool = await this.#store.pools.get(standby.poolId);
    if (pool === undefined || standby.controller.signal.aborted) return;
    const realm = await this.#leases.realm(realmOf(pool));
    const missing = this.#missing(standby, realm, layoutOf(pool));
    const ask = (address: Address) => this.#inTurn(() => this.#keep(standby, pool, realm, address));
    const outcomes = await Promise.all(missing.map(ask));
    standby.isFilled = true;
    if (outcomes.includes('ended')) this.#retry(standby);
    // Hosts that want the same ones meet again only by chance.
    else if (outcomes.some((outcome) => outcome !== 'kept'))
      this.#refillIn(standby, 1000 + START_SPREAD_MS * this.#random());
  }

  /** The next free addresses that are neither on standby nor avoided, as many as are missing. */
  #missing(standby: PoolStandby, realm: Realm, layout: Layout): Address[] {
    const nowMs = this.#clock.nowMs();
    for (const [text, untilMs] of standby.avoided) if (untilMs <= nowMs) standby.avoided.delete(text);
    const passed = standby.kept.size + standby.avoided.size;
    const found = new Map<string, Address>();
    let after = layout.order === 'sequential' ? standby.after : null;
    for (let step = 0; step < passed + ON_STANDBY && standby.kept.size + found.size < ON_STANDBY; step++) {
      const address = realm.next(layout, after);
      if (address === undefined || found.has(formatAddress(address))) break;
      after = address.value;
      const text = formatAddress(address);
      if (!standby.kept.has(text) && !standby.avoided.has(text)) found.set(text, address);
    }
    return [...found.values()];
  }

  /** Probes the address and keeps it; one that the LAN room keeps already joins at once. */
  async #keep(standby: PoolStandby, pool: Pool, realm: Realm, address: Address): Promise<'kept' | Loss> {
    const { signal } = standby.controller;
    const text = formatAddress(address);
    if (signal.aborted || !realm.isFree(address) || standby.kept.has(text)) return 'kept';
    const lost = (loss: Loss) => this.#lost(standby, realm, address, loss);
    const outcome = await this.#keeper.keep(pool, address, lost, signal).catch(() => 'ended' as const);
    if (outcome === null) this.forget(pool.id);
    else if (typeof outcome === 'string') this.#avoid(standby, realm, address, outcome);
    // Given back and filled in at the same moment, it was kept twice: one listener too many would keep it for ever.
    else if (signal.aborted || standby.kept.has(text)) outcome.release();
    else standby.kept.set(text, { address, handle: outcome });
    return typeof outcome === 'string' ? outcome : 'kept';
  }

  #lost(standby: PoolStandby, realm: Realm, address: Address, loss: Loss): void {
    if (!standby.kept.delete(formatAddress(address))) return;
    this.#avoid(standby, realm, address, loss);
    this.#refillIn(standby, standby.kept.size > 1 ? REFILL_MS : 0);
  }

  #avoid(standby: PoolStandby, realm: Realm, address: Address, loss: Loss): void {
    if (loss === 'used' && realm.isFree(address)) realm.hold(address);
    if (loss === 'wanted')
      standby.avoided.set(formatAddress(address), this.#clock.nowMs() + AVOID_MS * (1 + this.#random()));
  }

  /** What came back makes those on standby one too many: the last in order goes. */
  #trim(standby: PoolStandby): void {
    const inOrder = [...standby.kept].sort(([, a], [, b]) => (a.address.value < b.address.value ? -1 : 1));
    for (const [text, { handle }] of inOrder.slice(ON_STANDBY)) {
      standby.kept.delete(text);
      handle.release();
    }
  }

  async #inTurn<T>(act: () => Promise<T>): Promise<T> {
    if (this.#asking >= AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#asking++;
    try {
      return await act();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#asking--;
      else next();
    }
  }
}
