/** `tsmacvlan reserve` and `unreserve`: kept for the name alone, and what is refused changes nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { formatAddress } from '../../../src/address.ts';
import type { Probe } from '../../../src/ipam/driver.ts';
import { NOT_HELD } from '../../../src/lan/verdict.ts';
import { bare, Fixture, NETWORK, OTHER_NETWORK, sentence } from './fixture.ts';
import { MemoryStore } from './memory.ts';

const options = { timeout: 60_000 };
const SUBNET = '192.168.77.0/24';
const RANGE = { subPool: '192.168.77.64/27' };

test('an address is reserved, held for its name alone, and given free', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, { subPool: '192.168.77.64/30' });
  await f.reserve('web', '192.168.77.64');
  assert.deepEqual(await f.store.leases.list(), [], 'nobody has it yet');
  f.restart();
  assert.deepEqual(
    (await f.addresses(pool, 3)).sort().map(bare),
    ['65', '66', '67'].map((host) => `192.168.77.${host}`),
  );
  assert.match(await sentence(f.address(pool)), /^no free address/);
  assert.match(
    await sentence(f.addressFor('db', pool, '192.168.77.64')),
    /is reserved for container "web"; choose another --ip/,
  );
  assert.equal(await f.addressFor('web', pool), '192.168.77.64/24');
  await f.release(pool, '192.168.77.64');
  assert.equal(await f.address(pool, '192.168.77.64'), '192.168.77.64/24', 'an engine that says no name may mean web');
  await f.release(pool, '192.168.77.64');
  assert.deepEqual(
    (await f.ipam.unreserveName({ name: 'web', networkId: null })).forgotten.map(({ address }) => address),
    ['192.168.77.64'],
  );
  assert.equal(await f.address(pool), '192.168.77.64/24');
  assert.match(await sentence(f.ipam.unreserveName({ name: 'web', networkId: null })), /^nothing is reserved/);
});

test(
  'a container whose engine says no name may be the one that is meant, and is to be stopped first',
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const pool = await f.network(SUBNET, RANGE);
    await f.address(pool, '192.168.77.70');
    await f.endpoint('e', '192.168.77.70', 'joined', NETWORK);
    assert.match(
      await sentence(f.reserve('dns', '192.168.77.70')),
      /^address 192\.168\.77\.70 is used by endpoint e of network \w+, and the engine did not name its container \(tsmacvlan who 192\.168\.77\.70 does\); if that is "dns" stop it first, else choose another address$/,
    );
    assert.deepEqual(await f.store.names.list(), []);
  },
);

test('a reservation that cannot be is refused with the reason, and nothing changes', options, async () => {
  const holder = { held: true, macAddress: '3c:22:fb:10:aa:01', linkName: 'eth0', simultaneous: false } as const;
  const probe: Probe = async (_pool, { value }) =>
    value % 256n === 80n || value % 256n === 81n ? { ...holder, isOnHost: value % 256n === 81n } : NOT_HELD;
  const f = new Fixture(new MemoryStore(), probe);
  const pool = await f.network(SUBNET, { ...RANGE, options: { exclude: '192.168.77.70' } });
  await f.gateway(pool, '192.168.77.90');
  await f.addressFor('db', pool);
  await f.endpoint('e', '192.168.77.64', 'joined', NETWORK);
  await f.reserve('mail', '192.168.77.77');
  const before = JSON.stringify([await f.store.names.list(), await f.store.leases.list()]);
  const refusals: [string, string, RegExp][] = [
    ['web', '10.9.9.9', /^address 10\.9\.9\.9 is not given out from 192\.168\.77\.0\/24;/],
    ['web', '192.168.77.10', /is not given out from 192\.168\.77\.64\/27;/],
    ['web', '192.168.77.70', /^address 192\.168\.77\.70 is excluded by --ipam-opt exclude="192\.168\.77\.70"; /],
    ['web', '192.168.77.0', /^address 192\.168\.77\.0 is the network address of 192\.168\.77\.0\/24; /],
    ['web', '192.168.77.255', /^address 192\.168\.77\.255 is the broadcast address of 192\.168\.77\.0\/24; /],
    [
      'web',
      '192.168.77.81',
      /^address 192\.168\.77\.81 is already used on this host by 3c:22:fb:10:aa:01 on eth0, the host's own link/,
    ],
    ['web', 'seven', /^"seven" is not an IP address/],
    ['web', '192.168.77.64', /is used by endpoint e /],
    ['web', '192.168.77.90', /is the gateway of network/],
    ['web', '192.168.77.80', /is used on the LAN by 3c:22:fb:10:aa:01/],
    ['web', '192.168.77.77', /is reserved for container "mail"/],
    [
      'db',
      '192.168.77.71',
      /^container "db" has 192\.168\.77\.64 on this network at this moment; stop it and reserve 192\.168\.77\.71 then/,
    ],
  ];
  for (const [name, address, expected] of refusals) assert.match(await sentence(f.reserve(name, address)), expected);
  assert.match(
    await sentence(f.addressFor('web', pool, '192.168.77.81')),
    /is already used on this host .*; choose another --ip$/,
  );
  const nowhere = /^no network ID starts with "nope"; give --network with an ID/;
  assert.match(await sentence(f.reserve('web', '192.168.77.71', 'nope')), nowhere);
  assert.match(await sentence(f.ipam.unreserveName({ name: 'mail', networkId: 'nope' })), nowhere);
  assert.equal(JSON.stringify([await f.store.names.list(), await f.store.leases.list()]), before);
  await f.reserve('db', '192.168.77.64');
  assert.equal((await f.store.leases.list()).length, 2, 'what it has it may keep');
});

test('a name on two networks is told apart by the network', options, async () => {
  const f = new Fixture(new MemoryStore());
  await f.network('10.1.0.0/24');
  await f.network('10.2.0.0/24', {}, OTHER_NETWORK);
  await f.reserve('web', '10.1.0.9');
  await f.reserve('web', '10.2.0.9', '77aa');
  assert.match(
    await sentence(f.ipam.unreserveName({ name: 'web', networkId: null })),
    /is on several networks \(.*--network NETWORK/,
  );
  await f.ipam.unreserveName({ name: 'web', networkId: '77aa' });
  assert.deepEqual(
    (await f.store.names.list()).map(({ address }) => address),
    ['10.1.0.9'],
  );
});

test('a range with what is reserved for others says so when it is full', options, async () => {
  const f = new Fixture(new MemoryStore());
  const pool = await f.network(SUBNET, { subPool: '192.168.77.64/30' });
  await f.reserve('web', '192.168.77.64');
  await f.addresses(pool, 3);
  assert.match(
    await sentence(f.address(pool)),
    /: 3 leased, 1 reserved for containers; widen --ip-range, free reservations with tsmacvlan unreserve or remove/,
  );
});

test('nobody gets the address between the question about it and the reservation', options, async () => {
  const store = new MemoryStore();
  const f = new Fixture(store);
  const pool = await f.network(SUBNET, { subPool: '192.168.77.64/30' });
  await f.addresses(pool, 3);
  const remove = store.leases.remove.bind(store.leases);
  let another: Promise<string> | undefined;
  store.leases.remove = async (lease) => {
    const isDone = await remove(lease);
    another ??= sentence(f.address(pool));
    return isDone;
  };
  await f.reserve('web', '192.168.77.67');
  assert.match(String(await another), /^no free address .* 1 reserved for containers/);
});

test('a container that runs with an address of --ip is told from one that is not there', options, async () => {
  const f = new Fixture(new MemoryStore());
  const first = await f.network(SUBNET, RANGE);
  const second = await f.network('10.2.0.0/24');
  for (const [pool, address] of [
    [first, '192.168.77.9'],
    [second, '10.2.0.7'],
  ] as const) {
    await f.addressFor('web', pool, address);
    await f.endpoint(address, address, 'joined', NETWORK);
    assert.match(
      await sentence(f.reserve('web', '192.168.77.70')),
      new RegExp(`^container "web" has ${address.replaceAll('.', '\\.')} on this network at this moment`),
    );
    const endpoint = await f.store.endpoints.get(address);
    assert.ok(endpoint && (await f.store.endpoints.remove(endpoint)));
    await f.release(pool, address);
  }
  await f.reserve('web', '192.168.77.70');
});

test('a name has one reserved address on a network, which goes before what it had', options, async () => {
  const f = new Fixture(new MemoryStore());
  const first = await f.network(SUBNET, RANGE);
  await f.network('10.2.0.0/24');
  await f.reserve('web', '10.2.0.7');
  assert.equal(await f.addressFor('web', first, '192.168.77.70'), '192.168.77.70/24');
  await f.release(first, '192.168.77.70');
  assert.equal(await f.addressFor('web', first), '10.2.0.7/24');
  await f.release(first, '10.2.0.7');
  await f.reserve('web', '192.168.77.71');
  assert.deepEqual(
    (await f.store.names.list()).map(({ address }) => address),
    ['192.168.77.71'],
  );
});

test(
  'who has a reserved address on the LAN is asked at each start, and the name has it when he is gone',
  options,
  async () => {
    const taken = new Set<string>();
    const probe: Probe = async (_pool, address) =>
      taken.has(formatAddress(address))
        ? { held: true, macAddress: '3c:22:fb:10:aa:01', linkName: 'eth0', simultaneous: false, isOnHost: false }
        : NOT_HELD;
    const f = new Fixture(new MemoryStore(), probe);
    const pool = await f.network(SUBNET, RANGE);
    await f.reserve('web', '192.168.77.70');
    taken.add('192.168.77.70');
    assert.equal(await f.addressFor('web', pool), '192.168.77.64/24');
    assert.match(f.said.join('\n'), /does not get .*"kept":"reserved"/);
    await f.release(pool, '192.168.77.64');
    taken.clear();
    assert.equal(await f.addressFor('web', pool), '192.168.77.70/24');
  },
);

/** Asks the LAN until it is told that nobody answers. */
class Gate {
  readonly asked: string[] = [];
  #open: (() => void)[] = [];
  readonly probe: Probe = async (_pool, address) => {
    this.asked.push(formatAddress(address));
    await new Promise<void>((resolve) => this.#open.push(resolve));
    return NOT_HELD;
  };

  async open(): Promise<void> {
    while (this.#open.length === 0) await setImmediate();
    for (const open of this.#open.splice(0)) open();
  }
}

const outcomes = async (actions: readonly Promise<unknown>[]) =>
  (await Promise.allSettled(actions)).map((one) =>
    one.status === 'fulfilled' ? 'done' : (one.reason as Error).message.replace(/^.* is reserved for/, 'reserved for'),
  );

test('of several names that want one address at once one gets it, and the others hear which', options, async () => {
  const gate = new Gate();
  const f = new Fixture(new MemoryStore(), gate.probe);
  const pool = await f.network(SUBNET, RANGE);
  const reserved = outcomes(['a', 'b', 'c', 'd'].map((name) => f.reserve(name, '192.168.77.70')));
  await gate.open();
  const [first, ...others] = await reserved;
  assert.equal(first, 'done');
  for (const other of others) assert.match(String(other), /^reserved for container "a"; choose another address/);
  assert.equal(gate.asked.length, 1, 'who is refused asks nobody');
  assert.equal((await f.ipam.unreserveName({ name: 'a', networkId: null })).forgotten.length, 1);
  const given = f.addressFor('b', pool, '192.168.77.70');
  await gate.open();
  assert.equal(await given, '192.168.77.70/24');
});

test('a start that names the address while it is being reserved for another name is refused', options, async () => {
  const gate = new Gate();
  const f = new Fixture(new MemoryStore(), gate.probe);
  const pool = await f.network(SUBNET, RANGE);
  const reserved = f.reserve('web', '192.168.77.70');
  while (gate.asked.length === 0) await setImmediate();
  const starts = outcomes(['thief', 'web'].map((name) => f.addressFor(name, pool, '192.168.77.70')));
  await gate.open();
  await reserved;
  await gate.open();
  const [thief, web] = await starts;
  assert.match(String(thief), /^reserved for container "web"; choose another --ip/);
  assert.equal(web, 'done');
});

test('a start that was first keeps the address, and the reservation for another name is refused', options, async () => {
  const gate = new Gate();
  const f = new Fixture(new MemoryStore(), gate.probe);
  const pool = await f.network(SUBNET, RANGE);
  const started = f.addressFor('db', pool, '192.168.77.70');
  while (gate.asked.length === 0) await setImmediate();
  const refused = sentence(f.reserve('web', '192.168.77.70'));
  await gate.open();
  assert.equal(await started, '192.168.77.70/24');
  assert.match(await refused, /is leased to a container/);
  assert.deepEqual(
    (await f.store.names.list()).map(({ name, isReserved }) => [name, isReserved]),
    [['db', false]],
  );
});

test('a daemon that is killed while it reserves leaves nothing that is in the way', options, async () => {
  const gate = new Gate();
  const f = new Fixture(new MemoryStore(), (...question) => probe(...question));
  const pool = await f.network(SUBNET, RANGE);
  let probe: Probe = gate.probe;
  for (const again of [
    () => f.reserve('web', '192.168.77.70'),
    () => f.reserve('other', '192.168.77.70'),
    () => f.addressFor('db', pool, '192.168.77.70'),
    () => f.addressFor('web', pool, '192.168.77.70'),
  ]) {
    probe = gate.probe;
    void f.reserve('web', '192.168.77.70');
    while (gate.asked.length === 0) await setImmediate();
    gate.asked.length = 0;
    f.restart();
    assert.ok(await f.lease('192.168.77.70'));
    const asked: string[] = [];
    probe = async (_pool, address) => (asked.push(formatAddress(address)), NOT_HELD);
    await again();
    assert.deepEqual(asked, ['192.168.77.70'], 'the LAN is asked again');
    for (const { name } of await f.store.names.list()) await f.ipam.unreserveName({ name, networkId: null });
    await f.release(pool, '192.168.77.70');
    assert.deepEqual(await f.store.leases.list(), []);
  }
});

test('of two networks with the address that one is meant which knows the name', options, async () => {
  const f = new Fixture(new MemoryStore());
  const wide = await f.network(SUBNET, { subPool: '192.168.77.64/26' });
  await f.network(SUBNET, RANGE, OTHER_NETWORK);
  assert.match(await sentence(f.reserve('web', '192.168.77.70')), /^"192\.168\.77\.70" is on several networks/);
  await f.release(wide, bare(await f.addressFor('web', wide)));
  await f.reserve('web', '192.168.77.70');
  assert.deepEqual(
    (await f.store.names.list()).map(({ poolId, address }) => [poolId, address]),
    [[wide, '192.168.77.70']],
  );
});
