/** Values by key in the order of their last use, read from either end without going through all of them. */

interface Used<T> {
  readonly key: string;
  readonly value: T;
}

/** A list with twice as many places as values is written again, from so many on. */
const LEAST = 64;

/** Every operation takes the same time however many there are, put together over many. */
export class ByUse<T> {
  /** Those used longest ago first. */
  readonly #byKey = new Map<string, Used<T>>();
  /** The same order; places of what was used again since, or is gone, are still in it. */
  #places: Used<T>[] = [];

  /** How many values there are. */
  get size(): number {
    return this.#byKey.size;
  }

  /** The value of the key; undefined when it has none. */
  get(key: string): T | undefined {
    return this.#byKey.get(key)?.value;
  }

  /** It is used just now, and put behind all others. */
  use(key: string, value: T): void {
    const used = { key, value };
    this.#byKey.delete(key);
    this.#byKey.set(key, used);
    this.#places.push(used);
    if (this.#places.length > 2 * this.#byKey.size + LEAST) this.#places = [...this.#byKey.values()];
  }

  /** The key has no value any more. */
  delete(key: string): void {
    this.#byKey.delete(key);
  }

  /** Those used longest ago first. */
  *longestUnused(): Generator<T> {
    for (const { value } of this.#byKey.values()) yield value;
  }

  /** Those used last first. Nothing may be used meanwhile. */
  *latest(): Generator<T> {
    for (let at = this.#places.length - 1; at >= 0; at--) {
      const used = this.#places[at] as Used<T>;
      if (this.#byKey.get(used.key) === used) yield used.value;
    }
  }
}
