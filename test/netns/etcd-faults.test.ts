/** What hosts that share addresses do, and say, when etcd fails them. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PluginError } from '../../src/errors.ts';
import { readAccess } from '../../src/store/etcd/access.ts';
import { Authority, pem } from '../lab/certificates.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { inTime, until } from '../lab/patience.ts';
import { Proxy } from '../lab/proxy.ts';
import { type Place, SharedHost } from '../lab/shared.ts';

/** The server gives a call up after 9 s: a sentence has to come before. */
const SOON_MS = 8000;
/** So often at most a host logs in where no answer comes. */
const LOGINS_APART_MS = 10_000;
/** Each test has etcds of its own, at ports of their own. */
let port = 24000;

describe('etcd that fails', { skip: outsideLab(), timeout: 500_000 }, () => {
  const options = { timeout: 120_000 };

  test('a member that dies and a leader that dies are not noticed', options, async (t) => {
    const { etcd, host } = await begin(t, { members: 3 });
    const one = host();
    await one.address();
    for (const member of [await etcd.leader(), (await etcd.leader()) + 1]) {
      await etcd.stopMember(member % 3);
      await one.address();
      etcd.startMember(member % 3);
      // All of them: with two away there is no majority.
      await until(async () => (await etcd.ctl('endpoint', 'health')).code === 0);
    }
    assert.deepEqual(await claimsIn(etcd), ['192.168.1.1', '192.168.1.2', '192.168.1.3']);
    assert.deepEqual(one.store.diary, ['the shared store can be reached']);
  });

  test('without quorum claims are refused soon, releases wait on disk and are made good', options, async (t) => {
    const { etcd, host } = await begin(t, { members: 3 });
    const one = host();
    const [kept, released] = [await one.address(), await one.address()];
    for (const member of [0, 1]) await etcd.stopMember(member);
    await one.release(released);
    await refused(one, 'CLUSTER_UNREACHABLE', /^the shared store has no quorum or cannot be reached /);
    await refused(
      one,
      'CLUSTER_UNREACHABLE',
      /; running containers go on, and no new addresses are given out until a majority of its members is back$/,
    );

    // What waits, waits on disk.
    await one.store.close();
    for (const member of [0, 1]) etcd.startMember(member);
    await etcd.ready();
    const again = host({ directory: one.place.directory });
    await until(async () => (await claimsIn(etcd)).join() === kept);
    assert.equal(await again.address(), released);
  });

  test(
    'without quorum STORE_FALLBACK=probe gives out what the LAN says is free, and claims it later',
    options,
    async (t) => {
      const { etcd, host } = await begin(t);
      const one = host({ fallsBack: true });
      const first = await one.address();
      await etcd.stopMember(0);
      await one.pool();
      const second = await one.address();
      const asLease = (address: string) => ({ realm: 'TsmacvlanLocal', address });
      assert.deepEqual(
        [first, second].map((address) => one.store.leases.needsProof(asLease(address))),
        [null, 'rfc'],
      );
      etcd.startMember(0);
      await until(async () => (await claimsIn(etcd).catch(() => [])).length === 2);
      await until(async () => one.store.leases.needsProof(asLease(second)) === null);
    },
  );

  test('a host that is cut off is refused soon, keeps what it has, and is back by itself', options, async (t) => {
    const { etcd, host } = await begin(t);
    const proxy = await Proxy.open(etcd.endpoints[0] ?? '');
    t.after(() => proxy.close());
    const [cut, other] = [host({ endpoints: [proxy.endpoint] }), host()];
    const kept = await cut.address();
    proxy.silence(true);
    await refused(cut, 'CLUSTER_UNREACHABLE', /: no answer in time\)/);
    assert.notEqual(await other.address(), kept);
    await assert.rejects(other.address(kept), { code: 'ADDRESS_TAKEN' });
    proxy.silence(false);
    await until(() =>
      cut.address().then(
        () => true,
        () => false,
      ),
    );
    // What was asked for while it was cut off may still reach the member, and is given back.
    await until(async () => (await claimsIn(etcd)).length === 3);
  });

  test('connections that break are not noticed', options, async (t) => {
    const { etcd, host } = await begin(t);
    const proxy = await Proxy.open(etcd.endpoints[0] ?? '');
    t.after(() => proxy.close());
    const one = host({ endpoints: [proxy.endpoint] });
    for (let i = 0; i < 20; i++) {
      const claim = one.address();
      if (i % 2 === 0) proxy.cut();
      await claim;
    }
    assert.equal((await claimsIn(etcd)).length, 20);
  });

  test(
    'a member that stands still for most of the time, as on a slow disk, makes claims slow and no more',
    options,
    async (t) => {
      const { etcd, host } = await begin(t);
      const one = host();
      await one.address();
      const stop = new AbortController();
      const pulses = standStill(etcd, stop.signal);
      for (let i = 0; i < 5; i++) await one.address();
      stop.abort();
      await pulses;
      assert.equal((await claimsIn(etcd)).length, 6);
    },
  );

  test('a full database is named, and what is given back meanwhile is not lost', options, async (t) => {
    const { etcd, host } = await begin(t, { quota: 1 << 20 });
    const one = host();
    const [, released] = [await one.address(), await one.address()];
    await etcd.fill();
    await refused(
      one,
      'CLUSTER_FULL',
      /database of the shared store is full .*; compact and defragment it, then run "etcdctl alarm disarm"$/,
    );
    await one.release(released);
    await etcd.makeRoom();
    await until(async () => (await claimsIn(etcd)).length === 1);
    await until(() =>
      one.address().then(
        () => true,
        () => false,
      ),
    );
  });

  test('a wrong password, a missing user and a missing right are named', options, async (t) => {
    const { etcd, host } = await begin(t);
    for (const words of [
      'user add root:r00t',
      'user grant-role root root',
      'user add host:secret',
      'role add tsmacvlan',
    ])
      await etcd.must(...words.split(' '));
    await etcd.must('auth', 'enable');
    const asRoot = ['--user', 'root:r00t'];
    await refused(host(), 'CLUSTER_LOGIN', /refuses this host .*user name is empty\); correct STORE_USER/);
    const user = { name: 'host', password: 'secret' };
    await refused(
      host({ user: { ...user, password: 'guess' } }),
      'CLUSTER_LOGIN',
      /authentication failed, invalid user ID or password/,
    );
    const one = host({ user });
    await refused(one, 'CLUSTER_LOGIN', /permission denied\); .*grant that user the keys below \/tsmacvlan\/$/);
    await etcd.must(...asRoot, 'role', 'grant-permission', 'tsmacvlan', '--prefix=true', 'readwrite', '/tsmacvlan/');
    await etcd.must(...asRoot, 'user', 'grant-role', 'host', 'tsmacvlan');
    await until(() =>
      one.address().then(
        () => true,
        () => false,
      ),
    );
  });

  test('a password that is changed, and a lock that is opened and closed, cost no claim', options, async (t) => {
    const { etcd, host, directory } = await begin(t);
    const words = ['user add root:r00t', 'user grant-role root root', 'user add host:first', 'role add tsmacvlan'];
    for (const one of words) await etcd.must(...one.split(' '));
    await etcd.must('role', 'grant-permission', 'tsmacvlan', '--prefix=true', 'readwrite', '/tsmacvlan/');
    await etcd.must('user', 'grant-role', 'host', 'tsmacvlan');
    await etcd.must('auth', 'enable');
    const asRoot = ['--user', 'root:r00t'];
    const file = join(directory, 'password');
    writeFileSync(file, 'first\n');
    const one = host({ access: readAccess({ ...SETTINGS, endpoints: etcd.endpoints, user: 'host', password: file }) });
    await one.address();
    const stop = new AbortController();
    const claims = claimAll(one, stop.signal);
    await sleep(500);
    await etcd.changePassword('host', 'second', 'root:r00t');
    await sleep(1000);
    writeFileSync(file, 'second\n');
    await sleep(2000);
    await etcd.must(...asRoot, 'auth', 'disable');
    await sleep(1000);
    await etcd.must('auth', 'enable');
    await sleep(1000);
    stop.abort();
    assert.deepEqual(await claims, []);
    assert.deepEqual(one.store.diary, ['the shared store can be reached']);
  });

  test('a host that logged in before etcd was restored does so again', options, async (t) => {
    const { etcd, host, directory } = await begin(t);
    await etcd.must('put', 'x', '1');
    for (const one of ['user add root:r00t', 'user grant-role root root']) await etcd.must(...one.split(' '));
    await etcd.must('auth', 'enable');
    etcd.login = 'root:r00t';
    const snapshot = join(directory, 'snapshot');
    await etcd.save(snapshot);
    // What is written now makes the index of the host's token a later one.
    for (let i = 0; i < 30; i++) await etcd.must('put', 'x', String(i));
    const one = host({ user: { name: 'root', password: 'r00t' } });
    await one.address();
    await sleep(LOGINS_APART_MS);
    await etcd.stopMember(0);
    await etcd.restore(snapshot);
    etcd.startMember(0);
    await etcd.ready();
    await until(() =>
      one.address().then(
        () => true,
        () => false,
      ),
    );
    assert.ok((await claimsIn(etcd)).length >= 2);
  });

  test('certificates that are renewed are taken from their files, by those that run too', options, async (t) => {
    const directory = mkdtempSync('/run/tls-');
    const [before, later] = [
      await Authority.create(join(directory, '1')),
      await Authority.create(join(directory, '2')),
    ];
    const files = ['ca.pem', 'cert.pem', 'key.pem'].map((name) => join(directory, name)) as [string, string, string];
    const server = { cert: join(directory, 's.pem'), key: join(directory, 'sk.pem'), ca: files[0] };
    const renew = async (authority: Authority) => {
      const [client, own] = [await authority.issue('web1'), await authority.issue('server')];
      for (const [from, to] of [
        [authority.ca.cert, files[0]],
        [client.cert, files[1]],
        [client.key, files[2]],
        [own.cert, server.cert],
        [own.key, server.key],
      ] as const)
        copyFileSync(from, to);
    };
    await renew(before);
    const { etcd, host } = await begin(t, { tls: { ...server, client: { cert: files[1], key: files[2] } } });
    const [ca, cert, key] = files;
    const settings = { ...SETTINGS, endpoints: etcd.endpoints, isSecure: true, ca, cert, key };
    const one = host({ access: readAccess(settings) });
    await one.address();
    await renew(later);
    await etcd.stopMember(0);
    etcd.startMember(0);
    await until(() =>
      one.address().then(
        () => true,
        () => false,
      ),
    );
  });

  test(
    'a member that became a cluster of its own is passed over and named, also by a host that is new',
    options,
    async (t) => {
      const { etcd, host } = await begin(t, { members: 3 });
      const places = Array.from({ length: 2 }, () => mkdtempSync('/run/host-'));
      const had = new Set<string>();
      const claimFrom = async (directory: string) => {
        const one = host({ directory });
        const address = await one.address();
        assert.ok(!had.has(address), `${address} twice`);
        had.add(address);
        await one.store.close();
        return one.store.diary;
      };
      for (const place of places) await claimFrom(place);
      await etcd.replaceByStranger(((await etcd.leader()) + 1) % 3);
      await until(async () => (await etcd.ctl('endpoint', 'health')).code === 0);
      const diaries: string[] = [];
      // Each time another member is asked first, as chance has it.
      for (let i = 0; i < 6; i++) for (const place of places) diaries.push(...(await claimFrom(place)));
      for (let i = 0; i < 6; i++) diaries.push(...(await claimFrom(mkdtempSync('/run/host-'))));
      assert.ok(diaries.some((line) => line.startsWith('the members named in STORE are not one cluster')));
      const kept = await Promise.all([0, 1, 2].map((member) => etcd.keysAt(member, '/tsmacvlan/lan/leases/')));
      assert.deepEqual(
        kept.map((keys) => keys.length).sort((a, b) => a - b),
        [0, had.size, had.size],
      );
    },
  );

  test(
    'where only the stranger answers nothing is given out, and a whole new etcd is taken for restored',
    options,
    async (t) => {
      const { etcd, host } = await begin(t, { members: 3 });
      const one = host();
      const address = await one.address();
      await etcd.replaceByStranger(0);
      for (const member of [1, 2]) await etcd.stopMember(member);
      await until(() =>
        one.address().then(
          () => assert.fail('given out by a stranger'),
          (error: PluginError) => error.code === 'CLUSTER_SPLIT',
        ),
      );
      await refused(
        one,
        'CLUSTER_SPLIT',
        /^the members named in STORE are not one cluster: .* is of cluster [0-9a-f]+, /,
      );
      for (const member of [0, 1, 2]) await etcd.replaceByStranger(member);
      // Three clusters of one member each are none.
      await refused(one, 'CLUSTER_SPLIT', /must join the others again/);
      await etcd.beginAnew('another');
      await until(async () => (await claimsIn(etcd).catch(() => [])).join() === address);
      await until(() => one.store.diary.some((line) => line.startsWith('the shared store was restored')));
    },
  );

  test(
    'certificates: an ordinary client certificate does, an expired one and a stranger are named',
    options,
    async (t) => {
      const directory = mkdtempSync('/run/tls-');
      const authority = await Authority.create(directory);
      const [server, client, old] = [
        await authority.issue('server'),
        await authority.issue('web1'),
        await authority.issue('web2', -1),
      ];
      const { host } = await begin(t, { tls: { ...server, ca: authority.ca.cert, client } });
      assert.equal(await host({ tls: pem(client, authority.ca) }).address(), '192.168.1.1');
      await refused(
        host({ tls: pem(old, authority.ca) }),
        'CLUSTER_TLS',
        /no TLS connection to the shared store .*; renew the certificate/,
      );
      const stranger = await Authority.create(join(directory, 'other'));
      await refused(host({ tls: pem(client, stranger.ca) }), 'CLUSTER_TLS', /unable to verify|self-signed/);
      const { host: atOld } = await begin(t, { tls: { ...old, ca: authority.ca.cert, client: null } });
      await refused(
        atOld({ tls: { ca: pem(client, authority.ca).ca } }),
        'CLUSTER_TLS',
        /certificate has expired\); renew the certificate that is wrong/,
      );
    },
  );

  test(
    'restored from an old snapshot, etcd learns again what hosts have before anybody gets more',
    options,
    async (t) => {
      const { etcd, host, directory } = await begin(t);
      const [one, two] = [host(), host()];
      const had = [await one.address()];
      const snapshot = join(directory, 'snapshot');
      await etcd.must('snapshot', 'save', snapshot);
      for (const each of [one, two, one, two]) had.push(await each.address());
      await etcd.stopMember(0);
      await etcd.restore(snapshot);
      etcd.startMember(0);
      await etcd.ready();
      await until(async () =>
        [one, two].every(({ store }) => store.diary.some((line) => line.includes('was restored'))),
      );
      await refused(two, 'CLUSTER_RESTORED', /restored or replaced a moment ago, .*; try again in \d+ s$/);
      await until(async () => (await claimsIn(etcd)).length === 5);
      await until(() =>
        two.address().then(
          (address) => had.push(address) > 5,
          () => false,
        ),
      );
      assert.equal(new Set(had).size, 6);
      assert.deepEqual(await claimsIn(etcd), had.sort());
    },
  );
});

