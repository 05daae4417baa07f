import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, formatInterfaceAddress, macBytes } from '../../../../src/address.ts';
import { type DhcpAnswer, type DhcpRequest, decodeDhcp, encodeDhcp } from '../../../../src/lan/frames/dhcp.ts';
import { decodeUdp, encodeUdp } from '../../../../src/lan/frames/udp.ts';
import { address, mac, plain } from './arbitraries.ts';
import {
  SERVER_MAC,
  type AnswerSpec,
  answerData,
  answerFrame,
  bytesOf,
  frameOf,
  ip,
  option,
  seconds,
} from './dhcpanswers.ts';

const options = { timeout: 20_000 };

const MAC = '02:42:c0:a8:4d:64';
const client = { macAddress: MAC, xid: 0x1234abcd, seconds: 3, hostname: 'web' };
const server = { address: ip('192.168.77.1'), macAddress: SERVER_MAC };
const theirs = ip('192.168.77.100');

const LEASE = [51, seconds(3600)] as const;
const ack: AnswerSpec = { type: 5, xid: client.xid, macAddress: MAC, address: '192.168.77.100', options: [LEASE] };

/** What a request says, read back by its own simple reader. */
function readRequest(frame: Buffer) {
  const datagram = decodeUdp(frame);
  assert.ok(datagram);
  const { data } = datagram;
  const found = new Map<number, string>();
  for (let at = 240; data[at] !== 255; at += 2 + (data[at + 1] as number))
    found.set(data[at] as number, data.subarray(at + 2, at + 2 + (data[at + 1] as number)).toString('hex'));
  return { ...datagram, data, options: found };
}

function termsOf(spec: AnswerSpec) {
  const answer = decodeDhcp(answerFrame(spec));
  assert.ok(answer !== undefined && answer.kind !== 'NAK');
  return answer.terms;
}

// --- what a client sends -----------------------------------------------------------------------------------------

test('DISCOVER is the frame of RFC 2131: to all, from nobody, with the broadcast flag', options, () => {
  const frame = encodeDhcp({ ...client, kind: 'DISCOVER', wish: theirs });
  assert.equal(frame.length, 342);
  assert.equal(
    frame.subarray(0, 42).toString('hex'),
    'ffffffffffff0242c0a84d640800' +
      '45000148000000004011' +
      '79a6' +
      '00000000ffffffff' +
      '004400430134' +
      frame.toString('hex', 40, 42),
  );
  const { data, options: said } = readRequest(frame);
  assert.equal(
    data.subarray(0, 34).toString('hex'),
    '01010600' + '1234abcd' + '00038000' + '00'.repeat(16) + '0242c0a84d64',
  );
  assert.deepEqual(
    [53, 61, 50, 54, 12, 51].map((code) => said.get(code)),
    ['01', '010242c0a84d64', 'c0a84d64', undefined, Buffer.from('web').toString('hex'), undefined],
  );
});

test('each message names what RFC 2131 wants named in it, and nothing else', options, () => {
  const rows: [DhcpRequest, object][] = [
    [
      { ...client, kind: 'DISCOVER', wish: null },
      { type: '01', wish: undefined, by: undefined, from: '0.0.0.0', to: '255.255.255.255' },
    ],
    [
      { ...client, kind: 'REQUEST', address: theirs, server },
      { type: '03', wish: 'c0a84d64', by: 'c0a84d01', from: '0.0.0.0', to: '255.255.255.255' },
    ],
    [
      { ...client, kind: 'DECLINE', address: theirs, server },
      { type: '04', wish: 'c0a84d64', by: 'c0a84d01', from: '0.0.0.0', to: '255.255.255.255' },
    ],
    [
      { ...client, kind: 'RENEW', address: theirs, server },
      { type: '03', wish: undefined, by: undefined, from: '192.168.77.100', to: '192.168.77.1' },
    ],
    [
      { ...client, kind: 'REBIND', address: theirs },
      { type: '03', wish: undefined, by: undefined, from: '192.168.77.100', to: '255.255.255.255' },
    ],
    [
      { ...client, kind: 'RELEASE', address: theirs, server },
      { type: '07', wish: undefined, by: 'c0a84d01', from: '192.168.77.100', to: '192.168.77.1' },
    ],
  ];
  for (const [request, expected] of rows) {
    const { data, options: said, source, destination, destinationMac } = readRequest(encodeDhcp(request));
    const [from, to] = [source, destination].map(formatAddress);
    assert.deepEqual({ type: said.get(53), wish: said.get(50), by: said.get(54), from, to }, expected, request.kind);
    assert.equal(data.subarray(12, 16).toString('hex'), Buffer.from(bytesOf(from as string)).toString('hex'), 'ciaddr');
    assert.equal(destinationMac, to === '255.255.255.255' ? 'ff:ff:ff:ff:ff:ff' : SERVER_MAC);
  }
});

