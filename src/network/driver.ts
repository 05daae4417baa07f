/**
 * The NetworkDriver's verbs, in the order the engine sends them. Each may be repeated; each has made its record
 * when it returns, which the server makes durable before the reply; what one makes, its twin unmakes.
 */
import type { Address } from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { Leak, LeakSource } from '../leak.ts';
import { endpointAlias } from '../linknames.ts';
import type { Log } from '../log.ts';
import type { Endpoint, Network } from '../model.ts';
import type {
  Attachment,
  CallLimit,
  CreatedEndpoint,
  EndpointRequest,
  GatewayCheck,
  NetworkRequest,
} from '../requests.ts';
import { Serial } from '../serial.ts';
import type { Store } from '../store/store.ts';
import { LanAddressServer } from './addressserver.ts';
import { Announcements } from './announcements.ts';
import { Departures } from './departures.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { Endpoints } from './endpoints.ts';
import { type GatewayAddresses, Gateways } from './gateways.ts';
import type { IPv6Addresses } from './ipv6.ts';
import { HostAccess, type HostAddresses } from './host.ts';
import { NetworkLeaks } from './leaks.ts';
import type { MacClaim } from './macclaims.ts';
import { Networks } from './networks.ts';
import { Newcomers } from './newcomers.ts';
import { Occupants } from './occupants.ts';
import { readNetworkOptions } from './options.ts';
import { Parents } from './parent.ts';
import { Recovery } from './recovery.ts';
import { Returning } from './returning.ts';
import { subInterfaceRefusal } from './refusal.ts';
import { checkInside, checkRequest, created, gatewayFor, readMac, repeated } from './request.ts';
import { type LeaseSource, Tenancies } from './tenancies.ts';
import { Ties } from './ties.ts';
import { undo } from './undo.ts';
import { within, Witness } from './witness.ts';

/** What the NetworkDriver works with. */
export interface NetworkDriverParts {
  readonly store: Store;
  /** Of the same store; read by recover(). */
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly lan: LanOfEndpoints;
  readonly dhcp: LeaseSource;
  readonly ipv6: IPv6Addresses;
  readonly hostAddresses: HostAddresses & GatewayAddresses;
  /** Alias to link name, from the setting PARENTS. */
  readonly parentAliases: ReadonlyMap<string, string>;
  readonly log: Log;
  readonly now?: () => Date;
  /** Called when a network's record and all that it needs on the host is there. */
  readonly onCreated: (networkId: string) => void;
}

/** The last verdict about the LAN is no older than this when Join is answered, in milliseconds. */
const MOST_BEFORE_REPLY_MS = 50;
/** Longest that another room waits for the word whether an endpoint is gone. */
const CERTAIN_MS = 4000;

/**
 * Networks and endpoints of this host. Network verbs share parents, so they run one after the other; endpoint verbs only
 * per endpoint. Refusals are PluginErrors of kind `mistake`; what the kernel or the store cannot do is of kind `fault`.
 */
export class NetworkDriver implements LeakSource {
  readonly #store: Store;
  readonly #links: Links;
  readonly #endpoints: Endpoints;
  readonly #lan: LanOfEndpoints;
  readonly #log: Log;
  readonly #onCreated: (networkId: string) => void;
  readonly #serial = new Serial();
  readonly #parents: Parents;
  readonly #host: HostAccess;
  readonly #ties: Ties;
  readonly #announcements: Announcements;
  readonly #networks: Networks;
  readonly #departures: Departures;
  readonly #witness: Witness;
  readonly #tenancies: Tenancies;
  readonly #newcomers: Newcomers;
  readonly #occupants: Occupants;
  readonly #recovery: Recovery;
  readonly #returning: Returning;
  readonly #leaks: NetworkLeaks;
  /** For the IPAM room. */
  readonly addressServer: LanAddressServer;
  /** Networks that the engine made since this process began. */
  readonly #created = new Set<string>();

