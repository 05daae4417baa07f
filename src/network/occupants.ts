/**
 * Who is in the way of a new endpoint on its parent, and what is done about it: one that leaves is waited for, one whose
 * container is gone is removed, an address that the engine took back counts no longer, and a MAC address that nobody
 * chose gives way to another. Whoever is left is the reason for a refusal.
 */
import { type Address, formatAddress, isSameAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link } from '../kernel/link.ts';
import type { Log } from '../log.ts';
import type { Endpoint, Network, NetworkOptions } from '../model.ts';
import type { CallLimit } from '../requests.ts';
import type { Serial } from '../serial.ts';
import type { Store } from '../store/store.ts';
import { describe } from './dead.ts';
import type { Departures } from './departures.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { Endpoints } from './endpoints.ts';
import type { HostAccess } from './host.ts';
import { derivedMac } from './request.ts';
import { undo } from './undo.ts';
import type { Witness } from './witness.ts';

/** What it works with. */
export interface OccupantsParts {
  readonly networks: Store['networks'];
  readonly endpoints: Endpoints;
  readonly departures: Departures;
  readonly witness: Witness;
  readonly host: HostAccess;
  readonly lan: LanOfEndpoints;
  readonly serial: Serial;
  readonly log: Log;
}

/** So many MAC addresses are derived for one endpoint; that all of them are in use never happens by chance. */
const MOST_MACS = 16;

/** The other endpoints of a parent, as far as they keep a new one off it. */
export class Occupants {
  readonly #parts: OccupantsParts;

  constructor(parts: OccupantsParts) {
    this.#parts = parts;
  }

  /**
   * Resolves when nobody is in the endpoint's way who need not be: what leaves is down, what is stale is removed. Who is
   * left is alive, as far as the kernel can tell before the limit.
   */
  async makeWay(endpoint: Endpoint, options: NetworkOptions, isMacChosen: boolean, limit: CallLimit): Promise<void> {
    const { endpoints } = this.#parts;
    for (const other of this.#inTheWay(endpoint, options)) {
      if (other.state === 'deleting' || !endpoints.isRecorded(other)) continue;
      // Nothing is waited for where another MAC address does as well.
      const isNeeded = isMacChosen || options.mode === 'passthru' || sharedAddresses(other, endpoint).length > 0;
      await this.#question(other, endpoint, isNeeded ? limit : null);
    }
    await this.awaitDepartures(endpoint, options);
  }

  /** Whether a container of the network is alive; the endpoints of those that are gone are removed. */
  async isInUse(networkId: string): Promise<boolean> {
    const { endpoints, departures, witness, serial } = this.#parts;
    for (const endpoint of endpoints.ofNetwork(networkId)) {
      if (await witness.isGone(endpoint, null)) await serial.run(endpoint.id, () => this.#remove(endpoint));
      const known = endpoints.get(endpoint.id);
      if (known?.state === 'deleting') await departures.untilDone(known);
    }
    return endpoints.ofNetwork(networkId).length > 0;
  }

  /**
   * A link with this MAC may still be leaving: until it is down the kernel refuses the new one when that comes up
   * (EADDRINUSE). Who wants the parent for itself waits until it is gone.
   */
  async awaitDepartures(endpoint: Endpoint, options: NetworkOptions): Promise<void> {
    const { departures } = this.#parts;
    for (const other of this.#inTheWay(endpoint, options)) {
      if (other.state !== 'deleting') continue;
      if (!departures.has(other)) departures.beginRemoval(other);
      await (options.mode === 'passthru' ? departures.untilDone(other) : departures.untilDown(other));
    }
  }

  /**
   * The endpoint as it may be made, with a MAC address that is free when it may be chosen here. Synchronous, so that of two
   * that come at once the second sees the first. Throws PASSTHRU_OCCUPIED, ADDRESS_TAKEN, MAC_TAKEN, MAC_OF_PARENT.
   */
  admit(endpoint: Endpoint, { options }: Network, parent: Link, isMacChosen: boolean): Endpoint {
    const others = this.#inTheWay(endpoint, options);
    if (options.mode === 'passthru') {
      if (others[0] !== undefined) throw errors.passthruOccupied(endpoint.parent, others[0].id);
      return endpoint;
    }
    for (const other of others) {
      const [address] = sharedAddresses(other, endpoint);
      if (address !== undefined) throw errors.addressTaken(formatAddress(address), other.id, endpoint.parent);
    }
    if (isMacChosen && others[0] !== undefined)
      throw errors.macTaken(endpoint.macAddress, others[0].id, endpoint.parent);
    if (isMacChosen && endpoint.macAddress === parent.macAddress)
      throw errors.macOfParent(endpoint.macAddress, parent.name);
    return isMacChosen ? endpoint : this.#withFreeMac(endpoint, options, parent);
  }

  /** The first in the order in which they are derived, so that a container that starts again has the same again. */
  #withFreeMac(endpoint: Endpoint, options: NetworkOptions, parent: Link): Endpoint {
    let holder: Endpoint | undefined;
    const { networkId } = endpoint;
    for (let count = -1; count < MOST_MACS; count++) {
      // Its own comes first: it is derived too, or that which its name had last.
      const macAddress =
        count < 0 ? endpoint.macAddress : derivedMac(options.macPrefix, endpoint.addresses, { networkId, count });
      const [other] = this.#inTheWay({ ...endpoint, macAddress, addresses: [] }, options);
      // The kernel refuses the parent's own too (macvlan_addr_busy, drivers/net/macvlan.c).
      if (other === undefined && macAddress !== parent.macAddress) return { ...endpoint, macAddress };
      holder ??= other;
    }
    throw errors.macTaken(endpoint.macAddress, holder?.id ?? endpoint.id, endpoint.parent);
  }

