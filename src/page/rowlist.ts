/** A list of any length of which only the rows in sight are in the document. */
import { element, oncePerFrame } from './elements.ts';

/** How a list looks and what can be done with it. */
export interface RowListPlan<Row> {
  /** `treegrid` has an active row, which the arrow keys move; a `table` is only scrolled. */
  readonly role: 'treegrid' | 'table';
  readonly label: string;
  /** CSS pixels. */
  readonly rowHeight: number;
  /** At most so many are in sight. */
  readonly mostRows: number;
  /** Headings of the columns; they are a row of their own, above the others. */
  readonly headings: readonly string[];
  /** The cells of a row, and what else is to be said of it as attributes. */
  cells(row: Row): { readonly cells: readonly HTMLElement[]; readonly attributes: Readonly<Record<string, string>> };
  /** What a row is, in each picture the same. */
  keyOf(row: Row): string;
  /** A key that the list itself does nothing with, on the active row. */
  onKey?(row: Row, key: string): void;
  /** Told which row is active, whenever it may be another one, or the same with other words. */
  onActive?(row: Row | undefined): void;
}

/** Rows above and below those in sight, for a wheel that is faster than the browser paints. */
const SPARE_ROWS = 6;

let lists = 0;

/** One such list. */
export class RowList<Row> {
  readonly element: HTMLElement;
  readonly #plan: RowListPlan<Row>;
  readonly #body: HTMLElement;
  readonly #idPrefix = `list${++lists}-`;
  readonly #draw = oncePerFrame(() => this.#drawNow());
  #rows: readonly Row[] = [];
  #activeKey: string | null = null;

  constructor(plan: RowListPlan<Row>) {
    this.#plan = plan;
    const { role, label, headings } = plan;
    this.#body = element('div', { role: 'rowgroup', class: 'rows' });
    const heads = headings.map((text) => element('span', { role: 'columnheader' }, text));
    const head = element(
      'div',
      { role: 'rowgroup', class: 'head' },
      element('div', { role: 'row', class: 'row' }, ...heads),
    );
    this.element = element('div', { role, 'aria-label': label, class: `list ${role}`, tabindex: 0 }, head, this.#body);
    this.element.addEventListener('scroll', this.#draw, { passive: true });
    if (role === 'treegrid') {
      this.element.addEventListener('keydown', (event) => this.#onKey(event));
      this.#body.addEventListener('click', (event) => this.#onClick(event));
    }
  }

  /** Draws these from now on; the active row stays active where it is still there. */
  show(rows: readonly Row[]): void {
    const { rowHeight, mostRows } = this.#plan;
    this.#rows = rows;
    this.element.setAttribute('aria-rowcount', String(rows.length + 1));
    this.#body.style.height = `${rows.length * rowHeight}px`;
    this.element.style.maxHeight = `${(mostRows + 1) * rowHeight + 2}px`;
    this.#drawNow();
  }

  #drawNow(): void {
    const { rowHeight, mostRows } = this.#plan;
    const first = Math.max(0, Math.floor(this.element.scrollTop / rowHeight) - SPARE_ROWS);
    const last = Math.min(this.#rows.length, first + mostRows + 2 * SPARE_ROWS);
    const drawn = this.#rows.slice(first, last).map((row, position) => this.#drawRow(row, first + position));
    this.#body.replaceChildren(...drawn);
    const active = this.#indexOfActive();
    this.#plan.onActive?.(this.#rows[active]);
    if (active >= first && active < last) this.element.setAttribute('aria-activedescendant', this.#idOf(active));
    else this.element.removeAttribute('aria-activedescendant');
  }

  #drawRow(row: Row, index: number): HTMLElement {
    const { rowHeight, role } = this.#plan;
    const { cells, attributes } = this.#plan.cells(row);
    const isActive = role === 'treegrid' && this.#plan.keyOf(row) === this.#activeKey;
    const drawn = element(
      'div',
      {
        role: 'row',
        id: this.#idOf(index),
        'aria-rowindex': index + 2,
        ...(role === 'treegrid' && { 'aria-selected': String(isActive) }),
        ...attributes,
        class: `row ${attributes['class'] ?? ''}`,
      },
      ...cells,
    );
    drawn.style.top = `${index * rowHeight}px`;
    drawn.style.height = `${rowHeight}px`;
    return drawn;
  }

  #idOf(index: number): string {
    return `${this.#idPrefix}${index}`;
  }

  #indexOfActive(): number {
    return this.#rows.findIndex((row) => this.#plan.keyOf(row) === this.#activeKey);
  }

  #onClick({ target }: Event): void {
    const found = target instanceof Element ? target.closest('[role=row]') : null;
    const index = Number(found?.id.slice(this.#idPrefix.length) ?? -1);
    if (this.#rows[index] !== undefined) this.#activate(index);
  }

  #onKey(event: KeyboardEvent): void {
    const { mostRows } = this.#plan;
    const active = this.#indexOfActive();
    const steps: Readonly<Record<string, number>> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + mostRows,
      PageUp: active - mostRows,
      Home: 0,
      End: this.#rows.length - 1,
    };
    const next = steps[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (next !== undefined) {
      event.preventDefault();
      return this.#activate(Math.max(0, Math.min(this.#rows.length - 1, next)));
    }
    const row = this.#rows[active];
    if (row === undefined) return;
    if (['ArrowLeft', 'ArrowRight', 'Enter', ' '].includes(event.key)) event.preventDefault();
    this.#plan.onKey?.(row, event.key);
  }

  #activate(index: number): void {
    const row = this.#rows[index];
    if (row === undefined) return;
    this.#activeKey = this.#plan.keyOf(row);
    const { rowHeight } = this.#plan;
    const room = this.element.clientHeight - 2 * rowHeight;
    const top = index * rowHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + room) this.element.scrollTop = top - room;
    this.#drawNow();
  }
}
