/**
 * The door of koffi: the few system calls that Node has no words for. As in the kernel itself, a result below zero is
 * a negated errno and nothing is thrown.
 *
 * koffi passes a Buffer by its address and does not keep it alive during an `.async` call; freed in flight it crashes
 * the process. Every async call here holds its buffers in the closure that is called when the kernel has answered.
 */
import { constants, endianness } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';

// Structures of the kernel are in host byte order; this room writes them as on x86-64 and arm64.
if (endianness() !== 'LE') throw new Error('tsmacvlan runs on little-endian machines only');

const libc = koffi.load(null);

type Size = number | bigint;
const c = {
  socket: libc.func('int socket(int domain, int type, int protocol)') as (...args: number[]) => number,
  close: libc.func('int close(int fd)') as Call<[number]>,
  bind: libc.func('int bind(int fd, const uint8_t *address, uint32_t length)') as (
    fd: number,
    address: Buffer,
    length: number,
  ) => number,
  connect: libc.func('int connect(int fd, const uint8_t *address, uint32_t length)') as (
    fd: number,
    address: Buffer,
    length: number,
  ) => number,
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t length)') as (
    fd: number,
    level: number,
    name: number,
    value: Buffer,
    length: number,
  ) => number,
  getsockopt: libc.func('int getsockopt(int fd, int level, int name, uint8_t *value, uint8_t *length)') as (
    fd: number,
    level: number,
    name: number,
    value: Buffer,
    length: Buffer,
  ) => number,
  send: libc.func('intptr_t send(int fd, const uint8_t *data, size_t length, int flags)') as Call<
    [number, Buffer, number, number]
  >,
  recvfrom: libc.func(
    'intptr_t recvfrom(int fd, uint8_t *into, size_t size, int flags, uint8_t *address, uint8_t *length)',
  ) as Call<[number, Buffer, number, number, Buffer, Buffer]>,
  recvmsg: libc.func('intptr_t recvmsg(int fd, uint8_t *header, int flags)') as (
    fd: number,
    header: Buffer,
    flags: number,
  ) => Size,
  poll: libc.func('int poll(uint8_t *fds, unsigned long count, int timeout)') as (
    fds: Buffer,
    count: number,
    timeout: number,
  ) => Size,
  epoll_create1: libc.func('int epoll_create1(int flags)') as (flags: number) => number,
  epoll_ctl: libc.func('int epoll_ctl(int epoll, int operation, int fd, const uint8_t *event)') as (
    epoll: number,
    operation: number,
    fd: number,
    event: Buffer,
  ) => number,
  malloc_trim: ifPresent<[number]>('int malloc_trim(size_t pad)'),
};

/** What not every build of the C library or of Node has. */
function ifPresent<Args extends unknown[], Result = number>(prototype: string): ((...args: Args) => Result) | null {
  try {
    return libc.func(prototype) as (...args: Args) => Result;
  } catch {
    return null;
  }
}

interface Call<Args extends unknown[]> {
  (...args: Args): Size;
  async(...args: [...Args, (error: Error | null, result: Size) => void]): void;
}

export const AF_UNIX = 1;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
export const EAGAIN = constants.errno.EAGAIN;

const ADDRESS_SIZE = 32;

/** Read at once after the call: koffi keeps errno for the function called last, also in the callback of an async one. */
function negated(result: Size): number {
  return result < 0 ? -koffi.errno() : Number(result);
}

/** A new descriptor, closed on exec and non-blocking. */
export function socket(domain: number, type: number, protocol: number): number {
  return negated(c.socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
}

/** close(2). A packet socket is better closed by closeAsync(): the kernel waits for RCU. */
export function close(fd: number): number {
  return negated(c.close(fd));
}

/** bind(2); `address` is a raw struct sockaddr. */
export function bind(fd: number, address: Buffer): number {
  return negated(c.bind(fd, address, address.length));
}

/** connect(2); `address` is a raw struct sockaddr. */
export function connect(fd: number, address: Buffer): number {
  return negated(c.connect(fd, address, address.length));
}

/** As close, in a thread of the pool. */
export function closeAsync(fd: number): Promise<number> {
  return new Promise((resolve, reject) => {
    c.close.async(fd, (error, result) => {
      const closed = negated(result ?? -1);
      if (error) reject(error);
      else resolve(closed);
    });
  });
}

/** A number is passed as a C int. */
export function setsockopt(fd: number, level: number, name: number, value: number | Buffer): number {
  const bytes = typeof value === 'number' ? u32(value) : value;
  return negated(c.setsockopt(fd, level, name, bytes, bytes.length));
}

/** Fills `into` from its beginning. */
export function getsockopt(fd: number, level: number, name: number, into: Buffer): number {
  return negated(c.getsockopt(fd, level, name, into, lengthOf(into)));
}

/** SO_ATTACH_FILTER wants a struct sock_fprog {u16 length; pointer}: the kernel copies what it points to. */
export function attachFilter(fd: number, program: Buffer): number {
  const SO_ATTACH_FILTER = 26;
  const fprog = Buffer.alloc(16);
  fprog.writeUInt16LE(program.length / 8);
  fprog.writeBigUInt64LE(koffi.address(program), 8);
  const result = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog);
  // `program` is known to koffi only as a number: this use keeps it alive until the kernel has read it.
  return program.length > 0 ? result : -constants.errno.EINVAL;
}

