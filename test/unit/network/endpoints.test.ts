import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isSameAddress } from '../../../src/address.ts';
import type { Endpoint } from '../../../src/model.ts';
import { Endpoints } from '../../../src/network/endpoints.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { MemoryStore } from '../ipam/memory.ts';
import { endpointRecord } from '../store/records.ts';

const options = { timeout: 20_000 };

const oneOf = <T>(...values: T[]) => fc.constantFrom(...values);

/** Few of each, so that many have something in common; the IPv6 value is one that an IPv4 address has too. */
const endpoint: fc.Arbitrary<Endpoint> = fc
  .record({
    id: oneOf('a', 'b', 'c', 'd', 'e'),
    networkId: oneOf('n1', 'n2'),
    parent: oneOf('eth0', 'eth0.10'),
    macAddress: oneOf('02:42:00:00:00:01', '02:42:00:00:00:02'),
    addresses: fc.subarray(['10.0.0.1/24', '::a00:1/64']).map((texts) => texts.map(interfaceAddress)),
  })
  .map((parts) => ({ ...endpointRecord(parts.id), ...parts }));

const step = fc.record({ kind: oneOf('arrive', 'fail', 'change', 'withdraw', 'remove'), endpoint });

const ids = (endpoints: readonly (Endpoint | undefined)[]) => endpoints.map((one) => one?.id).sort();

function checkAgainstScan(endpoints: Endpoints, wanted: Endpoint): void {
  const all = endpoints.all();
  const besides = all.filter((one) => one.id !== wanted.id && one.parent === wanted.parent);
  const has = (one: Endpoint) => wanted.addresses.some((a) => one.addresses.some((b) => isSameAddress(a, b)));
  assert.deepEqual(
    ids(endpoints.ofNetwork(wanted.networkId)),
    ids(all.filter((one) => one.networkId === wanted.networkId)),
  );
  assert.deepEqual(ids(endpoints.besides(wanted)), ids(besides));
  assert.deepEqual(
    ids(endpoints.alike(wanted)),
    ids(besides.filter((one) => one.macAddress === wanted.macAddress || has(one))),
  );
  for (const address of wanted.addresses) {
    const speaks = (one: Endpoint) =>
      one.parent === wanted.parent &&
      one.macAddress === wanted.macAddress &&
      one.addresses.some((own) => isSameAddress(own, address));
    const speaker = endpoints.speaker(wanted.parent, wanted.macAddress, address);
    assert.equal(speaker !== undefined, all.some(speaks));
    assert.ok(speaker === undefined || speaks(speaker));
  }
}

test('whatever comes and goes, an index answers what a look at all endpoints would', options, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const table = new MemoryStore({ isSlow: false }).endpoints;
      const endpoints = new Endpoints(table);
      for (const { kind, endpoint: wanted } of steps) {
        const known = endpoints.get(wanted.id);
        if (kind === 'arrive' && known === undefined)
          await endpoints.arrive(wanted, async () => void (await table.insert(wanted)));
        if (kind === 'fail' && known === undefined)
          await assert.rejects(
            endpoints.arrive(wanted, () => Promise.reject(new Error('no link'))),
            /no link/,
          );
        if (kind === 'change' && known !== undefined) await endpoints.change(known, { state: 'joined' });
        if (kind === 'withdraw' && known !== undefined) await endpoints.change(known, { addresses: wanted.addresses });
        if (kind === 'remove' && known !== undefined) await endpoints.remove(known);
        checkAgainstScan(endpoints, wanted);
      }
      const again = new Endpoints(table);
      await again.load();
      assert.deepEqual(ids(again.all()), ids(endpoints.all()), 'memory is what is recorded');
    }),
  );
});

test('of two that come at once the second sees the first before it is recorded', options, async () => {
  const endpoints = new Endpoints(new MemoryStore().endpoints);
  const [one, two] = [endpointRecord('e1'), endpointRecord('e2')];
  await endpoints.arrive(one, async () => {
    assert.deepEqual(ids(endpoints.alike(two)), ['e1']);
    assert.equal(endpoints.isRecorded(one), false);
  });
  assert.equal(endpoints.isRecorded(one), true);
});

test('a change of what was changed meanwhile is refused', options, async () => {
  const table = new MemoryStore().endpoints;
  const endpoints = new Endpoints(table);
  const record = endpointRecord('e1');
  await endpoints.arrive(record, async () => void (await table.insert(record)));
  const joined = await endpoints.change(record, { state: 'joined' });
  assert.equal(endpoints.get('e1'), joined);
  await assert.rejects(endpoints.change(record, { state: 'deleting' }), { code: 'ENDPOINT_UNKNOWN' });
});

test('how long ago it changed is told by no clock that is set', options, async () => {
  const table = new MemoryStore().endpoints;
  let wallMs = 1_000_000;
  const endpoints = new Endpoints(table, () => new Date(wallMs));
  const record = { ...endpointRecord('e1'), changedAt: new Date(wallMs).toISOString() };
  await endpoints.arrive(record, async () => void (await table.insert(record)));
  wallMs += 3_600_000;
  assert.ok(endpoints.ageMs(record) < 60_000, 'set ahead');
  for (const [sinceMs, oldestMs] of [
    [600_000, 660_000],
    [-600_000, 60_000],
  ] as const) {
    const later = new Endpoints(table, () => new Date(1_000_000 + sinceMs));
    await later.load();
    const ageMs = later.ageMs(record);
    assert.ok(ageMs >= Math.max(0, sinceMs) && ageMs < oldestMs, `${ageMs} ms`);
  }
});
