/**
 * The one file as it is installed: with its service, completion, man page and documents below a prefix. The same for
 * `make install`, the archive of a release and the .deb.
 *
 * Also a command, for `make install`: `node plugin/installation.ts DESTDIR PREFIX`
 */
import { chmodSync, copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Architecture, ownArchitecture, provideArtefacts } from './artefacts.ts';
import { licensesWithNode } from './application.ts';
import { makeSingle } from './single.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const DOCUMENTS = 'share/doc/tsmacvlan';

/** Writes it below `root`, for a prefix as `/usr/local`. `single` is the one file, where it is there already. */
export async function layInstallation(
  root: string,
  prefix: string,
  architecture: Architecture,
  single?: string,
): Promise<void> {
  const below = join(root, prefix);
  const program = join(below, 'bin/tsmacvlan');
  if (single === undefined) await makeSingle(program, architecture);
  else cpSync(single, program);
  const unit = readFileSync(join(import.meta.dirname, 'tsmacvlan.service'), 'utf8');
  write(join(below, 'lib/systemd/system/tsmacvlan.service'), unit.replaceAll('@PREFIX@', prefix));
  const shell = {
    'tsmacvlan.bash': 'share/bash-completion/completions/tsmacvlan',
    // Each of the two looks in one of them (zsh's fpath).
    _tsmacvlan: prefix === '/usr' ? 'share/zsh/vendor-completions/_tsmacvlan' : 'share/zsh/site-functions/_tsmacvlan',
    'tsmacvlan.8': 'share/man/man8/tsmacvlan.8',
  };
  for (const [name, place] of Object.entries(shell)) copy(join('plugin/shell', name), join(below, place));
  cpSync(join(CHECKOUT, 'docs'), join(below, DOCUMENTS), { recursive: true });
  copy('LICENSE', join(below, DOCUMENTS, 'LICENSE'));
  for (const name of ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md']) {
    const page = readFileSync(join(CHECKOUT, name), 'utf8');
    write(join(below, DOCUMENTS, name), page.replaceAll('](docs/', ']('));
  }
  write(join(below, DOCUMENTS, 'LICENSES.txt'), licensesWithNode(await provideArtefacts(architecture)));
}

function copy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(join(CHECKOUT, from), to);
  chmodSync(to, 0o644);
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text, { mode: 0o644 });
}

if (import.meta.main) {
  const [destination, prefix] = process.argv.slice(2);
  if (destination === undefined || prefix === undefined)
    throw new Error('usage: node plugin/installation.ts DESTDIR PREFIX');
  // Whoever installs may keep files to himself, and these are for everybody.
  process.umask(0o022);
  await layInstallation(destination || '/', prefix, ownArchitecture());
}
