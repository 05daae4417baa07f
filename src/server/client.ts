/** A question of our own command line to the running daemon, through the door that engines use. */
import { type RequestOptions, request } from 'node:http';
import { text } from 'node:stream/consumers';
import * as errors from '../errors.ts';

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
  return (await askLocalEngine('/info')) as Record<string, unknown> | null;
}

/** What the engine on this host answers to `GET path`, whatever DOCKER_HOST and Docker's contexts say; null where none answers. */
export async function askLocalEngine(path: string): Promise<object | null> {
  const question = { socketPath: '/var/run/docker.sock', path, signal: AbortSignal.timeout(PATIENCE_MS) };
  try {
    const { status, answer } = await send(question, '');
    return status === 200 ? (Object(JSON.parse(answer)) as object) : null;
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
