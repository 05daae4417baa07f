/** Command lines against the table of commands: what is understood, and the sentence for what is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMMANDS } from '../../src/commands/table.ts';
import { helpOf } from '../../src/commands/help.ts';
import { readLine } from '../../src/commands/words.ts';

test('what is wrong with a line is said in one sentence, in words of our own', () => {
  for (const [line, sentence] of [
    ['leses', 'unknown command "leses" (did you mean leases?); see tsmacvlan --help'],
    ['ls', 'unknown command "ls"; see tsmacvlan --help'],
    ['ps', 'unknown command "ps"; see tsmacvlan --help'],
    ['__proto__', 'unknown command "__proto__"; see tsmacvlan --help'],
    ['help leses', 'unknown command "leses" (did you mean leases?); see tsmacvlan --help'],
    ['--jsn', 'unknown option "--jsn"; see tsmacvlan --help'],
    ['--hlp', 'unknown option "--hlp" (did you mean --help?); see tsmacvlan --help'],
    ['map --jsn', 'map takes no option "--jsn" (did you mean --json?); see tsmacvlan map --help'],
    ['map --JSON', 'map takes no option "--JSON" (did you mean --json?); see tsmacvlan map --help'],
    ['settings --profile zz', 'settings takes no option "--profile"; see tsmacvlan settings --help'],
    ['map -x', 'map takes no option "-x"; see tsmacvlan map --help'],
    ['map extra', 'unexpected argument "extra" for tsmacvlan map; see tsmacvlan --help'],
    ['map --json=yes', 'option --json takes no value, and "yes" was given; write --json alone'],
    [
      'probe 192.168.1.70',
      'probe needs --parent; call tsmacvlan probe ADDRESS --parent LINK [--profile fast|rfc] [--json]',
    ],
    ['probe 192.168.1.70 --parent', 'option --parent needs a value; write --parent LINK'],
    ['probe 192.168.1.70 --parent --json', 'option --parent needs a value; write --parent LINK'],
    ['probe 192.168.1.70 --parent=', 'option --parent needs a value; write --parent LINK'],
    [
      'probe 1.2.3.4 --parent lo --profile fst',
      'unknown value "fst" for --profile (did you mean fast?); use fast or rfc',
    ],
    ['reserve web', 'reserve needs ADDRESS; call tsmacvlan reserve NAME ADDRESS [--network NETWORK] [--json]'],
    ['forget', 'forget needs NETWORK; call tsmacvlan forget NETWORK [--json]'],
  ] as const) {
    assert.throws(() => readLine(line.split(' ')), { code: 'USAGE', message: sentence }, line);
  }
  assert.throws(() => readLine(['forget', '']), {
    message: 'forget needs NETWORK; call tsmacvlan forget NETWORK [--json]',
  });
});

test('options may stand before and after the words, and words after two dashes are no options', () => {
  for (const line of [
    'probe 1.2.3.4 --parent eth0 --json',
    'probe --parent=eth0 --json 1.2.3.4',
    '--json probe --parent eth0 -- 1.2.3.4',
  ]) {
    const read = readLine(line.split(' '));
    assert.ok(read.kind === 'run', line);
    assert.deepEqual([read.options, read.words], [{ parent: 'eth0', json: true }, ['1.2.3.4']]);
  }
  assert.deepEqual(readLine(['-v']), { kind: 'version' });
  assert.deepEqual(readLine(['version']), { kind: 'version' });
  assert.deepEqual(readLine([]), { kind: 'help', of: null });
  assert.deepEqual(readLine(['map', '-h']), { kind: 'help', of: 'map' });
  assert.deepEqual(readLine(['help', 'map']), { kind: 'help', of: 'map' });
});

test('each example is a line that is understood, and the help has it with every option', () => {
  for (const [name, { examples, options = {} }] of Object.entries(COMMANDS)) {
    const help = helpOf(name);
    for (const line of Object.keys(examples)) {
      const [typed = ''] = line.split(' | ');
      assert.equal(readLine(typed.split(' ')).kind, 'run', line);
      assert.ok(help.includes(`  tsmacvlan ${line}`), line);
    }
    for (const option of Object.keys(options)) assert.match(help, new RegExp(`^  --${option}\\b`, 'm'));
    assert.ok(helpOf(null).includes(`  ${name} `));
    assert.ok(
      help.split('\n').every((line) => line.length <= 120),
      help,
    );
  }
});
