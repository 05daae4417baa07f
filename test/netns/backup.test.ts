/**
 * Backup, wipe and restore beside running containers, with kill -9 of the daemon and of the commands at random moments: no
 * address is given twice, and nothing that runs is unknown afterwards. `make backups ROUNDS=50` plays more of it.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from '../lab/drill.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { readRecords } from '../lab/invariant.ts';
import { until } from '../lab/patience.ts';
import { Serving } from '../lab/serving.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 1);
const SEED = Number(process.env.SEED ?? 1);
const LIMITS = { skip: outsideLab(), timeout: 60_000 + ROUNDS * 30_000 };
const BUNDLE = join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
const NETWORK = 'a'.repeat(64);
const SUBNET = '10.9.0.0/24';

const ip = (words: string) =>
  execFileSync('ip', words.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });

/** Another one, which comes meanwhile. */
const NEWCOMER = 'c'.repeat(64);
const isNewcomer = ({ id }: { id: string }) => id === NEWCOMER;

interface Container {
  readonly id: string;
  readonly box: string;
  readonly address: string;
}

describe('backup and restore', LIMITS, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-backup-'));
  const file = join(directory, 'backup');
  const chance = randomOf(SEED);
  const random = (limit: number) => Math.floor(chance() * limit);
  const running: Container[] = [];
  let daemon: Serving;
  let pool = '';
  let count = 0;
  /** What was done, for the message of a failure. */
  const history: string[] = [];

  before(async () => {
    ip('link add eth0 type veth peer name port0');
    for (const name of ['eth0', 'port0']) ip(`link set ${name} up`);
    await start();
    pool = String(
      (
        await call('IpamDriver.RequestPool', {
          AddressSpace: 'TsmacvlanLocal',
          Pool: SUBNET,
          SubPool: '',
          Options: {},
          V6: false,
        })
      )['PoolID'],
    );
    const Options = { 'com.docker.network.generic': { parent: 'eth0' }, 'com.docker.network.enable_ipv4': true };
    const IPv4Data = [{ AddressSpace: 'TsmacvlanLocal', AuxAddresses: {}, Pool: SUBNET }];
    await call('NetworkDriver.CreateNetwork', { NetworkID: NETWORK, Options, IPv4Data, IPv6Data: [] });
  });

  after(async () => {
    await daemon.stop();
    for (const { box } of running) ip(`netns del ${box}`);
    rmSync(directory, { recursive: true });
  });

  /** With PROBE=off nothing but the records says who has an address. */
  async function start(PROBE = 'off'): Promise<void> {
    daemon = await Serving.start(directory, { PROBE });
    history.push('the daemon runs');
    // Records are told also while recovery is under way; this waits for it.
    await call('NetworkDriver.EndpointOperInfo', { NetworkID: NETWORK, EndpointID: 'f'.repeat(64) });
    assert.ok(daemon.isRunning(), daemon.log);
  }

  async function call(name: string, body: object): Promise<Readonly<Record<string, unknown>>> {
    const reply = await daemon.call(name, body);
    assert.equal(reply.status, 200, `${name}: ${reply.sentence}`);
    return reply.body;
  }

  async function run(): Promise<Container> {
    const id = String(++count).padStart(12, '0').padEnd(64, '0');
    const ids = { NetworkID: NETWORK, EndpointID: id };
    const given = await call('IpamDriver.RequestAddress', { PoolID: pool, Address: '', Options: {} });
    const Address = String(given['Address']);
    const Interface = { Address, AddressIPv6: '', MacAddress: '' };
    await call('NetworkDriver.CreateEndpoint', { ...ids, Interface, Options: {} });
    const joined = await call('NetworkDriver.Join', { ...ids, SandboxKey: '', Options: {} });
    const { SrcName } = joined['InterfaceName'] as { SrcName: string };
    const box = `box${count}`;
    ip(`netns add ${box}`);
    ip(`link set ${SrcName} netns ${box}`);
    ip(`-n ${box} address add ${Address} dev ${SrcName}`);
    ip(`-n ${box} link set ${SrcName} up`);
    const container = { id, box, address: Address.replace(/\/.*/, '') };
    running.push(container);
    history.push(`${box} runs with ${container.address}`);
    return container;
  }

  async function end(container: Container): Promise<void> {
    running.splice(running.indexOf(container), 1);
    const ids = { NetworkID: NETWORK, EndpointID: container.id };
    await call('NetworkDriver.Leave', ids);
    ip(`netns del ${container.box}`);
    await call('NetworkDriver.DeleteEndpoint', ids);
    await call('IpamDriver.ReleaseAddress', { PoolID: pool, Address: container.address });
    history.push(`${container.box} with ${container.address} ended`);
  }

  /** Killed after `killMs`, if it lives so long. */
  async function command(
    words: readonly string[],
    killMs = Number.POSITIVE_INFINITY,
  ): Promise<{ code: number | null; out: string; said: string }> {
    const { PATH } = process.env;
    const env = { PATH, SOCKET: daemon.socket, STATE_DIR: daemon.state };
    history.push(`${words.join(' ')} ${killMs}`);
    const child = spawn(process.execPath, [BUNDLE, ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = Number.isFinite(killMs) ? setTimeout(() => child.kill('SIGKILL'), killMs) : undefined;
    const [out, error] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
    clearTimeout(timer);
    return { code: child.exitCode, out, said: out + error };
  }

  async function must(...words: string[]): Promise<string> {
    const { code, out, said } = await command(words);
    assert.equal(code, 0, said);
    return out;
  }

  /** Where the kernel has the addresses, against what is recorded. */
  async function check(): Promise<void> {
    const addresses = running.map(({ address }) => address);
    assert.deepEqual(addresses, [...new Set(addresses)], 'an address was given twice');
    const leases = JSON.parse(await must('leases', '--json')) as { address: string; endpointId: string | null }[];
    for (const { id, address } of running)
      assert.equal(
        leases.find((lease) => lease.address === address)?.endpointId,
        id,
        `${address} is not recorded\n${history.join('\n')}\n${daemon.log}`,
      );
    const endpoints = JSON.parse(await must('endpoints', '--json')) as { id: string }[];
    for (const { id } of running)
      assert.ok(
        endpoints.some((one) => one.id === id),
        `${id} is not recorded`,
      );
  }

  /** It is recorded then, and the LAN is asked for its gateway, for seconds. */
  async function beginNetwork(): Promise<{ poolId: string; making: Promise<unknown> }> {
    await daemon.stop();
    await start('rfc');
    const [AddressSpace, Pool] = ['TsmacvlanLocal', '10.78.0.0/24'];
    const wish = { AddressSpace, Pool, SubPool: '', Options: {}, V6: false };
    const poolId = String((await call('IpamDriver.RequestPool', wish))['PoolID']);
    const ofGateway = { PoolID: poolId, Address: '', Options: { RequestAddressType: 'com.docker.network.gateway' } };
    const { Address: Gateway } = await call('IpamDriver.RequestAddress', ofGateway);
    const making = call('NetworkDriver.CreateNetwork', {
      NetworkID: NEWCOMER,
      Options: { 'com.docker.network.generic': { parent: 'eth0' }, 'com.docker.network.enable_ipv4': true },
      IPv4Data: [{ AddressSpace, AuxAddresses: {}, Pool, Gateway }],
      IPv6Data: [],
    });
    making.catch(() => undefined);
    await until(() => newcomer()?.isPending === true);
    return { poolId, making };
  }

  const newcomer = () => readRecords(join(daemon.state, 'tsmacvlan.db')).networks.find(isNewcomer);

  test('a backup is for root alone, and says what is in it', async () => {
    await run();
    assert.equal(await must('backup', file), `${file} has 1 network, 1 endpoint, 1 address, 0 names\n`);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.endsWith('.new')),
      [],
    );
  });

  test('a backup replaces a backup and nothing else', async () => {
    const other = join(directory, 'notes');
    writeFileSync(other, 'nothing to lose\n');
    for (const target of [other, join(daemon.state, 'tsmacvlan.db'), directory]) {
      const { code, said } = await command(['backup', target]);
      assert.equal(code, 1, said);
      assert.match(said, /^tsmacvlan: cannot write backup "[^"]+" \(it is there and no backup\); nothing was changed/);
    }
    assert.equal(readFileSync(other, 'utf8'), 'nothing to lose\n');
    writeFileSync(other, '');
    for (let time = 1; time <= 2; time++) await must('backup', other);
  });

  test('what is no backup, is not whole or is newer is refused, and changes nothing', async () => {
    await daemon.stop();
    const [head = '', records = ''] = readFileSync(file, 'utf8').split('\n');
    const state = readFileSync(join(daemon.state, 'tsmacvlan.db'));
    const cases = [
      ['', /is not a complete backup/],
      ['{}\n{}\n', /does not begin as a backup/],
      [`${head}\n${records.slice(0, -1)}\n`, /checksum/],
      [`${head}\n${records.replace('10.9.0', '10.8.0')}\n`, /checksum/],
      [`${head.replace(/"schema":\d+/, '"schema":99')}\n${records}\n`, /newer tsmacvlan \(schema 99/],
    ] as const;
    for (const [content, sentence] of cases) {
      writeFileSync(join(directory, 'bad'), content);
      const { code, said } = await command(['restore', join(directory, 'bad')]);
      assert.equal(code, 1);
      assert.match(said, sentence);
      assert.match(said, /^tsmacvlan: [^\n]+\n$/);
    }
    assert.match((await command(['restore', join(directory, 'absent')])).said, /no such file or directory/);
    assert.deepEqual(readFileSync(join(daemon.state, 'tsmacvlan.db')), state);
    await start();
  });

  test('while the daemon runs nothing is restored', async () => {
    const { code, said } = await command(['restore', file]);
    assert.equal(code, 1);
    assert.match(said, /a tsmacvlan runs here|is in use by another running tsmacvlan/);
    assert.match(await must('restore', file, '--dry-run'), /^RECORDS +NOW +IN THE BACKUP\nnetworks +1 +1\n/);
    await check();
  });

  test('a network that the backup does not know keeps its parent as long as containers run on it', async () => {
    await must('backup', file);
    const NetworkID = 'b'.repeat(64);
    const Options = { 'com.docker.network.generic': {}, 'com.docker.network.enable_ipv4': true };
    const IPv4Data = [{ AddressSpace: 'null', AuxAddresses: {}, Pool: '10.77.0.0/24' }];
    await call('NetworkDriver.CreateNetwork', { NetworkID, Options, IPv4Data, IPv6Data: [] });
    const ids = { NetworkID, EndpointID: 'e'.repeat(64) };
    const Interface = { Address: '10.77.0.2/24', AddressIPv6: '', MacAddress: '' };
    await call('NetworkDriver.CreateEndpoint', { ...ids, Interface, Options: {} });
    await call('NetworkDriver.Join', { ...ids, SandboxKey: '', Options: {} });
    ip('netns add boxed');
    ip(`link set tsm${'e'.repeat(12)} netns boxed`);
    ip(`-n boxed address add 10.77.0.2/24 dev tsm${'e'.repeat(12)}`);
    await daemon.stop();
    await must('restore', file);
    await start();
    assert.match(
      daemon.log,
      /a container runs on a network that the backup does not know; [^\n]+ addresses=10\.77\.0\.2\/24/,
    );
    assert.match(ip('link show type macvlan') + ip('-n boxed link show'), new RegExp(`tsm${'e'.repeat(12)}`));
    assert.match(ip('link'), /tsmi/);
    ip('netns del boxed');
    await daemon.stop();
    await start();
    await until(async () => !ip('link').includes('tsmi'));
    await check();
  });

  test('a backup waits for a network that is being made, and has all of it', async () => {
    const { poolId, making } = await beginNetwork();
    await must('backup', file);
    const { networks, pools } = JSON.parse(readFileSync(file, 'utf8').split('\n')[1] ?? '') as ReturnType<
      typeof readRecords
    >;
    await making;
    assert.equal(newcomer()?.isPending, undefined);
    assert.deepEqual(networks.find(isNewcomer), newcomer());
    assert.equal(pools.find(({ id }) => id === poolId)?.networkId, NEWCOMER);
    await daemon.stop();
    await must('restore', file);
    await start();
    assert.notEqual(newcomer(), undefined);
    await call('NetworkDriver.DeleteNetwork', { NetworkID: NEWCOMER });
    await call('IpamDriver.ReleasePool', { PoolID: poolId });
    await check();
  });

  test('one that a kill left half made is in a backup as it is, and gone when the daemon starts', async () => {
    const { poolId, making } = await beginNetwork();
    await Promise.allSettled([daemon.stop('SIGKILL'), making]);
    await must('backup', file);
    await must('restore', file);
    assert.equal(newcomer()?.isPending, true);
    await start();
    assert.equal(newcomer(), undefined);
    await call('IpamDriver.ReleasePool', { PoolID: poolId });
    await check();
  });

  test('an interface that a container made itself, with an alias of ours, takes no address from one that is recorded', async () => {
    const [victim] = running;
    const { box, id } = await run();
    assert.ok(victim);
    ip(`-n ${box} link add link tsm${id.slice(0, 12)} name own0 type macvlan mode bridge`);
    execFileSync('ip', ['-n', box, 'link', 'set', 'own0', 'alias', `tsmacvlan endpoint ${'d'.repeat(64)}`]);
    ip(`-n ${box} address add ${victim.address}/24 dev own0`);
    await must('backup', file);
    await daemon.stop();
    await must('restore', file);
    await start();
    await check();
    assert.match(
      daemon.log,
      new RegExp(`two containers have one address; .* endpoint=dddddddddddd .* other=${victim.id.slice(0, 12)} `),
    );
    ip(`-n ${box} link delete own0`);
  });

  test('of two containers with one address both are told, and one is recorded', async () => {
    await must('backup', file);
    const [one, two] = [await run(), await run()];
    const link = `tsm${two.id.slice(0, 12)}`;
    ip(`-n ${two.box} address del ${two.address}/24 dev ${link}`);
    ip(`-n ${two.box} address add ${one.address}/24 dev ${link}`);
    await daemon.stop();
    await must('restore', file);
    await start();
    const [, endpoint, other] =
      daemon.log.match(/two containers have one address; [^\n]+ endpoint=(\w+) [^\n]+ other=(\w+) /) ?? [];
    const ids = [one, two].map(({ id }) => id.slice(0, 12));
    assert.deepEqual([endpoint, other].sort(), ids.sort(), daemon.log);
    const leases = JSON.parse(await must('leases', '--json')) as { address: string; endpointId: string | null }[];
    const holder = leases.find(({ address }) => address === one.address)?.endpointId;
    assert.equal(holder?.slice(0, 12), other);
    for (const container of [one, two]) await end(container);
    await check();
  });

  test('an address that went to another container after the backup is that one’s after the restore', async () => {
    const first = await run();
    await must('backup', file);
    await end(first);
    const second = await run();
    assert.equal(second.address, first.address);
    await daemon.stop();
    await must('restore', file);
    await start();
    await check();
    assert.doesNotMatch(daemon.log, /two containers have one address/);
    await end(second);
  });

  test('of the states that restores have replaced the last one is kept', async () => {
    const kept = () => readdirSync(daemon.state).filter((name) => name.includes('.before-'));
    await must('backup', file);
    await daemon.stop();
    const old = join(daemon.state, 'tsmacvlan.db.before-2026-01-01T00-00-00.000Z');
    for (const end of ['', '-wal', '-shm']) writeFileSync(old + end, '');
    writeFileSync(join(daemon.state, 'notes.before-noon'), '');
    for (let time = 1; time <= 2; time++) {
      const words = await must('restore', file);
      const [, last = ''] = words.match(/kept as \S+\/(tsmacvlan\.db\.before-\S+), until the next restore/) ?? [];
      assert.deepEqual(kept().sort(), ['notes.before-noon', last]);
    }
    rmSync(join(daemon.state, 'notes.before-noon'));
    await start();
    await check();
  });

  test('a backup of the schema of 0.1.0 is brought up to date', async () => {
    await must('backup', file);
    await daemon.stop();
    const [head = '', text = ''] = readFileSync(file, 'utf8').split('\n');
    const { names: _names, conflicts: _conflicts, ...tables } = JSON.parse(text) as Record<string, object[]>;
    // An endpoint had two fields for its addresses, and a conflict neither kind nor end.
    const endpoints = (tables['endpoints'] ?? []).map((record) => {
      const { addresses = [], ...rest } = record as { addresses?: string[] };
      return { ...rest, address: addresses[0] ?? null, addressIPv6: null };
    });
    const seen = { firstSeenAt: '2026-01-01T00:00:00.000Z', seenAt: '2026-01-01T00:00:01.000Z', count: 3 };
    const conflict = {
      parent: 'eth0',
      address: '10.9.0.99',
      macAddress: '3c:22:fb:10:aa:01',
      ourMacAddress: null,
      ...seen,
    };
    const old = JSON.stringify({ ...tables, endpoints, conflicts: [conflict] });
    const sha256 = createHash('sha256').update(old).digest('hex');
    writeFileSync(
      file,
      `${JSON.stringify({ ...(JSON.parse(head) as object), schema: 1, version: '0.1.0', sha256 })}\n${old}\n`,
    );
    rmSync(daemon.state, { recursive: true });
    await must('restore', file);
    await start();
    await check();
    const [found] = JSON.parse(await must('conflicts', '--json')) as { address: string; kind: string }[];
    assert.deepEqual([found?.address, found?.kind], ['10.9.0.99', 'address']);
    const [first] = running;
    assert.ok(first);
    await end(first);
    await check();
  });

  test(`${ROUNDS} rounds of backup, wipe and restore with kill -9 at random moments, seed ${SEED}`, async (t) => {
    for (let round = 1; round <= ROUNDS; round++) {
      for (let more = random(3); more >= 0; more--) await run();
      const begun = Promise.allSettled([
        run(),
        run(),
        command(['backup', file], random(3) === 0 ? random(400) : undefined),
      ]);
      if (random(2) === 0) {
        await sleep(random(200));
        await daemon.stop('SIGKILL');
        history.push('the daemon was killed');
        await begun;
        await start();
      }
      await begun;
      await must('backup', file);
      const since = [await run(), await run()];
      const [first] = running;
      if (first !== undefined && random(2) === 0) await end(first);
      await daemon.stop(random(2) === 0 ? 'SIGKILL' : 'SIGTERM');
      if (random(2) === 0) rmSync(daemon.state, { recursive: true });
      while (random(3) > 0) await command(['restore', file], random(500));
      await must('restore', file);
      assert.ok(!existsSync(join(daemon.state, 'tsmacvlan.db.restoring')));
      if (random(2) === 0) {
        const early = Serving.start(directory, { PROBE: 'off' });
        await sleep(random(600));
        await (await early).stop('SIGKILL');
      }
      await start();
      await check();
      for (let more = random(4); more >= 0; more--) await run();
      await check();
      for (const container of since) if (running.includes(container)) await end(container);
      while (running.length > 4) await end(running[random(running.length)] as Container);
      await check();
      t.diagnostic(`round ${round}: ${running.length} containers run, ${count} were started`);
    }
  });
});
