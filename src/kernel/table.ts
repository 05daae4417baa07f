/**
 * The links and addresses of this network namespace and of all others that can be seen from here (namespaces.ts), read
 * once and kept by the kernel's events. The kernel queues an event before the system call returns that made the change, so
 * a look after drain() finds what a reading at that moment would find (watch.ts names what is told later).
 *
 * A namespace is read when it gets its number, since nothing was told of it before, and when it loses it, since the number
 * may be another's by then; all are read again after events were lost. What is told while a namespace is read is
 * applied once more after that. An event tells all that counts of its link or address, so whichever of the two is older,
 * the last event that is applied makes it right.
 *
 * Where the events of other namespaces do not come (no CAP_NET_BROADCAST, or a rest after a flood of them), those are read with
 * each update(). In a rest these readings leave three quarters of the time to others. A container can make a flood, and more links
 * than are remembered; either hides only what is in its own namespace.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isKernelError } from './errno.ts';
import { type KnownAddress, type KnownLink, KnownNamespaces, type KnownRows } from './known.ts';
import type { Link } from './message.ts';
import type { ForeignLink, NamespaceContents, Namespaces } from './namespaces.ts';
import type { NetlinkTrace } from './trace.ts';
import { EventSocket, type KernelEvent } from './watch.ts';

/** A change of a link of this namespace. `overflow`: changes were lost, so whoever keeps a picture of the links lists them again. */
export type LinkEvent = { readonly type: 'new' | 'deleted'; readonly link: Link } | { readonly type: 'overflow' };

/** What the table works with. */
interface LinkTableParts {
  /** Reads this namespace. */
  readonly readHere: () => Promise<NamespaceContents>;
  readonly namespaces: Namespaces;
  readonly trace: NetlinkTrace | null;
  /** A listener threw this. Told once in a minute at most; the others hear the event all the same. */
  readonly onFault: (error: unknown) => void;
}

/** What is known of one namespace, and how it is read. */
interface Rows extends KnownRows {
  reading: Promise<void> | undefined;
  /** How many have begun. */
  readings: number;
  /** Told while it is read. */
  told: KernelEvent[];
  /** While it is read it became another's number, or its events were lost. */
  isOutdated: boolean;
}

const SUB_INTERFACE_KINDS: ReadonlySet<string | null> = new Set(['macvlan', 'macvtap', 'ipvlan', 'ipvtap']);
/** The first event is read so much later, with those that came after it: the start of a container makes some thirty. */
const DRAIN_DELAY_MS = 50;
/** What the kernel refused to tell is asked for again so much later, unless somebody wants to know it before. */
const RETRY_MS = 1000;
/** Between two readings in a rest: so many times as long as the first took, and no longer than that. */
const PAUSE_SHARE = 3;
const LONGEST_PAUSE_MS = 500;
const FAULT_MS = 60_000;

