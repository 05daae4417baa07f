/** The managed plugin's root file system: what is in it, for which machine, and that two builds are one. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, lstatSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Architecture, ownArchitecture } from '../../plugin/artefacts.ts';
import { readElf } from '../../plugin/elf.ts';
import { buildRootfs } from '../../plugin/rootfs.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const LIMIT_BYTES = 125_000_000;

/** Files that are neither the program's nor npm's: Node, its loader and its libraries. */
const SYSTEM = /^(bin\/node|(usr\/)?lib(64)?\/([a-z0-9_]+-linux-gnu\/)?(ld-linux[\w.-]+|lib[\w+]+)\.so[\d.]*)$/;
const PROGRAM =
  /^app\/(managed\.cjs|tsmacvlan|tsmacvlan\.cjs|LICENSES\.txt|node_modules\/(@koromix\/)?koffi[^ ]*\.(c?js|json|node|txt))$/;

const skip = ['dist/tsmacvlan.cjs', 'plugin/runtime/node_modules'].some((path) => !existsSync(join(CHECKOUT, path)))
  ? 'needs make plugin'
  : false;

for (const architecture of ['amd64', 'arm64'] satisfies Architecture[]) {
  describe(`root file system for ${architecture}`, { skip, timeout: 400_000 }, () => {
    let scratch: string;
    let roots: string[];
    let files: string[];

    before(async () => {
      scratch = mkdtempSync(join(tmpdir(), 'rootfs-'));
      roots = ['first', 'second'].map((name) => join(scratch, name));
      for (const root of roots) await buildRootfs(root, architecture);
      files = listFiles(roots[0] ?? '');
    });
    after(() => rmSync(scratch, { recursive: true, force: true }));

    test('two builds have the same bytes, modes and times', () => {
      const [first, second] = roots.map(digest);
      assert.equal(first, second);
    });

    test('it holds Node, its libraries, the program and nothing else', () => {
      assert.deepEqual(
        files.filter((path) => !SYSTEM.test(path) && !PROGRAM.test(path)),
        [],
      );
      assert.ok(files.includes('bin/node'));
    });

    test(`it takes less than ${LIMIT_BYTES / 1e6} MB`, (t) => {
      const bytes = files.reduce((sum, path) => sum + lstatSync(join(roots[0] ?? '', path)).size, 0);
      t.diagnostic(`${(bytes / 1e6).toFixed(1)} MB`);
      assert.ok(bytes < LIMIT_BYTES, `${bytes} bytes`);
    });

    const foreign = architecture === ownArchitecture() ? false : 'for the other architecture';
    test('the program finds all its files in it', {
      skip: foreign || (process.getuid?.() !== 0 && 'needs root'),
    }, () => {
      // Asking the LAN takes the bundle, koffi and its library.
      const asked = ['/bin/node', '/app/tsmacvlan.cjs', 'probe', '192.0.2.1', '--parent', 'absent0'];
      const { stderr } = spawnSync('chroot', [roots[0] ?? '', ...asked], { encoding: 'utf8' });
      assert.match(stderr, /^tsmacvlan: .*absent0/);
    });

    test('every program in it is for this machine and finds its libraries in it', () => {
      const programs = files.flatMap((path) => readElf(join(roots[0] ?? '', path)) ?? []);
      const names = new Set(files.map((path) => basename(path)));
      assert.deepEqual([...new Set(programs.map((program) => program.architecture))], [architecture]);
      assert.deepEqual(
        programs.flatMap(({ needed }) => needed).filter((name) => !names.has(name)),
        [],
      );
    });
  });
}

function listFiles(root: string): string[] {
  return globSync('**/*', { cwd: root })
    .filter((path) => lstatSync(join(root, path)).isFile())
    .sort();
}

function digest(root: string): string {
  const hash = createHash('sha256');
  for (const path of ['.', ...globSync('**/*', { cwd: root }).sort()]) {
    const { mode, mtimeMs, uid, gid } = lstatSync(join(root, path));
    hash.update(JSON.stringify([path, mode, mtimeMs, uid, gid]));
    if (lstatSync(join(root, path)).isFile()) hash.update(readFileSync(join(root, path)));
  }
  return hash.digest('hex');
}
