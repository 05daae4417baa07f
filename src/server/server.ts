/**
 * The door: HTTP on a Unix socket. Body in, answer out, error → `{"Err": sentence, "Error": sentence}`, and one line in
 * the log per call. Knows no networking.
 *
 * What engines make of replies (moby pkg/plugins/client.go, drivers/remote, ipams/remote): any status but 200 is an
 * error; the network side reads `Err`, the IPAM side `Error`; 404 means a call the plugin does not have, so it is given
 * for nothing else; an empty reply is an error.
 */
import { createServer, type Server } from 'node:http';
import { finished } from 'node:stream/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import express, { type ErrorRequestHandler, type Express, type Request, type Response } from 'express';
import { formatInterfaceAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Fields, Log } from '../log.ts';
import type { EndedCall } from '../health.ts';
import type { CallLimit } from '../requests.ts';
import { VERSION } from '../version.ts';
import { type Call, type Calls, type Done, type Subject, WrittenReply } from './calls.ts';
import { type BoundSocket, bindSocket } from './socket.ts';
import type { Watchers } from './watchers.ts';

const WATCH = 'Tsmacvlan.Watch';
const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.2+json';
const BODY_LIMIT_BYTES = 1024 * 1024;
/** Engines hold locks while they wait, and wait for legacy plugins for ever. */
const DEADLINE_MS = 9000;
/** The engine kills a managed plugin 10 s after SIGTERM. */
const CLOSE_MS = 8000;
/** What is called off then undoes what it has begun, and its refusal is read. */
const UNDO_MS = 500;

/** What the server goes by; times in milliseconds. */
export interface ServerOptions {
  readonly calls: Calls;
  readonly log: Log;
  /** Fulfilled when recovery is done; calls that depend on it wait for it, within their deadline. */
  readonly ready?: Promise<unknown>;
  /** Resolves when all changes until now are on the disk: see Store. */
  readonly durable?: () => Promise<void>;
  /** Each call that was answered. Must not throw. */
  readonly noteCall?: (call: EndedCall) => void;
  /** Who may listen to what happens; left out, nobody may. */
  readonly watchers?: Watchers;
  readonly deadlineMs?: number;
  /** Longest wait of close(). */
  readonly closeMs?: number;
}

/** One request from its arrival to its log line. */
interface Visit {
  readonly name: string;
  readonly call: Call;
  readonly request: Request;
  readonly response: Response;
  readonly arrivedAt: number;
  subject: Subject;
}

/** A door that is open. */
interface OpenSocket {
  readonly path: string;
  /** SOCKET or ALIAS_SOCKET. */
  readonly setting: string;
  http: Server;
  bound: BoundSocket;
  /** Why it cannot be opened again; null while it need not be. */
  failure: string | null;
}

/** Answers the calls of the table on as many sockets as listen() was asked for, until close(). */
export class PluginServer {
  readonly app: Express;
  readonly #log: Log;
  readonly #ready: Promise<unknown>;
  readonly #durable: () => Promise<void>;
  readonly #noteCall: (call: EndedCall) => void;
  readonly #watchers: Watchers | undefined;
  readonly #deadlineMs: number;
  readonly #closeMs: number;
  readonly #visits = new Set<Promise<unknown>>();
  readonly #deadlines = new Set<Deadline>();
  readonly #sockets: OpenSocket[] = [];
  #isClosing = false;
  #closed: Promise<void> | undefined;

  constructor(options: ServerOptions) {
    const { calls, log, ready = Promise.resolve(), durable = async () => undefined } = options;
    const { deadlineMs = DEADLINE_MS, closeMs = CLOSE_MS, noteCall = () => undefined, watchers } = options;
    this.#log = log;
    this.#ready = ready;
    this.#durable = durable;
    this.#noteCall = noteCall;
    this.#watchers = watchers;
    this.#deadlineMs = deadlineMs;
    this.#closeMs = closeMs;
    // A rejection is told to every call that waits; before the first one it must not end the process.
    ready.catch(() => undefined);
    this.app = this.#routes(calls);
  }

