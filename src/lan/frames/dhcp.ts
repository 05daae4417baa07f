/**
 * DHCP for IPv4 (RFC 2131, RFC 2132) from the client's side: what it sends as whole frames, and what servers answer. Pure.
 *
 * Whatever is heard may be forged: an answer is read within its own length, each option once, and what makes no sense is
 * left out, or is no answer at all where the exchange cannot do without it.
 */
import {
  type Address,
  addressBytes,
  addressFromBytes,
  formatMac,
  isHostOf,
  macBytes,
  prefixOf,
} from '../../address.ts';
import type { InterfaceAddress } from '../../model.ts';
import { isUnspecified } from './arp.ts';
import { BROADCAST_MAC, type EthernetHeader } from './ethernet.ts';
import { decodeUdp, encodeUdp } from './udp.ts';

/** A server as its answers name it. */
export interface DhcpServer {
  /** The server identifier. */
  readonly address: Address;
  /** Where its answers come from, which is a relay's when it is not on this LAN. */
  readonly macAddress: string;
}

interface DhcpClient {
  /** Who asks: the frame's source and the client's hardware address are the same, as port security wants it. */
  readonly macAddress: string;
  /** 32 bits that an answer repeats. */
  readonly xid: number;
  /** Since this client began to ask. */
  readonly seconds: number;
  /** The name that the server should know; null for none. */
  readonly hostname: string | null;
}

/** What a client says (RFC 2131 4.4, table 5). `RENEW` and `REBIND` are DHCPREQUESTs for what it has. */
export type DhcpRequest = DhcpClient &
  (
    | { readonly kind: 'DISCOVER'; readonly wish: Address | null }
    | { readonly kind: 'REQUEST' | 'DECLINE'; readonly address: Address; readonly server: DhcpServer }
    | { readonly kind: 'RENEW' | 'RELEASE'; readonly address: Address; readonly server: DhcpServer }
    | { readonly kind: 'REBIND'; readonly address: Address }
  );

/** A route that comes with a lease (RFC 3442). */
export interface DhcpRoute {
  /** With its host bits cleared; of length 0 it is the default route. */
  readonly destination: InterfaceAddress;
  /** `0.0.0.0` says that the destination is on the LAN itself. */
  readonly gateway: Address;
}

/** What a server gives, or offers to give. */
export interface DhcpTerms {
  readonly address: Address;
  /** Of the subnet mask; null when there was none that makes sense. */
  readonly prefixLength: number | null;
  readonly leaseSeconds: number;
  /** When the server wants to be asked again, and when any may be; null where it does not say. */
  readonly t1Seconds: number | null;
  readonly t2Seconds: number | null;
  readonly routers: readonly Address[];
  /** Null without option 121. Where it is, the routers do not count (RFC 3442). */
  readonly routes: readonly DhcpRoute[] | null;
  readonly dnsServers: readonly Address[];
  readonly domain: string | null;
  readonly mtu: number | null;
}

interface DhcpReply {
  readonly xid: number;
  /** The client's, whoever the frame went to. */
  readonly macAddress: string;
  readonly server: DhcpServer;
  /** What the server says to people, usually about a refusal; null for nothing. */
  readonly message: string | null;
}

/** What a server says. */
export type DhcpAnswer = DhcpReply &
  ({ readonly kind: 'OFFER' | 'ACK'; readonly terms: DhcpTerms } | { readonly kind: 'NAK' });

/** A lease of so many seconds never ends (RFC 2131 3.3). */
export const NEVER_ENDS_SECONDS = 0xffff_ffff;

const SERVER_PORT = 67;
export const CLIENT_PORT = 68;
const REQUEST_OPERATION = 1;
const REPLY_OPERATION = 2;
const ETHERNET = 1;
const MAC_BYTES = 6;
/** "Answer to all": no link has the address yet, and often none has the MAC address. */
const BROADCAST_FLAG = 0x8000;
const FIXED_BYTES = 236;
const MAGIC = Buffer.from('63825363', 'hex');
/** A BOOTP message has 300 bytes, and some relays drop what is shorter (RFC 1542 2.1). */
const LEAST_BYTES = 300;
/** What an answer may have, as an Ethernet frame carries it. */
const MOST_BYTES = 1472;
/** Of a class A network (RFC 791 3.2): no LAN has more. */
const SHORTEST_PREFIX = 8;
const UNSPECIFIED: Address = { family: 'IPv4', value: 0n };
const EVERYBODY: Address = { family: 'IPv4', value: 0xffff_ffffn };
const VENDOR_CLASS = 'tsmacvlan';

