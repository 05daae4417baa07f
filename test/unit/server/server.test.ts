import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { PluginError } from '../../../src/errors.ts';
import type { CallLimit } from '../../../src/requests.ts';
import { ask, type Door, openDoor, sentenceOf } from './door.ts';
import { temporaryDirectory } from '../temporary.ts';

const options = { timeout: 20_000 };
/** Without the shorter deadlines that the tests set, and with connections that are waited for, it takes 8 s and more. */
const SOON_MS = 6000;
const BOTH = { NetworkID: 'n'.repeat(64), EndpointID: 'e'.repeat(64) };
const NEW_ENDPOINT = { ...BOTH, Interface: { Address: '10.0.0.2/24', AddressIPv6: '', MacAddress: '' }, Options: {} };

// --- errors ------------------------------------------------------------------------------------------------------

test("a mistake is 400 with its sentence under both proxies' keys, and one warning", options, async (t) => {
  const join = async () => {
    throw new PluginError('mistake', 'SOME_MISTAKE', 'this is wrong; do that');
  };
  const door = await openDoor(t, { network: { join } });
  const reply = await ask(door, 'NetworkDriver.Join', BOTH);
  assert.equal(reply.status, 400);
  assert.equal(reply.contentType, 'application/vnd.docker.plugins.v1.2+json');
  assert.equal(sentenceOf(reply), 'this is wrong; do that');
  assert.deepEqual(linesOf(door), [
    ['warn', 'NetworkDriver.Join', 'SOME_MISTAKE', 'this is wrong; do that', undefined],
  ]);
});

test('a fault is 500 with its sentence, and its cause is in the log only', options, async (t) => {
  const join = async () => {
    throw new PluginError('fault', 'SOME_FAULT', 'the disk failed; mend it', new Error('EIO at sector 7'));
  };
  const door = await openDoor(t, { network: { join } });
  const reply = await ask(door, 'NetworkDriver.Join', BOTH);
  assert.equal(reply.status, 500);
  assert.equal(sentenceOf(reply), 'the disk failed; mend it');
  const [line] = door.lines;
  assert.equal(line?.level, 'error');
  assert.match(String(line?.fields['cause']), /^Error: EIO at sector 7\n +at /);
});

test('anything else that is thrown is an internal error that tells nothing of its inside', options, async (t) => {
  for (const thrown of [new TypeError('x is undefined in /opt/secret.ts'), 'a text', null, undefined]) {
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- libraries do
    const join = () => Promise.reject<never>(thrown);
    const door = await openDoor(t, { network: { join } });
    const reply = await ask(door, 'NetworkDriver.Join', BOTH);
    assert.equal(reply.status, 500);
    assert.match(sentenceOf(reply), /^internal error in NetworkDriver\.Join; its cause is in the log/);
    assert.doesNotMatch(JSON.stringify(reply.body), /secret|server\.ts/);
    assert.equal(door.lines[0]?.level, 'error');
    if (thrown instanceof Error) assert.match(String(door.lines[0]?.fields['cause']), /secret/);
  }
});

for (const [call, body, verb] of [
  ['NetworkDriver.DeleteNetwork', BOTH, 'deleteNetwork'],
  ['NetworkDriver.DeleteEndpoint', BOTH, 'deleteEndpoint'],
  ['NetworkDriver.Leave', BOTH, 'leave'],
  ['IpamDriver.ReleasePool', { PoolID: 'p' }, 'releasePool'],
  ['IpamDriver.ReleaseAddress', { PoolID: 'p', Address: '10.0.0.1' }, 'releaseAddress'],
] as const) {
  test(`${call}, whose error engines drop, is logged as an error also when it is a mistake`, options, async (t) => {
    const fail = async () => {
      throw new PluginError('mistake', 'SOME_MISTAKE', 'no; yes');
    };
    const door = await openDoor(t, { network: { [verb]: fail }, ipam: { [verb]: fail } });
    assert.equal((await ask(door, call, body)).status, 400);
    assert.deepEqual(linesOf(door), [['error', call, 'SOME_MISTAKE', 'no; yes', undefined]]);
  });
}

// --- the log -----------------------------------------------------------------------------------------------------

