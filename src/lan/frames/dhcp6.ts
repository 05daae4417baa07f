/**
 * DHCP for IPv6 (RFC 8415) from the client's side, for one address: what it sends as whole frames, and what servers answer. Pure.
 *
 * A client is known by its MAC address (DUID-LL, RFC 8415 11.4), since by that servers reserve addresses. Whatever is heard may be
 * forged: an answer is read within its own length, and what makes no sense is left out.
 */
import {
  type Address,
  addressBytes,
  addressFromBytes,
  formatMac,
  isLinkLocal,
  linkLocalOfMac,
  macBytes,
} from '../../address.ts';
import { isMulticast, multicastMac } from './nd.ts';
import { decodeUdp6, encodeUdp6 } from './udp6.ts';

interface Dhcp6Client {
  /** Who asks: the frame's source, and what the server knows the client by. */
  readonly macAddress: string;
  /** 24 bits that an answer repeats. */
  readonly xid: number;
  /** Since this client began to ask. */
  readonly elapsedMs: number;
  /** The name that the server should know; null for none. */
  readonly hostname: string | null;
}

/** What a client says (RFC 8415 18.2). Servers are named by their DUIDs, in hexadecimal digits. */
export type Dhcp6Request = Dhcp6Client &
  (
    | { readonly kind: 'SOLICIT'; readonly wish: Address | null }
    | {
        readonly kind: 'REQUEST' | 'RENEW' | 'DECLINE' | 'RELEASE';
        readonly address: Address;
        readonly server: string;
      }
    | { readonly kind: 'REBIND'; readonly address: Address }
  );

/** An address that a server gives, or offers to give. */
export interface Dhcp6Address {
  readonly address: Address;
  /** Never more than those below. */
  readonly preferredSeconds: number;
  readonly validSeconds: number;
}

/** What a server says. */
export interface Dhcp6Answer {
  readonly protocol: 'DHCPv6';
  readonly kind: 'ADVERTISE' | 'REPLY';
  readonly xid: number;
  /** The client's, whoever the frame went to. */
  readonly macAddress: string;
  /** Its DUID in hexadecimal digits. */
  readonly server: string;
  /** 0 to 255, which is taken at once (RFC 8415 21.8). */
  readonly preference: number;
  /** Of our one interface, those that make sense. */
  readonly addresses: readonly Dhcp6Address[];
  /** When the server wants to be asked again, and when any may be; null where it leaves that to the client. */
  readonly t1Seconds: number | null;
  readonly t2Seconds: number | null;
  /** Why there is none (RFC 8415 21.13), in its innermost option; null where all is well. */
  readonly failure: Dhcp6Failure | null;
}

interface Dhcp6Failure {
  readonly code: number;
  /** What the server says to people; null for nothing. */
  readonly message: string | null;
}

export const DHCP6_CLIENT_PORT = 546;
const SERVER_PORT = 547;

const MESSAGE = {
  SOLICIT: 1,
  ADVERTISE: 2,
  REQUEST: 3,
  RENEW: 5,
  REBIND: 6,
  REPLY: 7,
  RELEASE: 8,
  DECLINE: 9,
} as const;

/** RFC 8415 21; 39 by RFC 4704. */
const OPTION = {
  clientId: 1,
  serverId: 2,
  identityAssociation: 3,
  address: 5,
  request: 6,
  preference: 7,
  elapsedTime: 8,
  statusCode: 13,
  fqdn: 39,
  longestSolicitation: 82,
} as const;

const MESSAGE_HEADER_BYTES = 4;
const OPTION_HEADER_BYTES = 4;
/** DUID-LL, Ethernet (RFC 8415 11.4). */
const DUID_LL = Buffer.from('00030001', 'hex');
const DUID_LL_BYTES = 10;
/** RFC 8415 11.1: two bytes of type and 128 more. */
const MOST_DUID_BYTES = 130;
/** IAID, T1, T2. */
const IA_BYTES = 12;
/** Address, preferred and valid lifetime. */
const ADDRESS_BYTES = 24;
/** "Tell the DNS that this name has this address" (RFC 4704 4.1, the S bit). */
const FQDN_FLAGS = 0x01;
const MOST_ADDRESSES = 16;
const MOST_MESSAGE_CHARACTERS = 200;

