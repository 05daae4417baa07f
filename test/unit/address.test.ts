import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { BlockList, isIP } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { Address4, Address6 } from 'ip-address';
import * as ip from '../../src/address.ts';
import { ADDRESS_BITS, type Address, type Prefix } from '../../src/address.ts';
import { FAMILIES } from '../../src/model.ts';

const options = { timeout: 20_000 };

const family = fc.constantFrom(...FAMILIES);

function value(bits: number): fc.Arbitrary<bigint> {
  // Zero runs and edges are where text forms differ; uniform numbers have none.
  const groups = fc.array(fc.constantFrom<bigint>(0n, 0n, 0n, 1n, 0xdbn, 0xffffn), {
    minLength: bits / 16,
    maxLength: bits / 16,
  });
  const max = (1n << BigInt(bits)) - 1n;
  return fc.oneof(
    fc.bigInt({ min: 0n, max }),
    groups.map((parts) => parts.reduce((sum, part) => (sum << 16n) | part, 0n)),
  );
}

const address: fc.Arbitrary<Address> = family
  .chain((of) => value(ADDRESS_BITS[of]).map((number) => ({ family: of, value: number })))
  .filter((one) => one.family === 'IPv4' || one.value >> 32n !== 0xffffn);

const interfaceAddress = address.chain((one) =>
  fc.integer({ min: 0, max: ADDRESS_BITS[one.family] }).map((length) => ({ address: one, length })),
);

const prefix: fc.Arbitrary<Prefix> = interfaceAddress.map(({ address: one, length }) => ip.prefixOf(one, length));

/** A second implementation in plain text: every address of a family as node's own URL parser would write it. */
function oracleFormat({ family: of, value: number }: Address): string {
  if (of === 'IPv4') return new URL(`http://${number}/`).hostname;
  const groups = number.toString(16).padStart(32, '0').match(/.{4}/g) ?? [];
  return new URL(`http://[${groups.join(':')}]/`).hostname.slice(1, -1);
}

test('an address survives being written and read', options, () => {
  fc.assert(fc.property(address, (one) => assert.deepEqual(ip.parseAddress(ip.formatAddress(one)), one)));
});

test('the text of an address is the one of RFC 5952, as the URL standard and ip-address write it', options, () => {
  fc.assert(
    fc.property(address, (one) => {
      const text = ip.formatAddress(one);
      const Library = one.family === 'IPv4' ? Address4 : Address6;
      assert.equal(text, oracleFormat(one));
      assert.equal(new Library(text).correctForm(), text);
      assert.equal(new Library(text).bigInt(), one.value);
    }),
  );
});

test('every spelling of an IPv6 address reads as the same address', options, () => {
  const known = { family: 'IPv6', value: 0x20010db8000000000000000000000001n };
  for (const text of ['2001:db8::1', '2001:DB8::1', '2001:db8:0:0:0:0:0:1', '2001:0db8::0001', '2001:db8::0.0.0.1'])
    assert.deepEqual(ip.parseAddress(text), known, text);
});

test('only what node calls an address is an address, without zone and not IPv4-mapped', options, () => {
  const nearAddress = fc.stringMatching(/^[0-9a-fA-F:.%/ x]{0,24}$/);
  fc.assert(
    fc.property(fc.oneof(nearAddress, fc.string(), fc.ipV4(), fc.ipV6(), fc.ipV4Extended()), (text) => {
      const parsed = ip.parseAddress(text);
      if (parsed !== undefined) assert.equal(`IPv${isIP(text)}`, parsed.family);
      else assert.ok(isIP(text) === 0 || text.includes('%') || /^[0:]*:ffff:/i.test(text), text);
    }),
    { numRuns: 2_000 },
  );
});

test('malformed addresses are refused', options, () => {
  const malformed = [
    '',
    ' ',
    '1.2.3',
    '1.2.3.4.5',
    '256.0.0.1',
    '01.2.3.4',
    '010.0.0.1',
    '1.2.3.4 ',
    ' 1.2.3.4',
    '1.2.3.4/24',
  ];
  malformed.push('0x7f.0.0.1', '2130706433', '1..2.3', '-1.2.3.4', '1.2.3.٤', ':', ':::', '1::2::3', '12345::', '::g');
  malformed.push(
    'fe80::1%eth0',
    '[::1]',
    '::1/128',
    '::ffff:192.0.2.1',
    '::FFFF:c000:201',
    '1:2:3:4:5:6:7',
    '1.2.3.4\n',
  );
  for (const text of malformed) assert.equal(ip.parseAddress(text), undefined, JSON.stringify(text));
});

test('a prefix holds its first and last address and nothing beyond', options, () => {
  fc.assert(
    fc.property(interfaceAddress, ({ address: one, length }) => {
      const text = `${ip.formatAddress(one)}/${length}`;
      const subnet = ip.parsePrefix(text);
      assert.ok(subnet);
      const Library = one.family === 'IPv4' ? Address4 : Address6;
      assert.equal(subnet.first, new Library(text).startAddress().bigInt());
      assert.equal(subnet.last, new Library(text).endAddress().bigInt());
      assert.equal(subnet.hasHostBits, one.value !== subnet.first);
      assert.ok(ip.contains(subnet, one));
      assert.ok(!ip.contains(subnet, { family: one.family, value: subnet.first - 1n }));
      assert.ok(!ip.contains(subnet, { family: one.family, value: subnet.last + 1n }));
      assert.deepEqual(ip.parsePrefix(ip.formatPrefix(subnet)), { ...subnet, hasHostBits: false });
    }),
  );
});

