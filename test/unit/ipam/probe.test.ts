import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { formatAddress } from '../../../src/address.ts';
import type { Probe } from '../../../src/ipam/driver.ts';
import type { Verdict } from '../../../src/lan/verdict.ts';
import { Fixture, GLOBAL, NETWORK, sentence } from './fixture.ts';
import { MemoryStore } from './memory.ts';
import { callLimit } from '../../lab/patience.ts';

const options = { timeout: 20_000 };

/** A LAN on which some addresses answer. It must only ever be asked for addresses that are leased already. */
class Lan {
  readonly asked: string[] = [];
  readonly strangers: Set<string>;
  readonly store = new MemoryStore();
  readonly #isUp: () => boolean;
  /** They only ask for the addresses. */
  isAsking = false;
  onAsked: (count: number) => void = () => undefined;
  macOf = macOf;

  constructor(strangers: readonly string[], isUp = () => true) {
    this.strangers = new Set(strangers);
    this.#isUp = isUp;
  }

  readonly probe: Probe = async (pool, probed, { limit }): Promise<Verdict> => {
    const address = formatAddress(probed);
    limit?.signal.throwIfAborted();
    this.onAsked(this.asked.push(address));
    if (!this.#isUp()) throw new Error('parent is down');
    const leases = await this.store.leases.list();
    assert.ok(leases.some((lease) => lease.address === address && lease.poolIds.includes(pool.id)));
    return this.strangers.has(address)
      ? {
          held: true,
          macAddress: this.macOf(Number(address.split('.')[3])),
          linkName: 'eth0.10',
          simultaneous: this.isAsking,
          isOnHost: false,
        }
      : { held: false };
  };

  fixture(): Fixture {
    return new Fixture(this.store, this.probe);
  }
}

function macOf(host: number): string {
  return `3c:22:fb:10:aa:${host.toString(16).padStart(2, '0')}`;
}

function range(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, n) => `192.168.1.${from + n}`);
}

test('an address that answers on the LAN is passed over', options, async () => {
  const lan = new Lan(range(1, 2));
  const f = lan.fixture();
  const pool = await f.network('192.168.1.0/24');
  assert.equal(await f.address(pool), '192.168.1.3/24');
  assert.deepEqual(await lan.store.leases.list().then((leases) => leases.map(({ address }) => address)), [
    '192.168.1.3',
  ]);
  assert.equal(await f.address(pool), '192.168.1.4/24');
  assert.deepEqual(lan.asked, range(1, 4), 'and is not asked for again at once');
});

test(
  'what was used comes back by being asked for, each time after twice the rest, whatever the wall clock says',
  options,
  async () => {
    const lan = new Lan(['192.168.1.1']);
    const f = lan.fixture();
    const pool = await f.network('192.168.1.0/24');
    const askedAgainAfter = async (seconds: number) => {
      f.pass(seconds - 1);
      f.setClock(10);
      await f.address(pool);
      assert.notEqual(lan.asked.at(-2), '192.168.1.1', `not within ${seconds} s`);
      f.pass(2);
      f.setClock(-20);
      await f.address(pool);
      assert.equal(lan.asked.at(-2), '192.168.1.1', `after ${seconds} s`);
    };
    await f.address(pool);
    for (const seconds of [10, 20, 40, 80, 160, 300, 300]) await askedAgainAfter(seconds);
    lan.strangers.clear();
    f.pass(301);
    assert.equal(await f.address(pool), '192.168.1.1/24');
  },
);

test('an --ip that answers on the LAN is refused with the holder', options, async () => {
  const f = new Lan(['192.168.1.40']).fixture();
  const pool = await f.network('192.168.1.0/24');
  assert.equal(
    await sentence(f.address(pool, '192.168.1.40')),
    'address 192.168.1.40 is already used on the LAN by 3c:22:fb:10:aa:28, which answered on eth0.10; choose another --ip, or give that device another address and start again; a network made with -o conflict=warn lets containers start anyway',
  );
  assert.equal(await f.lease('192.168.1.40'), undefined);
});

test('an --ip that was held and is free now is given at once', options, async () => {
  const lan = new Lan(['192.168.1.1']);
  const f = lan.fixture();
  const pool = await f.network('192.168.1.0/24');
  await f.address(pool);
  lan.strangers.clear();
  assert.equal(await f.address(pool, '192.168.1.1'), '192.168.1.1/24');
  f.pass(301);
  assert.equal(await f.address(pool), '192.168.1.3/24', 'and stays leased when the hold would have ended');
});

test('gateway and auxiliary addresses are never asked for', options, async () => {
  const lan = new Lan(range(1, 9));
  const f = lan.fixture();
  const pool = await f.pool('192.168.1.0/24');
  assert.equal(await f.gateway(pool), '192.168.1.1/24');
  assert.equal(await f.address(pool, '192.168.1.2'), '192.168.1.2/24');
  assert.deepEqual(lan.asked, []);
});

