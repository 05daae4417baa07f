/**
 * What a pool is: the checks of RequestPool, its id, and which of its addresses may be given out. Pure.
 */
import {
  ADDRESS_BITS,
  type Address,
  contains,
  encloses,
  formatInterfaceAddress,
  formatPrefix,
  overlaps,
  parseAddress,
  parsePrefix,
  type Prefix,
  type Range,
} from '../address.ts';
import * as errors from '../errors.ts';
import type { Family, Pool } from '../model.ts';
import { nearest, oneOf } from '../nearest.ts';
import type { PoolRequest } from '../requests.ts';
import { realmOf } from '../store/store.ts';
import type { Ages } from './ages.ts';
import type { Occupancy } from './occupancy.ts';

/** Names told to the engine in GetDefaultAddressSpaces; different, or engines >= 27 skip their overlap check. */
export const ADDRESS_SPACES = { local: 'TsmacvlanLocal', global: 'TsmacvlanGlobal' } as const;

/** Of pools that nobody requested: what is guessed of another IPAM's (guesses.ts). Nobody has asked for their addresses. */
export const GUESSED_SPACE = 'Guessed';

/** A request that was checked: what makes a pool. */
export interface PoolSpec {
  readonly addressSpace: string;
  readonly subnet: Prefix;
  readonly range: Prefix | null;
  readonly options: Readonly<Record<string, string>>;
}

/** Finds a subnet when the user gave none; length null is the usual size. */
export type ChooseSubnet = (family: Family, length: number | null) => Prefix;

const ORDERS = ['lowest', 'sequential', 'rested'] as const;
const PROFILES = ['off', 'fast', 'rfc'] as const;

/** One row of the reference of `--ipam-opt`. */
export const IPAM_OPTION_ROWS = [
  {
    name: 'exclude',
    values: 'addresses, CIDRs and A-B ranges, separated by commas',
    meaning: 'addresses that a container gets only if it names them with --ip',
  },
  {
    name: 'order',
    values: ORDERS.join(', '),
    meaning:
      'the lowest free address; the next one after the last given; or one that was never used, else the one given back longest ago',
  },
  { name: 'parent', values: 'eth0, eth0.10', meaning: 'LAN of the subnet, when the same subnet exists on several' },
  {
    name: 'probe',
    values: PROFILES.join(', '),
    meaning: 'how an address is checked on the LAN before it is given out',
  },
  {
    name: 'source',
    values: 'dhcp',
    meaning: "where addresses come from: the LAN's DHCP server, which needs parent= and -o source=dhcp too",
  },
] as const;

const NAMES: readonly string[] = IPAM_OPTION_ROWS.map((row) => row.name);

/** Smaller numbers are larger subnets; private addresses have none larger than 10.0.0.0/8 (RFC 1918) and fd00::/8 (RFC 4193). */
const SHORTEST: Readonly<Record<Family, number>> = { IPv4: 8, IPv6: 8 };

/** https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-: the kernel takes none of these for a link. */
const NOT_FOR_HOSTS = [
  { block: known('0.0.0.0/8'), meaning: '"this network"' },
  { block: known('127.0.0.0/8'), meaning: 'loopback' },
  { block: known('224.0.0.0/4'), meaning: 'multicast' },
  { block: known('::1/128'), meaning: 'loopback' },
  { block: known('fe80::/10'), meaning: 'link-local' },
  { block: known('ff00::/8'), meaning: 'multicast' },
];

// --- reading a request -------------------------------------------------------------------------------------------

/** Checks a request whole; throws a sentence for the first thing that is wrong with it. `choose` is called without `--subnet`. */
export function readPoolRequest(request: PoolRequest, choose: ChooseSubnet): PoolSpec {
  const { addressSpace, subPool, options } = request;
  const spaces: readonly string[] = Object.values(ADDRESS_SPACES);
  if (!spaces.includes(addressSpace)) throw errors.addressSpaceUnknown(addressSpace, spaces);
  checkOptions(options);
  if (isServed({ options })) checkServed(request);
  const subnet = readSubnet(request, choose);
  const range = subPool === null ? null : readRange(subPool, subnet);
  for (const excluded of readExclude(options['exclude'])) checkExcluded(excluded, subnet);
  return { addressSpace, subnet, range, options };
}

