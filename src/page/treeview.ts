/** Who is where: the tree of parents, VLANs, networks and containers. */
import { type TreeRow, treeRows } from './branches.ts';
import { element } from './elements.ts';
import type { Picture, PictureBranch } from './picture.ts';
import { RowList } from './rowlist.ts';

/** That tree, folded as who looks wants it. */
export class TreeView {
  readonly element: HTMLElement;
  /** All of the active row's remarks, of which the list may show the beginning. */
  readonly #said = element('p', { class: 'said' });
  readonly #list: RowList<TreeRow>;
  readonly #folded = new Set<string>();
  #tree: Picture['tree'] = [];
  #wanted = '';

  constructor() {
    this.#list = new RowList<TreeRow>({
      role: 'treegrid',
      label: 'who is where',
      rowHeight: 30,
      mostRows: 22,
      headings: ['Name', 'Address', 'MAC address', 'Remarks'],
      cells: (row) => ({ cells: this.#cells(row), attributes: attributesOf(row) }),
      keyOf: ({ branch }) => branch.id,
      onKey: (row, key) => this.#onKey(row, key),
      onActive: (row) => {
        this.#said.textContent = row === undefined ? '' : wordsOf(row);
      },
    });
    this.element = element('div', {}, this.#list.element, this.#said);
  }

  /** Draws this from now on; answers the rows that the search means. */
  show(tree: Picture['tree'], wanted: string): readonly TreeRow[] {
    this.#tree = tree;
    this.#wanted = wanted;
    const rows = treeRows(tree, wanted, this.#folded);
    this.#list.show(rows);
    return rows;
  }

  #cells({ branch, level, isOpen }: TreeRow): HTMLElement[] {
    const { kind, name, facts, addresses, macAddress } = branch;
    const mark = element('span', { 'aria-hidden': 'true', class: 'fold' }, isOpen === null ? '' : isOpen ? '▾' : '▸');
    mark.addEventListener('click', () => this.#fold(branch.id, isOpen === true));
    const label = element('span', { class: 'name' }, name);
    const first = element('span', { role: 'gridcell', class: 'first', title: name }, mark, label);
    first.style.paddingLeft = `${(level - 1) * 18}px`;
    const remarks = remarksOf(branch);
    const isLeaf = kind === 'container' || kind === 'stopped';
    if (!isLeaf) {
      const words = [facts, remarks].filter((text) => text !== '').join(' · ');
      return [first, element('span', { role: 'gridcell', class: 'wide', 'aria-colspan': 3, title: words }, words)];
    }
    return [
      first,
      element('span', { role: 'gridcell' }, addresses.join(' ')),
      element('span', { role: 'gridcell' }, macAddress),
      element('span', { role: 'gridcell', class: 'remarks', title: remarks }, remarks),
    ];
  }

  #onKey({ branch, isOpen }: TreeRow, key: string): void {
    if (isOpen === null) return;
    if (key === 'ArrowLeft') this.#fold(branch.id, true);
    else if (key === 'ArrowRight') this.#fold(branch.id, false);
    else if (key === 'Enter' || key === ' ') this.#fold(branch.id, isOpen);
  }

  #fold(id: string, isFolded: boolean): void {
    if (isFolded) this.#folded.add(id);
    else this.#folded.delete(id);
    this.show(this.#tree, this.#wanted);
  }
}

function attributesOf({ branch, level, isOpen }: TreeRow): Record<string, string> {
  const worst = branch.troubles.some((one) => one.level === 'failure') ? 'failure' : branch.troubles[0]?.level;
  return {
    'aria-level': String(level),
    ...(isOpen !== null && { 'aria-expanded': String(isOpen) }),
    class: [branch.kind, worst ?? ''].join(' '),
  };
}

function wordsOf({ branch }: TreeRow): string {
  const { name, facts, addresses, macAddress, kind } = branch;
  const own = kind === 'container' || kind === 'stopped' ? [] : [facts];
  return [name, ...addresses, macAddress, ...own, remarksOf(branch)].filter((text) => text !== '').join(' · ');
}

/** A container's facts, and the doctor's words. */
function remarksOf({ kind, facts, troubles }: PictureBranch): string {
  const own = kind === 'container' || kind === 'stopped' ? [facts] : [];
  const marks = troubles.map(({ level, says, todo }) => {
    const words = todo === '' ? says : `${says}; ${todo}`;
    return `${level === 'failure' ? '✖' : '⚠'} ${words}`;
  });
  return [...own, ...marks].filter((text) => text !== '').join(' · ');
}
