/** Those who listen, at the server's door: first what lasts, then what happens; the last line; how many may. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { type ConflictNews, Happenings } from '../../../src/happenings.ts';
import { Watchers } from '../../../src/server/watchers.ts';
import { openDoor } from './door.ts';

const options = { timeout: 20_000 };
const MOST_WATCHERS = 64;

async function listen(socketPath: string): Promise<IncomingMessage> {
  const asked = request({ socketPath, path: '/Tsmacvlan.Watch', method: 'POST', agent: false }).end();
  asked.on('error', () => undefined);
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return response;
}

function linesOf(said: string): Record<string, unknown>[] {
  return said
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

function lastingConflict(address: string): ConflictNews {
  return {
    what: 'conflict',
    state: 'lasts',
    kind: 'address',
    parent: 'eth0',
    address,
    macAddress: '06:00:00:00:00:01',
    ourMacAddress: '02:42:c0:00:02:46',
    hostLink: null,
    count: 1,
    firstSeenAt: '2026-11-20T10:00:00.000Z',
    seenAt: '2026-11-20T10:00:00.000Z',
    endedAt: null,
    endpointId: 'e',
    networkId: 'n',
  };
}

test('what lasts is told first, then what happens, and at the end that it is one', options, async (t) => {
  const happenings = new Happenings(() => new Date(0));
  const standing = async () => [{ what: 'conflict', state: 'lasts' }];
  const { server, socket } = await openDoor(t, { watchers: new Watchers({ happenings, standing }) });
  const response = await listen(socket);
  await once(response, 'readable');
  happenings.tell({ what: 'parent', parent: 'eth0', state: 'down' });
  await server.close();
  const lines = linesOf(await text(response));
  assert.deepEqual(
    lines.map(({ what, state, reason }) => [what, state ?? reason]),
    [
      ['watching', undefined],
      ['conflict', 'lasts'],
      ['parent', 'down'],
      ['end', 'stopped'],
    ],
  );
  assert.equal(happenings.isHeard, false);
});

test('one more than may is refused with a sentence, and may once another has gone', options, async (t) => {
  const happenings = new Happenings();
  const watchers = new Watchers({ happenings, standing: async () => [] });
  const { socket } = await openDoor(t, { watchers });
  const responses = await Promise.all(Array.from({ length: MOST_WATCHERS }, () => listen(socket)));
  assert.ok(responses.every(({ statusCode }) => statusCode === 200));
  const refused = await listen(socket);
  assert.equal(refused.statusCode, 400);
  assert.match(await text(refused), /64 commands are watching already/);
  responses[0]?.destroy();
  while (watchers.counts.listening === MOST_WATCHERS) await new Promise((resolve) => setImmediate(resolve));
  const next = await listen(socket);
  assert.equal(next.statusCode, 200);
  for (const response of [next, ...responses]) response.destroy();
});

test('one that does not read has a bounded amount waiting for it, and a last line', options, async (t) => {
  const happenings = new Happenings();
  const watchers = new Watchers({ happenings, standing: async () => [], mostUnreadBytes: 10_000 });
  const { socket } = await openDoor(t, { watchers });
  const slow = await listen(socket);
  for (let told = 0; watchers.counts.dropped === 0; told++) {
    assert.ok(told < 100_000);
    happenings.tell({ what: 'error', message: 'x'.repeat(1000), fields: {} });
    // The kernel's own buffer is full first.
    if (told % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(watchers.counts, { listening: 0, dropped: 1 });
  assert.deepEqual(linesOf(await text(slow)).at(-1), { what: 'end', reason: 'slow' });
});

test('more that lasts than may wait is told as fast as it is read', options, async (t) => {
  const happenings = new Happenings();
  const standing = async () =>
    Array.from({ length: 2000 }, (_, number) => ({ what: 'conflict', number, x: 'x'.repeat(500) }));
  const watchers = new Watchers({ happenings, standing, mostUnreadBytes: 60_000 });
  const { socket } = await openDoor(t, { watchers });
  const response = await listen(socket);
  let said = '';
  for await (const some of response) {
    said += String(some);
    if (said.includes('"number":1999,')) break;
  }
  assert.equal(said.split('"what":"conflict"').length - 1, 2000);
  assert.equal(watchers.counts.dropped, 0);
});

test('a conflict that ends while what lasts is looked up does not last again', options, async (t) => {
  const happenings = new Happenings();
  const lasting = ['192.0.2.1', '192.0.2.2'].map((address) => lastingConflict(address));
  const looked = Promise.withResolvers<typeof lasting>();
  const watchers = new Watchers({ happenings, standing: () => looked.promise });
  const { server, socket } = await openDoor(t, { watchers });
  const response = await listen(socket);
  happenings.tell({ ...lastingConflict('192.0.2.1'), state: 'ended' });
  looked.resolve(lasting);
  await new Promise((resolve) => setImmediate(resolve));
  await server.close();
  assert.deepEqual(
    linesOf(await text(response)).map(({ state, address }) => [state, address]),
    [
      [undefined, undefined],
      ['ended', '192.0.2.1'],
      ['lasts', '192.0.2.2'],
      [undefined, undefined],
    ],
  );
  assert.equal(happenings.isHeard, false);
});
