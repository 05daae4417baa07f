/**
 * The whole daemon when the system fails it: what cannot be done is refused in a sentence, nothing is left half done, and
 * all goes on as soon as the cause is gone. The file's own network namespace is the host:
 *
 *     lan0 ── veth ── lan1        the state directory is a file system of its own
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { type Socket, connect } from 'node:net';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { before, describe, type TestContext, test } from 'node:test';
import { readLocalStore } from '../../src/store/local.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';
import { type Reply, Serving } from '../lab/serving.ts';

const run = (words: string) =>
  execFileSync(words.split(' ')[0] ?? '', words.split(' ').slice(1), { encoding: 'utf8', stdio: 'pipe' });
const ourLinks = () => [...run('ip -o link').matchAll(/^\d+: (tsm\w+)[@:]/gm)].map(([, name = '']) => name);

const NETWORK = 'a'.repeat(64);
const SPACE = 'TsmacvlanLocal';
const SUBNET = '10.9.0.0/16';

describe('the daemon when the system fails it', { skip: outsideLab(), timeout: 500_000 }, () => {
  before(makeParent);

  test('a full disk: the call fails in a sentence, nothing is half written, and service resumes with room', async (t) => {
    const { serving, pool } = await serve(t);
    const given = [bare(await lease(serving, pool))];
    const filler = join(serving.state, 'filler');
    fill(filler);
    let refused: Reply | undefined;
    while (refused === undefined && given.length < 1000) {
      const reply = await lease(serving, pool);
      if (reply.status === 200) given.push(bare(reply));
      else refused = reply;
    }
    assert.equal(refused?.status, 500);
    assert.match(refused.sentence, /^no space left on the disk of state file ".*tsmacvlan\.db"; /);
    assert.deepEqual((await leases(serving)).sort(), given.sort());
    const endpoint = await attach(serving, '1', `${given[0]}/16`);
    assert.match(endpoint.sentence, /^no space left/);
    assert.deepEqual(ourLinks(), []);

    rmSync(filler);
    assert.equal((await attach(serving, '1', `${given[0]}/16`)).status, 200);
    const next = await lease(serving, pool);
    assert.equal(next.status, 200, next.sentence);
    assert.ok(!given.includes(bare(next)));
    assert.equal((await detach(serving, '1')).status, 200);
    assert.equal(await serving.stop(), 0);
  });

  test('a full disk at DeleteEndpoint: the container keeps what it has until there is room', async (t) => {
    const { serving, pool } = await serve(t);
    const address = bare(await lease(serving, pool));
    assert.equal((await attach(serving, '1', `${address}/16`)).status, 200);
    const filler = join(serving.state, 'filler');
    fill(filler);
    // What the log of the database has room for is still taken.
    while ((await lease(serving, pool)).status === 200);
    assert.match((await detach(serving, '1')).sentence, /^no space left/);
    assert.deepEqual(ourLinks(), ['tsm111111111111']);
    rmSync(filler);
    assert.equal((await detach(serving, '1')).status, 200);
    assert.equal(await serving.stop(), 0);
    assert.deepEqual(ourLinks(), []);
  });

  test('a read-only state directory: it does not start, says why, and finds all it knew when it can be written', async (t) => {
    const { serving, pool } = await serve(t);
    const address = bare(await lease(serving, pool));
    await serving.stop('SIGKILL');
    run(`mount -o remount,ro ${serving.state}`);
    const refused = await Serving.start(serving.directory);
    assert.equal(await refused.stop(), 1);
    assert.match(refused.log, /^tsmacvlan: cannot keep state in directory ".*" \(read-only file system\);/m);
    run(`mount -o remount,rw ${serving.state}`);
    const third = await Serving.start(serving.directory);
    assert.notEqual(bare(await lease(third, pool)), address);
    assert.equal(await third.stop(), 0);
  });

  test('a state directory cannot turn read-only under a daemon that runs: the kernel refuses, and service goes on', async (t) => {
    const { serving, pool } = await serve(t);
    assert.throws(() => run(`mount -o remount,ro ${serving.state}`), /busy/);
    assert.equal((await lease(serving, pool)).status, 200);
    assert.equal(await serving.stop(), 0);
    run(`mount -o remount,ro ${serving.state}`);
  });

  for (const [title, contents, sentence] of [
    ['damaged', 'no database '.repeat(1000), /^tsmacvlan: state file ".*" is damaged/m],
    ['of a newer program', null, /^tsmacvlan: state file ".*" .*newer/m],
  ] as const) {
    test(`a state that is ${title}: it does not start, says why, and leaves it as it is`, async (t) => {
      const { serving } = await serve(t);
      await serving.stop();
      const file = join(serving.state, 'tsmacvlan.db');
      if (contents === null) makeNewer(file);
      else writeFileSync(file, contents);
      const found = readFileSync(file);
      const second = await Serving.start(serving.directory);
      assert.equal(await second.stop(), 1, second.log);
      assert.match(second.log, sentence);
      assert.deepEqual(readFileSync(file), found);
    });
  }

  test('a terminal that is closed, a log that nobody reads and a socket that somebody removed end nothing', async (t) => {
    const { serving, pool } = await serve(t);
    serving.stopReading();
    process.kill(serving.pid, 'SIGHUP');
    for (let count = 0; count < 3; count++) assert.equal((await lease(serving, pool)).status, 200);
    rmSync(serving.socket);
    await until(async () => (await lease(serving, pool).catch(() => null))?.status === 200);
    assert.equal(await serving.stop(), 0);
  });

  test('no file descriptor left: it goes on, refuses in sentences, and works when there are some', async (t) => {
    const { serving, pool } = await serve(t, { PROBE: 'fast' });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    const ask = () => serving.call('IpamDriver.RequestAddress', { PoolID: pool }, agent);
    await ask();
    const connections = await exhaust(serving);
    // A new connection is closed at once, which engines try again for 15 s.
    await assert.rejects(serving.call('NetworkDriver.GetCapabilities', {}));
    const outcome = await ask();
    assert.ok(outcome.status === 200 || /\bfile|descriptor/i.test(outcome.sentence), outcome.sentence);
    for (const connection of connections) connection.destroy();
    run(`prlimit --pid ${serving.pid} --nofile=4096:4096`);
    const reply = await lease(serving, pool);
    assert.equal(reply.status, 200, reply.sentence);
    assert.equal(await serving.stop(), 0);
    assert.doesNotMatch(serving.log, /internal error/);
  });

  test('a parent removed while containers start: each call is answered, and when it is back they start', async (t) => {
    const { serving, pool } = await serve(t);
    const addresses = await Promise.all(Array.from({ length: 15 }, async () => bare(await lease(serving, pool))));
    const digits = [...'123456789abcdef'];
    const calls = digits.map((digit, position) => attach(serving, digit, `${addresses[position]}/16`));
    await calls[0];
    run('ip link delete lan0');
    for (const { status, sentence } of await Promise.all(calls))
      assert.ok(status === 200 || /parent interface "lan0"/.test(sentence), sentence);
    const gone = await attach(serving, '0', '10.9.9.9/16');
    assert.match(gone.sentence, /^parent interface "lan0" .* is not on this host/);
    for (const digit of digits) assert.equal((await detach(serving, digit)).status, 200);
    makeParent();
    assert.equal((await attach(serving, '1', `${addresses[0]}/16`)).status, 200);
    assert.equal((await detach(serving, '1')).status, 200);
    assert.equal(await serving.stop(), 0);
    assert.deepEqual(ourLinks(), []);
    assert.doesNotMatch(serving.log, /internal error/);
  });

  test('more changes of links than the kernel keeps for it: what was lost among them is seen to all the same', async (t) => {
    const { serving } = await serve(t, {}, { host_access: 'true' });
    const [hostLink = ''] = ourLinks();
    assert.match(hostLink, /^tsmh/);
    process.kill(serving.pid, 'SIGSTOP');
    const changes = Array.from({ length: 20_000 }, (_, count) => `link set lan1 alias ${count}`);
    execFileSync('ip', ['-batch', '-'], { input: changes.join('\n') });
    assert.ok(lostEvents() > 0, readFileSync('/proc/net/netlink', 'utf8'));
    // Of these it is told nothing.
    run('ip link delete lan0');
    makeParent();
    assert.deepEqual(ourLinks(), []);
    process.kill(serving.pid, 'SIGCONT');
    await until(() => ourLinks().length > 0);
    assert.deepEqual(ourLinks(), [hostLink]);
    assert.equal(await serving.stop(), 0);
    run(`ip link delete ${hostLink}`);
  });

  test('a stranger’s link of the name that ours would have: refused in a sentence, and never touched', async (t) => {
    const { serving, pool } = await serve(t);
    const address = bare(await lease(serving, pool));
    run('ip link add tsm111111111111 link lan0 type macvlan mode bridge');
    const stranger = run('ip -o link show tsm111111111111');
    const refused = await attach(serving, '1', `${address}/16`);
    assert.notEqual(refused.status, 200);
    assert.doesNotMatch(refused.sentence, /internal error/);
    assert.equal((await detach(serving, '1')).status, 200);
    assert.equal(run('ip -o link show tsm111111111111'), stranger);
    run('ip link delete tsm111111111111');
    assert.equal((await attach(serving, '1', `${address}/16`)).status, 200);
    assert.equal((await detach(serving, '1')).status, 200);
    assert.equal(await serving.stop(), 0);
  });
});

/** By the one socket here that listens to links: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`. */
/** linux/rtnetlink.h */
const RTMGRP_LINK = 1;

