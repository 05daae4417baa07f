/**
 * The NetworkDriver's verbs, in the order the engine sends them. Each may be repeated; each makes its record durable
 * before it returns; what one makes, its twin unmakes.
 */
import { isDeepStrictEqual } from 'node:util';
import { type Address, formatAddress, isSameAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, LinkEvent, Links } from '../kernel/link.ts';
import type { Leak } from '../leak.ts';
import { PROBE_ALIAS, endpointAlias, endpointLinkName, endpointOfAlias } from '../linknames.ts';
import type { Log } from '../log.ts';
import {
  type Endpoint,
  type Network,
  type NetworkOptions,
  type ParentLink,
  type Pool,
  type ProbeProfile,
  isOfSwarm,
} from '../model.ts';
import type { Attachment, EndpointRequest, NetworkRequest } from '../requests.ts';
import { Serial } from '../serial.ts';
import { realmOf, type Store } from '../store/store.ts';
import { Announcements } from './announcements.ts';
import { Claims } from './claims.ts';
import type { EndpointLan } from './endpointlan.ts';
import { HostAccess, type HostAddresses } from './host.ts';
import { type DeadEndpoint, describe, explain, findDead } from './leaks.ts';
import { readNetworkOptions } from './options.ts';
import { Parents } from './parent.ts';
import { subInterfaceRefusal } from './refusal.ts';
import { checkInside, checkPassthru, checkRequest, derivedMac, gatewayFor, readMac, repeated } from './request.ts';

/** A sub-interface on its way out. */
interface Departure {
  /** It is down, hence in nobody's way: its MAC address is free on the parent (macvlan_stop, drivers/net/macvlan.c). */
  isSilent: boolean;
  /** When it is down, or cannot be brought down. */
  silent: Promise<void>;
  /** When it and its record are gone, or the kernel has refused. */
  done: Promise<void>;
}

interface Parts {
  readonly store: Store;
  readonly links: Links;
  /** Without it addresses that another IPAM chose are not asked for on the LAN. */
  readonly lan?: EndpointLan;
  readonly hostAddresses: HostAddresses;
  /** Alias to link name, from the setting PARENTS. */
  readonly parentAliases: ReadonlyMap<string, string>;
  readonly log: Log;
  readonly now?: () => Date;
  /** A network stands. */
  readonly onCreated?: (networkId: string) => void;
}

/** Network verbs share parents, so they run one after the other; endpoint verbs only per endpoint. */
const NETWORKS = 'networks';
/** Long enough to gather a burst of link changes, short enough that nobody misses the parent. */
const HEAL_DELAY_MS = 100;

const UNDELETED = { patience: 'soon', why: 'the kernel refused to delete its link when DeleteEndpoint came' } as const;

export class NetworkDriver {
  readonly #store: Store;
  readonly #links: Links;
  readonly #parents: Parents;
  readonly #claims: Claims;
  readonly #lan: EndpointLan | undefined;
  readonly #announcements: Announcements | undefined;
  readonly #onCreated: (networkId: string) => void;
  readonly #host: HostAccess;
  readonly #log: Log;
  readonly #now: () => Date;
  readonly #serial = new Serial();
  /** All endpoint records, read at the start and kept in step with the store: who has which MAC on which parent. */
  readonly #endpoints = new Map<string, Endpoint>();
  /** Endpoints whose CreateEndpoint has not made their record durable yet. */
  readonly #arriving = new Set<string>();
  /** Networks that the engine made since this process began. */
  readonly #announced = new Set<string>();
  /** Deletions the kernel has not finished, by endpoint. */
  readonly #departing = new Map<string, Departure>();

  /** Our links for asking the LAN that go with the last network of their parent. */
  readonly #vacating = new Set<Promise<void>>();

  #stopWatching: () => void = () => undefined;
  /** What was last heard of each link that may be a parent, by index. */
  readonly #known = new Map<number, string>();
  /** Links that changed since the last look, by name; null stands for all (changes were lost). */
  readonly #noticed = new Map<string | null, 'new' | 'deleted'>();
  #noticing: NodeJS.Timeout | undefined;
  #cleaning: Promise<unknown> = Promise.resolve();

