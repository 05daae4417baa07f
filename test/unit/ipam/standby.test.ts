import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type Address, formatAddress } from '../../../src/address.ts';
import { Allocator } from '../../../src/ipam/allocator.ts';
import { Standby, type Keeper } from '../../../src/ipam/standby.ts';
import { IpamDriver } from '../../../src/ipam/driver.ts';
import { Leases } from '../../../src/ipam/leases.ts';
import type { Kept, Loss } from '../../../src/lan/verdict.ts';
import { MemoryStore } from './memory.ts';
import { Fixture, NETWORK, SWARM_NETWORK } from './fixture.ts';
import { callLimit } from '../../lab/patience.ts';

const options = { timeout: 20_000 };

/** A LAN that keeps what it is asked to keep; the test says who wants what. */
class Lan implements Keeper {
  readonly kept = new Map<string, Set<(loss: Loss) => void>>();
  readonly asked: string[] = [];
  readonly answers = new Map<string, Loss>();
  /** Addresses whose answer is long in coming. */
  readonly slow = new Map<string, Promise<void>>();
  isDown = false;

  async keep(_pool: unknown, wanted: Address, lost: (loss: Loss) => void): Promise<Kept | Loss> {
    const address = formatAddress(wanted);
    await setImmediate();
    if (this.isDown) throw new Error('parent is down');
    this.asked.push(address);
    await this.slow.get(address);
    const answer = this.answers.get(address);
    if (answer !== undefined) return answer;
    this.kept.set(address, (this.kept.get(address) ?? new Set()).add(lost));
    return { release: () => this.letGo(lost) };
  }

  letGo(lost: (loss: Loss) => void): void {
    for (const [address, losts] of this.kept) if (losts.delete(lost) && losts.size === 0) this.kept.delete(address);
  }

  async isKept(_pool: unknown, address: Address): Promise<boolean> {
    return this.kept.has(formatAddress(address));
  }

  async release(): Promise<void> {}

  lose(address: string, loss: Loss): void {
    const losts = this.kept.get(address);
    this.kept.delete(address);
    for (const lost of losts ?? []) lost(loss);
  }

  list(): string[] {
    return [...this.kept.keys()].sort();
  }
}

/** Timers that fire when the test says so, whatever their delay. */
class Timers {
  readonly #due = new Set<() => void>();
  readonly clock = {
    nowMs: () => 0,
    after: (_delayMs: number, run: () => void) => {
      this.#due.add(run);
      return () => this.#due.delete(run);
    },
  };

