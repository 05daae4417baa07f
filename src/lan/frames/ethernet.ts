/** Ethernet II frames as bytes (IEEE 802.3 clause 3). Pure. */
import { formatMac, isMulticastMac, macBytes } from '../../address.ts';

/** EtherType of IPv4. */
export const ETHERTYPE_IPV4 = 0x0800;
/** Of ARP. */
export const ETHERTYPE_ARP = 0x0806;
/** Of IPv6, and so of Neighbour Discovery. */
export const ETHERTYPE_IPV6 = 0x86dd;

/** To everybody. */
export const BROADCAST_MAC = 'ff:ff:ff:ff:ff:ff';
/** Stands for a MAC address that is not known yet. */
export const ZERO_MAC = '00:00:00:00:00:00';

/** Two MAC addresses and the EtherType. */
export const HEADER_BYTES = 14;
/** The shortest frame without its checksum; some devices drop what is shorter. */
const SHORTEST_FRAME_BYTES = 60;

/** Who sends a frame to whom, in lower case with colons. */
export interface EthernetHeader {
  readonly destinationMac: string;
  readonly sourceMac: string;
}

/** Padded with zeros to the shortest frame that Ethernet carries. */
export function encodeFrame({ destinationMac, sourceMac }: EthernetHeader, etherType: number, payload: Buffer): Buffer {
  const frame = Buffer.alloc(Math.max(SHORTEST_FRAME_BYTES, HEADER_BYTES + payload.length));
  frame.set(macBytes(destinationMac), 0);
  frame.set(macBytes(sourceMac), 6);
  frame.writeUInt16BE(etherType, 12);
  payload.copy(frame, HEADER_BYTES);
  return frame;
}

/** 0 for what is too short to have one. */
export function etherTypeOf(frame: Buffer): number {
  return frame.length < HEADER_BYTES ? 0 : frame.readUInt16BE(12);
}

/** Of a frame that has an EtherType. */
export function decodeHeader(frame: Buffer): EthernetHeader {
  return { destinationMac: formatMac(frame.subarray(0, 6)), sourceMac: formatMac(frame.subarray(6, 12)) };
}

/** Whether an interface can have it: neither zero nor a group. */
export function isStationMac(mac: string): boolean {
  return mac !== ZERO_MAC && !isMulticastMac(mac);
}
