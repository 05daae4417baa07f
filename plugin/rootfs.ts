/**
 * The root file system of the managed plugin: Node, the libraries it loads, the program. No shell, no package manager.
 * The same sources on the same machine give the same bytes.
 *
 * Also a command: `node plugin/rootfs.ts DIRECTORY [amd64|arm64]`
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { layApplication, licensesWithNode } from './application.ts';
import { type Architecture, type Artefacts, ownArchitecture, provideArtefacts, readArchitecture } from './artefacts.ts';
import { LIBRARY_PACKAGES } from './bill.ts';
import { versionOfDeb } from './debian.ts';
import { type Elf, readElf } from './elf.ts';

/** Where the engine or the manifest mounts something. */
const MOUNT_POINTS = ['dev', 'etc', 'proc', 'sys', 'tmp', 'run/docker/plugins', 'var/lib/tsmacvlan', 'host/plugins'];

/** What no other directory has. It is the first thing there. */
const MARK = 'app/managed.cjs';

/** Where a loader looks by itself (ld.so(8)); Debian's begins with the triplet. */
const LIBRARY_DIRECTORIES: Readonly<Record<Architecture, readonly string[]>> = {
  amd64: ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu', 'lib64', 'usr/lib64'],
  arm64: ['lib/aarch64-linux-gnu', 'usr/lib/aarch64-linux-gnu', 'lib64', 'usr/lib64'],
};

export async function buildRootfs(directory: string, architecture: Architecture): Promise<void> {
  const root = resolve(directory);
  refuseOther(root);
  const artefacts = await provideArtefacts(architecture);
  rmSync(root, { recursive: true, force: true });
  mkdirSync(join(root, 'app'), { recursive: true });
  copyFileSync(join(import.meta.dirname, 'managed.cjs'), join(root, MARK));
  for (const path of MOUNT_POINTS) mkdirSync(join(root, path), { recursive: true });
  const node = copyProgram(artefacts.node, join(root, 'bin/node'), architecture);
  const application = join(root, 'app');
  const addons = layApplication(application, artefacts).map((path) => copyProgram(path, path, architecture));
  copyFileSync(join(import.meta.dirname, 'host.sh'), join(application, 'tsmacvlan'));
  const licenses = [licensesWithNode(artefacts), ...licensesOfLibraries(artefacts)];
  writeFileSync(join(application, 'LICENSES.txt'), `${licenses.join('\n\n---\n\n')}\n`);
  const interpreter = node.interpreter ?? '';
  copyProgram(join(artefacts.libraries, interpreter), join(root, interpreter), architecture);
  copyLibraries([node, ...addons], root, artefacts, new Set([basename(interpreter)]));
  makeUniform(root);
}

/** What is there goes, and so it has to be made here. A directory that a build left half made has the mark already. */
function refuseOther(root: string): void {
  const isEmpty = !existsSync(root) || readdirSync(root).length === 0;
  if (!isEmpty && !existsSync(join(root, MARK)))
    throw new Error(`${root} is no root file system of the plugin, and would be deleted; name another directory`);
}

/** Copies what is mapped at run time, and refuses what was built for another machine. */
function copyProgram(from: string, to: string, architecture: Architecture): Elf {
  const elf = readElf(from);
  if (elf?.architecture !== architecture) throw new Error(`${from} is no program for ${architecture}`);
  mkdirSync(dirname(to), { recursive: true });
  writeFileSync(to, elf.loaded);
  return elf;
}

/** The closure over what the programs ask for; each library keeps its directory, where its loader finds it. */
function copyLibraries(programs: readonly Elf[], root: string, artefacts: Artefacts, done: Set<string>): void {
  for (const name of programs.flatMap(({ needed }) => needed)) {
    if (done.has(name)) continue;
    done.add(name);
    const directory = directoryOf(name, artefacts);
    const from = join(artefacts.libraries, directory, name);
    copyLibraries([copyProgram(from, join(root, directory, name), artefacts.architecture)], root, artefacts, done);
  }
}

function licensesOfLibraries({ libraries }: Artefacts): string[] {
  return Object.keys(LIBRARY_PACKAGES).map((name) => {
    const text = readFileSync(join(libraries, 'usr/share/doc', name, 'copyright'), 'utf8').trim();
    return `${name} ${versionOfDeb(name, libraries)}\n\n${text}`;
  });
}

function directoryOf(name: string, { libraries, architecture }: Artefacts): string {
  const found = LIBRARY_DIRECTORIES[architecture].find((directory) => existsSync(join(libraries, directory, name)));
  if (found === undefined) throw new Error(`library ${name} for ${architecture} is not in ${libraries}`);
  return found;
}

/** One mode and one time for everything: neither the umask nor the hour of the build shows in the result. */
function makeUniform(path: string): void {
  const isDirectory = lstatSync(path).isDirectory();
  if (isDirectory) for (const name of readdirSync(path)) makeUniform(join(path, name));
  chmodSync(
    path,
    isDirectory || ['node', 'tsmacvlan'].includes(basename(path)) || basename(path).startsWith('ld-linux')
      ? 0o755
      : 0o644,
  );
  utimesSync(path, 0, 0);
}

if (import.meta.main) {
  const [directory, architecture = ownArchitecture()] = process.argv.slice(2);
  if (directory === undefined) throw new Error('usage: node plugin/rootfs.ts DIRECTORY [amd64|arm64]');
  await buildRootfs(directory, readArchitecture(architecture));
}
