/**
 * Which gateways the containers of a network get: those that exist. An engine that was told none makes one up, the lowest
 * address. A default route to nobody takes a container off the Internet, and for IPv6 it hides the router that router
 * advertisements tell of (RFC 4861 6.3.6).
 */
import {
  type Address,
  contains,
  formatAddress,
  isSameAddress,
  lowestHost,
  parseAddress,
  parsePrefix,
  type Prefix,
} from '../address.ts';
import * as errors from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { Log } from '../log.ts';
import type { Network, NetworkOptions, NetworkSubnet, ParentLink, Pool, Segment } from '../model.ts';
import { isOfSwarm } from '../model.ts';
import type { NetworkRequest } from '../requests.ts';
import { leaseKey, realmOf, type Store } from '../store/store.ts';
import { NOT_HELD, type Verdict } from '../lan/verdict.ts';
import type { LanOfEndpoints } from './endpointlan.ts';
import type { PooledSubnet } from './ties.ts';

/** The IPAM, as far as gateways need it. */
export interface GatewayAddresses {
  /** Keeps the address from containers until the pool is released. Throws ADDRESS_TAKEN. */
  reserveGateway(poolId: string, address: string): Promise<void>;
}

interface Parts {
  readonly store: Pick<Store, 'leases'>;
  readonly links: Links;
  readonly lan: LanOfEndpoints;
  readonly addresses: GatewayAddresses;
  readonly log: Log;
}

/** A network on its way, and the link that carries it. */
export interface NetworkPlan {
  readonly request: NetworkRequest;
  readonly options: NetworkOptions;
  readonly parent: ParentLink;
  readonly link: Link;
  /** What was recorded under its id before: its gateways are not judged again. */
  readonly known: Network | undefined;
}

/**
 * `named`: by the user. `chosen`: the engine wanted one, and the IPAM gave it one. `unclear`: with another IPAM than ours an
 * engine does not say which of the two it was.
 */
type Origin = 'named' | 'chosen' | 'unclear';

/** One that is a gateway only if somebody answers there. Until that is known containers would get the other. */
export interface DoubtfulGateway {
  readonly subnet: string;
  readonly gateway: string;
  readonly otherwise: string | null;
  /** What the log says when somebody answers; null where the engine told it. */
  readonly note: string | null;
  /** What the log says when nobody answers. */
  readonly warning: string;
}

/** Of a network that is about to be recorded. */
export interface SettledGateways {
  readonly subnets: readonly NetworkSubnet[];
  readonly doubtful: readonly DoubtfulGateway[];
}

type Settled = string | null | DoubtfulGateway;

/** Addresses; a smaller range is hardly made, and an address that a user thinks of is hardly a multiple of it. */
const LEAST_RANGE = 16n;

const NONE =
  'no gateway was named, and the host has none in this subnet: containers get no IPv4 default route; make the network with --gateway or -o gateway= to give one';
const ITSELF =
  'what would be the gateway is an address of this host, which containers do not reach: they do not get it; -o host_access=true lets them, and --gateway names another one';
const ITSELF_NAMED =
  'the gateway that was named is an address of this host, which containers do not reach; -o host_access=true lets them';
const HOSTS =
  "no gateway was named: containers get the host's own default gateway; --gateway or -o gateway= names another";
const LOWEST =
  'no gateway was named: containers get the lowest address of the subnet, where somebody answers; --gateway or -o gateway= names another';
const HOSTS_OWN_INSTEAD =
  "nobody answers at the gateway that the engine told: containers get the host's own; -o gateway= with its address insists";
const ROUTERS_INSTEAD =
  'nobody answers at the IPv6 gateway that the engine told: containers take that of router advertisements; -o gateway= with its address insists';
const IPV6_ALONE =
  'this engine gives containers no IPv6 default route where there is no IPv4 gateway: name one of IPv4 as well with --gateway or -o gateway=, or leave IPv6 to router advertisements (-o gateway=ipv4)';

/** Finds out, when a network is made, which gateway each of its subnets has. */
export class Gateways {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** The subnets with the gateways that containers get, as far as the LAN need not be asked. Throws GATEWAY_OUTSIDE, ADDRESS_TAKEN. */
  async settle(plan: NetworkPlan, pooled: readonly PooledSubnet[]): Promise<SettledGateways> {
    const { request, options, parent } = plan;
    const isWithout = request.internal || parent.recipe === 'isolated' || !options.gateway;
    // In which subnet the containers of a DHCP server's network are is known with their leases.
    const wishes = isWithout || options.source === 'dhcp' ? [] : (options.gatewayAddresses ?? []);
    for (const address of wishes) checkInside(address, pooled);
    const subnets: NetworkSubnet[] = [];
    const doubtful: DoubtfulGateway[] = [];
    for (const one of pooled) {
      const settled = isWithout ? one.subnet.gateway : await this.#settle(plan, one, wishes);
      if (!isWithout && typeof settled === 'string') await this.#warnOfHost(plan, settled, one.subnet.subnet);
      const isDoubtful = settled !== null && typeof settled === 'object';
      if (isDoubtful) doubtful.push(settled);
      const gateway = isDoubtful ? settled.otherwise : settled;
      subnets.push({ ...one.subnet, gateway, realm: one.pool && realmOf(one.pool) });
    }
    return { subnets, doubtful };
  }

