/** A picture of very many containers, made as the command line makes it. */
import { gridsOf, type PictureFacts } from '../../src/commands/picturegrids.ts';
import { treeOf } from '../../src/commands/picturetree.ts';
import type { Conflict, Endpoint, Lease, Network } from '../../src/model.ts';
import { readNetworkOptions } from '../../src/network/options.ts';
import type { Picture } from '../../src/page/picture.ts';
import { interfaceAddress } from './addresses.ts';

const AT = '2026-11-30T00:00:00.000Z';
const SPACE = 'TsmacvlanLocal';

/** So many containers in 10.9.0.0/16, each with a lease, and a conflict for each hundredth. */
export function crowdedPicture(count: number): Picture {
  const network: Network = {
    id: 'a'.repeat(64),
    options: readNetworkOptions({ parent: 'eth0' }),
    parent: { name: 'eth0', made: false, promiscuous: false, recipe: null },
    internal: false,
    subnets: [{ addressSpace: SPACE, subnet: '10.9.0.0/16', gateway: '10.9.255.254', realm: SPACE }],
    hostAddresses: [],
    createdAt: AT,
  };
  const pool = {
    id: `${SPACE}/10.9.0.0/16`,
    addressSpace: SPACE,
    subnet: '10.9.0.0/16',
    range: null,
    options: {},
    networkId: network.id,
    createdAt: AT,
    changedAt: AT,
  };
  const addresses = Array.from({ length: count }, (_, index) => `10.9.${(index + 1) >> 8}.${(index + 1) & 255}`);
  const endpoints = addresses.map((address, index): Endpoint => {
    const id = index.toString(16).padStart(64, '0');
    const macAddress = `02:42:0a:09:${hex((index + 1) >> 8)}:${hex((index + 1) & 255)}`;
    return {
      id,
      networkId: network.id,
      state: 'joined',
      parent: 'eth0',
      linkName: 'tsm',
      macAddress,
      addresses: [interfaceAddress(`${address}/16`)],
      interfaceName: null,
      changedAt: AT,
    };
  });
  const leases = endpoints.map(
    ({ id }, index): Lease => ({
      realm: SPACE,
      address: addresses[index] ?? '',
      kind: 'container',
      poolIds: [pool.id],
      endpointId: id,
      changedAt: AT,
    }),
  );
  const conflicts = endpoints
    .filter((_, index) => index % 100 === 0)
    .map(
      ({ macAddress }, index): Conflict => ({
        kind: 'address',
        parent: 'eth0',
        address: addresses[index * 100] ?? '',
        macAddress: '3c:22:fb:10:aa:01',
        ourMacAddress: macAddress,
        hostLink: null,
        count: 1,
        firstSeenAt: AT,
        seenAt: AT,
        endedAt: null,
      }),
    );
  const facts: PictureFacts = {
    records: { networks: [network], endpoints, pools: [pool], leases, conflicts, names: [], tenancies: [] },
    own: [],
    elsewhere: [],
    uses: new Map(),
    networkName: () => 'lan',
    containerName: (id) => `container-${Number.parseInt(id, 16)}`,
  };
  return {
    at: AT,
    host: 'one',
    remarks: [],
    tree: treeOf({ ...facts, troubles: new Map(), stopped: new Map(), filteredParents: [] }),
    grids: gridsOf(facts),
    conflicts: [],
  };
}

/** The same picture, in which so many other subnets have the squares of a small one. */
export function manySubnetsPicture(count: number): Picture {
  const { grids, ...rest } = crowdedPicture(100);
  const [first] = grids;
  if (first === undefined) throw new Error('the crowd has no subnet');
  const subnets = Array.from({ length: count }, (_, index) => {
    const [high, low] = [index >> 8, index & 255];
    const start = (10 << 24) + (high << 16) + (low << 8);
    return {
      ...first,
      id: `eth0 ${index}`,
      title: `net${index} · 10.${high}.${low}.0/24`,
      first: String(start),
      size: '256',
    };
  });
  return { ...rest, grids: subnets };
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}