  /** Each call opens one more socket to the same calls. See bindSocket for what is refused. */
  async listen(path: string, setting = 'SOCKET'): Promise<void> {
    this.#sockets.push({ path, setting, ...(await this.#open(path, setting)), failure: null });
  }

  /**
   * Opens again what is not there any more: somebody emptied /run, or mounted something over it. Connections go on. What cannot
   * be opened is said once in the log.
   */
  async listenAgain(): Promise<void> {
    for (const socket of this.#sockets) {
      if (this.#isClosing || socket.bound.isThere()) continue;
      const { path, setting } = socket;
      try {
        const { http } = socket;
        Object.assign(socket, await this.#open(path, setting), { failure: null });
        http.close();
        this.#log.warn('the socket was not there any more: listening again', { socket: path });
        if (this.#isClosing) socket.bound.release();
      } catch (error) {
        const { message } = error as Error;
        if (message !== socket.failure) this.#log.error('the socket is not there any more', { error: message });
        socket.failure = message;
      }
    }
  }

  async #open(path: string, setting: string): Promise<{ http: Server; bound: BoundSocket }> {
    // Engines keep connections for ever, and one closed under a request comes back with an empty body (moby#35459).
    const http = createServer({ keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 }, this.app);
    return { http, bound: await bindSocket(http, path, setting) };
  }

  /** Takes no new calls, lets those under way finish, calls off what is not done after 8 s, and removes the sockets that are still ours. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#isClosing = true;
    for (const { bound } of this.#sockets) bound.release();
    this.#watchers?.close();
    // Connections the kernel already took in for us are accepted in this turn, not reset.
    await nextTurn();
    const closed = this.#sockets.map(({ http }) => closeServer(http));
    await atMost(this.#closeMs, Promise.allSettled(this.#visits));
    for (const deadline of this.#deadlines) deadline.end(errors.stopping());
    await atMost(UNDO_MS, Promise.allSettled(this.#visits));
    for (const { http } of this.#sockets) http.closeAllConnections();
    await Promise.all(closed);
  }

  /** Calls are looked up by their name: a route for each would be a pattern that every request is compared with. */
  #routes(calls: Calls): Express {
    const app = express();
    app.disable('x-powered-by');
    app.use((request, response) => {
      const name = request.path.slice(1);
      const call = calls.get(name);
      if (name === WATCH && request.method === 'POST') return this.#watch(request, response);
      if (call === undefined) return this.#turnAway(response, 404, errors.unknownCall(name));
      if (!takes(call, request.method)) {
        response.setHeader('Allow', 'POST');
        return this.#turnAway(response, 405, errors.wrongMethod(request.method, name));
      }
      this.#receive({ name, call, request, response, arrivedAt: performance.now(), subject: {} });
    });
    app.use(this.#lastResort);
    return app;
  }

  readonly #lastResort: ErrorRequestHandler = (error, request, response, _next) => {
    this.#turnAway(response, 500, errors.internalError(request.path.slice(1), error));
  };

  #turnAway(response: Response, status: number, error: errors.PluginError): void {
    this.#log.warn('request refused', { outcome: error.code, error: error.message });
    send(response, status, errorBody(error), this.#isClosing);
  }

  /** The answer does not end: one line of JSON for each thing that happens. */
  #watch(request: Request, response: Response): void {
    request.resume();
    try {
      if (this.#watchers === undefined || this.#isClosing) throw errors.unknownCall(WATCH);
      response.setHeader('Content-Type', 'application/x-ndjson');
      response.setHeader('Server', `tsmacvlan/${VERSION}`);
      this.#watchers.add(response, { what: 'watching', version: VERSION });
    } catch (error) {
      this.#turnAway(response, 400, asPluginError(WATCH, error));
    }
  }

  #receive(visit: Visit): void {
    const served = this.#serve(visit).finally(() => this.#visits.delete(served));
    this.#visits.add(served);
  }

