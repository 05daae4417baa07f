/** Standby follows demand: how many windows many starts wait, and what they ask of the LAN. Time is imagined; so is the LAN. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Ages } from '../../../src/ipam/ages.ts';
import { Leases } from '../../../src/ipam/leases.ts';
import { Names } from '../../../src/ipam/names.ts';
import { Nearby } from '../../../src/ipam/nearby.ts';
import { Standby } from '../../../src/ipam/standby.ts';
import type { Pool } from '../../../src/model.ts';
import { realmOf } from '../../../src/store/store.ts';
import { World } from '../lan/imagined.ts';
import { Offers } from '../../../src/ipam/offers.ts';
import { Releases } from '../../../src/ipam/releases.ts';
import { ServedPools } from '../../../src/ipam/served.ts';
import { allocatorOf } from './allocator.ts';
import { Fixture } from './fixture.ts';
import { MemoryStore } from './memory.ts';
import { FRESH_MS, MINUTE_MS, TimedLan, timed as timedOn, WINDOW_MS } from './timedlan.ts';

const options = { timeout: 60_000 };
/** What an engine does besides until it asks for the next address. */
const ENGINE_MS = 20;

async function host(...subnets: readonly string[]) {
  const world = new World();
  const lan = new TimedLan(world);
  const store = new MemoryStore({ isSlow: false });
  const fixture = new Fixture(store);
  const pools: Pool[] = [];
  for (const subnet of subnets)
    pools.push(await fixture.record(await fixture.network(subnet, { v6: subnet.includes(':') })));
  const clock = {
    nowMs: () => world.nowMs,
    after: (ms: number, run: () => void) => world.at(world.nowMs + ms, run),
  };
  const ages = new Ages(() => new Date(), clock);
  const now = () => new Date();
  const names = new Names({ store, now, days: 30, log: { info: () => undefined } });
  const leases = new Leases({ store, now, ages, clock, names });
  const realmOfPool = (pool: Pool) => leases.realm(realmOf(pool));
  const standby = new Standby({ pools: store.pools, realmOf: realmOfPool, keeper: lan, clock, random: () => 0.5 });
  const offers = new Offers({ store, leases, now, probe: lan.probe });
  const releases = new Releases({ store, leases, names, standby, served: new ServedPools({ leases, offers }) });
  const nearby = new Nearby({ keeper: lan, clock });
  const allocator = allocatorOf({ store, leases, clock, probe: lan.probe, standby, names, nearby });
  const [first] = pools as [Pool];

  const timed = <T>(act: Promise<T>) => timedOn(world, act);
  const pass = (ms: number) => timed(lan.pass(ms));
  const request = async (pool: Pool = first, name: string | null = null, address: string | null = null) => {
    const limit = { signal: new AbortController().signal, atMs: world.nowMs + 9000, ifLate: () => undefined };
    const asked = { poolId: pool.id, address, isGateway: false, serial: false, name, limit };
    return (await allocator.request(asked)).split('/')[0] ?? '';
  };
  /** As an engine starts containers of one network: it asks for one address after the other. */
  const start = async (
    count: number,
    of: readonly Pool[] = [first],
    nameOf: (n: number) => string | null = () => null,
  ) => {
    const given: string[] = [];
    for (let n = 0; n < count; n++) {
      for (const pool of of) given.push(await request(pool, nameOf(n)));
      await lan.pass(ENGINE_MS);
    }
    return given;
  };
  /** With `--ip`. */
  const startAt = async (...addresses: readonly string[]) => {
    for (const address of addresses) {
      await request(first, null, address);
      await lan.pass(ENGINE_MS);
    }
  };
  const release = (address: string) => releases.release({ poolId: first.id, address });
  return { world, lan, standby, pools, timed, pass, request, start, startAt, nearby, release };
}

const startMs = (count: number) => count * (FRESH_MS + ENGINE_MS);

