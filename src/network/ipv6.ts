/**
 * The IPv6 addresses of containers on networks with `-o ipv6=`: taken at the start, beside the IPv4 lease, from what the LAN's routers
 * advertise or from its DHCPv6 server. Lifetimes of the former, and the default route in any case, are kept by the container's own
 * kernel, which hears the router's advertisements; leases of the latter are renewed from here.
 */
import { formatAddress, formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Dhcp6Lease } from '../lan/dhcp/acquisition6.ts';
import type { AcquiredIPv6, IPv6Client } from '../lan/dhcp/ipv6client.ts';
import type { Dated } from '../lan/dhcp/renewal.ts';
import type { Log } from '../log.ts';
import {
  type InterfaceAddress,
  type LeasedIPv6,
  type Network,
  type Tenancy,
  type TenancyIPv6,
  segmentOf,
} from '../model.ts';
import type { CallLimit } from '../requests.ts';

/** What of the client is used here. */
type IPv6Source = Pick<IPv6Client, 'acquire' | 'keep' | 'endKeeping' | 'release' | 'close'>;

/** What they are taken with. */
export interface IPv6AddressesParts {
  readonly source: IPv6Source;
  readonly log: Log;
  readonly now: () => Date;
}

/** Whose address it is to be. */
export interface IPv6Claim extends Pick<Tenancy, 'macAddress' | 'hostname'> {
  /** What the MAC address had last; absent for nothing. */
  readonly last: TenancyIPv6 | undefined;
  readonly limit: CallLimit;
}

/** A DHCPv6 server gives a host one address, and the router says what else is on the LAN. */
const LEASE_BITS = 128;

/** IPv6 addresses of this host's containers. */
export class IPv6Addresses {
  readonly #parts: IPv6AddressesParts;
  /** Networks whose containers get none, as the log has it. */
  readonly #without = new Set<string>();

  constructor(parts: IPv6AddressesParts) {
    this.#parts = parts;
  }

  /**
   * Null where the network's containers get none, and with `auto` where the LAN has none: then the log says so, once for the
   * network. Else that throws ROUTER_SILENT, ROUTER_PREFIX, IPV6_USED, DHCP6_SILENT, DHCP6_REFUSED, DHCP6_USED.
   */
  async acquire({ macAddress, hostname, last, limit }: IPv6Claim, network: Network): Promise<TenancyIPv6 | null> {
    const method = network.options.ipv6;
    const segment = segmentOf(network);
    if (method === undefined || segment === null) return null;
    const { source, now } = this.#parts;
    const wish = addressIn(last) ?? null;
    const acquired = await source.acquire({ segment, macAddress, hostname, method, last: wish, limit });
    if (acquired.kind !== 'slaac' && acquired.kind !== 'lease')
      return this.#refuse(acquired, network, method === 'auto');
    this.#without.delete(network.id);
    const obtainedMs = now().getTime();
    if (acquired.kind === 'lease') return recordOf6({ lease: acquired.lease, obtainedMs });
    const { address, router } = acquired;
    return {
      how: 'slaac',
      address: formatInterfaceAddress(address),
      server: formatAddress(router),
      obtainedAt: new Date(obtainedMs).toISOString(),
    };
  }

