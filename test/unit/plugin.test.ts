/** What is generated from the tables. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { manifest } from '../../plugin/manifest.ts';
import { reference } from '../../plugin/reference.ts';
import { buildRootfs } from '../../plugin/rootfs.ts';
import { bashCompletion, manPage, zshCompletion } from '../../plugin/shell.ts';
import { temporaryDirectory } from './temporary.ts';

const CHECKOUT = join(import.meta.dirname, '../..');

test('config.json says what the table of settings says; make tables writes it', () => {
  assert.equal(readFileSync(join(CHECKOUT, 'config.json'), 'utf8'), `${JSON.stringify(manifest(), null, 2)}\n`);
});

test('docs/reference.md says what the tables say; make tables writes it', () => {
  assert.equal(readFileSync(join(CHECKOUT, 'docs/reference.md'), 'utf8'), reference());
});

test('completion and man page say what the table of commands says; make tables writes them', () => {
  for (const [name, text] of [
    ['tsmacvlan.bash', bashCompletion()],
    ['_tsmacvlan', zshCompletion()],
    ['tsmacvlan.8', manPage()],
  ] as const)
    assert.equal(readFileSync(join(CHECKOUT, 'plugin/shell', name), 'utf8'), text);
});

test('a Node that is too old is told so, in words that it understands', () => {
  const program = readFileSync(join(CHECKOUT, 'plugin/oldnode.js'), 'utf8');
  const said = (node: string) => {
    const written: string[] = [];
    const fake = {
      versions: { node },
      stderr: { write: (text: string) => written.push(text) },
      exit: (code: number) => written.push(`code ${code}`),
    };
    runInNewContext(program, { process: fake });
    return written.join('');
  };
  assert.match(
    said('20.20.2'),
    /^tsmacvlan: this is Node 20\.20\.2, and tsmacvlan needs 22\.18 or later; [^\n]+\ncode 1$/,
  );
  assert.match(said('22.17.1'), /code 1$/);
  for (const node of ['22.18.0', '22.21.3', '23.0.0', '24.21.0', '100.0.0']) assert.equal(said(node), '');
});

test('make uninstall takes no directory but its own, and keeps the units that somebody wrote', (t) => {
  const scratch = temporaryDirectory(t);
  const root = join(scratch, 'a b');
  const units = ['usr/local/lib/systemd/system', 'etc/systemd/system'].map((path) => join(root, path));
  for (const path of [...units, join(scratch, 'a'), join(root, 'usr/local/bin')]) mkdirSync(path, { recursive: true });
  writeFileSync(join(scratch, 'a/other'), '');
  writeFileSync(join(root, 'usr/local/bin/tsmacvlan'), '');
  const removed = () =>
    execFileSync('make', ['-s', '-C', CHECKOUT, 'uninstall', `DESTDIR=${root}`], { encoding: 'utf8', stdio: 'pipe' });
  for (const path of units) writeFileSync(join(path, 'tsmacvlan.service'), '[Service]\nMemoryMax=1G\n');
  const said = removed();
  assert.deepEqual(readdirSync(join(root, 'usr/local/bin')), []);
  assert.deepEqual(readdirSync(scratch), ['a', 'a b']);
  for (const path of units) {
    assert.deepEqual(readdirSync(path), ['tsmacvlan.service.bak']);
    assert.ok(said.includes(`was kept as ${path}/tsmacvlan.service.bak; `), said);
  }
  // One that make install wrote goes, and a changed unit of the Debian package is its own.
  const unit = readFileSync(join(CHECKOUT, 'plugin/tsmacvlan.service'), 'utf8');
  writeFileSync(join(units[0] ?? '', 'tsmacvlan.service'), unit.replaceAll('@PREFIX@', '/usr/local'));
  writeFileSync(join(units[1] ?? '', 'tsmacvlan.service'), unit.replaceAll('@PREFIX@', '/usr'));
  assert.doesNotMatch(removed(), /kept/);
  assert.deepEqual(
    units.map((path) => readdirSync(path)),
    [['tsmacvlan.service.bak'], ['tsmacvlan.service', 'tsmacvlan.service.bak']],
  );
});

test('a root file system is made where there is none but one of its own', async (t) => {
  const other = temporaryDirectory(t);
  mkdirSync(join(other, 'app'));
  writeFileSync(join(other, 'precious'), '');
  await assert.rejects(buildRootfs(other, 'amd64'), /is no root file system of the plugin, .*name another directory/);
  assert.deepEqual(readdirSync(other), ['app', 'precious']);
});

test('bash offers commands, options, their values and files', () => {
  const offered = (...words: string[]) => {
    const script = `source ${join(CHECKOUT, 'plugin/shell/tsmacvlan.bash')}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tsmacvlan; printf '%s\n' "\${COMPREPLY[@]}"`;
    return execFileSync('bash', ['-c', script, 'bash', 'tsmacvlan', ...words], {
      cwd: CHECKOUT,
      encoding: 'utf8',
    }).trim();
  };
  assert.equal(offered('conf'), 'conflicts');
  assert.equal(offered('probe', '--pr'), '--profile');
  assert.equal(offered('probe', '--profile', 'r'), 'rfc');
  assert.match(offered('probe', '1.2.3.4', '--parent', 'l'), /^lo$/m);
  assert.equal(offered('store', 'mi'), 'migrate');
  assert.equal(offered('restore', 'CHANGE'), 'CHANGELOG.md');
  assert.equal(offered('help', 'unr'), 'unreserve');
  assert.equal(offered('settings', '--par'), '');
});