function lostEvents(): number {
  const rows = readFileSync('/proc/net/netlink', 'utf8')
    .split('\n')
    .map((row) => row.trim().split(/\s+/));
  return Math.max(
    0,
    ...rows.filter(([, , , groups = '']) => Number.parseInt(groups, 16) & RTMGRP_LINK).map((row) => Number(row[8])),
  );
}

function makeParent(): void {
  run('ip link add lan0 type veth peer name lan1');
  for (const name of ['lan0', 'lan1']) run(`ip link set ${name} up`);
}

/** A daemon whose state is on a disk of 600 kB, and a network on it. */
async function serve(t: TestContext, settings = {}, options = {}): Promise<{ serving: Serving; pool: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-faults-'));
  const state = join(directory, 'state');
  mkdirSync(state);
  run(`mount -t tmpfs -o size=600k tmpfs ${state}`);
  const serving = await Serving.start(directory, settings);
  t.after(async () => {
    await serving.stop('SIGKILL');
    run(`umount -l ${state}`);
    rmSync(directory, { recursive: true });
  });
  const pool = await serving.call('IpamDriver.RequestPool', { AddressSpace: SPACE, Pool: SUBNET, V6: false });
  const network = await serving.call('NetworkDriver.CreateNetwork', {
    NetworkID: NETWORK,
    Options: { 'com.docker.network.generic': { parent: 'lan0', ...options } },
    IPv4Data: [{ AddressSpace: SPACE, Pool: SUBNET }],
  });
  assert.equal(network.status, 200, network.sentence);
  return { serving, pool: String(pool.body['PoolID']) };
}

