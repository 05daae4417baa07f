import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, linkLocalOfMac, macBytes } from '../../../../src/address.ts';
import { type Dhcp6Request, decodeDhcp6, encodeDhcp6 } from '../../../../src/lan/frames/dhcp6.ts';
import { decodeUdp6 } from '../../../../src/lan/frames/udp6.ts';
import { address, frameBytes, mac } from './arbitraries.ts';
import { type Answer6Spec, SERVER6_DUID, answer6Frame, option6 } from './dhcp6answers.ts';
import { ip } from './dhcpanswers.ts';

const options = { timeout: 20_000 };
const MAC = '02:42:5e:10:00:11';
const client = { macAddress: MAC, xid: 0x123456, elapsedMs: 1230, hostname: 'web' };
const theirs = ip('fd77:1::100');
const reply: Answer6Spec = {
  type: 7,
  xid: client.xid,
  macAddress: MAC,
  gives: [{ address: 'fd77:1::100' }],
  t1Seconds: 150,
  t2Seconds: 240,
};

/** What a request says, read back by its own simple reader. */
function readRequest(frame: Buffer) {
  const datagram = decodeUdp6(frame);
  assert.ok(datagram);
  const { data } = datagram;
  const said = new Map<number, string>();
  for (let at = 4; at < data.length; at += 4 + data.readUInt16BE(at + 2))
    said.set(data.readUInt16BE(at), data.toString('hex', at + 4, at + 4 + data.readUInt16BE(at + 2)));
  return { ...datagram, type: data.readUInt8(0), xid: data.readUIntBE(1, 3), said };
}

test('each message names what RFC 8415 wants named in it, from the MAC address to all servers', options, () => {
  const wished = '0005' + '0018' + 'fd770001000000000000000000000100' + '0000000000000000';
  const rows: [Dhcp6Request, object][] = [
    [
      { ...client, kind: 'SOLICIT', wish: null },
      { type: 1, server: undefined, wish: '', asks: '0052', name: '01' },
    ],
    [
      { ...client, kind: 'SOLICIT', wish: theirs },
      { type: 1, server: undefined, wish: wished, asks: '0052', name: '01' },
    ],
    [
      { ...client, kind: 'REQUEST', address: theirs, server: SERVER6_DUID },
      { type: 3, server: SERVER6_DUID, wish: wished, asks: '0052', name: '01' },
    ],
    [
      { ...client, kind: 'RENEW', address: theirs, server: SERVER6_DUID },
      { type: 5, server: SERVER6_DUID, wish: wished, asks: '0052', name: '01' },
    ],
    [
      { ...client, kind: 'REBIND', address: theirs },
      { type: 6, server: undefined, wish: wished, asks: '0052', name: '01' },
    ],
    [
      { ...client, kind: 'RELEASE', address: theirs, server: SERVER6_DUID },
      { type: 8, server: SERVER6_DUID, wish: wished, asks: undefined, name: undefined },
    ],
    [
      { ...client, kind: 'DECLINE', address: theirs, server: SERVER6_DUID },
      { type: 9, server: SERVER6_DUID, wish: wished, asks: undefined, name: undefined },
    ],
  ];
  for (const [request, expected] of rows) {
    const { type, xid, said, source, destination, destinationMac } = readRequest(encodeDhcp6(request));
    const [server, asks, name] = [said.get(2), said.get(6), said.get(39)?.slice(0, 2)];
    assert.deepEqual({ type, server, wish: said.get(3)?.slice(24), asks, name }, expected, request.kind);
    assert.equal(said.get(1), '00030001' + '02425e100011');
    assert.equal(said.get(3)?.slice(0, 24), '5e100011' + '0000000000000000');
    assert.equal(said.get(8), '007b');
    assert.equal(xid, client.xid);
    assert.equal(destinationMac, '33:33:00:01:00:02');
    assert.deepEqual([source, formatAddress(destination)], [linkLocalOfMac(MAC), 'ff02::1:2']);
  }
  assert.equal(readRequest(encodeDhcp6({ ...client, kind: 'SOLICIT', wish: null })).said.get(39), '0103776562');
});

test('every frame comes from the MAC address that it asks for', options, () => {
  fc.assert(
    fc.property(mac, address('IPv6'), fc.nat(0xff_ffff), fc.nat(2 ** 31), (macAddress, wish, xid, elapsedMs) => {
      const frame = encodeDhcp6({ macAddress, xid, elapsedMs, hostname: null, kind: 'SOLICIT', wish });
      const { said, ...read } = readRequest(frame);
      assert.deepEqual(frame.subarray(6, 12), Buffer.from(macBytes(macAddress)));
      assert.equal(said.get(1)?.slice(8), Buffer.from(macBytes(macAddress)).toString('hex'));
      assert.equal(read.xid, xid);
    }),
  );
});