/** Kept from the first use on until close(). It does not keep the process alive. */
export class LinkTable {
  readonly #parts: LinkTableParts;
  readonly #listeners = new Set<(event: LinkEvent) => void>();
  readonly #here = newRows(null);
  readonly #others = new Map<number, Rows>();
  readonly #known = new KnownNamespaces();
  /** To be read before the table can be believed, or being read. */
  readonly #stale = new Set<Rows>();
  /** Of these something may be missing. */
  readonly #partly = new Set<Rows>();
  /** Of this namespace. */
  #events: EventSocket | undefined;
  /** Of all others; null where they may not be heard, undefined before that was tried. */
  #foreignEvents: EventSocket | null | undefined;
  #opensAgain = false;
  #ownId: number | null = null;
  /** Which other namespaces there are has to be read. */
  #isUnlisted = true;
  #listing: Promise<void> | undefined;
  /** Somebody looks, so that what becomes stale is read in the background. */
  #isWanted = false;
  #restsUntilMs = 0;
  /** While the events of others rest. */
  #listsAgainAtMs = 0;
  #faultToldAtMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(parts: LinkTableParts) {
    this.#parts = parts;
    this.#stale.add(this.#here);
  }

  /** Nothing is told or known any more. */
  close(): void {
    this.#isClosed = true;
    this.#events?.close();
    this.#foreignEvents?.close();
    this.#events = this.#foreignEvents = undefined;
    clearTimeout(this.#timer);
    this.#listeners.clear();
  }

  /** Tells of every change of a link of this namespace from now on, at most 50 ms late. Returns how to stop it. */
  onChange(listener: (event: LinkEvent) => void): () => void {
    this.#open();
    // What waits was announced before.
    this.drain();
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Takes in, and tells the listeners, all that the kernel has announced until this moment. */
  drain(): void {
    this.#events?.read();
    this.#foreignEvents?.read();
    // A socket that rests is opened again by a tick.
    if (this.#isResting) this.#tickSoon();
  }

  /** Whether a look finds all that there is at this moment without update(): in one other namespace, or in whichever where it is left out. */
  isCurrent(namespaceId?: number): boolean {
    this.drain();
    if (this.#isUnlisted || !this.#hearsOthers || this.#events?.isResting === true) return false;
    const rows = namespaceId === undefined ? undefined : this.#others.get(namespaceId);
    return rows === undefined ? this.#stale.size === 0 : !this.#stale.has(rows);
  }

  get #hearsOthers(): boolean {
    return this.#foreignEvents?.isResting === false;
  }

  /** False where other namespaces cannot be read. */
  get seesOthers(): boolean {
    return this.#parts.namespaces.canRead;
  }

  /**
   * Resolves when a look finds all that a reading begun after this call would have found. Asks the kernel only for what its events
   * have not told. Throws what the kernel refuses.
   */
  async update(): Promise<void> {
    this.#begin();
    // One that began before this call may have looked too early, where no events tell of what came after.
    await this.#listing;
    if (this.#isUnlisted || !this.#hearsOthers) {
      await this.#pause();
      await this.#list();
    }
    if (this.#stale.size > 0) {
      await this.#refreshAll();
      this.drain();
    }
  }

  /** As update(), for this namespace only. */
  async updateHere(): Promise<void> {
    this.#begin();
    await this.#refresh(this.#here);
  }

  #begin(): void {
    this.#isWanted = true;
    this.#open();
    this.#tickSoon();
    this.drain();
    if (this.#events?.isResting) this.#outdate(this.#here);
  }

  // --- looks, each at what is known at this moment ---------------------------------------------------------------------

  /** A link of this namespace, by name or alternative name. */
  byName(name: string): Link | undefined {
    return this.#known.byName(name);
  }

  /** A link of this namespace. */
  byIndex(index: number): Link | undefined {
    return this.#here.links.get(index);
  }

  /** The links with this MAC address, in whatever namespace. */
  withMac(macAddress: string): KnownLink[] {
    return this.#known.withMac(macAddress);
  }

  /** Where this address is, without prefix length and canonical, in whatever namespace. */
  placesOf(address: string): KnownAddress[] {
    return this.#known.placesOf(address);
  }

  /** All that a namespace has; null where nothing is known of one. */
  contentsOf(namespaceId: number | null): { links: KnownLink[]; addresses: KnownAddress[] } | null {
    const rows = namespaceId === null ? this.#here : this.#others.get(namespaceId);
    return rows === undefined ? null : { links: [...rows.links.values()], addresses: [...rows.addresses.values()] };
  }

  // --- looks that ask the kernel again for what they find, and for nothing else ------------------------------------------

  /**
   * Links of other namespaces; null where none can be read. A namespace that ends keeps its number for a while, but cannot be
   * read any more: what is in it is not found.
   */
  async linksElsewhere(keep: (link: Link) => boolean): Promise<ForeignLink[] | null> {
    await this.update();
    const { namespaces } = this.#parts;
    if (!namespaces.canRead) return null;
    const known = Array.from(this.#others.values()).flatMap(({ links }) => Array.from(links.values()).filter(keep));
    return (await namespaces.again(known.map(asForeign))).filter(keep);
  }

  /** Sub-interfaces of a parent of this namespace that are in others and have this address there, without prefix length. */
  async subInterfacesElsewhere(parentIndex: number, address: string): Promise<ForeignLink[]> {
    await this.update();
    const isOne = ({ kind, parentIndex: on }: Link) => on === parentIndex && SUB_INTERFACE_KINDS.has(kind);
    if (address.includes(':')) await this.#readAgain(isOne);
    const known = this.placesOf(address).flatMap((place) => this.#linkAt(place) ?? []);
    const found = await this.#parts.namespaces.again(known.filter(isOne).map(asForeign));
    return this.withParentsHere(found.filter(isOne));
  }

  /** Sub-interfaces of a parent of this namespace that are in others and have this MAC address. Asks only where the table finds one. */
  async subInterfacesWithMac(parentIndex: number, macAddress: string): Promise<ForeignLink[]> {
    const isOne = ({ kind, parentIndex: on, macAddress: has }: Link) =>
      has === macAddress && on === parentIndex && SUB_INTERFACE_KINDS.has(kind);
    const known = this.withMac(macAddress).filter((link) => link.namespaceId !== null && isOne(link));
    if (known.length === 0) return [];
    const found = await this.#parts.namespaces.again(known.map(asForeign));
    return this.withParentsHere(found.filter(isOne));
  }

  /** Whether another namespace has a sub-interface of this parent of this namespace. */
  async hasSubInterfacesElsewhere(parentIndex: number): Promise<boolean> {
    const isOne = ({ kind, parentIndex: on }: Link) => on === parentIndex && SUB_INTERFACE_KINDS.has(kind);
    return (await this.withParentsHere((await this.linksElsewhere(isOne)) ?? [])).length > 0;
  }

  /** Of links that were just read those whose parent is of this namespace: one of another may have the same index. */
  async withParentsHere(found: readonly ForeignLink[]): Promise<ForeignLink[]> {
    const ownId = found.length > 0 ? await this.#parts.namespaces.ownId() : null;
    return found.filter(({ parentNamespaceId }) => parentNamespaceId === ownId);
  }

  /**
   * The namespaces with such a link. An IPv6 address that is set without detection of duplicates, as engines do, is there
   * before it is told: that waits for a work queue of the kernel (addrconf_dad_start, net/ipv6/addrconf.c).
   */
  async #readAgain(isOne: (link: Link) => boolean): Promise<void> {
    const wanted = Array.from(this.#others.values()).filter(({ links }) => Array.from(links.values()).some(isOne));
    await Promise.all(wanted.map((rows) => this.#readOnceMore(rows)));
  }

  #linkAt({ namespaceId, linkIndex }: KnownAddress): KnownLink | undefined {
    return namespaceId === null ? undefined : this.#others.get(namespaceId)?.links.get(linkIndex);
  }

  /** Resolves when this namespace has no link of this name any more. Throws the signal's reason, and what the kernel refuses. */
  async untilGone(name: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => {
      if (this.byName(name) === undefined) resolve();
    };
    const update = () => this.updateHere().then(look, reject);
    const stop = this.onChange(({ type }) => (type === 'overflow' ? void update() : look()));
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    void update();
    await promise.finally(stop);
  }

  // --- events ------------------------------------------------------------------------------------------------------------

  #open(): void {
    if (this.#events !== undefined || this.#isClosed) return;
    this.#events = new EventSocket({ tell: (event) => this.#hear(event), trace: this.#parts.trace });
    this.#tickSoon();
  }

  readonly #tickSoon = (): void => {
    if (!this.#isClosed) this.#timer ??= setTimeout(() => this.#tick(), DRAIN_DELAY_MS).unref();
  };

  #tick(): void {
    this.#timer = undefined;
    this.drain();
    this.#readAhead();
    if (this.#hasToRead || !this.#isTold()) this.#tickSoon();
  }

  /** What has to be read is read before somebody waits for it, but not in a rest. */
  #readAhead(): void {
    if (this.#isResting || !this.#isWanted || performance.now() < this.#restsUntilMs) return;
    for (const rows of this.#partly) this.#stale.add(rows);
    this.#partly.clear();
    if (!this.#hasToRead) return;
    this.update().catch(() => {
      this.#restsUntilMs = performance.now() + RETRY_MS;
    });
  }

  get #isResting(): boolean {
    return this.#events?.isResting === true || this.#foreignEvents?.isResting === true;
  }

  get #hasToRead(): boolean {
    return this.#isWanted && (this.#isUnlisted || this.#stale.size > 0 || this.#partly.size > 0);
  }

  /** The kernel wakes us with the next event, so that a daemon about which nothing happens sleeps. */
  #isTold(): boolean {
    return [this.#events, this.#foreignEvents].every((events) => events?.whenReadable(this.#tickSoon) ?? true);
  }

  #hear(event: KernelEvent): void {
    switch (event.about) {
      case 'lost':
        this.#isUnlisted = true;
        this.#outdate(this.#here);
        return this.#tell({ type: 'overflow' });
      case 'namespace':
        if (this.#hearsOthers && event.namespaceId !== this.#ownId) this.#outdate(this.#rowsOf(event.namespaceId));
        return;
      default: {
        const rows = event.namespaceId === null ? this.#here : this.#rowsOf(event.namespaceId);
        if (rows.reading !== undefined) rows.told.push(event);
        this.#known.apply(rows, event);
        if (event.about === 'link' && event.namespaceId === null)
          this.#tell({ type: event.isGone ? 'deleted' : 'new', link: event.link });
      }
    }
  }

  #hearForeign(event: KernelEvent): void {
    if (event.about === 'lost') this.#isUnlisted = true;
    else this.#hear(event);
  }

  /** One that throws keeps no other from hearing. */
  #tell(event: LinkEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        this.#tellFault(error);
      }
    }
  }

  #tellFault(error: unknown): void {
    if (performance.now() < this.#faultToldAtMs + FAULT_MS) return;
    this.#faultToldAtMs = performance.now();
    this.#parts.onFault(error);
  }

  // --- readings ----------------------------------------------------------------------------------------------------------

  #outdate(rows: Rows): void {
    this.#stale.add(rows);
    rows.isOutdated = true;
  }

  /** What is under way serves all who ask meanwhile. */
  #list(): Promise<void> {
    this.#listing ??= this.#readList().finally(() => {
      this.#listing = undefined;
    });
    return this.#listing;
  }

  async #readList(): Promise<void> {
    const { namespaces } = this.#parts;
    this.#ownId ??= await namespaces.ownId();
    if (this.#foreignEvents === undefined || this.#opensAgain) this.#foreignEvents = this.#openForeign();
    this.#isUnlisted = false;
    const beganMs = performance.now();
    try {
      const ids = new Set([...(await namespaces.ids()), ...this.#others.keys()]);
      for (const id of ids) if (id !== this.#ownId) this.#outdate(this.#rowsOf(id));
      await this.#refreshAll();
    } catch (error) {
      this.#isUnlisted = true;
      throw error;
    }
    const endedMs = performance.now();
    this.#listsAgainAtMs = endedMs + Math.min(LONGEST_PAUSE_MS, PAUSE_SHARE * (endedMs - beganMs));
  }

  #openForeign(): EventSocket | null {
    this.#opensAgain = false;
    if (this.#ownId === null || this.#isClosed) return null;
    try {
      const events = new EventSocket({ tell: (event) => this.#hearForeign(event), othersThan: this.#ownId });
      this.#tickSoon();
      return events;
    } catch (error) {
      if (!isKernelError(error)) throw error;
      // Without the capability it stays so; what the kernel lacks at this moment it has at another.
      this.#opensAgain = !isKernelError(error, 'EPERM');
      return null;
    }
  }

  async #pause(): Promise<void> {
    if (this.#foreignEvents?.isResting) await sleep(Math.max(0, this.#listsAgainAtMs - performance.now()));
  }

  async #refreshAll(): Promise<void> {
    await Promise.all(Array.from(this.#stale, (rows) => this.#refresh(rows)));
  }

  /** The reading under way, if there is one, and where that was outdated another: that one began after this call. */
  async #refresh(rows: Rows): Promise<void> {
    for (let readings = 0; readings < 2 && this.#stale.has(rows); readings++) await this.#reading(rows);
  }

  /** One that begins after this call: one reading for all who asked before it began. */
  async #readOnceMore(rows: Rows): Promise<void> {
    const { readings } = rows;
    await rows.reading?.catch(() => undefined);
    if (rows.readings === readings || rows.reading !== undefined) await this.#reading(rows);
  }

  /** The one that is under way, or else a new one. */
  #reading(rows: Rows): Promise<void> {
    rows.reading ??= this.#read(rows).finally(() => {
      rows.reading = undefined;
      rows.told = [];
    });
    return rows.reading;
  }

  async #read(rows: Rows): Promise<void> {
    rows.isOutdated = false;
    rows.readings++;
    const contents = await (rows.id === null ? this.#parts.readHere() : this.#parts.namespaces.contents(rows.id));
    // What is older than the reading must not be left as the last that is applied.
    this.drain();
    this.#known.replace(rows, contents);
    // Of a namespace that is gone nothing is left, whatever was told while it was read.
    if (contents !== null) for (const event of rows.told) this.#known.apply(rows, event);
    if (rows.isOutdated) return;
    this.#stale.delete(rows);
    this.#partly.delete(rows);
    if (contents?.isWhole === false) this.#readLater(rows);
    if (contents === null && rows.id !== null) this.#others.delete(rows.id);
  }

  /** Nobody waits until all is known of a namespace that changes whenever it is read. */
  #readLater(rows: Rows): void {
    this.#partly.add(rows);
    this.#restsUntilMs = performance.now() + RETRY_MS;
  }

  #rowsOf(namespaceId: number): Rows {
    const known = this.#others.get(namespaceId);
    if (known !== undefined) return known;
    const rows = newRows(namespaceId);
    this.#others.set(namespaceId, rows);
    this.#stale.add(rows);
    return rows;
  }
}

function newRows(id: number | null): Rows {
  return { id, links: new Map(), addresses: new Map(), reading: undefined, readings: 0, told: [], isOutdated: false };
}

function asForeign(link: KnownLink): ForeignLink {
  return { ...link, namespaceId: link.namespaceId as number };
}
