/** What the records say of an address, a MAC address or a name, for `tsmacvlan who`. Pure. */
import {
  type Address,
  contains,
  formatAddress,
  isSameAddress,
  parseAddress,
  parseMac,
  parsePrefix,
} from '../address.ts';
import { conflictsOf } from '../contested.ts';
import { excludedBy, layoutOf, reservedMeaning } from '../ipam/pool.ts';
import type { Conflict, Endpoint, Lease, Network, Pool, Records, Remembered, Tenancy } from '../model.ts';
import { realmOf } from '../store/store.ts';

/** An address of this host on one of its links. */
export interface HostAddress {
  readonly linkName: string;
  readonly macAddress: string;
  readonly address: string;
}

/**
 * `leased`: given out, and its container is starting or has just ended. `gateway`, `auxiliary` and `host`: as leases have it.
 * `reserved` and `remembered`: for a container that is not there, and `aside`: the same of a DHCP server. `unusable`: the network or the broadcast address.
 */
export type AnswerKind =
  | 'container'
  | 'leased'
  | 'gateway'
  | 'auxiliary'
  | 'host'
  | 'stranger'
  /** Somebody else had it, and is not heard with it any more. */
  | 'left'
  | 'reserved'
  | 'remembered'
  | 'aside'
  | 'unusable'
  | 'excluded'
  | 'free'
  | 'outside'
  | 'stopped'
  | 'network';

/** One answer: an address in one network, or what has none. */
export interface WhoAnswer {
  readonly kind: AnswerKind;
  /** Canonical; null for a container without one. */
  readonly address: string | null;
  readonly macAddress: string | null;
  /** Of a container, as its engine named it for the plugin, or as Docker says; null where nobody said it. */
  readonly name: string | null;
  readonly endpointId: string | null;
  readonly network: Network | null;
  /** The pool that has the address; null with another IPAM driver. */
  readonly pool: Pool | null;
  /** What a DHCP server gave; null where none did. */
  readonly tenancy: Tenancy | null;
  /** Where the LAN of the address is; null without. */
  readonly parent: string | null;
  /** ISO 8601: of a container since it started, of what is kept since it was used last, of a stranger since he was first seen. */
  readonly since: string | null;
  /** Those that last and those that have ended, the latest first. */
  readonly conflicts: readonly Conflict[];
  /** What else there is to say of the kind: why it is excluded, which address it is. */
  readonly remark: string | null;
}

const NOTHING: Omit<WhoAnswer, 'kind'> = {
  address: null,
  macAddress: null,
  name: null,
  endpointId: null,
  network: null,
  pool: null,
  tenancy: null,
  parent: null,
  since: null,
  conflicts: [],
  remark: null,
};

/** Of an address in each network whose subnets have it; where none has, what else is known of it. */
export function findAddress(records: Records, address: Address, hosts: readonly HostAddress[]): WhoAnswer[] {
  const found = records.networks
    .filter(({ id, subnets }) => subnets.some(({ subnet }) => isIn(subnet, address)) || isLeased(records, id, address))
    .map((network) => findInNetwork(records, network, address, hosts));
  return found.length > 0 ? found.filter((one) => !isSaidBetter(one, found)) : [findOutside(records, address, hosts)];
}

/** Of networks that share a subnet by ranges the one that has the address, or that would give it, speaks for all. */
function isSaidBetter({ kind, endpointId, parent, remark }: WhoAnswer, all: readonly WhoAnswer[]): boolean {
  if (kind === 'leased') return all.some((one) => one.kind === 'container' && one.endpointId === endpointId);
  const isOther = kind === 'free' && remark !== null;
  return isOther && all.some((one) => one.kind === 'free' && one.remark === null && one.parent === parent);
}

function isLeased({ tenancies }: Records, networkId: string, address: Address): boolean {
  return tenancies.some((one) => one.networkId === networkId && addressesOf(one).includes(formatAddress(address)));
}

function addressesOf({ address, ipv6 }: Tenancy): string[] {
  return [address, ipv6?.address ?? []].flat().map((one) => one.replace(/\/.*/, ''));
}

