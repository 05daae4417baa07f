/** An etcd of one member, in memory, that can be told to answer nonsense. Just enough of it for claims. */
import { once } from 'node:events';
import {
  createServer,
  type Http2Server,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import * as rpcKv from '../../src/store/etcd/kv_pb.ts';
import * as rpc from '../../src/store/etcd/rpc_pb.ts';

/** Answers a call in another way than etcd would. The call's headers are read, its body perhaps not yet. */
export type Misbehaviour = (stream: ServerHttp2Stream) => void;

const SERVICE = '/etcdserverpb.';
const CLUSTER = 7n;

export class FakeEtcd {
  /** What becomes of a call, `KV/Txn`; undefined: what etcd would do. */
  misbehaves: (call: string) => Misbehaviour | undefined = () => undefined;
  /** How often each call was made. */
  readonly calls = new Map<string, number>();
  readonly #server: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #values = new Map<string, rpcKv.KeyValue>();
  /** Every change as a watch hears it. */
  readonly #history: { readonly revision: bigint; readonly news: Buffer }[] = [];
  readonly #watches = new Set<ServerHttp2Stream>();
  #revision = 1n;

  private constructor() {
    this.#server = createServer();
    this.#server.on('session', (session) => {
      this.#sessions.add(session);
      // What a client does to it is no failure of the test.
      session.on('error', () => undefined).on('close', () => this.#sessions.delete(session));
    });
    this.#server.on('stream', (stream, headers) => this.#take(stream, String(headers[':path']).replace(SERVICE, '')));
  }

  static async open(): Promise<FakeEtcd> {
    const fake = new FakeEtcd();
    fake.#server.listen(0, '127.0.0.1');
    await once(fake.#server, 'listening');
    return fake;
  }

  get endpoint(): string {
    return `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  async close(): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    this.#server.close();
  }

  /** Writes a key as another client would; whoever watches is told. */
  put(key: string, value: string): void {
    this.#write({ requestPut: { key: Buffer.from(key), value: Buffer.from(value) } });
  }

  /** Deletes a key as another client would. */
  delete(key: string): void {
    this.#write({ requestDelete: Buffer.from(key) });
  }

  /** As a member does that stops. */
  endWatches(): void {
    for (const watch of this.#watches) watch.close();
  }

  /** The answer to a watch that begins, and that it sends when a key was written. */
  static watchAnswers(key: string, value: string): Buffer[] {
    const header = { clusterId: CLUSTER, revision: 5n };
    const kv = { key: Buffer.from(key), value: Buffer.from(value), modRevision: 5n };
    return [
      framed(encoded(rpc.WatchResponseSchema, { header, created: true })),
      framed(encoded(rpc.WatchResponseSchema, { header, events: [{ kv }] })),
    ];
  }

  #take(stream: ServerHttp2Stream, call: string): void {
    stream.on('error', () => undefined);
    this.calls.set(call, (this.calls.get(call) ?? 0) + 1);
    const misbehaviour = this.misbehaves(call);
    if (misbehaviour !== undefined) return misbehaviour(stream);
    let body: Buffer = Buffer.alloc(0);
    let isAnswered = false;
    stream.on('data', (chunk: Buffer) => {
      body = Buffer.concat([body, chunk]);
      if (isAnswered || body.length < 5 || body.length < 5 + body.readUInt32BE(1)) return;
      isAnswered = true;
      this.#answer(stream, call, body.subarray(5));
    });
  }

  #answer(stream: ServerHttp2Stream, call: string, request: Buffer): void {
    if (call === 'Watch/Watch') this.#follow(stream, fromBinary(rpc.WatchRequestSchema, request));
    else answer(stream, framed(this.#reply(call, request)));
  }

  #follow(stream: ServerHttp2Stream, { requestUnion }: rpc.WatchRequest): void {
    const from = requestUnion.value?.startRevision ?? 0n;
    this.#watches.add(stream);
    stream.on('close', () => this.#watches.delete(stream));
    begin(stream);
    stream.write(framed(encoded(rpc.WatchResponseSchema, { header: this.#header(), created: true })));
    for (const { revision, news } of this.#history) if (revision >= from) stream.write(news);
  }

  #reply(call: string, request: Buffer): Uint8Array {
    const header = this.#header();
    if (call === 'KV/Range') return encoded(rpcKv.RangeResponseSchema, { header, kvs: this.#below(request) });
    if (call === 'KV/Txn') return this.#transact(fromBinary(rpcKv.TxnRequestSchema, request));
    if (call === 'Lease/LeaseGrant') return encoded(rpc.LeaseGrantResponseSchema, { header });
    if (call === 'Lease/LeaseKeepAlive') return encoded(rpc.LeaseKeepAliveResponseSchema, { header, TTL: 30n });
    return encoded(rpc.AuthenticateResponseSchema, { header, token: 'token' });
  }

  #below(request: Buffer): rpcKv.KeyValue[] {
    const { key, rangeEnd } = fromBinary(rpcKv.RangeRequestSchema, request);
    const [from, end] = [Buffer.from(key).toString(), Buffer.from(rangeEnd).toString()];
    const keys = [...this.#values.keys()].filter((one) => one >= from && one < end).sort();
    return keys.flatMap((one) => this.#values.get(one) ?? []);
  }

  #transact({ compare, success, failure }: rpcKv.TxnRequest): Uint8Array {
    const revisionOf = (key: Uint8Array) => this.#values.get(Buffer.from(key).toString())?.modRevision ?? 0n;
    const succeeded = compare.every(({ key, targetUnion }) => revisionOf(key) === (targetUnion.value ?? 0n));
    const found = failure.map(({ request }) => this.#values.get(Buffer.from(request.value?.key ?? '').toString()));
    if (succeeded)
      for (const { request } of success)
        if (request.case === 'requestPut') this.#write({ requestPut: request.value });
        else if (request.case === 'requestDeleteRange') this.#write({ requestDelete: request.value.key });
    const ranges = found.map((kv) => ({
      response: { case: 'responseRange' as const, value: { kvs: kv === undefined ? [] : [kv] } },
    }));
    return encoded(rpcKv.TxnResponseSchema, { header: this.#header(), succeeded, responses: succeeded ? [] : ranges });
  }

  #write(change: { requestPut: { key: Uint8Array; value: Uint8Array } } | { requestDelete: Uint8Array }): void {
    this.#revision++;
    const isPut = 'requestPut' in change;
    const key = isPut ? change.requestPut.key : change.requestDelete;
    const value = isPut ? change.requestPut.value : Buffer.alloc(0);
    const kv = create(rpcKv.KeyValueSchema, { key, value, modRevision: this.#revision });
    if (isPut) this.#values.set(Buffer.from(key).toString(), kv);
    else this.#values.delete(Buffer.from(key).toString());
    const type = isPut ? rpc.Event_EventType.PUT : rpc.Event_EventType.DELETE;
    const news = framed(encoded(rpc.WatchResponseSchema, { header: this.#header(), events: [{ type, kv }] }));
    this.#history.push({ revision: this.#revision, news });
    for (const watch of this.#watches) watch.write(news);
  }

  #header(): MessageInitShape<typeof rpcKv.ResponseHeaderSchema> {
    return { clusterId: CLUSTER, revision: this.#revision };
  }
}

type Schema = Parameters<typeof toBinary>[0];

function encoded<S extends Schema>(schema: S, message: MessageInitShape<S>): Uint8Array {
  return toBinary(schema, create(schema, message));
}

/** A message as gRPC sends it: whether it is compressed, its length, its bytes. */
export function framed(message: Uint8Array, flags = 0, length = message.length): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt8(flags);
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, message]);
}

/** Sends the headers, as etcd would but for those given; the trailers come after the last byte, none when null. */
export function begin(
  stream: ServerHttp2Stream,
  headers: OutgoingHttpHeaders = {},
  trailers: OutgoingHttpHeaders | null = { 'grpc-status': '0' },
): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...headers }, { waitForTrailers: true });
  stream.on('wantTrailers', () => (trailers === null ? stream.close() : stream.sendTrailers(trailers)));
}

/** Sends headers, these bytes and the trailers. */
export function answer(
  stream: ServerHttp2Stream,
  bytes: Uint8Array,
  headers?: OutgoingHttpHeaders,
  trailers?: OutgoingHttpHeaders | null,
): void {
  begin(stream, headers, trailers);
  stream.end(bytes);
}