test('each call is one line with short ids, outcome and time', options, async (t) => {
  const door = await openDoor(t);
  await ask(door, 'NetworkDriver.CreateEndpoint', NEW_ENDPOINT);
  await ask(door, 'IpamDriver.RequestAddress', { PoolID: 'p', Address: '', Options: { secret: 'hunter2' } });
  await ask(door, 'IpamDriver.RequestPool', { AddressSpace: 'Local', Pool: '10.0.0.0/24' });
  await ask(door, 'Plugin.Activate');
  const seen = door.lines.map(({ level, message, fields: { ms, ...fields } }) => {
    assert.ok(typeof ms === 'number' && ms >= 0 && ms < 5000);
    return [level, message, fields];
  });
  assert.deepEqual(seen, [
    [
      'info',
      'NetworkDriver.CreateEndpoint',
      { network: 'n'.repeat(12), endpoint: 'e'.repeat(12), address: '10.0.0.2/24', outcome: 'ok' },
    ],
    ['info', 'IpamDriver.RequestAddress', { pool: 'p', address: '192.168.1.2/24', outcome: 'ok' }],
    ['info', 'IpamDriver.RequestPool', { pool: 'pool 10.0.0.0/24', outcome: 'ok' }],
    ['info', 'Plugin.Activate', { outcome: 'ok' }],
  ]);
  assert.doesNotMatch(JSON.stringify(door.lines), /hunter2/);
});

test('a refused request is one line too', options, async (t) => {
  const door = await openDoor(t);
  await ask(door, 'NetworkDriver.Join', '{');
  await ask(door, 'Nobody.Knows', '{}');
  assert.deepEqual(
    door.lines.map(({ level, fields }) => [level, fields['outcome']]),
    [
      ['warn', 'BODY_NOT_JSON'],
      ['warn', 'UNKNOWN_CALL'],
    ],
  );
});

// --- deadlines ---------------------------------------------------------------------------------------------------

test('a call that hangs is answered with a fault at its deadline, and its signal fires', options, async (t) => {
  let seen: CallLimit | undefined;
  const requestAddress = ({ limit }: { limit: CallLimit }) => {
    seen = limit;
    return new Promise<string>((_, reject) =>
      limit.signal.addEventListener('abort', () => reject(new Error('given up'))),
    );
  };
  const door = await openDoor(t, { ipam: { requestAddress }, deadlineMs: 100 });
  const startedAt = performance.now();
  const reply = await ask(door, 'IpamDriver.RequestAddress', { PoolID: 'p', Address: '' });
  assert.ok(performance.now() - startedAt < SOON_MS);
  assert.equal(reply.status, 500);
  assert.match(sentenceOf(reply), /^IpamDriver\.RequestAddress was not done within 0\.1 s and was given up; /);
  assert.equal(seen?.signal.aborted, true);
  assert.ok(seen.atMs >= startedAt + 100 && seen.atMs < performance.now());
  assert.equal(door.lines[0]?.level, 'error');
});

test('a call that hangs says at its deadline what it has found out, unless that was taken back', options, async (t) => {
  const heldBy = (name: string) => new PluginError('mistake', 'ADDRESS_HELD', `${name} has it; take another`);
  const join = (_network: string, endpoint: string, { ifLate }: CallLimit) => {
    ifLate(heldBy('one'));
    ifLate(endpoint === BOTH.EndpointID ? heldBy('another') : null);
    return new Promise<never>(() => undefined);
  };
  const door = await openDoor(t, { network: { join }, deadlineMs: 100 });
  const reply = await ask(door, 'NetworkDriver.Join', BOTH);
  assert.deepEqual([reply.status, sentenceOf(reply)], [400, 'another has it; take another']);
  assert.match(sentenceOf(await ask(door, 'NetworkDriver.Join', { ...BOTH, EndpointID: 'f' })), /was not done within/);
});

test('other calls do not wait for one that hangs', options, async (t) => {
  const gate = Promise.withResolvers<void>();
  const door = await openDoor(t, { network: { leave: () => gate.promise } });
  const hanging = ask(door, 'NetworkDriver.Leave', BOTH);
  assert.equal((await ask(door, 'NetworkDriver.Join', BOTH)).status, 200);
  gate.resolve();
  assert.equal((await hanging).status, 200);
});

test('a body that never ends is answered at the deadline, and its connection is closed', options, async (t) => {
  const door = await openDoor(t, { deadlineMs: 100 });
  const socket = await dial(t, door);
  socket.write('POST /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"a');
  const answer = await textUntilClosed(socket);
  assert.match(answer, /^HTTP\/1\.1 500 .*\r\nConnection: close\r\n.*was not done within 0\.1 s/s);
  assert.deepEqual(door.asked, []);
});

