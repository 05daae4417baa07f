/** The commands that only look: each reads some records and prints a table, a picture or JSON. */
import { networkInterfaces } from 'node:os';
import { type Address, contains, formatAddress, inOrderOfAddress, parseAddress, parsePrefix } from '../address.ts';
import { conflictsOf } from '../contested.ts';
import * as errors from '../errors.ts';
import { keptOf } from '../ipam/kept.ts';
import type { Conflict, Lease, Network } from '../model.ts';
import { drawMap } from '../map.ts';
import { SETTINGS } from '../settings.ts';
import { writtenEndpoint } from '../store/codec.ts';
import {
  conflictRow,
  endpointRow,
  keptRow,
  leaseRow,
  networkRow,
  poolRow,
  print,
  printJson,
  table,
} from '../tables.ts';
import type { Options } from './command.ts';
import { readRecords } from './records.ts';

type Form = Pick<Options, 'json'>;

/** `map` */
export async function map({ json }: Form): Promise<void> {
  const seen = await readRecords('networks', 'endpoints', 'conflicts');
  const { networks: known, endpoints: all, filteredParents } = seen;
  const lasting = seen.conflicts.filter(({ endedAt }) => endedAt === null);
  if (json) printJson({ networks: known, endpoints: all.map(writtenEndpoint), conflicts: lasting, filteredParents });
  else print(drawMap(known, all, { filtered: filteredParents, conflicts: lasting, hostsOf }) || 'no networks\n');
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
export async function endpoints({ json }: Form): Promise<void> {
  const { endpoints: all } = await readRecords('endpoints');
  const sorted = inOrderOfAddress(all, ({ addresses }) => addresses[0]);
  if (json) printJson(sorted.map(writtenEndpoint));
  else print(table(sorted.map(endpointRow)));
}

/** `pools` */
export async function pools({ json }: Form): Promise<void> {
  const { pools: all } = await readRecords('pools');
  const sorted = inOrderOfAddress(all, ({ subnet }) => firstOf(subnet));
  if (json) printJson(sorted);
  else print(table(sorted.map(poolRow)));
}

function firstOf(subnet: string): Address | undefined {
  const prefix = parsePrefix(subnet);
  return prefix && { family: prefix.family, value: prefix.first };
}

/** `networks` */
export async function networks({ json }: Form): Promise<void> {
  const { networks: known, endpoints: all, ...seen } = await readRecords('networks', 'endpoints', 'conflicts');
  const isFiltered = ({ parent }: Network) => seen.filteredParents.includes(parent.name);
  const conflictsIn = ({ id }: Network) =>
    all.filter(({ networkId }) => networkId === id).flatMap((endpoint) => conflictsOf(endpoint, seen.conflicts));
  if (json) return printJson(known.map((network) => ({ ...network, isPortFiltered: isFiltered(network) })));
  print(
    table(known.map((network) => networkRow(network, isFiltered(network), hostsOf(network), conflictsIn(network)))),
  );
}

/** `leases`: each with the conflict that its container has; and what is kept for containers that are not there. */
export async function leases({ json }: Form): Promise<void> {
  const seen = await readRecords('leases', 'pools', 'names', 'endpoints', 'conflicts');
  const poolsById = new Map(seen.pools.map((pool) => [pool.id, pool]));
  const endpointsById = new Map(seen.endpoints.map((endpoint) => [endpoint.id, endpoint]));
  const conflictOf = ({ endpointId, address }: Lease): Conflict | null => {
    const endpoint = endpointsById.get(endpointId ?? '');
    return (endpoint && conflictsOf(endpoint, seen.conflicts).find((one) => one.address === address)) ?? null;
  };
  const networksOf = (poolIds: readonly string[]) => poolIds.flatMap((id) => poolsById.get(id)?.networkId ?? []);
  const kept = keptOf(seen.leases, seen.names);
  const written = seen.leases.map((lease) => ({
    ...lease,
    networkIds: networksOf(lease.poolIds),
    isReserved: kept.reservedFor(lease) !== null,
    reservedFor: kept.reservedFor(lease),
    conflict: conflictOf(lease),
  }));
  const idle = kept.idle.map(({ poolId, ...one }) => ({ ...one, networkIds: networksOf([poolId]) }));
  const all = inOrderOfAddress([...written, ...idle], ({ address }) => parseAddress(address));
  if (json) return printJson(all);
  const rows = all.map((one) =>
    'endpointId' in one ? leaseRow(one, one.reservedFor, one.conflict, one.networkIds) : keptRow(one, one.networkIds),
  );
  print(table(rows));
}

/** What was typed as an address, as it is recorded; null for none. Throws USAGE. */
export function addressTyped(typed: string): string | null {
  const address = typed === '' ? null : parseAddress(typed);
  if (address === undefined) throw errors.conflictsUsage(typed);
  return address && formatAddress(address);
}

/** `conflicts`: of all addresses, or of one. */
export async function conflicts({ json }: Form, typed: string): Promise<void> {
  const wanted = addressTyped(typed);
  const { conflicts: known } = await readRecords('conflicts');
  const some = wanted === null ? known : known.filter(({ address }) => address === wanted);
  const shown = inOrderOfAddress(some, ({ address }) => parseAddress(address));
  if (json) printJson(shown);
  else print(table(shown.map(conflictRow)));
}

/** `settings` */
export async function settings({ json }: Form): Promise<void> {
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
