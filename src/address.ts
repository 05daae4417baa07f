/**
 * Arithmetic of IP addresses, prefixes and MAC addresses. Pure: no I/O, no state. The door of the library ip-address.
 *
 * Inside the program an address is a family and a number; text is parsed once at the edge and written in one canonical
 * form, so that equal addresses are equal texts. Whatever is malformed parses to undefined: the caller knows which
 * option it came from and makes the sentence.
 */
import { createHash } from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';
import { Address6 } from 'ip-address';
import type { Family, InterfaceAddress } from './model.ts';

/** Each byte in two digits. */
const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** An address as a number; parseAddress() and formatAddress() lead from text and back. */
export interface Address {
  readonly family: Family;
  /** 0 to 2^32-1 or 2^128-1. */
  readonly value: bigint;
}

/** All addresses from `first` to `last`, both included. */
export interface Range {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
}

/** A subnet: `192.168.1.0/24`. `first` is its network address. */
export interface Prefix extends Range {
  readonly length: number;
  /** True when the text named an address inside (`192.168.1.7/24`); `first` has these bits cleared. */
  readonly hasHostBits: boolean;
}

export const ADDRESS_BITS: Readonly<Record<Family, number>> = { IPv4: 32, IPv6: 128 };

/**
 * Strict: four decimal octets without leading zeros (`010.0.0.1` is 8.0.0.1 to some programs), or an IPv6 address
 * without zone. IPv4-mapped IPv6 (`::ffff:192.0.2.1`) is refused: it never appears on a link (RFC 4291 2.5.5.2), and
 * Go, thus the engine, silently reads it as the IPv4 address.
 */
