/**
 * Addresses of the LAN's DHCP server through our IPAM (`--ipam-opt source=dhcp -o source=dhcp`), with the calls of engines that say
 * names and of those that do not. Judged by the container's kernel and the server's lease file.
 *
 *     host "one": tsmacvlan, containers ── lan0 ── br0 (ns "lan") ── kea or udhcpd
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { doubles } from '../lab/census.ts';
import { type DhcpKind, type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, type FakeNetwork, Refusal, Understudy, type Wish } from '../lab/understudy.ts';

const RESERVED = '02:00:5e:10:00:aa';
const PLAN = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: 120,
  reservations: { [RESERVED]: '10.77.0.50' },
} as const satisfies DhcpPlan;
const OPTIONS = { source: 'dhcp' };
const IPAM_OPTIONS = { source: 'dhcp', parent: 'lan0' };

describe('addresses of a DHCP server through our IPAM', {
  skip: outsideLab() || withoutDhcp(),
  timeout: 300_000,
}, () => {
  let lan: Lan;
  let engine: Understudy;
  let server: DhcpServer | undefined;
  let served = 0;

  before(async () => {
    lan = await Lan.create();
    engine = new Understudy(await Plugin.start(await Host.boot('one', lan), { DHCP_TIMEOUT: '5' }));
  });

  afterEach(async () => {
    await engine.clear();
    await server?.unplug();
    assert.doesNotMatch(engine.plugin.log(), /internal error|INTERNAL/);
  });

  after(() => engine.plugin.stop());

  async function serve(kind: DhcpKind, change: Partial<DhcpPlan> = {}): Promise<DhcpServer> {
    server = await DhcpServer.plug(lan, `server${++served}`, kind, { ...PLAN, ...change });
    return server;
  }

  const create = (subnet = '', ipamOptions: Record<string, string> = IPAM_OPTIONS): Promise<FakeNetwork> =>
    engine.createNetwork({ subnet, options: OPTIONS, ipamOptions });

  const bare = ({ address }: Container) => address.replace(/\/.*/, '');

  /** What the engine was told, the kernel has and the server has on file. */
  async function told(container: Container, by: DhcpServer): Promise<{ macAddress: string; address: string }> {
    const [link] = await container.namespace.show<{ address: string }>('link show dev eth0');
    const macAddress = link?.address ?? '';
    assert.equal((await by.leaseOf(macAddress))?.address, bare(container), by.log());
    return { macAddress, address: container.address };
  }

  async function refusal(starting: Promise<unknown>): Promise<string> {
    const error: unknown = await starting.then(
      () => assert.fail('it was not refused'),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof Refusal, String(error));
    return error.message;
  }

  for (const kind of ['kea', 'udhcpd'] as const)
    test(`${kind}: the subnet is learned, and containers have their addresses again, by name and without one`, async () => {
      const by = await serve(kind);
      const network = await create();
      assert.match(network.poolId ?? '', /^TsmacvlanLocal\/10\.77\.0\.0\/24\?/);
      // udhcpd lists what it has only offered too, for a minute.
      if (kind !== 'udhcpd') assert.deepEqual(await by.leases(), []);
      const run = (wish?: Wish) => engine.run(network, wish);
      const [nameless, web] = [await run(), await run({ name: 'web_1' })];
      const [first, second] = [await told(nameless, by), await told(web, by)];
      assert.equal((await by.leaseOf(second.macAddress))?.hostname, 'web-1');
      await engine.remove(nameless);
      await engine.remove(web);
      await engine.plugin.restart('SIGKILL');
      const other = await run({ name: 'db' });
      assert.deepEqual(await told(await run(), by), first);
      assert.deepEqual(await told(await run({ name: 'web_1' }), by), second);
      assert.notEqual(other.address, first.address);
      const leases = await engine.plugin.command('leases');
      assert.equal(leases.match(/ dhcp .* bound$/gm)?.length, 3, leases);
      await engine.clear();
      const macs = [first.macAddress, second.macAddress];
      await until(async () => !(await by.leases()).some(({ macAddress }) => macs.includes(macAddress)), {
        detail: () => by.log(),
      });
      assert.equal(await engine.plugin.command('leases'), 'none');
    });

  test('an address that the user names is had from the server, or refused with what that gives', async () => {
    const by = await serve('kea');
    const network = await create('10.77.0.0/24');
    for (const subnet of ['', '10.77.0.0/24'])
      assert.match(
        await refusal(create(subnet)),
        /^subnet 10\.77\.0\.0\/24 of the DHCP server belongs to network .*, or create this one with --ipam-driver null /,
      );
    const named = await engine.run(network, { address: '10.77.0.123' });
    assert.equal((await told(named, by)).address, '10.77.0.123/24');
    assert.match(
      await refusal(engine.run(network, { address: '10.77.0.50' })),
      /^the DHCP server 10\.77\.0\.1 gives 10\.77\.0\.1\d\d, not 10\.77\.0\.50; free that address there, or give another one \(--ip/,
    );
    assert.match(
      await refusal(engine.run(network, { macAddress: RESERVED })),
      /^the DHCP server 10\.77\.0\.1 has 10\.77\.0\.50 for 02:00:5e:10:00:aa, .*; add --ip 10\.77\.0\.50, or create the network with --ipam-driver null$/,
    );
    const reserved = await engine.run(network, { macAddress: RESERVED, address: '10.77.0.50' });
    assert.deepEqual(await told(reserved, by), { macAddress: RESERVED, address: '10.77.0.50/24' });
  });

  test('ten at once have ten addresses, and ten that start again have them again', async () => {
    const by = await serve('kea');
    const network = await create();
    const names = Array.from({ length: 10 }, (_, at) => `c${at}`);
    const runAll = async () => {
      const containers = await Promise.all(names.map((name) => engine.run(network, { name })));
      for (const container of containers) await told(container, by);
      return containers;
    };
    const first = await runAll();
    assert.deepEqual(doubles(first.map(({ address }) => address)), []);
    await Promise.all(first.map((container) => engine.remove(container)));
    const again = await runAll();
    assert.deepEqual(
      again.map(({ address }) => address),
      first.map(({ address }) => address),
    );
  });

  test('an engine that dies before CreateEndpoint finds the name with its addresses', async () => {
    const by = await serve('kea');
    const network = await create();
    const first = await engine.run(network, { name: 'web' });
    const web = await told(first, by);
    await engine.remove(first);
    await engine.requestAddress(network, { name: 'web' });
    assert.deepEqual(await told(await engine.run(network, { name: 'web' }), by), web);
  });

  test('a network that is removed while an address is asked for leaves no lease', async () => {
    const by = await serve('kea');
    const network = await create();
    const asking = engine.requestAddress(network, { name: 'web' }).catch((error: unknown) => error);
    await until(async () => (await by.leases()).length > 0, { pollMs: 10 });
    await engine.deleteNetwork(network);
    await asking;
    await until(async () => (await by.leases()).length === 0, { detail: () => by.log() });
    assert.equal(await engine.plugin.command('leases'), 'none');
  });

  test('a server of another subnet than the network gives nothing, and keeps nothing', async () => {
    const by = await serve('kea');
    const network = await create('10.66.0.0/24');
    assert.match(
      await refusal(engine.run(network)),
      /^the DHCP server 10\.77\.0\.1 gives 10\.77\.0\.1\d\d, which is not in 10\.66\.0\.0\/24; create the network again with that subnet, or/,
    );
    await until(async () => (await by.leases()).length === 0, { detail: () => by.log() });
  });

  test('what goes with no DHCP server is refused, and so is a LAN without one', async () => {
    const pool = (change: object) =>
      refusal(
        engine.call('IpamDriver.RequestPool', {
          AddressSpace: 'TsmacvlanLocal',
          Pool: '10.77.0.0/24',
          SubPool: '',
          V6: false,
          Options: IPAM_OPTIONS,
          ...change,
        }),
      );
    assert.match(
      await pool({ SubPool: '10.77.0.0/28' }),
      /the DHCP server chooses the addresses, and --ip-range changes/,
    );
    for (const option of ['exclude', 'order'])
      assert.match(
        await pool({ Options: { ...IPAM_OPTIONS, [option]: option === 'order' ? 'rested' : '10.77.0.5' } }),
        new RegExp(`and --ipam-opt ${option}= changes nothing of that; leave one of the two out$`),
      );
    assert.match(
      await pool({ Options: { source: 'dhcp' } }),
      /does not say on which LAN the server is; add --ipam-opt parent=/,
    );
    assert.match(await pool({ Options: { ...IPAM_OPTIONS, source: 'dchp' } }), /"dchp".*dhcp/);
    assert.match(
      await pool({ AddressSpace: 'TsmacvlanGlobal' }),
      /needs the LAN, which a manager of a swarm may not be on/,
    );
    assert.match(await pool({ Pool: 'fd77::/64', V6: true }), /leave --ipv6 out and add -o ipv6=auto/);
    const unserved = { ...IPAM_OPTIONS, parent: 'lan9' };
    assert.match(await pool({ Pool: '', Options: unserved }), /^interface "lan9" does not exist on this host \(.*lan0/);
    assert.match(await pool({ Pool: '' }), /^no DHCP server answered on "lan0" within 5 s/);
    const plan = { subnet: '10.77.0.0/24', options: OPTIONS };
    assert.match(
      await refusal(engine.createNetwork({ ...plan, ipamOptions: {} })),
      /not the IPAM that has subnet 10\.77\.0\.0\/24; create the network with --ipam-driver null, .* --ipam-opt source=dhcp$/,
    );
    await engine.call('IpamDriver.ReleasePool', { PoolID: 'TsmacvlanLocal/10.77.0.0/24' });
    assert.match(
      await refusal(engine.createNetwork({ ...plan, options: {}, ipamOptions: IPAM_OPTIONS })),
      /come from a DHCP server .* and the network does not say so; add -o source=dhcp$/,
    );
    const left = 'TsmacvlanLocal/10.77.0.0/24?parent=lan0&source=dhcp';
    await engine.call('IpamDriver.ReleasePool', { PoolID: left });
  });
});
