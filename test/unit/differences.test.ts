/** The page that a user reads and the list that the tests go by are one. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MOBY_TESTS, REMARKS } from '../parity/moby.ts';
import { differencesPage } from '../parity/page.ts';
import { readStep } from '../parity/scenario.ts';
import { SCENARIOS } from '../parity/scenarios.ts';
import { WANTED } from '../parity/differences.ts';

test('docs/differences.md says what the scenarios allow; make tables writes it', () => {
  const path = join(import.meta.dirname, '../../docs/differences.md');
  assert.equal(readFileSync(path, 'utf8'), differencesPage());
});

test("each of the built-in driver's own tests is a scenario, or it is said why not", () => {
  const met = new Set(SCENARIOS.flatMap(({ moby = [] }) => moby));
  assert.deepEqual(
    MOBY_TESTS.filter((name) => !met.has(name) && REMARKS[name] === undefined),
    [],
  );
});

test('a difference names scenarios that exist', () => {
  const names = SCENARIOS.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  const unknown = WANTED.flatMap(({ scenarios = [] }) => scenarios).filter((name) => !names.includes(name));
  assert.deepEqual(unknown, []);
});

test('a line of a scenario is read as what it says', () => {
  const steps: [string, ReturnType<typeof readStep>][] = [
    ['network create net', { verb: 'docker', words: ['network', 'create', 'net'], expected: 'done' }],
    ['refused: network rm net', { verb: 'docker', words: ['network', 'rm', 'net'], expected: 'refused' }],
    ['web pings db', { verb: 'ping', who: 'web', target: 'db', expected: 'answered' }],
    ['web does not ping db', { verb: 'ping', who: 'web', target: 'db', expected: 'not answered' }],
    ['web resolves db', { verb: 'resolve', who: 'web', target: 'db', expected: 'answered' }],
    ['host: ip link', { verb: 'host', words: ['ip', 'link'] }],
    ['look', { verb: 'look' }],
    ['the engine restarts', { verb: 'restart' }],
  ];
  for (const [line, step] of steps) assert.deepEqual(readStep(line), step);
});