for (const [call, body, undone] of [
  ['NetworkDriver.CreateEndpoint', NEW_ENDPOINT, ['deleteEndpoint', BOTH.NetworkID, BOTH.EndpointID]],
  [
    'IpamDriver.RequestAddress',
    { PoolID: 'p', Address: '' },
    ['releaseAddress', { poolId: 'p', address: '192.168.1.2' }],
  ],
  [
    'IpamDriver.RequestAddress',
    { PoolID: 'p', Address: '192.168.1.2' },
    ['takeBackAddress', { poolId: 'p', address: '192.168.1.2' }],
  ],
] as const) {
  const slow = (gate: Promise<void>) => ({
    network: { createEndpoint: () => gate.then(() => ({ macAddress: null })) },
    ipam: { requestAddress: () => gate.then(() => '192.168.1.2/24') },
  });

  test(`${call} (${undone[0]}) that succeeds after its deadline is taken back`, options, async (t) => {
    const gate = Promise.withResolvers<void>();
    const door = await openDoor(t, { ...slow(gate.promise), deadlineMs: 50 });
    assert.equal((await ask(door, call, body)).status, 500);
    assert.equal(door.asked.length, 1);
    gate.resolve();
    await waitFor(() => door.lines.length === 2);
    assert.deepEqual(door.asked[1], undone);
    assert.deepEqual([door.lines[1]?.level, door.lines[1]?.fields['outcome']], ['error', 'late']);
  });

  test(`${call} (${undone[0]}) whose caller hung up is taken back`, options, async (t) => {
    const gate = Promise.withResolvers<void>();
    const door = await openDoor(t, slow(gate.promise));
    const socket = await dial(t, door);
    socket.write(post(call, body));
    await waitFor(() => door.asked.length === 1);
    socket.destroy();
    // By then the server has read that nobody is there, however long this process stood still.
    for (let turn = 0; turn < 20; turn++) await nextTurn();
    gate.resolve();
    await waitFor(() => door.asked.length === 2);
    assert.deepEqual(door.asked[1], undone);
    assert.deepEqual([door.lines[0]?.level, door.lines[0]?.fields['outcome']], ['error', 'unheard']);
  });
}

test('a gateway that was chosen here is not taken back: other networks may have it', options, async (t) => {
  const gate = Promise.withResolvers<void>();
  const requestAddress = () => gate.promise.then(() => '10.0.0.7/24');
  const door = await openDoor(t, { ipam: { requestAddress }, deadlineMs: 50 });
  const gateway = { RequestAddressType: 'com.docker.network.gateway' };
  await ask(door, 'IpamDriver.RequestAddress', { PoolID: 'p', Address: '', Options: gateway });
  gate.resolve();
  await waitFor(() => door.lines.length === 2);
  assert.ok(door.asked.every(([verb]) => verb === 'requestAddress'));
});

test('what fails after its deadline is logged with its cause', options, async (t) => {
  const gate = Promise.withResolvers<void>();
  const door = await openDoor(t, { network: { leave: () => gate.promise }, deadlineMs: 50 });
  await ask(door, 'NetworkDriver.Leave', BOTH);
  gate.reject(new Error('much too late'));
  await waitFor(() => door.lines.length === 2);
  assert.match(String(door.lines[1]?.fields['cause']), /much too late/);
});

// --- recovery ----------------------------------------------------------------------------------------------------

test('while recovery runs only calls that depend on it wait', options, async (t) => {
  const recovery = Promise.withResolvers<void>();
  const door = await openDoor(t, { ready: recovery.promise });
  const waiting = ask(door, 'NetworkDriver.Leave', BOTH);
  for (const call of ['Plugin.Activate', 'NetworkDriver.GetCapabilities', 'IpamDriver.GetCapabilities'])
    assert.equal((await ask(door, call)).status, 200);
  assert.equal((await ask(door, 'NetworkDriver.Join', '{}')).status, 400, 'a mistake needs no recovery');
  await delay(20);
  assert.deepEqual(door.asked, [['register']]);
  recovery.resolve();
  assert.equal((await waiting).status, 200);
  assert.deepEqual(door.asked[1]?.[0], 'leave');
});

