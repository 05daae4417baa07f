/**
 * Leases that come to an end while their containers run, and starts that get none: servers that are away, that are replaced, that
 * have nothing left, or that no macvlan reaches. Each story has a LAN and a host of its own, and all are told at once, since most of
 * their time is that of leases:
 *
 *     host: tsmacvlan, containers ── lan0 ── br0 ── kea
 */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { addressesOf } from '../lab/census.ts';
import { PlainClient } from '../lab/dhcpclient.ts';
import { type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until, untilSaid } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, Refusal, Understudy } from '../lab/understudy.ts';

const PLAN: DhcpPlan = { address: '10.77.0.1/24', range: ['10.77.0.100', '10.77.0.150'], leaseSeconds: 6 };
const OTHER_SUBNET: DhcpPlan = { ...PLAN, address: '10.78.0.1/24', range: ['10.78.0.100', '10.78.0.150'] };
const DHCP = { parent: 'lan0', source: 'dhcp' };
const TAKER = '3c:22:fb:10:aa:03';
/** A lease that is lost is asked for each minute. */
const HEALED = { timeoutMs: 120_000, pollMs: 500 };

interface Stage {
  readonly lan: Lan;
  readonly host: Host;
  readonly engine: Understudy;
  readonly serve: (plan?: DhcpPlan) => Promise<DhcpServer>;
}

