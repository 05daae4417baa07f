/**
 * Host access, promiscuous mode and parents that go and come back, on real links. The file's namespace is the host:
 *
 *     host: eth0 (10.9.0.250/24) ── veth ── lan (10.9.0.254)
 *            └─ container namespace "box": the sub-interface, as an engine would place it
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress } from '../../src/address.ts';
import { PluginError } from '../../src/errors.ts';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { Links, type RouteSpec } from '../../src/kernel/link.ts';
import { createLog } from '../../src/log.ts';
import type { NetworkDriver } from '../../src/network/driver.ts';
import { type LocalStore, openLocalStore } from '../../src/store/local.ts';
import { requestedAddresses } from '../lab/addresses.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { callLimit, until } from '../lab/patience.ts';
import { quietDriver } from '../lab/networkdriver.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';

const NETWORK = 'a'.repeat(64);
const SUBNETS = ['10.9.0.0/24', 'fd09::/64'];

const ip = (words: string) =>
  execFileSync('ip', words.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const pings = (namespace: string | null, address: string, waitS: number) => {
  const enter = namespace === null ? [] : ['ip', 'netns', 'exec', namespace];
  const [command = '', ...words] = [...enter, 'ping', '-n', '-c1', `-W${waitS}`, address];
  return spawnSync(command, words).status === 0;
};
/** An answer comes at once; only a machine that stands still makes it late. */
const reaches = (namespace: string | null, address: string) => pings(namespace, address, 15);
const cannotReach = (namespace: string | null, address: string) => !pings(namespace, address, 1);
const flags = (link: string) => (JSON.parse(ip(`-j link show ${link}`)) as { flags: string[] }[])[0]?.flags ?? [];
const hostLinks = () =>
  (JSON.parse(ip('-j link')) as { ifname: string }[])
    .map(({ ifname }) => ifname)
    .filter((name) => name.startsWith('tsmh'));
const routesToContainers = () =>
  `${ip('route')}${ip('-6 route')}`.split('\n').filter((line) => line.includes('tsmh') && !line.startsWith('fe80'));

