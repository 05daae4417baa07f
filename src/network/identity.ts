/**
 * Which link is an endpoint's. What a container has it may change, with CAP_NET_ADMIN also its link's alias, name and MAC
 * address (router images and networkd write aliases of their own); the parent it cannot change, nor the name under which the
 * engine brings the link back. So a link here is known by that name, and one elsewhere by what it has of its endpoint's alias,
 * MAC address and addresses, all of it on the endpoint's parent only. One of them is enough to keep what the endpoint has from others,
 * unless the link is certainly another's; before it is deleted it has to be certain, since each alone may have been written by the
 * container of another endpoint.
 */
import { formatAddress } from '../address.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { ForeignLink } from '../kernel/namespaces.ts';
import { endpointAlias, endpointOfAlias, isEndpointLinkName } from '../linknames.ts';
import type { Endpoint } from '../model.ts';
import { MultiMap } from '../multimap.ts';

/** A macvlan of another namespace, with what tells whose it is. */
interface Candidate {
  readonly link: ForeignLink;
  /** Whether its parent is of this namespace: another's may have the same index. */
  readonly isOnOurs: boolean;
  /** Without prefix lengths. */
  readonly addresses: ReadonlySet<string>;
}

/** How much a link elsewhere is like an endpoint's: 0 not at all, 1 it may be its, 2 it is. */
type Likeness = 0 | 1 | 2;

/** The endpoint of an id, if it is recorded. */
export type FindEndpoint = (endpointId: string) => Endpoint | undefined;

function likenessOf(candidate: Candidate, endpoint: Endpoint, parentIndex: number | undefined): Likeness {
  const { link, isOnOurs } = candidate;
  const hasAlias = link.alias === endpointAlias(endpoint.id);
  // Where its parent was renamed, or is gone with it, its alias has to do.
  if (parentIndex === undefined ? !hasAlias : !isOnOurs || link.parentIndex !== parentIndex) return 0;
  const hasMac = link.macAddress === endpoint.macAddress;
  const isUnmarked = endpointOfAlias(link.alias) === null;
  if (hasAlias ? hasMac || hasAddressOf(candidate, endpoint) : isUnmarked && hasMac) return 2;
  return hasAlias || hasMac || hasAddressOf(candidate, endpoint) ? 1 : 0;
}

function hasAddressOf({ addresses }: Candidate, endpoint: Endpoint): boolean {
  return endpoint.addresses.some((address) => addresses.has(formatAddress(address)));
}

/** The links of some endpoints, looked for at one moment. */
export class LinksOfEndpoints {
  readonly #links: Links;
  /** By name; without those that are not there. */
  readonly #parents: ReadonlyMap<string, number>;
  readonly #recorded: FindEndpoint;

  private constructor(links: Links, parents: ReadonlyMap<string, number>, recorded: FindEndpoint) {
    this.#links = links;
    this.#parents = parents;
    this.#recorded = recorded;
  }

  /** Asks the kernel for the parents, and for nothing else yet. `recorded`: what is certainly another endpoint's is not one of these. */
  static async of(links: Links, endpoints: readonly Endpoint[], recorded: FindEndpoint): Promise<LinksOfEndpoints> {
    const parents = new Map<string, number>();
    for (const name of new Set(endpoints.map(({ parent }) => parent))) {
      const link = await links.byName(name);
      if (link !== undefined) parents.set(name, link.index);
    }
    return new LinksOfEndpoints(links, parents, recorded);
  }

