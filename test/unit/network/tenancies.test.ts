/** What is recorded of leases where two things happen to one at the same moment. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { RenewalContext } from '../../../src/lan/dhcp/renewal.ts';
import type { Link } from '../../../src/kernel/link.ts';
import type { Endpoint, Tenancy, TenancyIPv6 } from '../../../src/model.ts';
import { IPv6Addresses, type IPv6AddressesParts } from '../../../src/network/ipv6.ts';
import { type StoreListeners, toldStore } from '../../../src/store/told.ts';
import { leaseNews } from '../../../src/happenings.ts';
import type { IPv6Client } from '../../../src/lan/dhcp/ipv6client.ts';
import { parseInterfaceAddress } from '../../../src/address.ts';
import { dhcp6Lease } from '../commands/fixture.ts';
import { Endpoints } from '../../../src/network/endpoints.ts';
import { readNetworkOptions } from '../../../src/network/options.ts';
import { type LeaseSource, Tenancies, type TenanciesParts } from '../../../src/network/tenancies.ts';
import { bare, leaseIn } from '../../../src/network/tenancyrecord.ts';
import { openLocalStore } from '../../../src/store/local.ts';
import { tenancyKey } from '../../../src/store/store.ts';
import { callLimit, until } from '../../lab/patience.ts';
import { endpointRecord, networkRecord, tenancyRecord } from '../store/records.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const endpoint = { ...endpointRecord('e1'), parent: 'eth0' };
const network = { ...networkRecord('n1'), options: readNetworkOptions({ parent: 'eth0', source: 'dhcp' }) };
const tenancy = tenancyRecord(endpoint.id);
const key = tenancyKey(tenancy);

async function openStore(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-tenancies-'));
  const store = openLocalStore(directory);
  t.after(async () => {
    await store.close();
    rmSync(directory, { recursive: true });
  });
  assert.equal(await store.tenancies.insert(tenancy), true);
  return store;
}

function tenanciesOf(parts: Partial<Record<keyof TenanciesParts, object>>): Tenancies {
  return new Tenancies({
    log: { error: (message: string) => assert.fail(message), info: () => undefined },
    now: () => new Date('2026-11-30T10:30:00.000Z'),
    ipv6: {
      acquire: async () => null,
      keep: () => undefined,
      endKeeping: () => undefined,
      release: async () => undefined,
    },
    ...parts,
  } as unknown as TenanciesParts);
}

test('a container that stops while its lease is renewed leaves a tenancy that is put aside, with the new lease', async (t) => {
  const store = await openStore(t);
  let renewed: RenewalContext['onKept'] | undefined;
  const dhcp: Partial<LeaseSource> = {
    keep: (...[, , , , told]) => (renewed = told.onKept),
    endKeeping: () => undefined,
  };
  const tenancies = tenanciesOf({ store, dhcp });
  await tenancies.keep(endpoint, network);
  const lease = { ...leaseIn(tenancy)!.lease, prefixLength: 8, leaseSeconds: 7200 };
  renewed?.({ lease, obtainedMs: Date.parse('2026-11-30T10:30:00.000Z') });
  tenancies.leave(endpoint);
  await turn();
  const { state, endpointId, leaseSeconds, address } = (await store.tenancies.get(key))!;
  assert.deepEqual({ state, endpointId, leaseSeconds }, { state: 'aside', endpointId: null, leaseSeconds: 7200 });
  assert.equal(address, tenancy.address, 'the container has the prefix length that it started with');
});

test('a container whose end is finished late gives back nothing that the next one with its MAC address has', async (t) => {
  const store = await openStore(t);
  const stopping = { ...network, options: readNetworkOptions({ parent: 'eth0', source: 'dhcp', release: 'stop' }) };
  await store.networks.insert(stopping);
  const released: string[] = [];
  const dhcp: Partial<LeaseSource> = {
    endKeeping: () => undefined,
    release: async (_, { macAddress }) => void released.push(macAddress),
  };
  const next: Endpoint = { ...endpoint, state: 'joined' };
  const last: Endpoint = { ...endpoint, id: 'e0', state: 'deleting' };
  const known = new Map([next, last].map((one) => [one.id, one]));
  const tenancies = tenanciesOf({ store, dhcp, endpoints: known });
  tenancies.leave(last);
  await tenancies.left(last);
  assert.deepEqual(released, []);
  assert.equal((await store.tenancies.get(key))?.leaseSeconds, tenancy.leaseSeconds);

  known.set(next.id, { ...next, state: 'deleting' });
  tenancies.leave(next);
  await tenancies.left(next);
  assert.deepEqual(released, [tenancy.macAddress]);
});

test('a container whose start failed has the same MAC address when it is tried again: a server may know it by now', async (t) => {
  const store = await openStore(t);
  await store.networks.insert(network);
  const answers = ['silent', 'silent', 'lease', 'lease'] as const;
  const asked: string[] = [];
  const acquire: LeaseSource['acquire'] = async ({ macAddress }) => {
    const kind = answers[asked.push(macAddress) - 1];
    return kind === 'lease' ? { kind, lease: leaseIn(tenancy)!.lease } : { kind: 'silent' };
  };
  const present = async (some: readonly Endpoint[]) => new Set(some.map(({ id }) => id));
  const witness = { look: async () => 'present', present };
  const endpoints = Object.assign(new Map([[endpoint.id, endpoint]]), {
    withMac: (_: string, macAddress: string) => (macAddress === endpoint.macAddress ? [endpoint] : []),
    isRecorded: () => true,
  });
  const tenancies = tenanciesOf({ store, dhcp: { acquire, timeout: 5 }, endpoints, witness });
  const request = {
    networkId: network.id,
    macAddress: null,
    hostname: null,
    wishedAddress: null,
    addresses: [],
    limit: callLimit(),
  };
  const parent = { name: 'eth0' } as Link;
  const start = (endpointId: string) =>
    tenancies.claimed({ ...request, endpointId }, network, parent, (claim) => tenancies.lease(claim, network));
  await assert.rejects(Promise.all([start('e2'), start('e3')]), /no DHCP server answered/);
  await turn();
  await start('e4');
  endpoints.set('e4', { ...endpoint, id: 'e4', macAddress: asked[2]! });
  await start('e5');
  assert.notEqual(asked[0], asked[1]);
  assert.deepEqual(new Set(asked.slice(2)), new Set(asked.slice(0, 2)));
});

test('what a DHCPv6 server has given is given back where no DHCP server gives an address', async (t) => {
  const store = await openStore(t);
  const both = { ...network, options: readNetworkOptions({ parent: 'eth0', source: 'dhcp', ipv6: 'auto' }) };
  await store.networks.insert(both);
  const given: TenancyIPv6 = {
    how: 'dhcpv6',
    address: 'fd77:1::100/128',
    server: '000300013c22fb000001',
    leaseSeconds: 600,
    t1Seconds: 150,
    t2Seconds: 240,
    obtainedAt: '2026-11-30T10:30:00.000Z',
    state: 'bound',
  };
  const released: (string | undefined)[] = [];
  const ipv6 = {
    acquire: async () => given,
    release: async (_: unknown, { macAddress, ipv6: back }: Tenancy) => {
      released.push(`${macAddress} ${back?.address}`);
    },
  };
  const dhcp: Partial<LeaseSource> = { acquire: async () => ({ kind: 'silent' }), timeout: 5 };
  const tenancies = tenanciesOf({ store, dhcp, ipv6 });
  const claim = {
    parent: 'eth0',
    owner: 'mac',
    hostname: null,
    endpointId: 'e2',
    wish: null,
    limit: callLimit(),
  } as const;
  await assert.rejects(
    tenancies.leases({ ...claim, macAddress: '02:00:5e:10:00:bb' }, both),
    /no DHCP server answered/,
  );
  assert.deepEqual(released, ['02:00:5e:10:00:bb fd77:1::100/128']);
  // What its record tells of is kept for its next start.
  await store.tenancies.replace(tenancy, { ...tenancy, ipv6: given });
  const { macAddress } = tenancy;
  await assert.rejects(tenancies.leases({ ...claim, macAddress }, both), /no DHCP server answered/);
  assert.equal(released.length, 1);
});

test('an IPv6 lease that is lost and got back is recorded, and told, with the reason', async (t) => {
  const store = await openStore(t);
  const both = { ...network, options: readNetworkOptions({ parent: 'eth0', source: 'dhcp', ipv6: 'auto' }) };
  await store.tenancies.replace(tenancy, { ...tenancy, ipv6: dhcp6Lease });
  const told: object[] = [];
  const listeners = { tenancies: (...change: Parameters<typeof leaseNews>) => told.push(...leaseNews(...change)) };
  let keeping: Parameters<IPv6Client['keep']>[4] | undefined;
  const source: Partial<IPv6Client> = { keep: (...[, , , , given]) => (keeping = given) };
  const said: string[] = [];
  const note = (message: string) => said.push(message);
  const ipv6 = new IPv6Addresses({
    source,
    log: { error: note, info: note },
    now: () => new Date(),
  } as unknown as IPv6AddressesParts);
  const tenancies = tenanciesOf({
    store: toldStore(store, listeners as unknown as StoreListeners),
    dhcp: { keep: () => undefined },
    ipv6,
  });
  await tenancies.keep(endpoint, both);
  keeping?.onLost('refused');
  const recorded = async () => (await store.tenancies.get(key))?.ipv6;
  await until(async () => told.length === 1);
  assert.deepEqual(await recorded(), { ...dhcp6Lease, state: 'lost', loss: 'refused' });
  const { address, ...rest } = dhcp6Lease;
  const lease = { ...rest, address: bare(parseInterfaceAddress(address)!) };
  keeping?.onKept({ lease, obtainedMs: Date.parse(dhcp6Lease.obtainedAt) });
  await until(async () => told.length === 2);
  assert.deepEqual(await recorded(), dhcp6Lease);
  const news = {
    what: 'lease',
    parent: 'eth0',
    macAddress: tenancy.macAddress,
    address: 'fd77:1::50',
    server: dhcp6Lease.server,
    endpointId: endpoint.id,
    networkId: tenancy.networkId,
  };
  assert.deepEqual(told, [
    { ...news, state: 'lost', reason: 'refused' },
    { ...news, state: 'healed', reason: null },
  ]);
  assert.match(said.join(), /^a DHCPv6 server has taken .*,a DHCPv6 server gives a container its address again$/);
});

test('what was made by chance and nobody has had for a month is forgotten, and nothing else', async (t) => {
  const store = await openStore(t);
  await store.tenancies.remove(tenancy);
  const [month, old] = ['2026-10-31T10:30:00.001Z', '2026-10-31T10:29:59.999Z'];
  const rest = { state: 'aside', endpointId: null, changedAt: old } as const;
  const kept: Partial<Tenancy>[] = [
    { ...rest, changedAt: month },
    { ...rest, owner: 'mac' },
    { ...rest, owner: 'host:web' },
    { state: 'bound', changedAt: old },
    { ...rest, changedAt: '2027-01-01T00:00:00.000Z' },
  ];
  for (const [index, change] of [...kept, rest].entries())
    await store.tenancies.insert({ ...tenancy, ...change, macAddress: `02:42:00:00:00:0${index}` });
  await tenanciesOf({ store }).forgetUnused();
  const left = (await store.tenancies.list()).map(({ macAddress }) => macAddress);
  assert.deepEqual(
    left,
    kept.map((_, index) => `02:42:00:00:00:0${index}`),
  );
});

test('a start without a name looks at the containers that run all at once, and at one only where it is not seen', async (t) => {
  const store = await openStore(t);
  await store.tenancies.remove(tenancy);
  const endpoints = new Endpoints(store.endpoints);
  for (let count = 10; count < 110; count++) {
    const [id, macAddress] = [`e${count}`, `02:42:00:00:01:${(count - 10).toString(16).padStart(2, '0')}`];
    await endpoints.arrive({ ...endpoint, id, macAddress, addresses: [], state: 'joined' }, async () => undefined);
    await store.tenancies.insert({ ...tenancy, endpointId: id, macAddress });
  }
  const looks: string[] = [];
  const witness: TenanciesParts['witness'] = {
    present: async (some) => (looks.push('all'), new Set(some.map(({ id }) => id).filter((id) => id !== 'e50'))),
    look: async ({ id }) => (looks.push(id), 'gone'),
    isGone: async () => true,
  };
  const request = { endpointId: 'new', macAddress: null, hostname: null, wishedAddress: null, addresses: [] };
  const tenancies = tenanciesOf({ store, endpoints, witness });
  await tenancies.claimed(
    { ...request, limit: callLimit() },
    { ...network, parent: { ...network.parent, name: 'eth0' } },
    {
      name: 'eth0',
    } as Link,
    async (claim) => assert.equal(claim.macAddress, '02:42:00:00:01:28'),
  );
  assert.deepEqual(looks, ['all', 'e50']);
});

test('what the store has no room for is given back to the servers', async (t) => {
  const store = await openStore(t);
  const both = { ...network, options: readNetworkOptions({ parent: 'eth0', source: 'dhcp', ipv6: 'auto' }) };
  const { tenancies: table } = store;
  let room = 0;
  const full = {
    list: () => table.list(),
    get: (one: string) => table.get(one),
    insert: async (one: Tenancy) => (room-- > 0 ? table.insert(one) : Promise.reject(new Error('no space left'))),
    replace: () => Promise.reject(new Error('no space left')),
  };
  const released: string[] = [];
  const given = { how: 'slaac', address: 'fd77:1::100/64', server: 'fe80::1', obtainedAt: '' } as const;
  const tenancies = tenanciesOf({
    store: { networks: store.networks, tenancies: full },
    dhcp: {
      timeout: 5,
      acquire: async () => ({ kind: 'lease', lease: leaseIn(tenancy)!.lease }),
      release: async () => void released.push('IPv4'),
    },
    ipv6: { acquire: async () => given, release: async () => void released.push('IPv6') },
  });
  const claim = { parent: 'eth0', macAddress: '02:00:5e:10:00:bb', owner: 'mac', hostname: null, wish: null } as const;
  const lease = () => tenancies.leases({ ...claim, endpointId: 'e2', limit: callLimit() }, both);
  await assert.rejects(lease(), /no space left/);
  assert.deepEqual(released.toSorted(), ['IPv4', 'IPv6']);
  released.length = 0;
  room = 1;
  await assert.rejects(lease(), /no space left/);
  assert.deepEqual(released, ['IPv6'], 'the other one has its record');
});
