/**
 * Networks with `-o ipv6=`: the calls of an engine on the daemon's socket, a router that advertises itself, and the kernel of a container
 * that has what the engine was told.
 *
 *     daemon, containers ── eth0 ── br0 (ns "lan") ── kea and radvd
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import {
  addressOfMac,
  formatAddress,
  formatInterfaceAddress,
  parseInterfaceAddress,
  parsePrefix,
} from '../../src/address.ts';
import { isDaemonMac } from '../../src/lan/frames/mac.ts';
import { PacketSocket } from '../../src/kernel/packet.ts';
import type { Endpoint } from '../../src/model.ts';
import { readLocalStore } from '../../src/store/local.ts';
import { bundle } from '../lab/bundle.ts';
import { Capture } from '../lab/capture.ts';
import { DHCP6_SERVERS, Dhcp6Server } from '../lab/dhcp6server.ts';
import { DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { exchange } from '../lab/exchange.ts';
import { readExposition, valueOf } from '../lab/exposition.ts';
import { type Leased, LeasingEngine } from '../lab/leasing.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { AdvertisingRouter } from '../lab/router.ts';
import type { Order, Report } from '../lab/mortal.ts';
import { BUNDLE, Serving } from '../lab/serving.ts';
import { inNamespace } from '../lab/thread.ts';
import { advertisementFrame } from '../unit/lan/frames/raframes.ts';

const MORTAL = join(import.meta.dirname, '../lab/mortal.ts');
const MAC = '02:00:5e:10:00:aa';
const PLAN = { address: '10.77.0.1/24', range: ['10.77.0.100', '10.77.0.150'], leaseSeconds: 120 } as const;
/** RFC 8415 7.3 */
const RELEASE = 8;
const [OLD, NEW] = ['fd77:1::/64', 'fd77:2::/64'];

const ip = (words: string) => execFileSync('ip', words.split(' '), { encoding: 'utf8' });

/** An address of a link, as `ip -j address` shows it. */
interface Shown {
  readonly local: string;
  readonly scope: string;
  readonly prefixlen: number;
  readonly deprecated?: boolean;
  /** It is not used before nobody else is known to have it. */
  readonly tentative?: boolean;
  readonly valid_life_time: number;
  readonly preferred_life_time: number;
}

interface Container extends Leased {
  readonly address: string;
  /** Empty for none. */
  readonly addressIPv6: string;
}

