import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, formatPrefix, parseAddress, prefixOf } from '../../../src/address.ts';
import { PluginError } from '../../../src/errors.ts';
import { Occupancy } from '../../../src/ipam/occupancy.ts';
import {
  type ChooseSubnet,
  IPAM_OPTION_ROWS,
  layoutOf,
  newPool,
  nextAddress,
  readPoolRequest,
  realmOfPoolId,
  reservedMeaning,
  sizeWithin,
} from '../../../src/ipam/pool.ts';
import type { PoolRequest } from '../../../src/requests.ts';
import type { Pool } from '../../../src/model.ts';
import { realmOf } from '../../../src/store/store.ts';

const options = { timeout: 20_000 };
const NOW = new Date('2026-11-20T10:00:00.000Z');

const unasked: ChooseSubnet = () => assert.fail('no subnet was to be chosen');

function request(pool: string | null, more: Partial<PoolRequest> = {}): PoolRequest {
  return { addressSpace: 'TsmacvlanLocal', pool, subPool: null, options: {}, v6: false, ...more };
}

function pool(subnet: string, more: Partial<PoolRequest> = {}): Pool {
  return newPool(readPoolRequest(request(subnet, more), unasked), NOW);
}

function refusal(subnet: string | null, more: Partial<PoolRequest> = {}): string {
  try {
    readPoolRequest(request(subnet, more), unasked);
  } catch (error) {
    assert.ok(error instanceof PluginError, String(error));
    return error.message;
  }
  assert.fail('nothing was refused');
}

// --- ids ---------------------------------------------------------------------------------------------------------

test('the id of a pool says what was asked for', options, () => {
  assert.equal(pool('192.168.1.0/24').id, 'TsmacvlanLocal/192.168.1.0/24');
  assert.equal(pool('FD00:0::/64').id, 'TsmacvlanLocal/fd00::/64');
  assert.equal(
    pool('192.168.1.0/24', {
      subPool: '192.168.1.64/26',
      options: { parent: 'eth0.10', exclude: '192.168.1.70,192.168.1.80/29' },
    }).id,
    'TsmacvlanLocal/192.168.1.0/24/192.168.1.64/26?exclude=192.168.1.70,192.168.1.80/29&parent=eth0.10',
  );
});

test('the id does not depend on the order of the options', options, () => {
  const [one, other] = [
    { parent: 'a', order: 'lowest' },
    { order: 'lowest', parent: 'a' },
  ];
  assert.equal(pool('10.0.0.0/8', { options: one }).id, pool('10.0.0.0/8', { options: other }).id);
});

const parent = fc.string({ unit: fc.constantFrom(...'aE0.@&=?%+#-_~"\\'), minLength: 1, maxLength: 20 });

test('other requests have other ids, and the realm can be read from the id', options, () => {
  const ours = fc.record({ parent, order: fc.constantFrom('lowest', 'sequential') }, { requiredKeys: [] });
  fc.assert(
    fc.property(ours, ours, (one, other) => {
      const [a, b] = [pool('10.0.0.0/8', { options: one }), pool('10.0.0.0/8', { options: other })];
      assert.equal(
        a.id === b.id,
        JSON.stringify(Object.entries(one).sort()) === JSON.stringify(Object.entries(other).sort()),
      );
      assert.equal(realmOfPoolId(a.id), realmOf(a));
    }),
  );
});

// --- what is refused ---------------------------------------------------------------------------------------------

