/**
 * One owner for each address, whatever becomes of etcd: a member that is a cluster of its own, a database that is full, passwords
 * that change, a host that would move out. Daemons and members are real ones, whether an address is had twice is read from the
 * containers' kernels, and every blow falls on hosts with PROBE=off, where etcd alone keeps an address from being given out again,
 * and on hosts with PROBE=fast at the same time.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { outsideLab } from '../lab/enclosure.ts';
import { demandLogin, type Owners, PASSWORD_FILE, Sites } from '../lab/owners.ts';
import type { Host } from '../lab/host.ts';
import { until } from '../lab/patience.ts';
import type { Container } from '../lab/understudy.ts';

const NAMES = ['one', 'two'];
const options = { timeout: 150_000 };
/** Starts of each host: as a rule one of them asks the member first that is none of theirs. */
const ROUNDS = 2;
const MOST_ROUNDS = 40;

describe('members of etcd that part', { skip: outsideLab(), timeout: 300_000 }, () => {
  let sites: Sites;
  before(async () => {
    sites = await Sites.open({ names: NAMES });
  });
  after(() => sites.close());

  test('one that became a cluster of its own gives out nothing to hosts that start from nothing', options, async () => {
    const { etcd } = sites;
    await sites.each(async (owners) => {
      for (const name of NAMES) await start(owners, name);
    });
    const stranger = ((await etcd.leader()) + 1) % 3;
    await etcd.replaceByStranger(stranger);
    await until(async () => (await etcd.ctl('endpoint', 'health')).code === 0);
    await sites.each(async (owners) => {
      const isNamed = (name: string) => /is of cluster [0-9a-f]+, /.test(owners.of(name).plugin.log());
      // Which member is asked first goes by chance.
      for (let rounds = 0; rounds < ROUNDS || !NAMES.some(isNamed); rounds++) {
        assert.ok(rounds < MOST_ROUNDS);
        await Promise.all(NAMES.map((name) => owners.of(name).plugin.restart('SIGKILL')));
        for (const name of NAMES) await start(owners, name);
      }
      assert.deepEqual(owners.doubled(), []);
    });
    assert.deepEqual(await etcd.keysAt(stranger, '/tsmacvlan/'), []);
  });

  test(
    'a host does not move out while it has containers and others would give out their addresses',
    options,
    async () => {
      await sites.each(async (owners) => {
        const { plugin, engine } = owners.of('two');
        const [{ address } = assert.fail('two has no container')] = engine.containers;
        await plugin.stop();
        const moved = await plugin.commandInside('store', 'migrate', '--from', owners.etcd.url, '--to', 'local');
        assert.match(moved.stderr, /that the other hosts of the shared store \(1\) would give .* say --force$/m);
        assert.equal(moved.code, 1);
        await plugin.start();
        assert.match(await owners.refusal('one', address.split('/')[0]), / is used on host two-/);
        assert.deepEqual(owners.doubled(), []);
      });
    },
  );
});

describe('etcd with other passwords, and full', { skip: outsideLab(), timeout: 300_000 }, () => {
  let sites: Sites;
  before(async () => {
    const settings = { STORE_USER: 'host', STORE_PASSWORD: PASSWORD_FILE };
    const prepare = (host: Host) => writeFileSync(host.file(PASSWORD_FILE), 'first\n');
    sites = await Sites.open({ names: NAMES, members: 1, quota: 1 << 20, settings, lock: demandLogin, prepare });
  });
  after(() => sites.close());

  test('a password that is changed, and a lock that is opened and closed, cost no start', options, async () => {
    const { etcd } = sites;
    const stop = new AbortController();
    const starts = sites.each(async (owners) => {
      const { engine, network } = owners.of('one');
      for (; !stop.signal.aborted; await sleep(100)) await engine.remove(await engine.run(network));
    });
    starts.catch(() => undefined);
    await sleep(500);
    await etcd.changePassword('host', 'second', etcd.login);
    await sleep(1000);
    for (const name of NAMES)
      await sites.each(async (owners) => writeFileSync(owners.of(name).host.file(PASSWORD_FILE), 'second\n'));
    await sleep(2000);
    await etcd.must('auth', 'disable');
    await sleep(1000);
    await etcd.must('auth', 'enable');
    await sleep(1000);
    stop.abort();
    await starts;
  });

  test('a host that starts while the database is full is not lost when it is full no more', options, async () => {
    const { etcd } = sites;
    await sites.each(async (owners) => {
      await silence(await start(owners, 'one', SILENT));
      await until(async () => (await owners.refusal('two', SILENT)).includes('is used on host one-'));
    });
    await etcd.fill();
    await sites.each((owners) => owners.of('one').plugin.restart('SIGKILL'));
    await until(async () => (await sites.each((owners) => owners.isHeardOf('one'))).every((isHeardOf) => !isHeardOf));
    const stop = new AbortController();
    const asked = sites.each((owners) => takeAll(owners, stop.signal));
    asked.catch(() => undefined);
    await etcd.makeRoom();
    await sites.each((owners) => until(() => start(owners, 'one').then(Boolean, () => false)));
    stop.abort();
    for (const refusals of await asked) {
      assert.ok(refusals.length > 0);
      for (const refusal of refusals)
        assert.match(refusal, / is used on host one-|database of the shared store is full/);
    }
    // The password was changed before: so this one could say since that it is there.
    assert.deepEqual(await sites.each((owners) => owners.isHeardOf('two')), [true, true]);
    await sites.each(async (owners) => assert.deepEqual(owners.doubled(), []));
  });
});

/** Of a container that does not answer when the LAN is asked for it, so that only etcd can say whose it is. */
const SILENT = '10.9.0.50';

async function silence({ namespace }: Container): Promise<void> {
  await namespace.ip('link set eth0 arp off');
}

function start(owners: Owners, name: string, address?: string): Promise<Container> {
  const { engine, network } = owners.of(name);
  return engine.run(network, { address });
}

/** What each try of host two to get the silent address is refused with, until the signal. */
async function takeAll(owners: Owners, signal: AbortSignal): Promise<string[]> {
  const refusals: string[] = [];
  for (; !signal.aborted; await sleep(50)) refusals.push(await owners.refusal('two', SILENT));
  return refusals;
}
