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
import {
  CallFailure,
  isLate,
  isOfNoLock,
  isGranted,
  isOfNoName,
  isOfPassword,
  isOfTls,
  isPassing,
  isTokenOld,
  NO_ANSWER,
  sentence,
  TOKEN_IS_OLD,
} from './failure.ts';
import type { RangeResponse, ResponseHeader } from './kv_pb.ts';
import {
  type Change,
  compare,
  type Condition,
  endOf,
  exact,
  idOf,
  type KeyChange,
  keyChange,
  malformedAnswer,
  operation,
  reading,
  type StoredValue,
  storedValue,
} from './messages.ts';
import type { WatchRequestSchema, WatchResponse } from './rpc_pb.ts';

/** Certificates and key of a connection. */
export type TlsFiles = Pick<SecureContextOptions, 'ca' | 'cert' | 'key'>;

/** Who logs in. */
export interface Login {
  readonly name: string;
  readonly password: string;
}

/** How the members are reached. What is read of files is asked for again each time, and throws a sentence where it cannot be read. */
export interface EtcdAccess {
  /** `10.0.0.1:2379`, those of the members. */
  readonly endpoints: readonly string[];
  /** For each connection; null: without TLS. */
  readonly tls: () => TlsFiles | null;
  /** For each login; null: nobody logs in. */
  readonly user: () => Login | null;
}

/** Where the history of the store stands; another cluster id means that it was restored or replaced. */
export interface Position {
  /** As etcdctl writes it, `cdf818194e3a8c32`; empty for none. */
  readonly clusterId: string;
  readonly revision: number;
}

/** What became of a transaction. */
export interface Outcome {
  readonly isDone: boolean;
  /** Of the store after the transaction; that of the keys which it changed. */
  readonly revision: number;
  /** Between two elections it is the same. */
  readonly term: bigint;
  /** What stands at each of the keys asked for, when the conditions did not hold. */
  readonly found: readonly (StoredValue | undefined)[];
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
const PASSWORD_PAUSE_MS = 500;
/** Logging in is no remedy for members that are busy, so it is tried so often at most. */
const LOGINS_APART_MS = 10_000;
/** A call is made again so long. */
export const PATIENCE_MS = 5500;
/** Keys per answer of list(). */
const PAGE = 2000;
/** A key that whoever may use ours may read. */
const ANY_KEY = '/tsmacvlan/';
/** What HTTP takes as a header's value, since a token goes there (RFC 9110 5.5). */
const TOKEN = /^[\x21-\x7e]+$/;

/** The client. Every method but close() and silence() throws a sentence, one of the CLUSTER_ ones of errors.ts. */
export class Etcd {
  readonly #access: EtcdAccess;
  #next: number;
  #current: Connection | undefined;
  /** Null where the members want none, since nobody has to log in. */
  #token: Promise<string | null> | undefined;
  #hasLoggedIn = false;
  #loggedInAtMs = Number.NEGATIVE_INFINITY;
  /** Endpoints at which a member of another cluster answered last, with that. */
  readonly #others = new Map<string, string>();
  #clusterId = '';
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
    return this.#call(async ({ kv }, options) => this.#readPage(await kv.range(request, options), key));
  }

