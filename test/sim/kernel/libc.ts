/**
 * Stands where src/kernel/libc.ts stands: the system calls of the product, answered by the kernel of the machine whose process
 * is running. Results below zero are negated errnos, as there. A process that was killed gets no answer any more.
 */
import { constants } from 'node:os';
import { currentProcess, scheduler } from '../time.ts';
import { decodeProgram } from './bpf.ts';
import type { Computer, Kernel } from './kernel.ts';
import { Rtnetlink } from './rtnetlink.ts';
import { NetlinkSocket, PacketSocket } from './socket.ts';
import { RTM } from './message.ts';

export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_RAW = 3;
export const SOL_SOCKET = 1;
export const EAGAIN = constants.errno.EAGAIN;

const SOL_NETLINK = 270;
const NETLINK_LISTEN_ALL_NSID = 8;
const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_DROP_MEMBERSHIP = 2;
const PACKET_IGNORE_OUTGOING = 23;
const SO_RCVBUFFORCE = 33;
/** What a short frame takes of the receive buffer, which the kernel doubles. */
const FRAME_BYTES = 400;
const PACKET_OUTGOING = 4;
const { EBADF, EINVAL, ENODEV, ENETDOWN, ENXIO, ENOBUFS, EPERM } = constants.errno;

type Socket = NetlinkSocket | PacketSocket;

/** The process does something to the world, or learns something of it (idle.ts). */
function noteEffect(): void {
  const process = currentProcess();
  if (process !== undefined) process.idle.effects++;
}

/** It looked, and there was nothing. */
function nothing(): number {
  const process = currentProcess();
  if (process !== undefined) process.idle.emptyReads++;
  return -EAGAIN;
}

const sockets = new Map<number, Socket>();
/** What a process that closes a socket itself need not do when it is killed. */
const enders = new Map<number, () => void>();
let nextFd = 100_000;
const rtnetlinks = new WeakMap<Kernel, Rtnetlink>();

/** Of the machine. */
export function rtnetlinkOf(kernel: Kernel): Rtnetlink {
  const rtnetlink = rtnetlinks.get(kernel) ?? new Rtnetlink(kernel);
  rtnetlinks.set(kernel, rtnetlink);
  return rtnetlink;
}

/** As whenReadable() of src/kernel/readiness.ts. */
export function whenReadable(fd: number, run: () => void): (() => void) | null {
  const machine = currentProcess()?.machine as Computer | undefined;
  return machine?.kernel.tellsReadable === true ? (sockets.get(fd)?.whenReadable(run) ?? null) : null;
}

/** Descriptors that are open, of all processes. */
export function openSockets(): number {
  return sockets.size;
}

export function socket(domain: number, _type: number, _protocol: number): number {
  const process = currentProcess();
  if (process?.isAlive !== true) return -EPERM;
  const { kernel } = process.machine as Computer;
  noteEffect();
  const fd = nextFd++;
  const made = domain === AF_NETLINK ? new NetlinkSocket(kernel, process) : new PacketSocket(kernel, process);
  if (made instanceof NetlinkSocket) kernel.netlinkSockets.add(made);
  sockets.set(fd, made);
  const end = () => void close(fd);
  process.onKilled.add(end);
  enders.set(fd, () => process.onKilled.delete(end));
  return fd;
}

export function close(fd: number): number {
  noteEffect();
  const found = sockets.get(fd);
  if (found === undefined) return -EBADF;
  found.close();
  sockets.delete(fd);
  enders.get(fd)?.();
  enders.delete(fd);
  return 0;
}

/** At once: its promise is one chain for all machines of this process. */
export async function closeAsync(fd: number): Promise<number> {
  return close(fd);
}

export function bind(fd: number, address: Buffer): number {
  const found = sockets.get(fd);
  if (found === undefined) return -EBADF;
  if (found instanceof NetlinkSocket) {
    found.groups = address.readUInt32LE(8);
    return 0;
  }
  const link = found.kernel.host.links.get(address.readInt32LE(4));
  if (link === undefined) return -ENODEV;
  found.bind(link, address.readUInt16BE(2));
  return 0;
}

