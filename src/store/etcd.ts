/**
 * etcd v3 (etcd-io/etcd, api/etcdserverpb/rpc.proto): the few calls that claims need, on whichever member answers.
 *
 * One connection at a time. A member that fails or keeps silent is left for the next, and the call is made again until
 * its time is up: whoever calls must bear that an earlier try was carried out although its answer was lost.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { SecureContextOptions } from 'node:tls';
import * as errors from '../errors.ts';
import { type Call, Channel, GrpcError, STATUS, type Stream } from './grpc.ts';
import { encode, type Fields, Message } from './protobuf.ts';

export interface EtcdAccess {
  /** `10.0.0.1:2379`, those of the members. */
  readonly endpoints: readonly string[];
  /** Null: without TLS. */
  readonly tls: Pick<SecureContextOptions, 'ca' | 'cert' | 'key'> | null;
  readonly user: { readonly name: string; readonly password: string } | null;
}

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** Of the last change of this key. */
  readonly revision: number;
}

/** Where the history of the store stands; another cluster id means that it was restored or replaced. */
export interface Position {
  readonly clusterId: number;
  readonly revision: number;
}

/** `revision` 0: the key does not exist. */
export interface Condition {
  readonly key: string;
  readonly revision: number;
}

export type Change = { readonly put: { key: string; value: string; lease?: number } } | { readonly delete: string };

export interface Outcome {
  readonly isDone: boolean;
  /** Of the store after the transaction; that of the keys which it changed. */
  readonly revision: number;
  /** What stands at the key asked for, when the conditions did not hold. */
  readonly found: KeyValue | undefined;
}

export type Event = { readonly isGone: boolean; readonly entry: KeyValue };

export interface Watch {
  /** Rejects when it cannot begin. */
  readonly began: Promise<void>;
  /** Resolves when it ended, for whatever reason. */
  readonly ended: Promise<void>;
  cancel(): void;
}

const KV = '/etcdserverpb.KV';
const LEASE = '/etcdserverpb.Lease';

/** A live member answers in milliseconds; an election takes one to two seconds. */
const TRY_MS = 1500;
/** Members hash a password slowly on purpose. */
const LOGIN_MS = 4000;
const PAUSE_MS = 100;
const PATIENCE_MS = 5500;
/** Keys per answer of list(). */
const PAGE = 2000;
/** Compare.CompareTarget: the revision of the last change, 0 for a key that does not exist. */
const MOD = 2;

export class Etcd {
  readonly #access: EtcdAccess;
  #next: number;
  #channel: Channel | undefined;
  #token: Promise<string> | undefined;
  #isClosed = false;

  constructor(access: EtcdAccess) {
    this.#access = access;
    // Hosts spread over the members.
    this.#next = Math.floor(Math.random() * access.endpoints.length);
  }

  close(): void {
    this.#isClosed = true;
    this.#channel?.close();
  }

