/**
 * The ground this level stands on, shown with what the kernel and Docker bring: what fails here is no fault of the
 * plugin. The switch passes tagged frames as they are, so each cable is a trunk.
 *
 *     one: lan0.60 ──lan0── switch ──lan0── two: lan0.60, lan0.61
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { Capture } from '../lab/capture.ts';
import { assertNoPing, assertPings, runIdle } from '../lab/container.ts';
import { Engine } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { inVlanKernel } from '../lab/uml.ts';

const SUBNET = '10.60.0.0/24';

inVlanKernel(import.meta.filename, { memoryMb: 2048 }, () => {
  test('every kind of parent can be made and carries a macvlan', { timeout: 120_000 }, async () => {
    const namespace = await Namespace.create('kinds');
    await namespace.ip('link add dummy0 type dummy');
    await namespace.ip('link add dummy0.10 link dummy0 type vlan protocol 802.1ad id 10');
    await namespace.ip('link add dummy0.10.20 link dummy0.10 type vlan id 20');
    await namespace.ip('link add bond0 type bond');
    await namespace.ip('link add team0 type team');
    await namespace.ip('link add bridge0 type bridge vlan_filtering 1');
    for (const parent of ['dummy0', 'dummy0.10', 'dummy0.10.20', 'bond0', 'team0', 'bridge0']) {
      await namespace.ip(`link add child link ${parent} type macvlan mode bridge`);
      await namespace.ip('link delete child');
    }
    await namespace.delete();
  });

  describe("with Docker's own driver", () => {
    let lan: Lan;
    let one: Engine;
    let two: Engine;

    before(
      async () => {
        lan = await Lan.create();
        const hosts = await Promise.all(['one', 'two'].map((name) => Host.boot(name, lan)));
        [one, two] = (await Promise.all(hosts.map((host) => Engine.start(host, '28.5.2')))) as [Engine, Engine];
        await createNetwork(one, 'lan0.60', 'v60');
        await runIdle(one, 'target', '--net v60 --ip 10.60.0.60');
      },
      { timeout: 240_000 },
    );

    test('a ping between two hosts passes the wire tagged', { timeout: 120_000 }, async () => {
      await createNetwork(two, 'lan0.60', 'v60');
      await runIdle(two, 'same', '--net v60 --ip 10.60.0.61');
      const capture = await Capture.start(lan.namespace, two.host.ports.lan0 ?? '');
      await assertPings(two, 'same', '10.60.0.60');
      const frames = (await capture.stop()).filter(({ etherType }) => etherType === 0x0800);
      assert.ok(frames.length >= 2, `${frames.length} frames`);
      for (const { vlans } of frames) assert.deepEqual(vlans, [60]);
    });

    test('another VLAN is another wire, even with the same subnet', { timeout: 120_000 }, async () => {
      await two.must('rm', '--force', 'same');
      await two.must('network', 'rm', 'v60');
      await createNetwork(two, 'lan0.61', 'v61');
      await runIdle(two, 'other', '--net v61 --ip 10.60.0.61');
      await assertNoPing(two, 'other', '10.60.0.60');
    });
  });
});

function createNetwork(engine: Engine, parent: string, name: string): Promise<string> {
  return engine.must('network', 'create', '-d', 'macvlan', '--subnet', SUBNET, '-o', `parent=${parent}`, name);
}