/** malloc_trim(3) of glibc, which gives back to the kernel what was freed, in less than a millisecond; other libraries do not have it. */
export function returnFreedMemory(): void {
  c.malloc_trim?.(0);
}

/** Bytes sent. */
export function send(fd: number, data: Buffer): number {
  return negated(c.send(fd, data, data.length, MSG_DONTWAIT));
}

/** As send, in a thread of the pool: for calls in which the kernel may wait for a lock. Never rejects for an errno. */
export function sendAsync(fd: number, data: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    c.send.async(fd, data, data.length, 0, (error, result) => {
      const sent = negated(result ?? -1);
      if (error) reject(error);
      else resolve(retain(sent, data));
    });
  });
}

/** What recvfrom(2) answered. */
export interface Received {
  /** Bytes of the message, more than the buffer's size when it was cut; below zero a negated errno. */
  readonly length: number;
  /** The sender as a raw struct sockaddr. */
  readonly address: Buffer;
}

/** One message, or -EAGAIN when none waits. */
export function receive(fd: number, into: Buffer): Received {
  const address = Buffer.alloc(ADDRESS_SIZE);
  const length = lengthOf(address);
  return { length: negated(c.recvfrom(fd, into, into.length, MSG_DONTWAIT | MSG_TRUNC, address, length)), address };
}

/** Offsets in the one buffer that recvmsg(2) works in: struct msghdr, struct iovec, sender, control data, message. */
const IOVEC_AT = 56;
const SENDER_AT = 72;
const CONTROL_AT = SENDER_AT + ADDRESS_SIZE;
const CONTROL_SIZE = 64;
const MESSAGE_AT = CONTROL_AT + CONTROL_SIZE;
/** struct cmsghdr {size_t length; int level; int type}. */
const CONTROL_HEADER_SIZE = 16;

/**
 * Takes messages together with what the kernel says beside them (cmsg). The structures point into the buffer they stand
 * in, which is made once: it is too large for V8 to move it.
 */
export class MessageReceiver {
  readonly #buffer: Buffer;
  /** The message taken last, from its beginning. */
  readonly data: Buffer;
  /** Its sender as a raw struct sockaddr. */
  readonly sender: Buffer;

  /** `size`: bytes of the longest message. */
  constructor(size: number) {
    const buffer = Buffer.alloc(MESSAGE_AT + size);
    this.#buffer = buffer;
    this.data = buffer.subarray(MESSAGE_AT);
    this.sender = buffer.subarray(SENDER_AT, CONTROL_AT);
    const address = BigInt(koffi.address(buffer));
    buffer.writeBigUInt64LE(address + BigInt(SENDER_AT), 0);
    buffer.writeBigUInt64LE(address + BigInt(IOVEC_AT), 16);
    buffer.writeBigUInt64LE(1n, 24);
    buffer.writeBigUInt64LE(address + BigInt(CONTROL_AT), 32);
    buffer.writeBigUInt64LE(address + BigInt(MESSAGE_AT), IOVEC_AT);
    buffer.writeBigUInt64LE(BigInt(size), IOVEC_AT + 8);
  }

