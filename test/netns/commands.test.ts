/**
 * The command line beside a daemon whose socket nobody names, as after each way of installing, and without one; its manners with
 * pipes, full disks and ordinary users. A managed plugin's socket lies in a directory of its own, as this daemon's does.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { Serving } from '../lab/serving.ts';

const LIMITS = { skip: outsideLab(), timeout: 120_000 };
const BUNDLE = join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
const PLUGINS = '/run/docker/plugins';
const NOBODY = 65_534;

interface Run {
  readonly env?: Record<string, string>;
  readonly stdout?: number;
  readonly uid?: number;
  /** What /etc/default/tsmacvlan has, before which this host has none. */
  readonly settings?: string;
}

const WITH_SETTINGS = `mount -t tmpfs tmpfs /etc/default; printf %s "$0" > /etc/default/tsmacvlan; exec "$@"`;

async function run(words: readonly string[], { env = {}, stdout, uid, settings }: Run = {}) {
  const stdio = ['ignore', stdout ?? 'pipe', 'pipe'] as const;
  const options = {
    env: { PATH: process.env.PATH, ...env },
    stdio: [...stdio],
    cwd: '/',
    ...(uid && { uid, gid: uid }),
  };
  const within = settings === undefined ? [] : ['unshare', '--mount', 'sh', '-ec', WITH_SETTINGS, settings];
  const [program = '', ...args] = [...within, process.execPath, BUNDLE, ...words];
  const child = spawn(program, args, options as object);
  const said = [child.stdout, child.stderr].map((stream) => (stream === null ? Promise.resolve('') : text(stream)));
  const [[out = '', error = '']] = await Promise.all([Promise.all(said), once(child, 'close')]);
  return { code: child.exitCode, out, error };
}

