/**
 * Host access: macvlan hides a parent from its own sub-interfaces, so the host gets a sub-interface too, one per parent,
 * with an address for each network that asks for it and a route to each of its containers. There it also answers for the
 * addresses that it has on the parent: for those of IPv4 by itself (Links.keepArpApart()), for those of IPv6 because they are
 * on the sub-interface as well.
 */
import { formatAddress, macFromIPv4, macFromIPv6, parseAddress, parsePrefix, contains } from '../address.ts';
import * as errors from '../errors.ts';
import { isKernelError } from '../kernel/errno.ts';
import type { Link, Links } from '../kernel/link.ts';
import { HOST_ALIAS, hostLinkName } from '../linknames.ts';
import type { Log } from '../log.ts';
import type { Endpoint, Network, NetworkOptions, NetworkSubnet, Pool } from '../model.ts';
import type { Store } from '../store/store.ts';
import { subInterfaceRefusal } from './refusal.ts';
import { hostnameMac } from './request.ts';

/** The IPAM, as far as host access needs it. */
export interface HostAddresses {
  /** Keeps an address of the pool from containers, the one named or the lowest free. Without prefix length. */
  reserveHostAddress(poolId: string, address: string | null): Promise<string>;
}

/** No container's name: those are labels. */
const HOST_ACCESS = 'host access';

/** What of the records is looked at. */
interface HostStore {
  readonly networks: Pick<Store['networks'], 'list'>;
  readonly tenancies: Pick<Store['tenancies'], 'list'>;
}

/** The owner of what the host's own end has of a DHCP server. */
export const HOST_OWNER = 'host';

/** Makes, keeps and takes away the host's own links, addresses and routes of networks with host access. */
export class HostAccess {
  readonly #links: Links;
  readonly #addresses: HostAddresses;
  readonly #store: HostStore;
  readonly #log: Log;

  constructor(links: Links, addresses: HostAddresses, store: HostStore, log: Log) {
    this.#links = links;
    this.#addresses = addresses;
    this.#store = store;
    this.#log = log;
  }

  /** The host's addresses on the network: one per subnet whose pool is ours, or those the user named. */
  async choose(options: NetworkOptions, subnets: readonly NetworkSubnet[], pools: readonly Pool[]): Promise<string[]> {
    if (!options.hostAccess) return [];
    if (options.source === 'dhcp') return [...options.hostAddresses];
    for (const address of options.hostAddresses) checkInside(address, subnets);
    const wishes = subnets.map((subnet) => ({
      subnet: subnet.subnet,
      pool: pools.find((pool) => pool.addressSpace === subnet.addressSpace && pool.subnet === subnet.subnet),
      address: options.hostAddresses.find((address) => isInside(address, subnet)) ?? null,
    }));
    // All of them before the first address is taken.
    for (const { subnet, pool, address } of wishes)
      if (pool === undefined && address === null) throw errors.hostAddressNeeded(subnet);
    const chosen: string[] = [];
    for (const { pool, address } of wishes)
      chosen.push(
        pool === undefined ? (address as string) : await this.#addresses.reserveHostAddress(pool.id, address),
      );
    return chosen;
  }

  /** The MAC address of the host's end on the parent, or that which it would have. A DHCP server knows it by that. */
  async leasingMac(parent: Link, macPrefix: string): Promise<string> {
    const link = await this.#links.byName(hostLinkName(parent.name));
    if (link?.alias === HOST_ALIAS) return link.macAddress;
    return (await this.#leasedMac(parent.name)) ?? hostnameMac(macPrefix, parent.macAddress, HOST_ACCESS);
  }

  async #leasedMac(parentName: string): Promise<string | undefined> {
    const tenancies = await this.#store.tenancies.list(`${parentName} `);
    return tenancies.find(({ owner }) => owner === HOST_OWNER)?.macAddress;
  }

