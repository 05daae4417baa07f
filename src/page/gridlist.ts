/** All subnets, one below the other. Those near what is in sight are painted: a thousand of them would take half a gigabyte. */
import { COLUMNS } from './addresses.ts';
import { element } from './elements.ts';
import { GAP, type GridLook, GridView, LABELS } from './gridview.ts';
import type { PictureGrid } from './picture.ts';
import { Tiles } from './tiles.ts';

/** CSS pixels. */
const SMALLEST = 7;
const LARGEST = 20;
const SCROLL_BAR = 16;
/** What is so far above or below what is in sight is painted too, for a wheel that is faster than the browser. */
const NEAR = '600px';

/** That list. */
export class GridList {
  readonly element = element('div', { class: 'grids' });
  readonly #views = new Map<string, GridView>();
  readonly #viewOf = new WeakMap<Element, GridView>();
  readonly #sight = new IntersectionObserver((seen) => this.#see(seen), { rootMargin: NEAR });
  #look: GridLook = { cell: LARGEST, tiles: new Tiles(LARGEST - GAP) };

  constructor() {
    new ResizeObserver(() => this.#fit()).observe(this.element);
    // On paper nothing is out of sight.
    window.addEventListener('beforeprint', () => {
      for (const view of this.#views.values()) view.isNear = true;
    });
    window.addEventListener('afterprint', () => this.#lookAgain());
  }

  /** Draws these from now on, with what the search means in full and the rest pale. */
  show(grids: readonly PictureGrid[], wanted: string): void {
    this.#fit();
    this.#forgetBut(new Set(grids.map(({ id }) => id)));
    let next: Element | null = null;
    for (const grid of grids.toReversed()) {
      const view = this.#views.get(grid.id) ?? this.#add(grid);
      // What is moved loses its place and the focus: only where it has to be.
      if (view.element.parentNode === null || view.element.nextElementSibling !== next)
        this.element.insertBefore(view.element, next);
      view.show(grid, wanted);
      next = view.element;
    }
  }

  /** After the theme has changed: other colours. */
  repaint(): void {
    this.#share({ ...this.#look, tiles: new Tiles(this.#look.tiles.size) });
  }

  #add(grid: PictureGrid): GridView {
    const view = new GridView(grid, this.#look);
    this.#views.set(grid.id, view);
    this.#viewOf.set(view.element, view);
    this.#sight.observe(view.element);
    return view;
  }

  #forgetBut(ids: ReadonlySet<string>): void {
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue;
      this.#sight.unobserve(view.element);
      view.element.remove();
      this.#views.delete(id);
    }
  }

  #see(seen: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of seen) {
      const view = this.#viewOf.get(target);
      if (view !== undefined) view.isNear = isIntersecting;
    }
  }

  /** An observer says of what it begins to observe where it is. */
  #lookAgain(): void {
    this.#sight.disconnect();
    for (const { element: one } of this.#views.values()) this.#sight.observe(one);
  }

  /** To the width that there is, and to how many dots of the screen a pixel has. */
  #fit(): void {
    const width = this.element.clientWidth;
    if (width === 0) return;
    const cell = Math.max(SMALLEST, Math.min(LARGEST, Math.floor((width - LABELS - SCROLL_BAR) / COLUMNS)));
    const size = Math.round((cell - GAP) * window.devicePixelRatio);
    const { tiles } = this.#look;
    this.element.style.setProperty('--cell', `${cell}px`);
    this.#share({ cell, tiles: tiles.size === size ? tiles : new Tiles(size) });
  }

  #share(look: GridLook): void {
    this.#look = look;
    for (const view of this.#views.values()) view.look(look);
  }
}
