import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type Address, formatAddress } from '../../../src/address.ts';
import { Ages } from '../../../src/ipam/ages.ts';
import type { Keeper } from '../../../src/ipam/keeper.ts';
import { Standby } from '../../../src/ipam/standby.ts';
import { IpamDriver, type Probe } from '../../../src/ipam/driver.ts';
import { Leases } from '../../../src/ipam/leases.ts';
import type { Kept, Loss } from '../../../src/lan/verdict.ts';
import type { Pool } from '../../../src/model.ts';
import { realmOf } from '../../../src/store/store.ts';
import { allocatorOf } from './allocator.ts';
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

  mostAtOnce = Number.POSITIVE_INFINITY;

  async parentOf(): Promise<string> {
    return 'eth0';
  }

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

  async askAhead(): Promise<void> {}

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
  readonly delaysMs: number[] = [];
  nowMs = 0;
  readonly clock = {
    nowMs: () => this.nowMs,
    after: (delayMs: number, run: () => void) => {
      this.#due.add(run);
      this.delaysMs.push(delayMs);
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

async function started(subnet = '192.168.1.0/24', networkId = NETWORK, prepare = (_lan: Lan) => {}, isCold = false) {
  const store = new MemoryStore();
  const lan = new Lan();
  prepare(lan);
  const timers = new Timers();
  const fixture = new Fixture(store);
  const poolId = await fixture.network(subnet, {}, networkId);
  const leases = new Leases({
    store,
    now: () => new Date(),
    ages: new Ages(() => new Date(), timers.clock),
    clock: timers.clock,
  });
  const realmOfPool = (pool: Pool) => leases.realm(realmOf(pool));
  const parts = { pools: store.pools, realmOf: realmOfPool, keeper: lan, clock: timers.clock };
  const standby = new Standby({ ...parts, random: () => 0.5 });
  const pool = await fixture.record(poolId);
  if (!isCold) {
    await standby.start(networkId);
    await timers.fire();
  }
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
  realm.passOver({ family: 'IPv4', value: FIRST + 1n }, 'used');
  await timers.fire();
  lan.kept.set('192.168.1.0', new Set());
  const address = { family: 'IPv4', value: FIRST } as const;
  lan.kept.delete('192.168.1.0');
  await standby.released(pool, address);
  assert.equal(next(), FIRST + 2n, 'not one that nobody keeps');
  lan.kept.set('192.168.1.0', new Set());
  await standby.released(pool, address);
  assert.equal(next(), FIRST);
  await timers.fire();
  assert.deepEqual(lan.list(), numbered(0, 2, 3, 4));
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
  const allocator = allocatorOf({ store, leases, clock: timers.clock, probe, standby });
  const request = { poolId: pool.id, isGateway: false, serial: false, name: null, limit: callLimit() };
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

/** A daemon that has asked for nothing yet, and how its containers get addresses. */
async function cold(used: readonly string[] = [], prepare = (_lan: Lan) => {}) {
  const parts = await started(
    '192.168.1.0/24',
    NETWORK,
    (lan) => {
      for (const address of used) lan.answers.set(address, 'used');
      prepare(lan);
    },
    true,
  );
  const { store, leases, lan, timers, standby, pool } = parts;
  /** Questions that a call waits for, each with whether the address was on standby. */
  const questions: (readonly [string, boolean])[] = [];
  const answers = new Map<string, Promise<void>>();
  const probe: Probe = async (_pool, wanted) => {
    const address = formatAddress(wanted);
    questions.push([address, lan.kept.has(address)]);
    await answers.get(address);
    await setImmediate();
    const isHeld = used.includes(address);
    if (!isHeld) lan.lose(address, 'ended');
    return isHeld
      ? { held: true, macAddress: '3c:22:fb:10:aa:01', linkName: 'eth0', simultaneous: false, isOnHost: false }
      : { held: false };
  };
  const allocator = allocatorOf({ store, leases, clock: timers.clock, probe, standby });
  const limit = { signal: new AbortController().signal, atMs: 9000, ifLate: () => undefined };
  const request = () =>
    allocator.request({ poolId: pool.id, address: null, isGateway: false, serial: false, name: null, limit });
  return { ...parts, request, questions, answers };
}

test('a cold pool is asked for a batch in one window, and the next call waits for none', options, async () => {
  const { request, questions, answers, lan } = await cold();
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  answers.set('192.168.1.1', answered);
  const first = request();
  for (let turn = 0; turn < 50; turn++) await setImmediate();
  const batch = Array.from({ length: 48 }, (_, n) => n + 2);
  assert.deepEqual(lan.asked, numbered(...batch), 'beside the one that the call itself asks for');
  answer();
  assert.equal(await first, '192.168.1.1/24');
  assert.equal(await request(), '192.168.1.2/24');
  assert.deepEqual(questions, [
    ['192.168.1.1', false],
    ['192.168.1.2', true],
  ]);
});

test('calls at the same time on a cold pool wait one window, and get different addresses', options, async () => {
  const { request, questions } = await cold();
  const given = await Promise.all(Array.from({ length: 8 }, request));
  assert.deepEqual(
    given.sort(),
    numbered(1, 2, 3, 4, 5, 6, 7, 8).map((address) => `${address}/24`),
  );
  assert.equal(questions.length, 8);
});

test('the batch doubles while all are used, and the lowest free address is given', options, async () => {
  const used = Array.from({ length: 100 }, (_, n) => `192.168.1.${n + 1}`);
  const { request, questions, lan, timers } = await cold(used);
  assert.equal(await request(), '192.168.1.101/24');
  assert.ok(questions.length <= 6, `${questions.length} questions one after the other`);
  assert.equal(
    new Set([...lan.asked, ...questions.map(([address]) => address)]).size,
    lan.asked.length + questions.length - 1,
    'only the given one is asked for twice',
  );
  timers.nowMs += 60_000;
  await timers.fire();
  assert.equal(lan.list().length, 4, 'what was asked for beside it does not stay');
});

test('one that is used since it came on standby is skipped, and passed over', options, async () => {
  const used: string[] = [];
  const { request, realm, timers, standby } = await cold(used);
  await standby.start(NETWORK);
  await timers.fire();
  used.push('192.168.1.1');
  assert.equal(await request(), '192.168.1.2/24');
  assert.ok(!realm.isFree({ family: 'IPv4', value: FIRST + 1n }));
});

test('a call waits for what a refill asks for already, and for the lowest of it', options, async () => {
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  const { request, standby, timers, lan, questions } = await cold([], (lan) => lan.slow.set('192.168.1.1', answered));
  await standby.start(NETWORK);
  await timers.fire();
  const given = request();
  for (let turn = 0; turn < 50; turn++) await setImmediate();
  assert.deepEqual(questions, []);
  answer();
  assert.equal(await given, '192.168.1.1/24');
  assert.deepEqual(lan.asked.slice(0, 4), numbered(1, 2, 3, 4));
  assert.equal(new Set(lan.asked).size, lan.asked.length, 'none is asked for twice');
});

test('who answers for everything does not drain a range: refills take longer each time', options, async () => {
  const used = Array.from({ length: 254 }, (_, n) => `192.168.1.${n + 1}`);
  const { standby, timers, lan } = await cold(used);
  await standby.start(NETWORK);
  for (let round = 0; round < 12; round++) await timers.fire();
  assert.equal(lan.asked.length, 48);
  const last = timers.delaysMs.slice(-12);
  assert.ok(
    last.every((delayMs, n) => n < 2 || delayMs === 300_000 || delayMs === 2 * (last[n - 1] ?? 0)),
    last.join(' '),
  );
  assert.equal(last.at(-1), 300_000);
});

test('one that is lost before it is known to be kept is not given', options, async () => {
  const { lan, timers, standby, next } = await started('192.168.1.0/30', NETWORK, () => undefined, true);
  const keep = lan.keep.bind(lan);
  lan.keep = async (pool, address, lost) => {
    const kept = await keep(pool, address, lost);
    lan.lose(formatAddress(address), 'used');
    return kept;
  };
  await standby.start(NETWORK);
  await timers.fire();
  assert.equal(next(), undefined);
});
