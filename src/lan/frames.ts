/** The frames we send, in the words of the address's family. Pure. */
import type { Address } from '../address.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from './arp.ts';
import { mldReportFrame } from './mld.ts';
import { encodeNd, ndAnnouncement, ndDefence, ndProbe, solicitedNodeGroup } from './nd.ts';
import type { Packet } from './sighting.ts';

/** One question, with what makes sure that others' questions for the address are heard. `nonce`: 12 hexadecimal digits. */
export function probeFrames(address: Address, macAddress: string, nonce: string): Buffer[] {
  if (address.family === 'IPv4') return [encodeArp(arpProbe(address, macAddress))];
  return [mldReportFrame(solicitedNodeGroup(address), macAddress), encodeNd(ndProbe(address, macAddress, nonce))];
}

/** The answer to somebody's probe: the address is at this MAC. */
export function defenceFrame(probe: Packet, address: Address, macAddress: string): Buffer {
  return probe.protocol === 'ARP' ? encodeArp(arpReply(probe, macAddress)) : encodeNd(ndDefence(address, macAddress));
}

export function announcementFrame(address: Address, macAddress: string): Buffer {
  return address.family === 'IPv4'
    ? encodeArp(arpAnnouncement(address, macAddress))
    : encodeNd(ndAnnouncement(address, macAddress));
}

/** `random`: 0 to 1, as Math.random. */
export function makeNonce(random: () => number): string {
  return Math.floor(random() * 2 ** 48)
    .toString(16)
    .padStart(12, '0');
}
