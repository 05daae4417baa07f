/** The MAC addresses that our daemons themselves use on a LAN, by which they know each other (../tiebreak.ts). Pure. */
import { formatMac } from '../../address.ts';

/** Locally administered, and different from the engine's 02:42, from which containers get theirs. */
const PROBE_MAC_PREFIX = '02:74:73';
/** What a daemon names that has the address on standby. No link has one of these. */
const STANDBY_MAC_PREFIX = '02:74:6b';

/** A new MAC address to probe with. `random`: 0 to 1, as Math.random. */
export function makeProbeMac(random: () => number): string {
  return `${PROBE_MAC_PREFIX}:${formatMac(Uint8Array.from({ length: 3 }, () => Math.floor(random() * 256)))}`;
}

/** Whether a daemon of this kind probes with it, on this host or another. */
export function isProbeMac(mac: string): boolean {
  return mac.startsWith(`${PROBE_MAC_PREFIX}:`);
}

/** What the daemon with this probe MAC names for an address that it has on standby. */
export function standbyMac(probeMac: string): string {
  return `${STANDBY_MAC_PREFIX}:${probeMac.slice(-8)}`;
}

/** Whether a daemon of this kind names it for an address that it has on standby. */
export function isStandbyMac(mac: string): boolean {
  return mac.startsWith(`${STANDBY_MAC_PREFIX}:`);
}

/** A daemon of this kind asks for an address with it, guards it or has it on standby. */
export function isDaemonMac(mac: string): boolean {
  return isProbeMac(mac) || isStandbyMac(mac);
}