  /** Makes what is missing for a network that has host access: the host's end and its addresses. */
  async ensure(network: Network, parent: Link): Promise<void> {
    const link =
      (await this.#links.byName(hostLinkName(parent.name))) ??
      (await this.#add(parent, network.hostAddresses[0] as string));
    for (const address of network.hostAddresses)
      await isNew(() => this.#links.addAddress(link.index, whole(address), { noDad: true }));
    await this.#links.setUp(link.index);
    await this.#shareIPv6(link, parent);
  }

  /**
   * Puts the IPv6 addresses that the parent has in subnets with host access on the host's end too, and takes away those that
   * the parent has no longer. Unlike ARP, neighbour discovery is answered by the interface that has the address alone.
   */
  async #shareIPv6(link: Link, parent: Link): Promise<void> {
    const networks = (await this.#store.networks.list()).filter(({ parent: { name } }) => name === parent.name);
    const served = networks.filter(({ hostAddresses }) => hostAddresses.length > 0);
    const isServed = (address: string) => served.some(({ subnets }) => subnets.some((one) => isInside(address, one)));
    const ownOf = async (index: number) =>
      (await this.#links.addresses(index)).flatMap(({ family, address }) => (family === 'IPv6' ? address : []));
    const [wanted, there] = [(await ownOf(parent.index)).filter(isServed), await ownOf(link.index)];
    for (const address of wanted.filter((one) => !there.includes(one)))
      await isNew(() => this.#links.addAddress(link.index, whole(address), { noDad: true }));
    const kept = new Set([...wanted, ...served.flatMap(({ hostAddresses }) => hostAddresses)]);
    for (const address of there.filter((one) => isServed(one) && !kept.has(one)))
      await this.#links.deleteAddress(link.index, whole(address));
  }

  /**
   * A route of the host to each address of the endpoint; nothing for a network without host access. One that is there
   * already stays, with a warning when it leads elsewhere.
   */
  async addRoutes(network: Network, parentName: string, endpoint: Endpoint): Promise<void> {
    if (network.hostAddresses.length > 0 && endpoint.addresses.some(({ family }) => family === 'IPv6'))
      await this.#refreshIPv6(parentName);
    for (const route of await this.#routes(network, parentName, endpoint)) {
      if (await isNew(() => this.#links.addRoute(route))) continue;
      const existing = await this.#links.routes();
      const isOurs = existing.some(
        ({ destination, linkIndex }) => destination === route.destination && linkIndex === route.linkIndex,
      );
      if (!isOurs)
        this.#log.warn('the host already has a route to this address, which stays as it is', {
          destination: route.destination,
        });
    }
  }

  /** The parent's addresses come and go (privacy addresses, DHCP). */
  async #refreshIPv6(parentName: string): Promise<void> {
    const [parent, link] = [await this.#links.byName(parentName), await this.#links.byName(hostLinkName(parentName))];
    if (parent !== undefined && link?.alias === HOST_ALIAS) await this.#shareIPv6(link, parent);
  }

  /** Routes that are gone already are no error. */
  async deleteRoutes(network: Network, endpoint: Endpoint): Promise<void> {
    for (const route of await this.#routes(network, endpoint.parent, endpoint)) await this.#links.deleteRoute(route);
  }

  /** Those of containers that never came to be, since a crash was between their route and their record. */
  async deleteStrayRoutes(networks: readonly Network[], endpoints: readonly Endpoint[]): Promise<void> {
    if (networks.every(({ hostAddresses }) => hostAddresses.length === 0)) return;
    const ours = new Set((await this.#links.list(({ alias }) => alias === HOST_ALIAS)).map(({ index }) => index));
    // The kernel itself makes one to each IPv6 address of the host's.
    const hosts = (await this.#links.addresses()).flatMap(({ linkIndex, address }) =>
      ours.has(linkIndex) ? whole(address) : [],
    );
    const known = new Set([
      ...hosts,
      ...endpoints.flatMap(({ addresses }) => addresses.map((address) => whole(formatAddress(address)))),
    ]);
    for (const { destination, linkIndex } of await this.#links.routes())
      if (ours.has(linkIndex) && /\/(32|128)$/.test(destination) && !known.has(destination))
        await this.#links.deleteRoute({ destination, linkIndex });
  }

  /** Takes the network's addresses away, and the link with its last user. */
  async release(network: Pick<Network, 'parent' | 'hostAddresses'>, others: readonly Network[]): Promise<void> {
    if (network.hostAddresses.length === 0) return;
    const link = await this.#links.byName(hostLinkName(network.parent.name));
    if (link?.alias !== HOST_ALIAS) return;
    const used = new Set(
      others.filter(({ parent }) => parent.name === network.parent.name).flatMap(({ hostAddresses }) => hostAddresses),
    );
    if (used.size === 0) return void (await this.#links.deleteLink(link.index));
    for (const address of network.hostAddresses)
      if (!used.has(address)) await this.#links.deleteAddress(link.index, whole(address));
  }

  /** The host's ends that no network uses: left by a crash. */
  async orphans(networks: readonly Network[]): Promise<Link[]> {
    const used = new Set(
      networks.filter(({ hostAddresses }) => hostAddresses.length > 0).map(({ parent }) => hostLinkName(parent.name)),
    );
    return this.#links.list(({ alias, name }) => alias === HOST_ALIAS && !used.has(name));
  }

  async #add(parent: Link, address: string): Promise<Link> {
    const macAddress = (await this.#leasedMac(parent.name)) ?? macOf(address);
    const spec = {
      name: hostLinkName(parent.name),
      alias: HOST_ALIAS,
      parentIndex: parent.index,
      mode: 'bridge' as const,
      macAddress,
      mtu: null,
      broadcastQueueLength: null,
    };
    try {
      const link = await this.#links.addMacvlan(spec);
      await this.#links.keepArpApart(link.index);
      await this.#links.keepIPv6Static(link);
      return link;
    } catch (error) {
      throw subInterfaceRefusal(error, { parent: parent.name, mode: 'bridge', macAddress });
    }
  }

  async #routes(
    network: Network,
    parentName: string,
    endpoint: Endpoint,
  ): Promise<{ destination: string; linkIndex: number; source: string }[]> {
    if (network.hostAddresses.length === 0) return [];
    const link = await this.#links.byName(hostLinkName(parentName));
    if (link?.alias !== HOST_ALIAS) return [];
    return endpoint.addresses.flatMap((container) => {
      const source = network.hostAddresses.find((host) => parseAddress(host)?.family === container.family);
      if (source === undefined) return [];
      return { destination: whole(formatAddress(container)), linkIndex: link.index, source };
    });
  }
}

function macOf(text: string): string {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`not an address: ${text}`);
  return address.family === 'IPv4' ? macFromIPv4('02:42', address) : macFromIPv6('02:42', address);
}

/** With the prefix length of a single address: the host must not take the whole subnet for its own link. */
function whole(address: string): string {
  return `${address}/${parseAddress(address)?.family === 'IPv4' ? 32 : 128}`;
}

function isInside(text: string, { subnet }: NetworkSubnet): boolean {
  const [address, prefix] = [parseAddress(text), parsePrefix(subnet)];
  return address !== undefined && prefix !== undefined && contains(prefix, address);
}

function checkInside(address: string, subnets: readonly NetworkSubnet[]): void {
  if (!subnets.some((subnet) => isInside(address, subnet)))
    throw errors.hostAddressOutside(
      address,
      subnets.map(({ subnet }) => subnet),
    );
}

/** False when the kernel has it already. */
async function isNew(add: () => Promise<void>): Promise<boolean> {
  try {
    await add();
    return true;
  } catch (error) {
    if (isKernelError(error, 'EEXIST')) return false;
    throw error;
  }
}
