/**
 * Two hosts that share the addresses of one subnet through etcd, without planning ranges.
 *
 *     one ──lan0── switch 192.0.2.254, with etcd ──lan0── two
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { assertPings, attachment, runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Engine } from '../lab/engine.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { Host } from '../lab/host.ts';
import { makePlugin } from '../lab/managed.ts';
import { Lan } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';
import { type Machine, Site } from '../lab/site.ts';

const ETCD = '192.0.2.254';
const OPTIONS = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 -o parent=lan0'.split(' ');

describe('two hosts with one etcd', { skip: outsideLab(), timeout: 700_000 }, () => {
  let site: Site;
  let etcd: EtcdCluster;
  let machines: Machine[];
  let engines: [Engine, Engine];

  // The plugins start without etcd, and find it later.
  before(async () => {
    const settings = { STORE: `etcd://${ETCD}:23790` };
    site = await Site.open({ version: '28.5.2', hosts: ['one', 'two'], addresses: [`${ETCD}/24`], settings });
    ({ machines } = site);
    engines = machines.map(({ engine }) => engine) as [Engine, Engine];
    for (const [index, { host }] of machines.entries())
      await host.namespace.ip(`address add 192.0.2.25${index}/24 dev lan0`);
    const place = { namespace: site.lan.namespace, address: ETCD };
    etcd = await EtcdCluster.start({ directory: mkdtempSync('/run/etcd-'), place });
    for (const engine of engines) await engine.must('network', 'create', ...OPTIONS, '--gateway', ETCD, 'lan');
  });
  after(async () => {
    await etcd.stop();
    await site.close();
  });

  const claims = async () => {
    const keys = await etcd.must('get', '--prefix', '--keys-only', '/tsmacvlan/default/leases/');
    return keys.split('\n').flatMap((key) => key.split('/').at(-1) || []);
  };
  const addressOf = async (engine: Engine, name: string) => (await attachment(engine, name, 'lan')).IPAddress;

  test('containers that both hosts start at once get different addresses and reach each other', async () => {
    const names = ['web', 'cache', 'queue', 'db'];
    await Promise.all(engines.flatMap((engine) => names.map((name) => runIdle(engine, name, '--net lan'))));
    const given = await Promise.all(engines.flatMap((engine) => names.map((name) => addressOf(engine, name))));
    // Not always the lowest eight: what one host was about to keep ready the other one leaves out.
    assert.equal(new Set(given).size, 8, given.join(' '));
    assert.deepEqual((await claims()).sort(), [...given, ETCD].sort());
    await assertPings(engines[0], 'web', await addressOf(engines[1], 'db'));
    await assertPings(engines[1], 'web', await addressOf(engines[0], 'db'));
  });

  test('an address of the other host is refused with the name of that host', async () => {
    const address = await addressOf(engines[1], 'cache');
    const { stderr } = await engines[0].docker('run', '--rm', '--net', 'lan', '--ip', address, 'busybox', 'true');
    assert.match(
      stderr,
      new RegExp(`address ${address} is used on host two-[0-9a-f]{12} of the shared store; choose another --ip`),
    );
  });

  test('without etcd containers run and stop, new ones are refused within seconds; with it all is made good', async () => {
    await etcd.stopMember(0);
    const given = await addressOf(engines[0], 'web');
    await assertPings(engines[0], 'web', await addressOf(engines[1], 'web'));
    await engines[0].must('rm', '-f', 'web');

    const begin = performance.now();
    const { stderr } = await engines[0].docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
    assert.match(stderr, /the shared store has no quorum or cannot be reached \(etcd at 192/);
    // The daemon answers within 9 s; the rest is the docker command's.
    assert.ok(performance.now() - begin < 20_000, `refused after ${performance.now() - begin} ms`);

    // Its name and its leases are kept meanwhile.
    await machines[0]?.plugin.restart('SIGKILL');
    etcd.startMember(0);
    await etcd.ready();
    await until(async () => !(await claims()).includes(given));
    const starts = async () => (await engines[0].docker('run', '-d', '--net', 'lan', 'busybox', 'true')).code === 0;
    await until(starts);
    const nodes = await etcd.must('get', '--prefix', '--keys-only', '/tsmacvlan/default/nodes/');
    assert.equal(nodes.split('\n').filter(Boolean).length, 2);
  });

  test('networks and containers that go leave no claim', async () => {
    for (const engine of engines) {
      const containers = (await engine.must('ps', '-aq')).split('\n').filter(Boolean);
      await engine.must('rm', '-f', ...containers);
      await engine.must('network', 'rm', 'lan');
    }
    await until(async () => (await claims()).length === 0);
  });
});

/**     three: managed plugin ──lan0── switch 192.0.2.254, with etcd     */
describe('the managed plugin with etcd', { skip: outsideLab(), timeout: 400_000 }, () => {
  let lan: Lan;
  let host: Host;
  let engine: Engine;
  let etcd: EtcdCluster;

  before(async () => {
    lan = await Lan.create([`${ETCD}/24`]);
    host = await Host.boot('three', lan);
    await host.namespace.ip('address add 192.0.2.250/24 dev lan0');
    const place = { namespace: lan.namespace, address: ETCD };
    [etcd, engine] = await Promise.all([
      EtcdCluster.start({ directory: mkdtempSync('/run/etcd-'), place }),
      Engine.start(host, '28.5.2'),
    ]);
  });
  after(async () => {
    await etcd.stop();
    await host.scrap(lan);
    await lan.namespace.delete();
  });

  const get = async (table: string) => {
    const words = (await etcd.must('get', '--prefix', `/tsmacvlan/default/${table}/`)).split('\n');
    return words.filter(Boolean).map((word) => word.slice(word.lastIndexOf('/') + 1));
  };

  test('with STORE set it claims what it gives out, and is the same host when it starts again, also while etcd is away', async () => {
    await engine.must('plugin', 'create', 'tsmacvlan:lan', await makePlugin('/run/plugin'));
    await engine.must('plugin', 'set', 'tsmacvlan:lan', `STORE=${etcd.url}`);
    await engine.must('plugin', 'enable', 'tsmacvlan:lan');
    await engine.must('network', 'create', ...OPTIONS, '--gateway', ETCD, 'lan');
    await runIdle(engine, 'web', '--net lan');
    const address = (await attachment(engine, 'web', 'lan')).IPAddress;
    const node = (await get('nodes'))[0] ?? '';
    assert.match(node, /^three-[0-9a-f]{12}$/);
    const claimed = [address, `{"kind":"container","nodes":["${node}"]}`];
    const gateway = [ETCD, `{"kind":"gateway","nodes":["${node}"]}`];
    assert.deepEqual(await get('leases'), [...claimed, ...gateway]);

    // An engine disables a plugin for good that does not come up.
    await engine.must('plugin', 'disable', '-f', 'tsmacvlan:lan');
    await etcd.stopMember(0);
    await engine.must('plugin', 'enable', 'tsmacvlan:lan');
    etcd.startMember(0);
    await etcd.ready();
    await engine.must('rm', '-f', 'web');
    await until(async () => (await get('leases')).join() === gateway.join());
    await engine.must('network', 'rm', 'lan');
    await until(async () => (await get('leases')).length === 0);
    assert.deepEqual((await get('nodes'))[0], node);
  });
});
