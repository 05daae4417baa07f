/**
 * etcd v3 (etcd-io/etcd, api/etcdserverpb/rpc.proto): the few calls that claims need, on whichever member answers.
 *
 * One connection at a time. A member that fails, keeps silent or answers nonsense is left for the next, and the call is made
 * again until its time is up: whoever calls must bear that an earlier try was carried out although its answer was lost.
 */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { SecureContextOptions } from 'node:tls';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type CallOptions, Code, ConnectError } from '@connectrpc/connect';
import * as errors from '../../errors.ts';
import { Connection, type Services } from './connection.ts';
import { CallFailure, isLate, isOfTls, isPassing, isTokenOld, NO_ANSWER, sentence } from './failure.ts';
import {
  Compare_CompareResult,
  Compare_CompareTarget,
  type CompareSchema,
  type KeyValue,
  type RangeResponse,
  type RequestOpSchema,
  type ResponseHeader,
} from './kv_pb.ts';
import { type Event, Event_EventType, type WatchRequestSchema, type WatchResponse } from './rpc_pb.ts';

/** How the members are reached. */
export interface EtcdAccess {
  /** `10.0.0.1:2379`, those of the members. */
  readonly endpoints: readonly string[];
  /** Null: without TLS. */
  readonly tls: Pick<SecureContextOptions, 'ca' | 'cert' | 'key'> | null;
  readonly user: { readonly name: string; readonly password: string } | null;
}

/** What stands at a key. */
export interface StoredValue {
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

/** The revision of the last change of a key; 0: the key does not exist. */
export interface Condition {
  readonly key: string;
  readonly revision: number;
}

/** One step of a transaction. `lease`: the key ends with it. */
export type Change = { readonly put: { key: string; value: string; lease?: number } } | { readonly delete: string };

/** What became of a transaction. */
export interface Outcome {
  readonly isDone: boolean;
  /** Of the store after the transaction; that of the keys which it changed. */
  readonly revision: number;
  /** What stands at the key asked for, when the conditions did not hold. */
  readonly found: StoredValue | undefined;
}

/** A key that was written, or deleted: then its value is empty. */
export interface KeyChange {
  readonly isGone: boolean;
  readonly entry: StoredValue;
}

/** Changes as they come, until one of both sides ends it. */
export interface ChangeStream {
  /** Rejects with a sentence when it cannot begin. */
  readonly began: Promise<void>;
  /** Resolves when it ended, for whatever reason; with the failure if the member sent what is no answer. */
  readonly ended: Promise<CallFailure | undefined>;
  cancel(): void;
}

/** A live member answers in milliseconds; an election takes one to two seconds. */
const TRY_MS = 1500;
/** Members hash a password slowly on purpose. */
const LOGIN_MS = 4000;
/** A member says that a watch began before it looks for changes. */
const BEGIN_MS = 4000;
const PAUSE_MS = 100;
const PATIENCE_MS = 5500;
/** Keys per answer of list(). */
const PAGE = 2000;
/** What HTTP takes as a header's value, since a token goes there (RFC 9110 5.5). */
const TOKEN = /^[\x21-\x7e]+$/;

/** The client. Every method but close() and silence() throws a sentence, one of the CLUSTER_ ones of errors.ts. */
export class Etcd {
  readonly #access: EtcdAccess;
  #next: number;
  #current: Connection | undefined;
  #token: Promise<string> | undefined;
  #isClosed = false;

  constructor(access: EtcdAccess) {
    this.#access = access;
    // Hosts spread over the members.
    this.#next = Math.floor(Math.random() * access.endpoints.length);
  }

  /** Ends everything that is under way, with a failure. */
  close(): void {
    this.#isClosed = true;
    this.#current?.close();
  }

  /** What is said while the members neither answered nor refused. */
  silence(): errors.PluginError {
    return errors.clusterUnreachable(this.#endpoints, 'no answer yet');
  }

  // --- calls --------------------------------------------------------------------------------------------------------

  /** All keys with the prefix, as they were at one moment. */
  async list(prefix: string): Promise<{ entries: StoredValue[]; position: Position }> {
    const first = await this.#page(prefix, Buffer.from(prefix), 0);
    const { entries, position } = first;
    for (let { next } = first; next !== undefined; ) {
      const page = await this.#page(prefix, next, position.revision);
      entries.push(...page.entries);
      next = page.next;
    }
    return { entries, position };
  }

  async #page(prefix: string, key: Uint8Array, revision: number): Promise<Page> {
    const request = { key, rangeEnd: endOf(prefix), limit: BigInt(PAGE), revision: BigInt(revision) };
    return this.#call(async ({ kv }, options) => readPage(await kv.range(request, options), key));
  }

