/**
 * Which link is an endpoint's. What a container has it may change, with CAP_NET_ADMIN also its link's alias, name and MAC
 * address (router images and networkd write aliases of their own); the parent it cannot change, nor the name under which the
 * engine brings the link back. So our alias is believed on the endpoint's parent only; without it a link here is known by its
 * name and parent, and one elsewhere by its MAC address and parent.
 */
import type { Link, Links } from '../kernel/link.ts';
import type { ForeignLink } from '../kernel/namespaces.ts';
import { endpointAlias, endpointOfAlias } from '../linknames.ts';
import type { Endpoint } from '../model.ts';

/** Whether a link of this namespace is the endpoint's. Undefined `parentIndex`: its parent is not to be found. */
function isItsHere(link: Link, endpoint: Endpoint, parentIndex: number | undefined): boolean {
  if (hasItsAlias(link, endpoint, parentIndex)) return true;
  return link.kind === 'macvlan' && link.name === endpoint.linkName && link.parentIndex === parentIndex;
}

/** Whether a link of another namespace is the endpoint's. Undefined `parentIndex`: its parent is not to be found. */
export function isItsElsewhere(link: Link, endpoint: Endpoint, parentIndex: number | undefined): boolean {
  if (hasItsAlias(link, endpoint, parentIndex)) return true;
  const isUnmarked = endpointOfAlias(link.alias) === null;
  const isLikeIt = link.macAddress === endpoint.macAddress && link.parentIndex === parentIndex;
  return link.kind === 'macvlan' && isUnmarked && isLikeIt;
}

function hasItsAlias(link: Link, { id }: Endpoint, parentIndex: number | undefined): boolean {
  return link.alias === endpointAlias(id) && (parentIndex === undefined || link.parentIndex === parentIndex);
}

/** The links of some endpoints, looked for at one moment. */
export class LinksOfEndpoints {
  readonly #links: Links;
  /** By name; without those that are not there. */
  readonly #parents: ReadonlyMap<string, number>;

  private constructor(links: Links, parents: ReadonlyMap<string, number>) {
    this.#links = links;
    this.#parents = parents;
  }

  /** Asks the kernel for the parents, and for nothing else yet. */
  static async of(links: Links, endpoints: readonly Endpoint[]): Promise<LinksOfEndpoints> {
    const parents = new Map<string, number>();
    for (const name of new Set(endpoints.map(({ parent }) => parent))) {
      const link = await links.byName(name);
      if (link !== undefined) parents.set(name, link.index);
    }
    return new LinksOfEndpoints(links, parents);
  }

  /** Those of this namespace. */
  async here(): Promise<(endpoint: Endpoint) => Link | undefined> {
    const byMark = new Map<string | null, Link>();
    for (const link of await this.#links.list(({ kind }) => kind === 'macvlan')) {
      byMark.set(link.alias, link);
      byMark.set(link.name, link);
    }
    return (endpoint) =>
      [byMark.get(endpointAlias(endpoint.id)), byMark.get(endpoint.linkName)].find(
        (link) => link !== undefined && isItsHere(link, endpoint, this.#parents.get(endpoint.parent)),
      );
  }

  /** Those of all other namespaces that can be read. */
  async elsewhere(): Promise<(endpoint: Endpoint) => ForeignLink | undefined> {
    const indexes = new Set<number | null>(this.#parents.values());
    const isOne = ({ kind, alias, parentIndex }: Link) =>
      kind === 'macvlan' && (endpointOfAlias(alias) !== null || indexes.has(parentIndex));
    const { table } = this.#links;
    const all = (await table.linksElsewhere(isOne)) ?? [];
    const isMarked = ({ alias }: Link) => endpointOfAlias(alias) !== null;
    // Who has CAP_NET_ADMIN in any container may make links of any index and MAC address there, but none on our parents.
    const unmarked = await table.withParentsHere(all.filter((link) => !isMarked(link)));
    const byMark = new Map<string | null, ForeignLink>([
      ...all.filter(isMarked).map((link): [string | null, ForeignLink] => [link.alias, link]),
      ...unmarked.map((link): [string, ForeignLink] => [`${link.parentIndex} ${link.macAddress}`, link]),
    ]);
    return (endpoint) => {
      const parentIndex = this.#parents.get(endpoint.parent);
      const marks = [endpointAlias(endpoint.id), `${parentIndex} ${endpoint.macAddress}`];
      const found = marks.map((mark) => byMark.get(mark));
      return found.find((link) => link !== undefined && isItsElsewhere(link, endpoint, parentIndex));
    };
  }
}

/** The endpoint's link in this namespace. */
export async function linkHere(links: Links, endpoint: Endpoint): Promise<Link | undefined> {
  return (await (await LinksOfEndpoints.of(links, [endpoint])).here())(endpoint);
}

/** The endpoint's link in another namespace, as far as those can be read. */
export async function linkElsewhere(links: Links, endpoint: Endpoint): Promise<ForeignLink | undefined> {
  return (await (await LinksOfEndpoints.of(links, [endpoint])).elsewhere())(endpoint);
}