test('a reply waits for the disk, save where nothing is lost but the release of an address', options, async (t) => {
  const disk = Promise.withResolvers<void>();
  const door = await openDoor(t, { durable: () => disk.promise });
  const waiting = ask(door, 'NetworkDriver.DeleteEndpoint', BOTH);
  let isAnswered = false;
  void waiting.then(() => (isAnswered = true));
  for (const call of ['EndpointOperInfo', 'Leave'])
    assert.equal((await ask(door, `NetworkDriver.${call}`, BOTH)).status, 200);
  const address = { PoolID: 'TsmacvlanLocal/10.0.0.0/24', Address: '10.0.0.2' };
  assert.equal((await ask(door, 'IpamDriver.ReleaseAddress', address)).status, 200);
  assert.deepEqual(door.asked[0], ['deleteEndpoint', BOTH.NetworkID, BOTH.EndpointID]);
  assert.equal(isAnswered, false);
  disk.resolve();
  assert.equal((await waiting).status, 200);
});

test('what the disk did not take is refused', options, async (t) => {
  const durable = async () => {
    throw new PluginError('fault', 'STORE_UNSYNCED', 'the disk did not take it; check it');
  };
  const door = await openDoor(t, { durable });
  const reply = await ask(door, 'NetworkDriver.DeleteEndpoint', BOTH);
  assert.deepEqual([reply.status, sentenceOf(reply)], [500, 'the disk did not take it; check it']);
});

test('a call whose deadline passes while recovery runs is never begun', options, async (t) => {
  const recovery = Promise.withResolvers<void>();
  const door = await openDoor(t, { ready: recovery.promise, deadlineMs: 50 });
  assert.match(sentenceOf(await ask(door, 'NetworkDriver.Leave', BOTH)), /was not done within 0\.05 s/);
  recovery.resolve();
  await delay(20);
  assert.deepEqual(door.asked, []);
});

test('when recovery failed every call that depends on it says so, and the process lives', options, async (t) => {
  const failure = new PluginError('fault', 'STORE_DAMAGED', 'the state is damaged; mend it');
  const door = await openDoor(t, { ready: Promise.reject(failure) });
  await delay(10);
  assert.equal(sentenceOf(await ask(door, 'NetworkDriver.Leave', BOTH)), 'the state is damaged; mend it');
  assert.equal((await ask(door, 'Plugin.Activate')).status, 200);
});

// --- many --------------------------------------------------------------------------------------------------------

for (const [what, requests, connections] of [
  ['ten thousand requests at once on two hundred connections', 10_000, 200],
  ['a thousand requests at once on as many connections', 1000, 1000],
] as const) {
  test(`${what} are all answered`, { timeout: 180_000 }, async (t) => {
    const socket = join(temporaryDirectory(t), 's.sock');
    // In a process of its own: under node:test every promise costs several times as much.
    const program = join(import.meta.dirname, 'flood.ts');
    const { stdout } = await promisify(execFile)(process.execPath, [program, socket, `${requests}`, `${connections}`]);
    const { ms, statuses, asked, lines } = JSON.parse(stdout) as Record<string, unknown>;
    t.diagnostic(`${requests} in ${String(ms)} ms`);
    assert.deepEqual({ statuses, asked, lines }, { statuses: { 200: requests }, asked: requests, lines: requests });
  });
}

test('an idle connection is never closed by us: no reply names a time', options, async (t) => {
  const door = await openDoor(t);
  const socket = await dial(t, door);
  socket.write(post('NetworkDriver.Leave', BOTH));
  const [answer] = (await once(socket, 'data')) as [Buffer];
  assert.match(answer.toString(), /\r\nConnection: keep-alive\r\n/);
  assert.doesNotMatch(answer.toString(), /\r\nKeep-Alive:/);
});

// --- closing -----------------------------------------------------------------------------------------------------

test('closing lets the call in flight finish, and its connection says it is the last', options, async (t) => {
  const gate = Promise.withResolvers<void>();
  const door = await openDoor(t, { network: { leave: () => gate.promise } });
  const socket = await dial(t, door);
  socket.write(post('NetworkDriver.Leave', BOTH));
  await waitFor(() => door.asked.length === 1);
  let isClosed = false;
  const closing = door.server.close().then(() => {
    isClosed = true;
  });
  await delay(50);
  assert.equal(isClosed, false);
  await assert.rejects(ask(door, 'Plugin.Activate'), /ENOENT/, 'no new call is taken');
  gate.resolve();
  assert.match(await textUntilClosed(socket), /^HTTP\/1\.1 200 OK\r\nConnection: close\r\n.*\r\n\r\n\{\}$/s);
  await closing;
});

