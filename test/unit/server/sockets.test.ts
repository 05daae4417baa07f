/** One daemon behind two sockets: the managed plugin's own and the one that gives it a name without tag. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { PluginError } from '../../../src/errors.ts';
import { openDoor } from './door.ts';

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
