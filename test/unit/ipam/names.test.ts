/** The same name, the same address: over stop and start, a recreation, kill -9, the network made again, and a full range. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Probe } from '../../../src/ipam/driver.ts';
import type { Remembered } from '../../../src/model.ts';
import type { Store, Table } from '../../../src/store/store.ts';
import { bare, Fixture, LOCAL, NETWORK, OTHER_NETWORK, sentence, STORES } from './fixture.ts';
import { MemoryStore } from './memory.ts';
import { type Address, formatAddress, parseAddress } from '../../../src/address.ts';
import { Names } from '../../../src/ipam/names.ts';
import { NOT_HELD } from '../../../src/lan/verdict.ts';

const options = { timeout: 60_000 };
const SUBNET = '192.168.77.0/24';
const RANGE = { subPool: '192.168.77.64/27' };

/** Starts containers of these names, each of which is stopped again at the end. */
async function lives(f: Fixture, pool: string, names: readonly string[]): Promise<Record<string, string>> {
  const had: Record<string, string> = {};
  for (const name of names) had[name] = bare(await f.addressFor(name, pool));
  for (const address of Object.values(had)) await f.release(pool, address);
  return had;
}

for (const [store, open] of Object.entries(STORES)) {
  test(
    `names have their addresses again, asked in another order after kill -9 (store ${store})`,
    options,
    async (t) => {
      const f = new Fixture(open(t));
      const pool = await f.network(SUBNET, RANGE);
      const names = ['web', 'db', 'cache', 'pr-web-1', 'pr-web-2'];
      const had = await lives(f, pool, names);
      assert.deepEqual(
        Object.values(had),
        ['64', '65', '66', '67', '68'].map((host) => `192.168.77.${host}`),
      );
      f.restart();
      assert.deepEqual(await lives(f, pool, names.toReversed()), Object.fromEntries(Object.entries(had).reverse()));
    },
  );
}

test('a network that is made again with the same description finds what its containers had', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, RANGE);
  const had = await lives(f, pool, ['web', 'db']);
  await f.ipam.releasePool(pool);
  await f.deleteNetwork(NETWORK);
  f.restart();
  assert.equal(await f.network(SUBNET, RANGE, OTHER_NETWORK), pool);
  assert.deepEqual(await lives(f, pool, ['db', 'web']), { db: had['db'], web: had['web'] });
});

test(
  'a container that runs keeps its address when a pair of it comes, and the pair gets its own',
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const pool = await f.network(SUBNET, RANGE);
    const [web = ''] = Object.values(await lives(f, pool, ['web']));
    assert.equal(bare(await f.addressFor('web', pool)), web);
    await f.endpoint('e', web, 'joined', NETWORK);
    // `docker rename web old`, and another web.
    assert.equal(await f.addressFor('web', pool), '192.168.77.65/24');
    await f.release(pool, '192.168.77.65');
    assert.equal(await f.addressFor('web', pool), '192.168.77.65/24', 'the last one counts');
  },
);

test('others do not get what is remembered while anything else is free, nor does a gateway', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, { subPool: '192.168.77.64/29' });
  await lives(f, pool, ['a', 'b']);
  await f.addressFor('holder', pool, '192.168.77.1');
  assert.equal(await f.gateway(pool), '192.168.77.66/24');
  assert.deepEqual(
    (await f.addresses(pool, 5)).sort(),
    ['67', '68', '69', '70', '71'].map((host) => `192.168.77.${host}/24`),
  );
});

test('a full range takes the address that was unused longest, and says so', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, { subPool: '192.168.77.64/30' });
  await lives(f, pool, ['a', 'b', 'c', 'd']);
  f.pass(10);
  await lives(f, pool, ['a']);
  f.restart();
  assert.equal(await f.address(pool), '192.168.77.65/24', 'that of b');
  assert.match(f.said.join('\n'), /no longer remembered .*"address":"192\.168\.77\.65","name":"b"/);
  assert.equal(await f.addressFor('e', pool), '192.168.77.66/24', 'that of c');
  assert.equal(await f.addressFor('a', pool), '192.168.77.64/24', 'a still has its own');
  assert.equal(await f.addressFor('b', pool), '192.168.77.67/24');
  assert.match(await sentence(f.address(pool)), /^no free address in 192\.168\.77\.64\/30: 4 leased;/);
});