test(
  'closing waits no longer than it may for a call that hangs, which is called off with the reason',
  options,
  async (t) => {
    const gate = Promise.withResolvers<void>();
    const door = await openDoor(t, { network: { leave: () => gate.promise }, closeMs: 100 });
    const hanging = ask(door, 'NetworkDriver.Leave', BOTH);
    await waitFor(() => door.asked.length === 1);
    const startedAt = performance.now();
    const [reply] = await Promise.all([hanging, door.server.close()]);
    assert.equal(reply.status, 500);
    assert.match(sentenceOf(reply), /^tsmacvlan is stopping and could not wait/);
    assert.ok(performance.now() - startedAt < SOON_MS);
    gate.resolve();
  },
);

test(
  'closing ends what a call still waits for, so that nothing of it is left when the server is closed',
  options,
  async (t) => {
    let isOver = false;
    const createEndpoint = ({ limit: { signal } }: { limit: CallLimit }) =>
      once(signal, 'abort').then(() => {
        isOver = true;
        throw signal.reason as Error;
      });
    const door = await openDoor(t, { network: { createEndpoint, patienceMs: async () => 25_000 }, closeMs: 100 });
    const hanging = ask(door, 'NetworkDriver.CreateEndpoint', NEW_ENDPOINT);
    await waitFor(() => door.asked.length === 1);
    await door.server.close();
    assert.ok(isOver);
    assert.match(sentenceOf(await hanging), /^tsmacvlan is stopping/);
  },
);

test('an engine that hangs up ends what it has waited for with patience', options, async (t) => {
  const over = Promise.withResolvers<unknown>();
  const createEndpoint = ({ limit: { signal } }: { limit: CallLimit }) =>
    once(signal, 'abort').then(() => {
      over.resolve(signal.reason);
      throw signal.reason as Error;
    });
  const door = await openDoor(t, { network: { createEndpoint, patienceMs: async () => 25_000 } });
  const socket = await dial(t, door);
  socket.write(post('NetworkDriver.CreateEndpoint', NEW_ENDPOINT));
  await waitFor(() => door.asked.length === 1);
  socket.destroy();
  assert.match(String(await over.promise), /the engine hung up before NetworkDriver.CreateEndpoint was done/);
});

test('closing ends idle connections at once, and closing again is nothing', options, async (t) => {
  const door = await openDoor(t);
  const sockets = await Promise.all(Array.from({ length: 5 }, () => dial(t, door)));
  for (const socket of sockets.slice(1)) {
    socket.write(post('NetworkDriver.Leave', BOTH));
    await once(socket, 'data');
  }
  const ended = sockets.map((socket) => once(socket, 'close'));
  const startedAt = performance.now();
  await door.server.close();
  await Promise.all(ended);
  assert.ok(performance.now() - startedAt < SOON_MS);
  await door.server.close();
});

// --- tools -------------------------------------------------------------------------------------------------------

function linesOf({ lines }: Door): unknown[][] {
  return lines.map(({ level, message, fields }) => [
    level,
    message,
    fields['outcome'],
    fields['error'],
    fields['cause'],
  ]);
}

async function waitFor(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(2);
}

async function dial(t: TestContext, { socket: path }: Door): Promise<Socket> {
  const socket = connect(path);
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  return socket;
}

function post(call: string, body: unknown): string {
  const text = JSON.stringify(body);
  return `POST /${call} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: ${text.length}\r\n\r\n${text}`;
}

async function textUntilClosed(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (data: Buffer) => {
    text += data.toString();
  });
  await once(socket, 'close');
  return text;
}

test('a call that may take longer has a deadline of its own, which its verb is told', options, async (t) => {
  const gate = Promise.withResolvers<void>();
  const createEndpoint = async () => {
    await gate.promise;
    return { macAddress: null };
  };
  const network = { createEndpoint, patienceMs: async () => 20_000 };
  const door = await openDoor(t, { network, deadlineMs: 50 });
  const began = performance.now();
  const asked = ask(door, 'NetworkDriver.CreateEndpoint', BOTH);
  await waitFor(() => performance.now() - began > 150);
  gate.resolve();
  assert.equal((await asked).status, 200);
  const lateMs = (door.limits.get('createEndpoint')?.atMs ?? 0) - began;
  assert.ok(lateMs > 15_000 && lateMs < 21_000, `${lateMs} ms`);
});
