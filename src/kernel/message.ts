/** rtnetlink's messages about links, addresses and routes (linux/if_link.h, if_addr.h, rtnetlink.h). Pure. */
import { constants } from 'node:os';
import {
  ADDRESS_BITS,
  formatAddress,
  formatMac,
  macBytes,
  parseInterfaceAddress,
  parseMac,
  parsePrefix,
} from '../address.ts';
import type { Family, Mode } from '../model.ts';
import { KernelError } from './errno.ts';
import {
  Attributes,
  type Message,
  be16Attribute,
  decodeAttributes,
  decodeText,
  encodeAttribute,
  malformed,
  nested,
  stringAttribute,
  u16Attribute,
  u32Attribute,
  u8Attribute,
} from './netlink.ts';
import { IFA, IFLA, IFLA_INFO, IFLA_MACVLAN, IFLA_VLAN, RTA } from './uapi.ts';

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_SETLINK = 19;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;

export const IFF_UP = 0x1;
export const IFF_NOARP = 0x80;
export const IFF_PROMISC = 0x100;
const IFF_LOOPBACK = 0x8;
const IFF_LOWER_UP = 0x10000;

const IFLA_INET_CONF = 1;
/** linux/ip.h */
export const IPV4_DEVCONF_ARP_FILTER = 13;
export const IPV4_DEVCONF_ARP_ANNOUNCE = 18;

const RTEXT_FILTER_SKIP_STATS = 8;

const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;

const LINK_BODY_SIZE = 16;
const ADDRESS_BODY_SIZE = 8;
const ROUTE_BODY_SIZE = 12;
const NEXTHOP_SIZE = 8;

/** enum macvlan_mode. */
export const MACVLAN_MODES: Readonly<Record<number, Mode | 'source'>> = {
  1: 'private',
  2: 'vepa',
  4: 'bridge',
  8: 'passthru',
  16: 'source',
};
const VLAN_ETHERTYPES = { '802.1Q': 0x8100, '802.1ad': 0x88a8 } as const;

/** A network link as the kernel shows it in this namespace. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly alternativeNames: readonly string[];
  /** IFLA_IFALIAS: free text, ours on the links we made. */
  readonly alias: string | null;
  /** `macvlan`, `vlan`, `veth`, `bridge`; null for a device of a driver without rtnl_link_ops: physical, loopback. */
  readonly kind: string | null;
  /** ARPHRD_* (linux/if_arp.h): 1 is Ethernet. */
  readonly type: number;
  /** Lower case with colons; empty where the link has none. */
  readonly macAddress: string;
  readonly mtu: number;
  /** Bytes; null where the kernel does not say, 0 where there is no limit. */
  readonly minMtu: number | null;
  readonly maxMtu: number | null;
  /** IFLA_LINK: the parent of a VLAN or macvlan, the peer of a veth; an index in parentNamespaceId if that is set. */
  readonly parentIndex: number | null;
  /** IFLA_LINK_NETNSID: this namespace's number for the one the parent lives in; null when it is the same. */
  readonly parentNamespaceId: number | null;
  /** The bridge, bond or team it is a member of. */
  readonly masterIndex: number | null;
  readonly masterKind: string | null;
  /** Administratively. */
  readonly isUp: boolean;
  /** Up, and the lower layer says it can carry frames. */
  readonly hasCarrier: boolean;
  /** How often hasCarrier changed since the link was made; 0 where the kernel does not count (before 3.15). */
  readonly carrierChanges: number;
  readonly isLoopback: boolean;
  /** IFF_PROMISC: an administrator set it. The kernel's own count is `promiscuity`. */
  readonly isPromiscuous: boolean;
  readonly promiscuity: number;
  readonly macvlanMode: Mode | 'source' | null;
  readonly vlan: { readonly id: number; readonly protocol: VlanKind } | null;
}

export type VlanKind = keyof typeof VLAN_ETHERTYPES;

