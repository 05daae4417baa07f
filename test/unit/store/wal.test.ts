/** When a change of the embedded store is durable: the disk's syncs are counted, and held up for as long as a test likes. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { type TestContext, test } from 'node:test';
import { type LocalStore, openLocalStore } from '../../../src/store/local.ts';
import { leaseKey } from '../../../src/store/store.ts';
import { temporaryDirectory } from '../temporary.ts';
import { leaseRecord } from './lease.ts';
import { poolRecord } from './records.ts';

const options = { timeout: 20_000 };

/** From hold() on the syncs wait, in order; each happens when the test lets it. To be made before the store. */
class Disk {
  readonly #waiting: ((refusal: NodeJS.ErrnoException | null) => void)[] = [];
  #isHeld = false;
  /** Of those since hold(). */
  count = 0;

  constructor(t: TestContext) {
    const { fdatasync } = fs;
    t.mock.method(fs, 'fdatasync', (fd: number, callback: (error: NodeJS.ErrnoException | null) => void) => {
      if (!this.#isHeld) return fdatasync(fd, callback);
      this.count++;
      this.#waiting.push((refusal) => (refusal === null ? fdatasync(fd, callback) : callback(refusal)));
    });
    syncBuiltinESMExports();
    t.after(() => {
      t.mock.restoreAll();
      syncBuiltinESMExports();
      while (this.#waiting.length > 0) this.let();
    });
  }

  hold(): void {
    this.#isHeld = true;
  }

  /** The oldest of the syncs that wait is done, or refused. */
  let(refusal: NodeJS.ErrnoException | null = null): void {
    this.#waiting.shift()?.(refusal);
  }
}

function openStore(t: TestContext, directory = temporaryDirectory(t)): [Disk, LocalStore] {
  const disk = new Disk(t);
  const store = openLocalStore(directory);
  t.after(() => store.close());
  return [disk, store];
}

/** What has been answered after a while. */
async function answered(...changes: Promise<unknown>[]): Promise<boolean[]> {
  const done = changes.map(() => false);
  for (const [at, change] of changes.entries())
    change.then(
      () => (done[at] = true),
      () => (done[at] = true),
    );
  for (let turns = 0; turns < 20; turns++) await turn();
  return done;
}

const addresses = Array.from({ length: 20 }, (_, number) => `10.0.0.${number + 1}`);

test(
  'what is waited for is a sync that began after it was written; all who wait meanwhile share the next',
  options,
  async (t) => {
    const [disk, store] = openStore(t);
    disk.hold();
    await store.leases.insert(leaseRecord('10.0.1.1'));
    const first = store.durable();
    assert.deepEqual(await answered(first), [false]);
    const others = addresses.map(async (address) => {
      await store.leases.insert(leaseRecord(address));
      await store.pools.insert(poolRecord(address));
      return store.durable();
    });
    assert.deepEqual(await answered(first, ...others), Array(21).fill(false));
    assert.equal(disk.count, 1);
    disk.let();
    await first;
    assert.deepEqual(await answered(...others), Array(20).fill(false));
    disk.let();
    await Promise.all(others);
    assert.equal(disk.count, 2);
  },
);

test('a change that was refused, and one that is on the disk, are not waited for', options, async (t) => {
  const [disk, store] = openStore(t);
  await store.leases.insert(leaseRecord('10.0.0.1'));
  await store.durable();
  disk.hold();
  assert.equal(await store.leases.insert(leaseRecord('10.0.0.1')), false);
  assert.equal(await store.leases.remove(leaseRecord('10.0.0.2')), false);
  await store.durable();
  assert.equal(disk.count, 0);
});

test('what nobody waits for is synced all the same, within a tenth of a second', options, async (t) => {
  const [disk, store] = openStore(t);
  disk.hold();
  for (const address of addresses) await store.leases.insert(leaseRecord(address));
  assert.equal(disk.count, 0);
  await delay(100);
  assert.equal(disk.count, 1);
  disk.let();
  await store.durable();
  assert.equal(disk.count, 1);
});

test(
  'a disk that refuses a sync: all who wait are told, nothing is accepted any more, and a new start goes on',
  options,
  async (t) => {
    const directory = temporaryDirectory(t);
    const [disk, store] = openStore(t, directory);
    await store.leases.insert(leaseRecord('10.0.9.9'));
    await store.durable();
    disk.hold();
    await store.leases.insert(leaseRecord('10.0.0.1'));
    const waiting = [store.durable(), store.durable()];
    await answered(...waiting);
    await store.leases.insert(leaseRecord('10.0.0.2'));
    waiting.push(store.durable());
    disk.let(Object.assign(new Error('EIO: i/o error, fdatasync'), { errno: -5, code: 'EIO' }));
    for (const one of waiting)
      await assert.rejects(one, {
        code: 'STORE_UNSYNCED',
        kind: 'fault',
        message: /^the disk of state file ".*tsmacvlan\.db" did not take what was written \(i\/o error\); /,
      });
    await assert.rejects(store.leases.insert(leaseRecord('10.0.0.200')), { code: 'STORE_UNSYNCED' });
    assert.equal(disk.count, 1);
    await store.close();
    const next = openLocalStore(directory);
    t.after(() => next.close());
    assert.equal(await next.leases.get(leaseKey(leaseRecord('10.0.0.200'))), undefined);
    assert.deepEqual(await next.leases.get(leaseKey(leaseRecord('10.0.9.9'))), leaseRecord('10.0.9.9'));
  },
);

test('a store that is closed syncs what nobody has waited for', options, async (t) => {
  const [disk, store] = openStore(t);
  disk.hold();
  await store.leases.insert(leaseRecord('10.0.0.1'));
  const closed = store.close();
  assert.deepEqual(await answered(closed), [false]);
  disk.let();
  await closed;
  assert.equal(disk.count, 1);
});