  constructor(parts: NetworkDriverParts) {
    const { store, endpoints, links, lan, dhcp, parentAliases, log, now = () => new Date() } = parts;
    const serial = this.#serial;
    const parents = new Parents(links, parentAliases);
    const host = new HostAccess(links, parts.hostAddresses, store, log);
    const gateways = new Gateways({ store, links, lan, addresses: parts.hostAddresses, log });
    const ties = new Ties(store, now);
    const announcements = new Announcements(links, lan);
    const isInUse = (networkId: string) => this.#occupants.isInUse(networkId);
    const witness = new Witness({ networks: store.networks, endpoints, links });
    const tenancies = new Tenancies({ store, endpoints, links, dhcp, ipv6: parts.ipv6, witness, log, now });
    const made = { store, endpoints, links, parents, host, gateways, ties, lan, tenancies, serial, log, now };
    const networks = new Networks({ ...made, isInUse });
    this.addressServer = new LanAddressServer({ store, links, parents, tenancies, dhcp, parentAliases });
    const leaving = { networks: store.networks, endpoints, links, host, lan, announcements, tenancies, log };
    const departures = new Departures(leaving);
    const wasCreated = (networkId: string) => this.#created.has(networkId);
    [this.#store, this.#endpoints, this.#links, this.#lan] = [store, endpoints, links, lan];
    [this.#log, this.#onCreated, this.#witness, this.#tenancies] = [log, parts.onCreated, witness, tenancies];
    [this.#parents, this.#host, this.#ties] = [parents, host, ties];
    [this.#announcements, this.#networks, this.#departures] = [announcements, networks, departures];
    this.#occupants = new Occupants({
      networks: store.networks,
      endpoints,
      departures,
      witness,
      host,
      lan,
      serial,
      log,
    });
    this.#newcomers = new Newcomers({ ties, tenancies, occupants: this.#occupants, lan, now });
    this.#recovery = new Recovery({ store, endpoints, departures, networks, host, links, lan, witness, log, now });
    this.#returning = new Returning({ networks: store.networks, endpoints, links, lan, log });
    this.#leaks = new NetworkLeaks({ store, endpoints, departures, networks, ties, links, serial, wasCreated });
  }

  // --- networks ---------------------------------------------------------------------------------------------------

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

  /**
   * Engine 28 and later ask before they make up a gateway that nobody named. They are told to make none for IPv6: routers
   * advertise themselves. Throws what is wrong with the `-o` options.
   */
  skipGateway(request: Pick<GatewayCheck, 'options' | 'internal'>): { ipv4: boolean; ipv6: boolean } {
    const options = readNetworkOptions(request.options);
    const isWithout = request.internal || options.parent === null || !options.gateway || options.source === 'dhcp';
    // Docker's own IPAM would give the router's address to the first container if no gateway was reserved.
    const isWithoutIPv4 = options.gatewayFamilies?.includes('IPv4') === false;
    return { ipv4: isWithout || isWithoutIPv4, ipv6: true };
  }

  /** Finds or makes the parent. The same network again is success; another one under its id replaces one without endpoints. */
  async createNetwork(request: NetworkRequest, limit = within()): Promise<void> {
    const options = readNetworkOptions(request.options);
    await this.#networks.create(checkRequest(request, options), options, limit);
    this.#created.add(request.networkId);
    this.#onCreated(request.networkId);
  }

  /** With its endpoints. Unknown is success: the engine has forgotten the network whatever is answered. */
  async deleteNetwork(networkId: string): Promise<void> {
    // The kernel takes its time for each link: that is waited for before and after the turn in the queue, not in it.
    await this.#deleteEndpointsOf(networkId);
    await this.#networks.inTurn(async () => {
      await this.#deleteEndpointsOf(networkId);
      const network = await this.#store.networks.get(networkId);
      if (network !== undefined) await this.#networks.tearDown(network);
      this.#created.delete(networkId);
    });
    await this.#networks.untilVacated();
  }

