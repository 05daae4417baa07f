/**
 * Engines below 28 tell nobody that a container is there, and 28.5 does so for some containers and not for others (seen
 * in captures): neighbours and switches that knew the address elsewhere go on sending there. So we announce it, in the
 * background, when the kernel tells that the engine has taken the link into the container, and nobody did so by then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Links } from '../kernel/link.ts';
import type { Endpoint, Network } from '../model.ts';
import type { LanOfEndpoints } from './endpointlan.ts';

/** From Join until the link is gone from here takes an engine some milliseconds, seconds on a busy machine. */
const DEADLINE_MS = 10_000;
/** From there until the interface has its address and is up, and the engine has announced it if it does. */
const SETTLE_MS = 400;

/** Tells the LAN of each container that starts. */
export class Announcements {
  readonly #links: Links;
  readonly #lan: LanOfEndpoints;
  /** By endpoint id. */
  readonly #running = new Map<string, AbortController>();

  constructor(links: Links, lan: LanOfEndpoints) {
    this.#links = links;
    this.#lan = lan;
  }

  /** Announces the endpoint's addresses as soon as its link is in the container; one that starts again begins again. */
  start(endpoint: Endpoint, network: Network): void {
    this.cancel(endpoint);
    const controller = new AbortController();
    this.#running.set(endpoint.id, controller);
    // A link that never leaves, or a container that is gone again: nobody waits for an announcement.
    void this.#announce(endpoint, network, controller.signal)
      .catch(() => undefined)
      .finally(() => this.#running.get(endpoint.id) === controller && this.#running.delete(endpoint.id));
  }

  /** The endpoint goes. */
  cancel({ id }: Pick<Endpoint, 'id'>): void {
    this.#running.get(id)?.abort();
  }

  /** Ends every announcement. */
  close(): void {
    for (const controller of this.#running.values()) controller.abort();
  }

  async #announce(endpoint: Endpoint, network: Network, signal: AbortSignal): Promise<void> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]);
    await this.#links.table.untilGone(endpoint.linkName, deadline);
    await sleep(SETTLE_MS, undefined, { signal, ref: false });
    await this.#lan.announce(endpoint, network, signal);
  }
}
