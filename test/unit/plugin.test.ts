/** What is generated from the tables, and what the managed plugin consists of. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { manifest } from '../../plugin/manifest.ts';

const CHECKOUT = join(import.meta.dirname, '../..');

test('config.json is what the table of settings says; make tables writes it', () => {
  assert.deepEqual(JSON.parse(readFileSync(join(CHECKOUT, 'config.json'), 'utf8')), manifest());
});
