/**
 * The IPv6 addresses of containers on networks with `-o ipv6=`: taken at the start from what the LAN's routers advertise, beside the
 * IPv4 lease. From then on the container's own kernel keeps their lifetimes and its default route by the router's advertisements.
 */
import { formatAddress, formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { AcquiredIPv6, IPv6Client } from '../lan/dhcp/ipv6client.ts';
import type { Log } from '../log.ts';
import { type InterfaceAddress, type Network, type TenancyIPv6, segmentOf } from '../model.ts';
import type { CallLimit } from '../requests.ts';

/** What of the client is used here. */
export type IPv6Source = Pick<IPv6Client, 'acquire' | 'close'>;

/** What they are taken with. */
export interface IPv6AddressesParts {
  readonly source: IPv6Source;
  readonly log: Log;
  readonly now: () => Date;
}

/** Whose address it is to be. */
export interface IPv6Claim {
  readonly macAddress: string;
  /** What the MAC address had last; absent for nothing. */
  readonly last: TenancyIPv6 | undefined;
  readonly limit: CallLimit;
}

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
   * network. Else that throws ROUTER_SILENT, ROUTER_PREFIX, IPV6_USED.
   */
  async acquire({ macAddress, last, limit }: IPv6Claim, network: Network): Promise<TenancyIPv6 | null> {
    const method = network.options.ipv6;
    const segment = segmentOf(network);
    if (method === undefined || segment === null) return null;
    const { source, now } = this.#parts;
    const wish = addressIn(last) ?? null;
    const acquired = await source.acquire({ segment, macAddress, method, last: wish, limit });
    if (acquired.kind !== 'slaac') return this.#refuse(acquired, network, method === 'auto');
    this.#without.delete(network.id);
    const { address, router } = acquired;
    return {
      how: 'slaac',
      address: formatInterfaceAddress(address),
      server: formatAddress(router),
      obtainedAt: now().toISOString(),
    };
  }

  /** The network is gone. */
  forget(networkId: string): void {
    this.#without.delete(networkId);
  }

  /** Nobody is asked any more. */
  close(): void {
    this.#parts.source.close();
  }

  #refuse(acquired: Exclude<AcquiredIPv6, { kind: 'slaac' }>, network: Network, isTolerant: boolean): null {
    const refusal = refusalOf(acquired, network.parent.name);
    if (!isTolerant) throw refusal;
    if (this.#without.has(network.id)) return null;
    this.#without.add(network.id);
    const why = { network: errors.short(network.id), parent: network.parent.name, error: refusal.message };
    this.#parts.log.warn('containers start without an IPv6 address', why);
    return null;
  }
}

/** As a link has it; undefined for none. */
export function addressIn(ipv6: TenancyIPv6 | null | undefined): InterfaceAddress | undefined {
  return parseInterfaceAddress(ipv6?.address ?? '');
}

function refusalOf(acquired: Exclude<AcquiredIPv6, { kind: 'slaac' }>, parentName: string): errors.PluginError {
  switch (acquired.kind) {
    case 'silent':
      return errors.routerSilent(parentName, acquired.seconds);
    case 'prefixless':
      return errors.routerPrefix(parentName);
    case 'used':
      return errors.ipv6Used(formatAddress(acquired.address), acquired.holder.macAddress);
  }
}