export function setsockopt(fd: number, level: number, name: number, value: number | Buffer): number {
  noteEffect();
  const found = sockets.get(fd);
  if (found === undefined) return -EBADF;
  const number = typeof value === 'number' ? value : value.readInt32LE();
  if (found instanceof NetlinkSocket) {
    if (level === SOL_NETLINK && name === NETLINK_LISTEN_ALL_NSID) found.hearsAll = number !== 0;
    return 0;
  }
  if (level === SOL_SOCKET && name === SO_RCVBUFFORCE) found.mostWaiting = Math.floor(number / FRAME_BYTES);
  if (level !== SOL_PACKET || found.link === null) return 0;
  if (name === PACKET_IGNORE_OUTGOING) found.ignoresOutgoing = number !== 0;
  if (name === PACKET_ADD_MEMBERSHIP || name === PACKET_DROP_MEMBERSHIP) return 0;
  return 0;
}

export function getsockopt(fd: number, _level: number, _name: number, into: Buffer): number {
  const found = sockets.get(fd);
  if (!(found instanceof PacketSocket)) return -EBADF;
  if (found.drops > 0) noteEffect();
  into.writeUInt32LE(found.drops, 4);
  found.drops = 0;
  return 0;
}

export function attachFilter(fd: number, program: Buffer): number {
  noteEffect();
  const found = sockets.get(fd);
  if (!(found instanceof PacketSocket)) return -EBADF;
  if (program.length === 0) return -EINVAL;
  found.filter = decodeProgram(program);
  return 0;
}

export function returnFreedMemory(): void {}

export function send(fd: number, data: Buffer): number {
  noteEffect();
  const found = sockets.get(fd);
  if (!(found instanceof PacketSocket)) return -EBADF;
  if (found.link === null) return -ENXIO;
  return found.kernel.transmit(found.link, Buffer.from(data)) ? data.length : -ENETDOWN;
}

/** The kernel works while the thread of the pool waits: for rtnl_lock now and then, for RCU when it deletes a link. */
export function sendAsync(fd: number, data: Buffer): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const found = sockets.get(fd);
  if (!(found instanceof NetlinkSocket)) return Promise.resolve(-EBADF);
  const { kernel } = found;
  const isDeletion = data.readUInt16LE(4) === RTM.DELLINK;
  const delayMs = kernel.random.delay(0.2, 20) + (isDeletion ? kernel.random.between(8, 24) : 0);
  // The kernel carries on with what was sent when the process is killed meanwhile.
  scheduler.inert(delayMs, () => rtnetlinkOf(kernel).handle(found, data));
  scheduler.after(delayMs, () => resolve(data.length));
  return promise;
}

export interface Received {
  readonly length: number;
  readonly address: Buffer;
}

export function receive(fd: number, into: Buffer): Received {
  const address = Buffer.alloc(32);
  const found = sockets.get(fd);
  if (found === undefined) return { length: -EBADF, address };
  if (found instanceof NetlinkSocket) {
    const datagram = found.waiting.shift();
    if (datagram === undefined) return { length: nothing(), address };
    noteEffect();
    return { length: fill(into, datagram.bytes), address };
  }
  if (found.errno !== 0) {
    const { errno } = found;
    noteEffect();
    found.errno = 0;
    return { length: -errno, address };
  }
  const waiting = found.waiting.shift();
  if (waiting === undefined) return { length: nothing(), address };
  noteEffect();
  address.writeUInt8(waiting.isOutgoing ? PACKET_OUTGOING : 0, 10);
  return { length: fill(into, waiting.frame), address };
}

function fill(into: Buffer, bytes: Buffer): number {
  bytes.copy(into);
  return bytes.length;
}

export async function receiveAsync(fd: number, into: Buffer): Promise<Received> {
  return receive(fd, into);
}

/** As there; what is told beside a message is the number of the namespace it is about. */
export class MessageReceiver {
  readonly data: Buffer;
  readonly sender = Buffer.alloc(32);
  #namespaceId: number | null = null;

  constructor(size: number) {
    this.data = Buffer.alloc(size);
  }

  receive(fd: number): number {
    const found = sockets.get(fd);
    if (!(found instanceof NetlinkSocket)) return -EBADF;
    if (found.hasLost) {
      noteEffect();
      found.hasLost = false;
      return -ENOBUFS;
    }
    const datagram = found.waiting.shift();
    if (datagram === undefined) return nothing();
    noteEffect();
    this.#namespaceId = datagram.namespaceId;
    return fill(this.data, datagram.bytes);
  }

  control(level: number, type: number): number | null {
    return level === SOL_NETLINK && type === NETLINK_LISTEN_ALL_NSID ? this.#namespaceId : null;
  }
}
