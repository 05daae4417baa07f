/** Random addresses, MACs and frames for the tests of this room. */
import fc from 'fast-check';
import { ADDRESS_BITS, type Address, formatMac } from '../../../../src/address.ts';
import type { Family } from '../../../../src/model.ts';

/** Records with the prototype that literals have, so that assert compares them as equal. */
export const plain = { noNullPrototype: true } as const;

/** Any six bytes, those that no interface can have included. */
export const mac: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom('00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:01'),
  fc.uint8Array({ minLength: 6, maxLength: 6 }).map(formatMac),
);

export function address(family: Family): fc.Arbitrary<Address> {
  const max = (1n << BigInt(ADDRESS_BITS[family])) - 1n;
  return fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max })).map((value) => ({ family, value }));
}

/** Bytes of any length; half of them begin like an ARP or an IPv6 frame, so that decoders get beyond the first check. */
export const frameBytes: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.constantFrom('', '', '08060001080006040001', '08060001080006040002', '86dd60000000'),
    fc.uint8Array({ maxLength: 120 }),
  )
  .map(([start, rest]) => {
    const head = start === '' ? Buffer.alloc(0) : Buffer.concat([Buffer.alloc(12, 0x22), Buffer.from(start, 'hex')]);
    return Buffer.concat([head, rest]);
  });
