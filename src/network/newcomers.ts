/** What a new endpoint is to be, before anything of it is made: its MAC address and its addresses. */
import * as errors from '../errors.ts';
import type { Link } from '../kernel/link.ts';
import { endpointLinkName } from '../linknames.ts';
import type { Endpoint, Network } from '../model.ts';
import type { CallLimit, EndpointRequest } from '../requests.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { MacClaim } from './macclaims.ts';
import type { Occupants } from './occupants.ts';
import { derivedMac } from './request.ts';
import type { Tenancies } from './tenancies.ts';
import type { Ties } from './ties.ts';

/** What newcomers are told by. */
export interface NewcomersParts {
  readonly ties: Ties;
  readonly tenancies: Tenancies;
  readonly occupants: Occupants;
  readonly lan: Pick<LanOfEndpoints, 'check'>;
  readonly now: () => Date;
}

/** An endpoint that Occupants.admit() judges next. `isMacChosen`: no other MAC address will do. */
export interface Newcomer {
  readonly wanted: Endpoint;
  readonly isMacChosen: boolean;
}

/** Of published ports so many are recorded: what one is enough for can be a range of thousands. */
const MOST_PORTS = 8;

/** Endpoints to come. */
export class Newcomers {
  readonly #parts: NewcomersParts;

  constructor(parts: NewcomersParts) {
    this.#parts = parts;
  }

  /**
   * Waits for who is in the way and can be waited for, and asks the LAN, or its DHCP server, for the addresses. `claim`: what
   * the network's tenancies give; null where an IPAM gives addresses. Throws what refuses such an endpoint.
   */
  async expect(request: EndpointRequest, network: Network, parent: Link, claim: MacClaim | null): Promise<Newcomer> {
    const { ties, occupants, lan } = this.#parts;
    const { limit } = request;
    const isMacChosen = claim !== null || request.macAddress !== null;
    const macAddress = claim?.macAddress ?? (await this.#chooseMac(request, network, parent));
    const first = this.#describe(request, network, parent, macAddress);
    await ties.assureLeases(network, first);
    await occupants.makeWay(first, network.options, isMacChosen, limit);
    const wanted = claim === null ? first : await this.#lease(first, network, parent, claim, limit);
    await lan.check(network, wanted, limit);
    // Others may have begun to leave meanwhile.
    await occupants.awaitDepartures(wanted, network.options);
    return { wanted, isMacChosen };
  }

  /** Nothing is sent for a MAC address that is in use. */
  async #lease(first: Endpoint, network: Network, parent: Link, claim: MacClaim, limit: CallLimit): Promise<Endpoint> {
    const { occupants, tenancies } = this.#parts;
    occupants.admit(first, network, parent, true);
    const given = await tenancies.leases(claim, network);
    // What the engine names has the prefix length that it knows.
    const beside = given.filter(({ family }) => !first.addresses.some((one) => one.family === family));
    const leased = { ...first, addresses: [...first.addresses, ...beside] };
    await occupants.makeWay(leased, network.options, true, limit);
    return leased;
  }

  #describe(request: EndpointRequest, network: Network, parent: Link, macAddress: string): Endpoint {
    return {
      id: request.endpointId,
      networkId: network.id,
      state: 'created',
      parent: parent.name,
      linkName: endpointLinkName(request.endpointId),
      macAddress,
      addresses: request.addresses,
      interfaceName: request.interfaceName,
      ...(request.publishedPorts.length > 0 && { ignoredPorts: request.publishedPorts.slice(0, MOST_PORTS) }),
      changedAt: this.#parts.now().toISOString(),
    };
  }

  async #chooseMac(request: EndpointRequest, network: Network, parent: Link): Promise<string> {
    const { options } = network;
    if (options.mode !== 'passthru') {
      const { networkId, addresses } = request;
      if (request.macAddress !== null) return request.macAddress;
      const last = await this.#parts.ties.rememberedMac(network, addresses);
      if (last?.startsWith(options.macPrefix) === true) return last;
      return derivedMac(options.macPrefix, addresses, { networkId, count: 0 });
    }
    if (request.macAddress !== null && request.macAddress !== parent.macAddress)
      throw errors.macFixedByParent(request.macAddress, parent.name, parent.macAddress);
    return parent.macAddress;
  }
}