  async #deleteEndpointsOf(networkId: string): Promise<void> {
    for (const endpoint of this.#endpoints.ofNetwork(networkId)) await this.deleteEndpoint(networkId, endpoint.id);
    const leaving = this.#endpoints.ofNetwork(networkId);
    await Promise.all(leaving.map((endpoint) => this.#departures.untilDone(endpoint)));
  }

  // --- endpoints --------------------------------------------------------------------------------------------------

  /**
   * Makes the sub-interface in the host's namespace. Answers the MAC address chosen here; null when the engine named one,
   * which it then does not want to hear again. Throws when an address is outside the network, in use on the parent or on
   * the LAN, when the MAC address cannot be had, and what the kernel refuses; then nothing is left.
   */
  async createEndpoint(request: EndpointRequest): Promise<CreatedEndpoint> {
    const macAddress = request.macAddress === null ? null : readMac(request.macAddress);
    return this.#serial.run(request.endpointId, () => this.#createEndpoint({ ...request, macAddress }));
  }

  /** How long that may take on this network, in milliseconds; null as long as any call. */
  patienceMs(networkId: string): Promise<number | null> {
    return this.#tenancies.patienceMs(networkId);
  }

  async #createEndpoint(request: EndpointRequest): Promise<CreatedEndpoint> {
    const network = await this.#networks.get(request.networkId);
    checkInside(request, network);
    const known = this.#endpoints.get(request.endpointId);
    if (known !== undefined && known.state !== 'deleting') return repeated(known, request, network);
    if (known !== undefined) await this.#awaitEnd(known);

    const parent = await this.#parents.ensure(network.parent, network.id);
    const isLeased = network.options.source === 'dhcp';
    const make = (claim: MacClaim | null) => this.#make(request, network, parent, claim);
    const endpoint = isLeased ? await this.#tenancies.claimed(request, network, parent, make) : await make(null);
    this.#warnOfPorts(request);
    return created(endpoint, request);
  }

  async #make(request: EndpointRequest, network: Network, parent: Link, claim: MacClaim | null): Promise<Endpoint> {
    const { wanted, isMacChosen } = await this.#newcomers.expect(request, network, parent, claim);
    // It may have been removed while the LAN was asked.
    await this.#networks.get(network.id);
    // Nothing is awaited until it arrives: of two that come at once the second sees the first.
    const endpoint = this.#occupants.admit(wanted, network, parent, isMacChosen);
    try {
      await this.#endpoints.arrive(endpoint, () => this.#attach(network, parent, endpoint, isMacChosen, request.limit));
    } catch (error) {
      this.#lan.forget(endpoint);
      throw error;
    }
    if (claim !== null) await this.#tenancies.keep(endpoint, network);
    return endpoint;
  }

