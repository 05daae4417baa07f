/**
 * Containers that come back after a start of this host, or after an absence of the daemon: an engine asks for their addresses one
 * after the other, and each would wait for its own window. So all of them are asked for at once before it asks for the first,
 * and kept on standby as long as a boot may take; a call that comes sooner waits for the question that is under way.
 *
 * Who comes back is in the records after a crash: endpoints that have no link any more. An engine that was stopped has ended its
 * containers before; which addresses those had is written to the records of their networks when the daemon stops.
 *
 * An address without a lease may be on standby for its pool as well (ipam/standby.ts). It is asked for and kept once for both
 * (lan/standby.ts), and each of the two lets go of it by itself: here when the time of a boot is over.
 */
import { formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Links } from '../kernel/link.ts';
import type { Kept, Loss } from '../lan/verdict.ts';
import type { Log } from '../log.ts';
import { type Endpoint, type InterfaceAddress, isOfSwarm, type Network } from '../model.ts';
import type { Store } from '../store/store.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { Endpoints } from './endpoints.ts';
import { LinksOfEndpoints } from './identity.ts';
import { undo } from './undo.ts';

/** What is looked at and asked. */
export interface ReturningParts {
  readonly networks: Store['networks'];
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly lan: Pick<LanOfEndpoints, 'keep' | 'mostAtOnce'>;
  readonly log: Log;
}

interface Place {
  readonly network: Network;
  readonly address: InterfaceAddress;
  /** Its endpoint, where there is a record of it still. */
  readonly endpointId: string | null;
}

/** More containers have to wait for a window. */
const MOST = 256;
/** With the lowest rates of frames so many are asked for at a time. */
const LEAST_AT_ONCE = 4;
/** Of containers that ended before the daemon did, those that ended in this time were stopped with their engine. */
const STOPPING_MS = 120_000;
/** An engine that starts many containers after a boot has done so by then. */
const BOOT_MS = 300_000;
/** Where the LAN cannot be asked yet, as the parent has no carrier: how long until the next tries. */
const TRIES_MS = [1000, 2000, 4000, 8000, 16_000, 16_000];

/** Addresses that containers had which are gone, and may have again soon. */
export class Returning {
  readonly #parts: ReturningParts;
  /** By network and address, those that a container has left. */
  readonly #left = new LatestMap<string, Place & { readonly atMs: number }>(MOST);
  readonly #kept = new Set<Kept>();
  readonly #stop = new AbortController();
  #timers: NodeJS.Timeout[] = [];

  constructor(parts: ReturningParts) {
    this.#parts = parts;
  }

  /** A container leaves its addresses. */
  left({ addresses }: Endpoint, network: Network): void {
    const atMs = performance.now();
    for (const address of addresses) {
      const key = `${network.id} ${formatInterfaceAddress(address)}`;
      this.#left.put(key, { network, address, endpointId: null, atMs });
    }
  }

