/** What is remarked of a network is told by the host's own view alone, and nothing of a sound one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Network } from '../../src/model.ts';
import { readNetworkOptions } from '../../src/network/options.ts';
import { type HostView, remarksOn } from '../../src/remarks.ts';
import { network } from './commands/fixture.ts';

const eth0 = { name: 'eth0', index: 2, isUp: true, hasCarrier: true };
const sound: HostView = {
  parent: eth0,
  addresses: [{ linkIndex: 2, address: '192.168.1.9', prefixLength: 24 }],
  routes: [
    { linkIndex: 2, destination: '192.168.1.0/24', gateway: null },
    { linkIndex: 2, destination: 'default', gateway: '192.168.1.1' },
    { linkIndex: 7, destination: '192.168.1.64/32', gateway: null },
    { linkIndex: 9, destination: '10.9.0.0/16', gateway: null },
  ],
  nameOf: (index) => `link${index}`,
};
const on = (subnet: string, more: Partial<Network> = {}): Network => ({
  ...network,
  subnets: [{ addressSpace: '', subnet, gateway: subnet.replace(/0\/\d+$/, '1'), realm: null }],
  ...more,
});
const shorts = (one: Network, view: Partial<HostView> = {}) =>
  remarksOn(one, { ...sound, ...view }).map(({ short }) => short);

test('of a network on the LAN of its parent there is nothing to say', () => {
  assert.deepEqual(shorts(network), []);
  assert.deepEqual(shorts(on('192.168.0.0/16')), []);
  assert.deepEqual(shorts(on('fd00::/64')), []);
  assert.deepEqual(shorts(on('198.51.100.0/24'), { addresses: [] }), [], 'nobody knows which LAN it is');
  assert.deepEqual(shorts(on('0.0.0.0/0')), [], 'of an IPAM that gives no addresses');
});

test('a parent that is gone, down or without a cable, and one that was never named', () => {
  assert.deepEqual(shorts(network, { parent: undefined }), ['eth0 is not there']);
  assert.deepEqual(shorts(network, { parent: { ...eth0, isUp: false, hasCarrier: false } }), ['eth0 is down']);
  assert.deepEqual(shorts(network, { parent: { ...eth0, hasCarrier: false } }), ['eth0 has no carrier']);
  const isolated = { ...network, parent: { ...network.parent, recipe: 'isolated' } } as const;
  assert.deepEqual(shorts(isolated), ['no parent: containers reach only each other']);
  assert.deepEqual(shorts({ ...isolated, internal: true }), [], 'meant so');
});

test('a subnet that is not the one of the parent, unless containers have no gateway', () => {
  const foreign = 'not the subnet of eth0, on which this host has 192.168.1.9/24';
  assert.deepEqual(shorts(on('198.51.100.0/24')), [foreign]);
  assert.deepEqual(shorts(on('198.51.100.0/24', { internal: true })), []);
  const options = readNetworkOptions({ parent: 'eth0', gateway: 'none' });
  assert.deepEqual(shorts(on('198.51.100.0/24', { options })), []);
});

test('a network whose containers get no gateway though nobody said so', () => {
  const [none] = shorts({
    ...network,
    subnets: [{ addressSpace: '', subnet: '192.168.1.0/24', gateway: null, realm: null }],
  });
  assert.equal(none, 'no gateway: containers get no IPv4 default route');
  const without = { addressSpace: '', gateway: null, realm: null };
  const meant = [
    { ...network, internal: true },
    { ...network, options: readNetworkOptions({ parent: 'eth0', gateway: 'none' }) },
    { ...network, options: readNetworkOptions({ parent: 'eth0', gateway: 'ipv6' }) },
  ];
  for (const one of meant)
    assert.deepEqual(shorts({ ...one, subnets: [{ ...without, subnet: '192.168.1.0/24' }] }), []);
  const [first] = network.subnets;
  for (const subnets of [[{ ...without, subnet: '0.0.0.0/0' }], [{ ...without, subnet: 'fd00::/64' }]])
    assert.deepEqual(shorts({ ...network, subnets }), []);
  const one = { ...without, subnet: '192.168.1.0/25' };
  assert.deepEqual(shorts({ ...network, subnets: [one, ...(first ? [first] : [])] }), [], 'another subnet has one');
});

test('a subnet that this host reaches by another link, wider or narrower', () => {
  const elsewhere = 'this host reaches 10.9.0.0/16 by link9, not by eth0';
  assert.equal(shorts(on('10.9.5.0/24'))[1], elsewhere);
  assert.equal(shorts(on('10.0.0.0/8'))[1], elsewhere);
  const both = [...sound.routes, { linkIndex: 2, destination: '10.9.5.0/24', gateway: null }];
  assert.equal(shorts(on('10.9.5.0/24'), { routes: both })[1], undefined);
});

test('each says what to do, with the words for the LAN where they are known', () => {
  const [{ todo = '' } = {}] = remarksOn(on('198.51.100.0/24'), sound);
  assert.equal(
    todo,
    'create it again with --subnet 192.168.1.0/24 --gateway 192.168.1.1, unless that LAN has several subnets',
  );
  const [{ todo: less = '' } = {}] = remarksOn(on('198.51.100.0/24'), { ...sound, routes: [] });
  assert.match(less, /^create it again with --subnet 192\.168\.1\.0\/24 and the --gateway of that LAN, unless /);
  for (const { todo } of remarksOn(on('10.9.5.0/24'), sound)) assert.match(todo, /^create it again /);
});
