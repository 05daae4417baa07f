/**
 * The addresses of one realm. The store's leases are the truth, and its atomic insert decides who was first; beside it
 * an index in memory finds a free address at once, keeps concurrent requests apart, and knows what each lease is for
 * (lease-index.ts).
 */
import { type Address, contains, formatAddress, parseAddress, type Range } from '../address.ts';
import type { Family, Lease, LeaseKind } from '../model.ts';
import { leaseKey, type LeaseTable } from '../store/store.ts';
import { LeaseIndex } from './lease-index.ts';
import { Occupancy } from './occupancy.ts';
import { joined, type Layout, nextAddress } from './pool.ts';

/** How long an address that answered on the LAN is passed over before it is tried again. */
const HELD_MS = 5 * 60_000;

interface Held {
  readonly address: Address;
  readonly until: number;
}

/** One realm's addresses. Whoever changes a lease of the realm does it here, save for its endpoint (network/ ties that). */
export class Realm {
  readonly name: string;
  readonly #used: Readonly<Record<Family, Occupancy>> = { IPv4: new Occupancy(), IPv6: new Occupancy() };
  readonly #leases: LeaseTable;
  readonly #now: () => Date;
  /** Inserts under way: not in the store yet, nor free any more. */
  readonly #pending = new Map<string, Address>();
  readonly #index = new LeaseIndex();
  /** A write of their leases failed, and whether it was done all the same is unknown. */
  readonly #doubtful = new Map<string, Address>();
  #refreshing: Promise<void> | undefined;
  /** What became known while the leases are being read: it may be newer than what is read. */
  #meanwhile: (() => void)[] = [];
  /** In order of expiry, since all are held equally long. */
  readonly #held = new Map<string, Held>();

  constructor(name: string, leases: LeaseTable, now: () => Date) {
    this.name = name;
    this.#leases = leases;
    this.#now = now;
  }

  /** What the leases are for. Who acts on it reads the leases first. */
  get index(): Omit<LeaseIndex, 'clear' | 'add' | 'delete' | 'forget' | 'setOther'> {
    return this.#index;
  }

  /** Reads all leases of the realm, and with them what others did in a shared store; one reading at a time. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  async #refresh(): Promise<void> {
    this.#meanwhile = [];
    const leases = await this.#leases.list(`${this.name}/`);
    this.#used.IPv4.clear();
    this.#used.IPv6.clear();
    this.#index.clear();
    for (const lease of leases) this.#read(lease);
    for (const address of this.#pending.values()) this.#mark(address);
    for (const { address } of this.#held.values()) this.#mark(address);
    for (const change of this.#meanwhile) change();
  }

  #read(lease: Lease): void {
    const address = parseAddress(lease.address);
    if (address === undefined) return;
    this.#mark(address);
    if (lease.holder === undefined) this.#index.add(address, lease);
    else this.#index.setOther(address, lease.kind);
  }

  /** Applies what became known, now and once more behind a reading under way. */
  #note(change: () => void): void {
    change();
    if (this.#refreshing !== undefined) this.#meanwhile.push(change);
  }

