/**
 * Stands where src/store/etcd/connection.ts stands: a connection of the machine whose process is running to a member of the
 * model. What is under way takes time each way, and when the machine is cut off no answer comes.
 */
import { Code, ConnectError } from '@connectrpc/connect';
import { pause, currentProcess, type Event, scheduler } from '../time.ts';
import type { Host } from '../host.ts';
import { type Change, type Cluster, EtcdRefusal, type Member, type Operation, type Stored } from './cluster.ts';

interface Options {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}
interface RangeRequest {
  readonly key: Uint8Array;
  readonly rangeEnd?: Uint8Array;
  readonly limit?: bigint;
}
type RequestOp = {
  readonly request:
    | { readonly case: 'requestRange'; readonly value: RangeRequest }
    | { readonly case: 'requestPut'; readonly value: { key: Uint8Array; value: Uint8Array; lease: bigint } }
    | { readonly case: 'requestDeleteRange'; readonly value: { key: Uint8Array } };
};
interface TxnRequest {
  readonly compare: readonly { readonly key: Uint8Array; readonly targetUnion: { readonly value: bigint } }[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}
interface WatchRequest {
  readonly requestUnion: { readonly value: { key: Uint8Array; startRevision: bigint } };
}

const CODES = {
  'resource exhausted': Code.ResourceExhausted,
  'out of range': Code.OutOfRange,
  'not found': Code.NotFound,
  unavailable: Code.Unavailable,
} as const;
const USUAL_MS = 1;
const LONGEST_MS = 30;
/** TCP's first times out after that. */
const RESEND_MS = 200;

export class Connection {
  readonly #host: Host;
  readonly address: string;
  readonly #cluster: Cluster | undefined;
  readonly #endings = new Set<(error: Error) => void>();
  #isOpen = true;
  brokenBy: unknown = undefined;
  /** The product's mark. */
  isAdmitted = false;

  constructor(address: string, _tls: unknown) {
    this.#host = currentProcess()?.machine as Host;
    this.address = address;
    this.#cluster = this.#member?.cluster;
  }

