/**
 * Gateways that exist: what a network that names none gets, from the calls of old and new engines, with our IPAM and with
 * another. The file's namespace is the host:
 *
 *     host: eth0 (10.9.0.250/24, default route by .254) ── veth ── lan (whoever a test puts there)
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { Serving } from '../lab/serving.ts';

const SPACE = 'TsmacvlanLocal';
const NETWORK = 'a'.repeat(64);
const ENDPOINT = '1'.repeat(64);
const FOUR = '10.9.0.0/24';
const SIX = 'fd09::/64';
const NEW_ENGINE = { 'com.docker.network.enable_ipv4': true };

/** One after the other they would take twice as long, and the engine would have given up. */
const MOST_FOR_TWENTY_MS = 7000;

const ip = (words: string) => execFileSync('ip', words.split(' '), { encoding: 'utf8' });
const lan = (words: string) => ip(`-n lan ${words}`);

describe('gateways on a real link', { skip: outsideLab(), timeout: 120_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-gateways-'));
  let daemon: Serving;
  let pools: string[] = [];

  before(async () => {
    ip('netns add lan');
    ip('link add eth0 type veth peer name port0 netns lan');
    ip('link set eth0 up');
    lan('link set port0 up');
    ip('address add 10.9.0.250/24 dev eth0');
    daemon = await Serving.start(directory);
  });

  after(async () => {
    await daemon.stop();
    rmSync(directory, { recursive: true });
  });

  afterEach(async () => {
    await remove();
    lan('address flush dev port0 scope global');
    ip('route flush default');
  });

  async function call(name: string, body: object): Promise<Readonly<Record<string, unknown>>> {
    const reply = await daemon.call(name, body);
    assert.equal(reply.status, 200, `${name}: ${reply.sentence}`);
    return reply.body;
  }

  async function remove(): Promise<void> {
    await call('NetworkDriver.DeleteEndpoint', { NetworkID: NETWORK, EndpointID: ENDPOINT });
    for (const PoolID of pools) await call('IpamDriver.ReleasePool', { PoolID });
    await call('NetworkDriver.DeleteNetwork', { NetworkID: NETWORK });
    pools = [];
  }

  /** One subnet as the engine requests it of our IPAM; `gateway`: what the user named, null for none, undefined when it is not asked for. */
  async function pooled(subnet: string, gateway: string | null | undefined, more: object = {}): Promise<object> {
    const request = {
      AddressSpace: SPACE,
      Pool: subnet,
      SubPool: '',
      Options: null,
      V6: subnet.includes(':'),
      ...more,
    };
    const { PoolID } = await call('IpamDriver.RequestPool', request);
    pools.push(String(PoolID));
    if (gateway === undefined) return { AddressSpace: SPACE, Pool: subnet };
    const Options = { RequestAddressType: 'com.docker.network.gateway' };
    const { Address } = await call('IpamDriver.RequestAddress', { PoolID, Address: gateway ?? '', Options });
    return { AddressSpace: SPACE, Pool: subnet, Gateway: Address };
  }

  const create = (options: Record<string, string>, four: object, six: object, engine: object = NEW_ENGINE) =>
    daemon.call('NetworkDriver.CreateNetwork', {
      NetworkID: NETWORK,
      Options: {
        'com.docker.network.generic': { parent: 'eth0', ...options },
        'com.docker.network.enable_ipv6': true,
        ...engine,
      },
      IPv4Data: [four],
      IPv6Data: [six],
    });

  /** What Join answers a container with both families. */
  async function joined(): Promise<unknown[]> {
    const Interface = { Address: '10.9.0.77/24', AddressIPv6: 'fd09::77/64', MacAddress: '' };
    const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };
    await call('NetworkDriver.CreateEndpoint', { ...ids, Interface, Options: {} });
    const { Gateway, GatewayIPv6 } = await call('NetworkDriver.Join', { ...ids, SandboxKey: '', Options: {} });
    return [Gateway, GatewayIPv6];
  }

  test('engines from 28 on ask for no IPv6 gateway, and for an IPv4 one unless there shall be none', async () => {
    const skips = async (options: Record<string, string>) => {
      const Options = { ...NEW_ENGINE, 'com.docker.network.generic': options };
      const { SkipIPv4, SkipIPv6 } = await call('NetworkDriver.GwAllocCheck', { Options });
      return [SkipIPv4, SkipIPv6];
    };
    assert.deepEqual(await skips({ parent: 'eth0' }), [false, true]);
    assert.deepEqual(await skips({ parent: 'eth0', gateway: 'ipv6' }), [true, true]);
    assert.deepEqual(await skips({ parent: 'eth0', gateway: 'none' }), [true, true]);
    assert.deepEqual(await skips({}), [true, true]);
  });

  for (const [engine, flags] of [
    ['28', NEW_ENGINE],
    ['26', {}],
  ] as const) {
    const unnamed = async () => {
      // The gateway of an IPv6 subnet is asked for by old engines alone.
      const [four, six] = [await pooled(FOUR, null), await pooled(SIX, engine === '26' ? null : undefined)];
      assert.equal((await create({}, four, six, flags)).status, 200);
      return [four, await joined()];
    };

    test(`the host's own gateway is that of a network that names none (engine ${engine})`, async () => {
      ip('route add default via 10.9.0.254 dev eth0');
      const [four, gateways] = await unnamed();
      assert.deepEqual(four, { AddressSpace: SPACE, Pool: FOUR, Gateway: '10.9.0.254/24' }, 'and docker shows it');
      assert.deepEqual(gateways, ['10.9.0.254', '']);
    });

    test(`without one it is the lowest address if somebody answers there (engine ${engine})`, async () => {
      lan('address add 10.9.0.1/24 dev port0');
      assert.deepEqual((await unnamed())[1], ['10.9.0.1', '']);
    });

    test(`and none if nobody does, which is said (engine ${engine})`, async () => {
      daemon.log = '';
      assert.deepEqual((await unnamed())[1], ['', '']);
      assert.match(daemon.log, /containers get no IPv4 default route; make the network with --gateway/);
    });

    test(`what was named is used, whether it answers or not (engine ${engine})`, async () => {
      ip('route add default via 10.9.0.254 dev eth0');
      const [four, six] = [await pooled(FOUR, '10.9.0.1'), await pooled(SIX, 'fd09::1')];
      assert.equal((await create({}, four, six, flags)).status, 200);
      assert.deepEqual(await joined(), ['10.9.0.1', 'fd09::1']);
    });
  }

  const theirs = (subnet: string, gateway: string) => ({
    AddressSpace: 'LocalDefault',
    Pool: subnet,
    Gateway: gateway,
  });

  test("with Docker's IPAM the engine's word counts, but not against the host's gateway and the LAN", async () => {
    const gateways = async (flags: object, six = 'fd09::1/64') => {
      const reply = await create({}, theirs(FOUR, '10.9.0.1/24'), theirs(SIX, six), flags);
      assert.equal(reply.status, 200, reply.sentence);
      const found = await joined();
      await remove();
      return found;
    };
    assert.deepEqual(await gateways(NEW_ENGINE), ['10.9.0.1', 'fd09::1']);
    assert.deepEqual(await gateways({}), ['10.9.0.1', ''], 'an engine before 28 may have made up the second');
    assert.deepEqual(await gateways({}, 'fd09::fe/64'), ['10.9.0.1', 'fd09::fe'], 'this no engine makes up');
    assert.deepEqual(await gateways({}, 'fd09::100/64'), ['10.9.0.1', ''], 'the first of a range');
    lan('address add fd09::1/64 dev port0 nodad');
    assert.deepEqual(await gateways({}), ['10.9.0.1', 'fd09::1'], 'somebody is there');
    ip('route add default via 10.9.0.254 dev eth0');
    assert.deepEqual(await gateways({}), ['10.9.0.254', 'fd09::1']);
    lan('address add 10.9.0.1/24 dev port0');
    assert.deepEqual(await gateways({}), ['10.9.0.1', 'fd09::1']);
  });

  test('an engine before 28, which sets no IPv6 route without an IPv4 gateway, has that said of such a network', async () => {
    const isSaid = async (flags: object, four: string | null, options: Record<string, string> = {}) => {
      daemon.log = '';
      const data = [await pooled(FOUR, four), await pooled(SIX, 'fd09::1')] as const;
      assert.equal((await create(options, ...data, flags)).status, 200);
      await remove();
      return daemon.log.includes('no IPv6 default route where there is no IPv4 gateway');
    };
    assert.equal(await isSaid({}, null), true);
    assert.equal(await isSaid({}, '10.9.0.1', { gateway: 'ipv6' }), true);
    assert.equal(await isSaid({}, '10.9.0.1'), false);
    assert.equal(await isSaid({}, '10.9.0.1', { gateway: 'ipv4' }), false);
    assert.equal(await isSaid({}, '10.9.0.1', { gateway: 'none' }), false);
    assert.equal(await isSaid(NEW_ENGINE, null), false);
    lan('address add 10.9.0.1/24 dev port0');
    assert.equal(await isSaid({}, null), false, 'the LAN told of one');
  });

  test('twenty networks at once that name none ask for theirs together, and not one after the other', async () => {
    const ids = Array.from({ length: 20 }, (_, n) => String(n).padStart(2, '0').repeat(32));
    lan('address add 10.18.0.1/24 dev port0');
    const gatewayOf = async (id: string, n: number) => {
      const four = await pooled(`10.${n}.0.0/24`, null);
      const Options = { 'com.docker.network.generic': { parent: 'eth0' }, ...NEW_ENGINE };
      await call('NetworkDriver.CreateNetwork', { NetworkID: id, Options, IPv4Data: [four], IPv6Data: [] });
      const Interface = { Address: `10.${n}.0.77/24`, AddressIPv6: '', MacAddress: '' };
      await call('NetworkDriver.CreateEndpoint', { NetworkID: id, EndpointID: id, Interface, Options: {} });
      const place = { NetworkID: id, EndpointID: id, SandboxKey: '', Options: {} };
      return (await call('NetworkDriver.Join', place))['Gateway'];
    };
    const begin = performance.now();
    const gateways = await Promise.all(ids.map((id, n) => gatewayOf(id, n + 10)));
    const tookMs = performance.now() - begin;
    assert.deepEqual(
      gateways,
      ids.map((_, n) => (n === 8 ? '10.18.0.1' : '')),
    );
    assert.ok(tookMs < MOST_FOR_TWENTY_MS, `${tookMs} ms`);
    for (const NetworkID of ids) await call('NetworkDriver.DeleteNetwork', { NetworkID });
  });

  test('-o gateway= says which', async () => {
    ip('route add default via 10.9.0.254 dev eth0');
    const gateways = async (gateway: string) => {
      const [four, six] = [await pooled(FOUR, '10.9.0.1'), await pooled(SIX, 'fd09::1')];
      const reply = await create({ gateway }, four, six);
      const found = reply.status === 200 ? await joined() : [reply.sentence];
      await remove();
      return found;
    };
    assert.deepEqual(await gateways('auto'), ['10.9.0.1', 'fd09::1']);
    assert.deepEqual(await gateways('none'), ['', '']);
    assert.deepEqual(await gateways('ipv4'), ['10.9.0.1', '']);
    assert.deepEqual(await gateways('ipv6'), ['', 'fd09::1']);
    assert.deepEqual(await gateways('10.9.0.9'), ['10.9.0.9', 'fd09::1']);
    assert.deepEqual(await gateways('fd09::9,10.9.0.9'), ['10.9.0.9', 'fd09::9']);
    assert.match(
      String(await gateways('10.10.0.9')),
      /^option -o gateway="10\.10\.0\.9" lies in none of the network's subnets/,
    );
    assert.equal(
      String(await gateways('10.9.0.0')),
      'address 10.9.0.0 is the network address of 10.9.0.0/24; choose another -o gateway=',
    );
    assert.match(
      String(await gateways('ipv7')),
      /^invalid value "ipv7" for -o gateway \(did you mean ipv4\?\); use auto, none, ipv4, ipv6, or an address, or one/,
    );
  });

  test('no container gets a gateway that -o gateway= names, and a network that comes again keeps its own', async () => {
    const [four, six] = [await pooled(FOUR, null), await pooled(SIX, undefined)];
    assert.equal((await create({ gateway: '10.9.0.2' }, four, six)).status, 200);
    const request = { PoolID: pools[0], Address: '', Options: { 'com.docker.network.endpoint.name': 'web' } };
    assert.equal((await call('IpamDriver.RequestAddress', request))['Address'], '10.9.0.3/24');
    assert.equal((await create({ gateway: '10.9.0.2' }, four, six)).status, 200);
    assert.deepEqual(await joined(), ['10.9.0.2', '']);
    assert.equal((await create({ gateway: '10.9.0.2' }, four, six)).status, 200, 'while a container runs');
  });

  /** What containers get of a network that names none. */
  async function unnamed(more: object = {}, options: Record<string, string> = {}): Promise<unknown> {
    Object.assign(daemon, { log: '', said: '' });
    const [four, six] = [await pooled(FOUR, null, more), await pooled(SIX, undefined)];
    const reply = await create(options, four, six);
    assert.equal(reply.status, 200, reply.sentence);
    const [gateway] = await joined();
    await remove();
    return gateway;
  }

  test('the lowest address of the subnet is asked, whatever range and exclusions say, and no other', async () => {
    for (const host of [2, 5, 64]) lan(`address add 10.9.0.${host}/24 dev port0`);
    const places = [{ SubPool: '10.9.0.64/26' }, { Options: { exclude: '10.9.0.1-10.9.0.4' } }, {}];
    for (const more of places) {
      assert.equal(await unnamed(more), '', 'a printer is no gateway');
      assert.match(daemon.log, /containers get no IPv4 default route/);
    }
    lan('address add 10.9.0.1/24 dev port0');
    for (const more of places) {
      assert.equal(await unnamed(more), '10.9.0.1');
      assert.match(daemon.said, /containers get the lowest address of the subnet, where somebody answers/);
    }
    assert.equal(await unnamed({ SubPool: '10.9.0.0/28' }), '', 'these are for containers');
    ip('route add default via 10.9.0.254 dev eth0');
    assert.equal(await unnamed({ SubPool: '10.9.0.0/28' }), '10.9.0.254');
    assert.match(daemon.said, /containers get the host's own default gateway/);
  });

  test('the host itself is a gateway only where containers reach it', async () => {
    ip('address add 10.9.0.1/24 dev eth0');
    try {
      assert.equal(await unnamed(), '');
      assert.match(daemon.log, /an address of this host, which containers do not reach: they do not get it/);
      assert.equal(await unnamed({}, { host_access: 'true', host_ip: '10.9.0.240' }), '10.9.0.1');
      for (const options of [{}, { gateway: '10.9.0.1' }]) {
        daemon.log = '';
        const [four, six] = [await pooled(FOUR, '10.9.0.1'), await pooled(SIX, undefined)];
        assert.equal((await create(options, four, six)).status, 200);
        assert.deepEqual(await joined(), ['10.9.0.1', ''], 'what was named is used');
        assert.match(daemon.log, /the gateway that was named is an address of this host/);
        await remove();
      }
    } finally {
      ip('address del 10.9.0.1/24 dev eth0');
    }
  });

  test("a default route of another routing table is not the host's own", async () => {
    ip('route add default via 10.9.0.254 dev eth0 table 100');
    assert.equal(await unnamed(), '');
    lan('address add 10.9.0.1/24 dev port0');
    assert.equal(await unnamed(), '10.9.0.1');
  });
});
