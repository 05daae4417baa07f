/**
 * What hosts agree upon in etcd. Below the name of their cluster:
 *
 *     /tsmacvlan/NAME/schema                        2
 *     /tsmacvlan/NAME/nodes/NODE                    {"host":"web1",…}  ends some time after the host was heard of last
 *     /tsmacvlan/NAME/leases/REALM/ADDRESS          {"kind":"container","nodes":["web1-3f2a9c1d04be"]}
 *     /tsmacvlan/NAME/rivals/NODE/REALM/ADDRESS     {"since":"2026-…"}  the node has it too; ends with the node's record
 *     /tsmacvlan/NAME/awaited/NODE                  after etcd was restored: what this node has is not known for certain
 *     /tsmacvlan/NAME/places/NODE                   3f2a…  where the node's processes run; empty: at several places, see leases.ts
 *     /tsmacvlan/NAME/restored                      so it was minutes ago at most
 *
 * A claim outlives its node's record: a host that is cut off goes on using its addresses. Every change is conditioned on the
 * revision that was read and on the record of its node (membership.ts), so one that arrives late, after it was given up,
 * changes nothing it should not. A claim that was taken over from a lost host names that as its `heir` until the address is
 * tied to an endpoint, before which the LAN was asked: whatever becomes of the taker, it goes back.
 */
import { setTimeout as delay } from 'node:timers/promises';
import * as errors from '../../errors.ts';
import type { LeaseKind } from '../../model.ts';
import { type ChangeStream, type Etcd, PATIENCE_MS, type Position } from './client.ts';
import type { Self } from './identity.ts';
import { Membership } from './membership.ts';
import type { Change, Condition, KeyChange, StoredValue } from './messages.ts';

/** Who has an address. Gateways and auxiliary addresses are named by every host of the LAN; others have one node. */
export interface Claim {
  readonly kind: LeaseKind;
  readonly nodes: readonly string[];
  /** Whose it was, and is again unless the container of `nodes` comes to be. */
  readonly heir?: { readonly kind: LeaseKind; readonly nodes: readonly string[] };
}

/** A claim as it is in etcd, with the revision of its last change. */
export interface Entry {
  readonly claim: Claim;
  readonly revision: number;
}

/**
 * One key: a claim on an address, under the key of its lease; a node; one that has the address too, since when, or null when
 * no longer; a node that is awaited after a restore; whether that was lately. Without an entry a claim is gone.
 */
export type News =
  | { readonly lease: string; readonly entry: Entry | undefined; readonly revision: number }
  | { readonly node: string; readonly isAlive: boolean; readonly host: string }
  | { readonly rival: string; readonly of: string; readonly since: string | null }
  | { readonly awaited: string; readonly isAwaited: boolean }
  | { readonly isRestored: boolean };

/** What became of an attempt to claim an address. */
export interface Taken {
  readonly isOurs: boolean;
  /** As it stands now. */
  readonly entry: Entry | undefined;
}

/** Of the keys and their values. */
const SCHEMA = '2';
/** The one before had no heirs, and is brought up to this one. */
const OLD_SCHEMA = '1';
/** So long at least every address needs proof after etcd was restored. */
const RESTORED_S = 120;
/** Keys of one transaction; etcd takes 128. */
const AT_ONCE = 100;
/** For one change of one key that others change too; the server gives a call up after 9 s. */
const CONTENTION_MS = 6000;
const FIRST_PAUSE_MS = 8;
const LONGEST_PAUSE_MS = 600;
/** No key will ever have it. */
const NO_REVISION = Number.MAX_SAFE_INTEGER;
const SHARED: readonly LeaseKind[] = ['gateway', 'auxiliary'];

/**
 * The keys of one cluster in etcd, as this node reads and writes them. Each call throws what client.ts throws when no
 * member answers, and each that changes something CLUSTER_NODE_TAKEN when this process is not the node.
 */
