/**
 * Whether the host slept. Then its timers stood still and it heard nothing, while the LAN went on: two clocks that differ
 * in what they count of a sleep have gone apart.
 */
import { uptime } from 'node:os';
import type { Clock } from '../clock.ts';

/** A clock that goes on while the host sleeps, in milliseconds from whenever. */
export type SleeplessClock = () => number;

/**
 * CLOCK_BOOTTIME counts a suspend that the host knows of. Of one that it does not know of, a paused virtual machine, the
 * wall clock tells when somebody has set it right.
 */
const SLEEPLESS_CLOCKS: readonly SleeplessClock[] = [() => uptime() * 1000, () => Date.now()];

/** How often is looked; whoever gives out an address looks before. */
const LOOK_MS = 5000;
/** Less than what is slewed or rounded away in one look, and more than a busy machine loses between two readings. */
const JUMP_MS = 3000;

/** Compares the clocks from time to time, and whenever it is asked to. */
export class SuspendWatch {
  readonly #clock: Clock;
  readonly #others: readonly SleeplessClock[];
  readonly #onWake: () => void;
  /** How far each is ahead of ours. */
  #ahead: readonly number[];
  #cancel: () => void = () => undefined;

  /** `clock` stands still while the host sleeps, as CLOCK_MONOTONIC. */
  constructor(clock: Clock, onWake: () => void, others: readonly SleeplessClock[] = SLEEPLESS_CLOCKS) {
    this.#clock = clock;
    this.#onWake = onWake;
    this.#others = others;
    this.#ahead = this.#read();
    this.#lookLater();
  }

  /** Tells at once when the host has slept since the last look. */
  look(): void {
    const before = this.#ahead;
    this.#ahead = this.#read();
    // A clock that was set back tells nothing.
    if (this.#ahead.some((ahead, position) => ahead - (before[position] ?? ahead) >= JUMP_MS)) this.#onWake();
  }

  /** Looks no more. */
  close(): void {
    this.#cancel();
  }

  #read(): number[] {
    return this.#others.map((other) => other() - this.#clock.nowMs());
  }

  #lookLater(): void {
    this.#cancel = this.#clock.after(LOOK_MS, () => {
      this.look();
      this.#lookLater();
    });
  }
}