/** RFC 2132; 52 and 121 by RFC 2131 and RFC 3442. */
const OPTION = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  dnsServers: 6,
  hostname: 12,
  domain: 15,
  mtu: 26,
  requestedAddress: 50,
  leaseSeconds: 51,
  overload: 52,
  messageType: 53,
  server: 54,
  parameters: 55,
  message: 56,
  mostBytes: 57,
  t1: 58,
  t2: 59,
  vendorClass: 60,
  clientId: 61,
  classlessRoutes: 121,
  end: 255,
} as const;

/** The routes before the router: some servers answer in this order until the message is full (RFC 3442). */
const PARAMETERS = [
  OPTION.subnetMask,
  OPTION.classlessRoutes,
  OPTION.router,
  OPTION.dnsServers,
  OPTION.domain,
  OPTION.mtu,
  OPTION.leaseSeconds,
  OPTION.server,
  OPTION.t1,
  OPTION.t2,
];

const TYPES = { DISCOVER: 1, REQUEST: 3, RENEW: 3, REBIND: 3, DECLINE: 4, RELEASE: 7 } as const;
const ANSWERS: ReadonlyMap<number, DhcpAnswer['kind']> = new Map([
  [2, 'OFFER'],
  [5, 'ACK'],
  [6, 'NAK'],
]);

// --- what a client sends -----------------------------------------------------------------------------------------

/** The whole frame, from the client's own MAC address. */
export function encodeDhcp(request: DhcpRequest): Buffer {
  const isUnicast = request.kind === 'RENEW' || request.kind === 'RELEASE';
  return encodeUdp({
    sourceMac: request.macAddress,
    destinationMac: isUnicast ? request.server.macAddress : BROADCAST_MAC,
    source: addressInUse(request),
    destination: isUnicast ? request.server.address : EVERYBODY,
    sourcePort: CLIENT_PORT,
    destinationPort: SERVER_PORT,
    data: encodeMessage(request),
  });
}

/** What a client may send from: nothing before it has its lease, nor when it declines one. */
function addressInUse(request: DhcpRequest): Address {
  const hasAddress = request.kind === 'RENEW' || request.kind === 'REBIND' || request.kind === 'RELEASE';
  return hasAddress ? request.address : UNSPECIFIED;
}

function encodeMessage(request: DhcpRequest): Buffer {
  const message = Buffer.alloc(FIXED_BYTES);
  message.set([REQUEST_OPERATION, ETHERNET, MAC_BYTES], 0);
  message.writeUInt32BE(request.xid, 4);
  message.writeUInt16BE(Math.min(request.seconds, 0xffff), 8);
  if (request.kind === 'DISCOVER' || request.kind === 'REQUEST') message.writeUInt16BE(BROADCAST_FLAG, 10);
  addressBytes(addressInUse(request)).copy(message, 12);
  message.set(macBytes(request.macAddress), 28);
  const whole = Buffer.concat([message, MAGIC, ...optionsOf(request), Buffer.of(OPTION.end)]);
  return Buffer.concat([whole, Buffer.alloc(Math.max(0, LEAST_BYTES - whole.length))]);
}

function optionsOf(request: DhcpRequest): Buffer[] {
  const isFarewell = request.kind === 'DECLINE' || request.kind === 'RELEASE';
  return [
    encodeOption(OPTION.messageType, [TYPES[request.kind]]),
    // By it servers know a client again; of this form it does not hide the MAC address from reservations (RFC 2132 9.14).
    encodeOption(OPTION.clientId, [ETHERNET, ...macBytes(request.macAddress)]),
    ...namedIn(request),
    ...(isFarewell ? [] : wantedIn(request)),
  ];
}

