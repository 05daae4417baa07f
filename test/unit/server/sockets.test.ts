/** One daemon behind two sockets: the managed plugin's own and the one that gives it a name without tag. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { PluginError } from '../../../src/errors.ts';
import { MetricsDoor } from '../../../src/server/metricsdoor.ts';
import { temporaryDirectory } from '../temporary.ts';
import { logInto, openDoor } from './door.ts';

const options = { timeout: 10_000 };

function activate(socketPath: string): Promise<number | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
  request({ socketPath, path: '/Plugin.Activate', method: 'POST' }, (reply) => resolve(reply.resume().statusCode))
    .on('error', reject)
    .end();
  return promise;
}

test('calls are answered on both sockets, and closing removes both', options, async (t) => {
  const { server, socket } = await openDoor(t);
  const alias = join(dirname(socket), 'alias.sock');
  await server.listen(alias);
  assert.deepEqual(await Promise.all([socket, alias].map(activate)), [200, 200]);
  await server.close();
  assert.deepEqual([socket, alias].map(existsSync), [false, false]);
});

test('a second socket that another daemon answers on is refused, and the first goes on', options, async (t) => {
  const [{ server, socket }, other] = [await openDoor(t), await openDoor(t)];
  await assert.rejects(
    server.listen(other.socket, 'ALIAS_SOCKET'),
    (error) =>
      error instanceof PluginError && /^SOCKET_HELD.*set ALIAS_SOCKET to/.test(`${error.code} ${error.message}`),
  );
  assert.deepEqual(await Promise.all([socket, other.socket].map(activate)), [200, 200]);
});

test('who asks for metrics and does not read them, or asks again before the answer, is let go', options, async (t) => {
  const path = join(temporaryDirectory(t), 'metrics.sock');
  const door = new MetricsDoor({
    place: { text: `unix:${path}`, path, host: '', port: 0, isLocal: true },
    metrics: { contentType: 'text/plain', text: async () => 'x'.repeat(4_000_000) },
    health: async () => ({ status: 'ok', reasons: [] }),
    log: logInto([]),
    unreadMs: 100,
  });
  t.after(() => door.close());
  await door.open();
  const idle = connect(path).on('error', () => undefined);
  idle.write('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await once(idle, 'readable');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  let read = 0;
  for await (const some of idle) read += (some as Buffer).length;
  assert.ok(read < 4_000_000, 'the rest was not kept for it');
  const greedy = connect(path).on('error', () => undefined);
  greedy.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(2));
  greedy.resume();
  await new Promise((resolve) => greedy.once('close', resolve));
});
