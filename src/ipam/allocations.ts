/**
 * What a swarm's managers give out for all nodes: pools and leases of the global address space.
 *
 * The leader's engine does the work, and a new leader goes through everything in use first: RequestPool and AllocateNetwork
 * for each network, then RequestAddress by address for each virtual IP and task, before it gives out anything new
 * (swarmkit manager/allocator, doNetworkInit). Whoever led before is told nothing: when it leads again it still has what
 * it gave out then. Hence rounds: with a network that is allocated once more a round of its pools begins, and what is
 * not claimed in it is nobody's.
 */
import type { Lease, Pool } from '../model.ts';
import type { Store } from '../store/store.ts';
import { isGlobal } from './pool.ts';

/** AllocateNetwork as the wire reads it. */
export interface AllocationRequest {
  readonly networkId: string;
  readonly subnets: readonly { readonly subnet: string }[];
}

export class Allocations {
  readonly #store: Store;
  readonly #now: () => Date;

  constructor(store: Store, now: () => Date) {
    this.#store = store;
    this.#now = now;
  }

  /** Subnets of another IPAM are passed over. */
  async allocate({ networkId, subnets }: AllocationRequest): Promise<void> {
    for (const { subnet } of subnets)
      await this.#change(networkId, (pools) => poolFor(pools, networkId, subnet), allocatedTo);
  }

  async free(networkId: string): Promise<void> {
    const holdsIt = ({ swarm }: Pool) => swarm?.networks[networkId] !== undefined;
    for (const { id } of (await this.#store.pools.list()).filter(holdsIt))
      await this.#change(networkId, (pools) => pools.find((pool) => pool.id === id), freedFrom);
  }

  /** Until nobody changed the pool meanwhile. */
  async #change(
    networkId: string,
    find: (pools: readonly Pool[]) => Pool | undefined,
    change: (pool: Pool, networkId: string) => Pool,
  ): Promise<void> {
    for (;;) {
      const pool = find(await this.#store.pools.list());
      if (pool === undefined) return;
      const next = { ...change(pool, networkId), changedAt: this.#now().toISOString() };
      if (await this.#store.pools.replace(pool, next)) return;
    }
  }
}

/** A pool that the network has, else the one asked for last: the engine sends AllocateNetwork right after RequestPool. */
function poolFor(pools: readonly Pool[], networkId: string, subnet: string): Pool | undefined {
  const candidates = pools.filter((pool) => isManagers(pool) && pool.subnet === subnet);
  const latest = candidates.toSorted((a, b) => b.changedAt.localeCompare(a.changedAt))[0];
  return candidates.find(({ swarm }) => swarm?.networks[networkId] !== undefined) ?? latest;
}

function allocatedTo(pool: Pool, networkId: string): Pool {
  const { round, networks } = pool.swarm ?? { round: 0, networks: {} };
  // Known in this round: a new leader begins the next. Other networks on the pool follow it.
  const current = networks[networkId] === round ? round + 1 : round;
  return { ...pool, swarm: { round: current, networks: { ...networks, [networkId]: current } } };
}

function freedFrom(pool: Pool, networkId: string): Pool {
  const { round, networks } = pool.swarm ?? { round: 0, networks: {} };
  const others = Object.entries(networks).filter(([id]) => id !== networkId);
  return { ...pool, swarm: { round, networks: Object.fromEntries(others) } };
}

/** Of the global space, and not of a network of this engine alone (SCOPE=global without a swarm). */
export function isManagers({ addressSpace, networkId }: Pool): boolean {
  return isGlobal(addressSpace) && networkId === null;
}

/** A network of the swarm has it: one whose leader claimed it in this round. */
export function isAllocated({ swarm }: Pool): boolean {
  return swarm !== undefined && Object.values(swarm.networks).includes(swarm.round);
}

/** The leader of this round has not claimed it. */
export function isUnclaimed(lease: Lease, { swarm }: Pool): boolean {
  return swarm !== undefined && lease.round !== swarm.round;
}

export function shareSwarmNetwork(a: Pool, b: Pool): boolean {
  return Object.keys(a.swarm?.networks ?? {}).some((id) => b.swarm?.networks[id] !== undefined);
}