  /** Replies within the deadline, whatever the call does; lives on until the call has ended and the reply is out. */
  async #serve(visit: Visit): Promise<void> {
    const deadline = startDeadline(visit.name, this.#deadlineMs);
    this.#deadlines.add(deadline);
    const { signal } = deadline.limit;
    const work = this.#work(visit, deadline);
    let isDelivered = false;
    try {
      const done = await Promise.race([work, deadline.expiry]);
      isDelivered = this.#accept(visit, done);
    } catch (error) {
      // A body that never ends would keep the connection for good.
      if (signal.aborted && !visit.request.complete) visit.response.setHeader('Connection', 'close');
      this.#refuse(visit, asPluginError(visit.name, error));
    } finally {
      deadline.stop();
      this.#deadlines.delete(deadline);
    }
    if (!isDelivered) await this.#withdraw(visit, work, signal);
    await finished(visit.response).catch(() => undefined);
  }

  /** Nothing is begun after the deadline. */
  async #work(visit: Visit, deadline: Deadline): Promise<Done> {
    const { call } = visit;
    const { expiry } = deadline;
    const task = call.read(call.hasBody ? await Promise.race([readBody(visit), expiry]) : undefined);
    visit.subject = task.subject;
    if (call.waits) await Promise.race([this.#ready, expiry]);
    const patienceMs = (await task.patienceMs?.()) ?? null;
    if (patienceMs !== null) endUnheard(visit, deadline);
    const done = await task.run(patienceMs === null ? deadline.limit : deadline.prolong(patienceMs));
    if (call.isLasting) await this.#durable();
    if (!visit.response.destroyed && !deadline.limit.signal.aborted) await done.answer();
    return done;
  }

  /** True when somebody was there to take the reply. */
  #accept(visit: Visit, { reply, subject, status = 200 }: Done): boolean {
    visit.subject = subject;
    const isHeard = !visit.response.destroyed;
    send(visit.response, status, reply, this.#isClosing);
    this.#note(visit, isHeard ? 'ok' : 'unheard', null);
    if (isHeard && visit.call.isQuiet) this.#log.debug(visit.name, fieldsOf(visit, 'ok'));
    else if (isHeard) this.#log.info(visit.name, fieldsOf(visit, 'ok'));
    else this.#log.error(`${visit.name}: the engine hung up before the reply`, fieldsOf(visit, 'unheard'));
    return isHeard;
  }

  #refuse(visit: Visit, error: errors.PluginError): void {
    send(visit.response, error.kind === 'mistake' ? 400 : 500, errorBody(error), this.#isClosing);
    this.#note(visit, error.code, error);
    const fields = { ...fieldsOf(visit, error.code), error: error.message };
    if (error.kind === 'fault') this.#log.error(visit.name, { ...fields, cause: causeOf(error) });
    else if (visit.call.isUnheard) this.#log.error(visit.name, fields);
    else this.#log.warn(visit.name, fields);
  }

  #note({ name, call, arrivedAt }: Visit, outcome: string, error: errors.PluginError | null): void {
    this.#noteCall({ name, outcome, ms: performance.now() - arrivedAt, isLasting: call.isLasting, error });
  }

  /** After a reply that came too late, or to nobody: the engine takes the call for failed. */
  async #withdraw(visit: Visit, work: Promise<Done>, signal: AbortSignal): Promise<void> {
    try {
      const done = await work;
      await done.takeBack();
      if (signal.aborted) this.#log.error(`${visit.name} ended after its deadline`, fieldsOf(visit, 'late'));
    } catch (error) {
      // In time it was refused and logged already.
      if (signal.aborted && error !== signal.reason)
        this.#log.error(`${visit.name} failed after its deadline`, {
          ...fieldsOf(visit, 'late'),
          cause: stackOf(error),
        });
    }
  }
}

function takes({ isQuiet }: Call, method: string): boolean {
  return method === 'POST' || (isQuiet === true && (method === 'GET' || method === 'HEAD'));
}

const readRaw = promisify(express.raw({ type: () => true, limit: BODY_LIMIT_BYTES, inflate: false }));

/** The JSON value in the body, whatever its content type says; engines send none. */
async function readBody({ name, request, response }: Visit): Promise<unknown> {
  try {
    await readRaw(request, response);
  } catch (error) {
    // Unread, the rest would stand between our reply and the reader's end of the socket.
    request.resume();
    throw bodyRefusal(error as Error & { type?: string });
  }
  const body: unknown = request.body;
  if (!Buffer.isBuffer(body) || body.length === 0) throw errors.emptyBody(name);
  return parseJson(body);
}

