/**
 * Stacks whose containers are given their addresses by `--ip` or Compose's ipv4_address. Nobody can know which one comes next, so
 * each start would wait for a window of its own. But the addresses of a stack lie together, in whatever order its containers
 * start: when a second one within some seconds was not ready, the free ones around it are asked for in the same window, and
 * kept until the stack should be up. They are ready for nobody else: who wants any address gets the lowest.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import type { Kept } from '../lan/verdict.ts';
import type { Pool } from '../model.ts';
import { HOLD_MS } from './demand.ts';
import { known } from './pool.ts';
import { isOurs } from './poolstandby.ts';
import type { Keeper } from './keeper.ts';

interface Parts {
  readonly keeper: Keeper;
  readonly clock: Clock;
}

/** What is known and kept for one pool. */
interface Stack {
  missedAtMs: number;
  /** By text; null while it is being asked for. */
  readonly kept: Map<string, Kept | null>;
  readonly controller: AbortController;
  cancelTimer: () => void;
}

/** The next container of a stack comes within this time. */
const STACK_MS = 5000;
/** Of the addresses around one so many below and above it are looked at: more stacks count upwards. */
const BELOW = 16n;
const ABOVE = 47n;
/** For one pool, asked for and kept. */
const MOST = 48;
const MOST_POOLS = 16;

/** Addresses around those that users name. Never throws into a call. */
export class Nearby {
  readonly #keeper: Keeper;
  readonly #clock: Clock;
  /** By pool id, in the order of their last misses. */
  readonly #stacks = new LatestMap<string, Stack>(MOST_POOLS);

  constructor({ keeper, clock }: Parts) {
    this.#keeper = keeper;
    this.#clock = clock;
  }

  /** An address of the pool that a user named is asked for, and was not ready. `isFree`: nobody is known to have it. */
  missed(pool: Pool, address: Address, isFree: (address: Address) => boolean): void {
    if (!isOurs(pool)) return;
    const nowMs = this.#clock.nowMs();
    const stack = this.#stacks.get(pool.id) ?? newStack();
    const isSecond = nowMs - stack.missedAtMs < STACK_MS;
    stack.missedAtMs = nowMs;
    const longestUnused = this.#stacks.put(pool.id, stack);
    if (longestUnused !== undefined) end(longestUnused);
    if (isSecond) void this.#ask(stack, pool, around(pool, address).filter(isFree)).catch(() => undefined);
  }

  async #ask(stack: Stack, pool: Pool, addresses: readonly Address[]): Promise<void> {
    if ((await this.#keeper.parentOf(pool)) === null) return;
    const room = Math.min(MOST, this.#keeper.mostAtOnce) - stack.kept.size;
    const wanted = addresses.filter((address) => !stack.kept.has(formatAddress(address))).slice(0, Math.max(0, room));
    stack.cancelTimer();
    stack.cancelTimer = this.#clock.after(HOLD_MS, () => letGo(stack));
    await Promise.all(wanted.map((address) => this.#keep(stack, pool, address)));
  }

  async #keep(stack: Stack, pool: Pool, address: Address): Promise<void> {
    const text = formatAddress(address);
    stack.kept.set(text, null);
    const lost = () => void stack.kept.delete(text);
    const { signal } = stack.controller;
    const kept = await this.#keeper.keep(pool, address, lost, signal, true).catch(() => null);
    const isWanted = stack.kept.has(text) && !signal.aborted;
    if (kept === null || typeof kept === 'string') stack.kept.delete(text);
    else if (isWanted) stack.kept.set(text, kept);
    else kept.release();
  }

  /** The pool was released: nothing of it is kept any more. */
  forget(poolId: string): void {
    const stack = this.#stacks.get(poolId);
    if (stack === undefined) return;
    this.#stacks.delete(poolId);
    end(stack);
  }

  /** Ends the questions under way and lets go of everything. */
  close(): void {
    for (const poolId of [...this.#stacks.keys()]) this.forget(poolId);
  }
}

function newStack(): Stack {
  const missedAtMs = Number.NEGATIVE_INFINITY;
  return { missedAtMs, kept: new Map(), controller: new AbortController(), cancelTimer: () => undefined };
}

function end(stack: Stack): void {
  stack.cancelTimer();
  stack.controller.abort(new Error('the pool is gone'));
  letGo(stack);
}

function letGo({ kept }: Stack): void {
  const all = [...kept.values()];
  kept.clear();
  for (const one of all) one?.release();
}

/** Those of the pool's subnet but its ends, the nearest first. */
function around({ subnet }: Pool, { family, value }: Address): Address[] {
  const { first, last } = known(subnet);
  const isInside = (other: bigint) => other > first && other < last && other !== value;
  const found: bigint[] = [];
  for (let step = 1n; step <= ABOVE; step++) found.push(value + step, ...(step <= BELOW ? [value - step] : []));
  return found.filter(isInside).map((other) => ({ family, value: other }));
}
