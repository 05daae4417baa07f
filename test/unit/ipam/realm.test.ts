/** What a realm keeps in memory of its leases: as much as the store has, and no call reads all of them for it. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { type Address, formatAddress } from '../../../src/address.ts';
import { systemClock } from '../../../src/clock.ts';
import { Ages } from '../../../src/ipam/ages.ts';
import { Leases } from '../../../src/ipam/leases.ts';
import { Occupancy } from '../../../src/ipam/occupancy.ts';
import { known } from '../../../src/ipam/pool.ts';
import type { Lease, LeaseKind } from '../../../src/model.ts';
import { openLocalStore } from '../../../src/store/local.ts';
import type { LeaseTable, Store } from '../../../src/store/store.ts';
import { Fixture, GLOBAL, LOCAL, OTHER_NETWORK, sentence } from './fixture.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { endpointRecord, poolRecord } from '../store/records.ts';
import { MemoryStore } from './memory.ts';

const options = { timeout: 120_000 };

/** Calls of the leases' table, and how many leases were read by them. */
class Reads {
  calls = 0;
  rows = 0;

  around(store: Store): Store {
    const { networks, endpoints, pools, conflicts, names, tenancies, leases } = store;
    const counted = async <T>(call: Promise<T>): Promise<T> => {
      const answer = await call;
      this.calls++;
      this.rows += Array.isArray(answer) ? answer.length : typeof answer === 'object' ? 1 : 0;
      return answer;
    };
    const table: LeaseTable = {
      get: (key) => counted(leases.get(key)),
      list: (prefix) => counted(leases.list(prefix)),
      insert: (lease) => counted(leases.insert(lease)),
      replace: (previous, next) => counted(leases.replace(previous, next)),
      remove: (lease) => counted(leases.remove(lease)),
    };
    return {
      networks,
      endpoints,
      pools,
      conflicts,
      names,
      tenancies,
      leases: table,
      durable: () => store.durable(),
      close: () => store.close(),
    };
  }

  async during(act: () => Promise<unknown>): Promise<{ calls: number; rows: number }> {
    [this.calls, this.rows] = [0, 0];
    await act();
    return { calls: this.calls, rows: this.rows };
  }
}

const LEASES = 60_000;
const THIRD_NETWORK = '5b00cc22dd33'.padEnd(64, '0');

/** A realm as large as a /16 lets it be, of which each address is a running container's. */
async function filled(t: TestContext): Promise<{ f: Fixture; reads: Reads; full: string }> {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'tsmacvlan-realm-'));
  const store = openLocalStore(directory);
  t.after(async () => {
    await store.close();
    rmSync(directory, { recursive: true });
  });
  const reads = new Reads();
  const f = new Fixture(reads.around(store));
  const full = await f.network('10.16.0.0/16', { subPool: '10.16.0.0/28' });
  for (let n = 0; n < LEASES; n++) {
    const address = `10.16.${n >> 8}.${n & 255}`;
    await store.leases.insert({
      realm: LOCAL,
      address,
      kind: 'container',
      poolIds: [full],
      endpointId: null,
      changedAt: '2026-11-20T10:00:00.000Z',
    });
  }
  return { f, reads, full };
}

