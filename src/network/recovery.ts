/**
 * What the host lost is made again: all of it at the start, and what went with a parent when that comes back. The kernel
 * tells of parents; the records say what has to be there.
 */
import { formatAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, LinkEvent, Links } from '../kernel/link.ts';
import type { Log } from '../log.ts';
import type { Endpoint, Network, ParentLink } from '../model.ts';
import type { Store } from '../store/store.ts';
import { adoptContainers } from './adoption.ts';
import type { Departures } from './departures.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { Endpoints } from './endpoints.ts';
import type { HostAccess } from './host.ts';
import type { Networks } from './networks.ts';
import { undo } from './undo.ts';
import type { Witness } from './witness.ts';

/** What recovery works with. */
export interface RecoveryParts {
  readonly store: Store;
  readonly endpoints: Endpoints;
  readonly departures: Departures;
  readonly networks: Networks;
  readonly host: HostAccess;
  readonly links: Links;
  readonly lan: LanOfEndpoints;
  readonly witness: Witness;
  readonly log: Log;
  readonly now: () => Date;
}

/** Long enough to gather a burst of link changes, short enough that nobody misses the parent. */
const FOLLOW_DELAY_MS = 100;
/** From one look at all of them, because events were lost, to the next. */
const BETWEEN_LOOKS_MS = 5000;

