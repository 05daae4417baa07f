import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawMap } from '../../src/map.ts';
import type { Conflict, Endpoint, Network } from '../../src/model.ts';
import { readNetworkOptions } from '../../src/network/options.ts';
import { interfaceAddress } from '../lab/addresses.ts';

const when = '2026-11-20T00:00:00.000Z';

function network(id: string, parent: Network['parent'], subnet: string, gateway: string | null): Network {
  const subnets = [{ addressSpace: 'TsmacvlanLocal', subnet, gateway, realm: 'TsmacvlanLocal' }];
  return {
    id: id.repeat(64),
    options: readNetworkOptions({ parent: parent.name }),
    parent,
    internal: false,
    subnets,
    hostAddresses: [],
    createdAt: when,
  };
}

function endpoint(id: string, networkId: string, address: string): Endpoint {
  return {
    id: id.repeat(64),
    networkId: networkId.repeat(64),
    state: 'joined',
    parent: 'eth0',
    linkName: 'tsm',
    macAddress: '02:42:0a:00:00:02',
    addresses: [interfaceAddress(address)],
    interfaceName: null,
    changedAt: when,
  };
}

test('draws base interfaces, VLANs, networks and endpoints as one tree', () => {
  const networks = [
    network('a', { name: 'eth0', made: false, promiscuous: false, recipe: null }, '10.0.0.0/24', '10.0.0.1'),
    network(
      'b',
      { name: 'eth0.50', made: true, promiscuous: false, recipe: { base: 'eth0', vlan: [50], protocol: '802.1q' } },
      '10.0.50.0/24',
      null,
    ),
    network('c', { name: 'tsmicccc', made: true, promiscuous: false, recipe: 'isolated' }, '10.0.99.0/24', null),
  ];
  const drawing = drawMap(networks, [
    endpoint('1', 'a', '10.0.0.2/24'),
    endpoint('2', 'a', '10.0.0.3/24'),
    endpoint('3', 'b', '10.0.50.2/24'),
  ]);
  assert.equal(
    drawing,
    [
      'eth0',
      '├─ network aaaaaaaaaaaa  bridge  10.0.0.0/24 gateway 10.0.0.1',
      '│  ├─ 10.0.0.2/24  02:42:0a:00:00:02  endpoint 111111111111',
      '│  └─ 10.0.0.3/24  02:42:0a:00:00:02  endpoint 222222222222',
      '└─ VLAN 50  eth0.50',
      '   └─ network bbbbbbbbbbbb  bridge  10.0.50.0/24 (no gateway)',
      '      └─ 10.0.50.2/24  02:42:0a:00:00:02  endpoint 333333333333',
      '(isolated) tsmicccc',
      '└─ network cccccccccccc  bridge  10.0.99.0/24',
      '',
    ].join('\n'),
  );
});

test('containers stand in the order of their addresses', () => {
  const networks = [network('a', { name: 'eth0', made: false, promiscuous: false, recipe: null }, '10.0.0.0/24', null)];
  const hosts = ['10', '9', '100', '2'];
  const endpoints = hosts.map((host, n) => endpoint(String(n), 'a', `10.0.0.${host}/24`));
  const drawn = drawMap(networks, [{ ...endpoint('9', 'a', '10.0.0.1/24'), addresses: [] }, ...endpoints]);
  assert.deepEqual(
    drawn.match(/─ (\S+|no address) {2}02/g)?.map((line) => line.slice(2, -4)),
    ['10.0.0.2/24', '10.0.0.9/24', '10.0.0.10/24', '10.0.0.100/24', 'no address'],
  );
});