  async fire(): Promise<void> {
    for (const run of [...this.#due]) {
      this.#due.delete(run);
      run();
    }
    for (let turn = 0; turn < 200; turn++) await setImmediate();
  }
}

async function started(subnet = '192.168.1.0/24', networkId = NETWORK, prepare = (_lan: Lan) => {}) {
  const store = new MemoryStore();
  const lan = new Lan();
  prepare(lan);
  const timers = new Timers();
  const fixture = new Fixture(store);
  const poolId = await fixture.network(subnet, {}, networkId);
  const leases = new Leases(store, () => new Date());
  const standby = new Standby({ store, leases, keeper: lan, clock: timers.clock, random: () => 0.5 });
  const pool = await fixture.record(poolId);
  await standby.start(networkId);
  await timers.fire();
  const realm = await leases.realm('TsmacvlanLocal');
  const next = () => standby.next(pool, realm, null)?.value;
  return { store, leases, lan, timers, standby, pool, realm, next };
}

const numbered = (...last: number[]) => last.map((number) => `192.168.1.${number}`);
const FIRST = 0xc0a80100n;

test('the next four addresses of a pool in use are kept ready, and the lowest is given first', options, async () => {
  const { lan, next } = await started();
  assert.deepEqual(lan.list(), numbered(1, 2, 3, 4));
  assert.equal(next(), FIRST + 1n);
});

test(
  'the first container gets the lowest, also while the first reserve is asked for and a higher one is in it',
  options,
  async () => {
    const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
    const { lan, timers, next } = await started('192.168.1.0/24', NETWORK, (lan) =>
      lan.slow.set('192.168.1.1', answered),
    );
    assert.deepEqual(lan.list(), numbered(2, 3, 4));
    assert.equal(next(), undefined, 'the lowest is asked for by the one who needs it');
    answer();
    await timers.fire();
    assert.equal(next(), FIRST + 1n);
  },
);

test('one that was given is made up for', options, async () => {
  const { lan, timers, realm, next, pool } = await started();
  const address = { family: 'IPv4', value: FIRST + 1n } as const;
  await realm.insert(address, {
    realm: 'TsmacvlanLocal',
    address: '192.168.1.1',
    kind: 'container',
    poolIds: [pool.id],
    endpointId: null,
    changedAt: new Date().toISOString(),
  });
  lan.lose('192.168.1.1', 'ended');
  assert.equal(next(), FIRST + 2n);
  await timers.fire();
  assert.deepEqual(lan.list(), numbered(2, 3, 4, 5));
});

test('a used one is passed over, a wanted one left alone for a while', options, async () => {
  const { lan, timers, realm } = await started();
  lan.lose('192.168.1.1', 'used');
  lan.lose('192.168.1.2', 'wanted');
  await timers.fire();
  assert.deepEqual(lan.list(), numbered(3, 4, 5, 6));
  assert.ok(!realm.isFree({ family: 'IPv4', value: FIRST + 1n }));
  assert.ok(realm.isFree({ family: 'IPv4', value: FIRST + 2n }), 'a container that needs it may have it');
});

test('what a container left is ready at once, and no more are kept for it', options, async () => {
  const { lan, timers, standby, pool, next, realm } = await started();
  for (const number of numbered(1, 2)) lan.lose(number, 'ended');
  realm.hold({ family: 'IPv4', value: FIRST + 1n });
  await timers.fire();
  lan.kept.set('192.168.1.0', new Set());
  const address = { family: 'IPv4', value: FIRST } as const;
  lan.kept.delete('192.168.1.0');
  await standby.released(pool, address);
  assert.equal(next(), FIRST + 2n, 'not one that nobody keeps');
  lan.kept.set('192.168.1.0', new Set());
  await standby.released(pool, address);
  assert.equal(next(), FIRST);
  assert.equal(lan.list().length, 4);
});

test('a parent that is down is asked again later', options, async () => {
  const { lan, timers, standby, pool } = await started();
  lan.isDown = true;
  for (const number of lan.list()) lan.lose(number, 'ended');
  await timers.fire();
  assert.deepEqual(lan.list(), []);
  lan.isDown = false;
  await timers.fire();
  assert.equal(lan.list().length, 4);
  standby.forget(pool.id);
  await timers.fire();
  assert.deepEqual(lan.list(), []);
});

test('a range smaller than the reserve is kept whole', options, async () => {
  const { lan } = await started('192.168.1.0/30');
  assert.deepEqual(lan.list(), numbered(1, 2));
});

test('for a network of a swarm none are kept until one is chosen on this host', options, async () => {
  const { store, leases, lan, timers, standby, pool } = await started('192.168.1.0/24', SWARM_NETWORK);
  const probe = async () => ({ held: false as const });
  const allocator = new Allocator({ store, leases, now: () => new Date(), probe, standby });
  const request = { poolId: pool.id, isGateway: false, serial: false, limit: callLimit() };
  assert.equal(await allocator.request({ ...request, address: '192.168.1.9' }), '192.168.1.9/24');
  await timers.fire();
  assert.deepEqual(lan.asked, [], 'the manager chose');
  assert.equal(await allocator.request({ ...request, address: null }), '192.168.1.1/24');
  await timers.fire();
  assert.deepEqual(lan.list(), numbered(2, 3, 4, 5));
});

test('a pool that is released, and a daemon that stops, keep nothing', options, async () => {
  const store = new MemoryStore();
  const lan = new Lan();
  const ipam = new IpamDriver({ store, keeper: lan, probe: async () => ({ held: false }) });
  const fixture = new Fixture(store);
  const poolId = await fixture.network('192.168.1.0/24');
  await ipam.startStandby();
  await ipam.releasePool(poolId);
  await ipam.close();
  assert.deepEqual(lan.list(), []);
});

test('an address that comes in twice at the same moment is let go as a whole', options, async () => {
  const { lan, standby, pool } = await started();
  const address = { family: 'IPv4', value: FIRST } as const;
  const left = () => undefined;
  lan.kept.set('192.168.1.0', new Set([left]));
  await Promise.all([standby.released(pool, address), standby.released(pool, address)]);
  lan.letGo(left);
  await standby.close();
  assert.deepEqual(lan.list(), []);
});
