import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { internetChecksum } from '../../../../src/lan/frames/checksum.ts';
import { type UdpDatagram, decodeUdp, encodeUdp } from '../../../../src/lan/frames/udp.ts';
import { address, mac, plain } from './arbitraries.ts';

const options = { timeout: 20_000 };
const port = fc.nat(65_535);

const datagram: fc.Arbitrary<UdpDatagram> = fc.record(
  {
    destinationMac: mac,
    sourceMac: mac,
    source: address('IPv4'),
    destination: address('IPv4'),
    sourcePort: port,
    destinationPort: port,
    data: fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
  },
  plain,
);

test('what is encoded decodes to the same datagram, whatever padding follows', options, () => {
  fc.assert(
    fc.property(datagram, fc.uint8Array({ maxLength: 40 }), (one, padding) => {
      assert.deepEqual(decodeUdp(encodeUdp(one)), one);
      assert.deepEqual(decodeUdp(Buffer.concat([encodeUdp(one), padding])), one);
    }),
  );
});

/** With the header checksum that fits, so that it is not what is refused. */
function withByte(frame: Buffer, at: number, value: number): Buffer {
  const changed = Buffer.from(frame);
  changed.writeUInt8(value, at);
  changed.writeUInt16BE(0, 24);
  changed.writeUInt16BE(internetChecksum(0, changed.subarray(14, 34)), 24);
  return changed;
}

test('fragments, IP options and other protocols are refused', options, () => {
  const changes = {
    options: [14, 0x46],
    'version 6': [14, 0x65],
    TCP: [23, 6],
    'more fragments': [20, 0x20],
    offset: [21, 1],
  };
  fc.assert(
    fc.property(datagram, (one) => {
      const frame = encodeUdp(one);
      assert.ok(decodeUdp(withByte(frame, 20, 0x40)), 'that it must not be fragmented is no fragment');
      for (const [what, [at = 0, value = 0]] of Object.entries(changes))
        assert.equal(decodeUdp(withByte(frame, at, value)), undefined, what);
    }),
  );
});

test('lengths that lie are refused', options, () => {
  fc.assert(
    fc.property(datagram, fc.nat(2000), (one, length) => {
      const frame = encodeUdp({ ...one, data: Buffer.concat([one.data, Buffer.alloc(40)]) });
      const whole = frame.length - 14;
      const packet = withByte(withByte(frame, 16, length >> 8), 17, length & 255);
      if (length > whole || length < 28) assert.equal(decodeUdp(packet), undefined, `a packet of ${length} bytes`);
      const udp = Buffer.from(frame);
      udp.writeUInt16BE(length, 38);
      udp.writeUInt16BE(0, 40);
      const decoded = decodeUdp(udp);
      assert.equal(decoded?.data.length, length >= 8 && length <= whole - 20 ? length - 8 : undefined);
    }),
  );
});
