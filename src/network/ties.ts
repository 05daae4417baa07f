/**
 * Where the network room meets the IPAM room: in the store's records. CreateNetwork ties pools to their network,
 * CreateEndpoint ties leases to their endpoint. A lease tied to nothing for long is what the IPAM may take back.
 */
import { formatAddress } from '../address.ts';
import type { Endpoint, InterfaceAddress, Lease, Network, NetworkSubnet, Pool, Remembered, Subnet } from '../model.ts';
import { leaseKey, nameKey, realmOf, type Store } from '../store/store.ts';
import { subnetOf } from './request.ts';

/** A network's subnet and the pool its addresses come from; null when another IPAM gives them. */
export interface PooledSubnet {
  readonly subnet: Subnet;
  readonly pool: Pool | null;
}

/** Ties between the records of the two rooms. */
export class Ties {
  readonly #store: Store;
  readonly #now: () => Date;

  constructor(store: Store, now: () => Date) {
    this.#store = store;
    this.#now = now;
  }

  /** Finds the pools the engine asked for just before CreateNetwork; subnets of another IPAM have none. */
  async findPools(networkId: string, parent: string | null, subnets: readonly Subnet[]): Promise<PooledSubnet[]> {
    const pools = await this.#store.pools.list();
    return subnets.map((subnet) => ({ subnet, pool: poolFor(pools, { networkId, parent }, subnet) ?? null }));
  }

  /** The pools belong to the network from now on. One that belongs to a network already stays as it is. */
  async tiePools(networkId: string, pools: readonly Pool[]): Promise<void> {
    for (const pool of pools) {
      if (pool.networkId === null)
        await this.#store.pools.replace(pool, { ...pool, networkId, changedAt: this.#now().toISOString() });
    }
  }

  /**
   * Two networks made at the same moment on one subnet may each be tied to the other's pool (poolFor). When one of them goes,
   * the engine has released the pool of its own, and the one that is left is the other's.
   */
  async passOn(network: Network, others: readonly Network[]): Promise<void> {
    const pools = await this.#store.pools.list();
    for (const pool of pools.filter(({ networkId }) => networkId === network.id)) {
      const isOnIt = ({ realm, subnet }: NetworkSubnet) => realm === realmOf(pool) && subnet === pool.subnet;
      const isWithoutPool = ({ id, subnets }: Network) =>
        subnets.some(isOnIt) && !pools.some(({ networkId, subnet }) => networkId === id && subnet === pool.subnet);
      const heir = others.find(isWithoutPool);
      if (heir !== undefined) await this.#store.pools.replace(pool, { ...pool, networkId: heir.id });
    }
  }

  /** It had pools of our IPAM, and on its subnets is none that could be its own. */
  async areReleased({ id, subnets }: Network): Promise<boolean> {
    const others = new Set((await this.#store.networks.list()).map((network) => network.id));
    others.delete(id);
    const pools = (await this.#store.pools.list()).filter(
      ({ networkId }) => networkId === null || !others.has(networkId),
    );
    const ours = subnets.filter(({ realm }) => realm !== null);
    const hasPool = ({ realm, subnet }: NetworkSubnet) =>
      pools.some((pool) => realmOf(pool) === realm && pool.subnet === subnet);
    return ours.length > 0 && !ours.some(hasPool);
  }

  /**
   * Resolves when all of the endpoint's addresses that our IPAM gave out are this host's still: it may have stood still since.
   * Throws what LeaseTable.assure() throws.
   */
  async assureLeases(network: Network, { addresses }: Pick<Endpoint, 'addresses'>): Promise<void> {
    const { leases } = this.#store;
    if (leases.assure === undefined) return;
    for (const address of addresses) {
      const realm = subnetOf(address, network.subnets)?.realm ?? null;
      if (realm !== null) await leases.assure({ realm, address: formatAddress(address) });
    }
  }

  /** The leases of the endpoint's addresses belong to it from now on. */
  async tieLeases(network: Network, endpoint: Endpoint): Promise<void> {
    for (const lease of await this.#leases(network, endpoint)) await this.#tie(lease, endpoint.id);
  }

  /** From here on the address is nobody's until ReleaseAddress, which the engine sends next. */
  async untieLeases(network: Network, endpoint: Endpoint): Promise<void> {
    for (const lease of await this.#leases(network, endpoint)) {
      if (lease.endpointId === endpoint.id) await this.#tie(lease, null);
    }
  }

  /** The MAC address that was generated for who had the endpoint's first address last, by name; null when none is remembered. */
  async rememberedMac(network: Network, addresses: readonly InterfaceAddress[]): Promise<string | null> {
    for (const lease of await this.#leases(network, { addresses: addresses.slice(0, 1) })) {
      const remembered = await this.#remembered(lease);
      if (remembered?.address === lease.address) return remembered.macAddress;
    }
    return null;
  }

  /** The endpoint's MAC address comes with its addresses next time; `isNamed`: not that which the user named. */
  async rememberMac(network: Network, endpoint: Endpoint, isNamed: boolean): Promise<void> {
    const macAddress = isNamed ? null : endpoint.macAddress;
    for (const lease of await this.#leases(network, endpoint)) {
      const remembered = await this.#remembered(lease);
      if (remembered?.address === lease.address && remembered.macAddress !== macAddress)
        await this.#store.names.replace(remembered, { ...remembered, macAddress });
    }
  }

  async #remembered({ name, poolIds: [poolId = ''], address }: Lease): Promise<Remembered | undefined> {
    return name === undefined ? undefined : this.#store.names.get(nameKey({ poolId, name, address }));
  }

  async #tie(lease: Lease, endpointId: string | null): Promise<void> {
    if (lease.endpointId === endpointId) return;
    await this.#store.leases.replace(lease, { ...lease, endpointId, changedAt: this.#now().toISOString() });
  }

  async #leases(network: Network, { addresses }: Pick<Endpoint, 'addresses'>): Promise<Lease[]> {
    const found: Lease[] = [];
    for (const address of addresses.map(formatAddress)) {
      for (const realm of new Set(network.subnets.map((subnet) => subnet.realm))) {
        const lease = realm === null ? undefined : await this.#store.leases.get(leaseKey({ realm, address }));
        if (lease?.kind === 'container' && lease.holder === undefined) found.push(lease);
      }
    }
    return found;
  }
}

/**
 * Of several pools on one subnet (`--ip-range` apart, or on other parents) the one not yet tied and asked for last: the
 * engine sends CreateNetwork right after its RequestPool calls (libnetwork controller.go NewNetwork).
 */
function poolFor(
  pools: readonly Pool[],
  { networkId, parent }: { networkId: string; parent: string | null },
  { addressSpace, subnet }: Subnet,
): Pool | undefined {
  const isOnParent = ({ options }: Pool) => options['parent'] === undefined || options['parent'] === parent;
  const candidates = pools.filter(
    (pool) => pool.addressSpace === addressSpace && pool.subnet === subnet && isOnParent(pool),
  );
  const untied = candidates.filter((pool) => pool.networkId === null);
  const latest = untied.sort((a, b) => b.createdAt.localeCompare(a.createdAt))[0];
  return candidates.find((pool) => pool.networkId === networkId) ?? latest ?? candidates[0];
}