  /** All changes when all conditions hold, else none, and what stands at `asked`. */
  async transaction(
    conditions: readonly Condition[],
    changes: readonly Change[],
    asked: string,
    patienceMs = PATIENCE_MS,
  ): Promise<Outcome> {
    const read: OperationInit = { request: { case: 'requestRange', value: { key: Buffer.from(asked) } } };
    const request = { compare: conditions.map(compare), success: changes.map(operation), failure: [read] };
    return this.#call(async ({ kv }, options) => {
      const { header, succeeded, responses } = await kv.txn(request, options);
      const { revision } = positionOf(header);
      const [first] = succeeded ? [] : (responses[0]?.response.value?.kvs ?? []);
      return { isDone: succeeded, revision, found: first && storedValue(first) };
    }, patienceMs);
  }

  /** A lease that ends when it is not kept alive. `id`: any number that is not 0. */
  async grant(id: number, seconds: number): Promise<void> {
    await this.#call(({ lease }, options) => lease.leaseGrant({ ID: BigInt(id), TTL: BigInt(seconds) }, options));
  }

  /** False when the lease has ended. */
  async keepAlive(id: number): Promise<boolean> {
    return this.#call(async ({ lease }, options) => {
      let seconds: bigint | undefined;
      for await (const { TTL } of lease.leaseKeepAlive(only({ ID: BigInt(id) }), options)) seconds = TTL;
      if (seconds === undefined) throw malformed('no answer about a lease');
      return seconds > 0n;
    });
  }

  /** Changes of the keys with the prefix, in order, from the revision on. `onChanges` must not throw. */
  watch(
    prefix: string,
    revision: number,
    onChanges: (changes: readonly KeyChange[], at: Position) => void,
  ): ChangeStream {
    const began = Promise.withResolvers<void>();
    began.promise.catch(() => undefined);
    const stop = new AbortController();
    const range = { key: Buffer.from(prefix), rangeEnd: endOf(prefix), startRevision: BigInt(revision) };
    const onAnswer = ({ header, created, events }: WatchResponse) => {
      if (created) {
        clearTimeout(late);
        began.resolve();
      }
      const changes = events.map(keyChange);
      const last = changes.at(-1);
      // The header's revision may be that of changes still to come.
      if (last !== undefined) onChanges(changes, { ...positionOf(header), revision: last.entry.revision });
    };
    const late = setTimeout(() => stop.abort(new CallFailure(Code.DeadlineExceeded, NO_ANSWER, undefined)), BEGIN_MS);
    const stopped = this.#listen({ requestUnion: { case: 'createRequest', value: range } }, stop, onAnswer).then(
      (failure) => {
        clearTimeout(late);
        began.reject(sentence(failure, this.#endpoints));
        return failure.isNonsense ? failure : undefined;
      },
    );
    return { began: began.promise, ended: stopped, cancel: () => stop.abort(ended('cancelled')) };
  }

  // --- tries --------------------------------------------------------------------------------------------------------

  async #call<T>(ask: Ask<T>, patienceMs = PATIENCE_MS): Promise<T> {
    const untilMs = performance.now() + patienceMs;
    for (let tries = 1; ; tries++) {
      // Whole milliseconds, as gRPC takes them.
      const outcome = await this.#try(ask, Math.max(1, Math.ceil(Math.min(TRY_MS, untilMs - performance.now()))));
      if (!(outcome instanceof CallFailure)) return outcome;
      if (!this.#mayPass(outcome, tries) || performance.now() + PAUSE_MS >= untilMs)
        throw sentence(outcome, this.#endpoints);
      await delay(PAUSE_MS);
    }
  }

  /** A certificate that one member refuses may be good for another, but for none of them later. */
  #mayPass(failure: CallFailure, tries: number): boolean {
    if (this.#isClosed || !isPassing(failure)) return false;
    return !isOfTls(failure) || tries < this.#access.endpoints.length;
  }

  async #try<T>(ask: Ask<T>, timeoutMs: number): Promise<T | CallFailure> {
    let connection: Connection | undefined;
    try {
      connection = this.#connection();
      const headers = await this.#headers(connection);
      return await ask(connection, { timeoutMs, headers });
    } catch (error) {
      return this.#judged(error, connection);
    }
  }

  /** Hands on what the member sends, and resolves with what ended it. */
  async #listen(
    request: MessageInitShape<typeof WatchRequestSchema>,
    stop: AbortController,
    onAnswer: (answer: WatchResponse) => void,
  ): Promise<CallFailure> {
    const { signal } = stop;
    let connection: Connection | undefined;
    try {
      connection = this.#connection();
      const headers = await this.#headers(connection);
      for await (const answer of connection.watch.watch(held(request, signal), { signal, headers })) {
        // The token ended, or the member fell behind.
        if (answer.canceled) return ended('cancelled by the member');
        onAnswer(answer);
      }
      return ended('ended by the member');
    } catch (error) {
      // What is said of an abort by the library says less than who aborted.
      return this.#judged(signal.aborted ? signal.reason : error, connection);
    } finally {
      stop.abort();
    }
  }

  /** Throws what makes a connection to this member impossible: a port beyond 65535, a certificate that is none. */
  #connection(): Connection {
    if (this.#isClosed) throw closed();
    const { endpoints, tls } = this.#access;
    this.#current ??= new Connection(endpoints[this.#next % endpoints.length] ?? '', tls);
    return this.#current;
  }

  get #endpoints(): string {
    return this.#access.endpoints.join(',');
  }

  /** What a call failed of. The next one goes to another member, or with another token. */
  #judged(error: unknown, connection: Connection | undefined): CallFailure {
    const failure = CallFailure.of(error, connection ?? { isOpen: false, brokenBy: error });
    if (isTokenOld(failure)) this.#token = undefined;
    else if (isPassing(failure) && connection === this.#current) {
      // What is slow or talks nonsense in one call may still carry out the others.
      if (isLate(failure) || failure.isNonsense) connection?.retire();
      else connection?.close();
      this.#current = undefined;
      this.#next++;
    }
    return failure;
  }

  /** `hasleader`: a member that is cut off from the others refuses, and ends its streams (etcd, rpctypes/metadatafields.go). */
  async #headers(connection: Connection): Promise<Record<string, string>> {
    const { user } = this.#access;
    if (user === null) return { hasleader: 'true' };
    this.#token ??= login(connection, user).catch((error: unknown) => {
      this.#token = undefined;
      throw error;
    });
    return { hasleader: 'true', token: await this.#token };
  }
}