describe('IPv6 addresses of routers', { skip: outsideLab() || withoutDhcp(), timeout: 600_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-ipv6-'));
  const metrics = join(directory, 'metrics.sock');
  const settings = { PROBE: 'fast', DHCP_TIMEOUT: '5', METRICS: `unix:${metrics}` };
  let lan: Lan;
  let daemon: Serving;
  let server: DhcpServer;
  let router: AdvertisingRouter | undefined;
  let count = 0;
  const containers = new Set<Container>();
  const leasing = new LeasingEngine(() => daemon);
  const { call, refusal, creation, remove, endpoint, tenancies } = leasing;

  before(async () => {
    lan = await Lan.create();
    ip('link add eth0 type veth peer name host0 netns lan');
    await lan.namespace.ip('link set host0 master br0 up');
    // The host itself makes no address of what routers say.
    execFileSync('sysctl', ['-qw', 'net.ipv6.conf.eth0.accept_ra=0']);
    ip('link set eth0 up');
    server = await DhcpServer.plug(lan, 'kea', 'kea', PLAN);
    daemon = await serve();
  });

  afterEach(async () => {
    for (const one of containers) await stop(one);
    for (const id of leasing.networks) await remove(id);
    await router?.unplug();
    router = undefined;
  });

  after(async () => {
    await daemon.stop();
    rmSync(directory, { recursive: true });
    await server.unplug();
    await lan.namespace.delete();
  });

  function serve(): Promise<Serving> {
    return Serving.start(directory, settings);
  }

  /** What its routers said counts as long as they wanted, also when they are gone. */
  async function forgetRouters(): Promise<void> {
    await daemon.stop();
    daemon = await serve();
  }

  async function advertise(...prefixes: Parameters<AdvertisingRouter['advertise']>[0]['prefixes']): Promise<void> {
    if (router === undefined) router = await AdvertisingRouter.plug(lan, `router${++count}`, { prefixes });
    else await router.advertise({ prefixes });
  }

  function create(options: Record<string, string> = {}): Promise<string> {
    return leasing.create({ ipv6: 'slaac', ...options });
  }

  /** As an engine starts a container: IPv6 is on where an address of it is told, which is set without detection of duplicates. */
  async function start(networkId: string, macAddress = ''): Promise<Container> {
    const { ids, body } = endpoint(networkId, { macAddress });
    const { Interface } = (await call('NetworkDriver.CreateEndpoint', body)) as { Interface: Record<string, string> };
    const { InterfaceName, GatewayIPv6 } = (await call('NetworkDriver.Join', ids)) as {
      InterfaceName: { SrcName: string };
      GatewayIPv6: string;
    };
    // Else there would be a default route beside the router's own.
    assert.equal(GatewayIPv6, '');
    const namespace = await Namespace.create(`c${++count}`);
    const [address = '', addressIPv6 = ''] = [Interface['Address'], Interface['AddressIPv6']];
    ip(`link set ${InterfaceName.SrcName} netns ${namespace.name} name eth0`);
    await namespace.ip(`address add ${address} dev eth0`);
    const isOff = addressIPv6 === '' ? '1' : '0';
    await namespace.run(['sysctl', '-qw', `net.ipv6.conf.eth0.disable_ipv6=${isOff}`]);
    if (addressIPv6 !== '') await namespace.ip(`address add ${addressIPv6} dev eth0 nodad`);
    await namespace.ip('link set eth0 up');
    const [link] = await namespace.show<{ address: string }>('link show eth0');
    const container = {
      networkId,
      endpointId: ids.EndpointID,
      namespace,
      macAddress: link?.address ?? '',
      address,
      addressIPv6,
    };
    containers.add(container);
    return container;
  }

  async function stop(container: Container): Promise<void> {
    containers.delete(container);
    await leasing.stop(container);
  }

  async function endpoints(): Promise<readonly Endpoint[]> {
    const store = readLocalStore(daemon.state);
    return store.endpoints.list().finally(() => store.close());
  }

  /** The row of `tsmacvlan leases` for an address, column by column. */
  function leaseRow(address: string): string[] {
    const env = { PATH: process.env.PATH, SOCKET: daemon.socket, STATE_DIR: daemon.state };
    const shown = execFileSync(process.execPath, [BUNDLE, 'leases'], { env, encoding: 'utf8' });
    const row = shown.split('\n').find((line) => line.startsWith(`${address.replace(/\/.*/, '')} `));
    assert.ok(row, shown);
    return row.split(/ {2,}/);
  }

  /** By the metrics, those that ended so. */
  async function wordsWithServers(outcome: string): Promise<number> {
    const { text } = await exchange(metrics, { path: '/metrics', method: 'GET' });
    return valueOf(readExposition(text), 'tsmacvlan_dhcp_exchanges_total', { outcome }) ?? NaN;
  }

  /** All of a container but that of its link. */
  async function addressesIn({ namespace }: Container): Promise<Shown[]> {
    const [link] = await namespace.show<{ addr_info: Shown[] }>('-6 address show eth0');
    return (link?.addr_info ?? []).filter(({ scope }) => scope === 'global');
  }

  async function defaultRoutes({ namespace }: Container): Promise<readonly { gateway?: string }[]> {
    return namespace.show<{ gateway?: string }>('-6 route show default');
  }

  /** What a host with this MAC address has in the prefix. */
  function madeOf(prefix: string, macAddress: string): string {
    return formatInterfaceAddress({ ...addressOfMac(parsePrefix(prefix)!, macAddress), length: 64 });
  }

  /** The container's kernel has followed the router's word. */
  async function assertOnlyAddress(container: Container): Promise<void> {
    const { namespace, addressIPv6 } = container;
    const isHeard = async () =>
      (await defaultRoutes(container)).length > 0 &&
      (await addressesIn(container)).every(({ preferred_life_time: seconds }) => seconds <= 300);
    const detail = async () => `${await namespace.ip('-6 address')}${await namespace.ip('-6 route')}${router?.log()}`;
    await until(isHeard, { detail });
    const shown = await addressesIn(container);
    assert.deepEqual(
      shown.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
      [addressIPv6],
    );
  }

  test('the engine is told the address that the kernel makes itself, which keeps its lifetime and its route', async () => {
    await advertise({ prefix: OLD });
    const network = await create();
    const capture = await Capture.start(lan.namespace, 'host0', 'icmp6[0] == 133');
    const one = await start(network);
    assert.equal(one.addressIPv6, madeOf(OLD, one.macAddress));
    await assertOnlyAddress(one);
    // Of an address that is set by hand the kernel says that it ends never; the router's word counts, two hours at least (RFC 4862 5.5.3 e).
    const [own] = await addressesIn(one);
    assert.ok(own !== undefined && own.valid_life_time <= 7200 && own.preferred_life_time <= 300, JSON.stringify(own));
    // Other machines of the LAN ask routers too; nobody does in the name of this host, or of its link for questions.
    const askers = (await capture.stop()).map(({ sourceMac }) => sourceMac);
    const [parent] = JSON.parse(ip('-j link show eth0')) as { address: string }[];
    assert.ok(askers.includes(one.macAddress));
    assert.deepEqual(
      askers.filter((mac) => mac === parent?.address || isDaemonMac(mac)),
      [],
    );
    const [record] = await tenancies();
    assert.deepEqual([record?.ipv6?.how, record?.ipv6?.address], ['slaac', one.addressIPv6]);
    assert.deepEqual(leaseRow(one.addressIPv6).slice(-4), ['slaac', record?.ipv6?.server, '-', 'bound']);
    assert.equal((await one.namespace.run(['ping', '-6', '-c1', '-W5', 'fd77::1'])).code, 0);
  });

  test('it is the same after a stop, SIGKILL of the daemon, and in another container with the MAC address', async () => {
    await advertise({ prefix: OLD });
    const network = await create();
    const first = await start(network, MAC);
    await stop(first);
    await daemon.stop('SIGKILL');
    daemon = await serve();
    const second = await start(network, MAC);
    assert.deepEqual([second.address, second.addressIPv6], [first.address, first.addressIPv6]);
    await assertOnlyAddress(second);
  });

  test('after a change of the prefix a running container uses the new one, and the next start is told it', async () => {
    await advertise({ prefix: OLD });
    const network = await create();
    const one = await start(network, MAC);
    await assertOnlyAddress(one);
    await advertise({ prefix: NEW }, { prefix: OLD, preferredSeconds: 0, validSeconds: 300 });
    const fresh = madeOf(NEW, MAC);
    await until(async () => {
      const shown = new Map((await addressesIn(one)).map((own) => [`${own.local}/${own.prefixlen}`, own]));
      if (!shown.has(fresh)) return false;
      return shown.get(one.addressIPv6)?.deprecated === true && shown.get(fresh)?.tentative === undefined;
    });
    const { stdout } = await one.namespace.run(['ip', '-6', 'route', 'get', 'fd77::1']);
    assert.match(stdout, new RegExp(`src ${fresh.replace('/64', '')} `), 'new connections come from the new address');
    assert.equal((await defaultRoutes(one)).length, 1);
    assert.equal((await one.namespace.run(['ping', '-6', '-c1', '-W5', 'fd77::1'])).code, 0);
    // It is heard of the change although what it was told before counts still.
    const other = await start(network);
    assert.equal(other.addressIPv6, madeOf(NEW, other.macAddress));
    await stop(one);
    assert.equal((await start(network, MAC)).addressIPv6, fresh);
  });

  test('mode passthru is refused while this host has an IPv6 address there', async () => {
    const network = await create({ macvlan_mode: 'passthru' });
    ip('address add 2001:db8::7/64 dev eth0 nodad');
    try {
      assert.match(await refusal(endpoint(network).body), /which has 2001:db8::7 there/);
    } finally {
      ip('address del 2001:db8::7/64 dev eth0');
    }
  });

  test('a router that retires takes its route along', async () => {
    await advertise({ prefix: OLD });
    const network = await create();
    const one = await start(network);
    await assertOnlyAddress(one);
    await router?.retire();
    await until(async () => (await defaultRoutes(one)).length === 0, {
      detail: async () => `${await one.namespace.ip('-6 route')}${router?.log()}`,
    });
  });

  for (const mode of ['private', 'vepa', 'passthru']) {
    test(`in mode ${mode} too`, async () => {
      await advertise({ prefix: OLD });
      const network = await create({ macvlan_mode: mode });
      const one = await start(network);
      assert.equal(one.addressIPv6, madeOf(OLD, one.macAddress));
      await assertOnlyAddress(one);
    });
  }

  // Each kernel on the LAN remembers each sender for five seconds, and the table of IPv6 neighbours has 1,024 rows for all namespaces of the
  // machine together: with as many senders as advertisements, IPv6 failed in every test that ran beside this one.
  test('ten thousand advertisements of four times as many routers as are remembered fill nothing, and the daemon lives', async () => {
    await advertise({ prefix: OLD });
    const liar = await Namespace.create('liar');
    await lan.plug(liar);
    const [link] = await liar.show<{ ifindex: number }>('link show lan0');
    const socket = inNamespace(liar.name, () => PacketSocket.open({ linkIndex: link?.ifindex ?? 0 }));
    const network = await create();
    const starting = start(network);
    for (let number = 0; number < 10_000; number++) {
      const routerMac = `02:00:00:00:00:${(number % 64).toString(16).padStart(2, '0')}`;
      const prefixes = [{ prefix: `fd99:${number.toString(16)}::/64`, isAutonomous: false }];
      socket.send(advertisementFrame({ routerMac, prefixes, lifetimeSeconds: 0 }));
    }
    socket.close();
    const one = await starting;
    assert.equal(one.addressIPv6, madeOf(OLD, one.macAddress));
    await liar.delete();
    const other = await start(network);
    assert.equal(other.addressIPv6, madeOf(OLD, other.macAddress));
  });

  test('twenty at once have an address each, and the router is asked once', async () => {
    await forgetRouters();
    await advertise({ prefix: OLD });
    const network = await create();
    const capture = await Capture.start(lan.namespace, 'host0', 'icmp6[0] == 133');
    const begun = Array.from({ length: 20 }, () => endpoint(network));
    const answers = await Promise.all(begun.map(({ body }) => call('NetworkDriver.CreateEndpoint', body)));
    const given = answers.map(({ Interface }) => Interface as { AddressIPv6: string; MacAddress: string });
    for (const { AddressIPv6, MacAddress } of given) assert.equal(AddressIPv6, madeOf(OLD, MacAddress));
    const askers = (await capture.stop()).map(({ sourceMac }) => sourceMac);
    const ours = new Set(given.map(({ MacAddress }) => MacAddress));
    assert.equal(new Set(askers.filter((mac) => ours.has(mac))).size, 1);
    for (const { ids } of begun) await call('NetworkDriver.DeleteEndpoint', ids);
  });

  test('a router without a prefix does not keep the word of a slower one from being heard', async () => {
    await forgetRouters();
    const [quickMac, slowMac] = ['02:00:00:00:01:01', '02:00:00:00:01:02'];
    const routers = await Namespace.create('routers');
    await lan.plug(routers);
    const [link] = await routers.show<{ ifindex: number }>('link show lan0');
    const socket = inNamespace(routers.name, () => PacketSocket.open({ linkIndex: link?.ifindex ?? 0 }));
    let asked = 0;
    // The slower one has not heard the first solicitation.
    const answering = setInterval(() => {
      for (const { frame } of socket.receive()) {
        if (frame[20] !== 58 || frame[54] !== 133) continue;
        socket.send(advertisementFrame({ routerMac: quickMac, isManaged: true }));
        if (++asked > 1) socket.send(advertisementFrame({ routerMac: slowMac, prefixes: [{ prefix: OLD }] }));
      }
    }, 5);
    try {
      const one = await start(await create(), MAC);
      assert.equal(one.addressIPv6, madeOf(OLD, MAC));
    } finally {
      clearInterval(answering);
      socket.close();
      await routers.delete();
    }
  });

  test('a router that learns nothing from the question looks for who asks, and finds it', async () => {
    await forgetRouters();
    await advertise({ prefix: OLD });
    // Without forwarding the kernel leaves the question to radvd, whose answer then goes nowhere until somebody says where.
    await router?.namespace.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=0', 'net.ipv6.conf.lan0.forwarding=0']);
    const networkId = await create({ ipv6: 'auto' });
    const { macAddress, addressIPv6 } = await start(networkId);
    assert.equal(addressIPv6, madeOf(OLD, macAddress));
  });

  test('without a router auto gives an IPv4 address alone and says so once, and slaac is refused', async () => {
    await forgetRouters();
    const [lenient, strict] = [await create({ ipv6: 'auto' }), await create()];
    for (const one of [await start(lenient), await start(lenient)]) {
      assert.equal(one.addressIPv6, '');
      assert.notEqual(one.address, '');
    }
    assert.match(await refusal(endpoint(strict).body), /no router on "eth0" advertised IPv6 within 4 s/);
    assert.equal(daemon.log.split('containers start without an IPv6 address').length, 2, daemon.log);
    await advertise({ prefix: OLD });
    // A router has a second to answer, which it may not have on a busy machine.
    await until(async () => {
      const later = await start(lenient);
      if (later.addressIPv6 === madeOf(OLD, later.macAddress)) return true;
      await stop(later);
      return false;
    });
  });

  test('a prefix of which hosts make no addresses is told', async () => {
    await forgetRouters();
    await advertise({ prefix: OLD, isAutonomous: false }, { prefix: 'fd77:3::/56' });
    const network = await create();
    assert.match(await refusal(endpoint(network).body), /the router on "eth0" advertises no IPv6 prefix/);
  });

  test('an address that somebody else has is not given', async () => {
    await advertise({ prefix: OLD });
    const stranger = await Namespace.create('stranger');
    await lan.plug(stranger);
    await stranger.ip(`address add ${madeOf(OLD, MAC)} dev lan0 nodad`);
    const [lenient, strict] = [await create({ ipv6: 'auto' }), await create()];
    const address = formatAddress(parseInterfaceAddress(madeOf(OLD, MAC))!);
    assert.match(
      await refusal(endpoint(strict, { macAddress: MAC }).body),
      new RegExp(`makes the IPv6 address ${address}, which .* on the LAN has`),
    );
    assert.equal((await start(lenient, MAC)).addressIPv6, '');
    await stranger.delete();
  });

  test('somebody who takes the address of a running container is a conflict', async () => {
    await advertise({ prefix: OLD });
    const network = await create();
    const one = await start(network, MAC);
    const taker = await Namespace.create('taker');
    await lan.plug(taker);
    await taker.ip(`address add ${one.addressIPv6} dev lan0 nodad`);
    const conflicts = async () => {
      const store = readLocalStore(daemon.state);
      return store.conflicts.list().finally(() => store.close());
    };
    await until(async () => {
      // It asks for a neighbour that is not there, in the name of the address.
      await taker.run(['ping', '-6', '-c1', '-W1', '-I', one.addressIPv6.replace('/64', ''), 'fd77:1::77']);
      return (await conflicts()).some(
        ({ address, ourMacAddress }) => `${address}/64` === one.addressIPv6 && ourMacAddress === MAC,
      );
    });
    await taker.delete();
  });

  describe('of a DHCPv6 server', () => {
    let giver: Dhcp6Server | undefined;

    afterEach(async () => {
      for (const one of containers) await stop(one);
      await giver?.unplug();
      giver = undefined;
    });

    const RESERVED = 'fd77:1::50';
    const plan = { prefix: 'fd77:1', leaseSeconds: 600, reservations: { [MAC]: RESERVED } };

    /** Hosts make no addresses of the prefix, and ask a server. */
    async function manage(prefix: string): Promise<void> {
      const advertising = { prefixes: [{ prefix, isAutonomous: false }], isManaged: true };
      if (router === undefined) router = await AdvertisingRouter.plug(lan, `router${++count}`, advertising);
      else await router.advertise(advertising);
    }

    async function assertLeased(container: Container): Promise<void> {
      const { namespace, addressIPv6, macAddress } = container;
      assert.equal(`${giver?.addressOf(macAddress)}/128`, addressIPv6, giver?.log());
      await until(async () => (await defaultRoutes(container)).length > 0, { detail: () => namespace.ip('-6 route') });
      const shown = await addressesIn(container);
      assert.deepEqual(
        shown.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
        [addressIPv6],
      );
      assert.equal((await namespace.run(['ping', '-6', '-c1', '-W5', 'fd77:1::53'])).code, 0);
    }

    for (const kind of DHCP6_SERVERS) {
      test(`${kind}: what the engine is told is what the server has on file, a reservation holds, and all is given back`, async () => {
        giver = await Dhcp6Server.plug(lan, `${kind}6`, kind, plan);
        await manage(OLD);
        const network = await create({ ipv6: kind === 'kea' ? 'auto' : 'dhcp' });
        const capture = await Capture.start(lan.namespace, 'host0', 'udp dst port 547');
        const one = await start(network);
        const frames = await capture.stop();
        assert.match(one.addressIPv6, /^fd77:1::1[0-9a-f]{2}\/128$/);
        assert.deepEqual([...new Set(frames.map(({ sourceMac }) => sourceMac))], [one.macAddress]);
        await assertLeased(one);
        const reserved = await start(network, MAC);
        assert.equal(reserved.addressIPv6, `${RESERVED}/128`);
        await stop(one);
        const again = await start(network);
        assert.deepEqual([again.macAddress, again.addressIPv6], [one.macAddress, one.addressIPv6]);
        for (const container of [again, reserved]) await stop(container);
        await remove(network);
        await until(() => giver?.addressOf(one.macAddress) === undefined, { detail: () => giver?.log() ?? '' });
      });
    }

    test('a lease is renewed from outside while the container runs, and got back from a server that forgot it', async () => {
      giver = await Dhcp6Server.plug(lan, 'renewing6', 'kea', { ...plan, leaseSeconds: 24 });
      await manage(OLD);
      const network = await create({ ipv6: 'dhcp' });
      const one = await start(network);
      const renewals = () => giver?.log().split(/DHCP6_LEASE_RENEW|LEASE_RENEW/).length ?? 0;
      const firstly = renewals();
      await until(() => renewals() >= firstly + 3, { detail: () => giver?.log() ?? '' });
      await giver.loseLeases();
      assert.equal(giver.addressOf(one.macAddress), undefined);
      await until(() => `${giver?.addressOf(one.macAddress)}/128` === one.addressIPv6, {
        detail: () => giver?.log() ?? '',
      });
      const [record] = await tenancies();
      assert.ok(record?.ipv6?.how === 'dhcpv6');
      assert.deepEqual([record.ipv6.state, record.ipv6.address], ['bound', one.addressIPv6]);
      const [source, by, ends = '', state] = leaseRow(one.addressIPv6).slice(-4);
      assert.deepEqual([source, by, state], ['dhcpv6', record.ipv6.server, 'bound']);
      assert.ok(Date.parse(ends) > Date.now());
    });

    test('after a change of the prefix the next start has an address of the new one', async () => {
      giver = await Dhcp6Server.plug(lan, 'moving6', 'kea', plan);
      await manage(OLD);
      const network = await create({ ipv6: 'auto' });
      const one = await start(network);
      await giver.change({ prefix: 'fd77:2', leaseSeconds: 600 });
      await manage(NEW);
      await stop(one);
      const again = await start(network, one.macAddress);
      assert.match(again.addressIPv6, /^fd77:2::1[0-9a-f]{2}\/128$/);
      assert.equal(`${giver.addressOf(again.macAddress)}/128`, again.addressIPv6);
    });

    test('what others use is declined; a server without addresses is told, and auto does without', async () => {
      giver = await Dhcp6Server.plug(lan, 'full6', 'kea', { prefix: 'fd77:1', leaseSeconds: 600, last: '101' });
      await manage(OLD);
      const squatter = await Namespace.create('squatter6');
      await lan.plug(squatter);
      await squatter.ip('address add fd77:1::100/64 dev lan0 nodad');
      const [lenient, strict] = [await create({ ipv6: 'auto' }), await create({ ipv6: 'dhcp' })];
      const before = await wordsWithServers('declined');
      assert.equal((await start(strict, MAC)).addressIPv6, 'fd77:1::101/128');
      await until(async () => (await wordsWithServers('declined')) === before + 1);
      assert.match(
        await refusal(endpoint(strict).body),
        /^the DHCPv6 server on "eth0" has no address for the container/,
      );
      assert.equal((await start(lenient)).addressIPv6, '');
      await squatter.delete();
    });

    test('with release=stop the server is told of the stop, by a frame of the container, when its link is down', async () => {
      giver = await Dhcp6Server.plug(lan, 'told6', 'kea', plan);
      await manage(OLD);
      const network = await create({ ipv6: 'dhcp', release: 'stop' });
      const one = await start(network);
      await assertLeased(one);
      const capture = await Capture.start(lan.namespace, 'host0', 'udp dst port 547');
      containers.delete(one);
      const ids = { NetworkID: network, EndpointID: one.endpointId };
      await call('NetworkDriver.Leave', ids);
      assert.equal(`${giver.addressOf(one.macAddress)}/128`, one.addressIPv6, 'its link is up still');
      await one.namespace.ip('link set eth0 down');
      const downAtMs = Date.now();
      await one.namespace.delete();
      await call('NetworkDriver.DeleteEndpoint', ids);
      await until(() => giver?.addressOf(one.macAddress) === undefined, { detail: () => giver?.log() ?? '' });
      // UDP's payload begins behind 48 bytes of headers.
      const releases = (await capture.stop()).filter(({ payload }) => payload[48] === RELEASE);
      assert.deepEqual([...new Set(releases.map(({ sourceMac }) => sourceMac))], [one.macAddress]);
      assert.ok(releases.every(({ atMs }) => atMs >= downAtMs));
      const again = await start(network, one.macAddress);
      assert.equal(`${giver.addressOf(again.macAddress)}/128`, again.addressIPv6);
    });

    test('killed after any step between the lease and the record of the endpoint: the next start has the same addresses in both families, and nothing is left', async () => {
      giver = await Dhcp6Server.plug(lan, 'crashing6', 'kea', plan);
      await manage(OLD);
      const network = await create({ ipv6: 'dhcp' });
      const program = await bundle(MORTAL, directory);
      const stepsFile = join(directory, 'steps');
      const restart = async () => {
        await daemon.stop();
        daemon = await Serving.start(directory, { ...settings, STEPS_FILE: stepsFile }, program);
      };
      /** The steps that a start has made when it is over, or killed. */
      const startedFor = async (macAddress: string, stepsToLive: number) => {
        // One that has asked the LAN before makes fewer steps.
        await restart();
        rmSync(stepsFile, { force: true });
        await daemon.tell<Report>({ stepsToLive } satisfies Order);
        const { ids, body } = endpoint(network, { macAddress });
        await daemon.call('NetworkDriver.CreateEndpoint', body).catch(() => undefined);
        return { ids, steps: readFileSync(stepsFile, 'utf8').trim().split('\n') };
      };
      /** Two steps may be one when both servers answer at once: a start that is whole before its last step is tried again. */
      const killedAfter = async (count: number) => {
        for (let tries = 1; ; tries++) {
          const macAddress = `02:00:5e:10:0${tries}:${count.toString(16).padStart(2, '0')}`;
          const { ids, steps } = await startedFor(macAddress, count);
          await restart();
          if (steps.length === count) return { macAddress, last: steps.at(-1) };
          assert.ok(tries < 5, `${count} steps, but it makes ${steps.length}: ${steps.join()}`);
          await call('NetworkDriver.DeleteEndpoint', ids);
        }
      };
      try {
        const whole = await startedFor('02:00:5e:10:00:b0', 1000);
        await call('NetworkDriver.DeleteEndpoint', whole.ids);
        const first = whole.steps.findIndex((step) => step.includes('tenancy_records'));
        assert.match(
          whole.steps.slice(first).join(),
          /^INSERT INTO tenancy_.*UPDATE tenancy_.*add macvlan.*INSERT INTO endpoint_/,
        );
        // An endpoint that is recorded the collector ends (netns/crash-points).
        for (let count = first + 1; count < whole.steps.length; count++) {
          const { macAddress, last } = await killedAfter(count);
          const lease = await server.leaseOf(macAddress);
          const given: string[] = [`${lease?.address}/24`, `${giver.addressOf(macAddress)}/128`];
          const one = await start(network, macAddress);
          assert.deepEqual([one.address, one.addressIPv6], given, last);
          await stop(one);
          for (const leases of [await server.leases(), giver.leases()])
            assert.equal(leases.filter((lease) => lease.macAddress === macAddress).length, 1);
          await until(async () => (await endpoints()).length === 0, { detail: () => daemon.log });
          assert.doesNotMatch(ip('-d link'), /tsmacvlan endpoint/);
        }
      } finally {
        await forgetRouters();
      }
    });

    test('without a server dhcp is refused', async () => {
      const network = await create({ ipv6: 'dhcp' });
      assert.match(await refusal(endpoint(network).body), /no DHCPv6 server answered on "eth0" within \d s/);
    });
  });

  test('what does not go together is refused when the network is made', async () => {
    const cases: [object, RegExp][] = [
      [creation({ source: '', ipv6: 'auto' }), /option -o ipv6=auto is for networks whose addresses are the LAN's/],
      [creation({ ipv6: 'on' }), /invalid value "on" for -o ipv6; use off or auto or slaac or dhcp/],
      [
        creation({ ipv6: 'auto' }, { flags: { 'com.docker.network.enable_ipv6': true } }),
        /leave --ipv6 out and add -o ipv6=auto/,
      ],
      [
        creation({ ipv6: 'auto' }, { flags: { 'com.docker.network.internal': true } }),
        /and a network with --internal has none/,
      ],
      [creation({ ipv6: 'auto', mtu: '1200' }), /mtu 1200 is below 1280/],
    ];
    for (const [body, sentence] of cases) assert.match(await refusal(body, 'NetworkDriver.CreateNetwork'), sentence);
  });
});
