/**
 * The program in the managed plugin: the bundle, and koffi, which cannot be in it because it brings a native library. And the
 * licences of what is shipped with Node.
 */
import { chmodSync, copyFileSync, globSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Artefacts, CPU } from './artefacts.ts';

const BUNDLE = resolve(import.meta.dirname, '../dist');

/** Answers the native libraries among what it wrote. */
export function layApplication(directory: string, { modules, architecture }: Artefacts): string[] {
  const koffi = filesOfKoffi(modules, CPU[architecture]);
  copy(join(BUNDLE, 'tsmacvlan.cjs'), join(directory, 'tsmacvlan.cjs'));
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

/** The texts for the bundle, then Node's own page, which has those of all that is in it. */
export function licensesWithNode({ node }: Artefacts): string {
  const ofNode = join(dirname(node), '../LICENSE');
  return [join(BUNDLE, 'LICENSES.txt'), ofNode].map((file) => readFileSync(file, 'utf8').trim()).join('\n\n---\n\n');
}
