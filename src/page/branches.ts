/** The tree as the rows that are shown: what a search means, what is folded away. Pure. */
import type { PictureBranch } from './picture.ts';

/** One line of the tree. */
export interface TreeRow {
  readonly branch: PictureBranch;
  /** 1 for a parent. */
  readonly level: number;
  /** Null where nothing is below. */
  readonly isOpen: boolean | null;
}

/** `wanted` in lower case, empty for everything. What is below a branch that is meant is shown too. */
export function treeRows(
  branches: readonly PictureBranch[],
  wanted: string,
  folded: ReadonlySet<string>,
  level = 1,
): TreeRow[] {
  return branches.flatMap((branch) => {
    const isMeant = wanted === '' || isBranchMeant(branch, wanted);
    // What a search finds is not folded away.
    const isOpen = wanted !== '' || !folded.has(branch.id);
    const below = isOpen ? treeRows(branch.branches, isMeant ? '' : wanted, folded, level + 1) : [];
    if (!isMeant && below.length === 0) return [];
    return [{ branch, level, isOpen: branch.branches.length === 0 ? null : isOpen }, ...below];
  });
}

/** By its name, an address or the MAC address. */
function isBranchMeant({ name, addresses, macAddress }: PictureBranch, wanted: string): boolean {
  const has = (text: string) => text.toLowerCase().includes(wanted);
  return has(name) || has(macAddress) || addresses.some(has);
}

/** How many containers there are, and how many of them the rows show. */
export function countContainers(rows: readonly TreeRow[]): number {
  return rows.filter(({ branch: { kind } }) => kind === 'container' || kind === 'stopped').length;
}
