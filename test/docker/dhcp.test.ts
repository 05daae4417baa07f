/**
 * Addresses of the LAN's own DHCP server on engines, as far as an engine has a part in them: `docker inspect`, the container's kernel
 * and the server's lease file tell the same, whatever is stopped, removed, connected or killed.
 *
 *     host: engine, tsmacvlan, containers ── lan0 ── br0 ── kea
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { assertPings, attachment, clearEngine, runIdle, runInside } from '../lab/container.ts';
import { Dhcp6Server } from '../lab/dhcp6server.ts';
import { type DhcpPlan, type DhcpPlace, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertNothingLeft } from '../lab/invariant.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { AdvertisingRouter } from '../lab/router.ts';
import { type Machine, Site } from '../lab/site.ts';

/** Before 28 an engine does not say the name of a container, and 20.10 takes part in an exchange in its own way. */
const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
const RESERVED = '02:00:5e:10:00:aa';
const PLAN: DhcpPlan = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: 600,
  reservations: { [RESERVED]: '10.77.0.50' },
  routes: { '0.0.0.0/0': '10.77.0.1', '10.9.0.0/16': '10.77.0.254' },
};
const NETWORK = '-d tsmacvlan --ipam-driver null -o parent=lan0 -o source=dhcp'.split(' ');

interface Told {
  readonly macAddress: string;
  readonly address: string;
}