  /**
   * Asks the LAN of a network that is recorded: some 0.7 s, in which other networks may be made. Answers those that are
   * gateways; the others are said in the log. A LAN that cannot be asked has answered nothing.
   */
  async ask({ id, parent, options }: Network, doubtful: readonly DoubtfulGateway[]): Promise<DoubtfulGateway[]> {
    const place = { parentName: parent.name, mode: options.mode, profile: null };
    const verdicts = await Promise.all(doubtful.map((one) => this.#whoIsAt(place, one)));
    return doubtful.filter(({ subnet, gateway, otherwise, warning, note }, at) => {
      const verdict = verdicts[at] ?? NOT_HELD;
      const isTaken = verdict.held && (!verdict.isOnHost || options.hostAccess);
      const fields = { network: errors.short(id), subnet, gateway };
      if (isTaken && note !== null) this.#parts.log.info(note, fields);
      if (!isTaken)
        this.#parts.log.warn(verdict.held ? ITSELF : warning, {
          ...fields,
          ...(otherwise !== null && { host: otherwise }),
        });
      return isTaken;
    });
  }

  /** Of an engine before 28: it sets default routes only from an endpoint that has an IPv4 gateway (libnetwork default_gateway.go). */
  warnOfIPv6Alone({ id, options, internal, parent, subnets }: Network): void {
    if (internal || parent.recipe === 'isolated' || !options.gateway) return;
    const gateways = subnets.flatMap(({ gateway }) => gateway ?? []);
    const [gateway] = gateways;
    const isAlone = gateway !== undefined && gateways.every((one) => one.includes(':'));
    if (isAlone) this.#parts.log.warn(IPV6_ALONE, { network: errors.short(id), gateway });
  }

