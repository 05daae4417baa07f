/**
 * How long ago records were changed. A record says so by the wall clock, which is set now and then; what this process saw
 * being changed, or has looked at before, it knows by a clock that only goes forward.
 */
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';

/** A record and its last change, as `TsmacvlanLocal/192.168.1.2`, `2026-11-20T10:00:00.000Z`. */
interface Changed {
  readonly key: string;
  /** ISO 8601. */
  readonly changedAt: string;
}

/** Those that were looked at longest ago are judged by the wall clock once more. */
const MOST = 4096;

/** The ages of records. */
export class Ages {
  readonly #now: () => Date;
  readonly #clock: Pick<Clock, 'nowMs'>;
  /** When each change was made, by the clock, or what comes nearest. */
  readonly #changedAtMs = new LatestMap<string, number>(MOST);

  constructor(now: () => Date, clock: Pick<Clock, 'nowMs'>) {
    this.#now = now;
    this.#clock = clock;
  }

  /** The record was changed just now. */
  note({ key, changedAt }: Changed): void {
    this.#changedAtMs.put(`${key} ${changedAt}`, this.#clock.nowMs());
  }

  /**
   * Milliseconds since the record was changed. One from the future was changed before the clock was set back, nobody knows how
   * long before: it is `strangeMs` old when it is looked at first.
   */
  ageMs({ key, changedAt }: Changed, strangeMs: number): number {
    const text = `${key} ${changedAt}`;
    const nowMs = this.#clock.nowMs();
    const known = this.#changedAtMs.get(text);
    if (known !== undefined) return nowMs - known;
    const wallMs = this.#now().getTime() - Date.parse(changedAt);
    const ageMs = wallMs < 0 ? strangeMs : wallMs;
    this.#changedAtMs.put(text, nowMs - ageMs);
    return ageMs;
  }
}
