/**
 * Addresses of pools that are left to the LAN's DHCP server (`--ipam-opt source=dhcp`). Who asks the server is the network room; here
 * they become leases like all others, so that no address is given twice and engines give them back as usual.
 */
import { type Address, formatInterfaceAddress, formatPrefix, type Prefix } from '../address.ts';
import type { Lease, Pool } from '../model.ts';
import type { AddressRequest, CallLimit, PoolRequest } from '../requests.ts';
import type { Leases } from './leases.ts';
import type { Offers } from './offers.ts';
import { ADDRESS_SPACES, isServed, known, readPoolRequest, withLength } from './pool.ts';

/** A DHCP server, as the network room asks it. */
export interface AddressServer {
  /** How long a call may take that asks it, in milliseconds. */
  readonly patienceMs: number;
  /** The subnet below a parent and its gateway. Throws DHCP_SILENT, and that the parent is gone or down. */
  learn(parent: string, limit: CallLimit | null): Promise<LearnedSubnet>;
  /** An address for a container of the pool's network. `name`: the container's, where the engine says it. */
  lease(wanted: ServedRequest): Promise<Address>;
  /** The engine gives an address of the network back, whether or not an endpoint has had it. */
  returned(networkId: string, address: Address): void;
}

/** What a server tells of its LAN. */
export interface LearnedSubnet {
  readonly subnet: Prefix;
  readonly gateway: Address | null;
}

/** An address that is wanted of a server. */
export interface ServedRequest extends Pick<AddressRequest, 'name' | 'limit' | 'poolId'> {
  readonly networkId: string;
  readonly subnet: Prefix;
}

interface Parts {
  readonly leases: Pick<Leases, 'claim'>;
  readonly offers: Pick<Offers, 'lease' | 'gateway' | 'confirm'>;
  /** Absent where nobody can ask one. */
  readonly server?: AddressServer;
}

/** What to choose another one of, where something else has what the server gives. */
const ELSEWHERE = 'address for the container on the DHCP server';

/** RequestPool and RequestAddress of such pools. */
export class ServedPools {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** The request with the subnet that the server tells, where none was named, and the gateway there. Throws what readPoolRequest() throws. */
  async complete(
    request: PoolRequest,
    limit: CallLimit | null,
  ): Promise<{ readonly request: PoolRequest; readonly gateway: string | null }> {
    const { server } = this.#parts;
    const { pool, options, addressSpace } = request;
    if (!isServed(request) || server === undefined || pool !== null) return { request, gateway: null };
    if (addressSpace === ADDRESS_SPACES.local) readPoolRequest(request, () => known('192.0.2.0/24'));
    const { subnet, gateway } = await server.learn(options['parent'] ?? '', limit);
    return {
      request: { ...request, pool: formatPrefix(subnet) },
      gateway: gateway && formatInterfaceAddress({ ...gateway, length: subnet.length }),
    };
  }

  /** Undefined for a pool whose addresses are chosen here, and for one that no network has. `onClaim`: told of the lease. */
  async request(
    pool: Pool,
    { name, limit }: Pick<AddressRequest, 'name' | 'limit'>,
    onClaim: (lease: Lease) => void,
  ): Promise<string | undefined> {
    const { server } = this.#parts;
    const { id: poolId, networkId } = pool;
    if (!isServed(pool) || server === undefined || networkId === null) return undefined;
    const address = await server.lease({ networkId, poolId, name, limit, subnet: known(pool.subnet) });
    try {
      onClaim(await this.#claim(pool, address, name, limit));
    } catch (error) {
      server.returned(networkId, address);
      throw error;
    }
    return withLength(pool, address);
  }

  async #claim(pool: Pool, address: Address, name: string | null, limit: CallLimit): Promise<Lease> {
    const { leases, offers } = this.#parts;
    const wanted = offers.lease(pool, address, 'container', name);
    const lease = await leases.claim(address, wanted, ELSEWHERE, limit);
    await offers.confirm(pool, address);
    return lease;
  }

  /** The engine gives it back. */
  returned(pool: Pool, address: Address): void {
    if (isServed(pool) && pool.networkId !== null) this.#parts.server?.returned(pool.networkId, address);
  }

  /** How long a call about the pool may take; null as long as any. */
  patienceMs(pool: Pool | undefined): number | null {
    return pool !== undefined && isServed(pool) ? (this.#parts.server?.patienceMs ?? null) : null;
  }
}
