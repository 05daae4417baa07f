/**
 * Machines that are copied with their state, and machines that boot: a copy takes neither the name of a node that is being
 * upgraded nor the addresses of its containers, and what a host had before it booted is free once the LAN was asked. With
 * PROBE=off etcd alone keeps an address from being given out again.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { type Owner, Owners } from '../lab/owners.ts';
import { until, untilSaid } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';

/** Longer than a daemon that retries every second needs to come in. */
const UPGRADE_MS = 4000;

describe('machines that are copied', { skip: outsideLab(), timeout: 300_000 }, () => {
  const options = { timeout: 150_000 };
  let owners: Owners;
  const copies: Host[] = [];
  before(async () => {
    owners = await Owners.open({ names: ['one', 'two'], members: 1, settings: { PROBE: 'off' } });
  });
  after(async () => {
    for (const copy of copies) await copy.scrap(owners.lan);
    await owners.close();
  });

  /** Its daemon runs when it is answered. */
  const copyOf = async ({ host }: Owner): Promise<Plugin> => {
    const copy = await Host.boot(`copy${copies.length}`, owners.lan);
    copies.push(copy);
    await copy.namespace.ip(`address add 192.0.2.${77 + copies.length}/24 dev lan0`);
    await copy.run(['hostname', host.name]);
    await output(['cp', '-a', `${host.directory}/disk/tsmacvlan`, `${copy.directory}/disk/tsmacvlan`]);
    return Plugin.start(copy, { STORE: owners.etcd.url, PROBE: 'off' });
  };

  test('a copy that waits does not become the node while the daemon is upgraded', options, async () => {
    const one = owners.of('one');
    await one.engine.run(one.network, { address: '10.9.0.50' });
    const copy = await copyOf(one);
    await untilSaid(/as which this one starts/, () => copy.log());
    await one.plugin.stop('SIGTERM');
    await sleep(UPGRADE_MS);
    await one.plugin.start();
    await one.engine.run(one.network);
    assert.doesNotMatch(copy.log(), /the shared store can be reached/);
    await copy.stop('SIGKILL');
  });

  test(
    'a copy that comes in while the daemon stands still frees nothing that answers on the LAN',
    options,
    async () => {
      const [one, two] = [owners.of('one'), owners.of('two')];
      await one.plugin.freeze();
      await until(async () => !(await owners.isHeardOf('one')));
      const copy = await copyOf(one);
      await untilSaid(/the shared store can be reached/, () => copy.log());
      // What it believes to have its collector takes for leaks, and says so of the endpoints.
      await copy.commandInside('gc');
      await copy.commandInside('gc');
      assert.doesNotMatch(await copy.command('leases'), /10\.9\.0\.50/);
      assert.match(await owners.refusal('two', '10.9.0.50'), /10\.9\.0\.50 is used on host one-/);
      await copy.stop('SIGKILL');
      await one.plugin.thaw();
      // The record of the copy has to end.
      await until(() =>
        one.engine.run(one.network).then(
          () => true,
          () => false,
        ),
      );
      await two.engine.remove(await two.engine.run(two.network));
      assert.deepEqual(await owners.doubled(), []);
    },
  );

  test('what a host had before it booted is free again when nobody on the LAN has it', options, async () => {
    const two = owners.of('two');
    const before = await two.engine.run(two.network, { address: '10.9.0.70' });
    await two.plugin.stop('SIGKILL');
    await before.namespace.delete();
    two.engine.containers.delete(before);
    const file = owners.boot('two');
    const node = readFileSync(file, 'utf8');
    await two.plugin.start();
    await until(async () => (await owners.claim('10.9.0.70')) === null);
    assert.equal(readFileSync(file, 'utf8'), node);
    await untilSaid(/collected a leak: lease 10\.9\.0\.70/, () => two.plugin.log());
    // From now on it gives back as ever.
    const place = `/tsmacvlan/default/places/${node.trim()}`;
    await until(async () => (await owners.etcd.must('get', '--print-value-only', place)) !== '');
    const after = await two.engine.run(two.network, { address: '10.9.0.71' });
    await two.engine.remove(after);
    assert.equal(await owners.claim('10.9.0.71'), null);
  });
});