  constructor({ store, links, lan, hostAddresses, parentAliases, log, now = () => new Date(), onCreated }: Parts) {
    this.#store = store;
    this.#links = links;
    this.#parents = new Parents(links, parentAliases);
    this.#claims = new Claims(store, now);
    this.#lan = lan;
    this.#announcements = lan && new Announcements(links, lan);
    this.#onCreated = onCreated ?? (() => undefined);
    this.#host = new HostAccess(links, hostAddresses, log);
    this.#log = log;
    this.#now = now;
  }

  // --- networks ---------------------------------------------------------------------------------------------------

  async createNetwork(request: NetworkRequest): Promise<void> {
    const options = readNetworkOptions(request.options);
    checkRequest(request, options);
    await this.#serial.run(NETWORKS, () => this.#createNetwork(request, options));
    this.#announced.add(request.networkId);
    this.#onCreated(request.networkId);
  }

  async #createNetwork(request: NetworkRequest, options: NetworkOptions): Promise<void> {
    const planned = await this.#parents.plan(options, request.networkId);
    const networks = await this.#store.networks.list();
    const others = networks.filter(({ id }) => id !== request.networkId);
    checkPassthru(planned.name, options, others);
    try {
      const link = await this.#parents.ensure(planned, request.networkId);
      const parent = await this.#parents.settle(planned, link);
      checkPassthru(parent.name, options, others);
      if (options.mtu !== null && options.mtu > link.mtu) throw errors.mtuAboveParent(options.mtu, link.name, link.mtu);
      // Made so for one of our networks, or for this one before.
      const isOurs = networks.some((known) => known.parent.name === parent.name && known.parent.promiscuous);
      const promiscuous = options.promiscuous && (!link.isPromiscuous || isOurs);
      await this.#furnish(request, options, { ...parent, promiscuous }, link);
      this.#warn(options, link);
    } catch (error) {
      await this.#undo('parent', () => this.#parents.release(planned, others));
      throw error;
    }
  }

  /** The record first: what a crash leaves undone after it, recover() does. */
  async #furnish(request: NetworkRequest, options: NetworkOptions, parent: ParentLink, link: Link): Promise<void> {
    const pooled = await this.#claims.findPools(request.networkId, options.parent, request.subnets);
    const subnets = pooled.map(({ subnet, pool }) => ({ ...subnet, realm: pool === null ? null : realmOf(pool) }));
    const pools = pooled.flatMap(({ pool }) => pool ?? []);
    const hostAddresses = await this.#host.choose(options, subnets, pools);
    const { networkId: id, internal } = request;
    const network: Network = {
      id,
      options: { ...options, probe: profileOf(pools) ?? options.probe },
      parent,
      internal,
      subnets,
      hostAddresses,
      createdAt: this.#now().toISOString(),
    };
    const replaced = await this.#record(network);
    try {
      await this.#equip(network, link);
      await this.#claims.tiePools(id, pools);
    } catch (error) {
      await this.#undo('network', () => this.#dismantle(network));
      throw error;
    } finally {
      if (replaced !== undefined) await this.#undo('parent', () => this.#release(replaced));
    }
  }

  /** What a network needs on the host beside its parent. May be repeated. */
  async #equip(network: Network, link: Link): Promise<void> {
    if (network.parent.promiscuous && !link.isPromiscuous) await this.#links.setPromiscuous(link.index, true);
    // Looking for its containers among thousands, for each of a thousand networks, is half of a start's time.
    if (network.hostAddresses.length === 0) return;
    await this.#host.ensure(network, link);
    for (const { id } of this.#endpointsOf(network.id)) await this.#restoreRoutes(network, link.name, id);
  }

  /** In the endpoint's turn: a DeleteEndpoint meanwhile would delete its routes before they are made. */
  #restoreRoutes(network: Network, parentName: string, endpointId: string): Promise<void> {
    return this.#serial.run(endpointId, async () => {
      const endpoint = this.#endpoints.get(endpointId);
      if (endpoint !== undefined && endpoint.state !== 'deleting')
        await this.#host.addRoutes(network, parentName, endpoint);
    });
  }

  async #dismantle(network: Network): Promise<void> {
    const known = await this.#store.networks.get(network.id);
    if (known !== undefined) {
      const others = await this.#others(known);
      await this.#claims.passOn(known, others);
      // Nothing on a parent says that we made it promiscuous: only the record does, so that goes after.
      await this.#parents.releasePromiscuity(known.parent, others);
      await this.#store.networks.remove(known);
    }
    this.#lan?.endLeft(network);
    await this.#release(network);
  }

  /** Takes from the host what no recorded network needs. */
  async #release({ parent, hostAddresses }: Network): Promise<void> {
    const others = await this.#store.networks.list();
    // Our link for asking the LAN would go by itself some seconds later; who looks now shall find the parent as it was.
    if (!others.some((other) => other.parent.name === parent.name)) this.#vacate(parent.name);
    await this.#host.release({ parent, hostAddresses }, others);
    await this.#parents.release(parent, others);
  }

  async #others({ id }: Pick<Network, 'id'>): Promise<Network[]> {
    return (await this.#store.networks.list()).filter((network) => network.id !== id);
  }

  #vacate(parentName: string): void {
    const vacating = this.#undo('the link for asking the LAN', async () => this.#lan?.vacate(parentName));
    this.#vacating.add(vacating);
    void vacating.then(() => this.#vacating.delete(vacating));
  }

  /**
   * The same id again is a swarm node's network coming back (protocol: the engine forgets those without a word). Answers
   * the network that had the id before, when it was another.
   */
  async #record(network: Network): Promise<Network | undefined> {
    if (await this.#store.networks.insert(network)) return undefined;
    const known = await this.#store.networks.get(network.id);
    const next = { ...network, createdAt: known?.createdAt ?? network.createdAt };
    if (known === undefined || isDeepStrictEqual(known, next)) return undefined;
    if (this.#endpointsOf(network.id).length > 0) throw errors.networkDiffers(network.id);
    await this.#store.networks.replace(known, next);
    return known;
  }

  #warn({ parent }: NetworkOptions, link: Link): void {
    if (parent !== null && !link.isUp)
      this.#log.warn('parent is down: containers have no carrier until it is up', { parent: link.name });
  }

  /** Unknown is success: the engine has forgotten the network whatever is answered. */
  async deleteNetwork(networkId: string): Promise<void> {
    // The kernel takes its time for each link: that is waited for before and after the turn in the queue, not in it.
    await this.#empty(networkId);
    await this.#serial.run(NETWORKS, async () => {
      await this.#empty(networkId);
      const network = await this.#store.networks.get(networkId);
      if (network !== undefined) await this.#dismantle(network);
      this.#announced.delete(networkId);
    });
    await Promise.all(this.#vacating);
  }

  async #empty(networkId: string): Promise<void> {
    for (const endpoint of this.#endpointsOf(networkId)) await this.deleteEndpoint(networkId, endpoint.id);
    await Promise.all(this.#endpointsOf(networkId).flatMap(({ id }) => this.#departing.get(id)?.done ?? []));
  }

  /**
   * A swarm's leader sets up a network. Nothing is made here, and nothing refused: a refusal would only be in the engine's
   * log and keep all tasks waiting, while that of a node is shown with the task.
   */
  reviewAllocation({ networkId, options }: Pick<NetworkRequest, 'networkId' | 'options'>): void {
    const network = errors.short(networkId);
    this.#log.info('a swarm network: its services need --endpoint-mode dnsrr, nobody answers for a virtual IP', {
      network,
    });
    try {
      if (readNetworkOptions(options).parent !== null) return;
      this.#log.warn('a swarm network without -o parent: containers on different nodes do not reach each other', {
        network,
      });
    } catch (error) {
      this.#log.warn('a swarm network whose options every node will refuse', { network, error: String(error) });
    }
  }

  /** Engine 28 and later ask before they reserve a gateway nobody wants (GwAllocCheck). */
  skipGateway(request: Pick<NetworkRequest, 'options' | 'internal'>): { ipv4: boolean; ipv6: boolean } {
    const options = readNetworkOptions(request.options);
    const skip = request.internal || options.parent === null || !options.gateway;
    return { ipv4: skip, ipv6: skip };
  }

  // --- endpoints --------------------------------------------------------------------------------------------------

  /** The MAC chosen here; null when the engine named one, which it then does not want to hear again. */
  async createEndpoint(request: EndpointRequest): Promise<{ macAddress: string | null }> {
    const macAddress = request.macAddress === null ? null : readMac(request.macAddress);
    return this.#serial.run(request.endpointId, () => this.#createEndpoint({ ...request, macAddress }));
  }

  async #createEndpoint(request: EndpointRequest): Promise<{ macAddress: string | null }> {
    const network = await this.#network(request.networkId);
    checkInside(request, network);
    const known = this.#endpoints.get(request.endpointId);
    if (known !== undefined && known.state !== 'deleting') return repeated(known, request);

    const parent = await this.#parents.ensure(network.parent, network.id);
    await this.#lan?.refuseHeld(network, request);
    const macAddress = this.#chooseMac(request, network, parent);
    const endpoint: Endpoint = {
      id: request.endpointId,
      networkId: network.id,
      state: 'created',
      parent: parent.name,
      linkName: endpointLinkName(request.endpointId),
      macAddress,
      addresses: request.addresses,
      interfaceName: request.interfaceName,
      changedAt: this.#now().toISOString(),
    };
    await this.#awaitDepartures(endpoint, network.options);
    // No await between the look and the entry, so that two endpoints asking at once cannot both find the MAC unused.
    this.#refuseOccupied(endpoint, network.options);
    this.#endpoints.set(endpoint.id, endpoint);
    this.#arriving.add(endpoint.id);
    try {
      await this.#attach(network, parent, endpoint);
    } catch (error) {
      this.#endpoints.delete(endpoint.id);
      throw error;
    } finally {
      this.#arriving.delete(endpoint.id);
    }
    if (request.publishedPorts.length > 0) {
      this.#log.warn('published ports are ignored: the container is on the LAN with its own address', {
        network: errors.short(network.id),
        endpoint: errors.short(endpoint.id),
        ports: request.publishedPorts.join(' '),
      });
    }
    return { macAddress: request.macAddress === null ? macAddress : null };
  }

  /** Link, then ties, then record: a link without a record is what recovery removes. */
  async #attach(network: Network, parent: Link, endpoint: Endpoint): Promise<void> {
    const link = await this.#addSubInterface(network, parent, endpoint);
    try {
      await this.#host.addRoutes(network, parent.name, endpoint);
      await this.#claims.tieLeases(network, endpoint);
      await this.#store.endpoints.insert(endpoint);
      this.#lan?.watch(endpoint, network);
    } catch (error) {
      await this.#undo('host routes', () => this.#host.deleteRoutes(network, endpoint));
      await this.#undo('lease ties', () => this.#claims.untieLeases(network, endpoint));
      await this.#undo('sub-interface', () => this.#links.deleteLink(link.index));
      throw error;
    }
  }

  async #addSubInterface({ options }: Network, parent: Link, endpoint: Endpoint): Promise<Link> {
    const macAddress = options.mode === 'passthru' ? null : endpoint.macAddress;
    if (options.mode === 'passthru') await this.#lan?.vacate(parent.name);
    try {
      return await this.#links.addMacvlan({
        name: endpoint.linkName,
        alias: endpointAlias(endpoint.id),
        parentIndex: parent.index,
        mode: options.mode,
        macAddress,
        mtu: options.mtu,
        broadcastQueueLength: options.broadcastQueueLength,
      });
    } catch (error) {
      throw subInterfaceRefusal(error, { parent: parent.name, mode: options.mode, macAddress });
    }
  }

  /**
   * Acknowledged as soon as the intent is durable: the kernel takes some 16 ms for a link (it waits for RCU readers),
   * which overlaps with the engine's own clean-up. A crash in between is finished by recover().
   */
  async deleteEndpoint(networkId: string, endpointId: string): Promise<void> {
    await this.#serial.run(endpointId, async () => {
      const endpoint = this.#endpoints.get(endpointId);
      if (endpoint === undefined || endpoint.networkId !== networkId || endpoint.state === 'deleting') return;
      const network = await this.#store.networks.get(networkId);
      const leaving = await this.#change(endpoint, 'deleting');
      if (network !== undefined) await this.#claims.untieLeases(network, leaving);
      this.#depart(leaving);
    });
  }

  #depart(endpoint: Endpoint): void {
    this.#lan?.forget(endpoint);
    this.#announcements?.cancel(endpoint);
    const departure: Departure = { isSilent: false, silent: Promise.resolve(), done: Promise.resolve() };
    const silent = this.#silence(endpoint).then((link) => {
      departure.isSilent = true;
      return link;
    });
    departure.silent = silent.then(
      () => undefined,
      () => undefined,
    );
    departure.done = this.#removeSubInterface(endpoint, silent)
      .catch((error: unknown) =>
        this.#log.error('sub-interface was not removed; the next start tries again', {
          link: endpoint.linkName,
          error: String(error),
        }),
      )
      .finally(() => this.#departing.delete(endpoint.id));
    this.#departing.set(endpoint.id, departure);
  }

  /** The link, down; undefined when it is gone. */
  async #silence(endpoint: Endpoint): Promise<Link | undefined> {
    const alias = endpointAlias(endpoint.id);
    const link = await this.#links.byName(endpoint.linkName);
    if (link?.alias !== alias) return this.#removeElsewhere(alias);
    if (link.isUp) await this.#links.setDown(link.index);
    return link;
  }

  /**
   * The engine brings the link back, or the kernel removes it with the container's namespace. An engine that was killed
   * while it started a container does neither: the namespace, perhaps with a process, outlives what the engine knows.
   */
  async #removeElsewhere(alias: string): Promise<undefined> {
    const left = (await this.#links.foreignLinks((link) => link.alias === alias)) ?? [];
    for (const link of left) {
      this.#log.warn('removing a link from a namespace that its engine left behind', { link: link.name, alias });
      await this.#links.deleteForeignLink(link);
    }
  }

  async #removeSubInterface(endpoint: Endpoint, silent: Promise<Link | undefined>): Promise<void> {
    const network = await this.#store.networks.get(endpoint.networkId);
    if (network !== undefined) await this.#host.deleteRoutes(network, endpoint);
    const link = await silent;
    if (link !== undefined) await this.#links.deleteLink(link.index);
    await this.#store.endpoints.remove(endpoint);
    this.#endpoints.delete(endpoint.id);
  }

  // --- sandboxes --------------------------------------------------------------------------------------------------

  /** No kernel work: the engine moves the link into the sandbox itself. */
  async join(networkId: string, endpointId: string): Promise<Attachment> {
    const network = await this.#network(networkId);
    return this.#serial.run(endpointId, async () => {
      const endpoint = this.#endpoints.get(endpointId);
      if (endpoint === undefined || endpoint.networkId !== networkId || endpoint.state === 'deleting')
        throw errors.endpointUnknown(endpointId, networkId);
      if (endpoint.state === 'created') await this.#change(endpoint, 'joined');
      this.#announcements?.start(endpoint, network);
      return {
        linkName: endpoint.linkName,
        interfaceName: endpoint.interfaceName,
        gateway: gatewayFor(network, endpoint, 'IPv4'),
        gatewayIPv6: gatewayFor(network, endpoint, 'IPv6'),
      };
    });
  }

  /** The engine brings the link back, and DeleteEndpoint follows. Until then the container still has its addresses. */
  async leave(networkId: string, endpointId: string): Promise<void> {
    const network = await this.#store.networks.get(networkId);
    const endpoint = this.#endpoints.get(endpointId);
    if (network !== undefined && endpoint?.networkId === networkId && endpoint.state === 'joined')
      await this.#lan?.keepLeft(endpoint, network);
  }

  // --- start and stop ---------------------------------------------------------------------------------------------

  /** Rebuilds what the host lost and finishes what a crash interrupted. Errors are logged: one bad network stops none. */
  async recover(): Promise<void> {
    for (const endpoint of await this.#store.endpoints.list()) this.#endpoints.set(endpoint.id, endpoint);
    const networks = await this.#store.networks.list();
    await this.#rebuild(networks);
    await this.#undo('routes of the host', () => this.#host.deleteStrayRoutes(networks, [...this.#endpoints.values()]));
    this.#watchOver(networks);
    for (const endpoint of this.#endpoints.values()) if (endpoint.state === 'deleting') this.#depart(endpoint);
    const leftovers = await this.#leftovers();
    // A thousand links take the kernel seconds. Nobody needs to wait: they are down, and their names come never again.
    this.#cleaning = Promise.all(leftovers.map((link) => this.#remove(link)));
    this.#stopWatching = this.#links.onChange((event) => this.#notice(event));
  }

  #watchOver(networks: readonly Network[]): void {
    const byId = new Map(networks.map((network) => [network.id, network]));
    for (const endpoint of this.#endpoints.values()) {
      const network = byId.get(endpoint.networkId);
      if (network !== undefined && endpoint.state !== 'deleting') this.#lan?.watch(endpoint, network);
    }
  }

  async #remove(link: Link): Promise<void> {
    this.#log.info('removing a link that a crash left behind', { link: link.name, alias: link.alias });
    await this.#undo('link', () => this.#links.deleteLink(link.index));
  }

  async #rebuild(networks: readonly Network[]): Promise<void> {
    for (const network of networks) {
      await this.#undo(`network ${errors.short(network.id)}`, async () =>
        this.#equip(network, await this.#parents.ensure(network.parent, network.id)),
      );
    }
  }

  /** Links that carry our alias and belong to no record. */
  async #leftovers(): Promise<Link[]> {
    const networks = await this.#store.networks.list();
    const isOrphan = ({ alias }: Link) => {
      const endpointId = endpointOfAlias(alias);
      return alias === PROBE_ALIAS || (endpointId !== null && !this.#endpoints.has(endpointId));
    };
    const subInterfaces = await this.#links.list(isOrphan);
    return [...subInterfaces, ...(await this.#host.orphans(networks)), ...(await this.#parents.orphans(networks))];
  }

  // --- leaks ------------------------------------------------------------------------------------------------------

  /** What containers and networks left behind whose end nobody reported. */
  async leaks(): Promise<Leak[]> {
    const settled = [...this.#endpoints.values()].filter(
      ({ id }) => !this.#arriving.has(id) && !this.#departing.has(id),
    );
    const dead = await this.#findDead(settled);
    const undeleted = settled.filter(({ state }) => state === 'deleting');
    const leftovers = await this.#serial.run(NETWORKS, () => this.#leftovers());
    const forgotten = await this.#forgotten();
    return [
      ...dead.map((found) => this.#endpointLeak(found.endpoint, found.cause, explain(found))),
      ...undeleted.map((endpoint) => this.#endpointLeak(endpoint, 'undeleted', UNDELETED)),
      ...leftovers.filter(({ alias }) => alias !== PROBE_ALIAS).map((link) => this.#linkLeak(link)),
      ...forgotten.map(({ network, why }) => this.#networkLeak(network, why)),
    ];
  }

  async #findDead(endpoints: readonly Endpoint[]): Promise<DeadEndpoint[]> {
    return findDead(this.#links, endpoints, await this.#store.networks.list(), this.#now());
  }

  #endpointLeak(endpoint: Endpoint, cause: string, words: Pick<Leak, 'patience' | 'why'>): Leak {
    const { id, changedAt } = endpoint;
    const collect = () => this.#serial.run(id, () => this.#bury(endpoint, cause));
    return {
      key: `endpoint ${id} ${cause} ${changedAt}`,
      kind: 'endpoint',
      name: describe(endpoint),
      ...words,
      collect,
    };
  }

  async #forgotten(): Promise<{ network: Network; why: string }[]> {
    const found: { network: Network; why: string }[] = [];
    for (const network of await this.#store.networks.list()) {
      const why = await this.#whyForgotten(network);
      if (why !== undefined) found.push({ network, why });
    }
    return found;
  }

  /**
   * An engine that is started anew has forgotten its networks of a swarm, and makes those that it needs once more. It starts
   * this process anew with itself, since swarm takes managed plugins only. Of its other networks it releases the pools
   * first, and forgets them then, whatever is answered (libnetwork network.go delete; controller.go NewNetwork undone).
   */
  async #whyForgotten(network: Network): Promise<string | undefined> {
    if (this.#endpointsOf(network.id).length > 0) return undefined;
    if (isOfSwarm(network.id))
      return this.#announced.has(network.id)
        ? undefined
        : 'it has no containers, and the engine has not asked for it since it was started';
    return (await this.#claims.areReleased(network))
      ? 'it has no containers and its pools were released, but no DeleteNetwork came'
      : undefined;
  }

  #networkLeak(network: Network, why: string): Leak {
    return {
      key: `network ${network.id}`,
      kind: 'network',
      name: errors.short(network.id),
      why,
      patience: 'late',
      collect: () =>
        this.#serial.run(NETWORKS, async () => {
          if ((await this.#whyForgotten(network)) !== why) return false;
          await this.#dismantle(network);
          return true;
        }),
    };
  }

  /** Its leases stay tied to what is no endpoint any more: by that the IPAM knows that they are free. */
  async #bury(endpoint: Endpoint, cause: string): Promise<boolean> {
    if (this.#endpoints.get(endpoint.id) !== endpoint || this.#departing.has(endpoint.id)) return false;
    if (endpoint.state !== 'deleting' && (await this.#findDead([endpoint]))[0]?.cause !== cause) return false;
    this.#depart(endpoint.state === 'deleting' ? endpoint : await this.#change(endpoint, 'deleting'));
    await this.#departing.get(endpoint.id)?.done;
    return !this.#endpoints.has(endpoint.id);
  }

  #linkLeak({ index, name, alias }: Link): Leak {
    const isStill = (link: Link) => link.index === index && link.alias === alias;
    return {
      key: `link ${index} ${alias}`,
      kind: 'link',
      name,
      why: `it carries the alias "${alias}", and no record knows it`,
      patience: 'soon',
      collect: () =>
        this.#serial.run(NETWORKS, async () =>
          (await this.#leftovers()).some(isStill) ? this.#links.deleteLink(index) : false,
        ),
    };
  }

  // --- parents that come and go -----------------------------------------------------------------------------------

  /** Changes come in bursts, and most are of links that are none of ours: names are gathered and looked at once. */
  #notice(event: LinkEvent): void {
    if (event.type === 'overflow') this.#noticed.set(null, 'new');
    else if (event.link.kind !== 'macvlan' && this.#isNews(event)) this.#noticed.set(event.link.name, event.type);
    if (this.#noticed.size === 0 || this.#noticing !== undefined) return;
    this.#noticing = setTimeout(() => void this.#serial.run(NETWORKS, () => this.#heal()), HEAL_DELAY_MS).unref();
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
  async #heal(): Promise<void> {
    this.#noticing = undefined;
    const noticed = new Map(this.#noticed);
    this.#noticed.clear();
    const networks = await this.#store.networks.list();
    const newsOf = ({ parent }: Network) =>
      noticed.get(parent.name) ?? noticed.get(baseOf(parent)) ?? noticed.get(null);
    await this.#rebuild(networks.filter((network) => newsOf(network) === 'new'));
    for (const network of networks.filter((one) => newsOf(one) === 'deleted')) await this.#mourn(network);
  }

  /** A VLAN that somebody deleted is made again where it was. */
  async #mourn(network: Network): Promise<void> {
    const { id, parent } = network;
    this.#log.warn('parent is gone, and with it the interfaces of its containers; start them again when it is back', {
      parent: parent.name,
      network: errors.short(id),
    });
    const base = baseOf(parent);
    if (parent.recipe === 'isolated' || (base !== null && (await this.#links.byName(base)) !== undefined))
      await this.#rebuild([network]);
  }

  /** Resolves when every acknowledged deletion is done. */
  async close(): Promise<void> {
    this.#stopWatching();
    clearTimeout(this.#noticing);
    this.#announcements?.close();
    await this.#cleaning;
    await Promise.all([...[...this.#departing.values()].map(({ done }) => done), ...this.#vacating]);
  }

  /** The endpoint on this parent that has this MAC address and this address (no prefix length), also one that leaves. */
  speaker(parent: string, macAddress: string, address: Address): Endpoint | undefined {
    return [...this.#endpoints.values()].find(
      (endpoint) => endpoint.parent === parent && endpoint.macAddress === macAddress && hasAddress(endpoint, address),
    );
  }

  // --- parts ------------------------------------------------------------------------------------------------------

  async #network(networkId: string): Promise<Network> {
    const network = await this.#store.networks.get(networkId);
    if (network === undefined) throw errors.networkUnknown(networkId);
    return network;
  }

  #endpointsOf(networkId: string): Endpoint[] {
    return [...this.#endpoints.values()].filter((endpoint) => endpoint.networkId === networkId);
  }

  async #change(endpoint: Endpoint, state: Endpoint['state']): Promise<Endpoint> {
    const next = { ...endpoint, state, changedAt: this.#now().toISOString() };
    if (!(await this.#store.endpoints.replace(endpoint, next)))
      throw errors.endpointUnknown(endpoint.id, endpoint.networkId);
    this.#endpoints.set(next.id, next);
    return next;
  }

  #chooseMac(request: EndpointRequest, { options }: Network, parent: Link): string {
    if (options.mode !== 'passthru') return request.macAddress ?? derivedMac(options.macPrefix, request.addresses);
    if (request.macAddress !== null && request.macAddress !== parent.macAddress) {
      throw errors.macFixedByParent(request.macAddress, parent.name, parent.macAddress);
    }
    return parent.macAddress;
  }

  /**
   * A link with this MAC may still be leaving: until it is down the kernel refuses the new one when that comes up
   * (EADDRINUSE). Who wants the parent for itself waits until it is gone.
   */
  async #awaitDepartures(endpoint: Endpoint, options: NetworkOptions): Promise<void> {
    for (const other of this.#inTheWay(endpoint, options)) {
      if (other.state !== 'deleting') continue;
      if (!this.#departing.has(other.id)) this.#depart(other);
      const departure = this.#departing.get(other.id);
      await (options.mode === 'passthru' ? departure?.done : departure?.silent);
    }
  }

  #refuseOccupied(endpoint: Endpoint, options: NetworkOptions): void {
    const holder = this.#inTheWay(endpoint, options)[0];
    if (holder === undefined) return;
    if (options.mode === 'passthru') throw errors.passthruOccupied(endpoint.parent, holder.id);
    const shared = endpoint.addresses.find((address) => hasAddress(holder, address));
    throw shared === undefined
      ? errors.macTaken(endpoint.macAddress, holder.id, endpoint.parent)
      : errors.addressTaken(formatAddress(shared), holder.id, endpoint.parent);
  }

  /**
   * Who keeps this endpoint off its parent: anybody in mode passthru, else who has its MAC or one of its addresses and is
   * not silent already.
   */
  #inTheWay(endpoint: Endpoint, { mode }: NetworkOptions): Endpoint[] {
    const collides = (other: Endpoint) =>
      !this.#departing.get(other.id)?.isSilent &&
      (other.macAddress === endpoint.macAddress || endpoint.addresses.some((address) => hasAddress(other, address)));
    return [...this.#endpoints.values()].filter(
      (other) =>
        other.id !== endpoint.id && other.parent === endpoint.parent && (mode === 'passthru' || collides(other)),
    );
  }

  /** Undoing never hides the first error: its own failure is logged. */
  async #undo(what: string, step: () => Promise<unknown>): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.#log.error(`could not mend ${what}`, { error: String(error) });
    }
  }
}

function hasAddress({ addresses }: Endpoint, address: Address): boolean {
  return addresses.some((own) => isSameAddress(own, address));
}

/** `--ipam-opt probe=`, which goes before `-o probe=`; the engine gives all pools of a network the same options. */
function profileOf(pools: readonly Pool[]): ProbeProfile | null {
  const profile = pools.map(({ options }) => options['probe']).find((option) => option !== undefined);
  return (profile as ProbeProfile | undefined) ?? null;
}

function baseOf({ recipe }: ParentLink): string | null {
  return recipe === null || recipe === 'isolated' ? null : recipe.base;
}
