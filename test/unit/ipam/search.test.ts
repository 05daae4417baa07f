import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Search } from '../../../src/ipam/search.ts';

test('a search that has met nobody asks for one address at least, and looks for no more when its call is over', () => {
  let nowMs = 0;
  const clock = { nowMs: () => nowMs, after: () => () => undefined };
  const limit = { signal: new AbortController().signal, atMs: 9000, ifLate: () => undefined };
  const search = new Search('container', null, false, limit, clock);
  assert.deepEqual([search.isOver, search.isOverForGood], [false, false]);
  nowMs = 9000;
  assert.deepEqual([search.isOver, search.isOverForGood], [false, true]);
});