  #readPage({ header, kvs, more }: RangeResponse, from: Uint8Array): Page {
    const position = this.#positionOf(header);
    const [first, last] = [kvs[0], kvs.at(-1)];
    if (first === undefined || last === undefined) return { entries: [], position, next: undefined };
    // Else the same page could come for ever.
    if (Buffer.compare(first.key, from) < 0 || Buffer.compare(last.key, first.key) < 0)
      throw malformedAnswer('keys that were not asked for');
    return {
      entries: kvs.map(storedValue),
      position,
      next: more ? Buffer.concat([last.key, Buffer.of(0)]) : undefined,
    };
  }

  /** Of the key's last change, as it stood at an earlier revision of the store: 0 where it did not exist, null where that was compacted away. */
  async revisionAt(key: string, revision: number): Promise<number | null> {
    return this.#call(async ({ kv }, options) => {
      try {
        const { header, kvs } = await kv.range({ key: Buffer.from(key), revision: BigInt(revision) }, options);
        this.#positionOf(header);
        return exact(kvs[0]?.modRevision ?? 0n);
      } catch (error) {
        // mvcc: required revision has been compacted.
        if (error instanceof ConnectError && error.code === Code.OutOfRange) return null;
        throw error;
      }
    });
  }

  /** All changes when all conditions hold, else none, and what stands at the keys `asked` for. */
  async transaction(
    conditions: readonly Condition[],
    changes: readonly Change[],
    asked: readonly string[],
    patienceMs = PATIENCE_MS,
  ): Promise<Outcome> {
    const request = { compare: conditions.map(compare), success: changes.map(operation), failure: asked.map(reading) };
    return this.#call(async ({ kv }, options) => {
      const { header, succeeded, responses } = await kv.txn(request, options);
      const { revision } = this.#positionOf(header);
      const kvs = succeeded ? [] : responses.map(({ response }) => response.value?.kvs[0]);
      return {
        isDone: succeeded,
        revision,
        term: header?.raftTerm ?? 0n,
        found: kvs.map((kv) => kv && storedValue(kv)),
      };
    }, patienceMs);
  }

  /** A lease that ends when it is not kept alive. `id`: drawn for it, any number that is not 0. */
  async grant(id: number, seconds: number): Promise<void> {
    await this.#call(async ({ lease }, options) => {
      try {
        await lease.leaseGrant({ ID: BigInt(id), TTL: BigInt(seconds) }, options);
      } catch (error) {
        if (!isGranted(error)) throw error;
      }
    });
  }

  /** False when the lease has ended. */
  async keepAlive(id: number): Promise<boolean> {
    return this.#call(async ({ lease }, options) => {
      let seconds: bigint | undefined;
      for await (const { TTL } of lease.leaseKeepAlive(only({ ID: BigInt(id) }), options)) seconds = TTL;
      if (seconds === undefined) throw malformedAnswer('no answer about a lease');
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
      if (last !== undefined) onChanges(changes, { ...this.#positionOf(header), revision: last.entry.revision });
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

  // --- clusters -----------------------------------------------------------------------------------------------------

  /** Endpoints at which a member of another cluster answered last, with that; see survey(). */
  get others(): ReadonlyMap<string, string> {
    return this.#others;
  }

  /** From now on only members of this cluster are listened to; the empty one stands for whichever answers. */
  keepTo(clusterId: string): void {
    this.#clusterId = clusterId;
    for (const [endpoint, other] of this.#others) if (other === clusterId) this.#others.delete(endpoint);
  }

  /**
   * Of which cluster each endpoint is a member at this moment, by asking all; null where nobody answers. Behind one address
   * there may be several members, so each is asked twice.
   */
  async survey(): Promise<Map<string, readonly string[] | null>> {
    const asked = this.#access.endpoints.map(async (endpoint) => {
      const ids = (await Promise.all([this.#clusterAt(endpoint), this.#clusterAt(endpoint)])).filter(
        (id) => id !== null,
      );
      return [endpoint, ids.length === 0 ? null : [...new Set(ids)]] as const;
    });
    return new Map(await Promise.all(asked));
  }

  async #clusterAt(endpoint: string): Promise<string | null> {
    let connection: Connection | undefined;
    try {
      connection = new Connection(endpoint, this.#access.tls());
      const headers = await this.#headers(connection);
      const { header } = await connection.kv.range(
        { key: Buffer.from(ANY_KEY), serializable: true },
        { timeoutMs: TRY_MS, headers },
      );
      return idOf(header);
    } catch {
      return null;
    } finally {
      connection?.close();
    }
  }

  /** Throws where it is that of another cluster: whatever else the answer says is not about ours. */
  #positionOf(header: ResponseHeader | undefined): Position {
    const [clusterId, revision] = [idOf(header), exact(header?.revision ?? 0n)];
    if (this.#clusterId === '') this.#clusterId = clusterId;
    if (clusterId !== this.#clusterId) throw CallFailure.ofOtherCluster(clusterId);
    return { clusterId, revision };
  }

  // --- tries --------------------------------------------------------------------------------------------------------

  async #call<T>(ask: Ask<T>, patienceMs = PATIENCE_MS): Promise<T> {
    const untilMs = performance.now() + patienceMs;
    for (let tries = 1; ; tries++) {
      // Whole milliseconds, as gRPC takes them.
      const outcome = await this.#try(ask, Math.max(1, Math.ceil(Math.min(TRY_MS, untilMs - performance.now()))));
      if (!(outcome instanceof CallFailure)) return outcome;
      const pauseMs = isOfPassword(outcome) ? PASSWORD_PAUSE_MS : PAUSE_MS;
      if (!this.#mayPass(outcome, tries) || performance.now() + pauseMs >= untilMs)
        throw sentence(outcome, this.#endpoints);
      await delay(pauseMs);
    }
  }

  /**
   * A certificate that one member refuses may be good for another, but for none of them later. A password that was good is
   * being changed.
   */
  #mayPass(failure: CallFailure, tries: number): boolean {
    if (isOfPassword(failure)) return !this.#isClosed && this.#hasLoggedIn;
    if (this.#isClosed || !isPassing(failure)) return false;
    return !isOfTls(failure) || tries < this.#access.endpoints.length;
  }

  async #try<T>(ask: Ask<T>, timeoutMs: number): Promise<T | CallFailure> {
    let connection: Connection | undefined;
    try {
      connection = this.#connection();
      const headers = await this.#headers(connection);
      await this.#admit(connection, { timeoutMs, headers });
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
      await this.#admit(connection, { timeoutMs: TRY_MS, headers });
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

  /** A change must not be made in another cluster: it is asked first which one this is, once for each connection. */
  async #admit(connection: Connection, options: CallOptions): Promise<void> {
    if (connection.isAdmitted) return;
    const { header } = await connection.kv.range({ key: Buffer.from(ANY_KEY), serializable: true }, options);
    this.#positionOf(header);
    this.#others.delete(connection.address);
    connection.isAdmitted = true;
  }

  /** Throws what makes a connection to this member impossible: a port beyond 65535, a certificate that is none. */
  #connection(): Connection {
    if (this.#isClosed) throw closed();
    const { endpoints, tls } = this.#access;
    this.#current ??= new Connection(endpoints[this.#next % endpoints.length] ?? '', tls());
    return this.#current;
  }

  get #endpoints(): string {
    return this.#access.endpoints.join(',');
  }

  /**
   * What a call failed of. The next one goes to another member, or with another token. That may also be why no answer came: of a
   * token that was given before etcd was restored members wait for the index at which it was (auth/simple_token.go, isValidSimpleToken).
   */
  #judged(error: unknown, connection: Connection | undefined): CallFailure {
    const failure = CallFailure.of(error, connection ?? { isOpen: false, brokenBy: error });
    if (failure.otherCluster !== null && connection !== undefined)
      this.#others.set(connection.address, failure.otherCluster);
    if (isOfNoName(failure) && this.#access.user() !== null) {
      // While nobody had to log in, we did not.
      this.#token = undefined;
      return new CallFailure(Code.Unauthenticated, TOKEN_IS_OLD, failure);
    }
    if (isLate(failure) && performance.now() - this.#loggedInAtMs > LOGINS_APART_MS) this.#token = undefined;
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
    this.#token ??= this.#login(connection).catch((error: unknown) => {
      this.#token = undefined;
      throw error;
    });
    const token = await this.#token;
    return token === null ? { hasleader: 'true' } : { hasleader: 'true', token };
  }

  /** With the password as it is in its file now. Null where nobody has to log in, for want of a user or of a lock. */
  async #login({ auth }: Services): Promise<string | null> {
    const user = this.#access.user();
    if (user === null) return null;
    try {
      const { token } = await auth.authenticate(user, { timeoutMs: LOGIN_MS, headers: { hasleader: 'true' } });
      if (!TOKEN.test(token)) throw malformedAnswer('a token that is none');
      [this.#hasLoggedIn, this.#loggedInAtMs] = [true, performance.now()];
      return token;
    } catch (error) {
      if (error instanceof ConnectError && isOfNoLock(error.rawMessage)) return null;
      throw error;
    }
  }
}

/** `next`: the key with which the next page begins, if there is one. */
interface Page {
  readonly entries: StoredValue[];
  readonly position: Position;
  readonly next: Uint8Array | undefined;
}

type Ask<T> = (services: Services, options: CallOptions) => Promise<T>;

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
