/** `tsmacvlan who` by the records alone: each kind of answer, and whom a word means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from '../../../src/address.ts';
import { findAddress, findMac, findName, readWhom } from '../../../src/commands/findings.ts';
import type { Conflict, Network, Pool, Records, Remembered } from '../../../src/model.ts';
import { leaseRecord } from '../store/lease.ts';
import { ENDPOINT, NETWORK, SPACE, endpoint, network, tenancy, when } from './fixture.ts';

const POOL_ID = `${SPACE}/192.168.1.0/24/192.168.1.64/26?exclude=192.168.1.70`;
const STRANGER = '3c:22:fb:10:aa:01';

const pool: Pool = {
  id: POOL_ID,
  addressSpace: SPACE,
  subnet: '192.168.1.0/24',
  range: '192.168.1.64/26',
  options: { exclude: '192.168.1.70' },
  networkId: NETWORK,
  createdAt: when,
  changedAt: when,
};
const lease = (last: number, more: object) => ({
  ...leaseRecord(`192.168.1.${last}`, SPACE),
  poolIds: [POOL_ID],
  ...more,
});
const kept = (name: string, last: number, isReserved: boolean): Remembered => ({
  poolId: POOL_ID,
  name,
  address: `192.168.1.${last}`,
  macAddress: '02:42:00:00:00:09',
  isReserved,
  usedAt: when,
});
const conflict = (last: number, more: Partial<Conflict> = {}): Conflict => ({
  kind: 'address',
  parent: 'eth0',
  address: `192.168.1.${last}`,
  macAddress: STRANGER,
  ourMacAddress: null,
  hostLink: null,
  count: 2,
  firstSeenAt: when,
  seenAt: when,
  endedAt: null,
  ...more,
});
const records: Records = {
  networks: [network],
  endpoints: [endpoint, { ...endpoint, id: 'd'.repeat(64), state: 'deleting' }],
  pools: [pool],
  leases: [
    lease(64, { endpointId: ENDPOINT, name: 'web' }),
    lease(1, { kind: 'gateway' }),
    lease(5, { kind: 'auxiliary' }),
    lease(65, { name: 'new' }),
    lease(66, { holder: { node: 'web2', isAlive: true } }),
  ],
  names: [kept('db', 67, true), kept('old', 68, false), kept('web', 64, false)],
  tenancies: [],
  conflicts: [conflict(69), conflict(71, { endedAt: when }), conflict(64, { ourMacAddress: endpoint.macAddress })],
};
const HOSTS = [{ linkName: 'eth0', macAddress: '3c:22:fb:00:00:01', address: '192.168.1.10' }];

test('an address is a container, a stranger, kept, excluded, free or nowhere', () => {
  const kinds = (text: string) => {
    const { address } = readWhom(text);
    assert.ok(address);
    return findAddress(records, address, HOSTS).map(({ kind, name, remark }) => [kind, name, remark]);
  };
  const cases: Record<string, (string | null)[]> = {
    '192.168.1.64': ['container', 'web', null],
    '192.168.1.1': ['gateway', null, null],
    '192.168.1.5': ['auxiliary', null, null],
    '192.168.1.10': ['host', null, 'on eth0'],
    '192.168.1.65': ['leased', 'new', null],
    '192.168.1.66': ['leased', null, 'host web2 has it'],
    '192.168.1.67': ['reserved', 'db', null],
    '192.168.1.68': ['remembered', 'old', null],
    '192.168.1.69': ['stranger', null, null],
    '192.168.1.70': ['excluded', null, '192.168.1.70'],
    '192.168.1.71': ['free', null, null],
    '192.168.1.200': ['free', null, 'outside the range 192.168.1.64/26'],
    '192.168.1.255': ['unusable', null, 'broadcast address'],
    '192.168.2.1': ['outside', null, null],
    'fd00::1': ['outside', null, null],
  };
  for (const [address, found] of Object.entries(cases)) assert.deepEqual(kinds(address), [found], address);
});

test('a container has its conflicts, and one network does not speak for another', () => {
  const other: Network = { ...network, id: 'b'.repeat(64), parent: { ...network.parent, name: 'eth1' } };
  const { address } = readWhom('192.168.1.64/24');
  assert.ok(address);
  const found = findAddress({ ...records, networks: [network, other] }, address, []);
  assert.deepEqual(
    found.map(({ kind, parent, conflicts }) => [kind, parent, conflicts.length]),
    [
      ['container', 'eth0', 1],
      ['free', 'eth1', 0],
    ],
  );
});

test('of networks that share a subnet the one speaks that has the address, or would give it', () => {
  const other: Network = { ...network, id: 'b'.repeat(64) };
  const upper = { ...pool, id: `${SPACE}/192.168.1.0/24/192.168.1.128/26`, range: '192.168.1.128/26', options: {} };
  const both = {
    ...records,
    networks: [network, other],
    pools: [pool, { ...upper, networkId: other.id }],
  };
  const kinds = (text: string) => {
    const { address } = readWhom(text);
    assert.ok(address);
    return findAddress(both, address, []).map((one) => [one.kind, one.network?.id[0]]);
  };
  assert.deepEqual(kinds('192.168.1.64'), [['container', 'a']]);
  assert.deepEqual(kinds('192.168.1.130'), [['free', 'b']]);
  assert.deepEqual(kinds('192.168.1.71'), [['free', 'a']]);
  assert.deepEqual(kinds('192.168.1.250').length, 2);
});

test('a MAC address is a container, this host, a stranger, or one that comes back', () => {
  const kinds = (text: string) => findMac(records, readWhom(text).macAddress ?? '', HOSTS).map(({ kind }) => kind);
  assert.deepEqual(kinds('02-42-C0-A8-01-40'), ['container']);
  assert.deepEqual(kinds('3c:22:fb:00:00:01'), ['host']);
  assert.deepEqual(kinds(STRANGER), ['stranger', 'left', 'stranger']);
  assert.deepEqual(kinds('02:42:00:00:00:09'), ['reserved', 'remembered', 'remembered']);
  assert.deepEqual(kinds('02:42:00:00:00:0a'), []);
});

test('a name is a container, what is kept for it, or one that Docker knows; an id by four digits', () => {
  const kinds = (typed: string, docker: Parameters<typeof findName>[2] = []) =>
    findName(records, typed, docker).map(({ kind, address }) => [kind, address]);
  assert.deepEqual(kinds('web'), [['container', '192.168.1.64']]);
  assert.deepEqual(kinds('db'), [['reserved', '192.168.1.67']]);
  assert.deepEqual(kinds('new'), [['leased', '192.168.1.65']]);
  assert.deepEqual(kinds('eeee'), [['container', '192.168.1.64']]);
  assert.deepEqual(kinds('eee'), []);
  assert.deepEqual(kinds('app', [{ name: 'app', endpointIds: [ENDPOINT], stoppedIn: [] }]), [
    ['container', '192.168.1.64'],
  ]);
  const stopped = (name: string) => kinds(name, [{ name, endpointIds: [], stoppedIn: [NETWORK, 'elsewhere'] }]);
  assert.deepEqual(stopped('app'), [['stopped', null]]);
  assert.deepEqual(stopped('db'), [['reserved', '192.168.1.67']]);
});

const address = (text: string) => parseAddress(text)!;

test('what a DHCP server gave is found by address, MAC address and name, also while its container is away', () => {
  const leasing = { ...network, options: { ...network.options, source: 'dhcp' as const }, subnets: [] };
  const running = { ...records, networks: [leasing], pools: [], leases: [], names: [], tenancies: [tenancy] };
  const kinds = (all: ReturnType<typeof findName>) => all.map((one) => [one.kind, one.address, one.tenancy?.server]);
  const container = [['container', '192.168.1.64', '192.168.1.1']];
  assert.deepEqual(kinds(findAddress(running, address('192.168.1.64'), [])), container);
  assert.deepEqual(kinds(findMac(running, endpoint.macAddress, [])), container);
  const away = { ...running, endpoints: [], tenancies: [{ ...tenancy, state: 'aside' as const, endpointId: null }] };
  const aside = [['aside', '192.168.1.64', '192.168.1.1']];
  assert.deepEqual(kinds(findAddress(away, address('192.168.1.64'), [])), aside);
  assert.deepEqual(kinds(findMac(away, endpoint.macAddress, [])), aside);
  assert.deepEqual(kinds(findName(away, 'web', [])), aside);
  assert.deepEqual(kinds(findAddress(away, address('192.168.1.65'), [])), [['outside', '192.168.1.65', undefined]]);
  const beside = { how: 'slaac', address: 'fd77:1::64/64', server: 'fe80::1', obtainedAt: when } as const;
  const six = { ...away, tenancies: away.tenancies.map((one) => ({ ...one, ipv6: beside })) };
  assert.deepEqual(
    findAddress(six, address('fd77:1::64'), []).map((one) => [one.kind, one.address, one.macAddress]),
    [['aside', 'fd77:1::64', endpoint.macAddress]],
  );
});
