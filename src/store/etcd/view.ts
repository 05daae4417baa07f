/** What the shared store says, in memory: which host claims which address, and which hosts are alive, or were. */
import type { Holder, Lease, LeaseKind } from '../../model.ts';
import type { Position } from './client.ts';
import { type Claim, type Entry, isShared, type News } from './claims.ts';
import { COMMAND, type LastClaim } from './identity.ts';

/** For leases of other hosts, of which no more is known. */
const NO_DATE = '1970-01-01T00:00:00.000Z';

/** So long a host must not have been heard of, while it could have entered itself, before it is lost. */
const SILENCE_MS = 30_000;
/** It could have done so when the store took changes at two looks no further apart. */
const LOOKS_APART_MS = 12_000;

/** Claims and living nodes, kept up by load() and apply() from what is heard of etcd, in the order of its revisions. */
export class View {
  readonly #node: string;
  readonly #nowMs: () => number;
  readonly #entries = new Map<string, Entry>();
  readonly #nodes = new Set<string>();
  /** When a node went, of those that did since all was loaded. */
  readonly #wentAtMs = new Map<string, number>();
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  /** Without a break until the last look. */
  #writableSinceMs = Number.POSITIVE_INFINITY;
  #writableAtMs = Number.NEGATIVE_INFINITY;
  /** By key of the lease: nodes that have it too, and since when. */
  readonly #rivals = new Map<string, Map<string, string>>();
  readonly #awaited = new Set<string>();
  /** By key of the lease, the revisions of this node's claims on what nobody had, of which no change told yet. */
  readonly #answered = new Map<string, number>();
  #isRestored = false;
  /** All changes up to here are in. */
  #at: Position = { clusterId: '', revision: 0 };
  /** Of the last change that anything told of: answers to claims are ahead of the changes. */
  #latest = 0;

  /** `nowMs`: monotonic. */
  constructor(node: string, nowMs: () => number = () => performance.now()) {
    this.#node = node;
    this.#nowMs = nowMs;
  }

  /** The keys of all leases that are claimed, by whichever host. */
  keys(): Iterable<string> {
    return this.#entries.keys();
  }

  /** The claim on a lease's key; undefined when nobody has one. */
  at(key: string): Entry | undefined {
    return this.#entries.get(key);
  }

  /** Whether this node is among those that claim it. */
  isOurs(key: string): boolean {
    return this.#entries.get(key)?.claim.nodes.includes(this.#node) ?? false;
  }

  /** Whether the node is alive, as far as was heard. */
  knows(node: string): boolean {
    return this.#nodes.has(node);
  }