/** An address on a link, as the kernel tells it. */
export interface LinkAddress {
  readonly linkIndex: number;
  /** Canonical, without prefix length. */
  readonly address: string;
  readonly prefixLength: number;
  readonly family: Family;
  /** Of a point-to-point link, the other end's; one link may have the address several times, with different ones. */
  readonly peer?: string;
}

/** A unicast route, or one of its next hops. */
export interface Route {
  /** `192.168.1.0/24`, or `default`. */
  readonly destination: string;
  readonly linkIndex: number;
  /** Null when the destination is on the link. */
  readonly gateway: string | null;
  readonly family: Family;
  /** 254 is `main`. */
  readonly table: number;
}

// --- links ---------------------------------------------------------------------------------------------------------

/** What struct ifinfomsg says: which link, and which of its flags are to be changed. */
export interface LinkHeader {
  /** 0 names no link. */
  readonly index?: number;
  readonly flags?: number;
  /** The flags to be changed. */
  readonly change?: number;
}

/** struct ifinfomsg {u8 family; u8; u16 type; i32 index; u32 flags; u32 change}, then attributes. */
export function linkBody({ index = 0, flags = 0, change = 0 }: LinkHeader, ...attributes: Buffer[]): Buffer {
  const body = Buffer.alloc(LINK_BODY_SIZE);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(flags, 8);
  body.writeUInt32LE(change, 12);
  return Buffer.concat([body, ...attributes]);
}

export const linkName = (name: string) => stringAttribute(IFLA.IFNAME, name);
export const linkAlternativeName = (name: string) => stringAttribute(IFLA.ALT_IFNAME, name);
/** No terminating NUL: it would become part of the alias. */
export const linkAlias = (alias: string) => encodeAttribute(IFLA.IFALIAS, Buffer.from(alias));
export const linkGroup = (group: number) => u32Attribute(IFLA.GROUP, group);
export const linkMtu = (mtu: number) => u32Attribute(IFLA.MTU, mtu);
export const linkParent = (index: number) => u32Attribute(IFLA.LINK, index);
/** The link is one of another namespace, by its number here. */
export const linkNamespace = (namespaceId: number) => u32Attribute(IFLA.TARGET_NETNSID, namespaceId);
export const withoutStatistics = () => u32Attribute(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS);

/** IFLA_ADDRESS. Throws EINVAL for what is no MAC address. */
export function linkMacAddress(macAddress: string): Buffer {
  const mac = parseMac(macAddress);
  if (mac === undefined) throw invalid('MAC address', macAddress);
  return encodeAttribute(IFLA.ADDRESS, macBytes(mac));
}

/** IFLA_LINKINFO of a macvlan; `broadcastQueueLength` null leaves the kernel's own. */
export function macvlanInfo(mode: Mode, broadcastQueueLength: number | null): Buffer {
  const number = Number(Object.entries(MACVLAN_MODES).find(([, name]) => name === mode)?.[0]);
  const queue = broadcastQueueLength === null ? [] : [u32Attribute(IFLA_MACVLAN.BC_QUEUE_LEN, broadcastQueueLength)];
  return linkInfo('macvlan', u32Attribute(IFLA_MACVLAN.MODE, number), ...queue);
}

/** IFLA_LINKINFO of a VLAN. */
export function vlanInfo(id: number, protocol: VlanKind): Buffer {
  return linkInfo('vlan', u16Attribute(IFLA_VLAN.ID, id), be16Attribute(IFLA_VLAN.PROTOCOL, VLAN_ETHERTYPES[protocol]));
}

/** IFLA_LINKINFO of any kind, with the attributes of that kind. */
export function linkInfo(kind: string, ...data: Buffer[]): Buffer {
  const kindAttribute = stringAttribute(IFLA_INFO.KIND, kind);
  return nested(IFLA.LINKINFO, kindAttribute, ...(data.length === 0 ? [] : [nested(IFLA_INFO.DATA, ...data)]));
}

/** The link makes itself no IPv6 address when it comes up. */
export function withoutAddressGeneration(): Buffer {
  return nested(IFLA.AF_SPEC, nested(AF_INET6, u8Attribute(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)));
}

