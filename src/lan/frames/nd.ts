/** Neighbour Solicitation and Advertisement as frames (RFC 4861 4.3, 4.4), as Duplicate Address Detection uses them. Pure. */
import { type Address, addressBytes, addressFromBytes, formatMac, macBytes } from '../../address.ts';
import { internetChecksum } from './checksum.ts';
import {
  ETHERTYPE_IPV6,
  type EthernetHeader,
  HEADER_BYTES,
  decodeHeader,
  encodeFrame,
  etherTypeOf,
} from './ethernet.ts';

interface NdPacket extends EthernetHeader {
  /** Of the IPv6 header. */
  readonly source: Address;
  readonly destination: Address;
  readonly target: Address;
  /** The source link-layer address option of a solicitation, the target's of an advertisement. */
  readonly linkLayerAddress: string | null;
}

/** "Who has the target?" (RFC 4861 4.3). From `::` it is a probe. */
export interface NeighborSolicitation extends NdPacket {
  readonly protocol: 'NS';
  /** The Nonce option as 12 hexadecimal digits (RFC 3971 5.3.2, RFC 7527 4.1). */
  readonly nonce: string | null;
}

/** "The target is at this MAC address" (RFC 4861 4.4). */
export interface NeighborAdvertisement extends NdPacket {
  readonly protocol: 'NA';
  readonly isRouter: boolean;
  readonly isSolicited: boolean;
  readonly isOverride: boolean;
  /** Of an announcement that is to be unlike any other: 12 hexadecimal digits, in an option that receivers pass over (RFC 4861 4.6). */
  readonly nonce?: string | null;
}

export const IPV6_HEADER_BYTES = 40;
const NEXT_HEADER_HOP_BY_HOP = 0;
export const NEXT_HEADER_ICMPV6 = 58;
/** A packet that a router had passed on would have a smaller one (RFC 4861 7.1). */
export const HOP_LIMIT = 255;
const SOLICITATION = 135;
const ADVERTISEMENT = 136;
/** Type, code, checksum, flags, target. */
const FIXED_BYTES = 24;
const OPTION_SOURCE_LINK_LAYER = 1;
const OPTION_TARGET_LINK_LAYER = 2;
const OPTION_NONCE = 14;
const FLAG_ROUTER = 0x80;
const FLAG_SOLICITED = 0x40;
const FLAG_OVERRIDE = 0x20;

const UNSPECIFIED: Address = { family: 'IPv6', value: 0n };
/** ff02::1 */
const ALL_NODES: Address = { family: 'IPv6', value: 0xff02_0000_0000_0000_0000_0000_0000_0001n };
/** ff02::1:ff00:0 */
const SOLICITED_NODE_PREFIX = 0xff02_0000_0000_0000_0000_0001_ff00_0000n;

/** On which every IPv6 host listens: 33:33:00:00:00:01. */
export const ALL_NODES_MAC = multicastMac(ALL_NODES);

/** The group that a node joins for each of its addresses: ff02::1:ff and the last three bytes (RFC 4291 2.7.1). */
export function solicitedNodeGroup({ value }: Address): Address {
  return { family: 'IPv6', value: SOLICITED_NODE_PREFIX | (value & 0xff_ffffn) };
}

/** 33:33 and the last four bytes of the group (RFC 2464 7). */
export function multicastMac(group: Address): string {
  return `33:33:${formatMac(addressBytes(group).subarray(12))}`;
}

/** "Does anybody have this address?", from `::` and without the sender's MAC, so that no cache learns it (RFC 4862 5.4.2). */
export function ndProbe(target: Address, sourceMac: string, nonce: string): NeighborSolicitation {
  const destination = solicitedNodeGroup(target);
  return {
    protocol: 'NS',
    destinationMac: multicastMac(destination),
    sourceMac,
    source: UNSPECIFIED,
    destination,
    target,
    linkLayerAddress: null,
    nonce,
  };
}

/** "This address is mine, at this MAC", to all nodes and unasked; caches take it over (RFC 4861 7.2.6). */
export function ndAnnouncement(target: Address, mac: string, nonce: string | null = null): NeighborAdvertisement {
  return { ...ndDefence(target, mac), isOverride: true, nonce };
}

/**
 * The answer to a probe, to all nodes because who asks from `::` cannot be addressed (RFC 4861 7.2.4). Without the
 * override flag: whoever knows another MAC for the address keeps it.
 */
