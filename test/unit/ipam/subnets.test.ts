import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encloses, formatPrefix, overlaps, type Prefix } from '../../../src/address.ts';
import { known } from '../../../src/ipam/pool.ts';
import { freeSubnet } from '../../../src/ipam/subnets.ts';
import { FAMILIES } from '../../../src/model.ts';

const options = { timeout: 20_000 };

test('subnets nobody named are those of the built-in IPAM, in its order', options, () => {
  const taken: Prefix[] = [];
  for (let next = freeSubnet(taken, 'IPv4', null, 'a'); next !== undefined; next = freeSubnet(taken, 'IPv4', null, 'a'))
    taken.push(next);
  const texts = taken.map(formatPrefix);
  assert.equal(texts.length, 15 + 16);
  assert.deepEqual(texts.slice(0, 2), ['172.17.0.0/16', '172.18.0.0/16']);
  assert.deepEqual(texts.slice(14, 17), ['172.31.0.0/16', '192.168.0.0/20', '192.168.16.0/20']);
});

test('an IPv6 subnet nobody named is unique local, and the same host gets the same', options, () => {
  const subnet = freeSubnet([], 'IPv6', null, 'host-a');
  assert.ok(subnet);
  assert.ok(encloses(known('fd00::/8'), subnet));
  assert.equal(subnet.length, 64);
  assert.deepEqual(freeSubnet([], 'IPv6', null, 'host-a'), subnet);
  assert.notDeepEqual(freeSubnet([], 'IPv6', null, 'host-b'), subnet);
});

test('a subnet that cannot be cut from the blocks is not found', options, () => {
  assert.equal(freeSubnet([], 'IPv4', 15, 'a'), undefined);
  assert.equal(freeSubnet([], 'IPv6', 47, 'a'), undefined);
});

test('a found subnet has the length asked for and lies apart from all that are taken', options, () => {
  const subnet = fc.tuple(
    fc.constantFrom('172.17.0.0', '172.18.0.0', '172.31.128.0', '192.168.0.0'),
    fc.integer({ min: 17, max: 24 }),
  );
  const taken = fc.array(
    subnet.map(([address, length]) => known(`${address}/${length}`)),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(taken, fc.constantFrom(...FAMILIES), fc.integer({ min: 16, max: 32 }), (others, family, length) => {
      const size = family === 'IPv4' ? length : length * 4;
      const found = freeSubnet(others, family, size, 'a');
      assert.ok(found);
      assert.equal(found.length, size);
      assert.ok(others.every((other) => !overlaps(other, found)));
    }),
  );
});
