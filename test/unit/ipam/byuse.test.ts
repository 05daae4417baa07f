/** Values in the order of their last use, from either end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByUse } from '../../../src/ipam/byuse.ts';

test('both ends are right after many uses and deletions', () => {
  const byUse = new ByUse<number>();
  const expected = new Map<string, number>();
  for (let step = 0; step < 5000; step++) {
    const key = `k${(step * 7919) % 97}`;
    expected.delete(key);
    if (step % 5 === 0) byUse.delete(key);
    else {
      expected.set(key, step);
      byUse.use(key, step);
    }
    if (step % 100 > 0) continue;
    assert.deepEqual([...byUse.longestUnused()], [...expected.values()]);
    assert.deepEqual([...byUse.latest()], [...expected.values()].reverse());
    assert.equal(byUse.size, expected.size);
  }
});
