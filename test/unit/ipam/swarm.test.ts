/** The global space as swarm's managers use it: rounds of claims, leaders that come and go, networks that share a pool. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Leak } from '../../../src/leak.ts';
import { bare, Fixture, GLOBAL, NETWORK, sentence, STORES, SWARM_NETWORK } from './fixture.ts';
import { MemoryStore } from './memory.ts';

const options = { timeout: 60_000 };
const OTHER_SWARM_NETWORK = 'a1s2d3f4g5h6j7k8l9q1w2e3r';
const LATE_SECONDS = 121;

interface SwarmNetwork {
  readonly id: string;
  readonly subnets: readonly string[];
  readonly range?: string;
  readonly gateway: string;
}

const LAN: SwarmNetwork = { id: SWARM_NETWORK, subnets: ['10.5.0.0/24'], gateway: '10.5.0.1' };

/** What a leader's allocator sends (swarmkit manager/allocator). */
class Manager extends Fixture {
  /** Begins to lead a swarm that has these networks; answers the pool of the last. */
  async lead(...networks: SwarmNetwork[]): Promise<string> {
    this.ipam.register();
    let pool = '';
    for (const network of networks) pool = await this.allocate(network, true);
    return pool;
  }

  async allocate({ id, subnets, range, gateway }: SwarmNetwork, isRepeated = false): Promise<string> {
    const pools: string[] = [];
    for (const subnet of subnets) {
      const pool = await this.pool(subnet, { addressSpace: GLOBAL, subPool: range ?? null });
      const own = subnets.length === 1 ? gateway : subnet.replace(/0\/\d+$/, '1');
      assert.match(await this.gateway(pool, own), new RegExp(`^${own.replaceAll('.', '\\.')}/`));
      pools.push(pool);
    }
    const described = subnets.map((subnet) => ({ addressSpace: GLOBAL, subnet, gateway: null }));
    await this.ipam.allocateNetwork({ networkId: id, options: {}, isRepeated, subnets: described });
    return pools[0] ?? '';
  }

  async free({ id, gateway }: SwarmNetwork, ...pools: string[]): Promise<void> {
    await this.ipam.freeNetwork(id);
    for (const pool of pools) await this.release(pool, gateway);
    for (const pool of pools) await this.ipam.releasePool(pool);
  }

  /** A task's address, without prefix length. */
  async task(pool: string): Promise<string> {
    return (await this.address(pool, null, true)).replace(/\/\d+$/, '');
  }

  async claim(pool: string, address: string): Promise<void> {
    assert.match(await this.address(pool, address), /^[\d.]+\/\d+$/);
  }

  async held(): Promise<string[]> {
    const leases = await this.store.leases.list(GLOBAL);
    return leases.filter(({ kind }) => kind === 'container').map(({ address }) => address);
  }

  /** All that looks left over, as the collector does when it has looked like this for long. */
  async collect(): Promise<Leak[]> {
    const leaks = await this.ipam.leaks();
    for (const leak of leaks) assert.ok(await leak.collect(), leak.name);
    return leaks;
  }
}

