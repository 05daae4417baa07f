import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CappedMap, LatestMap } from '../../src/bounded.ts';

test('a latest map drops the entry that was put in longest ago, and tells its value', () => {
  const map = new LatestMap<string, number>(2);
  assert.equal(map.put('a', 1), undefined);
  assert.equal(map.put('b', 2), undefined);
  assert.equal(map.put('a', 3), undefined);
  assert.equal(map.put('c', 4), 2);
  assert.deepEqual(
    [...map],
    [
      ['a', 3],
      ['c', 4],
    ],
  );
  assert.deepEqual([map.has('b'), map.get('a'), map.size], [false, 3, 2]);
  assert.deepEqual([map.delete('a'), map.delete('a')], [true, false]);
  assert.equal(map.put('d', 5), undefined);
  assert.deepEqual(
    [[...map.keys()], [...map.values()]],
    [
      ['c', 'd'],
      [4, 5],
    ],
  );
  map.clear();
  assert.equal(map.size, 0);
});

test('a capped map refuses a new key while it is full, and never an old one', () => {
  const map = new CappedMap<string, number>(2);
  assert.deepEqual([map.put('a', 1), map.put('b', 2), map.put('c', 3), map.put('a', 4)], [true, true, false, true]);
  assert.deepEqual(
    [...map],
    [
      ['a', 4],
      ['b', 2],
    ],
  );
  map.delete('b');
  assert.equal(map.put('c', 5), true);
});

test('neither ever holds more than its limit, whatever is put in', () => {
  const entries = fc.array(fc.tuple(fc.nat(20), fc.nat()), { maxLength: 100 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), entries, (limit, pairs) => {
      const latest = new LatestMap<number, number>(limit);
      const capped = new CappedMap<number, number>(limit);
      for (const [key, value] of pairs) {
        latest.put(key, value);
        capped.put(key, value);
        assert.ok(latest.size <= limit && capped.size <= limit);
        assert.equal(latest.get(key), value);
      }
      const lastKeys = [...new Set(pairs.map(([key]) => key).reverse())].slice(0, limit).reverse();
      assert.deepEqual([...latest.keys()], lastKeys);
      const firstKeys = [...new Set(pairs.map(([key]) => key))].slice(0, limit);
      assert.deepEqual([...capped.keys()], firstKeys);
    }),
  );
});
