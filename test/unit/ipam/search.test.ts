import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Address } from '../../../src/address.ts';
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

/** One that has met these answers: the host of an address, and the last byte of the MAC address. */
function searched(answers: readonly (readonly [host: bigint, mac: number])[]): Search {
  const clock = { nowMs: () => 0, after: () => () => undefined };
  const search = new Search('container', null, false, null, clock);
  for (const [host, mac] of answers) {
    const address: Address = { family: 'IPv4', value: 0xc0a8_4d00n + host };
    const macAddress = `52:54:00:00:01:0${mac}`;
    search.meet(address, { held: true, macAddress, linkName: 'lan0', simultaneous: false, isOnHost: false });
  }
  return search;
}

test('two hosts that have one address are no device that answers for all', () => {
  assert.equal(
    searched([
      [64n, 1],
      [65n, 2],
      [68n, 2],
      [69n, 2],
      [65n, 3],
      [64n, 1],
    ]).suspect,
    null,
  );
  assert.equal(
    searched([
      [64n, 1],
      [65n, 2],
      [65n, 3],
      [64n, 4],
    ]).suspect,
    'its MAC address changes',
  );
});