for (const [name, open] of Object.entries(STORES)) {
  const check = (title: string, run: (manager: Manager) => Promise<void>): void => {
    test(`${title} (store ${name})`, options, (t) => run(new Manager(open(t))));
  };

  check('a new leader is granted again what is in use: pool, gateway, every address', async (m) => {
    const pool = await m.allocate(LAN);
    const tasks = [await m.task(pool), await m.task(pool), await m.task(pool)];
    for (let leader = 0; leader < 3; leader++) {
      m.restart();
      assert.equal(await m.lead(LAN), pool);
      for (const address of tasks) await m.claim(pool, address);
      assert.deepEqual(await m.held(), tasks);
    }
    assert.deepEqual(await m.ipam.leaks(), []);
    assert.equal(await m.task(pool), '10.5.0.5');
  });

  check(
    'what the next leader does not claim is nobody’s, and is collected when the claims are surely over',
    async (m) => {
      const pool = await m.allocate(LAN);
      for (let n = 0; n < 4; n++) await m.task(pool);
      await m.lead(LAN);
      await m.claim(pool, '10.5.0.3');
      assert.equal(await m.task(pool), '10.5.0.6', 'those not claimed yet are not given out');
      const leaks = await m.ipam.leaks();
      assert.deepEqual(
        leaks.map(({ kind, name, patience }) => `${kind} ${name} ${patience}`),
        ['lease 10.5.0.2 late', 'lease 10.5.0.4 late', 'lease 10.5.0.5 late'],
      );
      assert.match(leaks[0]?.why ?? '', /^no task of the swarm has it any more/);
      await m.claim(pool, '10.5.0.5');
      await m.ipam.leaks().then((left) => Promise.all(left.map((leak) => leak.collect())));
      assert.deepEqual(await m.held(), ['10.5.0.3', '10.5.0.5', '10.5.0.6']);
    },
  );

  check('a range that is full of unclaimed addresses is not exhausted', async (m) => {
    const small = { ...LAN, range: '10.5.0.64/30' };
    const pool = await m.allocate(small);
    for (let n = 0; n < 4; n++) await m.task(pool);
    await m.lead(small);
    await m.claim(pool, '10.5.0.65');
    m.pass(LATE_SECONDS);
    assert.deepEqual((await Promise.all([1, 2, 3].map(() => m.task(pool)))).sort(), [
      '10.5.0.64',
      '10.5.0.66',
      '10.5.0.67',
    ]);
    assert.match(await sentence(m.address(pool, null, true)), /^no free address in 10\.5\.0\.64\/30: 4 leased/);
  });

  check('no age makes a claim of this round a leak', async (m) => {
    const pool = await m.allocate({ ...LAN, range: '10.5.0.64/30' });
    for (let n = 0; n < 4; n++) await m.task(pool);
    m.pass(24 * 3600);
    assert.deepEqual(await m.ipam.leaks(), []);
    assert.match(await sentence(m.address(pool)), /^no free address/);
  });

  check('an address that a task has is refused to another, as --ip on an attachable network asks for', async (m) => {
    const pool = await m.allocate(LAN);
    const address = await m.task(pool);
    assert.equal(
      await sentence(m.address(pool, address)),
      'address 10.5.0.2 is given to a task of this swarm already; choose another --ip or remove that task',
    );
    await m.release(pool, address);
    await m.claim(pool, address);
  });

  check('an address claimed of a leader that never had it is a container’s, also in the first minute', async (m) => {
    const pool = await m.allocate(LAN);
    await m.claim(pool, '10.5.0.77');
    assert.equal((await m.lease('10.5.0.77', GLOBAL))?.kind, 'container');
    await m.release(pool, '10.5.0.77');
    assert.deepEqual(await m.held(), []);
  });

  check('a gateway is granted whoever had the address, and no task’s release takes it', async (m) => {
    const pool = await m.allocate(LAN);
    const address = await m.task(pool);
    const other = { ...LAN, id: OTHER_SWARM_NETWORK, range: '10.5.0.128/25', gateway: address };
    const second = await m.allocate(other);
    await m.release(pool, address);
    assert.equal((await m.lease(address, GLOBAL))?.kind, 'gateway');
    await m.free(other, second);
    assert.equal(await m.lease(address, GLOBAL), undefined);
  });

  check('two networks of one description share the pool until the last goes; so does the gateway', async (m) => {
    const pool = await m.allocate(LAN);
    const twin = { ...LAN, id: OTHER_SWARM_NETWORK };
    const address = await m.task(pool);
    assert.equal(await m.allocate(twin), pool);
    assert.deepEqual(await m.ipam.leaks(), [], 'the second network is no new leader');
    assert.notEqual(await m.task(pool), address);
    await m.free(twin, pool);
    assert.equal((await m.lease('10.5.0.1', GLOBAL))?.kind, 'gateway');
    assert.equal(await m.task(pool), '10.5.0.4');

    await m.lead(LAN);
    await m.free(LAN, pool);
    assert.deepEqual([...(await m.store.pools.list()), ...(await m.store.leases.list())], []);
  });

  check('both networks on a pool are allocated anew in one round', async (m) => {
    const twin = { ...LAN, id: OTHER_SWARM_NETWORK };
    const pool = await m.allocate(LAN);
    await m.allocate(twin);
    const tasks = [await m.task(pool), await m.task(pool)];
    for (let leader = 0; leader < 2; leader++) {
      await m.lead(twin, LAN);
      for (const address of tasks) await m.claim(pool, address);
      assert.deepEqual(await m.ipam.leaks(), []);
    }
  });

  check('a network whose allocation failed leaves nothing, and a failed repetition loses nothing', async (m) => {
    const request = { addressSpace: GLOBAL };
    const pool = await m.pool('10.5.0.0/24', request);
    await m.gateway(pool, '10.5.0.1');
    await m.release(pool, '10.5.0.1');
    await m.ipam.releasePool(pool);
    assert.deepEqual([...(await m.store.pools.list()), ...(await m.store.leases.list())], []);

    await m.allocate(LAN);
    const address = await m.task(pool);
    await m.pool('10.5.0.0/24', request);
    await m.release(pool, '10.5.0.1');
    await m.ipam.releasePool(pool);
    assert.deepEqual(await m.held(), [address]);
    await m.lead(LAN);
    await m.claim(pool, address);
  });

  check(
    'a leader again: claims of a network that was removed meanwhile are over, also where another one has its pool',
    async (m) => {
      const pool = await m.allocate(LAN);
      const addresses = [await m.task(pool), await m.task(pool)];
      const [twin, third] = [OTHER_SWARM_NETWORK, 'z0y9x8w7v6u5t4s3r2q1p0o9n'].map((id) => ({ ...LAN, id }));
      assert.ok(twin && third);
      await m.lead(twin, third);
      await m.claim(pool, '10.5.0.3');
      m.pass(LATE_SECONDS);
      assert.deepEqual(
        (await m.collect()).map(({ name: leaked }) => leaked),
        ['10.5.0.2'],
      );
      assert.deepEqual(await m.held(), ['10.5.0.3']);
      assert.notEqual(await m.task(pool), addresses[1]);
      await m.free(twin, pool);
      assert.deepEqual((await m.held()).length, 2, 'the third network has the pool');
      await m.free(third, pool);
      assert.deepEqual([...(await m.store.pools.list()), ...(await m.store.leases.list())], []);
    },
  );

  check('the plugin is restarted under a leader: the next network on the pool ends no claim', async (m) => {
    const pool = await m.allocate(LAN);
    const address = await m.task(pool);
    m.restart();
    m.ipam.register();
    await m.allocate({ ...LAN, id: OTHER_SWARM_NETWORK });
    assert.deepEqual(await m.ipam.leaks(), []);
    assert.notEqual(await m.task(pool), address);
  });

  check('what a plugin that was killed told nobody is collected; the engine asks once more', async (m) => {
    const pool = await m.allocate(LAN);
    const first = await m.task(pool);
    const lost = bare(await m.unanswered(pool, null, true));
    assert.match(await sentence(m.address(pool, lost)), /is given to a task of this swarm already/);
    m.restart();
    const second = await m.task(pool);
    assert.deepEqual([first, lost, second], ['10.5.0.2', '10.5.0.3', '10.5.0.4']);
    assert.deepEqual(
      (await m.collect()).map(({ name: leaked, why, patience }) => `${leaked}: ${why}, ${patience}`),
      ['10.5.0.3: the plugin was killed before it answered with it, late'],
    );
    assert.deepEqual(await m.held(), [first, second]);
  });

  check('a full range has place again where nobody was told of an address', async (m) => {
    const pool = await m.allocate({ ...LAN, range: '10.5.0.64/31' });
    await m.task(pool);
    const lost = bare(await m.unanswered(pool, null, true));
    m.restart();
    m.pass(LATE_SECONDS);
    assert.equal(await m.task(pool), lost);
    m.pass(LATE_SECONDS);
    assert.deepEqual(await m.ipam.leaks(), []);
  });

  check('a new leader whose plugin is killed in a claim by address is granted it when it asks again', async (m) => {
    const pool = await m.allocate(LAN);
    const address = await m.task(pool);
    await m.lead(LAN);
    await m.unanswered(pool, address);
    m.restart();
    await m.claim(pool, address);
    m.pass(LATE_SECONDS);
    assert.deepEqual(await m.ipam.leaks(), []);
    assert.match(await sentence(m.address(pool, address)), /is given to a task of this swarm already/);
  });

  check('a release that comes before the reply went out is obeyed', async (m) => {
    const pool = await m.allocate(LAN);
    const address = bare(await m.unanswered(pool, null, true));
    await m.release(pool, address);
    await m.ipam.answerAddress({ poolId: pool, address });
    assert.deepEqual(await m.held(), []);
  });

  check('a pool whose release was lost is collected', async (m) => {
    const pool = await m.allocate(LAN);
    const address = await m.task(pool);
    await m.ipam.freeNetwork(LAN.id);
    assert.deepEqual(
      (await m.collect()).map(({ kind, name }) => `${kind} ${name}`),
      ['pool 10.5.0.0/24'],
    );
    assert.equal(await m.lease(address, GLOBAL), undefined);
    assert.deepEqual(await m.store.pools.list(), []);
  });

  check(
    'a network of two subnets: any pool takes and frees the addresses of both, and a full one goes on in the other',
    async (m) => {
      const wide = { ...LAN, subnets: ['10.5.0.0/29', '10.6.0.0/24'] };
      const pool = await m.allocate(wide);
      await m.claim(pool, '10.6.0.7');
      await m.release(pool, '10.6.0.7');
      assert.equal(await m.lease('10.6.0.7', GLOBAL), undefined);
      const given = [];
      for (let n = 0; n < 6; n++) given.push(await m.task(pool));
      assert.deepEqual(given.slice(4), ['10.5.0.6', '10.6.0.2']);
      for (const address of given) await m.release(pool, address);
      assert.deepEqual(await m.held(), []);
    },
  );

  check('a stale pool is no ground to refuse, and its addresses stay apart', async (m) => {
    const old = await m.allocate(LAN);
    await m.task(old);
    const pool = await m.allocate({ ...LAN, id: OTHER_SWARM_NETWORK, subnets: ['10.5.0.0/16'] });
    assert.equal(await m.task(pool), '10.5.0.3');
  });

  check(
    'scope global without a swarm: an address is refused to a second container, and collected when its own is gone',
    async (m) => {
      const pool = await m.network('10.5.0.0/24', { addressSpace: GLOBAL }, NETWORK);
      const address = await m.task(pool);
      assert.match(
        await sentence(m.address(pool, address)),
        /^address 10\.5\.0\.1 is leased to a container of network/,
      );
      m.pass(LATE_SECONDS);
      assert.deepEqual(
        (await m.collect()).map(({ name: leaked }) => leaked),
        [address],
      );
    },
  );
}