  /** One message; answers its bytes, more than its size when it was cut, or a negated errno: -EAGAIN when none waits. */
  receive(fd: number): number {
    this.#buffer.writeUInt32LE(ADDRESS_SIZE, 8);
    this.#buffer.writeBigUInt64LE(BigInt(CONTROL_SIZE), 40);
    return negated(c.recvmsg(fd, this.#buffer, MSG_DONTWAIT | MSG_TRUNC));
  }

  /** The number that the kernel gave beside the message, if it gave one of this kind; else null. */
  control(level: number, type: number): number | null {
    const length = Number(this.#buffer.readBigUInt64LE(40));
    if (length < CONTROL_HEADER_SIZE + 4) return null;
    const isIt =
      this.#buffer.readInt32LE(CONTROL_AT + 8) === level && this.#buffer.readInt32LE(CONTROL_AT + 12) === type;
    return isIt ? this.#buffer.readInt32LE(CONTROL_AT + CONTROL_HEADER_SIZE) : null;
  }
}

/** As receive, in a thread of the pool. */
export function receiveAsync(fd: number, into: Buffer): Promise<Received> {
  return new Promise((resolve, reject) => {
    const address = Buffer.alloc(ADDRESS_SIZE);
    const size = lengthOf(address);
    c.recvfrom.async(fd, into, into.length, MSG_DONTWAIT | MSG_TRUNC, address, size, (error, result) => {
      const length = negated(result ?? -1);
      if (error) reject(error);
      else resolve(retain({ length, address }, into, size));
    });
  });
}

const POLLIN = 0x1;
const POLLERR = 0x8;
const POLLHUP = 0x10;
/** struct pollfd {i32 fd; i16 events; i16 revents}. */
const POLLFD_SIZE = 8;

/** What is written to this pipe or terminal is read by nobody any more (poll(2)). False for a file. */
export function hasNoReader(fd: number): boolean {
  const [events = 0] = poll([fd], 0);
  return (events & (POLLERR | POLLHUP)) !== 0;
}

/** Of these descriptors those whose next reading takes something or fails, at this moment. */
export function readable(fds: readonly number[]): number[] {
  const events = poll(fds, POLLIN);
  return fds.filter((_, position) => events[position] !== 0);
}

/** poll(2) that does not wait: what there is of each descriptor. */
function poll(fds: readonly number[], wanted: number): number[] {
  const asked = Buffer.alloc(fds.length * POLLFD_SIZE);
  for (const [position, fd] of fds.entries()) {
    asked.writeInt32LE(fd, position * POLLFD_SIZE);
    asked.writeInt16LE(wanted, position * POLLFD_SIZE + 4);
  }
  c.poll(asked, fds.length, 0);
  return fds.map((_, position) => asked.readInt16LE(position * POLLFD_SIZE + 6));
}

/** epoll_create1(2), closed on exec. */
export function epollCreate(): number {
  return negated(c.epoll_create1(SOCK_CLOEXEC));
}

/** The epoll instance can be read while this descriptor can (epoll_ctl(2)). */
export function epollAdd(epoll: number, fd: number): number {
  const EPOLL_CTL_ADD = 1;
  // struct epoll_event {u32 events; u64 data}, which has a gap on all but x86: nothing is put after it.
  const event = Buffer.alloc(16);
  event.writeUInt32LE(POLLIN);
  return negated(c.epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event));
}

/** A descriptor that is closed is taken out by the kernel. */
export function epollRemove(epoll: number, fd: number): number {
  const EPOLL_CTL_DEL = 2;
  return negated(c.epoll_ctl(epoll, EPOLL_CTL_DEL, fd, Buffer.alloc(16)));
}

/** Returns its first argument; the others are alive until then. */
function retain<T>(value: T, ..._buffers: Buffer[]): T {
  return value;
}

function lengthOf(buffer: Buffer): Buffer {
  return u32(buffer.length);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value | 0);
  return bytes;
}

/** Of libuv, which Node's program lends to add-ons. Its handles are memory of a size that it tells; nobody looks into them. */
const uv = {
  default_loop: ifPresent<[], unknown>('void *uv_default_loop()'),
  handle_size: ifPresent<[number], Size>('size_t uv_handle_size(int type)'),
  poll_init: ifPresent<[unknown, unknown, number]>('int uv_poll_init(void *loop, void *handle, int fd)'),
  poll_stop: ifPresent<[unknown]>('int uv_poll_stop(void *handle)'),
  unref: ifPresent<[unknown]>('void uv_unref(void *handle)'),
};

/**
 * Calls `run` in each turn of the event loop in which the descriptor can be read, until the process ends, which it does not keep
 * alive. False where that cannot be done: this Node's program lends no libuv, or this is a worker's thread with a loop of its own.
 */
export function onReadable(fd: number, run: () => void): boolean {
  const UV_POLL = 8;
  const { default_loop, handle_size, poll_init, poll_stop, unref } = uv;
  if (!isMainThread || !default_loop || !handle_size || !poll_init || !poll_stop || !unref) return false;
  const handle = koffi.alloc('uint8_t', Number(handle_size(UV_POLL))) as unknown;
  if (poll_init(default_loop(), handle, fd) < 0) return false;
  const callback = koffi.proto('void tsmacvlan_readable(void *handle, int status, int events)');
  const start = libc.func('int uv_poll_start(void *handle, int events, tsmacvlan_readable *callback)') as (
    handle: unknown,
    events: number,
    callback: bigint,
  ) => number;
  // What `run` throws is thrown in a turn of its own, and not through libuv. Until then libuv does not wait.
  const told = koffi.register(() => setImmediate(run), koffi.pointer(callback));
  unref(handle);
  // While a process ends its loop still turns, but no JavaScript runs any more.
  process.once('exit', () => poll_stop(handle));
  return start(handle, POLLIN, told) >= 0;
}