/** Rebuilds what is recorded and not there. */
export class Recovery {
  readonly #parts: RecoveryParts;
  #stopFollowing: () => void = () => undefined;
  /** What was last heard of each link that may be a parent, by index. */
  readonly #known = new Map<number, string>();
  /** Links that went since the last look, by name, also those that are back. */
  readonly #gone = new Set<string>();
  /** Links that changed since the last look, by name; null stands for all (changes were lost). */
  readonly #noticed = new Map<string | null, 'new' | 'deleted'>();
  #noticing: NodeJS.Timeout | undefined;
  /** When all were, or are to be, looked at for the last time because changes were lost, as performance.now(). */
  #lookedAtAllMs = Number.NEGATIVE_INFINITY;
  #cleaning: Promise<unknown> = Promise.resolve();

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
  }

  /**
   * At the start, before any verb: reads the endpoints, rebuilds networks, finishes what a crash interrupted, and follows
   * the parents from then on. Throws when the store cannot be read; what else fails is logged.
   */
  async recover(): Promise<void> {
    const { store, endpoints, departures, networks, host, log } = this.#parts;
    await endpoints.load();
    for (const network of await store.networks.list()) if (network.isPending) await this.#takeBack(network);
    await adoptContainers(this.#parts);
    const recorded = await store.networks.list();
    await networks.restore(recorded);
    await undo(log, 'routes of the host', () => host.deleteStrayRoutes(recorded, endpoints.all()));
    this.#watchOver(recorded);
    for (const endpoint of endpoints.all()) if (endpoint.state === 'deleting') departures.beginRemoval(endpoint);
    const orphans = await networks.orphanLinks();
    // A thousand links take the kernel seconds. Nobody needs to wait: they are down, and their names come never again.
    this.#cleaning = Promise.all(orphans.map((link) => this.#remove(link)));
    this.#followParents();
  }

  /** Follows no parent any more; resolves when what a crash left behind is removed. */
  async close(): Promise<void> {
    this.#stopFollowing();
    clearTimeout(this.#noticing);
    await this.#cleaning;
  }

  /** Its engine asked for it again without saying what (moby#35459), was refused, and has undone the rest. */
  async #takeBack(network: Network): Promise<void> {
    const { networks, log } = this.#parts;
    log.info('removing a network that a crash left half made', { network: errors.short(network.id) });
    await undo(log, 'network', () => networks.tearDown(network));
  }

  #watchOver(networks: readonly Network[]): void {
    const { endpoints, lan } = this.#parts;
    const byId = new Map(networks.map((network) => [network.id, network]));
    for (const endpoint of endpoints.all()) {
      const network = byId.get(endpoint.networkId);
      if (network !== undefined && endpoint.state !== 'deleting') lan.watch(endpoint, network);
    }
  }

  async #remove(link: Link): Promise<void> {
    const { links, log } = this.#parts;
    log.info('removing a link that a crash left behind', { link: link.name, alias: link.alias });
    await undo(log, 'link', () => links.deleteLink(link.index));
  }

  // --- parents that come and go -----------------------------------------------------------------------------------

  #followParents(): void {
    this.#stopFollowing = this.#parts.links.onChange((event) => this.#notice(event));
  }

  /** Changes come in bursts, and most are of links that are none of ours: names are gathered and looked at once. */
  #notice(event: LinkEvent): void {
    if (event.type === 'overflow') this.#noticed.set(null, 'new');
    else if (event.link.kind !== 'macvlan' && this.#isNews(event)) {
      this.#noticed.set(event.link.name, event.type);
      if (event.type === 'deleted') this.#gone.add(event.link.name);
    }
    if (this.#noticed.size === 0 || this.#noticing !== undefined) return;
    const { networks, log } = this.#parts;
    const look = () => undo(log, 'what stands on a parent', () => networks.inTurn(() => this.#lookAtParents()));
    this.#noticing = setTimeout(() => void look(), this.#lookInMs()).unref();
  }

  /** A container can make events of its parent until they are lost, and all networks are looked at then. */
  #lookInMs(): number {
    if (!this.#noticed.has(null)) return FOLLOW_DELAY_MS;
    const atMs = Math.max(performance.now() + FOLLOW_DELAY_MS, this.#lookedAtAllMs + BETWEEN_LOOKS_MS);
    this.#lookedAtAllMs = atMs;
    return atMs - performance.now();
  }

  /** The kernel also tells of a parent whenever a link comes or goes on it (NETDEV_CHANGEUPPER, net/core/rtnetlink.c). */
  #isNews({ type, link }: Exclude<LinkEvent, { type: 'overflow' }>): boolean {
    if (type === 'deleted') {
      this.#known.delete(link.index);
      return true;
    }
    const heard = `${link.name} ${link.isUp} ${link.hasCarrier} ${link.macAddress}`;
    if (this.#known.get(link.index) === heard) return false;
    this.#known.set(link.index, heard);
    return link.isUp;
  }

  /** A parent that goes takes its VLANs, the host's end and the links inside containers with it; all but those come back. */
  async #lookAtParents(): Promise<void> {
    const { store, networks, log } = this.#parts;
    this.#noticing = undefined;
    const [noticed, gone] = [new Map(this.#noticed), new Set(this.#gone)];
    this.#noticed.clear();
    this.#gone.clear();
    const recorded = await store.networks.list();
    const newsOf = ({ parent }: Network) =>
      noticed.get(parent.name) ?? noticed.get(baseOf(parent)) ?? noticed.get(null);
    for (const network of recorded.filter(({ parent }) => gone.has(parent.name) || gone.has(baseOf(parent) ?? '')))
      await undo(log, 'the word that interfaces are lost', () => this.#tellLost(network));
    await networks.restore(recorded.filter((network) => newsOf(network) === 'new'));
    for (const network of recorded.filter((one) => newsOf(one) === 'deleted')) await this.#remake(network);
  }

  /** With the parent go the interfaces of its containers (macvlan_device_event, drivers/net/macvlan.c), also when it is back at once. */
  async #tellLost(network: Network): Promise<void> {
    const { endpoints, witness, log, now } = this.#parts;
    const joined = endpoints
      .ofNetwork(network.id)
      .filter(({ state, lostAt }) => state === 'joined' && lostAt === undefined);
    // All share their fate: a parent that was only moved to another namespace keeps them.
    const isKept = joined[0] !== undefined && (await witness.look(joined[0])) === 'present';
    const lost: readonly Endpoint[] = isKept ? [] : joined;
    const addresses = lost.flatMap((endpoint) => endpoint.addresses.map(formatAddress));
    log.warn('parent is gone, and with it the interfaces of its containers; start them again when it is back', {
      parent: network.parent.name,
      network: errors.short(network.id),
      containers: addresses.join(' ') || lost.length,
    });
    for (const { id } of lost) {
      const endpoint = endpoints.get(id);
      if (endpoint?.state === 'joined') await endpoints.change(endpoint, { lostAt: now().toISOString() });
    }
  }

  /** A VLAN that somebody deleted is made again where it was. */
  async #remake(network: Network): Promise<void> {
    const { links, networks } = this.#parts;
    const { parent } = network;
    const base = baseOf(parent);
    if (parent.recipe === 'isolated' || (base !== null && (await links.byName(base)) !== undefined))
      await networks.restore([network]);
  }
}

function baseOf({ recipe }: ParentLink): string | null {
  return recipe === null || recipe === 'isolated' ? null : recipe.base;
}
