/** The codec beside the one of npm's `netlink`, and on whatever bytes may come. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAttribute, formatMessage, parseAttributes, putString, putU16, putU32, putU8 } from 'netlink';
import type { KernelError } from '../../../src/kernel/errno.ts';
import {
  Attributes,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  be16Attribute,
  decodeAcknowledgement,
  decodeAttributes,
  decodeDone,
  decodeMessages,
  encodeAttribute,
  encodeMessage,
  nested,
  stringAttribute,
  u16Attribute,
  u32Attribute,
  u8Attribute,
} from '../../../src/kernel/netlink.ts';
import { decodesOrRefuses } from './total.ts';

const timeout = 20_000;
const ACK_TLVS = 0x200;
const CAPPED = 0x100;

const anyBytes = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
const anyAttributes = fc.array(
  fc.record({ type: fc.integer({ min: 0, max: 0x3fff }), value: anyBytes }, { noNullPrototype: true }),
  {
    maxLength: 12,
  },
);

/** Ours after the oracle's parser, so that flags are compared too. */
function theirAttributes(bytes: Buffer): { type: number; value: Buffer }[] {
  const seen: { type: number; value: Buffer }[] = [];
  parseAttributes(bytes, ({ type, data }) => seen.push({ type, value: data }));
  return seen;
}

test('a message has the bytes that the oracle gives it', { timeout }, () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.nat(0xfffe), fc.nat(0xffffffff), anyBytes, (type, flags, sequence, body) => {
      const theirs = formatMessage({ type, flags: flags | 1, seq: sequence, port: 0, data: body });
      const ours = encodeMessage({ type, flags, body }, sequence);
      const padding = Buffer.alloc((4 - (body.length % 4)) % 4);
      assert.deepEqual(ours, Buffer.concat([...theirs, padding]));
    }),
  );
});

test('an attribute has the bytes that the oracle gives it, and padding', { timeout }, () => {
  fc.assert(
    fc.property(fc.nat(0x3fff), anyBytes, (type, data) => {
      const theirs = Buffer.concat(formatAttribute({ type, data }));
      const ours = encodeAttribute(type, data);
      assert.equal(ours.length % 4, 0);
      assert.deepEqual(ours.subarray(0, theirs.length), theirs);
      assert.ok(ours.subarray(theirs.length).every((byte) => byte === 0));
    }),
  );
});

test('a nested attribute carries the flag that says so', () => {
  const theirs = Buffer.concat(formatAttribute({ type: 18, nested: true, data: u32Attribute(1, 7) }));
  assert.deepEqual(nested(18, u32Attribute(1, 7)), theirs);
});

test('numbers and texts have the bytes that the oracle gives them', () => {
  const value = (attribute: Buffer) => decodeAttributes(attribute)[0]?.value;
  assert.deepEqual(value(u8Attribute(1, 200)), putU8(200));
  assert.deepEqual(value(u16Attribute(1, 60_000)), putU16(60_000));
  assert.deepEqual(value(u32Attribute(1, 4_000_000_000)), putU32(4_000_000_000));
  assert.deepEqual(value(stringAttribute(1, 'eth0')), putString('eth0'));
  assert.deepEqual(value(be16Attribute(1, 0x88a8)), Buffer.from([0x88, 0xa8]));
});

test('a text with a NUL in it is refused, because the kernel would read another text', () => {
  assert.throws(() => stringAttribute(3, 'eth0\0.10'), { name: 'KernelError', code: 'EINVAL' });
});

test('attributes come back as they went in', { timeout }, () => {
  fc.assert(
    fc.property(anyAttributes, (attributes) => {
      const bytes = Buffer.concat(attributes.map(({ type, value }) => encodeAttribute(type, value)));
      assert.deepEqual(decodeAttributes(bytes), attributes);
      assert.deepEqual(theirAttributes(bytes), attributes);
    }),
  );
});

