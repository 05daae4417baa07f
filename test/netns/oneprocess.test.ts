/** The lock of a network namespace, as its own processes and others find it. The file's own network namespace is the host. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { holderOfNamespace, lockNetworkNamespace } from '../../src/kernel/oneprocess.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';

const HERE = { sockets: ['/run/one.sock'], stateDirectory: '/var/lib/one' };
const MODULE = join(import.meta.dirname, '../../src/kernel/oneprocess.ts');

describe('the lock of a network namespace', { skip: outsideLab(), timeout: 60_000 }, () => {
  test('who comes second is told who was first, and gets it when that has ended, however it ended', async (t) => {
    const first = await holding(t);
    const second = await lockNetworkNamespace(HERE);
    assert.deepEqual([second.holder?.pid, second.holder?.uid], [first.pid, 0]);
    assert.equal(second.holder?.says?.stateDirectory, '/var/lib/one');
    await end(first);
    assert.equal(await holderOfNamespace(), null);
    const third = await lockNetworkNamespace(HERE);
    assert.equal(third.holder, null);
    third.release();
    assert.equal(await holderOfNamespace(), null);
  });

  test('one in another PID namespace is found too, and its number is not taken for one of ours', async (t) => {
    await holding(t, ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc']);
    const holder = await holderOfNamespace();
    assert.notEqual(holder?.says?.pidNamespace, undefined);
    assert.notEqual(holder?.says?.pidNamespace, readlinkSync('/proc/self/ns/pid'));
  });

  test('one that stands still is named by its number, also when as many wait for it as the kernel lets', async (t) => {
    const first = await holding(t);
    first.kill('SIGSTOP');
    assert.deepEqual(await holderOfNamespace(), { pid: first.pid, uid: 0, says: null });
    const waiting = Array.from({ length: 600 }, () => connect({ path: '\0tsmacvlan' }).on('error', () => undefined));
    await Promise.all(waiting.slice(0, 400).map((socket) => once(socket, 'connect')));
    assert.notEqual((await lockNetworkNamespace(HERE)).holder, null);
    for (const socket of waiting) socket.destroy();
  });

  test('callers that stay keep nobody from the answer for long, and end nothing', async (t) => {
    await holding(t);
    const callers = Array.from({ length: 50 }, () =>
      connect({ path: '\0tsmacvlan', allowHalfOpen: true }).on('error', () => undefined),
    );
    await until(async () => (await holderOfNamespace())?.says?.stateDirectory === '/var/lib/one');
    for (const caller of callers) caller.destroy();
  });

  test('another user who has the name is told from root, also when he answers nonsense without end or does not listen', async (t) => {
    for (const [how, uid] of [
      [
        `require('node:net').createServer((s) => { for (let i = 0; i < 99; i++) s.write('x'.repeat(9999)) }).listen('\\0tsmacvlan', ready)`,
        65_533,
      ],
      [`require('node:net').createServer((s) => s.write('null')).listen('\\0tsmacvlan', ready)`, 65_533],
      [BIND_ONLY, 65_534],
    ] as const) {
      const script = `const ready = () => console.log('ready'); ${how}; setInterval(() => undefined, 1e6)`;
      const squatter = await started(t, ['setpriv', '--reuid=65533', '--clear-groups', process.execPath, '-e', script]);
      const { holder } = await lockNetworkNamespace(HERE);
      assert.deepEqual([holder?.uid, holder?.says], [uid, null]);
      await end(squatter);
    }
  });
});

/** Without listen(2): Node has no words for it. */
const BIND_ONLY = `const koffi = require('${join(import.meta.dirname, '../../node_modules/koffi')}'); const libc = koffi.load(null);
  const at = Buffer.from('\\x01\\x00\\0tsmacvlan', 'latin1');
  const fd = libc.func('int socket(int, int, int)')(1, 1, 0);
  libc.func('int bind(int, const uint8_t *, uint32_t)')(fd, at, at.length); ready()`;

function holding(t: TestContext, within: readonly string[] = []): Promise<ChildProcess> {
  const script = `const { lockNetworkNamespace } = await import('${MODULE}');
    await lockNetworkNamespace(${JSON.stringify(HERE)}); console.log('ready'); setInterval(() => undefined, 1e6)`;
  return started(t, [...within, process.execPath, '--input-type=module', '-e', script]);
}

async function started(t: TestContext, [command = '', ...args]: readonly string[]): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => end(child));
  await once(child.stdout, 'data');
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}