test('every frame comes from the MAC address that it asks for', options, () => {
  const kinds = fc.constantFrom('REQUEST' as const, 'DECLINE' as const, 'RENEW' as const, 'RELEASE' as const);
  fc.assert(
    fc.property(
      mac,
      address('IPv4'),
      kinds,
      fc.nat(0xffff_ffff),
      fc.nat(200_000),
      (macAddress, one, kind, xid, spent) => {
        const frame = encodeDhcp({ macAddress, xid, seconds: spent, hostname: null, kind, address: one, server });
        const { data } = readRequest(frame);
        assert.deepEqual(frame.subarray(6, 12), Buffer.from(macBytes(macAddress)));
        assert.deepEqual(data.subarray(28, 34), Buffer.from(macBytes(macAddress)));
        assert.equal(data.readUInt32BE(4), xid);
        assert.equal(data.readUInt16BE(8), Math.min(spent, 65_535));
        assert.ok(data.length >= 300);
      },
    ),
  );
});

// --- what a server answers ---------------------------------------------------------------------------------------

test('an answer says who gives which address for how long, and what comes with it', options, () => {
  const answer = decodeDhcp(
    answerFrame({
      ...ack,
      options: [
        [1, bytesOf('255.255.255.0')],
        [3, bytesOf('192.168.77.1')],
        [6, [...bytesOf('192.168.77.2'), ...bytesOf('192.168.77.3')]],
        [15, Buffer.from('lan.example\0')],
        [26, [0x05, 0x78]],
        LEASE,
        [58, seconds(1800)],
        [59, seconds(3150)],
      ],
    }),
  );
  assert.deepEqual(answer, {
    kind: 'ACK',
    xid: client.xid,
    macAddress: MAC,
    server,
    message: null,
    terms: {
      address: theirs,
      prefixLength: 24,
      leaseSeconds: 3600,
      t1Seconds: 1800,
      t2Seconds: 3150,
      routers: [ip('192.168.77.1')],
      routes: null,
      dnsServers: [ip('192.168.77.2'), ip('192.168.77.3')],
      domain: 'lan.example',
      mtu: 1400,
    },
  } satisfies DhcpAnswer);
});

test('a refusal comes with its reason, as far as a terminal can show it', options, () => {
  const answer = decodeDhcp(
    answerFrame({ ...ack, type: 6, address: '0.0.0.0', options: [[56, Buffer.from('no \x1b[31mlease\n')]] }),
  );
  assert.equal(answer?.kind, 'NAK');
  assert.equal(answer.message, 'no [31mlease');
});

test('masks with holes, and of more than a network has, give no prefix', options, () => {
  const lengths = [
    '255.255.255.0',
    '255.255.255.255',
    '255.0.0.0',
    '254.0.0.0',
    '128.0.0.0',
    '255.255.255.254',
    '0.0.0.0',
    '255.0.255.0',
    '0.0.0.255',
  ].map((mask) => termsOf({ ...ack, options: [LEASE, [1, bytesOf(mask)]] }).prefixLength);
  assert.deepEqual(lengths, [24, 32, 8, null, null, 31, null, null, null]);
});

