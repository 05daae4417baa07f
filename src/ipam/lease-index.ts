/**
 * What the leases of one realm are for, in memory: which pool holds which addresses, and which of them are no container's.
 * So no call has to read all leases of a realm to find the few that it is about. The store's leases stay the truth: who
 * acts on an answer reads the lease there first.
 *
 * Addresses are bits (occupancy.ts), so 60,000 of them cost a few hundred kilobytes.
 */
import { type Address, contains, formatAddress, type Range } from '../address.ts';
import type { Family, Lease, LeaseKind } from '../model.ts';
import { Occupancy } from './occupancy.ts';

/** All addresses of a pool are of one family. */
interface PoolAddresses {
  readonly family: Family;
  readonly values: Occupancy;
}

/** A gateway, an auxiliary address or the host's own: a few for each network. */
interface Special {
  readonly address: Address;
  readonly kind: LeaseKind;
  readonly poolIds: readonly string[];
}

type Use = Pick<Lease, 'kind' | 'poolIds'>;

/** What the leases of a realm are for; kept in step by its Realm. */
export class LeaseIndex {
  readonly #pools = new Map<string, PoolAddresses>();
  /** By text, of this host. */
  readonly #own = new Map<string, Special>();
  /** By text, of other hosts in a shared store; they may share a gateway with this one. */
  readonly #others = new Map<string, Special>();

  /** Forgets everything. */
  clear(): void {
    this.#pools.clear();
    this.#own.clear();
    this.#others.clear();
  }

  /** This host has the lease. */
  add(address: Address, { kind, poolIds }: Use): void {
    for (const id of poolIds) this.#valuesOf(id, address.family).add(address.value);
    if (kind !== 'container') this.#own.set(formatAddress(address), { address, kind, poolIds });
  }

  /** This host has the lease no longer. */
  delete(address: Address, { kind, poolIds }: Use): void {
    for (const id of poolIds) this.#remove(id, address);
    if (kind !== 'container') this.#own.delete(formatAddress(address));
  }

  /** Whatever the address was for: it is read again. */
  forget(address: Address): void {
    for (const [id, { family }] of this.#pools) if (family === address.family) this.#remove(id, address);
    this.#own.delete(formatAddress(address));
    this.#others.delete(formatAddress(address));
  }

  /** What another host has the address for; null when none has it. */
  setOther(address: Address, kind: LeaseKind | null): void {
    const text = formatAddress(address);
    if (kind === null || kind === 'container') this.#others.delete(text);
    else this.#others.set(text, { address, kind, poolIds: [] });
  }

  /** Whether this host has a lease of the address. */
  has({ family, value }: Address): boolean {
    return Array.from(this.#pools.values()).some((pool) => pool.family === family && pool.values.has(value));
  }

  /**
   * The addresses that the pool holds, of all kinds, in the order of their texts, as the store lists leases: what a crash
   * leaves of a release that gives them up one by one is what docs/reliability.md says.
   */
  ofPool(poolId: string): Address[] {
    const texts = Array.from(this.#each(poolId), (address) => ({ address, text: formatAddress(address) }));
    return texts.sort((a, b) => (a.text < b.text ? -1 : 1)).map(({ address }) => address);
  }

  *#each(poolId: string): Generator<Address> {
    const pool = this.#pools.get(poolId);
    if (pool === undefined) return;
    for (const value of pool.values.addresses()) yield { family: pool.family, value };
  }

  /** Whether any of the pool's addresses is a container's. */
  hasContainers(poolId: string): boolean {
    for (const address of this.#each(poolId)) if (!this.#own.has(formatAddress(address))) return true;
    return false;
  }

  /** The pool's gateway and auxiliary addresses, and the host's own, in the order of their texts. */
  specialsOf(poolId: string): Address[] {
    const found = inOrder(this.#own).filter(({ poolIds }) => poolIds.includes(poolId));
    return found.map(({ address }) => address);
  }

  /** The address that the pool has for this; the first by text if there are several. */
  find(kind: LeaseKind, poolId: string): Address | undefined {
    return inOrder(this.#own).find((one) => one.kind === kind && one.poolIds.includes(poolId))?.address;
  }

  /** Gateways that other hosts named, in order of their text. */
  gatewaysOfOthers(within: Range): Address[] {
    const found = inOrder(this.#others).filter(({ kind, address }) => kind === 'gateway' && contains(within, address));
    return found.map(({ address }) => address);
  }

  /** Addresses, of this host and of others, that are no container's. */
  specials(): ReadonlyMap<string, Omit<Special, 'poolIds'>> {
    return new Map([...this.#others, ...this.#own]);
  }

  /** The addresses that this host has, save those given that are containers'. */
  without(excepted: Readonly<Record<Family, Occupancy>>): Address[] {
    const seen = { IPv4: new Occupancy(), IPv6: new Occupancy() };
    const found: Address[] = [];
    for (const { address } of this.#own.values()) {
      seen[address.family].add(address.value);
      found.push(address);
    }
    for (const { family, values } of this.#pools.values()) {
      for (const value of values.addresses(excepted[family])) {
        // Several pools may share a gateway.
        if (seen[family].has(value)) continue;
        seen[family].add(value);
        found.push({ family, value });
      }
    }
    return found;
  }

  #valuesOf(poolId: string, family: Family): Occupancy {
    const known = this.#pools.get(poolId);
    if (known !== undefined) return known.values;
    const values = new Occupancy();
    this.#pools.set(poolId, { family, values });
    return values;
  }

  #remove(poolId: string, { value }: Address): void {
    const pool = this.#pools.get(poolId);
    pool?.values.delete(value);
    if (pool?.values.isEmpty === true) this.#pools.delete(poolId);
  }
}

function inOrder(specials: ReadonlyMap<string, Special>): Special[] {
  return [...specials].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, special]) => special);
}