/** To the last byte. */
function fill(file: string): void {
  assert.throws(() => writeFileSync(file, Buffer.alloc(1 << 20)), { code: 'ENOSPC' });
}

/** Connections take every descriptor that the daemon may still open; answers them when the next is turned away. */
async function exhaust({ pid, socket }: Serving): Promise<Socket[]> {
  // The one that libuv gives up to turn a connection away with (uv__emfile_trick) must be below the limit.
  const spare = readdirSync(`/proc/${pid}/fd`)
    .map(Number)
    .filter((fd) => fd > 2 && isNothing(`/proc/${pid}/fd/${fd}`));
  run(`prlimit --pid ${pid} --nofile=${Math.max(...spare) + 3}:4096`);
  const connections: Socket[] = [];
  for (let isAccepted = true; isAccepted; ) {
    const connection = connect(socket).on('error', () => undefined);
    connections.push(connection);
    isAccepted = await Promise.race([once(connection, 'close').then(() => false), sleep(300, true)]);
    assert.ok(connections.length < 100);
  }
  return connections;
}

function isNothing(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.rdev === statSync('/dev/null').rdev;
}

function lease(serving: Serving, pool: string): Promise<Reply> {
  return serving.call('IpamDriver.RequestAddress', { PoolID: pool });
}

function attach(serving: Serving, digit: string, address: string): Promise<Reply> {
  const ids = { NetworkID: NETWORK, EndpointID: digit.repeat(64) };
  return serving.call('NetworkDriver.CreateEndpoint', { ...ids, Interface: { Address: address } });
}

function detach(serving: Serving, digit: string): Promise<Reply> {
  return serving.call('NetworkDriver.DeleteEndpoint', { NetworkID: NETWORK, EndpointID: digit.repeat(64) });
}

function bare({ body, sentence }: Reply): string {
  assert.equal(sentence, '');
  return String(body['Address']).split('/')[0] ?? '';
}

async function leases({ state }: Serving): Promise<string[]> {
  const store = readLocalStore(state);
  try {
    return (await store.leases.list()).map(({ address }) => address);
  } finally {
    await store.close();
  }
}

function makeNewer(file: string): void {
  const database = new DatabaseSync(file);
  database.exec('PRAGMA journal_mode = DELETE; PRAGMA user_version = 99');
  database.close();
}
