/** How an endpoint ends: its link is brought down, then deleted, and its record goes last. */
import type { Link, Links } from '../kernel/link.ts';
import { endpointAlias } from '../linknames.ts';
import type { Log } from '../log.ts';
import type { Endpoint } from '../model.ts';
import type { Store } from '../store/store.ts';
import type { Announcements } from './announcements.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { Endpoints } from './endpoints.ts';
import type { HostAccess } from './host.ts';
import type { Tenancies } from './tenancies.ts';
import { linkElsewhere, linkHere, sureLinkElsewhere } from './identity.ts';

/** A sub-interface on its way out. */
interface Departure {
  /** It is down, hence in nobody's way: its MAC address is free on the parent (macvlan_stop, drivers/net/macvlan.c). */
  isDown: boolean;
  /** When it is down, or cannot be brought down. */
  down: Promise<void>;
  /** When it and its record are gone, or the kernel has refused. */
  done: Promise<void>;
}

/** What departures work with. */
export interface DeparturesParts {
  readonly networks: Store['networks'];
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly host: HostAccess;
  readonly lan: LanOfEndpoints;
  readonly announcements: Announcements;
  readonly tenancies: Pick<Tenancies, 'leave' | 'left'>;
  readonly log: Log;
}

/** The deletions that the kernel has not finished. */
export class Departures {
  readonly #parts: DeparturesParts;
  /** By endpoint id. */
  readonly #leaving = new Map<string, Departure>();

  constructor(parts: DeparturesParts) {
    this.#parts = parts;
  }

  /** The link of this endpoint is being removed. */
  has({ id }: Endpoint): boolean {
    return this.#leaving.has(id);
  }

  /** Its link is down already, so that neither its MAC address nor its addresses are in anybody's way. */
  isDown({ id }: Endpoint): boolean {
    return this.#leaving.get(id)?.isDown === true;
  }

  /** Resolves when the endpoint's link is down, or cannot be brought down; at once when it is not leaving. */
  async untilDown({ id }: Endpoint): Promise<void> {
    await this.#leaving.get(id)?.down;
  }

  /** Resolves when the endpoint is gone, or the kernel has refused to delete its link; at once when it is not leaving. */
  async untilDone({ id }: Endpoint): Promise<void> {
    await this.#leaving.get(id)?.done;
  }

  /** Resolves when every removal that was begun has ended. */
  async untilAllDone(): Promise<void> {
    await Promise.all(Array.from(this.#leaving.values(), ({ done }) => done));
  }

  /**
   * Ends an endpoint of which no DeleteEndpoint told, because it looks dead. False, and it stays as it is, when its link is
   * in a container or on its way there by now. The link goes before the record says so: what is recorded as `deleting` is
   * removed from wherever it is, also by the next process. Throws what the kernel or the store refuses.
   */
  async removeDead(endpoint: Endpoint): Promise<boolean> {
    if (!(await this.#hasNoLink(endpoint))) return false;
    this.beginRemoval(await this.#parts.endpoints.change(endpoint, { state: 'deleting' }));
    return true;
  }

  /** Whether its link is nowhere; one that lies here, down, is deleted first. The engine may move it at any moment. */
  async #hasNoLink(endpoint: Endpoint): Promise<boolean> {
    const { links, endpoints } = this.#parts;
    const link = await linkHere(links, endpoint);
    if (link !== undefined && (link.isUp || !(await links.deleteLink(link.index)))) return false;
    return (await linkElsewhere(links, endpoint, (id) => endpoints.get(id))) === undefined;
  }

  /** Removes the link and then the record of an endpoint in the state `deleting`; what fails is logged. */
  beginRemoval(endpoint: Endpoint): void {
    const { lan, announcements, tenancies, log } = this.#parts;
    lan.forget(endpoint);
    announcements.cancel(endpoint);
    tenancies.leave(endpoint);
    const departure: Departure = { isDown: false, down: Promise.resolve(), done: Promise.resolve() };
    const down = this.#bringDown(endpoint).then((link) => {
      departure.isDown = true;
      return link;
    });
    departure.down = down.then(
      () => undefined,
      () => undefined,
    );
    departure.done = this.#remove(endpoint, down)
      .catch((error: unknown) =>
        log.error('sub-interface was not removed; the next start tries again', {
          link: endpoint.linkName,
          error: String(error),
        }),
      )
      .finally(() => this.#leaving.delete(endpoint.id));
    this.#leaving.set(endpoint.id, departure);
  }

  /** The link, down; undefined when it is gone. */
  async #bringDown(endpoint: Endpoint): Promise<Link | undefined> {
    const { links } = this.#parts;
    const link = await links.byName(endpoint.linkName);
    if (link === undefined || !(await this.#isIts(link, endpoint))) return this.#removeElsewhere(endpoint);
    if (link.isUp) await links.setDown(link.index);
    return link;
  }

  /**
   * The engine brings the link back, or the kernel removes it with the container's namespace. An engine that was killed
   * while it started a container does neither: the namespace, perhaps with a process, outlives what the engine knows.
   */
  async #removeElsewhere(endpoint: Endpoint): Promise<undefined> {
    const { links, endpoints, log } = this.#parts;
    const left = await sureLinkElsewhere(links, endpoint, (id) => endpoints.get(id));
    if (left === undefined) return;
    log.warn('removing a link from a namespace that its engine left behind', { link: left.name, alias: left.alias });
    await links.deleteForeignLink(left);
  }

  /** Whose alias is ours it is without a question; its parent tells of one that carries another. */
  async #isIts(link: Link, endpoint: Endpoint): Promise<boolean> {
    return link.alias === endpointAlias(endpoint.id) || (await linkHere(this.#parts.links, endpoint)) !== undefined;
  }

  async #remove(endpoint: Endpoint, down: Promise<Link | undefined>): Promise<void> {
    const { networks, host, links, endpoints, tenancies } = this.#parts;
    const network = await networks.get(endpoint.networkId);
    const link = await down;
    await tenancies.left(endpoint);
    if (network !== undefined) await host.deleteRoutes(network, endpoint);
    if (link !== undefined) await links.deleteLink(link.index);
    await endpoints.remove(endpoint);
  }
}
