/** Which leases nobody will ever give back. */
import { parseAddress } from '../address.ts';
import type { Endpoint, Family, Lease, Pool } from '../model.ts';
import { leaseKey, type Store } from '../store/store.ts';
import type { Ages } from './ages.ts';
import { Occupancy } from './occupancy.ts';
import { isGlobal } from './pool.ts';
import { isManagers, isUnanswered, isUnclaimed } from './swarm.ts';

/**
 * An engine that stops a container while the plugin is away tries each of its five calls for 15 s (76 s measured),
 * ReleaseAddress last, and then forgets the address for ever. After RequestAddress, CreateEndpoint follows within
 * seconds. A lease without endpoint that is older than this is not on its way to one, nor will its release come.
 */
const STALE_MS = 120_000;

/** What the records say about the use of addresses, read once for many leases. */
export interface Evidence {
  readonly pools: ReadonlyMap<string, Pool>;
  readonly endpoints: ReadonlyMap<string, Endpoint>;
  /** Addresses of all endpoints. */
  readonly endpointAddresses: Readonly<Record<Family, Occupancy>>;
}

/** Reads pools and endpoints, both of which the store has in memory. */
export async function readEvidence(store: Store): Promise<Evidence> {
  const [pools, endpoints] = await Promise.all([store.pools.list(), store.endpoints.list()]);
  const endpointAddresses = { IPv4: new Occupancy(), IPv6: new Occupancy() };
  for (const { addresses } of endpoints)
    for (const { family, value } of addresses) endpointAddresses[family].add(value);
  return {
    pools: new Map(pools.map((pool) => [pool.id, pool])),
    endpoints: new Map(endpoints.map((endpoint) => [endpoint.id, endpoint])),
    endpointAddresses,
  };
}

/** Unused, and long so. */
export function isStale(lease: Lease, evidence: Evidence, ages: Ages): boolean {
  return isUnused(lease, evidence) && secondsUntilStale(lease, ages) === 0;
}

/**
 * A container's lease without an endpoint, or one that a swarm's manager gave out to nobody or that nobody claimed since, or another
 * one without a pool. Networks of other drivers are left alone, since their endpoints are unknown here.
 */
export function isUnused(lease: Lease, evidence: Evidence): boolean {
  // Only its host knows.
  if (lease.holder !== undefined) return false;
  const pools = poolsOf(lease, evidence);
  // A crash came between the release of a pool and that of its gateway.
  if (lease.kind !== 'container') return pools.length === 0;
  if (isManagersLease(lease, evidence)) return isUnanswered(lease) || pools.every((pool) => isUnclaimed(lease, pool));
  if (lease.endpointId !== null && evidence.endpoints.has(lease.endpointId)) return false;
  // Whatever the lease says: an endpoint that has this address needs it.
  if (isOfEndpoint(lease, evidence)) return false;
  return lease.poolIds.every((id) => evidence.pools.get(id)?.networkId !== null);
}

function isOfEndpoint({ address: text }: Lease, { endpointAddresses }: Evidence): boolean {
  const address = parseAddress(text);
  return address !== undefined && endpointAddresses[address.family].has(address.value);
}

/** Its container is on any host of the swarm. */
export function isManagersLease(lease: Lease, evidence: Evidence): boolean {
  return isGlobal(lease.realm) && poolsOf(lease, evidence).every(isManagers);
}

function poolsOf({ poolIds }: Lease, { pools }: Evidence): Pool[] {
  return poolIds.flatMap((id) => pools.get(id) ?? []);
}

/** When a lease that nobody uses is old enough to be taken over. */
export function secondsUntilStale(lease: Lease, ages: Ages): number {
  const restMs = STALE_MS - ages.ageMs({ key: leaseKey(lease), changedAt: lease.changedAt }, 0);
  return Math.ceil(Math.max(0, restMs) / 1000);
}
