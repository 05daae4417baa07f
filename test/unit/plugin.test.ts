/** What is generated from the tables. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { manifest } from '../../plugin/manifest.ts';
import { reference } from '../../plugin/reference.ts';

const CHECKOUT = join(import.meta.dirname, '../..');

test('config.json says what the table of settings says; make tables writes it', () => {
  assert.equal(readFileSync(join(CHECKOUT, 'config.json'), 'utf8'), `${JSON.stringify(manifest(), null, 2)}\n`);
});

test('docs/reference.md says what the tables say; make tables writes it', () => {
  assert.equal(readFileSync(join(CHECKOUT, 'docs/reference.md'), 'utf8'), reference());
});
