/** A program of the tests in one file, as `make build` makes the product's: it starts with half the work. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Its addon is looked for beside its own files. */
const KOFFI = fileURLToPath(import.meta.resolve('koffi'));

/** What no call reaches. */
const NOTHING = join(import.meta.dirname, '../../plugin/empty.json');

/** Writes the program at `entry` with all that it imports into the directory; answers the file. */
export async function bundle(entry: string, directory: string): Promise<string> {
  const outfile = join(directory, 'program.cjs');
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    alias: { koffi: KOFFI, 'mime-db': NOTHING, qs: NOTHING },
    external: [KOFFI, '../encodings'],
    minifyWhitespace: true,
    minifySyntax: true,
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  });
  return outfile;
}
