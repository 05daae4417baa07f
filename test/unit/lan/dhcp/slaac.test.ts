import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, formatPrefix, linkLocalOfMac, parsePrefix } from '../../../../src/address.ts';
import { type HeardAdvertisement, advertisedIn, isAlive, slaacAddress } from '../../../../src/lan/dhcp/slaac.ts';
import { decodeRouterAdvertisement } from '../../../../src/lan/frames/ra.ts';
import { ip } from '../frames/dhcpanswers.ts';
import { type AdvertisementSpec, advertisementFrame } from '../frames/raframes.ts';

const [ONE, TWO] = ['3c:22:fb:00:00:01', '3c:22:fb:00:00:02'];

function heard(spec: AdvertisementSpec, heardAtMs = 0): HeardAdvertisement {
  const advertisement = decodeRouterAdvertisement(advertisementFrame(spec));
  assert.ok(advertisement !== undefined);
  return { advertisement, heardAtMs };
}

function chosen(advertisements: readonly HeardAdvertisement[], nowMs = 1000, last: string | null = null) {
  const { prefix, router } = advertisedIn(advertisements, nowMs, last === null ? null : ip(last));
  return prefix === null || router === null ? null : `${formatPrefix(prefix)} of ${formatAddress(router)}`;
}

const of = (mac: string) => formatAddress(linkLocalOfMac(mac));

test('the address has the MAC address in it, as the kernel makes it', () => {
  const address = slaacAddress(parsePrefix('2001:db8:1::/64')!, '02:42:5e:10:00:11');
  assert.equal(formatAddress(address), '2001:db8:1:0:42:5eff:fe10:11');
});

test('only an autonomous prefix of 64 bits that is preferred still makes addresses', () => {
  const prefixes = [
    { prefix: 'fd77:1::/64', isAutonomous: false },
    { prefix: 'fd77:2::/56' },
    { prefix: 'fd77:3::/64', preferredSeconds: 0 },
    { prefix: '::/64' },
    { prefix: 'fd77:4::/64' },
  ];
  assert.equal(chosen([heard({ prefixes })]), `fd77:4::/64 of ${of(ONE)}`);
  assert.equal(chosen([heard({ prefixes: prefixes.slice(0, 4) })]), null);
  assert.equal(chosen([heard({ prefixes })], 299_000), `fd77:4::/64 of ${of(ONE)}`);
  assert.equal(chosen([heard({ prefixes })], 300_000), null);
  const forever = { prefix: 'fd77:5::/64', validSeconds: 0xffff_ffff, preferredSeconds: 0xffff_ffff };
  assert.equal(chosen([heard({ prefixes: [forever] })], 1e15), `fd77:5::/64 of ${of(ONE)}`);
});

test('what was said last goes before what is older, and the prefix of the last address before both', () => {
  const older = heard({ routerMac: ONE, prefixes: [{ prefix: 'fd77:1::/64' }] }, 10);
  const newer = heard({ routerMac: TWO, prefixes: [{ prefix: 'fd77:2::/64' }] }, 20);
  for (const both of [
    [older, newer],
    [newer, older],
  ]) {
    assert.equal(chosen(both), `fd77:2::/64 of ${of(TWO)}`);
    assert.equal(chosen(both, 1000, 'fd77:1::9'), `fd77:1::/64 of ${of(ONE)}`);
    assert.equal(chosen(both, 1000, 'fd77:9::9'), `fd77:2::/64 of ${of(TWO)}`);
  }
});

test('a prefix that one router does not prefer any more is none for new addresses, also where another one said so before', () => {
  const before = heard({ routerMac: ONE, prefixes: [{ prefix: 'fd77:1::/64' }] }, 10);
  const after = heard({ routerMac: TWO, prefixes: [{ prefix: 'fd77:1::/64', preferredSeconds: 0 }] }, 20);
  assert.equal(chosen([before, after], 1000, 'fd77:1::9'), null);
  assert.equal(chosen([{ ...before, heardAtMs: 30 }, after]), `fd77:1::/64 of ${of(ONE)}`);
});

test('a router that does not want addresses of a prefix ends nothing that another one says of it', () => {
  const one = heard({ routerMac: ONE, prefixes: [{ prefix: 'fd77:1::/64' }] }, 10);
  const other = heard({ routerMac: TWO, prefixes: [{ prefix: 'fd77:1::/64', isAutonomous: false }] }, 20);
  assert.equal(chosen([one, other]), `fd77:1::/64 of ${of(ONE)}`);
});

test('an advertisement counts as long as its router is one or its prefix is valid', () => {
  const router = heard({ lifetimeSeconds: 10 });
  assert.deepEqual([isAlive(router, 9999), isAlive(router, 10_000)], [true, false]);
  const prefix = heard({
    lifetimeSeconds: 0,
    prefixes: [{ prefix: 'fd77:1::/64', validSeconds: 20, preferredSeconds: 5 }],
  });
  assert.deepEqual([isAlive(prefix, 19_999), isAlive(prefix, 20_000)], [true, false]);
  assert.equal(isAlive(heard({ lifetimeSeconds: 0 }), 0), false);
});

test('one of several routers that leaves addresses to a DHCPv6 server is enough', () => {
  const advertised = advertisedIn([heard({ routerMac: ONE }), heard({ routerMac: TWO, isManaged: true })], 0, null);
  assert.deepEqual(advertised, { prefix: null, router: null, isManaged: true });
});
