/**
 * Which addresses of a realm are used, and the lowest that is not: a bitmap of 32 addresses per cell, and above it
 * bitmaps of full cells, of full cells of cells, and so on. Only cells with a bit set exist, so that a /8 or a /64 costs
 * what its used addresses cost (65,533 in a row: about 2,100 cells), and a search climbs as many levels as the run of
 * used addresses before it is long (that row: 4), whatever the width of an address.
 */

const BITS_PER_CELL = 5n;
const FULL = -1;

/** A set of addresses of one family, by their numbers. */
export class Occupancy {
  /** At level 0 bit n of cell c is address 32c + n; above it, bit n of cell c says that cell 32c + n below is full. */
  readonly #levels: Map<bigint, number>[] = [];

  /** Whether the address is used. */
  has(address: bigint): boolean {
    return (this.#cell(0, address >> BITS_PER_CELL) & bitOf(address)) !== 0;
  }

  /** The address is used from now on, if it was not already. */
  add(address: bigint): void {
    for (let level = 0, index = address; ; level++, index >>= BITS_PER_CELL) {
      const cell = this.#cell(level, index >> BITS_PER_CELL) | bitOf(index);
      this.#write(level, index >> BITS_PER_CELL, cell);
      if (cell !== FULL) return;
    }
  }

  /** The address is free from now on, if it was not already. */
  delete(address: bigint): void {
    for (let level = 0, index = address; ; level++, index >>= BITS_PER_CELL) {
      const cell = this.#cell(level, index >> BITS_PER_CELL);
      this.#write(level, index >> BITS_PER_CELL, cell & ~bitOf(index));
      if (cell !== FULL) return;
    }
  }

  /** Whether no address is used. */
  get isEmpty(): boolean {
    return (this.#levels[0]?.size ?? 0) === 0;
  }

  /** From now on every address is free. */
  clear(): void {
    this.#levels.length = 0;
  }

  /** The lowest address from `from` to `to`, both included, that is not used; undefined when all are. */
  nextFree(from: bigint, to: bigint): bigint | undefined {
    let level = 0;
    let index = from;
    let room = this.#roomFrom(level, index);
    // Up: until a cell has room at or above the index. A level without cells has, so this ends.
    while (room === 0) {
      index = (index >> BITS_PER_CELL) + 1n;
      room = this.#roomFrom(++level, index);
    }
    index = lowestIn(index >> BITS_PER_CELL, room);
    // Down: to the lowest address of that room.
    while (--level >= 0) index = lowestIn(index, ~this.#cell(level, index));
    return index <= to ? index : undefined;
  }

  /** Used addresses from `from` to `to`. Looks at every cell in use: for messages and metrics. */
  count(from: bigint, to: bigint): number {
    let sum = 0;
    for (const [index, cell] of this.#levels[0] ?? []) {
      const first = index << BITS_PER_CELL;
      const last = first + 31n;
      if (last < from || first > to) continue;
      const above = first < from ? FULL << Number(from - first) : FULL;
      const below = last > to ? FULL >>> Number(last - to) : FULL;
      sum += bitCount(cell & above & below);
    }
    return sum;
  }

  /** All used addresses save those that are used in `except` too, in no order; one step for each and for each cell. */
  *addresses(except?: Occupancy): Generator<bigint> {
    for (const [index, cell] of this.#levels[0] ?? []) {
      const others = except === undefined ? 0 : except.#cell(0, index);
      for (let rest = cell & ~others; rest !== 0; rest &= rest - 1) yield lowestIn(index, rest);
    }
  }

  /** Bits of the room that a cell has at or above the index. */
  #roomFrom(level: number, index: bigint): number {
    return ~this.#cell(level, index >> BITS_PER_CELL) & (FULL << positionOf(index));
  }

  #cell(level: number, index: bigint): number {
    return this.#levels[level]?.get(index) ?? 0;
  }

  #write(level: number, index: bigint, cell: number): void {
    const cells = (this.#levels[level] ??= new Map<bigint, number>());
    if (cell === 0) cells.delete(index);
    else cells.set(index, cell);
  }
}

function positionOf(index: bigint): number {
  return Number(index & 31n);
}

function bitOf(index: bigint): number {
  return 1 << positionOf(index);
}

/** The index, one level down, of the lowest bit set. */
function lowestIn(cell: bigint, bits: number): bigint {
  return (cell << BITS_PER_CELL) | BigInt(31 - Math.clz32(bits & -bits));
}

function bitCount(bits: number): number {
  let count = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) count++;
  return count;
}
