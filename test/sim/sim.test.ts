/** The simulated LAN in every test run: the named seeds, new ones for a while, and that a seed is the same each time. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
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
/** The disks of the simulated machines are files; nothing of them has to outlive the process. */
const MEMORY = '/dev/shm';
const run = promisify(execFile);
const options = { timeout: 280_000 };

/** What it printed; throws with it when a promise was broken. */
async function simulate(settings: Record<string, string>): Promise<string> {
  const env = { ...process.env, ...(existsSync(MEMORY) && { TMPDIR: MEMORY }), ...settings };
  const { stdout } = await run(process.execPath, [MAIN], { env, maxBuffer: 64 << 20 });
  return stdout;
}

test('no promise is broken in the worlds of the named seeds and of the first ones', options, async () => {
  console.log(await simulate({ LAST, MINUTES: MOST_MINUTES }));
});

test('the same seed gives the same log, byte for byte', options, async () => {
  // One process for all: a start of the program costs as much as a world.
  const told = await simulate({ STORY: TWICE.join(',') });
  const digests = Array.from(told.matchAll(/log (\w+), again (\w+)/g), ([, first, again]) => [first, again]);
  assert.equal(digests.length, TWICE.length, told);
  for (const [first, again] of digests) assert.equal(first, again, told);
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
