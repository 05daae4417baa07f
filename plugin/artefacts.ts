/**
 * What the managed plugin is put together from, for this machine's architecture or for the other one: Node and koffi as
 * npm serves them (integrity in the lockfiles), and a directory that holds C libraries where a root directory would.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, realpath, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { fetchDebs, LAB } from './debian.ts';

/** Debian's names. */
export type Architecture = 'amd64' | 'arm64';

export interface Artefacts {
  readonly architecture: Architecture;
  /** The Node executable. */
  readonly node: string;
  /** The node_modules directory with koffi. */
  readonly modules: string;
  /** Root directory for looking up the loader and the libraries. */
  readonly libraries: string;
}

/** npm's names. */
export const CPU: Readonly<Record<Architecture, 'x64' | 'arm64'>> = { amd64: 'x64', arm64: 'arm64' };

const CHECKOUT = resolve(import.meta.dirname, '..');
const NPM_TIMEOUT_MS = 300_000;

export function readArchitecture(text: string): Architecture {
  if (text !== 'amd64' && text !== 'arm64') throw new Error(`architecture "${text}" is neither amd64 nor arm64`);
  return text;
}

export function ownArchitecture(): Architecture {
  return process.arch === 'arm64' ? 'arm64' : 'amd64';
}

export async function provideArtefacts(architecture: Architecture): Promise<Artefacts> {
  const isOwn = architecture === ownArchitecture();
  const [runtime, program, libraries] = isOwn
    ? [join(CHECKOUT, 'plugin/runtime'), CHECKOUT, '/']
    : await fetchForeign(architecture);
  return {
    architecture,
    node: join(runtime, `node_modules/node-linux-${CPU[architecture]}/bin/node`),
    modules: join(program, 'node_modules'),
    libraries,
  };
}

async function fetchForeign(architecture: Architecture): Promise<[string, string, string]> {
  const cache = join(LAB, `plugin-${architecture}`);
  const [runtime, program] = [join(cache, 'runtime'), join(cache, 'program')];
  const cpu = CPU[architecture];
  await installFor(cpu, join(CHECKOUT, 'plugin/runtime'), runtime, `node-linux-${cpu}`);
  await installFor(cpu, CHECKOUT, program, `@koromix/koffi-linux-${cpu}`);
  // The last has the license texts of the two before it.
  const packages = ['libc6', 'libstdc++6', 'libgcc-s1', 'gcc-12-base'];
  return [runtime, program, await fetchDebs('bookworm', packages, join(cache, 'system'), architecture)];
}

/** `npm ci` in a copy, because npm would replace the packages of this machine's architecture. `wanted` is one of the other's. */
async function installFor(cpu: string, source: string, target: string, wanted: string): Promise<void> {
  const isThere = () => existsSync(join(target, 'node_modules', wanted));
  if (isInstalled(source, target) && isThere()) return;
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  for (const name of ['package.json', 'package-lock.json']) await copyFile(join(source, name), join(target, name));
  const flags = ['--omit=dev', '--ignore-scripts', '--no-audit', '--no-fund', '--os=linux', '--libc=glibc'];
  // Through a symbolic link npm would take the directory for a package that the lockfile does not have.
  const directory = await realpath(target);
  await promisify(execFile)('npm', ['ci', '--prefix', directory, `--cpu=${cpu}`, ...flags], {
    cwd: directory,
    timeout: NPM_TIMEOUT_MS,
  });
  // Debian 12's npm takes no notice of --cpu, and says nothing.
  if (!isThere()) throw new Error(`npm did not fetch ${wanted}; use npm 10, which knows --cpu (npm --version)`);
}

/** npm writes its own copy of the lockfile last. */
function isInstalled(source: string, target: string): boolean {
  if (!existsSync(join(target, 'node_modules/.package-lock.json'))) return false;
  const [wanted, found] = [source, target].map((directory) =>
    readFileSync(join(directory, 'package-lock.json'), 'utf8'),
  );
  return wanted === found;
}
