/** How a host makes an address of what routers advertise (RFC 4862 5.5). Pure. */
import { type Address, type Prefix, addressOfMac, contains } from '../../address.ts';
import type { RouterAdvertisement } from '../frames/ra.ts';

/** An advertisement, and when it was heard. */
export interface HeardAdvertisement {
  readonly advertisement: RouterAdvertisement;
  readonly heardAtMs: number;
}

/** What the routers of a LAN have for a host. */
export interface Advertised {
  /** Of which it makes its address; null where no router has one. */
  readonly prefix: Prefix | null;
  /** Who advertises it. */
  readonly router: Address | null;
  /** A DHCPv6 server gives addresses. */
  readonly isManaged: boolean;
}

/** The interface identifier that a MAC address gives has so many bits, and a prefix of another length does not go with it. */
export const SLAAC_BITS = 64;
const FOREVER_SECONDS = 0xffff_ffff;

/**
 * The prefix of the address that the host had last goes before others, then what was heard last before what is older.
 * A later word ends an earlier one, also of another router: a prefix that is not preferred any more is none for new addresses (RFC 4862 5.5.4).
 */
export function advertisedIn(heard: readonly HeardAdvertisement[], nowMs: number, last: Address | null): Advertised {
  const latest = heard.toSorted((a, b) => b.heardAtMs - a.heardAtMs);
  const judged = new Set<bigint>();
  const usable: { prefix: Prefix; router: Address }[] = [];
  for (const { advertisement, heardAtMs } of latest)
    for (const { prefix, isAutonomous, preferredSeconds } of advertisement.prefixes) {
      // RFC 4862 5.5.3 a: who leaves it to others to say whether hosts make addresses ends nothing.
      if (!isAutonomous || prefix.length !== SLAAC_BITS || prefix.first === 0n || judged.has(prefix.first)) continue;
      judged.add(prefix.first);
      if (isRunning(preferredSeconds, heardAtMs, nowMs)) usable.push({ prefix, router: advertisement.router });
    }
  const chosen = usable.find(({ prefix }) => last !== null && contains(prefix, last)) ?? usable[0];
  const isManaged = latest.some(({ advertisement }) => advertisement.isManaged);
  return { prefix: chosen?.prefix ?? null, router: chosen?.router ?? null, isManaged };
}

/** An advertisement counts as long as its router is one, or as one of its prefixes is valid. */
export function isAlive({ advertisement, heardAtMs }: HeardAdvertisement, nowMs: number): boolean {
  const { lifetimeSeconds, prefixes } = advertisement;
  const seconds = [lifetimeSeconds, ...prefixes.map(({ validSeconds }) => validSeconds)];
  return seconds.some((one) => isRunning(one, heardAtMs, nowMs));
}

/** The host's address in a prefix. */
export function slaacAddress(prefix: Prefix, macAddress: string): Address {
  return addressOfMac(prefix, macAddress);
}

function isRunning(seconds: number, sinceMs: number, nowMs: number): boolean {
  return seconds === FOREVER_SECONDS || nowMs < sinceMs + seconds * 1000;
}