test('the search goes on behind as many used addresses as there are', options, async () => {
  const lan = new Lan(range(1, 225));
  const f = lan.fixture();
  const pool = await f.network('192.168.1.0/24');
  assert.equal(await f.address(pool), '192.168.1.226/24');
});

test(
  'when the time of a call is used up it says what was met with, and the next call goes on behind that',
  options,
  async () => {
    const lan = new Lan(range(1, 100));
    const f = lan.fixture();
    lan.onAsked = () => f.pass(0.1);
    const pool = await f.network('192.168.1.0/24');
    const words = await sentence(f.address(pool));
    const [, count] =
      /^no free address found in 192\.168\.1\.0\/24: (\d+) used by others on the LAN, /.exec(words) ?? [];
    assert.ok(Number(count) > 40 && Number(count) < 90, words);
    const rest = `the last one tried (192.168.1.${count}) used by ${macOf(Number(count))}, seen on eth0.10; keep --ip-range apart from other hosts, name them in --ipam-opt exclude=, or try again when some are gone`;
    assert.ok(words.endsWith(rest), words);
    assert.deepEqual(await lan.store.leases.list(), []);
    const before = lan.asked.length;
    assert.equal(await f.address(pool), '192.168.1.101/24');
    assert.equal(lan.asked[before], `192.168.1.${Number(count) + 1}`);
  },
);

test(
  'an --ip that a search is just asking for waits for it, and is refused when the search takes it',
  options,
  async () => {
    const lan = new Lan(['192.168.1.1']);
    const f = lan.fixture();
    const pool = await f.network('192.168.1.0/24');
    let named: Promise<string> | undefined;
    lan.onAsked = () => {
      named ??= f.address(pool, '192.168.1.1');
      // The stranger answers the search, and is gone when the other asks.
      if (lan.asked.length > 1) lan.strangers.clear();
    };
    assert.equal(await f.address(pool), '192.168.1.2/24');
    assert.ok(named);
    assert.equal(await named, '192.168.1.1/24');
    let refused: Promise<string> | undefined;
    lan.onAsked = () => {
      refused ??= sentence(f.address(pool, lan.asked.at(-1) ?? ''));
    };
    const chosen = (await f.address(pool)).split('/')[0] ?? '';
    assert.ok(refused);
    assert.match(await refused, new RegExp(`^address ${chosen} is leased to a container `));
  },
);

test('one device that answers for all is named, and so is one whose MAC address changes', options, async () => {
  const all = new Lan(range(1, 254));
  let f = all.fixture();
  all.onAsked = () => f.pass(0.1);
  all.macOf = () => '3c:22:fb:10:aa:01';
  const pool = await f.network('192.168.1.0/24');
  assert.match(await sentence(f.address(pool)), /but one device \(3c:22:fb:10:aa:01\) seems to answer for all of them/);

  let frames = 0;
  const small = new Lan(range(1, 6));
  small.macOf = () => macOf(++frames);
  f = small.fixture();
  small.onAsked = () => f.pass(0.1);
  const other = await f.network('192.168.1.0/29');
  assert.match(await sentence(f.address(other)), /but one device \(its MAC address changes\) seems to answer/);
});

test(
  'where nothing else is free those passed over longest are asked for again, in the same call',
  options,
  async () => {
    const lan = new Lan(range(65, 67));
    const f = lan.fixture();
    const pool = await f.network('192.168.1.0/24', { subPool: '192.168.1.64/30' });
    assert.equal(await f.address(pool), '192.168.1.64/24');
    lan.onAsked = (count) => {
      f.pass(0.01);
      if (count === 7) lan.strangers.delete('192.168.1.67');
    };
    assert.equal(await f.address(pool), '192.168.1.67/24');
    assert.deepEqual(lan.asked, [...range(64, 67), ...range(65, 67)]);
  },
);

test('a range that is full of strangers is refused with counts', options, async () => {
  const lan = new Lan(range(65, 67));
  const f = lan.fixture();
  lan.onAsked = () => f.pass(0.01);
  const pool = await f.network('192.168.1.0/24', { subPool: '192.168.1.64/30' });
  await f.address(pool);
  const words = await sentence(f.address(pool));
  assert.match(words, /^no free address found in 192\.168\.1\.64\/30: 1 leased, 3 used by others on the LAN, /);
  assert.ok(lan.asked.length <= 4 + 5 * 3, `${lan.asked.length} questions`);
});