  /** Renews the lease from now on, until endKeeping(); nothing for what needs none. `change`: makes the record again. */
  keep(endpointId: string, network: Network, tenancy: Tenancy, change: (ipv6: TenancyIPv6) => void): void {
    const { macAddress, hostname, ipv6 } = tenancy;
    const segment = segmentOf(network);
    const dated = leaseIn(ipv6);
    if (dated === undefined || segment === null) return;
    const whose = { mac: macAddress, address: ipv6?.address, parent: segment.parentName };
    let last = dated;
    let isLost = ipv6?.how === 'dhcpv6' && ipv6.state === 'lost';
    this.#parts.source.keep(endpointId, segment, { macAddress, hostname }, dated, {
      onKept: (kept) => {
        last = kept;
        if (isLost) this.#parts.log.info('a DHCPv6 server gives a container its address again', whose);
        isLost = false;
        change(recordOf6(kept));
      },
      onLost: (loss) => {
        this.#parts.log.error(LOST[loss], whose);
        isLost = true;
        change({ ...recordOf6(last), state: 'lost', loss });
      },
    });
  }

  /** The endpoint goes. */
  endKeeping(endpointId: string): void {
    this.#parts.source.endKeeping(endpointId);
  }

  /** Tells the server, unless there is none or the lease is over; answers what is recorded then. Its link is down. */
  async release(
    network: Network,
    { macAddress, hostname, ipv6 }: Pick<Tenancy, 'macAddress' | 'hostname' | 'ipv6'>,
  ): Promise<TenancyIPv6 | undefined> {
    const segment = segmentOf(network);
    const dated = leaseIn(ipv6);
    if (dated === undefined || segment === null || endOf(dated) < this.#parts.now().getTime()) return ipv6;
    await this.#parts.source.release(segment, { macAddress, hostname }, dated.lease);
    return recordOf6({ ...dated, lease: { ...dated.lease, leaseSeconds: 0 } });
  }

  /** The network is gone. */
  forget(networkId: string): void {
    this.#without.delete(networkId);
  }

  /** Nobody is asked any more. */
  close(): void {
    this.#parts.source.close();
  }

  #refuse(acquired: Refused, network: Network, isTolerant: boolean): null {
    const refusal = refusalOf6(acquired, network.parent.name);
    if (!isTolerant) throw refusal;
    if (this.#without.has(network.id)) return null;
    this.#without.add(network.id);
    // What is to be done is said for networks that want one: this one does without.
    const [why = ''] = refusal.message.split('; ');
    const whose = { network: errors.short(network.id), parent: network.parent.name };
    this.#parts.log.warn('containers start without an IPv6 address', { ...whose, why });
    return null;
  }
}

type Refused = Exclude<AcquiredIPv6, { kind: 'slaac' | 'lease' }>;

const LOST = {
  silent: 'the IPv6 lease of a container is over and no DHCPv6 server answers: it goes on with the address',
  refused:
    'a DHCPv6 server has taken the address of a container away: start the container again, it goes on with the address until then',
} as const;

/** As a link has it; undefined for none. */
export function addressIn(ipv6: TenancyIPv6 | null | undefined): InterfaceAddress | undefined {
  return parseInterfaceAddress(ipv6?.address ?? '');
}

/** The record with this address, or with none (null). */
export function withIPv6({ ipv6: _before, ...tenancy }: Tenancy, ipv6: TenancyIPv6 | null): Tenancy {
  return { ...tenancy, ...(ipv6 !== null && { ipv6 }) };
}

function recordOf6({ lease, obtainedMs }: Dated<Dhcp6Lease>): LeasedIPv6 {
  const { address, server, leaseSeconds, t1Seconds, t2Seconds } = lease;
  return {
    how: 'dhcpv6',
    address: formatInterfaceAddress({ ...address, length: LEASE_BITS }),
    server,
    leaseSeconds,
    t1Seconds,
    t2Seconds,
    obtainedAt: new Date(obtainedMs).toISOString(),
    state: 'bound',
  };
}

function leaseIn(ipv6: TenancyIPv6 | undefined): Dated<Dhcp6Lease> | undefined {
  const address = addressIn(ipv6);
  if (ipv6?.how !== 'dhcpv6' || address === undefined) return undefined;
  const { server, leaseSeconds, t1Seconds, t2Seconds, obtainedAt } = ipv6;
  const { family, value } = address;
  return {
    lease: { address: { family, value }, server, leaseSeconds, t1Seconds, t2Seconds },
    obtainedMs: Date.parse(obtainedAt),
  };
}

function endOf({ lease, obtainedMs }: Dated<Dhcp6Lease>): number {
  return obtainedMs + lease.leaseSeconds * 1000;
}

function refusalOf6(acquired: Refused, parentName: string): errors.PluginError {
  switch (acquired.kind) {
    case 'unrouted':
      return errors.routerSilent(parentName, acquired.seconds);
    case 'prefixless':
      return errors.routerPrefix(parentName);
    case 'taken':
      return errors.ipv6Used(formatAddress(acquired.address), acquired.holder.macAddress);
    case 'silent':
      return errors.dhcp6Silent(parentName, acquired.seconds);
    case 'refused':
      return errors.dhcp6Refused(parentName, acquired.message);
    case 'used':
      return errors.dhcp6Used(acquired.count, formatAddress(acquired.offered.address), acquired.holder.macAddress);
  }
}
