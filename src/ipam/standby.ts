/**
 * The next addresses of each pool in use, probed on the LAN ahead of need and then kept on standby (lan/standby.ts), so that
 * the usual container start waits for one short question. Nothing is stored: after a start of the daemon they are probed anew.
 *
 * Cost on the LAN of one pool: 3 frames for each of its 4 addresses in nine to ten minutes, thus at most 1.4 a minute; for
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
  /** Whether addresses are kept for the pool at all: not where no LAN is asked, nor where a parent carries one container. */
  keeps(pool: Pool): Promise<boolean>;
  /** Null when there is nothing to ask: an isolated network, the profile `off`. Throws while the parent is down or gone. */
  keep(pool: Pool, address: Address, lost: (loss: Loss) => void, signal: AbortSignal): Promise<Kept | Loss | null>;
  /** Whether somebody has the address kept. */
  isKept(pool: Pool, address: Address): Promise<boolean>;
  /** An address was given out; these are likely to follow soon. See Lan.askAhead(). */
  askAhead(pool: Pool, addresses: readonly Address[]): Promise<void>;
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
  readonly kept: Kept;
}

/** What is on standby for one pool. */
interface PoolStandby {
  readonly poolId: string;
  readonly ready: Map<string, Ready>;
  /** Addresses that are being asked for, by text. */
  readonly asked: Map<string, Address>;
  /** Called when one of them is decided. */
  readonly listeners: Set<() => void>;
  /** Callers who wait for one of them. */
  waiting: number;
  /** The first of them have all been probed: until then a higher one may be ready while a lower one is not yet. */
  isFilled: boolean;
  /** Its LAN is not asked, or not so: there is nothing to keep. */
  isWithout: boolean;
  /** Addresses that others wanted, by text, and until when (ms of the clock) they are left alone. */
  readonly avoided: Map<string, number>;
  readonly controller: AbortController;
  /** The last one given where the order is sequential. */
  after: bigint | null;
  /** Refills one after the other that found no free address. */
  misses: number;
  refilling: Promise<void> | undefined;
  cancelTimer: () => void;
  dueMs: number;
}

type Outcome = 'kept' | Loss;

