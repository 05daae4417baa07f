/** Link, address and route messages beside those of npm's `netlink`, and on whatever bytes may come. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AttrStream, ifla, rt } from 'netlink';
import {
  addressBody,
  decodeAddress,
  decodeLink,
  decodeRoute,
  linkAlias,
  linkBody,
  linkGroup,
  linkInfo,
  linkMacAddress,
  linkMtu,
  linkName,
  linkParent,
  macvlanInfo,
  routeBody,
  vlanInfo,
  withoutAddressGeneration,
} from '../../../src/kernel/message.ts';
import {
  type Message,
  decodeAttributes,
  encodeAttribute,
  nested,
  stringAttribute,
  u32Attribute,
} from '../../../src/kernel/netlink.ts';
import { MODES } from '../../../src/model.ts';
import { decodesOrRefuses } from './total.ts';

const timeout = 20_000;
const AF_INET = 2;
const AF_INET6 = 10;

const message = (body: Buffer): Message => ({ type: 16, flags: 0, sequence: 1, body });
const mac = fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => Buffer.from(bytes));
const name = fc.stringMatching(/^[a-z0-9.-]{1,15}$/);
const u32 = fc.nat(0xffffffff);
const index = fc.integer({ min: 1, max: 0x7fffffff });

function hex(bytes: Buffer): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The oracle's stream leaves the last attribute unpadded. */
function theirBytes(format: (out: AttrStream) => void): Buffer {
  const out = new AttrStream();
  format(out);
  const bytes = Buffer.concat(out.bufs);
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

/** The oracle does not flag nested attributes, so what is inside is compared by itself. */
function theirData(data: ReturnType<typeof ifla.formatMacvlan>): Buffer {
  return theirBytes((out) => out.emit(data));
}

function infoData(info: Buffer): Buffer {
  const [linkinfo] = decodeAttributes(info);
  const data = decodeAttributes(linkinfo?.value ?? Buffer.alloc(0)).find(({ type }) => type === 2);
  return data?.value ?? Buffer.alloc(0);
}

test('a link message has the bytes that the oracle gives it', { timeout }, () => {
  fc.assert(
    fc.property(index, name, mac, u32, u32, u32, (at, ifname, address, mtu, group, master) => {
      const attrs = { address, ifname, mtu, master, group };
      const theirs = theirBytes((out) =>
        rt.formatLinkMessage(
          { kind: 'link', data: { index: at, flags: { up: true }, change: { up: true } }, attrs },
          out,
        ),
      );
      const attributes = [
        linkMacAddress(hex(address)),
        linkName(ifname),
        linkMtu(mtu),
        u32Attribute(10, master),
        linkGroup(group),
      ];
      assert.deepEqual(linkBody({ index: at, flags: 1, change: 1 }, ...attributes), theirs);
    }),
  );
});

test('the modes of macvlan have the numbers that the oracle gives them', () => {
  for (const mode of MODES) {
    const theirs = theirData(ifla.formatMacvlan({ mode: ifla.formatMacvlanMode({ [mode]: true }) }));
    assert.deepEqual(infoData(macvlanInfo(mode, null)), theirs);
  }
});

test('the broadcast queue length, which the oracle does not know, is attribute 7', () => {
  const theirs = Buffer.concat([theirData(ifla.formatMacvlan({ mode: 4 })), u32Attribute(7, 2000)]);
  assert.deepEqual(infoData(macvlanInfo('bridge', 2000)), theirs);
});

test('a VLAN has the id the oracle gives it, and its protocol in network byte order', () => {
  // The oracle writes the protocol in host order; turned round by hand it is right.
  for (const [protocol, turned] of [
    ['802.1Q', 0x0081],
    ['802.1ad', 0xa888],
  ] as const) {
    const theirs = theirData(ifla.formatVlan({ id: 42, protocol: turned }));
    assert.deepEqual(infoData(vlanInfo(42, protocol)), theirs);
  }
});

test('the kind of a link and its data are nested attributes', () => {
  assert.deepEqual(linkInfo('dummy'), nested(18, stringAttribute(1, 'dummy')));
  assert.equal(vlanInfo(1, '802.1Q').readUInt16LE(2), 18 | 0x8000);
});

test('switching address generation off is AF_INET6 within IFLA_AF_SPEC', () => {
  assert.equal(withoutAddressGeneration().toString('hex'), '10001a800c000a800500080001000000');
});

test('an alias carries no NUL, which would become part of it', () => {
  assert.deepEqual(linkAlias('tsm'), encodeAttribute(20, Buffer.from('tsm')));
});

test('an address message has the bytes that the oracle gives it', { timeout }, () => {
  const cases: [string, number, Buffer][] = [
    ['192.168.1.2/24', AF_INET, Buffer.from([192, 168, 1, 2])],
    ['fd00::2/64', AF_INET6, Buffer.from(`fd00${'0'.repeat(26)}02`, 'hex')],
  ];
  for (const [text, family, bytes] of cases) {
    const data = { family, prefixlen: Number(text.split('/')[1]), index: 7 };
    const theirs = theirBytes((out) => {
      out.emit(rt.formatAddress(data));
      out.push(2, bytes);
      out.push(1, bytes);
      out.push(8, Buffer.from([2, 0, 0, 0]));
    });
    assert.deepEqual(addressBody(7, text, true), theirs);
    const parsed = rt.parseAddressMessage(addressBody(7, text));
    assert.deepEqual([parsed.data.index, parsed.attrs.local, parsed.attrs.address], [7, bytes, bytes]);
  }
});

test('a route message means to the oracle what it meant to us', () => {
  const { data, attrs } = rt.parseRouteMessage(
    routeBody({ destination: '192.168.1.7/32', linkIndex: 9, source: '192.168.1.5' }),
  );
  assert.deepEqual([data.family, data.dstLen, data.table, data.type], [AF_INET, 32, 254, 'UNICAST']);
  assert.equal(data.scope, 'LINK');
  assert.deepEqual(
    [attrs.dst, attrs.oif, attrs.prefsrc],
    [Buffer.from([192, 168, 1, 7]), 9, Buffer.from([192, 168, 1, 5])],
  );
  const via = rt.parseRouteMessage(routeBody({ destination: 'fd00:1::/64', linkIndex: 9, gateway: 'fe80::1' }));
  assert.equal(via.attrs.gateway?.toString('hex'), 'fe80000000000000000000000000' + '0001');
  assert.equal(via.data.scope, 'UNIVERSE');
});

test('what the oracle encodes as a link comes back as that link', { timeout }, () => {
  fc.assert(
    fc.property(index, name, mac, u32, fc.string({ maxLength: 50 }), (at, ifname, address, mtu, text) => {
      const ifalias = text.replaceAll('\0', '');
      const info = [rt.formatLink({ index: at, type: 1, flags: { up: true, promisc: true, lowerUp: true } })];
      const body = theirBytes((out) => {
        out.emit(info);
        out.emit(ifla.formatLinkAttrs({ address, ifname, mtu, ifalias, promiscuity: 2 }));
      });
      const link = decodeLink(message(body));
      assert.deepEqual(
        [link?.index, link?.name, link?.macAddress, link?.mtu, link?.alias, link?.promiscuity],
        [at, ifname, hex(address), mtu, ifalias, 2],
      );
      assert.deepEqual(
        [link?.isUp, link?.isPromiscuous, link?.hasCarrier, link?.isLoopback],
        [true, true, true, false],
      );
    }),
  );
});

test('the kind, mode, VLAN, master and other names of a link are read', () => {
  const linkinfo = nested(
    18,
    stringAttribute(1, 'vlan'),
    nested(2, encodeAttribute(1, Buffer.from([42, 0])), encodeAttribute(5, Buffer.from([0x88, 0xa8]))),
    stringAttribute(4, 'bond'),
  );
  const names = nested(52, stringAttribute(53, 'storage-network-uplink'), stringAttribute(53, 'second'));
  const link = decodeLink(
    message(
      linkBody(
        { index: 5 },
        linkName('eth0.42'),
        linkParent(2),
        u32Attribute(10, 8),
        u32Attribute(37, 0xffffffff),
        linkinfo,
        names,
      ),
    ),
  );
  assert.deepEqual(link?.vlan, { id: 42, protocol: '802.1ad' });
  assert.deepEqual(link?.alternativeNames, ['storage-network-uplink', 'second']);
  assert.deepEqual([link?.kind, link?.parentIndex, link?.masterIndex, link?.masterKind], ['vlan', 2, 8, 'bond']);
  assert.equal(link?.parentNamespaceId, -1);
  const macvlan = decodeLink(message(linkBody({ index: 6 }, macvlanInfo('passthru', null))));
  assert.deepEqual([macvlan?.kind, macvlan?.macvlanMode, macvlan?.vlan], ['macvlan', 'passthru', null]);
});

test('what a bridge says about a port, and a wireless event, describe no link', () => {
  const body = linkBody({ index: 5 }, linkName('eth0'));
  const bridge = Buffer.from(body);
  bridge.writeUInt8(7);
  assert.equal(decodeLink(message(bridge)), undefined);
  assert.equal(decodeLink(message(Buffer.concat([body, encodeAttribute(11, Buffer.alloc(8))]))), undefined);
  assert.equal(decodeLink(message(body))?.name, 'eth0');
});

test('the address of a point-to-point link is its own, not the peer’s', () => {
  const body = addressBody(3, '10.0.0.1/32');
  const peer = Buffer.concat([
    body.subarray(0, 8),
    encodeAttribute(1, Buffer.from([10, 0, 0, 2])),
    encodeAttribute(2, Buffer.from([10, 0, 0, 1])),
  ]);
  assert.deepEqual(decodeAddress(message(peer)), {
    linkIndex: 3,
    address: '10.0.0.1',
    prefixLength: 32,
    family: 'IPv4',
    peer: '10.0.0.2',
  });
});

test('routes come back with destination, table and gateway, one for each next hop', () => {
  const plain = decodeRoute(message(routeBody({ destination: '10.1.0.0/16', linkIndex: 4, gateway: '10.0.0.1' })));
  assert.deepEqual(plain, [
    { destination: '10.1.0.0/16', linkIndex: 4, gateway: '10.0.0.1', family: 'IPv4', table: 254 },
  ]);
  const hop = (at: number, last: number) => {
    const gateway = encodeAttribute(5, Buffer.from([10, 0, 0, last]));
    const header = Buffer.alloc(8);
    header.writeUInt16LE(8 + gateway.length);
    header.writeInt32LE(at, 4);
    return Buffer.concat([header, gateway]);
  };
  const header = Buffer.from([AF_INET, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
  const multipath = decodeRoute(
    message(Buffer.concat([header, encodeAttribute(9, Buffer.concat([hop(4, 1), hop(5, 2)]))])),
  );
  assert.deepEqual(
    multipath.map((route) => [route.destination, route.linkIndex, route.gateway]),
    [
      ['default', 4, '10.0.0.1'],
      ['default', 5, '10.0.0.2'],
    ],
  );
});

test('an IPv4 route through an IPv6 gateway keeps that gateway', () => {
  const via = encodeAttribute(
    18,
    Buffer.concat([Buffer.from([AF_INET6, 0]), Buffer.from(`fe80${'0'.repeat(26)}01`, 'hex')]),
  );
  const header = Buffer.from([AF_INET, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
  const [route] = decodeRoute(message(Buffer.concat([header, u32Attribute(4, 3), via])));
  assert.equal(route?.gateway, 'fe80::1');
});

test('local, cached and blackhole routes are left out', () => {
  const body = routeBody({ destination: '10.1.0.0/16', linkIndex: 4 });
  const of = (change: (copy: Buffer) => void) => {
    const copy = Buffer.from(body);
    change(copy);
    return decodeRoute(message(copy));
  };
  assert.deepEqual(
    of((copy) => copy.writeUInt8(2, 7)),
    [],
  );
  assert.deepEqual(
    of((copy) => copy.writeUInt32LE(0x200, 8)),
    [],
  );
  assert.equal(of(() => undefined).length, 1);
});

test('a MAC address, address or destination that is none is refused', () => {
  assert.throws(() => linkMacAddress('02:42'), { name: 'KernelError', code: 'EINVAL' });
  assert.throws(() => addressBody(1, '192.168.1.2'), { name: 'KernelError', code: 'EINVAL' });
  assert.throws(() => routeBody({ destination: 'default', linkIndex: 1 }), { name: 'KernelError', code: 'EINVAL' });
  assert.throws(() => routeBody({ destination: '10.0.0.0/8', linkIndex: 1, gateway: 'fe80::1' }), {
    name: 'KernelError',
    code: 'EINVAL',
  });
});

test('whatever bytes come as a link, address or route, decoding ends in a value or in EBADMSG', { timeout }, () => {
  const attributes = fc.array(
    fc.tuple(fc.constantFrom(1, 2, 3, 4, 5, 9, 10, 15, 18, 20, 26, 30, 37, 50, 52), fc.uint8Array({ maxLength: 40 })),
    { maxLength: 12 },
  );
  const family = fc.constantFrom(0, 2, 10);
  fc.assert(
    fc.property(family, fc.uint8Array({ maxLength: 16 }), attributes, fc.nat(200), (first, header, list, cut) => {
      const whole = Buffer.concat([
        Buffer.from([first]),
        header,
        ...list.map(([type, value]) => encodeAttribute(type, value)),
      ]);
      for (const body of [whole, whole.subarray(0, cut)]) {
        for (const decode of [decodeLink, decodeAddress, decodeRoute]) decodesOrRefuses(() => decode(message(body)));
      }
    }),
    { numRuns: 3000 },
  );
});