  /** All hosts that were or are heard of: those alive, and those that have claims. `news`: what is not in yet. */
  allNodes(news: readonly News[]): Set<string> {
    const alive = news.flatMap((one) => ('node' in one && one.isAlive ? one.node : []));
    const nodes = new Set([...this.#nodes, ...alive].filter((node) => !node.startsWith(COMMAND)));
    const found = news.flatMap((one) => ('lease' in one && one.entry !== undefined ? one.entry : []));
    for (const { claim } of [...this.#entries.values(), ...found]) for (const node of everyNode(claim)) nodes.add(node);
    return nodes;
  }

  /** Of the claims that stand the one that was changed last: an etcd restored from before does not have it. */
  get lastClaim(): LastClaim | undefined {
    let found: LastClaim | undefined;
    for (const [lease, { revision }] of this.#entries)
      if (revision > (found?.revision ?? 0)) found = { lease, revision };
    return found;
  }

  /**
   * Whether none of the nodes that have it, or had it before, was heard of for 30 s in which each could have made itself heard:
   * a store that is full takes no host in that comes back.
   */
  isLost(claim: Claim): boolean {
    const since = Math.max(this.#writableSinceMs, ...everyNode(claim).map((node) => this.#silentSinceMs(node)));
    return this.#nowMs() - since >= SILENCE_MS;
  }

  /** Infinite for a node that is alive. */
  #silentSinceMs(node: string): number {
    if (this.#nodes.has(node)) return Number.POSITIVE_INFINITY;
    return Math.max(this.#loadedAtMs, this.#wentAtMs.get(node) ?? Number.NEGATIVE_INFINITY);
  }

  /** Whether a node that has claims is not alive: it is to be seen whether the store takes changes. */
  get hasSilent(): boolean {
    for (const { claim } of this.#entries.values())
      if (everyNode(claim).some((node) => !this.#nodes.has(node))) return true;
    return false;
  }

  /** The store takes changes at this moment, or does not. */
  noteWritable(isWritable: boolean): void {
    const nowMs = this.#nowMs();
    if (!isWritable) this.#writableSinceMs = Number.POSITIVE_INFINITY;
    else if (this.#writableSinceMs === Number.POSITIVE_INFINITY || nowMs - this.#writableAtMs > LOOKS_APART_MS)
      this.#writableSinceMs = nowMs;
    this.#writableAtMs = nowMs;
  }

  /** Nodes but this one that have the address too, each with its date; those of a claim are not among them. */
  rivals(key: string): [string, string][] {
    const all = this.#rivals.get(key);
    return all === undefined ? [] : [...all].filter(([node]) => node !== this.#node);
  }

  /** Whether this node has said that it has the address too. */
  isRival(key: string): boolean {
    return this.#rivals.get(key)?.has(this.#node) ?? false;
  }

  /** What the store says was restored lately, or a host is awaited that may have more than the store knows. */
  get isInDoubt(): boolean {
    return this.#isRestored || this.#awaited.size > 0;
  }

  /** Whether this node has to say that its claims are made again. */
  get isAwaited(): boolean {
    return this.#awaited.has(this.#node);
  }

  /** How far the store had come when it last said anything. */
  get latest(): Position {
    return { ...this.#at, revision: this.#latest };
  }

  /** Begins again with all there is. Answers the keys of leases that were there and are not any more, of which no change told. */
  load(news: readonly News[], at: Position): string[] {
    const known = [...this.#entries.keys()];
    for (const table of [this.#entries, this.#nodes, this.#rivals, this.#awaited, this.#wentAtMs, this.#answered])
      table.clear();
    this.#isRestored = false;
    this.#latest = 0;
    // What happened meanwhile was not seen.
    this.#loadedAtMs = this.#nowMs();
    this.#writableSinceMs = Number.POSITIVE_INFINITY;
    this.apply(news, at);
    return known.filter((key) => !this.#entries.has(key));
  }

  /** Changes in order, the last of them there. Answers those that say more than the answers to this node's own claims did. */
  apply(news: readonly News[], at: Position): News[] {
    const unknown: News[] = [];
    for (const one of news) {
      if (!this.#isEcho(one)) unknown.push(one);
      if ('lease' in one) this.#change(one.lease, one.entry, one.revision);
      else if ('node' in one) this.#noteNode(one.node, one.isAlive);
      else if ('rival' in one) this.#noteRival(one.rival, one.of, one.since);
      else if ('awaited' in one && one.isAwaited) this.#awaited.add(one.awaited);
      else if ('awaited' in one) this.#awaited.delete(one.awaited);
      else if ('isRestored' in one) this.#isRestored = one.isRestored;
    }
    this.#at = at;
    this.#latest = Math.max(this.#latest, at.revision);
    return unknown;
  }

  /** What the answer to a claim on a free address said before: most of what a host hears when it starts containers. */
  #isEcho(one: News): boolean {
    if (!('lease' in one) || this.#answered.get(one.lease) !== one.revision) return false;
    return this.#answered.delete(one.lease);
  }

  #noteNode(node: string, isAlive: boolean): void {
    if (isAlive) this.#nodes.add(node);
    else {
      this.#nodes.delete(node);
      this.#wentAtMs.set(node, this.#nowMs());
    }
  }

  #noteRival(key: string, node: string, since: string | null): void {
    const known = this.#rivals.get(key) ?? new Map<string, string>();
    if (since === null) known.delete(node);
    else known.set(node, since);
    if (known.size > 0) this.#rivals.set(key, known);
    else this.#rivals.delete(key);
  }

  /** Claims of this host that it had then and that are not among all there is, or an earlier one is. */
  forgotten(news: readonly News[], { revision }: Position): string[] {
    const found = new Map(news.flatMap((one) => ('lease' in one ? [[one.lease, one.revision]] : [])));
    const ours = [...this.#entries].filter(([key, known]) => this.isOurs(key) && known.revision <= revision);
    return ours.filter(([key, known]) => (found.get(key) ?? 0) < known.revision).map(([key]) => key);
  }

  #change(key: string, entry: Entry | undefined, revision: number): void {
    const known = this.#entries.get(key);
    if (known !== undefined && known.revision > revision) return;
    if (entry === undefined) this.#entries.delete(key);
    else this.#entries.set(key, entry);
  }

  /** What an answer said. It may be overtaken by the changes, which then know better. */
  note(key: string, entry: Entry): void {
    this.#latest = Math.max(this.#latest, entry.revision);
    if (entry.revision <= this.#at.revision) return;
    const { nodes, heir } = entry.claim;
    const isOurs = nodes.length === 1 && nodes[0] === this.#node && heir === undefined;
    if (isOurs && !this.#entries.has(key)) this.#answered.set(key, entry.revision);
    this.#change(key, entry, entry.revision);
  }

  /** What another host has the address for; undefined when none but this host has it. */
  kindOfOther(key: string): LeaseKind | undefined {
    const claim = this.#entries.get(key)?.claim;
    return claim?.nodes.some((one) => one !== this.#node) === true ? claim.kind : undefined;
  }

  /** Another host's lease; undefined when none but this host has the address. */
  foreign(key: string): Lease | undefined {
    const claim = this.#entries.get(key)?.claim;
    const node = claim?.nodes.find((one) => one !== this.#node);
    if (claim === undefined || node === undefined) return undefined;
    const [realm, address] = partsOf(key);
    const holder: Holder = { node, isAlive: !this.isLost(claim) };
    return { realm, address, kind: claim.kind, poolIds: [], endpointId: null, holder, changedAt: NO_DATE };
  }

  /** Keys of leases that only lost hosts have, and that others may inherit. */
  *lostBelow(prefix: string): Generator<string> {
    for (const [key, { claim }] of this.#entries)
      if (key.startsWith(prefix) && !isShared(claim.kind) && !this.isOurs(key) && this.isLost(claim)) yield key;
  }

  /** Leases of other hosts whose key starts with the prefix. */
  *foreignBelow(prefix: string): Generator<Lease> {
    for (const key of this.#entries.keys()) {
      const lease = key.startsWith(prefix) ? this.foreign(key) : undefined;
      if (lease !== undefined) yield lease;
    }
  }
}

/** Whether the store that stands at `now` is another one than the one that had come to `known`, or an earlier one. */
export function isBehind(now: Position, known: Position): boolean {
  return known.revision > 0 && (now.clusterId !== known.clusterId || now.revision < known.revision);
}

/** Those that have it, and those that had it before. */
function everyNode({ nodes, heir }: Claim): readonly string[] {
  return heir === undefined ? nodes : [...nodes, ...heir.nodes];
}

/** Realm and address of a lease's key. */
export function partsOf(key: string): [string, string] {
  const at = key.lastIndexOf('/');
  return [key.slice(0, at), key.slice(at + 1)];
}
