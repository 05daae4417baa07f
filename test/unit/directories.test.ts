/** Directories with those above them, where Node's own way never ends or names the wrong reason. */
import assert from 'node:assert/strict';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeDirectories } from '../../src/directories.ts';
import { temporaryDirectory } from './temporary.ts';

test('what is missing is made with its mode, and what is there stays', (t) => {
  const directory = temporaryDirectory(t);
  makeDirectories(join(directory, 'a/b/c'), 0o700);
  makeDirectories(join(directory, 'a/b/c'), 0o755);
  assert.deepEqual(
    ['a', 'a/b', 'a/b/c'].map((path) => statSync(join(directory, path)).mode & 0o777),
    [0o700, 0o700, 0o700],
  );
});

test('what cannot be made is told at once, with the reason', { timeout: 5000 }, (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'file'), '');
  mkdirSync(join(directory, 'there'));
  assert.throws(() => makeDirectories('/proc/x/y', 0o700), { code: 'ENOENT' });
  assert.throws(() => makeDirectories(join(directory, 'file/x'), 0o700), { code: 'ENOTDIR' });
});
