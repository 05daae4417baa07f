/** Router Solicitation and Router Advertisement as frames (RFC 4861 4.1, 4.2). Pure. */
import {
  type Address,
  type Prefix,
  addressFromBytes,
  isLinkLocal,
  linkLocalOfMac,
  macBytes,
  prefixOf,
} from '../../address.ts';
import { ETHERTYPE_IPV6, HEADER_BYTES, decodeHeader, encodeFrame } from './ethernet.ts';
import { HOP_LIMIT, encodeIcmpv6, icmpv6Message, isMulticast, multicastMac } from './nd.ts';

/** What a router says of itself and of its LAN. */
export interface RouterAdvertisement {
  readonly protocol: 'RA';
  readonly sourceMac: string;
  /** Its link-local address. */
  readonly router: Address;
  /** A DHCPv6 server gives addresses. */
  readonly isManaged: boolean;
  /** How long it is a default router; 0 for one that is none. */
  readonly lifetimeSeconds: number;
  readonly prefixes: readonly AdvertisedPrefix[];
}

/** A Prefix Information option (RFC 4861 4.6.2). */
export interface AdvertisedPrefix {
  readonly prefix: Prefix;
  /** Hosts make addresses of it by themselves. */
  readonly isAutonomous: boolean;
  /** Never more than those below. */
  readonly preferredSeconds: number;
  readonly validSeconds: number;
}

export const ADVERTISEMENT_TYPE = 134;
const SOLICITATION_TYPE = 133;
/** Type, code, checksum, hop limit, flags, lifetime, reachable time, retransmission timer. */
const FIXED_BYTES = 16;
const FLAG_MANAGED = 0x80;
const OPTION_SOURCE_LINK_LAYER = 1;
const OPTION_PREFIX = 3;
const PREFIX_OPTION_BYTES = 32;
const FLAG_AUTONOMOUS = 0x40;
/** More than a frame of 1,500 bytes holds. */
const MOST_PREFIXES = 48;

/** ff02::2 */
const ALL_ROUTERS: Address = { family: 'IPv6', value: 0xff02_0000_0000_0000_0000_0000_0000_0002n };

/** "Routers, tell what you advertise", in the name of a host with this MAC address, which switches learn by that. */
export function routerSolicitation(macAddress: string): Buffer {
  const message = Buffer.concat([Buffer.of(SOLICITATION_TYPE, 0, 0, 0, 0, 0, 0, 0), linkLayerOption(macAddress)]);
  const header = { source: linkLocalOfMac(macAddress), destination: ALL_ROUTERS, hopLimit: HOP_LIMIT };
  const ethernet = { destinationMac: multicastMac(ALL_ROUTERS), sourceMac: macAddress };
  return encodeFrame(ethernet, ETHERTYPE_IPV6, encodeIcmpv6(header, message));
}

function linkLayerOption(macAddress: string): Buffer {
  return Buffer.concat([Buffer.of(OPTION_SOURCE_LINK_LAYER, 1), macBytes(macAddress)]);
}

/** Undefined unless the frame is an advertisement that passes the receiver's checks of RFC 4861 6.1.2. */
export function decodeRouterAdvertisement(frame: Buffer): RouterAdvertisement | undefined {
  const message = icmpv6Message(frame);
  if (message === undefined || message.length < FIXED_BYTES) return undefined;
  if (message.readUInt8(0) !== ADVERTISEMENT_TYPE || message.readUInt8(1) !== 0) return undefined;
  const router = addressFromBytes(frame.subarray(HEADER_BYTES + 8, HEADER_BYTES + 24));
  const prefixes = isLinkLocal(router) ? decodePrefixes(message.subarray(FIXED_BYTES)) : undefined;
  return (
    prefixes && {
      protocol: 'RA',
      sourceMac: decodeHeader(frame).sourceMac,
      router,
      isManaged: (message.readUInt8(5) & FLAG_MANAGED) !== 0,
      lifetimeSeconds: message.readUInt16BE(6),
      prefixes,
    }
  );
}

/** Undefined when an option has no length or is cut off. */
function decodePrefixes(bytes: Buffer): AdvertisedPrefix[] | undefined {
  const prefixes: AdvertisedPrefix[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const length = (bytes[offset + 1] ?? 0) * 8;
    if (length === 0 || offset + length > bytes.length) return undefined;
    const option = bytes.subarray(offset, offset + length);
    const prefix = option.readUInt8(0) === OPTION_PREFIX ? decodePrefix(option) : undefined;
    if (prefix !== undefined && prefixes.length < MOST_PREFIXES) prefixes.push(prefix);
    offset += length;
  }
  return prefixes;
}

/** Undefined for one that hosts leave alone (RFC 4862 5.5.3): no prefix, that of all links or of groups, or with lifetimes that make no sense. */
function decodePrefix(option: Buffer): AdvertisedPrefix | undefined {
  if (option.length !== PREFIX_OPTION_BYTES) return undefined;
  const [length, flags] = [option.readUInt8(2), option.readUInt8(3)];
  const [validSeconds, preferredSeconds] = [option.readUInt32BE(4), option.readUInt32BE(8)];
  const address = addressFromBytes(option.subarray(16, 32));
  if (length > 128 || preferredSeconds > validSeconds || isLinkLocal(address) || isMulticast(address)) return undefined;
  const prefix = prefixOf(address, length);
  return { prefix, isAutonomous: (flags & FLAG_AUTONOMOUS) !== 0, preferredSeconds, validSeconds };
}
