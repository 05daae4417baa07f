import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as immediate } from 'node:timers/promises';
import { PluginError } from '../../../src/errors.ts';
import { bindSocket } from '../../../src/server/socket.ts';
import { temporaryDirectory } from '../temporary.ts';

const options = { timeout: 10_000 };
/** Longer than a daemon that is too busy to answer is waited for. */
const STILL_MS = 1100;

function newServer(t: TestContext): Server {
  const server = createServer((socket) => socket.on('error', () => undefined).end());
  t.after(() => void server.close());
  return server;
}

async function refusal(t: TestContext, path: string): Promise<PluginError> {
  try {
    await bindSocket(newServer(t), path);
  } catch (error) {
    assert.ok(error instanceof PluginError, String(error));
    return error;
  }
  assert.fail('nothing was refused');
}

/** A process that listened and was killed leaves its socket file, which nobody answers on. */
async function leaveStaleSocket(t: TestContext, path: string): Promise<void> {
  const program = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('listening'))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.ok(lstatSync(path).isSocket());
}

test(
  'the socket appears with mode 0600 in a directory made for it, and nothing else stays there',
  options,
  async (t) => {
    const path = join(temporaryDirectory(t), 'docker/plugins/tsmacvlan.sock');
    const server = newServer(t);
    await bindSocket(server, path);
    assert.ok(lstatSync(path).isSocket());
    assert.equal(lstatSync(path).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(dirname(path)), ['tsmacvlan.sock']);
  },
);

test('a socket whose daemon is dead is replaced', options, async (t) => {
  const path = join(temporaryDirectory(t), 's.sock');
  await leaveStaleSocket(t, path);
  const server = newServer(t);
  await bindSocket(server, path);
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  assert.ok(server.listening);
});

test('a socket whose daemon is dead is replaced also by one that stands still meanwhile', options, async (t) => {
  const path = join(temporaryDirectory(t), 's.sock');
  await leaveStaleSocket(t, path);
  const server = newServer(t);
  // From here, as from a program's first turn of the loop, timers come before what the kernel says.
  await immediate();
  const bound = bindSocket(server, path);
  const untilMs = performance.now() + STILL_MS;
  while (performance.now() < untilMs);
  await bound;
  assert.ok(server.listening);
});

test('a socket that is answered on is refused, and its owner goes on', options, async (t) => {
  const path = join(temporaryDirectory(t), 's.sock');
  await bindSocket(newServer(t), path);
  const { ino } = lstatSync(path);
  const { code, message } = await refusal(t, path);
  assert.equal(code, 'SOCKET_HELD');
  assert.match(message, /^socket "[^"]+s\.sock" belongs to a program that answers on it; /);
  assert.equal(lstatSync(path).ino, ino);
});

test('what is not a socket is refused and stays', options, async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'file');
  writeFileSync(file, 'precious');
  const link = join(directory, 'link');
  symlinkSync(file, link);
  const folder = join(directory, 'folder');
  mkdirSync(folder);
  for (const path of [file, link, folder]) {
    const { code, message } = await refusal(t, path);
    assert.equal(code, 'SOCKET_BLOCKED');
    assert.match(message, /exists and is not a socket; move it away, or set SOCKET to another path$/);
  }
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

test('a path longer than the kernel takes is refused with both lengths', options, async (t) => {
  const path = join(temporaryDirectory(t), 'x'.repeat(108));
  const { code, message } = await refusal(t, path);
  assert.equal(code, 'SOCKET_TOO_LONG');
  assert.match(message, new RegExp(`takes ${path.length} bytes; set SOCKET to one of at most 107$`));
  assert.deepEqual(readdirSync(dirname(path)), []);
});

test('a directory that cannot be made is refused in the words of the system', options, async (t) => {
  const file = join(temporaryDirectory(t), 'file');
  writeFileSync(file, '');
  const { code, message } = await refusal(t, join(file, 's.sock'));
  assert.equal(code, 'SOCKET_FAILED');
  assert.match(message, /^cannot listen on socket "[^"]+" \(not a directory\); /);
});

test('releasing removes our socket', options, async (t) => {
  const path = join(temporaryDirectory(t), 's.sock');
  const bound = await bindSocket(newServer(t), path);
  bound.release();
  assert.equal(existsSync(path), false);
  bound.release();
});

test('neither releasing nor closing removes the socket of a successor', options, async (t) => {
  const path = join(temporaryDirectory(t), 's.sock');
  const first = newServer(t);
  const bound = await bindSocket(first, path);
  const other = join(dirname(path), 'other.sock');
  await bindSocket(newServer(t), other);
  renameSync(other, path);
  const { ino } = lstatSync(path);
  bound.release();
  first.close();
  await once(first, 'close');
  assert.equal(lstatSync(path).ino, ino);
});
