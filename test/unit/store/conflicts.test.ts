import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Conflict } from '../../../src/model.ts';
import { type ConflictReport, Conflicts } from '../../../src/store/conflicts.ts';
import { type LocalStore, openLocalStore } from '../../../src/store/local.ts';
import { temporaryDirectory } from '../temporary.ts';

const options = { timeout: 20_000 };
const REPORT: ConflictReport = {
  kind: 'address',
  parent: 'lan0',
  address: '10.9.0.5',
  macAddress: '3c:22:fb:10:aa:01',
  ourMacAddress: '02:42:0a:09:00:05',
  hostLink: null,
};
const BEGIN = Date.parse('2026-11-20T10:00:00.000Z');

/** A store, the conflicts in it, and a clock that a test sets. */
function open(t: TestContext) {
  const store = openLocalStore(temporaryDirectory(t));
  t.after(() => store.close());
  const time = { nowMs: 0, wallMs: BEGIN };
  const clock = { nowMs: () => time.nowMs, after: () => () => undefined };
  const start = () => new Conflicts(store.conflicts, clock, () => new Date(time.wallMs));
  const pass = (ms: number) => {
    time.nowMs += ms;
    time.wallMs += ms;
  };
  return { store, time, start, pass, conflicts: start() };
}

async function only(store: LocalStore): Promise<Conflict> {
  const [first, ...others] = await store.conflicts.list();
  assert.ok(first !== undefined && others.length === 0);
  return first;
}

test('one record however often, and no count is lost when many report at once', options, async (t) => {
  const { store, conflicts, pass } = open(t);
  await conflicts.record(REPORT, 3);
  pass(1000);
  await Promise.all(Array.from({ length: 50 }, () => conflicts.record(REPORT, 2)));
  assert.deepEqual(await only(store), {
    ...REPORT,
    count: 103,
    firstSeenAt: '2026-11-20T10:00:00.000Z',
    seenAt: '2026-11-20T10:00:01.000Z',
    endedAt: null,
  });
});

test(
  'who has the MAC address of a container has a record of its own, one whatever addresses he uses',
  options,
  async (t) => {
    const { store, conflicts } = open(t);
    await conflicts.record(REPORT);
    const mac = { ...REPORT, kind: 'mac' as const, macAddress: '02:42:0a:09:00:05' };
    for (const address of ['10.9.0.5', '10.9.0.77', '10.9.0.78']) await conflicts.record({ ...mac, address });
    const known = await store.conflicts.list();
    assert.deepEqual(
      known.map(({ kind, address, count }) => [kind, address, count]),
      [
        ['mac', '10.9.0.78', 3],
        ['address', '10.9.0.5', 1],
      ],
    );
  },
);

test(
  'what was not seen for ten minutes has ended, whatever the wall clock says, and begins anew when it shows',
  options,
  async (t) => {
    const { store, conflicts, pass, time } = open(t);
    await conflicts.record(REPORT);
    pass(599_000);
    time.wallMs += 10 * 3_600_000;
    await conflicts.endSilent();
    assert.equal((await only(store)).endedAt, null);
    pass(1000);
    time.wallMs = BEGIN + 5000;
    await conflicts.endSilent();
    assert.equal((await only(store)).endedAt, '2026-11-20T10:00:05.000Z');
    pass(1000);
    await conflicts.record(REPORT, 2);
    const again = await only(store);
    assert.deepEqual([again.count, again.firstSeenAt, again.endedAt], [2, '2026-11-20T10:00:06.000Z', null]);
  },
);

test("what an earlier process saw lasts ten minutes of this one's life", options, async (t) => {
  const { store, conflicts, start, pass } = open(t);
  await conflicts.record(REPORT);
  const next = start();
  pass(3_600_000);
  await next.endSilent();
  assert.equal((await only(store)).endedAt, null);
  pass(600_000);
  await next.endSilent();
  assert.notEqual((await only(store)).endedAt, null);
});

test('it ends when it is told to, once', options, async (t) => {
  const { store, conflicts, pass } = open(t);
  await conflicts.end(REPORT);
  await conflicts.record(REPORT);
  await conflicts.end(REPORT);
  pass(1000);
  await conflicts.end(REPORT);
  await conflicts.endSilent();
  assert.equal((await only(store)).endedAt, '2026-11-20T10:00:00.000Z');
});

test('those of one address are cleared, or all', options, async (t) => {
  const { store, conflicts } = open(t);
  for (const parent of ['lan0', 'lan1'])
    for (const address of ['10.9.0.5', '10.9.0.6']) await conflicts.record({ ...REPORT, parent, address });
  assert.equal((await conflicts.clear('10.9.0.7')).length, 0);
  assert.equal((await conflicts.clear('10.9.0.5')).length, 2);
  assert.deepEqual(
    (await store.conflicts.list()).map(({ address }) => address),
    ['10.9.0.6', '10.9.0.6'],
  );
  assert.equal((await conflicts.clear(null)).length, 2);
  await conflicts.record(REPORT);
  assert.equal((await only(store)).count, 1);
});

test('a stranger who answers for a whole range takes no container its record', options, async (t) => {
  const { store, conflicts, pass } = open(t);
  await conflicts.record({ ...REPORT, address: '10.8.0.1', ourMacAddress: '02:42:0a:08:00:01' });
  for (let number = 0; number < 1001; number++) {
    pass(1);
    await conflicts.record({ ...REPORT, address: `10.9.${number >> 8}.${number & 255}`, ourMacAddress: null });
  }
  const left = await store.conflicts.list();
  assert.deepEqual([left.length, left.some(({ address }) => address === '10.8.0.1')], [1000, true]);
});

test('a thousand records are kept: what has ended goes first, then what was seen longest ago', options, async (t) => {
  const { store, conflicts, pass } = open(t);
  const address = (number: number) => `10.9.${number >> 8}.${number & 255}`;
  for (let number = 0; number < 1000; number++) {
    await conflicts.record({ ...REPORT, address: address(number) });
    pass(1);
  }
  await conflicts.end({ ...REPORT, address: address(500) });
  for (const number of [2000, 2001]) await conflicts.record({ ...REPORT, address: address(number) });
  const left = new Set((await store.conflicts.list()).map((conflict) => conflict.address));
  assert.equal(left.size, 1000);
  for (const gone of [500, 0]) assert.ok(!left.has(address(gone)), address(gone));
  for (const kept of [1, 501, 2000, 2001]) assert.ok(left.has(address(kept)), address(kept));
});
