/** What the engine asks for, and what of it can be judged and derived without asking the kernel. */
import { randomBytes } from 'node:crypto';
import {
  contains,
  formatMac,
  isMulticastMac,
  macFromIPv4,
  macFromIPv6,
  parseInterfaceAddress,
  parseMac,
  parsePrefix,
} from '../address.ts';
import * as errors from '../errors.ts';
import type { Endpoint, Family, Network, NetworkOptions, Subnet } from '../model.ts';

export interface NetworkRequest {
  readonly networkId: string;
  /** `-o` labels as given. */
  readonly options: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly enableIPv4: boolean;
  readonly enableIPv6: boolean;
  readonly subnets: readonly Subnet[];
}

export interface EndpointRequest {
  readonly networkId: string;
  readonly endpointId: string;
  /** With prefix length; null when the engine has none of this family. */
  readonly address: string | null;
  readonly addressIPv6: string | null;
  /** `--mac-address` as typed; null when we choose. */
  readonly macAddress: string | null;
  readonly interfaceName: string | null;
  /** `8080->80/tcp`; macvlan publishes nothing, so these are only warned about. */
  readonly publishedPorts: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

// --- networks ---------------------------------------------------------------------------------------------------------

/** Throws HOST_ACCESS_INTERNAL, SUBNET_MISSING, MTU_TOO_SMALL. */
export function checkRequest(
  { enableIPv4, enableIPv6, internal, subnets }: NetworkRequest,
  options: NetworkOptions,
): void {
  if (internal && options.hostAccess) throw errors.hostAccessInternal();
  const has = (family: Family) => subnets.some(({ subnet }) => isUsable(subnet, family));
  if (enableIPv4 && !has('IPv4')) throw errors.subnetMissing('IPv4');
  if (enableIPv6 && !has('IPv6')) throw errors.subnetMissing('IPv6');
  if (enableIPv6 && options.mtu !== null && options.mtu < 1280) throw errors.mtuBelowIPv6(options.mtu);
}

/** 0.0.0.0/0 is the null IPAM's way to say that there are no addresses (libnetwork ipams/null). */
function isUsable(subnet: string, family: Family): boolean {
  const prefix = parsePrefix(subnet);
  return prefix?.family === family && prefix.length > 0;
}

/** Throws PASSTHRU_OWNS, PASSTHRU_TAKEN. `others`: networks of this host, on whichever parent. */
export function checkPassthru(parentName: string, { mode }: NetworkOptions, others: readonly Network[]): void {
  for (const other of others.filter(({ parent }) => parent.name === parentName)) {
    if (other.options.mode === 'passthru') throw errors.parentOwnedByPassthru(parentName, other.id);
    if (mode === 'passthru') throw errors.parentTaken(parentName, other.id);
  }
}

// --- endpoints --------------------------------------------------------------------------------------------------------

/** Throws ADDRESS_OUTSIDE_NETWORK. */
export function checkInside(address: string | null, { id, subnets }: Network): void {
  if (address !== null && subnetOf(address, subnets) === undefined)
    throw errors.addressOutsideNetwork(
      address,
      id,
      subnets.map(({ subnet }) => subnet),
    );
}

export function subnetOf<T extends Subnet>(address: string, subnets: readonly T[]): T | undefined {
  const parsed = parseInterfaceAddress(address);
  return subnets.find(({ subnet }) => {
    const prefix = parsePrefix(subnet);
    return parsed !== undefined && prefix !== undefined && contains(prefix, parsed.address);
  });
}

/** The same request again gets the same answer; another one under the same id is a mistake: ENDPOINT_DIFFERS. */
export function repeated(known: Endpoint, request: EndpointRequest): { macAddress: string | null } {
  const isSame =
    known.networkId === request.networkId &&
    known.address === request.address &&
    known.addressIPv6 === request.addressIPv6;
  if (!isSame || (request.macAddress !== null && request.macAddress !== known.macAddress))
    throw errors.endpointDiffers(known.id);
  return { macAddress: request.macAddress === null ? known.macAddress : null };
}

/** In lower case. Throws MAC_MALFORMED, MAC_MULTICAST. */
export function readMac(typed: string): string {
  const mac = parseMac(typed);
  if (mac === undefined || mac === '00:00:00:00:00:00') throw errors.macMalformed(typed);
  if (isMulticastMac(mac)) throw errors.macMulticast(typed);
  return mac;
}

/** `prefix`: the first two bytes, `02:42`. From the IPv4 address, else the IPv6 address, else by chance. */
export function derivedMac(prefix: string, { address, addressIPv6 }: EndpointRequest): string {
  const ipv4 = address === null ? undefined : parseInterfaceAddress(address);
  if (ipv4 !== undefined) return macFromIPv4(prefix, ipv4.address);
  const ipv6 = addressIPv6 === null ? undefined : parseInterfaceAddress(addressIPv6);
  return ipv6 === undefined ? `${prefix}:${formatMac(randomBytes(4))}` : macFromIPv6(prefix, ipv6.address);
}

/** Without prefix length. */
export function addressesOf({ address, addressIPv6 }: Pick<Endpoint, 'address' | 'addressIPv6'>): string[] {
  return [address, addressIPv6].flatMap((text) => text?.split('/')[0] ?? []);
}

/** The gateway of the address's own subnet: a full pool may have answered with an address of its sister's. */
export function gatewayFor({ options, internal, parent, subnets }: Network, address: string | null): string | null {
  if (address === null || internal || parent.recipe === 'isolated' || !options.gateway) return null;
  return subnetOf(address, subnets)?.gateway ?? null;
}
