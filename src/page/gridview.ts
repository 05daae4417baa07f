/**
 * One subnet as squares. They are painted on a canvas that is as large as what is in sight. For the keyboard and for screen readers
 * one square is an element: it lies over the canvas where the active address is.
 */
import { AddressPlan, COLUMNS, type SquareRun } from './addresses.ts';
import { element, oncePerFrame } from './elements.ts';
import type { PictureGrid } from './picture.ts';
import { RowList } from './rowlist.ts';
import { LEGEND, type Tiles } from './tiles.ts';

/** CSS pixels: between two squares; left of them. */
export const GAP = 2;
export const LABELS = 64;
const MOST_ROWS = 16;

/** What all grids have in common. */
export interface GridLook {
  /** CSS pixels from one square to the next; `--cell` of the style is the same. */
  readonly cell: number;
  readonly tiles: Tiles;
}

let grids = 0;

/** One such grid, with its table. */
export class GridView {
  readonly element: HTMLElement;
  readonly #title = element('h3');
  readonly #counts = element('ul', { class: 'counts' });
  readonly #canvas = element('canvas', { 'aria-hidden': 'true' });
  readonly #active = element('div', { role: 'gridcell', class: 'active' });
  readonly #row = element('div', { role: 'row' }, this.#active);
  readonly #sheet = element('div', { role: 'rowgroup', class: 'sheet' }, this.#row);
  readonly #scroll = element('div', { role: 'grid', class: 'scroll', tabindex: 0 }, this.#sheet);
  readonly #said = element('p', { class: 'said' });
  readonly #switch = element('button', { type: 'button', 'aria-expanded': 'false' }, 'As a table');
  readonly #table: RowList<SquareRun>;
  readonly #draw = oncePerFrame(() => this.#drawNow());
  #plan: AddressPlan;
  #look: GridLook;
  #isNear = false;
  #wanted = '';
  /** Row and column. */
  #at: readonly [number, number] = [0, 0];

