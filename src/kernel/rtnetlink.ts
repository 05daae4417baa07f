/**
 * One rtnetlink socket (man 7 rtnetlink): requests, batches of requests and dumps, one exchange after the other.
 *
 * The kernel works inside send() and may wait there for rtnl_lock, which a stranger's unregistration of a link holds
 * for tens of milliseconds; so send runs in a thread of the pool, and the answers already wait when it returns. A dump
 * goes on inside recv(), so that runs in the pool as well. Nothing blocks the event loop.
 */
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { KernelError, check } from './errno.ts';
import * as libc from './libc.ts';
import {
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  type Acknowledgement,
  type Answer,
  type Message,
  type Request,
  decodeAcknowledgement,
  decodeDone,
  decodeMessages,
  encodeMessage,
} from './netlink.ts';
import type { NetlinkTrace } from './trace.ts';

const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SO_RCVBUFFORCE = 33;

/** The kernel cuts dumps into datagrams of at most 32 KiB; a single link can take more only with hundreds of names. */
const RECEIVE_SIZE = 64 * 1024;
/** A change during a dump makes it worthless (NLM_F_DUMP_INTR); so many in a row are more than a busy host shows. */
const DUMP_ATTEMPTS = 10;
/** More before each further attempt. */
const DUMP_PAUSE_MS = 5;
/** Of a list whose changes somebody makes on purpose: others wait for this socket. */
const LOOSE_ATTEMPTS = 2;

/** What a dump told. `isWhole`: the list did not change while it was read, so that nothing is missing. */
export interface Listing<T> {
  readonly values: T[];
  readonly isWhole: boolean;
}

