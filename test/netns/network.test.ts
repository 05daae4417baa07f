/**
 * The NetworkDriver on real links. The file's own network namespace is the host:
 *
 *     eth0 ── veth ── lan (bridge)      eth1 ── veth ── (nothing)      br0 ◄─ port0      mv0 on eth0
 *
 * Judged by `ip -j -d link`, by the store, and by what the verbs answer.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { PluginError } from '../../src/errors.ts';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { Links } from '../../src/kernel/link.ts';
import { endpointLinkName } from '../../src/linknames.ts';
import { createLog } from '../../src/log.ts';
import type { NetworkDriver } from '../../src/network/driver.ts';
import type { LanOfEndpoints } from '../../src/network/endpointlan.ts';
import type { EndpointRequest, NetworkRequest } from '../../src/requests.ts';
import { readCreateEndpoint } from '../../src/server/wire.ts';
import { type LocalStore, openLocalStore } from '../../src/store/local.ts';
import { interfaceAddress, requestedAddresses } from '../lab/addresses.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { quietDriver } from '../lab/networkdriver.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';
import { callLimit, until } from '../lab/patience.ts';

interface KernelLink {
  ifname: string;
  ifalias?: string;
  address: string;
  mtu: number;
  link?: string;
  linkinfo?: { info_kind?: string; info_data?: { mode?: string; bcqueuelen?: number } };
}

const ip = (...words: string[]) => execFileSync('ip', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
const kernelLinks = () => JSON.parse(ip('-j', '-d', 'link')) as KernelLink[];
const ours = () => kernelLinks().filter(({ ifname }) => ifname.startsWith('tsm'));

const id = (digit: string) => digit.repeat(64);

function network(
  networkId: string,
  options: Record<string, string>,
  more: Partial<NetworkRequest> = {},
): NetworkRequest {
  const subnets = [{ addressSpace: 'LocalDefault', subnet: '10.9.0.0/24', gateway: '10.9.0.1' }];
  return {
    networkId,
    options,
    internal: false,
    enableIPv4: true,
    enableIPv6: false,
    skipsGateways: true,
    subnets,
    ...more,
  };
}

function endpoint(
  networkId: string,
  endpointId: string,
  address: string | null,
  more: Partial<EndpointRequest> & { addressIPv6?: string } = {},
): EndpointRequest {
  const { addressIPv6 = null, ...others } = more;
  return {
    networkId,
    endpointId,
    ...requestedAddresses(address, addressIPv6),
    macAddress: null,
    interfaceName: null,
    publishedPorts: [],
    wishedAddress: null,
    hostname: null,
    limit: callLimit(),
    ...others,
  };
}

async function refusal(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
  } catch (error) {
    assert.ok(error instanceof PluginError, error instanceof Error ? error.stack : String(error));
    return error.message;
  }
  return assert.fail('was accepted');
}

/** How often each function of a source file is called meanwhile, as V8 counts. */
async function callsDuring(file: string, action: () => Promise<unknown>): Promise<Map<string, number>> {
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    await action();
    const { result } = await session.post('Profiler.takePreciseCoverage');
    const script = result.find(({ url }) => url === pathToFileURL(file).href);
    return new Map(script?.functions.map(({ functionName, ranges }) => [functionName, ranges[0]?.count ?? 0]));
  } finally {
    session.disconnect();
  }
}

