/**
 * Machines that are copied with their state, and machines that boot: a copy takes neither the name of a node that is being
 * upgraded nor the addresses of its containers, and what a host had before it booted is free once the LAN was asked. Every test
 * is played with PROBE=off, where etcd alone keeps an address from being given out again, and with PROBE=fast at the same time.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { outsideLab } from '../lab/enclosure.ts';
import { type Owners, PROBES, Sites } from '../lab/owners.ts';
import { until, untilSaid } from '../lab/patience.ts';

const BACKUP = '/run/disk/backup';
const DIES_AT_RENAME = join(import.meta.dirname, '../lab/diesatrename.ts');
/** Longer than a daemon that retries every second needs to come in. */
const UPGRADE_MS = 4000;

describe('machines that are copied', { skip: outsideLab(), timeout: 300_000, concurrency: true }, () => {
  const options = { timeout: 150_000 };
  let sites: Sites;
  before(async () => {
    sites = await Sites.open({ names: ['one', 'two'], members: 1 });
  });
  after(() => sites.close());

  for (const probe of PROBES)
    describe(`PROBE=${probe}`, { concurrency: false }, () => {
      let owners: Owners;
      before(() => (owners = sites[probe]));

      test('a copy that waits does not become the node while the daemon is upgraded', options, async () => {
        const one = owners.of('one');
        await one.engine.run(one.network, { address: '10.9.0.50' });
        const copy = await owners.copyOf('one');
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
          const copy = await owners.copyOf('one');
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
          assert.deepEqual(owners.doubled(), []);
        },
      );

      test('a restore on a new disk that is killed anywhere leaves the host it was, or none', options, async () => {
        const { host, plugin, engine, network } = owners.of('two');
        const disk = host.file('/run/disk/tsmacvlan');
        await engine.run(network, { address: '10.9.0.80' });
        await plugin.commandInside('backup', BACKUP);
        const node = readFileSync(join(disk, 'node'), 'utf8');
        await plugin.stop('SIGKILL');
        const moments: string[] = [];
        for (let isWhole = false; !isWhole; ) {
          rmSync(disk, { recursive: true, force: true });
          plugin.set({ NODE_OPTIONS: `--import=${DIES_AT_RENAME}`, RENAMES: String(moments.length) });
          isWhole = (await plugin.commandInside('restore', BACKUP)).code === 0;
          plugin.set({ NODE_OPTIONS: '' });
          const left = ['node', 'tsmacvlan.db'].filter((file) => existsSync(join(disk, file)));
          moments.push(left.join(' '));
          if (left.length === 0) continue;
          // As 15 s do: nothing here knows the run before.
          await owners.etcd.must('del', '--prefix', owners.key('nodes/two-'));
          await plugin.start();
          await until(() => owners.isHeardOf('two'));
          await plugin.commandInside('gc');
          assert.equal(readFileSync(join(disk, 'node'), 'utf8'), node);
          assert.match(await owners.refusal('one', '10.9.0.80'), /10\.9\.0\.80 is used on host two-/);
          if (!isWhole) await plugin.stop('SIGKILL');
        }
        assert.deepEqual(moments, ['', 'node', 'node tsmacvlan.db']);
        // Where the service runs before the restore it is a new host without addresses, and ends as one.
        await plugin.stop('SIGKILL');
        rmSync(disk, { recursive: true });
        await plugin.start();
        await plugin.stop();
        assert.notEqual(readFileSync(join(disk, 'node'), 'utf8'), node);
        await plugin.commandInside('restore', BACKUP);
        assert.equal(readFileSync(join(disk, 'node'), 'utf8'), node);
        await owners.etcd.must('del', '--prefix', owners.key('nodes/two-'));
        await plugin.start();
        await engine.run(network);
        assert.doesNotMatch(plugin.log(), /an address of this host is another one’s too/);
        // But who has addresses keeps the name that goes with them.
        await plugin.stop();
        writeFileSync(join(disk, 'node'), 'two-0123456789ab\n');
        await plugin.commandInside('restore', BACKUP);
        assert.equal(readFileSync(join(disk, 'node'), 'utf8'), 'two-0123456789ab\n');
        writeFileSync(join(disk, 'node'), node);
        await plugin.start();
        await engine.run(network);
        assert.deepEqual(owners.doubled(), []);
      });
    });

  for (const probe of PROBES)
    describe(`a host that boots, PROBE=${probe}`, () => {
      test('what a host had before it booted is free again when nobody on the LAN has it', options, async () => {
        const owners = sites[probe];
        const { engine, network, plugin } = await owners.add('three');
        const before = await engine.run(network, { address: '10.9.0.70' });
        await plugin.stop('SIGKILL');
        await before.namespace.delete();
        engine.containers.delete(before);
        const file = owners.boot('three');
        const node = readFileSync(file, 'utf8');
        await plugin.start();
        await until(async () => (await owners.claim('10.9.0.70')) === null);
        assert.equal(readFileSync(file, 'utf8'), node);
        await untilSaid(/collected a leak: lease 10\.9\.0\.70/, () => plugin.log());
        // From now on it gives back as ever.
        const place = owners.key(`places/${node.trim()}`);
        await until(async () => (await owners.etcd.must('get', '--print-value-only', place)) !== '');
        const after = await engine.run(network, { address: '10.9.0.71' });
        await engine.remove(after);
        assert.equal(await owners.claim('10.9.0.71'), null);
      });
    });
});
