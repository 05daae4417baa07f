import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseAddress } from '../../../../src/address.ts';
import {
  type NeighborAdvertisement,
  type NeighborSolicitation,
  decodeNd,
  encodeNd,
  multicastMac,
  ndAnnouncement,
  ndDefence,
  ndProbe,
  solicitedNodeGroup,
} from '../../../../src/lan/frames/nd.ts';
import { address, frameBytes, mac, plain } from './arbitraries.ts';

const options = { timeout: 20_000 };

const nonce = fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const unicast = address('IPv6').filter(({ value }) => value >> 120n !== 0xffn);

const headers = { destinationMac: mac, sourceMac: mac, destination: address('IPv6'), target: unicast };

const solicitation: fc.Arbitrary<NeighborSolicitation> = fc.oneof(
  fc.record(
    {
      protocol: fc.constant('NS' as const),
      ...headers,
      source: unicast.filter(({ value }) => value !== 0n),
      linkLayerAddress: fc.option(mac),
      nonce: fc.option(nonce),
    },
    plain,
  ),
  fc.tuple(unicast, mac, nonce).map(([target, sourceMac, number]) => ndProbe(target, sourceMac, number)),
);

const advertisement: fc.Arbitrary<NeighborAdvertisement> = fc
  .record(
    {
      protocol: fc.constant('NA' as const),
      ...headers,
      source: address('IPv6'),
      linkLayerAddress: fc.option(mac),
      isRouter: fc.boolean(),
      isSolicited: fc.boolean(),
      isOverride: fc.boolean(),
    },
    plain,
  )
  .filter(({ isSolicited, destination }) => !(isSolicited && destination.value >> 120n === 0xffn));

const packet = fc.oneof(solicitation, advertisement);

function ip(text: string) {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

test('the solicited-node group and its MAC are those of RFC 4291 and RFC 2464', options, () => {
  const group = solicitedNodeGroup(ip('4037::01:800:200e:8c6c'));
  assert.equal(formatAddress(group), 'ff02::1:ff0e:8c6c');
  assert.equal(multicastMac(group), '33:33:ff:0e:8c:6c');
});

test('a probe has the bytes that Linux sends in its duplicate address detection', options, () => {
  assert.equal(
    encodeNd(ndProbe(ip('fd00::a'), 'fe:31:d2:85:d0:d5', '8409def38d6e')).toString('hex'),
    '3333ff00000afe31d285d0d586dd' +
      `6000000000203aff${'00'.repeat(16)}ff0200000000000000000001ff00000a` +
      '87007f1e00000000fd00000000000000000000000000000a' +
      '0e018409def38d6e',
  );
});

test('a defence leaves the caches of others alone and an announcement changes them', options, () => {
  const target = ip('fd00::5');
  assert.equal(ndDefence(target, '02:42:00:00:00:05').isOverride, false);
  assert.equal(ndAnnouncement(target, '02:42:00:00:00:05').isOverride, true);
  assert.equal(ndAnnouncement(target, '02:42:00:00:00:05').destinationMac, '33:33:00:00:00:01');
});

test('an announcement with a nonce says the same to others, and is like no other', options, () => {
  const [target, mac] = [ip('fd00::5'), '02:42:00:00:00:05'];
  const marked = encodeNd(ndAnnouncement(target, mac, '0123456789ab'));
  assert.deepEqual(decodeNd(marked), decodeNd(encodeNd(ndAnnouncement(target, mac))));
  assert.ok(marked.toString('hex').endsWith('0e010123456789ab'));
});

test('what is encoded decodes to the same packet, whatever padding follows', options, () => {
  fc.assert(
    fc.property(packet, fc.uint8Array({ maxLength: 40 }), (one, padding) => {
      assert.deepEqual(decodeNd(Buffer.concat([encodeNd(one), padding])), one);
    }),
  );
});

test('a frame cut anywhere is refused', options, () => {
  fc.assert(
    fc.property(packet, fc.nat(), (one, cut) => {
      const frame = encodeNd(one);
      assert.equal(decodeNd(frame.subarray(0, cut % frame.length)), undefined);
    }),
  );
});

test('one flipped bit after the Ethernet header never passes as another packet', options, () => {
  fc.assert(
    fc.property(packet, fc.nat(), fc.integer({ min: 0, max: 7 }), (one, where, bit) => {
      const frame = encodeNd(one);
      const at = 14 + (where % (frame.length - 14));
      frame.writeUInt8(frame.readUInt8(at) ^ (1 << bit), at);
      const decoded = decodeNd(frame);
      // Traffic class and flow label, bytes 14 to 17, are outside the checksum and not of interest.
      if (decoded !== undefined) assert.ok(at < 18);
      if (decoded !== undefined) assert.deepEqual(decoded, one);
    }),
    { numRuns: 1000 },
  );
});

test('arbitrary bytes never throw', options, () => {
  fc.assert(
    fc.property(frameBytes, (bytes) => void decodeNd(bytes)),
    { numRuns: 2000 },
  );
});
