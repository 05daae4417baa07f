/** What `tsmacvlan pools` counts, by the daemon and by the records alone; and that what is called next is given next. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Probe } from '../../../src/ipam/driver.ts';
import { marksOf, poolUse } from '../../../src/ipam/pooluse.ts';
import { NOT_HELD } from '../../../src/lan/verdict.ts';
import type { Pool } from '../../../src/model.ts';
import { bare, Fixture } from './fixture.ts';
import { MemoryStore } from './memory.ts';

const options = { timeout: 60_000 };
const SUBNET = '192.168.77.0/24';
const RANGE = { subPool: '192.168.77.64/28', options: { exclude: '192.168.77.66,192.168.77.200' } };

async function useOf(f: Fixture) {
  const [use] = await f.ipam.poolUses();
  assert.ok(use);
  return use;
}

/** As a command sees it while no daemon runs. */
async function useByRecords(f: Fixture) {
  const [pool] = (await f.store.pools.list()) as [Pool];
  const [leases, names] = await Promise.all([f.store.leases.list(), f.store.names.list()]);
  return poolUse(pool, marksOf(pool, { leases, names, conflicts: [] }, undefined));
}

test('what is used, remembered, excluded and free of a range, and which address is next', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, RANGE);
  await f.address(pool, '192.168.77.65');
  await f.address(pool, '192.168.77.9');
  await f.addressFor('web', pool);
  await f.release(pool, '192.168.77.64');
  await f.reserve('db', '192.168.77.79');
  const counted = { poolId: pool, used: 1, held: 0, remembered: 2, excluded: 1, free: 12, next: '192.168.77.67' };
  assert.deepEqual(await useOf(f), counted);
  assert.deepEqual(await useByRecords(f), counted);
  while ((await useOf(f)).free > 0) {
    const { next } = await useOf(f);
    assert.equal(bare(await f.address(pool)), next);
  }
  assert.deepEqual(
    [await useOf(f).then(({ next }) => next), bare(await f.address(pool))],
    ['192.168.77.64', '192.168.77.64'],
    'what is remembered goes last',
  );
  assert.equal((await useOf(f)).next, null, 'what is reserved goes to nobody');
});

test('an address that somebody else has is held, and not next', options, async () => {
  let isGone = false;
  const probe: Probe = async (_pool, { value }) =>
    value % 256n === 64n && !isGone
      ? { held: true, macAddress: '3c:22:fb:10:aa:01', linkName: 'eth0', simultaneous: false, isOnHost: false }
      : NOT_HELD;
  const f = new Fixture(new MemoryStore(), probe);
  const pool = await f.network(SUBNET, RANGE);
  assert.equal((await useOf(f)).next, '192.168.77.64', 'nobody has asked for it yet');
  assert.equal(await f.address(pool), '192.168.77.65/24');
  const { used, held, free, next } = await useOf(f);
  assert.deepEqual([used, held, free, next], [1, 1, 13, '192.168.77.67']);
  // It is offered again by then, and his until it was found free.
  f.pass(60);
  const later = await useOf(f);
  assert.deepEqual([later.used, later.held, later.free], [1, 1, 13]);
  isGone = true;
  assert.equal(await f.address(pool, '192.168.77.64'), '192.168.77.64/24');
  const since = await useOf(f);
  assert.deepEqual([since.used, since.held, since.free], [2, 0, 13]);
});

test(
  'in sequential order the next is the one after the last; an IPv6 subnet counts in the end too',
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const pool = await f.network(SUBNET, { ...RANGE, options: { order: 'sequential' } });
    await f.address(pool);
    await f.address(pool);
    await f.release(pool, '192.168.77.64');
    assert.equal((await useOf(f)).next, '192.168.77.66');
    assert.equal((await useByRecords(f)).next, '192.168.77.66');
    const six = new Fixture(new MemoryStore());
    await six.network('fd00:77::/64', { v6: true });
    const { free, next } = await useOf(six);
    assert.deepEqual([free, next], [2 ** 64 - 1, 'fd00:77::1']);
  },
);
