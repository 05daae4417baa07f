/** The shared store from the command line: what is in it, and moving a host's addresses in and out. */
import type { Lease } from '../../model.ts';
import type { ClusterSettings } from '../../settings.ts';
import { readAccess } from './access.ts';
import { peekSelf, readSelf } from './store.ts';
import { Etcd } from './client.ts';
import { openLocalStore, readLocalStore } from '../local.ts';
import { type Claim, Registry, type Self } from './claims.ts';
import { leaseKey } from '../store.ts';
import { partsOf } from './view.ts';

/** An address in the shared store. */
export interface SharedAddress extends Pick<Lease, 'realm' | 'address' | 'kind'> {
  /** `web1-3f2a9c1d04be`; several for a gateway. */
  readonly nodes: readonly string[];
  /** False when none of them has been heard of lately. */
  readonly isAlive: boolean;
}

/** `claimed` for this host, `had` by it before, `taken` by another one, `given back`. */
export interface Move extends Pick<Lease, 'realm' | 'address' | 'kind'> {
  readonly outcome: 'claimed' | 'had' | 'taken' | 'given back';
  /** Who has it where it is taken. */
  readonly nodes: readonly string[];
}

/** What all hosts of the cluster have. */
export async function readShared(settings: ClusterSettings): Promise<SharedAddress[]> {
  return withRegistry(settings, { node: '', host: '', file: '' }, async (registry) => {
    const { news } = await registry.load();
    const alive = new Set(news.flatMap((one) => ('node' in one ? [one.node] : [])));
    return news.flatMap((one) => {
      if (!('lease' in one) || one.entry === undefined) return [];
      const { kind, nodes } = one.entry.claim;
      return [{ ...named(one.lease), kind, nodes, isAlive: nodes.some((node) => alive.has(node)) }];
    });
  });
}

/** Claims what this host has. Its own store stays as it is: it is what the claims are brought in line with. */
export async function moveIn(directory: string, settings: ClusterSettings, isDryRun: boolean): Promise<Move[]> {
  const store = isDryRun ? readLocalStore(directory) : openLocalStore(directory);
  try {
    const self = isDryRun ? peekSelf(directory) : readSelf(directory);
    const leases = await store.leases.list();
    return await withRegistry(settings, self, async (registry) => {
      if (!isDryRun) await registry.checkSchema();
      const standing = await claimsIn(registry);
      const moves: Move[] = [];
      for (const lease of leases) moves.push(await claim(registry, lease, standing.get(leaseKey(lease)), isDryRun));
      return moves;
    });
  } finally {
    await store.close();
  }
}

async function claim(registry: Registry, lease: Lease, standing: Claim | undefined, isDryRun: boolean): Promise<Move> {
  const { realm, address, kind } = lease;
  if (standing?.nodes.includes(registry.node)) return { realm, address, kind, outcome: 'had', nodes: [] };
  const { isOurs, entry } = isDryRun
    ? registry.foresee(kind, standing)
    : await registry.take(leaseKey(lease), kind, () => false);
  return {
    realm,
    address,
    kind,
    outcome: isOurs ? 'claimed' : 'taken',
    nodes: isOurs ? [] : (entry?.claim.nodes ?? []),
  };
}

/** Gives this host's claims back; it goes on with STORE=local and what it has. */
export async function moveOut(directory: string, settings: ClusterSettings, isDryRun: boolean): Promise<Move[]> {
  // Its lock is what keeps a daemon from claiming them again.
  const store = isDryRun ? readLocalStore(directory) : openLocalStore(directory);
  try {
    return await withRegistry(settings, peekSelf(directory), async (registry) => {
      const moves: Move[] = [];
      for (const [key, { kind, nodes }] of await claimsIn(registry)) {
        if (!nodes.includes(registry.node)) continue;
        if (!isDryRun) await registry.giveBack(key, undefined);
        moves.push({ ...named(key), kind, outcome: 'given back', nodes: [] });
      }
      return moves;
    });
  } finally {
    await store.close();
  }
}

async function claimsIn(registry: Registry): Promise<Map<string, Claim>> {
  const { news } = await registry.load();
  return new Map(news.flatMap((one) => ('lease' in one && one.entry ? [[one.lease, one.entry.claim] as const] : [])));
}

async function withRegistry<T>(
  settings: ClusterSettings,
  self: Self,
  use: (registry: Registry) => Promise<T>,
): Promise<T> {
  const etcd = new Etcd(readAccess(settings));
  try {
    return await use(new Registry(etcd, settings.cluster, self));
  } finally {
    etcd.close();
  }
}

function named(key: string): Pick<Lease, 'realm' | 'address'> {
  const [realm, address] = partsOf(key);
  return { realm, address };
}