// --- whatever leaders come and go ----------------------------------------------------------------------------------

const RANGE_SIZE = 16;

type Step =
  | { readonly does: 'lead'; readonly manager: number; readonly restarts: boolean }
  | { readonly does: 'start'; readonly isKilled: boolean }
  | { readonly does: 'stop'; readonly task: number }
  | { readonly does: 'wait' };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    fc.record({ does: fc.constant('lead' as const), manager: fc.nat(2), restarts: fc.boolean() }),
    { arbitrary: fc.record({ does: fc.constant('start' as const), isKilled: fc.boolean() }), weight: 4 },
    { arbitrary: fc.record({ does: fc.constant('stop' as const), task: fc.nat(RANGE_SIZE) }), weight: 3 },
    fc.record({ does: fc.constant('wait' as const) }),
  ),
  { maxLength: 120 },
);

test('whatever leaders come and go, no address is given to two tasks and none is lost', options, async () => {
  const network = { ...LAN, range: '10.5.0.64/28' };
  await fc.assert(
    fc.asyncProperty(steps, async (history) => {
      const managers = Array.from({ length: 3 }, () => new Manager(new MemoryStore()));
      let leader = managers[0] as Manager;
      let pool = await leader.allocate(network);
      const running: string[] = [];
      for (const step of history) {
        if (step.does === 'lead') {
          leader = managers[step.manager] as Manager;
          if (step.restarts) leader.restart();
          pool = await leader.lead(network);
          for (const address of running) await leader.claim(pool, address);
        } else if (step.does === 'start' && running.length < RANGE_SIZE) {
          // Swarm tries again later, when the claims are surely over.
          if ((await leader.held()).length === RANGE_SIZE) leader.pass(LATE_SECONDS);
          if (step.isKilled && running.length < RANGE_SIZE - 1) {
            await leader.unanswered(pool, null, true);
            leader.restart();
          }
          const address = await leader.task(pool);
          assert.ok(!running.includes(address), `${address} is given out twice`);
          running.push(address);
        } else if (step.does === 'stop') {
          for (const address of running.splice(step.task, 1)) await leader.release(pool, address);
        } else if (step.does === 'wait') {
          leader.pass(LATE_SECONDS);
          await leader.collect();
          assert.deepEqual(await leader.held(), running.toSorted());
        }
      }
    }),
    { numRuns: 150 },
  );
});
