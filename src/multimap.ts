/** Several values under one key, found without a look at the others. */
export class MultiMap<K, V> {
  readonly #values = new Map<K, Set<V>>();

  /** Nothing when the key has the value already. */
  add(key: K, value: V): void {
    const values = this.#values.get(key);
    if (values === undefined) this.#values.set(key, new Set([value]));
    else values.add(value);
  }

  /** Nothing when the key has not the value. */
  delete(key: K, value: V): void {
    const values = this.#values.get(key);
    values?.delete(value);
    if (values?.size === 0) this.#values.delete(key);
  }

  /** In the order in which they were added. */
  get(key: K): Iterable<V> {
    return this.#values.get(key) ?? [];
  }
}
