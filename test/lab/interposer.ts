/** Stands between engine and plugin on the plugin's socket, so that a test can do something before a call goes on. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { exchange } from './exchange.ts';

/** Awaited before a call, `NetworkDriver.Join`, is handed to the plugin; a rejection is all that the engine hears. */
export type Before = (call: string, body: string) => Promise<void>;

export class Interposer {
  private readonly server: Server;
  /** The calls that passed, in order. */
  readonly calls: string[] = [];

  private constructor(target: string, before: Before, isOneByOne: boolean) {
    let last: Promise<void> = Promise.resolve();
    this.server = createServer((call, answer) => {
      const forwarded = last.then(() => this.forward(target, before, call, answer));
      const ended = forwarded.catch((error: unknown) => void answer.writeHead(502).end(String(error)));
      if (isOneByOne) last = ended;
    });
  }

  /** Listens on `socket` and hands on to `target`: one call after the other unless told otherwise. */
  static async listen(socket: string, target: string, before: Before, isOneByOne = true): Promise<Interposer> {
    const interposer = new Interposer(target, before, isOneByOne);
    interposer.server.listen(socket);
    await once(interposer.server, 'listening');
    return interposer;
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private async forward(target: string, before: Before, call: IncomingMessage, answer: ServerResponse): Promise<void> {
    const path = call.url ?? '';
    const body = await text(call);
    this.calls.push(path.slice(1));
    await before(path.slice(1), body);
    const { accept = '' } = call.headers;
    const { status, headers, text: answered } = await exchange(target, { path, headers: { accept }, body });
    // Our own connection ends here; the engine's stays.
    delete headers.connection;
    answer.writeHead(status, headers).end(answered);
  }
}
