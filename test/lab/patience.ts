/** How tests wait, and how they judge times, on a machine that may stand still for a second or two at any moment. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

/** Longer than any stall; what never comes true fails all the same. */
const UNTIL_MS = 50_000;
const LOOK_MS = 50;
const TRIES = 5;

/** Fails after 50 s. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const endMs = performance.now() + UNTIL_MS; !(await holds()); ) {
    assert.ok(performance.now() < endMs, `it did not come true in ${UNTIL_MS} ms: ${String(holds)}`);
    await sleep(LOOK_MS);
  }
}

/**
 * Fails when none of five tries stays within the limit: a stall delays one, what is slow itself all. `prepare` is not
 * measured.
 */
export async function inTime(limitMs: number, act: () => Promise<unknown>, prepare = async () => {}): Promise<void> {
  const times: number[] = [];
  for (let tries = 0; tries < TRIES; tries++) {
    await prepare();
    const beginMs = performance.now();
    await act();
    times.push(Math.round(performance.now() - beginMs));
    if ((times.at(-1) ?? limitMs) < limitMs) return;
  }
  assert.fail(`took ${times.join(', ')} ms; at most ${limitMs} ms`);
}

/**
 * For what can only be promised while nobody stands still: a failure counts when this process was not away for longer than
 * that; else it is tried again, five times at most.
 */
export async function undisturbed<T>(mostMs: number, act: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    const absence = new Absence();
    try {
      return await act();
    } catch (error) {
      if (absence.longestMs <= mostMs || tries === TRIES) throw error;
      console.log(`tried again: this process stood still for ${Math.round(absence.longestMs)} ms`);
    } finally {
      absence.end();
    }
  }
}

/** How long the event loop of this process was away. */
class Absence {
  #longestMs = 0;
  #seenMs = performance.now();
  readonly #timer = setInterval(() => this.#look(), 5);

  #look(): void {
    const nowMs = performance.now();
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#seenMs);
    this.#seenMs = nowMs;
  }

  get longestMs(): number {
    this.#look();
    return this.#longestMs;
  }

  end(): void {
    clearInterval(this.#timer);
  }
}
