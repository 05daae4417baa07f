/** A question of our own command line to the running daemon, through the door that engines use. */
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import * as errors from '../errors.ts';

export const COLLECT_LEAKS = 'Tsmacvlan.CollectLeaks';

/** Resolves with what was answered; throws the daemon's own sentence, or DAEMON_ABSENT. */
export async function askDaemon(socketPath: string, call: string, body: object): Promise<unknown> {
  const { status, answer } = await post(socketPath, call, JSON.stringify(body));
  if (status === 200) return answer;
  throw errors.daemonRefused(call, (answer as { Err?: string }).Err ?? `HTTP ${status}`);
}

function post(socketPath: string, call: string, body: string): Promise<{ status: number; answer: unknown }> {
  return new Promise((resolve, reject) => {
    const question = request({ socketPath, path: `/${call}`, method: 'POST' }, (response) => {
      const { statusCode: status = 0 } = response;
      text(response)
        .then((answer) => resolve({ status, answer: JSON.parse(answer) as unknown }))
        .catch(reject);
    });
    question.on('error', (error) => reject(errors.daemonAbsent(socketPath, error.message)));
    question.end(body);
  });
}