describe('the NetworkDriver on real links', { skip: outsideLab(), timeout: 300_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-network-'));
  const log = createLog('error', 'text');
  let store: LocalStore;
  let links: Links;
  let driver: NetworkDriver;

  async function start(lan: Partial<LanOfEndpoints> = {}): Promise<void> {
    store = openLocalStore(join(directory, 'state'));
    links = Links.open();
    const hostAddresses = new IpamDriver({ store, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
    const parentAliases = new Map([
      ['lan', 'eth0'],
      ['storage', 'eth8'],
    ]);
    driver = quietDriver({ store, links, hostAddresses, parentAliases, log }, lan);
    await driver.recover();
  }

  /** What kill -9 leaves: nothing is closed in order, only the descriptors go. */
  async function crash(): Promise<void> {
    links.close();
    await store.close();
  }

  before(() => {
    ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'peer0');
    ip('link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'peer1');
    ip('link', 'add', 'port0', 'type', 'veth', 'peer', 'name', 'peer2');
    ip('link', 'add', 'br0', 'type', 'bridge');
    ip('link', 'set', 'port0', 'master', 'br0');
    ip('link', 'add', 'mv0', 'link', 'eth1', 'type', 'macvlan', 'mode', 'bridge');
    for (const name of ['eth0', 'peer0', 'eth1', 'peer1', 'br0']) ip('link', 'set', name, 'up');
  });

  beforeEach(() => start());

  async function finish(): Promise<void> {
    for (const { id: networkId } of await store.networks.list()) await driver.deleteNetwork(networkId);
    await driver.close();
    assert.deepEqual(ours(), [], 'links are left');
    assert.deepEqual([await store.networks.list(), await store.endpoints.list()], [[], []], 'records are left');
    await crash();
  }

  after(() => rmSync(directory, { recursive: true, force: true }));

  test('CreateEndpoint parses each address once', async () => {
    const subnets = ['10.9.0.0/24', 'fd09::/64'].map((subnet) => ({ addressSpace: '', subnet, gateway: null }));
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }, { subnets }));
    const body = {
      NetworkID: id('a'),
      EndpointID: id('1'),
      Interface: { Address: '10.9.0.2/24', AddressIPv6: 'fd09::2/64', MacAddress: '' },
    };
    const calls = await callsDuring(join(import.meta.dirname, '../../src/address.ts'), () =>
      driver.createEndpoint({ ...readCreateEndpoint(body), limit: callLimit() }),
    );
    // A subnet is parsed as an address with a length, and that as an address.
    const [ofAddresses = 0, ofSubnets = 0] = [calls.get('parseInterfaceAddress'), calls.get('parsePrefix')];
    assert.equal(ofAddresses - ofSubnets, 2);
    assert.equal(calls.get('parseAddress'), ofAddresses);
    await finish();
  });

  for (const mode of ['bridge', 'private', 'vepa', 'passthru']) {
    test(`makes a sub-interface in mode ${mode} and takes it away`, async () => {
      await driver.createNetwork(network(id('a'), { parent: 'eth0', macvlan_mode: mode }));
      const answer = await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'));
      const [link] = ours();
      assert.equal(link?.ifname, 'tsm111111111111');
      assert.equal(link.ifalias, `tsmacvlan endpoint ${id('1')}`);
      assert.equal(link.link, 'eth0');
      assert.equal(link.linkinfo?.info_kind, 'macvlan');
      assert.equal(link.linkinfo?.info_data?.mode, mode);
      assert.equal(link.address, answer.macAddress);
      const parentMac = kernelLinks().find(({ ifname }) => ifname === 'eth0')?.address;
      assert.equal(link.address, mode === 'passthru' ? parentMac : '02:42:0a:09:00:02');
      await driver.deleteEndpoint(id('a'), id('1'));
      await driver.close();
      assert.deepEqual(ours(), []);
      await finish();
    });
  }

  test('a parent whose MTU was lowered since is the cause that a refusal names', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0', mtu: '1500' }));
    ip('link', 'set', 'eth0', 'mtu', '1400');
    try {
      assert.equal(
        await refusal(driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.7/24'))),
        'mtu 1500 is above the 1400 of parent "eth0"; give at most 1400',
      );
    } finally {
      ip('link', 'set', 'eth0', 'mtu', '1500');
    }
    await finish();
  });

  test('passes mtu, MAC prefix, broadcast queue and a user’s MAC address to the kernel', async () => {
    await driver.createNetwork(
      network(id('a'), { parent: 'lan', mtu: '1400', mac_prefix: '06:aa', bc_queue_len: '5000' }),
    );
    assert.deepEqual(await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24')), {
      macAddress: '06:aa:0a:09:00:02',
    });
    assert.deepEqual(
      await driver.createEndpoint(endpoint(id('a'), id('2'), '10.9.0.3/24', { macAddress: '0A:00:00:00:00:01' })),
      { macAddress: null },
    );
    const [first, second] = ours();
    assert.deepEqual([first?.mtu, first?.linkinfo?.info_data?.bcqueuelen], [1400, 5000]);
    assert.equal(second?.address, '0a:00:00:00:00:01');
    await finish();
  });

  test('refuses parents that cannot carry containers, and leaves no trace', async () => {
    const refusals: [Record<string, string>, RegExp][] = [
      [
        { parent: 'eth9' },
        /^parent interface "eth9" does not exist on this host \(there are .*eth0.*\); give one of these/,
      ],
      [
        { parent: 'storage' },
        /^parent interface "eth8", which the setting PARENTS has for "storage", does not exist on this host/,
      ],
      [{ parent: 'lo' }, /^parent "lo" is the loopback interface/],
      [{ parent: 'mv0' }, /^parent "mv0" is itself a macvlan sub-interface; give "eth1" with -o parent=$/],
      [{ parent: 'port0' }, /^parent "port0" belongs to the bridge "br0"/],
      [{ parent: 'eth0.4095' }, /^VLAN id 4095 in "eth0.4095" is out of range; use 1 to 4094$/],
      [{ parent: 'eth0.0' }, /^VLAN id 0 in "eth0.0" is out of range/],
      [{ parent: 'eth0.x' }, /^VLAN id x in "eth0.x" is out of range/],
      [{ parent: 'a/b' }, /^"a\/b" is not an interface name/],
      [{ parent: 'eth0', mtu: '9000' }, /^mtu 9000 is above the 1500 of parent "eth0"; give at most 1500$/],
      [{ parent: 'auto' }, /^parent=auto takes the interface of the default route, and this host has no default route/],
      [{ parent: `eth0.${'1'.repeat(300)}` }, /^VLAN id 1+ in "eth0\..*\.\.\." is out of range/],
    ];
    for (const [options, sentence] of refusals)
      assert.match(await refusal(driver.createNetwork(network(id('a'), options))), sentence);
    await finish();
  });

  test('refuses networks without a subnet of a family that is on', async () => {
    assert.match(
      await refusal(driver.createNetwork(network(id('a'), { parent: 'eth0' }, { subnets: [] }))),
      /^the network has no IPv4 subnet/,
    );
    assert.match(
      await refusal(driver.createNetwork(network(id('a'), { parent: 'eth0' }, { enableIPv6: true }))),
      /^the network has no IPv6 subnet/,
    );
    const nullIpam = [{ addressSpace: 'null', subnet: '0.0.0.0/0', gateway: null }];
    assert.match(
      await refusal(driver.createNetwork(network(id('a'), { parent: 'eth0' }, { subnets: nullIpam }))),
      /^the network has no IPv4 subnet/,
    );
    await finish();
  });

  test('passthru needs a parent of its own, whoever comes first', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    assert.match(
      await refusal(driver.createNetwork(network(id('b'), { parent: 'eth0', macvlan_mode: 'passthru' }))),
      /^parent "eth0" already carries network aaaaaaaaaaaa/,
    );
    await driver.deleteNetwork(id('a'));
    await driver.createNetwork(network(id('b'), { parent: 'eth0', macvlan_mode: 'passthru' }));
    assert.match(
      await refusal(driver.createNetwork(network(id('a'), { parent: 'eth0' }))),
      /^parent "eth0" belongs to network bbbbbbbbbbbb in mode passthru/,
    );
    await driver.createEndpoint(endpoint(id('b'), id('1'), '10.9.0.2/24'));
    assert.match(
      await refusal(driver.createEndpoint(endpoint(id('b'), id('2'), '10.9.0.3/24'))),
      /^parent "eth0" is in mode passthru and already belongs to endpoint 111111111111/,
    );
    await finish();
  });

  test('says that a stranger’s sub-interface is in the way of passthru', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth1', macvlan_mode: 'passthru' }));
    assert.match(
      await refusal(driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'))),
      /^the kernel refuses another sub-interface on parent "eth1" \(EINVAL\).*other programs/,
    );
    assert.deepEqual(await store.endpoints.list(), []);
    await finish();
  });

  test('refuses MAC addresses that are malformed, multicast or taken, and another one in passthru', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    const attempt = (macAddress: string, digit: string) =>
      driver.createEndpoint(endpoint(id('a'), id(digit), `10.9.0.${digit}/24`, { macAddress }));
    assert.match(await refusal(attempt('02:42', '2')), /^MAC address "02:42" is malformed/);
    assert.match(
      await refusal(attempt('01:00:5e:00:00:01', '2')),
      /^MAC address "01:00:5e:00:00:01" is a multicast address/,
    );
    await attempt('02:00:00:00:00:01', '2');
    assert.match(
      await refusal(attempt('02:00:00:00:00:01', '3')),
      /^MAC address 02:00:00:00:00:01 is already used on parent "eth0" by endpoint 222222222222/,
    );
    await driver.deleteNetwork(id('a'));
    await driver.createNetwork(network(id('a'), { parent: 'eth0', macvlan_mode: 'passthru' }));
    assert.match(
      await refusal(attempt('02:00:00:00:00:01', '2')),
      /^mode passthru gives the container the MAC address of parent "eth0"/,
    );
    await finish();
  });

  test('two endpoints that ask for one MAC address at once do not both get it', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    const attempts = ['1', '2', '3', '4'].map((digit) =>
      driver.createEndpoint(endpoint(id('a'), id(digit), `10.9.0.${digit}/24`, { macAddress: '02:00:00:00:00:09' })),
    );
    const settled = await Promise.allSettled(attempts);
    assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 1);
    assert.equal(ours().length, 1);
    await finish();
  });

  test('Leave waits for nothing, and a container is announced once its link has left the host', {
    timeout: 20_000,
  }, async () => {
    await finish();
    const announced: string[] = [];
    await start({
      keepLeft: () => new Promise(() => undefined),
      announce: async ({ id: endpointId }) => void announced.push(endpointId),
    });
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    for (const digit of ['1', '2']) {
      await driver.createEndpoint(endpoint(id('a'), id(digit), `10.9.0.${digit}/24`));
      await driver.join(id('a'), id(digit), callLimit());
    }
    ip('netns', 'add', 'sandbox');
    ip('link', 'set', endpointLinkName(id('1')), 'netns', 'sandbox');
    await until(() => announced.length > 0);
    // The other one's link never leaves.
    await sleep(300);
    assert.deepEqual(announced, [id('1')]);
    await driver.leave(id('a'), id('1'));
    ip('netns', 'delete', 'sandbox');
    await finish();
  });

  test('every verb may be repeated, and unknown ids succeed on the delete side', async () => {
    await driver.deleteNetwork(id('e'));
    await driver.deleteEndpoint(id('e'), id('f'));
    await driver.leave(id('e'), id('f'));
    for (let round = 0; round < 2; round++) await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    const answers = [
      await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24')),
      await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24')),
    ];
    assert.deepEqual(answers[0], answers[1]);
    assert.equal(ours().length, 1);
    assert.deepEqual(
      await driver.join(id('a'), id('1'), callLimit()),
      await driver.join(id('a'), id('1'), callLimit()),
    );
    assert.match(
      await refusal(driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.3/24'))),
      /^endpoint 111111111111 exists with other addresses/,
    );
    assert.match(
      await refusal(driver.createNetwork(network(id('a'), { parent: 'eth1' }))),
      /^network aaaaaaaaaaaa exists with other options and has containers/,
    );
    for (let round = 0; round < 2; round++) await driver.deleteEndpoint(id('a'), id('1'));
    for (let round = 0; round < 2; round++) await driver.deleteNetwork(id('a'));
    await finish();
  });

  test('a network with containers may be created again, as nodes of a swarm do after a restart', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'));
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    await crash();
    await start();
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    assert.equal(ours().length, 1);
    await driver.deleteEndpoint(id('a'), id('1'));
    await driver.deleteNetwork(id('a'));
    await finish();
  });

  test('an address may leave and come back at once: the new link waits for the old one', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    for (let round = 0; round < 10; round++) {
      const endpointId = round.toString(16).repeat(64);
      await driver.createEndpoint(endpoint(id('a'), endpointId, '10.9.0.2/24'));
      ip('link', 'set', `tsm${endpointId.slice(0, 12)}`, 'up');
      await driver.deleteEndpoint(id('a'), endpointId);
    }
    await finish();
  });

  test('an endpoint id may leave and come back at once, with another address', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    for (let round = 0; round < 10; round++) {
      await driver.createEndpoint(endpoint(id('a'), id('1'), `10.9.0.${round + 2}/24`));
      await driver.join(id('a'), id('1'), callLimit());
      assert.deepEqual((await store.endpoints.get(id('1')))?.addresses, [interfaceAddress(`10.9.0.${round + 2}/24`)]);
      assert.equal(ours().length, 1);
      await driver.deleteEndpoint(id('a'), id('1'));
    }
    await finish();
  });

  test('join asks the LAN again when the disk took longer than the answer', async () => {
    await finish();
    const asked: string[] = [];
    await start({ confirm: async () => void asked.push('LAN') });
    const durable = store.durable.bind(store);
    let diskMs = 0;
    store.durable = async () => {
      await sleep(diskMs);
      await durable();
      asked.push('disk');
    };
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    for (const [digit, slowMs, order] of [
      ['1', 0, ['LAN', 'disk']],
      ['2', 200, ['LAN', 'disk', 'LAN']],
    ] as const) {
      diskMs = slowMs;
      asked.length = 0;
      await driver.createEndpoint(endpoint(id('a'), id(digit), `10.9.0.${digit}/24`));
      await driver.join(id('a'), id(digit), callLimit());
      assert.deepEqual(asked, order);
    }
    await finish();
  });

  test('join names the gateway of the address’s own subnet, and none where there is none', async () => {
    const subnets = [
      { addressSpace: 'LocalDefault', subnet: '10.9.0.0/24', gateway: '10.9.0.1' },
      { addressSpace: 'LocalDefault', subnet: '10.8.0.0/24', gateway: '10.8.0.254' },
      { addressSpace: 'LocalDefault', subnet: 'fd09::/64', gateway: 'fd09::1' },
    ];
    const gateways = async (options: Record<string, string>, internal: boolean) => {
      await driver.createNetwork(network(id('a'), options, { subnets, internal, enableIPv6: true }));
      await driver.createEndpoint(
        endpoint(id('a'), id('1'), '10.8.0.7/24', { addressIPv6: 'fd09::7/64', interfaceName: 'lan0' }),
      );
      const { linkName, interfaceName, gateway, gatewayIPv6 } = await driver.join(id('a'), id('1'), callLimit());
      assert.deepEqual([linkName, interfaceName], ['tsm111111111111', 'lan0']);
      await driver.deleteNetwork(id('a'));
      return [gateway, gatewayIPv6];
    };
    assert.deepEqual(await gateways({ parent: 'eth0' }, false), ['10.8.0.254', 'fd09::1']);
    assert.deepEqual(await gateways({ parent: 'eth0' }, true), [null, null]);
    assert.deepEqual(await gateways({ parent: 'eth0', gateway: 'none' }, false), [null, null]);
    assert.deepEqual(await gateways({}, false), [null, null]);
    await finish();
  });

  test('without a parent it makes an isolated link and removes it with the network', async () => {
    await driver.createNetwork(network(id('a'), {}));
    assert.deepEqual(
      ours().map(({ ifname, ifalias }) => [ifname, ifalias]),
      [['tsmiaaaaaaaaaaa', 'tsmacvlan parent']],
    );
    await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'));
    assert.equal(ours().length, 2);
    await finish();
  });

  test('a network that comes back under its id on another parent leaves nothing on the first', async () => {
    await driver.createNetwork(network(id('a'), {}));
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    assert.deepEqual(ours(), []);
    await driver.createNetwork(network(id('a'), {}));
    assert.equal(ours().length, 1);
    await finish();
  });

  test('what is no address is in no subnet, and is refused as it was written', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    for (const Address of ['10.9.0.2', '10.9.0.2/33', '010.9.0.2/24', '10.9.0.2/24 ', 'nonsense']) {
      const body = { NetworkID: id('a'), EndpointID: id('1'), Interface: { Address } };
      const sentence = `address ${JSON.stringify(Address)} is in no subnet of network aaaaaaaaaaaa (10.9.0.0/24); choose one inside`;
      assert.equal(await refusal(driver.createEndpoint({ ...readCreateEndpoint(body), limit: callLimit() })), sentence);
    }
    await finish();
  });

  test('an address in no subnet of the network is refused', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    assert.match(
      await refusal(driver.createEndpoint(endpoint(id('a'), id('1'), '10.10.0.2/24'))),
      /^address "10.10.0.2\/24" is in no subnet of network aaaaaaaaaaaa \(10.9.0.0\/24\)/,
    );
    assert.match(
      await refusal(driver.createEndpoint(endpoint(id('b'), id('1'), '10.9.0.2/24'))),
      /^network bbbbbbbbbbbb is not known to this plugin/,
    );
    assert.match(
      await refusal(driver.join(id('a'), id('1'), callLimit())),
      /^endpoint 111111111111 of network aaaaaaaaaaaa is not known/,
    );
    await finish();
  });

  test('a start finishes what a crash interrupted', async () => {
    await driver.createNetwork(network(id('a'), { parent: 'eth0' }));
    await driver.createNetwork(network(id('b'), {}));
    await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'));
    await driver.createEndpoint(endpoint(id('a'), id('2'), '10.9.0.3/24'));
    // Killed after the link, before its record: a link with our alias and no record.
    const parent = await links.byName('eth0');
    await links.addMacvlan({
      name: 'tsm333333333333',
      alias: `tsmacvlan endpoint ${id('3')}`,
      parentIndex: parent?.index ?? 0,
      mode: 'bridge',
      macAddress: null,
      mtu: null,
      broadcastQueueLength: null,
    });
    // Killed after DeleteEndpoint was acknowledged, before the kernel did it.
    const leaving = await store.endpoints.get(id('2'));
    assert.ok(leaving);
    await store.endpoints.replace(leaving, { ...leaving, state: 'deleting' });
    // Killed after a network's record went, before its isolated link did; and the host lost another's.
    await links.addIsolated({ name: 'tsmieeeeeeeeeee', alias: 'tsmacvlan parent' });
    ip('link', 'del', 'tsmibbbbbbbbbbb');
    // Somebody else's link that only looks like ours.
    ip('link', 'add', 'tsm444444444444', 'link', 'eth0', 'type', 'macvlan', 'mode', 'bridge');

    await crash();
    await start();
    await driver.close();
    assert.deepEqual(
      ours()
        .map(({ ifname }) => ifname)
        .sort(),
      ['tsm111111111111', 'tsm444444444444', 'tsmibbbbbbbbbbb'],
    );
    assert.deepEqual(
      (await store.endpoints.list()).map(({ id: endpointId }) => endpointId),
      [id('1')],
    );
    assert.deepEqual(await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24')), {
      macAddress: '02:42:0a:09:00:02',
    });
    ip('link', 'del', 'tsm444444444444');
    await finish();
  });

  test('a parent that went away is named, and the next start after its return works', async () => {
    ip('link', 'add', 'eth5', 'type', 'veth', 'peer', 'name', 'peer5');
    await driver.createNetwork(network(id('a'), { parent: 'eth5' }));
    ip('link', 'del', 'eth5');
    assert.match(
      await refusal(driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'))),
      /^parent interface "eth5" of network aaaaaaaaaaaa is not on this host any more/,
    );
    ip('link', 'add', 'eth5', 'type', 'veth', 'peer', 'name', 'peer5');
    await driver.createEndpoint(endpoint(id('a'), id('1'), '10.9.0.2/24'));
    ip('link', 'del', 'eth5');
    await driver.deleteEndpoint(id('a'), id('1'));
    await finish();
  });
});
