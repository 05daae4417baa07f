/** What is generated from the tables. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { manifest } from '../../plugin/manifest.ts';
import { reference } from '../../plugin/reference.ts';
import { bashCompletion, manPage, zshCompletion } from '../../plugin/shell.ts';

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
