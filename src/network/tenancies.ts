/**
 * What MAC addresses have of the LAN's DHCP server (`-o source=dhcp`). A server knows its clients by their MAC addresses, so
 * these are chosen here and kept: by `--mac-address`, by `hostname=`, else that which a container without either had last.
 *
 * The record is made before the link and the endpoint's record, and outlives both. A crash between leaves a tenancy without
 * an endpoint, which the next start of the container takes.
 */
import { type Address, formatAddress, parseAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import { type DhcpClient, refusalOf } from '../lan/dhcp/dhcpclient.ts';
import type { HeldVerdict } from '../lan/verdict.ts';
import type { Log } from '../log.ts';
import {
  type Endpoint,
  type InterfaceAddress,
  type Network,
  type Segment,
  type Tenancy,
  type TenancyIPv6,
  segmentOf,
} from '../model.ts';
import { MultiMap } from '../multimap.ts';
import type { CallLimit, EndpointRequest } from '../requests.ts';
import { type Store, tenancyKey } from '../store/store.ts';
import { describe } from './dead.ts';
import type { Endpoints } from './endpoints.ts';
import { type IPv6Addresses, addressIn, withIPv6 } from './ipv6.ts';
import { derivedMac, hostnameMac, readHostname, readMac, readWish } from './request.ts';
import { type LeasedRoutes, addressOf, bare, leaseIn, recordOf, routesOf } from './tenancyrecord.ts';
import type { Witness } from './witness.ts';

/** What of the DHCP client is used here. */
export type LeaseSource = Pick<DhcpClient, 'acquire' | 'keep' | 'endKeeping' | 'release' | 'close' | 'timeout'>;

/** What tenancies work with. */
export interface TenanciesParts {
  readonly store: Pick<Store, 'tenancies' | 'networks'>;
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly dhcp: LeaseSource;
  readonly ipv6: IPv6Addresses;
  readonly witness: Pick<Witness, 'isGone' | 'look'>;
  readonly log: Log;
  readonly now: () => Date;
}

/** A MAC address that one start has for itself, and how it asks for an address. */
export interface MacClaim extends Pick<Tenancy, 'parent' | 'macAddress' | 'owner' | 'hostname'> {
  readonly endpointId: string;
  /** No other address will do; null where any does. */
  readonly wish: string | null;
  /** Of the call that makes the endpoint. */
  readonly limit: CallLimit;
}

/** Containers of one host that share a `hostname=`. */
const MOST_ALIKE = 1024;
/** A MAC address that was made by chance is kept so long without use. */
const KEPT_MS = 30 * 86_400_000;
/** RFC 8200 5: a link with a smaller one has no IPv6. */
const LEAST_IPV6_MTU = 1280;
/** A call to create an endpoint needs so much beside the wait for a server. */
const BESIDE_MS = 2000;

/** The tenancies of this host. */
export class Tenancies {
  readonly #parts: TenanciesParts;
  /** By key: the endpoint whose start has the MAC address at this moment. */
  readonly #claimed = new Map<string, string>();
  /** MAC addresses of containers without a name whose starts failed, by network: a server may have a lease for each, or soon. */
  readonly #failed = new MultiMap<string, string>();
  /** Servers that are being told; by key. */
  readonly #releasing = new Map<string, Promise<unknown>>();

  constructor(parts: TenanciesParts) {
    this.#parts = parts;
  }

  /** How long a call that makes an endpoint of the network may take, in milliseconds; null as long as any. */
  async patienceMs(networkId: string): Promise<number | null> {
    const network = await this.#parts.store.networks.get(networkId);
    return network?.options.source === 'dhcp' ? this.#parts.dhcp.timeout * 1000 + BESIDE_MS : null;
  }

  // --- a start ------------------------------------------------------------------------------------------------------

  /**
   * A MAC address for the endpoint, that no other start gets until `act` has ended. Throws MAC_MALFORMED, MAC_TAKEN,
   * ENDPOINT_ADDRESS, ENDPOINT_HOSTNAME, DHCP_PASSTHRU, and what `act` throws.
   */
  async claimed<T>(
    request: EndpointRequest,
    network: Network,
    parent: Link,
    act: (claim: MacClaim) => Promise<T>,
  ): Promise<T> {
    const claim = await this.#claim(request, network, parent);
    const key = tenancyKey(claim);
    try {
      await this.#releasing.get(key);
      const made = await act(claim);
      this.#failed.delete(network.id, claim.macAddress);
      return made;
    } catch (error) {
      if (claim.owner === null) this.#failed.add(network.id, claim.macAddress);
      await this.#change(key, { endpointId: claim.endpointId }, { state: 'aside', endpointId: null });
      this.#claimed.delete(key);
      // A network that was removed meanwhile has left what this start had.
      if ((await this.#parts.store.networks.get(network.id)) === undefined) await this.endNetwork(network);
      throw error;
    } finally {
      this.#claimed.delete(key);
    }
  }

  /** What lease() gives, and the IPv6 address beside where the network wants one. Throws what both refuse. */
  async leases(claim: MacClaim, network: Network): Promise<InterfaceAddress[]> {
    if (network.options.ipv6 === undefined) return [await this.lease(claim, network)];
    const key = tenancyKey(claim);
    const last = (await this.#parts.store.tenancies.get(key))?.ipv6;
    const stop = new AbortController();
    const limit = { ...claim.limit, signal: AbortSignal.any([claim.limit.signal, stop.signal]) };
    const asking = this.#parts.ipv6.acquire({ ...claim, last, limit }, network);
    asking.catch(() => undefined);
    const address = await this.lease(claim, network).catch(async (error: unknown) => {
      stop.abort(error);
      // No record tells of it, so nobody would give it back later.
      const given = await asking.catch(() => null);
      if (given !== null && given.address !== last?.address)
        await this.#parts.ipv6.release(network, { ...claim, ipv6: given });
      throw error;
    });
    const ipv6 = await asking;
    await this.#write(key, (known) => known && withIPv6(known, ipv6));
    return [address, addressIn(ipv6) ?? []].flat();
  }

  /** The address that the server gives; recorded when it is answered. Throws DHCP_SILENT and the other refusals. */
  async lease(claim: MacClaim, network: Network): Promise<InterfaceAddress> {
    const { store, dhcp, now } = this.#parts;
    const { parent, macAddress, owner, hostname, endpointId, limit } = claim;
    const known = await store.tenancies.get(tenancyKey(claim));
    const last = known && leaseIn(known)?.lease.address;
    const wish = parseAddress(claim.wish ?? '') ?? null;
    const acquired = await dhcp.acquire({
      segment: segmentIn(network),
      macAddress,
      hostname,
      wish: wish ?? last ?? null,
      isStrict: wish !== null,
      holder: (address) => this.#holderOf(address, claim),
      limit,
    });
    if (acquired.kind !== 'lease') throw refusalOf(acquired, { parentName: parent, timeout: dhcp.timeout, wish });
    const leased = recordOf({ lease: acquired.lease, obtainedMs: now().getTime() });
    const names = { parent, macAddress, networkId: network.id, owner, endpointId, hostname };
    await this.#write(tenancyKey(claim), () => ({
      ...names,
      ...leased,
      state: 'bound',
      changedAt: now().toISOString(),
    }));
    return addressOf(acquired.lease);
  }

  /** Renews the lease from now on, until leave(). */
  async keep(endpoint: Endpoint, network: Network): Promise<void> {
    const tenancy = await this.#of(endpoint);
    const dated = tenancy && leaseIn(tenancy);
    const segment = segmentOf(network);
    if (tenancy === undefined || dated === undefined || segment === null) return;
    const { macAddress, hostname } = tenancy;
    const key = tenancyKey(tenancy);
    this.#parts.dhcp.keep(endpoint.id, segment, { macAddress, hostname }, dated, {
      // A container keeps the prefix length that it started with, whatever its server says later.
      onKept: (kept) =>
        void this.#change(
          key,
          { endpointId: endpoint.id },
          { ...recordOf(kept), address: tenancy.address, state: 'bound' },
        ),
      onLost: (loss) => this.#tellLost(endpoint, key, loss),
    });
    const change = (ipv6: TenancyIPv6) => void this.#change(key, { endpointId: endpoint.id }, { ipv6 });
    this.#parts.ipv6.keep(endpoint.id, network, tenancy, change);
  }

  /** The largest packet, where the server says one that the parent can carry. */
  async mtuFor(endpoint: Endpoint, parentMtu: number): Promise<number | null> {
    const mtu = (await this.#of(endpoint))?.mtu ?? null;
    const least = endpoint.addresses.some(({ family }) => family === 'IPv6') ? LEAST_IPV6_MTU : 0;
    return mtu !== null && mtu >= least && mtu <= parentMtu ? mtu : null;
  }

  /** Null for an endpoint without a lease. */
  async routesFor(endpoint: Endpoint, network: Network): Promise<LeasedRoutes | null> {
    const tenancy = network.options.source === 'dhcp' ? await this.#of(endpoint) : undefined;
    return tenancy === undefined ? null : routesOf(network, tenancy);
  }

  // --- its end ------------------------------------------------------------------------------------------------------

  /** The endpoint goes: its MAC address and its address are kept for the next start, and not renewed any more. */
  leave({ id, parent, macAddress }: Endpoint): void {
    this.#parts.dhcp.endKeeping(id);
    this.#parts.ipv6.endKeeping(id);
    const key = tenancyKey({ parent, macAddress });
    void this.#change(key, { endpointId: id }, { state: 'aside', endpointId: null });
  }

  /** Its link is down: with `-o release=stop` the server is told. Not before, since some servers look whether it is used still. */
  async left({ networkId, parent, macAddress }: Endpoint): Promise<void> {
    const network = await this.#parts.store.networks.get(networkId);
    if (network?.options.release === 'stop') await this.#release(network, tenancyKey({ parent, macAddress }));
  }

  /** The network goes: servers are told of what nobody uses any more, and nothing of it is remembered. */
  async endNetwork(network: Network): Promise<void> {
    const { tenancies } = this.#parts.store;
    for (const macAddress of this.#failed.get(network.id)) this.#failed.delete(network.id, macAddress);
    for (const tenancy of await this.#ofNetwork(network)) {
      await this.#release(network, tenancyKey(tenancy));
      const known = await tenancies.get(tenancyKey(tenancy));
      if (known !== undefined) await tenancies.remove(known);
    }
    this.#parts.ipv6.forget(network.id);
  }

  // --- start and stop of the daemon ---------------------------------------------------------------------------------

  /** What runs is renewed from now on; what has no container is put aside, and forgotten with its network. */
  async begin(): Promise<void> {
    const { store, endpoints } = this.#parts;
    const networks = new Map((await store.networks.list()).map((network) => [network.id, network]));
    for (const tenancy of await store.tenancies.list()) {
      const network = networks.get(tenancy.networkId);
      const endpoint = endpoints.get(tenancy.endpointId ?? '');
      if (network === undefined || this.#isStale(tenancy)) await store.tenancies.remove(tenancy);
      else if (endpoint !== undefined && endpoint.state !== 'deleting') await this.keep(endpoint, network);
      else if (tenancy.state !== 'aside')
        await this.#change(tenancyKey(tenancy), {}, { state: 'aside', endpointId: null });
    }
  }

  /** Nothing is renewed any more. */
  async close(): Promise<void> {
    this.#parts.dhcp.close();
    this.#parts.ipv6.close();
    await Promise.all(this.#releasing.values());
  }

  // --- which MAC address --------------------------------------------------------------------------------------------

  async #claim(request: EndpointRequest, network: Network, parent: Link): Promise<MacClaim> {
    const hostname = readHostname(request.hostname);
    const wish = readWish(request.wishedAddress);
    const base = { parent: parent.name, hostname, wish, endpointId: request.endpointId, limit: request.limit };
    if (network.options.mode === 'passthru')
      return this.#exclusive({
        ...base,
        macAddress: await this.#macOfParent(request, network, parent),
        owner: 'parent',
      });
    if (request.macAddress !== null)
      return this.#exclusive({ ...base, macAddress: readMac(request.macAddress), owner: 'mac' });
    if (hostname !== null) return this.#byHostname({ ...base, hostname }, network, parent);
    return this.#nameless(base, network);
  }

  async #macOfParent({ macAddress }: EndpointRequest, { options }: Network, parent: Link): Promise<string> {
    if (macAddress !== null && readMac(macAddress) !== parent.macAddress)
      throw errors.macFixedByParent(macAddress, parent.name, parent.macAddress);
    const isInTheWay = (address: string) =>
      address.includes(':') ? options.ipv6 !== undefined && !address.startsWith('fe80:') : true;
    const own = (await this.#parts.links.addresses(parent.index)).find(({ address }) => isInTheWay(address));
    if (own !== undefined) throw errors.dhcpParentAddress(parent.name, own.address);
    return parent.macAddress;
  }

  /** Throws MAC_TAKEN where another start has it at this moment. */
  #exclusive(claim: MacClaim): MacClaim {
    const key = tenancyKey(claim);
    const other = this.#claimed.get(key);
    if (other !== undefined) throw errors.macTaken(claim.macAddress, other, claim.parent);
    this.#claimed.set(key, claim.endpointId);
    return claim;
  }

  /** The first that no living container has, in the order in which those of a scaled service come. */
  async #byHostname(
    base: Omit<MacClaim, 'macAddress' | 'owner'> & { readonly hostname: string },
    { options }: Network,
    { macAddress: parentMac }: Link,
  ): Promise<MacClaim> {
    let macAddress = '';
    for (let count = 1; count <= MOST_ALIKE; count++) {
      const name = count === 1 ? base.hostname : `${base.hostname} ${count}`;
      macAddress = hostnameMac(options.macPrefix, parentMac, name);
      const claim = await this.#unlessUsed({ ...base, macAddress, owner: `host:${name}` });
      if (claim !== undefined) return claim;
    }
    throw errors.macTaken(macAddress, base.endpointId, base.parent);
  }

  /** Of those without a name the one that was put aside last, else one whose container died without a word or did not start, else a new one. */
  async #nameless(base: Omit<MacClaim, 'macAddress' | 'owner'>, network: Network): Promise<MacClaim> {
    const known = (await this.#ofNetwork(network)).filter(
      ({ owner, parent }) => owner === null && parent === base.parent,
    );
    const recent = known.toSorted((a, b) => b.changedAt.localeCompare(a.changedAt));
    const isAside = ({ endpointId }: Tenancy) => {
      const endpoint = this.#parts.endpoints.get(endpointId ?? '');
      return endpoint === undefined || endpoint.state === 'deleting';
    };
    const aside = await this.#firstUnused(base, recent.filter(isAside));
    // An engine that was killed tells nobody of the containers that went with it.
    const dead = aside ?? (await this.#firstUnused(base, recent));
    const failed = Array.from(this.#failed.get(network.id), (macAddress) => ({ macAddress }));
    const claim = dead ?? (await this.#firstUnused(base, failed));
    if (claim !== undefined) return claim;
    const macAddress = derivedMac(network.options.macPrefix, [], { networkId: network.id, count: 0 });
    return this.#exclusive({ ...base, macAddress, owner: null });
  }

  async #firstUnused(
    base: Omit<MacClaim, 'macAddress' | 'owner'>,
    known: readonly Pick<Tenancy, 'macAddress'>[],
  ): Promise<MacClaim | undefined> {
    for (const { macAddress } of known) {
      const claim = await this.#unlessUsed({ ...base, macAddress, owner: null });
      if (claim !== undefined) return claim;
    }
    return undefined;
  }

  /** Undefined where another start has it, or a container that is alive. */
  async #unlessUsed(claim: MacClaim): Promise<MacClaim | undefined> {
    const { parent, macAddress, endpointId, limit } = claim;
    const key = tenancyKey(claim);
    if (this.#claimed.has(key)) return undefined;
    // Before anything is awaited: of two that come at once the second sees the first.
    this.#claimed.set(key, endpointId);
    for (const other of this.#parts.endpoints.withMac(parent, macAddress)) {
      if (!(await this.#isAlive(other, limit))) continue;
      this.#claimed.delete(key);
      return undefined;
    }
    return claim;
  }

  /** A container that is seen is not waited for, and one whose namespace is ending is. */
  async #isAlive(endpoint: Endpoint, limit: CallLimit): Promise<boolean> {
    const { endpoints, witness } = this.#parts;
    if (endpoint.state === 'deleting') return false;
    if (!endpoints.isRecorded(endpoint)) return true;
    const seen = await witness.look(endpoint);
    return seen === 'present' || (seen === 'unsettled' && !(await witness.isGone(endpoint, limit)));
  }

  /** A container of a network with another IPAM that shares the parent; it may just be made. */
  async #holderOf(address: Address, { parent, macAddress, limit }: MacClaim): Promise<HeldVerdict | undefined> {
    for (const other of this.#parts.endpoints.withAddress(parent, address)) {
      if (other.macAddress === macAddress || !(await this.#isAlive(other, limit))) continue;
      return { held: true, macAddress: other.macAddress, linkName: parent, simultaneous: false, isOnHost: true };
    }
    return undefined;
  }

  // --- records ------------------------------------------------------------------------------------------------------

  #of({ parent, macAddress }: Endpoint): Promise<Tenancy | undefined> {
    return this.#parts.store.tenancies.get(tenancyKey({ parent, macAddress }));
  }

  async #ofNetwork({ id, parent }: Network): Promise<Tenancy[]> {
    const all = await this.#parts.store.tenancies.list(`${parent.name} `);
    return all.filter(({ networkId }) => networkId === id);
  }

  /** What `decide` makes of the record as it is, and again where somebody changed it meanwhile; undefined leaves it. Returns what was there. */
  async #write(key: string, decide: (known: Tenancy | undefined) => Tenancy | undefined): Promise<Tenancy | undefined> {
    const { tenancies } = this.#parts.store;
    for (;;) {
      const known = await tenancies.get(key);
      const next = decide(known);
      if (next === undefined) return undefined;
      if (known === undefined ? await tenancies.insert(next) : await tenancies.replace(known, next)) return known;
    }
  }

  /** Where it is still what `expected` says; what the store refuses is logged, since nobody waits for it. */
  async #change(key: string, expected: Partial<Tenancy>, change: Partial<Tenancy>): Promise<void> {
    const { log, now } = this.#parts;
    try {
      const before = await this.#write(key, (known) => {
        if (known === undefined || (expected.endpointId ?? known.endpointId) !== known.endpointId) return undefined;
        const isNewState = change.state !== undefined && change.state !== known.state;
        return { ...known, ...change, changedAt: isNewState ? now().toISOString() : known.changedAt };
      });
      if (before?.state === 'lost' && change.state === 'bound')
        log.info('a DHCP server gives a container its address again', {
          mac: before.macAddress,
          address: before.address,
        });
    } catch (error) {
      log.error('a lease of a DHCP server could not be recorded', { key, error: String(error) });
    }
  }

  #tellLost(endpoint: Endpoint, key: string, loss: 'silent' | 'refused'): void {
    this.#parts.log.error(
      loss === 'silent'
        ? 'the lease of a container is over and no DHCP server answers: it goes on with the address'
        : 'a DHCP server has taken the address of a container away: start the container again, it goes on with the address until then',
      { endpoint: describe(endpoint), parent: endpoint.parent },
    );
    void this.#change(key, { endpointId: endpoint.id }, { state: 'lost' });
  }

  /** Unless the lease is over, was given back before, or is another container's by now. */
  async #release(network: Network, key: string): Promise<void> {
    const { store, endpoints, dhcp, log, now } = this.#parts;
    const tenancy = await store.tenancies.get(key);
    const dated = tenancy && leaseIn(tenancy);
    const segment = segmentOf(network);
    if (tenancy === undefined || dated === undefined || segment === null || this.#claimed.has(key)) return;
    const holder = endpoints.get(tenancy.endpointId ?? '');
    if (holder !== undefined && holder.state !== 'deleting') return;
    const isOver = dated.obtainedMs + dated.lease.leaseSeconds * 1000 < now().getTime();
    const { macAddress, hostname } = tenancy;
    const releasing = Promise.all([
      isOver ? undefined : dhcp.release(segment, { macAddress, hostname }, dated.lease),
      this.#parts.ipv6.release(network, tenancy),
    ]);
    this.#releasing.set(key, releasing);
    const [, ipv6] = await releasing.finally(() => this.#releasing.delete(key));
    if (ipv6 !== undefined) await this.#change(key, {}, { ipv6 });
    if (isOver) return;
    log.info('an address is given back to its DHCP server', {
      mac: macAddress,
      address: formatAddress(bare(addressOf(dated.lease))),
      server: tenancy.server,
    });
    await this.#change(key, {}, { leaseSeconds: 0 });
  }

  #isStale({ owner, state, changedAt }: Tenancy): boolean {
    return owner === null && state === 'aside' && this.#parts.now().getTime() - Date.parse(changedAt) > KEPT_MS;
  }
}

/** A network with `-o source=dhcp` has a parent. */
function segmentIn(network: Network): Segment {
  const segment = segmentOf(network);
  if (segment === null) throw errors.optionNeedsParent('source');
  return segment;
}