  /** Reads anew what a failed write left in doubt. Throws as long as it cannot be read. */
  async settle(): Promise<void> {
    for (const [text, address] of this.#doubtful) {
      this.#doubtful.delete(text);
      const lease = await this.#orDoubt(address, this.#leases.get(leaseKey({ realm: this.name, address: text })));
      this.#note(() => {
        this.#index.forget(address);
        if (lease === undefined) this.#free(address);
        else this.#read(lease);
      });
    }
  }

  /** False when someone has the address. It counts as used from the call on, before any reply. */
  async insert(address: Address, lease: Lease): Promise<boolean> {
    this.#mark(address);
    this.#pending.set(lease.address, address);
    try {
      const inserted = await this.#orDoubt(address, this.#leases.insert(lease));
      if (inserted) this.#noteOwn(address, lease);
      return inserted;
    } catch (error) {
      this.#unmark(address);
      throw error;
    } finally {
      this.#pending.delete(lease.address);
    }
  }

  #noteOwn(address: Address, lease: Lease): void {
    this.#held.delete(lease.address);
    this.#note(() => {
      this.#mark(address);
      this.#index.add(address, lease);
    });
  }

  /** What the lease of the address is for changes. False when the lease changed or went meanwhile. */
  async replace(address: Address, previous: Lease, next: Lease): Promise<boolean> {
    if (!(await this.#orDoubt(address, this.#leases.replace(previous, next)))) return false;
    this.#note(() => {
      this.#index.delete(address, previous);
      this.#index.add(address, next);
    });
    return true;
  }

  /** False when the lease changed or went meanwhile. */
  async remove(address: Address, lease: Lease): Promise<boolean> {
    if (!(await this.#orDoubt(address, this.#leases.remove(lease)))) return false;
    this.#note(() => {
      this.#unmark(address);
      this.#index.delete(address, lease);
    });
    return true;
  }

  async #orDoubt<T>(address: Address, access: Promise<T>): Promise<T> {
    try {
      return await access;
    } catch (error) {
      this.#doubtful.set(formatAddress(address), address);
      throw error;
    }
  }

  /** The address was taken in a shared store, or given back. `other`: what another host than this has it for, or null. */
  hear(address: Address, isTaken: boolean, other: LeaseKind | null): void {
    this.#note(() => {
      this.#index.setOther(address, other);
      if (isTaken) this.#mark(address);
      else this.offer(address);
    });
  }

  /** No other host has the address, or only a lost one: it may be asked for. */
  offer(address: Address): void {
    if (!this.#index.has(address)) this.#free(address);
  }

  #free(address: Address): void {
    const text = formatAddress(address);
    if (!this.#pending.has(text) && !this.#held.has(text)) this.#unmark(address);
  }

  /** After an insert was refused: the index is behind, unless it hears of what others do. */
  async catchUp(): Promise<void> {
    if (this.#leases.follow === undefined) await this.refresh();
  }

  /** The next address to try; undefined when the range is exhausted. `after`: see nextAddress in pool.ts. */
  next(layout: Layout, after: bigint | null): Address | undefined {
    this.#expireHeld();
    const { family } = layout.subnet;
    const value = nextAddress(layout, this.#used[family], after);
    return value === undefined ? undefined : { family, value };
  }

  /** Neither leased nor passed over. */
  isFree({ family, value }: Address): boolean {
    return !this.#used[family].has(value);
  }

  /** Passes the address over for a while: a stranger on the LAN has it. */
  hold(address: Address): void {
    const text = formatAddress(address);
    this.#held.delete(text);
    this.#held.set(text, { address, until: this.#now().getTime() + HELD_MS });
    this.#mark(address);
  }

  /** What the addresses of the ranges are used for; `held`: passed over because strangers have them. */
  count(ranges: readonly Range[]): Record<LeaseKind | 'held', number> {
    const isWithin = ({ address }: { address: Address }) => ranges.some((range) => contains(range, address));
    const counts = { container: 0, gateway: 0, auxiliary: 0, host: 0, held: 0 };
    for (const { family, first, last } of joined(ranges)) counts.container += this.#used[family].count(first, last);
    const specials = Array.from(this.#index.specials()).filter(([text]) => !this.#held.has(text));
    for (const [, special] of specials.filter(([, one]) => isWithin(one))) counts[special.kind]++;
    counts.held = Array.from(this.#held.values()).filter(isWithin).length;
    counts.container -= counts.gateway + counts.auxiliary + counts.host + counts.held;
    return counts;
  }

  #expireHeld(): void {
    for (const [text, { address, until }] of this.#held) {
      if (until > this.#now().getTime()) return;
      this.#held.delete(text);
      this.#unmark(address);
    }
  }

  #mark({ family, value }: Address): void {
    this.#used[family].add(value);
  }

  #unmark({ family, value }: Address): void {
    this.#used[family].delete(value);
  }
}