  readonly kv = {
    range: (request: RangeRequest, options: Options) =>
      this.#ask(options, (cluster) => {
        const end = textOf(request.rangeEnd ?? Buffer.alloc(0));
        const { kvs, more } = cluster.range(textOf(request.key), end, Number(request.limit ?? 0n));
        return { header: headerOf(cluster), kvs: kvs.map(keyValue), more };
      }),
    txn: ({ compare, success, failure }: TxnRequest, options: Options) =>
      this.#ask(options, (cluster) => {
        const conditions = compare.map(({ key, targetUnion }) => ({
          key: textOf(key),
          revision: Number(targetUnion.value),
        }));
        const { succeeded, found } = cluster.transact(conditions, success.map(operationOf), failure.map(operationOf));
        const responses = found.map((one) => ({
          response: { case: 'responseRange', value: { kvs: one === undefined ? [] : [keyValue(one)] } },
        }));
        return { header: headerOf(cluster), succeeded, responses };
      }),
  };

  readonly lease = {
    leaseGrant: ({ ID, TTL }: { ID: bigint; TTL: bigint }, options: Options) =>
      this.#ask(options, (cluster) => cluster.grant(Number(ID), Number(TTL))),
    leaseKeepAlive: (requests: AsyncIterable<{ ID: bigint }>, options: Options) => this.#keepAlive(requests, options),
  };

  readonly auth = {
    authenticate: () => Promise.reject(new ConnectError('there are no users', Code.FailedPrecondition)),
  };

  readonly watch = {
    watch: (requests: AsyncIterable<WatchRequest>, options: Options) => this.#watch(requests, options),
  };

  get isOpen(): boolean {
    return this.#isOpen;
  }

  close(): void {
    this.#isOpen = false;
    for (const end of [...this.#endings]) end(new ConnectError('connection closed', Code.Unavailable));
  }

  retire(): void {
    this.#isOpen = false;
  }

  /** A member that went down, or belongs to another cluster now, breaks its connections. */
  get #member(): Member | null {
    return this.#host.etcd?.reach(this.address) ?? null;
  }

  get #delayMs(): number {
    return this.#host.random.delay(USUAL_MS, LONGEST_MS);
  }

  /** The question goes there, is answered at one moment, and the answer comes back; or the time is over. */
  async #ask<T>({ timeoutMs = 0 }: Options, answer: (cluster: Cluster) => T): Promise<T> {
    if (!this.#isOpen) throw new ConnectError('connection closed', Code.Unavailable);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const late = new ConnectError('the operation timed out', Code.DeadlineExceeded);
    const timer: Event | null = timeoutMs > 0 ? scheduler.after(timeoutMs, () => reject(late)) : null;
    this.#endings.add(reject);
    const back = (settle: () => void) => void scheduler.after(this.#delayMs, settle);
    const process = currentProcess();
    // A question that is on its way arrives, whatever becomes of who asked.
    scheduler.world(this.#delayMs, () => {
      const member = this.#member;
      if (member === null) return;
      const settle = this.#answered(member, answer, resolve, reject);
      process?.enter(() => back(settle));
    });
    try {
      return await promise;
    } finally {
      this.#endings.delete(reject);
      if (timer !== null) timer.isCancelled = true;
    }
  }

  #answered<T>(
    member: Member,
    answer: (cluster: Cluster) => T,
    resolve: (value: T) => void,
    reject: (error: Error) => void,
  ): () => void {
    if (member.isDown || member.cluster !== this.#cluster) {
      return () => {
        this.#isOpen = false;
        reject(new ConnectError('connection refused', Code.Unavailable));
      };
    }
    try {
      const value = answer(member.cluster);
      return () => {
        // The answer may be lost on its way.
        if (this.#member !== null) resolve(value);
      };
    } catch (error) {
      return () => reject(connectError(error));
    }
  }

  /** What the other end sends arrives in order, however long the network is away: TCP sends it again, or the connection ends. */
  #stream(take: (answer: object) => void): (answer: object) => void {
    const process = currentProcess();
    let arrivesMs = 0;
    const arrive = (answer: object) => {
      if (this.#member === null) return void scheduler.after(RESEND_MS, () => arrive(answer));
      take(answer);
    };
    return (answer) => {
      arrivesMs = Math.max(arrivesMs, scheduler.nowMs + this.#delayMs);
      process?.enter(() => scheduler.after(arrivesMs - scheduler.nowMs, () => arrive(answer)));
    };
  }

  async *#keepAlive(requests: AsyncIterable<{ ID: bigint }>, options: Options) {
    for await (const { ID } of requests)
      yield { TTL: BigInt(await this.#ask(options, (cluster) => cluster.keepAlive(Number(ID)))) };
  }

  async *#watch(requests: AsyncIterable<WatchRequest>, { signal }: Options) {
    const waiting: object[] = [];
    let wake = Promise.withResolvers<void>();
    let failure: Error | null = null;
    const end = (error: Error) => {
      failure ??= error;
      wake.resolve();
    };
    const push = this.#stream((answer) => {
      waiting.push(answer);
      wake.resolve();
    });
    const first = await requests[Symbol.asyncIterator]().next();
    const { key, startRevision } = (first.value as WatchRequest).requestUnion.value;
    this.#endings.add(end);
    signal?.addEventListener('abort', () => end(new ConnectError('aborted', Code.Canceled)));
    const stop = await this.#ask({ timeoutMs: 0 }, (cluster) => {
      const tell = (changes: readonly Change[]) => push({ header: headerOf(cluster), events: changes.map(eventOf) });
      push({ header: headerOf(cluster), created: true, events: [] });
      return cluster.watch(textOf(key), Number(startRevision), tell);
    });
    try {
      for (;;) {
        while (waiting.length > 0) yield waiting.shift() as object;
        if (failure !== null) throw failure as Error;
        if (this.#member?.isDown || (this.#member !== null && this.#member.cluster !== this.#cluster))
          throw new ConnectError('connection reset', Code.Unavailable);
        wake = Promise.withResolvers<void>();
        void pause(1000).then(wake.resolve);
        await wake.promise;
      }
    } finally {
      stop();
      this.#endings.delete(end);
    }
  }
}

function connectError(error: unknown): Error {
  if (!(error instanceof EtcdRefusal)) return error as Error;
  return new ConnectError(error.message, CODES[error.code], { 'grpc-status': String(CODES[error.code]) });
}

function headerOf({ id, revision }: Cluster) {
  return { clusterId: BigInt(id), revision: BigInt(revision) };
}

function keyValue({ key, value, revision }: Stored) {
  return { key: Buffer.from(key), value, modRevision: BigInt(revision) };
}

function eventOf({ isGone, stored }: Change) {
  return { type: isGone ? 1 : 0, kv: keyValue(stored) };
}

function operationOf({ request }: RequestOp): Operation {
  const key = textOf(request.value.key);
  if (request.case === 'requestRange') return { range: key };
  if (request.case === 'requestDeleteRange') return { delete: key };
  return { put: { key, value: Buffer.from(request.value.value), lease: Number(request.value.lease) } };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}
