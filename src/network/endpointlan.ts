/** What the network room wants of the LAN for its endpoints, in the words of its records. */
import { formatAddress, parsePrefix } from '../address.ts';
import * as errors from '../errors.ts';
import type { Lan, LanEndpoint } from '../lan/lan.ts';
import { type Endpoint, type Network, segmentOf } from '../model.ts';
import type { EndpointRequest } from '../requests.ts';
import { subnetOf } from './request.ts';

/** What the room uses of it. */
export type LanOfEndpoints = Pick<EndpointLan, keyof EndpointLan>;

/** Endpoints of isolated networks are on no LAN: for those nothing is done. */
export class EndpointLan {
  readonly #lan: Lan;

  constructor(lan: Lan) {
    this.#lan = lan;
  }

  /**
   * What another IPAM chose, or a swarm's manager, nobody has asked for yet. Our own IPAM asked already; since then
   * somebody may have taken the address. Throws ADDRESS_HELD or ADDRESS_LOST, and what Lan.check() throws.
   */
  async refuseHeld(network: Network, { addresses }: EndpointRequest): Promise<void> {
    const segment = segmentOf(network);
    if (segment === null) return;
    for (const address of addresses) {
      const known = subnetOf(address, network.subnets);
      const subnet = known && parsePrefix(known.subnet);
      if (known === undefined || subnet === undefined) continue;
      const option = address.family === 'IPv4' ? '--ip' : '--ip6';
      if (known.realm === null) {
        const verdict = await this.#lan.check({ ...segment, address, subnet });
        if (verdict.held)
          throw errors.addressHeld(formatAddress(address), verdict.macAddress, verdict.linkName, option);
      } else {
        const taker = this.#lan.takerOf({ ...segment, address });
        if (taker !== null) throw errors.addressLost(formatAddress(address), taker, segment.parentName, option);
      }
    }
  }

  /** Watches over the endpoint's addresses until forget(). */
  watch(endpoint: Endpoint, network: Network): void {
    const there = onLan(endpoint, network);
    if (there !== null) this.#lan.watch(there);
  }

  /** The endpoint goes: its addresses are not watched over any more. */
  forget({ id }: Pick<Endpoint, 'id'>): void {
    this.#lan.forget(id);
  }

  /** See Lan.announce(). */
  async announce(endpoint: Endpoint, network: Network, signal: AbortSignal): Promise<void> {
    const there = onLan(endpoint, network);
    if (there !== null) await this.#lan.announce(there, signal);
  }

  /** See Lan.keepLeft(). */
  async keepLeft(endpoint: Endpoint, network: Network): Promise<void> {
    const there = onLan(endpoint, network);
    if (there !== null) await this.#lan.keepLeft(there);
  }

  /** The network is gone: nobody comes back for the addresses that its containers left. */
  endLeft({ parent, subnets }: Network): void {
    this.#lan.endLeft(
      parent.name,
      subnets.flatMap(({ subnet }) => parsePrefix(subnet) ?? []),
    );
  }

  /** Makes room for a child in passthru mode, which must be alone on its parent. */
  async vacate(parentName: string): Promise<void> {
    await this.#lan.vacate(parentName);
  }
}

function onLan({ id, macAddress, addresses }: Endpoint, network: Network): LanEndpoint | null {
  const segment = segmentOf(network);
  return segment && { ...segment, id, macAddress, addresses };
}
