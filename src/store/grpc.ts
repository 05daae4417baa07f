/**
 * gRPC over one HTTP/2 connection (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md): calls with a deadline, and streams in
 * which the server talks. The connection is made at once; when it breaks, what is under way fails and so do later calls.
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { SecureContextOptions } from 'node:tls';

/** Status codes of gRPC that mean something to us (grpc/doc/statuscodes.md). */
export const STATUS = {
  OK: 0,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const;

export class GrpcError extends Error {
  readonly status: number;

  constructor(status: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

export interface Call {
  /** `/etcdserverpb.KV/Range` */
  readonly path: string;
  readonly body: Buffer;
  /** Sent as metadata `token`. */
  readonly token: string | null;
}

export interface Stream {
  /** Resolves when the stream ended, however; with what ended it. */
  readonly ended: Promise<GrpcError>;
  cancel(): void;
}

const { NGHTTP2_CANCEL } = constants;
const PONG_MS = 4000;
/** A compression flag and the length. */
const PREFIX_BYTES = 5;

export class Channel {
  readonly #session: ClientHttp2Session;
  #brokenBy: unknown;

  /** `address`: `10.0.0.1:2379`. */
  constructor(address: string, tls: SecureContextOptions | null) {
    this.#session = connect(`${tls === null ? 'http' : 'https'}://${address}`, { ...tls });
    this.#session.on('error', (error: unknown) => {
      this.#brokenBy ??= error;
    });
  }

  close(): void {
    this.#session.destroy();
  }

  /** Lets what is under way go on as long as the other end is there. */
  retire(): void {
    const timer = setTimeout(() => this.close(), PONG_MS).unref();
    if (this.#session.destroyed) return;
    this.#session.ping(() => clearTimeout(timer));
    this.#session.close();
  }

  /** Resolves with the answer; throws GrpcError, DEADLINE_EXCEEDED after so many milliseconds. */
  async unary(call: Call, deadlineMs: number): Promise<Buffer> {
    let answer: Buffer | undefined;
    const stream = this.#open(call, (message) => (answer = message), { 'grpc-timeout': `${Math.ceil(deadlineMs)}m` });
    const timer = setTimeout(() => stream.cancel(STATUS.DEADLINE_EXCEEDED), deadlineMs);
    const end = await stream.ended;
    clearTimeout(timer);
    if (end.status !== STATUS.OK || answer === undefined) throw end;
    return answer;
  }

  /** Sends one message and hears many, until cancelled. */
  stream(call: Call, onMessage: (message: Buffer) => void): Stream {
    const { ended, cancel } = this.#open(call, onMessage, {}, false);
    return { ended, cancel: () => cancel(STATUS.OK) };
  }

  #open(call: Call, onMessage: (message: Buffer) => void, headers: Record<string, string>, isWhole = true) {
    const { promise: ended, resolve } = Promise.withResolvers<GrpcError>();
    if (this.#session.destroyed || this.#session.closed) {
      resolve(this.#failure());
      return { ended, cancel: () => undefined };
    }
    const stream = this.#session.request(this.#headers(call, headers), { endStream: false });
    const cancel = (status: number) => {
      resolve(new GrpcError(status, status === STATUS.OK ? 'cancelled' : 'no answer in time'));
      stream.close(NGHTTP2_CANCEL);
    };
    this.#listen(stream, onMessage, resolve);
    if (isWhole) stream.end(framed(call.body));
    else stream.write(framed(call.body));
    return { ended, cancel };
  }

  #headers({ path, token }: Call, more: Record<string, string>) {
    // `hasleader`: a member that is cut off from the others refuses, and ends its streams (etcd, rpctypes/metadatafields.go).
    const fixed = {
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      hasleader: 'true',
    };
    return { ...fixed, ...more, ...(token !== null && { token }) };
  }

  #listen(stream: ClientHttp2Stream, onMessage: (message: Buffer) => void, end: (reason: GrpcError) => void): void {
    let status: IncomingHttpHeaders = {};
    let failure: unknown;
    let buffered: Buffer = Buffer.alloc(0);
    stream.on('response', (headers: IncomingHttpHeaders) => {
      status = headers;
    });
    // Replaces what a call that failed at once said in its headers.
    stream.on('trailers', (headers: IncomingHttpHeaders) => {
      status = headers;
    });
    stream.on('error', (error: unknown) => {
      failure = error;
    });
    stream.on('data', (chunk: Buffer) => {
      buffered = deliver(Buffer.concat([buffered, chunk]), onMessage);
    });
    stream.on('close', () => end(statusOf(status) ?? this.#failure(failure)));
  }

  /** The connection's own failure says more than that of a stream on it, of which it is the cause. */
  #failure(failure?: unknown): GrpcError {
    const reason = this.#brokenBy ?? (failure as Error | undefined)?.cause ?? failure;
    return new GrpcError(STATUS.UNAVAILABLE, reason instanceof Error ? reason.message : 'connection closed', reason);
  }
}

function framed(body: Buffer): Buffer {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

/** Hands on whole messages; answers the rest. */
function deliver(bytes: Buffer, onMessage: (message: Buffer) => void): Buffer {
  let rest = bytes;
  while (rest.length >= PREFIX_BYTES) {
    const end = PREFIX_BYTES + rest.readUInt32BE(1);
    if (rest.length < end) break;
    onMessage(rest.subarray(PREFIX_BYTES, end));
    rest = rest.subarray(end);
  }
  return rest;
}

function statusOf(headers: IncomingHttpHeaders): GrpcError | undefined {
  const status = headers['grpc-status'];
  if (status === undefined) return undefined;
  return new GrpcError(Number(status), decodeURIComponent(String(headers['grpc-message'] ?? '')));
}
