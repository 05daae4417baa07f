/** Many addresses: at once, to the last, by several hosts, with failures in between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Lease } from '../../../src/model.ts';
import type { LeaseTable, Store, Table } from '../../../src/store/store.ts';
import { Fixture, NETWORK, OTHER_NETWORK, sentence, STORES } from './fixture.ts';
import { MemoryStore } from './memory.ts';

const options = { timeout: 120_000 };

for (const [name, open] of Object.entries(STORES)) {
  test(`1,000 requests at once get 1,000 addresses (store ${name})`, options, async (t) => {
    const f = new Fixture(open(t));
    const pool = await f.network('10.0.0.0/16');
    const addresses = await f.addresses(pool, 1000);
    assert.equal(new Set(addresses).size, 1000);
    assert.equal((await f.store.leases.list()).length, 1000);
  });
}

test('a /16 hands out each of its 65,533 addresses exactly once', options, async () => {
  const f = new Fixture(new MemoryStore({ isSlow: false }));
  const pool = await f.network('10.7.0.0/16');
  await f.gateway(pool);
  const seen = new Set<string>();
  for (let n = 0; n < 65_533; n++) seen.add(await f.address(pool));
  assert.equal(seen.size, 65_533);
  assert.ok(seen.has('10.7.0.2/16') && seen.has('10.7.255.254/16'));
  assert.match(await sentence(f.address(pool)), /^no free address in 10\.7\.0\.0\/16: 65533 leased, 1 gateway;/);
  await f.release(pool, '10.7.128.7');
  assert.equal(await f.address(pool), '10.7.128.7/16');
});

test(
  'a named address whose engine gave up goes again, unless somebody has changed its lease since',
  options,
  async () => {
    const f = new Fixture(new MemoryStore({ isSlow: false }));
    const pool = await f.network('10.7.0.0/24');
    const named = { poolId: pool, address: '10.7.0.9' };
    assert.equal(await f.address(pool, '10.7.0.9'), '10.7.0.9/24');
    await f.ipam.takeBackAddress(named);
    assert.deepEqual(await f.store.leases.list(), []);
    await f.address(pool, '10.7.0.9');
    const [lease] = await f.store.leases.list();
    assert.ok(lease);
    f.pass(1);
    await f.store.leases.replace(lease, {
      ...lease,
      endpointId: 'e',
      changedAt: new Date(Date.parse(lease.changedAt) + 1000).toISOString(),
    });
    await f.ipam.takeBackAddress(named);
    assert.equal((await f.store.leases.list()).length, 1);
  },
);

/** The store, with something around every call of its leases. */
function wrapped(store: Store, around: (verb: string, call: () => Promise<unknown>) => Promise<unknown>): Store {
  const { networks, endpoints, pools, leases, conflicts, names, tenancies } = store;
  const table = {
    get: (key: string) => around('get', () => leases.get(key)),
    list: (prefix?: string) => around('list', () => leases.list(prefix)),
    insert: (lease: Lease) => around('insert', () => leases.insert(lease)),
    replace: (previous: Lease, next: Lease) => around('replace', () => leases.replace(previous, next)),
    remove: (lease: Lease) => around('remove', () => leases.remove(lease)),
  } as Table<Lease>;
  return {
    networks,
    endpoints,
    pools,
    leases: table,
    conflicts,
    names,
    tenancies,
    durable: () => store.durable(),
    close: () => store.close(),
  };
}

/** A store that hosts share: each hears what any of them takes and gives back. */
function shared(store: Store): Store {
  const { networks, endpoints, pools, conflicts, names, tenancies, leases } = store;
  const listeners: ((lease: Pick<Lease, 'realm' | 'address'>, isTaken: boolean, other: null) => void)[] = [];
  const told = async (lease: Lease, isTaken: boolean, change: Promise<boolean>) => {
    const isDone = await change;
    if (isDone) for (const listener of listeners) listener(lease, isTaken, null);
    return isDone;
  };
  const table: LeaseTable = {
    get: (key) => leases.get(key),
    list: (prefix) => leases.list(prefix),
    insert: (lease) => told(lease, true, leases.insert(lease)),
    replace: (previous, next) => leases.replace(previous, next),
    remove: (lease) => told(lease, false, leases.remove(lease)),
    follow: (listener) => void listeners.push(listener),
  };
  return {
    networks,
    endpoints,
    pools,
    leases: table,
    conflicts,
    names,
    tenancies,
    durable: () => store.durable(),
    close: () => store.close(),
  };
}

test('an address costs one insert, in a /8, a /24 and a /64, used much or little', options, async () => {
  for (const subnet of ['10.0.0.0/8', '192.168.1.0/24', 'fd00::/64']) {
    const calls: string[] = [];
    const count = (verb: string, call: () => Promise<unknown>) => (calls.push(verb), call());
    const f = new Fixture(wrapped(new MemoryStore(), count));
    const pool = await f.network(subnet);
    await f.addresses(pool, 200);
    calls.length = 0;
    await f.address(pool);
    assert.deepEqual(calls, ['insert'], subnet);
  }
});

