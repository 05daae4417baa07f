/**
 * What hosts agree upon in etcd. Below the name of their cluster:
 *
 *     /tsmacvlan/NAME/schema                 1
 *     /tsmacvlan/NAME/nodes/NODE             {"host":"web1"}   ends some time after the host was heard of last
 *     /tsmacvlan/NAME/leases/REALM/ADDRESS   {"kind":"container","nodes":["web1-3f2a9c1d04be"]}
 *
 * A claim outlives its node's record: a host that is cut off goes on using its addresses. Every change is conditioned on the
 * revision that was read, so one that arrives late, after it was given up, changes nothing it should not.
 */
import { setTimeout as delay } from 'node:timers/promises';
import * as errors from '../../errors.ts';
import type { LeaseKind } from '../../model.ts';
import type { Change, ChangeStream, Condition, Etcd, KeyChange, Position, StoredValue } from './client.ts';

/** Who has an address. Gateways and auxiliary addresses are named by every host of the LAN; others have one node. */
export interface Claim {
  readonly kind: LeaseKind;
  readonly nodes: readonly string[];
}

/** A claim as it stands in etcd, with the revision of its last change. */
export interface Entry {
  readonly claim: Claim;
  readonly revision: number;
}

/** One key: a claim on an address, under the key of its lease, or a node; without an entry it is gone. */
export type News =
  | { readonly lease: string; readonly entry: Entry | undefined; readonly revision: number }
  | { readonly node: string; readonly isAlive: boolean };

/** What became of an attempt to claim an address. */
export interface Taken {
  readonly isOurs: boolean;
  /** As it stands now. */
  readonly entry: Entry | undefined;
  /** The claim of a lost node that was replaced. */
  readonly inherited: Claim | undefined;
}

/** A node's record. */
export interface Self {
  readonly node: string;
  readonly host: string;
  /** Where the node's name is kept, for the sentence. */
  readonly file: string;
}

const SCHEMA = '1';
/** How long a host is not heard of before it counts as lost. */
const LOST_AFTER_S = 30;
/** For one change of one key that others change too; the server gives a call up after 9 s. */
const CONTENTION_MS = 6000;
const FIRST_PAUSE_MS = 8;
const LONGEST_PAUSE_MS = 600;
/** No key will ever have it. */
const NO_REVISION = Number.MAX_SAFE_INTEGER;
const SHARED: readonly LeaseKind[] = ['gateway', 'auxiliary'];
const UNCLAIMED: Taken = { isOurs: false, entry: undefined, inherited: undefined };

/**
 * The keys of one cluster in etcd, as this node reads and writes them. Each call throws what client.ts throws when no
 * member answers.
 */
export class Registry {
  readonly #etcd: Etcd;
  readonly #prefix: string;
  readonly #self: Self;
  /** Of etcd; another one after the last ended. */
  #leaseId = 0;
  /** By text: there are far fewer different claims than addresses. */
  readonly #claims = new Map<string, Claim>();

  constructor(etcd: Etcd, cluster: string, self: Self) {
    this.#etcd = etcd;
    this.#prefix = `/tsmacvlan/${cluster}/`;
    this.#self = self;
  }

  /** The name that this node has among the others. */
  get node(): string {
    return this.#self.node;
  }

  // --- nodes --------------------------------------------------------------------------------------------------------

