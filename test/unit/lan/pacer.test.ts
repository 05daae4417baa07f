import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Detection } from '../../../src/lan/detection.ts';
import { Pacer } from '../../../src/lan/pacer.ts';
import { TIMINGS } from '../../../src/lan/timing.ts';
import { Host, World } from './imagined.ts';

function paced(mostPerSecond: number) {
  const world = new World();
  const pacer = new Pacer(
    { nowMs: () => world.nowMs, after: (delayMs, run) => world.at(world.nowMs + delayMs, run) },
    mostPerSecond,
  );
  return { world, pacer };
}

/** When each of so many frames goes out, all of them wanted at once. */
function timesOf(count: number, mostPerSecond: number): number[] {
  const { world, pacer } = paced(mostPerSecond);
  return Array.from({ length: count }, () => world.nowMs + pacer.turn());
}

/** The most frames in any one second. */
function busiest(times: readonly number[]): number {
  return Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + 1000).length));
}

test('of 15 frames a second three go at once and the fourth waits its turn', () => {
  assert.deepEqual(timesOf(5, 15), [0, 0, 0, 84, 167]);
});

test('no second has more frames than the setting says, whatever is asked for', () => {
  for (const most of [10, 15, 64, 100, 500, 1000]) {
    const sent = busiest(timesOf(most * 3, most));
    assert.ok(sent <= most && sent >= most * 0.9, `${sent} of ${most}`);
  }
});

test('a pause fills the bucket again, and no further than a fifth of a second', () => {
  const { world, pacer } = paced(100);
  for (let count = 0; count < 20; count++) assert.equal(pacer.turn(), 0);
  assert.equal(pacer.turn(), 13);
  world.run(60_000);
  const again = Array.from({ length: 21 }, () => pacer.turn());
  assert.deepEqual(again.slice(0, 20), Array(20).fill(0));
  assert.equal(again[20], 13);
});

test('0 is no limit', () => {
  assert.deepEqual(new Set(timesOf(10_000, 0)), new Set([0]));
  assert.equal(paced(0).pacer.spare(), true);
});

test('frames that were reserved and are not sent go to others', () => {
  const { pacer } = paced(100);
  assert.equal(pacer.turn(20), 0);
  const waitMs = pacer.turn(5);
  pacer.giveBack(5);
  assert.equal(pacer.turn(5), waitMs);
});

test('answers to others leave half of the burst to our own questions, however many are wanted', () => {
  const { world, pacer } = paced(100);
  for (let atMs = 0; atMs < 2000; atMs += 1) {
    world.run(atMs);
    pacer.spare();
  }
  const waits = Array.from({ length: 9 }, () => pacer.turn());
  assert.deepEqual(waits, Array(9).fill(0));
  assert.equal(pacer.spare(), false);
});

test('what somebody waits for goes before all that nobody waits for, which goes in its order with what is left over', () => {
  const { world, pacer } = paced(100);
  const sent: [name: string, atMs: number][] = [];
  const ask = (name: string, isWaitedFor: boolean) => pacer.inTurn(isWaitedFor, () => sent.push([name, world.nowMs]));
  for (let count = 0; count < 60; count++) ask(`ahead ${count}`, false);
  assert.equal(sent.length, 10, 'half of those that may go at once');
  assert.ok(pacer.spare(), 'and one is left for the question to a container alone, or for a defence');
  const callOff = ask('ahead, and called off', false);
  for (let count = 0; count < 3; count++) ask(`waited for ${count}`, true);
  callOff?.();
  world.run(10_000);
  const waited = sent.filter(([name]) => name.startsWith('waited'));
  assert.deepEqual(
    waited.map(([, atMs]) => atMs),
    [0, 0, 0],
  );
  assert.deepEqual(
    sent.filter(([name]) => name.startsWith('ahead')).map(([name]) => name),
    Array.from({ length: 60 }, (_, count) => `ahead ${count}`),
  );
  assert.ok(busiest(sent.map(([, atMs]) => atMs)) <= 100);
});

test('a question that was asked ahead goes first as soon as a container waits for it', () => {
  const world = new World();
  const spec = { macAddress: '02:74:6b:00:00:01', latencyMs: 1, stall: { fromMs: 0, forMs: 0 }, mostFrames: 15 };
  const host = new Host(world, spec, []);
  for (let count = 0; count < 40; count++) host.inTurn(false, () => undefined);
  const detection = new Detection(
    {
      address: { family: 'IPv4', value: 0xc0a80105n },
      parentName: 'lan0',
      profile: 'fast',
      guardMs: 1000,
      isOwn: () => false,
      onLateConflict: () => undefined,
      onOver: () => undefined,
      standby: { refreshMs: 600_000, isOurs: false, isOfHost: null },
    },
    { wire: host, clock: host.clock, random: () => 0.5, answersForAll: undefined },
  );
  detection.start();
  world.run(500);
  assert.equal(host.sent.length, 0, 'it waits in line');
  assert.ok(detection.join('fast'));
  world.run(700);
  assert.equal(host.sent.length, 1);
});

test('a detection whose probes wait their turn waits for the answers as long as ever after the last', () => {
  const world = new World();
  const spec = { macAddress: '02:74:6b:00:00:01', latencyMs: 1, stall: { fromMs: 0, forMs: 0 }, mostFrames: 15 };
  const host = new Host(world, spec, []);
  // Twelve frames of others are to go first, three of them at once.
  for (let count = 0; count < 12; count++) host.turn();
  const timing = TIMINGS.fast.IPv4;
  const parts = { wire: host, clock: host.clock, random: () => 0.5, answersForAll: undefined };
  const ends: string[] = [];
  const detection = new Detection(
    {
      address: { family: 'IPv4', value: 0xc0a80105n },
      parentName: 'lan0',
      profile: 'fast',
      guardMs: 1000,
      isOwn: () => false,
      onLateConflict: () => undefined,
      onOver: () => ends.push('over'),
    },
    parts,
  );
  detection.start();
  const concluded = () => detection.isGuarding;
  while (!concluded() && world.nowMs < 5000) world.run(world.nowMs + 1);
  const [first = 0, , last = 0] = host.sent.map(({ atMs }) => atMs);
  assert.equal(host.sent.length, 3);
  assert.ok(first >= 750, `the first probe went out after ${first} ms`);
  assert.ok(world.nowMs - last >= timing.lastWaitMs, `${world.nowMs - last} ms after the last`);
  assert.deepEqual(ends, []);
});