  /** What is said while the members neither answered nor refused. */
  silence(): errors.PluginError {
    return errors.clusterUnreachable(this.#access.endpoints.join(','), 'no answer yet');
  }

  // --- calls --------------------------------------------------------------------------------------------------------

  /** All keys with the prefix, as they were at one moment. */
  async list(prefix: string): Promise<{ entries: KeyValue[]; position: Position }> {
    const entries: KeyValue[] = [];
    let position: Position | undefined;
    for (let from = Buffer.from(prefix); ; ) {
      const page = { 1: from, 2: endOf(prefix), 3: PAGE, 4: position?.revision };
      const answer = await this.#call(`${KV}/Range`, page, PATIENCE_MS);
      position ??= positionOf(answer);
      const found = answer.messages(2);
      entries.push(...found.map(keyValue));
      const last = found.at(-1)?.bytes(1);
      if (answer.number(3) === 0 || last === undefined) return { entries, position };
      from = Buffer.concat([last, Buffer.of(0)]);
    }
  }

  /** All changes when all conditions hold, else none, and what stands at `asked`. */
  async transaction(
    conditions: readonly Condition[],
    changes: readonly Change[],
    asked: string,
    patienceMs = PATIENCE_MS,
  ): Promise<Outcome> {
    const request = { 1: conditions.map(compare), 2: changes.map(operation), 3: encode({ 1: encode({ 1: asked }) }) };
    const answer = await this.#call(`${KV}/Txn`, request, patienceMs);
    const found = answer.number(2) === 1 ? undefined : answer.message(3).message(1).messages(2).map(keyValue)[0];
    return { isDone: answer.number(2) === 1, revision: positionOf(answer).revision, found };
  }

  /** A lease that ends when it is not kept alive. `id`: any number that is not 0. */
  async grant(id: number, seconds: number): Promise<void> {
    await this.#call(`${LEASE}/LeaseGrant`, { 1: seconds, 2: id }, PATIENCE_MS);
  }

  /** False when the lease has ended. */
  async keepAlive(id: number): Promise<boolean> {
    const answer = await this.#call(`${LEASE}/LeaseKeepAlive`, { 1: id }, PATIENCE_MS);
    return answer.number(3) > 0;
  }

  /** Changes of the keys with the prefix, in order, from the revision on. */
  watch(prefix: string, revision: number, onEvents: (events: readonly Event[], at: Position) => void): Watch {
    const began = Promise.withResolvers<void>();
    const onMessage = (bytes: Buffer) => {
      const message = new Message(bytes);
      // Cancelled by the member: the token ended, or the member fell behind.
      if (message.number(4) !== 0) return void stream.then((one) => one?.cancel());
      if (message.number(3) !== 0) began.resolve();
      const events = message.messages(11).map(event);
      const last = events.at(-1);
      // The header's revision may be that of events still to come.
      if (last !== undefined) onEvents(events, { ...positionOf(message), revision: last.entry.revision });
    };
    const request = { 1: encode({ 1: prefix, 2: endOf(prefix), 3: revision }) };
    const stream = this.#stream('/etcdserverpb.Watch/Watch', request, onMessage).catch((error: unknown) => {
      began.reject(error);
      return undefined;
    });
    const ended = stream.then((one) => one?.ended).then((reason) => began.reject(this.#sentence(reason)));
    began.promise.catch(() => undefined);
    return { began: began.promise, ended, cancel: () => void stream.then((one) => one?.cancel()) };
  }

  // --- tries --------------------------------------------------------------------------------------------------------

  async #call(path: string, fields: Fields, patienceMs: number): Promise<Message> {
    const untilMs = performance.now() + patienceMs;
    const body = encode(fields);
    for (let tries = 1; ; tries++) {
      try {
        return await this.#try(path, body, Math.max(1, Math.min(TRY_MS, untilMs - performance.now())));
      } catch (error) {
        if (!this.#mayPass(error, tries) || performance.now() + PAUSE_MS >= untilMs) throw this.#sentence(error);
        await delay(PAUSE_MS);
      }
    }
  }

  /** A certificate that one member refuses may be good for another, but for none of them later. */
  #mayPass(error: unknown, tries: number): boolean {
    if (this.#isClosed || !isPassing(error)) return false;
    return !isOfTls(error) || tries < this.#access.endpoints.length;
  }

  async #try(path: string, body: Buffer, deadlineMs: number): Promise<Message> {
    const channel = this.#connection();
    try {
      const token = await this.#login(channel);
      return new Message(await channel.unary({ path, body, token }, deadlineMs));
    } catch (error) {
      this.#judge(channel, error);
      throw error;
    }
  }

  async #stream(path: string, fields: Fields, onMessage: (message: Buffer) => void): Promise<Stream> {
    let channel: Channel | undefined;
    try {
      channel = this.#connection();
      const call: Call = { path, body: encode(fields), token: await this.#login(channel) };
      return channel.stream(call, onMessage);
    } catch (error) {
      if (channel !== undefined) this.#judge(channel, error);
      throw this.#sentence(error);
    }
  }

  #connection(): Channel {
    if (this.#isClosed) throw new GrpcError(STATUS.UNAVAILABLE, 'closed');
    this.#channel ??= new Channel(this.#endpoint(), this.#access.tls);
    return this.#channel;
  }

  #endpoint(): string {
    const { endpoints } = this.#access;
    return endpoints[this.#next % endpoints.length] ?? '';
  }

