/**
 * What of other people's work the bundle contains: for the licence texts that have to go with it, and for the SBOM.
 *
 * Also a command, after esbuild wrote its metafile: `node plugin/contents.ts METAFILE > dist/LICENSES.txt`
 */
import { globSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const CHECKOUT = resolve(import.meta.dirname, '..');

export interface Package {
  readonly name: string;
  readonly version: string;
  /** SPDX, `MIT`. */
  readonly license: string;
  /** Of the package in the registry, in hexadecimal. */
  readonly sha512: string;
  /** `node_modules/express`. */
  readonly path: string;
}

interface Locked {
  readonly version: string;
  readonly license: string;
  /** `sha512-` and the digest in Base64. */
  readonly integrity: string;
}

/** Packages with code in the bundle, and koffi, which stands beside it; by path. */
export function packagesIn(metafile: string): Package[] {
  const { inputs } = JSON.parse(readFileSync(metafile, 'utf8')) as { inputs: Record<string, unknown> };
  const bundled = Object.keys(inputs).flatMap((path) => path.match(/^.*node_modules\/(@[^/]+\/)?[^/]+/)?.[0] ?? []);
  return lockedPackages('.', [...new Set([...bundled, 'node_modules/koffi'])]);
}

/** What a lockfile of the checkout says of the packages at these paths. */
export function lockedPackages(directory: string, paths: readonly string[]): Package[] {
  const lockfile = readFileSync(join(CHECKOUT, directory, 'package-lock.json'), 'utf8');
  const { packages } = JSON.parse(lockfile) as { packages: Record<string, Locked> };
  return [...paths].sort().map((path) => {
    const locked = packages[path];
    if (locked === undefined) throw new Error(`${path} is not in the lockfile; run npm ci`);
    const { version, license, integrity } = locked;
    const sha512 = Buffer.from(integrity.replace('sha512-', ''), 'base64').toString('hex');
    return { name: path.replace(/^.*node_modules\//, ''), version, license, sha512, path };
  });
}

/** Their licence texts, one after the other. */
function licenses(packages: readonly Package[]): string {
  return packages
    .map((found) => `${found.name} ${found.version} (${found.license})\n\n${text(found)}\n`)
    .join('\n---\n\n');
}

function text({ path }: Package): string {
  const [file] = globSync('{LICEN[SC]E,licen[sc]e}{,.txt,.md}', { cwd: join(CHECKOUT, path) }).sort();
  if (file !== undefined) return readFileSync(join(CHECKOUT, path, file), 'utf8').trim();
  return notices(path) || '(no text in the package)';
}

/** Where the text stands at the head of every file, as in @bufbuild and @connectrpc: each of them once. */
function notices(path: string): string {
  const files = globSync('dist/esm/**/*.js', { cwd: join(CHECKOUT, path) }).sort();
  const heads = files.map((file) => readFileSync(join(CHECKOUT, path, file), 'utf8').match(/^(\/\/.*\n)+/)?.[0] ?? '');
  // A remark on the file's own code may follow without a blank line.
  const texts = heads.map((head) =>
    head
      .replaceAll(/^\/\/ ?/gm, '')
      .replace(/^Native .*$/m, '')
      .trim(),
  );
  return [...new Set(texts)].filter((one) => one.includes('Copyright')).join('\n\n');
}

if (import.meta.main) {
  const [metafile] = process.argv.slice(2);
  if (metafile === undefined) throw new Error('usage: node plugin/contents.ts METAFILE');
  process.stdout.write(licenses(packagesIn(metafile)));
}