function bareOf({ address }: Tenancy): string {
  return address.replace(/\/.*/, '');
}

function isIn(subnet: string, address: Address): boolean {
  const prefix = parsePrefix(subnet);
  return prefix !== undefined && contains(prefix, address);
}

function findInNetwork(records: Records, network: Network, address: Address, hosts: readonly HostAddress[]): WhoAnswer {
  const { endpoints, pools, leases } = records;
  const text = formatAddress(address);
  const parent = network.parent.recipe === 'isolated' ? null : network.parent.name;
  const pool = pools.find((one) => one.networkId === network.id && isIn(one.subnet, address)) ?? null;
  const conflicts = conflictsAt(records, text, parent);
  const tenancy = records.tenancies.find((one) => one.networkId === network.id && bareOf(one) === text) ?? null;
  const common = { ...NOTHING, address: text, network, pool, tenancy, parent, conflicts };
  const endpoint = endpoints.find(
    ({ networkId, state, addresses }) =>
      networkId === network.id && state !== 'deleting' && addresses.some((one) => isSameAddress(one, address)),
  );
  const lease = pool === null ? undefined : leases.find((one) => one.realm === realmOf(pool) && one.address === text);
  if (endpoint !== undefined) return { ...common, ...ofEndpoint(endpoint, lease) };
  if (lease !== undefined && pool !== null) return { ...common, ...ofLease(records, lease, hosts) };
  const aside = records.tenancies.find(
    (one) => one.networkId === network.id && one.state === 'aside' && addressesOf(one).includes(text),
  );
  if (aside !== undefined) return { ...common, ...ofTenancy(aside) };
  return { ...common, ...unleased(records, pool, address, hosts, conflicts) };
}

function conflictsAt({ conflicts }: Records, address: string, parent: string | null): Conflict[] {
  const found = conflicts.filter((one) => one.address === address && (parent === null || one.parent === parent));
  return found.sort((a, b) => b.seenAt.localeCompare(a.seenAt));
}

function ofEndpoint({ id, macAddress, changedAt, lostAt }: Endpoint, lease: Lease | undefined) {
  return {
    kind: 'container' as const,
    macAddress,
    endpointId: id,
    name: lease?.name ?? null,
    since: changedAt,
    remark: lostAt === undefined ? null : 'it lost its interface with the parent: start the container again',
  };
}

/** One of another network's container too, where the two share a subnet. */
function ofLease({ endpoints }: Records, lease: Lease, hosts: readonly HostAddress[]) {
  const { kind, endpointId, name = null, changedAt, holder } = lease;
  const other = endpoints.find(({ id }) => id === endpointId);
  const own = hosts.find((one) => one.address === lease.address);
  const remark = holder === undefined ? other && `its container is on another network` : `host ${holder.node} has it`;
  return {
    kind: kind === 'container' ? ('leased' as const) : kind,
    macAddress: other?.macAddress ?? (kind === 'host' ? (own?.macAddress ?? null) : null),
    endpointId,
    name,
    since: changedAt,
    remark: remark ?? null,
  };
}

function unleased(
  { names }: Records,
  pool: Pool | null,
  address: Address,
  hosts: readonly HostAddress[],
  conflicts: readonly Conflict[],
): Pick<WhoAnswer, 'kind'> & Partial<WhoAnswer> {
  const text = formatAddress(address);
  const host = hosts.find((one) => one.address === text);
  if (host !== undefined) return { kind: 'host', macAddress: host.macAddress, remark: `on ${host.linkName}` };
  const stranger = conflicts.find(({ endedAt, kind }) => endedAt === null && kind === 'address');
  if (stranger !== undefined) return ofStranger(stranger);
  const kept = names.find((one) => one.name !== '' && one.poolId === pool?.id && one.address === text);
  if (kept !== undefined) return ofKept(kept);
  if (pool === null) return { kind: 'free', remark: 'another IPAM driver gives out the addresses of this network' };
  const { subnet, range } = layoutOf(pool);
  const meaning = reservedMeaning(subnet, address);
  if (meaning !== undefined) return { kind: 'unusable', remark: meaning };
  const entry = excludedBy(pool, address);
  if (entry !== undefined) return { kind: 'excluded', remark: entry };
  return { kind: 'free', remark: contains(range, address) ? null : `outside the range ${pool.range ?? ''}` };
}

