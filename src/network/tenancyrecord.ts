/** A lease of a DHCP server as it is recorded, and back; and what a container gets of it. Pure. */
import {
  type Address,
  encloses,
  formatAddress,
  formatInterfaceAddress,
  isHostOf,
  isSameAddress,
  parseAddress,
  parseInterfaceAddress,
  parsePrefix,
  prefixOf,
} from '../address.ts';
import * as errors from '../errors.ts';
import type { DhcpLease } from '../lan/dhcp/question.ts';
import type { DatedLease } from '../lan/dhcp/renewal.ts';
import {
  type Endpoint,
  type InterfaceAddress,
  type LeasedRoute,
  type Network,
  type Segment,
  type Tenancy,
  segmentOf,
} from '../model.ts';

/** What of a tenancy is the server's word. */
export type LeasedPart = Omit<
  Tenancy,
  'parent' | 'macAddress' | 'networkId' | 'owner' | 'endpointId' | 'hostname' | 'ipv6' | 'state' | 'changedAt'
>;

/** More routes than that are an attack, or a mistake. */
const MOST_ROUTES = 64;

/** The lease as it is recorded. */
export function recordOf({ lease, obtainedMs }: DatedLease): LeasedPart {
  const { leaseSeconds, t1Seconds, t2Seconds, domain, mtu, server } = lease;
  return {
    address: formatInterfaceAddress(addressOf(lease)),
    server: formatAddress(server.address),
    serverMac: server.macAddress,
    leaseSeconds,
    t1Seconds,
    t2Seconds,
    obtainedAt: new Date(obtainedMs).toISOString(),
    routers: lease.routers.map(formatAddress),
    routes:
      lease.routes?.map(({ destination, gateway }) => ({
        destination: formatInterfaceAddress(destination),
        gateway: gateway.value === 0n ? null : formatAddress(gateway),
      })) ?? null,
    dnsServers: lease.dnsServers.map(formatAddress),
    domain,
    mtu,
  };
}

/** A container that runs, of whose lease nothing is recorded, or no more than what it had before (`known`). */
interface Adopted {
  readonly endpoint: Pick<Endpoint, 'id' | 'parent' | 'macAddress'>;
  readonly network: Network;
  readonly address: InterfaceAddress;
  readonly known: Tenancy | undefined;
  readonly now: Date;
}

const NO_TERMS = {
  t1Seconds: null,
  t2Seconds: null,
  routers: [],
  routes: null,
  dnsServers: [],
  domain: null,
  mtu: null,
};

/** A lease that is over, so that any server is asked for the address at once. A MAC address that was not made here is the user's. */
export function adoptedTenancy({ endpoint, network, address, known, now }: Adopted): Tenancy {
  const { id: endpointId, parent, macAddress } = endpoint;
  const owner = macAddress.startsWith(network.options.macPrefix) ? null : 'mac';
  const unknown = { owner, hostname: null, server: '0.0.0.0', serverMac: macAddress, ...NO_TERMS };
  const lease = { leaseSeconds: 1, obtainedAt: new Date(0).toISOString() };
  const names = { parent, macAddress, networkId: network.id, endpointId, address: formatInterfaceAddress(address) };
  return { ...unknown, ...known, ...names, ...lease, state: 'bound', changedAt: now.toISOString() };
}

/** As a link has it. */
export function addressOf({ address, prefixLength }: DhcpLease): InterfaceAddress {
  return { ...address, length: prefixLength };
}

/** What renewals need of a record; undefined for one that no program of ours wrote. */
export function leaseIn(tenancy: Tenancy): DatedLease | undefined {
  const { leaseSeconds, t1Seconds, t2Seconds, obtainedAt, serverMac } = tenancy;
  const address = parseInterfaceAddress(tenancy.address);
  const server = parseAddress(tenancy.server);
  if (address === undefined || server === undefined) return undefined;
  const lease: DhcpLease = {
    address: bare(address),
    prefixLength: address.length,
    server: { address: server, macAddress: serverMac },
    leaseSeconds,
    t1Seconds,
    t2Seconds,
    routers: [],
    routes: null,
    dnsServers: [],
    domain: null,
    mtu: null,
  };
  return { lease, obtainedMs: Date.parse(obtainedAt) };
}

/** Without its prefix length. */
export function bare({ family, value }: InterfaceAddress): Address {
  return { family, value };
}

/** `192.168.1.2/24` → `192.168.1.2`. */
export function bareText(address: string): string {
  return address.replace(/\/.*/, '');
}

/** The default route and the others that a container gets with its lease. */
export interface LeasedRoutes {
  readonly gateway: string | null;
  readonly routes: readonly LeasedRoute[];
}

/**
 * Option 121 goes before the routers (RFC 3442), and `-o gateway=` before both. What cannot be set would keep the container from
 * starting: routes by gateways that are no other host of the lease's subnet, a second one to the same destination, that of the
 * subnet itself, and one to a part of it by a gateway, since engines refuse a gateway that is behind another (programGateway,
 * libnetwork osl/route_linux.go).
 */
export function routesOf({ options, internal }: Network, tenancy: Tenancy): LeasedRoutes {
  const address = parseInterfaceAddress(tenancy.address);
  if (address === undefined || internal) return { gateway: null, routes: [] };
  const subnet = prefixOf(address, address.length);
  const isInside = (text: string | null) => {
    const gateway = parseAddress(text ?? '');
    return gateway !== undefined && isHostOf(subnet, gateway) && !isSameAddress(gateway, address);
  };
  const isBehind = ({ destination, gateway }: LeasedRoute) =>
    gateway !== null && encloses(subnet, parsePrefix(destination) ?? subnet);
  const isDefault = ({ destination }: LeasedRoute) => destination === '0.0.0.0/0';
  const own = formatInterfaceAddress({ ...bare(address), value: subnet.first, length: address.length });
  const known = (tenancy.routes ?? []).filter(({ gateway }) => gateway === null || isInside(gateway));
  const others = known.filter((route) => !isDefault(route) && route.destination !== own && !isBehind(route));
  const told = tenancy.routes === null ? tenancy.routers : known.filter(isDefault).map(({ gateway }) => gateway);
  const isWithout = !options.gateway || options.gatewayFamilies?.includes('IPv4') === false;
  const gateways = isWithout ? [] : [...(options.gatewayAddresses ?? []), ...told];
  return {
    gateway: gateways.find(isInside) ?? null,
    routes: [...new Map(others.map((route) => [route.destination, route])).values()].slice(0, MOST_ROUTES),
  };
}

/** A network with `-o source=dhcp` has a parent. */
export function segmentIn(network: Network): Segment {
  const segment = segmentOf(network);
  if (segment === null) throw errors.optionNeedsParent('source');
  return segment;
}
