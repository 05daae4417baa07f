/**
 * The files of a release: for each architecture the .deb, the one file with what belongs to it as an archive, and the managed plugin;
 * the npm package, what all of them contain (CycloneDX), and their checksums. The same sources give the same bytes.
 *
 * Also a command: `node plugin/release.ts DIRECTORY`
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { VERSION } from '../src/version.ts';
import type { Architecture } from './artefacts.ts';
import { billOfMaterials } from './bill.ts';
import { makeDeb } from './deb.ts';
import { layInstallation } from './installation.ts';
import { buildRootfs } from './rootfs.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const ARCHITECTURES: readonly Architecture[] = ['amd64', 'arm64'];
const SUMS = 'SHA256SUMS';
const UNIFORM = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--mode=u=rwX,go=rX'];

/** `isTrial`: packed as fast as that can be done, for those who only look into it. */
export async function makeRelease(directory: string, architectures = ARCHITECTURES, isTrial = false): Promise<void> {
  const target = resolve(directory);
  refuseUntoldVersion();
  refuseOther(target);
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  execFileSync('npm', ['pack', '--silent', '--pack-destination', target], { cwd: CHECKOUT, stdio: 'ignore' });
  const scratch = mkdtempSync(join(tmpdir(), 'release-'));
  try {
    const roots = new Map<Architecture, string>();
    for (const architecture of architectures) {
      await packInstallations(target, scratch, architecture, isTrial);
      roots.set(architecture, await packPlugin(target, scratch, architecture, isTrial));
    }
    const bill = JSON.stringify(await billOfMaterials(roots), null, 2);
    writeFileSync(join(target, `tsmacvlan-${VERSION}.cdx.json`), `${bill}\n`);
  } finally {
    rmSync(scratch, { recursive: true });
  }
  writeFileSync(join(target, SUMS), checksums(target));
}

/** A release that the changelog does not speak of is none. */
function refuseUntoldVersion(): void {
  const changelog = readFileSync(join(CHECKOUT, 'CHANGELOG.md'), 'utf8');
  if (changelog.split('\n').some((line) => line.startsWith(`## ${VERSION}`))) return;
  throw new Error(`CHANGELOG.md has no section "## ${VERSION}"; write what users will notice, then release`);
}

/** What is there goes, and so it has to be of an earlier release. */
function refuseOther(directory: string): void {
  const present = existsSync(directory) ? readdirSync(directory) : [];
  const other = present.find((name) => !name.startsWith('tsmacvlan') && !name.startsWith(SUMS));
  if (other !== undefined) throw new Error(`${directory} has ${other}, which is of no release; name another directory`);
}

/** The one file is put together once: the archive and the .deb differ in the prefix that their text files name. */
async function packInstallations(
  target: string,
  scratch: string,
  architecture: Architecture,
  isTrial: boolean,
): Promise<void> {
  const name = `tsmacvlan-${VERSION}-linux-${architecture}`;
  const [forDeb, forArchive] = [join(scratch, `deb-${architecture}`), join(scratch, `archive-${architecture}`)];
  await layInstallation(forDeb, '/usr', architecture);
  makeDeb(target, architecture, forDeb, { compression: isTrial ? 'none' : 'xz' });
  await layInstallation(forArchive, '/usr/local', architecture, join(forDeb, 'usr/bin/tsmacvlan'));
  renameSync(join(forArchive, 'usr/local'), join(scratch, name));
  pack(target, scratch, name, isTrial);
}

/** Answers the root directory. */
async function packPlugin(
  target: string,
  scratch: string,
  architecture: Architecture,
  isTrial: boolean,
): Promise<string> {
  const name = `tsmacvlan-${VERSION}-plugin-linux-${architecture}`;
  const root = join(scratch, name, 'rootfs');
  mkdirSync(join(scratch, name));
  await buildRootfs(root, architecture);
  copyFileSync(join(CHECKOUT, 'config.json'), join(scratch, name, 'config.json'));
  pack(target, scratch, name, isTrial);
  return root;
}

function pack(target: string, scratch: string, name: string, isTrial: boolean): void {
  const compress = `--use-compress-program=gzip -n ${isTrial ? '-1' : '-6'}`;
  const archive = join(target, `${name}.tar.gz`);
  execFileSync('tar', [...UNIFORM, compress, '--directory', scratch, '--create', '--file', archive, name]);
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
