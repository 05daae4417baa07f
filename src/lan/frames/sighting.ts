/** What a frame on the LAN says about who has an address. Pure. */
import { type Address, isMulticastMac } from '../../address.ts';
import { type ArpPacket, decodeArp, isUnspecified } from './arp.ts';
import { BROADCAST_MAC, ETHERTYPE_ARP, ETHERTYPE_IPV6, etherTypeOf, isStationMac } from './ethernet.ts';
import { isStandbyMac, standbyMac } from './mac.ts';
import { type NeighborAdvertisement, type NeighborSolicitation, decodeNd } from './nd.ts';

/**
 * `use`: somebody speaks for the address, which is a conflict for everybody else (RFC 5227 2.1.1 and 2.4, RFC 4862
 * 5.4.4). `probe`: somebody asks whether the address is free in order to take it (RFC 5227 2.1.1, RFC 4862 5.4.3).
 */
export interface Sighting {
  readonly kind: 'use' | 'probe';
  readonly address: Address;
  readonly macAddress: string;
  /** It answers a question. Answers can be given for others too (proxy ARP); what a host says unasked is about itself. */
  readonly isAnswer: boolean;
  /** Of a Neighbour Solicitation, to tell our own that some device sent back under another MAC (RFC 7527). */
  readonly nonce: string | null;
  /** What was received. */
  readonly packet: Packet;
}

/** What decodePacket can read. */
export type Packet = ArpPacket | NeighborSolicitation | NeighborAdvertisement;

/** Undefined for frames that are malformed or about something else. Never throws. */
export function decodePacket(frame: Buffer): Packet | undefined {
  const etherType = etherTypeOf(frame);
  if (etherType === ETHERTYPE_ARP) return decodeArp(frame);
  return etherType === ETHERTYPE_IPV6 ? decodeNd(frame) : undefined;
}

/** Undefined when the packet says nothing about who has an address, or comes from nobody who could. */
export function readSighting(packet: Packet): Sighting | undefined {
  const macAddress = speaker(packet);
  if (macAddress === undefined) return undefined;
  const subject = packet.protocol === 'ARP' ? arpSubject(packet) : ndSubject(packet);
  return subject && { macAddress, nonce: packet.protocol === 'NS' ? packet.nonce : null, packet, ...subject };
}

/**
 * The MAC that the packet names for its sender, or the frame's own where that is none: a cluster that answers with a
 * multicast MAC (Microsoft NLB), or a broken sender that leaves zeros, holds its address all the same.
 */
function speaker(packet: Packet): string | undefined {
  const named = packet.protocol === 'ARP' ? packet.senderMac : packet.linkLayerAddress;
  return [named, packet.sourceMac].find((mac): mac is string => mac !== null && isStationMac(mac));
}

type Subject = Pick<Sighting, 'kind' | 'address' | 'isAnswer'>;

function arpSubject(packet: ArpPacket): Subject | undefined {
  const { operation, senderAddress, targetAddress } = packet;
  if (!isUnspecified(senderAddress)) {
    const isGratuitous = senderAddress.value === targetAddress.value;
    return { kind: 'use', address: senderAddress, isAnswer: operation === 'reply' && !isGratuitous };
  }
  // A probe is a broadcast (RFC 5227 1.1). A switch that checks on its hosts (Cisco's IP Device Tracking) asks the same
  // question in unicast, and wants nothing for itself.
  const isProbe = operation === 'request' && packet.destinationMac === BROADCAST_MAC && !isUnspecified(targetAddress);
  return isProbe ? { kind: 'probe', address: targetAddress, isAnswer: false } : undefined;
}

function ndSubject(packet: NeighborSolicitation | NeighborAdvertisement): Subject {
  if (packet.protocol === 'NA') return { kind: 'use', address: packet.target, isAnswer: true };
  if (isUnspecified(packet.source)) return { kind: 'probe', address: packet.target, isAnswer: false };
  return { kind: 'use', address: packet.source, isAnswer: false };
}

/**
 * What a daemon tells another one that asks for an address which it has on standby (standbyFrame): it names an address made
 * from its own, and no interface has such a one. Who has one all the same, and uses it, sends from it.
 */
export function isStandbyNotice({ macAddress, packet }: Sighting): boolean {
  return (
    isStandbyMac(macAddress) &&
    !isMulticastMac(packet.destinationMac) &&
    packet.sourceMac !== macAddress &&
    standbyMac(packet.sourceMac) === macAddress
  );
}