/** Which address of which server is meant; in RENEW and REBIND both options are forbidden (RFC 2131 4.3.2). */
function namedIn(request: DhcpRequest): Buffer[] {
  const wanted = (address: Address) => encodeOption(OPTION.requestedAddress, addressBytes(address));
  const by = ({ address }: DhcpServer) => encodeOption(OPTION.server, addressBytes(address));
  switch (request.kind) {
    case 'DISCOVER':
      return request.wish === null ? [] : [wanted(request.wish)];
    case 'REQUEST':
    case 'DECLINE':
      return [wanted(request.address), by(request.server)];
    case 'RELEASE':
      return [by(request.server)];
    default:
      return [];
  }
}

function wantedIn({ hostname }: DhcpRequest): Buffer[] {
  return [
    ...(hostname === null ? [] : [encodeOption(OPTION.hostname, Buffer.from(hostname, 'latin1'))]),
    encodeOption(OPTION.vendorClass, Buffer.from(VENDOR_CLASS)),
    encodeOption(OPTION.mostBytes, [MOST_BYTES >> 8, MOST_BYTES & 0xff]),
    encodeOption(OPTION.parameters, PARAMETERS),
  ];
}

function encodeOption(code: number, value: Iterable<number>): Buffer {
  const bytes = Buffer.from([...value]);
  return Buffer.concat([Buffer.of(code, bytes.length), bytes]);
}

// --- what a server answers ---------------------------------------------------------------------------------------

type Options = ReadonlyMap<number, Buffer>;

/**
 * Undefined unless the frame is a whole OFFER, ACK or NAK to an Ethernet client, of a server that can be named; in the first
 * two with an address that a host can have and a time to have it. Whose exchange it belongs to the caller knows.
 */
export function decodeDhcp(frame: Buffer): DhcpAnswer | undefined {
  const datagram = decodeUdp(frame);
  if (datagram?.destinationPort !== CLIENT_PORT) return undefined;
  const { data } = datagram;
  const options = isReply(data) ? decodeMessageOptions(data) : undefined;
  const kind = ANSWERS.get(options?.get(OPTION.messageType)?.[0] ?? 0);
  if (options === undefined || kind === undefined) return undefined;
  const server = serverOf(options, datagram);
  const terms = termsOf(data, options);
  if (server === undefined || (kind !== 'NAK' && terms === undefined)) return undefined;
  const reply = {
    xid: data.readUInt32BE(4),
    macAddress: formatMac(data.subarray(28, 34)),
    server,
    message: textOf(options.get(OPTION.message)),
  };
  return kind === 'NAK' || terms === undefined ? { ...reply, kind: 'NAK' } : { ...reply, kind, terms };
}

function isReply(data: Buffer): boolean {
  if (data.length < FIXED_BYTES + MAGIC.length) return false;
  if (data[0] !== REPLY_OPERATION || data[1] !== ETHERNET || data[2] !== MAC_BYTES) return false;
  return data.subarray(FIXED_BYTES, FIXED_BYTES + MAGIC.length).equals(MAGIC);
}

/** A server that does not name itself, against RFC 2131 4.3.1, is taken for the one who sent the packet. */
function serverOf(options: Options, datagram: EthernetHeader & { source: Address }): DhcpServer | undefined {
  const address = addressIn(options.get(OPTION.server)) ?? datagram.source;
  return isHost(address) ? { address, macAddress: datagram.sourceMac } : undefined;
}

function termsOf(data: Buffer, options: Options): DhcpTerms | undefined {
  const address = addressFromBytes(data.subarray(16, 20));
  const leaseSeconds = numberIn(options.get(OPTION.leaseSeconds), 4);
  const prefixLength = lengthOfMask(options.get(OPTION.subnetMask));
  if (!isHost(address) || leaseSeconds === null || leaseSeconds === 0) return undefined;
  if (prefixLength !== null && !isHostOf(prefixOf(address, prefixLength), address)) return undefined;
  const mtu = numberIn(options.get(OPTION.mtu), 2);
  return {
    address,
    prefixLength,
    leaseSeconds,
    t1Seconds: numberIn(options.get(OPTION.t1), 4),
    t2Seconds: numberIn(options.get(OPTION.t2), 4),
    routers: addressesIn(options.get(OPTION.router)).filter(isHost),
    routes: decodeRoutes(options.get(OPTION.classlessRoutes)),
    dnsServers: addressesIn(options.get(OPTION.dnsServers)).filter(isHost),
    domain: textOf(options.get(OPTION.domain)),
    // The least that the option may say (RFC 2132 5.1).
    mtu: mtu !== null && mtu >= 68 ? mtu : null,
  };
}

