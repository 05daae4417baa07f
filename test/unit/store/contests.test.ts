/** Rows of addresses that two hosts of a shared store have: they begin and end as the store tells it, however slowly it is read. */
import assert from 'node:assert/strict';
import { type TestContext, beforeEach, test } from 'node:test';
import { Conflicts } from '../../../src/store/conflicts.ts';
import { Contests } from '../../../src/store/contests.ts';
import type { Contest } from '../../../src/store/store.ts';
import { MemoryStore } from '../ipam/memory.ts';
import { leaseRecord } from './lease.ts';
import { endpointRecord } from './records.ts';

const ADDRESS = '192.168.1.2';
const LASTING: Contest = {
  realm: 'LocalDefault',
  address: ADDRESS,
  others: new Map([['two', '2026-11-20T10:00:01.000Z']]),
  isOver: false,
};
const OVER: Contest = { ...LASTING, others: new Map(), isOver: true };
const LOG = { error: (message: string) => assert.fail(message) };

let store: MemoryStore;
let conflicts: Conflicts;
let forgotten: string[];

beforeEach(async () => {
  [store, forgotten] = [new MemoryStore(), []];
  conflicts = new Conflicts(store.conflicts);
  await store.endpoints.insert(endpointRecord('e1'));
  await store.leases.insert({ ...leaseRecord(ADDRESS), endpointId: 'e1' });
});

/** What the store tells; resolves when all of it is written. */
function follow(t: TestContext): (...told: Contest[]) => Promise<void> {
  let listener: ((contest: Contest) => void) | undefined;
  Object.assign(store.leases, { contests: (given: typeof listener) => (listener = given) });
  const parts = { store, conflicts, forget: (address: string) => void forgotten.push(address), log: LOG };
  const contests = new Contests(parts);
  t.after(() => contests.stop());
  return async (...told) => {
    for (const contest of told) listener?.(contest);
    // Each reading of the slow store takes a turn of the event loop.
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
  };
}

const rows = async () =>
  (await store.conflicts.list()).map(({ node, newer, endedAt }) => ({ node, newer, isOver: endedAt !== null }));

test('a row lasts from the first word to the last', async (t) => {
  const tell = follow(t);
  await tell(LASTING);
  assert.deepEqual(await rows(), [{ node: 'two', newer: 'there', isOver: false }]);
  await tell(OVER);
  assert.deepEqual(await rows(), [{ node: 'two', newer: 'there', isOver: true }]);
  assert.deepEqual(forgotten, [ADDRESS]);
});

test('a contest that is over before its row is written leaves none that lasts', async (t) => {
  const tell = follow(t);
  await tell(LASTING, OVER);
  assert.deepEqual(await rows(), [{ node: 'two', newer: 'there', isOver: true }]);
  await tell(LASTING, { ...LASTING, others: new Map([['three', '']]) }, OVER);
  assert.deepEqual(await rows(), [{ node: 'three', newer: null, isOver: true }]);
});

test('the row ends also when the container here went first', async (t) => {
  const tell = follow(t);
  await tell(LASTING);
  await store.endpoints.remove(endpointRecord('e1'));
  await tell({ ...LASTING, others: new Map([['three', '']]) }, OVER);
  assert.deepEqual(await rows(), [{ node: 'two', newer: 'there', isOver: true }]);
});