/** Of the options that take one of some words. */
const WORDS: Readonly<Record<string, readonly string[]>> = { order: ORDERS, probe: PROFILES, source: ['dhcp'] };

function checkOptions(options: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(options)) {
    if (!NAMES.includes(key)) throw errors.ipamOptionUnknown(key, nearest(key, NAMES), NAMES);
    const expected = expectedValue(key, value);
    if (expected !== null) throw errors.ipamOptionValue(key, value, expected, nearest(value, WORDS[key] ?? []));
  }
}

/** In words, when the value is not that; null when it is. The entries of `exclude` have their own sentences. */
function expectedValue(key: string, value: string): string | null {
  switch (key) {
    case 'order':
    case 'probe':
    case 'source':
      return wordsUnless(WORDS[key] ?? [], value);
    case 'parent':
      // As the kernel (dev_valid_name), and within the characters that need no escape in a realm.
      return /^[!-.0-9;-~]{1,64}$/.test(value) ? null : 'the name of a link, such as eth0.10';
    default:
      // The exclusions are part of the PoolID.
      return value.length <= 2000 ? null : 'at most 2000 characters';
  }
}

function wordsUnless(allowed: readonly string[], value: string): string | null {
  return oneOf(allowed, value) !== undefined ? null : allowed.join(' or ');
}

/** What is left to a DHCP server. */
function checkServed({ addressSpace, subPool, options, v6 }: PoolRequest): void {
  if (addressSpace === ADDRESS_SPACES.global) throw errors.dhcpPoolSwarm();
  if (v6) throw errors.dhcpIPv6();
  if (options['parent'] === undefined) throw errors.dhcpPoolParent();
  if (subPool !== null) throw errors.dhcpPoolOption('--ip-range');
  const other = ['exclude', 'order'].find((key) => options[key] !== undefined);
  if (other !== undefined) throw errors.dhcpPoolOption(`--ipam-opt ${other}=`);
}

/** Its addresses are those of the LAN's DHCP server (`--ipam-opt source=dhcp`). */
export function isServed({ options }: Pick<Pool, 'options'>): boolean {
  return options['source'] === 'dhcp';
}

function readSubnet({ pool, subPool, v6 }: PoolRequest, choose: ChooseSubnet): Prefix {
  const subnet = pool === null ? null : checkSubnet(pool, v6);
  if (subnet !== null && subnet.first !== 0n) return subnet;
  if (subPool !== null) throw errors.rangeWithoutSubnet(subPool);
  return choose(subnet?.family ?? (v6 ? 'IPv6' : 'IPv4'), subnet?.length ?? null);
}

/** Newer engines ask for any subnet of a size by `0.0.0.0/24` or `::/64`, so a subnet at zero passes here. */
function checkSubnet(text: string, v6: boolean): Prefix {
  const subnet = parsePrefix(text);
  if (subnet === undefined) throw errors.subnetMalformed(text);
  if (subnet.hasHostBits) throw errors.subnetHostBits(text, formatPrefix(subnet));
  if (v6 && subnet.family === 'IPv4') throw errors.subnetFamily(text);
  const block = NOT_FOR_HOSTS.find((special) => overlaps(special.block, subnet));
  if (block !== undefined && subnet.first !== 0n)
    throw errors.subnetNotForHosts(text, formatPrefix(block.block), block.meaning);
  const shortest = SHORTEST[subnet.family];
  if (subnet.length < shortest) throw errors.subnetTooLarge(text, shortest);
  return subnet;
}

function readRange(text: string, subnet: Prefix): Prefix {
  const range = parsePrefix(text);
  if (range === undefined) throw errors.rangeMalformed(text);
  if (range.hasHostBits) throw errors.rangeHostBits(text, formatPrefix(range));
  if (!encloses(subnet, range)) throw errors.rangeOutside(text, formatPrefix(subnet));
  return range;
}

// --- exclusions --------------------------------------------------------------------------------------------------

