/** What of the engine's requests can be judged, and what derived from them, without asking the kernel. */
import { createHash, randomBytes } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import {
  type Address,
  contains,
  formatInterfaceAddress,
  formatPrefix,
  formatMac,
  isMulticastMac,
  macFromIPv4,
  macFromIPv6,
  parseAddress,
  parseMac,
  parsePrefix,
  prefixOf,
} from '../address.ts';
import * as errors from '../errors.ts';
import {
  type Endpoint,
  FAMILIES,
  type Family,
  type InterfaceAddress,
  type Network,
  type NetworkOptions,
  type NetworkSubnet,
  type Subnet,
} from '../model.ts';
import type { CreatedEndpoint, EndpointRequest, NetworkRequest } from '../requests.ts';

// --- networks ---------------------------------------------------------------------------------------------------------

/**
 * The request as it is recorded: without subnets where a DHCP server gives the addresses and no IPAM has any. Throws HOST_ACCESS_INTERNAL,
 * GATEWAY_INTERNAL, SUBNET_MISSING, MTU_TOO_SMALL, and what goes with no DHCP server.
 */
export function checkRequest(request: NetworkRequest, options: NetworkOptions): NetworkRequest {
  const { enableIPv4, enableIPv6, internal, subnets } = request;
  if (internal && options.hostAccess) throw errors.hostAccessInternal();
  if (internal && options.gatewayAddresses !== undefined) throw errors.gatewayInternal(options.gatewayAddresses);
  if (options.source === 'dhcp') return checkDhcp(request, options);
  const has = (family: Family) => subnets.some(({ subnet }) => isUsable(subnet, family));
  if (enableIPv4 && !has('IPv4')) throw errors.subnetMissing('IPv4');
  if (enableIPv6 && !has('IPv6')) throw errors.subnetMissing('IPv6');
  if (enableIPv6 && options.mtu !== null && options.mtu < 1280) throw errors.mtuBelowIPv6(options.mtu);
  return request;
}

/** The null IPAM says 0.0.0.0/0, and so that the addresses are the driver's to choose. */
function checkDhcp(request: NetworkRequest, { ipv6, mtu }: NetworkOptions): NetworkRequest {
  const { enableIPv6, internal, subnets } = request;
  if (enableIPv6) throw errors.dhcpIPv6();
  if (ipv6 !== undefined && internal) throw errors.ipv6Internal(ipv6);
  if (ipv6 !== undefined && mtu !== null && mtu < 1280) throw errors.mtuBelowIPv6(mtu);
  return { ...request, subnets: subnets.filter(({ subnet }) => FAMILIES.some((family) => isUsable(subnet, family))) };
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

/** Throws ADDRESS_OUTSIDE_NETWORK, also for what is no address at all. */
export function checkInside({ addresses, malformedAddresses }: EndpointRequest, { id, subnets }: Network): void {
  const outside = addresses.filter((address) => subnetOf(address, subnets) === undefined);
  const [wrong] = [...malformedAddresses, ...outside.map(formatInterfaceAddress)];
  if (wrong === undefined) return;
  const known = subnets.map(({ subnet }) => subnet);
  throw errors.addressOutsideNetwork(wrong, id, known);
}

/** The subnet of a network that the address lies in. */
export function subnetOf<T extends Subnet>(address: Address, subnets: readonly T[]): T | undefined {
  return subnets.find(({ subnet }) => {
    const prefix = parsePrefix(subnet);
    return prefix !== undefined && contains(prefix, address);
  });
}

/** The same of a network as a whole: a lease of a DHCP server says itself which subnet it lies in. */
export function subnetOn({ options, subnets }: Network, address: InterfaceAddress): NetworkSubnet | undefined {
  if (options.source !== 'dhcp') return subnetOf(address, subnets);
  const subnet = formatPrefix(prefixOf(address, address.length));
  return { addressSpace: '', subnet, gateway: null, realm: null };
}

/** The same request again gets the same answer; another one under the same id is a mistake: ENDPOINT_DIFFERS. */
export function repeated(known: Endpoint, request: EndpointRequest, { options }: Network): CreatedEndpoint {
  const isGiven = (address: InterfaceAddress) => known.addresses.some((one) => isDeepStrictEqual(one, address));
  const isSame =
    known.networkId === request.networkId &&
    (options.source === 'dhcp'
      ? request.addresses.every(isGiven)
      : isDeepStrictEqual(known.addresses, request.addresses));
  if (!isSame || (request.macAddress !== null && request.macAddress !== known.macAddress))
    throw errors.endpointDiffers(known.id);
  return created(known, request);
}

/** What is answered for an endpoint that is made: what the engine does not know yet. */
export function created({ macAddress, addresses }: Endpoint, request: EndpointRequest): CreatedEndpoint {
  const leased = addresses.filter(({ family }) => !request.addresses.some((one) => one.family === family));
  return { macAddress: request.macAddress === null ? macAddress : null, ...(leased.length > 0 && { leased }) };
}

/** In lower case. Throws MAC_MALFORMED, MAC_MULTICAST. */
export function readMac(typed: string): string {
  const mac = parseMac(typed);
  if (mac === undefined || mac === '00:00:00:00:00:00') throw errors.macMalformed(typed);
  if (isMulticastMac(mac)) throw errors.macMulticast(typed);
  return mac;
}

/** The endpoint option `hostname=`, an RFC 1123 label; null for none. Throws ENDPOINT_HOSTNAME. */
export function readHostname(typed: string | null): string | null {
  if (typed === null) return null;
  if (!/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i.test(typed)) throw errors.endpointHostname(typed);
  return typed;
}

/** The endpoint option `ip=`; null for none. Throws ENDPOINT_ADDRESS. */
export function readWish(typed: string | null): string | null {
  if (typed !== null && parseAddress(typed)?.family !== 'IPv4') throw errors.endpointAddress(typed);
  return typed;
}

/**
 * The same for a name on a host for ever, and another on every other host: the parent's MAC address is in it. Networks that are
 * removed and created again have other ids, so these are not.
 */
export function hostnameMac(prefix: string, parentMac: string, name: string): string {
  return `${prefix}:${formatMac(createHash('sha256').update(`${parentMac} ${name}`).digest().subarray(0, 4))}`;
}

/**
 * `prefix`: the first two bytes, `02:42`. From the IPv4 address, else the IPv6 address, else by chance. `count`: 0 for the
 * usual one; each higher number gives another, always the same for a network and an address.
 */
export function derivedMac(
  prefix: string,
  [first]: readonly InterfaceAddress[],
  { networkId, count }: { networkId: string; count: number },
): string {
  if (first === undefined) return `${prefix}:${formatMac(randomBytes(4))}`;
  if (count > 0) {
    const text = `${networkId} ${formatInterfaceAddress(first)} ${count}`;
    return `${prefix}:${formatMac(createHash('sha256').update(text).digest().subarray(0, 4))}`;
  }
  return first.family === 'IPv4' ? macFromIPv4(prefix, first) : macFromIPv6(prefix, first);
}

/** The gateway of the address's own subnet: a full pool may have answered with an address of its sister's. */
export function gatewayFor(network: Network, { addresses }: Endpoint, family: Family): string | null {
  const { options, internal, parent, subnets } = network;
  const address = addresses.find((one) => one.family === family);
  if (address === undefined || internal || parent.recipe === 'isolated' || !options.gateway) return null;
  return subnetOf(address, subnets)?.gateway ?? null;
}