  async #whoIsAt(place: Segment, { gateway, subnet }: DoubtfulGateway): Promise<Verdict> {
    const [address, prefix] = [parseAddress(gateway), parsePrefix(subnet)];
    if (address === undefined || prefix === undefined) return NOT_HELD;
    return this.#parts.lan.whoIsAt(place, address, prefix).catch(() => NOT_HELD);
  }

  /** Macvlan hides a parent from its own sub-interfaces. What is known from before was said before. */
  async #warnOfHost({ request, options, link, known }: NetworkPlan, gateway: string, subnet: string): Promise<void> {
    if (options.hostAccess || known !== undefined) return;
    const isOwn = (await this.#parts.links.addresses(link.index)).some(({ address }) => address === gateway);
    if (isOwn) this.#parts.log.warn(ITSELF_NAMED, { network: errors.short(request.networkId), subnet, gateway });
  }

  async #settle(plan: NetworkPlan, one: PooledSubnet, wishes: readonly string[]): Promise<Settled> {
    const prefix = parsePrefix(one.subnet.subnet);
    const { gatewayFamilies } = plan.options;
    if (prefix === undefined || gatewayFamilies?.includes(prefix.family) === false) return null;
    // The null IPAM's word for no addresses.
    if (prefix.length === 0) return one.subnet.gateway;
    const wish = wishes.find((text) => isInside(text, prefix));
    if (wish !== undefined) return this.#reserve(one, wish);
    // Each lease tells it.
    if (plan.options.source === 'dhcp') return one.subnet.gateway;
    const origin = await this.#originOf(plan.request, one, prefix);
    if (origin === 'named') return one.subnet.gateway;
    const known = plan.known?.subnets.find(
      ({ subnet, realm }) => subnet === one.subnet.subnet && realm === realmIn(one),
    );
    if (known !== undefined) return known.gateway;
    return prefix.family === 'IPv6' ? judgeIPv6(one, origin) : this.#judgeIPv4(plan, one, prefix, origin);
  }

  async #reserve({ subnet, pool }: PooledSubnet, gateway: string): Promise<string> {
    if (pool !== null && gateway !== subnet.gateway) await this.#parts.addresses.reserveGateway(pool.id, gateway);
    return gateway;
  }

  async #originOf({ networkId, skipsGateways }: NetworkRequest, one: PooledSubnet, prefix: Prefix): Promise<Origin> {
    const { subnet, pool } = one;
    const { gateway } = subnet;
    if (gateway === null) return 'chosen';
    if (pool === null) {
      // What a swarm's managers gave out is the same on all nodes. Engines from 28 on were told to make up no IPv6 gateway.
      const isNamed =
        isOfSwarm(networkId) || (prefix.family === 'IPv6' && (skipsGateways || !isFirst(gateway, prefix)));
      return isNamed ? 'named' : 'unclear';
    }
    const lease = await this.#parts.store.leases.get(leaseKey({ realm: realmOf(pool), address: gateway }));
    return lease?.isUnnamed === true ? 'chosen' : 'named';
  }

  /**
   * The host's own gateway there is one that works; else the subnet's lowest address may be one, unless it is of the range that was
   * named for containers: who answers at another one is anybody. With another IPAM one that is unclear stays, unless the host has another
   * gateway on this LAN and nobody answers for it.
   */
  async #judgeIPv4(plan: NetworkPlan, one: PooledSubnet, prefix: Prefix, origin: Origin): Promise<Settled> {
    const { subnet, gateway: told } = one.subnet;
    const hosts = await this.#hostGateway(plan.link, prefix);
    if (origin === 'unclear' && (hosts === null || hosts === told)) return told;
    if (origin === 'unclear' && told !== null)
      return { subnet, gateway: told, otherwise: hosts, warning: HOSTS_OWN_INSTEAD, note: null };
    const network = errors.short(plan.request.networkId);
    if (hosts !== null && (await this.#take(one, hosts))) {
      this.#parts.log.info(HOSTS, { network, subnet, gateway: hosts });
      return hosts;
    }
    if (told !== null && isCustomary(told, prefix, one.pool))
      return { subnet, gateway: told, otherwise: null, warning: NONE, note: LOWEST };
    this.#parts.log.warn(NONE, { network, subnet });
    return null;
  }

  /** False when a container or another use of it is in the way. */
  async #take({ subnet, pool }: PooledSubnet, gateway: string): Promise<boolean> {
    if (pool === null || gateway === subnet.gateway) return true;
    try {
      await this.#parts.addresses.reserveGateway(pool.id, gateway);
      return true;
    } catch (error) {
      if (error instanceof errors.PluginError && error.kind === 'mistake') return false;
      throw error;
    }
  }

  async #hostGateway(link: Link, prefix: Prefix): Promise<string | null> {
    const routes = await this.#parts.links.defaultRoutes();
    const found = routes.flatMap(({ linkIndex, gateway }) => (linkIndex === link.index && gateway) || []);
    return found.find((gateway) => isInside(gateway, prefix)) ?? null;
  }
}

/** Routers advertise themselves; one that an engine before 28 tells is taken if somebody is there. */
function judgeIPv6({ subnet: { subnet, gateway } }: PooledSubnet, origin: Origin): Settled {
  if (origin === 'chosen' || gateway === null) return null;
  return { subnet, gateway, otherwise: null, warning: ROUTERS_INSTEAD, note: null };
}

/** Gateways of the host's default routes, of whatever link; a subnet tells which of them may be a network's. */
export async function gatewaysOfHost(links: Pick<Links, 'defaultRoutes'>): Promise<Address[]> {
  const routes = await links.defaultRoutes();
  return routes.flatMap(({ gateway }) => parseAddress(gateway ?? '') ?? []);
}

/** The first address of the subnet, or perhaps of a range in it: those that Docker's IPAM gives a network as its gateway. */
function isFirst(gateway: string, { first }: Prefix): boolean {
  const value = parseAddress(gateway)?.value ?? 0n;
  return value === first + 1n || value % LEAST_RANGE === 0n;
}

/** The lowest address is the router's by custom, but hardly where the user says that containers get it. */
function isCustomary(gateway: string, subnet: Prefix, pool: Pool | null): boolean {
  const address = parseAddress(gateway);
  if (address === undefined || !isSameAddress(address, lowestHost(subnet))) return false;
  const range = parsePrefix(pool?.range ?? '');
  return range === undefined || !contains(range, address);
}

function realmIn({ pool }: PooledSubnet): string | null {
  return pool && realmOf(pool);
}

function isInside(text: string, prefix: Prefix): boolean {
  const address = parseAddress(text);
  return address !== undefined && contains(prefix, address);
}

function checkInside(text: string, pooled: readonly PooledSubnet[]): void {
  const subnets = pooled.map(({ subnet }) => subnet.subnet);
  const isAnywhere = subnets.some((subnet) => {
    const prefix = parsePrefix(subnet);
    return prefix !== undefined && isInside(text, prefix);
  });
  const address = parseAddress(text);
  if (!isAnywhere) throw errors.gatewayOutside(address === undefined ? text : formatAddress(address), subnets);
}