interface Excluded extends Range {
  /** As typed. */
  readonly text: string;
}

/** `192.168.1.5,192.168.1.64/29,192.168.1.100-192.168.1.150` */
function readExclude(value: string | undefined): Excluded[] {
  return value === undefined ? [] : value.split(',').map((entry) => readExcluded(entry.trim()));
}

function readExcluded(text: string): Excluded {
  const range = text.includes('-') ? readBounds(text.split('-')) : (parsePrefix(text) ?? readBounds([text, text]));
  if (range === undefined) throw errors.excludeMalformed(text);
  return { family: range.family, first: range.first, last: range.last, text };
}

function readBounds([from = '', to = '', ...rest]: readonly string[]): Range | undefined {
  const first = parseAddress(from.trim());
  const last = parseAddress(to.trim());
  if (first === undefined || last === undefined || rest.length > 0) return undefined;
  if (first.family !== last.family || first.value > last.value) return undefined;
  return { family: first.family, first: first.value, last: last.value };
}

/** The engine gives the same options to the IPv4 and the IPv6 pool of a network: each looks at its own family. */
function checkExcluded(excluded: Excluded, subnet: Prefix): void {
  if (excluded.family === subnet.family && !encloses(subnet, excluded))
    throw errors.excludeOutside(excluded.text, formatPrefix(subnet));
}

// --- the id ------------------------------------------------------------------------------------------------------

/**
 * A pure function of the request, because engines do not store the id that a replay answers, and readable:
 * `TsmacvlanLocal/192.168.1.0/24/192.168.1.64/26?exclude=192.168.1.70&parent=eth0.10`.
 */
function poolIdOf({ addressSpace, subnet, range, options }: PoolSpec): string {
  const path = [addressSpace, formatPrefix(subnet), ...(range === null ? [] : [formatPrefix(range)])].join('/');
  const pairs = Object.entries(options).map(([key, value]) => `${key}=${escape(value)}`);
  return pairs.length === 0 ? path : `${path}?${pairs.sort().join('&')}`;
}

function escape(value: string): string {
  return encodeURIComponent(value).replace(/%(?:2C|2F|3A)/g, decodeURIComponent);
}

/** The realm is in the id too, so that a release finds its leases when the pool's record is gone already. */
export function realmOfPoolId(poolId: string): string {
  const [path = '', query] = poolId.split('?');
  const [addressSpace = ''] = path.split('/');
  return realmOf({ addressSpace, options: Object.fromEntries(new URLSearchParams(query)) });
}

/** The record of a pool that no network has yet. */
export function newPool(spec: PoolSpec, now: Date): Pool {
  const { addressSpace, subnet, range, options } = spec;
  return {
    id: poolIdOf(spec),
    addressSpace,
    subnet: formatPrefix(subnet),
    range: range === null ? null : formatPrefix(range),
    options,
    networkId: null,
    createdAt: now.toISOString(),
    changedAt: now.toISOString(),
  };
}

/** From RequestPool to CreateNetwork, and from there to the network's record, it takes much less. */
const CREATION_MS = 60_000;

/** Whether its network may still be on its way. */
export function isBeingCreated({ id, changedAt }: Pool, ages: Ages): boolean {
  return ages.ageMs({ key: id, changedAt }, CREATION_MS) < CREATION_MS;
}

/** Of an address space or a realm in it. */
export function isGlobal(realm: string): boolean {
  return realm.split('@')[0] === ADDRESS_SPACES.global;
}

/** What a user calls it: the range when there is one, else the subnet. */
export function nameOf({ subnet, range }: Pool): string {
  return range ?? subnet;
}

// --- which addresses ---------------------------------------------------------------------------------------------

/** A pool's record as numbers. */
export interface Layout {
  readonly subnet: Prefix;
  /** Where addresses come from that nobody named: `--ip-range`, or the subnet. */
  readonly range: Prefix;
  /** Excluded by the user, in order, apart from each other. */
  readonly excluded: readonly Range[];
  /** Excluded or reserved: never given out unnamed. In order, apart from each other. */
  readonly skipped: readonly Range[];
  readonly order: string;
}

