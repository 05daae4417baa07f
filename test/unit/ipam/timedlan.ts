/** A LAN in imagined time, and what this host has on standby there. */
import { setImmediate } from 'node:timers/promises';
import { type Address, formatAddress } from '../../../src/address.ts';
import type { Keeper, Probe } from '../../../src/ipam/driver.ts';
import { type Kept, type Loss, NOT_HELD, type Verdict } from '../../../src/lan/verdict.ts';
import type { Pool } from '../../../src/model.ts';
import type { World } from '../lan/imagined.ts';

/** A thorough question, and a fresh one. */
export const WINDOW_MS = 650;
export const FRESH_MS = 9;
export const MINUTE_MS = 60_000;
const HELD: Verdict = {
  held: true,
  macAddress: '3c:22:fb:10:aa:01',
  linkName: 'eth0',
  simultaneous: false,
  isOnHost: false,
};

/** A LAN on which each question takes its time, and what this host has on standby there. */
export class TimedLan implements Keeper {
  mostAtOnce = Number.POSITIVE_INFINITY;
  isDown = false;
  parentName: string | null = 'eth0';
  /** Addresses that others have. */
  readonly held = new Set<string>();
  readonly kept = new Map<string, Set<(loss: Loss) => void>>();
  /** Questions ahead of need, and those that calls wait for. */
  readonly asked: { readonly address: string; readonly atMs: number }[] = [];
  windows = 0;
  mostAsking = 0;
  #asking = 0;
  /** What is being asked ahead, and whether a call waits for it by now. */
  readonly #underway = new Map<string, { readonly over: Promise<void>; isJoined: boolean }>();
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  async parentOf(): Promise<string | null> {
    return this.parentName;
  }

  async keep(_pool: Pool, wanted: Address, lost: (loss: Loss) => void, signal: AbortSignal): Promise<Kept | Loss> {
    const address = formatAddress(wanted);
    if (!this.kept.has(address)) {
      this.asked.push({ address, atMs: this.#world.nowMs });
      if (this.isDown) throw new Error('parent is down');
      this.mostAsking = Math.max(this.mostAsking, ++this.#asking);
      const underway = { over: this.pass(WINDOW_MS), isJoined: false };
      this.#underway.set(address, underway);
      await underway.over;
      this.#underway.delete(address);
      this.#asking--;
      if (signal.aborted || underway.isJoined) return 'ended';
      if (this.held.has(address)) return 'used';
    }
    this.kept.set(address, (this.kept.get(address) ?? new Set()).add(lost));
    return { release: () => this.#letGo(address, lost) };
  }

  /** A container leaves the address: for two minutes it is kept whoever wants it. */
  leave(address: string): void {
    const left = () => undefined;
    this.kept.set(address, new Set([left]));
    this.#world.at(this.#world.nowMs + 2 * MINUTE_MS, () => this.#letGo(address, left));
  }

  #letGo(address: string, lost: (loss: Loss) => void): void {
    if (this.kept.get(address)?.delete(lost) && this.kept.get(address)?.size === 0) this.kept.delete(address);
  }

  readonly probe: Probe = async (_pool, wanted) => {
    const address = formatAddress(wanted);
    await this.ask(address);
    return this.held.has(address) ? HELD : NOT_HELD;
  };

  /** For a container that waits: a question that is under way, a fresh one, or a whole window. */
  async ask(address: string): Promise<void> {
    const underway = this.#underway.get(address);
    if (underway !== undefined) {
      underway.isJoined = true;
      return underway.over;
    }
    const losts = this.kept.get(address);
    this.kept.delete(address);
    for (const lost of losts ?? []) lost('ended');
    if (losts === undefined && !this.isDown) this.windows++;
    await this.pass(losts === undefined && !this.isDown ? WINDOW_MS : FRESH_MS);
  }

  async isKept(_pool: Pool, address: Address): Promise<boolean> {
    return this.kept.has(formatAddress(address));
  }

  async askAhead(): Promise<void> {}

  async release(): Promise<void> {}

  pass(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#world.at(this.#world.nowMs + ms, resolve));
  }
}

/** Answers what the act does, and how long it took. */
export async function timed<T>(world: World, act: Promise<T>): Promise<{ answer: T; ms: number }> {
  const beganMs = world.nowMs;
  let isOver = false;
  const over = act.finally(() => (isOver = true));
  over.catch(() => undefined);
  for (await setImmediate(); !isOver; await setImmediate()) world.run(world.nowMs + 1);
  return { answer: await over, ms: world.nowMs - beganMs };
}
