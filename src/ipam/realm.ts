/**
 * The addresses of one realm. The store's leases are the truth, and its atomic insert decides who was first; beside it
 * an index in memory finds a free address at once, keeps concurrent requests apart, and knows what each lease is for
 * (lease-index.ts).
 */
import { type Address, contains, formatAddress, parseAddress, type Range } from '../address.ts';
import { FAMILIES, type Family, type Lease, type LeaseKind } from '../model.ts';
import type { Clock } from '../clock.ts';
import { leaseKey, type LeaseTable } from '../store/store.ts';
import type { Ages } from './ages.ts';
import { LeaseIndex } from './lease-index.ts';
import type { Names } from './names.ts';
import { Occupancy } from './occupancy.ts';
import { type Finding, PassedOver } from './passed-over.ts';
import { joined, type Layout, nextAddress } from './pool.ts';
import type { Marks } from './pooluse.ts';

/** One realm's addresses. Whoever changes a lease of the realm does it here, save for its endpoint (network/ ties that). */
export class Realm {
  readonly name: string;
  readonly #used: Readonly<Record<Family, Occupancy>> = { IPv4: new Occupancy(), IPv6: new Occupancy() };
  /** Used, or remembered for a container that is not there: what a search passes over. */
  readonly #closed: Readonly<Record<Family, Occupancy>> = { IPv4: new Occupancy(), IPv6: new Occupancy() };
  /** Remembered (names.ts). */
  readonly #kept: Readonly<Record<Family, Occupancy>> = { IPv4: new Occupancy(), IPv6: new Occupancy() };
  readonly #leases: LeaseTable;
  readonly #ages: Ages;
  /** Inserts under way: not in the store yet, nor free any more. */
  readonly #pending = new Map<string, Address>();
  readonly #index = new LeaseIndex();
  /** A write of their leases failed, and whether it was done all the same is unknown. */
  readonly #doubtful = new Map<string, Address>();
  #refreshing: Promise<void> | undefined;
  /** What became known while the leases are being read: it may be newer than what is read. */
  #meanwhile: (() => void)[] = [];
  readonly #passedOver: PassedOver;
  readonly #names: Pick<Names, 'longestUnused' | 'countReserved'>;

  constructor(
    name: string,
    leases: LeaseTable,
    ages: Ages,
    clock: Pick<Clock, 'nowMs'>,
    names: Pick<Names, 'longestUnused' | 'countReserved'>,
  ) {
    this.name = name;
    this.#leases = leases;
    this.#ages = ages;
    this.#names = names;
    this.#passedOver = new PassedOver(() => clock.nowMs());
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
    for (const family of FAMILIES) this.#clear(family);
    this.#index.clear();
    for (const lease of leases) this.#read(lease);
    for (const address of this.#pending.values()) this.#mark(address);
    for (const { address } of this.#passedOver.resting()) this.#mark(address);
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

  /** Reads again what a failed write left in doubt. Throws as long as it cannot be read. */
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
    this.#ages.note({ key: leaseKey(lease), changedAt: lease.changedAt });
    this.#passedOver.takeUp(address);
    this.#note(() => {
      this.#mark(address);
      this.#index.add(address, lease);
    });
  }

