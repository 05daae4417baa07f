/**
 * Which MAC address a start has, where a DHCP server gives the address: one of the user's, one that follows from a name, else that
 * which a container without either had last. No two starts have the same at a moment.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { DhcpClient } from '../lan/dhcp/dhcpclient.ts';
import type { HeldVerdict } from '../lan/verdict.ts';
import type { Endpoint, InterfaceAddress, Network, Tenancy } from '../model.ts';
import { MultiMap } from '../multimap.ts';
import type { CallLimit, EndpointRequest } from '../requests.ts';
import { type Store, tenancyKey } from '../store/store.ts';
import type { Endpoints } from './endpoints.ts';
import { derivedMac, hostnameMac, readHostname, readMac, readWish } from './request.ts';
import { segmentIn, bareText } from './tenancyrecord.ts';
import type { Witness } from './witness.ts';

/** What claims are judged by. */
export interface MacClaimsParts {
  readonly store: Pick<Store, 'tenancies'>;
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly dhcp: Pick<DhcpClient, 'offer' | 'timeout'>;
  readonly witness: Pick<Witness, 'isGone' | 'look' | 'present'>;
}

/** How an address is asked for. */
export interface LeaseClaim extends Pick<Tenancy, 'parent' | 'macAddress' | 'owner' | 'hostname' | 'endpointId'> {
  /** No other address will do; null where any does. */
  readonly wish: string | null;
  /** Of the call that makes the endpoint. */
  readonly limit: CallLimit;
}

/** The same of a MAC address that one start has for itself. */
export interface MacClaim extends LeaseClaim {
  readonly endpointId: string;
  /** The lease was got for it a moment ago, and is not asked for again. */
  readonly isFresh?: true;
}

/** What tells which MAC address a start has. `name`: of the container, with its pool, where the engine says it with RequestAddress. */
export type Claimant = Pick<
  EndpointRequest,
  'endpointId' | 'macAddress' | 'hostname' | 'wishedAddress' | 'addresses' | 'limit'
> & { readonly name?: { readonly text: string; readonly hostname: string | null } };

/** A lease of RequestAddress, whose endpoint has not come yet. `sinceMs`: by performance.now(). */
interface AwaitedLease {
  readonly networkId: string;
  readonly address: string;
  readonly sinceMs: number;
}

/** CreateEndpoint follows RequestAddress at once. */
const AWAITED_MS = 60_000;
const MOST_AWAITED = 4096;
/** Containers of one host that share a `hostname=`. */
const MOST_ALIKE = 1024;

/** The tenancies of a network. */
export async function tenanciesOf(
  { tenancies }: Pick<Store, 'tenancies'>,
  { id, parent }: Network,
): Promise<Tenancy[]> {
  const all = await tenancies.list(`${parent.name} `);
  return all.filter(({ networkId }) => networkId === id);
}

/** The MAC addresses of starts that are under way. */
export class MacClaims {
  readonly #parts: MacClaimsParts;
  /** By key: the endpoint whose start has the MAC address at this moment. */
  readonly #claimed = new Map<string, string>();
  /** Leases of RequestAddress that wait for their endpoint; by key. */
  readonly #awaited = new LatestMap<string, AwaitedLease>(MOST_AWAITED);
  /** MAC addresses of containers without a name whose starts failed, by network: a server may have a lease for each, or soon. */
  readonly #failed = new MultiMap<string, string>();

  constructor(parts: MacClaimsParts) {
    this.#parts = parts;
  }

  /** A start has it at this moment; by key. */
  has(key: string): boolean {
    return this.#claimed.has(key);
  }

  /** The start is over. */
  end(claim: MacClaim): void {
    this.#claimed.delete(tenancyKey(claim));
  }

  /** The start has succeeded. */
  noteMade({ macAddress }: MacClaim, networkId: string): void {
    this.#failed.delete(networkId, macAddress);
  }

