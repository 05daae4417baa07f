/** Which addresses a grid shows, row by row, and what each of them is. Pure, and without what only Node has. */
import type { PictureGrid, PictureSpan, PictureSquare, SquareKind } from './picture.ts';

/** Squares in a row: four, eight, … rows are aligned as prefixes are. */
export const COLUMNS = 32;
const ROW = BigInt(COLUMNS);
/** Of a larger subnet only rows are shown in which something is. */
const MOST_ROWS = 2048n;

/** A row of squares, or a stretch of one kind in the table. */
export interface SquareRun {
  readonly kind: SquareKind;
  /** As text; the same where the run is one address. */
  readonly first: string;
  readonly last: string;
  readonly words: string;
}

/** A grid with its numbers read. */
export class AddressPlan {
  readonly grid: PictureGrid;
  /** Where each row begins, counted from the first address of the subnet. */
  readonly rows: readonly bigint[];
  readonly #squares: ReadonlyMap<bigint, PictureSquare>;
  readonly #first: bigint;
  readonly #size: bigint;
  readonly #ranges: readonly (readonly [bigint, bigint])[];
  readonly #excluded: readonly (readonly [bigint, bigint])[];

  constructor(grid: PictureGrid) {
    this.grid = grid;
    this.#first = BigInt(grid.first);
    this.#size = BigInt(grid.size);
    this.#squares = new Map(grid.squares.map((square) => [BigInt(square.at), square]));
    this.#ranges = grid.ranges.map(readSpan);
    this.#excluded = grid.excluded.map(readSpan);
    this.rows = this.#rows();
  }

  #rows(): bigint[] {
    const all = (this.#size + ROW - 1n) / ROW;
    if (all <= MOST_ROWS) return Array.from({ length: Number(all) }, (_, index) => BigInt(index) * ROW);
    const told = [...this.#squares.keys(), ...[...this.#ranges, ...this.#excluded].map(([first]) => first)];
    const starts = new Set(told.map((offset) => offset - (offset % ROW)));
    return [...starts].sort((a, b) => (a < b ? -1 : 1));
  }

  /** False behind the end of a subnet that is smaller than a row. */
  has(offset: bigint): boolean {
    return offset >= 0n && offset < this.#size;
  }

  /** What the address is. */
  kindAt(offset: bigint): SquareKind {
    const known = this.#squares.get(offset);
    if (known !== undefined) return known.kind;
    if (isWithin(this.#excluded, offset)) return 'excluded';
    return isWithin(this.#ranges, offset) ? 'free' : 'outside';
  }

  /** The same in words. */
  wordsAt(offset: bigint): string {
    return this.#squares.get(offset)?.words ?? UNSAID[this.kindAt(offset)] ?? '';
  }

  /** `192.168.1.70` */
  textAt(offset: bigint): string {
    return addressText(this.grid.family, this.#first + offset);
  }

  /** Whether the search means this address; `wanted` in lower case, empty for everything. */
  isMeant(offset: bigint, wanted: string): boolean {
    if (wanted === '') return true;
    const { words = '' } = this.#squares.get(offset) ?? {};
    return words.toLowerCase().includes(wanted) || this.textAt(offset).includes(wanted);
  }

  /** The whole subnet in order, stretches of which nothing is to be said as one; of a search what it means. */
  runs(wanted: string): SquareRun[] {
    const edges = [...this.#ranges, ...this.#excluded].flatMap(([first, last]) => [first, last + 1n]);
    const told = [...this.#squares.keys()].flatMap((offset) => [offset, offset + 1n]);
    const starts = [...new Set([0n, ...edges, ...told])].filter((offset) => this.has(offset));
    starts.sort((a, b) => (a < b ? -1 : 1));
    const runs = starts.map((start, index) => {
      const last = (starts[index + 1] ?? this.#size) - 1n;
      const [kind, words] = [this.kindAt(start), this.wordsAt(start)];
      return { kind, first: this.textAt(start), last: this.textAt(last), words };
    });
    return wanted === '' ? runs : runs.filter((run) => isRunMeant(run, wanted));
  }
}

function isRunMeant({ first, words }: SquareRun, wanted: string): boolean {
  return first.includes(wanted) || words.toLowerCase().includes(wanted);
}

/** Of what has no square of its own. */
const UNSAID: Readonly<Partial<Record<SquareKind, string>>> = {
  excluded: 'excluded',
  free: 'free',
  outside: 'free, outside the range',
};

function readSpan([first, last]: PictureSpan): readonly [bigint, bigint] {
  return [BigInt(first), BigInt(last)];
}

function isWithin(spans: readonly (readonly [bigint, bigint])[], offset: bigint): boolean {
  return spans.some(([first, last]) => offset >= first && offset <= last);
}

/** Dotted decimal, or as RFC 5952 has it. */
function addressText(family: PictureGrid['family'], value: bigint): string {
  const [count, width] = family === 'IPv4' ? [4, 8n] : [8, 16n];
  const groups = Array.from({ length: count }, (_, index) =>
    Number((value >> (BigInt(count - 1 - index) * width)) & ((1n << width) - 1n)),
  );
  return family === 'IPv4' ? groups.join('.') : shortened(groups.map((group) => group.toString(16)));
}

/** The first of the longest runs of two zeros or more becomes `::` (RFC 5952 4.2). */
function shortened(groups: readonly string[]): string {
  let [start, length] = [0, 1];
  for (let from = 0; from < groups.length; from++) {
    let to = from;
    while (groups[to] === '0') to++;
    if (to - from > length) [start, length] = [from, to - from];
    from = Math.max(from, to - 1);
  }
  if (length === 1) return groups.join(':');
  return `${groups.slice(0, start).join(':')}::${groups.slice(start + length).join(':')}`;
}