  /** Of an endpoint whose id comes again: only when it is gone are its link's name and its record's key free. */
  async #awaitEnd(last: Endpoint): Promise<void> {
    if (!this.#departures.has(last)) this.#departures.beginRemoval(last);
    await this.#departures.untilDone(last);
    if (this.#endpoints.get(last.id) !== undefined) throw errors.endpointDiffers(last.id);
  }

  /**
   * Link, then ties, then record: a link without a record is what recovery removes. The LAN is asked meanwhile; what is not
   * answered when all that is done is waited for in Join.
   */
  async #attach(
    network: Network,
    parent: Link,
    endpoint: Endpoint,
    isMacChosen: boolean,
    limit: CallLimit,
  ): Promise<void> {
    // A passthru child wants the parent for itself, so that nobody can ask from there while it is made.
    const isAlone = network.options.mode === 'passthru';
    const asked = this.#lan.ask(network, endpoint, limit);
    asked.answer.catch(() => undefined);
    if (isAlone) await asked.answer;
    const link = await this.#addSubInterface(network, parent, endpoint);
    try {
      await this.#host.addRoutes(network, parent.name, endpoint);
      await this.#ties.tieLeases(network, endpoint);
      await this.#ties.rememberMac(network, endpoint, isMacChosen);
      if (asked.isDoubtful()) await asked.answer;
      await this.#store.endpoints.insert(endpoint);
      this.#lan.watch(endpoint, network);
    } catch (error) {
      await undo(this.#log, 'host routes', () => this.#host.deleteRoutes(network, endpoint));
      await undo(this.#log, 'lease ties', () => this.#ties.untieLeases(network, endpoint));
      await undo(this.#log, 'sub-interface', () => this.#links.deleteLink(link.index));
      throw error;
    }
  }

  async #addSubInterface({ options }: Network, parent: Link, endpoint: Endpoint): Promise<Link> {
    const macAddress = options.mode === 'passthru' ? null : endpoint.macAddress;
    const mtu = options.mtu ?? (await this.#tenancies.mtuFor(endpoint, parent.mtu));
    if (options.mode === 'passthru') await this.#lan.vacate(parent.name);
    try {
      return await this.#links.addMacvlan({
        name: endpoint.linkName,
        alias: endpointAlias(endpoint.id),
        parentIndex: parent.index,
        mode: options.mode,
        macAddress,
        mtu,
        broadcastQueueLength: options.broadcastQueueLength,
      });
    } catch (error) {
      const wanted = { wanted: mtu, parents: parent.mtu };
      throw subInterfaceRefusal(error, { parent: parent.name, mode: options.mode, macAddress, mtu: wanted });
    }
  }

  #warnOfPorts({ networkId, endpointId, publishedPorts }: EndpointRequest): void {
    if (publishedPorts.length === 0) return;
    this.#log.warn('published ports are ignored: the container is on the LAN with its own address', {
      network: errors.short(networkId),
      endpoint: errors.short(endpointId),
      ports: publishedPorts.join(' '),
    });
  }

  /**
   * Acknowledged with the intent: the kernel takes some 16 ms for a link (it waits for RCU readers),
   * which overlaps with the engine's own clean-up. A crash in between is finished by recover(). Unknown is success.
   */
  async deleteEndpoint(networkId: string, endpointId: string): Promise<void> {
    this.#witness.noteEnd(endpointId);
    await this.#serial.run(endpointId, async () => {
      const endpoint = this.#endpoints.get(endpointId);
      if (endpoint === undefined || endpoint.networkId !== networkId || endpoint.state === 'deleting') return;
      const network = await this.#store.networks.get(networkId);
      const leaving = await this.#endpoints.change(endpoint, { state: 'deleting' });
      if (network !== undefined) await this.#ties.untieLeases(network, leaving);
      this.#departures.beginRemoval(leaving);
      if (network !== undefined) void this.#lan.returned(leaving, network).catch(() => undefined);
    });
  }

  // --- sandboxes --------------------------------------------------------------------------------------------------

  /**
   * No kernel work: the engine moves the link into the sandbox itself. The LAN is asked for the last time. Throws
   * NETWORK_UNKNOWN, ENDPOINT_UNKNOWN, ADDRESS_LOST; DeleteEndpoint follows then.
   */
  async join(networkId: string, endpointId: string, limit: CallLimit): Promise<Attachment> {
    const network = await this.#networks.get(networkId);
    return this.#serial.run(endpointId, async () => {
      const endpoint = this.#endpoints.get(endpointId);
      if (endpoint === undefined || endpoint.networkId !== networkId || endpoint.state === 'deleting')
        throw errors.endpointUnknown(endpointId, networkId);
      // Said again, the container may speak already.
      if (endpoint.state === 'created') await this.#enter(network, endpoint, limit);
      else await this.#store.durable();
      this.#announcements.start(endpoint, network);
      return {
        linkName: endpoint.linkName,
        interfaceName: endpoint.interfaceName,
        gateway: gatewayFor(network, endpoint, 'IPv4'),
        gatewayIPv6: gatewayFor(network, endpoint, 'IPv6'),
        routes: [],
        ...(await this.#tenancies.routesFor(endpoint, network)),
      };
    });
  }

  /** The record reaches the disk while the LAN is asked; where that takes long the answer is too old, and the LAN is asked again. */
  async #enter(network: Network, endpoint: Endpoint, limit: CallLimit): Promise<void> {
    const confirmed = this.#lan.confirm(network, endpoint, limit).then(() => performance.now());
    confirmed.catch(() => undefined);
    const joined = await this.#endpoints.change(endpoint, { state: 'joined' });
    try {
      const [confirmedAtMs] = await Promise.all([confirmed, this.#store.durable()]);
      // Last, as this host may have stood still in any wait before.
      await this.#ties.assureLeases(network, endpoint);
      if (performance.now() - confirmedAtMs > MOST_BEFORE_REPLY_MS) await this.#lan.confirm(network, endpoint, limit);
    } catch (error) {
      await undo(this.#log, 'the state of an endpoint', () => this.#endpoints.change(joined, { state: 'created' }));
      throw error;
    }
  }

  /**
   * The engine brings the link back, and DeleteEndpoint follows. Until then the container still has its addresses; what else it has
   * is noted before the engine takes it apart, and that they are kept for its next start is nothing that it waits for.
   */
  async leave(networkId: string, endpointId: string): Promise<void> {
    const network = await this.#store.networks.get(networkId);
    const endpoint = this.#endpoints.get(endpointId);
    if (network === undefined || endpoint?.networkId !== networkId || endpoint.state !== 'joined') return;
    this.#returning.left(endpoint, network);
    await this.#lan.noteLeaver(endpoint, network);
    // Without standby the next start takes a little longer.
    void this.#lan.keepLeft(endpoint, network).catch(() => undefined);
  }

  // --- what the kernel says of an endpoint ---------------------------------------------------------------------------

  /** Nothing is left of it: true for one that is unknown or leaves. Waits for certainty, some seconds at most. */
  async isGone(endpointId: string): Promise<boolean> {
    const endpoint = this.#endpoints.get(endpointId);
    return endpoint === undefined || this.#witness.isGone(endpoint, within(CERTAIN_MS));
  }

  /** Its engine has said DeleteEndpoint, and says ReleaseAddress next. */
  hasEnded(endpointId: string): boolean {
    return this.#witness.hasEnded(endpointId);
  }

  /** False only where its link is up in its container without the address, and for an endpoint that is unknown. */
  async hasAddress(endpointId: string, address: Address): Promise<boolean> {
    const endpoint = this.#endpoints.get(endpointId);
    return endpoint !== undefined && this.#witness.hasAddress(endpoint, address);
  }

  /** The endpoint lives on without the address, which its engine took back. */
  async dropAddress(endpointId: string, address: Address): Promise<void> {
    await this.#serial.run(endpointId, () => this.#occupants.withdraw(endpointId, [address]));
  }

  // --- start, collector and stop ----------------------------------------------------------------------------------

  /** Rebuilds what the host lost and finishes what a crash interrupted. Errors are logged: one bad network stops none. */
  async recover(): Promise<void> {
    await this.#recovery.recover();
    await this.#tenancies.begin();
    await this.#returning.begin();
  }

  /** What nobody has used for a month. */
  async forgetUnused(): Promise<void> {
    await this.#tenancies.forgetUnused();
  }

  /** What containers and networks left behind whose end nobody reported. */
  async leaks(): Promise<Leak[]> {
    return this.#leaks.leaks();
  }

  /** Resolves when every acknowledged deletion is done. */
  async close(): Promise<void> {
    this.#announcements.close();
    this.#lan.close();
    await this.#returning.close();
    await this.#recovery.close();
    await Promise.all([this.#departures.untilAllDone(), this.#networks.untilVacated()]);
    await this.#tenancies.close();
  }
}
