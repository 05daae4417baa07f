/** What a network needs on the host: its parent, the host's end, its record. Made, kept and taken away here. */
import { isDeepStrictEqual } from 'node:util';
import { formatAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import { PROBE_ALIAS, endpointOfAlias } from '../linknames.ts';
import type { Log } from '../log.ts';
import type { Network, NetworkOptions, ParentLink, Pool, ProbeProfile } from '../model.ts';
import type { CallLimit, NetworkRequest } from '../requests.ts';
import type { Serial } from '../serial.ts';
import type { Store } from '../store/store.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { Endpoints } from './endpoints.ts';
import type { DoubtfulGateway, Gateways } from './gateways.ts';
import type { HostAccess } from './host.ts';
import type { Parents } from './parent.ts';
import { readRemarks } from './hostview.ts';
import { checkPassthru } from './request.ts';
import type { Tenancies } from './tenancies.ts';
import type { PooledSubnet, Ties } from './ties.ts';
import { undo } from './undo.ts';

/** What networks are made with. */
export interface NetworksParts {
  readonly store: Store;
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly parents: Parents;
  readonly host: HostAccess;
  readonly gateways: Gateways;
  readonly ties: Ties;
  readonly lan: LanOfEndpoints;
  readonly tenancies: Pick<Tenancies, 'leaseForHost' | 'keepForHost' | 'endNetwork'>;
  readonly serial: Serial;
  readonly log: Log;
  readonly now: () => Date;
  /** Whether a container of the network is alive, as far as the kernel knows. */
  readonly isInUse: (networkId: string) => Promise<boolean>;
}

/** A network that is recorded, and what of it the LAN has to say still. */
interface Created {
  readonly network: Network;
  readonly doubtful: readonly DoubtfulGateway[];
  /** It was recorded before, and what there is to warn of was said then. */
  readonly isKnown: boolean;
}

/** The networks of this host. They share parents, so their verbs run one after the other: inTurn(). */
export class Networks {
  readonly #parts: NetworksParts;
  /** Our links for asking the LAN that go with the last network of their parent. */
  readonly #vacating = new Set<Promise<void>>();

  constructor(parts: NetworksParts) {
    this.#parts = parts;
  }

  /** Runs the task when no other one that is in turn runs. */
  inTurn<T>(task: () => Promise<T>): Promise<T> {
    return this.#parts.serial.run('networks', task);
  }

  /** The network's record. Throws NETWORK_UNKNOWN. */
  async get(networkId: string): Promise<Network> {
    const network = await this.#parts.store.networks.get(networkId);
    if (network === undefined) throw errors.networkUnknown(networkId);
    return network;
  }

  /**
   * Its parent is found or made, and its record. The LAN is asked for gateways when other networks can be made again. Throws
   * what refuses such a network, and then undid all.
   */
  async create(request: NetworkRequest, options: NetworkOptions, limit: CallLimit): Promise<void> {
    const { network, doubtful, isKnown } = await this.inTurn(() => this.#create(request, options, limit));
    // The engine is answered meanwhile.
    if (!isKnown) void this.#remark(network);
    const found = doubtful.length === 0 ? [] : await this.#askForGateways(network, doubtful);
    if (isKnown || request.skipsGateways) return;
    const subnets = withGateways(network.subnets, found);
    this.#parts.gateways.warnOfIPv6Alone({ ...network, subnets });
  }

  async #askForGateways(network: Network, doubtful: readonly DoubtfulGateway[]): Promise<DoubtfulGateway[]> {
    try {
      const found = await this.#parts.gateways.ask(network, doubtful);
      await this.inTurn(() => this.#complete(network.id, found));
      return found;
    } catch (error) {
      await undo(this.#parts.log, 'network', () => this.inTurn(() => this.tearDown(network)));
      throw error;
    }
  }

  /** In turn. All of the network is there, and the engine is about to be told. Throws RECORD_CONTENDED. */
  async #complete(networkId: string, found: readonly DoubtfulGateway[]): Promise<void> {
    const { networks } = this.#parts.store;
    const network = await networks.get(networkId);
    // It was removed while the LAN was asked.
    if (network === undefined) return;
    const { isPending: _, ...complete } = network;
    const isWritten = await networks.replace(network, { ...complete, subnets: withGateways(network.subnets, found) });
    if (!isWritten) throw errors.recordContended(`network ${errors.short(networkId)}`);
  }

  async #create(request: NetworkRequest, options: NetworkOptions, limit: CallLimit): Promise<Created> {
    const { parents, store, log } = this.#parts;
    const planned = await parents.plan(options, request.networkId);
    const networks = await store.networks.list();
    const others = networks.filter(({ id }) => id !== request.networkId);
    checkPassthru(planned.name, options, others);
    try {
      const link = await parents.ensure(planned, request.networkId);
      const parent = await parents.settle(planned, link);
      checkPassthru(parent.name, options, others);
      if (options.mtu !== null && options.mtu > link.mtu) throw errors.mtuAboveParent(options.mtu, link.name, link.mtu);
      // Made so for one of our networks, or for this one before.
      const isOurs = networks.some((known) => known.parent.name === parent.name && known.parent.promiscuous);
      const promiscuous = options.promiscuous && (!link.isPromiscuous || isOurs);
      const created = await this.#recordAndSetUp(request, options, { ...parent, promiscuous }, link, limit);
      this.#warn(options, link);
      return created;
    } catch (error) {
      await undo(log, 'parent', () => parents.release(planned, others));
      throw error;
    }
  }

  /** The record first: by it Recovery takes away what a crash leaves of a network that is not complete. */
  async #recordAndSetUp(
    request: NetworkRequest,
    options: NetworkOptions,
    parent: ParentLink,
    link: Link,
    limit: CallLimit,
  ): Promise<Created> {
    const { ties, host, gateways, log } = this.#parts;
    const pooled = await ties.findPools(request.networkId, options.parent, request.subnets);
    checkSource(options, pooled);
    const known = await this.#parts.store.networks.get(request.networkId);
    const { subnets, doubtful } = await gateways.settle({ request, options, parent, link, known }, pooled);
    const pools = pooled.flatMap(({ pool }) => pool ?? []);
    const { networkId: id, internal } = request;
    const planned = {
      id,
      options: { ...options, probe: profileOf(pools) ?? options.probe },
      parent,
      internal,
      subnets,
      createdAt: this.#parts.now().toISOString(),
    };
    const isLeased = isHostLeased(options);
    const hostAddresses = isLeased
      ? await this.#leaseForHost({ ...planned, hostAddresses: [] }, link, limit)
      : await host.choose(options, subnets, pools);
    const network: Network = { ...planned, hostAddresses, ...(known === undefined && { isPending: true }) };
    const replaced = await this.#record(network);
    try {
      await this.setUp(network, link);
      await ties.tiePools(id, pools);
      if (doubtful.length === 0) await this.#complete(id, []);
      return { network, doubtful, isKnown: known !== undefined };
    } catch (error) {
      await undo(log, 'network', () => this.tearDown(network));
      throw error;
    } finally {
      if (replaced !== undefined) await undo(log, 'parent', () => this.#release(replaced));
    }
  }

  async #leaseForHost(network: Network, link: Link, limit: CallLimit): Promise<string[]> {
    const { host, tenancies } = this.#parts;
    const macAddress = await host.leasingMac(link, network.options.macPrefix);
    return [formatAddress(await tenancies.leaseForHost(network, macAddress, limit))];
  }

  /**
   * The same id again is a swarm node's network coming back (protocol: the engine forgets those without a word). Answers
   * the network that had the id before, when it was another.
   */
  async #record(network: Network): Promise<Network | undefined> {
    const { store, isInUse } = this.#parts;
    if (await store.networks.insert(network)) return undefined;
    const known = await store.networks.get(network.id);
    const next = { ...network, createdAt: known?.createdAt ?? network.createdAt };
    if (known === undefined || isDeepStrictEqual(known, next)) return undefined;
    if (await isInUse(network.id)) throw errors.networkDiffers(network.id);
    await store.networks.replace(known, next);
    return known;
  }

  /** What the engine is not told, as it is no reason to refuse the network. Never rejects. */
  async #remark(network: Network): Promise<void> {
    const { links, log } = this.#parts;
    const fields = { network: errors.short(network.id) };
    try {
      const remarks = (await readRemarks(links))(network);
      for (const { short, todo, kind } of remarks)
        if (kind !== 'parent' && kind !== 'gateway')
          log.warn('containers of a new network may not reach others', { ...fields, why: short, todo });
    } catch (error) {
      log.debug('a new network was not compared with what this host has', { ...fields, error: String(error) });
    }
  }

  #warn({ parent }: NetworkOptions, link: Link): void {
    if (parent !== null && !link.isUp)
      this.#parts.log.warn('parent is down: containers have no carrier until it is up', { parent: link.name });
  }

  /** What a network needs on the host beside its parent, whose link is `link`. May be repeated. */
  async setUp(network: Network, link: Link): Promise<void> {
    const { links, host, endpoints } = this.#parts;
    if (network.parent.promiscuous && !link.isPromiscuous) await links.setPromiscuous(link.index, true);
    if (network.hostAddresses.length === 0) return;
    await host.ensure(network, link);
    if (isHostLeased(network.options)) await this.#parts.tenancies.keepForHost(network);
    for (const { id } of endpoints.ofNetwork(network.id)) await this.#restoreRoutes(network, link.name, id);
  }

  /** In the endpoint's turn: a DeleteEndpoint meanwhile would delete its routes before they are made. */
  #restoreRoutes(network: Network, parentName: string, endpointId: string): Promise<void> {
    const { serial, endpoints, host } = this.#parts;
    return serial.run(endpointId, async () => {
      const endpoint = endpoints.get(endpointId);
      if (endpoint !== undefined && endpoint.state !== 'deleting') await host.addRoutes(network, parentName, endpoint);
    });
  }

  /** Makes again, parent and all, what the host lost. Errors are logged: one bad network stops none. */
  async restore(networks: readonly Network[]): Promise<void> {
    const { parents, log } = this.#parts;
    for (const network of networks) {
      await undo(log, `network ${errors.short(network.id)}`, async () =>
        this.setUp(network, await parents.ensure(network.parent, network.id)),
      );
    }
  }

  /** In turn. Takes the network's record away, and from the host what no other network needs. */
  async tearDown(network: Network): Promise<void> {
    const { store, ties, parents, host, tenancies, lan } = this.#parts;
    const known = await store.networks.get(network.id);
    if (known !== undefined) {
      const others = (await store.networks.list()).filter(({ id }) => id !== known.id);
      // Some servers look whether an address is used still when it is given back.
      if (known.options.source === 'dhcp') await host.release(known, others);
      await tenancies.endNetwork(known);
      await ties.passOn(known, others);
      // Nothing on a parent says that we made it promiscuous: only the record does, so that goes after.
      await parents.releasePromiscuity(known.parent, others);
      await store.networks.remove(known);
    }
    lan.endLeft(network);
    await this.#release(network);
  }

  /** Takes from the host what no recorded network needs. */
  async #release({ parent, hostAddresses }: Network): Promise<void> {
    const { store, host, parents } = this.#parts;
    const others = await store.networks.list();
    // Our link for asking the LAN would go by itself some seconds later; who looks now should find the parent as it was.
    if (!others.some((other) => other.parent.name === parent.name)) this.#vacate(parent.name);
    await host.release({ parent, hostAddresses }, others);
    await parents.release(parent, others);
  }

  #vacate(parentName: string): void {
    const { lan, log } = this.#parts;
    const vacating = undo(log, 'the link for asking the LAN', () => lan.vacate(parentName));
    this.#vacating.add(vacating);
    void vacating.then(() => this.#vacating.delete(vacating));
  }

  /** Resolves when the links for asking the LAN are gone that went with the last network of their parent. */
  async untilVacated(): Promise<void> {
    await Promise.all(this.#vacating);
  }

  /** In turn. Links that carry an alias of ours and belong to no record; also those that only ask the LAN. */
  async orphanLinks(): Promise<Link[]> {
    const { store, links, endpoints, host, parents } = this.#parts;
    const networks = await store.networks.list();
    // A container may have written any alias, and its engine has brought its link back under its own name.
    const isRecorded = ({ name }: Link) => endpoints.all().some(({ linkName }) => linkName === name);
    const isOrphan = (link: Link) => {
      const endpointId = endpointOfAlias(link.alias);
      const isOurs = link.alias === PROBE_ALIAS || (endpointId !== null && endpoints.get(endpointId) === undefined);
      return isOurs && !isRecorded(link);
    };
    const subInterfaces = await links.list(isOrphan);
    return [...subInterfaces, ...(await host.orphans(networks)), ...(await parents.orphans(networks))];
  }
}

