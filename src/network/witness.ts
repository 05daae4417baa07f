/**
 * What the kernel says of an endpoint whose record is in the way of a start. An engine that was killed, or that ended a
 * container while the plugin was away, never says that the endpoint is gone, and the next start that wants its address or
 * MAC address is the container's own. So a refusal is never founded on a record alone.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { Endpoint } from '../model.ts';
import type { CallLimit } from '../requests.ts';
import type { Store } from '../store/store.ts';
import { isUnoccupied } from './dead.ts';
import type { Endpoints } from './endpoints.ts';
import { LinksOfEndpoints, linkElsewhere, linkHere } from './identity.ts';

/** `unsettled`: its link is on its way between namespaces, or its namespace is ending, or cannot be seen from here. */
export type Whereabouts = 'present' | 'unsettled' | 'gone';

/**
 * A link lies here, down, from CreateEndpoint until the engine moves it, and again when it came back. With many containers
 * at once (a boot) the move follows Join by half a minute, and the two look alike unless it was up and carried frames.
 */
const MOVED_MS = 60_000;
/** A container that was killed is seen so long, at most, before the kernel begins to end its namespace. */
const ENDING_MS = 800;
/** A call that waited for a witness still has to ask the LAN and to make its link. */
const RESERVE_MS = 1500;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 400;
/** Of the endpoints that engines ended last. */
const MOST_ENDED = 4096;

/** As long as engines wait for most calls. */
const USUAL_MS = 9000;

/** A limit of this time alone: a machine that stood still meanwhile has found out nothing, which is no failure. */
export function within(ms = USUAL_MS): CallLimit {
  return { signal: new AbortController().signal, atMs: performance.now() + ms, ifLate: () => undefined };
}

/** What a witness works with. */
export interface WitnessParts {
  readonly networks: Store['networks'];
  readonly endpoints: Endpoints;
  readonly links: Links;
}

/** Looks at the links of single endpoints, here and in the namespaces of containers. */
export class Witness {
  readonly #parts: WitnessParts;
  readonly #ended = new LatestMap<string, true>(MOST_ENDED);

  constructor(parts: WitnessParts) {
    this.#parts = parts;
  }

  /** Its engine says DeleteEndpoint. */
  noteEnd(endpointId: string): void {
    this.#ended.put(endpointId, true);
  }

  /** Whether its engine has said DeleteEndpoint, whatever became of the endpoint before: it says ReleaseAddress next. */
  hasEnded(endpointId: string): boolean {
    return this.#ended.has(endpointId);
  }

  /** Where the endpoint's link is at this moment. Throws what the kernel or the store refuses. */
  async look(endpoint: Endpoint): Promise<Whereabouts> {
    const { links, endpoints, networks } = this.#parts;
    const here = await linkHere(links, endpoint);
    if (here?.isUp) return 'present';
    if (here !== undefined)
      return links.hasCarriedFrames(here) || endpoints.ageMs(endpoint) >= MOVED_MS ? 'gone' : 'present';
    if ((await this.#elsewhere(endpoint)) !== undefined) return 'present';
    // It may have come back between the two readings.
    if ((await linkHere(links, endpoint)) !== undefined) return 'unsettled';
    const mode = (await networks.get(endpoint.networkId))?.options.mode;
    // A namespace that ends cannot be read any more while its links are still there (cleanup_net, net/core/net_namespace.c).
    return (await isUnoccupied(links, endpoint, mode)) ? 'gone' : 'unsettled';
  }

  /** The ids of those whose links are certainly there, by one reading of all links; what is in between is for look(). */
  async present(some: readonly Endpoint[]): Promise<ReadonlySet<string>> {
    const { links, endpoints } = this.#parts;
    if (some.length === 0) return new Set();
    const found = await LinksOfEndpoints.of(links, some, (id) => endpoints.get(id));
    const [here, elsewhere] = [await found.here(), await found.elsewhere()];
    const isPresent = (one: Endpoint) => here(one)?.isUp === true || elsewhere(one) !== undefined;
    return new Set(some.filter(isPresent).map(({ id }) => id));
  }

  /**
   * Whether nothing is left of the endpoint's container. Waits while that is not certain, until shortly before the call
   * must be answered, and a moment for one that may just have been killed; without a limit it looks once.
   */
  async isGone(endpoint: Endpoint, limit: CallLimit | null): Promise<boolean> {
    const untilMs = limit === null ? Number.NEGATIVE_INFINITY : limit.atMs - RESERVE_MS;
    const endedMs = Math.min(untilMs, performance.now() + ENDING_MS);
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      const known = this.#parts.endpoints.get(endpoint.id);
      if (known === undefined || known.state === 'deleting') return true;
      const seen = await this.look(known);
      const lastMs = seen === 'present' ? endedMs : untilMs;
      if (seen === 'gone' || performance.now() + pauseMs > lastMs) return seen === 'gone';
      const signal = limit?.signal;
      await sleep(pauseMs, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
    }
  }

  /**
   * False when the endpoint's link is up in its container and does not have the address there: engines set addresses before
   * they bring a link up. True as well when nothing is known.
   */
  async hasAddress(endpoint: Endpoint, address: Address): Promise<boolean> {
    const { links } = this.#parts;
    const parent = await links.byName(endpoint.parent);
    const link = await this.#elsewhere(endpoint);
    if (parent === undefined || link?.isUp !== true) return true;
    // Whichever link has it: which is the endpoint's cannot be told for certain.
    const reads = async () =>
      (await links.table.subInterfacesElsewhere(parent.index, formatAddress(address))).length > 0;
    // The first reading may be one that others began before the link was up.
    if ((await reads()) || (await reads())) return true;
    // A namespace that ends loses the addresses first.
    return (await this.#elsewhere(endpoint))?.isUp !== true;
  }
  #elsewhere(endpoint: Endpoint): Promise<Link | undefined> {
    const { links, endpoints } = this.#parts;
    return linkElsewhere(links, endpoint, (id) => endpoints.get(id));
  }
}