test('classless routes are read as RFC 3442 writes them, and malformed ones not at all', options, () => {
  const routesOf = (value: readonly number[]) =>
    termsOf({ ...ack, options: [LEASE, [121, value]] }).routes?.map(
      ({ destination, gateway }) => `${formatInterfaceAddress(destination)} ${formatAddress(gateway)}`,
    );
  const [one, other] = [bytesOf('192.168.77.1'), bytesOf('192.168.77.254')];
  assert.deepEqual(routesOf([0, ...one, 16, 10, 9, ...other, 32, ...bytesOf('10.8.0.1'), 0, 0, 0, 0]), [
    '0.0.0.0/0 192.168.77.1',
    '10.9.0.0/16 192.168.77.254',
    '10.8.0.1/32 0.0.0.0',
  ]);
  assert.deepEqual(routesOf([17, 10, 17, 255, ...one]), ['10.17.128.0/17 192.168.77.1'], 'host bits are no part of it');
  for (const wrong of [[33, 10, 0, 0, 0, 0, ...one], [24, 10, 9, 0, 192, 168], [255], [0, 192], []])
    assert.equal(routesOf(wrong), undefined, String(wrong));
});

test('options in several parts, and in the fields of other names, are put together', options, () => {
  const domain = 'a.very.long.domain.example';
  const rawOptions = Buffer.concat([
    option(53, [5]),
    option(52, [3]),
    option(15, Buffer.from(domain.slice(0, 7))),
    Buffer.of(0, 0),
    option(15, Buffer.from(domain.slice(7, 12))),
    Buffer.of(255),
  ]);
  const bootFile = Buffer.concat([
    option(15, Buffer.from(domain.slice(12, 20))),
    option(51, seconds(60)),
    option(52, [3]),
    Buffer.of(255),
  ]);
  const serverName = Buffer.concat([option(15, Buffer.from(domain.slice(20))), option(54, bytesOf('10.0.0.1'))]);
  const answer = decodeDhcp(answerFrame({ ...ack, rawOptions, bootFile, serverName }));
  assert.ok(answer?.kind === 'ACK');
  assert.equal(answer.terms.domain, domain);
  assert.equal(answer.terms.leaseSeconds, 60);
  assert.equal(formatAddress(answer.server.address), '10.0.0.1');
  // Without the option that says so they are what they are called.
  const plainNames = decodeDhcp(answerFrame({ ...ack, bootFile, serverName }));
  assert.ok(plainNames?.kind === 'ACK');
  assert.equal(plainNames.terms.leaseSeconds, 3600);
});

test('what an exchange cannot do without: a type, a server, an address of a host, and a time', options, () => {
  const wrong: [string, Partial<AnswerSpec>][] = [
    ['a DISCOVER', { type: 1 }],
    ['type 0', { type: 0 }],
    ['no type', { rawOptions: Buffer.concat([option(51, seconds(60)), Buffer.of(255)]) }],
    [
      'a type of two bytes that begins with none',
      { rawOptions: Buffer.concat([option(53, []), option(51, seconds(60))]) },
    ],
    ['no lease time', { options: [] }],
    ['no time at all', { options: [[51, seconds(0)]] }],
    ['a lease time of two bytes', { options: [[51, [1, 2]]] }],
    ...['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '255.255.255.255'].map((one): [string, Partial<AnswerSpec>] => [
      one,
      { address: one },
    ]),
    ...['192.168.77.0', '192.168.77.255'].map((one): [string, Partial<AnswerSpec>] => [
      `${one} of a /24`,
      {
        address: one,
        options: [
          [1, bytesOf('255.255.255.0')],
          [51, seconds(60)],
        ],
      },
    ]),
    ['a server that is a group', { server: '224.0.0.1' }],
  ];
  for (const [what, change] of wrong) assert.equal(decodeDhcp(answerFrame({ ...ack, ...change })), undefined, what);
  // A server that does not name itself is the one who sent the packet.
  const unnamed = decodeDhcp(
    answerFrame({ ...ack, rawOptions: Buffer.concat([option(53, [5]), option(51, seconds(60))]) }),
  );
  assert.deepEqual(unnamed?.server, server);
});

