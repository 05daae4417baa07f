/**
 * What can be seen of a daemon that runs: `watch`, the hook, metrics and health, with one that is slow, one that is gone and a thousand
 * at once. The switch is the stranger.
 *
 *     host: tsmacvlan, containers ── lan0 ── switch 192.0.2.254
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { outsideLab } from '../lab/enclosure.ts';
import { exchange } from '../lab/exchange.ts';
import { type Family, readExposition, valueOf } from '../lab/exposition.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, type FakeNetwork, Understudy } from '../lab/understudy.ts';

const SOCKET = '/run/docker/plugins/tsmacvlan.sock';
const HOOK = '/run/disk/hook';
const HOOKED = '/run/disk/hooked';
const METRICS = '/run/metrics.sock';
const IDLE_MS = 4000;

interface Line {
  readonly what: string;
  readonly state?: string;
  readonly [field: string]: unknown;
}

describe('what can be seen of a daemon', { skip: outsideLab(), timeout: 200_000 }, () => {
  let lan: Lan;
  let host: Host;
  let plugin: Plugin;
  let engine: Understudy;
  let network: FakeNetwork;
  let web: Container;

  before(async () => {
    lan = await Lan.create(['192.0.2.254/24']);
    host = await Host.boot('host', lan);
    const hook = `#!/bin/sh\necho "$TSMACVLAN_EVENT $TSMACVLAN_ADDRESS $TSMACVLAN_MAC $TSMACVLAN_ENDPOINT" >> ${HOOKED}\n`;
    writeFileSync(host.file(HOOK), hook);
    chmodSync(host.file(HOOK), 0o755);
    plugin = await Plugin.start(host, { HOOK, METRICS: `unix:${METRICS}` });
    engine = new Understudy(plugin);
    network = await engine.createNetwork({ subnet: '192.0.2.0/24' });
    web = await engine.run(network, { address: '192.0.2.70' });
  });
  after(async () => {
    await host.scrap(lan);
    await lan.namespace.delete();
  });

  /** `tsmacvlan watch` on the host, and what it has said. */
  function watch(...words: string[]): { child: ChildProcess; lines: () => string[]; errors: () => string } {
    const [command = '', ...args] = host.enter(plugin.commandLine('watch', ...words));
    const env = { PATH: process.env.PATH, SOCKET, DOCKER_HOST: 'unix:///run/nowhere.sock' };
    // A group of its own: what enters the host waits for the command, and does not take it along when it is killed.
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    let [said, complained] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (some: string) => (said += some));
    child.stderr.setEncoding('utf8').on('data', (some: string) => (complained += some));
    return { child, lines: () => said.split('\n').slice(0, -1), errors: () => complained };
  }
  const parsed = (lines: string[]) => lines.map((line) => JSON.parse(line) as Line);
  /** Perhaps a second ago. */
  const listeners = async () => valueOf(readExposition((await ask('/metrics')).text), 'tsmacvlan_watchers') ?? 0;
  async function ask(path: string, method = 'GET', headers = {}) {
    return exchange(host.file(METRICS), { path, method, headers });
  }
  /** Not those of a second ago. */
  async function metrics(): Promise<ReadonlyMap<string, Family>> {
    await sleep(1050);
    const { status, headers, text: told } = await ask('/metrics');
    assert.equal(status, 200);
    assert.match(String(headers['content-type']), /^text\/plain; version=0\.0\.4/);
    return readExposition(told);
  }
  /** The switch speaks as the container's address. */
  const take = async (address: string) => {
    await lan.namespace.ip(`address add ${address}/32 dev br0`);
    await lan.namespace.run(['ping', '-c', '1', '-W', '1', '-I', address, '192.0.2.1']);
  };
  const giveBack = (address: string) => lan.namespace.ip(`address del ${address}/32 dev br0`);
  const end = async (child: ChildProcess) => {
    const ended = once(child, 'exit');
    process.kill(-(child.pid ?? 0), 'SIGINT');
    await ended;
  };

  test('a conflict, a start, an end, a cable and a warning are told as they come, and the hook runs', async () => {
    const all = watch('--json');
    const people = watch();
    await until(async () => (await listeners()) === 2);
    await take('192.0.2.70');
    const news = () => parsed(all.lines());
    const has = (what: string, state: string) => news().find((line) => line.what === what && line.state === state);
    await until(() => has('conflict', 'begun') !== undefined, { detail: () => all.lines().join('\n') });
    const begun = has('conflict', 'begun');
    assert.deepEqual(
      [begun?.['address'], begun?.['endpointId'], begun?.['networkId']],
      ['192.0.2.70', web.endpointId, network.id],
    );
    await giveBack('192.0.2.70');
    await plugin.commandInside('conflicts', '--clear');
    await until(() => has('conflict', 'ended') !== undefined);
    const other = await engine.run(network);
    await engine.remove(other);
    await until(() => has('endpoint', 'ended') !== undefined);
    assert.equal(has('endpoint', 'started')?.['endpointId'], other.endpointId);
    await lan.setCarrier(host.ports['lan0'] ?? '', false);
    await until(() => has('parent', 'no carrier') !== undefined);
    await lan.setCarrier(host.ports['lan0'] ?? '', true);
    await until(() => has('parent', 'carrier') !== undefined);
    await exchange(host.file(SOCKET), { path: '/NetworkDriver.Join', body: '{' });
    await until(() => news().some((line) => line.what === 'warning'));

    const told = () => people.lines().join('\n');
    await until(() => /^\S+ \S+ {2}warning {3}NetworkDriver\.Join/m.test(told()), { detail: told });
    const id = web.endpointId.slice(0, 12);
    for (const line of [
      new RegExp(
        `^[0-9-]{10} [0-9:]{8} {2}conflict  endpoint ${id}: 192\\.0\\.2\\.70 also used by [0-9a-f:]{17}, on lan0$`,
        'm',
      ),
      new RegExp(`  over      endpoint ${id}: nobody else is known to use 192\\.0\\.2\\.70 on lan0 any more$`, 'm'),
      /  started   endpoint [0-9a-f]{12}  192\.0\.2\.\d+\/24  02:42:[0-9a-f:]+  [0-9a-f]{12} on lan0$/m,
      /  ended     endpoint [0-9a-f]{12}  192\.0\.2\.\d+\/24  /m,
      /  parent    lan0 has no carrier; look at its cable and at the switch port$/m,
      /  parent    lan0 is up and has a carrier$/m,
    ])
      assert.match(told(), line);
    // Docker that is not there is said once, whatever is told.
    assert.match(people.errors(), /^tsmacvlan: names of containers are not shown: [^\n]*\n$/);

    await until(() => existsSync(host.file(HOOKED)) && readFileSync(host.file(HOOKED), 'utf8').includes('ended'));
    const [first, second] = readFileSync(host.file(HOOKED), 'utf8').split('\n');
    assert.equal(first, `conflict-begun 192.0.2.70 ${String(begun?.['macAddress'])} ${web.endpointId}`);
    assert.match(second ?? '', /^conflict-ended 192\.0\.2\.70 /);
    await Promise.all([end(all.child), end(people.child)]);
    await until(async () => (await listeners()) === 0);
  });

  test('a watch ends when nobody reads it, also where nothing happens', async () => {
    const { child } = watch();
    await until(async () => (await listeners()) === 1);
    const ended = once(child, 'exit');
    child.stdout?.destroy();
    const [code] = (await ended) as [number | null];
    assert.equal(code, 0);
    await until(async () => (await listeners()) === 0);
  });

  test('a watch goes on with the next daemon, says that it was away, and tells the conflicts that last', async () => {
    await take('192.0.2.70');
    await until(async () => (await plugin.conflicts()).some(({ address }) => address === '192.0.2.70'));
    assert.ok((await plugin.commandInside('conflicts')).stdout.includes('192.0.2.70'));
    const { child, lines, errors } = watch('--json');
    await until(() => parsed(lines()).some((line) => line.state === 'lasts'));
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const before = lines().length;
      await plugin.restart(signal);
      await until(() => parsed(lines().slice(before)).some((line) => line.state === 'lasts'), { detail: errors });
      const states = parsed(lines().slice(before)).flatMap(({ what, state }) => (what === 'watch' ? [state] : []));
      assert.deepEqual(states, ['gone', 'back'], signal);
    }
    await end(child);
    await giveBack('192.0.2.70');
    await plugin.commandInside('conflicts', '--clear');
    await plugin.stop();
    const { code, stderr } = await plugin.commandInside('watch');
    assert.equal(code, 1);
    assert.match(stderr, /^tsmacvlan: no tsmacvlan answers on socket /);
    await plugin.start();
  });

  function listen(): Promise<IncomingMessage> {
    const asked = request({ socketPath: host.file(SOCKET), path: '/Tsmacvlan.Watch', method: 'POST', agent: false });
    asked.on('error', () => undefined).end();
    return once(asked, 'response').then(([response]) => response as IncomingMessage);
  }

  test('a thousand that want to listen: as many as may do, the others get a sentence, and calls are answered', async () => {
    const responses = await Promise.all(Array.from({ length: 1000 }, listen));
    const [taken, refused] = [200, 400].map((status) => responses.filter(({ statusCode }) => statusCode === status));
    assert.deepEqual([taken?.length, refused?.length], [64, 936]);
    assert.match(
      await text(refused?.[0] as IncomingMessage),
      /"Err":"64 commands are watching already; end one of them, /,
    );
    assert.equal((await exchange(host.file(SOCKET), { path: '/Plugin.Activate' })).status, 200);
    for (const response of responses) response.destroy();
    await until(async () => (await listeners()) === 0);
  });

  test('one that does not read is dropped, with a last line, and holds nobody up', async () => {
    const slow = await listen();
    slow.pause();
    const quick = await listen();
    let heard = 0;
    quick.on('data', (some: Buffer) => (heard += some.toString().split('\n').length - 1));
    const dropped = async () => valueOf(await metrics(), 'tsmacvlan_watchers_dropped') ?? 0;
    for (let round = 0; (await dropped()) === 0 && round < 50; round++)
      for (let each = 0; each < 20; each++)
        await Promise.all(Array.from({ length: 40 }, () => exchange(host.file(SOCKET), { path: '/Plugin.Nothing' })));
    assert.equal(await dropped(), 1);
    const said = await text(slow);
    const last = said.trimEnd().split('\n').at(-1) ?? '';
    assert.deepEqual(JSON.parse(last), { what: 'end', reason: 'slow' });
    assert.ok(heard >= said.split('\n').length - 2, `${heard}`);
    quick.destroy();
  });

  test('metrics tell what there is, and nothing else is answered', async () => {
    const families = await metrics();
    assert.equal(valueOf(families, 'tsmacvlan_pool_addresses', { subnet: '192.0.2.0/24', state: 'used' }), 1);
    assert.equal(valueOf(families, 'tsmacvlan_parent_state', { parent: 'lan0', state: 'carrier' }), 1);
    assert.equal(valueOf(families, 'tsmacvlan_endpoints', { state: 'joined' }), 1);
    assert.equal(valueOf(families, 'tsmacvlan_healthy'), 1);
    const probed = () => valueOf(families, 'tsmacvlan_probes_total', { verdict: 'free' }) ?? 0;
    const again = await engine.run(network);
    const next = await metrics();
    assert.equal(valueOf(next, 'tsmacvlan_probes_total', { verdict: 'free' }), probed() + 1);
    assert.equal(valueOf(next, 'tsmacvlan_endpoint_changes_total', { state: 'started' }), 1);
    assert.ok((valueOf(next, 'tsmacvlan_calls_total', { call: 'NetworkDriver.Join', outcome: 'ok' }) ?? 0) >= 1);
    await engine.remove(again);

    assert.deepEqual(await ask('/healthz').then(({ status, text: said }) => [status, said]), [200, 'ok\n']);
    assert.equal((await ask('/metrics', 'POST')).status, 405);
    assert.equal((await ask('/secret')).status, 404);
    assert.equal((await ask('/metrics', 'GET', { Host: 'evil.example' })).status, 421);
    assert.equal((await ask('/metrics', 'HEAD')).text, '');
    for (const method of ['GET', 'POST']) {
      const { status, text: said } = await exchange(host.file(SOCKET), { path: '/Plugin.Health', method });
      assert.deepEqual([status, JSON.parse(said)], [200, { Status: 'ok', Reasons: [] }]);
    }
  });

  test('a state that was taken away is said, and is well again afterwards', async () => {
    const directory = host.file('/run/disk/tsmacvlan');
    const names = readdirSync(directory);
    assert.ok(names.includes('tsmacvlan.db'));
    const move = (from: string, to: string) => host.run(['mv', `/run/disk/${from}`, `/run/disk/${to}`]);
    await move('tsmacvlan', 'elsewhere');
    await assert.rejects(engine.run(network));
    const { status, text: said } = await ask('/healthz');
    assert.equal(status, 503, said);
    assert.match(said, /^failing\nstate file .* was deleted or moved/);
    await move('elsewhere', 'tsmacvlan');
    await engine.remove(await engine.run(network));
    assert.equal((await ask('/healthz')).status, 200);
  });

  test('metrics that cannot be told where they should be keep no container from starting, and come once they can', async () => {
    await plugin.stop();
    const holder = await host.start(
      'holder',
      [process.execPath, '-e', "require('net').createServer().listen(9618,'127.0.0.1')"],
      process.env,
    );
    plugin.set({ METRICS: '127.0.0.1:9618' });
    await plugin.start();
    await until(() => plugin.log().includes('metrics cannot be read'));
    await engine.remove(await engine.run(network));
    await holder.kill('SIGKILL');
    const got = () => host.run([process.execPath, '-e', GET]);
    await until(async () => (await got()).stdout.startsWith('# HELP tsmacvlan_'));
    readExposition((await got()).stdout);
  });

  test('a watcher and a question a second cost little: processor time at rest, memory', async () => {
    const pid = Number((await host.run(['pgrep', '-x', 'tsmacvlan'])).stdout.trim().split('\n')[0]);
    const cpuMs = async () => Number((await host.run(['cat', `/proc/${pid}/schedstat`])).stdout.split(' ')[0]) / 1e6;
    const spent = async (act: () => Promise<unknown>) => {
      const beforeMs = await cpuMs();
      await act();
      return (await cpuMs()) - beforeMs;
    };
    const idleMs = await spent(() => sleep(IDLE_MS));
    const listening = await listen();
    const seenMs = await spent(async () => {
      for (let asked = 0; asked < IDLE_MS / 1000; asked++) {
        await host.run([process.execPath, '-e', GET]);
        await sleep(1000);
      }
    });
    listening.destroy();
    const memory = await plugin.memoryMb();
    console.log(
      `at rest ${idleMs.toFixed(0)} ms of ${IDLE_MS}; asked 4 times, with a watcher, ${seenMs.toFixed(0)} ms; ${memory} MB`,
    );
    // Prometheus asks every 15 s: of a core 0.2 % are 30 ms for each time. The bound is wide: the first answers are slow.
    assert.ok(seenMs - idleMs < 4 * 60, `${seenMs} ms beside ${idleMs} ms`);
  });
});

const GET =
  "require('http').get('http://127.0.0.1:9618/metrics',(r)=>r.pipe(process.stdout)).on('error',()=>process.exit(1))";