export class Registry {
  readonly membership: Membership;
  readonly #etcd: Etcd;
  readonly #prefix: string;
  /** As it was heard last: another version of this program may change it while this one runs. */
  #schema = SCHEMA;
  /** While changes wait: see hold(). */
  #held: PromiseWithResolvers<void> | undefined;
  /** By text: there are far fewer different claims than addresses. */
  readonly #claims = new Map<string, Claim>();

  constructor(etcd: Etcd, cluster: string, self: Self) {
    this.#etcd = etcd;
    this.#prefix = `/tsmacvlan/${cluster}/`;
    this.membership = new Membership(
      etcd,
      { record: this.#nodeKey(self.node), place: this.#placeKey(self.node) },
      self,
    );
  }

  /** The name that this node has among the others. */
  get node(): string {
    return this.membership.self.node;
  }

  /**
   * From now on no change is made until release(): etcd may have been restored or replaced, which is known only when all of it
   * was read.
   */
  hold(): void {
    if (this.#held !== undefined) return;
    this.#held = Promise.withResolvers<void>();
    this.#held.promise.catch(() => undefined);
  }

  /** Whether changes wait. */
  get isHeld(): boolean {
    return this.#held !== undefined;
  }

  /** Changes go on; those that waited fail with the refusal, if there is one: what they rest on is not so any more. */
  release(refusal: errors.PluginError | null): void {
    if (refusal === null) this.#held?.resolve();
    else this.#held?.reject(refusal);
    this.#held = undefined;
  }

  async #released(patienceMs: number): Promise<void> {
    const late = new AbortController();
    const silence = delay(patienceMs, null, { ref: false, signal: late.signal }).then(() => {
      throw this.#etcd.silence();
    });
    await Promise.race([this.#held?.promise, silence]).finally(() => late.abort());
  }

  /** Throws CLUSTER_SCHEMA. */
  async checkSchema(): Promise<void> {
    const key = `${this.#prefix}schema`;
    for (let revision = 0; ; ) {
      const put = { put: { key, value: SCHEMA } };
      const { isDone, found } = await this.#etcd.transaction([{ key, revision }], [put], [key]);
      const [standing] = found;
      if (isDone || standing?.value === SCHEMA) break;
      this.#schema = standing?.value ?? SCHEMA;
      this.#judgeSchema();
      revision = standing?.revision ?? 0;
    }
    this.#schema = SCHEMA;
  }

  /** Throws CLUSTER_SCHEMA for one that this program neither knows nor brings up to its own. */
  #judgeSchema(): void {
    if (![SCHEMA, OLD_SCHEMA].includes(this.#schema)) throw errors.clusterSchema(this.#prefix, this.#schema, SCHEMA);
  }

  /** Whether the store takes changes: it is asked for one that is never made. Throws CLUSTER_FULL. */
  async tryToWrite(): Promise<void> {
    const key = `${this.#prefix}schema`;
    const put = { put: { key, value: SCHEMA } };
    await this.#etcd.transaction([{ key, revision: NO_REVISION }], [put], [key]);
  }

  // --- claims -------------------------------------------------------------------------------------------------------

  /**
   * Claims an address for this node. What it has already is claimed again, so that no release that is still under way takes it
   * away. `isLost`: none of the nodes is alive; asked only where the claim would be replaced.
   */
  async take(lease: string, kind: LeaseKind, isLost: (claim: Claim) => boolean, patienceMs?: number): Promise<Taken> {
    const key = this.#leaseKey(lease);
    const turns = new Turns(lease);
    for (let standing: Entry | undefined; ; ) {
      const claim = this.#successor(standing?.claim, kind, isLost);
      if (claim === null) return { isOurs: false, entry: standing };
      const conditions = [{ key, revision: standing?.revision ?? 0 }, ...this.#absent(claim)];
      const put = { put: { key, value: JSON.stringify(claim) } };
      const { isDone, revision, found } = await this.#change(key, conditions, [put], patienceMs);
      if (isDone) return { isOurs: true, entry: { claim, revision } };
      standing = this.#entryOf(await this.#reread(key, found, turns));
    }
  }

  /** The address is tied to an endpoint and goes to no heir any more. False when it is another node's by now. */
  async settleHeir(lease: string, known: Entry): Promise<Taken> {
    const key = this.#leaseKey(lease);
    const turns = new Turns(lease);
    for (let standing: Entry | undefined = known; ; ) {
      const claim: Claim | undefined = standing?.claim;
      if (claim === undefined || !claim.nodes.includes(this.node)) return { isOurs: false, entry: standing };
      const settled = { kind: claim.kind, nodes: claim.nodes };
      const condition = { key, revision: standing?.revision ?? 0 };
      const put = { put: { key, value: JSON.stringify(settled) } };
      const { isDone, revision, found } = await this.#change(key, [condition], [put]);
      if (isDone) return { isOurs: true, entry: { claim: settled, revision } };
      standing = this.#entryOf(await this.#reread(key, found, turns));
    }
  }

  /** What take() would answer if this stood there and nobody were lost. */
  foresee(kind: LeaseKind, standing: Claim | undefined): Taken {
    const entry = standing && { claim: standing, revision: 0 };
    return { isOurs: this.#successor(standing, kind, () => false) !== null, entry };
  }

  /** The claim that this node may put there; null when it may not. */
  #successor(standing: Claim | undefined, kind: LeaseKind, isLost: (claim: Claim) => boolean): Claim | null {
    const ours = { kind, nodes: [this.node] };
    if (standing === undefined) return ours;
    const { nodes, heir } = standing;
    const others = nodes.filter((node) => node !== this.node);
    if (others.length === 0) return heir === undefined ? ours : { ...ours, heir };
    // Whoever took it over has no container with it yet.
    if (heir?.nodes.includes(this.node)) return ours;
    if (isShared(kind)) return standing.kind === kind ? { kind, nodes: [...others, this.node] } : null;
    // Nobody on the LAN answers for an address that is kept for a router to come.
    const mayInherit = !isShared(standing.kind) && others.length === nodes.length && isLost(standing);
    return mayInherit ? { ...ours, heir: heir ?? { kind: standing.kind, nodes } } : null;
  }

  /** Whom this node inherits from is not there. */
  #absent({ heir }: Claim): Condition[] {
    const lost = (heir?.nodes ?? []).filter((node) => node !== this.node);
    return lost.map((node) => ({ key: this.#nodeKey(node), revision: 0 }));
  }

  /**
   * Gives up this node's part in a claim, back to its heir if there is one. `known`: what stands there as far as is known. Answers
   * what stands there now by this; undefined when nothing does, or another did it.
   */
  async giveBack(lease: string, known: Entry | undefined, patienceMs?: number): Promise<Entry | undefined> {
    return this.#withdraw(lease, this.node, known, [], patienceMs);
  }

  /** Gives up the part of a node that is lost, which must not have come back. */
  async giveBackFor(node: string, lease: string): Promise<void> {
    await this.#withdraw(lease, node, undefined, [{ key: this.#nodeKey(node), revision: 0 }]);
  }

  async #withdraw(
    lease: string,
    node: string,
    known: Entry | undefined,
    conditions: readonly Condition[],
    patienceMs?: number,
  ): Promise<Entry | undefined> {
    const key = this.#leaseKey(lease);
    const turns = new Turns(lease);
    for (let standing = known; ; ) {
      if (standing !== undefined && !standing.claim.nodes.includes(node)) return undefined;
      const rest = standing && restWithout(standing.claim, node);
      const change = rest === undefined ? { delete: key } : { put: { key, value: JSON.stringify(rest) } };
      const all = [{ key, revision: standing?.revision ?? 0 }, ...conditions];
      const changes = standing === undefined ? [] : [change];
      const { isDone, revision, found } = await this.#change(key, all, changes, patienceMs);
      if (isDone) return rest && { claim: rest, revision };
      if (found === undefined) return undefined;
      const next = this.#entryOf(await this.#reread(key, found, turns));
      // The node came back, or the claim is not what it was.
      if (next !== undefined && next.revision === standing?.revision) throw errors.recordContended(lease);
      standing = next;
    }
  }

  /** What stands at the key when it is time to try again: after a pause, what was found is of the past. */
  async #reread(key: string, found: StoredValue | undefined, turns: Turns): Promise<StoredValue | undefined> {
    if (!(await turns.pause())) return found;
    return this.#read(key);
  }

  async #read(key: string, patienceMs?: number): Promise<StoredValue | undefined> {
    return (await this.#etcd.transaction([{ key, revision: NO_REVISION }], [], [key], patienceMs)).found[0];
  }

  /**
   * All changes when all conditions hold and this process is the node; else none, and what stands at the key. `mayWait`: for
   * release().
   */
  async #change(
    key: string,
    conditions: readonly Condition[],
    changes: readonly Change[],
    patienceMs = PATIENCE_MS,
    mayWait = true,
  ): Promise<{ isDone: boolean; revision: number; found: StoredValue | undefined }> {
    this.#judgeSchema();
    for (const turns = new Turns(key); ; await turns.pause()) {
      while (mayWait && this.#held !== undefined) await this.#released(patienceMs);
      await this.membership.ensure();
      if (mayWait && this.#held !== undefined) continue;
      const { condition } = this.membership;
      const outcome = await this.#etcd.transaction([...conditions, condition], changes, [key], patienceMs);
      const [found] = outcome.found;
      // Mostly another host was first at the key, and there is nothing more to ask.
      const isAsThought = conditions.every((one) => one.key !== key || one.revision === (found?.revision ?? 0));
      if (outcome.isDone || !isAsThought) return { ...outcome, found };
      if ((await this.#read(condition.key, patienceMs))?.revision === condition.revision) return { ...outcome, found };
      this.membership.forfeit(condition.revision);
    }
  }

  // --- rivals, and what a restore leaves in doubt -----------------------------------------------------------------------

  /** Tells the others that this node has the address too, as long as it lives; null: no longer. */
  async declareRival(lease: string, since: string | null): Promise<void> {
    const key = `${this.#prefix}rivals/${this.node}/${lease}`;
    await this.membership.ensure();
    const put = { put: { key, value: JSON.stringify({ since }), lease: this.membership.leaseId } };
    await this.#change(key, [], [since === null ? { delete: key } : put]);
  }

  /** etcd was restored: what these nodes have is awaited, and for some minutes proof is needed whoever they are. Waits for no release(). */
  async noteRestored(nodes: readonly string[]): Promise<void> {
    const leaseId = 1 + Math.floor(Math.random() * 2 ** 48);
    await this.#etcd.grant(leaseId, RESTORED_S);
    const key = `${this.#prefix}restored`;
    await this.#change(key, [], [{ put: { key, value: '', lease: leaseId } }], PATIENCE_MS, false);
    for (let from = 0; from < nodes.length; from += AT_ONCE) {
      const some = nodes.slice(from, from + AT_ONCE);
      await this.#change(
        key,
        [],
        some.map((node) => ({ put: { key: this.#awaitedKey(node), value: '' } })),
        PATIENCE_MS,
        false,
      );
    }
  }

  /** What the node has is claimed again; or it never will be. */
  async noteBack(node = this.node): Promise<void> {
    const key = this.#awaitedKey(node);
    await this.#change(key, [], [{ delete: key }]);
  }

  /** The node has nothing any more and will not come back. */
  async noteScrapped(node: string): Promise<void> {
    await this.noteBack(node);
    const key = this.#placeKey(node);
    await this.#change(key, [], [{ delete: key }]);
  }

  // --- all of it ----------------------------------------------------------------------------------------------------

  /** All that stands below the name of the cluster, and how far etcd had come then. */
  async load(): Promise<{ news: News[]; position: Position }> {
    const { entries, position } = await this.#etcd.list(this.#prefix);
    return { news: entries.flatMap((entry) => this.#news(entry, false)), position };
  }

  /** When the claim was changed last, as it stood at an earlier revision: 0 without one, null where that was compacted away. */
  async changeAt(lease: string, revision: number): Promise<number | null> {
    return this.#etcd.revisionAt(this.#leaseKey(lease), revision);
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
    switch (table) {
      case 'leases':
        return [{ lease: rest, entry: isGone ? undefined : this.#entry(kv), revision: kv.revision }];
      case 'nodes':
        return [{ node: rest, isAlive: !isGone, host: wordIn(kv.value, 'host') }];
      case 'rivals':
        return [
          { rival: words.slice(1).join('/'), of: words[0] ?? '', since: isGone ? null : wordIn(kv.value, 'since') },
        ];
      case 'awaited':
        return [{ awaited: rest, isAwaited: !isGone }];
      case 'restored':
        return [{ isRestored: !isGone }];
      case 'schema':
        if (!isGone) this.#schema = kv.value;
        return [];
      default:
        return [];
    }
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

  #placeKey(node: string): string {
    return `${this.#prefix}places/${node}`;
  }

  #leaseKey(lease: string): string {
    return `${this.#prefix}leases/${lease}`;
  }

  #awaitedKey(node: string): string {
    return `${this.#prefix}awaited/${node}`;
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

  /**
   * False, and at once, before the second try, since most often there is but one other; etcd may have been slow to answer the first.
   * Throws when it has lasted too long.
   */
  async pause(): Promise<boolean> {
    if (this.#longestMs > 0 && performance.now() > this.#untilMs) throw errors.recordContended(this.#key);
    const longestMs = this.#longestMs;
    this.#longestMs = Math.min(Math.max(FIRST_PAUSE_MS, 2 * longestMs), LONGEST_PAUSE_MS);
    if (longestMs > 0) await delay(Math.random() * longestMs);
    return longestMs > 0;
  }
}

/** What is left of a claim without the node; undefined when nothing is. */
function restWithout({ kind, nodes, heir }: Claim, node: string): Claim | undefined {
  const others = nodes.filter((one) => one !== node);
  return others.length > 0 ? { kind, nodes: others } : heir;
}

/** Whether several hosts name it, and nobody inherits it. */
export function isShared(kind: LeaseKind): boolean {
  return SHARED.includes(kind);
}

const KINDS: readonly string[] = ['gateway', 'auxiliary', 'container', 'host'];

/** Other programs may write there: what is no claim is nobody's, and nobody gets the address. */
function readClaim(key: string, value: string): Claim {
  const { heir, ...written } = parsed(value) as { heir?: unknown };
  const claim = readHolder(written);
  if (claim === undefined) return { kind: 'auxiliary', nodes: [`what wrote ${key}`] };
  const before = heir === undefined ? undefined : readHolder(Object(heir) as object);
  return before === undefined ? claim : { ...claim, heir: before };
}

function readHolder({ kind, nodes }: { kind?: unknown; nodes?: unknown }): Claim | undefined {
  const names = Array.isArray(nodes) ? nodes.filter((node) => typeof node === 'string') : [];
  if (typeof kind !== 'string' || !KINDS.includes(kind) || names.length === 0) return undefined;
  return { kind: kind as LeaseKind, nodes: names };
}

function wordIn(value: string, field: string): string {
  const word = (parsed(value) as Record<string, unknown>)[field];
  return typeof word === 'string' ? word : '';
}

function parsed(value: string): object {
  try {
    return Object(JSON.parse(value)) as object;
  } catch {
    return {};
  }
}
