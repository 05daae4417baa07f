/**
 * `tsmacvlan doctor` beside a daemon that runs: each trouble is made on real links, found, and not found any more once it is mended. What
 * needs an engine is in test/docker/who.test.ts.
 *
 *     host: tsmacvlan, web, app ── lan0 ── port ── switch 192.0.2.254
 *                                                  └── router (scripted)
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { parseAddress } from '../../src/address.ts';
import { arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { announcementFrame } from '../../src/lan/frames/outgoing.ts';
import { type DhcpKind, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { untilSaid } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, Understudy } from '../lab/understudy.ts';

const ROUTER = '3c:22:fb:10:aa:01';
const STATE = '/run/disk/tsmacvlan';
const PLAN = { leaseSeconds: 7200, router: '192.0.2.254', domain: 'lan.test' };

describe('the doctor, without an engine', { skip: outsideLab(), timeout: 200_000 }, () => {
  let lan: Lan;
  let host: Host;
  let router: Neighbour;
  let plugin: Plugin;
  let engine: Understudy;
  let web: Container;
  let port: string;

  before(async () => {
    lan = await Lan.create(['192.0.2.254/24']);
    host = await Host.boot('host', lan);
    port = host.ports['lan0'] ?? '';
    router = await Neighbour.plug(lan, 'router', ROUTER);
    await host.namespace.ip('address add 192.0.2.9/24 dev lan0');
    await inHost(`mkdir -p ${STATE}`);
    await inHost(`mount -t tmpfs -o size=30m none ${STATE}`);
    plugin = await Plugin.start(host);
    engine = new Understudy(plugin);
    const network = await engine.createNetwork({ subnet: '192.0.2.0/24', options: { gateway: '192.0.2.254' } });
    web = await engine.run(network, { address: '192.0.2.70' });
  });
  after(async () => {
    router.close();
    await host.scrap(lan);
    await lan.namespace.delete();
  });

  /** Its lines but for the one that there is no Docker here. */
  async function examine(...words: string[]): Promise<{ troubles: string[]; all: string[] }> {
    const { stdout, stderr, code } = await plugin.commandInside('doctor', ...words);
    assert.deepEqual([code, stderr], [3, '']);
    const all = stdout.split('\n').filter((line) => line !== '' && !line.includes('names of containers are not shown'));
    return { all, troubles: all.filter((line) => !line.startsWith('ok ')) };
  }
  const inHost = async (words: string) => {
    const { code, stderr } = await host.run(words.split(' '));
    assert.equal(code, 0, stderr);
  };
  const id = () => web.network.id.slice(0, 12);

  test('a sound host has no trouble, and the count of MAC addresses is told', async () => {
    const { all, troubles } = await examine();
    assert.deepEqual(troubles, []);
    const text = all.join('\n');
    assert.match(text, new RegExp(`^ok {7}${id()}: gateway 192\\.0\\.2\\.254 answers$`, 'm'));
    // The container's, and the daemon's own for its questions. A veth takes all frames.
    assert.match(
      text,
      new RegExp(`^ok {7}${id()}: lan0 receives for [23] MAC addresses beside its own, and takes all frames`, 'm'),
    );
  });

  test('a port that filters MAC addresses, also where the daemon does not know it', async () => {
    const [{ address = '' } = {}] = await host.namespace.show<{ address: string }>('link show lan0');
    const bridge = (words: string) => lan.namespace.run(['bridge', ...words.split(' ')]);
    await bridge(`link set dev ${port} learning off flood off`);
    await bridge(`fdb replace ${address} dev ${port} master static`);
    await bridge('fdb flush dev br0 nostatic nopermanent');
    const { troubles } = await examine();
    assert.match(
      troubles.join('\n'),
      new RegExp(`^FAILURE {2}${id()}: the network port of lan0 delivers to the MAC address of lan0 only; allow other`),
    );
    assert.equal(troubles.length, 1);
    assert.equal((await examine(id())).troubles.length, 1);
    await bridge(`link set dev ${port} learning on flood on`);
    await bridge(`fdb delete ${address} dev ${port} master static`);
    assert.deepEqual((await examine()).troubles, []);
  });

  test('a device that answers for every address', async () => {
    router.react = (packet) => {
      if (packet.protocol === 'ARP' && packet.operation === 'request') router.send(encodeArp(arpReply(packet, ROUTER)));
    };
    const { troubles } = await examine(id());
    assert.deepEqual(
      troubles.map((line) => line.replace(/,.*/, '')),
      [`warning  ${id()}: ${ROUTER} on lan0 answers for every address (proxy ARP)`],
    );
    router.reset();
  });

  test('somebody who has the address of a container', async () => {
    const own = parseAddress('192.0.2.70') ?? assert.fail();
    router.send(announcementFrame(own, ROUTER));
    await untilSaid(/somebody else uses the address of a running container/, () => plugin.log());
    const told = new RegExp(
      `^FAILURE {2}endpoint [0-9a-f]{12}: 192\\.0\\.2\\.70 also used by ${ROUTER}; find that device`,
    );
    assert.match((await examine()).troubles.join('\n'), told);
    await plugin.commandInside('conflicts', '--clear');
  });

  describe('DHCP', { skip: withoutDhcp() }, () => {
    const places = { dnsmasq: 1, isc: 2, kea: 3, udhcpd: 70 } as const;
    const servers: DhcpServer[] = [];
    const offered = (text: string) => [...text.matchAll(/DHCP server (\S+) \(\S+\) offers (\S+)[,;]/g)];

    before(async () => {
      for (const [kind, last] of Object.entries(places) as [DhcpKind, number][]) {
        const first = 100 + servers.length * 10;
        const plan = {
          ...PLAN,
          address: `192.0.2.${last}/24`,
          range: [`192.0.2.${first}`, `192.0.2.${first + 9}`],
        } as const;
        // One is a container beside the question's own link, which the wire does not reach.
        const plugged =
          kind === 'udhcpd'
            ? DhcpServer.start(web.namespace, kind, plan, 'eth0')
            : DhcpServer.plug(lan, kind, kind, plan);
        servers.push(await plugged);
      }
    });

    test('a server that pings an address first is waited for', async () => {
      const plan = {
        ...PLAN,
        address: '192.0.2.4/24',
        range: ['192.0.2.150', '192.0.2.159'],
        asksFirst: true,
      } as const;
      const slow = await DhcpServer.plug(lan, 'slow', 'dnsmasq', plan);
      const { stdout, stderr } = await plugin.commandInside('dhcp', 'lan0');
      await slow.stop();
      assert.equal(stderr, '');
      assert.match(stdout, /^192\.0\.2\.4 +\S+ +192\.0\.2\.15\d\/24 /m);
    });

    test('every server that offers is listed, and none has given anything', async () => {
      const { stdout, code } = await plugin.commandInside('dhcp', 'lan0', '--json');
      assert.equal(code, 0);
      const offers = JSON.parse(stdout) as { server: string; address: string; [field: string]: unknown }[];
      assert.deepEqual(offers.map(({ server }) => server).sort(), servers.map(({ address }) => address).sort());
      for (const [position, { address, kind }] of servers.entries()) {
        const offer = offers.find(({ server }) => server === address);
        const { server: _, macAddress, address: given = '', ...terms } = offer ?? assert.fail();
        assert.match(String(macAddress), /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
        assert.match(given, new RegExp(`^192\\.0\\.2\\.1${position}\\d$`), kind);
        const { leaseSeconds, routers, domain, prefixLength } = terms;
        assert.deepEqual([leaseSeconds, routers, domain, prefixLength], [7200, ['192.0.2.254'], 'lan.test', 24], kind);
      }
      const words = await plugin.commandInside('dhcp', 'lan0');
      assert.match(words.stdout, /^SERVER +MAC +OFFERS +FOR +ROUTER +DNS +DOMAIN\n/);
      assert.match(words.stdout, /^192\.0\.2\.1 +\S+ +192\.0\.2\.10\d\/24 +2 h +192\.0\.2\.254 +\S+ +lan\.test\n/m);
      for (const server of servers) {
        // udhcpd writes down what it offers, for a minute (offer_time).
        const given = (await server.leases()).filter(({ endsAtMs }) => endsAtMs > Date.now() + 120_000);
        assert.deepEqual(given, [], server.kind);
      }
    });

    test('an offer of an address that containers may get is a warning, and none with a range apart', async () => {
      const within = (await examine(id())).troubles.join('\n');
      assert.match(
        within,
        new RegExp(`^warning {2}${id()}: DHCP server .*, which containers may get as well; create the network`),
      );
      assert.deepEqual(
        offered(within)
          .map(([, server]) => server)
          .sort(),
        servers.map(({ address }) => address).sort(),
      );
      // The question is not asked for the sake of a container alone.
      const [{ id: endpointId } = { id: '' }] = JSON.parse(
        (await plugin.commandInside('endpoints', '--json')).stdout,
      ) as { id: string }[];
      assert.deepEqual((await examine(endpointId)).troubles, []);
      for (const server of servers) await server.stop();
      const nobody = await plugin.commandInside('dhcp', 'lan0');
      assert.equal(nobody.stdout, 'no DHCP server answered on lan0 within 4 seconds\n');
      assert.deepEqual((await examine()).troubles, []);
    });

    test('a parent that is not there, or down, is said', async () => {
      assert.match(
        (await plugin.commandInside('dhcp', 'eth9')).stderr,
        /"eth9" does not exist on this host \(there are lan0\)/,
      );
      await host.namespace.ip('link add spare type veth peer name other');
      assert.match((await plugin.commandInside('dhcp', 'spare')).stderr, /"spare" is down.*"ip link set spare up"/);
      await host.namespace.ip('link del spare');
    });
  });

  test('what may not work is said in the log when a network is made, and marked where networks are listed', async () => {
    await host.namespace.ip('link add spare type veth peer name other');
    for (const words of ['link set spare up', 'route add 198.51.100.0/25 dev spare']) await host.namespace.ip(words);
    const odd = await engine.createNetwork({ subnet: '198.51.100.0/24', options: { gateway: '198.51.100.1' } });
    const [name, foreign, elsewhere] = [
      odd.id.slice(0, 12),
      'not the subnet of lan0, on which this host has 192.0.2.9/24',
      'this host reaches 198.51.100.0/25 by spare, not by lan0',
    ];
    for (const why of [foreign, elsewhere])
      await untilSaid(new RegExp(`warn.* may not reach others.*${name}.*${why.replaceAll('.', '\\.')}`), () =>
        plugin.log(),
      );
    const { stdout: map } = await plugin.commandInside('map');
    assert.ok(map.includes(`198.51.100.0/24 gateway 198.51.100.1  (${foreign})  (${elsewhere})\n`), map);
    const { stdout: list } = await plugin.commandInside('networks');
    assert.ok(
      list.includes(`\n${name}: ${elsewhere}; create it again with another --subnet, unless both are meant\n`),
      list,
    );
    assert.equal(list.split('\n').length, 6, 'two networks, two remarks on one of them');
    await engine.deleteNetwork(odd);
    await host.namespace.ip('link del spare');
  });

  test('a gateway that is this host, and what is lost of host access', async () => {
    const own = await engine.createNetwork({ subnet: '203.0.113.0/24', options: { gateway: '203.0.113.9' } });
    await host.namespace.ip('address add 203.0.113.9/24 dev lan0');
    const near = await engine.createNetwork({
      subnet: '198.18.0.0/24',
      options: { gateway: 'none', host_access: 'true' },
    });
    const links = await host.namespace.show<{ ifname: string }>('link');
    const hostLink = links.map(({ ifname }) => ifname).find((name) => name.startsWith('tsmh')) ?? '';
    const [{ addr_info: [{ local = '' } = {}] = [] } = {}] = await host.namespace.show<{
      addr_info: { local: string }[];
    }>(`-4 address show ${hostLink}`);
    await host.namespace.ip(`address del ${local}/32 dev ${hostLink}`);
    assert.match(
      (await examine()).troubles.join('\n'),
      new RegExp(
        `^FAILURE {2}${near.id.slice(0, 12)}: ${hostLink} has not the address ${local}; restart tsmacvlan`,
        'm',
      ),
    );
    await host.namespace.ip(`link del ${hostLink}`);
    const text = (await examine()).troubles.join('\n');
    assert.match(
      text,
      new RegExp(`^FAILURE {2}${near.id.slice(0, 12)}: the host's own interface .* is not there`, 'm'),
    );
    const itself = new RegExp(
      `^FAILURE {2}${own.id.slice(0, 12)}: gateway 203\\.0\\.113\\.9 is this host \\(lan0\\)`,
      'm',
    );
    assert.match(text, itself);
    await engine.deleteNetwork(near);
    await engine.deleteNetwork(own);
    await host.namespace.ip('address del 203.0.113.9/24 dev lan0');
  });

  test('a state directory without room, and one that cannot be written', async () => {
    await inHost(`fallocate -l 16M ${STATE}/filled`);
    assert.match(
      (await examine()).troubles.join('\n'),
      /^warning {2}host: state directory .* has only \d+ MB free; make room/m,
    );
    await inHost(`rm ${STATE}/filled`);
    // What the daemon has open stays as it is.
    await inHost(`mount --bind ${STATE} ${STATE}`);
    await inHost(`mount -o remount,bind,ro ${STATE}`);
    assert.match((await examine()).troubles.join('\n'), /^FAILURE {2}host: state directory .* cannot be written; /m);
    await inHost(`umount ${STATE}`);
  });

  test('a parent that is gone', async () => {
    for (const words of ['down', 'name away']) await host.namespace.ip(`link set lan0 ${words}`);
    assert.match(
      (await examine()).troubles.join('\n'),
      new RegExp(`^FAILURE {2}${id()}: parent lan0 does not exist; bring lan0 back`, 'm'),
    );
  });
});
