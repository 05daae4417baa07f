/**
 * What MAC addresses have of the LAN's DHCP server (`-o source=dhcp`). A server knows its clients by their MAC addresses, so
 * these are chosen here and kept: by `--mac-address`, by `hostname=`, else that which a container without either had last.
 *
 * The record is made before the link and the endpoint's record, and outlives both. A crash between leaves a tenancy without
 * an endpoint, which the next start of the container takes.
 */
import { type Address, formatAddress, parseAddress, parseInterfaceAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import { type DhcpClient, refusalOf } from '../lan/dhcp/dhcpclient.ts';
import type { Log } from '../log.ts';
import {
  type Endpoint,
  type InterfaceAddress,
  type LeaseLoss,
  type Network,
  type Tenancy,
  type TenancyIPv6,
  segmentOf,
} from '../model.ts';
import type { CallLimit } from '../requests.ts';
import { type Store, tenancyKey } from '../store/store.ts';
import type { Endpoints } from './endpoints.ts';
import { type IPv6Addresses, addressIn, withIPv6 } from './ipv6.ts';
import { HOST_OWNER } from './host.ts';
import { type Claimant, type LeaseClaim, type MacClaim, MacClaims, tenanciesOf } from './macclaims.ts';
import {
  type LeasedRoutes,
  addressOf,
  bare,
  leaseIn,
  recordOf,
  routesOf,
  segmentIn,
  bareText,
} from './tenancyrecord.ts';
import type { Witness } from './witness.ts';

/** What of the DHCP client is used here. */
export type LeaseSource = Pick<
  DhcpClient,
  'acquire' | 'offer' | 'keep' | 'endKeeping' | 'release' | 'close' | 'timeout'
>;

/** What tenancies work with. */
export interface TenanciesParts {
  readonly store: Pick<Store, 'tenancies' | 'networks'>;
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly dhcp: LeaseSource;
  readonly ipv6: IPv6Addresses;
  readonly witness: Pick<Witness, 'isGone' | 'look' | 'present'>;
  readonly log: Log;
  readonly now: () => Date;
}

/** A MAC address that was made by chance is kept so long without use. */
const KEPT_MS = 30 * 86_400_000;
/** RFC 8200 5: a link with a smaller one has no IPv6. */
const LEAST_IPV6_MTU = 1280;
/** A call to create an endpoint needs so much beside the wait for a server. */
const BESIDE_MS = 2000;

/** The tenancies of this host. */
export class Tenancies {
  readonly #parts: TenanciesParts;
  readonly #claims: MacClaims;
  /** Servers that are being told; by key. */
  readonly #releasing = new Map<string, Promise<unknown>>();

  constructor(parts: TenanciesParts) {
    this.#parts = parts;
    this.#claims = new MacClaims(parts);
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
    request: Claimant,
    network: Network,
    parent: Link,
    act: (claim: MacClaim) => Promise<T>,
  ): Promise<T> {
    const claim = await this.#claims.claim(request, network, parent);
    const key = tenancyKey(claim);
    try {
      await this.#releasing.get(key);
      const made = await act(claim);
      if (request.addresses.length > 0) this.#claims.endWait(key);
      this.#claims.noteMade(claim, network.id);
      return made;
    } catch (error) {
      this.#claims.noteFailed(claim, network.id);
      await this.#change(key, { endpointId: claim.endpointId }, { state: 'aside', endpointId: null });
      this.#claims.end(claim);
      // A network that was removed meanwhile has left what this start had.
      if ((await this.#parts.store.networks.get(network.id)) === undefined) await this.endNetwork(network);
      throw error;
    } finally {
      this.#claims.end(claim);
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
    await this.#write(key, (known) => known && withIPv6(known, ipv6)).catch(async (error: unknown) => {
      await this.#parts.ipv6.release(network, { ...claim, ...(ipv6 !== null && { ipv6 }) });
      throw error;
    });
    return [address, addressIn(ipv6) ?? []].flat();
  }

  /** The address that the server gives; recorded when it is answered, and given back where it cannot be recorded. Throws DHCP_SILENT and the other refusals. */
  async lease(claim: LeaseClaim & Pick<MacClaim, 'isFresh'>, network: Network): Promise<InterfaceAddress> {
    const { store, dhcp, now } = this.#parts;
    const { parent, macAddress, owner, hostname, endpointId, limit } = claim;
    const known = await store.tenancies.get(tenancyKey(claim));
    const fresh = claim.isFresh && known && leaseIn(known);
    if (fresh !== undefined) {
      await this.#change(tenancyKey(claim), {}, { state: 'bound', endpointId });
      return addressOf(fresh.lease);
    }
    const last = known && leaseIn(known)?.lease.address;
    const wish = parseAddress(claim.wish ?? '') ?? null;
    const beganMs = performance.now();
    const waitedSince = (ms: number) => Math.min(dhcp.timeout, Math.round((performance.now() - ms) / 1000));
    const acquired = await dhcp.acquire({
      segment: segmentIn(network),
      macAddress,
      hostname,
      wish: wish ?? last ?? null,
      isStrict: wish !== null,
      holder: (address) => this.#claims.holderOf(address, claim),
      limit,
    });
    if (acquired.kind !== 'lease')
      throw refusalOf(acquired, { parentName: parent, seconds: waitedSince(beganMs), wish });
    const leased = recordOf({ lease: acquired.lease, obtainedMs: now().getTime() });
    const names = { parent, macAddress, networkId: network.id, owner, endpointId, hostname };
    await this.#write(tenancyKey(claim), () => ({
      ...names,
      ...leased,
      state: 'bound',
      changedAt: now().toISOString(),
    })).catch(async (error: unknown) => {
      await dhcp.release(segmentIn(network), { macAddress, hostname }, acquired.lease);
      throw error;
    });
    return addressOf(acquired.lease);
  }

  /** The lease waits for CreateEndpoint, which names only its address. */
  async putAside(claim: MacClaim, networkId: string, address: Address): Promise<void> {
    this.#claims.await(claim, networkId, address);
    await this.#change(tenancyKey(claim), {}, { state: 'aside', endpointId: null });
  }

  /** The engine has given an address of the network back. */
  returned(networkId: string, address: Address): void {
    this.#claims.returned(networkId, address);
  }

  /** A lease that is not wanted after all: the server may give it to others at once. */
  async giveBack(claim: MacClaim, network: Network): Promise<void> {
    const key = tenancyKey(claim);
    await this.#tellServer(network, key);
    const known = await this.#parts.store.tenancies.get(key);
    if (known !== undefined) await this.#parts.store.tenancies.remove(known);
  }

  /** Renews the lease from now on, until leave(). */
  async keep(endpoint: Endpoint, network: Network): Promise<void> {
    const tenancy = await this.#of(endpoint);
    if (tenancy !== undefined) this.#keep(endpoint.id, { ...tenancy, endpointId: endpoint.id }, network);
  }

  /** `id`: by which it is known until endKeeping(). */
  #keep(id: string, tenancy: Tenancy, network: Network): void {
    const dated = leaseIn(tenancy);
    const segment = segmentOf(network);
    if (dated === undefined || segment === null) return;
    const { macAddress, hostname, endpointId, address } = tenancy;
    const key = tenancyKey(tenancy);
    this.#parts.dhcp.keep(id, segment, { macAddress, hostname }, dated, {
      // A container keeps the prefix length that it started with, whatever its server says later.
      onKept: (kept) => void this.#change(key, { endpointId }, { ...recordOf(kept), address, state: 'bound' }),
      onLost: (loss) => this.#tellLost(tenancy, loss),
    });
    const change = (ipv6: TenancyIPv6) => void this.#change(key, { endpointId }, { ipv6 });
    this.#parts.ipv6.keep(id, network, tenancy, change);
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

  // --- the host's own end (`-o host_access=true`) -------------------------------------------------------------------

  /**
   * The address of the host's end on the parent of the network: that which it has, since networks share it, else one of the
   * server. `macAddress`: of its link, if that is there. Throws DHCP_SILENT and the other refusals.
   */
  async leaseForHost(network: Network, macAddress: string, limit: CallLimit): Promise<InterfaceAddress> {
    const parent = network.parent.name;
    const known = await this.#ofHost(parent);
    // A crash may have left one whose network never came to be.
    const isKept = known !== undefined && (await this.#parts.store.networks.get(known.networkId)) !== undefined;
    if (isKept) return parseInterfaceAddress(known.address) as InterfaceAddress;
    const claim = { parent, macAddress, owner: HOST_OWNER, hostname: null, wish: null, endpointId: null, limit };
    return this.lease(claim, network);
  }

  /** Renews it from now on. */
  async keepForHost(network: Network): Promise<void> {
    const tenancy = await this.#ofHost(network.parent.name);
    if (tenancy !== undefined) this.#keep(`${HOST_OWNER} ${tenancy.parent}`, tenancy, network);
  }

  async #ofHost(parent: string): Promise<Tenancy | undefined> {
    return (await this.#parts.store.tenancies.list(`${parent} `)).find(({ owner }) => owner === HOST_OWNER);
  }

  /** False when no other network has the host's end: then it is to be given back. */
  async #passOn(tenancy: Tenancy, networks: readonly Network[]): Promise<boolean> {
    const next = networks.find(
      ({ id, parent, hostAddresses }) =>
        id !== tenancy.networkId && parent.name === tenancy.parent && hostAddresses.includes(bareText(tenancy.address)),
    );
    if (next !== undefined) await this.#change(tenancyKey(tenancy), {}, { networkId: next.id });
    else this.#parts.dhcp.endKeeping(`${HOST_OWNER} ${tenancy.parent}`);
    return next !== undefined;
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
    const { tenancies, networks } = this.#parts.store;
    this.#claims.forget(network.id);
    for (const tenancy of await tenanciesOf(this.#parts.store, network)) {
      if (tenancy.owner === HOST_OWNER && (await this.#passOn(tenancy, await networks.list()))) continue;
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
      else if (tenancy.owner === HOST_OWNER) await this.keepForHost(network);
      else if (endpoint !== undefined && endpoint.state !== 'deleting') await this.keep(endpoint, network);
      else if (tenancy.state !== 'aside')
        await this.#change(tenancyKey(tenancy), {}, { state: 'aside', endpointId: null });
    }
  }

  /** MAC addresses that were made by chance, and that no container has had for a month. */
  async forgetUnused(): Promise<void> {
    const { tenancies } = this.#parts.store;
    for (const tenancy of await tenancies.list())
      if (this.#isStale(tenancy) && !this.#claims.has(tenancyKey(tenancy))) await tenancies.remove(tenancy);
  }

  /** Nothing is renewed any more. */
  async close(): Promise<void> {
    this.#parts.dhcp.close();
    this.#parts.ipv6.close();
    await Promise.all(this.#releasing.values());
  }

  // --- records ------------------------------------------------------------------------------------------------------

  #of({ parent, macAddress }: Endpoint): Promise<Tenancy | undefined> {
    return this.#parts.store.tenancies.get(tenancyKey({ parent, macAddress }));
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
        const { loss, ...kept } = known;
        const why = change.state === undefined && loss !== undefined ? { loss } : {};
        return { ...kept, ...why, ...change, changedAt: isNewState ? now().toISOString() : known.changedAt };
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

  #tellLost({ parent, macAddress, endpointId, address }: Tenancy, loss: LeaseLoss): void {
    this.#parts.log.error(
      loss === 'silent'
        ? 'the lease of a container is over and no DHCP server answers: it goes on with the address'
        : 'a DHCP server has taken the address of a container away: start the container again, it goes on with the address until then',
      { endpoint: endpointId === null ? 'this host' : errors.short(endpointId), address, parent },
    );
    void this.#change(tenancyKey({ parent, macAddress }), { endpointId }, { state: 'lost', loss });
  }

  /** Unless the lease is over, was given back before, or is another container's by now. */
  async #release(network: Network, key: string): Promise<void> {
    const tenancy = await this.#parts.store.tenancies.get(key);
    const holder = this.#parts.endpoints.get(tenancy?.endpointId ?? '');
    if (this.#claims.has(key) || (holder !== undefined && holder.state !== 'deleting')) return;
    await this.#tellServer(network, key);
  }

  async #tellServer(network: Network, key: string): Promise<void> {
    const { store, dhcp, log, now } = this.#parts;
    const tenancy = await store.tenancies.get(key);
    const dated = tenancy && leaseIn(tenancy);
    const segment = segmentOf(network);
    if (tenancy === undefined || dated === undefined || segment === null) return;
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
