/** What happens, as people read it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { happeningLine, watchLine } from '../../../src/commands/watchlines.ts';
import type { ConflictNews, Happening } from '../../../src/happenings.ts';
import { keepNames, Naming } from '../../../src/naming.ts';
import { ENDPOINT, NETWORK, when } from './fixture.ts';

const CLOCK = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d {2}/;
const named = new Naming({
  networks: new Map([[NETWORK, 'lan']]),
  containers: new Map([[ENDPOINT, 'web']]),
  stopped: new Map(),
});

function said(happening: Happening, naming = named): string {
  const line = happeningLine({ time: when, ...happening }, naming);
  assert.match(line, CLOCK);
  return line.replace(CLOCK, '');
}

const conflict: ConflictNews = {
  what: 'conflict',
  state: 'begun',
  kind: 'address',
  parent: 'eth0',
  address: '192.168.1.64',
  macAddress: '06:00:00:00:00:01',
  ourMacAddress: '02:42:c0:a8:01:40',
  hostLink: null,
  count: 1,
  firstSeenAt: when,
  seenAt: when,
  endedAt: null,
  endpointId: ENDPOINT,
  networkId: NETWORK,
};
const endpoint = {
  what: 'endpoint',
  endpointId: ENDPOINT,
  networkId: NETWORK,
  parent: 'eth0',
  macAddress: '02:42:c0:a8:01:40',
  addresses: ['192.168.1.64/24'],
} as const;

test('leases of DHCP servers are told with the reason', () => {
  const lease = {
    what: 'lease',
    parent: 'eth0',
    macAddress: '02:42:c0:a8:01:40',
    address: '192.168.1.64',
    server: '192.168.1.1',
    reason: null,
    endpointId: ENDPOINT,
    networkId: NETWORK,
  } as const;
  const nobody = { ...lease, endpointId: null, networkId: null };
  for (const [happening, expected] of [
    [
      { ...lease, state: 'lost', reason: 'silent' },
      'web: the lease of 192.168.1.64 on eth0 is lost: no DHCP server has answered until its end',
    ],
    [
      { ...lease, state: 'lost', reason: 'refused' },
      'web: the lease of 192.168.1.64 on eth0 is lost: the DHCP server gives it no more',
    ],
    [{ ...lease, state: 'healed' }, 'web: DHCP server 192.168.1.1 gives 192.168.1.64 on eth0 again'],
    [
      { ...nobody, state: 'refused', address: null, reason: 'no \u001blease' },
      '02:42:c0:a8:01:40: DHCP server 192.168.1.1 on eth0 takes back an address ("no \\u001blease")',
    ],
    [
      { ...nobody, state: 'declined', reason: '3c:22:fb:10:aa:01' },
      '02:42:c0:a8:01:40: 192.168.1.64 of DHCP server 192.168.1.1 is declined, since 3c:22:fb:10:aa:01 on eth0 has it',
    ],
  ] as const)
    assert.equal(said(happening), `lease     ${expected}`);
});

test('each is one line with names, or with ids where Docker does not say them', () => {
  const { node: _, ...stranger } = { ...conflict, endpointId: null, networkId: null, ourMacAddress: null, node: '' };
  for (const [happening, expected] of [
    [conflict, 'conflict  web: 192.168.1.64 also used by 06:00:00:00:00:01, on eth0'],
    [{ ...conflict, state: 'lasts' }, 'conflict  still, web: 192.168.1.64 also used by 06:00:00:00:00:01, on eth0'],
    [{ ...conflict, state: 'ended' }, 'over      web: nobody else is known to use 192.168.1.64 on eth0 any more'],
    [
      { ...conflict, node: 'two', newer: 'here' },
      'conflict  web: 192.168.1.64 also used by host two (ours is newer), on eth0',
    ],
    [{ ...conflict, kind: 'mac' }, 'conflict  web: MAC address also used by another host, with 192.168.1.64, on eth0'],
    [stranger, 'conflict  192.168.1.64 is used by 06:00:00:00:00:01 on eth0'],
    [{ ...stranger, state: 'ended' }, 'over      nobody is known to use 192.168.1.64 on eth0 any more'],
    [{ ...endpoint, state: 'started' }, 'started   web  192.168.1.64/24  02:42:c0:a8:01:40  lan on eth0'],
    [{ ...endpoint, state: 'ended', addresses: [] }, 'ended     web  no address  02:42:c0:a8:01:40  lan on eth0'],
    [
      { ...endpoint, state: 'lost' },
      'lost      web  192.168.1.64/24  02:42:c0:a8:01:40  lan on eth0, which is gone, and its interface with it',
    ],
    [
      { what: 'network', state: 'made', networkId: NETWORK, parent: 'eth0', subnets: ['192.168.1.0/24'] },
      'network   lan is made: 192.168.1.0/24 on eth0',
    ],
    [{ what: 'parent', parent: 'eth0', state: 'gone' }, 'parent    eth0 is gone'],
    [
      { what: 'warning', message: 'parent is down', fields: { parent: 'eth0', ms: 3, list: ['a b'] } },
      'warning   parent is down parent=eth0 ms=3 list="[\\"a b\\"]"',
    ],
  ] as [Happening, string][])
    assert.equal(said(happening), expected);
  assert.equal(
    said({ ...endpoint, state: 'ended' }, new Naming()).slice(0, 42),
    `ended     endpoint ${ENDPOINT.slice(0, 12)}  192.168.1`,
  );
  assert.match(watchLine(when, 'gone'), /watch {5}tsmacvlan has ended; it is waited for$/);
});

test('no character from anywhere is obeyed by a terminal', () => {
  const evil = 'x\u001b[2J\u202e\ny';
  const naming = new Naming({
    networks: new Map([[NETWORK, evil]]),
    containers: new Map([[ENDPOINT, evil]]),
    stopped: new Map(),
  });
  for (const happening of [
    { ...endpoint, state: 'started', parent: evil },
    { ...conflict, parent: evil, node: evil },
    { what: 'parent', parent: evil, state: 'gone' },
    { what: 'error', message: evil, fields: { [evil]: evil } },
  ] as Happening[])
    assert.doesNotMatch(said(happening, naming), /[\p{Cc}\p{Cf}]/u);
});

test('names of what Docker has no more are kept for a while, not for ever', () => {
  const names = new Map<string, string>();
  for (let round = 0; round < 100; round++)
    keepNames(
      names,
      new Map([
        ['stays', 'web'],
        [`e${round}`, 'job'],
      ]),
      3,
    );
  assert.deepEqual([...names.keys()].sort(), ['e96', 'e97', 'e98', 'e99', 'stays'].sort());
});