describe('host access on real links', { skip: outsideLab(), timeout: 300_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-host-'));
  let store: LocalStore;
  let links: Links;
  let network: NetworkDriver;
  let ipam: IpamDriver;

  async function start(): Promise<void> {
    store = openLocalStore(join(directory, 'state'));
    links = Links.open();
    ipam = new IpamDriver({ store, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
    network = quietDriver({
      store,
      links,
      hostAddresses: ipam,
      parentAliases: new Map(),
      log: createLog('error', 'text'),
    });
    await network.recover();
  }

  async function stop(): Promise<void> {
    await network.close();
    links.close();
    await store.close();
  }

  /** As the engine: pools, gateways, network. */
  async function create(options: Record<string, string>): Promise<string[]> {
    const poolIds: string[] = [];
    for (const subnet of SUBNETS) {
      const pool = {
        addressSpace: ipam.defaultAddressSpaces().local,
        pool: subnet,
        subPool: null,
        options: {},
        v6: subnet.includes(':'),
      };
      poolIds.push((await ipam.requestPool(pool)).poolId);
    }
    const subnets = SUBNETS.map((subnet) => ({
      addressSpace: ipam.defaultAddressSpaces().local,
      subnet,
      gateway: null,
    }));
    try {
      await network.createNetwork({
        networkId: NETWORK,
        options: { parent: 'eth0', ...options },
        internal: false,
        enableIPv4: true,
        enableIPv6: true,
        skipsGateways: true,
        subnets,
      });
    } catch (error) {
      for (const poolId of poolIds) await ipam.releasePool(poolId);
      throw error;
    }
    return poolIds;
  }

  async function createAgain(options: Record<string, string>): Promise<void> {
    const record = await store.networks.get(NETWORK);
    const subnets =
      record?.subnets.map(({ addressSpace, subnet, gateway }) => ({ addressSpace, subnet, gateway })) ?? [];
    const flagsOf = { internal: false, enableIPv4: true, enableIPv6: true, skipsGateways: true };
    await network.createNetwork({ networkId: NETWORK, options: { parent: 'eth0', ...options }, subnets, ...flagsOf });
  }

  /** As the engine: addresses and endpoint. */
  async function attach(poolIds: readonly string[], endpointId: string): Promise<string[]> {
    const addresses: string[] = [];
    for (const poolId of poolIds)
      addresses.push(
        await ipam.requestAddress({
          poolId,
          address: null,
          isGateway: false,
          serial: false,
          name: null,
          limit: callLimit(),
        }),
      );
    await network.createEndpoint({
      networkId: NETWORK,
      endpointId,
      ...requestedAddresses(...addresses),
      macAddress: null,
      interfaceName: null,
      publishedPorts: [],
      wishedAddress: null,
      hostname: null,
      limit: callLimit(),
    });
    return addresses;
  }

  /** And join, and the link moved into the container. */
  async function run(poolIds: readonly string[], endpointId: string): Promise<string[]> {
    const addresses = await attach(poolIds, endpointId);
    const { linkName } = await network.join(NETWORK, endpointId, callLimit());
    ip('netns add box');
    ip(`link set ${linkName} netns box`);
    for (const text of addresses) ip(`-n box address add ${text} dev ${linkName}${text.includes(':') ? ' nodad' : ''}`);
    ip(`-n box link set ${linkName} up`);
    return addresses.map((text) => text.slice(0, text.indexOf('/')));
  }

  async function remove(poolIds: readonly string[]): Promise<void> {
    spawnSync('ip', ['netns', 'del', 'box']);
    for (const { id, addresses } of await store.endpoints.list()) {
      await network.deleteEndpoint(NETWORK, id);
      for (const address of addresses) {
        const poolId = poolIds[address.family === 'IPv4' ? 0 : 1] ?? '';
        await ipam.releaseAddress({ poolId, address: formatAddress(address) });
      }
    }
    for (const poolId of poolIds) await ipam.releasePool(poolId);
    await network.deleteNetwork(NETWORK);
    assert.deepEqual(hostLinks(), []);
    assert.deepEqual(routesToContainers(), []);
    assert.deepEqual(
      [await store.networks.list(), await store.endpoints.list(), await store.pools.list(), await store.leases.list()],
      [[], [], [], []],
    );
  }

  before(async () => {
    ip('netns add lan');
    ip('link add eth0 type veth peer name port0 netns lan');
    ip('link set eth0 up');
    ip('-n lan link set port0 up');
    ip('address add 10.9.0.250/24 dev eth0');
    ip('-n lan address add 10.9.0.254/24 dev port0');
    ip('-n lan address add fd09::fe/64 dev port0 nodad');
    await start();
  });

  after(async () => {
    await stop();
    rmSync(directory, { recursive: true, force: true });
  });

  test('without it the host cannot reach its containers, which is macvlan’s way', async () => {
    const pools = await create({});
    const [address = ''] = await run(pools, '1'.repeat(64));
    assert.ok(cannotReach(null, address));
    assert.ok(reaches('box', '10.9.0.254'), 'the container reaches the LAN');
    assert.deepEqual(hostLinks(), []);
    await remove(pools);
  });

  test('host and container reach each other and the LAN, in both families, and nothing is left', async () => {
    const pools = await create({ host_access: 'true', host_ip: '10.9.0.200' });
    const [address = '', addressIPv6 = ''] = await run(pools, '1'.repeat(64));
    const host = (await store.networks.get(NETWORK))?.hostAddresses ?? [];
    assert.equal(host[0], '10.9.0.200');
    assert.equal(host.length, 2);
    for (const target of [address, addressIPv6]) assert.ok(reaches(null, target), `host to ${target}`);
    for (const target of host) assert.ok(reaches('box', target), `container to ${target}`);
    assert.ok(reaches(null, '10.9.0.254'), 'host to LAN');
    assert.ok(reaches('box', '10.9.0.254'), 'container to LAN');
    assert.equal(routesToContainers().filter((line) => line.includes(address) || line.includes(addressIPv6)).length, 2);
    await remove(pools);
  });

  test('the host answers for its LAN address with one MAC address only', async () => {
    const pools = await create({ host_access: 'true' });
    const parentMac = (JSON.parse(ip('-j link show eth0')) as { address: string }[])[0]?.address;
    for (let round = 0; round < 5; round++) {
      spawnSync('ip', ['-n', 'lan', 'neighbour', 'flush', 'dev', 'port0']);
      assert.ok(reaches('lan', '10.9.0.250'));
      assert.match(ip('-n lan neighbour show 10.9.0.250'), new RegExp(`lladdr ${parentMac}`));
    }
    await remove(pools);
  });

  test('the address of the host is no container’s', async () => {
    const pools = await create({ host_access: 'true' });
    const host = (await store.networks.get(NETWORK))?.hostAddresses ?? [];
    assert.deepEqual(host, ['10.9.0.1', 'fd09::1']);
    await assert.rejects(
      ipam.requestAddress({
        poolId: pools[0] ?? '',
        address: '10.9.0.1',
        isGateway: false,
        serial: false,
        name: null,
        limit: callLimit(),
      }),
      PluginError,
    );
    assert.equal(
      await ipam.requestAddress({
        poolId: pools[0] ?? '',
        address: null,
        isGateway: false,
        serial: false,
        name: null,
        limit: callLimit(),
      }),
      '10.9.0.2/24',
    );
    await remove(pools);
  });

  test('a container reaches the host at its own addresses on the parent, and no neighbour hears two MAC addresses', async () => {
    ip('address add fd09::250/64 dev eth0 nodad');
    const pools = await create({ host_access: 'true' });
    const [address = '', six = ''] = await run(pools, '1'.repeat(64));
    for (const own of ['10.9.0.250', 'fd09::250']) assert.ok(reaches('box', own), own);
    for (const there of [address, six]) assert.ok(reaches(null, there.replace(/\/.*/, '')), there);
    ip('address del fd09::250/64 dev eth0');
    ip('address add fd09::251/64 dev eth0 nodad');
    await attach(pools, '2'.repeat(64));
    assert.ok(reaches('box', 'fd09::251'));
    assert.ok(!ip(`address show dev ${hostLinks()[0]}`).includes('fd09::250'));
    const host = (JSON.parse(ip('-j link show eth0')) as { address: string }[])[0]?.address ?? '';
    ip('-n lan neigh flush all');
    assert.ok(reaches('lan', '10.9.0.250'));
    assert.match(ip('-n lan neigh show 10.9.0.250'), new RegExp(host));
    ip('address del fd09::251/64 dev eth0');
    await remove(pools);
  });

  test('it is there again after a restart of the plugin, also when the host lost it meanwhile', async () => {
    const pools = await create({ host_access: 'true', host_ip: '10.9.0.200' });
    const [address = ''] = await run(pools, '1'.repeat(64));
    await stop();
    ip(`link del ${hostLinks()[0]}`);
    assert.ok(cannotReach(null, address));
    await start();
    assert.ok(reaches(null, address));
    await remove(pools);
  });

  test('it works again when the parent was down and came up', async () => {
    const pools = await create({ host_access: 'true', host_ip: '10.9.0.200' });
    const [address = ''] = await run(pools, '1'.repeat(64));
    ip('link set eth0 down');
    ip('link set eth0 up');
    await sleep(400);
    await until(() => pings(null, address, 1));
    assert.ok(reaches('box', '10.9.0.254'));
    await remove(pools);
  });

  test('a parent that was unplugged and is back gets the host’s end again by itself', async () => {
    const pools = await create({ host_access: 'true', host_ip: '10.9.0.200' });
    ip('link del eth0');
    await sleep(200);
    assert.deepEqual(hostLinks(), []);
    ip('link add eth0 type veth peer name port0 netns lan');
    ip('-n lan link set port0 up');
    ip('-n lan address add 10.9.0.254/24 dev port0');
    ip('link set eth0 up');
    // The kernel refuses routes over a link that is not up yet (fib_check_nh, ENETDOWN).
    await until(() => hostLinks().some((name) => flags(name).includes('UP')));
    assert.equal(hostLinks().length, 1);
    ip('address add 10.9.0.250/24 dev eth0');
    const [address = ''] = await run(pools, '1'.repeat(64));
    assert.ok(reaches(null, address));
    await remove(pools);
  });

  test('a container that goes while routes are made again leaves none', async (t) => {
    const pools = await create({ host_access: 'true' });
    const [stays, goes] = ['1'.repeat(64), '2'.repeat(64)];
    for (const id of [stays, goes]) await attach(pools, id);
    ip(`link del ${hostLinks()[0]}`);
    const addRoute = links.addRoute.bind(links);
    t.mock.method(links, 'addRoute', async (route: RouteSpec) => {
      await network.deleteEndpoint(NETWORK, goes);
      while ((await store.endpoints.list()).length > 1) await sleep(5);
      await addRoute(route);
    });
    await createAgain({ host_access: 'true' });
    t.mock.restoreAll();
    const made = routesToContainers().filter((line) => line.includes(' src '));
    assert.equal(made.length, 2, made.join('\n'));
    await remove(pools);
  });

  test('promiscuous mode is ours to switch off only when we switched it on', async () => {
    const pools = await create({ promisc: 'true' });
    assert.ok(flags('eth0').includes('PROMISC'));
    await remove(pools);
    assert.ok(!flags('eth0').includes('PROMISC'));
    ip('link set eth0 promisc on');
    await remove(await create({ promisc: 'true' }));
    assert.ok(flags('eth0').includes('PROMISC'));
    ip('link set eth0 promisc off');
  });

  test('CreateNetwork again leaves a parent promiscuous that it made so, and the record as it is', async () => {
    const pools = await create({ promisc: 'true' });
    const record = await store.networks.get(NETWORK);
    await createAgain({ promisc: 'true' });
    assert.ok(flags('eth0').includes('PROMISC'));
    assert.deepEqual(await store.networks.get(NETWORK), record);
    await remove(pools);
    assert.ok(!flags('eth0').includes('PROMISC'));
  });

  test('a host address outside the subnets is refused, and nothing is left', async () => {
    await assert.rejects(
      create({ host_access: 'true', host_ip: '10.10.0.1' }),
      /host address 10.10.0.1 is in no subnet of the network/,
    );
    await remove([]);
  });
});
