/** Names through the daemon's socket, as engine 29 sends them: the same address and MAC address, over kill -9 of the daemon. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { main } from '../../src/cli.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Serving } from '../lab/serving.ts';

const SPACE = 'TsmacvlanLocal';
const LIMITS = { skip: outsideLab(), timeout: 120_000 };

const ip = (words: string) => execFileSync('ip', words.split(' '), { encoding: 'utf8' });

interface Had {
  readonly four: string;
  readonly six: string;
  readonly mac: string;
}

describe('names through the socket', LIMITS, () => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-names-'));
  let daemon: Serving;
  let network = 'a'.repeat(64);
  let pools: string[] = [];
  let count = 0;

  before(async () => {
    ip('link add eth0 type veth peer name port0');
    for (const name of ['eth0', 'port0']) ip(`link set ${name} up`);
    daemon = await Serving.start(directory);
  });

  after(async () => {
    await daemon.stop();
    rmSync(directory, { recursive: true });
  });

  async function call(name: string, body: object): Promise<Readonly<Record<string, unknown>>> {
    const reply = await daemon.call(name, body);
    assert.equal(reply.status, 200, `${name}: ${reply.sentence}`);
    return reply.body;
  }

  async function create(): Promise<void> {
    pools = [];
    for (const Pool of ['10.9.0.0/24', 'fd09::/64']) {
      const request = { AddressSpace: SPACE, Pool, SubPool: '', Options: {}, V6: Pool.includes(':') };
      pools.push(String((await call('IpamDriver.RequestPool', request))['PoolID']));
    }
    const data = (Pool: string) => [{ AddressSpace: SPACE, AuxAddresses: {}, Pool }];
    const Options = {
      'com.docker.network.generic': { parent: 'eth0' },
      'com.docker.network.enable_ipv4': true,
      'com.docker.network.enable_ipv6': true,
    };
    const [IPv4Data, IPv6Data] = [data('10.9.0.0/24'), data('fd09::/64')];
    await call('NetworkDriver.CreateNetwork', { NetworkID: network, Options, IPv4Data, IPv6Data });
  }

  async function remove(): Promise<void> {
    for (const PoolID of pools) await call('IpamDriver.ReleasePool', { PoolID });
    await call('NetworkDriver.DeleteNetwork', { NetworkID: network });
  }

  /** Start and stop of a container, as an engine does both. */
  async function live(name: string, between: () => Promise<void> = async () => undefined, macNamed = ''): Promise<Had> {
    const EndpointID = String(++count).padStart(12, '0').padEnd(64, '0');
    const ids = { NetworkID: network, EndpointID };
    const addresses: string[] = [];
    for (const PoolID of pools) {
      const request = { PoolID, Address: '', Options: { 'com.docker.network.endpoint.name': name } };
      addresses.push(String((await call('IpamDriver.RequestAddress', request))['Address']));
    }
    const [four = '', six = ''] = addresses;
    const Interface = { Address: four, AddressIPv6: six, MacAddress: macNamed };
    const created = await call('NetworkDriver.CreateEndpoint', { ...ids, Interface, Options: {} });
    await call('NetworkDriver.Join', { ...ids, SandboxKey: '', Options: {} });
    await between();
    await call('NetworkDriver.Leave', ids);
    await call('NetworkDriver.DeleteEndpoint', ids);
    for (const [index, PoolID] of pools.entries())
      await call('IpamDriver.ReleaseAddress', { PoolID, Address: (addresses[index] ?? '').replace(/\/.*/, '') });
    const answer = created['Interface'] as { MacAddress: string } | null;
    return { four, six, mac: answer?.MacAddress ?? macNamed };
  }

  async function restart(signal: NodeJS.Signals, settings: Record<string, string> = {}): Promise<void> {
    await daemon.stop(signal);
    daemon = await Serving.start(directory, settings);
  }

  async function command(...words: string[]): Promise<string> {
    const lines: string[] = [];
    const write = { out: process.stdout.write.bind(process.stdout), error: process.stderr.write.bind(process.stderr) };
    const { STATE_DIR, SOCKET } = process.env;
    Object.assign(process.env, { STATE_DIR: daemon.state, SOCKET: daemon.socket });
    // There is no Docker beside this daemon, which is said each time.
    const keep = (text: unknown) => String(text).includes('Docker at') || lines.push(String(text)) > 0;
    Object.assign(process.stdout, { write: keep });
    Object.assign(process.stderr, { write: keep });
    try {
      await main(words);
    } finally {
      Object.assign(process.stdout, { write: write.out });
      Object.assign(process.stderr, { write: write.error });
      Object.assign(process.env, { STATE_DIR, SOCKET });
    }
    return lines.join('');
  }

  test('each name has its addresses and MAC address again, whatever happened in between', async () => {
    await create();
    const had = new Map<string, Had>();
    // All at once for the first time, so that each has its own.
    const nest = (names: readonly string[]): Promise<Had> => {
      const [name = '', ...rest] = names;
      return live(name, async () => {
        if (rest.length > 0) had.set(rest[0] ?? '', await nest(rest));
      });
    };
    const names = ['pr-web-1', 'pr-web-2', 'db'];
    had.set('pr-web-1', await nest(names));
    assert.equal(new Set([...had.values()].map(({ four }) => four)).size, 3);
    const again = async (order: readonly string[]) => {
      for (const name of order) assert.deepEqual(await live(name), had.get(name), name);
    };
    await again(['db', 'pr-web-2', 'pr-web-1']);
    await restart('SIGKILL');
    await again(['pr-web-2', 'db', 'pr-web-1']);
    await remove();
    network = 'b'.repeat(64);
    await create();
    await again(['db', 'pr-web-1', 'pr-web-2']);
    const stranger = await live('stranger');
    assert.ok(
      [...had.values()].every(
        ({ four, six, mac }) => four !== stranger.four && six !== stranger.six && mac !== stranger.mac,
      ),
    );
    await remove();
  });

  test('a MAC address that had to be another one is had again, and the one named is not', async () => {
    await create();
    const first = await live('twin');
    let other: Had | undefined;
    const meanwhile = async () => {
      other = await live('twin');
    };
    await live('pinned', meanwhile, first.mac);
    assert.notEqual(other?.mac, first.mac);
    assert.notEqual((await live('pinned')).mac, first.mac, 'what was named is named again or not at all');
    assert.deepEqual(await live('twin'), other, 'neighbours know this one now');
    await remove();
  });

  test('a daemon that is killed between two calls gives the container the same again', async () => {
    await create();
    const had = await live('web');
    for (const PoolID of pools) {
      const request = { PoolID, Address: '', Options: { 'com.docker.network.endpoint.name': 'web' } };
      await call('IpamDriver.RequestAddress', request);
    }
    await restart('SIGKILL');
    assert.deepEqual(await live('web'), had, 'the engine gave up and starts it anew');
    await remove();
  });

  test('names that are none are refused in a sentence, and nothing changes', async () => {
    await create();
    await live('web');
    const leases = async () => JSON.parse(await command('leases', '--json')) as unknown;
    const before = await leases();
    for (const [name, expected] of [
      [
        'x'.repeat(1_000_000),
        /text of at most 4096 characters, not of 1000000; nothing was changed, give a shorter one/,
      ],
      ['\u202ebew', /^container name "\\u202ebew" has/],
      ['\ufeffweb', /^container name "\\ufeffweb" has/],
      ['web\n1', /^container name "web\\n1" has white space or control characters/],
      ['we\u0000b', /^container name "we\\u0000b" has/],
      ['a b', /^container name "a b" has/],
    ] as const) {
      const request = { PoolID: pools[0], Address: '', Options: { 'com.docker.network.endpoint.name': name } };
      const { status, sentence } = await daemon.call('IpamDriver.RequestAddress', request);
      assert.equal(status, 400);
      assert.match(sentence, expected);
    }
    assert.deepEqual(await leases(), before);
    await remove();
  });

  test('reserve and unreserve by the command line, seen in leases', async () => {
    await create();
    await live('web');
    assert.match(await command('leases'), /^10\.9\.0\.\d+ +remembered +web /m);
    assert.match(
      await command('reserve', 'web', '10.9.0.77'),
      /^10\.9\.0\.77 is reserved for web, which gets it at its next start; an engine before 29 .*--ip 10\.9\.0\.77\n$/,
    );
    assert.match(await command('leases'), /^10\.9\.0\.77 +reserved +web +[0-9a-f]{12} /m);
    const long = 'x'.repeat(200);
    await command('reserve', long, '10.9.0.79');
    assert.match(await command('leases'), /^10\.9\.0\.79 +reserved +x{45}\.{3} /m);
    assert.match(await command('reserve', 'db', '10.9.0.79'), new RegExp(`tsmacvlan unreserve "${long}"`));
    await command('unreserve', long);
    assert.match(await command('reserve', 'x'.repeat(300), '10.9.0.79'), /has 300 characters, .* at most 255/);
    assert.match(
      await command('reserve', 'db', '10.9.0.79', '--network', 'nope'),
      /^tsmacvlan: no network ID starts with "nope"; give --network/,
    );
    await restart('SIGKILL');
    const had = await live('web', async () => {
      assert.match(await command('leases'), /^10\.9\.0\.77 +container +web \(reserved\) /m);
      assert.match(
        await command('reserve', 'web', '10.9.0.78'),
        /container "web" has 10\.9\.0\.77 on this network at this moment/,
      );
      assert.match(await command('reserve', 'db', '10.9.0.77'), /is reserved for container "web"/);
    });
    assert.equal(had.four, '10.9.0.77/24');
    assert.match(await command('reserve', 'web'), /call tsmacvlan reserve NAME ADDRESS/);
    assert.match(await command('reserve', 'web', '10.10.0.1'), /is not given out from 10\.9\.0\.0\/24, fd09::\/64/);
    assert.match(await command('unreserve', 'web'), /^nothing is kept for web any more; it had 10\.9\.0\.77 fd09::/);
    assert.match(await command('unreserve', 'web'), /^tsmacvlan: nothing is reserved or remembered for "web"/);
    await remove();
  });

  test('who loses a race for an address hears at once for whom it is reserved', async () => {
    await restart('SIGTERM', { PROBE: 'fast' });
    await create();
    const reserve = (Name: string, Address: string) =>
      daemon.call('Tsmacvlan.ReserveAddress', { Name, Address, Network: '' });
    const name = (container: string, Address: string) =>
      daemon.call('IpamDriver.RequestAddress', {
        PoolID: pools[0],
        Address,
        Options: { 'com.docker.network.endpoint.name': container },
      });
    const many = await Promise.all(Array.from({ length: 8 }, (_, index) => reserve(`m${index}`, '10.9.0.140')));
    const winner = many.findIndex(({ status }) => status === 200);
    for (const { sentence } of many.toSpliced(winner, 1))
      assert.match(sentence, new RegExp(`10\\.9\\.0\\.140 is reserved for container "m${winner}"`));

    const beganMs = performance.now();
    const first = reserve('web', '10.9.0.141');
    await setTimeout(100);
    const [{ status }, start, other] = await Promise.all([
      first,
      name('thief', '10.9.0.141'),
      reserve('b', '10.9.0.141'),
    ]);
    assert.equal(status, 200);
    for (const { sentence } of [start, other]) assert.match(sentence, /10\.9\.0\.141 is reserved for container "web"/);
    assert.ok(performance.now() - beganMs < 3000);

    const host = await killedWhileReserving(reserve);
    assert.equal((await reserve('another', `10.9.0.${host}`)).status, 200);
    assert.match(await command('leases'), new RegExp(`^10\\.9\\.0\\.${host} +reserved +another `, 'm'));
    await remove();
  });

  /** The daemon, in the tenth of a second in which it asks the LAN; answers the address's last number. */
  async function killedWhileReserving(reserve: (name: string, address: string) => Promise<unknown>): Promise<number> {
    const state = async (host: number) =>
      new RegExp(`^10\\.9\\.0\\.${host} +(\\w+) +killed `, 'm').exec(await command('leases'))?.[1];
    for (let host = 142; host < 162; host++) {
      void reserve('killed', `10.9.0.${host}`).catch(() => undefined);
      while ((await state(host)) === undefined);
      await restart('SIGKILL', { PROBE: 'fast' });
      if ((await state(host)) === 'container') return host;
    }
    return assert.fail('it was never killed in time');
  }
});