test('who asks is not who holds: the address is tried again, and the words say so', options, async () => {
  const lan = new Lan(range(1, 6));
  lan.isAsking = true;
  const f = lan.fixture();
  lan.onAsked = () => f.pass(0.1);
  const pool = await f.network('192.168.1.0/29');
  assert.match(
    await sentence(f.address(pool)),
    /: 6 being checked by others on the LAN, the last one tried \(\S+\) being checked by /,
  );
  assert.equal(
    await sentence(f.address(pool, '192.168.1.3')),
    `address 192.168.1.3 is being checked on the LAN by ${macOf(3)}, seen on eth0.10, which may be about to use it; try again in a few seconds, or choose another --ip`,
  );
  lan.macOf = () => '3c:22:fb:10:aa:01';
  const scanned = await sentence(f.address(pool));
  assert.doesNotMatch(scanned, /one device/, 'one device that asks for all answers for none');
  assert.match(scanned, /being checked by 3c:22:fb:10:aa:01, seen on eth0\.10; try again in a few seconds, or /);
  lan.strangers.clear();
  f.pass(2);
  assert.match(await f.address(pool), /^192\.168\.1\./, 'and the pool is not full afterwards');
});

test('a second pool of the network is searched too, when the first is used by others', options, async () => {
  const lan = new Lan(range(1, 254));
  const f = lan.fixture();
  const pool = await f.network('192.168.1.0/24');
  const second = await f.pool('192.168.2.0/24');
  await f.tie(second, NETWORK);
  lan.onAsked = () => f.pass(0.1);
  assert.equal(await f.address(pool), '192.168.2.1/24');
});

test('when nothing can be asked the error goes on and no lease stays', options, async () => {
  let isUp = false;
  const lan = new Lan([], () => isUp);
  const f = lan.fixture();
  const pool = await f.network('192.168.1.0/24');
  await assert.rejects(f.address(pool), /parent is down/);
  await assert.rejects(f.address(pool, '192.168.1.7'), /parent is down/);
  assert.deepEqual(await lan.store.leases.list(), []);
  isUp = true;
  assert.equal(await f.address(pool), '192.168.1.1/24');
});

test('a call that nobody waits for any more ends without a lease', options, async () => {
  const lan = new Lan([]);
  const f = lan.fixture();
  const poolId = await f.network('192.168.1.0/24');
  const request = {
    poolId,
    address: null,
    isGateway: false,
    serial: false,
    name: null,
    limit: { ...callLimit(), signal: AbortSignal.abort(new Error('deadline')) },
  };
  await assert.rejects(f.ipam.requestAddress(request), /deadline/);
  await assert.rejects(f.ipam.requestAddress({ ...request, address: '192.168.1.5' }), /deadline/);
  assert.deepEqual(await lan.store.leases.list(), []);
});

test('many at once on a LAN with strangers get distinct addresses, and no stranger’s', options, async () => {
  const lan = new Lan(range(1, 200).filter((_, n) => n % 5 === 0));
  const f = lan.fixture();
  const pool = await f.network('192.168.1.0/24');
  const addresses = await f.addresses(pool, 100);
  assert.equal(new Set(addresses).size, 100);
  assert.ok(addresses.every((address) => !lan.strangers.has(address.split('/')[0] ?? '')));
  assert.equal(new Set(lan.asked).size, lan.asked.length, 'nobody is asked twice');
});

test('a network that goes while its containers start keeps no address, at whatever moment', options, async () => {
  for (let turns = 0; turns < 24; turns++) {
    const lan = new Lan(range(2, 4));
    const f = lan.fixture();
    const pool = await f.network('192.168.1.0/24');
    await f.address(pool);
    const starts = Promise.allSettled([f.address(pool), f.address(pool), f.address(pool, '192.168.1.77')]);
    for (let turn = 0; turn < turns; turn++) await setImmediate();
    await f.ipam.releasePool(pool);
    await starts;
    assert.deepEqual(await lan.store.leases.list(), [], `released after ${turns} turns`);
  }
});

test(
  'an address that a swarm claims is not asked for, since its own container would answer; one to choose is',
  options,
  async () => {
    const lan = new Lan(range(2, 5));
    const f = lan.fixture();
    const pool = await f.pool('192.168.1.0/24', { addressSpace: GLOBAL });
    const subnets = [{ addressSpace: GLOBAL, subnet: '192.168.1.0/24', gateway: null }];
    const allocation = { networkId: 'k3f9z1q8w2e7r6t5y4u3i2o1p', options: {}, subnets };
    for (const isRepeated of [false, true]) {
      f.ipam.register();
      await f.ipam.allocateNetwork({ ...allocation, isRepeated });
      assert.equal(await f.address(pool, '192.168.1.5'), '192.168.1.5/24');
      assert.deepEqual(lan.asked, []);
    }
    assert.equal(await f.address(pool), '192.168.1.1/24');
    assert.equal(await f.address(pool), '192.168.1.6/24');
    assert.deepEqual(lan.asked, ['192.168.1.1', '192.168.1.2', '192.168.1.3', '192.168.1.4', '192.168.1.6']);
  },
);
