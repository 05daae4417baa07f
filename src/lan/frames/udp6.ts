/** UDP over IPv6 on Ethernet as frames (RFC 768, RFC 8200), as far as DHCPv6 needs it. Pure. */
import { type Address, addressBytes, addressFromBytes } from '../../address.ts';
import { internetChecksum, wordSum } from './checksum.ts';
import { ETHERTYPE_IPV6, HEADER_BYTES, decodeHeader, encodeFrame, etherTypeOf } from './ethernet.ts';
import { IPV6_HEADER_BYTES } from './nd.ts';
import { PROTOCOL_UDP, UDP_HEADER_BYTES, type UdpDatagram, encodeDatagram } from './udp.ts';

const HOP_LIMIT = 64;
const VERSION = 6;

/** The whole frame. */
export function encodeUdp6(datagram: UdpDatagram): Buffer {
  const length = UDP_HEADER_BYTES + datagram.data.length;
  const header = encodeIPv6Header(datagram, length);
  const udp = encodeDatagram(datagram, pseudoHeaderSum(header, length));
  return encodeFrame(datagram, ETHERTYPE_IPV6, Buffer.concat([header, udp]));
}

function encodeIPv6Header({ source, destination }: Record<'source' | 'destination', Address>, length: number): Buffer {
  const header = Buffer.alloc(IPV6_HEADER_BYTES);
  header.writeUInt8(VERSION << 4, 0);
  header.writeUInt16BE(length, 4);
  header.writeUInt8(PROTOCOL_UDP, 6);
  header.writeUInt8(HOP_LIMIT, 7);
  addressBytes(source).copy(header, 8);
  addressBytes(destination).copy(header, 24);
  return header;
}

/** Undefined unless the frame is one whole, undamaged datagram without extension headers. What follows the IPv6 packet is padding. */
export function decodeUdp6(frame: Buffer): UdpDatagram | undefined {
  const header = frame.subarray(HEADER_BYTES, HEADER_BYTES + IPV6_HEADER_BYTES);
  if (etherTypeOf(frame) !== ETHERTYPE_IPV6 || header.length < IPV6_HEADER_BYTES) return undefined;
  if (header.readUInt8(0) >> 4 !== VERSION || header.readUInt8(6) !== PROTOCOL_UDP) return undefined;
  const length = header.readUInt16BE(4);
  const udp = frame.subarray(HEADER_BYTES + IPV6_HEADER_BYTES, HEADER_BYTES + IPV6_HEADER_BYTES + length);
  if (udp.length !== length || length < UDP_HEADER_BYTES || udp.readUInt16BE(4) !== length) return undefined;
  if (!isUndamaged(header, udp)) return undefined;
  return {
    ...decodeHeader(frame),
    source: addressFromBytes(header.subarray(8, 24)),
    destination: addressFromBytes(header.subarray(24, 40)),
    sourcePort: udp.readUInt16BE(0),
    destinationPort: udp.readUInt16BE(2),
    data: udp.subarray(UDP_HEADER_BYTES),
  };
}

/**
 * There always is a checksum (RFC 8200 8.1). That of what another container of this host sends is not complete yet: the field holds the
 * sum of the pseudo-header (CHECKSUM_PARTIAL, include/linux/skbuff.h).
 */
function isUndamaged(header: Buffer, udp: Buffer): boolean {
  const field = udp.readUInt16BE(6);
  const pseudo = pseudoHeaderSum(header, udp.length);
  return field !== 0 && (field === wordSum(pseudo) || internetChecksum(pseudo, udp) === 0);
}

function pseudoHeaderSum(header: Buffer, udpBytes: number): number {
  return wordSum(PROTOCOL_UDP + udpBytes, header.subarray(8, 40));
}
