/**
 * The bill of materials of a release (CycloneDX 1.6): what is bundled, koffi and its native libraries, Node and what Node is
 * made of, and the C libraries of the managed plugin. In the same order each time, without a date.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { VERSION } from '../src/version.ts';
import { type Architecture, CPU, type Artefacts, ownArchitecture, provideArtefacts } from './artefacts.ts';
import { lockedPackages, type Package, packagesIn } from './contents.ts';
import { versionOfDeb } from './debian.ts';

const METAFILE = resolve(import.meta.dirname, '../dist/contents.json');

interface Component {
  readonly type: 'library' | 'platform' | 'file';
  readonly name: string;
  readonly version?: string;
  readonly [more: string]: unknown;
}

/** Packages of Debian that the managed plugin has libraries of, which `files` names. */
export const LIBRARY_PACKAGES = {
  libc6: { license: 'LGPL-2.1-or-later', files: /^(ld-linux|lib(c|m|dl|pthread|rt|resolv)\.so)/ },
  'libgcc-s1': { license: 'GPL-3.0-or-later WITH GCC-exception-3.1', files: /^libgcc_s\.so/ },
  'libstdc++6': { license: 'GPL-3.0-or-later WITH GCC-exception-3.1', files: /^libstdc\+\+\.so/ },
} as const satisfies Record<string, { license: string; files: RegExp }>;

/** What process.versions of Node names, with its license; null for tables and numbers that are no code of others. */
const IN_NODE: Readonly<Record<string, string | null>> = {
  acorn: 'MIT',
  ada: 'MIT',
  amaro: 'MIT',
  ares: 'MIT',
  brotli: 'MIT',
  cjs_module_lexer: 'MIT',
  cldr: 'Unicode-3.0',
  icu: 'Unicode-3.0',
  llhttp: 'MIT',
  merve: 'MIT',
  modules: null,
  napi: null,
  nbytes: 'MIT',
  ncrypto: 'MIT',
  nghttp2: 'MIT',
  nghttp3: 'MIT',
  ngtcp2: 'MIT',
  node: null,
  openssl: 'Apache-2.0',
  simdjson: 'Apache-2.0',
  simdutf: 'MIT',
  sqlite: 'blessing',
  tz: null,
  undici: 'MIT',
  unicode: 'Unicode-3.0',
  uv: 'MIT',
  uvwasi: 'MIT',
  v8: 'BSD-3-Clause',
  zlib: 'Zlib',
  zstd: 'BSD-3-Clause',
};

/** `roots`: of the managed plugin, for each architecture that is released. */
export async function billOfMaterials(roots: ReadonlyMap<Architecture, string>): Promise<object> {
  const itself = { type: 'application', name: 'tsmacvlan', version: VERSION, purl: `pkg:npm/tsmacvlan@${VERSION}` };
  const components = packagesIn(METAFILE).map((found) => ofNpm('library', found));
  for (const [architecture, root] of roots) {
    const artefacts = await provideArtefacts(architecture);
    components.push(...nativesOf(architecture), await nodeOf(architecture), ...systemLibraries(root, artefacts));
  }
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: { component: { ...itself, licenses: [{ license: { id: 'Apache-2.0' } }] } },
    components,
  };
}

function nativesOf(architecture: Architecture): Component[] {
  const path = `node_modules/@koromix/koffi-linux-${CPU[architecture]}`;
  return lockedPackages('.', [path]).map((found) => ofNpm('library', found));
}

/** Of one version on every architecture: this machine's says what all are made of. */
async function nodeOf(architecture: Architecture): Promise<Component> {
  const [locked] = lockedPackages('plugin/runtime', [`node_modules/node-linux-${CPU[architecture]}`]);
  const { node } = await provideArtefacts(ownArchitecture());
  const versions = JSON.parse(
    execFileSync(node, ['-p', 'JSON.stringify(process.versions)'], { encoding: 'utf8' }),
  ) as Record<string, string>;
  const components = Object.entries(versions).flatMap(([name, version]) => {
    const license = IN_NODE[name];
    if (license === undefined)
      throw new Error(`${name} in Node is new; plugin/bill.ts has to say under which license it is`);
    return license === null || version === '' ? [] : [{ type: 'library', name, version, licenses: licenses(license) }];
  });
  // Reports of faults in Node name it so, and not its npm package.
  const cpe = `cpe:2.3:a:nodejs:node.js:${versions['node']}:*:*:*:*:*:*:*`;
  return { ...ofNpm('platform', locked as Package), cpe, components };
}

function systemLibraries(root: string, { libraries, architecture }: Artefacts): Component[] {
  const paths = globSync('**/*.so*', { cwd: root }).sort();
  const components = Object.entries(LIBRARY_PACKAGES).map(([name, { license, files }]): Component => {
    const version = versionOfDeb(name, libraries);
    const ours = paths.filter((path) => files.test(basename(path)));
    return {
      type: 'library',
      name,
      version,
      purl: `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${architecture}`,
      licenses: licenses(license),
      components: ours.map((path) => ({ type: 'file', name: path, hashes: [hash(join(root, path))] })),
    };
  });
  const known = components.flatMap(({ components: files }) => (files as Component[]).map(({ name }) => name));
  const unknown = paths.filter((path) => !known.includes(path));
  if (unknown.length > 0) throw new Error(`${unknown.join(', ')}: plugin/bill.ts knows no package of Debian for it`);
  return components;
}

function ofNpm(type: 'library' | 'platform', { name, version, license, sha512 }: Package): Component {
  // A scope is part of the path in a package URL, with its @ escaped (package-url/purl-spec, type npm).
  const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
  return { type, name, version, purl, licenses: licenses(license), hashes: [{ alg: 'SHA-512', content: sha512 }] };
}

function licenses(expression: string): object[] {
  return expression.includes(' ') ? [{ expression }] : [{ license: { id: expression } }];
}

function hash(path: string): object {
  return { alg: 'SHA-256', content: createHash('sha256').update(readFileSync(path)).digest('hex') };
}