test('bad requests get a sentence that says what to give', options, () => {
  const cases: [string | null, Partial<PoolRequest>, string][] = [
    [
      '10.0.0/24',
      {},
      'subnet "10.0.0/24" is not an address with a prefix length; give one such as --subnet 192.168.1.0/24',
    ],
    ['192.168.1.7/24', {}, 'subnet "192.168.1.7/24" names an address inside a subnet; give --subnet 192.168.1.0/24'],
    ['10.0.0.0/7', {}, 'subnet "10.0.0.0/7" is too large; give a --subnet of /8 or smaller'],
    ['0.0.0.0/0', {}, 'subnet "0.0.0.0/0" is too large; give a --subnet of /8 or smaller'],
    ['::/0', { v6: true }, 'subnet "::/0" is too large; give a --subnet of /8 or smaller'],
    ['fc00::/7', {}, 'subnet "fc00::/7" is too large; give a --subnet of /8 or smaller'],
    [
      '10.0.0.0/8',
      { v6: true },
      'subnet "10.0.0.0/8" is IPv4, and an IPv6 one is needed here; give one such as --subnet fd00::/64',
    ],
    [
      '224.1.0.0/16',
      {},
      'subnet "224.1.0.0/16" overlaps 224.0.0.0/4, which is multicast and for no container; give the --subnet of your LAN',
    ],
    [
      'fe80::/64',
      {},
      'subnet "fe80::/64" overlaps fe80::/10, which is link-local and for no container; give the --subnet of your LAN',
    ],
    [
      '10.0.0.0/24',
      { subPool: 'x' },
      'range "x" is not an address with a prefix length; give one such as --ip-range 192.168.1.64/26',
    ],
    [
      '10.0.0.0/24',
      { subPool: '10.0.0.65/26' },
      'range "10.0.0.65/26" does not start at a multiple of its size; give --ip-range 10.0.0.64/26',
    ],
    [
      '10.0.0.0/24',
      { subPool: '10.0.1.0/26' },
      'range "10.0.1.0/26" is not inside subnet 10.0.0.0/24; give an --ip-range inside it',
    ],
    [
      '10.0.0.0/24',
      { subPool: '10.0.0.0/23' },
      'range "10.0.0.0/23" is not inside subnet 10.0.0.0/24; give an --ip-range inside it',
    ],
    [
      '10.0.0.0/24',
      { subPool: 'fd00::/80' },
      'range "fd00::/80" is not inside subnet 10.0.0.0/24; give an --ip-range inside it',
    ],
    [
      null,
      { subPool: '10.0.0.0/26' },
      'range "10.0.0.0/26" has no subnet to lie in; give --subnet together with --ip-range',
    ],
    [
      null,
      { addressSpace: 'LocalDefault' },
      'unknown address space "LocalDefault"; this plugin has TsmacvlanLocal and TsmacvlanGlobal',
    ],
    [
      '10.0.0.0/24',
      { options: { parnt: 'eth0' } },
      'unknown option --ipam-opt "parnt" (did you mean parent?); the options are exclude, order, parent, probe, source',
    ],
    [
      '10.0.0.0/24',
      { options: JSON.parse('{"__proto__": "x"}') as Record<string, string> },
      'unknown option --ipam-opt "__proto__"; the options are exclude, order, parent, probe, source',
    ],
    [
      '10.0.0.0/24',
      { options: { order: 'random' } },
      'invalid value "random" for --ipam-opt order; use lowest or sequential or rested',
    ],
    [
      '10.0.0.0/24',
      { options: { order: 'rest' } },
      'invalid value "rest" for --ipam-opt order (did you mean rested?); use lowest or sequential or rested',
    ],
    ['10.0.0.0/24', { options: { probe: '' } }, 'invalid value "" for --ipam-opt probe; use off or fast or rfc'],
    [
      '10.0.0.0/24',
      { options: { parent: 'a/b' } },
      'invalid value "a/b" for --ipam-opt parent; use the name of a link, such as eth0.10',
    ],
    [
      '10.0.0.0/24',
      { options: { exclude: '10.0.1.7' } },
      '"10.0.1.7" in --ipam-opt exclude= is not inside subnet 10.0.0.0/24; leave it out or correct it',
    ],
    [
      '10.0.0.0/24',
      { options: { exclude: '10.0.0.250-10.0.1.3' } },
      '"10.0.0.250-10.0.1.3" in --ipam-opt exclude= is not inside subnet 10.0.0.0/24; leave it out or correct it',
    ],
  ];
  for (const [subnet, more, expected] of cases) assert.equal(refusal(subnet, more), expected);
});

