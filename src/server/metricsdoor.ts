/**
 * Where metrics and health are read: HTTP on an address of this host or on a Unix socket. Nothing can be changed there. Where it
 * cannot listen it tries again: containers start without it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import * as errors from '../errors.ts';
import type { Health } from '../health.ts';
import type { Log } from '../log.ts';
import type { MetricsPlace } from '../settings.ts';
import { type BoundSocket, bindSocket } from './socket.ts';

interface MetricsDoorParts {
  readonly place: MetricsPlace;
  readonly metrics: { readonly contentType: string; text(): Promise<string> };
  readonly health: () => Promise<Health>;
  readonly log: Pick<Log, 'info' | 'warn' | 'error'>;
  readonly unreadMs?: number;
}

/** Whoever asks does so every few seconds, by one connection. */
const MOST_CONNECTIONS = 32;
const PATIENCE_MS = 5000;
/** Who takes nothing of his answer for so long is let go: others would find no room. */
const UNREAD_MS = 30_000;
const METHODS = ['GET', 'HEAD'];

/** The door. open() may be called again and again. */
export class MetricsDoor {
  readonly #parts: MetricsDoorParts;
  #http: Server | undefined;
  #bound: BoundSocket | undefined;
  #failure: string | null = null;
  #isOpening = false;
  #isClosed = false;

  constructor(parts: MetricsDoorParts) {
    this.#parts = parts;
  }

  /** Listens unless it does. Why it cannot is said once in the log. */
  async open(): Promise<void> {
    if (this.#isClosed || this.#isOpening || this.#isThere()) return;
    this.#isOpening = true;
    await this.#open().finally(() => (this.#isOpening = false));
  }

  async #open(): Promise<void> {
    const { place, log } = this.#parts;
    this.#end();
    const http = createServer(
      {
        headersTimeout: PATIENCE_MS,
        requestTimeout: PATIENCE_MS,
        connectionsCheckingInterval: PATIENCE_MS,
        maxHeaderSize: 4096,
      },
      (request, response) => void this.#answer(request, response),
    );
    http.maxConnections = MOST_CONNECTIONS;
    http.timeout = this.#parts.unreadMs ?? UNREAD_MS;
    this.#http = http;
    try {
      if (place.path === null) await listening(http, place.host, place.port);
      else this.#bound = await bindSocket(http, place.path, 'METRICS');
      http.on('error', () => undefined);
      this.#failure = null;
      log.info('metrics can be read', { metrics: place.text });
      if (this.#isClosed) this.#end();
    } catch (error) {
      this.#end();
      const { code, message: told } = error as NodeJS.ErrnoException;
      const message = code === 'EADDRINUSE' ? errors.metricsTaken(place.text).message : told;
      if (message !== this.#failure)
        log.error('metrics cannot be read; it is tried again', { metrics: place.text, error: message });
      this.#failure = message;
    }
  }

  /** Nobody is answered any more. */
  close(): void {
    this.#isClosed = true;
    this.#end();
  }

  #isThere(): boolean {
    return this.#http !== undefined && (this.#bound?.isThere() ?? this.#http.listening);
  }

  #end(): void {
    this.#bound?.release();
    this.#http?.close();
    this.#http?.closeAllConnections();
    [this.#http, this.#bound] = [undefined, undefined];
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Two thousand questions fit into one read, and keep some 14 MB until the first of them is answered.
    if (response.socket === null) return void request.socket.destroy();
    request.resume();
    const reply = await this.#reply(request).catch((error: unknown): Reply => {
      this.#parts.log.error('metrics could not be told', { error: String(error) });
      return { status: 500, text: 'the log of tsmacvlan says why\n' };
    });
    const { status, type = 'text/plain; charset=utf-8', text } = reply;
    response.writeHead(status, {
      'Content-Type': type,
      'Content-Length': Buffer.byteLength(text),
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      ...(status === 405 && { Allow: METHODS.join(', ') }),
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  async #reply({ method = '', url = '', headers }: IncomingMessage): Promise<Reply> {
    if (!METHODS.includes(method)) return { status: 405, text: 'use GET\n' };
    // A page in a browser of this host may ask here by a name of its own that leads to loopback.
    if (this.#parts.place.isLocal && !isLocalName(headers.host ?? ''))
      return { status: 421, text: 'ask by an address, or as localhost\n' };
    const [path] = url.split('?');
    const { metrics } = this.#parts;
    if (path === '/metrics') return { status: 200, type: metrics.contentType, text: await metrics.text() };
    if (path !== '/healthz') return { status: 404, text: 'there are /metrics and /healthz\n' };
    const { status, reasons } = await this.#parts.health();
    const isUp = status === 'ok' || status === 'degraded';
    return { status: isUp ? 200 : 503, text: [status, ...reasons].map((line) => `${line}\n`).join('') };
  }
}

interface Reply {
  readonly status: number;
  readonly type?: string;
  readonly text: string;
}

function isLocalName(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return name === '' || name === 'localhost' || isIP(name) !== 0;
}

async function listening(http: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  http.once('error', reject);
  http.listen({ host, port }, resolve);
  await promise.finally(() => http.off('error', reject));
}
