/** Records to store, whole and distinct. */
import type { Endpoint, Network, Pool, Tenancy } from '../../../src/model.ts';
import { readNetworkOptions } from '../../../src/network/options.ts';

export function networkRecord(id: string): Network {
  return {
    id,
    options: readNetworkOptions({ parent: 'eth0.10' }),
    parent: {
      name: 'eth0.10',
      made: true,
      promiscuous: false,
      recipe: { base: 'eth0', vlan: [10], protocol: '802.1q' },
    },
    internal: false,
    subnets: [{ addressSpace: 'LocalDefault', subnet: '192.168.1.0/24', gateway: '192.168.1.1', realm: null }],
    hostAddresses: [],
    createdAt: '2026-11-20T10:00:00.000Z',
  };
}

export function endpointRecord(id: string): Endpoint {
  return {
    id,
    networkId: 'n1',
    state: 'created',
    parent: 'eth0.10',
    linkName: 'tsm0123456789',
    macAddress: '02:42:c0:a8:01:02',
    addresses: [
      { family: 'IPv4', value: 0xc0a80102n, length: 24 },
      { family: 'IPv6', value: (0xfd00n << 112n) + 2n, length: 64 },
    ],
    interfaceName: null,
    changedAt: '2026-11-20T10:00:00.000Z',
  };
}

export function poolRecord(id: string): Pool {
  return {
    id,
    addressSpace: 'LocalDefault',
    subnet: '192.168.1.0/24',
    range: '192.168.1.64/26',
    options: { parent: 'eth0.10', exclude: '192.168.1.70' },
    networkId: null,
    createdAt: '2026-11-20T10:00:00.000Z',
    changedAt: '2026-11-20T10:00:00.000Z',
  };
}

/** Of an endpoint on eth0 that has its lease. */
export function tenancyRecord(endpointId: string): Tenancy {
  return {
    parent: 'eth0',
    macAddress: '02:42:c0:a8:01:02',
    networkId: 'n1',
    owner: null,
    endpointId,
    hostname: null,
    address: '192.168.1.2/24',
    server: '192.168.1.1',
    serverMac: '02:00:00:00:00:01',
    leaseSeconds: 3600,
    t1Seconds: null,
    t2Seconds: null,
    obtainedAt: '2026-11-30T10:00:00.000Z',
    routers: [],
    routes: null,
    dnsServers: [],
    domain: null,
    mtu: null,
    state: 'bound',
    changedAt: '2026-11-30T10:00:00.000Z',
  };
}