describe('the command line', LIMITS, () => {
  const directory = join(PLUGINS, '3f2a9c1d04be');
  let daemon: Serving;
  let stranger: Server;

  before(async () => {
    mkdirSync(directory, { recursive: true });
    // Another plugin, which knows none of our calls.
    stranger = createServer((_, response) => response.writeHead(404).end('{}'));
    await once(stranger.listen(join(PLUGINS, 'other.sock')), 'listening');
    daemon = await Serving.start(directory);
    assert.equal(daemon.log, '');
    const pool = { AddressSpace: 'TsmacvlanLocal', Pool: '10.9.0.0/24', SubPool: '', Options: {}, V6: false };
    const { PoolID } = (await daemon.call('IpamDriver.RequestPool', pool)).body;
    for (const Address of ['10.9.0.10', '10.9.0.9', ''])
      assert.equal((await daemon.call('IpamDriver.RequestAddress', { PoolID, Address, Options: {} })).status, 200);
  });

  after(async () => {
    await daemon.stop();
    stranger.close();
  });

  test('it finds the daemon by itself, wherever its socket is, and prints in the order of addresses', async () => {
    const { code, out } = await run(['leases']);
    assert.equal(code, 0);
    assert.deepEqual(out.match(/^10\.\S+/gm), ['10.9.0.1', '10.9.0.9', '10.9.0.10']);
    const map = await run(['map']);
    assert.deepEqual([map.code, map.out], [0, 'no networks\n']);
    assert.match(
      map.error,
      /^tsmacvlan: names of containers are not shown: Docker at [^\n]* cannot be asked [^\n]*\n$/,
    );
    assert.match((await run(['gc'])).out, /none|STATE/);
  });

  test('where no daemon runs it reads the same from the state, and leaves nothing beside it', async () => {
    const commands = [
      ['leases', '--json'],
      ['pools', '--json'],
      ['networks'],
      ['endpoints'],
      ['conflicts'],
      ['map', '--json'],
    ];
    const asked = await Promise.all(commands.map((words) => run(words)));
    await daemon.stop();
    const read = await Promise.all(commands.map((words) => run(words, { env: { STATE_DIR: daemon.state } })));
    assert.deepEqual(read, asked);
    const lost = await run(['leases']);
    assert.equal(lost.code, 1);
    assert.match(
      lost.error,
      /^tsmacvlan: there is no state file "\/var\/lib\/tsmacvlan\/tsmacvlan\.db", and no tsmacvlan runs here; /,
    );
    assert.match((await run(['gc'])).error, /^tsmacvlan: no tsmacvlan answers on socket /);
    daemon = await Serving.start(directory);
  });

  test('a reader that goes away is no fault, and a full disk is one', async () => {
    const child = spawn('sh', ['-c', `{ "$0" "$1" settings; echo "code $?" >&2; } | true`, process.execPath, BUNDLE]);
    assert.equal(await text(child.stderr), 'code 0\n');
    const full = await run(['settings'], { stdout: openSync('/dev/full', 'w') });
    assert.deepEqual(
      [full.code, full.error],
      [1, 'tsmacvlan: the output cannot be written (no space left on device); the printed text is incomplete\n'],
    );
  });

  test('an ordinary user is told to be root', async () => {
    const home = mkdtempSync(join(tmpdir(), 'tsm-state-'));
    for (const [words, env] of [
      [['map'], {}],
      [['gc'], {}],
      [['leases'], { STATE_DIR: home }],
      [['backup', '/tmp/x'], {}],
    ] as const) {
      const { code, error } = await run(words, { env, uid: NOBODY });
      assert.equal(code, 1);
      assert.match(
        error,
        /^tsmacvlan: [^\n]*(permission denied|may not open)[^\n]*; run the command as root, with sudo\n$/,
        words.join(' '),
      );
    }
    rmSync(home, { recursive: true });
  });

  test('the process is called tsmacvlan', () => {
    assert.equal(readFileSync(`/proc/${daemon.pid}/comm`, 'utf8'), 'tsmacvlan\n');
  });

  test('a backup does not replace what is no file', async () => {
    symlinkSync('/dev/null', '/run/link');
    for (const place of ['/dev/null', '/run/link', '/run'])
      assert.match((await run(['backup', place])).error, /it is there and no backup\); nothing was changed/);
    assert.match((await run(['backup', '/nowhere/x'])).error, /no such file or directory/);
    writeFileSync('/run/kept.new', 'precious');
    assert.match((await run(['backup', '/run/kept'])).error, /"\/run\/kept\.new" \(it is there and no backup\)/);
    assert.equal(readFileSync('/run/kept.new', 'utf8'), 'precious');
  });

  test('a socket and a state directory that the settings of the service name are those of the commands, without a variable', async () => {
    renameSync(daemon.socket, '/run/elsewhere.sock');
    assert.equal((await run(['networks'], { settings: 'SOCKET="/run/elsewhere.sock"\n' })).out, 'none\n');
    assert.equal((await run(['backup', '/run/b'], { settings: 'SOCKET=/run/elsewhere.sock' })).code, 0);
    renameSync('/run/elsewhere.sock', daemon.socket);
    await daemon.stop();
    const settings = `STATE_DIR='${daemon.state}'\n`;
    assert.match((await run(['leases'], { settings })).out, /^10\.9\.0\.10/m);
    // So does what asks the shared store, which nobody answers for here.
    const shared = { settings: `${settings}STORE=etcd://127.0.0.1:1\n` };
    const asked = await Promise.all([
      run(['leases', '--cluster'], shared),
      run(['store', 'nodes'], shared),
      run(['store', 'migrate', '--from', 'local', '--to', 'etcd://127.0.0.1:1', '--dry-run'], { settings }),
      run(['map', '--html', '/run/shared.html', '--cluster'], shared),
    ]);
    for (const { code, error } of asked.slice(0, 3)) {
      assert.match(error, /^tsmacvlan: the shared store .* \(etcd at 127\.0\.0\.1:1: /);
      assert.equal(code, 1);
    }
    assert.equal(asked[3]?.error, '');
    assert.match(readFileSync('/run/shared.html', 'utf8'), /the shared store .* \(etcd at 127\.0\.0\.1:1: /);
    const { out } = await run(['restore', '/run/b'], { settings });
    assert.ok(out.startsWith(`${daemon.state} has what was recorded at `), out);
    daemon = await Serving.start(directory);
  });

  test('a daemon that an ordinary user starts, and one whose socket no engine finds, say so', async () => {
    await daemon.stop();
    const own = { STATE_DIR: mkdtempSync(join(tmpdir(), 'tsm-state-')) };
    for (const env of [own, { STATE_DIR: directory }])
      assert.match(
        (await run(['serve'], { env, uid: NOBODY })).error,
        /^tsmacvlan: this user may not open directory "[^"]+"; run the command as root, with sudo\n$/,
      );
    rmSync(own.STATE_DIR, { recursive: true });
    const elsewhere = await Serving.start(mkdtempSync(join(tmpdir(), 'tsm-elsewhere-')));
    assert.match(elsewhere.log, /^\S+ warn no engine finds a driver at this socket, [^\n]*s\.sock[^\n]*\n$/);
    await elsewhere.stop();
    rmSync(elsewhere.directory, { recursive: true });
    daemon = await Serving.start(directory);
  });

  test('of several daemons the one at the usual path is asked', async () => {
    renameSync(daemon.socket, join(PLUGINS, 'tsmacvlan.sock'));
    assert.equal((await run(['networks'])).out, 'none\n');
    renameSync(join(PLUGINS, 'tsmacvlan.sock'), daemon.socket);
    const named = await run(['gc'], { env: { SOCKET: '/run/nowhere.sock' } });
    assert.match(named.error, /no tsmacvlan answers on socket "\/run\/nowhere\.sock"/);
  });
});
