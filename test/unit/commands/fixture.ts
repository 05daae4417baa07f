/** What the commands that look are tried on: a network with one container. */
import type { Endpoint, LeasedIPv6, Network, Tenancy } from '../../../src/model.ts';
import { readNetworkOptions } from '../../../src/network/options.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { tenancyRecord } from '../store/records.ts';

export const when = '2026-11-20T00:00:00.000Z';
export const SPACE = 'TsmacvlanLocal';
export const [NETWORK, ENDPOINT] = ['a'.repeat(64), 'e'.repeat(64)];

export const network: Network = {
  id: NETWORK,
  options: readNetworkOptions({ parent: 'eth0' }),
  parent: { name: 'eth0', made: false, promiscuous: false, recipe: null },
  internal: false,
  subnets: [{ addressSpace: SPACE, subnet: '192.168.1.0/24', gateway: '192.168.1.1', realm: SPACE }],
  hostAddresses: [],
  createdAt: when,
};

export const endpoint: Endpoint = {
  id: ENDPOINT,
  networkId: NETWORK,
  state: 'joined',
  parent: 'eth0',
  linkName: 'tsm',
  macAddress: '02:42:c0:a8:01:40',
  addresses: [interfaceAddress('192.168.1.64/24')],
  interfaceName: null,
  changedAt: when,
};

/** The same container with a lease of a DHCP server. */
export const tenancy: Tenancy = {
  ...tenancyRecord(ENDPOINT),
  macAddress: endpoint.macAddress,
  networkId: NETWORK,
  owner: 'host:web',
  hostname: 'web',
  address: '192.168.1.64/24',
  leaseSeconds: 7200,
  obtainedAt: when,
  changedAt: when,
};

export const dhcp6Lease: LeasedIPv6 = {
  how: 'dhcpv6',
  address: 'fd77:1::50/128',
  server: '000300013c22fb000001',
  leaseSeconds: 600,
  t1Seconds: 150,
  t2Seconds: 240,
  obtainedAt: when,
  state: 'bound',
};
