/**
 * The main job: containers of two hosts on one LAN.
 *
 *     one: web, cache ──lan0── switch 192.0.2.254 ──lan0── two: db
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Capture } from '../lab/capture.ts';
import { assertPings, attachment, runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { assertConsistent } from '../lab/invariant.ts';
import { type Engine, SUITE_OF, type Version } from '../lab/engine.ts';
import { Site } from '../lab/site.ts';

const SUBNET = '--subnet 192.0.2.0/24 --gateway 192.0.2.254'.split(' ');

for (const version of Object.keys(SUITE_OF) as Version[]) {
  describe(`two hosts on one LAN, engine ${version}`, { skip: outsideLab(), timeout: 400_000 }, () => {
    let site: Site;
    let one: Engine;
    let two: Engine;

    before(async () => {
      site = await Site.open({ version, hosts: ['one', 'two'], addresses: ['192.0.2.254/24'] });
      [one, two] = site.machines.map(({ engine }) => engine) as [Engine, Engine];
      await createNetwork(one, '192.0.2.64/26');
      await createNetwork(two, '192.0.2.128/26');
      await runIdle(one, 'web', '--net lan');
      await runIdle(one, 'cache', '--net lan');
      await runIdle(two, 'db', '--net lan');
    });
    after(() => site.close());

    test('containers get the first addresses of their --ip-range, and a MAC made of the address', async () => {
      const [web, cache] = [await attachment(one, 'web', 'lan'), await attachment(one, 'cache', 'lan')];
      assert.deepEqual([web.IPAddress, web.IPPrefixLen, web.Gateway], ['192.0.2.64', 24, '192.0.2.254']);
      assert.deepEqual([cache.IPAddress, cache.MacAddress], ['192.0.2.65', '02:42:c0:00:02:41']);
    });

    test('containers on different hosts reach each other by address, both ways', async () => {
      await assertPings(one, 'web', '192.0.2.128');
      await assertPings(two, 'db', '192.0.2.64');
    });

    test('containers on one host reach each other by address and by name', async () => {
      await assertPings(one, 'web', '192.0.2.65');
      await assertPings(one, 'web', 'cache');
      await assertPings(one, 'cache', 'web');
    });

    test('containers reach the gateway and, through it, what lies behind', async () => {
      await site.lan.namespace.ip('address add 198.51.100.1/32 dev lo');
      await assertPings(one, 'web', '192.0.2.254');
      await assertPings(one, 'web', '198.51.100.1');
    });

    test('engines, records, links and the wire tell the same of all of them', async () => {
      await assertConsistent(site.machines, site.lan);
    });

    test("frames on the LAN carry the container's own MAC, never the host's", async () => {
      const capture = await Capture.start(site.lan.namespace, site.machines[0]?.host.ports.lan0 ?? '', 'arp or icmp');
      await assertPings(one, 'web', '192.0.2.128');
      const frames = await capture.stop();
      const [web, db] = [await attachment(one, 'web', 'lan'), await attachment(two, 'db', 'lan')];
      const [link] = (await site.machines[0]?.host.namespace.show<{ address: string }>('link show lan0')) ?? [];
      const senders = new Set(frames.map((frame) => frame.sourceMac));
      assert.ok(senders.has(web.MacAddress) && senders.has(db.MacAddress), [...senders].join(' '));
      assert.ok(!senders.has(link?.address ?? ''), [...senders].join(' '));
    });
  });
}

async function createNetwork(engine: Engine, range: string): Promise<void> {
  const ours = ['-d', 'tsmacvlan', '--ipam-driver', 'tsmacvlan'];
  await engine.must('network', 'create', ...ours, ...SUBNET, '--ip-range', range, '-o', 'parent=lan0', 'lan');
}