test('forty starts of a cold pool wait for one window together, and get the lowest addresses', options, async () => {
  const { lan, timed, start } = await host('192.168.1.0/24');
  const { answer: given, ms } = await timed(start(40));
  assert.deepEqual(
    given,
    Array.from({ length: 40 }, (_, n) => `192.168.1.${n + 1}`),
  );
  assert.equal(lan.windows, 1, 'questions that a call waited for');
  assert.ok(ms <= WINDOW_MS + startMs(40), `${ms} ms`);
  assert.ok(lan.asked.length <= 120, `${lan.asked.length} asked for ahead`);
});

test(
  'forty containers that come back to the addresses of their names wait for one window together',
  options,
  async () => {
    const { lan, timed, pass, start, release } = await host('192.168.1.0/24');
    const names = (n: number) => `c${n}`;
    const { answer: given } = await timed(start(40, undefined, names));
    for (const address of given) await release(address);
    // Nothing of it is on standby any more.
    await pass(10 * MINUTE_MS);
    const windows = lan.windows;
    const { answer: again, ms } = await timed(start(40, undefined, (n) => names(39 - n)));
    assert.deepEqual(again, given.toReversed());
    assert.equal(lan.windows, windows + 1);
    assert.ok(ms <= WINDOW_MS + startMs(40), `${ms} ms`);
    assert.ok(!lan.kept.has(given[0] ?? ''), 'it has a container');
  },
);

test('a container that comes back within two minutes waits for a fresh question alone', options, async () => {
  const { lan, timed, pass, request, release } = await host('192.168.1.0/24');
  const { answer: address } = await timed(request(undefined, 'web'));
  lan.leave(address);
  await release(address);
  await pass(60_000);
  const { answer: again, ms } = await timed(request(undefined, 'web'));
  assert.equal(again, address);
  assert.ok(ms <= FRESH_MS + 1, `${ms} ms`);
});

test('where all is remembered new names find the longest unused ready', options, async () => {
  const { lan, timed, pass, start, release, standby } = await host('192.168.1.0/26');
  for (let n = 0; n < 62; n++) {
    const { answer } = await timed(start(1, undefined, () => `old${n}`));
    await release(answer[0] ?? '');
    await pass(1);
  }
  await standby.start();
  await pass(10 * MINUTE_MS);
  assert.deepEqual([...lan.kept.keys()].sort(), ['192.168.1.1', '192.168.1.2', '192.168.1.3', '192.168.1.4']);
  const windows = lan.windows;
  const { answer: given, ms } = await timed(start(20, undefined, (n) => `new${n}`));
  assert.deepEqual(
    given,
    Array.from({ length: 20 }, (_, n) => `192.168.1.${n + 1}`),
  );
  assert.equal(lan.windows, windows);
  assert.ok(ms <= 2 * WINDOW_MS + startMs(20), `${ms} ms`);
});

test('of an engine without work of its own they wait for one window too', options, async () => {
  const { lan, timed, request } = await host('192.168.1.0/24');
  const { ms } = await timed(
    (async () => {
      for (let n = 0; n < 40; n++) await request();
    })(),
  );
  assert.ok(ms <= WINDOW_MS + 40 * FRESH_MS + 10, `${ms} ms`);
  assert.equal(lan.windows, 1);
});

test('with four on standby the second start begins a batch, and none waits longer than for that', options, async () => {
  const { lan, timed, pass, start, standby } = await host('192.168.1.0/24');
  await standby.start();
  await pass(4000);
  assert.equal(lan.asked.length, 4);
  const { ms } = await timed(start(40));
  assert.equal(lan.windows, 0);
  assert.ok(ms <= WINDOW_MS + startMs(40), `${ms} ms`);
});

test('a batch goes out at once while a refill is under way, and asks for nothing twice', options, async () => {
  const { lan, timed, pass, start, standby, world } = await host('192.168.1.0/24');
  await standby.start();
  // The refill of the start begins at 1500 ms.
  await pass(1500 + WINDOW_MS / 2);
  assert.equal(lan.asked.length, 4);
  const beganMs = world.nowMs;
  const starting = start(40);
  await setImmediate();
  const batch = lan.asked.slice(4);
  assert.ok(batch.length >= 40 && batch.every(({ atMs }) => atMs === beganMs), `${batch.length} asked for at once`);
  const { ms } = await timed(starting);
  assert.equal(lan.windows, 0);
  assert.ok(ms <= WINDOW_MS + startMs(40), `${ms} ms`);
  assert.equal(new Set(lan.asked.map(({ address }) => address)).size, lan.asked.length);
});

