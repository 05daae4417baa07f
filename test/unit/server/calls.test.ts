/** Every call an engine makes, over the real socket with an engine's headers: what reaches the driver, what is answered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nameUnknown, storeFull } from '../../../src/errors.ts';
import { VERSION } from '../../../src/version.ts';
import { askDaemon, UNRESERVE } from '../../../src/server/client.ts';
import { ask, openDoor } from './door.ts';

const options = { timeout: 10_000 };

const NETWORK = 'e2c9bfa0a4b96ab6a1a2f1a5f6b1fb7b41f0f9c7bb0fe5b0f4d8a4b1c3d2e1f0';
const ENDPOINT = '0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0';
const SWARM_NETWORK = 'j1xe60f4n3wf11vp6qjhbz7b3';
const ALLOCATION = {
  networkId: SWARM_NETWORK,
  options: { parent: 'lan0' },
  isRepeated: false,
  subnets: [
    { addressSpace: '', subnet: '192.168.1.0/24', gateway: '192.168.1.1' },
    { addressSpace: '', subnet: 'fd00::/64', gateway: null },
  ],
};
const BOTH = { NetworkID: NETWORK, EndpointID: ENDPOINT };

interface Case {
  readonly call: string;
  readonly body?: unknown;
  readonly reply: unknown;
  /** Absent: no driver is asked. */
  readonly asks?: readonly unknown[];
  /** What is asked next. */
  readonly then?: readonly unknown[];
}

