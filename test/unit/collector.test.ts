/** Leak collection: who is suspected, for how long, and what becomes of it. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Collector } from '../../src/collector.ts';
import type { Leak, Patience } from '../../src/leak.ts';
import { type Line, logInto } from './server/door.ts';

const options = { timeout: 10_000 };
const AGREE_MS = 40;
/** What is to be suspected for so long would be collected by no stall of the machine. */
const PATIENCE_MS = 600_000;

/** Leaks that can be put in and taken out; those collected are taken out. */
function openCollector(t: TestContext, { agreeMs = AGREE_MS, patienceMs = PATIENCE_MS, periodMs = 60_000 } = {}) {
  const leaks = new Map<string, Leak>();
  const lines: Line[] = [];
  const source = { leaks: async () => [...leaks.values()] };
  const collector = new Collector({
    sources: [source],
    log: logInto(lines),
    agreeMs,
    patienceMs,
    periodMs,
  });
  t.after(() => collector.stop());
  const put = (
    key: string,
    patience: Patience = 'soon',
    collect: () => Promise<boolean> = async () => leaks.delete(key),
  ) => leaks.set(key, { key, kind: 'endpoint', name: key, why: 'nobody has it', patience, collect });
  return { collector, leaks, lines, source, put };
}

const states = (findings: readonly { name: string; state: string }[]) =>
  findings.map(({ name, state }) => `${name} ${state}`);

test('what two readings saw is collected, and said with its reason', options, async (t) => {
  const { collector, leaks, lines, put } = openCollector(t);
  put('a');
  assert.deepEqual(states(await collector.collect({ isDryRun: false })), ['a collected']);
  assert.equal(leaks.size, 0);
  assert.deepEqual(
    lines.map(({ level, message, fields }) => [level, message, fields['why']]),
    [['warn', 'collected a leak: endpoint a', 'nobody has it']],
  );
});

test('a dry run tells what it would do and does nothing', options, async (t) => {
  const { collector, leaks, lines, put } = openCollector(t);
  put('a');
  put('b', 'late');
  assert.deepEqual(states(await collector.collect({ isDryRun: true })), ['a certain', 'b suspected']);
  assert.deepEqual([leaks.size, lines.length], [2, 0]);
});

test('without anything suspected the answer comes at once', options, async (t) => {
  // Longer than this test may take.
  const { collector } = openCollector(t, { agreeMs: 60_000 });
  assert.deepEqual(await collector.collect({ isDryRun: false }), []);
});

test('what changed between two readings is no leak', options, async (t) => {
  const { collector, leaks, put } = openCollector(t);
  put('joined at 10:00');
  const findings = collector.collect({ isDryRun: false });
  await sleep(AGREE_MS / 2);
  leaks.clear();
  put('joined at 10:01');
  assert.deepEqual(states(await findings), ['joined at 10:01 suspected']);
});

test(
  'in the first minutes it looks more often: a killed engine ends its containers after it has started its plugins',
  options,
  async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { collector, source } = openCollector(t, { periodMs: 300_000 });
    let readings = 0;
    const read = t.mock.method(source, 'leaks', async () => {
      readings++;
      return [];
    });
    collector.start();
    for (let second = 0; second < 60; second += 20) {
      for (let turn = 0; turn < 20; turn++) await Promise.resolve();
      assert.equal(readings, second / 20 + 1);
      t.mock.timers.tick(20_000);
    }
    read.mock.restore();
  },
);

test('a leak that came and went is suspected from the beginning when it comes again', options, async (t) => {
  const { collector, leaks, source, put } = openCollector(t);
  put('a');
  await collector.collect({ isDryRun: true });
  leaks.clear();
  await collector.collect({ isDryRun: true });
  put('a');
  const first = await Promise.race([collector.collect({ isDryRun: true }), sleep(AGREE_MS / 2, 'waiting')]);
  assert.equal(first, 'waiting');
  assert.equal((await source.leaks()).length, 1);
});

test('a call that may still come is waited for in minutes, not in seconds', options, async (t) => {
  const patienceMs = 400;
  const { collector, leaks, put } = openCollector(t, { patienceMs, periodMs: 20 });
  put('returned', 'late');
  const begin = performance.now();
  collector.start();
  while (leaks.size > 0) await sleep(5);
  assert.ok(performance.now() - begin >= patienceMs * 0.9);
});

test('after the start it looks on by itself', options, async (t) => {
  const { collector, leaks, put } = openCollector(t, { periodMs: 30 });
  collector.start();
  await sleep(50);
  put('a');
  while (leaks.size > 0) await sleep(5);
});

test('what turns out to be none, or cannot be removed, stays suspected and is tried again', options, async (t) => {
  const { collector, lines, put } = openCollector(t);
  put('alive', 'soon', async () => false);
  put('stuck', 'soon', () => Promise.reject(new Error('disk on fire')));
  assert.deepEqual(states(await collector.collect({ isDryRun: false })), ['alive suspected', 'stuck suspected']);
  assert.deepEqual(states(await collector.collect({ isDryRun: true })), ['alive certain', 'stuck certain']);
  assert.deepEqual(
    lines.map(({ level, message }) => [level, message]),
    [['error', 'could not collect endpoint stuck; it is tried again']],
  );
});

test('a reading that fails does not end the readings', options, async (t) => {
  const { collector, leaks, lines, source, put } = openCollector(t, { periodMs: 20 });
  const { leaks: read } = source;
  let failures = 3;
  source.leaks = async () => (failures-- > 0 ? Promise.reject(new Error('ENOBUFS')) : read());
  put('a');
  collector.start();
  while (leaks.size > 0) await sleep(5);
  assert.equal(lines.filter(({ message }) => message === 'looking for leaks failed; it is tried again').length, 3);
});

test('readings never overlap', options, async (t) => {
  const { collector, source } = openCollector(t, { periodMs: 1 });
  let running = 0;
  source.leaks = async () => {
    assert.equal(running++, 0);
    await sleep(3);
    running--;
    return [];
  };
  collector.start();
  await Promise.all(Array.from({ length: 10 }, () => collector.collect({ isDryRun: true })));
});

test('an engine that takes up with the plugin is looked after as at the start', options, async (t) => {
  const { collector, leaks, put } = openCollector(t);
  collector.hurry();
  collector.start();
  await sleep(AGREE_MS);
  put('a');
  collector.hurry();
  while (leaks.size > 0) await sleep(AGREE_MS);
});
