/** ARP for IPv4 on Ethernet as frames (RFC 826), and the kinds that RFC 5227 gives names to. Pure. */
import { type Address, addressBytes, addressFromBytes, formatMac, macBytes } from '../../address.ts';
import {
  BROADCAST_MAC,
  ETHERTYPE_ARP,
  type EthernetHeader,
  HEADER_BYTES,
  ZERO_MAC,
  decodeHeader,
  encodeFrame,
  etherTypeOf,
} from './ethernet.ts';

/** One ARP packet with the header of its frame. */
export interface ArpPacket extends EthernetHeader {
  readonly protocol: 'ARP';
  readonly operation: 'request' | 'reply';
  /** As written in the packet; may differ from sourceMac, and may be what no interface can have. */
  readonly senderMac: string;
  readonly senderAddress: Address;
  readonly targetMac: string;
  readonly targetAddress: Address;
}

const PACKET_BYTES = 28;
const OPERATIONS = { request: 1, reply: 2 } as const;
/** Hardware Ethernet, protocol IPv4, address lengths 6 and 4: what every packet here begins with. */
const PREAMBLE = Buffer.from('000108000604', 'hex');
const UNSPECIFIED: Address = { family: 'IPv4', value: 0n };

/** "Does anybody have this address?" without claiming it, so no neighbour's cache learns anything (RFC 5227 1.1). */
export function arpProbe(address: Address, senderMac: string): ArpPacket {
  return broadcastRequest(senderMac, UNSPECIFIED, address);
}

/**
 * "This address is mine, at this MAC": sender and target address are the same (RFC 5227 1.1). `nonce`, 12 hexadecimal digits,
 * makes it unlike any other; it stands where receivers of a request read nothing (RFC 826).
 */
export function arpAnnouncement(address: Address, senderMac: string, nonce: string | null = null): ArpPacket {
  const targetMac = nonce?.replaceAll(/..(?=.)/g, '$&:') ?? ZERO_MAC;
  return { ...broadcastRequest(senderMac, address, address), targetMac };
}

function broadcastRequest(senderMac: string, senderAddress: Address, targetAddress: Address): ArpPacket {
  return {
    protocol: 'ARP',
    destinationMac: BROADCAST_MAC,
    sourceMac: senderMac,
    operation: 'request',
    senderMac,
    senderAddress,
    targetMac: ZERO_MAC,
    targetAddress,
  };
}

/** The answer to `request`: the address asked for is at `senderMac`. Goes to the one who asked. */
export function arpReply(request: ArpPacket, senderMac: string): ArpPacket {
  return {
    protocol: 'ARP',
    destinationMac: request.senderMac,
    sourceMac: senderMac,
    operation: 'reply',
    senderMac,
    senderAddress: request.targetAddress,
    targetMac: request.senderMac,
    targetAddress: request.senderAddress,
  };
}

/** `0.0.0.0` or `::`, by which a sender says that it has no address yet. */
export function isUnspecified({ value }: Address): boolean {
  return value === 0n;
}

/** The whole frame. */
export function encodeArp(packet: ArpPacket): Buffer {
  const payload = Buffer.alloc(PACKET_BYTES);
  payload.set(PREAMBLE, 0);
  payload.writeUInt16BE(OPERATIONS[packet.operation], 6);
  payload.set(macBytes(packet.senderMac), 8);
  payload.set(addressBytes(packet.senderAddress), 14);
  payload.set(macBytes(packet.targetMac), 18);
  payload.set(addressBytes(packet.targetAddress), 24);
  return encodeFrame(packet, ETHERTYPE_ARP, payload);
}

/** Undefined unless the frame is a whole ARP request or reply for IPv4 on Ethernet. What follows it is padding. */
export function decodeArp(frame: Buffer): ArpPacket | undefined {
  const payload = frame.subarray(HEADER_BYTES);
  if (etherTypeOf(frame) !== ETHERTYPE_ARP || payload.length < PACKET_BYTES) return undefined;
  if (!payload.subarray(0, 6).equals(PREAMBLE)) return undefined;
  const code = payload.readUInt16BE(6);
  if (code !== OPERATIONS.request && code !== OPERATIONS.reply) return undefined;
  return {
    protocol: 'ARP',
    ...decodeHeader(frame),
    operation: code === OPERATIONS.request ? 'request' : 'reply',
    senderMac: formatMac(payload.subarray(8, 14)),
    senderAddress: addressFromBytes(payload.subarray(14, 18)),
    targetMac: formatMac(payload.subarray(18, 24)),
    targetAddress: addressFromBytes(payload.subarray(24, 28)),
  };
}