test('an answer says who gives which address for how long', options, () => {
  assert.deepEqual(decodeDhcp6(answer6Frame({ ...reply, preference: 7 })), {
    protocol: 'DHCPv6',
    kind: 'REPLY',
    xid: client.xid,
    macAddress: MAC,
    server: SERVER6_DUID,
    preference: 7,
    addresses: [{ address: theirs, preferredSeconds: 300, validSeconds: 600 }],
    t1Seconds: 150,
    t2Seconds: 240,
    failure: null,
  });
  const none = decodeDhcp6(answer6Frame({ ...reply, type: 2, gives: [], status: [2, 'no addresses\u0007 left'] }));
  assert.deepEqual(
    [none?.kind, none?.addresses, none?.failure],
    ['ADVERTISE', [], { code: 2, message: 'no addresses left' }],
  );
});

test('times that make no sense, and what is no host address, are left out', options, () => {
  const given = (change: Partial<Answer6Spec>) =>
    decodeDhcp6(answer6Frame({ ...reply, ...change }))?.addresses.map((one) => formatAddress(one.address));
  assert.deepEqual(given({ t1Seconds: 241 }), []);
  assert.deepEqual(given({ t1Seconds: 241, t2Seconds: 0 }), ['fd77:1::100']);
  assert.deepEqual(given({ gives: [{ address: 'fd77:1::1', preferredSeconds: 601 }] }), []);
  assert.deepEqual(given({ gives: [{ address: 'fd77:1::1', status: 2 }] }), []);
  for (const wrong of ['::', '::1', '::a4d:9', '64:ff9b::a4d:9', 'ff02::1', 'fe80::7'])
    assert.deepEqual(given({ gives: [{ address: wrong }] }), []);
  assert.deepEqual(given({ associationId: 'ffffffff' }), [], 'it is of another interface');
  const many = Array.from({ length: 40 }, (_, number) => ({ address: `fd77:1::1:${number.toString(16)}` }));
  assert.equal(given({ gives: many })?.length, 16);
});

test('what is for another client, or of a server without a name, is no answer', options, () => {
  const of = (...parts: Buffer[]) => decodeDhcp6(answer6Frame({ ...reply, rawOptions: Buffer.concat(parts) }));
  const [ours, theirsToo] = [option6(1, Buffer.from(`00030001${'02425e100011'}`, 'hex')), option6(2, [0, 3, 0, 1, 9])];
  assert.ok(of(ours, theirsToo));
  assert.equal(of(theirsToo), undefined);
  assert.equal(of(ours), undefined);
  assert.equal(of(ours, option6(2, [])), undefined);
  assert.equal(of(ours, option6(2, Buffer.alloc(131))), undefined);
  assert.equal(of(option6(1, Buffer.from('00010001aabbccdd02425e100011', 'hex')), theirsToo), undefined);
  for (const type of [0, 1, 3, 10, 13, 255]) assert.equal(decodeDhcp6(answer6Frame({ ...reply, type })), undefined);
});

test(
  'cut off anywhere, and with any length of an option that lies, it is refused or says less; nothing is thrown',
  options,
  () => {
    const whole = answer6Frame(reply);
    for (let length = 0; length < whole.length; length++)
      assert.equal(decodeDhcp6(whole.subarray(0, length)), undefined);
    const head = option6(1, Buffer.from('0003000102425e100011', 'hex'));
    const lying = (raw: string) =>
      decodeDhcp6(
        answer6Frame({ ...reply, rawOptions: Buffer.concat([head, option6(2, [0, 3, 9]), Buffer.from(raw, 'hex')]) }),
      );
    assert.equal(lying('0003ffff5e100011'), undefined);
    assert.equal(lying('00'), undefined);
    assert.equal(lying('000300'), undefined);
    // The association is whole, and what is in it is not.
    assert.deepEqual(lying(`00030010${'5e100011'}0000000000000000${'0005ffff'}`)?.addresses, []);
    assert.deepEqual(lying('00030002ffff')?.addresses, []);
  },
);

test('one flipped bit behind the Ethernet header makes no other answer', options, () => {
  const whole = answer6Frame(reply);
  const expected = decodeDhcp6(whole);
  for (let bit = 14 * 8; bit < whole.length * 8; bit++) {
    const other = Buffer.from(whole);
    other.writeUInt8(other.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    const read = decodeDhcp6(other);
    if (read !== undefined) assert.deepEqual(read, expected, `bit ${bit}`);
  }
});

test('whatever bytes come, nothing is thrown', options, () => {
  const written = fc
    .uint8Array({ maxLength: 300 })
    .map((bytes) => answer6Frame({ ...reply, rawOptions: Buffer.from(bytes) }));
  fc.assert(
    fc.property(fc.oneof(frameBytes, written), (bytes) => {
      for (const one of decodeDhcp6(bytes)?.addresses ?? []) assert.ok(one.preferredSeconds <= one.validSeconds);
    }),
  );
});