/** Values of net.ipv4.conf.LINK, by rtnetlink, which works where /proc/sys is read-only (inet_set_link_af). */
export function ipv4Config(values: Readonly<Record<number, number>>): Buffer {
  const entries = Object.entries(values).map(([type, value]) => u32Attribute(Number(type), value));
  return nested(IFLA.AF_SPEC, nested(AF_INET, nested(IFLA_INET_CONF, ...entries)));
}

const LINK_ATTRIBUTES = new Set([
  IFLA.ADDRESS,
  IFLA.CARRIER_CHANGES,
  IFLA.IFALIAS,
  IFLA.IFNAME,
  IFLA.LINK,
  IFLA.LINK_NETNSID,
  IFLA.LINKINFO,
  IFLA.MASTER,
  IFLA.MAX_MTU,
  IFLA.MIN_MTU,
  IFLA.MTU,
  IFLA.PROMISCUITY,
  IFLA.PROP_LIST,
  IFLA.WIRELESS,
]);

/**
 * Undefined for a message that does not describe a link: a bridge's word about a port (family AF_BRIDGE, whose
 * RTM_DELLINK means that the port left it) and a wireless event.
 */
export function decodeLink({ body }: Message): Link | undefined {
  if (body.length < LINK_BODY_SIZE) throw malformed('link', body.length);
  const attributes = new Attributes(body, LINK_BODY_SIZE, LINK_ATTRIBUTES);
  if (body.readUInt8() !== AF_UNSPEC || attributes.has(IFLA.WIRELESS)) return undefined;
  const info = attributes.nested(IFLA.LINKINFO);
  return {
    index: body.readInt32LE(4),
    name: attributes.text(IFLA.IFNAME) ?? '',
    alternativeNames: alternativeNames(attributes),
    alias: attributes.text(IFLA.IFALIAS),
    type: body.readUInt16LE(2),
    macAddress: formatMac(attributes.bytes(IFLA.ADDRESS) ?? Buffer.alloc(0)),
    mtu: attributes.u32(IFLA.MTU) ?? 0,
    minMtu: attributes.u32(IFLA.MIN_MTU),
    maxMtu: attributes.u32(IFLA.MAX_MTU),
    parentIndex: attributes.u32(IFLA.LINK),
    parentNamespaceId: attributes.i32(IFLA.LINK_NETNSID),
    masterIndex: attributes.u32(IFLA.MASTER),
    masterKind: info.text(IFLA_INFO.SLAVE_KIND),
    promiscuity: attributes.u32(IFLA.PROMISCUITY) ?? 0,
    carrierChanges: attributes.u32(IFLA.CARRIER_CHANGES) ?? 0,
    ...decodeFlags(body.readUInt32LE(8)),
    ...decodeKind(info),
  };
}

function decodeFlags(flags: number): Pick<Link, 'isUp' | 'hasCarrier' | 'isLoopback' | 'isPromiscuous'> {
  return {
    isUp: (flags & IFF_UP) !== 0,
    hasCarrier: (flags & IFF_LOWER_UP) !== 0,
    isLoopback: (flags & IFF_LOOPBACK) !== 0,
    isPromiscuous: (flags & IFF_PROMISC) !== 0,
  };
}

function decodeKind(info: Attributes): Pick<Link, 'kind' | 'macvlanMode' | 'vlan'> {
  const kind = info.text(IFLA_INFO.KIND);
  const data = info.nested(IFLA_INFO.DATA);
  return {
    kind,
    macvlanMode: kind === 'macvlan' ? (MACVLAN_MODES[data.u32(IFLA_MACVLAN.MODE) ?? 0] ?? null) : null,
    vlan: kind === 'vlan' ? decodeVlan(data) : null,
  };
}

function decodeVlan(data: Attributes): Link['vlan'] {
  const id = data.u16(IFLA_VLAN.ID);
  // Kernels before 3.10 know no protocol but 802.1Q.
  const protocol = data.be16(IFLA_VLAN.PROTOCOL) === VLAN_ETHERTYPES['802.1ad'] ? '802.1ad' : '802.1Q';
  return id === null ? null : { id, protocol };
}

