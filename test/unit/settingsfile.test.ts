import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSettingsFile } from '../../src/settingsfile.ts';

/** What systemd 252 makes of each is compared in test/docker/service.test.ts. */
for (const [title, text, found] of [
  ['names and values, with blanks around', ' A = b c \n\tB=2', { A: 'b c', B: '2' }],
  ['comments, also those that go on', '# A=1\n;B=2\n# C \\\nC=3\nD=4 # all\n', { D: '4 # all' }],
  ['lines that are none', 'no line\nexport A=1\n=2\n9=3\nB=4', { B: '4' }],
  ['the last of two', 'A=1\nA=\n', { A: '' }],
  ['quotations one behind the other', `A='lan=eth0'",a=b" c `, { A: 'lan=eth0,a=bc' }],
  ['quotation marks within', `A=it's "so"\nB=1`, { A: `it's "so"`, B: '1' }],
  ['escapes', 'A=one \\\n two\\ \nB="x \\" \\$ y\\z"\nC=\\\'', { A: 'one  two ', B: 'x " $ y\\z', C: "'" }],
  ['a quotation over lines', 'A="-----\nx\n-----"\nB=1', { A: '-----\nx\n-----', B: '1' }],
  ['a quotation without end', 'A="b\nC=d', { A: 'b\nC=d' }],
  ['line ends of Windows', 'A=1\r\nB=2\r\n', { A: '1', B: '2' }],
] as const)
  test(`the file with settings: ${title}`, () => {
    assert.deepEqual(parseSettingsFile(text), found);
  });