for (const version of VERSIONS) {
  describe(`addresses by DHCP, engine ${version}`, { skip: outsideLab() || withoutDhcp(), timeout: 600_000 }, () => {
    let site: Site;
    let machine: Machine;
    let engine: Engine;
    let server: DhcpServer;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'] });
      machine = site.machines[0] as Machine;
      engine = machine.engine;
      server = await DhcpServer.plug(site.lan, `server${version}`, 'kea', PLAN);
      await engine.must('network', 'create', ...NETWORK, 'lan');
    });

    afterEach(async () => {
      const containers = await engine.api<{ Id: string }[]>('GET', '/containers/json?all=1');
      await Promise.all(containers.map(({ Id }) => engine.api('DELETE', `/containers/${Id}?force=1`)));
      assert.doesNotMatch(machine.plugin.log(), /internal error|INTERNAL/);
    });

    after(async () => {
      await clearEngine(engine);
      await server.unplug();
      await site.close();
    });

    /** What the engine shows, the kernel of the container has and the server has on file: one and the same. */
    async function assertTold(container: string, by = server): Promise<Told> {
      const shown = await attachment(engine, container, 'lan');
      const told = { macAddress: shown.MacAddress, address: shown.IPAddress };
      const { stdout } = await runInside(engine, container, 'ip', 'address');
      assert.match(stdout, new RegExp(`link/ether ${told.macAddress} [^]*inet ${told.address}/${shown.IPPrefixLen} `));
      assert.equal((await by.leaseOf(told.macAddress))?.address, told.address, by.log());
      return told;
    }

    test('the address has its length, its router and its routes', async () => {
      await runIdle(engine, 'web', '--net lan');
      await assertTold('web');
      const { IPPrefixLen, Gateway } = await attachment(engine, 'web', 'lan');
      assert.deepEqual({ IPPrefixLen, Gateway }, { IPPrefixLen: 24, Gateway: '10.77.0.1' });
      const { stdout } = await runInside(engine, 'web', 'ip', 'route');
      assert.match(stdout, /^default via 10\.77\.0\.1 dev eth0/m);
      assert.match(stdout, /^10\.9\.0\.0\/16 via 10\.77\.0\.254 dev eth0/m);
      await assertPings(engine, 'web', '10.77.0.1');
    });

    test('stop and start, restart, and SIGKILL of the daemon leave a container its address', async () => {
      await runIdle(engine, 'web', '--net lan');
      await runIdle(engine, 'db', '--network name=lan,driver-opt=hostname=db');
      const [web, db] = [await assertTold('web'), await assertTold('db')];
      assert.equal((await server.leaseOf(db.macAddress))?.hostname, 'db');
      await engine.must('restart', 'web');
      assert.deepEqual(await assertTold('web'), web);
      await engine.must('stop', 'web', 'db');
      await machine.plugin.restart('SIGKILL');
      await engine.must('start', 'db');
      await engine.must('start', 'web');
      assert.deepEqual([await assertTold('web'), await assertTold('db')], [web, db]);
    });

    test('a container that is made again has its address again, by MAC address and by name', async () => {
      const [reserved, named] = [`--net lan --mac-address ${RESERVED}`, '--network name=lan,driver-opt=hostname=db'];
      await runIdle(engine, 'web', reserved);
      await runIdle(engine, 'db', named);
      const db = await assertTold('db');
      assert.deepEqual(await assertTold('web'), { macAddress: RESERVED, address: '10.77.0.50' });
      await engine.must('rm', '-f', 'web', 'db');
      await runIdle(engine, 'other', '--net lan');
      await runIdle(engine, 'db', named);
      await runIdle(engine, 'web', reserved);
      assert.deepEqual(await assertTold('web'), { macAddress: RESERVED, address: '10.77.0.50' });
      assert.deepEqual(await assertTold('db'), db);
    });

    test('containers that restart always have their addresses again after SIGKILL of the engine', async () => {
      await runIdle(engine, 'web', '--net lan --restart always');
      await runIdle(engine, 'db', '--network name=lan,driver-opt=hostname=db --restart always');
      const [web, db] = [await assertTold('web'), await assertTold('db')];
      await engine.restart('SIGKILL');
      const isUp = (name: string) => attachment(engine, name, 'lan').then(({ IPAddress }) => IPAddress !== '');
      await until(async () => (await isUp('web')) && (await isUp('db')));
      assert.deepEqual([await assertTold('web'), await assertTold('db')], [web, db]);
    });

    test('a running container is connected and disconnected', async () => {
      await runIdle(engine, 'web', '--net none');
      await engine.must('network', 'disconnect', 'none', 'web');
      await engine.must('network', 'connect', 'lan', 'web');
      const first = await assertTold('web');
      await engine.must('network', 'disconnect', 'lan', 'web');
      await engine.must('network', 'connect', 'lan', 'web');
      assert.deepEqual(await assertTold('web'), first);
    });

    // It is the kernel that has both on one LAN.
    if (version === '28.5.2') test('a server in a container beside gives addresses too', besideAServer);

    async function besideAServer(): Promise<void> {
      const own = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 10.77.0.0/24 --gateway 10.77.0.254 -o parent=lan0';
      await server.stop();
      await engine.must('network', 'create', ...own.split(' '), 'own');
      await runIdle(engine, 'router', '--net own --ip 10.77.0.2');
      const plan = { ...PLAN, address: '10.77.0.2/24' };
      const beside = await DhcpServer.start(await placeOf('router'), 'kea', plan, 'eth0');
      await runIdle(engine, 'web', '--net lan');
      await assertTold('web', beside);
      await beside.stop();
      await engine.must('rm', '-f', 'web', 'router');
      await engine.must('network', 'rm', 'own');
      await server.restart();
    }

    test('an IPv6 address of the router, and one of a DHCPv6 server, is what the kernel has, after a restart and a change of the prefix too', async () => {
      const router = await AdvertisingRouter.plug(site.lan, `router${version}`, {
        prefixes: [{ prefix: 'fd77:1::/64' }],
      });
      const giver = await Dhcp6Server.plug(site.lan, `giver${version}`, 'kea', { prefix: 'fd77:3', leaseSeconds: 600 });
      await engine.must('network', 'create', ...NETWORK, '-o', 'ipv6=slaac', 'six');
      await engine.must('network', 'create', ...NETWORK, '-o', 'ipv6=dhcp', 'leased');
      const told = async (network = 'six') => {
        const { GlobalIPv6Address: address, MacAddress } = await attachment(engine, 'web', network);
        let shown = '';
        // The router's word is in the container some moments after its start.
        await until(async () => {
          shown = (await runInside(engine, 'web', 'sh', '-c', 'ip -6 address; ip -6 route')).stdout;
          return shown.includes('default via fe80:');
        });
        assert.match(shown, new RegExp(`inet6 ${address}/\\d+ scope global`));
        assert.equal(shown.match(/scope global/g)?.length, 1, shown);
        return { address, macAddress: MacAddress };
      };
      await runIdle(engine, 'web', '--net six');
      const first = await told();
      assert.match(first.address, /^fd77:1::/);
      await assertPings(engine, 'web', 'fd77::1');
      await engine.must('restart', 'web');
      assert.deepEqual(await told(), first);
      await router.advertise({ prefixes: [{ prefix: 'fd77:2::/64' }] });
      await engine.must('restart', 'web');
      assert.equal((await told()).address, first.address.replace('fd77:1:', 'fd77:2:'));
      await router.advertise({ prefixes: [{ prefix: 'fd77:3::/64', isAutonomous: false }], isManaged: true });
      await engine.must('rm', '-f', 'web');
      await runIdle(engine, 'web', '--net leased');
      const leased = await told('leased');
      assert.match(leased.address, /^fd77:3::1/);
      assert.equal(giver.addressOf(leased.macAddress), leased.address, giver.log());
      await engine.must('rm', '-f', 'web');
      await engine.must('network', 'rm', 'six', 'leased');
      await until(() => giver.addressOf(leased.macAddress) === undefined);
      // With our IPAM the engine knows the IPv4 address before, and is told this one all the same.
      await router.advertise({ prefixes: [{ prefix: 'fd77:1::/64' }] });
      const ours = '-d tsmacvlan --ipam-driver tsmacvlan --ipam-opt source=dhcp --ipam-opt parent=lan0 -o parent=lan0';
      await engine.must('network', 'create', ...ours.split(' '), '-o', 'source=dhcp', '-o', 'ipv6=slaac', 'ours');
      await runIdle(engine, 'web', '--net ours');
      assert.match((await told('ours')).address, /^fd77:1::/);
      await engine.must('rm', '-f', 'web');
      await engine.must('network', 'rm', 'ours');
      for (const one of [router, giver]) await one.unplug();
    });

    /** The network of a container, as the lab sees it from outside its host. */
    async function placeOf(container: string): Promise<DhcpPlace> {
      const { State } = await engine.inspect<{ State: { Pid: number } }>(`/containers/${container}/json`);
      const path = machine.host.networkOf(State.Pid);
      return { enter: (argv) => ['nsenter', `--net=${path}`, ...argv] };
    }

    test('a network that is removed gives back all that its containers had', async () => {
      await runIdle(engine, 'web', '--net lan');
      await assertTold('web');
      await clearEngine(engine);
      await until(async () => (await server.leases()).length === 0, { detail: () => server.log() });
      await assertNothingLeft(machine);
      await engine.must('network', 'create', ...NETWORK, 'lan');
    });
  });
}
