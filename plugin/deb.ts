/**
 * The Debian package: what is in plugin/deb/ around an installation below /usr, put together by dpkg-deb, without root.
 * The same sources give the same bytes.
 *
 * Also a command: `node plugin/deb.ts DIRECTORY [amd64|arm64]`
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { VERSION } from '../src/version.ts';
import { type Architecture, ownArchitecture, readArchitecture } from './artefacts.ts';
import { layInstallation } from './installation.ts';

const TEMPLATES = join(import.meta.dirname, 'deb');
const DOCUMENTS = 'usr/share/doc/tsmacvlan';

export interface DebOptions {
  /** Of the package; that of the program when left out. */
  readonly version?: string;
  /** As dpkg-deb(1) names it. */
  readonly compression?: 'xz' | 'gzip' | 'none';
}

/** Answers the file that it wrote into the directory. `installed` is an installation below `usr/` of it, as layInstallation() writes. */
export function makeDeb(
  directory: string,
  architecture: Architecture,
  installed: string,
  { version = VERSION, compression = 'xz' }: DebOptions = {},
): string {
  // Before the release comes what leads to it (deb-version(7)).
  const debianVersion = version.replace('-', '~');
  const root = mkdtempSync(join(tmpdir(), 'deb-'));
  try {
    cpSync(installed, root, { recursive: true });
    layDocuments(root);
    layControl(root, architecture, debianVersion);
    execFileSync('chmod', ['-R', 'u=rwX,go=rX', root]);
    // As it is, since pages that offer files take no tilde in a name, and the sums go by names.
    const file = join(directory, `tsmacvlan_${version}_${architecture}.deb`);
    // One thread: how the work is divided shows in the bytes.
    const how = ['--root-owner-group', `-Z${compression}`, '--threads-max=1', '--build', root, file];
    const { SOURCE_DATE_EPOCH = '0' } = process.env;
    execFileSync('dpkg-deb', how, { env: { ...process.env, SOURCE_DATE_EPOCH }, stdio: 'pipe' });
    return file;
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** As Debian's policy wants them, chapter 12. */
function layDocuments(root: string): void {
  const changelog = join(root, DOCUMENTS, 'CHANGELOG.md');
  compress(join(root, 'usr/share/man/man8/tsmacvlan.8'));
  writeFileSync(join(root, DOCUMENTS, 'changelog.gz'), gzipSync(readFileSync(changelog), { level: 9 }));
  const [license, others] = ['LICENSE', 'LICENSES.txt'].map((name) => join(root, DOCUMENTS, name)) as [string, string];
  const copyright = `tsmacvlan ${VERSION} is under the Apache License 2.0, /usr/share/common-licenses/Apache-2.0. In its one file are Node.js,\nlibraries from npm, and what those contain, under the licenses that follow.\n\n---\n\n`;
  writeFileSync(join(root, DOCUMENTS, 'copyright'), copyright + readFileSync(others, 'utf8'));
  for (const file of [license, others]) rmSync(file);
}

function compress(file: string): void {
  writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
  rmSync(file);
}

function layControl(root: string, architecture: Architecture, version: string): void {
  const files = filesBelow(root, '');
  const control = join(root, 'DEBIAN');
  const settings = '/etc/default/tsmacvlan';
  mkdirSync(join(root, 'etc/default'), { recursive: true });
  writeFileSync(join(root, settings), template('default'));
  mkdirSync(control);
  const bytes = files.reduce((sum, path) => sum + lstatSync(join(root, path)).size, 0);
  const about = { VERSION: version, ARCHITECTURE: architecture, KILOBYTES: String(Math.ceil(bytes / 1024)) };
  writeFileSync(join(control, 'control'), filled(template('control'), about));
  writeFileSync(join(control, 'conffiles'), `${settings}\n`);
  writeFileSync(join(control, 'md5sums'), files.map((path) => `${md5(join(root, path))}  ${path}\n`).join(''));
  const occupied = readFileSync(join(import.meta.dirname, 'occupied.sh'), 'utf8');
  for (const script of ['preinst', 'postinst', 'prerm', 'postrm']) {
    writeFileSync(join(control, script), filled(template(script), { OCCUPIED: occupied }));
    chmodSync(join(control, script), 0o755);
  }
}

function template(name: string): string {
  return readFileSync(join(TEMPLATES, name), 'utf8');
}

function filled(text: string, values: Readonly<Record<string, string>>): string {
  return text.replaceAll(/@([A-Z]+)@/g, (whole, name: string) => values[name] ?? whole);
}

/** Paths without a leading slash, sorted. */
function filesBelow(root: string, path: string): string[] {
  return readdirSync(join(root, path), { withFileTypes: true })
    .flatMap((entry) => {
      const below = join(path, entry.name);
      return entry.isDirectory() ? filesBelow(root, below) : [below];
    })
    .sort();
}

function md5(file: string): string {
  return createHash('md5').update(readFileSync(file)).digest('hex');
}

if (import.meta.main) {
  const [directory, architecture = ownArchitecture()] = process.argv.slice(2);
  if (directory === undefined) throw new Error('usage: node plugin/deb.ts DIRECTORY [amd64|arm64]');
  const root = mkdtempSync(join(tmpdir(), 'installation-'));
  await layInstallation(root, '/usr', readArchitecture(architecture));
  // For machines nearby: a third larger than that of a release, and made in a fraction of the time.
  const file = makeDeb(directory, readArchitecture(architecture), root, { compression: 'gzip' });
  process.stdout.write(`${file}\n`);
  rmSync(root, { recursive: true });
}