test('with 60,000 leases in the realm', options, async (t) => {
  const { f, reads, full } = await filled(t);
  await t.test('a network comes and goes for a few of them', async () => {
    const first = await reads.during(() => f.address(full, '10.16.255.1'));
    assert.deepEqual(first, { calls: 2, rows: LEASES }, 'the realm is read once, by the first call');

    await f.release(full, '10.16.255.1');
    let pool = '';
    assert.equal((await reads.during(async () => (pool = await f.pool('192.168.1.0/24')))).rows, 0);
    assert.deepEqual(await reads.during(() => f.gateway(pool)), { calls: 1, rows: 0 });
    assert.deepEqual(await reads.during(() => f.address(pool, '192.168.1.7')), { calls: 1, rows: 0 });
    await f.tie(pool, OTHER_NETWORK);
    assert.deepEqual(await reads.during(() => f.address(pool)), { calls: 1, rows: 0 });
    const host = await reads.during(() => f.ipam.reserveHostAddress(pool, null));
    assert.deepEqual(host, { calls: 1, rows: 0 });
    assert.deepEqual(await reads.during(() => f.ipam.reserveHostAddress(pool, null)), { calls: 0, rows: 0 });
    // The same subnet again: refused while it has a network, without a look at its addresses.
    assert.deepEqual(await reads.during(() => sentence(f.pool('192.168.1.0/24'))), { calls: 0, rows: 0 });
    assert.deepEqual(await reads.during(() => f.release(pool, '192.168.1.2')), { calls: 3, rows: 2 });
    // The gateway, the auxiliary address and the host's own.
    assert.deepEqual(await reads.during(() => f.ipam.releasePool(pool)), { calls: 6, rows: 3 });
    assert.equal(await f.lease('192.168.1.1'), undefined);
  });

  await t.test('a pool whose network is gone makes way for a few of them', async () => {
    const pool = await f.network('192.168.2.0/24', {}, THIRD_NETWORK);
    await f.gateway(pool);
    await f.deleteNetwork(THIRD_NETWORK);
    f.pass(61);
    assert.deepEqual(await reads.during(() => f.pool('192.168.2.0/24')), { calls: 2, rows: 1 });
    assert.equal(await f.lease('192.168.2.1'), undefined);
  });

  await t.test('a release of what never was reads nothing, and a realm that never was is not remembered', async () => {
    await f.ipam.leaks();
    for (let n = 0; n < 3; n++) {
      const release = () => f.ipam.releasePool(`${LOCAL}/192.168.3.0/24?parent=none${n}`);
      assert.deepEqual(await reads.during(release), { calls: 0, rows: 0 });
    }
  });

  await t.test('an exhausted range and the look for leaks read a few', async () => {
    const endpoints = Array.from({ length: LEASES }, (_, n) => ({
      ...endpointRecord(`e${n}`),
      addresses: [interfaceAddress(`10.16.${n >> 8}.${n & 255}/16`)],
    }));
    f.store.endpoints.list = async () => endpoints;
    await f.ipam.leaks();
    assert.deepEqual(await reads.during(() => f.ipam.leaks()), { calls: 0, rows: 0 });
    let refusal = '';
    const refused = await reads.during(async () => (refusal = await sentence(f.address(full))));
    assert.match(refusal, /^no free address in 10\.16\.0\.0\/28: 16 leased;/);
    assert.deepEqual(refused, { calls: 0, rows: 0 });
  });
});

/** What the rooms do to the leases of a realm; `tie` is the network room's, past the IPAM. */
type Deed = {
  readonly kind: 'claim' | 'giveUp' | 'tie' | 'reclaim' | 'break';
  readonly use: LeaseKind;
  readonly pool: 'a' | 'b';
  readonly host: number;
};

/** All that a realm says of its leases. */
async function told(leases: Leases): Promise<unknown> {
  const realm = await leases.realm(LOCAL);
  const texts = (addresses: readonly Address[]) => addresses.map(formatAddress).sort();
  const ofPools = ['a', 'b'].map((id) => {
    const { index } = realm;
    return [texts(index.ofPool(id)), texts(index.specialsOf(id)), index.hasContainers(id), index.find('gateway', id)];
  });
  return {
    ofPools,
    all: texts(realm.index.without({ IPv4: new Occupancy(), IPv6: new Occupancy() })),
    counts: realm.count([known('10.0.0.0/28')]),
  };
}

test(
  'a pool that is released gives its addresses up in the order of their texts, as the store lists them',
  options,
  async () => {
    const store = new MemoryStore();
    const gone: string[] = [];
    const remove = store.leases.remove.bind(store.leases);
    store.leases.remove = async (lease) => {
      gone.push(lease.address);
      return remove(lease);
    };
    const f = new Fixture(store);
    const pool = await f.pool('192.168.1.0/24');
    for (const host of [9, 100, 20, 1]) await f.address(pool, `192.168.1.${host}`);
    await f.gateway(pool, '192.168.1.30');
    await f.ipam.releasePool(pool);
    const listed = ['192.168.1.1', '192.168.1.100', '192.168.1.20', '192.168.1.30', '192.168.1.9'];
    assert.deepEqual(gone, listed);
  },
);

