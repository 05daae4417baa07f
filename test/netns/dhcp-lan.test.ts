/**
 * Addresses of the LAN's own DHCP server (`-o source=dhcp --ipam-driver null`), judged by the container's kernel, the server's lease
 * file and the frames on the wire. The engine is played; what an engine has a part in is in docker/dhcp.test.ts.
 *
 *     host "one": tsmacvlan, containers ── lan0, lan1 ── br0 (ns "lan") ── dnsmasq, isc-dhcpd, kea, udhcpd or a rogue server
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Capture, type Frame } from '../lab/capture.ts';
import { doubles } from '../lab/census.ts';
import { DHCP_SERVERS, type DhcpKind, type DhcpLease, type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan, type Namespace } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import {
  LIES,
  RogueServer,
  type Behaviour,
  empty,
  flooding,
  honest,
  late,
  refusing,
  unicast,
} from '../lab/rogueserver.ts';
import { SilentTaker } from '../lab/silenttaker.ts';
import { type Container, type FakeNetwork, Refusal, Understudy, type Wish } from '../lab/understudy.ts';

const RESERVED = '02:00:5e:10:00:aa';
const RESERVED_ADDRESS = '10.77.0.50';
const PLAN = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: 120,
  reservations: { [RESERVED]: RESERVED_ADDRESS },
} as const satisfies DhcpPlan;
const DHCP = { parent: 'lan0', source: 'dhcp' };
const ROGUE = '10.77.0.6';
const STRANGER = '3c:22:fb:10:aa:02';

/** A container as its kernel knows it. */
interface Seen {
  readonly macAddress: string;
  readonly address: string;
}

const skip = outsideLab() || withoutDhcp();

