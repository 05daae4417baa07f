/**
 * The commands of the articles that people follow, as they type them: a parent named ens33 without an address in the
 * subnet, a gateway that does not exist, Docker's own IPAM.
 *
 *     one: bbox1 ──ens33── switch ──ens33── two: bbox2
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { assertPings, attachment } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertNothingLeft } from '../lab/invariant.ts';
import { Site } from '../lab/site.ts';

/** The parity of drivers types the same words on each engine; the others have their turn with ENGINES=20.10.24. */
const VERSIONS = (process.env.ENGINES?.split(',') ?? ['28.5.2']) as Version[];

for (const version of VERSIONS) {
  describe(`as typed, engine ${version}`, { skip: outsideLab(), timeout: 400_000 }, () => {
    let site: Site;
    let one: Engine;
    let two: Engine;

    before(async () => {
      site = await Site.open({ version, hosts: ['one', 'two'], links: ['ens33'] });
      [one, two] = site.machines.map(({ engine }) => engine) as [Engine, Engine];
    });
    after(() => site.close());
    afterEach(async () => {
      for (const machine of site.machines) {
        await typed(machine.engine, 'docker rm -f bbox1 bbox2').catch(() => '');
        await typed(machine.engine, 'docker network prune -f');
        await assertNothingLeft(machine);
      }
    });

    for (const promiscuity of ['off', 'on']) {
      test(`one network on two hosts, a container on each, promiscuous mode ${promiscuity}`, async () => {
        for (const { host } of site.machines) await host.namespace.ip(`link set ens33 promisc ${promiscuity}`);
        for (const engine of [one, two]) {
          await typed(
            engine,
            'docker network create -d tsmacvlan --subnet 172.22.16.0/24 --gateway 172.22.16.1 -o parent=ens33 mac_net1',
          );
        }
        await typed(one, 'docker run -itd --name bbox1 --ip 172.22.16.10 --network mac_net1 busybox');
        await typed(two, 'docker run -itd --name bbox2 --ip 172.22.16.20 --network mac_net1 busybox');
        assert.match(await typed(one, 'docker exec bbox1 ping -c 2 172.22.16.20'), / 0% packet loss/);
        assert.match(await typed(two, 'docker exec bbox2 ping -c 2 172.22.16.10'), / 0% packet loss/);
      });
    }

    test('without --ip the first container gets .2 when .1 is the gateway', async () => {
      await typed(
        one,
        'docker network create -d tsmacvlan --subnet=192.168.40.0/24 --gateway=192.168.40.1 -o parent=ens33 mcv',
      );
      await typed(one, 'docker run -itd --name bbox1 --net=mcv busybox');
      await typed(one, 'docker run -itd --name bbox2 --net=mcv busybox');
      assert.equal((await attachment(one, 'bbox1', 'mcv')).IPAddress, '192.168.40.2');
      assert.equal((await attachment(one, 'bbox2', 'mcv')).IPAddress, '192.168.40.3');
      await assertPings(one, 'bbox1', '192.168.40.3');
      await assertPings(one, 'bbox2', 'bbox1');
    });

    test('a network connected later, and a fixed MAC address', async () => {
      await typed(one, 'docker network create -d tsmacvlan --subnet 10.1.0.0/24 -o parent=ens33 first');
      await typed(one, 'docker network create -d tsmacvlan --subnet 10.2.0.0/24 -o parent=ens33 second');
      await typed(one, 'docker run -itd --name bbox1 --net first --mac-address 02:42:ac:11:65:43 busybox');
      await typed(one, 'docker run -itd --name bbox2 --net second busybox');
      await typed(one, 'docker network connect second bbox1');
      assert.equal((await attachment(one, 'bbox1', 'first')).MacAddress, '02:42:ac:11:65:43');
      assert.match(await typed(one, 'docker exec bbox1 ip link show eth0'), /02:42:ac:11:65:43/);
      await assertPings(one, 'bbox1', (await attachment(one, 'bbox2', 'second')).IPAddress);
      await typed(one, 'docker network disconnect second bbox1');
      assert.doesNotMatch(await typed(one, 'docker exec bbox1 ip link'), /eth1/);
    });
  });
}

/** Runs a command as it stands on the page. */
function typed(engine: Engine, command: string): Promise<string> {
  const [, ...words] = command.split(' ');
  return engine.must(...words);
}