test('what no pool or no manager has is found although some endpoint has the same address', options, async () => {
  const f = new Fixture(new MemoryStore());
  const lease = { endpointId: null, changedAt: '2026-11-20T10:00:00.000Z' };
  const gone = [`${LOCAL}@eth1/192.168.1.0/24?parent=eth1`];
  await f.store.leases.insert({
    ...lease,
    realm: `${LOCAL}@eth1`,
    address: '192.168.1.7',
    kind: 'gateway',
    poolIds: gone,
  });
  await f.store.leases.insert({
    ...lease,
    realm: GLOBAL,
    address: '192.168.1.7',
    kind: 'container',
    poolIds: [`${GLOBAL}/x`],
  });
  const pool = await f.network('192.168.1.0/24');
  await f.address(pool, '192.168.1.7');
  await f.endpoint('e1', '192.168.1.7');
  const leaks = await f.ipam.leaks();
  assert.deepEqual(leaks.map(({ key }) => key.split(' ')[1]).sort(), [
    `${GLOBAL}/192.168.1.7`,
    `${LOCAL}@eth1/192.168.1.7`,
  ]);
});

test('whatever is done, the index of a realm is the one that its leases give', options, async () => {
  const deed: fc.Arbitrary<Deed> = fc.record({
    kind: fc.constantFrom('claim', 'claim', 'claim', 'giveUp', 'giveUp', 'tie', 'reclaim', 'break'),
    use: fc.constantFrom('container', 'gateway', 'auxiliary', 'host'),
    pool: fc.constantFrom('a', 'b'),
    host: fc.integer({ min: 1, max: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(deed, { maxLength: 40, size: 'max' }), async (deeds) => {
      const store = new MemoryStore();
      const fragile = new Fragile(store);
      for (const id of ['a', 'b']) await store.pools.insert({ ...poolRecord(id), networkId: 'n' });
      let timeMs = Date.parse('2026-11-20T10:00:00.000Z');
      const now = () => new Date(timeMs);
      const leases = new Leases({ store: fragile.store, now, ages: new Ages(now, systemClock), clock: systemClock });
      for (const { kind, use, pool, host } of deeds) {
        const address: Address = { family: 'IPv4', value: 0x0a00_0000n + BigInt(host) };
        const key = `${LOCAL}/10.0.0.${host}`;
        const stored = await store.leases.get(key);
        const lease: Lease = {
          realm: LOCAL,
          address: formatAddress(address),
          kind: use,
          poolIds: [pool],
          endpointId: null,
          changedAt: now().toISOString(),
        };
        if (kind === 'claim') await leases.claim(address, lease, '--ip').catch(() => undefined);
        if (kind === 'giveUp') await leases.giveUp(address, LOCAL, pool).catch(() => undefined);
        if (kind === 'tie' && stored !== undefined) await store.leases.replace(stored, { ...stored, endpointId: 'e' });
        if (kind === 'reclaim') await leases.reclaim(LOCAL).catch(() => undefined);
        fragile.next = kind === 'break' ? (host % 2 === 0 ? 'fails' : 'is done, and fails') : 'is done';
        timeMs += 50_000;
      }
      fragile.next = 'is done';
      assert.deepEqual(
        await told(leases),
        await told(new Leases({ store, now, ages: new Ages(now, systemClock), clock: systemClock })),
      );
    }),
    { numRuns: 200 },
  );
});

/** A store whose next change of a lease fails, when the test says so: before it is done, or after. */
class Fragile {
  next: 'is done' | 'fails' | 'is done, and fails' = 'is done';
  readonly store: Store;

  constructor({ networks, endpoints, pools, conflicts, names, tenancies, leases }: Store) {
    const change = async (act: () => Promise<boolean>): Promise<boolean> => {
      if (this.next === 'is done') return act();
      if (this.next === 'is done, and fails') await act();
      throw new Error('disk full');
    };
    const table: LeaseTable = {
      get: (key) => leases.get(key),
      list: (prefix) => leases.list(prefix),
      insert: (lease) => change(() => leases.insert(lease)),
      replace: (previous, next) => change(() => leases.replace(previous, next)),
      remove: (lease) => change(() => leases.remove(lease)),
    };
    this.store = {
      networks,
      endpoints,
      pools,
      conflicts,
      names,
      tenancies,
      leases: table,
      durable: async () => undefined,
      close: async () => undefined,
    };
  }
}
