/** What the page computes before it draws. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { formatAddress } from '../../src/address.ts';
import { AddressPlan, COLUMNS } from '../../src/page/addresses.ts';
import { countContainers, treeRows } from '../../src/page/branches.ts';
import type { PictureBranch, PictureConflict, PictureGrid } from '../../src/page/picture.ts';
import { placeOnAxis, spanOf, ticksOf } from '../../src/page/timespan.ts';

const grid: PictureGrid = {
  id: 'eth0 192.168.1.0/24',
  title: 'lan',
  counts: [],
  family: 'IPv4',
  first: String(0xc0a80100),
  size: '256',
  ranges: [['96', '127']],
  excluded: [['100', '101']],
  squares: [
    { at: '0', kind: 'unusable', words: 'network address' },
    { at: '96', kind: 'container', words: 'container web, 02:42:c0:a8:01:60' },
    { at: '255', kind: 'unusable', words: 'broadcast address' },
  ],
};

describe('addresses', () => {
  test('are written as the command line writes them', () => {
    const four = fc.record({ family: fc.constant('IPv4' as const), value: fc.bigInt(0n, 2n ** 32n - 1n) });
    // Zeros by the dozen: what is shortened is what may go wrong.
    const group = fc.oneof(fc.constant(0n), fc.bigInt(0n, 0xffffn));
    const six = fc
      .array(group, { minLength: 8, maxLength: 8 })
      .map((groups) => groups.reduce((sum, one) => (sum << 16n) | one, 0n))
      .filter((value) => value >> 32n !== 0xffffn)
      .map((value) => ({ family: 'IPv6' as const, value }));
    fc.assert(
      fc.property(fc.oneof(four, six), (address) => {
        const plan = new AddressPlan({ ...grid, family: address.family, first: String(address.value), size: '1' });
        assert.equal(plan.textAt(0n), formatAddress(address));
      }),
    );
  });

  test('of a subnet are rows of 32, and each has a kind and words', () => {
    const plan = new AddressPlan(grid);
    assert.equal(plan.rows.length, 256 / COLUMNS);
    const kinds = [0n, 1n, 96n, 97n, 100n, 128n].map((offset) => plan.kindAt(offset));
    assert.deepEqual(kinds, ['unusable', 'outside', 'container', 'free', 'excluded', 'outside']);
    assert.equal(plan.wordsAt(96n), 'container web, 02:42:c0:a8:01:60');
    assert.equal(plan.wordsAt(128n), 'free, outside the range');
    assert.equal(plan.textAt(96n), '192.168.1.96');
    assert.ok(plan.isMeant(96n, 'web') && plan.isMeant(97n, '.97') && !plan.isMeant(97n, 'web'));
  });

  test('that are alike are one line of the table', () => {
    const runs = new AddressPlan(grid).runs('');
    assert.deepEqual(
      runs.map(({ kind, first, last }) => `${kind} ${first} ${last}`),
      [
        'unusable 192.168.1.0 192.168.1.0',
        'outside 192.168.1.1 192.168.1.95',
        'container 192.168.1.96 192.168.1.96',
        'free 192.168.1.97 192.168.1.99',
        'excluded 192.168.1.100 192.168.1.101',
        'free 192.168.1.102 192.168.1.127',
        'outside 192.168.1.128 192.168.1.254',
        'unusable 192.168.1.255 192.168.1.255',
      ],
    );
    assert.deepEqual(
      new AddressPlan(grid).runs('web').map(({ first }) => first),
      ['192.168.1.96'],
    );
  });

  test('of a subnet that nobody can draw are the rows in which something is', () => {
    const large: PictureGrid = {
      ...grid,
      family: 'IPv6',
      first: String(0xfdn << 120n),
      size: String(2n ** 64n),
      ranges: [['0', String(2n ** 64n - 1n)]],
      excluded: [],
      squares: [{ at: String(2n ** 40n + 5n), kind: 'container', words: 'container web' }],
    };
    const plan = new AddressPlan(large);
    assert.deepEqual(plan.rows, [0n, 2n ** 40n]);
    assert.equal(plan.textAt(2n ** 40n + 5n), 'fd00::100:0:5');
    assert.equal(plan.kindAt(2n ** 40n + 6n), 'free');
    const small = new AddressPlan({ ...grid, size: '4', ranges: [], excluded: [], squares: [] });
    assert.deepEqual([small.rows.length, small.has(3n), small.has(4n)], [1, true, false]);
  });
});

const leaf = (kind: PictureBranch['kind'], name: string, address = ''): PictureBranch => ({
  kind,
  id: name,
  name,
  facts: '',
  addresses: address === '' ? [] : [address],
  macAddress: '',
  troubles: [],
  branches: [],
});
const containers = [leaf('container', 'web', '10.0.0.2'), leaf('container', 'db', '10.0.0.3')];
const lan = { ...leaf('network', 'lan'), branches: containers };
const tree = [{ ...leaf('parent', 'eth0'), branches: [lan, leaf('network', 'idle')] }];
const names = (wanted: string, folded: readonly string[] = []) =>
  treeRows(tree, wanted, new Set(folded)).map(({ branch, level }) => `${level} ${branch.name}`);

describe('the tree', () => {
  test('is rows, folded where it was folded', () => {
    assert.deepEqual(names(''), ['1 eth0', '2 lan', '3 web', '3 db', '2 idle']);
    assert.deepEqual(names('', ['lan']), ['1 eth0', '2 lan', '2 idle']);
    assert.equal(countContainers(treeRows(tree, '', new Set())), 2);
  });

  test('of a search has what is meant, what it is in, and what is in it', () => {
    assert.deepEqual(names('web'), ['1 eth0', '2 lan', '3 web']);
    assert.deepEqual(names('0.0.3', ['lan', 'eth0']), ['1 eth0', '2 lan', '3 db']);
    assert.deepEqual(names('lan'), ['1 eth0', '2 lan', '3 web', '3 db']);
    assert.deepEqual(names('nobody'), []);
  });
});

describe('conflicts over days', () => {
  const nowMs = Date.parse('2026-11-30T12:00:00Z');
  const conflict = (firstSeenAt: string, endedAt: string | null): PictureConflict => ({
    id: firstSeenAt,
    address: '10.0.0.2',
    parent: 'eth0',
    container: 'web',
    holder: '06:29:c6:3a:8a:ae',
    count: 1,
    firstSeenAt,
    seenAt: firstSeenAt,
    endedAt,
  });

  test('lie where they were, and one that lasts reaches to the end', () => {
    const lasting = conflict('2026-11-29T12:00:00Z', null);
    assert.deepEqual(placeOnAxis(lasting, 2, nowMs), { left: 50, width: 50 });
    assert.deepEqual(placeOnAxis(lasting, 1, nowMs), { left: 0, width: 100 });
    assert.equal(placeOnAxis(conflict('2026-11-01T00:00:00Z', '2026-11-02T00:00:00Z'), 7, nowMs), null);
    // A clock that was set back.
    assert.deepEqual(placeOnAxis(conflict('2026-12-03T00:00:00Z', null), 7, nowMs), { left: 100, width: 0 });
  });

  test('are on the shortest axis that has them all', () => {
    assert.equal(spanOf([], nowMs), 7);
    assert.equal(spanOf([conflict('2026-11-20T00:00:00Z', null)], nowMs), 30);
    assert.equal(spanOf([conflict('2020-01-01T00:00:00Z', null)], nowMs), 365);
    for (const days of [1, 7, 30, 365]) {
      const ticks = ticksOf(days, nowMs);
      assert.ok(ticks.length > 0 && ticks.length <= 7, `${days} days: ${ticks.length}`);
      assert.ok(ticks.every(({ left }) => left >= 0 && left <= 100));
    }
  });
});