  /** The start has failed. */
  noteFailed({ owner, macAddress }: MacClaim, networkId: string): void {
    if (owner === null) this.#failed.add(networkId, macAddress);
  }

  /** The network goes. */
  forget(networkId: string): void {
    for (const macAddress of this.#failed.get(networkId)) this.#failed.delete(networkId, macAddress);
  }

  /** A container of a network with another IPAM that shares the parent; it may just be made. */
  async holderOf(
    address: Address,
    { parent, macAddress, limit }: Pick<LeaseClaim, 'parent' | 'macAddress' | 'limit'>,
  ): Promise<HeldVerdict | undefined> {
    for (const other of this.#parts.endpoints.withAddress(parent, address)) {
      if (other.macAddress === macAddress || !(await this.#isAlive(other, limit))) continue;
      return { held: true, macAddress: other.macAddress, linkName: parent, simultaneous: false, isOnHost: true };
    }
    return undefined;
  }

  /** Its lease waits for CreateEndpoint, which names only the address: for a minute, or until that came, no other start gets it. */
  await(claim: MacClaim, networkId: string, address: Address): void {
    const awaited = { networkId, address: formatAddress(address), sinceMs: performance.now() };
    this.#awaited.put(tenancyKey(claim), awaited);
  }

  /** CreateEndpoint came; by key. */
  endWait(key: string): void {
    this.#awaited.delete(key);
  }

  /** The engine has given an address of the network back: another LAN may have the same one. */
  returned(networkId: string, address: Address): void {
    const text = formatAddress(address);
    for (const [key, one] of this.#awaited)
      if (one.networkId === networkId && one.address === text) this.#awaited.delete(key);
  }

  #isAwaited(key: string): boolean {
    const one = this.#awaited.get(key);
    return one !== undefined && performance.now() - one.sinceMs < AWAITED_MS;
  }

  /**
   * A MAC address that no other start gets until end(). Throws MAC_MALFORMED, MAC_TAKEN, ENDPOINT_ADDRESS, ENDPOINT_HOSTNAME,
   * DHCP_PASSTHRU, DHCP_MAC_LATE.
   */
  async claim(request: Claimant, network: Network, parent: Link): Promise<MacClaim> {
    const hostname = readHostname(request.hostname);
    const [address] = request.addresses;
    const wish = address === undefined ? readWish(request.wishedAddress) : formatAddress(address);
    const base = { parent: parent.name, hostname, wish, endpointId: request.endpointId, limit: request.limit };
    if (network.options.mode === 'passthru')
      return this.#exclusive({
        ...base,
        macAddress: await this.#macOfParent(request, network, parent),
        owner: 'parent',
      });
    const macAddress = request.macAddress === null ? null : readMac(request.macAddress);
    if (address !== undefined) return this.#byAddress(base, address, macAddress, network);
    if (macAddress !== null) return this.#exclusive({ ...base, macAddress, owner: 'mac' });
    if (request.name !== undefined) {
      const { text, hostname: label } = request.name;
      return this.#byName({ ...base, hostname: label }, `name:${text}`, network, parent);
    }
    if (hostname !== null) return this.#byName(base, `host:${hostname}`, network, parent);
    return this.#nameless(base, network);
  }

  async #macOfParent({ macAddress }: Claimant, { options }: Network, parent: Link): Promise<string> {
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
  async #byName(
    base: Omit<MacClaim, 'macAddress' | 'owner'>,
    owner: string,
    { options }: Network,
    { macAddress: parentMac }: Link,
  ): Promise<MacClaim> {
    const name = owner.slice(owner.indexOf(':') + 1);
    let macAddress = '';
    for (let count = 1; count <= MOST_ALIKE; count++) {
      const suffix = count === 1 ? '' : ` ${count}`;
      macAddress = hostnameMac(options.macPrefix, parentMac, `${name}${suffix}`);
      const claim = await this.#unlessUsed({ ...base, macAddress, owner: `${owner}${suffix}` });
      if (claim !== undefined) return claim;
    }
    throw errors.macTaken(macAddress, base.endpointId, base.parent);
  }