test('an option that lies about its length, or is cut off, makes the answer none', options, () => {
  const lies = [Buffer.of(51, 200, 1), Buffer.of(51), Buffer.of(12, 255, 65)];
  for (const lie of lies) {
    const rawOptions = Buffer.concat([option(53, [5]), option(51, seconds(60)), lie]);
    assert.equal(decodeDhcp(answerFrame({ ...ack, rawOptions })), undefined);
    const overloaded = Buffer.concat([option(53, [5]), option(51, seconds(60)), option(52, [1]), Buffer.of(255)]);
    const bootFile = Buffer.alloc(128, 0);
    lie.copy(bootFile, 128 - lie.length);
    assert.equal(decodeDhcp(answerFrame({ ...ack, rawOptions: overloaded, bootFile })), undefined);
  }
});

test('an answer that is cut anywhere is none, unless only what nobody needs is missing', options, () => {
  const data = answerData(ack);
  for (let length = 0; length < data.length - 1; length++)
    assert.equal(decodeDhcp(frameOf(data.subarray(0, length))), undefined, `${length} bytes`);
  assert.ok(decodeDhcp(frameOf(data.subarray(0, data.length - 1))), 'the end is not needed');
  const frame = answerFrame(ack);
  for (let length = 0; length < frame.length; length++)
    assert.equal(decodeDhcp(frame.subarray(0, length)), undefined, `a frame of ${length} bytes`);
});

test('arbitrary options decode to an answer or to nothing, within their own length, and never throw', options, () => {
  const spec = fc.record(
    {
      rawOptions: fc.uint8Array({ maxLength: 1200 }),
      bootFile: fc.uint8Array({ maxLength: 128 }),
      start: fc.boolean(),
    },
    plain,
  );
  fc.assert(
    fc.property(spec, ({ rawOptions, bootFile, start }) => {
      // Half of them begin like an answer, so that the rest is read too.
      const head = start ? Buffer.concat([option(53, [5]), option(51, seconds(60)), option(52, [3])]) : Buffer.alloc(0);
      const answer = decodeDhcp(
        answerFrame({ ...ack, rawOptions: Buffer.concat([head, rawOptions]), bootFile: Buffer.from(bootFile) }),
      );
      if (answer !== undefined) assert.equal(answer.xid, client.xid);
    }),
    { numRuns: 2000 },
  );
});

test('arbitrary bytes in a datagram and in a frame never throw', options, () => {
  const bytes = fc.uint8Array({ maxLength: 700 }).map((one) => Buffer.from(one));
  const change = fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 }));
  fc.assert(
    fc.property(bytes, (one) => void [decodeDhcp(one), decodeDhcp(frameOf(one))]),
    { numRuns: 1000 },
  );
  const frame = answerFrame(ack);
  fc.assert(
    fc.property(change, ([at, bits]) => {
      const damaged = Buffer.from(frame);
      const place = at % damaged.length;
      damaged.writeUInt8(damaged.readUInt8(place) ^ bits, place);
      const answer = decodeDhcp(damaged);
      // The checksum knows every damage but that of the frame's own addresses.
      assert.equal(answer === undefined, place >= 12, String(place));
    }),
    { numRuns: 1000 },
  );
});

test('a checksum may be missing, or left to the network card, and must not be wrong', options, () => {
  const frame = answerFrame(ack);
  const withSum = (sum: number) => {
    const changed = Buffer.from(frame);
    changed.writeUInt16BE(sum, 40);
    return decodeDhcp(changed);
  };
  assert.ok(withSum(0));
  // c0a8 4d01 ffff ffff, protocol 17 and the length, summed up by hand.
  const length = frame.readUInt16BE(38);
  let sum = 0xc0a8 + 0x4d01 + 0xffff + 0xffff + 17 + length;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  assert.ok(withSum(sum), 'as another container of this host sends it');
  assert.equal(withSum(frame.readUInt16BE(40) ^ 1), undefined);
});

test('what was sent to another port, and to servers, is no answer', options, () => {
  const data = answerData(ack);
  const to = (destinationPort: number) => encodeUdp({ ...headers, sourcePort: 67, destinationPort, data });
  const headers = { destinationMac: MAC, sourceMac: SERVER_MAC, source: server.address, destination: theirs };
  assert.ok(decodeDhcp(to(68)));
  assert.equal(decodeDhcp(to(67)), undefined);
  assert.equal(decodeDhcp(encodeDhcp({ ...client, kind: 'DISCOVER', wish: null })), undefined);
});
