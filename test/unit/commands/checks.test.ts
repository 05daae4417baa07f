/** Checks of the doctor that a lab cannot bring about in seconds; the others meet real trouble in test/docker/who.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CONTAINER_CHECKS,
  daemonIsThere,
  isThisVersion,
  misspeltSettings,
  NETWORK_CHECKS,
  RANGE_CHECKS,
  stateHasRoom,
  stateIsUnreadable,
} from '../../../src/commands/checks.ts';
import { parseAddress } from '../../../src/address.ts';
import * as errors from '../../../src/errors.ts';
import type { Diagnosis, Examined, LanAnswers } from '../../../src/commands/diagnosis.ts';
import type { Link, LinkAddress } from '../../../src/kernel/link.ts';
import type { DhcpOffer } from '../../../src/lan/dhcpoffers.ts';
import type { Conflict } from '../../../src/model.ts';
import { Naming, NO_NAMES } from '../../../src/naming.ts';
import { VERSION } from '../../../src/version.ts';
import { ENDPOINT, NETWORK, dhcp6Lease, endpoint, network, tenancy, when } from './fixture.ts';

const conflict: Conflict = {
  kind: 'address',
  parent: 'eth0',
  address: '192.168.1.64',
  macAddress: '3c:22:fb:10:aa:01',
  ourMacAddress: endpoint.macAddress,
  hostLink: null,
  count: 2,
  firstSeenAt: when,
  seenAt: when,
  endedAt: null,
};
const link = {
  index: 2,
  name: 'eth0',
  mtu: 1500,
  isUp: true,
  hasCarrier: true,
  macAddress: '3c:22:fb:00:00:01',
} as Link;
const ROUTER = '3c:22:fb:00:00:fe';
const answered = { toSubInterface: ROUTER, toParent: ROUTER, hostLink: null };
const quiet: LanAnswers = { who: async () => answered, proxy: async () => null, offers: async () => [] };
const who = (heard: Partial<typeof answered> | Record<string, string | null> | string): LanAnswers => ({
  ...quiet,
  who: async () => (typeof heard === 'string' ? heard : { ...answered, ...heard }),
});
const examinedLink = {
  link,
  isWireless: false,
  isVirtualFunction: false,
  addresses: [],
  neighbours: [],
  filteredMacs: [],
};

const LAN = { id: NETWORK, name: 'lan', driver: 'tsmacvlan', ipamDriver: 'default', ipamOptions: ['custom'] };

function sound(more: Partial<Examined> = {}): Examined {
  const inContainer = {
    link: { ...link, macAddress: endpoint.macAddress },
    isElsewhere: true,
    addresses: ['192.168.1.64'],
  };
  return {
    records: {
      networks: [network],
      endpoints: [endpoint],
      pools: [],
      leases: [],
      names: [],
      conflicts: [],
      tenancies: [],
    },
    inventory: { containers: [], networks: [LAN] },
    naming: new Naming({ ...NO_NAMES, containers: new Map([[ENDPOINT, 'web']]) }),
    filteredParents: [],
    version: VERSION,
    schema: 5,
    links: new Map([['eth0', examinedLink]]),
    routes: [],
    remarksOf: () => [],
    containerLinks: new Map([[ENDPOINT, inContainer]]),
    lan: quiet,
    ...more,
  };
}

async function troubles(seen: Examined): Promise<string[]> {
  const { endpoints, networks } = seen.records;
  const all: (Diagnosis | null)[] = [];
  for (const check of [...NETWORK_CHECKS, ...RANGE_CHECKS])
    for (const one of networks) all.push(await check(one, seen));
  for (const check of CONTAINER_CHECKS) for (const one of endpoints) all.push(await check(one, seen));
  const found = all.filter((one): one is Diagnosis => one !== null && one.level !== 'ok');
  assert.ok(found.every(({ todo }) => todo !== ''));
  return found.map(({ level, says }) => `${level}: ${says}`);
}

test('each trouble is told by one check, and nothing of what is sound', async () => {
  assert.deepEqual(await troubles(sound()), []);
  assert.deepEqual(await troubles(sound({ inventory: null, containerLinks: null, lan: who('not now') })), []);
  const conflicts = [conflict];
  const wireless = new Map([['eth0', { ...examinedLink, isWireless: true }]]);
  const back = new Map([[ENDPOINT, { link, isElsewhere: false, addresses: [] }]]);
  const foreign = { family: 'IPv4', address: '10.9.0.9', prefixLength: 24 } as LinkAddress;
  const without = { ...network, subnets: network.subnets.map((one) => ({ ...one, gateway: null })) };
  const leased = sound().records;
  const sixth = { ...network, options: { ...network.options, source: 'dhcp', ipv6: 'auto' } as const };
  const silence = { state: 'lost', loss: 'silent' } as const;
  const offer = { server: { address: parseAddress('192.168.1.1')!, macAddress: ROUTER } } as DhcpOffer;
  const served = { ...quiet, offers: async () => [offer] };
  const cases: [Partial<Examined>, string][] = [
    [
      { lan: who({ toSubInterface: null }) },
      'failure: the network port of eth0 delivers to the MAC address of eth0 only',
    ],
    [
      { filteredParents: ['eth0'], lan: who('not now') },
      'failure: the network port of eth0 delivers to the MAC address of eth0 only',
    ],
    [
      {
        records: { ...sound().records, networks: [without] },
        links: new Map([['eth0', { ...examinedLink, addresses: [foreign] }]]),
      },
      'warning: subnet 192.168.1.0/24 is not that of eth0, on which this host has 10.9.0.9/24',
    ],
    [{ links: wireless }, 'failure: parent eth0 is a Wi-Fi interface'],
    [{ links: new Map() }, 'failure: parent eth0 does not exist'],
    [{ lan: who({ toSubInterface: null, toParent: null }) }, 'failure: nobody on eth0 answers for gateway 192.168.1.1'],
    [
      { lan: who({ toSubInterface: null, toParent: null, hostLink: 'eth0' }) },
      'failure: gateway 192.168.1.1 is this host (eth0), which containers on its own interface do not reach',
    ],
    [
      { lan: { ...quiet, proxy: async () => ROUTER } },
      `warning: ${ROUTER} on eth0 answers for every address (proxy ARP), so that its answers say of none whether it is free`,
    ],
    [
      { records: { ...leased, tenancies: [{ ...tenancy, state: 'lost', loss: 'silent' }] }, lan: served },
      'failure: its lease is over, and no DHCP server answers',
    ],
    [
      { records: { ...leased, tenancies: [{ ...tenancy, state: 'lost', loss: 'refused' }] }, lan: served },
      'failure: the DHCP server gives 192.168.1.64/24 to it no more',
    ],
    [
      { records: { ...leased, tenancies: [{ ...tenancy, ipv6: { ...dhcp6Lease, ...silence } }] }, lan: served },
      'failure: its IPv6 lease is over, and no DHCPv6 server answers',
    ],
    [
      {
        records: { ...leased, tenancies: [{ ...tenancy, ipv6: { ...dhcp6Lease, ...silence, loss: 'refused' } }] },
        lan: served,
      },
      'failure: the DHCPv6 server gives fd77:1::50/128 to it no more',
    ],
    [
      { records: { ...leased, networks: [sixth], tenancies: [tenancy] }, lan: served },
      'warning: it has no IPv6 address: at its start no router or DHCPv6 server on eth0 had one for it',
    ],
    [{ records: { ...sound().records, conflicts } }, 'failure: 192.168.1.64 also used by 3c:22:fb:10:aa:01'],
    [{ inventory: { containers: [], networks: [] } }, 'warning: Docker has no such network'],
    [
      { inventory: { containers: [], networks: [{ ...LAN, ipamOptions: ['exclude', 'order'] }] } },
      "warning: Docker's own IPAM driver does nothing with --ipam-opt exclude= order=",
    ],
    [
      { remarksOf: () => [{ kind: 'route', short: 'this host reaches it elsewhere', todo: 'create it again' }] },
      'warning: this host reaches it elsewhere',
    ],
    [{ naming: new Naming() }, 'warning: no container that Docker has is at this endpoint'],
    [
      { records: { ...sound().records, endpoints: [{ ...endpoint, ignoredPorts: ['8080->80/tcp'] }] } },
      'warning: -p does nothing (8080->80/tcp)',
    ],
    [{ containerLinks: new Map() }, 'failure: its interface is nowhere'],
    [{ containerLinks: back }, 'failure: its interface is back on the host: its container has ended'],
  ];
  for (const [more, sentence] of cases) assert.deepEqual(await troubles(sound(more)), [sentence]);
});

test('a network that lives by a DHCP server needs one that answers', async () => {
  const leasing = { ...network, options: { ...network.options, source: 'dhcp' as const }, subnets: [] };
  const said = async (lan: LanAnswers) =>
    (await Promise.all(NETWORK_CHECKS.map(async (check) => check(leasing, sound({ lan })))))
      .map((one) => one?.says)
      .filter((says) => says?.includes('DHCP') === true);
  const offer = { server: { address: parseAddress('192.168.1.1')!, macAddress: ROUTER } } as DhcpOffer;
  assert.deepEqual(await said(quiet), ['no DHCP server answers on eth0']);
  assert.deepEqual(await said({ ...quiet, offers: async () => [offer] }), [
    `DHCP server 192.168.1.1 (${ROUTER}) answers on eth0`,
  ]);
});

test('a state directory that is full or read-only', () => {
  const state = { directory: '/var/lib/tsmacvlan', freeBytes: 5_500_000, bytes: 420_000, isWritable: true };
  assert.deepEqual(stateHasRoom(state, 5).says, 'state directory /var/lib/tsmacvlan has only 5 MB free');
  const { level, says } = stateHasRoom({ ...state, freeBytes: 5e9 }, 5);
  assert.deepEqual([level, says.split(', ')[1]], ['ok', '5000 MB free; what is in it takes 0.4 MB (schema 5)']);
  assert.equal(stateHasRoom({ ...state, isWritable: false }, 5).level, 'failure');
});

test('a state of another version is told as what is wrong, and anything else ends the command as before', () => {
  const { level, says, todo } = stateIsUnreadable(errors.storeNewer('/var/lib/tsmacvlan/tsmacvlan.db', 9, 5));
  assert.deepEqual([level, todo], ['failure', 'nothing was changed, start that version or a later one']);
  assert.match(says, /^state file "\/var\/lib\/tsmacvlan\/tsmacvlan\.db" was written by a newer tsmacvlan/);
  for (const error of [errors.storeMissing('/var/lib/tsmacvlan/tsmacvlan.db'), new Error('x')])
    assert.throws(() => stateIsUnreadable(error), error);
});

test('a daemon of another version than the command', () => {
  assert.deepEqual(isThisVersion(sound()), []);
  const [{ says = '' } = {}] = isThisVersion({ version: '0.0.9' });
  assert.equal(says, `tsmacvlan 0.0.9 runs, and this command is of ${VERSION}`);
});

test('a setting that is misspelt in the file of the service, and nothing that others read there', () => {
  const found = misspeltSettings(['LOG_LEVL', 'LOG_LEVEL', 'PARENT', 'NODE_OPTIONS', 'https_proxy', 'TZ', 'PATH']);
  assert.deepEqual(
    found.map(({ says, todo }) => `${says}; ${todo}`),
    [
      '/etc/default/tsmacvlan sets LOG_LEVL, which is no setting; write LOG_LEVEL, and restart tsmacvlan',
      '/etc/default/tsmacvlan sets PARENT, which is no setting; write PARENTS, and restart tsmacvlan',
    ],
  );
});

test('a socket where no engine looks, and those of service, managed plugin and rootless engines', () => {
  for (const path of [
    '/run/docker/plugins/tsmacvlan.sock',
    `/run/docker/plugins/${'a'.repeat(64)}/tsmacvlan.sock`,
    '/run/user/1000/docker/plugins/tsmacvlan.sock',
  ])
    assert.equal(daemonIsThere(path).level, 'ok', path);
  for (const path of ['/run/tsmacvlan.sock', 'tsmacvlan.sock', '/run/docker/plugins.sock'])
    assert.match(daemonIsThere(path).says, /, where no engine looks for a driver$/);
});
