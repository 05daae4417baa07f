import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from '../../../src/address.ts';
import { Inquiries } from '../../../src/lan/inquiry.ts';
import { World } from './imagined.ts';

test('what cannot be listened for is not asked, and nothing is awaited', async () => {
  const world = new World();
  const address = parseAddress('fd00::5');
  assert.ok(address);
  const inquiries = new Inquiries({
    macAddress: '02:74:73:00:00:80',
    clock: { nowMs: () => world.nowMs, after: (delayMs, run) => world.at(world.nowMs + delayMs, run) },
    random: () => 0.5,
    send: () => assert.fail('asked'),
    turn: () => 0,
    listen: () => {
      throw new Error('no more groups');
    },
    ignore: () => undefined,
  });
  await assert.rejects(inquiries.ask(address, '3c:22:fb:10:aa:01'), /no more groups/);
  assert.equal(inquiries.isAsking, false);
});
