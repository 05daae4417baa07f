/** Which changes of records are news, and who hears of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  conflictNews,
  endpointNews,
  Happenings,
  leaseNews,
  networkNews,
  overheard,
  type ToldHappening,
} from '../../src/happenings.ts';
import type { Conflict, Endpoint, Network, Tenancy } from '../../src/model.ts';
import { dhcp6Lease, tenancy } from './commands/fixture.ts';

const CONFLICT: Conflict = {
  kind: 'address',
  parent: 'eth0',
  address: '192.0.2.70',
  macAddress: '06:00:00:00:00:01',
  ourMacAddress: null,
  hostLink: null,
  count: 1,
  firstSeenAt: '2026-11-20T10:00:00.000Z',
  seenAt: '2026-11-20T10:00:00.000Z',
  endedAt: null,
};
const ENDED = { ...CONFLICT, endedAt: '2026-11-20T10:10:00.000Z' };
const nobody = () => ({ endpointId: null, networkId: null });

test('a conflict is news when it begins, when somebody else has the address, and when it ends', () => {
  const state = (before: Conflict | null, after: Conflict | null) => conflictNews(before, after, nobody)?.state ?? null;
  assert.equal(state(null, CONFLICT), 'begun');
  assert.equal(state(ENDED, CONFLICT), 'begun');
  assert.equal(state(CONFLICT, { ...CONFLICT, count: 2 }), null);
  assert.equal(state(CONFLICT, { ...CONFLICT, macAddress: '06:00:00:00:00:02' }), 'changed');
  assert.equal(state(CONFLICT, { ...CONFLICT, ourMacAddress: '02:42:c0:00:02:46' }), 'begun');
  assert.equal(state(CONFLICT, ENDED), 'ended');
  assert.equal(state(CONFLICT, null), 'ended');
  assert.equal(state(ENDED, null), null);
});

test('a container is news when it has joined, when it leaves, and when it loses its parent', () => {
  const created = { id: 'e', networkId: 'n', state: 'created', parent: 'eth0', macAddress: 'm' } as unknown as Endpoint;
  const [joined, leaving] = [
    { ...created, state: 'joined' as const },
    { ...created, state: 'deleting' as const },
  ];
  const state = (before: Endpoint | null, after: Endpoint | null) => endpointNews(before, after, [])?.state ?? null;
  assert.equal(state(null, created), null);
  assert.equal(state(created, joined), 'started');
  assert.equal(state(joined, leaving), 'ended');
  assert.equal(state(leaving, null), null);
  assert.equal(state(joined, null), 'ended');
  assert.equal(state(created, null), null);
  assert.equal(state(joined, { ...joined, lostAt: '2026-11-20T10:00:00.000Z' }), 'lost');
});

test('a lease is news when it is lost and when it is kept again, and not when it is renewed or put aside', () => {
  const lost = { ...tenancy, state: 'lost', loss: 'silent' } as const;
  const said = (before: Tenancy | null, after: Tenancy | null) => {
    return leaseNews(before, after).map(({ state, reason, address, server }) => [state, reason, address, server]);
  };
  assert.deepEqual(said(tenancy, lost), [['lost', 'silent', '192.168.1.64', tenancy.server]]);
  assert.deepEqual(said(lost, tenancy), [['healed', null, '192.168.1.64', tenancy.server]]);
  assert.deepEqual(said(null, tenancy), []);
  assert.deepEqual(said(lost, lost), []);
  assert.deepEqual(said(tenancy, { ...tenancy, obtainedAt: '2026-11-21T00:00:00.000Z' }), []);
  assert.deepEqual(said(lost, { ...tenancy, state: 'aside', endpointId: null }), []);
  assert.deepEqual(said(lost, null), []);

  const ipv6 = dhcp6Lease;
  const kept: Tenancy = { ...tenancy, ipv6 };
  const taken: Tenancy = { ...tenancy, ipv6: { ...ipv6, state: 'lost', loss: 'refused' } };
  assert.deepEqual(said(kept, taken), [['lost', 'refused', 'fd77:1::50', ipv6.server]]);
  assert.deepEqual(said(taken, kept), [['healed', null, 'fd77:1::50', ipv6.server]]);
  assert.deepEqual(said(kept, { ...taken, state: 'lost', loss: 'silent' }).length, 2, 'each is told for itself');
  assert.deepEqual(said(tenancy, kept), []);
  const aside = { state: 'aside', endpointId: null } as const;
  assert.deepEqual(said(taken, { ...taken, ...aside }), []);
  assert.deepEqual(said({ ...taken, ...aside }, { ...kept, ...aside }), [], 'it is given back, and not got back');
});

test('a network is news when it is made and when it is removed', () => {
  const network = { id: 'n', parent: { name: 'eth0' }, subnets: [{ subnet: '192.0.2.0/24' }] } as unknown as Network;
  assert.equal(networkNews(null, network)?.state, 'made');
  assert.equal(networkNews(network, null)?.state, 'removed');
  assert.equal(networkNews(network, network), null);
});

test('warnings and errors of a log are heard, other lines are not', () => {
  const happenings = new Happenings(() => new Date(0));
  const lines: string[] = [];
  const write = (message: string) => void lines.push(message);
  const log = overheard({ debug: write, info: write, warn: write, error: write }, happenings);
  log.warn('nobody hears this');
  const heard: ToldHappening[] = [];
  happenings.listen(() => assert.fail('one that throws keeps no other from hearing'));
  const stop = happenings.listen((one) => heard.push(one));
  log.info('one');
  log.warn('two', { parent: 'eth0' });
  log.error('three');
  stop();
  log.error('four');
  const time = '1970-01-01T00:00:00.000Z';
  assert.deepEqual(heard, [
    { time, what: 'warning', message: 'two', fields: { parent: 'eth0' } },
    { time, what: 'error', message: 'three', fields: {} },
  ]);
  assert.equal(lines.length, 5);
});
