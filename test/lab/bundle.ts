/** A program of the tests in one file, as `make build` makes the product's: it starts with half the work. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Its addon is looked for beside its own files. */
const KOFFI = fileURLToPath(import.meta.resolve('koffi'));

/** What no call reaches. */
const NOTHING = join(import.meta.dirname, '../../plugin/empty.json');
const STARTER = join(import.meta.dirname, 'compiled.ts');

/** Writes the program at `entry` with all that it imports into the directory; answers the file that starts it. */
export async function bundle(entry: string, directory: string): Promise<string> {
  const [outfile, starter] = [join(directory, 'program.cjs'), join(directory, 'start.cjs')];
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
  await build({ entryPoints: [STARTER], outfile: starter, platform: 'node', format: 'cjs', logLevel: 'error' });
  return starter;
}