export function ndDefence(target: Address, mac: string): NeighborAdvertisement {
  return {
    protocol: 'NA',
    destinationMac: ALL_NODES_MAC,
    sourceMac: mac,
    source: target,
    destination: ALL_NODES,
    target,
    linkLayerAddress: mac,
    isRouter: false,
    isSolicited: false,
    isOverride: false,
  };
}

/** The answer to a question of somebody who has an address: the target is at this MAC (RFC 4861 7.2.4). */
export function ndAnswer({ source, sourceMac, target }: NeighborSolicitation, mac: string): NeighborAdvertisement {
  return {
    ...ndDefence(target, mac),
    destinationMac: sourceMac,
    destination: source,
    isSolicited: true,
    isOverride: true,
  };
}

/** The whole frame, with the checksum of RFC 4443 2.3. */
export function encodeNd(packet: NeighborSolicitation | NeighborAdvertisement): Buffer {
  const message = packet.protocol === 'NS' ? encodeSolicitation(packet) : encodeAdvertisement(packet);
  addressBytes(packet.target).copy(message, 8);
  return encodeFrame(packet, ETHERTYPE_IPV6, encodeIcmpv6({ ...packet, hopLimit: HOP_LIMIT }, message));
}

interface IPv6Header {
  readonly source: Address;
  readonly destination: Address;
  readonly hopLimit: number;
}

/** An IPv6 packet; fills in the message's checksum. `hopByHop`: a whole header of eight bytes. */
export function encodeIcmpv6(
  { source, destination, hopLimit }: IPv6Header,
  message: Buffer,
  hopByHop?: Buffer,
): Buffer {
  const header = Buffer.alloc(IPV6_HEADER_BYTES);
  header.writeUInt8(6 << 4, 0);
  header.writeUInt16BE((hopByHop?.length ?? 0) + message.length, 4);
  header.writeUInt8(hopByHop ? NEXT_HEADER_HOP_BY_HOP : NEXT_HEADER_ICMPV6, 6);
  header.writeUInt8(hopLimit, 7);
  addressBytes(source).copy(header, 8);
  addressBytes(destination).copy(header, 24);
  message.writeUInt16BE(checksum(header, message), 2);
  return Buffer.concat([header, ...(hopByHop ? [hopByHop] : []), message]);
}

function encodeSolicitation({ linkLayerAddress, nonce }: NeighborSolicitation): Buffer {
  const message = Buffer.concat([
    Buffer.alloc(FIXED_BYTES),
    encodeOption(OPTION_SOURCE_LINK_LAYER, linkLayerAddress === null ? null : macBytes(linkLayerAddress)),
    encodeOption(OPTION_NONCE, nonce === null ? null : Buffer.from(nonce, 'hex')),
  ]);
  message.writeUInt8(SOLICITATION);
  return message;
}

function encodeAdvertisement({ linkLayerAddress, nonce = null, ...flags }: NeighborAdvertisement): Buffer {
  const message = Buffer.concat([
    Buffer.alloc(FIXED_BYTES),
    encodeOption(OPTION_TARGET_LINK_LAYER, linkLayerAddress === null ? null : macBytes(linkLayerAddress)),
    encodeOption(OPTION_NONCE, nonce === null ? null : Buffer.from(nonce, 'hex')),
  ]);
  message.writeUInt8(ADVERTISEMENT);
  message.writeUInt8(
    (flags.isRouter ? FLAG_ROUTER : 0) |
      (flags.isSolicited ? FLAG_SOLICITED : 0) |
      (flags.isOverride ? FLAG_OVERRIDE : 0),
    4,
  );
  return message;
}

/** Six bytes of value, so that type, length (in units of eight) and value fill one unit; null makes no option. */
function encodeOption(type: number, value: Uint8Array | null): Buffer {
  return value === null ? Buffer.alloc(0) : Buffer.concat([Buffer.of(type, 1), value]);
}

/**
 * Undefined unless the frame is a solicitation or an advertisement that passes the receiver's checks of RFC 4861 7.1.1
 * and 7.1.2. What follows the IPv6 packet is padding.
 */
