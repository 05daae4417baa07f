/**
 * The addresses of running containers, asked for again when their parent is back (RFC 5227 2.1), or the daemon: at once, and
 * 15 and 35 s later, because a switch port with spanning tree forwards only then.
 */
import type { Clock } from '../clock.ts';

/** What it works with, and whom it tells. */
export interface RechecksParts<InUse> {
  readonly clock: Clock;
  /** The addresses of the containers on a parent, as they are now. */
  readonly inUse: (parentName: string) => readonly InUse[];
  /** Whether somebody else has the address, and if so tells. Never throws. */
  readonly recheck: (inUse: InUse) => Promise<void>;
}

interface Round {
  readonly controller: AbortController;
  running: Promise<void>;
  cancelTimers: (() => void)[];
}

const LATER_MS = [15_000, 35_000];
/** Of one parent at a time: what they send is paced (pacer.ts), and each waits for its answers. */
const AT_ONCE = 64;

/** Rounds over the addresses in use, by parent. */
export class Rechecks<InUse> {
  readonly #parts: RechecksParts<InUse>;
  readonly #rounds = new Map<string, Round>();

  constructor(parts: RechecksParts<InUse>) {
    this.#parts = parts;
  }

  /** The parent is back, or there is somebody to listen again. */
  begin(parentName: string): void {
    this.end(parentName);
    const round: Round = { controller: new AbortController(), running: Promise.resolve(), cancelTimers: [] };
    this.#rounds.set(parentName, round);
    this.#run(parentName, round);
    const last = LATER_MS.at(-1);
    round.cancelTimers = LATER_MS.map((delayMs) =>
      this.#parts.clock.after(delayMs, () => {
        this.#run(parentName, round);
        if (delayMs === last && this.#rounds.get(parentName) === round) this.#rounds.delete(parentName);
      }),
    );
  }

  /** The LAN can be reached now: once more, beside the times that are due. Nothing when no parent came back. */
  again(parentName: string): void {
    const round = this.#rounds.get(parentName);
    if (round !== undefined) this.#run(parentName, round);
  }

  /** The parent is gone again. */
  end(parentName: string): void {
    const round = this.#rounds.get(parentName);
    if (round === undefined) return;
    this.#rounds.delete(parentName);
    round.controller.abort();
    for (const cancel of round.cancelTimers) cancel();
  }

  /** Nothing is asked any more. */
  close(): void {
    for (const parentName of [...this.#rounds.keys()]) this.end(parentName);
  }

  /** One after the other: of a thousand addresses a round takes longer than the time between two. */
  #run(parentName: string, round: Round): void {
    round.running = round.running.then(() => this.#askAll(parentName, round.controller.signal));
  }

  async #askAll(parentName: string, signal: AbortSignal): Promise<void> {
    const left = [...this.#parts.inUse(parentName)];
    const work = async () => {
      for (let next = left.shift(); next !== undefined && !signal.aborted; next = left.shift())
        await this.#parts.recheck(next);
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, left.length) }, work));
  }
}
