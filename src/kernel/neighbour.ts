/**
 * rtnetlink's messages about the neighbour table (linux/neighbour.h): which MAC address this host knows for an address, and which
 * MAC addresses a link is to let through. Pure.
 */
import { type Address, ADDRESS_BITS, addressBytes, addressFromBytes, formatMac } from '../address.ts';
import type { Family } from '../model.ts';
import { Attributes, type Message, encodeAttribute, malformed } from './netlink.ts';
import { NDA } from './uapi.ts';

export const RTM_NEWNEIGH = 28;
export const RTM_GETNEIGH = 30;

/** struct ndmsg {u8 family; u8; u16; i32 link; u16 state; u8 flags; u8 type}. */
export const NEIGHBOUR_BODY_SIZE = 12;
const AF_INET = 2;
const AF_BRIDGE = 7;
const AF_INET6 = 10;
const FAMILY_NUMBERS: Readonly<Record<Family, number>> = { IPv4: AF_INET, IPv6: AF_INET6 };

/** Of the link itself, not of the bridge that it is a port of. */
const NTF_SELF = 0x02;

/** NUD_*: what the host knows about its knowledge (RFC 4861 7.3.2). */
export const NEIGHBOUR_STATES: Readonly<Record<number, string>> = {
  0x01: 'incomplete',
  0x02: 'reachable',
  0x04: 'stale',
  0x08: 'delay',
  0x10: 'probe',
  0x20: 'failed',
  0x40: 'noarp',
  0x80: 'permanent',
};

/** An entry of the host's neighbour table. */
export interface Neighbour {
  readonly linkIndex: number;
  readonly address: Address;
  /** Null while the host asks, and where nobody answered. */
  readonly macAddress: string | null;
  /** The kernel's NUD_* in lower case: `reachable`, `stale`, `permanent`; `none` where there is no such state. */
  readonly state: string;
}

/** The entry of one address on a link. */
export function neighbourBody(linkIndex: number, address: Address): Buffer {
  const body = neighbourDumpBody(address.family);
  body.writeInt32LE(linkIndex, 4);
  return Buffer.concat([body, encodeAttribute(NDA.DST, addressBytes(address))]);
}

/** All entries of a family. */
export function neighbourDumpBody(family: Family): Buffer {
  const body = Buffer.alloc(NEIGHBOUR_BODY_SIZE);
  body.writeUInt8(FAMILY_NUMBERS[family]);
  return body;
}

/** The MAC addresses that all links are to let through beside their own. */
export function filterDumpBody(): Buffer {
  const body = Buffer.alloc(NEIGHBOUR_BODY_SIZE);
  body.writeUInt8(AF_BRIDGE);
  return body;
}

/** A MAC address that a link is to let through: of a sub-interface on it, or of a packet socket that asked for it. */
export interface FilterEntry {
  readonly linkIndex: number;
  readonly macAddress: string;
}

/** Undefined for what is no such entry, and for a group's MAC address (IEEE 802-2014, 8.2.2). */
export function decodeFilterEntry({ body }: Message): FilterEntry | undefined {
  if (body.length < NEIGHBOUR_BODY_SIZE) throw malformed('neighbour', body.length);
  const mac = new Attributes(body, NEIGHBOUR_BODY_SIZE).bytes(NDA.LLADDR);
  const isOfLink = body.readUInt8() === AF_BRIDGE && (body.readUInt8(10) & NTF_SELF) !== 0;
  if (!isOfLink || mac?.length !== 6 || (mac.readUInt8() & 0x01) !== 0) return undefined;
  return { linkIndex: body.readInt32LE(4), macAddress: formatMac(mac) };
}

/** Undefined for an entry that is about no IPv4 or IPv6 address. */
export function decodeNeighbour({ body }: Message): Neighbour | undefined {
  if (body.length < NEIGHBOUR_BODY_SIZE) throw malformed('neighbour', body.length);
  const attributes = new Attributes(body, NEIGHBOUR_BODY_SIZE);
  const family = body.readUInt8() === AF_INET ? 'IPv4' : 'IPv6';
  const bytes = attributes.bytes(NDA.DST);
  if (body.readUInt8() !== FAMILY_NUMBERS[family] || bytes?.length !== ADDRESS_BITS[family] / 8) return undefined;
  const mac = attributes.bytes(NDA.LLADDR);
  return {
    linkIndex: body.readInt32LE(4),
    address: addressFromBytes(bytes),
    macAddress: mac?.length === 6 ? formatMac(mac) : null,
    state: NEIGHBOUR_STATES[body.readUInt16LE(8)] ?? 'none',
  };
}