type Ask<T> = (services: Services, options: CallOptions) => Promise<T>;
type OperationInit = MessageInitShape<typeof RequestOpSchema>;

async function login({ auth }: Services, user: { name: string; password: string }): Promise<string> {
  const { token } = await auth.authenticate(user, { timeoutMs: LOGIN_MS, headers: { hasleader: 'true' } });
  if (!TOKEN.test(token)) throw malformed('a token that is none');
  return token;
}

/** One message, and the other end hears that no more come. */
async function* only<T>(message: T): AsyncGenerator<T> {
  yield message;
}

/** One message, and the sending side stays open: etcd ends a watch when its client has no more to say. */
async function* held<T>(message: T, signal: AbortSignal): AsyncGenerator<T> {
  yield message;
  if (!signal.aborted) await once(signal, 'abort');
}

function closed(): CallFailure {
  return new CallFailure(Code.Unavailable, 'closed', undefined);
}

function ended(how: string): CallFailure {
  return new CallFailure(Code.Canceled, how, undefined);
}

// --- messages of the protocol -------------------------------------------------------------------------------------------

/** An answer that could be read and yet is none of etcd's. */
function malformed(what: string): ConnectError {
  return new ConnectError(what, Code.DataLoss);
}

function positionOf(header: ResponseHeader | undefined): Position {
  if (header === undefined) throw malformed('an answer without a header');
  // Compared for being the same only, for which 53 bits of 64 will do.
  return { clusterId: Number(header.clusterId), revision: exact(header.revision) };
}

function exact(revision: bigint): number {
  const number = Number(revision);
  if (number < 0 || !Number.isSafeInteger(number)) throw malformed('a revision beyond all bounds');
  return number;
}

/** `next`: the key with which the next page begins, if there is one. */
interface Page {
  readonly entries: StoredValue[];
  readonly position: Position;
  readonly next: Uint8Array | undefined;
}

function readPage({ header, kvs, more }: RangeResponse, from: Uint8Array): Page {
  const position = positionOf(header);
  const [first, last] = [kvs[0], kvs.at(-1)];
  if (first === undefined || last === undefined) return { entries: [], position, next: undefined };
  // Else the same page could come for ever.
  if (Buffer.compare(first.key, from) < 0 || Buffer.compare(last.key, first.key) < 0)
    throw malformed('keys that were not asked for');
  return { entries: kvs.map(storedValue), position, next: more ? Buffer.concat([last.key, Buffer.of(0)]) : undefined };
}

function storedValue({ key, value, modRevision }: KeyValue): StoredValue {
  return { key: text(key), value: text(value), revision: exact(modRevision) };
}

function keyChange({ type, kv }: Event): KeyChange {
  if (kv === undefined) throw malformed('a change of no key');
  return { isGone: type === Event_EventType.DELETE, entry: storedValue(kv) };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
}

function compare({ key, revision }: Condition): MessageInitShape<typeof CompareSchema> {
  return {
    result: Compare_CompareResult.EQUAL,
    target: Compare_CompareTarget.MOD,
    key: Buffer.from(key),
    targetUnion: { case: 'modRevision', value: BigInt(revision) },
  };
}

function operation(change: Change): OperationInit {
  if ('delete' in change)
    return { request: { case: 'requestDeleteRange', value: { key: Buffer.from(change.delete) } } };
  const { key, value, lease = 0 } = change.put;
  const put = { key: Buffer.from(key), value: Buffer.from(value), lease: BigInt(lease) };
  return { request: { case: 'requestPut', value: put } };
}

/** The first key behind all with the prefix, which ends with an ASCII character. */
function endOf(prefix: string): Uint8Array {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end.at(-1) ?? 0) + 1;
  return end;
}
