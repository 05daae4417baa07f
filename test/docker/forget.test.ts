/**
 * A network that is removed while nobody of ours hears of it: the engine tries ReleaseAddress, ReleasePool and
 * DeleteNetwork, and forgets the network whatever comes back.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Engine, type Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Interposer } from '../lab/interposer.ts';
import { assertConsistent, assertNothingLeft } from '../lab/invariant.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import type { Machine } from '../lab/site.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
const CREATE = 'network create -d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 -o parent=lan0'.split(' ');

for (const version of VERSIONS) {
  describe(`networks the engine forgot, engine ${version}`, { skip: outsideLab(), timeout: 400_000 }, () => {
    let lan: Lan;
    let machine: Machine;
    let interposer: Interposer;
    let isAway = false;

    before(async () => {
      lan = await Lan.create();
      const host = await Host.boot('host', lan);
      const engine = await Engine.start(host, version);
      const socket = '/run/tsmacvlan.sock';
      const plugin = await Plugin.start(host, { SOCKET: socket });
      machine = { host, engine, plugin };
      const engineSide = host.file('/run/docker/plugins/tsmacvlan.sock');
      // The engine waits 15 s for each call to a plugin that is not there; an error it takes at once, and no otherwise.
      interposer = await Interposer.listen(engineSide, host.file(socket), async () => {
        if (isAway) throw new Error('away');
      });
    });
    after(async () => {
      interposer.close();
      await machine.host.scrap(lan);
      await lan.namespace.delete();
    });

    test('its subnet stays taken, the refusal says what to do, and that frees it', async () => {
      const { engine } = machine;
      const id = await engine.must(...CREATE, 'old');
      isAway = true;
      await engine.must('network', 'rm', 'old');
      isAway = false;
      assert.doesNotMatch(await engine.must('network', 'ls'), /old/);
      const refused = await engine.docker(...CREATE, 'new');
      const advice = /if Docker lists no such network: tsmacvlan (forget [0-9a-f]{12})/.exec(refused.stderr);
      assert.equal(advice?.[1], `forget ${id.slice(0, 12)}`, refused.stderr);
      assert.match(
        await machine.plugin.command('forget', id.slice(0, 12)),
        /is forgotten; free again: 192\.0\.2\.0\/24/,
      );
      await assertNothingLeft(machine);
      await engine.must(...CREATE, 'new');
      await runIdle(engine, 'web', '--net new');
      await assertConsistent([machine], lan);
    });

    test('a network with a container is not forgotten, nor one that is not named exactly', async () => {
      const id = (await machine.engine.must('network', 'inspect', '--format', '{{.Id}}', 'new')).slice(0, 12);
      await assert.rejects(
        machine.plugin.command('forget', id),
        /has a container \(endpoint [0-9a-f]{12}\), so Docker knows it/,
      );
      await assert.rejects(machine.plugin.command('forget', 'zzz'), /no network ID starts with "zzz"/);
      await assertConsistent([machine], lan);
      await machine.engine.must('rm', '-f', 'web');
      await machine.engine.must('network', 'rm', 'new');
      await assertNothingLeft(machine);
    });
  });
}
