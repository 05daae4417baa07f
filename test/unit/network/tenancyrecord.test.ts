/** Which of the routes of a lease a container gets: what its kernel refuses would keep it from starting. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readNetworkOptions } from '../../../src/network/options.ts';
import { routesOf } from '../../../src/network/tenancyrecord.ts';
import { networkRecord, tenancyRecord } from '../store/records.ts';

const network = { ...networkRecord('n1'), options: readNetworkOptions({ parent: 'eth0', source: 'dhcp' }) };

/** `10.9.0.0/16 192.168.1.254`, or a destination alone that is on the LAN itself. */
function routesIn(...texts: string[]) {
  const routes = texts.map((text) => {
    const [destination = '', gateway = null] = text.split(' ');
    return { destination, gateway };
  });
  const given = routesOf(network, { ...tenancyRecord('e1'), routes });
  return [given.gateway, ...given.routes.map(({ destination, gateway }) => [destination, gateway].join(' ').trim())];
}

test('a gateway is another host of the subnet of the lease', () => {
  for (const wrong of ['192.168.1.2', '192.168.1.0', '192.168.1.255', '192.168.2.1', '10.0.0.1'])
    assert.deepEqual(
      routesIn(`0.0.0.0/0 ${wrong}`, '0.0.0.0/0 192.168.1.7', `10.9.0.0/16 ${wrong}`),
      ['192.168.1.7'],
      wrong,
    );
});

test('no route leads to a gateway by another gateway', () => {
  const others = ['10.9.0.0/16 192.168.1.254', '192.168.0.0/16 192.168.1.254', '192.168.1.64/26'];
  const behind = ['192.168.1.254/32 192.168.1.1', '192.168.1.0/25 192.168.1.254', '192.168.1.0/24 192.168.1.254'];
  assert.deepEqual(routesIn(...behind, '0.0.0.0/0 192.168.1.1', ...others), ['192.168.1.1', ...others]);
});

test('a gateway that the network names goes before that of the server, where it is in the subnet of the lease', () => {
  const gatewayOf = (gateway: string) => {
    const options = readNetworkOptions({ parent: 'eth0', source: 'dhcp', gateway });
    return routesOf({ ...network, options }, { ...tenancyRecord('e1'), routers: ['192.168.1.1'] }).gateway;
  };
  assert.deepEqual(['192.168.1.7', '192.168.2.7', 'none'].map(gatewayOf), ['192.168.1.7', '192.168.1.1', null]);
});