test('malformed exclusions are refused, each by its entry', options, () => {
  for (const entry of [
    '',
    'x',
    '10.0.0.9-',
    '-10.0.0.9',
    '10.0.0.9-10.0.0.8',
    '10.0.0.1-10.0.0.2-10.0.0.3',
    '10.0.0.1-fd00::1',
    '10.0.0.0/33',
  ])
    assert.match(
      refusal('10.0.0.0/24', { options: { exclude: `10.0.0.5,${entry}` } }),
      new RegExp(`^"${entry.replaceAll('.', '\\.')}" in`),
    );
  assert.match(
    refusal('10.0.0.0/24', { options: { exclude: '10.0.0.5,'.repeat(300) } }),
    /use at most 2000 characters$/,
  );
});

test('exclusions of the other family are left to the pool of that family', options, () => {
  const exclude = '10.0.0.5,fd00::5';
  assert.deepEqual(
    layoutOf(pool('10.0.0.0/24', { options: { exclude } })).excluded.map(({ first }) => first),
    [0x0a000005n],
  );
  assert.equal(layoutOf(pool('fd00::/64', { options: { exclude } })).excluded.length, 1);
});

test('every option of the reference is accepted', options, () => {
  const values: Record<string, Record<string, string>> = {
    exclude: { exclude: '10.0.0.9' },
    order: { order: 'sequential' },
    parent: { parent: 'eth0' },
    probe: { probe: 'rfc' },
    source: { source: 'dhcp', parent: 'eth0' },
  };
  for (const { name } of IPAM_OPTION_ROWS) assert.ok(pool('10.0.0.0/24', { options: values[name] ?? {} }));
});

test('a subnet of any size is left to the choice of the plugin', options, () => {
  const asked: [string, number | null][] = [];
  const choose: ChooseSubnet = (family, length) => {
    asked.push([family, length]);
    return prefixOf({ family, value: 1n << 31n }, length ?? (family === 'IPv4' ? 16 : 64));
  };
  readPoolRequest(request(null), choose);
  readPoolRequest(request(null, { v6: true }), choose);
  readPoolRequest(request('0.0.0.0/24'), choose);
  readPoolRequest(request('::/64'), choose);
  assert.deepEqual(asked, [
    ['IPv4', null],
    ['IPv6', null],
    ['IPv4', 24],
    ['IPv6', 64],
  ]);
});

// --- which addresses ---------------------------------------------------------------------------------------------

/** All that a pool hands out, in order. */
function handedOut(subnet: string, more: Partial<PoolRequest> = {}): string[] {
  const layout = layoutOf(pool(subnet, more));
  const used = new Occupancy();
  const result: string[] = [];
  for (let next = nextAddress(layout, used, null); next !== undefined; next = nextAddress(layout, used, null)) {
    used.add(next);
    result.push(formatAddress({ family: layout.subnet.family, value: next }));
  }
  return result;
}

test('network and broadcast address are kept back, except on a /31 and a /32 (RFC 3021)', options, () => {
  assert.deepEqual(
    handedOut('10.0.0.0/29'),
    [1, 2, 3, 4, 5, 6].map((n) => `10.0.0.${n}`),
  );
  assert.deepEqual(handedOut('10.0.0.0/30'), ['10.0.0.1', '10.0.0.2']);
  assert.deepEqual(handedOut('10.0.0.0/31'), ['10.0.0.0', '10.0.0.1']);
  assert.deepEqual(handedOut('10.0.0.7/32'), ['10.0.0.7']);
});

test('the subnet-router anycast address is kept back, except on a /127 (RFC 6164) and a /128', options, () => {
  assert.deepEqual(handedOut('fd00::/126'), ['fd00::1', 'fd00::2', 'fd00::3']);
  assert.deepEqual(handedOut('fd00::2/127'), ['fd00::2', 'fd00::3']);
  assert.deepEqual(handedOut('fd00::9/128'), ['fd00::9']);
});

