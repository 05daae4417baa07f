/** The lock of a network namespace, as its own processes and others find it. The file's own network namespace is the host. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { holderOfNamespace, lockNetworkNamespace } from '../../src/kernel/oneprocess.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const HERE = { sockets: ['/run/one.sock'], stateDirectory: '/var/lib/one' };
const MODULE = join(CHECKOUT, 'src/kernel/oneprocess.ts');
const SAYS = JSON.stringify({ ...HERE, pidNamespace: readlinkSync('/proc/self/ns/pid') });
const USER = ['setpriv', '--reuid=65533', '--clear-groups'];
/** As a container with `--network host --cap-drop ALL`. */
const POWERLESS = ['setpriv', '--bounding-set=-all', '--inh-caps=-all'];
/** Takes the lock's name, and gives its socket as large a receive buffer as it may; Node has no words for most of it. */
const SQUATTER = `const koffi = require('${join(CHECKOUT, 'node_modules/koffi')}'); const libc = koffi.load(null);
  const at = Buffer.from('\\x01\\x00\\0tsmacvlan', 'latin1');
  const call = (name, ...args) => libc.func(name)(...args);
  const socket = () => call('int socket(int, int, int)', 1, 1 | 0o4000, 0);
  const bind = () => {
    const fd = socket();
    for (const option of [8, 33]) call('int setsockopt(int, int, int, const uint8_t *, uint32_t)', fd, 1, option, Buffer.from('ffffff3f', 'hex'), 4);
    if (call('int bind(int, const uint8_t *, uint32_t)', fd, at, at.length) !== 0) throw new Error('the name is taken');
    console.log('ready');
    return fd;
  };
  const listen = (answer) => require('node:net').createServer(answer).listen({ fd: bind() });
  const fill = () => {
    call('int listen(int, int)', bind(), 0);
    while (call('int connect(int, const uint8_t *, uint32_t)', socket(), at, at.length) === 0);
  }`;

/** What a process printed first. */
const answers = new Map<ChildProcess, string>();

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

  for (const [who, within, script] of [
    [
      'another user that answers nonsense without end',
      USER,
      `listen((s) => { for (let i = 0; i < 99; i++) s.write('x'.repeat(9999)) })`,
    ],
    ['another user that answers no object', USER, `listen((s) => s.write('null'))`],
    ['another user that does not listen', USER, 'bind()'],
    ['another user that answers nobody and has its queue full', USER, 'fill()'],
    [
      'root without capabilities that says what a daemon says',
      POWERLESS,
      `listen((s) => s.end(${JSON.stringify(SAYS)}))`,
    ],
    ['root without capabilities that answers nobody and has its queue full', POWERLESS, 'fill()'],
  ] as const)
    test(`${who} keeps no daemon out: that one has another name, and keeps a second one out`, async (t) => {
      await started(t, [
        ...within,
        process.execPath,
        '-e',
        `${SQUATTER}; ${script}; setInterval(() => undefined, 1e6)`,
      ]);
      const first = await lockNetworkNamespace(HERE);
      assert.ok(first.holder === null, JSON.stringify(first.holder));
      assert.match(first.name, /^@tsmacvlan-/);
      const second = await lockNetworkNamespace({ ...HERE, stateDirectory: '/var/lib/two' });
      assert.deepEqual([second.holder?.pid, second.holder?.says?.stateDirectory], [process.pid, '/var/lib/one']);
      first.release();
      assert.equal(await holderOfNamespace(), null);
    });

  test('of several that come at one moment no two have it', async (t) => {
    const wins = async () => {
      const all = await Promise.all(Array.from({ length: 3 }, () => holding(t)));
      const said = all.map((child) => answers.get(child));
      await Promise.all(all.map(end));
      return said.filter((word) => word === 'mine\n').length;
    };
    assert.equal(await wins(), 1);
    await started(t, [...USER, process.execPath, '-e', `${SQUATTER}; bind(); setInterval(() => undefined, 1e6)`]);
    assert.ok((await wins()) <= 1);
  });

  test('SIGHUP while it starts does not end it', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'tsm-start-'));
    const env = { PATH: process.env.PATH, SOCKET: join(directory, 's.sock'), STATE_DIR: join(directory, 'state') };
    const child = spawn(process.execPath, [join(CHECKOUT, 'dist/tsmacvlan.cjs'), 'serve'], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => end(child));
    const said = text(child.stdout);
    // It takes its name as soon as its own code runs.
    await until(() => readFileSync(`/proc/${child.pid}/comm`, 'utf8') === 'tsmacvlan\n', { pollMs: 1 });
    for (let time = 0; time < 20; time++) {
      child.kill('SIGHUP');
      await sleep(10);
    }
    await until(() => existsSync(env.SOCKET) || child.signalCode !== null);
    assert.equal(child.signalCode, null);
    child.kill('SIGTERM');
    assert.match(await said, / info listening /);
    rmSync(directory, { recursive: true });
  });

  test('make install asks the engine of this machine for plugins, wherever Docker’s context leads', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'tsm-docker-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const answer = `case "$DOCKER_HOST$DOCKER_CONTEXT$*" in --host\\ unix:///var/run/docker.sock\\ *) echo 'true tsmacvlan:lan tsmacvlan: containers' ;; esac`;
    writeFileSync(join(directory, 'docker'), `#!/bin/sh\n${answer}\n`, { mode: 0o755 });
    const elsewhere = { DOCKER_HOST: 'tcp://192.0.2.1:2375', DOCKER_CONTEXT: 'elsewhere' };
    const { said, code } = await occupied({ PATH: `${directory}:${process.env.PATH}`, ...elsewhere });
    assert.match(said, /^nothing was installed: the managed plugin tsmacvlan:lan is enabled on this host/);
    assert.equal(code, 1);
  });

  test('make install is refused beside a daemon, whatever its lock is called, and by no other program', async (t) => {
    const squatter = await started(t, [...USER, process.execPath, '-e', `${SQUATTER}; listen((s) => s.end())`]);
    assert.deepEqual(await occupied({ PATH: process.env.PATH }), { said: '', code: 0 });
    const daemon = await holding(t);
    await end(squatter);
    const { said, code } = await occupied({ PATH: process.env.PATH });
    assert.match(said, /^nothing was installed: another tsmacvlan runs in this network namespace/);
    assert.equal(code, 1);
    await end(daemon);
    await holding(t);
    assert.equal((await occupied({ PATH: process.env.PATH })).code, 1);
  });
});

async function occupied(env: NodeJS.ProcessEnv): Promise<{ said: string; code: number | null }> {
  const script = '. plugin/occupied.sh; occupied make';
  const child = spawn('sh', ['-c', script], { env, cwd: CHECKOUT, stdio: ['ignore', 'ignore', 'pipe'] });
  const [said] = await Promise.all([text(child.stderr), once(child, 'close')]);
  return { said, code: child.exitCode };
}

function holding(t: TestContext, within: readonly string[] = []): Promise<ChildProcess> {
  const script = `const { lockNetworkNamespace } = await import('${MODULE}');
    const { holder } = await lockNetworkNamespace(${JSON.stringify(HERE)});
    console.log(holder === null ? 'mine' : 'theirs'); setInterval(() => undefined, 1e6)`;
  return started(t, [...within, process.execPath, '--input-type=module', '-e', script]);
}

async function started(t: TestContext, [command = '', ...args]: readonly string[]): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => end(child));
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  answers.set(child, String(said));
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}
