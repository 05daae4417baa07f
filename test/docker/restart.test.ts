/** The plugin and the engine come back from restarts and SIGKILL with everything they knew. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { assertPings, attachment, clearEngine, runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Engine as DockerEngine } from '../lab/engine.ts';
import { Interposer } from '../lab/interposer.ts';
import { assertConsistent, assertNothingLeft } from '../lab/invariant.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Machine, Site } from '../lab/site.ts';

/** An engine does not see by which signal its plugin went: each has one of the two. */
const ENGINES: readonly [version: Version, signal: 'SIGTERM' | 'SIGKILL'][] = [
  ['20.10.24', 'SIGTERM'],
  ['28.5.2', 'SIGKILL'],
];
const NETWORK = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 --gateway 192.0.2.254 -o parent=lan0'.split(
  ' ',
);

for (const [version, signal] of ENGINES) {
  describe(`restarts, engine ${version}`, { skip: outsideLab(), timeout: 900_000 }, () => {
    let site: Site;
    let machine: Machine;
    let engine: Engine;
    let plugin: Plugin;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'], addresses: ['192.0.2.254/24'] });
      machine = site.machines[0] as Machine;
      ({ engine, plugin } = machine);
    });
    after(() => site.close());
    afterEach(async () => {
      await assertConsistent([machine], site.lan);
      await clearEngine(engine);
      await assertNothingLeft(machine);
    });

    test(`containers go on through ${signal} of the plugin, and it still knows their addresses`, async () => {
      await engine.must('network', 'create', ...NETWORK, 'lan');
      await runIdle(engine, 'web', '--net lan');
      await plugin.restart(signal);
      await assertPings(engine, 'web', '192.0.2.254');
      await runIdle(engine, 'db', '--net lan');
      assert.equal((await attachment(engine, 'db', 'lan')).IPAddress, '192.0.2.2');
      const taken = await engine.docker('run', '--rm', '--net', 'lan', '--ip', '192.0.2.1', 'busybox', 'true');
      assert.match(taken.stderr, /address 192\.0\.2\.1 is used by endpoint [0-9a-f]{12}/);
    });

    // After SIGKILL: comeback.test.ts.
    test('a container that restarts always is back on the LAN after SIGTERM of the engine', async () => {
      await engine.must('network', 'create', ...NETWORK, 'lan');
      await runIdle(engine, 'web', '--net lan --restart always --ip 192.0.2.9');
      await engine.restart('SIGTERM');
      await assertPings(engine, 'web', '192.0.2.254');
      assert.equal((await attachment(engine, 'web', 'lan')).IPAddress, '192.0.2.9');
    });

    test('a container whose engine was killed frees its address when it is removed', async () => {
      await engine.must('network', 'create', ...NETWORK, 'lan');
      await runIdle(engine, 'web', '--net lan --ip 192.0.2.9');
      await engine.restart('SIGKILL');
      await engine.must('rm', '-f', 'web');
      await runIdle(engine, 'db', '--net lan --ip 192.0.2.9');
      await assertPings(engine, 'db', '192.0.2.254');
    });
  });
}

for (const [version, signal] of ENGINES) {
  describe(`the plugin gets ${signal} before every single call of engine ${version}`, {
    skip: outsideLab(),
    timeout: 900_000,
  }, () => {
    let lan: Lan;
    let host: Host;
    let engine: Engine;
    let plugin: Plugin;
    let interposer: Interposer;

    before(async () => {
      lan = await Lan.create(['192.0.2.254/24', '2001:db8::fe/64']);
      host = await Host.boot('host', lan);
      engine = await DockerEngine.start(host, version);
      const socket = '/run/tsmacvlan.sock';
      plugin = await Plugin.start(host, { SOCKET: socket });
      const engineSide = host.file('/run/docker/plugins/tsmacvlan.sock');
      interposer = await Interposer.listen(engineSide, host.file(socket), () => plugin.restart(signal));
    });
    after(async () => {
      interposer.close();
      await host.scrap(lan);
      await lan.namespace.delete();
    });

    test('networks and containers live and die as if it had never been away', async () => {
      await engine.must(
        'network',
        'create',
        ...NETWORK,
        '--ipv6',
        '--subnet',
        '2001:db8::/64',
        '--aux-address',
        'printer=192.0.2.1',
        'lan',
      );
      await engine.must(
        'network',
        'create',
        '-d',
        'tsmacvlan',
        '-o',
        'parent=lan0',
        '-o',
        'macvlan_mode=private',
        '--subnet',
        '198.51.100.0/24',
        'other',
      );
      await runIdle(engine, 'web', '--net lan');
      await assertPings(engine, 'web', '192.0.2.254');
      await engine.must('network', 'connect', 'other', 'web');
      await engine.must('network', 'disconnect', 'other', 'web');
      await engine.must('stop', 'web');
      await engine.must('start', 'web');
      assert.equal((await attachment(engine, 'web', 'lan')).IPAddress, '192.0.2.2');
      await assertPings(engine, 'web', '192.0.2.254');
      await assertConsistent([{ host, engine, plugin }], lan);
      await engine.must('rm', '-f', 'web');
      await engine.must('network', 'rm', 'lan', 'other');
      await assertNothingLeft({ host, engine, plugin });
      assert.ok(interposer.calls.length > 30, `${interposer.calls.length} calls passed`);
    });
  });
}
