/**
 * The addresses of running containers, asked for again for as long as they run: two parts of a LAN may come together without
 * anybody here losing a carrier. One question a second at most, whatever their number, and each address once a minute at most.
 */
import type { Clock } from '../clock.ts';

/** What it works with. */
export interface PatrolParts<InUse> {
  readonly clock: Clock;
  /** All that are in use now. */
  readonly all: () => readonly InUse[];
  /** Asks for one, unless it is in use no more. Never throws. */
  readonly ask: (inUse: InUse) => Promise<void>;
}

/** Between two questions. */
const PACE_MS = 1000;
/** From the beginning of one round to that of the next at least. */
const ROUND_MS = 60_000;

/** Rounds over all addresses in use, until close(). */
export class Patrol<InUse> {
  readonly #parts: PatrolParts<InUse>;
  #left: InUse[] = [];
  #beganAtMs: number;
  #cancel: () => void;

  constructor(parts: PatrolParts<InUse>) {
    this.#parts = parts;
    this.#beganAtMs = parts.clock.nowMs();
    this.#cancel = parts.clock.after(ROUND_MS, () => void this.#step());
  }

  /** Asks no more. */
  close(): void {
    this.#cancel();
    this.#cancel = () => undefined;
    this.#left = [];
    this.#beganAtMs = Number.POSITIVE_INFINITY;
  }

  async #step(): Promise<void> {
    const { clock, all, ask } = this.#parts;
    if (this.#left.length === 0) {
      this.#beganAtMs = clock.nowMs();
      this.#left = [...all()];
    }
    const next = this.#left.shift();
    if (next !== undefined) await ask(next);
    if (this.#beganAtMs === Number.POSITIVE_INFINITY) return;
    const restMs = this.#beganAtMs + ROUND_MS - clock.nowMs();
    this.#cancel = clock.after(this.#left.length > 0 ? PACE_MS : Math.max(PACE_MS, restMs), () => void this.#step());
  }
}
