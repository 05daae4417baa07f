import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAddress } from '../../../../src/address.ts';
import {
  type ArpPacket,
  arpAnnouncement,
  arpProbe,
  arpReply,
  decodeArp,
  encodeArp,
} from '../../../../src/lan/frames/arp.ts';
import { address, frameBytes, mac, plain } from './arbitraries.ts';

const options = { timeout: 20_000 };

const packet: fc.Arbitrary<ArpPacket> = fc.record(
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
);

function ip(text: string) {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

test('a probe is the frame of RFC 5227: broadcast, sender address zero, target MAC zero', options, () => {
  const frame = encodeArp(arpProbe(ip('192.168.1.5'), '02:74:73:00:00:01'));
  assert.equal(
    frame.toString('hex'),
    'ffffffffffff0274730000010806' +
      '0001080006040001' +
      '02747300000100000000' +
      '000000000000c0a80105' +
      '00'.repeat(18),
  );
});

test('an announcement names the address as sender and as target', options, () => {
  const frame = encodeArp(arpAnnouncement(ip('192.168.1.5'), '02:42:c0:a8:01:05'));
  assert.equal(
    frame.subarray(14, 42).toString('hex'),
    '0001080006040001' + '0242c0a80105c0a80105' + '000000000000c0a80105',
  );
});

test('an announcement with a nonce says the same to others, and is like no other', options, () => {
  const [one, two] = ['0123456789ab', 'ba9876543210'].map((nonce) =>
    encodeArp(arpAnnouncement(ip('192.168.1.5'), '02:42:c0:a8:01:05', nonce)),
  ) as [Buffer, Buffer];
  assert.ok(!one.equals(two));
  const plainOne = arpAnnouncement(ip('192.168.1.5'), '02:42:c0:a8:01:05');
  assert.deepEqual(decodeArp(one), { ...plainOne, targetMac: '01:23:45:67:89:ab' });
});

test('a reply goes to the one who asked and names the address asked for', options, () => {
  const request = arpProbe(ip('10.0.0.9'), '3c:22:fb:10:aa:01');
  const reply = arpReply(request, '02:42:0a:00:00:09');
  assert.equal(reply.destinationMac, '3c:22:fb:10:aa:01');
  assert.equal(reply.senderMac, '02:42:0a:00:00:09');
  assert.deepEqual(reply.senderAddress, request.targetAddress);
});

test('what is encoded decodes to the same packet', options, () => {
  fc.assert(fc.property(packet, (one) => assert.deepEqual(decodeArp(encodeArp(one)), one)));
});

test('padding of any length after the packet is no part of it', options, () => {
  fc.assert(
    fc.property(packet, fc.uint8Array({ maxLength: 40 }), (one, padding) => {
      const bare = encodeArp(one).subarray(0, 42);
      assert.deepEqual(decodeArp(Buffer.concat([bare, padding])), one);
    }),
  );
});

test('a frame cut anywhere inside the packet is refused', options, () => {
  fc.assert(
    fc.property(packet, fc.integer({ min: 0, max: 41 }), (one, length) => {
      assert.equal(decodeArp(encodeArp(one).subarray(0, length)), undefined);
    }),
  );
});

test('other hardware, other protocols, odd address lengths and other operations are refused', options, () => {
  fc.assert(
    fc.property(packet, fc.integer({ min: 12, max: 21 }), fc.integer({ min: 1, max: 255 }), (one, at, change) => {
      const frame = encodeArp(one);
      frame.writeUInt8(frame.readUInt8(at) ^ change, at);
      const decoded = decodeArp(frame);
      // Byte 21 is the operation, and there is a second valid one.
      if (decoded !== undefined) assert.deepEqual({ ...decoded, operation: one.operation }, one);
      assert.equal(decoded !== undefined, at === 21 && [1, 2].includes(frame.readUInt8(21)));
    }),
  );
});

test('arbitrary bytes decode to a packet or to nothing, and never throw', options, () => {
  fc.assert(
    fc.property(frameBytes, (bytes) => {
      const decoded = decodeArp(bytes);
      if (decoded !== undefined) assert.deepEqual(encodeArp(decoded).subarray(0, 42), bytes.subarray(0, 42));
    }),
    { numRuns: 2000 },
  );
});
