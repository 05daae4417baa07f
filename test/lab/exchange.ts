/** One HTTP request to a daemon on a Unix socket, and its answer. */
import { once } from 'node:events';
import { type IncomingHttpHeaders, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import { text } from 'node:stream/consumers';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

interface Question {
  readonly path: string;
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string | Buffer | undefined;
  readonly signal?: AbortSignal;
}

/** Rejects when the daemon cannot be reached, or ends before it has answered in full. */
export async function exchange(socketPath: string, { body, ...question }: Question): Promise<Answer> {
  // A connection of its own: one that is kept may be that of a daemon killed since.
  const call = request({ socketPath, method: 'POST', agent: false, ...question });
  // One that breaks in the middle of the answer is an error of the answer, which text() tells, and of the call once more.
  call.on('error', () => undefined);
  const [response] = (await once(call.end(body), 'response')) as [IncomingMessage];
  return { status: response.statusCode ?? 0, headers: response.headers, text: await text(response) };
}
