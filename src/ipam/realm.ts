/**
 * The addresses of one realm. The store's leases are the truth, and its atomic insert decides who was first; beside it
 * an index in memory finds a free address at once and keeps concurrent requests apart.
 */
import { type Address, contains, formatAddress, parseAddress, type Range } from '../address.ts';
import type { Family, Lease } from '../model.ts';
import type { LeaseTable } from '../store/store.ts';
import { Occupancy } from './occupancy.ts';
import { type Layout, nextAddress } from './pool.ts';

/** How long an address that answered on the LAN is passed over before it is tried again. */
const HELD_MS = 5 * 60_000;

interface Held {
  readonly address: Address;
  readonly until: number;
}

export class Realm {
  readonly name: string;
  readonly #used: Readonly<Record<Family, Occupancy>> = { IPv4: new Occupancy(), IPv6: new Occupancy() };
  readonly #leases: LeaseTable;
  readonly #now: () => Date;
  /** Inserts under way: not in the store yet, nor free any more. */
  readonly #pending = new Map<string, Address>();
  #refreshing: Promise<Lease[]> | undefined;
  /** In order of expiry, since all are held equally long. */
  readonly #held = new Map<string, Held>();

  constructor(name: string, leases: LeaseTable, now: () => Date) {
    this.name = name;
    this.#leases = leases;
    this.#now = now;
  }

  /** All leases of the realm. Brings the index up to date with what others did in a shared store; one at a time. */
  refresh(): Promise<Lease[]> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  async #refresh(): Promise<Lease[]> {
    const leases = await this.#leases.list(`${this.name}/`);
    this.#used.IPv4.clear();
    this.#used.IPv6.clear();
    for (const { address } of leases) this.#mark(parseAddress(address));
    for (const address of this.#pending.values()) this.#mark(address);
    for (const { address } of this.#held.values()) this.#mark(address);
    return leases;
  }

  /** False when someone has the address. It counts as used from the call on, before any reply. */
  async insert(address: Address, lease: Lease): Promise<boolean> {
    this.#mark(address);
    this.#pending.set(lease.address, address);
    try {
      const inserted = await this.#leases.insert(lease);
      if (inserted) this.#held.delete(lease.address);
      return inserted;
    } catch (error) {
      this.#unmark(address);
      throw error;
    } finally {
      this.#pending.delete(lease.address);
    }
  }

  /** False when the lease changed or went meanwhile. */
  async remove(lease: Lease): Promise<boolean> {
    if (!(await this.#leases.remove(lease))) return false;
    this.#unmark(parseAddress(lease.address));
    return true;
  }

  /** Another host took the address in a shared store, or gave it back. */
  hear({ address: text }: Pick<Lease, 'address'>, isTaken: boolean): void {
    const address = parseAddress(text);
    if (isTaken) this.#mark(address);
    else if (!this.#pending.has(text) && !this.#held.has(text)) this.#unmark(address);
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

  /** How many addresses of the ranges are passed over because strangers have them. */
  heldWithin(ranges: readonly Range[]): number {
    const isWithin = ({ address }: Held) => ranges.some((range) => contains(range, address));
    return Array.from(this.#held.values()).filter(isWithin).length;
  }

  #expireHeld(): void {
    for (const [text, { address, until }] of this.#held) {
      if (until > this.#now().getTime()) return;
      this.#held.delete(text);
      this.#unmark(address);
    }
  }

  #mark(address: Address | undefined): void {
    if (address !== undefined) this.#used[address.family].add(address.value);
  }

  #unmark(address: Address | undefined): void {
    if (address !== undefined) this.#used[address.family].delete(address.value);
  }
}