test('an --ip is remembered too, unless a search would not give it', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, { ...RANGE, options: { exclude: '192.168.77.70' } });
  const withAddress = async (address: string) => {
    assert.equal(await f.addressFor('web', pool, address), `${address}/24`);
    await f.release(pool, address);
    const next = bare(await f.addressFor('web', pool));
    await f.release(pool, next);
    return next;
  };
  assert.equal(await withAddress('192.168.77.80'), '192.168.77.80');
  assert.equal(await withAddress('192.168.77.70'), '192.168.77.80', 'excluded');
  assert.equal(await withAddress('192.168.77.9'), '192.168.77.80', 'outside the range');
  assert.equal(await f.addressFor('other', pool, '192.168.77.80'), '192.168.77.80/24', 'who names it gets it');
  assert.match(f.said.join('\n'), /"name":"web","to":"other"/);
});

test('equal names on two networks, and in both families, are apart', options, async () => {
  const f = new Fixture(new MemoryStore());
  const [one, two] = [await f.network('10.1.0.0/24'), await f.network('10.2.0.0/24', {}, OTHER_NETWORK)];
  const six = await f.network('fd00:1::/64', { v6: true });
  await f.addressFor('x', one);
  const had = [await f.addressFor('web', one), await f.addressFor('web', six), await f.addressFor('web', two)];
  assert.deepEqual(had, ['10.1.0.2/24', 'fd00:1::1/64', '10.2.0.1/24']);
  for (const [index, pool] of [one, six, two].entries()) await f.release(pool, bare(had[index] ?? ''));
  for (const pool of [two, six, one]) await f.addressFor('other', pool);
  const again = [await f.addressFor('web', one), await f.addressFor('web', six), await f.addressFor('web', two)];
  assert.deepEqual(again, had);
});

test('an address that came from the sister subnet is had again, whichever pool the engine asks', options, async () => {
  const f = new Fixture(new MemoryStore());
  const first = await f.network('10.1.0.0/30');
  const second = await f.network('10.2.0.0/24');
  await f.addresses(first, 2);
  assert.equal(await f.addressFor('web', first), '10.2.0.1/24');
  await f.release(first, '10.2.0.1');
  await f.release(first, '10.1.0.1');
  assert.equal(await f.addressFor('web', first), '10.2.0.1/24');
  await f.release(second, '10.2.0.1');
  assert.equal(await f.addressFor('web', second), '10.2.0.1/24');
});

test(
  'what an engine gave up goes to the same container again, and not with the call that nobody heard',
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const pool = await f.network(SUBNET, RANGE);
    assert.equal(await f.addressFor('web', pool), '192.168.77.64/24');
    f.pass(1);
    assert.equal(await f.addressFor('web', pool), '192.168.77.64/24', 'the engine asks again');
    assert.ok(await f.lease('192.168.77.64'));
    await f.ipam.takeBackAddress({ poolId: pool, address: '192.168.77.64' });
    assert.equal(await f.lease('192.168.77.64'), undefined, 'what the last call leased goes with it');
    assert.equal(await f.addressFor('web', pool), '192.168.77.64/24');
  },
);

test(
  'who has taken the address on the LAN keeps it, and the container gets another one from then on',
  options,
  async () => {
    const taken = new Set<string>();
    const probe: Probe = async (_pool, address) =>
      taken.has(formatAddress(address))
        ? { held: true, macAddress: '3c:22:fb:10:aa:01', linkName: 'eth0', simultaneous: false, isOnHost: false }
        : NOT_HELD;
    const f = new Fixture(new MemoryStore(), probe);
    const pool = await f.network(SUBNET, RANGE);
    await lives(f, pool, ['web']);
    taken.add('192.168.77.64');
    assert.equal(await f.addressFor('web', pool), '192.168.77.65/24');
    assert.match(
      f.said.join('\n'),
      /does not get .*"name":"web","address":"192\.168\.77\.64".*3c:22:fb:10:aa:01 has it/,
    );
    await f.release(pool, '192.168.77.65');
    taken.clear();
    f.pass(3600);
    assert.equal(await f.addressFor('web', pool), '192.168.77.65/24');
  },
);

