/**
 * One list of cases for every implementation of Store. An implementation brings a fixture: a place of its own per test
 * that can be opened again, also by another process.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { Pool } from '../../../src/model.ts';
import { leaseKey, type Store } from '../../../src/store/store.ts';
import { leaseRecord } from './lease.ts';
import { endpointRecord, networkRecord, poolRecord } from './records.ts';

export interface Fixture {
  /** Opens the same place each time. */
  open(): Promise<Store>;
  /** Arguments by which writer.ts opens that place. */
  readonly writerArguments: readonly string[];
}

/** How much of it, where a count is any. */
interface Amounts {
  readonly kills?: number;
  readonly records?: number;
}

/** Each kill costs the start of a Node, which a busy machine draws out. */
const KILLS_TIMEOUT_MS = 200_000;

export function testStore(
  name: string,
  fixtureFor: (t: TestContext) => Promise<Fixture>,
  { kills = 20, records: many = 10_000 }: Amounts = {},
): void {
  const options = { timeout: 120_000 };
  const title = (sentence: string) => `${name}: ${sentence}`;
  const openIn = async (t: TestContext): Promise<Store> => {
    const store = await (await fixtureFor(t)).open();
    t.after(() => store.close());
    return store;
  };

  test(title('a record of each kind comes back equal, also after closing and opening'), options, async (t) => {
    const fixture = await fixtureFor(t);
    const writer = await fixture.open();
    assert.deepEqual(await insertOneOfEach(writer), [true, true, true, true]);
    await writer.close();

    const reader = await fixture.open();
    t.after(() => reader.close());
    assert.deepEqual(await reader.networks.get('n1'), networkRecord('n1'));
    assert.deepEqual(await reader.endpoints.get('e1'), endpointRecord('e1'));
    assert.deepEqual(await reader.pools.get('p1'), poolRecord('p1'));
    assert.deepEqual(await reader.leases.get('LocalDefault/192.168.1.2'), leaseRecord('192.168.1.2'));
  });

  test(title('what was never stored is undefined, and an empty table is an empty list'), options, async (t) => {
    const store = await openIn(t);
    assert.equal(await store.networks.get('n1'), undefined);
    assert.deepEqual(await store.leases.list(), []);
  });

  test(title('the same key in two tables is two records'), options, async (t) => {
    const store = await openIn(t);
    assert.ok(await store.networks.insert(networkRecord('x')));
    assert.ok(await store.endpoints.insert(endpointRecord('x')));
    assert.ok(await store.networks.remove(networkRecord('x')));
    assert.deepEqual(await store.endpoints.list(), [endpointRecord('x')]);
  });

  test(title('a second insert of a key answers false and changes nothing'), options, async (t) => {
    const { leases } = await openIn(t);
    assert.equal(await leases.insert(leaseRecord('192.168.1.2')), true);
    assert.equal(await leases.insert({ ...leaseRecord('192.168.1.2'), kind: 'host' }), false);
    assert.deepEqual(await leases.list(), [leaseRecord('192.168.1.2')]);
  });

  test(title('of many inserts of one key at once exactly one is first'), options, async (t) => {
    const { leases } = await openIn(t);
    const claims = Array.from({ length: 50 }, (_, i) => ({ ...leaseRecord('192.168.1.2'), poolIds: [`p${i}`] }));
    const answers = await Promise.all(claims.map((claim) => leases.insert(claim)));
    assert.equal(answers.filter(Boolean).length, 1);
    assert.deepEqual(await leases.list(), [claims[answers.indexOf(true)]]);
  });

  test(title('replace writes only over the record it was told of'), options, async (t) => {
    const { leases } = await openIn(t);
    const first = leaseRecord('192.168.1.2');
    const second = { ...first, endpointId: 'e2' };
    const third = { ...first, endpointId: 'e3' };
    await leases.insert(first);
    assert.equal(await leases.replace(first, second), true);
    assert.equal(await leases.replace(first, third), false, 'the previous one is stale');
    assert.deepEqual(await leases.get(leaseKey(first)), second);
    assert.equal(await leases.replace(leaseRecord('192.168.1.3'), leaseRecord('192.168.1.3')), false, 'never stored');
    assert.equal((await leases.list()).length, 1);
  });

  test(title('of many replacements of one record at once exactly one is first'), options, async (t) => {
    const { leases } = await openIn(t);
    const first = leaseRecord('192.168.1.2');
    await leases.insert(first);
    const next = Array.from({ length: 50 }, (_, i) => ({ ...first, endpointId: `e${i}` }));
    const answers = await Promise.all(next.map((record) => leases.replace(first, record)));
    assert.equal(answers.filter(Boolean).length, 1);
    assert.deepEqual(await leases.get(leaseKey(first)), next[answers.indexOf(true)]);
  });

  test(title('replace refuses to move a record to another key'), options, async (t) => {
    const { leases } = await openIn(t);
    await leases.insert(leaseRecord('192.168.1.2'));
    await assert.rejects(leases.replace(leaseRecord('192.168.1.2'), leaseRecord('192.168.1.3')), TypeError);
    assert.deepEqual(await leases.list(), [leaseRecord('192.168.1.2')]);
  });

  test(title('remove takes only the record it was told of, once'), options, async (t) => {
    const { leases } = await openIn(t);
    const record = leaseRecord('192.168.1.2');
    await leases.insert(record);
    assert.equal(await leases.remove({ ...record, endpointId: 'e9' }), false);
    assert.equal(await leases.remove(record), true);
    assert.equal(await leases.remove(record), false);
    assert.equal(await leases.insert(record), true, 'the key is free again');
  });

  test(title('records are equal by what they hold, not by the order of their fields'), options, async (t) => {
    const { pools } = await openIn(t);
    const pool = poolRecord('p1');
    await pools.insert(pool);
    const turned = Object.fromEntries(Object.entries(pool).reverse()) as unknown as Pool;
    assert.equal(
      await pools.replace({ ...turned, options: { exclude: '192.168.1.70', parent: 'eth0.10' } }, pool),
      true,
    );
    assert.equal(await pools.remove(turned), true);
  });

  test(title('keys and values of any characters stay apart and whole'), options, async (t) => {
    const { pools } = await openIn(t);
    const odd = [
      "a'; DROP TABLE pool_records; --",
      'a\0b',
      'a\0c',
      'a',
      'A',
      '\u00e9',
      'e\u0301',
      '😀',
      '\uffff',
      '%',
      '_',
      '',
      ' ',
      '../x',
      '__proto__',
    ];
    for (const key of odd)
      assert.equal(await pools.insert({ ...poolRecord(key), subnet: key }), true, JSON.stringify(key));
    for (const key of odd) assert.equal((await pools.get(key))?.subnet, key, JSON.stringify(key));
    assert.equal((await pools.list()).length, odd.length);
  });

  test(title('option names that mean something to JavaScript are only names'), options, async (t) => {
    const { pools } = await openIn(t);
    const pool = {
      ...poolRecord('p1'),
      options: JSON.parse('{"__proto__":"a","constructor":"b","toString":"c"}') as Record<string, string>,
    };
    await pools.insert(pool);
    const stored = await pools.get('p1');
    assert.deepEqual(Object.entries(stored?.options ?? {}).sort(), Object.entries(pool.options).sort());
    assert.equal(await pools.remove(pool), true);
  });

  test(title('list answers the keys with a prefix, in order, and no others'), options, async (t) => {
    const { pools } = await openIn(t);
    const text = fc.string({
      unit: fc.constantFrom('a', 'b', '/', '\0', 'é', '\uffff', '😀', '\u{10ffff}'),
      maxLength: 4,
    });
    const keys = fc.uniqueArray(text, { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(keys, text, async (ids, prefix) => {
        for (const id of ids) await pools.insert(poolRecord(id));
        const expected = ids
          .filter((id) => id.startsWith(prefix))
          .sort((a, b) => Buffer.from(a).compare(Buffer.from(b)));
        assert.deepEqual(
          (await pools.list(prefix)).map(({ id }) => id),
          expected,
        );
        for (const id of ids) await pools.remove(poolRecord(id));
      }),
      { numRuns: 50 },
    );
  });

  test(title(`${many} records come back complete and in order`), options, async (t) => {
    const { leases } = await openIn(t);
    const records = Array.from({ length: many }, (_, i) => leaseRecord(`10.0.${i >> 8}.${i & 255}`));
    for (let at = 0; at < records.length; at += 100)
      await Promise.all(records.slice(at, at + 100).map((record) => leases.insert(record)));
    const expected = records.toSorted((a, b) => (leaseKey(a) < leaseKey(b) ? -1 : 1));
    assert.deepEqual(await leases.list('LocalDefault/'), expected);
  });

  test(title(`of what was acknowledged nothing is lost when the writer is killed (${kills} times)`), {
    timeout: KILLS_TIMEOUT_MS,
  }, async (t) => {
    const fixture = await fixtureFor(t);
    const acknowledged: string[] = [];
    for (let round = 0; round < kills; round++) acknowledged.push(...(await writeUntilKilled(t, fixture, round)));
    const store = await fixture.open();
    t.after(() => store.close());
    const stored = new Map((await store.leases.list()).map((lease) => [lease.address, lease]));
    const lost = acknowledged.filter((address) => stored.get(address) === undefined);
    t.diagnostic(`${acknowledged.length} acknowledged, ${stored.size} stored`);
    assert.ok(acknowledged.length > kills, 'the writers came to write');
    assert.deepEqual(lost, []);
    for (const lease of stored.values()) assert.deepEqual(lease, leaseRecord(lease.address));
  });
}

function insertOneOfEach(store: Store): Promise<boolean[]> {
  return Promise.all([
    store.networks.insert(networkRecord('n1')),
    store.endpoints.insert(endpointRecord('e1')),
    store.pools.insert(poolRecord('p1')),
    store.leases.insert(leaseRecord('192.168.1.2')),
  ]);
}

/** Addresses whose insert a process acknowledged before kill -9 struck it. */
async function writeUntilKilled(t: TestContext, fixture: Fixture, round: number): Promise<string[]> {
  const writer = startWriter(t, [...fixture.writerArguments, String(round)]);
  const exited = once(writer, 'exit');
  const acknowledged: string[] = [];
  const lines = createInterface({ input: writer.stdout as NodeJS.ReadableStream });
  lines.on('line', (address) => acknowledged.push(address));
  const closed = once(lines, 'close');
  // Two at least, so that it is killed while it writes.
  while (acknowledged.length < 2) await once(lines, 'line');
  await delay(Math.random() * 40);
  writer.kill('SIGKILL');
  await Promise.all([exited, closed]);
  // Only whole lines: a write of at most PIPE_BUF bytes is atomic (pipe(7)).
  return acknowledged;
}

export function startWriter(t: TestContext, words: readonly string[]): ChildProcess {
  const writer = spawn(process.execPath, [join(import.meta.dirname, 'writer.ts'), ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => void writer.kill('SIGKILL'));
  return writer;
}