/** ff02::1:2, all servers and relays (RFC 8415 7.1). */
const ALL_SERVERS: Address = { family: 'IPv6', value: 0xff02_0000_0000_0000_0000_0000_0001_0002n };

/** The whole frame; always to all servers, from the link-local address of the MAC address. */
export function encodeDhcp6(request: Dhcp6Request): Buffer {
  return encodeUdp6({
    destinationMac: multicastMac(ALL_SERVERS),
    sourceMac: request.macAddress,
    source: linkLocalOfMac(request.macAddress),
    destination: ALL_SERVERS,
    sourcePort: DHCP6_CLIENT_PORT,
    destinationPort: SERVER_PORT,
    data: encodeMessage(request),
  });
}

function encodeMessage(request: Dhcp6Request): Buffer {
  const header = Buffer.alloc(MESSAGE_HEADER_BYTES);
  header.writeUInt32BE(MESSAGE[request.kind] * 2 ** 24 + request.xid);
  const address = request.kind === 'SOLICIT' ? request.wish : request.address;
  const isAsking = request.kind !== 'RELEASE' && request.kind !== 'DECLINE';
  return Buffer.concat([
    header,
    option(OPTION.clientId, Buffer.concat([DUID_LL, macBytes(request.macAddress)])),
    'server' in request ? option(OPTION.serverId, Buffer.from(request.server, 'hex')) : NOTHING,
    option(OPTION.elapsedTime, uint16(Math.min(Math.floor(request.elapsedMs / 10), 0xffff))),
    option(OPTION.identityAssociation, encodeAssociation(request.macAddress, address)),
    // RFC 8415 21.24: whoever asks for options asks for this one too.
    isAsking ? option(OPTION.request, uint16(OPTION.longestSolicitation)) : NOTHING,
    isAsking && request.hostname !== null ? option(OPTION.fqdn, encodeName(request.hostname)) : NOTHING,
  ]);
}

const NOTHING = Buffer.alloc(0);

function encodeAssociation(macAddress: string, address: Address | null): Buffer {
  const wished = address && option(OPTION.address, Buffer.concat([addressBytes(address), Buffer.alloc(8)]));
  // The lifetimes and T1, T2 are the server's to choose.
  return Buffer.concat([associationId(macAddress), Buffer.alloc(8), wished ?? NOTHING]);
}

/** The last four bytes of the MAC address: the same after every restart, as RFC 8415 12 wants it. */
function associationId(macAddress: string): Buffer {
  return Buffer.from(macBytes(macAddress)).subarray(2);
}

/** One label without the root: the server completes it (RFC 4704 4.2). */
function encodeName(hostname: string): Buffer {
  const label = Buffer.from(hostname);
  return Buffer.concat([Buffer.of(FQDN_FLAGS, label.length), label]);
}

function option(code: number, value: Buffer): Buffer {
  return Buffer.concat([uint16(code), uint16(value.length), value]);
}

function uint16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 0xff);
}

/** Undefined unless the frame is an ADVERTISE or a REPLY for a client whose DUID is a MAC address, of a server that says who it is. */
export function decodeDhcp6(frame: Buffer): Dhcp6Answer | undefined {
  const datagram = decodeUdp6(frame);
  if (datagram?.destinationPort !== DHCP6_CLIENT_PORT || datagram.data.length < MESSAGE_HEADER_BYTES) return undefined;
  const { data } = datagram;
  const kind = KINDS[data.readUInt8(0)];
  const options = decodeOptions(data.subarray(MESSAGE_HEADER_BYTES));
  const macAddress = macOfDuid(options?.find(({ code }) => code === OPTION.clientId)?.value);
  const server = options?.find(({ code }) => code === OPTION.serverId)?.value;
  if (kind === undefined || options === undefined || macAddress === undefined || !isDuid(server)) return undefined;
  const preference = options.find(({ code }) => code === OPTION.preference)?.value;
  return {
    protocol: 'DHCPv6',
    kind,
    xid: data.readUIntBE(1, 3),
    macAddress,
    server: server.toString('hex'),
    preference: preference?.length === 1 ? preference.readUInt8(0) : 0,
    ...decodeAssociation(options, macAddress),
  };
}

