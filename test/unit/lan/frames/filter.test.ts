import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { BpfInstruction } from '../../../../src/kernel/bpf.ts';
import { type ArpPacket, encodeArp } from '../../../../src/lan/frames/arp.ts';
import { awaitingFilter } from '../../../../src/lan/frames/filter.ts';
import { encodeNd, ndDefence, ndProbe } from '../../../../src/lan/frames/nd.ts';
import { decodePacket, readSighting } from '../../../../src/lan/frames/sighting.ts';
import { address, frameBytes, mac, plain } from './arbitraries.ts';

const options = { timeout: 20_000 };

/** What the kernel does with a program (Documentation/networking/filter.rst), as far as ours use it. */
function run(program: readonly BpfInstruction[], frame: Buffer, vlan: number | null = null): boolean {
  let accumulator = 0;
  for (let at = 0; at < program.length; at++) {
    const { code, jt, jf, k } = program[at] as BpfInstruction;
    if (code === 0x06) return k !== 0;
    if (code === 0x15) at += accumulator === k ? jt : jf;
    else if (code === 0x45) at += accumulator & k ? jt : jf;
    else if (k >= 0xfffff000) accumulator = k === 0xfffff000 + 48 ? Number(vlan !== null) : (vlan ?? 0);
    else {
      const size = { 0x20: 4, 0x28: 2, 0x30: 1 }[code];
      assert.ok(size, `instruction ${code}`);
      if (k + size > frame.length) return false;
      accumulator = frame.readUIntBE(k, size);
    }
  }
  assert.fail('the program has no end');
}

const arp: fc.Arbitrary<Buffer> = fc
  .record(
    {
      protocol: fc.constant('ARP' as const),
      destinationMac: mac,
      sourceMac: mac,
      operation: fc.constantFrom('request' as const, 'reply' as const),
      senderMac: mac,
      senderAddress: address('IPv4'),
      targetMac: mac,
      targetAddress: address('IPv4'),
    },
    plain,
  )
  .map((packet: ArpPacket) => encodeArp(packet));

const nd: fc.Arbitrary<Buffer> = fc
  .tuple(address('IPv6'), address('IPv6'), mac, fc.constantFrom('probe', 'use', 'answer'))
  .map(([target, source, from, kind]) => {
    if (kind === 'answer') return encodeNd(ndDefence(target, from));
    const probe = ndProbe(target, from, '000000000001');
    return encodeNd(kind === 'probe' ? probe : { ...probe, source });
  });

const frame = fc.oneof(arp, nd, frameBytes);

test('what says something about an awaited address passes, in a crowd of them too', options, () => {
  const crowd = fc.uniqueArray(fc.oneof(address('IPv4'), address('IPv6')), {
    maxLength: 300,
    size: 'max',
    selector: ({ value }) => value,
  });
  fc.assert(
    fc.property(frame, crowd, (bytes, others) => {
      const packet = decodePacket(bytes);
      const sighting = packet && readSighting(packet);
      // An IPv6 source that ends like `::` is taken for it, see filter.ts.
      fc.pre(sighting !== undefined && !(sighting.kind === 'use' && (sighting.address.value & 0xffff_ffffn) === 0n));
      assert.ok(run(awaitingFilter([...others, sighting.address]), bytes));
    }),
    { numRuns: 300 },
  );
});

test('what is about other addresses does not pass', options, () => {
  fc.assert(
    fc.property(frame, fc.oneof(address('IPv4'), address('IPv6')), (bytes, awaited) => {
      const packet = decodePacket(bytes);
      const sighting = packet && readSighting(packet);
      fc.pre(sighting !== undefined && sighting.address.value % 2n ** 32n !== awaited.value % 2n ** 32n);
      assert.ok(!run(awaitingFilter([awaited]), bytes) || (sighting.address.value & 0xffff_ffffn) === 0n);
    }),
  );
});

test('nothing passes while nothing is awaited', options, () => {
  fc.assert(fc.property(frame, (bytes) => assert.ok(!run(awaitingFilter([]), bytes))));
});

test('frames of a VLAN do not pass, and those with a mere priority tag do', options, () => {
  const target = { family: 'IPv6' as const, value: 5n };
  const bytes = encodeNd(ndDefence(target, '02:42:00:00:00:05'));
  assert.ok(run(awaitingFilter([target]), bytes));
  assert.ok(!run(awaitingFilter([target]), bytes, 20));
  assert.ok(run(awaitingFilter([target]), bytes, 0xe000));
});

test('more addresses than a program can hold let every ARP and neighbour discovery frame pass', options, () => {
  const addresses = Array.from({ length: 5000 }, (_, number) => ({
    family: 'IPv4' as const,
    value: BigInt(number + 1),
  }));
  const program = awaitingFilter(addresses);
  assert.ok(program.length <= 4096);
  fc.assert(fc.property(arp, (bytes) => assert.ok(run(program, bytes))));
});