test('a hundred starts in a row never wait again, and a minute later four are on standby', options, async () => {
  const { lan, timed, pass, start } = await host('10.0.0.0/16');
  const { ms } = await timed(start(100));
  assert.equal(lan.windows, 1);
  assert.ok(ms <= WINDOW_MS + startMs(100), `${ms} ms`);
  await pass(10_000);
  assert.equal(lan.kept.size, 64);
  const asked = lan.asked.length;
  await pass(2 * MINUTE_MS);
  assert.equal(lan.kept.size, 4);
  assert.equal(lan.asked.length, asked, 'nothing is asked for to have less');
});

test('starts one by one are no burst: one is asked for to take the place of one', options, async () => {
  const { lan, timed, pass, start, standby } = await host('192.168.1.0/24');
  await standby.start();
  await pass(4000);
  for (let n = 0; n < 5; n++) {
    await timed(start(1));
    await pass(5000);
  }
  assert.equal(lan.kept.size, 4);
  assert.equal(lan.asked.length, 9);
});

test('of a small range no more than half of what is free is on standby', options, async () => {
  const { lan, timed, request } = await host('192.168.1.0/27');
  await timed(request());
  assert.equal(lan.kept.size, 14, '29 are free');
});

test('both families of a network wait for one window together', options, async () => {
  const { lan, timed, start, pools } = await host('192.168.1.0/24', 'fd00:1::/64');
  const { ms } = await timed(start(40, pools));
  assert.equal(lan.windows, 1);
  assert.ok(ms <= WINDOW_MS + 40 * (2 * FRESH_MS + ENGINE_MS), `${ms} ms`);
  assert.ok(lan.mostAsking <= 64, `${lan.mostAsking} asked for at a time`);
});

test('five hundred at once get different addresses in two windows', options, async () => {
  const { lan, timed, request } = await host('10.0.0.0/16');
  const { answer: given, ms } = await timed(Promise.all(Array.from({ length: 500 }, () => request())));
  assert.equal(new Set(given).size, 500);
  assert.ok(ms <= 2 * WINDOW_MS, `${ms} ms`);
  assert.ok(lan.mostAsking <= 64, `${lan.mostAsking} asked for ahead at a time`);
  assert.ok(lan.asked.length + lan.windows <= 500 + 64, `${lan.asked.length} and ${lan.windows} questions`);
});

test('where few frames may be sent no more are asked for than always', options, async () => {
  const { lan, timed, pass, start } = await host('192.168.1.0/24');
  lan.mostAtOnce = 2;
  await timed(start(10));
  assert.ok(lan.mostAsking <= 4, `${lan.mostAsking} asked for at a time`);
  await pass(10_000);
  assert.equal(lan.kept.size, 4);
});

test(
  'a search that meets with addresses of others asks for no more at once than the frames allow',
  options,
  async () => {
    const { lan, timed, request } = await host('192.168.1.0/24');
    lan.mostAtOnce = 8;
    for (let n = 1; n <= 40; n++) lan.held.add(`192.168.1.${n}`);
    const { answer } = await timed(request());
    assert.equal(answer, '192.168.1.41');
    assert.ok(lan.mostAsking <= 8, `${lan.mostAsking} asked for at a time`);
  },
);

test('where few frames may be sent the first question of a cold pool has two beside it', options, async () => {
  const { lan, timed, request } = await host('192.168.1.0/24');
  lan.mostAtOnce = 2;
  await timed(request());
  assert.equal(lan.mostAsking, 2);
});

test('a parent that goes down is not asked again with every start', options, async () => {
  const { lan, timed, pass, start } = await host('192.168.1.0/24');
  await timed(start(10));
  const before = lan.asked.length;
  lan.isDown = true;
  for (const losts of [...lan.kept.values()]) for (const lost of losts) lost('ended');
  lan.kept.clear();
  await timed(start(100));
  // Three seconds: a batch in each, and the refill's.
  const asked = lan.asked.length - before;
  assert.ok(asked <= 5 * 64, `${asked} asked for in vain`);
  lan.isDown = false;
  await pass(MINUTE_MS);
  assert.ok(lan.kept.size >= 4);
});

