/** The hosts of a shared store from the command line: which there are, and letting go of what a scrapped one has. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import * as errors from '../../errors.ts';
import type { Lease } from '../../model.ts';
import type { ClusterSettings } from '../../settings.ts';
import { type Claim, isShared, type Registry } from './claims.ts';
import { COMMAND, peekSelf, type Self } from './identity.ts';
import { claimsOf, withRegistry } from './migrate.ts';
import { partsOf } from './view.ts';

/** A host that was heard of, or that has addresses. */
export interface SharedNode {
  /** `web1-3f2a9c1d04be` */
  readonly node: string;
  /** As it is called now; empty while it is not heard of. */
  readonly host: string;
  readonly isAlive: boolean;
  readonly isThisHost: boolean;
  /** Of all kinds. */
  readonly addresses: number;
  /** etcd was restored, and this host has not claimed again what it has: until then every address needs proof. */
  readonly isAwaited: boolean;
}

/** `freed`; `used`: somebody on the LAN answers for it; `unasked`: this host has no network on which it could ask. */
export interface Forgotten extends Pick<Lease, 'realm' | 'address' | 'kind'> {
  readonly outcome: 'freed' | 'used' | 'unasked';
  /** The MAC address that answered; empty otherwise. */
  readonly usedBy: string;
}

/** Who answers for an address on the LAN: a MAC address, '' for nobody, null where it cannot be asked. */
export type AskLan = (lease: Pick<Lease, 'realm' | 'address'>) => Promise<string | null>;

/** What is wished of forgetNode(). */
export interface ForgetWish {
  readonly node: string;
  readonly isDryRun: boolean;
  /** What cannot be asked for is freed too. */
  readonly isForced: boolean;
}

/** Questions to the LAN at a time. */
const AT_ONCE = 32;

/** All hosts, in order of their names. `directory`: of this host's state. */
export async function readNodes(settings: ClusterSettings, directory: string): Promise<SharedNode[]> {
  const { node: ours } = peekSelf(directory);
  return withRegistry(settings, operator(), directory, async (registry) => {
    const { news } = await registry.load();
    const alive = new Map(news.flatMap((one) => ('node' in one ? [[one.node, one.host] as const] : [])));
    const awaited = new Set(news.flatMap((one) => ('awaited' in one ? one.awaited : [])));
    const counts = new Map<string, number>();
    for (const [, { nodes }] of claimsOf(news)) for (const node of nodes) counts.set(node, (counts.get(node) ?? 0) + 1);
    const names = new Set([...alive.keys(), ...awaited, ...counts.keys()]);
    return [...names].sort().map((node) => ({
      node,
      host: alive.get(node) ?? '',
      isAlive: alive.has(node),
      isThisHost: node === ours,
      addresses: counts.get(node) ?? 0,
      isAwaited: awaited.has(node),
    }));
  });
}

/**
 * Frees what a host has that will not come back, but for addresses that somebody on the LAN has. Throws NODE_UNKNOWN, and
 * NODE_ALIVE for one that was heard of in the last seconds.
 */
export async function forgetNode(
  settings: ClusterSettings,
  directory: string,
  { node, isDryRun, isForced }: ForgetWish,
  ask: AskLan,
): Promise<Forgotten[]> {
  return withRegistry(settings, operator(), directory, async (registry) => {
    const { news } = await registry.load();
    if (news.some((one) => 'node' in one && one.node === node)) throw errors.nodeAlive(node);
    const claims = [...claimsOf(news)].filter(([, { nodes }]) => nodes.includes(node));
    const isAwaited = news.some((one) => 'awaited' in one && one.awaited === node);
    if (claims.length === 0 && !isAwaited) throw errors.nodeUnknown(node);
    const refuseIfBack = async (error: unknown) => {
      const now = (await registry.load()).news;
      throw now.some((one) => 'node' in one && one.node === node) ? errors.nodeAlive(node) : error;
    };
    const forgotten: Forgotten[] = [];
    const left = claims.values();
    const work = async () => {
      for (const [key, claim] of left) forgotten.push(await forget(registry, key, claim));
    };
    const forget = async (at: Registry, key: string, claim: Claim): Promise<Forgotten> => {
      const found = await judge(key, claim, isForced, ask);
      if (found.outcome === 'freed' && !isDryRun) await at.giveBackFor(node, key).catch(refuseIfBack);
      return found;
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (!isDryRun && forgotten.every(({ outcome }) => outcome === 'freed')) await registry.noteScrapped(node);
    return forgotten;
  });
}

async function judge(key: string, { kind }: Claim, isForced: boolean, ask: AskLan): Promise<Forgotten> {
  const [realm, address] = partsOf(key);
  // A router answers for a gateway whoever named it.
  const usedBy = isShared(kind) ? '' : await ask({ realm, address });
  const outcome = usedBy === null && !isForced ? 'unasked' : usedBy === null || usedBy === '' ? 'freed' : 'used';
  return { realm, address, kind, outcome, usedBy: usedBy ?? '' };
}

/** Beside the daemon of this host, for as long as the command runs. */
function operator(): Self {
  const life = randomBytes(6).toString('hex');
  return { node: `${COMMAND}${life}`, host: hostname(), file: '', life, place: '', stopped: '', isCopy: false };
}