function alternativeNames(attributes: Attributes): string[] {
  const list = attributes.bytes(IFLA.PROP_LIST);
  if (list === null) return [];
  return decodeAttributes(list)
    .filter(({ type }) => type === IFLA.ALT_IFNAME)
    .map(({ value }) => decodeText(value));
}

// --- addresses -----------------------------------------------------------------------------------------------------

const IFA_F_NODAD = 0x02;

const FAMILIES: Readonly<Record<number, Family>> = { [AF_INET]: 'IPv4', [AF_INET6]: 'IPv6' };
const FAMILY_NUMBERS: Readonly<Record<Family, number>> = { IPv4: AF_INET, IPv6: AF_INET6 };

/** `noDad`: usable at once, no duplicate address detection (IPv6). `address` has a prefix length. */
export function addressBody(linkIndex: number, address: string, noDad = false): Buffer {
  const parsed = parseInterfaceAddress(address);
  if (parsed === undefined) throw invalid('address with prefix length', address);
  const body = Buffer.alloc(ADDRESS_BODY_SIZE);
  body.writeUInt8(FAMILY_NUMBERS[parsed.family]);
  body.writeUInt8(parsed.length, 1);
  body.writeUInt32LE(linkIndex, 4);
  const bytes = addressBytes(parsed.family, parsed.value);
  const flags = noDad ? [u32Attribute(IFA.FLAGS, IFA_F_NODAD)] : [];
  return Buffer.concat([body, encodeAttribute(IFA.LOCAL, bytes), encodeAttribute(IFA.ADDRESS, bytes), ...flags]);
}

/** All families and links; of another namespace, only on a socket with strict checks. */
export function addressDumpBody(namespaceId?: number): Buffer {
  const namespace = namespaceId === undefined ? [] : [u32Attribute(IFA.TARGET_NETNSID, namespaceId)];
  return Buffer.concat([Buffer.alloc(ADDRESS_BODY_SIZE), ...namespace]);
}

/** Undefined for an address that is neither IPv4 nor IPv6. */
export function decodeAddress({ body }: Message): LinkAddress | undefined {
  if (body.length < ADDRESS_BODY_SIZE) throw malformed('address', body.length);
  const attributes = new Attributes(body, ADDRESS_BODY_SIZE);
  const family = FAMILIES[body.readUInt8()];
  // On a point-to-point link IFA_ADDRESS is the peer's.
  const other = formatBytes(family, attributes.bytes(IFA.ADDRESS));
  const address = formatBytes(family, attributes.bytes(IFA.LOCAL)) ?? other;
  if (family === undefined || address === undefined) return undefined;
  const peer = other === undefined || other === address ? {} : { peer: other };
  return { linkIndex: body.readUInt32LE(4), address, prefixLength: body.readUInt8(1), family, ...peer };
}

// --- routes --------------------------------------------------------------------------------------------------------

export const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;
const RTM_F_CLONED = 0x200;

/** A route to be added or deleted. */
export interface RouteSpec {
  /** `192.168.1.7/32`; host bits are cleared. */
  readonly destination: string;
  readonly linkIndex: number;
  /** The address packets on this route are sent from, without prefix length. */
  readonly source?: string | undefined;
  readonly gateway?: string | undefined;
}