  /** Throws CLUSTER_SCHEMA. */
  async checkSchema(): Promise<void> {
    const key = `${this.#prefix}schema`;
    const { found } = await this.#etcd.transaction([{ key, revision: 0 }], [{ put: { key, value: SCHEMA } }], key);
    if (found !== undefined && found.value !== SCHEMA) throw errors.clusterSchema(this.#prefix, found.value, SCHEMA);
  }

  /** Enters this node, which from then on is kept alive. Throws CLUSTER_NODE_TAKEN. */
  async register(): Promise<void> {
    const leaseId = 1 + Math.floor(Math.random() * 2 ** 48);
    await this.#etcd.grant(leaseId, LOST_AFTER_S);
    const { node, host, file } = this.#self;
    const key = this.#nodeKey(node);
    const put = { put: { key, value: JSON.stringify({ host }), lease: leaseId } };
    const turns = new Turns(key);
    for (let standing: StoredValue | undefined; ; ) {
      const { isDone, found } = await this.#etcd.transaction([{ key, revision: standing?.revision ?? 0 }], [put], key);
      if (isDone) {
        this.#leaseId = leaseId;
        return;
      }
      const other = found === undefined ? host : hostIn(found.value);
      if (other !== host) throw errors.clusterNodeTaken(node, other, file);
      standing = await this.#reread(key, found, turns);
    }
  }

  /** False when this node has to be registered anew. */
  async keepAlive(): Promise<boolean> {
    return this.#leaseId !== 0 && (await this.#etcd.keepAlive(this.#leaseId));
  }

  // --- claims -------------------------------------------------------------------------------------------------------

  /**
   * Claims an address for this node. What it has already is claimed anew, so that no release that is still under way takes it
   * away. `isLost`: none of the nodes is alive; asked only where the claim would be replaced.
   */
  async take(lease: string, kind: LeaseKind, isLost: (claim: Claim) => boolean, patienceMs?: number): Promise<Taken> {
    const key = this.#leaseKey(lease);
    const turns = new Turns(lease);
    for (let standing: Entry | undefined; ; ) {
      const next = this.#successor(standing?.claim, kind, isLost);
      if (next === null) return { ...UNCLAIMED, entry: standing };
      const conditions = [{ key, revision: standing?.revision ?? 0 }, ...this.#absent(next.inherited)];
      const put = { put: { key, value: JSON.stringify(next.claim) } };
      const { isDone, revision, found } = await this.#etcd.transaction(conditions, [put], key, patienceMs);
      if (isDone) return { isOurs: true, entry: { claim: next.claim, revision }, inherited: next.inherited };
      standing = this.#entryOf(await this.#reread(key, found, turns));
    }
  }

  /** What take() would answer if this stood there. */
  foresee(kind: LeaseKind, standing: Claim | undefined): Taken {
    const entry = standing && { claim: standing, revision: 0 };
    return { ...UNCLAIMED, isOurs: this.#successor(standing, kind, () => false) !== null, entry };
  }

  #successor(
    standing: Claim | undefined,
    kind: LeaseKind,
    isLost: (claim: Claim) => boolean,
  ): { claim: Claim; inherited: Claim | undefined } | null {
    const ours = { claim: { kind, nodes: [this.node] }, inherited: undefined };
    if (standing === undefined) return ours;
    const others = standing.nodes.filter((node) => node !== this.node);
    if (others.length === 0) return ours;
    if (SHARED.includes(kind))
      return standing.kind === kind ? { claim: { kind, nodes: [...others, this.node] }, inherited: undefined } : null;
    return others.length === standing.nodes.length && isLost(standing) ? { ...ours, inherited: standing } : null;
  }

  #absent(lost: Claim | undefined): Condition[] {
    return (lost?.nodes ?? []).map((node) => ({ key: this.#nodeKey(node), revision: 0 }));
  }

  /** Gives up this node's part in a claim, back to `heir` if there is one. `known`: what stands there as far as is known. */
  async giveBack(lease: string, known: Entry | undefined, heir?: Claim, patienceMs?: number): Promise<void> {
    const key = this.#leaseKey(lease);
    const turns = new Turns(lease);
    for (let standing = known; ; ) {
      const changes = standing === undefined ? [] : this.#without(key, standing.claim, heir);
      if (changes === null) return;
      const condition = { key, revision: standing?.revision ?? 0 };
      const { isDone, found } = await this.#etcd.transaction([condition], changes, key, patienceMs);
      if (isDone || found === undefined) return;
      standing = this.#entryOf(await this.#reread(key, found, turns));
    }
  }

  /** What stands at the key when it is time to try again: after a pause, what was found is of the past. */
  async #reread(key: string, found: StoredValue | undefined, turns: Turns): Promise<StoredValue | undefined> {
    if (!(await turns.pause())) return found;
    return (await this.#etcd.transaction([{ key, revision: NO_REVISION }], [], key)).found;
  }

  /** Null when this node has no part in it. */
  #without(key: string, { kind, nodes }: Claim, heir: Claim | undefined): Change[] | null {
    if (!nodes.includes(this.node)) return null;
    const others = nodes.filter((node) => node !== this.node);
    const rest = others.length > 0 ? { kind, nodes: others } : heir;
    return rest === undefined ? [{ delete: key }] : [{ put: { key, value: JSON.stringify(rest) } }];
  }

  // --- all of it ----------------------------------------------------------------------------------------------------

  /** All that stands below the name of the cluster, and how far etcd had come then. */
  async load(): Promise<{ news: News[]; position: Position }> {
    const { entries, position } = await this.#etcd.list(this.#prefix);
    return { news: entries.flatMap((entry) => this.#news(entry, false)), position };
  }

  /** Every change after that position, in order, until the stream ends or is closed. */
  watch({ revision }: Position, onNews: (news: readonly News[], at: Position) => void): ChangeStream {
    return this.#etcd.watch(this.#prefix, revision + 1, (changes: readonly KeyChange[], at) =>
      onNews(
        changes.flatMap(({ entry, isGone }) => this.#news(entry, isGone)),
        at,
      ),
    );
  }

  #news(kv: StoredValue, isGone: boolean): News[] {
    const [table, ...words] = kv.key.slice(this.#prefix.length).split('/');
    const rest = words.join('/');
    if (table === 'nodes') return [{ node: rest, isAlive: !isGone }];
    if (table !== 'leases') return [];
    return [{ lease: rest, entry: isGone ? undefined : this.#entry(kv), revision: kv.revision }];
  }

  #entryOf(found: StoredValue | undefined): Entry | undefined {
    return found && this.#entry(found);
  }

  #entry({ key, value, revision }: StoredValue): Entry {
    const claim = this.#claims.get(value) ?? readClaim(key, value);
    this.#claims.set(value, claim);
    return { claim, revision };
  }

  #nodeKey(node: string): string {
    return `${this.#prefix}nodes/${node}`;
  }

  #leaseKey(lease: string): string {
    return `${this.#prefix}leases/${lease}`;
  }
}

/** Where a hundred hosts name one gateway at the same moment, one gets through at a time: so each waits longer after each try. */
class Turns {
  readonly #untilMs = performance.now() + CONTENTION_MS;
  readonly #key: string;
  #longestMs = 0;

  constructor(key: string) {
    this.#key = key;
  }

  /** False, and at once, before the second try, since most often there is but one other. Throws when it has lasted too long. */
  async pause(): Promise<boolean> {
    if (performance.now() > this.#untilMs) throw errors.recordContended(this.#key);
    const longestMs = this.#longestMs;
    this.#longestMs = Math.min(Math.max(FIRST_PAUSE_MS, 2 * longestMs), LONGEST_PAUSE_MS);
    if (longestMs > 0) await delay(Math.random() * longestMs);
    return longestMs > 0;
  }
}

const KINDS: readonly string[] = ['gateway', 'auxiliary', 'container', 'host'];

/** Other programs may write there: what is no claim is nobody's, and nobody gets the address. */
function readClaim(key: string, value: string): Claim {
  const { kind, nodes } = parsed(value) as { kind?: unknown; nodes?: unknown };
  const names = Array.isArray(nodes) ? nodes.filter((node) => typeof node === 'string') : [];
  if (typeof kind !== 'string' || !KINDS.includes(kind) || names.length === 0)
    return { kind: 'auxiliary', nodes: [`what wrote ${key}`] };
  return { kind: kind as LeaseKind, nodes: names };
}

function hostIn(value: string): string {
  return String((parsed(value) as { host?: unknown }).host);
}

function parsed(value: string): object {
  try {
    return Object(JSON.parse(value)) as object;
  } catch {
    return {};
  }
}
