/**
 * The next addresses of each pool in use, probed on the LAN ahead of need and then kept on standby (lan/standby.ts), so that
 * the usual container start waits for one short question, and many starts at once for one window together. Nothing is stored:
 * after a start of the daemon they are probed again. What others want kept as well, as the network room does for containers that
 * come back, is asked for and kept once: whoever lets go of it leaves it to the others (lan/standby.ts).
 *
 * A refill makes up for what was given two seconds later, a few addresses at a time. A batch goes out at once and as a whole,
 * beside whatever a refill asks for: when nothing was ready, or when many are wanted (demand.ts) and a quarter is missing.
 *
 * Cost on the LAN of one pool while nothing happens: 3 frames for each of its 4 addresses in nine to ten minutes, thus at most
 * 1.4 a minute; for IPv6 also one multicast report each in two minutes.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { backgroundClock, type Clock } from '../clock.ts';
import type { Kept, Loss } from '../lan/verdict.ts';
import type { Pool } from '../model.ts';
import type { Store } from '../store/store.ts';
import { HOLD_MS, MOST_ON_STANDBY, ON_STANDBY } from './demand.ts';
import type { Keeper } from './keeper.ts';
import { known, layoutOf } from './pool.ts';
import {
  type FreeAddresses,
  type PoolStandby,
  fairShare,
  have,
  inOrder,
  isOurs,
  isDecided,
  longRecalled,
  missing,
  newPoolStandby,
  openAsked,
  roomFor,
  tooMany,
} from './poolstandby.ts';
import { Turns } from './turns.ts';

interface Parts {
  readonly pools: Pick<Store['pools'], 'get' | 'list'>;
  /** Which of the addresses of a pool's realm are free. */
  readonly realmOf: (pool: Pool) => Promise<FreeAddresses>;
  readonly keeper: Keeper;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
}

type Outcome = 'kept' | Loss;