test('only the subnet keeps addresses back, not the range', options, () => {
  assert.deepEqual(
    handedOut('10.0.0.0/24', { subPool: '10.0.0.64/30' }),
    [64, 65, 66, 67].map((n) => `10.0.0.${n}`),
  );
  assert.deepEqual(
    handedOut('10.0.0.0/24', { subPool: '10.0.0.252/30' }),
    [252, 253, 254].map((n) => `10.0.0.${n}`),
  );
});

test('excluded addresses are never chosen', options, () => {
  const exclude = '10.0.0.2, 10.0.0.1-10.0.0.3 ,10.0.0.8/30,10.0.0.14';
  assert.deepEqual(
    handedOut('10.0.0.0/28', { options: { exclude } }),
    [4, 5, 6, 7, 12, 13].map((n) => `10.0.0.${n}`),
  );
});

test('what a pool hands out is its range without what is reserved or excluded, each address once', options, () => {
  const octet = fc.integer({ min: 0, max: 255 });
  const bounds = fc.tuple(octet, octet).map(([a, b]) => `10.0.0.${Math.min(a, b)}-10.0.0.${Math.max(a, b)}`);
  const exclude = fc.array(bounds, { minLength: 1, maxLength: 8 }).map((entries) => entries.join(','));
  fc.assert(
    fc.property(exclude, fc.integer({ min: 24, max: 32 }), octet, (text, length, host) => {
      const range = prefixOf({ family: 'IPv4', value: 0x0a000000n + BigInt(host) }, length);
      const isExcluded = (n: number) =>
        text.split(',').some((entry) => {
          const [from = 0, to = 0] = entry.split('-').map((address) => Number(address.split('.')[3]));
          return n >= from && n <= to;
        });
      const last = Array.from({ length: 256 }, (_, n) => n).filter(
        (n) => BigInt(n) + 0x0a000000n >= range.first && BigInt(n) + 0x0a000000n <= range.last,
      );
      const expected = last.filter((n) => n !== 0 && n !== 255 && !isExcluded(n)).map((n) => `10.0.0.${n}`);
      const more = { subPool: formatPrefix(range), options: { exclude: text } };
      assert.deepEqual(handedOut('10.0.0.0/24', more), expected);
      assert.equal(
        sizeWithin(range, layoutOf(pool('10.0.0.0/24', more)).excluded),
        BigInt(last.filter(isExcluded).length),
      );
    }),
  );
});

test('in sequential order the next is the one behind the last, and at the end the first again', options, () => {
  const layout = layoutOf(pool('10.0.0.0/24', { subPool: '10.0.0.64/29' }));
  const used = new Occupancy();
  assert.equal(nextAddress(layout, used, 0x0a000042n), 0x0a000043n);
  assert.equal(nextAddress(layout, used, 0x0a000047n), 0x0a000040n);
  assert.equal(nextAddress(layout, used, 0x0a0000f0n), 0x0a000040n);
  assert.equal(nextAddress(layout, used, 0x0a000001n), 0x0a000040n);
  used.add(0x0a000043n);
  assert.equal(nextAddress(layout, used, 0x0a000042n), 0x0a000044n);
});

test('a reserved address has a name', options, () => {
  const meaning = (subnet: string, address: string) => {
    const parsed = parseAddress(address);
    assert.ok(parsed);
    return reservedMeaning(layoutOf(pool(subnet)).subnet, parsed);
  };
  assert.equal(meaning('10.0.0.0/24', '10.0.0.0'), 'network address');
  assert.equal(meaning('10.0.0.0/24', '10.0.0.255'), 'broadcast address');
  assert.equal(meaning('10.0.0.0/24', '10.0.0.1'), undefined);
  assert.equal(meaning('10.0.0.0/31', '10.0.0.0'), undefined);
  assert.equal(meaning('fd00::/64', 'fd00::'), 'subnet-router anycast address');
  assert.equal(meaning('fd00::/64', 'fd00::ffff:ffff:ffff:ffff'), undefined);
  assert.equal(meaning('fd00::/127', 'fd00::'), undefined);
});
