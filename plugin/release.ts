/**
 * The files of a release: the npm package, the managed plugin for each architecture, what they contain (CycloneDX 1.5)
 * and their checksums. The same sources give the same bytes.
 *
 * Also a command: `node plugin/release.ts DIRECTORY`
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { VERSION } from '../src/version.ts';
import { type Architecture, CPU } from './artefacts.ts';
import { lockedPackages, type Package, packagesIn } from './contents.ts';
import { buildRootfs } from './rootfs.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const METAFILE = join(CHECKOUT, 'dist/contents.json');
const ARCHITECTURES: readonly Architecture[] = ['amd64', 'arm64'];
const UNIFORM = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--mode=u=rwX,go=rX'];

export async function makeRelease(directory: string, architectures = ARCHITECTURES): Promise<void> {
  const target = resolve(directory);
  refuseUntoldVersion();
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  execFileSync('npm', ['pack', '--silent', '--pack-destination', target], { cwd: CHECKOUT, stdio: 'ignore' });
  const libraries: object[] = [];
  for (const architecture of architectures) libraries.push(...(await packPlugin(target, architecture)));
  const bill = JSON.stringify(billOfMaterials(libraries), null, 2);
  writeFileSync(join(target, `tsmacvlan-${VERSION}.cdx.json`), `${bill}\n`);
  writeFileSync(join(target, 'SHA256SUMS'), checksums(target));
}

/** A release that the changelog does not speak of is none. */
function refuseUntoldVersion(): void {
  const changelog = readFileSync(join(CHECKOUT, 'CHANGELOG.md'), 'utf8');
  if (changelog.split('\n').some((line) => line.startsWith(`## ${VERSION}`))) return;
  throw new Error(`CHANGELOG.md has no section "## ${VERSION}"; write what users will notice, then release`);
}

/** Answers the system's libraries in it, for the bill. */
async function packPlugin(target: string, architecture: Architecture): Promise<object[]> {
  const name = `tsmacvlan-${VERSION}-plugin-linux-${architecture}`;
  const scratch = mkdtempSync(join(tmpdir(), 'release-'));
  try {
    mkdirSync(join(scratch, name));
    await buildRootfs(join(scratch, name, 'rootfs'), architecture);
    copyFileSync(join(CHECKOUT, 'config.json'), join(scratch, name, 'config.json'));
    const archive = join(target, `${name}.tar.gz`);
    const compress = '--use-compress-program=gzip -n';
    execFileSync('tar', [...UNIFORM, compress, '--directory', scratch, '--create', '--file', archive, name]);
    return systemLibraries(join(scratch, name, 'rootfs'), architecture);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function systemLibraries(root: string, architecture: Architecture): object[] {
  const paths = globSync('**/*.so*', { cwd: root }).sort();
  return paths.map((path) => ({
    type: 'library',
    group: `linux-${architecture}`,
    name: basename(path),
    hashes: [{ alg: 'SHA-256', content: sha256(join(root, path)) }],
  }));
}

function billOfMaterials(libraries: readonly object[]): object {
  const runtime = lockedPackages(
    'plugin/runtime',
    Object.values(CPU).map((cpu) => `node_modules/node-linux-${cpu}`),
  );
  const itself = { type: 'application', name: 'tsmacvlan', version: VERSION, purl: `pkg:npm/tsmacvlan@${VERSION}` };
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: { component: { ...itself, licenses: [{ license: { id: 'Apache-2.0' } }] } },
    components: [
      ...packagesIn(METAFILE).map((found) => component('library', found)),
      ...runtime.map((found) => component('platform', found)),
      ...libraries,
    ],
  };
}

function component(type: string, { name, version, license, sha512 }: Package): object {
  // A scope is part of the path in a package URL, with its @ escaped (package-url/purl-spec, type npm).
  const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
  return {
    type,
    name,
    version,
    purl,
    licenses: [license.includes(' ') ? { expression: license } : { license: { id: license } }],
    hashes: [{ alg: 'SHA-512', content: sha512 }],
  };
}

/** As `sha256sum --check SHA256SUMS` reads them. */
function checksums(directory: string): string {
  const names = readdirSync(directory).sort();
  return names.map((name) => `${sha256(join(directory, name))}  ${name}\n`).join('');
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

if (import.meta.main) {
  const [directory] = process.argv.slice(2);
  if (directory === undefined) throw new Error('usage: node plugin/release.ts DIRECTORY');
  await makeRelease(directory);
}
