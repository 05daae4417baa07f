/** The commands that only look: each reads some records and prints a table, a picture or JSON. */
import { networkInterfaces } from 'node:os';
import { type Address, contains, formatAddress, inOrderOfAddress, parseAddress, parsePrefix } from '../address.ts';
import { conflictsOf } from '../contested.ts';
import * as errors from '../errors.ts';
import { keptOf } from '../ipam/kept.ts';
import type { Conflict, Endpoint, Lease, Network, Tenancy, TenancyIPv6 } from '../model.ts';
import { drawMap } from '../map.ts';
import type { Naming } from '../naming.ts';
import { readRemarks } from '../network/hostview.ts';
import type { NetworkRemark } from '../remarks.ts';
import { SETTINGS } from '../settings.ts';
import { writtenEndpoint } from '../store/codec.ts';
import {
  conflictRow,
  endpointRow,
  keptRow,
  leaseRow,
  NOT_LEASED,
  networkRow,
  print,
  printJson,
  table,
  tenancyRow,
} from '../tables.ts';
import type { Options } from './command.ts';
import { withNaming } from './docker.ts';
import { leaseEnd, remaining } from './leasewords.ts';
import { readRecords } from './records.ts';

type Form = Pick<Options, 'json' | 'no-trunc'>;

/** `map` */
export async function map(options: Form): Promise<void> {
  const seen = readRecords('networks', 'endpoints', 'conflicts', 'names', 'pools', 'tenancies');
  const [[{ networks: known, endpoints: all, filteredParents, ...records }, naming], remarksOf] = await Promise.all([
    withNaming(seen, options),
    remarksHere(),
  ]);
  const lasting = records.conflicts.filter(({ endedAt }) => endedAt === null);
  if (options.json) {
    const named = known.map((network) => ({
      ...network,
      name: naming.nameOf(network.id),
      remarks: remarksOf(network),
    }));
    const leaseOf = ({ id }: Endpoint) => {
      const tenancy = records.tenancies.find(({ endpointId }) => endpointId === id);
      return tenancy && { server: tenancy.server, until: leaseEnd(tenancy), state: tenancy.state, loss: tenancy.loss };
    };
    const shown = all.map((endpoint) => ({ ...endpointIn(naming)(endpoint), lease: leaseOf(endpoint) ?? null }));
    return printJson({ networks: named, endpoints: shown, conflicts: lasting, filteredParents });
  }
  const leases = new Map(records.tenancies.map((one) => [one.endpointId, remaining(one, Date.now())]));
  const keptFor = (networkId: string, name: string) => {
    const poolIds = records.pools.filter((pool) => pool.networkId === networkId).map(({ id }) => id);
    return records.names
      .filter((one) => one.name === name && poolIds.includes(one.poolId))
      .map(({ address }) => address);
  };
  print(
    drawMap(known, all, {
      filtered: filteredParents,
      conflicts: lasting,
      hostsOf,
      naming,
      keptFor,
      remarksOf,
      leases,
    }) || 'no networks\n',
  );
}

/** As data, with the names of its container and its network; null where Docker does not say them. */
function endpointIn(naming: Naming) {
  return (endpoint: Endpoint) => ({
    ...writtenEndpoint(endpoint),
    container: naming.known.containers.get(endpoint.id) ?? null,
    networkName: naming.nameOf(endpoint.networkId),
  });
}

/** Host access reaches this host at its own addresses on the parent too, as far as they lie in the network's subnets. */
function hostsOf({ hostAddresses, parent, subnets }: Network): string[] {
  if (hostAddresses.length === 0) return [];
  const isInside = (text: string) => {
    const address = parseAddress(text);
    return address !== undefined && subnets.some(({ subnet }) => isWithin(subnet, address));
  };
  const own = (networkInterfaces()[parent.name] ?? []).map(({ address }) => address).filter(isInside);
  return [...new Set([...hostAddresses, ...own])];
}