test('messages of one datagram come back as they went in', { timeout }, () => {
  const request = fc.record({ type: fc.nat(0xffff), flags: fc.nat(0xffff), body: anyBytes });
  fc.assert(
    fc.property(fc.array(request, { maxLength: 6 }), (requests) => {
      const datagram = Buffer.concat(requests.map((each, position) => encodeMessage(each, position)));
      const expected = requests.map(({ type, flags, body }, sequence) => ({ type, flags: flags | 1, sequence, body }));
      assert.deepEqual(decodeMessages(datagram), expected);
    }),
  );
});

test('whatever bytes come, decoding ends in a value or in EBADMSG', { timeout }, () => {
  fc.assert(
    fc.property(anyBytes, fc.nat(400), fc.nat(0xffff), (bytes, offset, flags) => {
      decodesOrRefuses(() => decodeMessages(bytes));
      decodesOrRefuses(() => new Attributes(bytes, offset).nested(1));
      decodesOrRefuses(() => decodeAcknowledgement({ type: NLMSG_ERROR, flags, sequence: 1, body: bytes }));
      decodesOrRefuses(() => decodeDone({ type: NLMSG_DONE, flags, sequence: 1, body: bytes }));
    }),
    { numRuns: 2000 },
  );
});

test('attributes that are cut anywhere decode to a beginning of them or to EBADMSG', { timeout }, () => {
  fc.assert(
    fc.property(anyAttributes, fc.nat(2000), (attributes, cut) => {
      const whole = Buffer.concat(attributes.map(({ type, value }) => encodeAttribute(type, value)));
      decodesOrRefuses(() => {
        const decoded = decodeAttributes(whole.subarray(0, cut));
        assert.deepEqual(decoded, attributes.slice(0, decoded.length));
      });
    }),
  );
});

test('decoding never reads past the end of its bytes', { timeout }, () => {
  fc.assert(
    fc.property(anyBytes, fc.uint8Array({ minLength: 64, maxLength: 64 }), (bytes, beyond) => {
      const alone = outcome(() => decodeMessages(Buffer.from(bytes)).flatMap(({ body }) => decodeAttributes(body)));
      const memory = Buffer.concat([bytes, beyond]);
      const within = memory.subarray(0, bytes.length);
      assert.deepEqual(
        outcome(() => decodeMessages(within).flatMap(({ body }) => decodeAttributes(body))),
        alone,
      );
    }),
  );
});

function outcome(decode: () => unknown): unknown {
  try {
    return decode();
  } catch (error) {
    return (error as KernelError).message;
  }
}

test('a value shorter than its type reads as null, a longer one as far as it is known', () => {
  const attributes = new Attributes(
    Buffer.concat([encodeAttribute(1, Buffer.alloc(3)), encodeAttribute(2, Buffer.from([1, 0, 0, 0, 9, 9]))]),
  );
  assert.equal(attributes.u32(1), null);
  assert.equal(attributes.u32(2), 1);
  assert.equal(attributes.u32(3), null);
});

test('an acknowledgement carries errno and the text of the kernel', () => {
  const request = encodeMessage(
    { type: 16, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body: u32Attribute(4, 99999) },
    7,
  );
  const errno = Buffer.alloc(4);
  errno.writeInt32LE(-22);
  const text = stringAttribute(1, 'mtu greater than device maximum');
  const capped = Buffer.concat([errno, request.subarray(0, 16), u32Attribute(2, 20), text]);
  const whole = Buffer.concat([errno, request, text]);
  const expected = { errno: 22, detail: 'mtu greater than device maximum' };
  const message = (flags: number, body: Buffer) => ({ type: NLMSG_ERROR, flags, sequence: 7, body });
  assert.deepEqual(decodeAcknowledgement(message(ACK_TLVS | CAPPED, capped)), expected);
  assert.deepEqual(decodeAcknowledgement(message(ACK_TLVS, whole)), expected);
  assert.deepEqual(decodeAcknowledgement(message(0, whole)), { errno: 22, detail: null });
});

test('the end of a dump carries its errno', () => {
  const errno = Buffer.alloc(4);
  errno.writeInt32LE(-95);
  assert.deepEqual(decodeDone({ type: NLMSG_DONE, flags: 2, sequence: 1, body: errno }), { errno: 95, detail: null });
});
