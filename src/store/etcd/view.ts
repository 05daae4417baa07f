/** What the shared store says, in memory: which host claims which address, and which hosts are alive. */
import type { Holder, Lease } from '../../model.ts';
import type { Position } from './client.ts';
import type { Claim, Entry, News } from './claims.ts';

/** For leases of other hosts, of which no more is known. */
const NO_DATE = '1970-01-01T00:00:00.000Z';

/** Claims and living nodes, kept up by load() and apply() from what is heard of etcd, in the order of its revisions. */
export class View {
  readonly #node: string;
  readonly #entries = new Map<string, Entry>();
  readonly #nodes = new Set<string>();
  /** All changes up to here are in. */
  #at: Position = { clusterId: 0, revision: 0 };
  /** Of the last change that anything told of: answers to claims are ahead of the changes. */
  #latest = 0;

  constructor(node: string) {
    this.#node = node;
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

  /** Whether none of the nodes that have it is alive. */
  isLost({ nodes }: Claim): boolean {
    return nodes.every((node) => !this.#nodes.has(node));
  }

  /** How far the store had come when it last said anything. */
  get latest(): Position {
    return { ...this.#at, revision: this.#latest };
  }

  /** Begins anew with all there is. Answers the keys of leases that were there and are not any more, of which no change told. */
  load(news: readonly News[], at: Position): string[] {
    const known = [...this.#entries.keys()];
    this.#entries.clear();
    this.#nodes.clear();
    this.#latest = 0;
    this.apply(news, at);
    return known.filter((key) => !this.#entries.has(key));
  }

  /** Changes in order, the last of them there. */
  apply(news: readonly News[], at: Position): void {
    for (const one of news) {
      if ('lease' in one) this.#change(one.lease, one.entry, one.revision);
      else if (one.isAlive) this.#nodes.add(one.node);
      else this.#nodes.delete(one.node);
    }
    this.#at = at;
    this.#latest = Math.max(this.#latest, at.revision);
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
    if (entry.revision > this.#at.revision) this.#change(key, entry, entry.revision);
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

  /** Keys of leases that only lost hosts have. */
  *lostBelow(prefix: string): Generator<string> {
    for (const [key, { claim }] of this.#entries)
      if (key.startsWith(prefix) && this.isLost(claim) && !this.isOurs(key)) yield key;
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

/** Realm and address of a lease's key. */
export function partsOf(key: string): [string, string] {
  const at = key.lastIndexOf('/');
  return [key.slice(0, at), key.slice(at + 1)];
}