const CASES: readonly Case[] = [
  { call: 'Plugin.Activate', reply: { Implements: ['NetworkDriver', 'IpamDriver'] } },
  {
    call: 'Tsmacvlan.State',
    body: { Tables: ['networks'] },
    reply: { Version: VERSION, Schema: 4, Node: null, FilteredParents: ['eth0'], Tables: { networks: [] } },
  },
  {
    call: 'Tsmacvlan.PoolUses',
    asks: ['poolUses'],
    reply: { Pools: [{ poolId: 'TsmacvlanLocal/192.168.1.0/24', used: 1 }] },
  },
  {
    call: 'NetworkDriver.GetCapabilities',
    reply: { Scope: 'local', ConnectivityScope: 'global', GwAllocChecker: true },
  },
  {
    call: 'NetworkDriver.GwAllocCheck',
    body: { Options: { 'com.docker.network.generic': { parent: 'eth0' }, 'com.docker.network.enable_ipv4': true } },
    asks: [
      'skipGateway',
      { options: { parent: 'eth0' }, internal: false, enableIPv4: true, enableIPv6: false, skipsGateways: true },
    ],
    reply: { SkipIPv4: true, SkipIPv6: false },
  },
  {
    call: 'NetworkDriver.AllocateNetwork',
    body: {
      NetworkID: SWARM_NETWORK,
      Options: { parent: 'lan0' },
      IPv4Data: [
        { AddressSpace: '', Pool: '192.168.1.0/24', Gateway: '192.168.1.1/24' },
        { AddressSpace: '', Pool: 'fd00::/64', Gateway: '<nil>' },
      ],
      IPv6Data: null,
    },
    asks: ['allocateNetwork', ALLOCATION],
    then: ['reviewAllocation', ALLOCATION],
    reply: { Options: { parent: 'lan0', 'tsmacvlan.allocated': 'true' } },
  },
  {
    call: 'NetworkDriver.AllocateNetwork',
    body: {
      NetworkID: SWARM_NETWORK,
      Options: { parent: 'lan0', 'tsmacvlan.allocated': 'true' },
      IPv4Data: [],
      IPv6Data: null,
    },
    asks: ['allocateNetwork', { ...ALLOCATION, subnets: [], isRepeated: true }],
    then: ['reviewAllocation', { ...ALLOCATION, subnets: [], isRepeated: true }],
    reply: { Options: { parent: 'lan0', 'tsmacvlan.allocated': 'true' } },
  },
  {
    call: 'NetworkDriver.FreeNetwork',
    body: { NetworkID: SWARM_NETWORK },
    asks: ['freeNetwork', SWARM_NETWORK],
    reply: {},
  },
  {
    call: 'NetworkDriver.CreateNetwork',
    body: {
      NetworkID: NETWORK,
      Options: {
        'com.docker.network.generic': { parent: 'eth0.10', macvlan_mode: 'bridge' },
        'com.docker.network.enable_ipv4': true,
        'com.docker.network.enable_ipv6': true,
        'com.docker.network.internal': true,
      },
      IPv4Data: [
        {
          AddressSpace: 'Local',
          Pool: '192.168.1.0/24',
          Gateway: '192.168.1.1/24',
          AuxAddresses: { nas: '192.168.1.9/24' },
        },
        { AddressSpace: 'Local', Pool: '10.0.0.0/8' },
      ],
      IPv6Data: [{ AddressSpace: 'Local', Pool: 'fd00::/64', Gateway: 'fd00::1/64' }],
    },
    asks: [
      'createNetwork',
      {
        networkId: NETWORK,
        options: { parent: 'eth0.10', macvlan_mode: 'bridge' },
        internal: true,
        enableIPv4: true,
        enableIPv6: true,
        skipsGateways: true,
        subnets: [
          { addressSpace: 'Local', subnet: '192.168.1.0/24', gateway: '192.168.1.1' },
          { addressSpace: 'Local', subnet: '10.0.0.0/8', gateway: null },
          { addressSpace: 'Local', subnet: 'fd00::/64', gateway: 'fd00::1' },
        ],
      },
    ],
    reply: {},
  },
  { call: 'NetworkDriver.DeleteNetwork', body: { NetworkID: NETWORK }, asks: ['deleteNetwork', NETWORK], reply: {} },
  {
    call: 'NetworkDriver.CreateEndpoint',
    body: {
      ...BOTH,
      Interface: { Address: '192.168.1.2/24', AddressIPv6: '', MacAddress: '' },
      Options: {
        'com.docker.network.endpoint.exposedports': [{ Proto: 6, Port: 80 }],
        'com.docker.network.endpoint.ifname': 'lan0',
        'com.docker.network.portmap': [
          { Proto: 6, IP: '', Port: 80, HostIP: '', HostPort: 8080, HostPortEnd: 8080 },
          { Proto: 17, IP: '', Port: 53, HostIP: '127.0.0.1', HostPort: 5300, HostPortEnd: 5310 },
          { Proto: 132, IP: '', Port: 9, HostIP: '', HostPort: 0, HostPortEnd: 0 },
        ],
      },
    },
    asks: [
      'createEndpoint',
      {
        networkId: NETWORK,
        endpointId: ENDPOINT,
        addresses: [{ family: 'IPv4', value: 0xc0a80102n, length: 24 }],
        malformedAddresses: [],
        macAddress: null,
        interfaceName: 'lan0',
        publishedPorts: ['8080->80/tcp', '127.0.0.1:5300-5310->53/udp', '9/sctp'],
        wishedAddress: null,
        hostname: null,
      },
    ],
    reply: { Interface: { MacAddress: '02:42:c0:a8:01:02' } },
  },
  {
    call: 'NetworkDriver.CreateEndpoint',
    body: {
      ...BOTH,
      Interface: { Address: '', AddressIPv6: 'fd00::2/64', MacAddress: '02:42:aa:bb:cc:01' },
      Options: null,
    },
    asks: [
      'createEndpoint',
      {
        networkId: NETWORK,
        endpointId: ENDPOINT,
        addresses: [{ family: 'IPv6', value: (0xfd00n << 112n) + 2n, length: 64 }],
        malformedAddresses: [],
        macAddress: '02:42:aa:bb:cc:01',
        interfaceName: null,
        publishedPorts: [],
        wishedAddress: null,
        hostname: null,
      },
    ],
    reply: { Interface: null },
  },
  { call: 'NetworkDriver.EndpointOperInfo', body: BOTH, reply: { Value: {} } },
  {
    call: 'NetworkDriver.Join',
    body: { ...BOTH, SandboxKey: '/var/run/docker/netns/0123456789ab', Options: {} },
    asks: ['join', NETWORK, ENDPOINT],
    reply: {
      InterfaceName: { SrcName: 'tsm0123456789', DstPrefix: 'eth' },
      Gateway: '192.168.1.1',
      GatewayIPv6: '',
      StaticRoutes: [],
      DisableGatewayService: true,
    },
  },
  { call: 'NetworkDriver.ProgramExternalConnectivity', body: { ...BOTH, Options: {} }, reply: {} },
  { call: 'NetworkDriver.RevokeExternalConnectivity', body: BOTH, reply: {} },
  { call: 'NetworkDriver.Leave', body: BOTH, asks: ['leave', NETWORK, ENDPOINT], reply: {} },
  { call: 'NetworkDriver.DeleteEndpoint', body: BOTH, asks: ['deleteEndpoint', NETWORK, ENDPOINT], reply: {} },
  {
    call: 'NetworkDriver.DiscoverNew',
    body: { DiscoveryType: 1, DiscoveryData: { Address: '10.77.0.1', BindAddress: '10.77.0.1', Self: true } },
    reply: {},
  },
  {
    call: 'NetworkDriver.DiscoverDelete',
    body: { DiscoveryType: 1, DiscoveryData: { Address: '10.77.0.1', BindAddress: '', Self: false } },
    reply: {},
  },
  {
    call: 'IpamDriver.GetCapabilities',
    asks: ['register'],
    reply: { RequiresMACAddress: false, RequiresRequestReplay: false },
  },
  {
    call: 'IpamDriver.GetDefaultAddressSpaces',
    reply: { LocalDefaultAddressSpace: 'Local', GlobalDefaultAddressSpace: 'Global' },
  },
  {
    call: 'IpamDriver.RequestPool',
    body: { AddressSpace: 'Local', Pool: '10.0.0.0/8', SubPool: '10.1.0.0/16', Options: { parent: 'eth0' }, V6: false },
    asks: [
      'requestPool',
      { addressSpace: 'Local', pool: '10.0.0.0/8', subPool: '10.1.0.0/16', options: { parent: 'eth0' }, v6: false },
    ],
    reply: { PoolID: 'pool 10.0.0.0/8', Pool: '10.0.0.0/8', Data: {} },
  },
  {
    call: 'IpamDriver.RequestPool',
    body: {
      AddressSpace: 'Local',
      Pool: '',
      SubPool: '',
      Options: {
        parent: 'eth0',
        RequestAddressType: 'com.docker.network.gateway',
        'com.docker.network.ipam.serial': 'true',
      },
      V6: true,
    },
    asks: ['requestPool', { addressSpace: 'Local', pool: null, subPool: null, options: { parent: 'eth0' }, v6: true }],
    reply: { PoolID: 'pool null', Pool: '10.0.0.0/24', Data: {} },
  },
  { call: 'IpamDriver.ReleasePool', body: { PoolID: 'a pool' }, asks: ['releasePool', 'a pool'], reply: {} },
  {
    call: 'IpamDriver.ReleaseAddress',
    body: { PoolID: 'a pool', Address: '10.0.0.1' },
    asks: ['releaseAddress', { poolId: 'a pool', address: '10.0.0.1' }],
    reply: {},
  },
];