test('what forty containers left is ready for the next forty, and none of it is asked for again', options, async () => {
  const { lan, timed, pass, start, release } = await host('192.168.1.0/24');
  const { answer: given } = await timed(start(40));
  await pass(3 * MINUTE_MS);
  assert.equal(lan.kept.size, 4);
  const asked = lan.asked.length;
  for (const address of given) {
    lan.leave(address);
    await timed(release(address));
  }
  await pass(10_000);
  lan.windows = 0;
  const { answer: again, ms } = await timed(start(40));
  assert.deepEqual(again, given);
  assert.equal(lan.windows, 0);
  assert.ok(ms <= startMs(40) + 40, `${ms} ms`);
  assert.deepEqual(
    lan.asked.slice(asked).filter(({ address }) => given.includes(address)),
    [],
  );
  await pass(3 * MINUTE_MS);
  assert.equal(lan.kept.size, 4);
});

test('a container that comes and goes has its address on standby, and no other is asked for', options, async () => {
  const { lan, timed, pass, start, release, standby } = await host('192.168.1.0/24');
  await standby.start();
  await pass(4000);
  for (let n = 0; n < 5; n++) {
    const { answer: given } = await timed(start(1));
    assert.deepEqual(given, ['192.168.1.1']);
    await pass(5000);
    lan.leave('192.168.1.1');
    await timed(release('192.168.1.1'));
    await pass(5000);
  }
  assert.equal(lan.asked.length, 5, 'one, when the first container took its own');
});

// --- a stack whose containers are given their addresses ---------------------------------------------------------------

const stack = (from: number, count: number) =>
  Array.from({ length: count }, (_, n) => `192.168.1.${from + ((n * 17) % count)}`);

test('forty starts with --ip in any order wait for two windows', options, async () => {
  const { lan, timed, startAt } = await host('192.168.1.0/24');
  const { ms } = await timed(startAt(...stack(100, 40)));
  assert.equal(lan.windows, 2, 'questions that a call waited for');
  assert.ok(ms <= 3 * WINDOW_MS + startMs(40), `${ms} ms`);
  assert.ok(lan.asked.length <= 48, `${lan.asked.length} asked for ahead`);
});

test('one start with --ip asks for nothing beside its address, nor does another much later', options, async () => {
  const { lan, timed, startAt, pass } = await host('192.168.1.0/24');
  await timed(startAt('192.168.1.100'));
  await pass(10_000);
  await timed(startAt('192.168.1.101'));
  assert.deepEqual(lan.asked, []);
});

test('what is kept for a stack is no reason to give others a higher address, and is let go', options, async () => {
  const { lan, timed, startAt, request, pass } = await host('192.168.1.0/24');
  await timed(startAt('192.168.1.100', '192.168.1.101'));
  await pass(WINDOW_MS);
  assert.ok(lan.kept.has('192.168.1.102'));
  assert.equal((await timed(request())).answer, '192.168.1.1');
  await pass(2 * MINUTE_MS);
  assert.ok(!lan.kept.has('192.168.1.102'));
});

test('nothing is asked for around an address where the LAN is not asked', options, async () => {
  const { lan, timed, startAt } = await host('192.168.1.0/24');
  lan.parentName = null;
  await timed(startAt('192.168.1.100', '192.168.1.101', '192.168.1.102'));
  assert.deepEqual(lan.asked, []);
});

test('a stack whose pool goes lets go of everything; answers that come later too', options, async () => {
  const { lan, timed, startAt, pass, nearby, pools } = await host('192.168.1.0/24');
  await timed(startAt('192.168.1.100', '192.168.1.101'));
  await pass(WINDOW_MS);
  nearby.forget(pools[0]?.id ?? '');
  assert.equal(lan.kept.size, 0);
  await timed(startAt('192.168.1.110', '192.168.1.111'));
  nearby.close();
  await pass(2 * WINDOW_MS);
  assert.equal(lan.kept.size, 0);
});
