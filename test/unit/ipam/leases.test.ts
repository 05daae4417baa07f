/** Leases whose endpoints are not what their records say: the kernel is the witness. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress } from '../../../src/address.ts';
import type { EndpointWitness } from '../../../src/ipam/driver.ts';
import { NOBODY_ANSWERS } from '../../lab/quiet.ts';
import { Fixture, sentence } from './fixture.ts';
import { MemoryStore } from './memory.ts';

const options = { timeout: 20_000 };

/** What the kernel has, which differs from what the store says. */
class Kernel implements EndpointWitness {
  readonly gone = new Set<string>();
  readonly missing = new Set<string>();
  readonly looks: string[] = [];
  readonly dropped: string[] = [];
  /** Of which engines have said DeleteEndpoint. */
  readonly ended = new Set<string>();
  /** Made when a gone endpoint is removed, before it is answered. */
  onGone: (endpointId: string) => Promise<void> = async () => undefined;

  async isGone(endpointId: string): Promise<boolean> {
    this.looks.push(endpointId);
    if (!this.gone.has(endpointId)) return false;
    await this.onGone(endpointId);
    return true;
  }

  hasEnded(endpointId: string): boolean {
    return this.ended.has(endpointId);
  }

  async hasAddress(_endpointId: string, address: Parameters<EndpointWitness['hasAddress']>[1]): Promise<boolean> {
    return !this.missing.has(formatAddress(address));
  }

  async dropAddress(endpointId: string, address: Parameters<EndpointWitness['dropAddress']>[1]): Promise<void> {
    this.dropped.push(`${endpointId} ${formatAddress(address)}`);
  }
}

async function running(address = '192.168.1.40') {
  const kernel = new Kernel();
  const f = new Fixture(new MemoryStore(), NOBODY_ANSWERS, kernel);
  const pool = await f.network('192.168.1.0/24');
  await f.address(pool, address);
  await f.endpoint('e1', address);
  return { kernel, f, pool };
}

test('the container that starts again after an outage gets its address back at once', options, async () => {
  const { kernel, f, pool } = await running();
  kernel.gone.add('e1');
  assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
  assert.equal((await f.lease('192.168.1.40'))?.endpointId, null);
});

test('so it does when the endpoint is removed at that moment, and its lease untied', options, async () => {
  const { kernel, f, pool } = await running();
  kernel.gone.add('e1');
  kernel.onGone = (id) => f.deleteEndpoint(id, '192.168.1.40');
  assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
});

test('a lease whose endpoint has no record any more is free for who names it', options, async () => {
  const { kernel, f, pool } = await running();
  const endpoint = await f.store.endpoints.get('e1');
  assert.ok(endpoint);
  await f.store.endpoints.remove(endpoint);
  assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
  assert.deepEqual(kernel.looks, [], 'there is nothing to look at');
});

test('the address of a container that lives by the kernel is refused', options, async () => {
  const { kernel, f, pool } = await running();
  assert.match(await sentence(f.address(pool, '192.168.1.40')), /^address 192\.168\.1\.40 is used by endpoint e1 of /);
  assert.deepEqual(kernel.looks, ['e1']);
});

test('of two that name the address of a gone container at the same moment one gets it', options, async () => {
  for (const isUntied of [false, true]) {
    const { kernel, f, pool } = await running();
    kernel.gone.add('e1');
    let isRemoved = false;
    kernel.onGone = async (id) => {
      if (isUntied && !isRemoved) await f.deleteEndpoint(id, '192.168.1.40');
      isRemoved = true;
    };
    const wishes = [0, 1, 2].map(() => f.address(pool, '192.168.1.40'));
    const given = (await Promise.allSettled(wishes)).filter(({ status }) => status === 'fulfilled');
    assert.equal(given.length, 1);
  }
});

test('a lease that another living endpoint needs is not free though its own is gone', options, async () => {
  const { kernel, f, pool } = await running();
  kernel.gone.add('e1');
  await f.endpoint('e2', '192.168.1.40');
  await f.tieLease('192.168.1.40', 'e1');
  await sentence(f.address(pool, '192.168.1.40'));
});

test(
  'what an engine left that was killed in a start is free for who names it, once it takes up again',
  options,
  async () => {
    const f = new Fixture(new MemoryStore());
    const pool = await f.network('192.168.1.0/24');
    await f.address(pool, '192.168.1.40');
    f.pass(1);
    assert.match(await sentence(f.address(pool, '192.168.1.40')), /is starting or was stopped/);
    f.ipam.register();
    f.pass(1);
    assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
    assert.match(await sentence(f.address(pool, '192.168.1.40')), /is starting or was stopped/, 'not twice');
    // Engine and daemon, as in a power cut.
    f.restart();
    f.pass(1);
    f.ipam.register();
    assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
  },
);

test('what is asked for at this moment, and what another driver may have, is not free for that', options, async () => {
  const asked = Promise.withResolvers<void>();
  const f = new Fixture(new MemoryStore(), async () => {
    await asked.promise;
    return { held: false };
  });
  const pool = await f.network('192.168.1.0/24');
  const first = f.address(pool, '192.168.1.40');
  f.pass(1);
  f.ipam.register();
  assert.match(await sentence(f.address(pool, '192.168.1.40')), /is starting or was stopped/);
  asked.resolve();
  await first;

  const other = await f.pool('10.0.0.0/24');
  f.pass(61);
  await f.address(other, '10.0.0.9');
  f.pass(1);
  f.ipam.register();
  await sentence(f.address(other, '10.0.0.9'));
});

test('a release counts while the endpoint lives if its link does not have the address', options, async () => {
  const { kernel, f, pool } = await running();
  kernel.missing.add('192.168.1.40');
  await f.release(pool, '192.168.1.40');
  assert.equal(await f.lease('192.168.1.40'), undefined);
  assert.deepEqual(kernel.dropped, ['e1 192.168.1.40']);
  assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
});

test('a release that comes late frees nothing that is in use by the kernel', options, async () => {
  const { kernel, f, pool } = await running();
  await f.release(pool, '192.168.1.40');
  assert.equal((await f.lease('192.168.1.40'))?.endpointId, 'e1');
  assert.deepEqual(kernel.dropped, []);
});

for (const isUntied of [false, true])
  test(
    `a container gets the address of one that its engine ends just now${isUntied ? ', and whose lease goes' : ''}: the release that follows is not its own`,
    options,
    async () => {
      const { kernel, f, pool } = await running();
      kernel.gone.add('e1');
      if (isUntied) kernel.onGone = (id) => f.deleteEndpoint(id, '192.168.1.40');
      assert.equal(await f.address(pool, '192.168.1.40'), '192.168.1.40/24');
      kernel.ended.add('e1');
      await f.release(pool, '192.168.1.40');
      assert.ok(await f.lease('192.168.1.40'), 'it is on its way to an endpoint');
      // Its own start failed: that is the second.
      await f.release(pool, '192.168.1.40');
      assert.equal(await f.lease('192.168.1.40'), undefined);
    },
  );

test('the release of a start that failed counts where the endpoint before was ended by nobody', options, async () => {
  const { kernel, f, pool } = await running();
  kernel.gone.add('e1');
  await f.address(pool, '192.168.1.40');
  await f.release(pool, '192.168.1.40');
  assert.equal(await f.lease('192.168.1.40'), undefined);
});
