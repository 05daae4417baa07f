/** The frames we send, in the words of the address's family. Pure. */
import type { Address } from '../../address.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from './arp.ts';
import { mldReportFrame } from './mld.ts';
import { encodeNd, ndAnnouncement, ndDefence, ndProbe, solicitedNodeGroup } from './nd.ts';
import { standbyMac } from './mac.ts';
import type { Packet } from './sighting.ts';

/** One probe, with what makes sure that others' probes for the address are heard. `nonce`: 12 hexadecimal digits. */
export function probeFrames(address: Address, macAddress: string, nonce: string): Buffer[] {
  if (address.family === 'IPv4') return [encodeArp(arpProbe(address, macAddress))];
  return [...membershipFrames(address, macAddress), encodeNd(ndProbe(address, macAddress, nonce))];
}

/** The same question to one host alone, by its MAC address `to`. */
export function unicastProbeFrame(address: Address, macAddress: string, to: string, nonce: string): Buffer {
  if (address.family === 'IPv4') return encodeArp({ ...arpProbe(address, macAddress), destinationMac: to });
  // An IPv6 multicast in a unicast frame (RFC 6085).
  return encodeNd({ ...ndProbe(address, macAddress, nonce), destinationMac: to });
}

/** What switches have to hear again and again so that others' probes for the address go on reaching us. */
export function membershipFrames(address: Address, macAddress: string): Buffer[] {
  return address.family === 'IPv4' ? [] : [mldReportFrame(solicitedNodeGroup(address), macAddress)];
}

/** The answer to somebody's probe: the address is at this MAC. */
export function defenceFrame(probe: Packet, address: Address, macAddress: string): Buffer {
  return probe.protocol === 'ARP' ? encodeArp(arpReply(probe, macAddress)) : encodeNd(ndDefence(address, macAddress));
}

/**
 * The answer to another daemon's probe: the address is on standby here. Only that daemon hears it, because the MAC that
 * it names is no interface's.
 */
export function standbyFrame(probe: Packet, address: Address, macAddress: string): Buffer {
  const named = standbyMac(macAddress);
  if (probe.protocol === 'ARP') return encodeArp({ ...arpReply(probe, named), sourceMac: macAddress });
  // An IPv6 multicast in a unicast frame (RFC 6085).
  return encodeNd({ ...ndDefence(address, named), sourceMac: macAddress, destinationMac: probe.sourceMac });
}

/** Tells everybody, unasked, that the address is at this MAC. With a nonce it is unlike what anybody else says of it. */
export function announcementFrame(address: Address, macAddress: string, nonce: string | null = null): Buffer {
  return address.family === 'IPv4'
    ? encodeArp(arpAnnouncement(address, macAddress, nonce))
    : encodeNd(ndAnnouncement(address, macAddress, nonce));
}

/** What tells our own Neighbour Solicitations from others. `random`: 0 to 1, as Math.random. */
export function makeNonce(random: () => number): string {
  return Math.floor(random() * 2 ** 48)
    .toString(16)
    .padStart(12, '0');
}