test('only gateways that containers get are drawn', () => {
  const parent: Network['parent'] = { name: 'eth0', made: false, promiscuous: false, recipe: null };
  const drawn = (more: Partial<Network>, gateway = 'auto') => {
    const made = network('a', parent, '10.0.0.0/24', '10.0.0.1');
    const options = readNetworkOptions({ parent: 'eth0', gateway });
    return drawMap([{ ...made, options, ...more }], []).split('10.0.0.0/24')[1];
  };
  assert.equal(drawn({}), ' gateway 10.0.0.1\n');
  assert.equal(drawn({}, 'none'), '\n');
  assert.equal(drawn({ internal: true }), '\n');
  assert.equal(drawn({ parent: { ...parent, made: true, recipe: 'isolated' } }), '\n');
});

test('a parent whose network port filters MAC addresses says so', () => {
  const networks = [
    network('a', { name: 'eth0', made: false, promiscuous: false, recipe: null }, '10.0.0.0/24', null),
    network(
      'b',
      { name: 'eth1.50', made: true, promiscuous: false, recipe: { base: 'eth1', vlan: [50], protocol: '802.1q' } },
      '10.0.50.0/24',
      null,
    ),
  ];
  const remark = "(its network port lets no container's MAC address through)";
  assert.equal(
    drawMap(networks, [], { filtered: ['eth0', 'eth1.50', 'eth2'] }),
    [
      `eth0  ${remark}`,
      '└─ network aaaaaaaaaaaa  bridge  10.0.0.0/24 (no gateway)',
      'eth1',
      `└─ VLAN 50  eth1.50  ${remark}`,
      '   └─ network bbbbbbbbbbbb  bridge  10.0.50.0/24 (no gateway)',
      '',
    ].join('\n'),
  );
});

test('a conflict that lasts stands beside its container', () => {
  const networks = [
    network('a', { name: 'eth0', made: false, promiscuous: false, recipe: null }, '10.0.0.0/24', '10.0.0.1'),
  ];
  const conflict: Conflict = {
    kind: 'address',
    parent: 'eth0',
    address: '10.0.0.2',
    macAddress: '3c:22:fb:10:aa:01',
    ourMacAddress: '02:42:0a:00:00:02',
    hostLink: null,
    count: 3,
    firstSeenAt: when,
    seenAt: when,
    endedAt: null,
  };
  const shown = (...conflicts: Partial<Conflict>[]) =>
    drawMap(networks, [endpoint('1', 'a', '10.0.0.2/24')], {
      conflicts: conflicts.map((one) => ({ ...conflict, ...one })),
    })
      .split('\n')[2]
      ?.split('endpoint 111111111111')[1];
  assert.equal(shown({}), '  (10.0.0.2 also used by 3c:22:fb:10:aa:01)');
  assert.equal(shown({ hostLink: 'eth0' }), '  (10.0.0.2 also used by this host (eth0))');
  assert.equal(
    shown({ kind: 'mac', address: '10.0.0.77' }),
    '  (MAC address also used by another host, with 10.0.0.77)',
  );
  const others = [
    { endedAt: when },
    { parent: 'eth1' },
    { address: '10.0.0.3' },
    { ourMacAddress: null },
    { ourMacAddress: '02:42:0a:00:00:03' },
  ];
  assert.equal(shown(...others), '');
});

test('what is left of a lease stands beside its container', () => {
  const eth0 = { name: 'eth0', made: false, promiscuous: false, recipe: null };
  const leases = new Map([['1'.repeat(64), 'for 3 hours more']]);
  const drawn = drawMap([network('a', eth0, '10.0.0.0/24', null)], [endpoint('1', 'a', '10.0.0.2/24')], { leases });
  assert.match(drawn, /^ {3}└─ 10\.0\.0\.2\/24 .*\(lease for 3 hours more\)$/m);
});

test('nothing to draw is no text', () => {
  assert.equal(drawMap([], []), '');
});

test('a name that a terminal would obey is shown and not obeyed', () => {
  const parent = { name: 'a\u001b[2J\u0007\n', made: false, promiscuous: false, recipe: null } as const;
  const drawing = drawMap([network('a', parent, '10.0.0.0/24', null)], []);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there.
  assert.doesNotMatch(drawing, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  assert.match(drawing, /a\\u001b\[2J\\u0007\\u000a/);
});
