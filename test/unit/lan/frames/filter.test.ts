import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { BpfInstruction } from '../../../../src/kernel/bpf.ts';
import { formatMac, isMulticastMac, macBytes } from '../../../../src/address.ts';
import { type ArpPacket, arpAnnouncement, arpProbe, encodeArp } from '../../../../src/lan/frames/arp.ts';
import {
  DHCP6_ANSWERS,
  DHCP_ANSWERS,
  ROUTER_WORDS,
  type WatchedContainer,
  awaitingFilter,
  watchingFilter,
} from '../../../../src/lan/frames/filter.ts';
import { decodeDhcp } from '../../../../src/lan/frames/dhcp.ts';
import { decodeDhcp6 } from '../../../../src/lan/frames/dhcp6.ts';
import { decodeNd, encodeNd, ndDefence, ndProbe } from '../../../../src/lan/frames/nd.ts';
import { decodeRouterAdvertisement } from '../../../../src/lan/frames/ra.ts';
import { decodePacket, readSighting } from '../../../../src/lan/frames/sighting.ts';
import { answer6Frame } from './dhcp6answers.ts';
import { answerFrame } from './dhcpanswers.ts';
import { advertisementFrame } from './raframes.ts';
import { address, frameBytes, mac, plain } from './arbitraries.ts';

const options = { timeout: 20_000 };
const STRANGER = '3c:22:fb:10:aa:01';