/** The numbers of a pool's record. */
export function layoutOf({ subnet: subnetText, range, options }: Pool): Layout {
  const subnet = known(subnetText);
  const excluded = joined(readExclude(options['exclude']).filter((one) => one.family === subnet.family));
  return {
    subnet,
    range: range === null ? subnet : known(range),
    excluded,
    skipped: joined([...excluded, ...reservedOf(subnet)]),
    order: options['order'] ?? 'lowest',
  };
}

/** `192.168.1.2/24`: with the length of the pool's subnet, as an engine wants it. */
export function withLength({ subnet }: Pool, address: Address): string {
  return formatInterfaceAddress({ ...address, length: known(subnet).length });
}

/** One that a search may give, whether or not it is free: what is remembered of others is only what a user named. */
export function isSearched(pool: Pool, address: Address): boolean {
  const { range, skipped } = layoutOf(pool);
  return contains(range, address) && !skipped.some((gap) => contains(gap, address));
}

/** The entry of `exclude=` that has the address, as typed; undefined without. */
export function excludedBy({ options }: Pool, address: Address): string | undefined {
  return readExclude(options['exclude']).find((one) => contains(one, address))?.text;
}

/** Sorted, and joined where they overlap. All of one family. */
export function joined(ranges: readonly Range[]): Range[] {
  const result: Range[] = [];
  for (const range of ranges.toSorted((a, b) => (a.first < b.first ? -1 : 1))) {
    const previous = result.at(-1);
    if (previous === undefined || previous.last < range.first) result.push(range);
    else if (previous.last < range.last) result.splice(-1, 1, { ...previous, last: range.last });
  }
  return result;
}

interface Reserved extends Range {
  readonly meaning: string;
}

/**
 * IPv4: network and broadcast address, but neither on a /31 (RFC 3021) nor a /32. IPv6: the subnet-router anycast address
 * (RFC 4291 2.6.1), but not on a /127 (RFC 6164) nor a /128; IPv6 has no broadcast.
 */
function reservedOf({ family, first, last, length }: Prefix): Reserved[] {
  if (length >= ADDRESS_BITS[family] - 1) return [];
  const lowest = { family, first, last: first };
  if (family === 'IPv6') return [{ ...lowest, meaning: 'subnet-router anycast address' }];
  return [
    { ...lowest, meaning: 'network address' },
    { family, first: last, last, meaning: 'broadcast address' },
  ];
}

/** Why the address is for no host: `broadcast address`; undefined when it may be used. */
export function reservedMeaning(subnet: Prefix, address: Address): string | undefined {
  return reservedOf(subnet).find((reserved) => contains(reserved, address))?.meaning;
}

/** How the lowest free address between two is found. */
type FreeSearch = Pick<Occupancy, 'nextFree'>;

/**
 * The next address to give out; undefined when the range is exhausted. `after` is the last one given when the order is
 * sequential: the search goes on behind it, and then from the start.
 */
export function nextAddress(layout: Layout, used: FreeSearch, after: bigint | null): bigint | undefined {
  const { first, last } = layout.range;
  const behind = after === null || after < first ? undefined : lowestFree(layout, used, after + 1n, last);
  return behind ?? lowestFree(layout, used, first, last);
}

function lowestFree({ skipped }: Layout, used: FreeSearch, from: bigint, to: bigint): bigint | undefined {
  let address = used.nextFree(from, to);
  for (const gap of skipped) {
    if (address === undefined || address < gap.first) break;
    if (address <= gap.last) address = used.nextFree(gap.last + 1n, to);
  }
  return address;
}

/** Addresses of the range that are in `ranges`, which lie apart from each other. */
export function sizeWithin(range: Range, ranges: readonly Range[]): bigint {
  return ranges
    .filter((one) => overlaps(one, range))
    .map(
      (one) =>
        (one.last < range.last ? one.last : range.last) - (one.first > range.first ? one.first : range.first) + 1n,
    )
    .reduce((sum, size) => sum + size, 0n);
}

/** A prefix that is part of the program or was checked before it was stored. */
export function known(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === undefined) throw new TypeError(`not a prefix: ${text}`);
  return prefix;
}
