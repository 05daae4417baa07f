/** Conflicts over days: a row for each, with a bar from when it was seen first until it ended. */
import { element } from './elements.ts';
import type { PictureConflict } from './picture.ts';
import { RowList } from './rowlist.ts';
import { placeOnAxis, SPANS, spanOf, ticksOf, timeText } from './timespan.ts';

const SPAN_WORDS: Readonly<Record<(typeof SPANS)[number], string>> = {
  1: 'one day',
  7: 'a week',
  30: 'thirty days',
  365: 'a year',
};

/** That list, its axis, and the choice of how far back it goes. */
export class Timeline {
  readonly element: HTMLElement;
  readonly #choice = element('select', { 'aria-label': 'how far back' });
  readonly #axis = element('div', { class: 'axis', 'aria-hidden': 'true' });
  readonly #none = element('p', { class: 'dim' }, 'None in this time.');
  readonly #list: RowList<PictureConflict>;
  #conflicts: readonly PictureConflict[] = [];
  #nowMs = Date.now();
  #isChosen = false;

  constructor() {
    const options = SPANS.map((days) => element('option', { value: days }, SPAN_WORDS[days]));
    this.#choice.append(...options);
    this.#choice.addEventListener('change', () => {
      this.#isChosen = true;
      this.#draw();
    });
    this.#list = new RowList<PictureConflict>({
      role: 'table',
      label: 'conflicts',
      rowHeight: 30,
      mostRows: 12,
      headings: ['Address', 'Container', 'Somebody else', 'When', 'Days'],
      cells: (conflict) => ({ cells: this.#cells(conflict), attributes: attributesOf(conflict) }),
      keyOf: ({ id }) => id,
    });
    this.#list.element.classList.add('timeline');
    this.element = element('div', {}, this.#choice, this.#none, this.#axis, this.#list.element);
  }

  /** Draws these from now on. */
  show(conflicts: readonly PictureConflict[], at: string): void {
    this.#conflicts = conflicts;
    this.#nowMs = Date.parse(at);
    if (!this.#isChosen) this.#choice.value = String(spanOf(conflicts, this.#nowMs));
    this.#draw();
  }

  get #days(): number {
    return Number(this.#choice.value);
  }

  #draw(): void {
    const ticks = ticksOf(this.#days, this.#nowMs).map(({ left, text }) => {
      const tick = element('span', {}, text);
      tick.style.left = `${left}%`;
      return tick;
    });
    this.#axis.replaceChildren(element('div', {}, ...ticks));
    const shown = this.#conflicts.filter((one) => placeOnAxis(one, this.#days, this.#nowMs) !== null);
    this.#none.hidden = shown.length > 0;
    this.#axis.hidden = this.#list.element.hidden = shown.length === 0;
    this.#list.show(shown);
  }

  #cells(conflict: PictureConflict): HTMLElement[] {
    const { address, container, holder } = conflict;
    const place = placeOnAxis(conflict, this.#days, this.#nowMs) ?? { left: 0, width: 0 };
    const bar = element('span', { class: 'bar', 'aria-hidden': 'true' });
    // One that has just begun is seen too.
    bar.style.left = `min(${place.left}%, 100% - 4px)`;
    bar.style.width = `${place.width}%`;
    const words = [address, container === '' ? '–' : container, holder, whenInWords(conflict)];
    const cells = words.map((text) => element('span', { role: 'cell', title: text }, text));
    return [...cells, element('span', { role: 'cell', class: 'days' }, bar)];
  }
}

function whenInWords({ firstSeenAt, endedAt, count }: PictureConflict): string {
  const begun = timeText(firstSeenAt);
  return endedAt === null ? `since ${begun}, it lasts, ${count} ×` : `${begun} – ${timeText(endedAt)}, ${count} ×`;
}

function attributesOf({ endedAt }: PictureConflict): Record<string, string> {
  return { class: endedAt === null ? 'lasting' : 'ended' };
}
