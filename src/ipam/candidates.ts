/**
 * The next addresses of each pool in use, asked for on the LAN ahead of need and kept in reserve (lan/standby.ts), so that
 * the usual container start waits for no probe. Nothing is stored: after a start they are asked for anew.
 *
 * Cost on the LAN of one pool: 6 frames for each of its 4 addresses in nine to ten minutes, thus at most 2.7 a minute; for
 * IPv6 also one multicast report each in two minutes.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Loss } from '../lan/verdict.ts';
import { isOfSwarm, type Pool } from '../model.ts';
import { realmOf, type Store } from '../store/store.ts';
import type { Leases } from './leases.ts';
import { type Layout, layoutOf } from './pool.ts';
import type { Realm } from './realm.ts';

/** What it needs of the LANs of the pools. */
export interface Keeper {
  /** Null when there is nothing to ask: an isolated network, the profile `off`. Throws while the parent is down or gone. */
  keep(pool: Pool, address: string, lost: (loss: Loss) => void, signal: AbortSignal): Promise<'kept' | Loss | null>;
  /** The one who gave `lost` wants it kept no longer. */
  letGo(lost: (loss: Loss) => void): void;
  isKept(pool: Pool, address: string): Promise<boolean>;
  /** Ends the guard of an address that nobody got. */
  release(pool: Pool, address: string): Promise<void>;
}

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly keeper: Keeper;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
}

interface Candidate {
  readonly address: Address;
  readonly lost: (loss: Loss) => void;
}

interface Warmth {
  readonly poolId: string;
  readonly kept: Map<string, Candidate>;
  /** The first of them have all been asked for: until then a higher one may be in reserve while a lower one is not yet. */
  isFilled: boolean;
  /** Addresses that others wanted, and until when they are left alone. */
  readonly shunned: Map<string, number>;
  readonly controller: AbortController;
  /** The last one given where the order is sequential. */
  after: bigint | null;
  filling: Promise<void> | undefined;
  cancelTimer: () => void;
  dueMs: number;
}

/** Of each pool. */
const RESERVE = 4;
/** Pools with a reserve: those used last. */
const MOST_POOLS = 64;
/** Questions at a time, of all pools together. */
const AT_ONCE = 8;
/** A container that starts has the machine to itself first. */
const REFILL_MS = 2000;
/** Hosts that start together shall not ask together. */
const START_SPREAD_MS = 3000;
const RETRY_MS = 15_000;
const SHUN_MS = 20_000;

export class Candidates {
  readonly #store: Store;
  readonly #leases: Leases;
  readonly #keeper: Keeper;
  readonly #clock: Clock;
  readonly #random: () => number;
  /** In order of their last use. */
  readonly #pools = new LatestMap<string, Warmth>(MOST_POOLS);
  readonly #waiting: (() => void)[] = [];
  #asking = 0;