function ofStranger({ macAddress, firstSeenAt, endedAt }: Conflict) {
  return { kind: endedAt === null ? ('stranger' as const) : ('left' as const), macAddress, since: firstSeenAt };
}

function ofTenancy({ hostname, macAddress, changedAt }: Tenancy) {
  return { kind: 'aside' as const, name: hostname, macAddress, since: changedAt };
}

function ofKept({ name, macAddress, isReserved, usedAt }: Remembered) {
  return { kind: isReserved ? ('reserved' as const) : ('remembered' as const), name, macAddress, since: usedAt };
}

function findOutside(records: Records, address: Address, hosts: readonly HostAddress[]): WhoAnswer {
  const text = formatAddress(address);
  const conflicts = conflictsAt(records, text, null);
  const stranger = conflicts.find(({ endedAt }) => endedAt === null);
  const host = hosts.find((one) => one.address === text);
  const common = { ...NOTHING, address: text, conflicts };
  if (host !== undefined)
    return { ...common, kind: 'host', macAddress: host.macAddress, remark: `on ${host.linkName}` };
  if (stranger !== undefined) return { ...common, ...ofStranger(stranger), parent: stranger.parent };
  return { ...common, kind: 'outside' };
}

/** Of all that have the MAC address, or had it when they were seen last. */
export function findMac(records: Records, macAddress: string, hosts: readonly HostAddress[]): WhoAnswer[] {
  const { endpoints, names, conflicts } = records;
  const own = endpoints.filter((one) => one.macAddress === macAddress && one.state !== 'deleting');
  const running = own.flatMap((endpoint) => findEndpoint(records, endpoint));
  const host = hosts.filter((one) => one.macAddress === macAddress);
  const strangers = conflicts.filter((one) => one.macAddress === macAddress && one.hostLink === null);
  const kept = names.filter((one) => one.macAddress === macAddress && one.name !== '');
  return [
    ...running,
    ...host.map(({ address, linkName }) => ({
      ...NOTHING,
      kind: 'host' as const,
      address,
      macAddress,
      remark: `on ${linkName}`,
    })),
    ...strangers.map((one) => ({
      ...NOTHING,
      ...ofStranger(one),
      address: one.address,
      parent: one.parent,
      conflicts: [one],
      remark: one.kind === 'mac' ? 'it has the MAC address of a container' : null,
    })),
    ...(running.length > 0 ? [] : kept.map((one) => findKept(records, one))),
    ...records.tenancies.filter((one) => one.macAddress === macAddress).flatMap((one) => findTenancy(records, one)),
  ];
}

/** One for each of its addresses. */
function findEndpoint(records: Records, endpoint: Endpoint): WhoAnswer[] {
  const network = records.networks.find(({ id }) => id === endpoint.networkId) ?? null;
  if (network !== null && endpoint.addresses.length > 0)
    return endpoint.addresses.map((address) => findInNetwork(records, network, address, []));
  const conflicts = conflictsOf(endpoint, records.conflicts);
  return [{ ...NOTHING, network, parent: endpoint.parent, conflicts, ...ofEndpoint(endpoint, undefined) }];
}

/** In each network whose pool has it: of a container that is starting, or has just ended. */
function findLease(records: Records, { address: text, poolIds }: Lease): WhoAnswer[] {
  const address = parseAddress(text);
  const networkIds = records.pools.filter(({ id }) => poolIds.includes(id)).map(({ networkId }) => networkId);
  const networks = records.networks.filter(({ id }) => networkIds.includes(id));
  return address === undefined ? [] : networks.map((network) => findInNetwork(records, network, address, []));
}

