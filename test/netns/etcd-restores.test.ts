/** An etcd that was restored or replaced: what hosts had is given to nobody, also where that does not show at once. */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PluginError } from '../../src/errors.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { until } from '../lab/patience.ts';
import { Proxy } from '../lab/proxy.ts';
import { openShared, type Place, SharedHost } from '../lab/shared.ts';

/** Each test has etcds of its own, at ports of their own. */
let port = 24000;
/** More than hosts knew of; other programs write to this etcd too. */
const FURTHER = 40;
const RESTORED = 'the shared store was restored or replaced: what this host has is claimed again';

describe('etcd that is restored', { skip: outsideLab(), timeout: 300_000 }, () => {
  const options = { timeout: 120_000 };

  test('it is noticed also when the store has gone on beyond what hosts knew', options, async (t) => {
    const { etcd, host, directory } = await begin(t);
    const proxy = await Proxy.open(etcd.endpoints[0] ?? '');
    t.after(() => proxy.close());
    const [one, cut, third] = [host(), host({ endpoints: [proxy.endpoint] }), host()];
    await cut.address();
    const snapshot = join(directory, 'snapshot');
    await etcd.save(snapshot);
    const address = await one.address();
    await third.address();
    await until(async () => (await cut.store.leases.get(`TsmacvlanLocal/${address}`)) !== undefined);
    proxy.silence(true);
    proxy.cut();
    // Both are stopped over the restore, and only one comes back.
    for (const { store } of [one, third]) await store.close();
    await etcd.stopMember(0);
    await etcd.restore(snapshot);
    etcd.startMember(0);
    await etcd.ready();
    for (let i = 0; i < FURTHER; i++) await etcd.must('put', '/other/key', String(i));
    proxy.silence(false);
    await until(() => cut.store.diary.includes(RESTORED));
    const { directory: place, endpoints, cluster } = third.place;
    const back = openShared(place, endpoints, cluster);
    t.after(() => back.close());
    await until(() => back.diary.includes(RESTORED));
  });

  test('a store that only went on is not taken for restored', options, async (t) => {
    const { etcd, host } = await begin(t);
    const [one, two] = [host(), host()];
    const had = await one.address();
    await two.address();
    await one.store.close();
    // The claim that was changed last goes, and what was known is compacted away.
    await two.release('192.168.1.2');
    await two.address('192.168.1.77');
    const { header } = JSON.parse(await etcd.must('get', '-w', 'json', 'x')) as { header: { revision: number } };
    for (const isCompacted of [false, true]) {
      if (isCompacted) await etcd.must('compact', String(header.revision));
      const { directory, endpoints, cluster } = one.place;
      const again = openShared(directory, endpoints, cluster);
      await until(() => again.diary.includes('the shared store can be reached'));
      assert.ok(!again.diary.includes(RESTORED));
      assert.ok(await again.leases.get(`TsmacvlanLocal/${had}`));
      await again.close();
    }
  });

  test('while hosts change over to a new etcd nobody gets what another one has', options, async (t) => {
    const { etcd, host } = await begin(t, { members: 3 });
    const [one, two] = [host(), host()];
    const address = await one.address('192.168.1.52');
    await until(async () => (await two.store.leases.get(`TsmacvlanLocal/${address}`)) !== undefined);
    const over = new AbortController();
    const codes = new Set<string>();
    const asked = Array.from({ length: 4 }, async (_, at) => {
      await sleep(at * 50);
      for (; !over.signal.aborted; await sleep(100))
        await two.address(address).then(
          () => codes.add('granted'),
          ({ code }: PluginError) => codes.add(code),
        );
    });
    await etcd.beginAnew('another');
    await until(async () => (await etcd.must('get', '--prefix', '--keys-only', '/tsmacvlan/lan/leases/')) !== '');
    over.abort();
    await Promise.all(asked);
    assert.ok(!codes.has('granted'), [...codes].join());
    assert.ok(codes.has('CLUSTER_RESTORED'), [...codes].join());
  });
});

async function begin(t: TestContext, wish: { members?: number } = {}) {
  const directory = mkdtempSync('/run/etcd-');
  const etcd = await EtcdCluster.start({ directory, firstPort: (port += 100), ...wish });
  t.after(() => etcd.stop());
  const host = (choices: Partial<Place> = {}): SharedHost => {
    const place = { directory: mkdtempSync('/run/host-'), endpoints: etcd.endpoints, cluster: 'lan' };
    return new SharedHost(t, { ...place, ...choices });
  };
  return { etcd, host, directory };
}
