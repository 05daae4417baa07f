import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { messages, samples } from '../../plugin/messages.ts';

const PAGE = join(import.meta.dirname, '../../docs/messages.md');

test('docs/messages.md holds every sentence as it is (make tables)', () => {
  assert.equal(readFileSync(PAGE, 'utf8'), messages());
});

test('a sentence is one line without full stop and says what to do', () => {
  for (const { code, message } of samples()) {
    assert.doesNotMatch(message, /[\n\r]/, code);
    assert.doesNotMatch(message, /\.$/, code);
    // Docker's own name for the driver without addresses.
    assert.doesNotMatch(message.replace('--ipam-driver null', ''), /undefined|null|NaN|\[object/, code);
    assert.match(message, /; ?\S/, `${code} has no second half: ${message}`);
  }
});

test('a sentence begins in lower case, with a value or with a name', () => {
  for (const { code, message } of samples())
    assert.match(message, /^([a-z"/]|\d|VLAN |MAC |IPv[46] |NetworkDriver\.)/, `${code}: ${message}`);
});

test('no sentence carries an id of 64 digits', () => {
  for (const { code, message } of samples()) assert.doesNotMatch(message, /[0-9a-f]{32}/, code);
});

test('codes are constants, and each is one situation', () => {
  const codes = samples().map(({ code }) => code);
  for (const code of codes) assert.match(code, /^[A-Z][A-Z0-9_]+$/);
  const doubled = codes.filter((code, position) => codes.indexOf(code) !== position);
  // Who has taken an address, and how the command line was called wrongly, are told in several ways.
  assert.deepEqual([...new Set(doubled)].sort(), ['ADDRESS_HELD', 'ADDRESS_TAKEN', 'USAGE']);
});