/** A unicast route in table main. */
export function routeBody({ destination, linkIndex, source, gateway }: RouteSpec): Buffer {
  const prefix = parsePrefix(destination);
  if (prefix === undefined) throw invalid('destination', destination);
  const body = Buffer.alloc(ROUTE_BODY_SIZE);
  // IPv6 ignores scopes.
  const scope = gateway === undefined ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  body.set([FAMILY_NUMBERS[prefix.family], prefix.length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
  const attributes = [
    encodeAttribute(RTA.DST, addressBytes(prefix.family, prefix.first)),
    u32Attribute(RTA.OIF, linkIndex),
  ];
  if (source !== undefined) attributes.push(plainAddress(RTA.PREFSRC, source, prefix.family));
  if (gateway !== undefined) attributes.push(plainAddress(RTA.GATEWAY, gateway, prefix.family));
  return Buffer.concat([body, ...attributes]);
}

/** All families and tables. */
export function routeDumpBody(): Buffer {
  return Buffer.alloc(ROUTE_BODY_SIZE);
}

/** One entry for each next hop; empty for routes that are not unicast, are cached clones, or leave by no link. */
export function decodeRoute({ body }: Message): Route[] {
  if (body.length < ROUTE_BODY_SIZE) throw malformed('route', body.length);
  const attributes = new Attributes(body, ROUTE_BODY_SIZE);
  const family = FAMILIES[body.readUInt8()];
  if (family === undefined || body.readUInt8(7) !== RTN_UNICAST || body.readUInt32LE(8) & RTM_F_CLONED) return [];
  const destination = decodeDestination(family, attributes, body.readUInt8(1));
  if (destination === undefined) return [];
  const table = attributes.u32(RTA.TABLE) ?? body.readUInt8(4);
  return nextHops(family, attributes).map((hop) => ({ destination, ...hop, family, table }));
}

function decodeDestination(family: Family, attributes: Attributes, prefixLength: number): string | undefined {
  if (prefixLength === 0) return 'default';
  const address = formatBytes(family, attributes.bytes(RTA.DST));
  return address === undefined ? undefined : `${address}/${prefixLength}`;
}

function nextHops(family: Family, attributes: Attributes): Pick<Route, 'linkIndex' | 'gateway'>[] {
  const multipath = attributes.bytes(RTA.MULTIPATH);
  if (multipath !== null) return decodeMultipath(family, multipath);
  const linkIndex = attributes.u32(RTA.OIF);
  return linkIndex === null ? [] : [{ linkIndex, gateway: decodeGateway(family, attributes) }];
}

/** struct rtnexthop {u16 length; u8 flags; u8 hops; i32 index}, each followed by attributes of its own. */
function decodeMultipath(family: Family, bytes: Buffer): Pick<Route, 'linkIndex' | 'gateway'>[] {
  const hops = [];
  for (let offset = 0; offset + NEXTHOP_SIZE <= bytes.length; ) {
    const length = bytes.readUInt16LE(offset);
    if (length < NEXTHOP_SIZE || offset + length > bytes.length) throw malformed('next hop', offset);
    const hop = bytes.subarray(offset, offset + length);
    hops.push({ linkIndex: hop.readInt32LE(4), gateway: decodeGateway(family, new Attributes(hop, NEXTHOP_SIZE)) });
    offset += (length + 3) & ~3;
  }
  return hops;
}

/** RTA_VIA {u16 family; address} is an IPv4 route's next hop with an IPv6 address (RFC 5549). */
function decodeGateway(family: Family, attributes: Attributes): string | null {
  const via = attributes.bytes(RTA.VIA);
  if (via !== null && via.length > 2) return formatBytes(FAMILIES[via.readUInt16LE()], via.subarray(2)) ?? null;
  return formatBytes(family, attributes.bytes(RTA.GATEWAY)) ?? null;
}

// --- addresses as bytes --------------------------------------------------------------------------------------------

function addressBytes(family: Family, value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(ADDRESS_BITS[family] / 4, '0'), 'hex');
}

function formatBytes(family: Family | undefined, bytes: Buffer | null): string | undefined {
  if (family === undefined || bytes === null || bytes.length !== ADDRESS_BITS[family] / 8) return undefined;
  return formatAddress({ family, value: BigInt(`0x${bytes.toString('hex')}`) });
}

function plainAddress(type: number, text: string, family: Family): Buffer {
  const parsed = parseInterfaceAddress(`${text}/${ADDRESS_BITS[family]}`);
  if (parsed?.family !== family) throw invalid(`${family} address`, text);
  return encodeAttribute(type, addressBytes(family, parsed.value));
}

function invalid(what: string, value: string): KernelError {
  return new KernelError(
    'encode an rtnetlink message',
    constants.errno.EINVAL,
    `${JSON.stringify(value)} is not a valid ${what}`,
  );
}