for (const { call, body, asks, then, reply } of CASES) {
  const variant = CASES.filter((other) => other.call === call).findIndex((other) => other.body === body);
  test(
    `${call} is read, asked and answered in Docker's words${variant > 0 ? `, ${variant + 1}` : ''}`,
    options,
    async (t) => {
      const door = await openDoor(t);
      const { status, contentType, body: answered } = await ask(door, call, body);
      assert.equal(status, 200);
      assert.equal(contentType, 'application/vnd.docker.plugins.v1.2+json');
      assert.deepEqual(answered, reply);
      assert.deepEqual(
        door.asked,
        [asks, then].filter((one) => one !== undefined),
      );
    },
  );
}

for (const [what, body, expected] of [
  ['any address', { Address: '', Options: null }, { address: null, isGateway: false, serial: false, name: null }],
  [
    'one address',
    { Address: '10.0.0.7', Options: {} },
    { address: '10.0.0.7', isGateway: false, serial: false, name: null },
  ],
  [
    'a gateway',
    { Address: '', Options: { RequestAddressType: 'com.docker.network.gateway' } },
    { address: null, isGateway: true, serial: false, name: null },
  ],
  [
    "a swarm task's address",
    { Address: '', Options: { 'com.docker.network.ipam.serial': 'true', parent: 'eth0' } },
    { address: null, isGateway: false, serial: true, name: null },
  ],
] as const) {
  test(`IpamDriver.RequestAddress for ${what} reaches the driver`, options, async (t) => {
    const door = await openDoor(t);
    const { body: answered } = await ask(door, 'IpamDriver.RequestAddress', { PoolID: 'p', ...body });
    assert.deepEqual(answered, { Address: `${expected.address ?? '192.168.1.2'}/24`, Data: {} });
    const [[verb, given] = []] = door.asked;
    assert.equal(verb, 'requestAddress');
    assert.deepEqual(given, { poolId: 'p', ...expected });
  });
}

