/** How tests wait, and how they judge times, on a machine that may stand still for a second or two at any moment. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CallLimit } from '../../src/requests.ts';

/** Longer than any stall; what never comes true fails all the same. */
const UNTIL_MS = 90_000;
const LOOK_MS = 50;
/**
 * A look may start a program: so many times as long as it took nobody looks again, once more for each second of waiting, and the
 * machine is the others' meanwhile.
 */
const REST_SHARE = 3;
const MOST_REST_MS = 1000;
const TRIES = 5;

interface Limits {
  /** Default 90 s. */
  readonly timeoutMs?: number;
  /** Between two looks at least; default 50 ms. */
  readonly pollMs?: number;
  /** Told with the failure. */
  readonly detail?: () => string | Promise<string>;
}

export async function until(
  holds: () => boolean | Promise<boolean>,
  { timeoutMs = UNTIL_MS, pollMs = LOOK_MS, detail = () => '' }: Limits = {},
): Promise<void> {
  const told = async () => `it did not come true in ${timeoutMs} ms: ${String(holds)}\n${await detail()}`;
  if (!(await lookUntil(holds, timeoutMs, pollMs))) assert.fail(await told());
}

/** Answers whether it came true in time. */
export async function lookUntil(
  holds: () => boolean | Promise<boolean>,
  timeoutMs: number,
  pollMs = LOOK_MS,
): Promise<boolean> {
  const firstMs = performance.now();
  for (;;) {
    const beganMs = performance.now();
    if (await holds()) return true;
    const nowMs = performance.now();
    if (nowMs > firstMs + timeoutMs) return false;
    const share = REST_SHARE + (nowMs - firstMs) / 1000;
    await sleep(Math.max(pollMs, Math.min(MOST_REST_MS, share * (nowMs - beganMs))));
  }
}

/** As the server gives with each call. */
export function callLimit(ms = 9000): CallLimit {
  return { signal: new AbortController().signal, atMs: performance.now() + ms, ifLate: () => undefined };
}

/** Waits for words in a text that grows. */
export async function untilSaid(words: RegExp, text: () => string | Promise<string>): Promise<void> {
  await until(async () => words.test(await text()), { detail: async () => `${words} in ${await text()}` });
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