test('hosts with one store never get the same address, and see what the others gave back', options, async () => {
  const store = shared(new MemoryStore());
  const hosts = [new Fixture(store), new Fixture(store), new Fixture(store)];
  const pools = await Promise.all(
    hosts.map((f, n) => f.network('10.0.0.0/24', { subPool: `10.0.0.0/${24 + n}` }, NETWORK.replace('3', `${n}`))),
  );
  const addresses = (await Promise.all(hosts.map((f, n) => f.addresses(pools[n] ?? '', 20)))).flat();
  assert.equal(new Set(addresses.map((address) => address.split('/')[0])).size, 60);
  const [one, , third] = hosts;
  assert.ok(one && third);
  await third.addresses(pools[2] ?? '', 3);
  assert.match(await sentence(third.address(pools[2] ?? '')), /^no free address/);
  const [given = ''] = addresses;
  await one.release(pools[0] ?? '', given.split('/')[0] ?? '');
  assert.equal((await third.address(pools[2] ?? '')).split('/')[0], given.split('/')[0]);
});

test('a store that fails makes the call fail, and the address is not lost', options, async () => {
  for (const isDone of [false, true]) {
    let isBroken = false;
    const store = wrapped(new MemoryStore(), async (verb, call) => {
      if (!isBroken || verb === 'get' || verb === 'list') return call();
      // Done, and only the answer lost: a record that was durable before the reply.
      if (isDone) await call();
      throw new Error('disk full');
    });
    const f = new Fixture(store);
    const pool = await f.network('10.0.0.0/29');
    isBroken = true;
    await assert.rejects(f.address(pool), /disk full/);
    isBroken = false;
    assert.equal(await f.address(pool), isDone ? '10.0.0.2/29' : '10.0.0.1/29');
    isBroken = true;
    await assert.rejects(f.release(pool, isDone ? '10.0.0.2' : '10.0.0.1'), /disk full/);
    isBroken = false;
    await f.release(pool, isDone ? '10.0.0.2' : '10.0.0.1');
    f.pass(121);
    assert.equal((await f.addresses(pool, 6)).length, 6);
  }
});

test('hosts that race for the same addresses get in each other’s way but little', options, async () => {
  const calls: string[] = [];
  const store = wrapped(new MemoryStore(), (verb, call) => (calls.push(verb), call()));
  const hosts = [new Fixture(store), new Fixture(store), new Fixture(store)];
  const pool = await new Fixture(store).network('10.0.0.0/16');
  const addresses = (await Promise.all(hosts.map((f) => f.addresses(pool, 200)))).flat();
  assert.equal(new Set(addresses).size, 600);
  const count = (verb: string) => calls.filter((call) => call === verb).length;
  assert.ok(count('insert') <= 2000 && count('list') <= 100, `${count('insert')} inserts, ${count('list')} lists`);
});

test('a host that was away learns in one look what the others took meanwhile', options, async () => {
  const store = new MemoryStore({ isSlow: false });
  const calls: string[] = [];
  const away = new Fixture(wrapped(store, (verb, call) => (calls.push(verb), call())));
  const pool = await away.network('10.0.0.0/16');
  await away.address(pool);
  await new Fixture(store).addresses(pool, 1000);
  calls.length = 0;
  assert.equal(await away.address(pool), '10.0.3.234/16');
  assert.deepEqual(calls, ['insert', 'list', 'insert']);
});

/** What an engine may do to one subnet that two networks share. */
type Deed = { readonly kind: 'take' | 'name' | 'release' | 'restart'; readonly network: 0 | 1; readonly host: number };

test('whatever engines do, no address is leased twice and none is lost', options, async () => {
  const deed: fc.Arbitrary<Deed> = fc.record({
    kind: fc.constantFrom('take', 'take', 'take', 'name', 'release', 'restart'),
    network: fc.constantFrom(0, 1),
    host: fc.integer({ min: 1, max: 14 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(deed, { maxLength: 60, size: 'max' }), async (deeds) => {
      const f = new Fixture(new MemoryStore());
      const pools = [
        await f.network('10.0.0.0/28', { subPool: '10.0.0.0/29' }),
        await f.network('10.0.0.0/28', { subPool: '10.0.0.0/28' }, OTHER_NETWORK),
      ];
      const held = new Map<string, string>();
      for (const { kind, network, host } of deeds) {
        const pool = pools[network] ?? '';
        const address = `10.0.0.${host}`;
        if (kind === 'restart') f.restart();
        else if (kind === 'release') {
          await f.release(pool, address);
          if (held.get(address) === pool) held.delete(address);
        } else {
          const expected =
            kind === 'name'
              ? address
              : Array.from({ length: network ? 14 : 7 }, (_, n) => `10.0.0.${n + 1}`).find((one) => !held.has(one));
          const isFree = expected !== undefined && !held.has(expected);
          const answer = await f.address(pool, kind === 'name' ? address : null).catch(() => undefined);
          assert.equal(answer, isFree ? `${expected}/28` : undefined);
          if (isFree) held.set(expected, pool);
        }
      }
      const leases = await f.store.leases.list();
      assert.deepEqual(new Map(leases.map((lease) => [lease.address, lease.poolIds[0]])), new Map([...held].sort()));
    }),
    { numRuns: 60 },
  );
});
