/** What a kernel says by rtnetlink: links, addresses, routes, neighbours and numbers of namespaces as messages. */
import { macBytes, parseMac } from '../../../src/address.ts';
import { MACVLAN_MODES } from '../../../src/kernel/message.ts';
import { encodeAttribute, nested, stringAttribute, u32Attribute } from '../../../src/kernel/netlink.ts';
import { IFA, IFLA, IFLA_INFO, IFLA_MACVLAN, NDA, NETNSA, RTA } from '../../../src/kernel/uapi.ts';
import { type Address, addressBytes } from './address.ts';
import type { Link } from './link.ts';
import type { Entry } from './neighbour.ts';

export const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  SETLINK: 19,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNEIGH: 28,
  GETNEIGH: 30,
  NEWNSID: 88,
  DELNSID: 89,
  GETNSID: 90,
} as const;

export const IFF = { UP: 0x1, NOARP: 0x80, PROMISC: 0x100, LOWER_UP: 0x10000 } as const;
const ARPHRD_ETHER = 1;
const NUD_REACHABLE = 0x02;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_MULTI = 2;
const NLM_F_CAPPED = 0x100;
export const FAMILY_NUMBERS = { IPv4: 2, IPv6: 10 } as const;

/** Header and body. */
export function message(type: number, body: Buffer, { sequence = 0, flags = 0 } = {}): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + body.length);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags, 6);
  header.writeUInt32LE(sequence, 8);
  const padding = (4 - (body.length % 4)) % 4;
  return Buffer.concat([header, body, Buffer.alloc(padding)]);
}

/** `errno` 0 says that it was done. */
export function acknowledgement(sequence: number, errno: number, request: Buffer): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(-errno);
  request.copy(body, 4, 0, 16);
  return message(NLMSG_ERROR, body, { sequence, flags: NLM_F_CAPPED });
}

/** All of a dump in one datagram. */
export function dump(type: number, bodies: readonly Buffer[], sequence: number): Buffer {
  const parts = bodies.map((body) => message(type, body, { sequence, flags: NLM_F_MULTI }));
  return Buffer.concat([...parts, message(NLMSG_DONE, Buffer.alloc(4), { sequence, flags: NLM_F_MULTI })]);
}

/** `parentNumber`: that of the namespace of its parent, where that is another than its own. */
export function linkMessage(link: Link, parentNumber: number | null): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt16LE(ARPHRD_ETHER, 2);
  body.writeInt32LE(link.index, 4);
  body.writeUInt32LE(flagsOf(link), 8);
  return Buffer.concat([
    body,
    stringAttribute(IFLA.IFNAME, link.name),
    u32Attribute(IFLA.MTU, link.mtu),
    encodeAttribute(IFLA.ADDRESS, macOf(link.macAddress)),
    u32Attribute(IFLA.PROMISCUITY, link.isPromiscuous ? 1 : 0),
    u32Attribute(IFLA.CARRIER_CHANGES, link.carrierChanges),
    u32Attribute(IFLA.MIN_MTU, 68),
    u32Attribute(IFLA.MAX_MTU, 65535),
    ...(link.alias === null ? [] : [encodeAttribute(IFLA.IFALIAS, Buffer.from(link.alias))]),
    ...(link.parent === null ? [] : [u32Attribute(IFLA.LINK, link.parent.index)]),
    ...(parentNumber === null ? [] : [u32Attribute(IFLA.LINK_NETNSID, parentNumber)]),
    ...kindOf(link),
  ]);
}

function flagsOf(link: Link): number {
  const flags = (link.isUp ? IFF.UP : 0) | (link.hasArp ? 0 : IFF.NOARP) | (link.isPromiscuous ? IFF.PROMISC : 0);
  return flags | (link.hasCarrier ? IFF.LOWER_UP : 0);
}

const BRIDGE_MODE = Number(Object.entries(MACVLAN_MODES).find(([, name]) => name === 'bridge')?.[0]);

function kindOf({ kind }: Link): Buffer[] {
  if (kind === null) return [];
  const data = kind === 'macvlan' ? [nested(IFLA_INFO.DATA, u32Attribute(IFLA_MACVLAN.MODE, BRIDGE_MODE))] : [];
  return [nested(IFLA.LINKINFO, stringAttribute(IFLA_INFO.KIND, kind), ...data)];
}

/** A number here means nothing to the host: other namespaces number for themselves. */
const FOREIGN_NUMBER = 1000;

export function encodeLinkEvent(link: Link, isGone: boolean): Buffer {
  const isApart = link.parent !== null && link.parent.namespace !== link.namespace;
  return message(isGone ? RTM.DELLINK : RTM.NEWLINK, linkMessage(link, isApart ? FOREIGN_NUMBER : null));
}

export function addressMessage(index: number, address: Address, length: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt8(FAMILY_NUMBERS[address.family]);
  body.writeUInt8(length, 1);
  body.writeUInt32LE(index, 4);
  const bytes = addressBytes(address);
  return Buffer.concat([body, encodeAttribute(IFA.ADDRESS, bytes), encodeAttribute(IFA.LOCAL, bytes)]);
}

export function encodeAddressEvent(index: number, address: Address, length: number, isGone: boolean): Buffer {
  return message(isGone ? RTM.DELADDR : RTM.NEWADDR, addressMessage(index, address, length));
}

export function numberMessage(id: number): Buffer {
  return Buffer.concat([Buffer.alloc(4), u32Attribute(NETNSA.NSID, id)]);
}

export function encodeNumberEvent(id: number, isGone: boolean): Buffer {
  return message(isGone ? RTM.DELNSID : RTM.NEWNSID, numberMessage(id));
}

/** A route of the host in table main. */
export interface Route {
  readonly destination: Address | null;
  readonly length: number;
  readonly link: Link;
  readonly gateway: Address | null;
}

export function routeMessage({ destination, length, link, gateway }: Route): Buffer {
  const body = Buffer.alloc(12);
  const family = FAMILY_NUMBERS[destination?.family ?? gateway?.family ?? 'IPv4'];
  body.set([family, length, 0, 0, 254, 4, gateway === null ? 253 : 0, 1]);
  return Buffer.concat([
    body,
    ...(destination === null ? [] : [encodeAttribute(RTA.DST, addressBytes(destination))]),
    u32Attribute(RTA.OIF, link.index),
    ...(gateway === null ? [] : [encodeAttribute(RTA.GATEWAY, addressBytes(gateway))]),
  ]);
}

export function neighbourMessage({ link, address, macAddress }: Entry): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt8(FAMILY_NUMBERS[address.family]);
  body.writeInt32LE(link.index, 4);
  body.writeUInt16LE(NUD_REACHABLE, 8);
  return Buffer.concat([
    body,
    encodeAttribute(NDA.DST, addressBytes(address)),
    encodeAttribute(NDA.LLADDR, macOf(macAddress)),
  ]);
}

function macOf(text: string): Uint8Array {
  const mac = parseMac(text);
  if (mac === undefined) throw new Error(`${text} is no MAC address`);
  return macBytes(mac);
}
