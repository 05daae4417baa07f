/** Containers with interfaces on two parents of one LAN, where each of them answers for the addresses of both. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { attachment } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { type Machine, Site } from '../lab/site.ts';

const SUBNETS = { lan0: '192.0.2', lan1: '198.51.100' };
const NAMES = ['web', 'db', 'mail', 'log', 'cache', 'queue'];

describe('containers on two parents of one LAN', { skip: outsideLab(), timeout: 300_000 }, () => {
  let site: Site;
  let machine: Machine;

  before(async () => {
    site = await Site.open({ version: '28.5.2', hosts: ['host'], links: ['lan0', 'lan1'] });
    machine = site.machines[0] as Machine;
  });
  after(() => site.close());

  test('docker restart without --ip brings the same addresses, and no conflict', async () => {
    const { engine, plugin } = machine;
    for (const [parent, net] of Object.entries(SUBNETS)) {
      const words = `-d tsmacvlan --ipam-driver tsmacvlan --subnet ${net}.0/24 --gateway ${net}.254 -o parent=${parent}`;
      await engine.must('network', 'create', ...words.split(' '), parent);
    }
    for (const name of NAMES) {
      await engine.must('create', '--name', name, '--stop-timeout', '0', '--net', 'lan0', 'busybox', 'sleep', '3600');
      await engine.must('network', 'connect', 'lan1', name);
    }
    const addresses = () => Promise.all(NAMES.map(async (name) => (await attachment(engine, name, 'lan0')).IPAddress));
    await engine.must('start', ...NAMES);
    const first = await addresses();
    // Until then others are on standby, one of which would be given out.
    await sleep(3000);
    await engine.must('restart', ...NAMES);
    assert.deepEqual(await addresses(), first);
    assert.equal(await plugin.command('conflicts'), 'none');
  });
});
