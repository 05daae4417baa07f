/** Runs tasks of one key one after the other, in the order they came; tasks of different keys run side by side. */
export class Serial {
  readonly #tails = new Map<string, Promise<unknown>>();

  /**
   * Runs `task` when all earlier ones of `key` have ended, whatever became of them; answers or rejects as the task
   * does.
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const result = before.then(task);
    const tail = result.catch(() => undefined);
    this.#tails.set(key, tail);
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    return result;
  }
}