  constructor(grid: PictureGrid, look: GridLook) {
    this.#plan = new AddressPlan(grid);
    this.#look = look;
    this.#active.id = `square${++grids}`;
    this.#scroll.setAttribute('aria-activedescendant', this.#active.id);
    this.#scroll.setAttribute('aria-colcount', String(COLUMNS));
    this.#table = new RowList<SquareRun>({
      role: 'table',
      label: `addresses of ${grid.title}`,
      rowHeight: 26,
      mostRows: 14,
      headings: ['Addresses', 'What it is'],
      cells: runCells,
      keyOf: ({ first }) => first,
    });
    this.#table.element.hidden = true;
    const frame = element('div', { class: 'frame' }, this.#canvas, this.#scroll);
    this.element = element(
      'section',
      { class: 'grid', 'aria-label': grid.title },
      this.#title,
      this.#counts,
      frame,
      this.#said,
      this.#switch,
      this.#table.element,
    );
    this.#listen();
  }

  #listen(): void {
    this.#scroll.addEventListener('scroll', this.#draw, { passive: true });
    this.#scroll.addEventListener('keydown', (event) => this.#onKey(event));
    this.#scroll.addEventListener('pointerdown', (event) => this.#onPointer(event));
    this.#scroll.addEventListener('pointermove', (event) => this.#onPointer(event));
    this.#switch.addEventListener('click', () => {
      const { element: table } = this.#table;
      table.hidden = !table.hidden;
      this.#switch.setAttribute('aria-expanded', String(!table.hidden));
      this.#showTable();
    });
  }

  /** Draws this from now on, with what the search means in full and the rest pale. */
  show(grid: PictureGrid, wanted: string): void {
    if (grid !== this.#plan.grid) this.#plan = new AddressPlan(grid);
    this.#wanted = wanted;
    this.#title.textContent = grid.title;
    this.#counts.replaceChildren(...grid.counts.map((line) => element('li', {}, line)));
    this.#scroll.setAttribute('aria-label', `squares of ${grid.title}, one for each address`);
    const rows = this.#plan.rows.length;
    this.#scroll.setAttribute('aria-rowcount', String(rows));
    this.#sheet.style.height = `calc(${rows} * var(--cell))`;
    this.#scroll.style.height = `calc(${Math.min(rows, MOST_ROWS)} * var(--cell))`;
    this.#move(...this.#at, false);
    this.#drawNow();
    this.#showTable();
  }

  /** Other colours, or squares of another size. */
  look(look: GridLook): void {
    this.#look = look;
    this.#drawNow();
  }

  /** Of a grid far from what is in sight nothing is painted: its canvas would take half a megabyte. */
  set isNear(isNear: boolean) {
    this.#isNear = isNear;
    if (isNear) this.#drawNow();
    else this.#canvas.width = this.#canvas.height = 0;
  }

  #showTable(): void {
    if (!this.#table.element.hidden) this.#table.show(this.#plan.runs(this.#wanted));
  }

  #drawNow(): void {
    if (!this.#isNear) return;
    const { clientWidth: width, clientHeight: height, scrollTop } = this.#scroll;
    const { cell } = this.#look;
    const scale = window.devicePixelRatio;
    const paint = this.#canvas.getContext('2d');
    if (paint === null || width === 0) return;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${height}px`;
    const style = getComputedStyle(this.#scroll);
    paint.fillStyle = style.color;
    paint.font = `${Math.round(11 * scale)}px ${style.fontFamily}`;
    paint.textBaseline = 'middle';
    const first = Math.floor(scrollTop / cell);
    const last = Math.min(this.#plan.rows.length, Math.ceil((scrollTop + height) / cell));
    for (let row = first; row < last; row++) this.#drawRow(paint, row, (row * cell - scrollTop) * scale, scale);
  }

  #drawRow(paint: CanvasRenderingContext2D, row: number, top: number, scale: number): void {
    const start = this.#plan.rows[row] ?? 0n;
    const { cell, tiles } = this.#look;
    const step = cell * scale;
    paint.globalAlpha = 1;
    paint.fillText(ending(this.#plan.textAt(start)), 0, top + step / 2, (LABELS - 6) * scale);
    for (let column = 0; column < COLUMNS; column++) {
      const offset = start + BigInt(column);
      if (!this.#plan.has(offset)) return;
      paint.globalAlpha = this.#plan.isMeant(offset, this.#wanted) ? 1 : 0.2;
      const tile = tiles.of(this.#plan.kindAt(offset));
      paint.drawImage(tile, Math.round(LABELS * scale + column * step), Math.round(top));
    }
  }

  #onKey(event: KeyboardEvent): void {
    const [row, column] = this.#at;
    const steps: Readonly<Record<string, readonly [number, number]>> = {
      ArrowRight: column + 1 < COLUMNS ? [row, column + 1] : [row + 1, 0],
      ArrowLeft: column > 0 ? [row, column - 1] : [row - 1, COLUMNS - 1],
      ArrowDown: [row + 1, column],
      ArrowUp: [row - 1, column],
      PageDown: [row + MOST_ROWS, column],
      PageUp: [row - MOST_ROWS, column],
      Home: [event.ctrlKey ? 0 : row, 0],
      End: [event.ctrlKey ? this.#plan.rows.length - 1 : row, COLUMNS - 1],
    };
    const next = steps[event.key];
    if (next === undefined || event.altKey || event.metaKey) return;
    event.preventDefault();
    const lastRow = this.#plan.rows.length - 1;
    // A step beyond the first or the last row leaves the square where it is.
    const isPage = event.key.startsWith('Page');
    if (!isPage && (next[0] < 0 || next[0] > lastRow)) return;
    this.#move(Math.max(0, Math.min(lastRow, next[0])), next[1], true);
  }

  #onPointer({ clientX, clientY, type }: PointerEvent): void {
    const { left, top } = this.#scroll.getBoundingClientRect();
    const { cell } = this.#look;
    const column = Math.floor((clientX - left - LABELS) / cell);
    const row = Math.floor((clientY - top + this.#scroll.scrollTop) / cell);
    if (column < 0 || column >= COLUMNS || row < 0 || row >= this.#plan.rows.length) return;
    if (type === 'pointerdown' || !this.#scroll.matches(':focus-visible')) this.#move(row, column, false);
  }

  #move(row: number, column: number, isScrolled: boolean): void {
    const start = this.#plan.rows[Math.min(row, this.#plan.rows.length - 1)] ?? 0n;
    let offset = start + BigInt(column);
    while (!this.#plan.has(offset) && offset > 0n) offset--;
    const at = [Math.min(row, this.#plan.rows.length - 1), Number(offset - start)] as const;
    this.#at = at;
    const words = `${this.#plan.textAt(offset)}: ${this.#plan.wordsAt(offset)}`;
    this.#active.setAttribute('aria-label', words);
    this.#active.setAttribute('aria-colindex', String(at[1] + 1));
    this.#row.setAttribute('aria-rowindex', String(at[0] + 1));
    this.#said.textContent = words;
    const { style } = this.#active;
    style.left = `calc(${LABELS}px + ${at[1]} * var(--cell))`;
    style.top = `calc(${at[0]} * var(--cell))`;
    style.width = style.height = `calc(var(--cell) - ${GAP}px)`;
    if (isScrolled) this.#active.scrollIntoView({ block: 'nearest' });
  }
}

/** What tells rows apart: the last two groups. */
function ending(address: string): string {
  return address.includes(':') ? `…${address.slice(-6)}` : address.split('.').slice(2).join('.').replace(/^/, '.');
}

function runCells({ kind, first, last, words }: SquareRun) {
  const range = first === last ? first : `${first} – ${last}`;
  const cells = [range, words || LEGEND[kind]].map((text) => element('span', { role: 'cell' }, text));
  return { cells, attributes: { class: kind } };
}
