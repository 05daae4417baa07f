/** A search for an address that nobody named: how long it may go on, how many are asked for at once, and what it met with. */
import type { Address } from '../address.ts';
import { formatAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { Verdict } from '../lan/verdict.ts';
import type { LeaseKind } from '../model.ts';
import type { CallLimit } from '../requests.ts';
import { MOST_ON_STANDBY, ON_STANDBY } from './demand.ts';

/** What a call keeps for the last address it asks for: a window of the profile `fast`, on a busy machine. */
const LAST_WINDOW_MS = 1200;
/** For what no engine waits for. */
const UNLIMITED_MS = 6000;
/** So many addresses with one and the same holder are hardly a host's own. */
const MANY = 4;

/** Who was met last. */
interface Met {
  readonly address: string;
  readonly macAddress: string;
  readonly linkName: string;
  readonly isWanted: boolean;
}

/** One search; it may go through several pools, one after the other. */
export class Search {
  readonly kind: LeaseKind;
  /** Of the container that asks, where its engine says it. */
  readonly name: string | null;
  /** The address after the last one given is wanted. */
  readonly isSerial: boolean;
  /** Null for what no engine waits for. */
  readonly limit: CallLimit | null;
  readonly #clock: Clock;
  readonly #endMs: number;
  #untilMs: number;
  #batch = ON_STANDBY;
  /** The addresses that were held, and who answered for them: a MAC address for each time. */
  readonly #held = new Set<string>();
  readonly #answers: string[] = [];
  #last: Met | undefined;

  constructor(kind: LeaseKind, name: string | null, isSerial: boolean, limit: CallLimit | null, clock: Clock) {
    this.kind = kind;
    this.name = name;
    this.isSerial = isSerial;
    this.limit = limit;
    this.#clock = clock;
    this.#endMs = limit === null ? clock.nowMs() + UNLIMITED_MS : limit.atMs - LAST_WINDOW_MS;
    this.#untilMs = this.#endMs;
  }

  /** From here on only one of so many equal parts of the time that is left is used. */
  share(parts: number): void {
    const nowMs = this.#clock.nowMs();
    this.#untilMs = nowMs + (this.#endMs - nowMs) / parts;
  }

  /** Nothing more is to be asked in this part of the time. The first address always is. */
  get isOver(): boolean {
    return this.#last !== undefined && this.#clock.nowMs() >= this.#untilMs;
  }

  /** No time is left at all, whether it has met anybody or not. */
  get isOverForGood(): boolean {
    return this.#clock.nowMs() >= this.#endMs;
  }

  /** When whoever waits for answers gives up waiting, by the clock. */
  get waitUntilMs(): number {
    return this.#untilMs + LAST_WINDOW_MS / 2;
  }

  /** How many addresses are to be asked for at once: twice as many whenever all before were held. */
  get batch(): number {
    return this.#batch;
  }

  /** Who met the search last; undefined while nobody did. */
  get last(): Met | undefined {
    return this.#last;
  }

  /** The address was held. */
  meet(address: Address, verdict: Verdict & { held: true }): void {
    const text = formatAddress(address);
    const { macAddress, linkName, simultaneous } = verdict;
    // Who only asks, perhaps for all of them (a scan), answered for none.
    if (!simultaneous) {
      this.#held.add(text);
      this.#answers.push(macAddress);
    }
    this.#last = { address: text, macAddress, linkName, isWanted: simultaneous };
    this.#batch = Math.min(2 * this.#batch, MOST_ON_STANDBY);
  }

  /**
   * Where one device seems to answer for everything: its MAC address, or in words that it has many. Null where it looks like many:
   * an address that two hosts have answers from two MAC addresses as well, but others from the same one each time.
   */
  get suspect(): string | null {
    const holders = new Set(this.#answers);
    const [only] = holders;
    if (holders.size === 1) return this.#held.size >= MANY ? (only ?? null) : null;
    const isNewEachTime = holders.size === this.#answers.length;
    return isNewEachTime && holders.size > this.#held.size ? 'its MAC address changes' : null;
  }
}
