/** Who a host is, and with which password it logs in, as files say it. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readAccess } from '../../../../src/store/etcd/access.ts';
import { markCopied, noteStopped, peekSelf, readSelf } from '../../../../src/store/etcd/identity.ts';
import { temporaryDirectory } from '../../temporary.ts';

const options = { timeout: 20_000 };
const SETTINGS = {
  cluster: 'lan',
  endpoints: [],
  isSecure: false,
  user: 'host',
  ca: '',
  cert: '',
  key: '',
  fallsBack: false,
};

test('a host is named once, and is the same at its next start', options, (t) => {
  const directory = temporaryDirectory(t);
  const { node, place } = readSelf(directory);
  assert.match(node, /^\S+-[0-9a-f]{12}$/);
  assert.deepEqual([readSelf(directory).node, readSelf(directory).place], [node, place]);
  assert.notEqual(readSelf(directory).life, readSelf(directory).life);
  markCopied(peekSelf(directory));
  assert.deepEqual([peekSelf(directory).node, peekSelf(directory).isCopy], [node, true]);
  assert.deepEqual(readdirSync(directory), ['node']);
});

test('a state directory knows the process that stopped in order there last', options, (t) => {
  const directory = temporaryDirectory(t);
  const [first, second] = [readSelf(directory), readSelf(directory)];
  assert.equal(first.stopped, '');
  for (const self of [first, second]) noteStopped(self);
  assert.equal(readSelf(directory).stopped, second.life);
});

for (const text of [
  '',
  '\n',
  'garbage',
  '../../x',
  '\0\0\0\0',
  'one-zzz',
  'a/b-3f2a9c1d04be',
  'web1-3f2a9c1d04be or so',
])
  test(`${JSON.stringify(text)} in its place is no name, and is not written over`, options, (t) => {
    const directory = temporaryDirectory(t);
    const file = join(directory, 'node');
    writeFileSync(file, text);
    assert.throws(() => readSelf(directory), { code: 'NODE_FILE' });
    assert.equal(readFileSync(file, 'utf8'), text);
  });

test('a password that begins with a slash is a file, also while it is not there', options, (t) => {
  const file = join(temporaryDirectory(t), 'password');
  const access = readAccess({ ...SETTINGS, password: file });
  assert.throws(() => access.user(), { code: 'STORE_FILE' });
  writeFileSync(file, 'secret\n');
  assert.deepEqual(access.user(), { name: 'host', password: 'secret' });
  writeFileSync(file, Buffer.from([0x70, 0xff, 0xfe]));
  assert.throws(() => access.user(), { code: 'STORE_FILE', message: /setting STORE_PASSWORD \(it is no text\); / });
  rmSync(file);
  mkdirSync(file);
  assert.throws(() => access.user(), { code: 'STORE_FILE' });
  assert.deepEqual(readAccess({ ...SETTINGS, password: 'secret' }).user(), { name: 'host', password: 'secret' });
});