const KINDS: Readonly<Record<number, Dhcp6Answer['kind']>> = {
  [MESSAGE.ADVERTISE]: 'ADVERTISE',
  [MESSAGE.REPLY]: 'REPLY',
};

interface Option {
  readonly code: number;
  readonly value: Buffer;
}

/** Undefined when one is cut off. */
function decodeOptions(bytes: Buffer): Option[] | undefined {
  const options: Option[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    if (offset + OPTION_HEADER_BYTES > bytes.length) return undefined;
    const end = offset + OPTION_HEADER_BYTES + bytes.readUInt16BE(offset + 2);
    if (end > bytes.length) return undefined;
    options.push({ code: bytes.readUInt16BE(offset), value: bytes.subarray(offset + OPTION_HEADER_BYTES, end) });
    offset = end;
  }
  return options;
}

function macOfDuid(duid: Buffer | undefined): string | undefined {
  const isOurs = duid?.length === DUID_LL_BYTES && duid.subarray(0, DUID_LL.length).equals(DUID_LL);
  return isOurs ? formatMac(duid.subarray(DUID_LL.length)) : undefined;
}

function isDuid(duid: Buffer | undefined): duid is Buffer {
  return duid !== undefined && duid.length > 2 && duid.length <= MOST_DUID_BYTES;
}

type Association = Pick<Dhcp6Answer, 'addresses' | 't1Seconds' | 't2Seconds' | 'failure'>;

/** Ours among those of the answer; one whose times make no sense is none (RFC 8415 21.4). */
function decodeAssociation(options: readonly Option[], macAddress: string): Association {
  const failure = failureIn(options);
  const none = { addresses: [], t1Seconds: null, t2Seconds: null, failure };
  const id = associationId(macAddress);
  const value = options.find(
    (one) =>
      one.code === OPTION.identityAssociation && one.value.length >= IA_BYTES && one.value.subarray(0, 4).equals(id),
  )?.value;
  const inner = value && decodeOptions(value.subarray(IA_BYTES));
  if (value === undefined || inner === undefined) return none;
  const [t1, t2] = [value.readUInt32BE(4), value.readUInt32BE(8)];
  if (t1 > t2 && t2 > 0) return none;
  const addresses = inner.flatMap(decodeAddress).slice(0, MOST_ADDRESSES);
  return { addresses, t1Seconds: t1 || null, t2Seconds: t2 || null, failure: failureIn(inner) ?? failure };
}

/** One that no host can have, or whose lifetimes make no sense, is left out (RFC 8415 21.6). */
function decodeAddress({ code, value }: Option): Dhcp6Address[] {
  if (code !== OPTION.address || value.length < ADDRESS_BYTES) return [];
  const address = addressFromBytes(value.subarray(0, 16));
  const [preferredSeconds, validSeconds] = [value.readUInt32BE(16), value.readUInt32BE(20)];
  if (isReserved(address) || isMulticast(address) || isLinkLocal(address)) return [];
  const inner = decodeOptions(value.subarray(ADDRESS_BYTES)) ?? [];
  return preferredSeconds > validSeconds || failureIn(inner) !== null
    ? []
    : [{ address, preferredSeconds, validSeconds }];
}

/** ::/8 (RFC 4291 2.4): the unspecified address, the loopback one, and those of IPv4, which engines take for such. */
function isReserved({ value }: Address): boolean {
  return value >> 120n === 0n;
}

function failureIn(options: readonly Option[]): Dhcp6Failure | null {
  const status = options.find(({ code, value }) => code === OPTION.statusCode && value.length >= 2)?.value;
  const code = status?.readUInt16BE(0) ?? 0;
  if (status === undefined || code === 0) return null;
  const said = status.toString('utf8', 2).replaceAll(/\p{C}/gu, '').slice(0, MOST_MESSAGE_CHARACTERS);
  return { code, message: said === '' ? null : said };
}
