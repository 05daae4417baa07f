/** What Prometheus is told, in its text format; and what stands about it in docs/monitoring.md, in the alerts and the dashboard. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Metrics, type Present } from '../../src/metrics.ts';
import type { Conflict } from '../../src/model.ts';
import { readExposition, valueOf } from '../lab/exposition.ts';
import { dhcp6Lease } from './commands/fixture.ts';

const DOCS = join(import.meta.dirname, '../../docs');
const NETWORK = '3f2a9c1d04be'.padEnd(64, '0');

const CONFLICT: Conflict = {
  kind: 'address',
  parent: 'e"t\\h\u001b0',
  address: '192.0.2.70',
  macAddress: '06:00:00:00:00:01',
  ourMacAddress: '02:42:c0:00:02:46',
  hostLink: null,
  count: 1,
  firstSeenAt: '2026-11-20T10:00:00.000Z',
  seenAt: '2026-11-20T10:00:00.000Z',
  endedAt: null,
};

const ALONE: Present = {
  pools: [
    {
      networkId: NETWORK,
      realm: 'TsmacvlanLocal',
      subnet: '192.0.2.0/24',
      range: '192.0.2.64/28',
      used: 3,
      free: 10,
      held: 2,
      remembered: 1,
      excluded: 0,
    },
  ],
  endpoints: [
    { networkId: NETWORK, state: 'joined' },
    { networkId: NETWORK, state: 'joined', lostAt: '2026-11-20T10:00:00.000Z' },
  ],
  conflicts: [CONFLICT, { ...CONFLICT, address: '192.0.2.71', endedAt: '2026-11-20T10:10:00.000Z' }],
  tenancies: [
    { networkId: NETWORK, state: 'bound' },
    { networkId: NETWORK, state: 'lost' },
    { networkId: NETWORK, state: 'bound' },
    { networkId: NETWORK, state: 'bound', ipv6: { ...dhcp6Lease, state: 'lost', loss: 'silent' } },
  ],
  parents: new Map([
    ['eth0', 'carrier'],
    ['eth0.50', 'gone'],
  ]),
  filteredParents: ['eth0'],
  records: { networks: 1, endpoints: 2, conflicts: 2, names: 0, pools: 1, tenancies: 4 },
  sharing: null,
  contests: 0,
  watchers: { listening: 1, dropped: 0 },
  health: { status: 'ok', reasons: [] },
};

const SHARED: Present = {
  ...ALONE,
  conflicts: [CONFLICT, { ...CONFLICT, address: '192.0.2.72', node: 'web2-0123456789ab', newer: 'here' }],
  sharing: { isUp: false, code: 'CLUSTER_UNREACHABLE' },
  contests: 2,
};

async function told(present: Present) {
  const metrics = new Metrics(async () => present);
  metrics.noteCall({ name: 'NetworkDriver.Join', outcome: 'ok', ms: 12, isLasting: false, error: null });
  metrics.noteCall({ name: 'NetworkDriver.Join', outcome: 'STORE_FULL', ms: 2, isLasting: false, error: null });
  metrics.noteProbe({ verdict: 'held', ms: 700, isStandby: false });
  metrics.noteProbe({ verdict: 'free', ms: 9, isStandby: true });
  metrics.noteHook('dropped');
  metrics.noteExchange({ outcome: 'silent' });
  const time = '2026-11-20T10:00:00.000Z';
  metrics.hear({ what: 'conflict', state: 'begun', ...CONFLICT, endpointId: null, networkId: null, time });
  metrics.hear({ what: 'parent', parent: 'eth0', state: 'no carrier', time });
  metrics.hear({ what: 'warning', message: 'x', fields: {}, time });
  return { metrics, families: readExposition(await metrics.text()) };
}

test('the text is what Prometheus reads, whatever links are called', async () => {
  const { families } = await told(ALONE);
  const pool = { network: '3f2a9c1d04be', realm: 'TsmacvlanLocal', subnet: '192.0.2.0/24', range: '192.0.2.64/28' };
  assert.equal(valueOf(families, 'tsmacvlan_pool_addresses', { ...pool, state: 'free' }), 10);
  assert.equal(valueOf(families, 'tsmacvlan_endpoints', { state: 'lost' }), 1);
  assert.equal(
    valueOf(families, 'tsmacvlan_conflicts', { parent: 'e"t\\h\\u001b0', by: 'stranger', container: 'yes' }),
    1,
  );
  assert.equal(valueOf(families, 'tsmacvlan_parent_state', { parent: 'eth0', state: 'carrier' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_parent_state', { parent: 'eth0', state: 'gone' }), 0);
  assert.equal(valueOf(families, 'tsmacvlan_parent_filtered', { parent: 'eth0' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_calls_total', { call: 'NetworkDriver.Join', outcome: 'ok' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_call_seconds_bucket', { call: 'NetworkDriver.Join', le: '0.005' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_store_errors_total', { code: 'STORE_FULL' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_probes_total', { verdict: 'held' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_probes_total', { verdict: 'failed' }), 0);
  assert.equal(valueOf(families, 'tsmacvlan_standby_total', { hit: 'yes' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_probe_seconds_sum', { standby: 'no' }), 0.7);
  assert.equal(valueOf(families, 'tsmacvlan_hook_runs_total', { outcome: 'dropped' }), 1);
  assert.equal(
    valueOf(families, 'tsmacvlan_hook_runs_total', { outcome: 'failed' }),
    0,
    'the first one is an increase',
  );
  assert.equal(valueOf(families, 'tsmacvlan_dhcp_leases', { network: '3f2a9c1d04be', state: 'bound' }), 2);
  assert.equal(valueOf(families, 'tsmacvlan_dhcp_leases', { network: '3f2a9c1d04be', state: 'lost' }), 2);
  assert.equal(valueOf(families, 'tsmacvlan_dhcp_exchanges_total', { outcome: 'silent' }), 1);
  assert.equal(valueOf(families, 'tsmacvlan_dhcp_exchanges_total', { outcome: 'lost' }), 0);
  assert.equal(valueOf(families, 'tsmacvlan_healthy'), 1);
  assert.ok((valueOf(families, 'process_resident_memory_bytes') ?? 0) > 1e6);
});

test('a host that shares no addresses has no series of the shared store, one that does has them all', async () => {
  const alone = (await told(ALONE)).families;
  for (const name of ['shared_store_up', 'shared_store_fault', 'contested_claims', 'double_addresses'])
    assert.deepEqual(alone.get(`tsmacvlan_${name}`)?.samples, [], name);
  const shared = (await told(SHARED)).families;
  assert.equal(valueOf(shared, 'tsmacvlan_shared_store_up'), 0);
  assert.equal(valueOf(shared, 'tsmacvlan_shared_store_fault', { code: 'CLUSTER_UNREACHABLE' }), 1);
  assert.equal(valueOf(shared, 'tsmacvlan_contested_claims'), 2);
  assert.equal(valueOf(shared, 'tsmacvlan_double_addresses'), 1);
  assert.equal(valueOf(shared, 'tsmacvlan_conflicts', { by: 'own host' }), 1);
});

test('what is gone is not told any more', async () => {
  let present = ALONE;
  const metrics = new Metrics(async () => present);
  readExposition(await metrics.text());
  present = { ...ALONE, pools: [], endpoints: [], conflicts: [], parents: new Map() };
  const before = performance.now();
  // Within a second the answer is the same.
  assert.equal(await metrics.text(), await metrics.text());
  while (performance.now() - before < 1100) await new Promise((resolve) => setTimeout(resolve, 50));
  const families = readExposition(await metrics.text());
  for (const name of ['pool_addresses', 'endpoints', 'conflicts', 'parent_state', 'parent_filtered'])
    assert.deepEqual(families.get(`tsmacvlan_${name}`)?.samples, [], name);
});

test('parents that come and go leave no series behind, and of very many some are told together', async () => {
  const time = '2026-11-20T10:00:00.000Z';
  const names = Array.from({ length: 4000 }, (_, vlan) => `eth0.${vlan}`);
  const parents = new Map(names.map((name) => [name, 'gone'] as const));
  const metrics = new Metrics(async () => ({ ...ALONE, parents, conflicts: [] }));
  for (const parent of names) metrics.hear({ what: 'parent', parent, state: 'gone', time });
  const families = readExposition(await metrics.text());
  const series = (name: string) => families.get(`tsmacvlan_${name}`)?.samples ?? [];
  assert.ok(series('parent_state').length <= 4 * 257, `${series('parent_state').length}`);
  assert.ok(series('parent_changes_total').length <= 257);
  const gone = series('parent_state').filter(({ labels }) => labels['state'] === 'gone');
  assert.equal(
    gone.reduce((sum, { value }) => sum + value, 0),
    4000,
  );
  // These have been, and those that are now get the names.
  let present: Present = { ...ALONE, conflicts: [], parents };
  const later = new Metrics(async () => present);
  for (const parent of names) later.hear({ what: 'parent', parent, state: 'gone', time });
  present = { ...present, parents: new Map([['eth1', 'carrier']]) };
  const left = readExposition(await later.text());
  assert.equal(valueOf(left, 'tsmacvlan_parent_state', { parent: 'eth1', state: 'carrier' }), 1);
  assert.deepEqual(
    left.get('tsmacvlan_parent_changes_total')?.samples.map(({ labels }) => labels['parent']),
    ['others'],
  );
});

test('docs/monitoring.md has a row for each metric and for no other', async () => {
  const page = readFileSync(join(DOCS, 'monitoring.md'), 'utf8');
  const rows = [...page.matchAll(/^\| `((?:tsmacvlan|process)_\w+)` \|/gm)].map(([, name]) => name);
  assert.deepEqual(rows.sort(), [...(await told(ALONE)).families.keys()].sort());
});

test('alerts and dashboard ask for metrics that there are', async () => {
  const known = [...(await told(SHARED)).families].flatMap(([name, { type }]) =>
    type === 'histogram' ? ['_bucket', '_sum', '_count'].map((end) => name + end) : [name],
  );
  for (const file of ['alerts.yml', 'dashboard.json']) {
    const text = readFileSync(join(DOCS, 'examples/monitoring', file), 'utf8');
    const used = [...text.matchAll(/\b(?:tsmacvlan_[a-z_]+|process_[a-z_]+)\b/g)].map(([name]) => name);
    assert.ok(used.length > 5, file);
    assert.deepEqual(
      used.filter((name) => !known.includes(name)),
      [],
      file,
    );
  }
  JSON.parse(readFileSync(join(DOCS, 'examples/monitoring/dashboard.json'), 'utf8'));
});

test('the reader of these tests is strict', () => {
  const good = '# HELP a A.\n# TYPE a gauge\na{b="c"} 1\n';
  readExposition(good);
  for (const bad of [
    good.slice(0, -1),
    good.replace(' 1', ' one'),
    good.replace('"c"', 'c'),
    good.replace('# HELP a A.\n', ''),
    good.replace('gauge', 'counter'),
    `${good}a{b="c"} 2\n`,
    good.replace('\na{', '\nb{'),
    '# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n',
    '# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_sum 1\nh_count 2\n',
  ])
    assert.throws(() => readExposition(bad), bad);
});
