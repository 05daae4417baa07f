/** The simulated LAN in every test run: the named seeds, new ones for a while, and that a seed is the same each time. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

/** Seeds of each kind that are played in every test run, on slow machines as on fast ones. */
const LAST = '1';
/** Of one core, should it go on and on. */
const MOST_MINUTES = '3';
/** Played twice, to the last byte of their logs. */
const TWICE = ['1', 'etcd 1', 'swarm 1', 'full 9', 'day 3'];
/**
 * Played with the quiet stretches cut out, and event by event: a life in which no two moments come so close to each other that
 * their order depends on where the stretches end, as in some others, which end as soundly with other addresses.
 */
const WHOLE = 'day 5';

const MAIN = join(import.meta.dirname, 'main.ts');
const run = promisify(execFile);
const options = { timeout: 280_000 };

/** What it printed; throws with it when a promise was broken. */
async function simulate(settings: Record<string, string>): Promise<string> {
  const { stdout } = await run(process.execPath, [MAIN], { env: { ...process.env, ...settings }, maxBuffer: 64 << 20 });
  return stdout;
}

test('no promise is broken in the worlds of the named seeds and of the first ones', options, async () => {
  console.log(await simulate({ LAST, MINUTES: MOST_MINUTES }));
});

test('the same seed gives the same log, byte for byte', options, async () => {
  for (const seed of TWICE) {
    const told = await simulate({ STORY: seed });
    const [, first, again] = told.match(/log (\w+), again (\w+)/) ?? [];
    assert.ok(first !== undefined && first === again, told);
  }
});

test(
  'a life out of which quiet stretches are cut ends with the same records as one that is played whole',
  options,
  async () => {
    const told = await simulate({ WHOLE });
    const [, cutS, wholeS] = told.match(/the same: (\d+) s .* and (\d+) s /) ?? [];
    assert.ok(Number(wholeS) > 1.5 * Number(cutS), told);
  },
);