/** Of a host that reads its password and certificates from files. */
const SETTINGS = {
  cluster: 'lan',
  endpoints: [],
  isSecure: false,
  user: '',
  password: '',
  ca: '',
  cert: '',
  key: '',
  fallsBack: false,
};

/** What each claim was refused with, until the signal. */
async function claimAll(host: SharedHost, signal: AbortSignal): Promise<string[]> {
  const refusals: string[] = [];
  while (!signal.aborted) {
    await host.address().catch((error: unknown) => refusals.push(String(error)));
    await sleep(50);
  }
  return refusals;
}

interface Wish {
  readonly members?: number;
  readonly quota?: number;
  readonly tls?: {
    readonly cert: string;
    readonly key: string;
    readonly ca: string;
    readonly client: { cert: string; key: string } | null;
  };
}

/** An etcd, and what makes hosts at it. */
async function begin(t: TestContext, wish: Wish = {}) {
  const directory = mkdtempSync('/run/etcd-');
  const etcd = await EtcdCluster.start({ directory, firstPort: (port += 100), ...wish });
  t.after(() => etcd.stop());
  const host = (choices: Partial<Place> = {}): SharedHost => {
    const place = { directory: mkdtempSync('/run/host-'), endpoints: etcd.endpoints, cluster: 'lan' };
    return new SharedHost(t, { ...place, ...choices });
  };
  return { etcd, host, directory };
}

async function refused(host: SharedHost, code: string, message: RegExp): Promise<void> {
  await inTime(SOON_MS, async () => {
    const error = await host.address().then(
      (address) => assert.fail(`${address} was given out`),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof PluginError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
  });
}

async function claimsIn(etcd: EtcdCluster): Promise<string[]> {
  const keys = await etcd.must('get', '--prefix', '--keys-only', '/tsmacvlan/lan/leases/');
  return keys.split('\n').flatMap((key) => key.split('/').at(-1) || []);
}

async function standStill(etcd: EtcdCluster, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    etcd.signal(0, 'SIGSTOP');
    await sleep(500);
    etcd.signal(0, 'SIGCONT');
    await sleep(50);
  }
}
