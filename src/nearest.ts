/** Words that a user typed, against the words that are known. */

/** The one of `allowed` that was typed; undefined when it is none of them. */
export function oneOf<const T extends string>(allowed: readonly T[], typed: string): T | undefined {
  return allowed.find((word) => word === typed);
}

/** The known word a typo most likely meant; undefined when none is near (a third of its letters or fewer differ, and one at least does not). */
export function nearest(typed: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const word of known) {
    const distance = editDistance(typed.toLowerCase().slice(0, 64), word.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [word, distance];
  }
  const most = best === undefined ? 0 : Math.min(best.length - 1, Math.max(2, Math.floor(best.length / 3)));
  return bestDistance <= Math.min(most, typed.length - 1) ? best : undefined;
}

/** Levenshtein distance: insertions, deletions and substitutions, row by row. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
