/** One HTTP request to a server that listens on no socket: what a client sends, and what comes back. */
import { IncomingMessage, type Server, ServerResponse } from 'node:http';
import { Duplex } from 'node:stream';

/** Status and body. */
export interface Reply {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

/** A connection of which nobody reads the bytes. */
class Connection extends Duplex {
  readonly #take: (chunk: Buffer) => void;

  constructor(take: (chunk: Buffer) => void) {
    super();
    this.#take = take;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#take(chunk);
    done();
  }
}

/** Sends `POST /name`. `onReply` is called once, in the process of the server. */
export function post(server: Server, name: string, body: object | null, onReply: (reply: Reply) => void): void {
  const chunks: Buffer[] = [];
  const connection = new Connection((chunk) => void chunks.push(chunk)) as never;
  const request = new IncomingMessage(connection);
  const bytes = body === null ? Buffer.alloc(0) : Buffer.from(JSON.stringify(body));
  Object.assign(request, {
    method: 'POST',
    url: `/${name}`,
    httpVersion: '1.1',
    httpVersionMajor: 1,
    httpVersionMinor: 1,
  });
  request.headers['content-length'] = String(bytes.length);
  request.headers.host = 'plugin.moby.localhost';
  const response = new ServerResponse(request);
  response.sendDate = false;
  response.assignSocket(connection);
  response.once('finish', () => onReply(readReply(response.statusCode, Buffer.concat(chunks).toString())));
  server.emit('request', request, response);
  if (bytes.length > 0) request.push(bytes);
  request.push(null);
  request.complete = true;
}

function readReply(status: number, text: string): Reply {
  const body = text.slice(text.indexOf('\r\n\r\n') + 4);
  return { status, body: JSON.parse(body) as Record<string, unknown> };
}