/** What the kernel does with a program (Documentation/networking/filter.rst), as far as ours use it. */
function run(program: readonly BpfInstruction[], frame: Buffer, vlan: number | null = null): boolean {
  let accumulator = 0;
  let index = 0;
  for (let at = 0; at < program.length; at++) {
    const { code, jt, jf, k } = program[at] as BpfInstruction;
    if (code === 0x06) return k !== 0;
    if (code === 0x01) index = k;
    else if (code === 0x05) at += k;
    else if (code === 0x15) at += accumulator === k ? jt : jf;
    else if (code === 0x1d) at += accumulator === index ? jt : jf;
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

// --- the watch over running containers ------------------------------------------------------------------------------

const crowd: fc.Arbitrary<WatchedContainer[]> = fc.array(
  fc.record({ macAddress: mac, addresses: fc.array(fc.oneof(address('IPv4'), address('IPv6')), { maxLength: 2 }) }),
  { maxLength: 200, size: 'max' },
);
const toOne = '3c:22:fb:10:aa:09';

test('who uses an address of another passes, in a crowd of containers too', options, () => {
  fc.assert(
    fc.property(frame, crowd, mac, (bytes, others, own) => {
      const packet = decodePacket(bytes);
      const sighting = packet && readSighting(packet);
      fc.pre(sighting?.kind === 'use' && end(sighting.packet.sourceMac) !== end(own));
      const owner = { macAddress: own, addresses: [sighting.address] };
      fc.pre(
        others.every(({ addresses }) => addresses.every(({ value }) => low(value) !== low(sighting.address.value))),
      );
      assert.ok(run(watchingFilter([...others, owner]), bytes));
    }),
    { numRuns: 300 },
  );
});

test('what a container itself says to one does not pass, and what it says to all does', options, () => {
  fc.assert(
    fc.property(
      address('IPv4'),
      address('IPv6'),
      mac,
      fc.constantFrom(...['02:42', '02:50']),
      (ipv4, ipv6, own, prefix) => {
        const container = { macAddress: own, addresses: [ipv4, ipv6] };
        fc.pre(!isMulticastMac(own) && ipv4.value > 0n && ipv6.value > 0n && low(ipv4.value) !== low(ipv6.value));
        const said = [
          encodeArp({ ...arpAnnouncement(ipv4, own), destinationMac: toOne }),
          encodeNd({ ...ndDefence(ipv6, own), destinationMac: toOne }),
        ];
        for (const bytes of said) {
          assert.ok(!run(watchingFilter([container]), bytes));
          const other = Buffer.from(bytes);
          other.set(macBytes(`${prefix}:${own.slice(6)}`), 6);
          fc.pre(!own.startsWith(prefix));
          assert.ok(run(watchingFilter([container]), other), 'whose MAC address ends alike');
        }
        assert.ok(run(watchingFilter([container]), encodeArp(arpAnnouncement(ipv4, own))));
        assert.ok(run(watchingFilter([container]), encodeNd(ndDefence(ipv6, own))));
      },
    ),
    { numRuns: 200 },
  );
});

test("frames to all pass that come from a container's MAC address, whatever address they are about", options, () => {
  fc.assert(
    fc.property(arp, crowd, (bytes, others) => {
      const packet = decodePacket(bytes);
      const sighting = packet && readSighting(packet);
      fc.pre(sighting?.kind === 'use' && isMulticastMac(sighting.packet.destinationMac));
      for (const macAddress of [sighting.packet.sourceMac, sighting.macAddress])
        assert.ok(run(watchingFilter([...others, { macAddress, addresses: [] }]), bytes));
    }),
    { numRuns: 300 },
  );
});

test('nothing else passes to the watch: neither questions nor what others say about other addresses', options, () => {
  fc.assert(
    fc.property(frame, fc.oneof(address('IPv4'), address('IPv6')), mac, (bytes, watched, own) => {
      const packet = decodePacket(bytes);
      fc.pre(packet !== undefined);
      const about = { ARP: 'senderAddress', NA: 'target', NS: 'source' }[packet.protocol] as keyof typeof packet;
      const { value } = packet[about] as unknown as { value: bigint };
      const froms = [packet.sourceMac, packet.protocol === 'ARP' ? packet.senderMac : packet.sourceMac].map(end);
      fc.pre(low(value) !== low(watched.value) && !froms.includes(end(own)));
      assert.ok(!run(watchingFilter([{ addresses: [watched], macAddress: own }]), bytes));
    }),
    { numRuns: 500 },
  );
  const asked = { family: 'IPv4' as const, value: 5n };
  for (const operation of ['request', 'reply'] as const) {
    const question = { ...arpProbe(asked, '02:42:00:00:00:05'), operation };
    assert.ok(!run(watchingFilter([{ addresses: [asked], macAddress: '02:42:00:00:00:05' }]), encodeArp(question)));
  }
});

test('hundreds of containers fit into one program, with as many MAC addresses as there is room for', options, () => {
  for (const count of [285, 286, 400, 401, 666, 5000]) {
    const containers = Array.from({ length: count }, (_, number) => ({
      macAddress: macOf(number + 1),
      addresses: [{ family: 'IPv4' as const, value: BigInt(number + 1) }],
    }));
    const program = watchingFilter(containers);
    assert.ok(program.length <= 2100, `${program.length} instructions`);
    const last = { family: 'IPv4' as const, value: BigInt(count) };
    assert.ok(run(program, encodeArp(arpAnnouncement(last, STRANGER))));
    // What a container's MAC address says about another address, as long as there is room.
    const others = arpAnnouncement({ family: 'IPv4', value: 0xffffn }, macOf(count));
    const isWhole = count > 666;
    assert.equal(run(program, encodeArp(others)), count <= 400 || isWhole, `${count} as source`);
    assert.equal(
      run(program, encodeArp({ ...others, sourceMac: STRANGER })),
      count <= 285 || isWhole,
      `${count} as sender`,
    );
  }
});

function macOf(number: number): string {
  return `02:42:00:00:${formatMac(Uint8Array.of(number >> 8, number & 255))}`;
}

/** The bytes that are compared. */
function end(macAddress: string): string {
  return macAddress.slice(6);
}

function low(value: bigint): bigint {
  return value % 2n ** 32n;
}

test('answers of DHCP servers pass, and nothing else that is IPv4', options, () => {
  const answer = answerFrame({ type: 5, xid: 1, macAddress: STRANGER, address: '192.168.77.100' });
  assert.ok(run(DHCP_ANSWERS, answer));
  assert.ok(run(DHCP_ANSWERS, answer, 0), 'a priority is no VLAN');
  assert.ok(!run(DHCP_ANSWERS, answer, 10));
  const changes = [
    [13, 6],
    [14, 0x46],
    [20, 0x20],
    [21, 1],
    [23, 6],
    [37, 67],
  ] as const;
  for (const [at, value] of changes) {
    const other = Buffer.from(answer);
    other.writeUInt8(value, at);
    assert.ok(!run(DHCP_ANSWERS, other), `byte ${at}`);
  }
  fc.assert(
    fc.property(frame, (bytes) => {
      if (decodeDhcp(bytes) === undefined) assert.ok(!run(DHCP_ANSWERS, bytes));
    }),
  );
});

/** Whole or damaged. */
function isSolicitation(frame: Buffer): boolean {
  return frame.length > 54 && frame.readUInt16BE(12) === 0x86dd && frame[20] === 58 && frame[54] === 135;
}

test(
  'advertisements of routers pass, and questions for neighbours, which these ask before they answer',
  options,
  () => {
    const advertisement = advertisementFrame({ prefixes: [{ prefix: 'fd77:1::/64' }] });
    assert.ok(run(ROUTER_WORDS, advertisement));
    assert.ok(!run(ROUTER_WORDS, advertisement, 10), 'of a VLAN');
    fc.assert(
      fc.property(frame, (bytes) => {
        const packet = decodeNd(bytes);
        if (decodeRouterAdvertisement(bytes) !== undefined || packet?.protocol === 'NS')
          assert.ok(run(ROUTER_WORDS, bytes));
        // One that is damaged is left to whoever reads it.
        else if (!isSolicitation(bytes)) assert.ok(!run(ROUTER_WORDS, bytes));
      }),
    );
  },
);

test(
  'answers of DHCPv6 servers pass, and questions for neighbours, which these ask before they answer',
  options,
  () => {
    const answer = answer6Frame({ type: 7, xid: 1, macAddress: STRANGER });
    assert.ok(run(DHCP6_ANSWERS, answer));
    assert.ok(!run(DHCP6_ANSWERS, answer, 10), 'of a VLAN');
    fc.assert(
      fc.property(frame, (bytes) => {
        const isMeant = decodeDhcp6(bytes) !== undefined || decodeNd(bytes)?.protocol === 'NS';
        if (isMeant) assert.ok(run(DHCP6_ANSWERS, bytes));
        // One that is damaged is left to whoever reads it.
        if (decodeNd(bytes)?.protocol === 'NA') assert.ok(!run(DHCP6_ANSWERS, bytes));
      }),
    );
  },
);
