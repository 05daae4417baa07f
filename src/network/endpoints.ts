/**
 * The endpoints of this host in memory, read at the start and kept in step with the store, so that a call finds those of a
 * network, of a parent or of an address among thousands without a look at each.
 */
import type { Address } from '../address.ts';
import * as errors from '../errors.ts';
import type { Endpoint, InterfaceAddress } from '../model.ts';
import { MultiMap } from '../multimap.ts';
import type { Store } from '../store/store.ts';

/** All endpoint records, and those on their way to be one. */
export class Endpoints {
  readonly #table: Store['endpoints'];
  readonly #now: () => Date;
  readonly #byId = new Map<string, Endpoint>();
  readonly #byNetwork = new MultiMap<string, string>();
  readonly #byParent = new MultiMap<string, string>();
  readonly #byMac = new MultiMap<string, string>();
  readonly #byAddress = new MultiMap<string, string>();
  /** Endpoints whose CreateEndpoint has not made their record yet. */
  readonly #arriving = new Set<string>();
  /** By id, as performance.now(). The wall clock may be set at any moment. */
  readonly #changedAtMs = new Map<string, number>();

  constructor(table: Store['endpoints'], now: () => Date = () => new Date()) {
    this.#table = table;
    this.#now = now;
  }

  /** Reads the records of an earlier process. Throws what the store throws. */
  async load(): Promise<void> {
    for (const endpoint of await this.#table.list()) {
      this.#add(endpoint);
      // A record from the future was written before the clock was set back; nobody knows how long ago.
      const ageMs = this.#now().getTime() - Date.parse(endpoint.changedAt);
      this.#changedAtMs.set(endpoint.id, performance.now() - Math.max(0, ageMs || 0));
    }
  }

  /** The endpoint of this id, whatever its state. */
  get(id: string): Endpoint | undefined {
    return this.#byId.get(id);
  }

  /** All of them, in the order in which they came. */
  all(): Endpoint[] {
    return [...this.#byId.values()];
  }

  /** Those of a network, also those that are on their way out. */
  ofNetwork(networkId: string): Endpoint[] {
    return this.#known(this.#byNetwork.get(networkId));
  }

  /** The others on this endpoint's parent. */
  besides({ id, parent }: Endpoint): Endpoint[] {
    return this.#known(this.#byParent.get(parent)).filter((other) => other.id !== id);
  }

  /** The others on this endpoint's parent that have its MAC address or one of its addresses. */
  alike({ id, parent, macAddress, addresses }: Endpoint): Endpoint[] {
    const ids = new Set(this.#byMac.get(macKey(parent, macAddress)));
    for (const address of addresses) for (const one of this.#byAddress.get(addressKey(parent, address))) ids.add(one);
    ids.delete(id);
    return this.#known(ids);
  }

  /** Those on this parent that have the MAC address, also those that are on their way out. */
  withMac(parent: string, macAddress: string): Endpoint[] {
    return this.#known(this.#byMac.get(macKey(parent, macAddress)));
  }

  /** Who speaks: the endpoint on this parent that has this MAC address and this address, also one that leaves. */
  speaker(parent: string, macAddress: string, address: Address): Endpoint | undefined {
    return this.withAddress(parent, address).find((endpoint) => endpoint.macAddress === macAddress);
  }

  /** Those on this parent that have the address, also those that are on their way out. */
  withAddress(parent: string, address: Address): Endpoint[] {
    return this.#known(this.#byAddress.get(addressKey(parent, address)));
  }

  /** Neither arriving nor unknown: it has a record. */
  isRecorded({ id }: Endpoint): boolean {
    return this.#byId.has(id) && !this.#arriving.has(id);
  }

  /** Time since its last change, by the monotonic clock as far as this process has seen it; at least 0. */
  ageMs({ id }: Endpoint): number {
    return performance.now() - (this.#changedAtMs.get(id) ?? performance.now());
  }

  /**
   * Known from now on, so that of two that come at once the second sees the first; and forgotten again when `create`, which
   * makes its link and its record, throws. No other endpoint of its id may be known.
   */
  async arrive(endpoint: Endpoint, create: () => Promise<void>): Promise<void> {
    this.#add(endpoint);
    this.#arriving.add(endpoint.id);
    try {
      await create();
    } catch (error) {
      this.#delete(endpoint);
      throw error;
    } finally {
      this.#arriving.delete(endpoint.id);
    }
  }

  /** Answers the record as it is then. Throws ENDPOINT_UNKNOWN when the record changed meanwhile. */
  async change(
    endpoint: Endpoint,
    change: Partial<Pick<Endpoint, 'state' | 'addresses' | 'lostAt'>>,
  ): Promise<Endpoint> {
    const next = { ...endpoint, ...change, changedAt: this.#now().toISOString() };
    if (!(await this.#table.replace(endpoint, next))) throw errors.endpointUnknown(endpoint.id, endpoint.networkId);
    for (const [index, key] of this.#keysOf(endpoint)) index.delete(key, endpoint.id);
    this.#add(next);
    return next;
  }

  /** The end of an endpoint whose link is gone: record first, then memory. */
  async remove(endpoint: Endpoint): Promise<void> {
    await this.#table.remove(endpoint);
    this.#delete(endpoint);
  }

  #add(endpoint: Endpoint): void {
    this.#byId.set(endpoint.id, endpoint);
    this.#changedAtMs.set(endpoint.id, performance.now());
    for (const [index, key] of this.#keysOf(endpoint)) index.add(key, endpoint.id);
  }

  #delete({ id }: Endpoint): void {
    const known = this.#byId.get(id);
    if (known === undefined) return;
    this.#byId.delete(id);
    this.#changedAtMs.delete(id);
    for (const [index, key] of this.#keysOf(known)) index.delete(key, id);
  }

  #keysOf({ networkId, parent, macAddress, addresses }: Endpoint): [MultiMap<string, string>, string][] {
    return [
      [this.#byNetwork, networkId],
      [this.#byParent, parent],
      [this.#byMac, macKey(parent, macAddress)],
      ...addresses.map((address): [MultiMap<string, string>, string] => [this.#byAddress, addressKey(parent, address)]),
    ];
  }

  #known(ids: Iterable<string>): Endpoint[] {
    return Array.from(ids).flatMap((id) => this.#byId.get(id) ?? []);
  }
}

function macKey(parent: string, macAddress: string): string {
  return `${parent} ${macAddress}`;
}

function addressKey(parent: string, { family, value }: Address | InterfaceAddress): string {
  return `${parent} ${family} ${value}`;
}
