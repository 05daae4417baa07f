/**
 * Maps that cannot grow without end. What fills them comes from the LAN or from whoever may call the socket, so each has a
 * limit that no honest use reaches; the two classes differ in what goes when it is reached.
 */

/** What both have in common: a map with a limit, in the order in which the entries were put in. */
abstract class BoundedMap<K, V> {
  readonly limit: number;
  protected readonly entries = new Map<K, V>();

  constructor(limit: number) {
    this.limit = limit;
  }

  get size(): number {
    return this.entries.size;
  }

  get(key: K): V | undefined {
    return this.entries.get(key);
  }

  has(key: K): boolean {
    return this.entries.has(key);
  }

  /** False when there was no such entry. */
  delete(key: K): boolean {
    return this.entries.delete(key);
  }

  clear(): void {
    this.entries.clear();
  }

  keys(): IterableIterator<K> {
    return this.entries.keys();
  }

  values(): IterableIterator<V> {
    return this.entries.values();
  }

  [Symbol.iterator](): IterableIterator<[K, V]> {
    return this.entries[Symbol.iterator]();
  }
}

/** A new entry is always taken; when the map is full the one that was put in longest ago makes room for it. */
export class LatestMap<K, V> extends BoundedMap<K, V> {
  /** An entry that is put in again counts as new. Answers the value that had to go, undefined when none had to. */
  put(key: K, value: V): V | undefined {
    this.entries.delete(key);
    const dropped = this.entries.size < this.limit ? undefined : this.#dropOldest();
    this.entries.set(key, value);
    return dropped;
  }

  #dropOldest(): V | undefined {
    for (const [key, value] of this.entries) {
      this.entries.delete(key);
      return value;
    }
    return undefined;
  }
}

/** The entries that are there stay; when the map is full a new key is refused. */
export class CappedMap<K, V> extends BoundedMap<K, V> {
  /** False when the entry was refused. The value of a key that is there is always replaced. */
  put(key: K, value: V): boolean {
    if (this.entries.size >= this.limit && !this.entries.has(key)) return false;
    this.entries.set(key, value);
    return true;
  }
}
