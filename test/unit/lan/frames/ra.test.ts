import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, formatPrefix, linkLocalOfMac } from '../../../../src/address.ts';
import { decodeRouterAdvertisement, routerSolicitation } from '../../../../src/lan/frames/ra.ts';
import { frameBytes, mac } from './arbitraries.ts';
import { ip } from './dhcpanswers.ts';
import { ROUTER_MAC, type AdvertisementSpec, advertisementFrame, prefixOption } from './raframes.ts';

const options = { timeout: 20_000 };
const MAC = '02:42:5e:10:00:11';

const spec: AdvertisementSpec = {
  isManaged: true,
  lifetimeSeconds: 1800,
  prefixes: [
    { prefix: '2001:db8:1::/64', validSeconds: 7200, preferredSeconds: 3600 },
    { prefix: 'fd77:1::5/56', isAutonomous: false },
  ],
};

function prefixesIn(frame: Buffer): string[] | undefined {
  return decodeRouterAdvertisement(frame)?.prefixes.map(({ prefix }) => formatPrefix(prefix));
}

test(
  'a solicitation goes to all routers, from the link-local address and the MAC address of the container',
  options,
  () => {
    const frame = routerSolicitation(MAC);
    assert.equal(
      frame.toString('hex'),
      '333300000002' +
        '02425e100011' +
        '86dd' +
        '6000000000103aff' +
        'fe8000000000000000425efffe100011' +
        'ff020000000000000000000000000002' +
        `8500${frame.toString('hex', 56, 58)}00000000` +
        '010102425e100011',
    );
  },
);

test(
  'an advertisement says whose it is, whether DHCPv6 gives addresses, and what of a prefix counts for how long',
  options,
  () => {
    const read = decodeRouterAdvertisement(advertisementFrame(spec));
    assert.ok(read !== undefined);
    const { prefixes, router, ...rest } = read;
    assert.deepEqual(rest, { protocol: 'RA', sourceMac: ROUTER_MAC, isManaged: true, lifetimeSeconds: 1800 });
    assert.deepEqual(router, linkLocalOfMac(ROUTER_MAC));
    assert.deepEqual(
      prefixes.map(({ prefix, ...one }) => ({ ...one, prefix: formatPrefix(prefix) })),
      [
        { prefix: '2001:db8:1::/64', isAutonomous: true, validSeconds: 7200, preferredSeconds: 3600 },
        { prefix: 'fd77:1::/56', isAutonomous: false, validSeconds: 600, preferredSeconds: 300 },
      ],
    );
  },
);

test('one that a router passed on, that is damaged, or that is from no link-local address is none', options, () => {
  assert.equal(decodeRouterAdvertisement(advertisementFrame({ ...spec, hopLimit: 254 })), undefined);
  assert.equal(decodeRouterAdvertisement(advertisementFrame({ ...spec, router: ip('2001:db8::1') })), undefined);
  assert.equal(decodeRouterAdvertisement(advertisementFrame({ ...spec, router: ip('::') })), undefined);
  const whole = advertisementFrame(spec);
  for (let at = 14; at < whole.length; at++) {
    const damaged = Buffer.from(whole);
    damaged.writeUInt8(damaged.readUInt8(at) ^ 0x01, at);
    // Traffic class, flow label: nobody's checksum is over those.
    if (![14, 15, 16, 17].includes(at)) assert.equal(decodeRouterAdvertisement(damaged), undefined, `byte ${at}`);
  }
});

test('cut off anywhere it is none', options, () => {
  const whole = advertisementFrame(spec);
  for (let length = 0; length < whole.length; length++)
    assert.equal(decodeRouterAdvertisement(whole.subarray(0, length)), undefined, `${length} bytes`);
});

test('options without a length or beyond the end are refused, and those that are unknown passed over', options, () => {
  const known = prefixOption({ prefix: 'fd77:1::/64' });
  const of = (...parts: Buffer[]) => prefixesIn(advertisementFrame({ rawOptions: Buffer.concat(parts) }));
  assert.deepEqual(of(known, Buffer.from('fe01000000000000', 'hex')), ['fd77:1::/64']);
  assert.equal(of(Buffer.from('0300000000000000', 'hex'), known), undefined);
  assert.equal(of(known, Buffer.from('03ff000000000000', 'hex')), undefined);
  assert.equal(of(known, Buffer.from('03', 'hex')), undefined);
  // A prefix option that is longer or shorter than the RFC's says nothing.
  assert.deepEqual(of(Buffer.concat([Buffer.of(3, 5), known.subarray(2), Buffer.alloc(8)]), known), ['fd77:1::/64']);
  assert.deepEqual(of(Buffer.concat([Buffer.of(3, 3), known.subarray(2, 24)])), []);
});

test('prefixes that hosts leave alone are left out, and of very many the first are taken', options, () => {
  const long = prefixOption({ prefix: 'fd77::/64' });
  long.writeUInt8(200, 2);
  const wrong = ['fe80::/64', 'ff02::/64'].map((prefix) => prefixOption({ prefix }));
  const senseless = prefixOption({ prefix: 'fd77:2::/64', validSeconds: 10, preferredSeconds: 11 });
  const good = prefixOption({ prefix: 'fd77:1::/64' });
  const rawOptions = Buffer.concat([...wrong, long, senseless, good]);
  assert.deepEqual(prefixesIn(advertisementFrame({ rawOptions })), ['fd77:1::/64']);
  const many = Array.from({ length: 1000 }, (_, number) => ({ prefix: `fd77:${number.toString(16)}::/64` }));
  assert.equal(prefixesIn(advertisementFrame({ prefixes: many }))?.length, 48);
});

test('whatever bytes come, nothing is thrown, and no prefix lives longer than it is valid', options, () => {
  const written = fc
    .uint8Array({ maxLength: 200 })
    .map((bytes) => advertisementFrame({ rawOptions: Buffer.from(bytes) }));
  fc.assert(
    fc.property(fc.oneof(frameBytes, written), (bytes) => {
      for (const one of decodeRouterAdvertisement(bytes)?.prefixes ?? [])
        assert.ok(one.preferredSeconds <= one.validSeconds);
    }),
  );
  fc.assert(
    fc.property(mac, (routerMac) => {
      const router = decodeRouterAdvertisement(advertisementFrame({ routerMac }))?.router;
      assert.match(formatAddress(router ?? ip('::')), /^fe80::/);
    }),
  );
});
