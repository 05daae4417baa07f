/** Entries of the neighbour table, from bytes that Linux 6.18 sent and took. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAddress } from '../../../src/address.ts';
import { RTM_GETNEIGH, decodeNeighbour, neighbourBody, neighbourDumpBody } from '../../../src/kernel/neighbour.ts';
import { decodeMessages } from '../../../src/kernel/netlink.ts';
import { NetlinkTrace } from '../../../src/kernel/trace.ts';
import { decodesOrRefuses } from './total.ts';

const STALE =
  '4c0000001c0000000100000020570000020000000300000004000001080001000a0100070a0002000200000000070000080004000000000014000300d6170000660000006600000001000000';
const PERMANENT =
  '580000001c00000001000000205700000a000000030000008000000114000100fd0000000000000000000000000000070a000200020000000008000008000400000000001400030065000000650000006500000001000000';
const INCOMPLETE =
  '400000001c0000000100000020570000020000000300000001000001080001000a010009080004000500000014000300d4170000640000006400000002000000';

const first = (datagram: string) => {
  const [message] = decodeMessages(Buffer.from(datagram, 'hex'));
  assert.ok(message);
  return message;
};

test('an entry has its address, its MAC address once that is known, and the state of both', () => {
  assert.deepEqual([STALE, PERMANENT, INCOMPLETE].map(first).map(decodeNeighbour), [
    { linkIndex: 3, address: parseAddress('10.1.0.7'), macAddress: '02:00:00:00:00:07', state: 'stale' },
    { linkIndex: 3, address: parseAddress('fd00::7'), macAddress: '02:00:00:00:00:08', state: 'permanent' },
    { linkIndex: 3, address: parseAddress('10.1.0.9'), macAddress: null, state: 'incomplete' },
  ]);
});

test('the question names link, family and address', () => {
  const bodies = ['10.1.0.7', 'fd00::7'].map((text) => neighbourBody(3, parseAddress(text) ?? assert.fail(text)));
  assert.deepEqual(
    bodies.map((body) => body.toString('hex')),
    ['020000000300000000000000080001000a010007', '0a000000030000000000000014000100fd000000000000000000000000000007'],
  );
});

test('an entry that is about no address is none', () => {
  const bridge = first(STALE);
  bridge.body.writeUInt8(7);
  assert.equal(decodeNeighbour(bridge), undefined);
  assert.equal(decodeNeighbour({ ...bridge, body: neighbourDumpBody('IPv6') }), undefined);
});

test('the trace has words for questions and entries', () => {
  const trace = new NetlinkTrace(() => undefined);
  const request = (body: Buffer) => trace.request({ type: RTM_GETNEIGH, flags: 0, body });
  assert.equal(request(neighbourBody(3, parseAddress('fd00::7') ?? assert.fail())), 'getneigh on 3 address fd00::7');
  assert.equal(request(neighbourDumpBody('IPv4')), 'getneigh');
  assert.equal(
    trace.answer({ messages: [first(STALE)], error: null }),
    'newneigh on 3 stale address 10.1.0.7 mac 02:00:00:00:00:07',
  );
});

test('whatever bytes come as an entry, decoding ends in a value or in EBADMSG', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) =>
      decodesOrRefuses(() => decodeNeighbour({ type: 28, flags: 0, sequence: 1, body: Buffer.from(bytes) })),
    ),
  );
});