function isWithin(subnet: string, address: Address): boolean {
  const prefix = parsePrefix(subnet);
  return prefix !== undefined && contains(prefix, address);
}

/** `endpoints` */
export async function endpoints(options: Form): Promise<void> {
  const [{ endpoints: all }, naming] = await withNaming(readRecords('endpoints'), options);
  const sorted = inOrderOfAddress(all, ({ addresses }) => addresses[0]);
  if (options.json) printJson(sorted.map(endpointIn(naming)));
  else print(table(sorted.map((endpoint) => endpointRow(endpoint, naming))));
}

/** `networks` */
export async function networks(options: Form): Promise<void> {
  const records = readRecords('networks', 'endpoints', 'conflicts');
  const [[{ networks: known, endpoints: all, ...seen }, naming], remarksOf] = await Promise.all([
    withNaming(records, options),
    remarksHere(),
  ]);
  const isFiltered = ({ parent }: Network) => seen.filteredParents.includes(parent.name);
  const conflictsIn = ({ id }: Network) =>
    all.filter(({ networkId }) => networkId === id).flatMap((endpoint) => conflictsOf(endpoint, seen.conflicts));
  if (options.json)
    return printJson(
      known.map((network) => ({
        ...network,
        name: naming.nameOf(network.id),
        isPortFiltered: isFiltered(network),
        remarks: remarksOf(network),
      })),
    );
  const row = (network: Network) =>
    networkRow(network, isFiltered(network), hostsOf(network), conflictsIn(network), naming);
  const notes = known.flatMap((network) =>
    remarksOf(network).map(({ short, todo }) => `${naming.network(network.id)}: ${short}; ${todo}`),
  );
  // Names of links come from elsewhere too.
  print([table(known.map(row)), ...notes.map((note) => `${errors.escapeControls(note)}\n`)].join(''));
}

/** Nothing where the kernel cannot be asked. */
async function remarksHere(): Promise<(network: Network) => readonly NetworkRemark[]> {
  const { Links } = await import('../kernel/link.ts');
  try {
    const links = Links.open();
    return await readRemarks(links).finally(() => links.close());
  } catch {
    return () => [];
  }
}

/** `leases`: each with the conflict that its container has; and what is kept for containers that are not there. */
export async function leases(options: Form): Promise<void> {
  const records = readRecords('leases', 'pools', 'names', 'endpoints', 'conflicts', 'tenancies');
  const [seen, naming] = await withNaming(records, options);
  const poolsById = new Map(seen.pools.map((pool) => [pool.id, pool]));
  const endpointsById = new Map(seen.endpoints.map((endpoint) => [endpoint.id, endpoint]));
  const bare = (address: string) => address.replace(/\/.*/, '');
  const conflictOf = ({ endpointId, address }: Pick<Lease, 'endpointId' | 'address'>): Conflict | null => {
    const endpoint = endpointsById.get(endpointId ?? '');
    return (endpoint && conflictsOf(endpoint, seen.conflicts).find((one) => one.address === bare(address))) ?? null;
  };
  const networksIn = (named: Naming, poolIds: readonly string[]) => {
    const networkIds = poolIds.flatMap((id) => poolsById.get(id)?.networkId ?? []);
    return { networkIds, networkNames: networkIds.map((id) => named.nameOf(id)) };
  };
  const kept = keptOf(seen.leases, seen.names);
  const written = seen.leases.map((lease) => ({
    ...lease,
    container: naming.known.containers.get(lease.endpointId ?? '') ?? null,
    ...networksIn(naming, lease.poolIds),
    isReserved: kept.reservedFor(lease) !== null,
    reservedFor: kept.reservedFor(lease),
    conflict: conflictOf(lease),
  }));
  const idle = kept.idle.map(({ poolId, ...one }) => ({ ...one, ...networksIn(naming, [poolId]) }));
  const leased = seen.tenancies
    .flatMap((one) => [tenancyIn(one, naming), ...ipv6In(one, naming)])
    .map((one) => ({ ...one, conflict: conflictOf(one) }));
  // With our IPAM it is a lease of both.
  const isTold = ({ kind, address, networkIds }: (typeof written)[number]) =>
    kind === 'container' && leased.some((one) => networkIds.includes(one.networkId) && bare(one.address) === address);
  const all = inOrderOfAddress([...written.filter((one) => !isTold(one)), ...idle, ...leased], ({ address }) =>
    parseAddress(bare(address)),
  );
  if (options.json) return printJson(all);
  const beside = leased.length === 0 ? {} : NOT_LEASED;
  const rows = all.map((one) => {
    if ('source' in one) return tenancyRow(one, one.conflict, naming);
    return 'endpointId' in one
      ? { ...leaseRow(one, one.reservedFor, one.conflict, one.networkIds, naming), ...beside }
      : { ...keptRow(one, one.networkIds, naming), ...beside };
  });
  print(table(rows));
}

