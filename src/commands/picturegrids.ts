/** The subnets of a picture: which of their addresses there is something to say of. Pure. */
import {
  type Address,
  contains,
  formatAddress,
  formatPrefix,
  inOrderOfAddress,
  parseAddress,
  parsePrefix,
  type Prefix,
  type Range,
} from '../address.ts';
import { conflictsOf, describeConflict, holderOf } from '../contested.ts';
import { escapeControls } from '../errors.ts';
import { layoutOf, realmOfPoolId, reservedMeaning } from '../ipam/pool.ts';
import type { PoolUse } from '../ipam/pooluse.ts';
import type { Conflict, Endpoint, Lease, Network, Pool, Records, Remembered } from '../model.ts';
import type { PictureGrid, PictureSpan, PictureSquare, SquareKind } from '../page/picture.ts';
import { realmOf } from '../store/store.ts';
import type { HostAddress } from './findings.ts';

/** An address that another host of a shared store has. */
export interface AddressElsewhere {
  readonly realm: string;
  readonly address: string;
  /** As people call it. */
  readonly host: string;
}

/** All that a picture is made of. */
export interface PictureFacts {
  readonly records: Records;
  /** This host's own addresses. */
  readonly own: readonly HostAddress[];
  readonly elsewhere: readonly AddressElsewhere[];
  /** By the pool's id. */
  readonly uses: ReadonlyMap<string, PoolUse>;
  /** What a network is called. */
  readonly networkName: (network: Network) => string;
  /** What the container of an endpoint is called. */
  readonly containerName: (endpointId: string) => string;
}

/** A subnet on one LAN, whichever networks have a range of it. */
interface Place {
  readonly subnet: Prefix;
  /** Null for one that is on no LAN. */
  readonly parent: string | null;
  readonly networks: Network[];
  readonly pools: Pool[];
  readonly realms: Set<string>;
}

type Told = Map<bigint, { kind: SquareKind; words: string }>;

interface At<T> {
  readonly address: Address | undefined;
  readonly record: T;
}

/** Read once: there may be ten thousand records, and hundreds of subnets. */
interface SortedFacts extends PictureFacts {
  readonly sorted: {
    /** By realm. */
    readonly leases: ReadonlyMap<string, readonly At<Lease>[]>;
    readonly names: ReadonlyMap<string, readonly At<Remembered>[]>;
    /** By network. */
    readonly endpoints: ReadonlyMap<string, readonly Endpoint[]>;
  };
}

function sortedOf({ leases, names, endpoints }: Records): SortedFacts['sorted'] {
  const read = <T extends { readonly address: string }>(record: T) => ({
    address: parseAddress(record.address),
    record,
  });
  return {
    leases: Map.groupBy(leases.map(read), ({ record }) => record.realm),
    names: Map.groupBy(names.map(read), ({ record }) => realmOfPoolId(record.poolId)),
    endpoints: Map.groupBy(endpoints, ({ networkId }) => networkId),
  };
}

function within<T>({ subnet, realms }: Place, all: ReadonlyMap<string, readonly At<T>[]>): At<T>[] {
  const some = [...realms].flatMap((realm) => all.get(realm) ?? []);
  return some.filter(({ address }) => address !== undefined && contains(subnet, address));
}

/** In the order of their addresses. */
export function gridsOf(given: PictureFacts): PictureGrid[] {
  const places = placesOf(given.records);
  const facts = { ...given, sorted: sortedOf(given.records) };
  const sorted = inOrderOfAddress([...places], ([, { subnet }]) => ({ family: subnet.family, value: subnet.first }));
  return sorted.map(([id, place]) => gridOf(id, place, facts));
}

function placesOf({ networks, pools }: Records): Map<string, Place> {
  const places = new Map<string, Place>();
  const placeAt = (where: string, text: string, parent: string | null) => {
    const subnet = parsePrefix(text);
    if (subnet === undefined) return undefined;
    const id = `${where} ${formatPrefix(subnet)}`;
    const place = places.get(id) ?? { subnet, parent, networks: [], pools: [], realms: new Set<string>() };
    places.set(id, place);
    return place;
  };
  for (const network of networks) {
    const isIsolated = network.parent.recipe === 'isolated';
    const where = isIsolated ? network.id : network.parent.name;
    for (const { subnet, realm } of network.subnets) {
      const place = placeAt(where, subnet, isIsolated ? null : network.parent.name);
      place?.networks.push(network);
      if (realm !== null) place?.realms.add(realm);
      place?.pools.push(...pools.filter((pool) => pool.networkId === network.id && pool.subnet === subnet));
    }
  }
  for (const pool of pools.filter(({ networkId }) => networkId === null)) {
    const place = placeAt(realmOf(pool), pool.subnet, null);
    place?.pools.push(pool);
    place?.realms.add(realmOf(pool));
  }
  return places;
}

function gridOf(id: string, place: Place, facts: SortedFacts): PictureGrid {
  const { subnet, parent, networks, pools } = place;
  const names = networks.map(facts.networkName).join(', ');
  const layouts = pools.map(layoutOf);
  const ranges = pools.length > 0 ? layouts.map(({ range }) => range) : [subnet];
  return {
    id,
    title: [
      ...(names === '' ? [] : [names]),
      `${formatPrefix(subnet)}${parent === null ? '' : ` on ${escapeControls(parent)}`}`,
    ].join(' · '),
    counts: pools.flatMap((pool) => countsOf(pool, facts)),
    family: subnet.family,
    first: String(subnet.first),
    size: String(subnet.last - subnet.first + 1n),
    ranges: ranges.map((range) => spanIn(subnet, range)),
    excluded: layouts.flatMap(({ excluded }) => excluded.map((range) => spanIn(subnet, range))),
    squares: squaresOf(place, facts),
  };
}