  /** Those of this namespace. */
  async here(): Promise<(endpoint: Endpoint) => Link | undefined> {
    const all = await this.#links.list(
      ({ kind, parentNamespaceId }) => kind === 'macvlan' && parentNamespaceId === null,
    );
    const byName = new Map(all.map((link) => [link.name, link]));
    // What an engine has brought back has the name of its endpoint, whatever its alias says.
    const others = all.filter(({ name }) => !isEndpointLinkName(name));
    const byAlias = new Map(others.map((link) => [link.alias, link]));
    return (endpoint) => {
      const parentIndex = this.#parents.get(endpoint.parent);
      const [named, marked] = [byName.get(endpoint.linkName), byAlias.get(endpointAlias(endpoint.id))];
      // Its parent was renamed: then only both together tell.
      if (parentIndex === undefined) return named?.alias === endpointAlias(endpoint.id) ? named : marked;
      return [named, marked].find((link) => link?.parentIndex === parentIndex);
    };
  }

  /** Those of all other namespaces that can be read. `least`: how like its endpoint one has to be. */
  async elsewhere(least: 1 | 2 = 1): Promise<(endpoint: Endpoint) => ForeignLink | undefined> {
    const bySign = new MultiMap<string, Candidate>();
    for (const candidate of await this.#candidates()) {
      const { alias, macAddress, parentIndex } = candidate.link;
      const signs = [macAddress, ...candidate.addresses].map((sign) => `${parentIndex} ${sign}`);
      for (const sign of [alias ?? '', ...signs]) bySign.add(sign, candidate);
    }
    return (endpoint) => {
      const parentIndex = this.#parents.get(endpoint.parent);
      const signs = [endpoint.macAddress, ...endpoint.addresses.map(formatAddress)];
      const some = [endpointAlias(endpoint.id), ...signs.map((sign) => `${parentIndex} ${sign}`)];
      const like = some.flatMap((sign) => [...bySign.get(sign)]).filter((one) => !this.#isAnothers(one, endpoint));
      const isSure = (one: Candidate) => likenessOf(one, endpoint, parentIndex) === 2;
      const isPossible = (one: Candidate) => least === 1 && likenessOf(one, endpoint, parentIndex) === 1;
      return (like.find(isSure) ?? like.find(isPossible))?.link;
    };
  }

  /** It has the alias of another one, and what that has. */
  #isAnothers(candidate: Candidate, { id, parent }: Endpoint): boolean {
    const otherId = endpointOfAlias(candidate.link.alias);
    const other = otherId === null || otherId === id ? undefined : this.#recorded(otherId);
    return other?.parent === parent && likenessOf(candidate, other, this.#parents.get(parent)) === 2;
  }

  async #candidates(): Promise<Candidate[]> {
    const { table } = this.#links;
    const indexes = new Set<number | null>(this.#parents.values());
    const isOne = ({ kind, alias, parentIndex }: Link) =>
      kind === 'macvlan' && (endpointOfAlias(alias) !== null || indexes.has(parentIndex));
    const all = (await table.linksElsewhere(isOne)) ?? [];
    const onOurs = new Set(await table.withParentsHere(all));
    const addresses = new MultiMap<string, string>();
    for (const namespaceId of new Set(all.map((link) => link.namespaceId)))
      for (const { linkIndex, address } of table.contentsOf(namespaceId)?.addresses ?? [])
        addresses.add(`${namespaceId} ${linkIndex}`, address);
    return all.map((link) => {
      const own = addresses.get(`${link.namespaceId} ${link.index}`);
      return { link, isOnOurs: onOurs.has(link), addresses: new Set(own) };
    });
  }
}

/** The endpoint's link in this namespace. */
export async function linkHere(links: Links, endpoint: Endpoint): Promise<Link | undefined> {
  return (await (await LinksOfEndpoints.of(links, [endpoint], () => undefined)).here())(endpoint);
}

/** What may be the endpoint's link in another namespace, as far as those can be read, and is not certainly another's. */
export async function linkElsewhere(
  links: Links,
  endpoint: Endpoint,
  recorded: FindEndpoint,
): Promise<ForeignLink | undefined> {
  return (await (await LinksOfEndpoints.of(links, [endpoint], recorded)).elsewhere())(endpoint);
}

/** As linkElsewhere(), but only what is certainly its own. */
export async function sureLinkElsewhere(
  links: Links,
  endpoint: Endpoint,
  recorded: FindEndpoint,
): Promise<ForeignLink | undefined> {
  return (await (await LinksOfEndpoints.of(links, [endpoint], recorded)).elsewhere(2))(endpoint);
}
