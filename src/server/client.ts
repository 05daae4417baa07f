/** A question of our own command line to the running daemon, through the door that engines use. */
import { type RequestOptions, request } from 'node:http';
import { text } from 'node:stream/consumers';
import * as errors from '../errors.ts';

export const COLLECT_LEAKS = 'Tsmacvlan.CollectLeaks';
export const CLEAR_CONFLICTS = 'Tsmacvlan.ClearConflicts';
export const RESERVE_ADDRESS = 'Tsmacvlan.ReserveAddress';
export const UNRESERVE = 'Tsmacvlan.Unreserve';
const FILTERED_PARENTS = 'Tsmacvlan.FilteredParents';

/** What is only good to know is not waited for longer. */
const PATIENCE_MS = 500;

/** Parents whose network port delivers to their own MAC address only, as the daemon found; none where none answers. */
export async function filteredParents(socketPath: string): Promise<string[]> {
  const asked = askDaemon(socketPath, FILTERED_PARENTS, {}, AbortSignal.timeout(PATIENCE_MS));
  const { Parents = [] } = (await asked.catch(() => ({}))) as { Parents?: string[] };
  return Parents;
}

/** Resolves with what was answered; throws the daemon's own sentence (DAEMON_SAYS, DAEMON_REFUSED), or DAEMON_ABSENT. */
export async function askDaemon(
  socketPath: string,
  call: string,
  body: object,
  signal?: AbortSignal,
): Promise<unknown> {
  const { status, answer } = await post({ socketPath, path: `/${call}`, method: 'POST', signal }, JSON.stringify(body));
  if (status === 200) return answer;
  const { Err: sentence } = answer as { Err?: string };
  if (status === 400 && sentence !== undefined) throw errors.daemonSays(sentence);
  throw errors.daemonRefused(call, sentence ?? `HTTP ${status}`);
}

function post(options: RequestOptions, body: string): Promise<{ status: number; answer: unknown }> {
  return new Promise((resolve, reject) => {
    const question = request(options, (response) => {
      const { statusCode: status = 0 } = response;
      text(response)
        .then((answer) => resolve({ status, answer: JSON.parse(answer) as unknown }))
        .catch(reject);
    });
    question.on('error', (error) => reject(errors.daemonAbsent(options.socketPath ?? '', error.message)));
    question.end(body);
  });
}