  /** Who keeps this endpoint off its parent: anybody in mode passthru, else who is like it and not down already. */
  #inTheWay(endpoint: Endpoint, { mode }: NetworkOptions): Endpoint[] {
    const { endpoints, departures } = this.#parts;
    if (mode === 'passthru') return endpoints.besides(endpoint);
    return endpoints.alike(endpoint).filter((other) => !departures.isDown(other));
  }

  /** The kernel is asked whether what the record says is still so. */
  async #question(other: Endpoint, wanted: Endpoint, limit: CallLimit | null): Promise<void> {
    const { witness, serial } = this.#parts;
    const released: Address[] = [];
    for (const address of sharedAddresses(other, wanted))
      if (other.state === 'joined' && !(await witness.hasAddress(other, address))) released.push(address);
    if (released.length > 0) await serial.run(other.id, () => this.withdraw(other.id, released));
    else if (await witness.isGone(other, limit)) await serial.run(other.id, () => this.#remove(other));
  }

  /**
   * Unless its record or its link has moved on since it was looked at. Its leases stay tied to what is no endpoint any more:
   * by that the IPAM knows that they are free.
   */
  async #remove(endpoint: Endpoint): Promise<void> {
    const { endpoints, departures, log } = this.#parts;
    if (endpoints.get(endpoint.id) !== endpoint || endpoint.state === 'deleting') return;
    if (!(await departures.removeDead(endpoint))) return;
    log.warn('removing an endpoint whose container is gone, since another one starts in its place', {
      endpoint: describe(endpoint),
    });
  }

  /**
   * Engine 29 takes an IPv6 address back right after Join when the interface has IPv6 disabled by a sysctl of the endpoint,
   * and gives it to the next container; a driver without IPAM is not told. One call at a time for each endpoint.
   */
  async withdraw(endpointId: string, released: readonly Address[]): Promise<void> {
    const { endpoints, networks, host, lan, log } = this.#parts;
    const endpoint = endpoints.get(endpointId);
    if (endpoint?.state !== 'joined') return;
    const isReleased = (address: Address) => released.some((one) => isSameAddress(one, address));
    const kept = endpoint.addresses.filter((address) => !isReleased(address));
    const network = await networks.get(endpoint.networkId);
    log.info('a container does not have an address that its engine gives to another one', {
      endpoint: describe(endpoint),
      address: released.map(formatAddress).join(' '),
    });
    const next = await endpoints.change(endpoint, { addresses: kept });
    if (network === undefined) return;
    lan.forget(next);
    lan.watch(next, network);
    const gone = { ...endpoint, addresses: endpoint.addresses.filter(isReleased) };
    await undo(log, 'host routes', () => host.deleteRoutes(network, gone));
  }
}

function sharedAddresses(one: Endpoint, other: Endpoint): Address[] {
  return other.addresses.filter((address) => one.addresses.some((own) => isSameAddress(own, address)));
}