test('a name is forgotten after its days without use, and not while a container has its address', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, RANGE);
  await f.addressFor('runs', pool);
  await lives(f, pool, ['web', 'db']);
  await f.reserve('db', '192.168.77.66');
  f.pass(29 * 86_400);
  await f.ipam.forgetUnused();
  const kept = async () => (await f.store.names.list()).map(({ name }) => name);
  assert.deepEqual(await kept(), ['db', 'runs', 'web']);
  f.pass(2 * 86_400);
  await f.ipam.forgetUnused();
  assert.deepEqual(await kept(), ['db', 'runs'], 'one is reserved, one is in use');
  await f.release(pool, '192.168.77.64');
  f.pass(29 * 86_400);
  await f.ipam.forgetUnused();
  assert.deepEqual(await kept(), ['db', 'runs']);
});

test('a clock that is behind makes nothing look unused', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, RANGE);
  await lives(f, pool, ['web']);
  f.setClock(-24 * 365 * 50);
  f.restart();
  await lives(f, pool, ['web', 'db']);
  f.setClock(24 * 365 * 50);
  await f.ipam.forgetUnused();
  assert.deepEqual(
    (await f.store.names.list()).map(({ name }) => name),
    ['db', 'web'],
  );
});

test('beyond the limit goes who was unused longest, and not a container that runs', options, async () => {
  const store = new MemoryStore();
  const now = () => new Date();
  const said: string[] = [];
  const names = new Names({ store, now, days: 30, log: { info: (message) => void said.push(message) }, most: 3 });
  const f = new Fixture(store);
  const pool = await f.record(await f.network(SUBNET, RANGE));
  const given = async (name: string, host: number) =>
    names.given(pool, parseAddress(`192.168.77.${host}`) as Address, name);
  await f.addressFor('runs', pool.id);
  await given('runs', 64);
  for (const host of [65, 66, 67, 68]) await given(`c${host}`, host);
  const kept = (await store.names.list()).map(({ name }) => name);
  assert.deepEqual(kept, ['c67', 'c68', 'runs']);
});

test('where no name is remembered the addresses of containers with names rest like others', options, async () => {
  const store = new MemoryStore();
  const f = new Fixture(store);
  const pool = await f.network(SUBNET, { ...RANGE, options: { order: 'rested' } });
  const names = new Names({ store, now: () => new Date(), days: 0, log: { info: () => undefined } });
  for (const name of ['a', 'b', 'c']) {
    const address = bare(await f.address(pool));
    const lease = await f.lease(address);
    assert.ok(lease);
    await names.returned({ ...lease, name }, true);
    await names.forgetUnused();
  }
  const rested = names.longestUnused(LOCAL, () => true, 9).map(formatAddress);
  assert.deepEqual(
    rested,
    ['64', '65', '66'].map((host) => `192.168.77.${host}`),
  );
});

test(
  "where no name is remembered any more what was remembered before is anybody's, but for what is reserved",
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const pool = await f.network(SUBNET, { subPool: '192.168.77.64/30' });
    await lives(f, pool, ['a', 'b']);
    await f.reserve('c', '192.168.77.66');
    f.restart(0);
    const given = await f.addresses(pool, 3);
    assert.deepEqual(
      given.map(bare),
      ['64', '65', '67'].map((host) => `192.168.77.${host}`),
    );
    assert.deepEqual(
      (await f.store.names.list()).map(({ name }) => name),
      ['c'],
    );
  },
);

test('names that could not be read once are read by the next call', options, async () => {
  const store = new MemoryStore();
  const f = new Fixture(store);
  const pool = await f.network(SUBNET, RANGE);
  const [had] = Object.values(await lives(f, pool, ['web']));
  let failures = 1;
  const list = store.names.list.bind(store.names);
  store.names.list = async (prefix) => {
    if (failures-- > 0) throw new Error('the disk is busy');
    return list(prefix);
  };
  f.restart();
  await assert.rejects(f.addressFor('web', pool), /the disk is busy/);
  assert.equal(bare(await f.addressFor('web', pool)), had);
});

