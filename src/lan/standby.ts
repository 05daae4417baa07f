/**
 * Addresses in reserve, by parent: those that somebody wants kept, and those that a container has just left and may want
 * back. The inquiry of each listens; here is who is to be told when it ends, and for how long it goes on.
 */
import { type Prefix, contains } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { Inquiry, Loss } from './detection.ts';

/** `loss`: null when it was given to a container, or its parent went down or away. */
export type Lost = (loss: Loss | null) => void;

interface Entry {
  readonly inquiry: Inquiry;
  readonly listeners: Set<Lost>;
  /** Calls off the end of the time that it has after a container's; null without such a time. */
  cancelEnd: (() => void) | null;
}

/** An address is kept this long after its container's end: engines start one again within a minute. */
const LEFT_MS = 120_000;
/** More containers than this that ended within that time have to wait for a probe. */
const MOST_LEFT = 256;

export class Reserve {
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  #left = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** Keeps an address that was just found free. False when it is kept already: then the inquiry is one too many. */
  add(key: string, inquiry: Inquiry, lost: Lost): boolean {
    if (this.join(key, lost)) return false;
    this.#entries.set(key, { inquiry, listeners: new Set([lost]), cancelEnd: null });
    return true;
  }

  /** Keeps an address that a container has just left. False when there is no room, or it is kept already. */
  addLeft(key: string, inquiry: Inquiry): boolean {
    if (this.#left >= MOST_LEFT || this.#entries.has(key)) return false;
    const entry: Entry = { inquiry, listeners: new Set<Lost>(), cancelEnd: null };
    entry.cancelEnd = this.#clock.after(LEFT_MS, () => this.#unleave(entry));
    this.#entries.set(key, entry);
    this.#left++;
    return true;
  }

  /** One more who wants the address kept; false when it is not. */
  join(key: string, lost: Lost): boolean {
    const entry = this.#entries.get(key);
    entry?.listeners.add(lost);
    return entry !== undefined;
  }

  /** Not wanted any more by this one. */
  leave(key: string, lost: Lost): void {
    const entry = this.#entries.get(key);
    if (entry?.listeners.delete(lost)) endUnlessWanted(entry);
  }

  /** Their network is gone: nobody comes back for them. */
  endLeft(parentName: string, subnet: Prefix): void {
    for (const [key, entry] of this.#entries) {
      if (key.startsWith(`${parentName} `) && contains(subnet, entry.inquiry.address)) this.#unleave(entry);
    }
  }

  /** A container gets the address, which is guarded from now on. False when it is not kept, or was just lost. */
  grant(key: string): boolean {
    const inquiry = this.#entries.get(key)?.inquiry;
    if (!inquiry?.grant()) return false;
    this.remove(key, inquiry, null);
    return true;
  }

  /** The inquiry keeps it no longer. */
  remove(key: string, inquiry: Inquiry, loss: Loss | null): void {
    const entry = this.#entries.get(key);
    if (entry?.inquiry !== inquiry) return;
    this.#entries.delete(key);
    this.#unleave(entry);
    for (const lost of entry.listeners) lost(loss);
  }

  #unleave(entry: Entry): void {
    if (entry.cancelEnd === null) return;
    entry.cancelEnd();
    entry.cancelEnd = null;
    this.#left--;
    endUnlessWanted(entry);
  }
}

/** Only what is still in reserve: a container may have it by now. */
function endUnlessWanted({ inquiry, listeners, cancelEnd }: Entry): void {
  if (inquiry.isKept && cancelEnd === null && listeners.size === 0) inquiry.end(new Error('not wanted any more'));
}