/** A lease of a DHCP server, and when it ends: null where it does not. */
function tenancyIn({ ipv6: _beside, ...tenancy }: Tenancy, naming: Naming) {
  const { endpointId, networkId } = tenancy;
  return {
    source: 'dhcp' as 'dhcp' | TenancyIPv6['how'],
    ...tenancy,
    until: leaseEnd(tenancy),
    container: naming.known.containers.get(endpointId ?? '') ?? null,
    networkIds: [networkId],
    networkNames: [naming.nameOf(networkId)],
  };
}

/** The IPv6 address that goes with it, in the same shape. How long one of a router's prefix lives the container's kernel knows alone. */
function ipv6In(tenancy: Tenancy, naming: Naming): ReturnType<typeof tenancyIn>[] {
  const { ipv6 } = tenancy;
  if (ipv6 === undefined) return [];
  const { loss: _loss, ...lease } = tenancyIn(tenancy, naming);
  const { how: source, address, server, obtainedAt } = ipv6;
  const isLeased = ipv6.how === 'dhcpv6';
  const state = tenancy.state === 'aside' ? 'aside' : isLeased ? ipv6.state : 'bound';
  const loss = state === 'lost' && isLeased && ipv6.loss !== undefined ? { loss: ipv6.loss } : {};
  return [{ ...lease, source, address, server, obtainedAt, until: isLeased ? leaseEnd(ipv6) : null, state, ...loss }];
}

/** What was typed as an address, as it is recorded; null for none. Throws USAGE. */
export function addressTyped(typed: string): string | null {
  const address = typed === '' ? null : parseAddress(typed);
  if (address === undefined) throw errors.conflictsUsage(typed);
  return address && formatAddress(address);
}

/** `conflicts`: of all addresses, or of one. */
export async function conflicts(options: Form, typed: string): Promise<void> {
  const wanted = addressTyped(typed);
  const records = readRecords('conflicts', 'endpoints');
  const [{ conflicts: known, endpoints: all }, naming] = await withNaming(records, options);
  const some = wanted === null ? known : known.filter(({ address }) => address === wanted);
  const shown = inOrderOfAddress(some, ({ address }) => parseAddress(address));
  const containerIn = ({ parent, ourMacAddress }: Conflict) =>
    all.find((one) => one.parent === parent && one.macAddress === ourMacAddress && one.state !== 'deleting')?.id ??
    null;
  if (options.json)
    return printJson(
      shown.map((one) => ({ ...one, container: naming.known.containers.get(containerIn(one) ?? '') ?? null })),
    );
  print(table(shown.map((one) => conflictRow(one, naming.container(containerIn(one))))));
}

/** `settings` */
export async function settings({ json }: Pick<Options, 'json'>): Promise<void> {
  const rows = Object.values(SETTINGS);
  if (json) return printJson(rows);
  const cells = rows.map(({ name, fallback, allowed, meaning }) => ({
    SETTING: name,
    DEFAULT: fallback || '-',
    VALUES: allowed?.join(' ') ?? '-',
    MEANING: meaning,
  }));
  print(table(cells));
}