/** Neither unspecified, loopback (127), a group's (224 and up), nor everybody's. */
function isHost(address: Address): boolean {
  const first = Number(address.value >> 24n);
  return !isUnspecified(address) && first !== 0 && first !== 127 && first < 224;
}

/**
 * The values by code, those in several parts put together (RFC 3396). The fields of a boot file's and a server's name hold
 * more of them where option 52 says so (RFC 2132 9.3); there it is not read again. Undefined when one is cut off.
 */
function decodeMessageOptions(data: Buffer): Options | undefined {
  const parts = new Map<number, Buffer[]>();
  if (!collectOptions(data.subarray(FIXED_BYTES + MAGIC.length), parts)) return undefined;
  const overload = parts.get(OPTION.overload)?.[0]?.[0] ?? 0;
  const more = [...(overload & 1 ? [data.subarray(108, 236)] : []), ...(overload & 2 ? [data.subarray(44, 108)] : [])];
  if (overload <= 3 && !more.every((field) => collectOptions(field, parts))) return undefined;
  return new Map(Array.from(parts, ([code, values]) => [code, Buffer.concat(values)]));
}

/** False when an option does not fit into the field. What follows the end is padding. */
function collectOptions(field: Buffer, parts: Map<number, Buffer[]>): boolean {
  for (let at = 0; at < field.length && field[at] !== OPTION.end; ) {
    const code = field.readUInt8(at++);
    if (code === OPTION.pad) continue;
    const length = field[at++];
    if (length === undefined || at + length > field.length) return false;
    const values = parts.get(code) ?? [];
    values.push(field.subarray(at, at + length));
    parts.set(code, values);
    at += length;
  }
  return true;
}

function numberIn(value: Buffer | undefined, bytes: 2 | 4): number | null {
  return value?.length === bytes ? value.readUIntBE(0, bytes) : null;
}

function addressIn(value: Buffer | undefined): Address | undefined {
  return value?.length === 4 ? addressFromBytes(value) : undefined;
}

function addressesIn(value: Buffer | undefined): Address[] {
  if (value === undefined || value.length % 4 !== 0) return [];
  return Array.from({ length: value.length / 4 }, (_, index) =>
    addressFromBytes(value.subarray(4 * index, 4 * index + 4)),
  );
}

/** Null for a mask with holes, and for one of more than any network has: the kernel makes no route to a subnet at 0.0.0.0. */
function lengthOfMask(value: Buffer | undefined): number | null {
  const mask = numberIn(value, 4);
  if (mask === null) return null;
  const length = Math.clz32(~mask);
  return length >= SHORTEST_PREFIX && mask === (0xffff_ffff << (32 - length)) >>> 0 ? length : null;
}

/** Width, the bytes of the destination that count, router. One that is malformed makes the whole option worthless. */
function decodeRoutes(value: Buffer | undefined): DhcpRoute[] | null {
  if (value === undefined || value.length === 0) return null;
  const routes: DhcpRoute[] = [];
  for (let at = 0; at < value.length; ) {
    const length = value.readUInt8(at++);
    const significant = Math.ceil(length / 8);
    if (length > 32 || at + significant + 4 > value.length) return null;
    const destination = Buffer.alloc(4);
    value.copy(destination, 0, at, at + significant);
    const gateway = addressFromBytes(value.subarray(at + significant, at + significant + 4));
    const { family, first } = prefixOf(addressFromBytes(destination), length);
    routes.push({ destination: { family, value: first, length }, gateway });
    at += significant + 4;
  }
  return routes;
}

/** Shown to people, so nothing but what a terminal prints; null when nothing is left. Some servers end it with a zero. */
function textOf(value: Buffer | undefined): string | null {
  const text = value?.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '') ?? '';
  return text === '' ? null : text;
}