  /** At the start, when what the host lost is made again. What the LAN answers is not waited for. Throws what the store throws. */
  async begin(): Promise<void> {
    const networks = await this.#parts.networks.list();
    const written = await this.#written(networks);
    void undo(this.#parts.log, 'addresses of containers that come back', async () => {
      const places = [...(await this.#absent(networks)), ...written].filter(({ network }) => mayKeep(network));
      this.#in(BOOT_MS, () => this.#letGo());
      await this.#ask(places.slice(0, MOST), TRIES_MS);
    });
  }

  /** Asks for nothing any more, and writes down who is to come back after the next start. */
  async close(): Promise<void> {
    this.#stop.abort();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#letGo();
    const since = performance.now() - STOPPING_MS;
    const left = [...this.#left.values()].filter((place) => place.atMs > since && !this.#isUsed(place));
    for (const id of new Set(left.map(({ network }) => network.id)))
      await undo(this.#parts.log, 'addresses of containers', () => this.#write(id, left));
  }

  async #write(networkId: string, all: readonly Place[]): Promise<void> {
    const { networks } = this.#parts;
    const known = await networks.get(networkId);
    const left = all
      .filter(({ network }) => network.id === networkId)
      .map(({ address }) => formatInterfaceAddress(address));
    if (known !== undefined) await networks.replace(known, { ...known, left });
  }

  /** What close() wrote; it is news only once. */
  async #written(networks: readonly Network[]): Promise<Place[]> {
    const places: Place[] = [];
    for (const network of networks.filter((one) => one.left !== undefined)) {
      const { left = [], ...rest } = network;
      // On a disk that is full they are asked for again after the next start as well.
      await undo(this.#parts.log, 'addresses of containers', () => this.#parts.networks.replace(network, rest));
      places.push(...left.flatMap((text) => placeOf(rest, text)));
    }
    return places;
  }

  /** Those of endpoints whose link is nowhere. */
  async #absent(networks: readonly Network[]): Promise<Place[]> {
    const { endpoints, links } = this.#parts;
    const recorded = endpoints.all().filter(({ state }) => state !== 'deleting');
    if (recorded.length === 0) return [];
    const found = await LinksOfEndpoints.of(links, recorded, (id) => endpoints.get(id));
    const [here, elsewhere] = [await found.here(), await found.elsewhere()];
    const byId = new Map(networks.map((network) => [network.id, network]));
    return recorded.flatMap((endpoint) => {
      const { id: endpointId, networkId, addresses } = endpoint;
      const network = byId.get(networkId);
      if (network === undefined || (here(endpoint) ?? elsewhere(endpoint)) !== undefined) return [];
      return addresses.map((address) => ({ network, address, endpointId }));
    });
  }

  async #ask(places: readonly Place[], [nextMs, ...laterMs]: readonly number[]): Promise<void> {
    const unasked: Place[] = [];
    // What is paced waits in line: a call about another address would come after all of these, and too late for its engine.
    const many = Math.max(LEAST_AT_ONCE, this.#parts.lan.mostAtOnce);
    for (let start = 0; start < places.length; start += many) {
      const some = places.slice(start, start + many).filter((place) => !this.#isUsed(place));
      const outcomes = await Promise.all(some.map((place) => this.#keep(place).catch(() => 'ended' as const)));
      unasked.push(...some.filter((place, at) => outcomes[at] === 'ended' && !this.#isUsed(place)));
    }
    if (nextMs !== undefined && unasked.length > 0) this.#in(nextMs, () => void this.#ask(unasked, laterMs));
  }

  async #keep({ network, address }: Place): Promise<'kept' | Loss> {
    const { signal } = this.#stop;
    let kept: Kept | Loss | null = null;
    const lost = () => kept !== null && typeof kept === 'object' && this.#kept.delete(kept);
    kept = await this.#parts.lan.keep(network, address, lost, signal);
    if (typeof kept === 'string') return kept;
    if (kept !== null && signal.aborted) kept.release();
    else if (kept !== null) this.#kept.add(kept);
    return 'kept';
  }

  /** By a container that came back. */
  #isUsed({ network, address, endpointId }: Place): boolean {
    const all = this.#parts.endpoints.withAddress(network.parent.name, address);
    return all.some(({ id, state }) => id !== endpointId && state !== 'deleting');
  }

  #letGo(): void {
    for (const kept of this.#kept) kept.release();
    this.#kept.clear();
  }

  #in(delayMs: number, run: () => void): void {
    if (!this.#stop.signal.aborted) this.#timers.push(setTimeout(run, delayMs).unref());
  }
}

/** In mode passthru a parent carries one container. What a swarm's task had another one need not get. */
function mayKeep({ id, options }: Network): boolean {
  return options.mode !== 'passthru' && !isOfSwarm(id);
}

function placeOf(network: Network, text: string): Place[] {
  const address = parseInterfaceAddress(text);
  return address === undefined ? [] : [{ network, address, endpointId: null }];
}
