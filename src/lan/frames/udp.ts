/** UDP over IPv4 on Ethernet as frames (RFC 768, RFC 791), as far as DHCP needs it. Pure. */
import { type Address, addressBytes, addressFromBytes } from '../../address.ts';
import { internetChecksum, wordSum } from './checksum.ts';
import {
  ETHERTYPE_IPV4,
  type EthernetHeader,
  HEADER_BYTES,
  decodeHeader,
  encodeFrame,
  etherTypeOf,
} from './ethernet.ts';

/** One datagram with the headers around it. */
export interface UdpDatagram extends EthernetHeader {
  readonly source: Address;
  readonly destination: Address;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly data: Buffer;
}

export const IPV4_HEADER_BYTES = 20;
export const PROTOCOL_UDP = 17;
/** Version 4, and a header of five words: DHCP's packets have no IP options. */
export const VERSION_AND_LENGTH = 0x45;
/** More fragments, and the offset of this one. */
export const FRAGMENT_BITS = 0x3fff;
export const UDP_HEADER_BYTES = 8;
const TIME_TO_LIVE = 64;

/** The whole frame. */
export function encodeUdp(datagram: UdpDatagram): Buffer {
  const length = UDP_HEADER_BYTES + datagram.data.length;
  const header = encodeIPv4Header(datagram, length);
  const udp = encodeDatagram(datagram, pseudoHeaderSum(header, length));
  return encodeFrame(datagram, ETHERTYPE_IPV4, Buffer.concat([header, udp]));
}

/** The datagram with its own header, for either family. `pseudo`: the sum of the pseudo-header. */
export function encodeDatagram({ sourcePort, destinationPort, data }: UdpDatagram, pseudo: number): Buffer {
  const udp = Buffer.alloc(UDP_HEADER_BYTES + data.length);
  udp.writeUInt16BE(sourcePort, 0);
  udp.writeUInt16BE(destinationPort, 2);
  udp.writeUInt16BE(udp.length, 4);
  data.copy(udp, UDP_HEADER_BYTES);
  // A sum of 0 is written as all ones, because 0 says that there is none (RFC 768, RFC 8200 8.1).
  udp.writeUInt16BE(internetChecksum(pseudo, udp) || 0xffff, 6);
  return udp;
}

function encodeIPv4Header({ source, destination }: UdpDatagram, length: number): Buffer {
  const header = Buffer.alloc(IPV4_HEADER_BYTES);
  header.writeUInt8(VERSION_AND_LENGTH, 0);
  header.writeUInt16BE(IPV4_HEADER_BYTES + length, 2);
  header.writeUInt8(TIME_TO_LIVE, 8);
  header.writeUInt8(PROTOCOL_UDP, 9);
  addressBytes(source).copy(header, 12);
  addressBytes(destination).copy(header, 16);
  header.writeUInt16BE(internetChecksum(0, header), 10);
  return header;
}

/** Undefined unless the frame is one whole, undamaged datagram without IP options. What follows the IPv4 packet is padding. */
export function decodeUdp(frame: Buffer): UdpDatagram | undefined {
  const header = frame.subarray(HEADER_BYTES, HEADER_BYTES + IPV4_HEADER_BYTES);
  if (etherTypeOf(frame) !== ETHERTYPE_IPV4 || header.length < IPV4_HEADER_BYTES) return undefined;
  if (header.readUInt8(0) !== VERSION_AND_LENGTH || header.readUInt8(9) !== PROTOCOL_UDP) return undefined;
  if ((header.readUInt16BE(6) & FRAGMENT_BITS) !== 0 || internetChecksum(0, header) !== 0) return undefined;
  const udp = udpOf(frame, header.readUInt16BE(2));
  if (udp === undefined || !isUndamaged(header, udp)) return undefined;
  return {
    ...decodeHeader(frame),
    source: addressFromBytes(header.subarray(12, 16)),
    destination: addressFromBytes(header.subarray(16, 20)),
    sourcePort: udp.readUInt16BE(0),
    destinationPort: udp.readUInt16BE(2),
    data: udp.subarray(UDP_HEADER_BYTES),
  };
}

/** The datagram with its own header, of a packet of `packetBytes`; undefined where the two lengths or the frame's do not agree. */
function udpOf(frame: Buffer, packetBytes: number): Buffer | undefined {
  const payload = frame.subarray(HEADER_BYTES + IPV4_HEADER_BYTES, HEADER_BYTES + packetBytes);
  if (payload.length !== packetBytes - IPV4_HEADER_BYTES || payload.length < UDP_HEADER_BYTES) return undefined;
  const length = payload.readUInt16BE(4);
  return length < UDP_HEADER_BYTES || length > payload.length ? undefined : payload.subarray(0, length);
}

/**
 * 0 says that the sender made no checksum. What another container of this host sends is heard before its checksum is
 * complete: the network card would do that, and until then the field holds the sum of the pseudo-header (CHECKSUM_PARTIAL,
 * include/linux/skbuff.h).
 */
function isUndamaged(header: Buffer, udp: Buffer): boolean {
  const field = udp.readUInt16BE(6);
  const pseudo = pseudoHeaderSum(header, udp.length);
  return field === 0 || field === wordSum(pseudo) || internetChecksum(pseudo, udp) === 0;
}

function pseudoHeaderSum(header: Buffer, udpBytes: number): number {
  return wordSum(PROTOCOL_UDP + udpBytes, header.subarray(12, 20));
}
