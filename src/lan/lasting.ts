/**
 * Whether a conflict lasts: most hosts announce nothing and say little, so one of whom nothing is heard any more may still
 * have the address. He is asked, and only when nobody answers twice the conflict has ended.
 *
 * A host with the container's own MAC address cannot be asked: its answer looks like the container's. The record of such a
 * conflict ends when it has not been seen for long (store/conflicts.ts).
 */
import { type Address, formatAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import type { LastingContest, Takers } from './takers.ts';

/** What it works with. */
export interface LastingParts {
  readonly takers: Pick<Takers, 'lasting' | 'lastSeenMs' | 'settle' | 'forget'>;
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

  constructor(parts: LastingParts) {
    this.#parts = parts;
  }

  /** Asks for what is due. Call it from time to time. */
  review(): void {
    const { takers, clock } = this.#parts;
    const lasting = new Map(takers.lasting().map((contest) => [keyOf(contest), contest]));
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

  async #ask({ endpoint, address }: LastingContest, inquiry: Inquiry): Promise<void> {
    const { takers, onEnd, clock } = this.#parts;
    const beganAtMs = clock.nowMs();
    const wasAsked = await endpoint.ask(address).catch(() => false);
    // Whether it was the container itself that answered, from another interface.
    await takers.settle();
    const isAnswered = takers.lastSeenMs(endpoint.parentName, address) >= beganAtMs;
    inquiry.silences = wasAsked && !isAnswered ? inquiry.silences + 1 : 0;
    inquiry.askAtMs = clock.nowMs() + (inquiry.silences > 0 ? UNANSWERED_MS : ANSWERED_MS);
    if (inquiry.silences < ENOUGH_SILENCE) return;
    takers.forget(endpoint.parentName, address);
    onEnd(endpoint.parentName, address);
  }
}

function keyOf({ endpoint, address }: LastingContest): string {
  return `${endpoint.parentName} ${formatAddress(address)}`;
}
