/**
 * What a swarm's managers give out for all nodes: pools and leases of the global address space.
 *
 * The leader's engine does the work, and a new leader goes through everything in use first: RequestPool and AllocateNetwork
 * for each network, then RequestAddress by address for each virtual IP and task, before it gives out anything new
 * (swarmkit manager/allocator, doNetworkInit). Whoever led before is told nothing: when it leads again it still has what
 * it gave out then, perhaps for networks that are gone. Hence rounds: with the first network that a new leader allocates
 * once more a round of its pools begins, and what is not claimed in it is nobody's. Pools of which all networks are gone begin none.
 */
import type { Lease, Pool } from '../model.ts';
import type { AllocationRequest } from '../requests.ts';
import { realmOf, type Store } from '../store/store.ts';
import { isGlobal, known } from './pool.ts';

/** AllocateNetwork and FreeNetwork, for the pools that a swarm's managers share out. */
export class SwarmPools {
  readonly #store: Store;
  readonly #now: () => Date;
  /** Pools of which the leader's present allocator has claimed a network. */
  readonly #claimed = new Set<string>();

  constructor(store: Store, now: () => Date) {
    this.#store = store;
    this.#now = now;
  }

  /** The engine takes up with the plugin: at its start, the plugin's, and whenever this manager begins to lead. */
  register(): void {
    this.#claimed.clear();
  }

  /** Subnets of another IPAM are passed over. */
  async allocate({ networkId, subnets, isRepeated }: AllocationRequest): Promise<void> {
    const allocate = (pool: Pool) => allocatedTo(pool, networkId, isRepeated && !this.#claimed.has(pool.id));
    for (const { subnet } of subnets) {
      const pool = await this.#change((pools) => poolFor(pools, networkId, subnet), allocate);
      if (pool !== undefined && isRepeated) this.#claimed.add(pool.id);
    }
  }

  /** The network gives up its pools; the one that nothing holds any more is collected or released. */
  async free(networkId: string): Promise<void> {
    const holdsIt = ({ swarm }: Pool) => swarm?.networks[networkId] !== undefined;
    for (const { id } of (await this.#store.pools.list()).filter(holdsIt))
      await this.#change(
        (pools) => pools.find((pool) => pool.id === id),
        (pool) => freedFrom(pool, networkId),
      );
  }

  /** Until nobody changed the pool meanwhile. */
  async #change(
    find: (pools: readonly Pool[]) => Pool | undefined,
    change: (pool: Pool) => Pool,
  ): Promise<Pool | undefined> {
    for (;;) {
      const pool = find(await this.#store.pools.list());
      if (pool === undefined) return undefined;
      const next = { ...change(pool), changedAt: this.#now().toISOString() };
      if (await this.#store.pools.replace(pool, next)) return next;
    }
  }
}

/** A pool that the network has, else the one asked for last: the engine sends AllocateNetwork right after RequestPool. */
function poolFor(pools: readonly Pool[], networkId: string, subnet: string): Pool | undefined {
  const candidates = pools.filter((pool) => isManagers(pool) && pool.subnet === subnet);
  const latest = candidates.toSorted((a, b) => b.changedAt.localeCompare(a.changedAt))[0];
  return candidates.find(({ swarm }) => swarm?.networks[networkId] !== undefined) ?? latest;
}

function allocatedTo(pool: Pool, networkId: string, isNewRound: boolean): Pool {
  const { round, networks } = pool.swarm ?? { round: 0, networks: {} };
  const current = isNewRound ? round + 1 : round;
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

/**
 * Its reply has not gone out. While the call is under way that is so for some seconds; where the plugin was killed in it the engine
 * asks once more, for any address, and knows of the later one only.
 */
export function isUnanswered({ askedBy }: Lease): boolean {
  return askedBy !== undefined;
}

/** The leader of this round has not claimed it. */
export function isUnclaimed(lease: Lease, { swarm }: Pool): boolean {
  return swarm !== undefined && lease.round !== swarm.round;
}

/** Pools of one network. */
export function areSisters(a: Pool, b: Pool): boolean {
  if (realmOf(a) !== realmOf(b)) return false;
  return a.networkId === null ? shareSwarmNetwork(a, b) : a.networkId === b.networkId;
}

/** Of all pools the others of its network for addresses of its family. */
export function sistersOf(pool: Pool, all: readonly Pool[]): Pool[] {
  const { family } = known(pool.subnet);
  return all.filter((one) => one.id !== pool.id && areSisters(one, pool) && known(one.subnet).family === family);
}

/** Whether a network of a swarm has both. */
function shareSwarmNetwork(a: Pool, b: Pool): boolean {
  return Object.keys(a.swarm?.networks ?? {}).some((id) => b.swarm?.networks[id] !== undefined);
}
