/** Stands between engine and plugin on the plugin's socket, so that a test can do something before a call goes on. */
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

/** Awaited before a call, `NetworkDriver.Join`, is handed to the plugin; a rejection is all that the engine hears. */
export type Before = (call: string) => Promise<void>;

export class Interposer {
  private readonly server: Server;
  /** The calls that passed, in order. */
  readonly calls: string[] = [];

  private constructor(target: string, before: Before) {
    this.server = createServer((call, answer) => {
      this.forward(target, before, call, answer).catch((error: unknown) => answer.writeHead(502).end(String(error)));
    });
  }

  /** Listens on `socket` and hands on to `target`, one call after the other. */
  static async listen(socket: string, target: string, before: Before): Promise<Interposer> {
    let last: Promise<void> = Promise.resolve();
    const interposer = new Interposer(target, (call) => (last = last.catch(() => {}).then(() => before(call))));
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
    await before(path.slice(1));
    const { accept = '' } = call.headers;
    const onward = request({ socketPath: target, path, method: 'POST', headers: { accept } });
    const [response] = (await once(onward.end(body), 'response')) as [IncomingMessage];
    answer.writeHead(response.statusCode ?? 502, response.headers).end(await text(response));
  }
}
