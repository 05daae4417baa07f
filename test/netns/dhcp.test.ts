/**
 * Networks whose addresses are the LAN's DHCP server's: the calls of an engine on the daemon's socket, real servers, real links.
 *
 *     daemon, containers ── eth0 ── br0 (ns "lan") ── dnsmasq, isc-dhcpd, kea or udhcpd
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { Capture } from '../lab/capture.ts';
import { DHCP_SERVERS, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { type LeaseWish, type Leased, LeasingEngine } from '../lab/leasing.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { LIES, RogueServer, flooding, honest, late, refusing } from '../lab/rogueserver.ts';
import { Serving } from '../lab/serving.ts';

const RESERVED = '02:00:5e:10:00:aa';
const PLAN = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: 120,
  reservations: { [RESERVED]: '10.77.0.50' },
  routes: { '10.9.0.0/16': '10.77.0.254', '0.0.0.0/0': '10.77.0.1' },
  asksFirst: false,
} as const;

const ip = (words: string) => execFileSync('ip', words.split(' '), { encoding: 'utf8' });

interface Container extends Leased {
  readonly address: string;
  readonly gateway: string;
  readonly routes: string;
}

describe('addresses of DHCP servers', { skip: outsideLab() || withoutDhcp(), timeout: 300_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-dhcp-'));
  let lan: Lan;
  let daemon: Serving;
  let server: DhcpServer | undefined;
  let count = 0;
  const containers = new Set<Container>();
  const leasing = new LeasingEngine(() => daemon);
  const { call, refusal, creation, create, remove, endpoint, tenancies } = leasing;

  before(async () => {
    lan = await Lan.create();
    ip('link add eth0 type veth peer name host0 netns lan');
    await lan.namespace.ip('link set host0 master br0 up');
    ip('link set eth0 up');
    daemon = await serve();
  });

  afterEach(async () => {
    for (const one of containers) await stop(one);
    for (const id of leasing.networks) await remove(id);
    await server?.stop();
  });

  after(async () => {
    await daemon.stop();
    rmSync(directory, { recursive: true });
    await lan.namespace.delete();
  });

  function serve(): Promise<Serving> {
    return Serving.start(directory, { PROBE: 'fast', DHCP_TIMEOUT: '5' });
  }

  /** As an engine starts a container: what it is answered is what the container's kernel gets. */
  async function start(networkId: string, wish: LeaseWish = {}): Promise<Container> {
    const { ids, body } = endpoint(networkId, wish);
    const { Interface } = (await call('NetworkDriver.CreateEndpoint', body)) as { Interface: Record<string, string> };
    const joined = (await call('NetworkDriver.Join', ids)) as {
      InterfaceName: { SrcName: string };
      Gateway: string;
      StaticRoutes: { Destination: string; NextHop?: string }[];
    };
    const namespace = await Namespace.create(`c${++count}`);
    const address = Interface['Address'] ?? '';
    ip(`link set ${joined.InterfaceName.SrcName} netns ${namespace.name} name eth0`);
    await namespace.ip(`address add ${address} dev eth0`);
    await namespace.ip('link set eth0 up');
    if (joined.Gateway !== '') await namespace.ip(`route add default via ${joined.Gateway}`);
    const routes = joined.StaticRoutes.map(({ Destination, NextHop }) => `${Destination} ${NextHop ?? 'link'}`).join(
      ', ',
    );
    const [link] = await namespace.show<{ address: string }>('link show eth0');
    const container = {
      networkId,
      endpointId: ids.EndpointID,
      namespace,
      address,
      macAddress: link?.address ?? '',
      gateway: joined.Gateway,
      routes,
    };
    assert.equal(Interface['MacAddress'] ?? wish.macAddress, container.macAddress);
    containers.add(container);
    return container;
  }

  async function stop(container: Container): Promise<void> {
    containers.delete(container);
    await leasing.stop(container);
  }

  const hostPart = (address: string) => address.replace(/\/\d+$/, '');

  for (const kind of DHCP_SERVERS) {
    test(`${kind}: what the engine is told is what the server has on file; a restart, a reservation, a name keep it`, async () => {
      server = await DhcpServer.plug(lan, kind, kind, PLAN);
      const network = await create();
      const first = await start(network, { options: { hostname: 'web' } });
      assert.match(first.address, /^10\.77\.0\.1[0-5]\d\/24$/);
      assert.deepEqual([first.gateway, first.routes], ['10.77.0.1', '10.9.0.0/16 10.77.0.254']);
      const lease = await server.leaseOf(first.macAddress);
      assert.deepEqual([lease?.address, lease?.hostname], [hostPart(first.address), 'web']);
      await stop(first);
      const again = await start(network, { options: { hostname: 'web' } });
      assert.deepEqual([again.macAddress, again.address], [first.macAddress, first.address]);

      const reserved = await start(network, { macAddress: RESERVED });
      assert.equal(reserved.address, '10.77.0.50/24');

      const nameless = await start(network);
      assert.notEqual(nameless.address, again.address);
      await stop(nameless);
      const next = await start(network);
      assert.deepEqual([next.macAddress, next.address], [nameless.macAddress, nameless.address]);

      for (const one of [again, reserved, next]) await stop(one);
      await remove(network);
      assert.deepEqual(await tenancies(), []);
      // Of reserved addresses servers keep no leases, or for ever.
      if (kind !== 'isc') await until(async () => (await server?.leaseOf(next.macAddress)) === undefined);
    });
  }

  for (const mode of ['private', 'vepa', 'passthru']) {
    test(`in mode ${mode} too`, async () => {
      server = await DhcpServer.plug(lan, `kea-${mode}`, 'kea', PLAN);
      const network = await create({ macvlan_mode: mode });
      const one = await start(network);
      assert.equal((await server.leaseOf(one.macAddress))?.address, hostPart(one.address));
    });
  }

  test('mode passthru is refused while this host has an address there', async () => {
    const network = await create({ macvlan_mode: 'passthru' });
    ip('address add 192.0.2.7/24 dev eth0');
    try {
      assert.match(await refusal(endpoint(network).body), /which has 192\.0\.2\.7 there/);
    } finally {
      ip('address del 192.0.2.7/24 dev eth0');
    }
  });

  test('what goes with no DHCP server is refused when the network is made', async () => {
    const subnet = { IPv4Data: [{ AddressSpace: 'LocalDefault', Pool: '10.77.0.0/24' }] };
    const cases: [object, RegExp][] = [
      [
        creation({}, { data: subnet }),
        /not the IPAM that has subnet 10\.77\.0\.0\/24; create the network with --ipam-driver null/,
      ],
      [creation({ parent: '' }), /option -o source= needs a parent interface/],
      [creation({ source: '', release: 'stop' }), /option -o release= is for addresses of a DHCP server/],
      [creation({ source: 'dchp' }), /"dchp".*dhcp/],
    ];
    for (const [body, sentence] of cases) assert.match(await refusal(body, 'NetworkDriver.CreateNetwork'), sentence);
  });

  test('what a container wishes for and cannot have is refused with the reason', async () => {
    server = await DhcpServer.plug(lan, 'wishes', 'kea', PLAN);
    const network = await create();
    const wish = (options: Record<string, string>) => refusal(endpoint(network, { options }).body);
    assert.match(await wish({ ip: '10.77.0' }), /"10\.77\.0" is no IPv4 address/);
    assert.match(await wish({ hostname: 'web_1' }), /"web_1" is no host name/);
    assert.match(
      await wish({ ip: '10.77.0.50' }),
      /the DHCP server 10\.77\.0\.1 gives 10\.77\.0\.1\d\d, not 10\.77\.0\.50/,
    );
    const given = await start(network, { options: { ip: '10.77.0.123' } });
    assert.equal(given.address, '10.77.0.123/24');
    assert.match(
      await refusal(endpoint(network, { macAddress: given.macAddress }).body),
      /is already used on parent "eth0"/,
    );
  });

  test('without a server, and with one that refuses, the sentence says so', async () => {
    const network = await create();
    assert.match(await refusal(endpoint(network).body), /no DHCP server answered on "eth0" within 5 s/);
    const rogue = await RogueServer.plug(lan, 'refusing', '02:00:5e:10:00:67', '10.77.0.7');
    [rogue.gives, rogue.behave] = ['10.77.0.77', refusing];
    assert.match(
      await refusal(endpoint(network).body),
      /refuses the address that it has offered \("no lease for you"\)/,
    );
    rogue.close();
    assert.deepEqual(await tenancies(), []);
  });

  test('lies and ten thousand offers lead to no address that nobody gave, and the daemon lives', async () => {
    const rogue = await RogueServer.plug(lan, 'lying', '02:00:5e:10:00:68', '10.77.0.8');
    rogue.gives = '10.77.0.88';
    const network = await create();
    const { ids, body } = endpoint(network);
    for (const [lie, behave] of Object.entries(LIES)) {
      rogue.behave = behave;
      const { Interface } = (await call('NetworkDriver.CreateEndpoint', body)) as { Interface: Record<string, string> };
      assert.equal(Interface['Address'], '10.77.0.88/24', lie);
      await call('NetworkDriver.DeleteEndpoint', ids);
    }
    rogue.behave = flooding(10_000);
    assert.match(await refusal(body), /no DHCP server answered/);
    rogue.close();
  });

  test('a network that is removed while a container waits for a server leaves nothing, and the server has its address back', async () => {
    const rogue = await RogueServer.plug(lan, 'removed', '02:00:5e:10:00:69', '10.77.0.9');
    [rogue.gives, rogue.behave] = ['10.77.0.99', late(1000)];
    const network = await create();
    const starting = refusal(endpoint(network).body);
    await until(() => rogue.heard.length > 0);
    await remove(network);
    assert.match(await starting, /^network .* is not known to this plugin/);
    await until(() => rogue.heard.some(({ type }) => type === 'RELEASE'));
    assert.deepEqual(await tenancies(), []);
    assert.doesNotMatch(ip('-brief link show type macvlan'), /^tsm(?!p)/m);
    rogue.close();
  });

  test('an engine that is killed while a container waits for a server leaves its MAC address to the next start', async () => {
    const rogue = await RogueServer.plug(lan, 'killed', '02:00:5e:10:00:71', '10.77.0.8');
    [rogue.gives, rogue.behave] = ['10.77.0.98', () => undefined];
    const network = await create();
    const wish = { options: { hostname: 'web' } };
    const engine = connect(daemon.socket);
    const body = JSON.stringify(endpoint(network, wish).body);
    engine.write(
      `POST /NetworkDriver.CreateEndpoint HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await until(() => rogue.heard.length > 0);
    engine.destroy();
    await until(() => /outcome=HUNG_UP/.test(daemon.log));
    rogue.behave = honest;
    const started = await start(network, wish);
    assert.equal(started.macAddress, rogue.heard[0]?.macAddress);
    rogue.close();
  });

  test('addresses of the server and of a network of our own IPAM beside are never the same, also while neither is heard', async () => {
    const rogue = await RogueServer.plug(lan, 'beside', '02:00:5e:10:00:70', '10.77.0.7');
    rogue.gives = '10.77.0.60';
    const pool = {
      AddressSpace: 'TsmacvlanLocal',
      Pool: '10.77.0.0/24',
      SubPool: '10.77.0.60/31',
      V6: false,
      Options: {},
    };
    const { PoolID } = await call('IpamDriver.RequestPool', pool);
    const data = { IPv4Data: [{ AddressSpace: 'TsmacvlanLocal', Pool: '10.77.0.0/24', Gateway: '10.77.0.7/24' }] };
    const beside = creation({ source: '' }, { data });
    await call('NetworkDriver.CreateNetwork', beside);
    leasing.networks.add(beside.NetworkID);
    const request = async () => String((await call('IpamDriver.RequestAddress', { PoolID, Address: '' }))['Address']);
    const giveBack = (address: string) => call('IpamDriver.ReleaseAddress', { PoolID, Address: hostPart(address) });

    const network = await create();
    const made = endpoint(network);
    await call('NetworkDriver.CreateEndpoint', made.body);
    const whileMade = await request();
    assert.equal(whileMade, '10.77.0.61/24');
    await giveBack(whileMade);
    await call('NetworkDriver.DeleteEndpoint', made.ids);
    const whileStopped = await request();
    assert.equal(whileStopped, '10.77.0.61/24');
    assert.match(
      await refusal({ PoolID, Address: '10.77.0.60' }, 'IpamDriver.RequestAddress'),
      /^address 10\.77\.0\.60 is already used on this host by /,
    );

    const ours = endpoint(beside.NetworkID);
    const Interface = { Address: whileStopped, AddressIPv6: '', MacAddress: '' };
    await call('NetworkDriver.CreateEndpoint', { ...ours.body, Interface });
    rogue.behave = (asked, server) => {
      if (asked.type === 'DECLINE') server.gives = '10.77.0.90';
      honest(asked, server);
    };
    rogue.gives = '10.77.0.61';
    const other = await start(network);
    assert.equal(other.address, '10.77.0.90/24');
    await call('NetworkDriver.DeleteEndpoint', ours.ids);
    await giveBack(whileStopped);
    rogue.close();
  });

  test('an address that somebody uses without the server is declined, and another one taken', async () => {
    server = await DhcpServer.plug(lan, 'used', 'kea', { ...PLAN, range: ['10.77.0.100', '10.77.0.109'] });
    const stranger = await Namespace.create('stranger');
    await lan.plug(stranger);
    for (let host = 100; host < 109; host++) await stranger.ip(`address add 10.77.0.${host}/24 dev lan0`);
    const network = await create();
    const { body } = endpoint(network);
    const answers: string[] = [];
    // Three at most are declined in one call.
    for (let attempt = 0; attempt < 4 && !answers.includes(''); attempt++) {
      const reply = await daemon.call('NetworkDriver.CreateEndpoint', body);
      answers.push(reply.sentence);
      if (reply.status === 200)
        assert.equal((reply.body['Interface'] as Record<string, string>)['Address'], '10.77.0.109/24');
    }
    assert.ok(answers.includes(''), answers.join('\n'));
    for (const sentence of answers.filter(Boolean))
      assert.match(sentence, /3 addresses that others use, at last 10\.77\.0\.10\d, which .* has/);
    await stranger.delete();
  });

  test('with release=stop the server learns of each stop', async () => {
    server = await DhcpServer.plug(lan, 'release', 'dnsmasq', PLAN);
    const network = await create({ release: 'stop' });
    const one = await start(network);
    assert.ok(await server.leaseOf(one.macAddress));
    await stop(one);
    await until(async () => (await server?.leaseOf(one.macAddress)) === undefined);
    const again = await start(network);
    assert.equal(again.macAddress, one.macAddress);
  });

  test('twenty at once get twenty addresses, as the server has them on file', async () => {
    server = await DhcpServer.plug(lan, 'crowd', 'kea', PLAN);
    const network = await create();
    const begun = Array.from({ length: 20 }, () => endpoint(network));
    const answers = await Promise.all(begun.map(({ body }) => call('NetworkDriver.CreateEndpoint', body)));
    const given = answers.map(({ Interface }) => Interface as { Address: string; MacAddress: string });
    assert.equal(new Set(given.map(({ Address }) => Address)).size, 20);
    for (const { Address, MacAddress } of given)
      assert.equal((await server.leaseOf(MacAddress))?.address, hostPart(Address));
  });

  test('a lease is kept while its container runs: renewed, after kill -9 of the daemon, and when the server lost its leases', async () => {
    server = await DhcpServer.plug(lan, 'short', 'kea', { ...PLAN, leaseSeconds: 20 });
    const capture = await Capture.start(lan.namespace, 'br0', 'udp dst port 67');
    const network = await create();
    const one = await start(network, { options: { hostname: 'kept' } });
    const endsAtMs = async () => (await server?.leaseOf(one.macAddress))?.endsAtMs ?? 0;
    const renewed = async () => {
      const before = await endsAtMs();
      await until(async () => (await endsAtMs()) > before, { pollMs: 200 });
    };
    await renewed();
    await daemon.stop('SIGKILL');
    daemon = await serve();
    await renewed();
    await renewed();
    await server.loseLeases();
    await until(async () => (await server?.leaseOf(one.macAddress))?.address === hostPart(one.address), {
      pollMs: 200,
    });
    assert.deepEqual(
      (await tenancies()).map(({ state, address }) => [state, address]),
      [['bound', one.address]],
    );
    await stop(one);
    const again = await start(network, { options: { hostname: 'kept' } });
    assert.deepEqual([again.macAddress, again.address], [one.macAddress, one.address]);
    const sources = new Set((await capture.stop()).map(({ sourceMac }) => sourceMac));
    assert.deepEqual([...sources], [one.macAddress], 'nothing comes from another MAC address');
  });
});
