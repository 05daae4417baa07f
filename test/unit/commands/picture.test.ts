/** What the records become on the page. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gridsOf, type PictureFacts } from '../../../src/commands/picturegrids.ts';
import { treeOf } from '../../../src/commands/picturetree.ts';
import type { Conflict, Lease, Pool, Records, Remembered } from '../../../src/model.ts';
import type { PictureBranch, PictureGrid } from '../../../src/page/picture.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { crowdedPicture } from '../../lab/crowd.ts';
import { ENDPOINT, endpoint, network, SPACE, when } from './fixture.ts';

const pool: Pool = {
  id: `${SPACE}/192.168.1.0/24/192.168.1.64/27?exclude=192.168.1.66`,
  addressSpace: SPACE,
  subnet: '192.168.1.0/24',
  range: '192.168.1.64/27',
  options: { exclude: '192.168.1.66' },
  networkId: network.id,
  createdAt: when,
  changedAt: when,
};
const lease = (address: string, kind: Lease['kind'], endpointId: string | null = null): Lease => ({
  realm: SPACE,
  address,
  kind,
  poolIds: [pool.id],
  endpointId,
  changedAt: when,
});
const conflict = (address: string, changed: Partial<Conflict> = {}): Conflict => ({
  kind: 'address',
  parent: 'eth0',
  address,
  macAddress: '3c:22:fb:10:aa:01',
  ourMacAddress: null,
  hostLink: null,
  count: 1,
  firstSeenAt: when,
  seenAt: when,
  endedAt: null,
  ...changed,
});
const kept = (name: string, address: string, isReserved: boolean): Remembered => ({
  poolId: pool.id,
  name,
  address,
  macAddress: null,
  isReserved,
  usedAt: when,
});

const records: Records = {
  networks: [network],
  endpoints: [endpoint],
  pools: [pool],
  tenancies: [],
  leases: [
    lease('192.168.1.1', 'gateway'),
    lease('192.168.1.64', 'container', ENDPOINT),
    lease('192.168.1.70', 'container'),
  ],
  conflicts: [
    conflict('192.168.1.65'),
    conflict('192.168.1.67', { endedAt: when }),
    conflict('192.168.1.68', { parent: 'eth1' }),
  ],
  names: [kept('later', '192.168.1.72', true), kept('old', '192.168.1.73', false), kept('', '192.168.1.74', false)],
};
const factsOf = (changed: Partial<Records> = {}): PictureFacts => ({
  records: { ...records, ...changed },
  own: [{ linkName: 'eth0', macAddress: '00:00:00:00:00:01', address: '192.168.1.10' }],
  elsewhere: [
    { realm: SPACE, address: '192.168.1.80', host: 'two' },
    { realm: 'Other', address: '192.168.1.81', host: 'two' },
  ],
  uses: new Map([
    [pool.id, { poolId: pool.id, used: 2, held: 1, remembered: 2, excluded: 1, free: 26, next: '192.168.1.69' }],
  ]),
  networkName: () => 'lan',
  containerName: () => 'web',
});
const kinds = ({ squares }: PictureGrid) => squares.map(({ at, kind }) => `${at} ${kind}`);

describe('the squares of a subnet', () => {
  test('are who has an address, and for whom one is kept', () => {
    const [grid, ...others] = gridsOf(factsOf()) as [PictureGrid, ...PictureGrid[]];
    assert.deepEqual(others, []);
    assert.equal(grid.title, 'lan · 192.168.1.0/24 on eth0');
    assert.deepEqual(grid.counts, [
      'lan, 192.168.1.64/27: 2 used, 26 free, 1 held by others, 1 excluded, 2 remembered; next 192.168.1.69',
    ]);
    assert.deepEqual([grid.ranges, grid.excluded, grid.size], [[['64', '95']], [['66', '66']], '256']);
    assert.deepEqual(kinds(grid), [
      '0 unusable',
      '1 fixed',
      '10 fixed',
      '64 container',
      '65 stranger',
      '70 container',
      '72 fixed',
      '73 remembered',
      '80 elsewhere',
      '255 unusable',
    ]);
  });

  test('show a container and a stranger on one address as both, by words and by kind', () => {
    const contested = conflict('192.168.1.64', { ourMacAddress: endpoint.macAddress });
    const [grid] = gridsOf(factsOf({ conflicts: [contested] })) as [PictureGrid];
    const both = grid.squares.filter(({ kind }) => kind === 'both');
    assert.deepEqual(both, [
      {
        at: '64',
        kind: 'both',
        words: 'container web, 02:42:c0:a8:01:40; 192.168.1.64 also used by 3c:22:fb:10:aa:01',
      },
    ]);
    const [before] = gridsOf(factsOf({ conflicts: [contested], endpoints: [] })) as [PictureGrid];
    assert.deepEqual(before.squares.find(({ at }) => at === '64')?.kind, 'both', 'its container is starting');
    const [ended] = gridsOf(factsOf({ conflicts: [{ ...contested, endedAt: when }] })) as [PictureGrid];
    assert.equal(ended.squares.find(({ at }) => at === '64')?.kind, 'container');
  });

  test('of one subnet on two parents are two grids, and two ranges of one subnet one', () => {
    const other = { ...network, id: 'b'.repeat(64), parent: { ...network.parent, name: 'eth1' } };
    const second = { ...pool, id: `${pool.id}2`, range: '192.168.1.96/27', options: {}, networkId: other.id };
    const apart = gridsOf(factsOf({ networks: [network, other], pools: [pool, second] }));
    assert.deepEqual(
      apart.map(({ title }) => title),
      ['lan · 192.168.1.0/24 on eth0', 'lan · 192.168.1.0/24 on eth1'],
    );
    const together = gridsOf(
      factsOf({ networks: [network, { ...other, parent: network.parent }], pools: [pool, second] }),
    );
    assert.deepEqual(
      together.map(({ title, ranges }) => [title, ranges.length]),
      [['lan, lan · 192.168.1.0/24 on eth0', 2]],
    );
  });

  test('of another IPAM are its containers, gateway and all others free', () => {
    const [grid] = gridsOf(factsOf({ pools: [], leases: [], names: [], conflicts: [] })) as [PictureGrid];
    assert.deepEqual([grid.ranges, grid.counts], [[['0', '255']], []]);
    assert.ok(kinds(grid).includes('64 container') && kinds(grid).includes('1 fixed'));
  });

  test('have words without what a terminal or a reader would obey', () => {
    const facts = { ...factsOf(), containerName: () => 'web\u202e\u0007' };
    assert.doesNotMatch(JSON.stringify(gridsOf(facts)), /\u202e|\u0007/);
  });
});

describe('the tree', () => {
  const treeWith = (changed: Partial<Records>, troubles = new Map<string, PictureBranch['troubles']>()) =>
    treeOf({ ...factsOf(changed), troubles, stopped: new Map([[network.id, ['later']]]), filteredParents: [] });

  test('has parent, VLAN, network and containers, and other hosts at the end', () => {
    const vlan = {
      ...network,
      id: 'b'.repeat(64),
      parent: {
        ...network.parent,
        name: 'eth0.50',
        made: true,
        recipe: { base: 'eth0', vlan: [50], protocol: '802.1q' as const },
      },
    };
    const isolated = {
      ...network,
      id: 'c'.repeat(64),
      parent: { ...network.parent, name: 'tsmi', recipe: 'isolated' as const },
    };
    const drawn = (branches: readonly PictureBranch[]): unknown[] =>
      branches.map(({ kind, name, branches: below }) =>
        below.length === 0 ? `${kind} ${name}` : [`${kind} ${name}`, ...drawn(below)],
      );
    assert.deepEqual(drawn(treeWith({ networks: [network, vlan, isolated] })), [
      ['parent eth0', ['network lan', 'container web', 'stopped later'], ['vlan VLAN 50', 'network lan']],
      ['parent tsmi', 'network lan'],
      ['host two', 'address 192.168.1.80', 'address 192.168.1.81'],
    ]);
  });

  test('marks a container by its conflict, by what the doctor says, and by the interface it lost', () => {
    const contested = conflict('192.168.1.64', { ourMacAddress: endpoint.macAddress });
    const said = [{ level: 'warning' as const, says: 'it is tired', todo: 'let it rest' }];
    const lost = { ...endpoint, lostAt: when, addresses: [interfaceAddress('192.168.1.64/24')] };
    const [root] = treeWith({ conflicts: [contested], endpoints: [lost] }, new Map([[ENDPOINT, said]]));
    const web = root?.branches[0]?.branches[0];
    assert.deepEqual(
      web?.troubles.map(({ level, says }) => `${level} ${says}`),
      [
        'failure 192.168.1.64 also used by 3c:22:fb:10:aa:01',
        'failure lost its interface with the parent',
        'warning it is tired',
      ],
    );
    assert.deepEqual([web?.addresses, web?.macAddress], [['192.168.1.64'], endpoint.macAddress]);
    assert.deepEqual(
      root?.branches[0]?.branches[1]?.addresses,
      ['192.168.1.72'],
      'what is kept for one that does not run',
    );
  });
});

test('ten thousand containers are a picture of a few megabytes', () => {
  const picture = crowdedPicture(10_000);
  assert.equal(picture.tree[0]?.branches[0]?.branches.length, 10_000);
  assert.equal(picture.grids[0]?.squares.filter(({ kind }) => kind === 'both').length, 100);
  const bytes = JSON.stringify(picture).length;
  assert.ok(bytes < 6_000_000, `${bytes} bytes`);
});

test('what is kept and leased is read once, however many subnets there are', () => {
  let reads = 0;
  const counted = {
    ...kept('job', '192.168.1.67', false),
    get poolId() {
      reads++;
      return pool.id;
    },
  };
  const networks = Array.from({ length: 100 }, (_, number) => {
    const subnets = network.subnets.map((one) => ({ ...one, subnet: `10.9.${number}.0/24`, gateway: null }));
    return { ...network, id: `n${number}`, subnets };
  });
  const grids = gridsOf(factsOf({ networks: [network, ...networks], names: [counted] }));
  assert.equal(grids.length, 101);
  assert.equal(grids.flatMap(({ squares }) => squares).filter(({ kind }) => kind === 'remembered').length, 1);
  assert.equal(reads, 1);
});
