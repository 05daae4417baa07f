import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backgroundClock } from '../../../src/clock.ts';
import { SuspendWatch } from '../../../src/lan/suspend.ts';
import { World } from './imagined.ts';

/** A host whose clocks a test moves. */
function host() {
  const world = new World();
  const slept = { bootMs: 0, wallMs: 0 };
  const wakes: number[] = [];
  const clock = {
    nowMs: () => world.nowMs,
    after: (delayMs: number, run: () => void) => world.at(world.nowMs + delayMs, run),
  };
  const others = [() => 1e6 + world.nowMs + slept.bootMs, () => 1e12 + world.nowMs + slept.wallMs];
  const watch = new SuspendWatch(clock, () => wakes.push(world.nowMs), others);
  return { world, slept, wakes, watch };
}

test('a host that sleeps is noticed within seconds after it woke, once', () => {
  const { world, slept, wakes } = host();
  world.run(60_000);
  assert.deepEqual(wakes, []);
  // Its timers stood still.
  slept.bootMs += 3_600_000;
  slept.wallMs += 3_600_000;
  world.run(180_000);
  assert.deepEqual(wakes, [65_000]);
});

test('who asks is told at once', () => {
  const { world, slept, wakes, watch } = host();
  world.run(12_000);
  slept.bootMs += 8000;
  watch.look();
  watch.look();
  assert.deepEqual(wakes, [12_000]);
});

test('a paused virtual machine is noticed when its wall clock was set right', () => {
  const { world, slept, wakes } = host();
  slept.wallMs += 600_000;
  world.run(20_000);
  assert.deepEqual(wakes, [5000]);
});

test('a clock that is slewed or set back is no sleep', () => {
  const { world, slept, wakes } = host();
  for (let minute = 1; minute <= 60; minute++) {
    // 500 ppm, the most that adjtimex does.
    slept.wallMs += 30;
    slept.bootMs += 1;
    world.run(minute * 60_000);
  }
  slept.wallMs -= 36_000_000;
  world.run(61 * 60_000);
  assert.deepEqual(wakes, []);
});

test('nothing is looked at after the end', () => {
  const { world, slept, wakes, watch } = host();
  watch.close();
  slept.bootMs += 60_000;
  world.run(60_000);
  assert.deepEqual(wakes, []);
});

test('the clocks of this machine tell of no sleep while it works', () => {
  const wakes: string[] = [];
  const watch = new SuspendWatch(backgroundClock, () => wakes.push('woke'));
  for (const until = performance.now() + 100; performance.now() < until; ) watch.look();
  watch.close();
  assert.deepEqual(wakes, []);
});