/** A raw rtnetlink descriptor, subscribed to the RTNLGRP_* of the mask. */
export function openSocket(groups = 0, receiveBufferBytes?: number): number {
  const fd = check('open an rtnetlink socket', libc.socket(libc.AF_NETLINK, libc.SOCK_RAW, NETLINK_ROUTE));
  try {
    // Absent before Linux 4.3 and 4.12: then refusals come without the kernel's text.
    libc.setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    libc.setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    if (receiveBufferBytes) libc.setsockopt(fd, libc.SOL_SOCKET, SO_RCVBUFFORCE, receiveBufferBytes);
    check('bind an rtnetlink socket', libc.bind(fd, socketAddress(groups)));
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** struct sockaddr_nl {u16 family; u16 pad; u32 port; u32 groups}; the kernel picks the port. */
function socketAddress(groups: number): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(libc.AF_NETLINK);
  address.writeUInt32LE(groups, 8);
  return address;
}

/** Port 0 is the kernel; a process with CAP_NET_ADMIN could send us messages too. */
export function isFromKernel(address: Buffer): boolean {
  return address.readUInt32LE(4) === 0;
}

/** What a message of a dump is about; null or undefined where that is nothing. */
type Decode<T> = (message: Message) => T | null | undefined;

/** One socket; exchanges wait for each other in the order in which they were asked. */
export class RtnetlinkSocket {
  /** Requests in one batch: their acknowledgements wait in the receive buffer, where some 250 would find room. */
  static readonly BATCH_LIMIT = 64;

  readonly #fd: number;
  /** Null unless somebody reads along. */
  readonly #trace: NetlinkTrace | null;
  readonly #buffer = Buffer.alloc(RECEIVE_SIZE);
  #sequence = 0;
  #closed = false;
  /** Settles when the exchange before the next one has ended. */
  #tail: Promise<unknown> = Promise.resolve();

  /** Over a descriptor of openSocket(), which close() closes. */
  constructor(fd: number, trace: NetlinkTrace | null) {
    this.#fd = fd;
    this.#trace = trace;
  }

  /** A socket without subscriptions. */
  static open(trace: NetlinkTrace | null): RtnetlinkSocket {
    return new RtnetlinkSocket(openSocket(), trace);
  }

  /** Exchanges that were requested before are finished; the descriptor is closed after the last of them. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#tail.then(() => libc.close(this.#fd));
  }

  /** What the kernel answered beside its acknowledgement. Throws its refusal. */
  async request(operation: string, request: Request): Promise<Message[]> {
    const [answer] = await this.batch(operation, [request]);
    if (answer?.error) throw answer.error;
    return answer?.messages ?? [];
  }

  /**
   * All requests in one send(): the kernel handles all of them, in order, before it returns, whatever happens to us
   * meanwhile. It goes on after one that it refuses, so the later ones must be harmless then. One answer per request.
   */
  batch(operation: string, requests: readonly Request[]): Promise<Answer[]> {
    return this.#next(operation, () => {
      const exchange = this.#exchange(operation, requests);
      return this.#trace === null ? exchange : this.#trace.batch(requests, exchange);
    });
  }

  /**
   * Everything of one kind, as it was at one moment: a list that changed while it was read is read again. `decode` gets
   * messages that lie in the receive buffer and keeps nothing of them, since a thousand links fill a megabyte; what it
   * has no value for is left out.
   */
  async dump<T>(operation: string, request: Request, decode: Decode<T>): Promise<T[]> {
    const { values, isWhole } = await this.#readAgain(operation, request, decode, DUMP_ATTEMPTS);
    if (isWhole) return values;
    throw new KernelError(operation, constants.errno.EAGAIN, `changed during each of ${DUMP_ATTEMPTS} readings`);
  }

  /** As dump(), but of a list that changes without end what the second reading found: something that was there may be missing. */
  dumpLoosely<T>(operation: string, request: Request, decode: Decode<T>): Promise<Listing<T>> {
    return this.#readAgain(operation, request, decode, LOOSE_ATTEMPTS);
  }

  #readAgain<T>(operation: string, request: Request, decode: Decode<T>, attempts: number): Promise<Listing<T>> {
    return this.#next(operation, async () => {
      for (let attempt = 1; ; attempt++) {
        const reading = this.#readDump(operation, request, decode);
        await this.#trace?.dump(
          request,
          reading.then(({ values, isWhole }) => (isWhole ? values : undefined)),
        );
        const { values, isWhole } = await reading;
        if (isWhole || attempt === attempts)
          return { values: values.filter((value) => value !== null && value !== undefined), isWhole };
        await sleep((attempt - 1) * DUMP_PAUSE_MS);
      }
    });
  }

  #next<T>(operation: string, exchange: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new KernelError(operation, constants.errno.EBADF, 'socket is closed'));
    const result = this.#tail.then(exchange);
    this.#tail = result.catch(() => undefined);
    return result;
  }

  async #exchange(operation: string, requests: readonly Request[]): Promise<Answer[]> {
    const first = this.#sequence + 1;
    await this.#send(operation, requests, NLM_F_ACK);
    const answers = new Answers(operation, first, requests.length);
    return answers.read(() => libc.receive(this.#fd, this.#buffer), this.#buffer);
  }

  async #send(operation: string, requests: readonly Request[], flags: number): Promise<void> {
    const messages = requests.map((request) => {
      this.#sequence = (this.#sequence + 1) >>> 0;
      return encodeMessage({ ...request, flags: request.flags | flags }, this.#sequence);
    });
    check(operation, await libc.sendAsync(this.#fd, Buffer.concat(messages)));
  }

  /** A value for each message. */
  async #readDump<T>(operation: string, request: Request, decode: Decode<T>): Promise<Listing<T | null | undefined>> {
    await this.#send(operation, [request], NLM_F_DUMP);
    const sequence = this.#sequence;
    const values: (T | null | undefined)[] = [];
    let isWhole = true;
    for (;;) {
      const received = await libc.receiveAsync(this.#fd, this.#buffer);
      for (const message of datagram(operation, received, this.#buffer)) {
        if (message.sequence !== sequence) continue;
        isWhole &&= (message.flags & NLM_F_DUMP_INTR) === 0;
        this.#trace?.learn(message);
        const end = endOfDump(message);
        if (end !== undefined && end.errno !== 0) throw new KernelError(operation, end.errno, end.detail);
        if (end !== undefined) return { values, isWhole };
        values.push(decode(message));
      }
    }
  }
}

function endOfDump(message: Message): Acknowledgement | undefined {
  if (message.type === NLMSG_DONE) return decodeDone(message);
  return message.type === NLMSG_ERROR ? decodeAcknowledgement(message) : undefined;
}

/** The messages of one datagram, which lie in the buffer; none when it came from another process. */
function datagram(operation: string, { length, address }: libc.Received, buffer: Buffer): Message[] {
  if (length === -libc.EAGAIN) throw new KernelError(operation, constants.errno.ENODATA, 'the kernel did not answer');
  check(operation, length);
  if (!isFromKernel(address)) return [];
  if (length > buffer.length) throw new KernelError(operation, constants.errno.EMSGSIZE, `answer of ${length} bytes`);
  return decodeMessages(buffer.subarray(0, length));
}

/** Collects the answers to requests of consecutive sequence numbers. */
class Answers {
  readonly #operation: string;
  readonly #first: number;
  readonly #answers: { messages: Message[]; error: KernelError | null; isComplete: boolean }[];

  constructor(operation: string, first: number, count: number) {
    this.#operation = operation;
    this.#first = first;
    this.#answers = Array.from({ length: count }, () => ({ messages: [], error: null, isComplete: false }));
  }

  read(receive: () => libc.Received, buffer: Buffer): Answer[] {
    while (this.#answers.some((answer) => !answer.isComplete)) {
      for (const message of datagram(this.#operation, receive(), buffer)) this.#take(message);
    }
    return this.#answers;
  }

  #take(message: Message): void {
    const answer = this.#answers[(message.sequence - this.#first) >>> 0];
    // Answers left over from an exchange that was given up.
    if (answer === undefined || answer.isComplete) return;
    if (message.type !== NLMSG_ERROR) {
      answer.messages.push({ ...message, body: Buffer.from(message.body) });
      return;
    }
    const { errno, detail } = decodeAcknowledgement(message);
    answer.error = errno === 0 ? null : new KernelError(this.#operation, errno, detail);
    answer.isComplete = true;
  }
}
