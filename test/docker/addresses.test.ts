/** Which addresses containers get: from the plugin's IPAM and from Docker's, in both families and several subnets. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { assertNoPing, assertPings, attachment, clearEngine, runIdle, runInside } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertConsistent, assertNothingLeft } from '../lab/invariant.ts';
import { type Machine, Site } from '../lab/site.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
const SWITCH = ['192.0.2.254/24', '2001:db8::fe/64', '198.51.100.254/24'];

for (const version of VERSIONS) {
  describe(`addresses, engine ${version}`, { skip: outsideLab(), timeout: 600_000 }, () => {
    let site: Site;
    let machine: Machine;
    let engine: Engine;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'], addresses: SWITCH });
      machine = site.machines[0] as Machine;
      engine = machine.engine;
    });
    after(() => site.close());
    afterEach(async () => {
      await assertConsistent([machine], site.lan);
      await clearEngine(engine);
      await assertNothingLeft(machine);
    });

    for (const ipam of ['tsmacvlan', 'default'])
      test(`IPv4 and IPv6 side by side, IPAM ${ipam}`, async () => {
        await create(
          engine,
          'lan',
          `--ipam-driver ${ipam} --subnet 192.0.2.0/24 --gateway 192.0.2.254 --ipv6 --subnet 2001:db8::/64`,
        );
        await runIdle(engine, 'web', '--net lan');
        await runIdle(engine, 'db', '--net lan --ip 192.0.2.77 --ip6 2001:db8::77');
        await assertPings(engine, 'web', '2001:db8::77');
        await assertPings(engine, 'web', '2001:db8::fe');
        await assertPings(engine, 'db', '192.0.2.254');
        const { IPAddress, GlobalIPv6Address } = await attachment(engine, 'web', 'lan');
        assert.equal(IPAddress, '192.0.2.1');
        assert.match(GlobalIPv6Address, /^2001:db8::[12]$/);
      });

    // That engines and IPAMs alike have no way out of it where a gateway is named is shown by the parity of drivers.
    const ipamOfInternal = version === '28.5.2' ? 'tsmacvlan' : 'default';
    test(`--internal: the LAN is there, the way out of it is not, IPAM ${ipamOfInternal}`, async () => {
      await site.lan.namespace.ip('address replace 203.0.113.1/32 dev lo');
      await create(engine, 'lan', `--ipam-driver ${ipamOfInternal} --internal --subnet 192.0.2.0/24`);
      await runIdle(engine, 'web', '--net lan');
      await assertPings(engine, 'web', '192.0.2.254');
      await assertNoPing(engine, 'web', '203.0.113.1');
      const { stdout } = await runInside(engine, 'web', 'sh', '-c', 'ip route; ip link');
      assert.match(stdout, /eth0/);
      assert.doesNotMatch(stdout, /default|eth1/);
    });

    test('a network of several subnets goes on in the next when one is full', async () => {
      const subnets = ['192.0.2.252/30 --gateway 192.0.2.254', '198.51.100.252/30 --gateway 198.51.100.254'];
      await create(engine, 'lan', `--ipam-driver tsmacvlan --subnet ${subnets.join(' --subnet ')}`);
      const names = ['c1', 'c2'];
      for (const name of names) await runIdle(engine, name, '--net lan');
      const given = await Promise.all(names.map(async (name) => (await attachment(engine, name, 'lan')).IPAddress));
      // Which of them comes first is left to chance by the docker command.
      const [first, second] = given[0]?.startsWith('192') ? ['192.0.2', '198.51.100'] : ['198.51.100', '192.0.2'];
      assert.deepEqual(given, [`${first}.253`, `${second}.253`]);
      await assertPings(engine, 'c1', `${first}.254`);
      await assertPings(engine, 'c2', `${second}.254`);
    });

    // What an engine has no part in, or what the parity of drivers shows on each.
    if (version !== '28.5.2') return;

    test('--aux-address is kept free, and an address comes back when its container is gone', async () => {
      await create(
        engine,
        'lan',
        '--ipam-driver tsmacvlan --subnet 192.0.2.0/24 --ip-range 192.0.2.0/29 --gateway 192.0.2.254 --aux-address nas=192.0.2.1',
      );
      await runIdle(engine, 'web', '--net lan');
      assert.equal((await attachment(engine, 'web', 'lan')).IPAddress, '192.0.2.2');
      await engine.must('rm', '-f', 'web');
      await runIdle(engine, 'web', '--net lan --ip 192.0.2.2');
      await assertPings(engine, 'web', '192.0.2.254');
    });

    test('networks of one subnet, each with its --ip-range, never give an address twice', async () => {
      const range = (part: string) =>
        `--ipam-driver tsmacvlan --subnet 192.0.2.0/24 --gateway 192.0.2.254 --ip-range ${part}`;
      await create(engine, 'narrow', range('192.0.2.0/29'));
      await create(engine, 'wide', range('192.0.2.0/28'));
      for (const name of ['n1', 'n2']) await runIdle(engine, name, '--net narrow');
      for (const name of ['w1', 'w2']) await runIdle(engine, name, '--net wide');
      const given = await Promise.all(
        ['n1', 'n2']
          .map((name) => attachment(engine, name, 'narrow'))
          .concat(['w1', 'w2'].map((name) => attachment(engine, name, 'wide'))),
      );
      assert.equal(new Set(given.map(({ IPAddress }) => IPAddress)).size, 4);
    });

    test('without --subnet every network gets one of its own', async () => {
      await create(engine, 'first', '--ipam-driver tsmacvlan');
      await create(engine, 'second', '--ipam-driver tsmacvlan');
      await runIdle(engine, 'web', '--net first');
      await runIdle(engine, 'db', '--net second');
      const [web, db] = [await attachment(engine, 'web', 'first'), await attachment(engine, 'db', 'second')];
      assert.notEqual(web.IPAddress, db.IPAddress);
    });
  });
}

async function create(engine: Engine, name: string, words: string): Promise<void> {
  await engine.must('network', 'create', '-d', 'tsmacvlan', '-o', 'parent=lan0', ...words.split(' '), name);
}