export function parseAddress(text: string): Address | undefined {
  if (isIPv4(text)) return { family: 'IPv4', value: BigInt(parseIPv4(text)) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const value = new Address6(text).bigInt();
  return value >> 32n === 0xffffn ? undefined : { family: 'IPv6', value };
}

function parseIPv4(text: string): number {
  return text.split('.').reduce((value, octet) => value * 256 + Number(octet), 0);
}

/** Canonical text: dotted decimal, or RFC 5952 (lower case, longest run of zeros shortened, no mixed notation). */
export function formatAddress({ family, value }: Address): string {
  if (family === 'IPv6') return Address6.fromBigInt(value).correctForm();
  const number = Number(value);
  return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
}

/** The 4 or 16 bytes that stand for it in a packet. */
export function addressBytes({ family, value }: Address): Buffer {
  return Buffer.from(value.toString(16).padStart(ADDRESS_BITS[family] / 4, '0'), 'hex');
}

/** The address of 4 or 16 bytes read from a packet. */
export function addressFromBytes(bytes: Uint8Array): Address {
  const family = bytes.length === 4 ? 'IPv4' : 'IPv6';
  return { family, value: BigInt(`0x${Buffer.from(bytes).toString('hex')}`) };
}

/** As the engine writes an address with its subnet: `192.168.1.2/24`. */
export function parseInterfaceAddress(text: string): InterfaceAddress | undefined {
  const [, host = '', digits = ''] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  const address = parseAddress(host);
  const length = Number(digits);
  return address === undefined || length > ADDRESS_BITS[address.family] ? undefined : { ...address, length };
}

/** The subnet of `text`, which may name any address in it (see hasHostBits). */
export function parsePrefix(text: string): Prefix | undefined {
  const parsed = parseInterfaceAddress(text);
  return parsed && prefixOf(parsed, parsed.length);
}

/** The subnet of this length that holds the address. */
export function prefixOf({ family, value }: Address, length: number): Prefix {
  const hostMask = (1n << BigInt(ADDRESS_BITS[family] - length)) - 1n;
  const first = value & ~hostMask;
  return { family, first, last: first | hostMask, length, hasHostBits: first !== value };
}

/** The lowest that a host may have, by custom the router's; on a subnet of two (RFC 3021, RFC 6164) or one the very first. */
export function lowestHost({ family, first, length }: Prefix): Address {
  return { family, value: length >= ADDRESS_BITS[family] - 1 ? first : first + 1n };
}

/** Inside, and neither the network nor the broadcast address, which a subnet of two (RFC 3021) or one does not have. IPv4. */
export function isHostOf(subnet: Prefix, address: Address): boolean {
  const { first, last, length } = subnet;
  const isReserved = length < ADDRESS_BITS.IPv4 - 1 && (address.value === first || address.value === last);
  return contains(subnet, address) && !isReserved;
}

/** Canonical: `192.168.1.0/24` also for a prefix read from `192.168.1.7/24`. */
export function formatPrefix({ family, first, length }: Prefix): string {
  return `${formatAddress({ family, value: first })}/${length}`;
}

/** `192.168.1.2/24`, canonical: what parseInterfaceAddress reads. */
export function formatInterfaceAddress(address: InterfaceAddress): string {
  return `${formatAddress(address)}/${address.length}`;
}

/** Whether the two are one address, whatever subnets they were written with. */
export function isSameAddress(a: Address, b: Address): boolean {
  return a.value === b.value && a.family === b.family;
}

/** For sort(): IPv4 first, the lower address first. */
function compareAddresses(a: Address, b: Address): number {
  if (a.family !== b.family) return a.family === 'IPv4' ? -1 : 1;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

/** A copy in the order of the addresses; where two are the same, and for what is no address, as it was. */
export function inOrderOfAddress<T>(records: readonly T[], addressOf: (record: T) => Address | undefined): T[] {
  const placed = records.map((record) => ({ record, address: addressOf(record) }));
  const order = (a: Address | undefined, b: Address | undefined) =>
    a === undefined || b === undefined ? Number(a === undefined) - Number(b === undefined) : compareAddresses(a, b);
  return placed.sort((a, b) => order(a.address, b.address)).map(({ record }) => record);
}

/** Whether the address is in the range. */
export function contains(range: Range, { family, value }: Address): boolean {
  return family === range.family && value >= range.first && value <= range.last;
}

/** Whether every address of `inner` lies in `outer`. */
export function encloses(outer: Range, inner: Range): boolean {
  return inner.family === outer.family && inner.first >= outer.first && inner.last <= outer.last;
}

/** Whether the two have an address in common. */
export function overlaps(a: Range, b: Range): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

/** `AA-BB-CC-DD-EE-FF` or `aa:bb:cc:dd:ee:ff` (EUI-48) as lower case with colons; undefined when it is neither. */
export function parseMac(text: string): string | undefined {
  const isMac = /^[0-9a-f]{2}(?:(?::[0-9a-f]{2}){5}|(?:-[0-9a-f]{2}){5})$/i.test(text);
  return isMac ? text.toLowerCase().replaceAll('-', ':') : undefined;
}

/** Six bytes as `02:42:c0:a8:01:02`. Every frame that is heard is written so twice: hence no regular expression. */
export function formatMac(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += text === '' ? HEX[byte] : `:${HEX[byte]}`;
  return text;
}

/** The six bytes of a MAC address that parseMac or formatMac made. */
export function macBytes(mac: string): Uint8Array {
  const bytes = new Uint8Array(6);
  for (let at = 0; at < bytes.length; at++) bytes[at] = Number.parseInt(mac.slice(3 * at, 3 * at + 2), 16);
  return bytes;
}

/**
 * The address that a host with this MAC address makes of a prefix of 64 bits (RFC 4862 5.5.3 d): the interface identifier is the MAC
 * address with ff:fe in its middle and its universal bit inverted (RFC 4291 appendix A).
 */
export function addressOfMac({ first }: Pick<Range, 'first'>, mac: string): Address {
  const bytes = macBytes(mac);
  const [head = 0, ...rest] = bytes.subarray(0, 3);
  const identifier = Buffer.from([head ^ 0x02, ...rest, 0xff, 0xfe, ...bytes.subarray(3)]);
  return { family: 'IPv6', value: first | identifier.readBigUInt64BE() };
}

/** That which every host has on its link: fe80 and the interface identifier (RFC 4862 5.3). */
export function linkLocalOfMac(mac: string): Address {
  return addressOfMac({ first: LINK_LOCAL }, mac);
}

/** fe80::/10 (RFC 4291 2.4). */
export function isLinkLocal({ family, value }: Address): boolean {
  return family === 'IPv6' && value >> 118n === LINK_LOCAL >> 118n;
}

/** fe80:: */
const LINK_LOCAL = 0xfe80n << 112n;

/** A group address (broadcast included), which no interface may have as its own: IEEE 802-2014, 8.2.2. */
export function isMulticastMac(mac: string): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
}

/**
 * `02:42` and 192.168.1.2 make `02:42:c0:a8:01:02`: the same address always comes with the same MAC, so that no
 * neighbour cache goes stale when an address moves on to the next container.
 */
export function macFromIPv4(prefix: string, { value }: Address): string {
  const number = Number(value);
  return [prefix, ...[24, 16, 8, 0].map((shift) => HEX[(number >>> shift) & 255])].join(':');
}

/**
 * The prefix and four bytes of SHA-256 over the 16 bytes of the address. All bits count, because hosts of one subnet
 * may differ in any of them; of 1,000 addresses two share a MAC with a probability of about 1 in 8,600.
 */
export function macFromIPv6(prefix: string, address: Address): string {
  const hash = createHash('sha256').update(addressBytes(address)).digest();
  return [prefix, formatMac(hash.subarray(0, 4))].join(':');
}
