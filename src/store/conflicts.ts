/**
 * One record for each conflict, however often it shows; and the end of those that show no longer.
 *
 * Time is monotonic where a span is measured: a clock that is set ends no conflict and keeps none.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { Conflict } from '../model.ts';
import { Serial } from '../serial.ts';
import { conflictKey, type Table } from './store.ts';

/** What was seen, without the times. */
export type ConflictReport = Omit<Conflict, 'count' | 'firstSeenAt' | 'seenAt' | 'endedAt'>;

/** A conflict that was not seen for so long has ended, whatever it was. */
const SILENCE_MS = 600_000;
/** How often is looked for those. */
const PERIOD_MS = 30_000;
/** Of records that are kept; the LAN can have more to tell than is of any use. */
const MOST_CONFLICTS = 1000;

/** The only one who writes conflicts, one change after the other, so that no count is lost. */
export class Conflicts {
  readonly #table: Table<Conflict>;
  readonly #clock: Clock;
  readonly #now: () => Date;
  readonly #serial = new Serial();
  /** By key, since this process began. */
  readonly #seenAtMs = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(table: Table<Conflict>, clock: Clock = systemClock, now: () => Date = () => new Date()) {
    this.#table = table;
    this.#clock = clock;
    this.#now = now;
  }

  /** Looks for silent conflicts from time to time until stop(). */
  start(): void {
    this.#timer = setInterval(() => void this.endSilent().catch(() => undefined), PERIOD_MS).unref();
  }

  /** Changes under way are finished. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#inTurn(async () => undefined);
  }

  /** `times`: how often it was seen. What had ended begins again. */
  record(report: ConflictReport, times = 1): Promise<void> {
    return this.#inTurn(async () => {
      const key = conflictKey(report);
      const seenAt = this.#now().toISOString();
      const known = await this.#table.get(key);
      const lasting = known?.endedAt === null ? known : undefined;
      const { count = 0, firstSeenAt = seenAt } = lasting ?? {};
      this.#seenAtMs.set(key, this.#clock.nowMs());
      // What the shared store knows, the LAN does not say again.
      const shared = lasting?.node === undefined ? {} : { node: lasting.node, newer: lasting.newer ?? null };
      const next: Conflict = { ...shared, ...report, count: count + times, firstSeenAt, seenAt, endedAt: null };
      if (known !== undefined) await this.#table.replace(known, next);
      else if (await this.#table.insert(next)) await this.#makeRoom(key);
    });
  }

  /** Nobody else has the address any more. */
  end({ parent, address }: Pick<Conflict, 'parent' | 'address'>): Promise<void> {
    return this.#inTurn(async () => {
      const known = await this.#table.get(conflictKey({ kind: 'address', parent, address, macAddress: '' }));
      if (known !== undefined) await this.#end(known);
    });
  }

  /** Ends what was not seen for ten minutes; of an earlier process's, since this one began. */
  endSilent(): Promise<void> {
    return this.#inTurn(async () => {
      const nowMs = this.#clock.nowMs();
      for (const conflict of await this.lasting()) {
        const key = conflictKey(conflict);
        const seenAtMs = this.#seenAtMs.get(key);
        if (seenAtMs === undefined) this.#seenAtMs.set(key, nowMs);
        else if (nowMs - seenAtMs >= SILENCE_MS) await this.#end(conflict);
      }
    });
  }

  /** Those that last, as far as is known. */
  async lasting(): Promise<Conflict[]> {
    return (await this.#table.list()).filter(({ endedAt }) => endedAt === null);
  }

  /** Forgets those of an address, as its text, or all; answers what they were. */
  clear(address: string | null): Promise<Conflict[]> {
    return this.#inTurn(async () => {
      const known = await this.#table.list();
      const cleared = known.filter((conflict) => address === null || conflict.address === address);
      for (const conflict of cleared) await this.#remove(conflict);
      return cleared;
    });
  }

  async #end(conflict: Conflict): Promise<void> {
    this.#seenAtMs.delete(conflictKey(conflict));
    if (conflict.endedAt === null)
      await this.#table.replace(conflict, { ...conflict, endedAt: this.#now().toISOString() });
  }

  async #remove(conflict: Conflict): Promise<void> {
    this.#seenAtMs.delete(conflictKey(conflict));
    await this.#table.remove(conflict);
  }

  /** Those that have ended go first, then addresses that no container has, then those seen longest ago. */
  async #makeRoom(newKey: string): Promise<void> {
    const known = await this.#table.list();
    if (known.length <= MOST_CONFLICTS) return;
    const others = known.filter((conflict) => conflictKey(conflict) !== newKey).sort(byUse);
    for (const conflict of others.slice(0, known.length - MOST_CONFLICTS)) await this.#remove(conflict);
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    return this.#serial.run('conflicts', change);
  }
}

function byUse(one: Conflict, other: Conflict): number {
  const [rank, otherRank] = [rankOf(one), rankOf(other)];
  if (rank !== otherRank) return rank - otherRank;
  return one.seenAt < other.seenAt ? -1 : 1;
}

/** A stranger who answers for a whole range takes nobody's conflict away. */
function rankOf({ endedAt, ourMacAddress }: Conflict): number {
  if (endedAt !== null) return 0;
  return ourMacAddress === null ? 1 : 2;
}