for (const [call, verb, body] of [
  ['IpamDriver.RequestAddress', 'requestAddress', { PoolID: 'p', Address: '' }],
  ['NetworkDriver.CreateEndpoint', 'createEndpoint', BOTH],
  ['NetworkDriver.Join', 'join', BOTH],
] as const) {
  test(`${call} tells the driver by when it is to be answered`, options, async (t) => {
    const beginMs = performance.now();
    const door = await openDoor(t, { deadlineMs: 7000 });
    assert.equal((await ask(door, call, body)).status, 200);
    const limit = door.limits.get(verb);
    assert.ok(limit?.signal instanceof AbortSignal && !limit.signal.aborted);
    assert.ok(limit.atMs >= beginMs + 7000 && limit.atMs <= performance.now() + 7000);
  });
}

test('on engines before 28, which do not say so, IPv4 is on', options, async (t) => {
  const door = await openDoor(t);
  await ask(door, 'NetworkDriver.CreateNetwork', {
    NetworkID: NETWORK,
    Options: { 'com.docker.network.enable_ipv6': false },
    IPv4Data: [{ AddressSpace: 'null', Pool: '0.0.0.0/0' }],
    IPv6Data: [],
  });
  assert.deepEqual(door.asked[0]?.[1], {
    networkId: NETWORK,
    options: {},
    internal: false,
    enableIPv4: true,
    enableIPv6: false,
    skipsGateways: false,
    subnets: [{ addressSpace: 'null', subnet: '0.0.0.0/0', gateway: null }],
  });
});

test('a gateway that a swarm manager prints as <nil> is none', options, async (t) => {
  const door = await openDoor(t);
  await ask(door, 'NetworkDriver.CreateNetwork', {
    NetworkID: NETWORK,
    IPv4Data: [{ AddressSpace: '', Pool: '10.0.0.0/24', Gateway: '<nil>' }],
    IPv6Data: null,
  });
  assert.deepEqual((door.asked[0]?.[1] as { subnets: unknown }).subnets, [
    { addressSpace: '', subnet: '10.0.0.0/24', gateway: null },
  ]);
});

for (const [interfaceName, expected] of [
  ['net0', { DstPrefix: 'net', DstName: 'net0' }],
  ['foobar', { DstPrefix: 'foobar', DstName: 'foobar' }],
  ['42', { DstPrefix: 'eth', DstName: '42' }],
  ['abcdefghijklmno', { DstPrefix: 'eth', DstName: 'abcdefghijklmno' }],
] as const) {
  test(`Join asks for the interface name ${interfaceName} as closely as an engine can follow`, options, async (t) => {
    const join = async () => ({ linkName: 'tsm1', interfaceName, gateway: null, gatewayIPv6: 'fd00::1', routes: [] });
    const door = await openDoor(t, { network: { join } });
    const { body } = await ask(door, 'NetworkDriver.Join', BOTH);
    assert.deepEqual(body, {
      InterfaceName: { SrcName: 'tsm1', ...expected },
      Gateway: '',
      GatewayIPv6: 'fd00::1',
      StaticRoutes: [],
      DisableGatewayService: true,
    });
  });
}

test('calls are answered whatever the content type of their body', options, async (t) => {
  const door = await openDoor(t);
  for (const type of [
    'application/json',
    'application/vnd.docker.plugins.v1.1+json',
    'text/plain',
    'x/y; charset=latin1',
  ]) {
    const { status } = await ask(door, 'NetworkDriver.Leave', BOTH, { 'Content-Type': type });
    assert.equal(status, 200, type);
  }
});

test('an engine that asks what the driver can do has the leaks looked for', options, async (t) => {
  let times = 0;
  const door = await openDoor(t, { leaks: { hurry: () => times++ } });
  await ask(door, 'NetworkDriver.GetCapabilities');
  assert.equal(times, 1);
});

test('the command line says a mistake in its own words, and names the call of a fault', options, async (t) => {
  const errors = [nameUnknown('web'), storeFull('tsmacvlan.db')];
  const door = await openDoor(t, { ipam: { unreserveName: () => Promise.reject(errors.shift() ?? new Error()) } });
  const unreserve = () => askDaemon(door.socket, UNRESERVE, { Name: 'web', Network: '' });
  await assert.rejects(unreserve, { kind: 'mistake', message: nameUnknown('web').message });
  await assert.rejects(unreserve, {
    kind: 'fault',
    message: `the running tsmacvlan refused ${UNRESERVE}; it says: ${storeFull('tsmacvlan.db').message}`,
  });
});