export function decodeNd(frame: Buffer): NeighborSolicitation | NeighborAdvertisement | undefined {
  const message = icmpv6Message(frame);
  if (message === undefined || message.length < FIXED_BYTES || message.readUInt8(1) !== 0) return undefined;
  const options = decodeOptions(message.subarray(FIXED_BYTES));
  if (options === undefined) return undefined;
  const packet = {
    ...decodeHeader(frame),
    source: addressFromBytes(frame.subarray(HEADER_BYTES + 8, HEADER_BYTES + 24)),
    destination: addressFromBytes(frame.subarray(HEADER_BYTES + 24, HEADER_BYTES + 40)),
    target: addressFromBytes(message.subarray(8, 24)),
  };
  if (isMulticast(packet.target)) return undefined;
  const type = message.readUInt8(0);
  if (type === SOLICITATION) return solicitation(packet, options);
  return type === ADVERTISEMENT ? advertisement(packet, options, message.readUInt8(4)) : undefined;
}

type Headers = Omit<NdPacket, 'linkLayerAddress'>;
type Options = ReadonlyMap<number, Buffer>;

function solicitation(packet: Headers, options: Options): NeighborSolicitation | undefined {
  const linkLayerAddress = macOption(options, OPTION_SOURCE_LINK_LAYER);
  const isProbe = packet.source.value === 0n;
  if (isProbe && (linkLayerAddress !== null || !isSolicitedNodeGroup(packet.destination))) return undefined;
  const nonce = options.get(OPTION_NONCE);
  return {
    protocol: 'NS',
    ...packet,
    linkLayerAddress,
    nonce: nonce?.length === 6 ? nonce.toString('hex') : null,
  };
}

function advertisement(packet: Headers, options: Options, flags: number): NeighborAdvertisement | undefined {
  const isSolicited = (flags & FLAG_SOLICITED) !== 0;
  if (isSolicited && isMulticast(packet.destination)) return undefined;
  return {
    protocol: 'NA',
    ...packet,
    linkLayerAddress: macOption(options, OPTION_TARGET_LINK_LAYER),
    isRouter: (flags & FLAG_ROUTER) !== 0,
    isSolicited,
    isOverride: (flags & FLAG_OVERRIDE) !== 0,
  };
}

/** The ICMPv6 message of a frame, when it came from this link whole and undamaged. */
export function icmpv6Message(frame: Buffer): Buffer | undefined {
  const header = frame.subarray(HEADER_BYTES, HEADER_BYTES + IPV6_HEADER_BYTES);
  if (etherTypeOf(frame) !== ETHERTYPE_IPV6 || header.length < IPV6_HEADER_BYTES) return undefined;
  if (header.readUInt8(0) >> 4 !== 6 || header.readUInt8(6) !== NEXT_HEADER_ICMPV6) return undefined;
  if (header.readUInt8(7) !== HOP_LIMIT) return undefined;
  const length = header.readUInt16BE(4);
  const message = frame.subarray(HEADER_BYTES + IPV6_HEADER_BYTES, HEADER_BYTES + IPV6_HEADER_BYTES + length);
  return message.length === length && checksum(header, message) === 0 ? message : undefined;
}

/** The first option of each type; undefined when one has no length or is cut off. */
function decodeOptions(bytes: Buffer): Options | undefined {
  const options = new Map<number, Buffer>();
  for (let offset = 0; offset < bytes.length; ) {
    const length = (bytes[offset + 1] ?? 0) * 8;
    if (length === 0 || offset + length > bytes.length) return undefined;
    const type = bytes.readUInt8(offset);
    if (!options.has(type)) options.set(type, bytes.subarray(offset + 2, offset + length));
    offset += length;
  }
  return options;
}

function macOption(options: Options, type: number): string | null {
  const value = options.get(type);
  return value?.length === 6 ? formatMac(value) : null;
}

/** ff00::/8 (RFC 4291 2.7). */
export function isMulticast({ value }: Address): boolean {
  return value >> 120n === 0xffn;
}

function isSolicitedNodeGroup({ value }: Address): boolean {
  return value >> 24n === SOLICITED_NODE_PREFIX >> 24n;
}

/**
 * The Internet checksum over pseudo-header and message (RFC 4443 2.3, RFC 8200 8.1). Over a message that carries its
 * checksum it is 0.
 */
function checksum(header: Buffer, message: Buffer): number {
  return internetChecksum(message.length + NEXT_HEADER_ICMPV6, header.subarray(8), message);
}
