/** Everything that is left to chance comes from here, and from one seed. */

/** A stream of numbers from a seed (sfc32). Streams of different names have nothing to do with each other. */
export class Random {
  readonly seed: string;
  #a: number;
  #b: number;
  #c: number;
  #count = 1;

  constructor(seed: string) {
    this.seed = seed;
    [this.#a, this.#b, this.#c] = [hash(seed, 0x9e3779b9), hash(seed, 0x85ebca6b), hash(seed, 0xc2b2ae35)];
    for (let turn = 0; turn < 12; turn++) this.next();
  }

  /** A stream of its own: what one part of the world draws changes nothing for another. */
  fork(name: string): Random {
    return new Random(`${this.seed}/${name}`);
  }

  /** 0 to 1, as Math.random. */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#count++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return (sum >>> 0) / 2 ** 32;
  }

  /** `least` to `most`, both included. */
  int(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  /** `least` to `most`. */
  between(least: number, most: number): number {
    return least + this.next() * (most - least);
  }

  /** Mostly near `usual`, now and then many times that: what machines under load do. */
  delay(usual: number, longest: number): number {
    const share = this.next();
    return share < 0.97 ? this.between(usual / 2, usual * 1.5) : this.between(usual, longest);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(values: readonly T[]): T {
    const value = values[Math.floor(this.next() * values.length)];
    if (value === undefined) throw new RangeError('nothing to choose from');
    return value;
  }

  /** One of the names, the more often the greater its weight. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const entries = Object.entries(weights) as [K, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    return (entries.at(-1) as [K, number])[0];
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.int(0, 255)));
  }
}

function hash(text: string, seed: number): number {
  let value = seed;
  for (const character of Buffer.from(text)) value = Math.imul(value ^ character, 0x01000193) ^ (value >>> 15);
  return value | 0;
}
