/** Readings that many want at the same time: one serves all who ask while it lasts. */
export class SharedReadings<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** What a reading of `key` answers: that which is under way, else a new one. Rejects for all of them when it fails. */
  get(key: string, read: () => Promise<T>): Promise<T> {
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const reading = read().finally(() => this.#running.delete(key));
    this.#running.set(key, reading);
    return reading;
  }
}
