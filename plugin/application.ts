/**
 * The program as it stands on a disk: the bundle, and koffi, which cannot be in it because it brings a native library.
 *
 * Also a command, for `make install`: `node plugin/application.ts DIRECTORY`
 */
import { chmodSync, copyFileSync, globSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Artefacts, CPU, ownArchitecture, provideArtefacts } from './artefacts.ts';

const BUNDLE = resolve(import.meta.dirname, '../dist');

/** Answers the native libraries among what it wrote. */
export function layApplication(directory: string, { modules, architecture }: Artefacts): string[] {
  const koffi = filesOfKoffi(modules, CPU[architecture]);
  for (const name of ['tsmacvlan.cjs', 'LICENSES.txt']) copy(join(BUNDLE, name), join(directory, name));
  for (const path of koffi) copy(join(modules, path), join(directory, 'node_modules', path));
  return koffi.filter((path) => path.endsWith('.node')).map((path) => join(directory, 'node_modules', path));
}

/** What runs of it: neither its sources nor its build tool, and one native library of several. */
function filesOfKoffi(modules: string, cpu: string): string[] {
  const native = `@koromix/koffi-linux-${cpu}`;
  const script = ['koffi/{package.json,LICENSE.txt,index.cjs,src/**/*.cjs}', `${native}/{package.json,index.js}`];
  return [...globSync(script, { cwd: modules }), `${native}/linux_${cpu}/koffi.node`];
}

function copy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, 0o644);
}

if (import.meta.main) {
  const [directory] = process.argv.slice(2);
  if (directory === undefined) throw new Error('usage: node plugin/application.ts DIRECTORY');
  layApplication(directory, await provideArtefacts(ownArchitecture()));
}
