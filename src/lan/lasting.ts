/**
 * Whether a conflict lasts: most hosts announce nothing and say little, so one of whom nothing is heard any more may still
 * have the address. He is asked, and only when nobody answers twice the conflict has ended. So is whoever is suspected only: of an
 * earlier process's records, or of those that were cleared.
 *
 * A host with the container's own MAC address cannot be asked: its answer looks like the container's. The record of such a
 * conflict ends when it has not been seen for long (store/conflicts.ts).
 */
import { type Address, formatAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { LastingContest, MonitoredEndpoint, Takers } from './takers.ts';

/** What it works with. */
export interface LastingParts {
  readonly takers: Pick<Takers, 'lasting' | 'lastSeenMs' | 'settle' | 'forget'>;
  /** The endpoint is watched over still. */
  readonly isWatched: (endpoint: MonitoredEndpoint) => boolean;
  /** Nobody else uses the address any more. */
  readonly onEnd: (parentName: string, address: Address) => void;
  readonly clock: Clock;
}

/** Who was heard a moment ago need not be asked. */
const QUIET_MS = 15_000;
/** Between two questions, when the first was not answered, and when it was. */
const UNANSWERED_MS = 10_000;
const ANSWERED_MS = 60_000;
const ENOUGH_SILENCE = 2;
/** Addresses asked for at a time. */
const MOST_AT_ONCE = 8;

interface Inquiry {
  askAtMs: number;
  /** Questions in a row that nobody answered. */
  silences: number;
  isAsking: boolean;
}

/** Asks those who have taken an address whether they have it still. */
export class LastingConflicts {
  readonly #parts: LastingParts;
  /** By parent and address. */
  readonly #inquiries = new Map<string, Inquiry>();
  /** Asked at once, until somebody answers or nobody does twice. */
  readonly #suspected = new Map<string, LastingContest>();

  constructor(parts: LastingParts) {
    this.#parts = parts;
  }

  /** Somebody may have the address although nothing was heard of him lately. */
  suspect({ endpoint, address }: Pick<LastingContest, 'endpoint' | 'address'>): void {
    const contest = { endpoint, address, seenAtMs: Number.NEGATIVE_INFINITY };
    this.#suspected.set(keyOf(contest), contest);
    this.#inquiries.delete(keyOf(contest));
  }

  /** Asks for what is due. Call it from time to time. */
  review(): void {
    const { takers, isWatched, clock } = this.#parts;
    for (const [key, { endpoint }] of this.#suspected) if (!isWatched(endpoint)) this.#suspected.delete(key);
    const heard = takers.lasting().map((contest) => [keyOf(contest), contest] as const);
    const lasting = new Map([...heard, ...this.#suspected]);
    for (const key of this.#inquiries.keys()) if (!lasting.has(key)) this.#inquiries.delete(key);
    for (const [key, contest] of lasting) {
      const inquiry = this.#inquiries.get(key) ?? { askAtMs: 0, silences: 0, isAsking: false };
      this.#inquiries.set(key, inquiry);
      const dueAtMs = Math.max(inquiry.askAtMs, contest.seenAtMs + QUIET_MS);
      if (inquiry.isAsking || clock.nowMs() < dueAtMs || this.#asking() >= MOST_AT_ONCE) continue;
      inquiry.isAsking = true;
      void this.#ask(contest, inquiry).finally(() => {
        inquiry.isAsking = false;
      });
    }
  }

  #asking(): number {
    return [...this.#inquiries.values()].filter(({ isAsking }) => isAsking).length;
  }

  async #ask(contest: LastingContest, inquiry: Inquiry): Promise<void> {
    const { endpoint, address } = contest;
    const { takers, onEnd, clock } = this.#parts;
    const beganAtMs = clock.nowMs();
    const wasAsked = await endpoint.ask(address).catch(() => false);
    // Whether it was the container itself that answered, from another interface.
    await takers.settle();
    const isAnswered = takers.lastSeenMs(endpoint.parentName, address) >= beganAtMs;
    inquiry.silences = wasAsked && !isAnswered ? inquiry.silences + 1 : 0;
    inquiry.askAtMs = clock.nowMs() + (inquiry.silences > 0 ? UNANSWERED_MS : ANSWERED_MS);
    const isOver = inquiry.silences >= ENOUGH_SILENCE;
    // It may be suspected again by now.
    if ((isAnswered || isOver) && this.#suspected.get(keyOf(contest)) === contest)
      this.#suspected.delete(keyOf(contest));
    if (!isOver) return;
    takers.forget(endpoint.parentName, address);
    onEnd(endpoint.parentName, address);
  }
}

function keyOf({ endpoint, address }: LastingContest): string {
  return `${endpoint.parentName} ${formatAddress(address)}`;
}