describe("addresses of the LAN's DHCP server", { skip, timeout: 500_000 }, () => {
  let lan: Lan;
  let host: Host;
  let engine: Understudy;
  const servers: DhcpServer[] = [];
  let served = 0;

  before(async () => {
    lan = await Lan.create();
    host = await Host.boot('one', lan, ['lan0', 'lan1']);
    engine = new Understudy(await Plugin.start(host));
  });

  afterEach(async () => {
    await engine.clear();
    for (const server of servers.splice(0)) await server.unplug();
    assert.doesNotMatch(engine.plugin.log(), /internal error|INTERNAL/);
  });

  after(() => engine.plugin.stop());

  async function serve(kind: DhcpKind, change: Partial<DhcpPlan> = {}): Promise<DhcpServer> {
    const server = await DhcpServer.plug(lan, `server${++served}`, kind, { ...PLAN, ...change });
    servers.push(server);
    return server;
  }

  async function seen({ namespace }: Container): Promise<Seen> {
    const [link] = await namespace.show<{ address: string; addr_info: { local: string; prefixlen: number }[] }>(
      '-4 address show dev eth0',
    );
    const [{ address: macAddress } = { address: '' }] = await namespace.show<{ address: string }>('link show dev eth0');
    const { local = '', prefixlen = 0 } = link?.addr_info[0] ?? {};
    return { macAddress, address: `${local}/${prefixlen}` };
  }

  /** What the engine was answered, the kernel and the server tell the same. */
  async function assertTold(container: Container, server: DhcpServer): Promise<Seen> {
    const { macAddress, address } = await seen(container);
    assert.equal(container.address, address);
    assert.equal(`${(await server.leaseOf(macAddress))?.address}/24`, address, server.log());
    return { macAddress, address };
  }

  async function runAgain(container: Container, network: FakeNetwork, wish?: Wish): Promise<Container> {
    await engine.remove(container);
    return engine.run(network, wish);
  }

  for (const kind of DHCP_SERVERS) {
    test(`${kind}: one address in the kernel and on file, by MAC address, by name, and again`, async () => {
      const server = await serve(kind);
      const network = await engine.createNullNetwork(DHCP);
      const nameless = await engine.run(network);
      const first = await assertTold(nameless, server);
      const named = await engine.run(network, { options: { hostname: 'web' } });
      const web = await assertTold(named, server);
      assert.equal((await server.leaseOf(web.macAddress))?.hostname, 'web');
      const reserved = await engine.run(network, { macAddress: RESERVED });
      assert.deepEqual(await assertTold(reserved, server), {
        macAddress: RESERVED,
        address: `${RESERVED_ADDRESS}/24`,
      });

      await engine.plugin.restart('SIGKILL');
      assert.deepEqual(await assertTold(await runAgain(nameless, network), server), first);
      assert.deepEqual(await assertTold(await runAgain(named, network, { options: { hostname: 'web' } }), server), web);
      await engine.clear();
      // udhcpd keeps what is reserved for its time, whatever the client says.
      const isLeft = ({ macAddress }: DhcpLease) => kind !== 'udhcpd' || macAddress !== RESERVED;
      await until(async () => !(await server.leases()).some(isLeft), { detail: () => server.log() });
    });
  }

  test('of two servers one gives the address, and only that one has it on file', async () => {
    const [kea, dnsmasq] = [
      await serve('kea', { range: ['10.77.0.100', '10.77.0.120'] }),
      await serve('dnsmasq', { address: '10.77.0.2/24', range: ['10.77.0.130', '10.77.0.150'] }),
    ];
    const network = await engine.createNullNetwork(DHCP);
    const container = await engine.run(network);
    const { macAddress, address } = await seen(container);
    const onFile = [await kea.leaseOf(macAddress), await dnsmasq.leaseOf(macAddress)].map((lease) => lease?.address);
    assert.deepEqual(onFile.filter(Boolean), [address.split('/')[0]]);
    // The other one is away: the one that is left gives the same address or one of its own, and never one that it does not have.
    const [staying, leaving] = onFile[0] === undefined ? [dnsmasq, kea] : [kea, dnsmasq];
    await leaving.stop();
    assert.deepEqual(await assertTold(await runAgain(container, network), staying), { macAddress, address });
  });

  test('a server in a container beside gives addresses, and itself goes on with its own', async () => {
    const sibling = await engine.run(await engine.createNetwork({ subnet: '10.77.0.0/24' }), { address: '10.77.0.3' });
    const plan = { ...PLAN, address: '10.77.0.3/24' };
    const server = await DhcpServer.start(sibling.namespace, 'kea', plan, 'eth0');
    servers.push(server);
    await assertTold(await engine.run(await engine.createNullNetwork(DHCP)), server);
    await server.stop();
  });

  for (const mode of ['bridge', 'private', 'vepa', 'passthru']) {
    test(`mode ${mode}: all frames to servers are from the MAC address of the container`, async () => {
      const parent = mode === 'passthru' ? 'lan1' : 'lan0';
      const [link] = await host.namespace.show<{ address: string }>(`link show dev ${parent}`);
      const server = await serve('kea');
      const capture = await Capture.start(lan.namespace, host.ports[parent] ?? '', 'udp port 67 or udp port 68 or arp');
      const container = await engine.run(await engine.createNullNetwork({ ...DHCP, parent, macvlan_mode: mode }));
      const { macAddress } = await assertTold(container, server);
      const frames = await capture.stop();
      const requests = frames.filter(isDhcpRequest);
      assert.deepEqual([...new Set(requests.map(({ sourceMac }) => sourceMac))], [macAddress]);
      assert.deepEqual([...new Set(requests.map(clientOf))], [macAddress]);
      assert.ok(requests.length >= 2);
      if (mode !== 'passthru')
        assert.deepEqual(
          frames.filter(({ sourceMac }) => sourceMac === link?.address),
          [],
        );
    });
  }

  test('twenty start at once, each with an address of its own', async () => {
    const server = await serve('kea');
    const network = await engine.createNullNetwork(DHCP);
    const containers = await Promise.all(Array.from({ length: 20 }, () => engine.run(network)));
    const all = await Promise.all(containers.map(seen));
    assert.deepEqual(doubles(all.map(({ address }) => address)), []);
    assert.deepEqual(doubles(all.map(({ macAddress }) => macAddress)), []);
    const onFile = (await server.leases()).map(({ macAddress, address }) => ({ macAddress, address: `${address}/24` }));
    const byMac = (one: Seen, other: Seen) => one.macAddress.localeCompare(other.macAddress);
    assert.deepEqual(onFile.toSorted(byMac), all.toSorted(byMac));
  });

  test("the host's own end has an address of the server, which is kept, shared by networks, and given back by the last of them", async () => {
    const server = await serve('kea', { leaseSeconds: 6 });
    const access = { ...DHCP, host_access: 'true' };
    const first = await engine.createNullNetwork(access);
    const container = await engine.run(first);
    const ofHost = async () => {
      const all = await host.namespace.show<{ ifname: string; address: string; addr_info: { local: string }[] }>(
        '-4 address show',
      );
      const [{ ifname, addr_info } = { ifname: '', addr_info: [] }] = all.filter((one) =>
        one.ifname.startsWith('tsmh'),
      );
      const [link] = ifname === '' ? [] : await host.namespace.show<{ address: string }>(`link show dev ${ifname}`);
      return { ifname, macAddress: link?.address ?? '', address: addr_info?.[0]?.local ?? '' };
    };
    const end = await ofHost();
    assert.equal((await server.leaseOf(end.macAddress))?.address, end.address);
    const pings = async (from: Namespace, address: string) =>
      assert.equal((await from.run(['ping', '-c', '1', '-W', '5', address])).code, 0, address);
    await pings(host.namespace, container.address.replace(/\/.*/, ''));
    await pings(container.namespace, end.address);

    const second = await engine.createNullNetwork(access);
    await engine.remove(container);
    await engine.deleteNetwork(first);
    assert.deepEqual(await ofHost(), end);
    await host.namespace.ip(`link delete ${end.ifname}`);
    await engine.plugin.restart('SIGKILL');
    await until(async () => (await ofHost()).address !== '');
    assert.deepEqual(await ofHost(), end);
    const endsAtMs = async () => (await server.leaseOf(end.macAddress))?.endsAtMs ?? 0;
    const promisedMs = await endsAtMs();
    await until(async () => (await endsAtMs()) > promisedMs);
    assert.match(await engine.plugin.command('leases'), new RegExp(`^${end.address} +host .* bound$`, 'm'));
    await engine.deleteNetwork(second);
    assert.equal((await ofHost()).ifname, '');
    await until(async () => (await server.leaseOf(end.macAddress)) === undefined);
  });

  test("a network whose host's end gets no address is not made, and leaves nothing", async () => {
    engine.plugin.set({ DHCP_TIMEOUT: '5' });
    await engine.plugin.restart();
    await assert.rejects(
      engine.createNullNetwork({ ...DHCP, host_access: 'true' }),
      /no DHCP server answered on "lan0"/,
    );
    assert.equal(await engine.plugin.command('networks'), 'none');
    assert.equal(await engine.plugin.command('leases'), 'none');
    engine.plugin.set({ DHCP_TIMEOUT: '25' });
    await engine.plugin.restart();
  });

  test('an address that somebody has is declined, and the container gets another', async () => {
    const stranger = await SilentTaker.plug(lan, 'stranger', STRANGER);
    await stranger.take('10.77.0.100');
    const server = await serve('kea', { range: ['10.77.0.100', '10.77.0.101'] });
    const container = await engine.run(await engine.createNullNetwork(DHCP));
    assert.equal((await assertTold(container, server)).address, '10.77.0.101/24');
    assert.match(server.log(), /DHCP4_DECLINE_LEASE/);
    assert.match(await engine.plugin.command('conflicts'), /10\.77\.0\.100 .*3c:22:fb:10:aa:02/);
    await stranger.giveUp('10.77.0.100');
    await stranger.namespace.delete();
  });

  describe('a rogue server', () => {
    let rogue: RogueServer;
    let network: FakeNetwork;

    before(async () => {
      rogue = await RogueServer.plug(lan, 'rogue', '02:00:5e:10:00:66', ROGUE);
    });

    afterEach(() => rogue.reset());

    after(() => rogue.close());

    async function refusal(wish?: Wish): Promise<string> {
      const error: unknown = await engine.run(network, wish).then(
        ({ address }) => assert.fail(`it got ${address}`),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof Refusal, String(error));
      return error.message;
    }

    async function setUp(behave: Behaviour): Promise<void> {
      rogue.behave = behave;
      rogue.gives = '10.77.0.60';
      network = await engine.createNullNetwork(DHCP);
    }

    for (const [lie, behaviour] of Object.entries(LIES))
      test(`${lie} counts for nothing, and the honest answer behind it is taken`, async () => {
        await setUp(behaviour);
        assert.equal((await seen(await engine.run(network))).address, '10.77.0.60/24');
      });

    test('who answers to the MAC address of the frame alone is heard', async () => {
      await setUp(unicast);
      assert.equal((await seen(await engine.run(network))).address, '10.77.0.60/24');
    });

    test('who offers after four seconds is waited for', async () => {
      await setUp(late(4000));
      assert.equal((await seen(await engine.run(network))).address, '10.77.0.60/24');
    });

    test('ten thousand offers cost bounded time and memory, and the daemon goes on', async () => {
      engine.plugin.set({ DHCP_TIMEOUT: '5' });
      await engine.plugin.restart();
      await setUp(flooding(10_000));
      const beforeMb = await engine.plugin.memoryMb();
      assert.match(await refusal(), /no DHCP server answered|DHCP server .* refused/);
      assert.ok((await engine.plugin.memoryMb()) < beforeMb + 50);
      rogue.reset();
      assert.equal((await seen(await engine.run(network))).address, '10.77.0.60/24');
    });

    test('what cannot be had is said in words of the network: who refused, why, and what to do', async () => {
      engine.plugin.set({ DHCP_TIMEOUT: '5' });
      await engine.plugin.restart();
      await setUp(refusing);
      assert.match(
        await refusal(),
        /^the DHCP server 10\.77\.0\.6 refuses the address that it has offered \("no lease for you"\); /,
      );
      rogue.behave = empty;
      assert.match(await refusal(), /^no DHCP server answered on "lan0" within 5 s; check that one serves this LAN/);
      rogue.reset();
      assert.match(
        await refusal({ options: { ip: '10.77.0.61' } }),
        /^the DHCP server 10\.77\.0\.6 gives 10\.77\.0\.60, not 10\.77\.0\.61; /,
      );
      const running = await engine.run(network);
      const { macAddress } = await seen(running);
      assert.match(
        await refusal({ macAddress }),
        new RegExp(`^MAC address ${macAddress} is already used on parent "lan0" by endpoint `),
      );
      await host.namespace.ip('link set lan0 down');
      assert.match(await refusal(), /^interface "lan0" is down, so that no DHCP server hears a question; /);
      await host.namespace.ip('link set lan0 up');
    });

    test('who gives address after address that others use is named, with one of them', async () => {
      await setUp(flooding(0));
      let given = 0;
      rogue.behave = (request, server) => {
        if (request.type === 'DISCOVER') rogue.gives = `10.77.0.${60 + given++}`;
        honest(request, server);
      };
      for (const last of [60, 61, 62]) await rogue.namespace.ip(`address add 10.77.0.${last}/24 dev lan0`);
      assert.match(
        await refusal(),
        /^the DHCP server gave 3 addresses that others use, at last 10\.77\.0\.62, which 02:00:5e:10:00:66 has; /,
      );
      assert.deepEqual(
        rogue.heard.filter(({ type }) => type === 'DECLINE').map(({ wish }) => wish),
        ['10.77.0.60', '10.77.0.61', '10.77.0.62'],
      );
    });
  });
});

function isDhcpRequest({ etherType, payload }: Frame): boolean {
  return etherType === 0x0800 && payload.readUInt16BE(22) === 67;
}

/** The hardware address behind the headers of IPv4 and UDP. */
function clientOf({ payload }: Frame): string {
  return payload.toString('hex', 28 + 28, 28 + 34).replaceAll(/..(?=.)/g, '$&:');
}
