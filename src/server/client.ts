/** A question of our own command line to the running daemon, through the door that engines use. */
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import * as errors from '../errors.ts';
import type { ToldHappening } from '../happenings.ts';

export const COLLECT_LEAKS = 'Tsmacvlan.CollectLeaks';
export const CLEAR_CONFLICTS = 'Tsmacvlan.ClearConflicts';
export const RESERVE_ADDRESS = 'Tsmacvlan.ReserveAddress';
export const UNRESERVE = 'Tsmacvlan.Unreserve';
export const STATE = 'Tsmacvlan.State';
export const POOL_USES = 'Tsmacvlan.PoolUses';

/** A plugin that stands still is not waited for longer. */
const PATIENCE_MS = 3000;

/** Who answers on a socket: a daemon of ours, somebody else or nobody; or this user may not ask. */
export async function knock(socketPath: string): Promise<'ours' | 'other' | 'forbidden'> {
  const question = { socketPath, path: '/Plugin.Activate', method: 'POST', signal: AbortSignal.timeout(PATIENCE_MS) };
  try {
    const { server } = await send(question, '');
    return server.startsWith('tsmacvlan/') ? 'ours' : 'other';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'forbidden' : 'other';
  }
}

/** What the Docker engine on this host says of itself; null where none answers. It is only read. */
export async function localEngineInfo(): Promise<Record<string, unknown> | null> {
  const question = { socketPath: '/var/run/docker.sock', path: '/info', signal: AbortSignal.timeout(PATIENCE_MS) };
  try {
    const { answer } = await send(question, '');
    return Object(JSON.parse(answer)) as Record<string, unknown>;
  } catch {
    return null;
  }
}

/** Resolves with what was answered; throws the daemon's own sentence (DAEMON_SAYS, DAEMON_REFUSED), or DAEMON_ABSENT. */
export async function askDaemon(socketPath: string, call: string, body: object): Promise<unknown> {
  const question = { socketPath, path: `/${call}`, method: 'POST' };
  const { status, answer } = await send(question, JSON.stringify(body)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EACCES') throw errors.rootNeeded(`socket ${errors.quote(socketPath)}`);
    throw errors.daemonAbsent(socketPath, error.message);
  });
  if (status === 200) return JSON.parse(answer);
  const sentence = sentenceIn(answer);
  if (status === 400 && sentence !== undefined) throw errors.daemonSays(sentence);
  throw errors.daemonRefused(call, sentence ?? `HTTP ${status}`);
}

/**
 * Tells each line of `Tsmacvlan.Watch` until the daemon ends it or the signal fires. Resolves with whether it began; throws as
 * askDaemon() does what the daemon says instead.
 */
export async function followDaemon(
  socketPath: string,
  tell: (happening: ToldHappening | WatchLine) => unknown,
  signal: AbortSignal,
): Promise<boolean> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const question = request({ socketPath, path: `/${WATCH_CALL}`, method: 'POST', signal, agent: false }, resolve);
    question.on('error', reject).end();
  }).catch(() => null);
  if (response === null) return false;
  if (response.statusCode !== 200) {
    const sentence = sentenceIn(await text(response));
    throw sentence === undefined
      ? errors.daemonRefused(WATCH_CALL, `HTTP ${response.statusCode}`)
      : errors.daemonSays(sentence);
  }
  try {
    const lines = createInterface({ input: response });
    for await (const line of lines) await tell(JSON.parse(line) as ToldHappening | WatchLine);
  } catch {
    // It broke off in the middle.
  }
  return true;
}

/** What the daemon says of the watching itself. */
export type WatchLine =
  | { readonly what: 'watching'; readonly version: string }
  | { readonly what: 'end'; readonly reason: 'stopped' | 'slow' };

const WATCH_CALL = 'Tsmacvlan.Watch';

function sentenceIn(answer: string): string | undefined {
  try {
    return (JSON.parse(answer) as { Err?: string }).Err;
  } catch {
    return undefined;
  }
}

interface Answered {
  readonly status: number;
  /** The program that answers, as it names itself. */
  readonly server: string;
  readonly answer: string;
}

function send(options: RequestOptions, body: string): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const question = request(options, (response) => {
      const { statusCode: status = 0, headers } = response;
      text(response).then((answer) => resolve({ status, server: String(headers.server ?? ''), answer }), reject);
    });
    question.on('error', reject);
    question.end(body);
  });
}