test('a name has one address on a network of two subnets', options, async () => {
  const f = new Fixture(new MemoryStore());
  const [first, second] = [await f.network('10.1.0.0/24'), await f.network('10.2.0.0/24')];
  await lives(f, second, ['web']);
  assert.equal(await f.addressFor('web', first, '10.1.0.9'), '10.1.0.9/24');
  await f.release(first, '10.1.0.9');
  assert.deepEqual(
    (await f.store.names.list()).map(({ address }) => address),
    ['10.1.0.9'],
  );
  assert.equal(await f.addressFor('web', second), '10.1.0.9/24');
});

test('the address of a container on its way to one network is not given to its name on another', options, async () => {
  const f = new Fixture(new MemoryStore());
  const one = await f.network(SUBNET, { subPool: '192.168.77.64/27' });
  const other = await f.network(SUBNET, { subPool: '192.168.77.96/27' }, OTHER_NETWORK);
  assert.equal(await f.addressFor('web', one), '192.168.77.64/24');
  assert.match(await sentence(f.addressFor('web', other, '192.168.77.64')), /^address 192\.168\.77\.64 is /);
});

test('10,000 names cost a call no more reading than one does', options, async () => {
  const reads = { count: 0 };
  const store = counting(new MemoryStore({ isSlow: false }), reads);
  const f = new Fixture(store);
  const pool = await f.network('10.0.0.0/16');
  const costOf = async () => {
    reads.count = 0;
    await lives(f, pool, ['web', 'db']);
    await f.release(pool, bare(await f.address(pool)));
    return reads.count;
  };
  await costOf();
  const few = await costOf();
  await lives(
    f,
    pool,
    Array.from({ length: 10_000 }, (_, n) => `c${n}`),
  );
  const begin = performance.now();
  assert.equal(await costOf(), few);
  assert.ok(performance.now() - begin < 500, 'five calls');
  f.restart();
  await f.address(pool);
  assert.equal(await costOf(), few);
});

function counting(store: Store, reads: { count: number }): Store {
  const { networks, endpoints, pools, leases, conflicts, tenancies } = store;
  const counted = <T>(rows: number, answer: Promise<T>): Promise<T> => {
    reads.count += rows;
    return answer;
  };
  const names: Table<Remembered> = {
    get: (key) => counted(1, store.names.get(key)),
    list: async (prefix) => {
      const found = await store.names.list(prefix);
      return counted(found.length, Promise.resolve(found));
    },
    insert: (record) => counted(1, store.names.insert(record)),
    replace: (previous, next) => counted(1, store.names.replace(previous, next)),
    remove: (record) => counted(1, store.names.remove(record)),
  };
  return {
    networks,
    endpoints,
    pools,
    leases,
    conflicts,
    names,
    tenancies,
    durable: () => store.durable(),
    close: () => store.close(),
  };
}

test(
  'order=sequential goes on after kill -9; order=rested gives the address that rested longest',
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const next = await f.network('10.1.0.0/29', { options: { order: 'sequential' } });
    await f.release(next, bare(await f.address(next)));
    await f.release(next, bare(await f.address(next)));
    f.restart();
    assert.equal(await f.address(next), '10.1.0.3/29');

    const pool = await f.network('10.2.0.0/29', { options: { order: 'rested' } }, OTHER_NETWORK);
    const given = await f.addresses(pool, 6);
    for (const host of [4, 2, 6, 1]) await f.release(pool, `10.2.0.${host}`);
    assert.equal(given.length, 6);
    f.restart();
    const again: string[] = [];
    for (let n = 0; n < 4; n++) again.push(bare(await f.address(pool)));
    assert.deepEqual(again, ['10.2.0.4', '10.2.0.2', '10.2.0.6', '10.2.0.1']);
    assert.equal(f.said.length, 0, 'nobody lost a name');
    assert.equal((await f.store.names.list()).length, 0);
    assert.equal(await f.lease('10.2.0.4', LOCAL).then((lease) => lease?.kind), 'container');
  },
);
