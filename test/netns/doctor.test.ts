/**
 * `tsmacvlan doctor` beside a daemon that runs: each trouble is made on real links, found, and not found any more once it is mended. What
 * needs an engine is in test/docker/who.test.ts.
 *
 *     host: tsmacvlan, web, app ── lan0 ── port ── switch 192.0.2.254
 *                                                  └── router (scripted)
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, Understudy } from '../lab/understudy.ts';

const ROUTER = '3c:22:fb:10:aa:01';
const STATE = '/run/disk/tsmacvlan';

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
      new RegExp(`^ok {7}${id()}: lan0 is to hear [23] MAC addresses beside its own, and receives`, 'm'),
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
      troubles.map((line) => line.slice(0, 100)),
      [`warning  ${id()}: ${ROUTER} on lan0 answers for every address (proxy ARP), so that its answers say`],
    );
    router.reset();
  });

  test('somebody who has the address of a container', async () => {
    await lan.namespace.ip('address add 192.0.2.70/32 dev br0');
    await lan.namespace.run(['arping', '-c', '1', '-A', '-I', 'br0', '192.0.2.70']);
    const isFound = async () => (await examine()).troubles.some((line) => /: 192\.0\.2\.70 also used by /.test(line));
    await until(isFound);
    await lan.namespace.ip('address del 192.0.2.70/32 dev br0');
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
    await inHost(`mount -t tmpfs -o size=8m none ${STATE}`);
    assert.match(
      (await examine()).troubles.join('\n'),
      /^warning {2}host: state directory .* has only 8 MB free; make room/m,
    );
    await inHost(`mount -o remount,ro ${STATE}`);
    assert.match((await examine()).troubles.join('\n'), /^FAILURE {2}host: state directory .* cannot be written; /m);
    await inHost(`umount ${STATE}`);
  });

  test('a parent that is gone', async () => {
    await host.namespace.ip('link del lan0');
    assert.match(
      (await examine()).troubles.join('\n'),
      new RegExp(`^FAILURE {2}${id()}: parent lan0 does not exist; bring lan0 back`, 'm'),
    );
  });
});