  /** What the lease of the address is for changes. False when the lease changed or went meanwhile. */
  async replace(address: Address, previous: Lease, next: Lease): Promise<boolean> {
    if (!(await this.#orDoubt(address, this.#leases.replace(previous, next)))) return false;
    this.#ages.note({ key: leaseKey(next), changedAt: next.changedAt });
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
    // A lease of ours may have ended with what the other one did.
    if (other !== null && this.#index.has(address)) this.#doubtful.set(formatAddress(address), address);
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
    if (!this.#pending.has(formatAddress(address)) && !this.#passedOver.has(address)) this.#unmark(address);
  }

  /** After an insert was refused: the index is behind, unless it hears of what others do. */
  async catchUp(): Promise<void> {
    if (this.#leases.follow === undefined) await this.refresh();
  }

  /** The next address to try; undefined when the range is exhausted, but for what is remembered. `after`: see nextAddress in pool.ts. */
  next(layout: Layout, after: bigint | null): Address | undefined {
    for (const address of this.#passedOver.expire()) this.offer(address);
    const { family } = layout.subnet;
    const value = nextAddress(layout, this.#closed[family], after);
    return value === undefined ? undefined : { family, value };
  }

  /** Somebody's name has the address, or has it no longer (names.ts). */
  setKept({ family, value }: Address, isKept: boolean): void {
    if (isKept) {
      this.#kept[family].add(value);
      this.#closed[family].add(value);
      return;
    }
    this.#kept[family].delete(value);
    if (!this.#used[family].has(value)) this.#closed[family].delete(value);
  }

  /** Free ones of the range that are remembered for containers which are not there, those unused longest first. */
  spares({ range, skipped }: Layout, most: number): Address[] {
    const isSearched = (address: Address) =>
      contains(range, address) && !skipped.some((gap) => contains(gap, address)) && this.isFree(address);
    return this.#names.longestUnused(this.name, isSearched, most);
  }

  /** Free, and remembered for nobody: a search may give it to anyone. */
  isOpen({ family, value }: Address): boolean {
    return !this.#closed[family].has(value);
  }

  /** Somebody on the LAN had it a while ago, or wanted it. */
  isPassedOver(address: Address): boolean {
    return this.#passedOver.has(address);
  }

  /** Neither leased nor passed over. */
  isFree({ family, value }: Address): boolean {
    return !this.#used[family].has(value);
  }

  /** Passes the address over for a while: somebody on the LAN has it, or wants it. */
  passOver(address: Address, finding: Finding): void {
    const dropped = this.#passedOver.add(address, finding);
    this.#mark(address);
    if (dropped !== undefined) this.offer(dropped);
  }

  /** The LAN was asked for the address, and nobody else has it. */
  foundFree(address: Address): void {
    this.#passedOver.forget(address);
  }

  /** Some of the ranges' addresses that are passed over longest may be tried again. Answers how many. */
  retry(ranges: readonly Range[], most: number, leastMs: number): number {
    const taken = this.#passedOver.takeLongest(ranges, most, leastMs);
    for (const address of taken) this.offer(address);
    return taken.length;
  }

  /**
   * What the addresses of the ranges are used for; `used` and `wanted` by others on the LAN, and so passed over; `reserved` for
   * containers that are not there.
   */
  count(ranges: readonly Range[]): Record<LeaseKind | Finding | 'reserved', number> {
    const isWithin = ({ address }: { address: Address }) => ranges.some((range) => contains(range, address));
    const isFreeWithin = (address: Address) => this.isFree(address) && isWithin({ address });
    const reserved = this.#names.countReserved(this.name, isFreeWithin);
    const counts = { container: 0, gateway: 0, auxiliary: 0, host: 0, used: 0, wanted: 0, reserved };
    for (const { family, first, last } of joined(ranges)) counts.container += this.#used[family].count(first, last);
    const passedOver = Array.from(this.#passedOver.resting()).filter(isWithin);
    for (const { finding } of passedOver) counts[finding]++;
    const specials = Array.from(this.#index.specials().values()).filter(
      ({ address }) => !this.#passedOver.has(address),
    );
    for (const special of specials.filter(isWithin)) counts[special.kind]++;
    counts.container -= counts.gateway + counts.auxiliary + counts.host + passedOver.length;
    return counts;
  }

  /** What the addresses of a family are marked for; those who read it keep nothing of it. */
  marks(family: Family): Marks {
    for (const address of this.#passedOver.expire()) this.offer(address);
    const [leased, held, resting] = [new Occupancy(), new Occupancy(), new Occupancy()];
    for (const { address } of this.#passedOver.resting()) if (address.family === family) resting.add(address.value);
    for (const value of this.#used[family].addresses(resting)) leased.add(value);
    // Whose rest is over is offered again; whoever has it has it still until it was asked for.
    for (const address of this.#passedOver.held()) if (address.family === family) held.add(address.value);
    return { leased, held, kept: this.#kept[family] };
  }

  #clear(family: Family): void {
    this.#used[family].clear();
    this.#closed[family].clear();
    for (const value of this.#kept[family].addresses()) this.#closed[family].add(value);
  }

  #mark({ family, value }: Address): void {
    this.#used[family].add(value);
    this.#closed[family].add(value);
  }

  #unmark({ family, value }: Address): void {
    this.#used[family].delete(value);
    if (!this.#kept[family].has(value)) this.#closed[family].delete(value);
  }
}
