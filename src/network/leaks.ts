/** What containers and networks left behind whose end nobody reported; collector.ts waits until it is certain. */
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { Leak, LeakSource } from '../leak.ts';
import { PROBE_ALIAS } from '../linknames.ts';
import { type Endpoint, type Network, isOfSwarm } from '../model.ts';
import type { Serial } from '../serial.ts';
import type { Store } from '../store/store.ts';
import { type DeadEndpoint, describe, explain, findDead } from './dead.ts';
import type { Departures } from './departures.ts';
import type { Endpoints } from './endpoints.ts';
import type { Networks } from './networks.ts';
import type { Ties } from './ties.ts';

/** What is looked at. */
export interface NetworkLeaksParts {
  readonly store: Store;
  readonly endpoints: Endpoints;
  readonly departures: Departures;
  readonly networks: Networks;
  readonly ties: Ties;
  readonly links: Links;
  readonly serial: Serial;
  /** Whether the engine made the network since this process began. */
  readonly wasCreated: (networkId: string) => boolean;
}

const UNDELETED = { patience: 'soon', why: 'the kernel refused to delete its link when DeleteEndpoint came' } as const;

/** The leaks of the network room. */
export class NetworkLeaks implements LeakSource {
  readonly #parts: NetworkLeaksParts;

  constructor(parts: NetworkLeaksParts) {
    this.#parts = parts;
  }

  /** One reading: endpoints of dead containers, links without a record, networks that the engine has forgotten. */
  async leaks(): Promise<Leak[]> {
    const { endpoints, departures, networks } = this.#parts;
    const settled = endpoints.all().filter((one) => endpoints.isRecorded(one) && !departures.has(one));
    const dead = await this.#findDead(settled);
    const undeleted = settled.filter(({ state }) => state === 'deleting');
    const orphans = await networks.inTurn(() => networks.orphanLinks());
    const forgotten = await this.#forgotten();
    return [
      ...dead.map((found) => this.#endpointLeak(found.endpoint, found.cause, explain(found))),
      ...undeleted.map((endpoint) => this.#endpointLeak(endpoint, 'undeleted', UNDELETED)),
      ...orphans.filter(({ alias }) => alias !== PROBE_ALIAS).map((link) => this.#linkLeak(link)),
      ...forgotten.map(({ network, why }) => this.#networkLeak(network, why)),
    ];
  }

  // --- endpoints --------------------------------------------------------------------------------------------------

  async #findDead(some: readonly Endpoint[]): Promise<DeadEndpoint[]> {
    const { links, store, endpoints } = this.#parts;
    return findDead(links, some, await store.networks.list(), endpoints);
  }

  #endpointLeak(endpoint: Endpoint, cause: string, words: Pick<Leak, 'patience' | 'why'>): Leak {
    const { id, changedAt } = endpoint;
    return {
      key: `endpoint ${id} ${cause} ${changedAt}`,
      kind: 'endpoint',
      name: describe(endpoint),
      ...words,
      collect: () => this.#parts.serial.run(id, () => this.#removeDead(endpoint, cause)),
    };
  }

  /** Its leases stay tied to what is no endpoint any more: by that the IPAM knows that they are free. */
  async #removeDead(endpoint: Endpoint, cause: string): Promise<boolean> {
    const { endpoints, departures } = this.#parts;
    if (endpoints.get(endpoint.id) !== endpoint || departures.has(endpoint)) return false;
    if (endpoint.state !== 'deleting' && (await this.#findDead([endpoint]))[0]?.cause !== cause) return false;
    if (endpoint.state === 'deleting') departures.beginRemoval(endpoint);
    else if (!(await departures.removeDead(endpoint))) return false;
    await departures.untilDone(endpoint);
    return endpoints.get(endpoint.id) === undefined;
  }

  // --- links ------------------------------------------------------------------------------------------------------

  #linkLeak({ index, name, alias }: Link): Leak {
    const { networks, links } = this.#parts;
    const isStill = (link: Link) => link.index === index && link.alias === alias;
    return {
      key: `link ${index} ${alias}`,
      kind: 'link',
      name,
      why: `it carries the alias "${alias}", and no record knows it`,
      patience: 'soon',
      collect: () =>
        networks.inTurn(async () => ((await networks.orphanLinks()).some(isStill) ? links.deleteLink(index) : false)),
    };
  }

  // --- networks ---------------------------------------------------------------------------------------------------

  async #forgotten(): Promise<{ network: Network; why: string }[]> {
    const found: { network: Network; why: string }[] = [];
    for (const network of await this.#parts.store.networks.list()) {
      const why = await this.#whyForgotten(network);
      if (why !== undefined) found.push({ network, why });
    }
    return found;
  }

  /**
   * An engine that is started again has forgotten its networks of a swarm, and makes those that it needs once more. It starts
   * this process again with itself, since swarm takes managed plugins only. Of its other networks it releases the pools
   * first, and forgets them then, whatever is answered (libnetwork network.go delete; controller.go NewNetwork undone).
   */
  async #whyForgotten(network: Network): Promise<string | undefined> {
    const { endpoints, ties, wasCreated } = this.#parts;
    if (endpoints.ofNetwork(network.id).length > 0) return undefined;
    if (isOfSwarm(network.id))
      return wasCreated(network.id)
        ? undefined
        : 'it has no containers, and the engine has not asked for it since it was started';
    return (await ties.areReleased(network))
      ? 'it has no containers and its pools were released, but no DeleteNetwork came'
      : undefined;
  }

  #networkLeak(network: Network, why: string): Leak {
    const { networks } = this.#parts;
    return {
      key: `network ${network.id}`,
      kind: 'network',
      name: errors.short(network.id),
      why,
      patience: 'late',
      collect: () =>
        networks.inTurn(async () => {
          if ((await this.#whyForgotten(network)) !== why) return false;
          await networks.tearDown(network);
          return true;
        }),
    };
  }
}