function bodyRefusal({ type, message }: { type?: string; message: string }): errors.PluginError {
  return type === 'entity.too.large' ? errors.bodyTooLarge(BODY_LIMIT_BYTES) : errors.bodyUnreadable(message);
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw errors.bodyNotJson(body.length);
  }
}

/** Resolves when its last connection is gone. */
function closeServer(http: Server): Promise<unknown> {
  const { promise: closed, resolve } = Promise.withResolvers<unknown>();
  http.close(resolve);
  http.closeIdleConnections();
  return closed;
}

interface Deadline {
  readonly limit: CallLimit;
  /** Rejects with the sentence when the signal fires. */
  readonly expiry: Promise<never>;
  /** The same limit for a call that may take so long in all, in milliseconds. */
  prolong(ms: number): CallLimit;
  /** Now, with this sentence unless the call has left one. */
  end(sentence: errors.PluginError): void;
  stop(): void;
}

function startDeadline(name: string, ms: number): Deadline {
  const controller = new AbortController();
  const beganMs = performance.now();
  const { promise: expiry, reject } = Promise.withResolvers<never>();
  let known: errors.PluginError | null = null;
  const ifLate = (sentence: errors.PluginError | null) => {
    known = sentence;
  };
  const end = (sentence: errors.PluginError) => {
    controller.abort(known ?? sentence);
    reject(controller.signal.reason as Error);
  };
  const expire = (allMs: number) => end(errors.callTooSlow(name, allMs));
  const { signal } = controller;
  let timer = setTimeout(expire, ms, ms);
  const prolong = (allMs: number) => {
    clearTimeout(timer);
    if (!signal.aborted) timer = setTimeout(expire, Math.max(0, beganMs + allMs - performance.now()), allMs);
    return { signal, atMs: beganMs + allMs, ifLate };
  };
  return { limit: { signal, atMs: beganMs + ms, ifLate }, expiry, prolong, end, stop: () => clearTimeout(timer) };
}

/** An engine that is killed hangs up, and starts the container again: what that one needs this call must not have any longer. */
function endUnheard({ name, response }: Visit, deadline: Deadline): void {
  const end = () => {
    if (!response.writableFinished) deadline.end(errors.hungUp(name));
  };
  if (response.destroyed) end();
  else response.once('close', end);
}

async function atMost(ms: number, work: Promise<unknown>): Promise<void> {
  const { promise: expiry, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([work, expiry]);
  clearTimeout(timer);
}

function send(response: Response, status: number, body: object | WrittenReply, isLast: boolean): void {
  if (isLast) response.setHeader('Connection', 'close');
  response.statusCode = status;
  response.setHeader('Content-Type', CONTENT_TYPE);
  response.setHeader('Server', `tsmacvlan/${VERSION}`);
  if (!(body instanceof WrittenReply)) return void response.end(JSON.stringify(body));
  response.setHeader(
    'Content-Length',
    body.pieces.reduce((sum, { length }) => sum + length, 0),
  );
  for (const piece of body.pieces) response.write(piece);
  response.end();
}

/** Network and IPAM proxies of the engine read different keys, and pass over the error under the wrong one. */
function errorBody({ message }: errors.PluginError): object {
  return { Err: message, Error: message };
}

function fieldsOf({ subject, arrivedAt }: Visit, outcome: string): Fields {
  const { networkId, endpointId, poolId, addresses = [] } = subject;
  const ipv4 = addresses.find(({ family }) => family === 'IPv4');
  const address = subject.address ?? (ipv4 && formatInterfaceAddress(ipv4));
  return {
    ...(networkId && { network: errors.short(networkId) }),
    ...(endpointId && { endpoint: errors.short(endpointId) }),
    ...(poolId && { pool: poolId }),
    ...(address && { address }),
    outcome,
    ms: Math.round((performance.now() - arrivedAt) * 10) / 10,
  };
}

function asPluginError(name: string, error: unknown): errors.PluginError {
  return error instanceof errors.PluginError ? error : errors.internalError(name, error);
}

function causeOf({ cause }: Error): string | undefined {
  return cause === undefined ? undefined : stackOf(cause);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
