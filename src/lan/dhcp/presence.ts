/**
 * Where a container will be that has no link yet. Routers and DHCPv6 servers ask where its link-local address is before they answer
 * it (RFC 4861 7.2), and nobody but us can say that.
 */
import { isSameAddress, linkLocalOfMac } from '../../address.ts';
import {
  type NeighborSolicitation,
  decodeNd,
  encodeNd,
  multicastMac,
  ndAnswer,
  solicitedNodeGroup,
} from '../frames/nd.ts';

/** MAC addresses to which others speak who look for it, or answer it. */
export function wherePresent(macAddress: string): string[] {
  return [macAddress, multicastMac(solicitedNodeGroup(linkLocalOfMac(macAddress)))];
}

/** The answer that it is there, as a whole frame; undefined where something else is looked for. */
export function presenceAnswer(asked: NeighborSolicitation, macAddress: string): Buffer | undefined {
  // From `::` somebody asks whether the address is free, perhaps the container itself.
  const isMeant = isSameAddress(asked.target, linkLocalOfMac(macAddress)) && asked.source.value !== 0n;
  return isMeant ? encodeNd(ndAnswer(asked, macAddress)) : undefined;
}

/** Undefined for what is no Neighbour Solicitation. */
export function decodeSolicitation(frame: Buffer): NeighborSolicitation | undefined {
  const packet = decodeNd(frame);
  return packet?.protocol === 'NS' ? packet : undefined;
}