  /**
   * An address that the engine names: it was got with RequestAddress, and comes with its MAC address; or the user has named it, who
   * gets that or none. Throws DHCP_MAC_LATE.
   */
  async #byAddress(
    base: Omit<MacClaim, 'macAddress' | 'owner'>,
    address: InterfaceAddress,
    macAddress: string | null,
    network: Network,
  ): Promise<MacClaim> {
    const all = (await tenanciesOf(this.#parts.store, network)).filter((one) => bareText(one.address) === base.wish);
    const awaited = all.find((one) => this.#isAwaited(tenancyKey(one)));
    if (awaited !== undefined) {
      if (macAddress !== null && macAddress !== awaited.macAddress) throw await this.#late(macAddress, base, network);
      const { owner, hostname } = awaited;
      return this.#exclusive({ ...base, macAddress: awaited.macAddress, owner, hostname, isFresh: true });
    }
    if (macAddress !== null) return this.#exclusive({ ...base, macAddress, owner: 'mac' });
    for (const { macAddress: before, owner, hostname } of all) {
      const claim = await this.#unlessUsed({ ...base, macAddress: before, owner, hostname: base.hostname ?? hostname });
      if (claim !== undefined) return claim;
    }
    const derived = derivedMac(network.options.macPrefix, [address], { networkId: network.id, count: 0 });
    return this.#exclusive({ ...base, macAddress: derived, owner: 'ip' });
  }

  /** Which address the server has for a MAC address that came too late. */
  async #late(macAddress: string, { limit }: Pick<MacClaim, 'limit'>, network: Network) {
    const offered = await this.#parts.dhcp.offer({ segment: segmentIn(network), macAddress, limit });
    const [server, address] = [offered.server.address, offered.address].map(formatAddress);
    return errors.dhcpMacLate(server ?? '', address ?? '', macAddress);
  }

  /** Of those without a name the one that was put aside last, else one whose container died without a word or did not start, else a new one. */
  async #nameless(base: Omit<MacClaim, 'macAddress' | 'owner'>, network: Network): Promise<MacClaim> {
    const known = (await tenanciesOf(this.#parts.store, network)).filter(
      ({ owner, parent }) => owner === null && parent === base.parent,
    );
    const recent = known.toSorted((a, b) => b.changedAt.localeCompare(a.changedAt));
    const isAside = ({ endpointId }: Tenancy) => {
      const endpoint = this.#parts.endpoints.get(endpointId ?? '');
      return endpoint === undefined || endpoint.state === 'deleting';
    };
    const aside = await this.#firstUnused(base, recent.filter(isAside));
    // An engine that was killed tells nobody of the containers that went with it.
    const dead = aside ?? (await this.#firstUnused(base, await this.#unseen(recent)));
    const failed = Array.from(this.#failed.get(network.id), (macAddress) => ({ macAddress }));
    const claim = dead ?? (await this.#firstUnused(base, failed));
    if (claim !== undefined) return claim;
    const macAddress = derivedMac(network.options.macPrefix, [], { networkId: network.id, count: 0 });
    return this.#exclusive({ ...base, macAddress, owner: null });
  }

  /** Those whose containers are not seen: all are looked for at once, since each look reads the links of the whole host. */
  async #unseen(some: readonly Tenancy[]): Promise<Tenancy[]> {
    const { endpoints, witness } = this.#parts;
    const present = await witness.present(some.flatMap(({ endpointId }) => endpoints.get(endpointId ?? '') ?? []));
    return some.filter(({ endpointId }) => !present.has(endpointId ?? ''));
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
    // A container that is asked for again has an engine that died before CreateEndpoint: names are an engine's own.
    const isAsked = this.#isAwaited(key) && !claim.owner?.startsWith('name:');
    if (this.#claimed.has(key) || isAsked) return undefined;
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
}
