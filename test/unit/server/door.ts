/** A server on a socket of its own, in front of drivers that only remember what they were asked. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import supertest from 'supertest';
import type { Fields, Log } from '../../../src/log.ts';
import type { CallLimit } from '../../../src/requests.ts';
import {
  type ConflictVerbs,
  createCalls,
  type IpamVerbs,
  type LeakVerbs,
  type NetworkVerbs,
} from '../../../src/server/calls.ts';
import { PluginServer, type ServerOptions } from '../../../src/server/server.ts';
import { temporaryDirectory } from '../temporary.ts';

export interface Line {
  readonly level: keyof Log;
  readonly message: string;
  readonly fields: Fields;
}

export interface Door {
  readonly server: PluginServer;
  readonly socket: string;
  /** What the drivers were asked, in order, without limits: `['join', 'n1', 'e1']`. */
  readonly asked: readonly unknown[][];
  /** By verb, the limit that it was asked with last. */
  readonly limits: ReadonlyMap<string, CallLimit>;
  readonly lines: readonly Line[];
}

interface Behaviour extends Omit<Partial<ServerOptions>, 'calls' | 'log'> {
  readonly network?: Partial<NetworkVerbs>;
  readonly ipam?: Partial<IpamVerbs>;
  readonly leaks?: Partial<LeakVerbs>;
}

export async function openDoor(
  t: TestContext,
  { network = {}, ipam = {}, leaks = {}, ...options }: Behaviour = {},
): Promise<Door> {
  const asked: unknown[][] = [];
  const limits = new Map<string, CallLimit>();
  const lines: Line[] = [];
  const { patienceMs } = { ...quietNetwork, ...network };
  const calls = createCalls({
    // How long a call may take is no verb of the engine.
    network: { ...remembering(asked, quietNetwork, network, limits), patienceMs },
    ipam: { ...remembering(asked, quietIpam, ipam, limits), patienceMs: async () => null },
    leaks: { ...quietLeaks, ...leaks },
    state: { read: async () => ({ schema: 4, node: null, pieces: [Buffer.from('{"networks":[]}')] }) },
    filteredParents: () => ['eth0'],
    health: async () => ({ status: 'ok', reasons: [] }),
    conflicts: quietConflicts,
    scope: 'local',
  });
  const server = new PluginServer({ calls, log: logInto(lines), ...options });
  const socket = join(temporaryDirectory(t), 'tsmacvlan.sock');
  await server.listen(socket);
  t.after(() => server.close());
  return { server, socket, asked, limits, lines };
}

export const quietNetwork: NetworkVerbs = {
  createNetwork: async () => undefined,
  deleteNetwork: async () => undefined,
  createEndpoint: async ({ macAddress }) => ({ macAddress: macAddress === null ? '02:42:c0:a8:01:02' : null }),
  patienceMs: async () => null,
  deleteEndpoint: async () => undefined,
  join: async () => ({
    linkName: 'tsm0123456789',
    interfaceName: null,
    gateway: '192.168.1.1',
    gatewayIPv6: null,
    routes: [],
  }),
  leave: async () => undefined,
  reviewAllocation: () => undefined,
  skipGateway: () => ({ ipv4: true, ipv6: false }),
};

export const quietIpam: IpamVerbs = {
  defaultAddressSpaces: () => ({ local: 'Local', global: 'Global' }),
  requestPool: async ({ pool }) => ({ poolId: `pool ${pool}`, pool: pool ?? '10.0.0.0/24', gateway: null }),
  patienceMs: async () => null,
  releasePool: async () => undefined,
  register: () => undefined,
  allocateNetwork: async () => undefined,
  freeNetwork: async () => undefined,
  requestAddress: async ({ address }) => `${address ?? '192.168.1.2'}/24`,
  releaseAddress: async () => undefined,
  answerAddress: async () => undefined,
  takeBackAddress: async () => undefined,
  reserveName: async ({ name, address }) => ({
    poolId: 'p',
    name,
    address,
    macAddress: null,
    isReserved: true,
    usedAt: '2026-11-20T10:00:00.000Z',
  }),
  unreserveName: async () => ({ forgotten: [] }),
  poolUses: async () => [{ poolId: 'TsmacvlanLocal/192.168.1.0/24', used: 1 }],
};

export const quietLeaks: LeakVerbs = { collect: async () => [], hurry: () => undefined };
export const quietConflicts: ConflictVerbs = { clear: async () => ({ count: 0 }) };

/** The verbs of `chosen`, those it lacks from `quiet`; what is asked of them is written down, its limit apart. */
export function remembering<T extends object>(
  asked: unknown[][],
  quiet: T,
  chosen: Partial<T> = {},
  limits = new Map<string, CallLimit>(),
): T {
  const wrapped = Object.keys(quiet).map((name) => {
    const verb = (chosen[name as keyof T] ?? quiet[name as keyof T]) as (...given: unknown[]) => unknown;
    const remembered = (...given: unknown[]) => {
      if (name !== 'defaultAddressSpaces')
        asked.push([name, ...given.flatMap((one) => withoutLimit(name, one, limits))]);
      return verb.apply(chosen, given);
    };
    return [name, remembered];
  });
  return Object.fromEntries(wrapped) as T;
}

/** Nothing in place of a limit; a request without its limit. */
function withoutLimit(verb: string, given: unknown, limits: Map<string, CallLimit>): unknown[] {
  if (typeof given !== 'object' || given === null) return [given];
  const { limit, ...request } = 'atMs' in given ? { limit: given } : (given as { limit?: object });
  if (limit !== undefined) limits.set(verb, limit as CallLimit);
  return 'atMs' in given ? [] : [request];
}

export function logInto(lines: Line[]): Log {
  const writer =
    (level: keyof Log) =>
    (message: string, fields: Fields = {}) =>
      void lines.push({ level, message, fields });
  return { debug: writer('debug'), info: writer('info'), warn: writer('warn'), error: writer('error') };
}

export interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly body: unknown;
}

/** One request with the headers of an engine (no Content-Type); supertest speaks HTTP over the Unix socket. */
export async function ask(
  { socket }: Pick<Door, 'socket'>,
  call: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Reply> {
  const request = supertest(`http+unix://${encodeURIComponent(socket)}`)
    .post(`/${call}`)
    .set('Accept', 'application/vnd.docker.plugins.v1.2+json')
    .set('User-Agent', 'Go-http-client/1.1');
  const text = typeof body === 'string' || body === undefined ? body : JSON.stringify(body);
  // Given a text, superagent would call it a form.
  if (text !== undefined) void request.send(text).unset('Content-Type');
  const response = await request.set(headers);
  return { status: response.status, contentType: String(response.headers['content-type']), body: response.body };
}

/** The sentence of an error reply, which must stand under both keys. */
export function sentenceOf({ body }: Reply): string {
  const { Err, Error: sentence, ...rest } = body as { Err: string; Error: string };
  assert.equal(Err, sentence);
  assert.deepEqual(rest, {});
  return Err;
}
