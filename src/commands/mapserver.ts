/** The door of `tsmacvlan map --serve`: it is only read, by who opens the page itself, and tells each page what has changed. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { contains, parseAddress, parsePrefix } from '../address.ts';
import * as errors from '../errors.ts';
import type { Picture, PictureEvent } from '../page/picture.ts';
import type { PageFile } from './pagefile.ts';

/** Pages that get told at the same time. */
const MOST_PAGES = 32;
const MOST_CONNECTIONS = 128;
/** Between two pictures, and how many times as long as one takes. */
const PERIOD_MS = 1000;
const REST = 3;
/** Docker knows of what the daemon tells a moment later: so long after it pictures follow each other as where nothing is told. */
const SETTLE_MS = 4000;
/** Without news, for what nobody tells: reservations, what an address is kept for, containers that do not run. */
const QUIET_MS = 5000;
/** After news, since seldom one comes alone. */
const GATHER_MS = 100;
/** Of pictures that pages have not taken yet; a picture that several wait for counts once. */
const MOST_UNREAD_BYTES = 64 * 1024 * 1024;
/** Who takes nothing for so long is let go. */
const PATIENCE_MS = 30_000;

const HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cache-Control': 'no-store',
} as const;

/** Of an address no other machine's name server can be told to say something else (DNS rebinding). */
const SERVED_HOST = /^(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i;

/** Where a page is served: a Unix socket, or an address that a kernel takes. */
export type ListenPlace = { readonly path: string } | { readonly host: string; readonly port: number };

/** Throws USAGE for what is no place, or for one that other machines reach where nobody says that they may. */
export function readListen(typed: string, isOpen: boolean): ListenPlace {
  const path = /^unix:(\/.*)$/s.exec(typed)?.[1];
  if (path !== undefined) return { path };
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(typed) ?? [];
  const text = plain === 'localhost' ? '127.0.0.1' : (bracketed ?? plain ?? '');
  const address = parseAddress(text);
  const port = Number(digits);
  if (address === undefined || (bracketed !== undefined) !== (address.family === 'IPv6') || port > 65_535)
    throw errors.listenForm(typed);
  const isLoopback = LOOPBACK.some((range) => range !== undefined && contains(range, address));
  if (!isLoopback && !isOpen) throw errors.listenOpen(typed);
  return { host: text, port };
}

const LOOPBACK = [parsePrefix('127.0.0.0/8'), parsePrefix('::1/128')];

/** Makes pictures; throws why it cannot. */
export interface Pictures {
  take(): Promise<Picture>;
  /** Whether follow() would tell of each change of a network or a container. */
  readonly isTold: boolean;
  /** Calls back whenever a picture may be another one, until the signal. */
  follow(tell: () => void, signal: AbortSignal): Promise<void>;
}

/** How long it rests between two pictures. */
export interface Pace {
  readonly periodMs: number;
  readonly settleMs: number;
  readonly quietMs: number;
}

/** An event as all pages get it: the same bytes for each. */
interface WrittenEvent {
  readonly hasPicture: boolean;
  readonly bytes: Buffer;
}

function written(event: PictureEvent): WrittenEvent {
  return { hasPicture: event.picture !== undefined, bytes: Buffer.from(`data: ${JSON.stringify(event)}\n\n`) };
}

/** A page that listens. */
class Listener {
  readonly #response: ServerResponse;
  /** What it takes at the moment, and since when; null while it has taken all. */
  #unread: { readonly bytes: Buffer; readonly sinceMs: number } | null = null;
  #hasMissed = false;

  constructor(response: ServerResponse, latest: () => WrittenEvent | null) {
    this.#response = response;
    response.on('drain', () => {
      const missed = this.#hasMissed ? latest() : null;
      this.#unread = null;
      this.#hasMissed = false;
      if (missed !== null) this.tell(missed);
    });
  }

  /** Null where it has taken all. */
  get unread(): { readonly bytes: Buffer; readonly sinceMs: number } | null {
    return this.#unread;
  }

  /** What it has no room for it misses: when there is room again it gets the latest picture. */
  tell({ bytes, hasPicture }: WrittenEvent): void {
    if (this.#unread === null) {
      if (!this.#response.write(bytes)) this.#unread = { bytes, sinceMs: performance.now() };
      return;
    }
    this.#hasMissed ||= hasPicture;
    if (performance.now() - this.#unread.sinceMs > PATIENCE_MS) this.close();
  }

  /** Ends it. */
  close(): void {
    this.#response.destroy();
  }
}

/** What has come that a picture may show. */
class News {
  #cameAtMs = Number.NEGATIVE_INFINITY;
  #awaited = Promise.withResolvers<void>();

  /** Since the last one. */
  get ageMs(): number {
    return performance.now() - this.#cameAtMs;
  }

  come(): void {
    this.#cameAtMs = performance.now();
    this.#awaited.resolve();
    this.#awaited = Promise.withResolvers();
  }

  /** Resolves a moment after the next one, else after that time or at the signal. */
  async next(longestMs: number, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const isOver = AbortSignal.any([over.signal, signal]);
    const come = this.#awaited.promise.then(() => rest(GATHER_MS, signal));
    await Promise.race([come, rest(longestMs, isOver)]).finally(() => over.abort());
  }
}

/** Less where the signal comes. */
async function rest(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}

/** Looks while somebody looks. */
export class MapServer {
  readonly http: Server;
  readonly #pictures: Pictures;
  readonly #page: PageFile;
  readonly #pace: Pace;
  readonly #listeners = new Set<Listener>();
  readonly #news = new News();
  readonly #stop = new AbortController();
  #isLooking = false;
  /** The last event that had a picture; null while nobody looks. */
  #latest: WrittenEvent | null = null;
  #latestText = '';

  constructor(
    pictures: Pictures,
    page: PageFile,
    pace: Pace = { periodMs: PERIOD_MS, settleMs: SETTLE_MS, quietMs: QUIET_MS },
  ) {
    this.#pictures = pictures;
    this.#page = page;
    this.#pace = pace;
    const limits = { headersTimeout: 5000, requestTimeout: 5000, connectionsCheckingInterval: 1000 };
    this.http = createServer(limits, (request, response) => this.#answer(request, response));
    this.http.maxConnections = MOST_CONNECTIONS;
    this.http.on('clientError', (_, socket) => socket.destroy());
  }

  /** Ends all pages. */
  async close(): Promise<void> {
    this.#stop.abort();
    for (const listener of this.#listeners) listener.close();
    const closed = new Promise((resolve) => this.http.close(resolve));
    this.http.closeAllConnections();
    await closed;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    // A body is not read: nothing after it on this connection is understood.
    response.shouldKeepAlive = false;
    // It came before the first one was answered: two thousand such would keep some 14 MB as long as that page is open.
    if (response.socket === null) return void request.socket.destroy();
    const { status, refusal } = this.#refuse(request);
    if (refusal !== null) return this.#say(request, response, status, 'text/plain', `${refusal.message}\n`);
    if (pathOf(request) === '/') return this.#say(request, response, 200, 'text/html', this.#page.html);
    response.writeHead(200, { ...this.#headers('text/event-stream') });
    if (request.method === 'HEAD') response.end();
    else this.#listen(response);
  }

  #refuse(request: IncomingMessage): { status: number; refusal: errors.PluginError | null } {
    const { host = '', 'sec-fetch-site': site = 'none' } = request.headers;
    const [method, path] = [request.method ?? '', pathOf(request)];
    if (!SERVED_HOST.test(host)) return { status: 421, refusal: errors.pageHost(host) };
    if (method !== 'GET' && method !== 'HEAD') return { status: 405, refusal: errors.pageMethod(method) };
    if (path !== '/' && path !== '/events') return { status: 404, refusal: errors.pageUnknown(path) };
    // Another site may have a link to the page, and may not take anything from it.
    if (path !== '/' && site !== 'none' && site !== 'same-origin')
      return { status: 403, refusal: errors.pageForeign() };
    if (path !== '/' && this.#listeners.size >= MOST_PAGES)
      return { status: 503, refusal: errors.pageFull(MOST_PAGES) };
    return { status: 200, refusal: null };
  }

  #say(request: IncomingMessage, response: ServerResponse, status: number, type: string, body: string): void {
    const allow = status === 405 ? { Allow: 'GET, HEAD' } : {};
    response.writeHead(status, { ...this.#headers(`${type}; charset=utf-8`), ...allow });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  #headers(type: string) {
    const policy = `${this.#page.policy}; frame-ancestors 'none'`;
    return { ...HEADERS, 'Content-Type': type, 'Content-Security-Policy': policy };
  }

  #listen(response: ServerResponse): void {
    const listener = new Listener(response, () => this.#latest);
    this.#listeners.add(listener);
    response.on('close', () => this.#listeners.delete(listener));
    response.flushHeaders();
    if (this.#latest !== null) listener.tell(this.#latest);
    if (this.#isLooking) this.#news.come();
    else void this.#look();
  }

  /** Ends by itself when nobody looks any more. */
  async #look(): Promise<void> {
    this.#isLooking = true;
    const end = new AbortController();
    const following = this.#pictures.follow(() => this.#news.come(), end.signal);
    while (this.#listeners.size > 0 && !this.#stop.signal.aborted) {
      const beganMs = performance.now();
      const event = await this.#next();
      for (const listener of this.#listeners) listener.tell(event);
      this.#letGo();
      await this.#rest(Math.max(this.#pace.periodMs, REST * (performance.now() - beganMs)));
    }
    end.abort();
    await following;
    this.#isLooking = false;
    this.#latest = null;
    this.#latestText = '';
  }

  async #rest(leastMs: number): Promise<void> {
    const { settleMs, quietMs } = this.#pace;
    const { signal } = this.#stop;
    await rest(leastMs, signal);
    if (this.#pictures.isTold && this.#news.ageMs > settleMs) await this.#news.next(quietMs, signal);
  }

  /** Those who are behind for longest, until what waits for the others is not too much. */
  #letGo(): void {
    const behind = [...this.#listeners].filter(({ unread }) => unread !== null);
    behind.sort((a, b) => (b.unread?.sinceMs ?? 0) - (a.unread?.sinceMs ?? 0));
    const kept = new Set<Buffer>();
    let bytes = 0;
    for (const listener of behind) {
      const { bytes: waiting } = listener.unread ?? {};
      if (waiting === undefined) continue;
      if (!kept.has(waiting)) bytes += waiting.length;
      kept.add(waiting);
      if (bytes > MOST_UNREAD_BYTES) listener.close();
    }
  }

  async #next(): Promise<WrittenEvent> {
    const at = new Date().toISOString();
    try {
      const picture = await this.#pictures.take();
      const text = JSON.stringify({ ...picture, at: '' });
      if (text === this.#latestText) return written({ at });
      this.#latestText = text;
      this.#latest = written({ at, picture });
      return this.#latest;
    } catch (error) {
      return written({ at, trouble: errors.escapeControls(error instanceof Error ? error.message : String(error)) });
    }
  }
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?')[0] ?? '';
}