test('an address with its prefix length survives being written and read', options, () => {
  fc.assert(
    fc.property(interfaceAddress, ({ address: one, length }) => {
      const written = ip.formatInterfaceAddress({ ...one, length });
      assert.deepEqual(ip.parseInterfaceAddress(written), { ...one, length });
      assert.deepEqual(ip.parsePrefix(written), ip.prefixOf(one, length));
    }),
  );
});

test('malformed prefixes are refused', options, () => {
  const malformed = [
    '',
    '/',
    '/24',
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/08',
    '10.0.0.0/+8',
  ];
  malformed.push(
    '10.0.0.0/8/8',
    '10.0.0.0/255.0.0.0',
    '10/8',
    'fd00::/129',
    'fd00::/',
    '10.0.0.0/ 8',
    '10.0.0.0/8.0',
    '10.0.0.0/1e1',
  );
  for (const text of malformed) assert.equal(ip.parsePrefix(text), undefined, JSON.stringify(text));
});

test('prefixes overlap exactly when one holds the other', options, () => {
  const pair = fc.tuple(prefix, prefix).chain(([a, b]) => {
    const child = ip.prefixOf(
      { family: a.family, value: a.first },
      Math.min(ADDRESS_BITS[a.family], a.length + (b.length % 4)),
    );
    return fc.constantFrom<[Prefix, Prefix]>([a, b], [a, child], [child, a]);
  });
  fc.assert(
    fc.property(pair, ([a, b]) => {
      assert.equal(ip.overlaps(a, b), ip.encloses(a, b) || ip.encloses(b, a));
      assert.equal(ip.overlaps(a, b), ip.overlaps(b, a));
    }),
  );
});

test('containment is what node:net sees in a BlockList', options, () => {
  fc.assert(
    fc.property(interfaceAddress, address, ({ address: one, length }, other) => {
      const list = new BlockList();
      list.addSubnet(ip.formatAddress(one), length, one.family === 'IPv4' ? 'ipv4' : 'ipv6');
      const expected =
        one.family === other.family && list.check(ip.formatAddress(other), other.family === 'IPv4' ? 'ipv4' : 'ipv6');
      assert.equal(ip.contains(ip.prefixOf(one, length), other), expected);
    }),
  );
});

test('addresses of the two families never meet', options, () => {
  const v4 = ip.parsePrefix('0.0.0.0/0');
  const v6 = ip.parsePrefix('::/0');
  assert.ok(v4 && v6);
  assert.ok(!ip.overlaps(v4, v6));
  assert.ok(!ip.contains(v6, { family: 'IPv4', value: 1n }));
});

test('a MAC address is read with colons or dashes and written with colons in lower case', options, () => {
  assert.equal(ip.parseMac('02:42:C0:A8:01:02'), '02:42:c0:a8:01:02');
  assert.equal(ip.parseMac('02-42-c0-a8-01-02'), '02:42:c0:a8:01:02');
  const malformed = [
    '',
    '02:42:c0:a8:01',
    '02:42:c0:a8:01:02:03',
    '02:42-c0:a8:01:02',
    '0242.c0a8.0102',
    '2:42:c0:a8:1:2',
    '02:42:c0:a8:01:0g',
  ];
  for (const text of malformed) assert.equal(ip.parseMac(text), undefined, text);
});

test('a MAC address survives being written and read', options, () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
      const text = ip.formatMac(bytes);
      assert.equal(ip.parseMac(text.toUpperCase()), text);
      assert.deepEqual(ip.macBytes(text), bytes);
      assert.equal(ip.isMulticastMac(text), (bytes[0] ?? 0) % 2 === 1);
    }),
  );
});

test('the MAC address of an IPv4 address is the prefix and its four bytes', options, () => {
  assert.equal(ip.macFromIPv4('02:42', { family: 'IPv4', value: 0xc0a80102n }), '02:42:c0:a8:01:02');
  assert.equal(ip.macFromIPv4('0a:00', { family: 'IPv4', value: 0xffffffffn }), '0a:00:ff:ff:ff:ff');
});

test('the MAC address of an IPv6 address is the prefix and four bytes of its SHA-256', options, () => {
  const bytes = Buffer.from('fd000000000000000000000000000002', 'hex');
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 8);
  const mac = ip.macFromIPv6('02:42', { family: 'IPv6', value: BigInt(`0x${bytes.toString('hex')}`) });
  assert.equal(mac.replaceAll(':', ''), `0242${hash}`);
  assert.equal(ip.parseMac(mac), mac);
});

test('addresses are put in order by number, IPv4 first, and what is none last', () => {
  const texts = ['fd00::10', '10.0.0.10', 'lost', 'fd00::9', '10.0.0.9', '9.0.0.0'];
  assert.deepEqual(ip.inOrderOfAddress(texts, ip.parseAddress), [
    '9.0.0.0',
    '10.0.0.9',
    '10.0.0.10',
    'fd00::9',
    'fd00::10',
    'lost',
  ]);
});
