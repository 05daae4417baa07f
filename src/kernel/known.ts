/**
 * Links and addresses of several namespaces as they were read and told, found by name, MAC address and address. Who keeps them
 * true is table.ts.
 */
import { MultiMap } from '../multimap.ts';
import type { Link, LinkAddress } from './message.ts';
import type { NamespaceContents } from './namespaces.ts';
import type { KernelEvent } from './watch.ts';

/** A link, with the number of its namespace; null for this one. Of one elsewhere parentNamespaceId says nothing. */
export interface KnownLink extends Link {
  readonly namespaceId: number | null;
}

/** An address, with the number of its namespace; null for this one. */
export interface KnownAddress extends LinkAddress {
  readonly namespaceId: number | null;
}

/** What is known of one namespace. */
export interface KnownRows {
  readonly id: number | null;
  /** By index. */
  readonly links: Map<number, KnownLink>;
  /** By link, address, prefix length and peer. */
  readonly addresses: Map<string, KnownAddress>;
}

/** Links, and addresses, of another namespace that are remembered: no more than its owner can make us hold. */
const MOST_FOREIGN = 4096;

/** Changes the rows of namespaces, and knows where in them something is. */
export class KnownNamespaces {
  readonly #byName = new MultiMap<string, KnownLink>();
  readonly #byMac = new MultiMap<string, KnownLink>();
  readonly #byAddress = new MultiMap<string, KnownAddress>();

  /**
   * A link of this namespace. Of two the one that was told last: the other has lost the alternative name while it was down, which
   * the kernel does not tell (watch.ts).
   */
  byName(name: string): KnownLink | undefined {
    return [...this.#byName.get(name)].at(-1);
  }

  /** The links with this MAC address. */
  withMac(macAddress: string): KnownLink[] {
    return [...this.#byMac.get(macAddress)];
  }

  /** Where this address is, without prefix length and canonical. */
  placesOf(address: string): KnownAddress[] {
    return [...this.#byAddress.get(address)];
  }

  /** What an event tells of a namespace. */
  apply(rows: KnownRows, event: KernelEvent): void {
    if (event.about === 'link') {
      this.#removeLink(rows, event.link.index);
      if (!event.isGone) this.#addLink(rows, event.link);
      else
        for (const [key, { linkIndex }] of rows.addresses)
          if (linkIndex === event.link.index) this.#removeAddress(rows, key);
    } else if (event.about === 'address') {
      this.#removeAddress(rows, keyOf(event.address));
      if (!event.isGone) this.#addAddress(rows, event.address);
    }
  }

  /** What a reading found in it; null for a namespace that is gone. */
  replace(rows: KnownRows, contents: NamespaceContents | null): void {
    for (const index of rows.links.keys()) this.#removeLink(rows, index);
    for (const key of rows.addresses.keys()) this.#removeAddress(rows, key);
    for (const link of contents?.links ?? []) this.#addLink(rows, link);
    for (const address of contents?.addresses ?? []) this.#addAddress(rows, address);
  }

  #addLink(rows: KnownRows, link: Link): void {
    if (rows.id !== null && rows.links.size >= MOST_FOREIGN) return;
    const known = { ...link, namespaceId: rows.id };
    rows.links.set(link.index, known);
    this.#byMac.add(link.macAddress, known);
    if (rows.id === null) for (const name of namesOf(link)) this.#byName.add(name, known);
  }

  #removeLink(rows: KnownRows, index: number): void {
    const known = rows.links.get(index);
    if (known === undefined) return;
    rows.links.delete(index);
    this.#byMac.delete(known.macAddress, known);
    if (rows.id === null) for (const name of namesOf(known)) this.#byName.delete(name, known);
  }

  #addAddress(rows: KnownRows, address: LinkAddress): void {
    if (rows.id !== null && rows.addresses.size >= MOST_FOREIGN) return;
    const known = { ...address, namespaceId: rows.id };
    rows.addresses.set(keyOf(address), known);
    this.#byAddress.add(address.address, known);
  }

  #removeAddress(rows: KnownRows, key: string): void {
    const known = rows.addresses.get(key);
    if (known === undefined) return;
    rows.addresses.delete(key);
    this.#byAddress.delete(known.address, known);
  }
}

function keyOf({ linkIndex, address, prefixLength, peer = '' }: LinkAddress): string {
  return `${linkIndex} ${address}/${prefixLength} ${peer}`;
}

function namesOf({ name, alternativeNames }: Link): string[] {
  return [name, ...alternativeNames];
}