  /** After a failure: another member next time, or another token. */
  #judge(channel: Channel, error: unknown): void {
    if (isTokenOld(error)) this.#token = undefined;
    else if (isPassing(error) && channel === this.#channel) {
      if (isLate(error)) channel.retire();
      else channel.close();
      this.#channel = undefined;
      this.#next++;
    }
  }

  async #login(channel: Channel): Promise<string | null> {
    const { user } = this.#access;
    if (user === null) return null;
    const body = encode({ 1: user.name, 2: user.password });
    this.#token ??= channel
      .unary({ path: '/etcdserverpb.Auth/Authenticate', body, token: null }, LOGIN_MS)
      .then((answer) => new Message(answer).text(2))
      .catch((error: unknown) => {
        this.#token = undefined;
        throw error;
      });
    return this.#token;
  }

  /** The only place where a failure of etcd becomes a sentence. */
  #sentence(error: unknown): unknown {
    if (!(error instanceof GrpcError)) return error;
    const { message, status } = error;
    const endpoints = this.#access.endpoints.join(',');
    if (status === STATUS.RESOURCE_EXHAUSTED && message.includes('space')) return errors.clusterFull(endpoints, error);
    if (isOfTls(error)) return errors.clusterTls(endpoints, plain(message), error);
    if (isPassing(error)) return errors.clusterUnreachable(endpoints, message, error);
    if (isOfLogin(error)) return errors.clusterLogin(endpoints, message.replace('etcdserver: ', ''), error);
    return errors.clusterFailed(endpoints, message, error);
  }
}

// --- what failures mean -----------------------------------------------------------------------------------------------

/** The next try, perhaps on another member, may go well. */
function isPassing(error: unknown): boolean {
  if (!(error instanceof GrpcError)) return false;
  return error.status === STATUS.UNAVAILABLE || isLate(error) || isTokenOld(error);
}

/** The member itself calls it an unknown error when it runs out of the time it was given. */
function isLate(error: unknown): boolean {
  if (!(error instanceof GrpcError)) return false;
  const { status, message } = error;
  return status === STATUS.DEADLINE_EXCEEDED || /context (deadline exceeded|canceled)/.test(message);
}

/** Tokens last five minutes, and end with the member and with every change of users. */
function isTokenOld(error: unknown): boolean {
  return error instanceof GrpcError && /invalid auth token|auth store is old/.test(error.message);
}

function isOfLogin({ status, message }: GrpcError): boolean {
  return (
    status === STATUS.UNAUTHENTICATED ||
    status === STATUS.PERMISSION_DENIED ||
    (status === STATUS.FAILED_PRECONDITION && message.includes('authentication')) ||
    (status === STATUS.INVALID_ARGUMENT && /user name|authentication/.test(message))
  );
}

/** Node's codes for a certificate that we refuse (tls.html#x509-certificate-error-codes), or the member refused ours. */
function isOfTls(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as { code?: unknown };
  return typeof code === 'string' && /CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO/.test(code);
}

/** Of OpenSSL's `4006:error:0A000412:SSL routines:ssl3_read_bytes:ssl/tls alert bad certificate:…` what a person reads; without advice about Node. */
function plain(message: string): string {
  return message.match(/SSL routines:[^:]*:([^:]+)/)?.[1] ?? message.replace(/; .*/s, '');
}

// --- messages of rpc.proto and kv.proto ---------------------------------------------------------------------------------

function positionOf(answer: Message): Position {
  const header = answer.message(1);
  return { clusterId: header.number(1), revision: header.number(3) };
}

function keyValue(message: Message): KeyValue {
  return { key: message.text(1), value: message.text(5), revision: message.number(3) };
}

function event(message: Message): Event {
  return { isGone: message.number(1) === 1, entry: keyValue(message.message(2)) };
}

function compare({ key, revision }: Condition): Buffer {
  return encode({ 1: 0, 2: MOD, 3: key, 6: revision });
}

function operation(change: Change): Buffer {
  if ('delete' in change) return encode({ 3: encode({ 1: change.delete }) });
  const { key, value, lease } = change.put;
  return encode({ 2: encode({ 1: key, 2: value, 3: lease }) });
}

/** The first key behind all with the prefix, which ends with an ASCII character. */
function endOf(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end.at(-1) ?? 0) + 1;
  return end;
}
