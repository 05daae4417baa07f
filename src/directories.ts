/** Directories that are made with those above them. */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes what is missing of the path. Throws the system's error for the first that cannot be made, or is no directory. Node's own way
 * with `recursive` never ends below /proc, which says of a name that cannot be made that it does not exist, and names the wrong reason
 * on a disk that is read-only.
 */
export function makeDirectories(path: string, mode: number): void {
  if (isMade(path, mode)) return;
  makeDirectories(dirname(path), mode);
  if (!isMade(path, mode)) mkdirSync(path, mode);
}

/** False when what is above it is missing. */
function isMade(path: string, mode: number): boolean {
  try {
    mkdirSync(path, mode);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' && dirname(path) !== path) return false;
    if (code === 'EEXIST' && statSync(path).isDirectory()) return true;
    throw error;
  }
}
