/** What hosts that share addresses do, and say, when etcd fails them. */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PluginError } from '../../src/errors.ts';
import { Authority, pem } from '../lab/certificates.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { inTime, until } from '../lab/patience.ts';
import { Proxy } from '../lab/proxy.ts';
import { type Place, SharedHost } from '../lab/shared.ts';

/** The server gives a call up after 9 s: a sentence has to come before. */
const SOON_MS = 8000;
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
    await refused(
      one,
      'CLUSTER_UNREACHABLE',
      /^no new addresses while the shared store has no quorum or cannot be reached /,
    );
    await refused(one, 'CLUSTER_UNREACHABLE', /; running containers go on, bring a majority of its members back /);

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
    for (let i = 0; (await etcd.ctl('put', 'filler', 'x'.repeat(100_000))).code === 0; i++) assert.ok(i < 100);
    await refused(
      one,
      'CLUSTER_FULL',
      /database of the shared store is full .*; compact and defragment it, then run "etcdctl alarm disarm"$/,
    );
    await one.release(released);
    const { header } = JSON.parse(await etcd.must('get', '-w', 'json', 'x')) as { header: { revision: number } };
    await etcd.must('compact', String(header.revision));
    await etcd.must('defrag');
    await etcd.must('alarm', 'disarm');
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
