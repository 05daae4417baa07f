/** The store that hosts share, on a real etcd: the cases of every store, and hosts that want the same addresses. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test, type TestContext } from 'node:test';
import { setImmediate as immediate } from 'node:timers/promises';
import { formatAddress } from '../../src/address.ts';
import type { PluginError } from '../../src/errors.ts';
import type { Probe } from '../../src/ipam/driver.ts';
import type { Lease } from '../../src/model.ts';
import type { Picture } from '../../src/page/picture.ts';
import { Etcd } from '../../src/store/etcd/client.ts';
import { openLocalStore } from '../../src/store/local.ts';
import { accessTo } from '../lab/access.ts';
import { type Result, run } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { until } from '../lab/patience.ts';
import { openShared, SharedHost } from '../lab/shared.ts';
import { testStore } from '../unit/store/contract.ts';
import { leaseRecord } from '../unit/store/lease.ts';

const ENTRY = join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
const { PATH, NODE_COMPILE_CACHE } = process.env;
const ENVIRONMENT = { PATH, NODE_COMPILE_CACHE };
const FREE: Probe = async () => ({ held: false });

describe('etcd', { skip: outsideLab(), timeout: 500_000 }, () => {
  let etcd: EtcdCluster;
  let clusters = 0;

  before(async () => {
    etcd = await EtcdCluster.start({ directory: scratch() });
  });
  after(() => etcd.stop());

  const fixture = async () => {
    const place = [scratch(), etcd.endpoints, `contract${++clusters}`] as const;
    return { open: async () => openShared(...place), writerArguments: ['etcd', JSON.stringify(place)] };
  };
  // Most of what a kill could lose is in the embedded store, which has its own cases. A page of etcd's keys is 2,000.
  testStore('etcd', fixture, { kills: 6, records: 5000 });

  const options = { timeout: 120_000 };
  const nextCluster = () => `hosts${++clusters}`;
  const claimsOf = async (cluster: string): Promise<string[]> => {
    const claims = await etcd.read(`/tsmacvlan/${cluster}/leases/`);
    return claims.map(({ key }) => key.split('/').at(-1) ?? '');
  };
  const hosts = (t: TestContext, cluster: string, count: number, probe = FREE): SharedHost[] =>
    Array.from(
      { length: count },
      () => new SharedHost(t, { directory: scratch(), endpoints: etcd.endpoints, cluster, probe }),
    );

  test('hosts that ask at once never get the same address', options, async (t) => {
    const cluster = nextCluster();
    const four = hosts(t, cluster, 4);
    const given = await Promise.all(four.flatMap((host) => Array.from({ length: 60 }, () => host.address())));
    assert.equal(new Set(given).size, 240);
    await assert.rejects(
      Promise.all(four.flatMap((host) => Array.from({ length: 4 }, () => host.address()))),
      /no free address in 192.168.1.0\/24: 25[0-9] leased; /,
    );
  });

  test('hosts that ask all the time go out of each other’s way', options, async (t) => {
    const sixteen = hosts(t, nextCluster(), 16);
    await Promise.all(sixteen.map((host) => host.pool('10.77.0.0/16')));
    await until(async () => sixteen.every(({ store }) => store.diary.length > 0));
    const tries = () => etcd.metric('grpc_server_started_total', 'grpc_method="Txn"');
    const before = await tries();
    const ask = async (host: SharedHost) => {
      for (let i = 0; i < 10; i++) await host.address();
    };
    await Promise.all(sixteen.map(ask));
    // All of them going for the lowest: eleven.
    const triesPerClaim = ((await tries()) - before) / 160;
    assert.ok(triesPerClaim < 6, `${triesPerClaim} tries for each claim`);
  });

  test('what one host gave back another one gets', options, async (t) => {
    const [one, two] = hosts(t, nextCluster(), 2) as [SharedHost, SharedHost];
    const first = await one.address();
    assert.notEqual(await two.address(), first);
    await one.release(first);
    await until(async () => (await two.address()) === first);
  });

  test('an address that another host has is refused by the name of that host', options, async (t) => {
    const [one, two] = hosts(t, nextCluster(), 2) as [SharedHost, SharedHost];
    const address = await one.address('192.168.1.40');
    const node = one.store.leases.node;
    await assert.rejects(two.address(address), {
      code: 'ADDRESS_TAKEN',
      message: `address ${address} is used on host ${node} of the shared store; choose another --ip`,
    });
  });

  test('hosts share a gateway, asked for or chosen, and the last one frees it', options, async (t) => {
    const cluster = nextCluster();
    const [one, two] = hosts(t, cluster, 2) as [SharedHost, SharedHost];
    assert.equal(await one.gateway(null), '192.168.1.1');
    assert.equal(await two.gateway(null), '192.168.1.1');
    assert.deepEqual([await one.address(), await two.address()], ['192.168.1.2', '192.168.1.3']);
    await one.release('192.168.1.2');
    await two.release('192.168.1.3');
    await one.ipam.releasePool(await one.pool());
    // Where etcd does not answer at once, it is told later.
    await until(async () => (await claimsOf(cluster)).join() === '192.168.1.1');
    await two.ipam.releasePool(await two.pool());
    await until(async () => (await claimsOf(cluster)).length === 0);
  });

  test('hosts that name one gateway at the same moment all have it, and all give it back', options, async (t) => {
    const cluster = nextCluster();
    const many = hosts(t, cluster, 24).map(({ store }) => store.leases);
    const gateway: Lease = { ...leaseRecord('192.168.1.1', 'TsmacvlanLocal'), kind: 'gateway' };
    const answers = await Promise.all(many.map((leases) => leases.insert(gateway)));
    assert.deepEqual(
      answers,
      many.map(() => true),
    );
    await Promise.all(many.map((leases) => leases.remove(gateway)));
    await until(async () => (await claimsOf(cluster)).length === 0);
  });

  test('no host takes what it knows nothing of for a leak', options, async (t) => {
    const cluster = nextCluster();
    const [one, two] = hosts(t, cluster, 2) as [SharedHost, SharedHost];
    const address = await one.address();
    await two.pool();
    await until(async () => (await two.store.leases.get(`TsmacvlanLocal/${address}`)) !== undefined);
    two.timeMs += 3_600_000;
    assert.deepEqual(await two.ipam.leaks(), []);
    await two.release(address);
    assert.deepEqual(await claimsOf(cluster), [address]);
  });

  test(
    'what a host had before it shared is claimed at its first start, what it no longer has is given back',
    options,
    async (t) => {
      const cluster = nextCluster();
      const directory = scratch();
      const local = openLocalStore(directory);
      for (const address of ['192.168.1.2', '192.168.1.3']) await local.leases.insert(leaseRecord(address));
      await local.close();
      const first = openShared(directory, etcd.endpoints, cluster);
      await until(async () => (await claimsOf(cluster)).length === 2);
      await first.close();

      // As after a crash between the two records.
      const behind = openLocalStore(directory);
      await behind.leases.remove(leaseRecord('192.168.1.2'));
      await behind.close();
      const second = openShared(directory, etcd.endpoints, cluster);
      t.after(() => second.close());
      await until(async () => (await claimsOf(cluster)).join() === '192.168.1.3');
    },
  );

  test(
    'two hosts that both had an address before they shared it are told, and neither record is lost',
    options,
    async (t) => {
      const cluster = nextCluster();
      const both = { ...leaseRecord('192.168.1.2'), endpointId: 'e1' };
      const [one, two] = [scratch(), scratch()];
      for (const directory of [one, two]) {
        const local = openLocalStore(directory);
        await local.leases.insert(both);
        await local.close();
      }
      const stores = [one, two].map((directory) => openShared(directory, etcd.endpoints, cluster));
      t.after(() => Promise.all(stores.map((store) => store.close())));
      const told = () =>
        stores.flatMap((store) => store.diary).filter((line) => line.startsWith('an address of this host'));
      // By both, however it came to be.
      await until(async () => told().length === 2);
      for (const store of stores) assert.deepEqual(await store.leases.list(), [both]);
    },
  );

  test(
    'addresses of a lost host are given out when nothing else is free and the LAN says that they are',
    options,
    async (t) => {
      const cluster = nextCluster();
      const onLan = new Set<string>();
      const probe: Probe = async (_pool, address) =>
        onLan.has(formatAddress(address))
          ? { held: true, macAddress: '02:42:c0:a8:01:02', linkName: 'eth0', simultaneous: false, isOnHost: false }
          : { held: false };
      const [lost, other] = hosts(t, cluster, 2, probe) as [SharedHost, SharedHost];
      await lost.pool('192.168.1.0/29');
      await other.pool('192.168.1.0/29');
      const addresses = [await lost.address(), await lost.address(), await lost.address()];
      const rest = [await other.address(), await other.address(), await other.address()];
      await assert.rejects(other.address(), { code: 'RANGE_EXHAUSTED' });

      await lost.store.close();
      await assert.rejects(other.address(), { code: 'RANGE_EXHAUSTED' }, 'it is not known to be lost yet');
      onLan.add(addresses[0] ?? '').add(addresses[1] ?? '');
      await until(
        async () => (await other.store.leases.get(`TsmacvlanLocal/${addresses[0]}`))?.holder?.isAlive === false,
      );
      assert.equal(await other.address(), addresses[2], 'the containers of the other two are there');
      // Long enough to ask again those that answered a moment ago.
      await assert.rejects(other.address(null, 6000), (error: PluginError) => {
        const words = `${lost.store.leases.node} has 2: bring them back, or free what they do not use with tsmacvlan store forget`;
        const [uses = ''] = /: 4 leased, .* used by others on the LAN(?=, the last)/.exec(error.message) ?? [];
        const sum = [...uses.matchAll(/\d+/g)].reduce((total, [count]) => total + Number(count), 0);
        assert.equal(sum, 6, error.message);
        assert.ok(error.message.includes(words), error.message);
        return true;
      });
      assert.deepEqual((await claimsOf(cluster)).length, 6);
      assert.equal(new Set([...addresses, ...rest]).size, 6);

      const back = new SharedHost(t, { ...lost.place });
      await until(async () => back.store.diary.some((line) => line.startsWith('an address of this host')));
      assert.deepEqual((await other.store.leases.list()).filter(({ holder }) => holder === undefined).length, 4);
    },
  );

  test('a host that starts leaves the addresses of a lost one alone while others are free', options, async (t) => {
    const cluster = nextCluster();
    const [lost] = hosts(t, cluster, 1) as [SharedHost];
    assert.equal(await lost.address(), '192.168.1.1');
    await lost.store.close();
    const [started] = hosts(t, cluster, 1) as [SharedHost];
    assert.equal(await started.address(), '192.168.1.2');
  });

  test('a copied state directory is refused on the second host', options, async (t) => {
    const [one] = hosts(t, nextCluster(), 1) as [SharedHost];
    await one.address();
    const { node } = one.store.leases;
    const copy = openShared(scratch(), etcd.endpoints, one.place.cluster, { self: { node, host: 'copy' } });
    t.after(() => copy.close());
    await assert.rejects(copy.leases.insert(leaseRecord('192.168.1.77')), { code: 'CLUSTER_NODE_TAKEN' });
  });

  test(
    'a lease of etcd whose grant was carried out and not answered is there when it is asked for again',
    options,
    async () => {
      const client = new Etcd(accessTo(etcd.endpoints));
      for (let tries = 0; tries < 2; tries++) await client.grant(4711, 60);
      client.close();
    },
  );

  test('what a host had at another place is not given back before it has read what that is', options, async (t) => {
    const [cluster, there, here] = [nextCluster(), scratch(), scratch()];
    const before = openShared(there, etcd.endpoints, cluster);
    await before.leases.insert(leaseRecord('192.168.1.2'));
    await before.close();
    for (const file of ['node', 'stopped']) copyFileSync(join(there, file), join(here, file));
    const after = openShared(here, etcd.endpoints, cluster);
    t.after(() => after.close());
    // Looks for leaks at every moment of the start.
    const looks: Promise<unknown>[] = [];
    for (; !after.diary.includes('the shared store can be reached'); await immediate()) looks.push(after.leases.kept());
    await Promise.all(looks);
    await until(() => after.leases.isSettled);
    assert.deepEqual(await claimsOf(cluster), ['192.168.1.2']);
    assert.equal((await after.leases.kept()).length, 1);
  });

  /** The served page has what the other host gives out while it is open. */
  async function showsLive(
    t: TestContext,
    { directory, settings, other }: { directory: string; settings: Record<string, string>; other: SharedHost },
  ): Promise<void> {
    const socketPath = join(directory, 'map.sock');
    const words = ['map', '--serve', '--listen', `unix:${socketPath}`, '--cluster'];
    const serving = spawn(process.execPath, [ENTRY, ...words], {
      env: { ...ENVIRONMENT, ...settings },
      stdio: 'ignore',
    });
    t.after(() => serving.kill('SIGKILL'));
    await until(async () => existsSync(socketPath));
    const asked = request({ socketPath, path: '/events', headers: { host: 'localhost' } }).end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    const lines = createInterface({ input: answer })[Symbol.asyncIterator]();
    const shows = async (addresses: string): Promise<void> => {
      const { value, done } = await lines.next();
      assert.ok(done !== true, 'the page has ended');
      const { picture } = JSON.parse(value.replace(/^data: /, '') || '{}') as { picture?: Picture };
      const host = picture?.tree.find(({ kind }) => kind === 'host');
      if (host?.branches.map(({ name }) => name).join(' ') !== addresses) await shows(addresses);
    };
    await shows('192.168.1.3');
    await other.address('192.168.1.4');
    await shows('192.168.1.3 192.168.1.4');
    await other.release('192.168.1.4');
    await shows('192.168.1.3');
    answer.destroy();
    serving.kill('SIGTERM');
    assert.deepEqual(await once(serving, 'exit'), [0, null]);
  }

  test('another schema is refused', options, async (t) => {
    const cluster = nextCluster();
    await etcd.must('put', `/tsmacvlan/${cluster}/schema`, '3');
    const [one] = hosts(t, cluster, 1) as [SharedHost];
    await assert.rejects(one.address(), { code: 'CLUSTER_SCHEMA' });
  });

  test('a host moves in and out, and a dry run tells before', options, async (t) => {
    const cluster = nextCluster();
    const [other] = hosts(t, cluster, 1) as [SharedHost];
    await other.address('192.168.1.3');
    const directory = scratch();
    const local = openLocalStore(directory);
    for (const address of ['192.168.1.2', '192.168.1.3'])
      await local.leases.insert(leaseRecord(address, 'TsmacvlanLocal'));
    await local.close();
    const store = (from: string, to: string, ...more: string[]) =>
      tsmacvlan(
        { STATE_DIR: directory, STORE_CLUSTER: cluster },
        'store',
        'migrate',
        '--from',
        from,
        '--to',
        to,
        ...more,
      );

    const foreseen = await store('local', etcd.url, '--dry-run');
    assert.match(
      foreseen.stdout,
      /^192\.168\.1\.2 .* would be claimed .*\n192\.168\.1\.3 .* taken by .*-[0-9a-f]{12} /m,
    );
    assert.equal((await claimsOf(cluster)).length, 1);

    const moved = await store('local', etcd.url);
    assert.deepEqual([moved.code, (await claimsOf(cluster)).length], [3, 2], moved.stderr);
    const all = await tsmacvlan({ STORE: etcd.url, STORE_CLUSTER: cluster }, 'leases', '--cluster', '--json');
    const shared = JSON.parse(all.stdout) as { address: string; isAlive: boolean }[];
    // Without a daemon nobody keeps the new node alive.
    assert.deepEqual(
      shared.map(({ address, isAlive }) => [address, isAlive]),
      [
        ['192.168.1.2', false],
        ['192.168.1.3', true],
      ],
    );

    // Its page has the other host beside what is here.
    const page = join(directory, 'map.html');
    const settings = { STATE_DIR: directory, STORE: etcd.url, STORE_CLUSTER: cluster };
    const drawn = await tsmacvlan(settings, 'map', '--html', page, '--cluster');
    assert.equal(drawn.code, 0, drawn.stderr);
    const shown = /id="picture">(.*)<\/script>/.exec(readFileSync(page, 'utf8'))?.[1] ?? '';
    const { tree } = JSON.parse(shown) as { tree: { kind: string; branches: { name: string }[] }[] };
    assert.deepEqual(
      tree.map(({ kind, branches }) => [kind, branches.map(({ name }) => name)]),
      [['host', ['192.168.1.3']]],
    );

    await showsLive(t, { directory, settings, other });

    // A container has it by now.
    const used = openLocalStore(directory);
    const lease = (await used.leases.get('TsmacvlanLocal/192.168.1.2')) as Lease;
    await used.leases.replace(lease, { ...lease, endpointId: 'e1' });
    await used.close();
    const refused = await store(etcd.url, 'local');
    assert.match(
      refused.stderr,
      /\(1, as 192\.168\.1\.2\) that the other hosts of the shared store \(1\) would give .* say --force$/m,
    );
    assert.deepEqual([refused.code, (await claimsOf(cluster)).length], [1, 2]);
    assert.equal((await store(etcd.url, 'local', '--dry-run')).stderr, refused.stderr);
    assert.match(
      (await store(etcd.url, 'local', '--dry-run', '--force')).stdout,
      /^192\.168\.1\.2 .* would be given back /m,
    );

    const back = await store(etcd.url, 'local', '--force');
    assert.match(back.stdout, /^192\.168\.1\.2 .* given back /m);
    assert.deepEqual(await claimsOf(cluster), ['192.168.1.3']);
    assert.equal((await store('local', 'local')).code, 2);
  });

  test('an endpoint tied to its address costs etcd nothing', options, async (t) => {
    const cluster = nextCluster();
    const [one] = hosts(t, cluster, 1) as [SharedHost];
    const address = await one.address();
    // Of its own keys: those of hosts that ended before go when their time is up.
    const keys = async () => {
      const found = await etcd.must('get', '-w', 'json', '--prefix', `/tsmacvlan/${cluster}/`);
      return (JSON.parse(found) as { kvs: object[] }).kvs;
    };
    const before = await keys();
    const lease = (await one.store.leases.get(`TsmacvlanLocal/${address}`)) as Lease;
    assert.ok(await one.store.leases.replace(lease, { ...lease, endpointId: 'e1' }));
    assert.deepEqual(await keys(), before);
  });
});

function tsmacvlan(settings: Record<string, string>, ...words: string[]): Promise<Result> {
  return run([process.execPath, ENTRY, ...words], { env: { ...ENVIRONMENT, ...settings } });
}

/** In memory, as everything in /run here. */
function scratch(): string {
  return mkdtempSync('/run/etcd-');
}