/** Addresses on standby for each pool while nothing happens. */
export const ON_STANDBY = 4;
/** Only the pools that were used last have addresses on standby. */
const MOST_POOLS = 64;
/** Addresses that refills ask for at a time, of all pools together. Nobody waits for those. */
const AT_ONCE = 8;
/** How long a refill waits, so that a container that starts has the machine to itself first. */
const REFILL_MS = 2000;
/** Hosts that start together shall not probe together: each waits up to so long. */
const START_SPREAD_MS = 3000;
/** Whoever waits for an address waits so long at least, however late it is. */
const LEAST_WAIT_MS = 50;
/** How long until the next try, half as much more or less, where the LAN could not be asked. */
const RETRY_MS = 15_000;
/** The longest time between two refills of a pool all of whose addresses turn out to be used. */
const LONGEST_RETRY_MS = 300_000;
/** Of those on standby so many are asked for ahead when one before them is given out. */
const ASKED_AHEAD = 2;
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
    for (const { id } of latest) {
      const standby = this.#ofPool(id);
      standby.isWithout = false;
      this.#refillIn(standby, START_SPREAD_MS * this.#random());
    }
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
    if (!standby.isFilled && !isDecided(standby, realm)) return undefined;
    return inOrder(standby, realm)[0];
  }

  /** One was chosen: the next of those on standby are likely to follow. */
  askAhead(pool: Pool, realm: Realm): void {
    const standby = this.#pools.get(pool.id);
    if (standby === undefined) return;
    const next = inOrder(standby, realm).slice(0, ASKED_AHEAD);
    void this.#keeper.askAhead(pool, next).catch(() => undefined);
  }

  // --- without a ready address ----------------------------------------------------------------------------------------

  /**
   * None was ready, and a caller asks for one: beside that one as many more are asked for at once, in the same window, so
   * that further callers, and this one if its address turns out to be used, need no window of their own. Behind no refill.
   */
  askBeside(pool: Pool, realm: Realm, many: number): void {
    if (pool.networkId === null || isOfSwarm(pool.networkId)) return;
    const standby = this.#ofPool(pool.id);
    void this.#isWith(standby, pool)
      .then((isWith) => {
        const missing = isWith ? this.#missing(standby, realm, layoutOf(pool), many) : [];
        return Promise.all(missing.map((address) => this.#keep(standby, pool, realm, address)));
      })
      .catch(() => undefined);
  }

  async #isWith(standby: PoolStandby, pool: Pool): Promise<boolean> {
    standby.isWithout ||= !(await this.#keeper.keeps(pool));
    return !standby.isWithout;
  }

  /** How many addresses are being asked for, beyond those that others wait for. */
  toWaitFor({ id }: Pool): number {
    const standby = this.#pools.get(id);
    return standby === undefined ? 0 : standby.asked.size - standby.waiting;
  }

  /** Whether any of the pool's addresses is being asked for. */
  isAsking({ id }: Pool): boolean {
    return (this.#pools.get(id)?.asked.size ?? 0) > 0;
  }

  /** Whether the address is being asked for. */
  isAsked({ id }: Pool, address: Address): boolean {
    return this.#pools.get(id)?.asked.has(formatAddress(address)) === true;
  }

  /**
   * Until the lowest of those asked for that nobody else has is ready, or all of them are decided; not beyond `untilMs` of
   * the clock.
   */
  async decided({ id }: Pool, realm: Realm, untilMs: number): Promise<void> {
    const standby = this.#pools.get(id);
    if (standby === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (isDecided(standby, realm)) resolve();
    };
    const cancel = this.#clock.after(Math.max(LEAST_WAIT_MS, untilMs - this.#clock.nowMs()), resolve);
    standby.listeners.add(look);
    standby.waiting++;
    look();
    await promise;
    standby.waiting--;
    standby.listeners.delete(look);
    cancel();
  }

  // --- given back -----------------------------------------------------------------------------------------------------

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
    const all = [...standby.ready.values()];
    standby.ready.clear();
    for (const { kept } of all) kept.release();
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
      ready: new Map(),
      asked: new Map(),
      listeners: new Set(),
      waiting: 0,
      isFilled: false,
      isWithout: false,
      avoided: new Map(),
      controller: new AbortController(),
      after: null,
      misses: 0,
      refilling: undefined,
      cancelTimer: () => undefined,
      dueMs: Number.POSITIVE_INFINITY,
    };
  }

  // --- refilling ------------------------------------------------------------------------------------------------------

  #refillIn(standby: PoolStandby, delayMs: number): void {
    const dueMs = this.#clock.nowMs() + delayMs;
    if (dueMs >= standby.dueMs || standby.controller.signal.aborted || standby.isWithout) return;
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
    if (pool === undefined || standby.controller.signal.aborted || !(await this.#isWith(standby, pool))) return;
    const realm = await this.#leases.realm(realmOf(pool));
    this.#trim(standby);
    const missing = this.#missing(standby, realm, layoutOf(pool), ON_STANDBY);
    const ask = (address: Address) => this.#inTurn(() => this.#keep(standby, pool, realm, address));
    const outcomes = await Promise.all(missing.map(ask));
    standby.isFilled = true;
    if (outcomes.includes('ended')) this.#retry(standby);
    else this.#goOn(standby, outcomes);
  }

  /**
   * Whatever is missing still is asked for after a while. Hosts that want the same addresses meet again only by chance; and
   * where all turn out to be used it takes longer each time, so that one device that answers for all does not drain a range.
   */
  #goOn(standby: PoolStandby, outcomes: readonly Outcome[]): void {
    if (standby.ready.size >= ON_STANDBY) {
      standby.misses = 0;
      return;
    }
    const isMiss = !outcomes.includes('kept');
    standby.misses = isMiss ? standby.misses + 1 : 0;
    const factor = 2 ** Math.max(0, standby.misses - 1);
    this.#refillIn(standby, Math.min(LONGEST_RETRY_MS, (1000 + START_SPREAD_MS * this.#random()) * factor));
  }

  /** The next free addresses that are neither on standby nor avoided nor asked for, as many as are missing to have `many`. */
  #missing(standby: PoolStandby, realm: Realm, layout: Layout, many: number): Address[] {
    const { ready, asked, avoided } = standby;
    const nowMs = this.#clock.nowMs();
    for (const [text, untilMs] of avoided) if (untilMs <= nowMs) avoided.delete(text);
    const passed = ready.size + asked.size + avoided.size;
    const found = new Map<string, Address>();
    let after = layout.order === 'sequential' ? standby.after : null;
    for (let step = 0; step < passed + many && ready.size + asked.size + found.size < many; step++) {
      const address = realm.next(layout, after);
      if (address === undefined || found.has(formatAddress(address))) break;
      after = address.value;
      const text = formatAddress(address);
      if (!ready.has(text) && !asked.has(text) && !avoided.has(text)) found.set(text, address);
    }
    return [...found.values()];
  }

  /** Probes the address and keeps it; one that the LAN room keeps already joins at once. */
  async #keep(standby: PoolStandby, pool: Pool, realm: Realm, address: Address): Promise<Outcome> {
    const text = formatAddress(address);
    if (standby.controller.signal.aborted || standby.asked.has(text) || standby.ready.has(text)) return 'kept';
    if (!realm.isFree(address)) return 'kept';
    standby.asked.set(text, address);
    try {
      return await this.#keepOne(standby, pool, realm, address);
    } finally {
      standby.asked.delete(text);
      for (const listener of standby.listeners) listener();
    }
  }

  async #keepOne(standby: PoolStandby, pool: Pool, realm: Realm, address: Address): Promise<Outcome> {
    const { signal } = standby.controller;
    let isLost = false;
    const lost = (loss: Loss) => {
      isLost = true;
      this.#lost(standby, realm, address, loss);
    };
    const kept = await this.#keeper.keep(pool, address, lost, signal).catch(() => 'ended' as const);
    if (kept === null) standby.isWithout = true;
    else if (typeof kept === 'string') this.#avoid(standby, realm, address, kept);
    else if (signal.aborted) kept.release();
    else if (!isLost) this.#take(standby, realm, address, kept);
    return typeof kept === 'string' ? kept : 'kept';
  }

  #take(standby: PoolStandby, realm: Realm, address: Address, kept: Kept): void {
    realm.foundFree(address);
    standby.ready.set(formatAddress(address), { address, kept });
  }

  #lost(standby: PoolStandby, realm: Realm, address: Address, loss: Loss): void {
    if (!standby.ready.delete(formatAddress(address))) return;
    this.#avoid(standby, realm, address, loss);
    this.#refillIn(standby, standby.ready.size > 1 ? REFILL_MS : 0);
  }

  #avoid(standby: PoolStandby, realm: Realm, address: Address, loss: Loss): void {
    if (loss === 'used' && realm.isFree(address)) realm.passOver(address, 'used');
    if (loss === 'wanted')
      standby.avoided.set(formatAddress(address), this.#clock.nowMs() + AVOID_MS * (1 + this.#random()));
  }

  /** What came back, or was asked for beside what a caller wanted, is too much: the last in order go. */
  #trim(standby: PoolStandby): void {
    const inOrder = [...standby.ready].sort(([, a], [, b]) => (a.address.value < b.address.value ? -1 : 1));
    for (const [text, { kept }] of inOrder.slice(ON_STANDBY)) {
      standby.ready.delete(text);
      kept.release();
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

/** Those on standby, the one to give out next first. */
function inOrder({ ready, after }: PoolStandby, realm: Realm): Address[] {
  const free = Array.from(ready.values(), ({ address }) => address).filter((one) => realm.isFree(one));
  free.sort((a, b) => (a.value < b.value ? -1 : 1));
  const isLater = ({ value }: Address) => after !== null && value > after;
  return [...free.filter(isLater), ...free.filter((one) => !isLater(one))];
}

/** One is ready, and none below it is being asked for; or none is being asked for at all. */
function isDecided({ ready, asked }: PoolStandby, realm: Realm): boolean {
  if (asked.size === 0) return true;
  const values = Array.from(asked.values(), ({ value }) => value);
  const isLowest = (address: Address) => realm.isFree(address) && values.every((value) => value > address.value);
  return Array.from(ready.values()).some(({ address }) => isLowest(address));
}
