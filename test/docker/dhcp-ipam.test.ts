/**
 * Addresses of the LAN's own DHCP server through our IPAM, on engines that say no names: the network shows the server's subnet, and
 * `docker inspect`, the container's kernel and the server's lease file tell the same. What engine 29 says beside is played in
 * netns/dhcp-ipam.test.ts.
 *
 *     host: engine, tsmacvlan, containers ── lan0 ── br0 ── kea
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertPings, attachment, clearEngine, runIdle, runInside } from '../lab/container.ts';
import { type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertNothingLeft } from '../lab/invariant.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { type Machine, Site } from '../lab/site.ts';

/** The engine between them has its turn with ENGINES=26.1.5. */
const VERSIONS = (process.env.ENGINES?.split(',') ?? ['20.10.24', '28.5.2']) as Version[];
const RESERVED = '02:00:5e:10:00:aa';
const PLAN: DhcpPlan = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: 600,
  reservations: { [RESERVED]: '10.77.0.50' },
};
const NETWORK =
  '-d tsmacvlan --ipam-driver tsmacvlan --ipam-opt source=dhcp --ipam-opt parent=lan0 -o parent=lan0 -o source=dhcp';

for (const version of VERSIONS) {
  const limits = { skip: outsideLab() || withoutDhcp(), timeout: 600_000 };
  describe(`addresses by DHCP through our IPAM, engine ${version}`, limits, () => {
    let site: Site;
    let machine: Machine;
    let engine: Engine;
    let server: DhcpServer;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'] });
      machine = site.machines[0] as Machine;
      engine = machine.engine;
      server = await DhcpServer.plug(site.lan, `server${version}`, 'kea', PLAN);
    });

    after(async () => {
      await clearEngine(engine);
      await server.unplug();
      await site.close();
    });

    const create = (name: string, more = '') =>
      engine.must('network', 'create', ...`${NETWORK}${more} ${name}`.split(' '));

    /** What the engine shows, the kernel of the container has and the server has on file: one and the same. */
    async function told(container: string): Promise<string> {
      const { MacAddress, IPAddress } = await attachment(engine, container, 'lan');
      const { stdout } = await runInside(engine, container, 'ip', 'address');
      assert.match(stdout, new RegExp(`link/ether ${MacAddress} [^]*inet ${IPAddress}/24 `));
      assert.equal((await server.leaseOf(MacAddress))?.address, IPAddress, server.log());
      return `${MacAddress} ${IPAddress}`;
    }

    test('the subnet is learned, and containers have their addresses again, also after SIGKILL of the engine', async () => {
      await create('lan');
      const { IPAM } = await engine.inspect<{ IPAM: { Config: { Subnet: string; Gateway: string }[] } }>(
        '/networks/lan',
      );
      assert.equal(IPAM.Config[0]?.Subnet, '10.77.0.0/24');
      assert.equal(IPAM.Config[0]?.Gateway.replace(/\/.*/, ''), '10.77.0.1');
      await runIdle(engine, 'web', '--net lan --restart always');
      const web = await told('web');
      await assertPings(engine, 'web', '10.77.0.1');
      await engine.must('restart', 'web');
      assert.equal(await told('web'), web);
      await engine.restart('SIGKILL');
      await until(async () => (await attachment(engine, 'web', 'lan')).IPAddress !== '');
      assert.equal(await told('web'), web);
      await engine.must('rm', '-f', 'web');
      const { code, stderr } = await engine.docker('run', '--rm', '--net', 'lan', '--mac-address', RESERVED, 'busybox');
      assert.notEqual(code, 0);
      assert.match(
        stderr,
        /has 10\.77\.0\.50 for 02:00:5e:10:00:aa, .*; add --ip 10\.77\.0\.50, or create the network with/,
      );
      await runIdle(engine, 'again', '--net lan');
      assert.equal(await told('again'), web);
    });

    test('where this host has an address of the LAN the subnet has to be named, which is said', async () => {
      await clearEngine(engine);
      const namespace = machine.host.namespace;
      await namespace.ip('address add 10.77.0.9/24 dev lan0');
      const { code, stderr } = await engine.docker('network', 'create', ...`${NETWORK} lan`.split(' '));
      assert.notEqual(code, 0);
      assert.match(stderr, /the subnet of the DHCP server, 10\.77\.0\.0\/24, .*; add --subnet 10\.77\.0\.0\/24/);
      await create('lan', ' --subnet 10.77.0.0/24');
      await runIdle(engine, 'web', '--net lan');
      await told('web');
      await clearEngine(engine);
      await namespace.ip('address del 10.77.0.9/24 dev lan0');
      await assertNothingLeft(machine);
    });

    test('an address that is named is asked of the server, and a network that is removed gives all back', async () => {
      await clearEngine(engine);
      await until(async () => (await server.leases()).length === 0, { detail: () => server.log() });
      await assertNothingLeft(machine);
      await create('lan', ' --subnet 10.77.0.0/24');
      await runIdle(engine, 'named', '--net lan --ip 10.77.0.123');
      const named = await told('named');
      assert.match(named, / 10\.77\.0\.123$/);
      await engine.must('restart', 'named');
      assert.equal(await told('named'), named);
      await runIdle(engine, 'reserved', `--net lan --ip 10.77.0.50 --mac-address ${RESERVED}`);
      assert.equal(await told('reserved'), `${RESERVED} 10.77.0.50`);
      assert.doesNotMatch(machine.plugin.log(), /internal error|INTERNAL/);
    });
  });
}