/** What is kept for a name whose container is not there. */
function findKept({ networks, pools }: Records, one: Remembered): WhoAnswer {
  const pool = pools.find(({ id }) => id === one.poolId) ?? null;
  const network = networks.find(({ id }) => id === pool?.networkId) ?? null;
  const remark = network === null ? `its network is gone; it was one of ${one.poolId}` : null;
  return {
    ...NOTHING,
    ...ofKept(one),
    address: one.address,
    network,
    pool,
    parent: network?.parent.name ?? null,
    remark,
  };
}

/** One that is put aside; what runs is found as a container. */
function findTenancy({ networks }: Records, tenancy: Tenancy): WhoAnswer[] {
  if (tenancy.state !== 'aside') return [];
  const network = networks.find(({ id }) => id === tenancy.networkId) ?? null;
  const { parent } = tenancy;
  return [{ ...NOTHING, ...ofTenancy(tenancy), address: bareOf(tenancy), network, tenancy, parent }];
}

/** What Docker says of a container. */
export interface NamedContainer {
  readonly name: string;
  readonly endpointIds: readonly string[];
  /** Networks in which it will be when it is started. */
  readonly stoppedIn: readonly string[];
}

/**
 * Of the container of a name, or of an endpoint or container whose id begins so. `docker`: the containers that Docker has
 * of the name.
 */
export function findName(records: Records, typed: string, docker: readonly NamedContainer[]): WhoAnswer[] {
  const { endpoints, leases, names, networks } = records;
  const isId = /^[0-9a-f]{4,64}$/.test(typed);
  const leased = leases.filter(({ name }) => name === typed);
  const ids = new Set([...leased.map(({ endpointId }) => endpointId), ...docker.flatMap((one) => one.endpointIds)]);
  const attached = endpoints.filter(
    ({ id, state }) => state !== 'deleting' && (ids.has(id) || (isId && id.startsWith(typed))),
  );
  const isAttached = ({ endpointId }: Lease) => attached.some(({ id }) => id === endpointId);
  const starting = leased.filter((lease) => !isAttached(lease)).flatMap((lease) => findLease(records, lease));
  const found = [...attached.flatMap((endpoint) => findEndpoint(records, endpoint)), ...starting];
  const wanted = new Set([typed, ...docker.map(({ name }) => name)]);
  const has = (one: WhoAnswer) =>
    found.some(({ address, pool }) => address === one.address && pool?.id === one.pool?.id);
  const kept = names.filter(({ name }) => wanted.has(name)).map((one) => findKept(records, one));
  const aside = records.tenancies
    .filter(({ hostname }) => hostname === typed)
    .flatMap((one) => findTenancy(records, one));
  const all = [...found, ...kept.filter((one) => !has(one)), ...aside];
  const stopped = docker.flatMap(({ name, stoppedIn }) =>
    networks
      .filter(({ id }) => stoppedIn.includes(id) && !all.some((one) => one.network?.id === id))
      .map((network) => ({ ...NOTHING, kind: 'stopped' as const, name, network, parent: network.parent.name })),
  );
  return [...all, ...stopped];
}

/** Of a network by its name, or by the beginning of its id. `docker`: the networks that Docker has. */
export function findNetwork(
  { networks, endpoints }: Records,
  typed: string,
  { networks: docker }: { readonly networks: readonly { readonly id: string; readonly name: string }[] },
): WhoAnswer[] {
  const isId = /^[0-9a-f]{4,64}$/.test(typed);
  const named = docker.filter(({ name }) => name === typed).map(({ id }) => id);
  const meant = networks.filter(({ id }) => named.includes(id) || (isId && id.startsWith(typed)));
  return meant.map((network) => {
    const count = endpoints.filter(({ networkId, state }) => networkId === network.id && state !== 'deleting').length;
    const remark = count === 1 ? '1 container' : `${count} containers`;
    return { ...NOTHING, kind: 'network', network, parent: null, since: network.createdAt, remark };
  });
}

/** What was typed after `who`. */
export function readWhom(typed: string): { address?: Address; macAddress?: string } {
  const address = parseAddress(typed.replace(/\/\d+$/, ''));
  if (address !== undefined) return { address };
  const macAddress = parseMac(typed);
  return macAddress === undefined ? {} : { macAddress };
}
