/**
 * One HTTP/2 connection to one member of etcd, with gRPC on it by @connectrpc (connectrpc.com/docs/node/using-clients). The
 * connection is made at once; when it breaks, what is under way fails and so do later calls. Which member comes next, and
 * what is tried again, is decided in client.ts.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import type { SecureContextOptions } from 'node:tls';
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import type { ConnectionState } from './failure.ts';
import { KV } from './kv_pb.ts';
import { Auth, Lease, Watch } from './rpc_pb.ts';

/** What a member may be asked, one client for each service of kv.proto and rpc.proto. */
export interface Services {
  readonly kv: Client<typeof KV>;
  readonly watch: Client<typeof Watch>;
  readonly lease: Client<typeof Lease>;
  readonly auth: Client<typeof Auth>;
}

const PONG_MS = 4000;
/**
 * The longest message that is read. A page of 2,000 claims is 0.4 MB; changes of gateways that a thousand hosts name come to
 * 25 MB when the member sends a thousand of them at once (etcd, server/mvcc/watcher_group.go, watchBatchMaxRevs).
 */
const LONGEST_MESSAGE = 32 << 20;

/** A connection to one member. It is open until close(), until retire() ends it or until it breaks. */
export class Connection implements Services, ConnectionState {
  readonly kv: Client<typeof KV>;
  readonly watch: Client<typeof Watch>;
  readonly lease: Client<typeof Lease>;
  readonly auth: Client<typeof Auth>;
  /** Whoever is at the other end is a member of the cluster that is spoken to. */
  isAdmitted = false;
  readonly address: string;
  readonly #session: ClientHttp2Session;
  #brokenBy: unknown;

  /** `address`: `10.0.0.1:2379`. `tls` null: without TLS. */
  constructor(address: string, tls: SecureContextOptions | null) {
    this.address = address;
    const baseUrl = `${tls === null ? 'http' : 'https'}://${address}`;
    this.#session = connect(baseUrl, { ...tls });
    this.#session.on('error', (error: unknown) => {
      this.#brokenBy ??= error;
    });
    const transport = createGrpcTransport({
      baseUrl,
      sessionManager: {
        authority: new URL(baseUrl).origin,
        request: async (method, path, headers, options) =>
          this.#request({ ...headers, ':method': method, ':path': path }, options),
        notifyResponseByteRead: () => undefined,
      },
      readMaxBytes: LONGEST_MESSAGE,
      // etcd compresses nothing unless it is asked to, and what is compressed has no length that can be checked before.
      acceptCompression: [],
    });
    this.kv = createClient(KV, transport);
    this.watch = createClient(Watch, transport);
    this.lease = createClient(Lease, transport);
    this.auth = createClient(Auth, transport);
  }

  get isOpen(): boolean {
    return !this.#session.destroyed && !this.#session.closed;
  }

  get brokenBy(): unknown {
    return this.#brokenBy;
  }

  /** Ends the connection and, with a failure, every call on it. */
  close(): void {
    this.#session.destroy();
  }

  /** Takes no more calls, and lets what is under way go on as long as the other end is there. */
  retire(): void {
    const timer = setTimeout(() => this.close(), PONG_MS).unref();
    if (this.#session.destroyed) return;
    this.#session.ping(() => clearTimeout(timer));
    this.#session.close();
  }

  /** Throws ConnectError, UNAVAILABLE when the connection is no longer open. */
  #request(headers: Record<string, unknown>, options: object): ClientHttp2Stream {
    if (!this.isOpen)
      throw new ConnectError('connection closed', Code.Unavailable, undefined, undefined, this.#brokenBy);
    const stream = this.#session.request(headers as IncomingHttpHeaders, options);
    // These come before the listeners of the library, which get the same object.
    stream.on('response', makeReadable);
    stream.on('trailers', makeReadable);
    return stream;
  }
}

/**
 * Makes a message readable that is not encoded as gRPC says (grpc/grpc, doc/PROTOCOL-HTTP2.md, Percent-Encoded: what is wrong
 * must not be an error). The library would throw `URI malformed` and nobody would learn that the disk is 100% full.
 */
function makeReadable(headers: IncomingHttpHeaders): void {
  const message = headers['grpc-message'];
  if (message === undefined) return;
  const text = String(message);
  try {
    decodeURIComponent(text);
  } catch {
    headers['grpc-message'] = encodeURIComponent(text.toWellFormed());
  }
}