/** Only the pools that were used last have addresses on standby. */
const MOST_POOLS = 64;
/** Of what is wanted, part that is missing before a call asks for it at once. */
const SHORT = 1 / 4;
/** How long no call asks for a batch after the LAN could not be asked. */
const PAUSE_MS = 1000;
/** Addresses that refills ask for at a time, of all pools together. Nobody waits for those. */
const AT_ONCE = 8;
/** How long a refill waits, so that a container that starts has the machine to itself first. */
const REFILL_MS = 2000;
/** Hosts that start together should not probe together: each waits up to so long. */
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
  readonly #table: Parts['pools'];
  readonly #realmOf: Parts['realmOf'];
  readonly #keeper: Keeper;
  readonly #clock: Clock;
  readonly #random: () => number;
  /** In order of their last use. */
  readonly #pools = new LatestMap<string, PoolStandby>(MOST_POOLS);
  readonly #turns = new Turns(AT_ONCE);

  constructor({ pools, realmOf, keeper, clock = backgroundClock, random = Math.random }: Parts) {
    this.#table = pools;
    this.#realmOf = realmOf;
    this.#keeper = keeper;
    this.#clock = clock;
    this.#random = random;
  }

  /**
   * The pools of a network, or of all networks: from now on addresses of them are kept ready. Not those of a swarm's: where
   * its managers choose the addresses, the nodes' questions would only be in the way of the one that needs the address.
   */
  async start(networkId?: string): Promise<void> {
    const pools = (await this.#table.list()).filter(isOurs);
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
  next({ id }: Pool, realm: FreeAddresses, after: bigint | null): Address | undefined {
    const standby = this.#pools.get(id);
    if (standby === undefined) return undefined;
    standby.after = after;
    if (!standby.isFilled && !isDecided(standby, realm)) return undefined;
    return inOrder(standby, realm)[0];
  }

  /** One was chosen: the next of those on standby are likely to follow. */
  askAhead(pool: Pool, realm: FreeAddresses): void {
    const standby = this.#pools.get(pool.id);
    if (standby === undefined) return;
    const next = inOrder(standby, realm).slice(0, ASKED_AHEAD);
    void this.#keeper.askAhead(pool, next).catch(() => undefined);
  }

  // --- on demand ------------------------------------------------------------------------------------------------------

  /** A container is to get an address of the pool, any. */
  expect(pool: Pool): void {
    if (isOurs(pool)) this.#ofPool(pool.id).demand.request(this.#clock.nowMs());
  }

  /** One that was ready is being given out: what is missing by now is asked for, if that is much. */
  used(pool: Pool, realm: FreeAddresses): void {
    if (isOurs(pool)) void this.#askMany(pool, realm, 0, false).catch(() => undefined);
  }

  /**
   * None was ready, and a caller asks for one itself or waits: a batch is asked for in the same window, so that further
   * callers, and this one if its address turns out to be used, need no window of their own. Then `least` are on standby or
   * asked for, or more, but no more are asked for than the LAN's rate of frames lets out in one window: beyond that they
   * would only wait in line, and the caller's own question behind them. The network's pool of the other family needs as many.
   */
  missed(pool: Pool, realm: FreeAddresses, least: number): void {
    if (!isOurs(pool)) return;
    this.#ofPool(pool.id).demand.miss(this.#clock.nowMs());
    void this.#askMany(pool, realm, least, true).catch(() => undefined);
  }

  async #askMany(pool: Pool, realm: FreeAddresses, least: number, isForBoth: boolean): Promise<void> {
    const standby = this.#ofPool(pool.id);
    if (standby.isWithout || standby.isChoosing || this.#clock.nowMs() < standby.pausedUntilMs) return;
    if (this.#isStocked(standby, least)) return;
    standby.isChoosing = true;
    const finding = isForBoth ? this.#otherOf(pool) : Promise.resolve(undefined);
    const choosing = finding.then((other) =>
      this.#chooseBatch(standby, pool, realm, least, other === undefined ? 1 : 2),
    );
    const batch = await choosing.finally(() => (standby.isChoosing = false));
    const asking = this.#askBatch(standby, pool, realm, batch);
    const other = await finding;
    if (other !== undefined) await this.#askForOther(other);
    await asking;
  }

  async #askForOther(pool: Pool): Promise<void> {
    this.#ofPool(pool.id).demand.miss(this.#clock.nowMs());
    void this.#askMany(pool, await this.#realmOf(pool), 0, false).catch(() => undefined);
  }

  /** The pool of the same network for addresses of the other family. */
  async #otherOf({ networkId, subnet }: Pool): Promise<Pool | undefined> {
    const { family } = known(subnet);
    const pools = await this.#table.list();
    return pools.find((one) => one.networkId === networkId && known(one.subnet).family !== family);
  }

  /** Nothing is missing that is to be asked for at once. */
  #isStocked(standby: PoolStandby, least: number): boolean {
    const wanted = this.#wanted(standby);
    return have(standby) >= least && (wanted === ON_STANDBY || have(standby) > wanted * (1 - SHORT));
  }

  #wanted({ demand }: PoolStandby): number {
    const most = Math.max(ON_STANDBY, Math.min(MOST_ON_STANDBY, this.#keeper.mostAtOnce));
    return Math.min(demand.wanted(this.#clock.nowMs()), most);
  }

  async #chooseBatch(
    standby: PoolStandby,
    pool: Pool,
    realm: FreeAddresses,
    least: number,
    parts: number,
  ): Promise<readonly Address[]> {
    if (!(await this.#isWith(standby, pool))) return [];
    const layout = layoutOf(pool);
    const atOnce = Math.min(MOST_ON_STANDBY, this.#keeper.mostAtOnce);
    const most = have(standby) + Math.floor(roomFor(standby, [...this.#pools.values()], atOnce) / parts);
    const many = Math.max(least, fairShare(realm, layout, this.#wanted(standby)));
    return missing(standby, realm, layout, Math.min(many, most), this.#clock.nowMs());
  }

  async #askBatch(standby: PoolStandby, pool: Pool, realm: FreeAddresses, batch: readonly Address[]): Promise<void> {
    if (batch.length === 0) return;
    const outcomes = await Promise.all(batch.map((address) => this.#keep(standby, pool, realm, address)));
    standby.isFilled = true;
    this.#refillIn(standby, REFILL_MS);
    if (outcomes.includes('ended')) standby.pausedUntilMs = this.#clock.nowMs() + PAUSE_MS;
  }

  async #isWith(standby: PoolStandby, pool: Pool): Promise<boolean> {
    if (standby.isWithout) return false;
    standby.parentName = await this.#keeper.parentOf(pool);
    standby.isWithout ||= standby.parentName === null;
    return !standby.isWithout;
  }

  /** How many addresses that anyone may have are being asked for, beyond those that others wait for. */
  toWaitFor({ id }: Pool, realm: FreeAddresses): number {
    const standby = this.#pools.get(id);
    return standby === undefined ? 0 : openAsked(standby, realm).length - standby.waiting;
  }

  /** Whether any of the pool's addresses that anyone may have is being asked for. */
  isAsking({ id }: Pool, realm: FreeAddresses): boolean {
    const standby = this.#pools.get(id);
    return standby !== undefined && openAsked(standby, realm).length > 0;
  }

  // --- containers that come back to their addresses -------------------------------------------------------------------

  /** Whether the address was asked for ahead, so that a container that comes back to it need not wait. */
  async isReady(pool: Pool, address: Address): Promise<boolean> {
    return this.#keeper.isKept(pool, address);
  }

  /**
   * A container comes back to its address, which was not ready: others are likely to follow, to theirs. `addresses`: those that
   * are remembered and free, the likeliest first. As many are asked for in the same window as in missed().
   */
  recalled(pool: Pool, realm: FreeAddresses, addresses: readonly Address[]): void {
    if (!isOurs(pool)) return;
    const standby = this.#ofPool(pool.id);
    standby.demand.miss(this.#clock.nowMs());
    void this.#recall(standby, pool, realm, addresses).catch(() => undefined);
  }

  async #recall(standby: PoolStandby, pool: Pool, realm: FreeAddresses, addresses: readonly Address[]): Promise<void> {
    if (this.#clock.nowMs() < standby.pausedUntilMs || !(await this.#isWith(standby, pool))) return;
    const atOnce = Math.min(MOST_ON_STANDBY, this.#keeper.mostAtOnce);
    const room = Math.min(this.#wanted(standby), roomFor(standby, [...this.#pools.values()], atOnce));
    await Promise.all(addresses.slice(0, room).map((address) => this.#recallOne(standby, pool, realm, address)));
    this.#refillIn(standby, HOLD_MS);
  }

  async #recallOne(standby: PoolStandby, pool: Pool, realm: FreeAddresses, address: Address): Promise<void> {
    await this.#keep(standby, pool, realm, address);
    const ready = standby.ready.get(formatAddress(address));
    if (ready !== undefined) ready.leftUntilMs = this.#clock.nowMs() + HOLD_MS;
  }

  /** Whether the address is on standby for the pool, or being asked for. */
  has(pool: Pool, address: Address): boolean {
    return this.isAsked(pool, address) || this.#pools.get(pool.id)?.ready.has(formatAddress(address)) === true;
  }

  /** Whether the address is on standby for the pool. */
  isReadyFor({ id }: Pool, address: Address): boolean {
    return this.#pools.get(id)?.ready.has(formatAddress(address)) === true;
  }

  /** Whether the address is being asked for. */
  isAsked({ id }: Pool, address: Address): boolean {
    return this.#pools.get(id)?.asked.has(formatAddress(address)) === true;
  }

  /**
   * Until the lowest of those asked for that nobody else has is ready, or all of them are decided; not beyond `untilMs` of
   * the clock.
   */
  async decided({ id }: Pool, realm: FreeAddresses, untilMs: number): Promise<void> {
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

  /**
   * An address was given back. If the LAN room has kept it since its container left, it is on standby at once: whoever comes next
   * gets it again. Asks neither the kernel nor the LAN.
   */
  async released(pool: Pool, address: Address): Promise<void> {
    await this.#keeper.release(pool, address);
    const standby = this.#pools.get(pool.id);
    const realm = await this.#realmOf(pool);
    // One that is remembered for its container waits for that in the LAN room alone.
    if (standby === undefined || !realm.isOpen(address) || !(await this.#keeper.isKept(pool, address))) return;
    await this.#recallOne(standby, pool, realm, address);
    this.#letGo(standby, tooMany(standby, MOST_ON_STANDBY, Number.POSITIVE_INFINITY));
    this.#refillIn(standby, HOLD_MS);
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
    const standby = this.#pools.get(poolId) ?? newPoolStandby(poolId);
    const longestUnused = this.#pools.put(poolId, standby);
    if (longestUnused !== undefined) void this.#drop(longestUnused);
    return standby;
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
    const pool = await this.#table.get(standby.poolId);
    if (pool === undefined || standby.controller.signal.aborted || !(await this.#isWith(standby, pool))) return;
    const realm = await this.#realmOf(pool);
    const nowMs = this.#clock.nowMs();
    const layout = layoutOf(pool);
    this.#letGo(standby, longRecalled(standby, realm, layout, nowMs));
    this.#letGo(standby, tooMany(standby, this.#wanted(standby), nowMs));
    // Where all turn out to be used the LAN is not asked for more than always.
    const many = standby.misses > 0 ? ON_STANDBY : fairShare(realm, layout, this.#wanted(standby));
    const ask = (address: Address) => this.#turns.run(() => this.#keep(standby, pool, realm, address));
    const outcomes = await Promise.all(missing(standby, realm, layout, many, nowMs).map(ask));
    standby.isFilled = true;
    if (outcomes.includes('ended')) this.#retry(standby);
    else this.#goOn(standby, outcomes, many);
  }

  /**
   * Whatever is missing still is asked for after a while. Hosts that want the same addresses meet again only by chance; and
   * where all turn out to be used it takes longer each time, so that one device that answers for all does not drain a range.
   */
  #goOn(standby: PoolStandby, outcomes: readonly Outcome[], many: number): void {
    if (have(standby) >= many) {
      standby.misses = 0;
      // Until then less may be wanted.
      if (standby.ready.size > ON_STANDBY) this.#refillIn(standby, HOLD_MS);
      return;
    }
    const isMiss = !outcomes.includes('kept');
    standby.misses = isMiss ? standby.misses + 1 : 0;
    const factor = 2 ** Math.max(0, standby.misses - 1);
    this.#refillIn(standby, Math.min(LONGEST_RETRY_MS, (1000 + START_SPREAD_MS * this.#random()) * factor));
  }

  /** Probes the address and keeps it; one that the LAN room keeps already joins at once. */
  async #keep(standby: PoolStandby, pool: Pool, realm: FreeAddresses, address: Address): Promise<Outcome> {
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

  async #keepOne(standby: PoolStandby, pool: Pool, realm: FreeAddresses, address: Address): Promise<Outcome> {
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
    // That a container got it while it was asked for says nothing about the LAN.
    if (kept === 'ended' && !realm.isFree(address)) return 'kept';
    return typeof kept === 'string' ? kept : 'kept';
  }

  #take(standby: PoolStandby, realm: FreeAddresses, address: Address, kept: Kept): void {
    realm.foundFree(address);
    standby.ready.set(formatAddress(address), { address, kept, leftUntilMs: Number.NEGATIVE_INFINITY });
  }

  #lost(standby: PoolStandby, realm: FreeAddresses, address: Address, loss: Loss): void {
    if (!standby.ready.delete(formatAddress(address))) return;
    this.#avoid(standby, realm, address, loss);
    this.#refillIn(standby, standby.ready.size > 1 ? REFILL_MS : 0);
  }

  #avoid(standby: PoolStandby, realm: FreeAddresses, address: Address, loss: Loss): void {
    if (loss === 'used' && realm.isFree(address)) realm.passOver(address, 'used');
    if (loss === 'wanted')
      standby.avoided.set(formatAddress(address), this.#clock.nowMs() + AVOID_MS * (1 + this.#random()));
  }

  #letGo({ ready }: PoolStandby, texts: readonly string[]): void {
    for (const text of texts) {
      const one = ready.get(text);
      ready.delete(text);
      one?.kept.release();
    }
  }
}
