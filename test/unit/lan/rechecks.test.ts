import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rechecks } from '../../../src/lan/rechecks.ts';
import { World } from './imagined.ts';

function rounds(inUse: (parentName: string) => readonly string[], tookMs = 700) {
  const world = new World();
  const asked: [number, string][] = [];
  let running = 0;
  let most = 0;
  const clock = {
    nowMs: () => world.nowMs,
    after: (delayMs: number, run: () => void) => world.at(world.nowMs + delayMs, run),
  };
  const rechecks = new Rechecks<string>({
    clock,
    inUse,
    recheck: async (address) => {
      asked.push([world.nowMs, address]);
      most = Math.max(most, ++running);
      await new Promise<void>((resolve) => clock.after(tookMs, resolve));
      running--;
    },
  });
  return { world, rechecks, asked, most: () => most };
}

async function run(world: World, untilMs: number): Promise<void> {
  while (world.nowMs < untilMs) {
    await new Promise((resolve) => setImmediate(resolve));
    world.run(Math.min(world.nowMs + 100, untilMs));
  }
  await new Promise((resolve) => setImmediate(resolve));
}

test('what is in use is asked for at once, 15 and 35 s after the parent is back, as it is in use then', async () => {
  const used = new Map([['lan0', ['a', 'b']]]);
  const { world, rechecks, asked } = rounds((name) => used.get(name) ?? []);
  await run(world, 1000);
  rechecks.begin('lan0');
  rechecks.begin('lan1');
  await run(world, 20_000);
  used.set('lan0', ['c']);
  await run(world, 120_000);
  assert.deepEqual(asked, [
    [1000, 'a'],
    [1000, 'b'],
    [16_000, 'a'],
    [16_000, 'b'],
    [36_000, 'c'],
  ]);
});

test('once more when the port forwards; nothing when no parent came back, or when it is gone again', async () => {
  const { world, rechecks, asked } = rounds(() => ['a']);
  rechecks.again('lan0');
  await run(world, 1000);
  assert.deepEqual(asked, []);
  rechecks.begin('lan0');
  await run(world, 5000);
  rechecks.again('lan0');
  await run(world, 6000);
  rechecks.end('lan0');
  rechecks.again('lan0');
  await run(world, 60_000);
  assert.deepEqual(asked, [
    [1000, 'a'],
    [5000, 'a'],
  ]);
});

test('of a thousand addresses 64 are asked for at a time, and a second return does not wait for the first round', async () => {
  const many = Array.from({ length: 1000 }, (_, number) => String(number));
  const { world, rechecks, asked, most } = rounds(() => many);
  rechecks.begin('lan0');
  await run(world, 2000);
  assert.equal(most(), 64);
  rechecks.begin('lan0');
  const before = asked.length;
  await run(world, 2100);
  assert.equal(asked.length, before + 64);
  await run(world, 60_000);
  // What was under way in the first, and three rounds.
  assert.equal(asked.length, before + 3000);
  rechecks.close();
});
