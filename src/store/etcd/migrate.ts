/** The shared store from the command line: what is in it, and moving a host's addresses in and out. */
import * as errors from '../../errors.ts';
import type { Lease } from '../../model.ts';
import type { ClusterSettings } from '../../settings.ts';
import { openLocalStore, readLocalStore } from '../local.ts';
import { readAccess } from './access.ts';
import { type Claim, type News, Registry } from './claims.ts';
import { Etcd } from './client.ts';
import { forgetCluster, KnownCluster, peekSelf, readSelf, type Self } from './identity.ts';
import { leaseKey } from '../store.ts';
import { partsOf } from './view.ts';

/** An address in the shared store. */
export interface SharedAddress extends Pick<Lease, 'realm' | 'address' | 'kind'> {
  /** `web1-3f2a9c1d04be`; several for a gateway. */
  readonly nodes: readonly string[];
  /** False when none of them has been heard of lately. */
  readonly isAlive: boolean;
  /** Hosts that have it as well, which are not to. */
  readonly rivals: readonly string[];
}

/** `claimed` for this host, `had` by it before, `taken` by another one, `given back`. */
export interface Move extends Pick<Lease, 'realm' | 'address' | 'kind'> {
  readonly outcome: 'claimed' | 'had' | 'taken' | 'given back';
  /** Who has it where it is taken. */
  readonly nodes: readonly string[];
}

/** Who only reads. */
const NOBODY: Self = { node: '', host: '', file: '', life: '', place: '', stopped: '', isCopy: false };

/** What all hosts of the cluster have. */
export async function readShared(settings: ClusterSettings): Promise<SharedAddress[]> {
  return withRegistry(settings, NOBODY, null, async (registry) => {
    const { news } = await registry.load();
    const alive = new Set(news.flatMap((one) => ('node' in one ? [one.node] : [])));
    const rivalsOf = Map.groupBy(
      news.flatMap((one) => ('rival' in one ? one : [])),
      ({ rival }) => rival,
    );
    return news.flatMap((one) => {
      if (!('lease' in one) || one.entry === undefined) return [];
      const { kind, nodes } = one.entry.claim;
      const rivals = rivalsOf.get(one.lease) ?? [];
      const isAlive = nodes.some((node) => alive.has(node));
      return [
        {
          ...named(one.lease),
          kind,
          nodes,
          isAlive,
          rivals: rivals.flatMap(({ of }) => (nodes.includes(of) ? [] : of)),
        },
      ];
    });
  });
}

/** Whoever follows the shared store. */
interface Follower {
  readonly began: () => void;
  /** Something has changed. */
  readonly tell: () => void;
}

/** Until the signal, or until etcd breaks off. Throws as readShared(). */
export async function followShared(
  settings: ClusterSettings,
  { began, tell }: Follower,
  signal: AbortSignal,
): Promise<void> {
  await withRegistry(settings, NOBODY, null, async (registry) => {
    const { position } = await registry.load();
    const changes = registry.watch(position, tell);
    const leave = () => changes.cancel();
    signal.addEventListener('abort', leave);
    try {
      await changes.began;
      if (signal.aborted) leave();
      else began();
      await changes.ended;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  });
}

/** Claims what this host has. Its own store stays as it is: it is what the claims are brought in line with. */
export async function moveIn(directory: string, settings: ClusterSettings, isDryRun: boolean): Promise<Move[]> {
  const store = isDryRun ? readLocalStore(directory) : openLocalStore(directory);
  try {
    const self = isDryRun ? peekSelf(directory) : readSelf(directory);
    const leases = await store.leases.list();
    return await withRegistry(settings, self, directory, async (registry) => {
      if (!isDryRun) await registry.checkSchema();
      const standing = claimsOf((await registry.load()).news);
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

/**
 * Gives this host's claims back; it goes on with STORE=local and what it has. Throws MIGRATE_IN_USE while containers of it run and
 * other hosts are alive, which would then give out their addresses, unless `isForced`.
 */
export async function moveOut(
  directory: string,
  settings: ClusterSettings,
  isDryRun: boolean,
  isForced = false,
): Promise<Move[]> {
  // Its lock is what keeps a daemon from claiming them again.
  const store = isDryRun ? readLocalStore(directory) : openLocalStore(directory);
  try {
    const used = (await store.leases.list()).filter(({ endpointId }) => endpointId !== null);
    return await withRegistry(settings, peekSelf(directory), directory, async (registry) => {
      const { news } = await registry.load();
      const others = news.flatMap((one) => ('node' in one && one.node !== registry.node ? one.node : []));
      const [first] = used;
      if (first !== undefined && others.length > 0 && !isForced)
        throw errors.migrateInUse(used.length, first.address, others.length);
      const moves: Move[] = [];
      for (const [key, { kind, nodes }] of claimsOf(news)) {
        if (!nodes.includes(registry.node)) continue;
        if (!isDryRun) await registry.giveBack(key, undefined);
        moves.push({ ...named(key), kind, outcome: 'given back', nodes: [] });
      }
      if (!isDryRun) forgetCluster(directory);
      return moves;
    });
  } finally {
    await store.close();
  }
}

/** By key of the lease. */
export function claimsOf(news: readonly News[]): Map<string, Claim> {
  return new Map(news.flatMap((one) => ('lease' in one && one.entry ? [[one.lease, one.entry.claim] as const] : [])));
}

/** For one command. `directory`: of the state of this host, which tells in which cluster its claims are; null for who has none. */
export async function withRegistry<T>(
  settings: ClusterSettings,
  self: Self,
  directory: string | null,
  use: (registry: Registry) => Promise<T>,
): Promise<T> {
  const etcd = new Etcd(readAccess(settings));
  if (directory !== null) etcd.keepTo(new KnownCluster(directory).position?.clusterId ?? '');
  const registry = new Registry(etcd, settings.cluster, self);
  try {
    return await use(registry);
  } finally {
    await registry.membership.leave();
    etcd.close();
  }
}

function named(key: string): Pick<Lease, 'realm' | 'address'> {
  const [realm, address] = partsOf(key);
  return { realm, address };
}