function spanIn(subnet: Prefix, { first, last }: Range): PictureSpan {
  const within = (value: bigint) => (value < subnet.first ? subnet.first : value > subnet.last ? subnet.last : value);
  return [String(within(first) - subnet.first), String(within(last) - subnet.first)];
}

/** A pool that was made at this very moment has no counts yet. */
function countsOf({ id, range, subnet, networkId }: Pool, { uses, records, networkName }: PictureFacts): string[] {
  const use = uses.get(id);
  if (use === undefined) return [];
  const network = records.networks.find((one) => one.id === networkId);
  const counts = [
    `${use.used} used`,
    `${use.free < 1e9 ? use.free : `2^${Math.round(Math.log2(use.free))}`} free`,
    ...(use.held > 0 ? [`${use.held} held by others`] : []),
    ...(use.excluded > 0 ? [`${use.excluded} excluded`] : []),
    ...(use.remembered > 0 ? [`${use.remembered} remembered`] : []),
  ];
  const whose = network === undefined ? '' : `${networkName(network)}, `;
  return [`${whose}${range ?? subnet}: ${counts.join(', ')}; next ${use.next ?? 'none'}`];
}

// --- squares -----------------------------------------------------------------------------------------------------

/** What is said later is nearer to the truth of this moment. */
function squaresOf(place: Place, facts: SortedFacts): PictureSquare[] {
  const told: Told = new Map();
  const { subnet } = place;
  const tell = (address: Address | undefined, kind: SquareKind, words: string) => {
    if (address !== undefined && contains(subnet, address))
      told.set(address.value - subnet.first, { kind, words: escapeControls(words) });
  };
  tellUnusable(subnet, tell);
  tellKept(place, facts, tell);
  tellOthers(place, facts, tell);
  tellOwn(place, facts, tell);
  const sorted = [...told].sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([offset, one]) => ({ at: String(offset), ...one }));
}

type Tell = (address: Address | undefined, kind: SquareKind, words: string) => void;

function tellUnusable(subnet: Prefix, tell: Tell): void {
  for (const value of [subnet.first, subnet.last]) {
    const address = { family: subnet.family, value };
    const meaning = reservedMeaning(subnet, address);
    if (meaning !== undefined) tell(address, 'unusable', meaning);
  }
}

function tellKept(place: Place, { sorted }: SortedFacts, tell: Tell): void {
  for (const { address, record } of within(place, sorted.names)) {
    const { name, isReserved } = record;
    if (name === '') continue;
    const words = `${isReserved ? 'reserved' : 'remembered'} for ${name}, which does not run`;
    tell(address, isReserved ? 'fixed' : 'remembered', words);
  }
}

/** Strangers, and other hosts of a shared store. */
function tellOthers({ parent, realms }: Place, { records, elsewhere }: PictureFacts, tell: Tell): void {
  for (const conflict of records.conflicts)
    if (isHeldOn(conflict, parent)) tell(parseAddress(conflict.address), 'stranger', `used by ${holderOf(conflict)}`);
  for (const { realm, address, host } of elsewhere)
    if (realms.has(realm)) tell(parseAddress(address), 'elsewhere', `on host ${host}`);
}

function isHeldOn({ kind, endedAt, parent }: Conflict, where: string | null): boolean {
  return kind === 'address' && endedAt === null && parent === where;
}

/** This host, and what it gave out. */
function tellOwn(place: Place, facts: SortedFacts, tell: Tell): void {
  const { subnet, parent, networks } = place;
  const { records, own, sorted } = facts;
  const held = new Map(records.conflicts.filter((one) => isHeldOn(one, parent)).map((one) => [one.address, one]));
  for (const { address, linkName } of parent === null ? [] : own)
    tell(parseAddress(address), 'fixed', `this host, on ${linkName}`);
  for (const { gateway } of networks.flatMap(({ subnets }) => subnets))
    if (gateway !== null) tell(parseAddress(gateway), 'fixed', 'gateway');
  for (const { record } of within(place, sorted.leases)) tellLease(record, held.get(record.address), facts, tell);
  const ids = [...new Set(networks.map(({ id }) => id))];
  for (const endpoint of ids.flatMap((id) => sorted.endpoints.get(id) ?? []))
    if (endpoint.state !== 'deleting') tellEndpoint(endpoint, subnet, facts, tell);
}

function tellLease(lease: Lease, conflict: Conflict | undefined, facts: PictureFacts, tell: Tell): void {
  const { address: text, kind, endpointId, name, holder } = lease;
  const address = parseAddress(text);
  if (holder !== undefined) return tell(address, 'elsewhere', `on host ${holder.node}`);
  if (kind !== 'container') return tell(address, 'fixed', FIXED[kind]);
  const who = endpointId === null ? name : facts.containerName(endpointId);
  const words = `${who === undefined ? 'a container' : `container ${who}`}, which is starting or has just ended`;
  if (conflict === undefined) tell(address, 'container', words);
  else tell(address, 'both', `${words}; also used by ${holderOf(conflict)}`);
}

const FIXED = { gateway: 'gateway', auxiliary: 'auxiliary address', host: 'this host' } as const;

function tellEndpoint(endpoint: Endpoint, subnet: Prefix, facts: PictureFacts, tell: Tell): void {
  const conflicts = conflictsOf(endpoint, facts.records.conflicts);
  for (const address of endpoint.addresses.filter((one) => contains(subnet, one))) {
    const words = `container ${facts.containerName(endpoint.id)}, ${endpoint.macAddress}`;
    const own = conflicts.find(({ kind, address: text }) => kind === 'mac' || text === formatAddress(address));
    if (own === undefined) tell(address, 'container', words);
    else tell(address, 'both', `${words}; ${describeConflict(own)}`);
  }
}
