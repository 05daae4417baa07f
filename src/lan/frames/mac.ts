/** The MAC addresses that our daemons themselves use on a LAN, by which they know each other (../tiebreak.ts). Pure. */
import { formatMac } from '../../address.ts';

/** Locally administered, and different from the engine's 02:42, from which containers get theirs. */
const PROBE_MAC_PREFIX = '02:74:73';
/** No link has one of these. */
const KEEPER_MAC_PREFIX = '02:74:6b';

export function makeProbeMac(random: () => number): string {
  return `${PROBE_MAC_PREFIX}:${formatMac(Uint8Array.from({ length: 3 }, () => Math.floor(random() * 256)))}`;
}

/** Whether a daemon of this kind probes with it, on this host or another. */
export function isProbeMac(mac: string): boolean {
  return mac.startsWith(`${PROBE_MAC_PREFIX}:`);
}

/** What the keeper with this probe MAC names. */
export function keeperMac(probeMac: string): string {
  return `${KEEPER_MAC_PREFIX}:${probeMac.slice(-8)}`;
}

export function isKeeperMac(mac: string): boolean {
  return mac.startsWith(`${KEEPER_MAC_PREFIX}:`);
}