/** What is left to a DHCP server is so by both drivers. Throws DHCP_SUBNET, DHCP_POOL_ALONE. */
function checkSource({ source }: NetworkOptions, pooled: readonly PooledSubnet[]): void {
  for (const { subnet, pool } of pooled) {
    const isServed = pool?.options['source'] === 'dhcp';
    if (source === 'dhcp' && !isServed) throw errors.dhcpNeedsNull(subnet.subnet);
    if (source !== 'dhcp' && isServed) throw errors.dhcpPoolAlone(subnet.subnet);
  }
}

/** The host's end has an address of the DHCP server too, unless the user named one. */
function isHostLeased({ source, hostAccess, hostAddresses }: NetworkOptions): boolean {
  return source === 'dhcp' && hostAccess && hostAddresses.length === 0;
}

/** `--ipam-opt probe=`, which goes before `-o probe=`; the engine gives all pools of a network the same options. */
function profileOf(pools: readonly Pool[]): ProbeProfile | null {
  const profile = pools.map(({ options }) => options['probe']).find((option) => option !== undefined);
  return (profile as ProbeProfile | undefined) ?? null;
}

/** Those that were found in the place of what was recorded. */
function withGateways(subnets: Network['subnets'], found: readonly DoubtfulGateway[]): Network['subnets'] {
  const gatewayOf = (subnet: string) => found.find((one) => one.subnet === subnet)?.gateway;
  return subnets.map((one) => ({ ...one, gateway: gatewayOf(one.subnet) ?? one.gateway }));
}