  constructor({ store, leases, keeper, clock = systemClock, random = Math.random }: Parts) {
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
  async warm(networkId?: string): Promise<void> {
    const pools = (await this.#store.pools.list()).filter(
      (pool) => pool.networkId !== null && !isOfSwarm(pool.networkId),
    );
    const wanted = pools.filter((pool) => networkId === undefined || pool.networkId === networkId);
    const latest = wanted.sort((a, b) => a.changedAt.localeCompare(b.changedAt)).slice(-MOST_POOLS);
    for (const { id } of latest) this.#fillIn(this.#warmth(id), START_SPREAD_MS * this.#random());
  }

  /** Addresses of the pool are chosen here: a reserve for it is made up soon, if it has none. */
  tend({ id, networkId }: Pool): void {
    if (networkId !== null) this.#fillIn(this.#warmth(id), REFILL_MS);
  }

  /** The address to give out next among those in reserve. `after`: see nextAddress in pool.ts. */
  best({ id }: Pool, realm: Realm, after: bigint | null): Address | undefined {
    const warmth = this.#pools.get(id);
    if (warmth === undefined) return undefined;
    warmth.after = after;
    if (!warmth.isFilled) return undefined;
    const free = Array.from(warmth.kept.values(), ({ address }) => address).filter((one) => realm.isFree(one));
    free.sort((a, b) => (a.value < b.value ? -1 : 1));
    return free.find(({ value }) => after !== null && value > after) ?? free[0];
  }

  /** An address was given back. If it is in reserve since its container left, it is a candidate at once. */
  async returned(pool: Pool, address: Address): Promise<void> {
    await this.#keeper.release(pool, formatAddress(address));
    const warmth = this.#pools.get(pool.id);
    if (warmth === undefined || !(await this.#keeper.isKept(pool, formatAddress(address)))) return;
    await this.#keep(warmth, pool, await this.#leases.realm(realmOf(pool)), address);
    this.#trim(warmth);
  }

  /** The pool was released. */
  forget(poolId: string): void {
    const warmth = this.#pools.get(poolId);
    if (warmth !== undefined) void this.#drop(warmth);
  }

  /** Ends what is asked and lets go of everything. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#pools.values(), (warmth) => this.#drop(warmth)));
  }

  async #drop(warmth: Warmth): Promise<void> {
    this.#pools.delete(warmth.poolId);
    warmth.cancelTimer();
    warmth.controller.abort(new Error('the pool is gone'));
    await warmth.filling;
    const kept = [...warmth.kept.values()];
    warmth.kept.clear();
    for (const { lost } of kept) this.#keeper.letGo(lost);
  }

  #warmth(poolId: string): Warmth {
    const warmth = this.#pools.get(poolId) ?? this.#begin(poolId);
    const longestUnused = this.#pools.put(poolId, warmth);
    if (longestUnused !== undefined) void this.#drop(longestUnused);
    return warmth;
  }

  #begin(poolId: string): Warmth {
    return {
      poolId,
      kept: new Map(),
      isFilled: false,
      shunned: new Map(),
      controller: new AbortController(),
      after: null,
      filling: undefined,
      cancelTimer: () => undefined,
      dueMs: Number.POSITIVE_INFINITY,
    };
  }

  // --- filling ------------------------------------------------------------------------------------------------------

  #fillIn(warmth: Warmth, delayMs: number): void {
    const dueMs = this.#clock.nowMs() + delayMs;
    if (dueMs >= warmth.dueMs || warmth.controller.signal.aborted) return;
    warmth.cancelTimer();
    warmth.dueMs = dueMs;
    warmth.cancelTimer = this.#clock.after(delayMs, () => {
      warmth.dueMs = Number.POSITIVE_INFINITY;
      warmth.filling = (warmth.filling ?? Promise.resolve())
        .then(() => this.#fill(warmth))
        .catch(() => this.#retry(warmth));
    });
  }

  #retry(warmth: Warmth): void {
    this.#fillIn(warmth, RETRY_MS * (0.5 + this.#random()));
  }

  async #fill(warmth: Warmth): Promise<void> {
    const pool = await this.#store.pools.get(warmth.poolId);
    if (pool === undefined || warmth.controller.signal.aborted) return;
    const realm = await this.#leases.realm(realmOf(pool));
    const missing = this.#missing(warmth, realm, layoutOf(pool));
    const ask = (address: Address) => this.#inTurn(() => this.#keep(warmth, pool, realm, address));
    const outcomes = await Promise.all(missing.map(ask));
    warmth.isFilled = true;
    if (outcomes.includes('ended')) this.#retry(warmth);
    // Hosts that want the same ones meet again only by chance.
    else if (outcomes.some((outcome) => outcome !== 'kept'))
      this.#fillIn(warmth, 1000 + START_SPREAD_MS * this.#random());
  }

  /** The next free addresses that are neither in reserve nor left alone, as many as are missing. */
  #missing(warmth: Warmth, realm: Realm, layout: Layout): Address[] {
    const nowMs = this.#clock.nowMs();
    for (const [text, untilMs] of warmth.shunned) if (untilMs <= nowMs) warmth.shunned.delete(text);
    const passed = warmth.kept.size + warmth.shunned.size;
    const found = new Map<string, Address>();
    let after = layout.order === 'sequential' ? warmth.after : null;
    for (let step = 0; step < passed + RESERVE && warmth.kept.size + found.size < RESERVE; step++) {
      const address = realm.next(layout, after);
      if (address === undefined || found.has(formatAddress(address))) break;
      after = address.value;
      const text = formatAddress(address);
      if (!warmth.kept.has(text) && !warmth.shunned.has(text)) found.set(text, address);
    }
    return [...found.values()];
  }

  /** Asks and keeps; an address that is in reserve already joins at once. */
  async #keep(warmth: Warmth, pool: Pool, realm: Realm, address: Address): Promise<'kept' | Loss> {
    const { signal } = warmth.controller;
    const text = formatAddress(address);
    if (signal.aborted || !realm.isFree(address) || warmth.kept.has(text)) return 'kept';
    const lost = (loss: Loss) => this.#lost(warmth, realm, address, loss);
    const outcome = await this.#keeper.keep(pool, text, lost, signal).catch(() => 'ended' as const);
    if (outcome === null) this.forget(pool.id);
    else if (outcome !== 'kept') this.#pass(warmth, realm, address, outcome);
    // Given back and filled in at the same moment, it was kept twice: one listener too many would keep it for ever.
    else if (signal.aborted || warmth.kept.has(text)) this.#keeper.letGo(lost);
    else warmth.kept.set(text, { address, lost });
    return outcome ?? 'kept';
  }

  #lost(warmth: Warmth, realm: Realm, address: Address, loss: Loss): void {
    if (!warmth.kept.delete(formatAddress(address))) return;
    this.#pass(warmth, realm, address, loss);
    this.#fillIn(warmth, warmth.kept.size > 1 ? REFILL_MS : 0);
  }

  #pass(warmth: Warmth, realm: Realm, address: Address, loss: Loss): void {
    if (loss === 'used' && realm.isFree(address)) realm.hold(address);
    if (loss === 'wanted')
      warmth.shunned.set(formatAddress(address), this.#clock.nowMs() + SHUN_MS * (1 + this.#random()));
  }

  /** What came back makes those in reserve one too many: the last in order goes. */
  #trim(warmth: Warmth): void {
    const inOrder = [...warmth.kept].sort(([, a], [, b]) => (a.address.value < b.address.value ? -1 : 1));
    for (const [text, { lost }] of inOrder.slice(RESERVE)) {
      warmth.kept.delete(text);
      this.#keeper.letGo(lost);
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
