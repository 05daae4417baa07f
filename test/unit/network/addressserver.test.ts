/** What is learned of a DHCP server. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, formatPrefix } from '../../../src/address.ts';
import { LanAddressServer, type AddressServerParts } from '../../../src/network/addressserver.ts';
import { leaseIn } from '../../../src/network/tenancyrecord.ts';
import { ip } from '../lan/frames/dhcpanswers.ts';
import { tenancyRecord } from '../store/records.ts';

test('the gateway is the first router that a host of the subnet can be', async () => {
  const offered = { ...leaseIn(tenancyRecord('e1'))!.lease, address: ip('10.77.0.9'), prefixLength: 24 };
  const learn = async (...routers: string[]) => {
    const dhcp = { timeout: 5, offer: async () => ({ ...offered, routers: routers.map(ip) }) };
    const links = { known: async () => ({ macAddress: '02:00:5e:10:00:aa' }) };
    const server = new LanAddressServer({ dhcp, links, parentAliases: new Map() } as unknown as AddressServerParts);
    const { subnet, gateway } = await server.learn('eth0', null);
    return [formatPrefix(subnet), gateway && formatAddress(gateway)];
  };
  assert.deepEqual(await learn('10.78.0.1', '10.77.0.0', '10.77.0.255', '10.77.0.1'), ['10.77.0.0/24', '10.77.0.1']);
  assert.deepEqual(await learn('10.77.0.255'), ['10.77.0.0/24', null]);
});
