/**
 * Parents whose cable is new, and whose switch port may not forward yet: one with spanning tree listens and learns for 30 s
 * (IEEE 802.1D: twice a Forward Delay of 15 s) while the link has its carrier. Whoever asks the LAN then asks nobody. So a
 * parent counts as settling until another host was heard, 35 s at most.
 */
import { type Address, formatAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { LifeSign } from './lifesign.ts';

/** What it works with, and whom it tells. */
export interface SettlingParts {
  readonly clock: Clock;
  /** Undefined while the parent cannot be listened to. */
  readonly listen: (parentName: string) => Promise<LifeSign | undefined>;
  /** Addresses that somebody on the parent's LAN may have: asked for, so that he is heard. None where no container is. */
  readonly likely: (parentName: string) => readonly Address[];
  /** The parent settles no more: another host was heard, or the time is over. */
  readonly onSettled: (parentName: string, isHeard: boolean) => void;
}

/** The address that somebody waits for, and others whose holders may answer too. */
export type Wanted = readonly [Address, ...Address[]];

interface SettlingParent {
  readonly name: string;
  readonly endMs: number;
  /** What is waited for, by text. */
  readonly wanted: Map<string, readonly Address[]>;
  /** What was waited for as long as there was time: nobody waits for it once more. */
  readonly givenUp: Set<string>;
  readonly settled: PromiseWithResolvers<void>;
  ear: LifeSign | undefined;
  askAtMs: number;
  isOver: boolean;
  cancelTimer: () => void;
}

/** The default times of spanning tree, and some seconds for the switch to find its tree. */
const MOST_MS = 35_000;
const READ_MS = 50;
const ASK_MS = 1000;
/** Frames in one asking, as some switches inspect ARP. */
const MOST_ASKED = 4;

/** The parents that settle at this moment. */
export class Settling {
  readonly #parts: SettlingParts;
  readonly #parents = new Map<string, SettlingParent>();

  constructor(parts: SettlingParts) {
    this.#parts = parts;
  }

  /** From now on the parent counts as settling. */
  begin(name: string): void {
    this.end(name);
    const nowMs = this.#parts.clock.nowMs();
    const parent: SettlingParent = {
      name,
      endMs: nowMs + MOST_MS,
      wanted: new Map(),
      givenUp: new Set(),
      settled: Promise.withResolvers<void>(),
      ear: undefined,
      askAtMs: nowMs,
      isOver: false,
      cancelTimer: () => undefined,
    };
    this.#parents.set(name, parent);
    void this.#look(parent);
  }

  /** The parent is gone again, or nobody uses it any more. Whoever waits goes on. */
  end(name: string): void {
    const parent = this.#parents.get(name);
    if (parent === undefined) return;
    this.#parents.delete(name);
    parent.isOver = true;
    parent.cancelTimer();
    this.#deafen(parent);
    parent.settled.resolve();
  }

  /** Whether the parent's port may not forward yet. */
  has(name: string): boolean {
    return this.#parents.has(name);
  }

  /**
   * Until the parent settles no more, or so many milliseconds have passed; the addresses are asked for meanwhile. False when
   * it settles still; then at once for everybody who waits for the same, or does so later. Throws the signal's reason.
   */
  async wait(name: string, [address, ...others]: Wanted, mostMs: number, signal?: AbortSignal): Promise<boolean> {
    const parent = this.#parents.get(name);
    const text = formatAddress(address);
    if (parent === undefined) return true;
    if (parent.givenUp.has(text)) return false;
    parent.wanted.set(text, [address, ...others]);
    const late = Promise.withResolvers<void>();
    const cancel = this.#parts.clock.after(mostMs, () => late.resolve());
    const abort = () => late.resolve();
    signal?.addEventListener('abort', abort, { once: true });
    await Promise.race([parent.settled.promise, late.promise]);
    cancel();
    signal?.removeEventListener('abort', abort);
    parent.wanted.delete(text);
    signal?.throwIfAborted();
    if (!parent.isOver) parent.givenUp.add(text);
    return parent.isOver;
  }

  /** Nobody is listened for any more. */
  close(): void {
    for (const name of [...this.#parents.keys()]) this.end(name);
  }

  async #look(parent: SettlingParent): Promise<void> {
    const likely = this.#parts.likely(parent.name);
    // With no container there, and none that starts, nobody needs to know.
    if (parent.wanted.size > 0 || likely.length > 0) parent.ear ??= await this.#open(parent);
    else this.#deafen(parent);
    if (parent.isOver) return;
    const { clock } = this.#parts;
    const isHeard = this.#listen(parent, likely);
    if (isHeard || clock.nowMs() >= parent.endMs) return this.#settle(parent, isHeard);
    parent.cancelTimer = clock.after(READ_MS, () => void this.#look(parent));
  }

  async #open(parent: SettlingParent): Promise<LifeSign | undefined> {
    const ear = await this.#parts.listen(parent.name).catch(() => undefined);
    if (!parent.isOver) return ear;
    ear?.close();
    return undefined;
  }

  #deafen(parent: SettlingParent): void {
    parent.ear?.close();
    parent.ear = undefined;
  }

  #listen(parent: SettlingParent, likely: readonly Address[]): boolean {
    try {
      if (parent.ear?.isHeard()) return true;
      this.#ask(parent, likely);
    } catch {
      // The parent went down or away; what follows its links will tell.
      this.#deafen(parent);
    }
    return false;
  }

  #ask(parent: SettlingParent, likely: readonly Address[]): void {
    const nowMs = this.#parts.clock.nowMs();
    if (parent.ear === undefined || nowMs < parent.askAtMs) return;
    parent.askAtMs = nowMs + ASK_MS;
    const all = [...[...parent.wanted.values()].flat(), ...likely];
    for (const address of all.slice(0, MOST_ASKED)) parent.ear.ask(address);
  }

  #settle({ name }: SettlingParent, isHeard: boolean): void {
    this.end(name);
    this.#parts.onSettled(name, isHeard);
  }
}