describe('leases that are lost', { skip: outsideLab() || withoutDhcp(), timeout: 300_000, concurrency: true }, () => {
  const daemons: Plugin[] = [];

  after(() => Promise.all(daemons.map((daemon) => daemon.stop())));

  async function stage(name: string): Promise<Stage> {
    const lan = await Lan.create([], `lan-${name}`);
    const host = await Host.boot(name, lan);
    const plugin = await Plugin.start(host, { DHCP_TIMEOUT: '5' });
    daemons.push(plugin);
    let served = 0;
    const serve = (plan = PLAN) => DhcpServer.plug(lan, `${name}-server${++served}`, 'kea', plan);
    return { lan, host, engine: new Understudy(plugin), serve };
  }

  async function macOf({ namespace }: Container): Promise<string> {
    const [link] = await namespace.show<{ address: string }>('link show dev eth0');
    return link?.address ?? '';
  }

  const bare = ({ address }: Container) => address.replace(/\/.*/, '');

  const refusal = (starting: Promise<Container>): Promise<string> =>
    starting.then(
      ({ address }) => assert.fail(`it got ${address}`),
      (error: unknown) => {
        assert.ok(error instanceof Refusal, String(error));
        return error.message;
      },
    );

  test('a server that is away until the end: the container goes on, and has its lease again when the server is back', async () => {
    const { engine, host, serve } = await stage('silent');
    const { plugin } = engine;
    const server = await serve();
    const container = await engine.run(await engine.createNullNetwork(DHCP));
    const watching = await host.start('watch', plugin.commandLine('watch'), plugin.environment());
    await server.stop();
    await untilSaid(/the lease of a container is over and no DHCP server answers: it goes on with the address/, () =>
      plugin.log(),
    );
    assert.match(await plugin.command('leases'), new RegExp(`^${bare(container)} .*lost: silent`, 'm'));
    assert.match(await plugin.command('map'), /\(lease lost: silent\)$/m);
    const who = (await plugin.commandInside('who', bare(container))).stdout;
    assert.match(who, /is container .*\n(.*\n)* +DHCP server +10\.77\.0\.1\n +lease +lost: silent\n/);
    const { code, stdout: found } = await plugin.commandInside('doctor');
    assert.equal(code, 3);
    assert.match(found, /^FAILURE .*: no DHCP server answers on lan0; /m);
    assert.match(found, /^FAILURE .*: its lease is over, and no DHCP server answers; tsmacvlan dhcp lan0/m);
    assert.deepEqual(await addressesOf(container.namespace, 'eth0'), [bare(container)]);
    await server.restart();
    await until(() => plugin.log().includes('a DHCP server gives a container its address again'), HEALED);
    assert.equal((await server.leaseOf(await macOf(container)))?.address, bare(container));
    assert.doesNotMatch(await plugin.command('leases'), /lost/);
    await watching.kill('SIGTERM');
    const said = readFileSync(join(host.directory, 'log/watch.log'), 'utf8');
    assert.match(said, / lease +.*: the lease of .* on lan0 is lost: no DHCP server has answered until its end$/m);
    assert.match(said, / lease +.*: DHCP server 10\.77\.0\.1 gives .* on lan0 again$/m);
  });

  test('a router of another subnet in its place: the container keeps its address, and its next start has one of the new', async () => {
    const { engine, serve } = await stage('replaced');
    const { plugin } = engine;
    const first = await serve();
    const network = await engine.createNullNetwork(DHCP);
    const container = await engine.run(network);
    await first.unplug();
    const second = await serve(OTHER_SUBNET);
    await untilSaid(/a DHCP server has taken the address of a container away: start the container again/, () =>
      plugin.log(),
    );
    assert.match(await plugin.command('leases'), new RegExp(`^${bare(container)} .*lost: refused`, 'm'));
    assert.deepEqual(await addressesOf(container.namespace, 'eth0'), [bare(container)]);
    const macAddress = await macOf(container);
    await engine.remove(container);
    const again = await engine.run(network);
    assert.equal(await macOf(again), macAddress);
    assert.match(again.address, /^10\.78\.0\.1\d\d\/24$/);
    assert.equal((await second.leaseOf(macAddress))?.address, bare(again));
  });

  test('a daemon that is away longer than the lease finds another client with the address, and says so', async () => {
    const { lan, engine, serve } = await stage('away');
    const { plugin } = engine;
    const server = await serve({ ...PLAN, range: ['10.77.0.100', '10.77.0.100'] });
    const container = await engine.run(await engine.createNullNetwork(DHCP));
    await plugin.stop();
    await until(async () => (await server.leases()).length === 0);
    // The taker's lasts until all is seen.
    await server.unplug();
    await serve({ ...PLAN, range: ['10.77.0.100', '10.77.0.100'], leaseSeconds: 600 });
    const taker = await PlainClient.plug(lan, 'taker');
    assert.equal((await taker.acquire(TAKER)).address, bare(container));
    await plugin.start();
    await untilSaid(/the lease of a container is over|has taken the address of a container away/, () => plugin.log());
    assert.match(await plugin.command('leases'), /lost: /);
    await until(async () => (await plugin.conflicts()).some(({ macAddress }) => macAddress === TAKER));
    assert.ok((await plugin.command('conflicts')).includes(TAKER));
    assert.deepEqual(await addressesOf(container.namespace, 'eth0'), [bare(container)]);
  });

  test('a server without an address left, and one on the parent of this host itself, give none, which is said', async () => {
    const { engine, host, serve } = await stage('none');
    const silent =
      /^no DHCP server answered on "lan0" within 5 s; check that one serves this LAN and has addresses left/;
    const server = await serve({ ...PLAN, range: ['10.77.0.100', '10.77.0.100'], leaseSeconds: 120 });
    const network = await engine.createNullNetwork(DHCP);
    await engine.run(network);
    assert.match(await refusal(engine.run(network)), silent);
    await server.unplug();
    await host.namespace.ip('address add 10.77.0.1/24 dev lan0');
    const own = await DhcpServer.start(host.namespace, 'dnsmasq', { ...PLAN, leaseSeconds: 120 });
    assert.match(await refusal(engine.run(network)), silent);
    await own.stop();
    // By a packet socket (kea's dhcp-socket-type raw) a server hears also what goes out there.
    const raw = await DhcpServer.start(host.namespace, 'kea', { ...PLAN, leaseSeconds: 120 });
    const container = await engine.run(network);
    assert.equal((await raw.leaseOf(await macOf(container)))?.address, bare(container));
    await raw.stop();
  });

  test('a restore finds containers that the backup does not know, and their leases are kept', async () => {
    const { engine, serve } = await stage('restore');
    const { plugin } = engine;
    const server = await serve({ ...PLAN, leaseSeconds: 20 });
    const network = await engine.createNullNetwork(DHCP);
    const known = await engine.run(network);
    const file = '/run/disk/backup';
    const must = async (...words: string[]) => {
      const { code, stdout, stderr } = await plugin.commandInside(...words);
      assert.equal(code, 0, stdout + stderr);
    };
    await must('backup', file);
    const all = [known, await engine.run(network), await engine.run(network, { macAddress: TAKER })];
    await plugin.stop();
    rmSync(plugin.stateFile);
    await must('restore', file);
    await plugin.start();
    await until(async () => {
      const leases = JSON.parse(await plugin.command('leases', '--json')) as { address: string; server: string }[];
      const renewed = leases.filter((one) => one.server === server.address).map(({ address }) => address);
      return all.every(({ address }) => renewed.includes(address));
    });
    const onFile = new Map((await server.leases()).map((lease) => [lease.address, lease.macAddress]));
    for (const container of all) assert.equal(onFile.get(bare(container)), await macOf(container));
    for (const container of all) await engine.remove(container);
  });
});
