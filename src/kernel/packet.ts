/** Whole Ethernet frames on one link: AF_PACKET (man 7 packet). Needs CAP_NET_RAW. */
import { constants } from 'node:os';
import { isMulticastMac, macBytes, parseMac } from '../address.ts';
import { type BpfInstruction, encodeProgram } from './bpf.ts';
import { KernelError, check } from './errno.ts';
import * as libc from './libc.ts';
import { whenReadable } from './readiness.ts';

const ETH_P_ALL = 0x0003;

const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_DROP_MEMBERSHIP = 2;
const PACKET_STATISTICS = 6;
const PACKET_IGNORE_OUTGOING = 23;
const SO_RCVBUFFORCE = 33;
const PACKET_MR_MULTICAST = 0;
const PACKET_MR_UNICAST = 3;
const PACKET_OUTGOING = 4;

/** In one receive(), so that a flood leaves the event loop time for requests. */
const RECEIVE_LIMIT = 1024;
/** Shared by all sockets, because nothing is awaited between a frame's arrival here and its copy. */
const buffer = Buffer.alloc(64 * 1024);

/** A socket to be opened. */
export interface PacketSocketSpec {
  readonly linkIndex: number;
  /**
   * Ethertype, by default ETH_P_ALL: only that one sees unicast frames for a macvlan child of the link, which the
   * child's rx_handler takes before any other protocol is asked.
   */
  readonly protocol?: number;
  readonly filter?: readonly BpfInstruction[];
  /** Multicast MAC addresses to be received. */
  readonly memberships?: readonly string[];
  /** Leaves out the frames this host sends on the link. */
  readonly ignoreOutgoing?: boolean;
  /** How much may wait between two readings, counted as the kernel does: a short frame takes 768 bytes and more. */
  readonly receiveBufferBytes?: number;
}

/** A frame from the destination's MAC address on, without the frame check sequence. */
export interface ReceivedFrame {
  readonly frame: Buffer;
  /** Sent by this host. */
  readonly outgoing: boolean;
}

/**
 * Sends and receives frames on one link, without ever waiting. What breaks it, such as the end of its link, is thrown
 * by the next call.
 */
export class PacketSocket {
  /**
   * The kernel ends a packet socket with an RCU grace period (packet_release): 9 ms each, sometimes 25. So they are
   * closed beside the event loop, and one after the other, so that they never fill the thread pool.
   */
  static #closing: Promise<unknown> = Promise.resolve();

  readonly #fd: number;
  readonly #linkIndex: number;
  readonly #ignoreOutgoing: boolean;
  #failure: KernelError | undefined;
  #closed = false;
  #stopWaiting: (() => void) | null = null;

  private constructor(fd: number, { linkIndex, ignoreOutgoing = false }: PacketSocketSpec) {
    this.#fd = fd;
    this.#linkIndex = linkIndex;
    this.#ignoreOutgoing = ignoreOutgoing;
  }

  /** ENODEV when there is no such link; EPERM without CAP_NET_RAW. A link that is down fails on the first receive(). */
  static open(spec: PacketSocketSpec): PacketSocket {
    const operation = `open a packet socket on link ${spec.linkIndex}`;
    // To the kernel index 0 means every link.
    if (spec.linkIndex <= 0) throw new KernelError(operation, constants.errno.ENODEV);
    // Protocol 0 receives nothing until bind(), so that no frame slips in before the filter.
    const fd = check(operation, libc.socket(libc.AF_PACKET, libc.SOCK_RAW, 0));
    try {
      configure(operation, fd, spec);
      return new PacketSocket(fd, spec);
    } catch (error) {
      PacketSocket.#closeLater(fd);
      throw error;
    }
  }

  static #closeLater(fd: number): void {
    PacketSocket.#closing = PacketSocket.#closing.then(() => libc.closeAsync(fd)).catch(() => undefined);
  }

  /** Replaces the filter in one step: no frame passes by both. Frames that wait already stay. */
  setFilter(filter: readonly BpfInstruction[]): void {
    check(
      `filter frames on link ${this.#linkIndex}`,
      this.#unlessClosed((fd) => libc.attachFilter(fd, encodeProgram(filter))),
    );
  }

  /**
   * Receives a MAC address from now on, a group's or one that no link has yet, which the network card would leave out. The kernel
   * counts: every join wants its leave.
   */
  join(macAddress: string): void {
    check(`join ${macAddress} on link ${this.#linkIndex}`, this.#change(PACKET_ADD_MEMBERSHIP, macAddress));
  }

  /** A link that went away took its memberships along: that is no error. */
  leave(macAddress: string): void {
    this.#change(PACKET_DROP_MEMBERSHIP, macAddress);
  }

  /** The frame with its Ethernet header. ENETDOWN, ENXIO or ENODEV when the link is down or gone. */
  send(frame: Buffer): void {
    const operation = `send a frame on link ${this.#linkIndex}`;
    check(
      operation,
      this.#unlessClosed((fd) => libc.send(fd, frame)),
    );
  }

  /**
   * The frames that wait, at most 1,024 of them; never blocks. Throws once when the link went down or was deleted since
   * the last call; frames that came before follow on the next call. A link that comes up again goes on.
   */
  receive(): ReceivedFrame[] {
    this.#throwFailure();
    const frames: ReceivedFrame[] = [];
    for (let count = 0; count < RECEIVE_LIMIT; count++) {
      const { length, address } = this.#closed ? CLOSED : libc.receive(this.#fd, buffer);
      if (length < 0) {
        if (length !== -libc.EAGAIN)
          this.#failure = new KernelError(`receive frames on link ${this.#linkIndex}`, -length);
        break;
      }
      // struct sockaddr_ll: packet type at byte 10. Before Linux 4.20 the option did nothing.
      const outgoing = address.readUInt8(10) === PACKET_OUTGOING;
      if (!(outgoing && this.#ignoreOutgoing)) frames.push({ frame: copyFrame(length), outgoing });
    }
    if (frames.length === 0) this.#throwFailure();
    return frames;
  }

  /**
   * Calls `run` once, when receive() has something to take or to tell, unless it is closed before. What was to be called until
   * now is not. False where nothing can be waited for.
   */
  whenReadable(run: () => void): boolean {
    if (this.#closed) return false;
    this.#stopWaiting = whenReadable(this.#fd, run);
    return this.#stopWaiting !== null;
  }

  /** Frames that passed the filter since the last call and were lost, because too many waited. */
  dropped(): number {
    // struct tpacket_stats {u32 packets; u32 drops}; reading it sets both to 0 (packet_getsockopt).
    const statistics = Buffer.alloc(8);
    const result = this.#unlessClosed((fd) => libc.getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, statistics));
    return result < 0 ? 0 : statistics.readUInt32LE(4);
  }

  /** Nothing is received or sent any more; the kernel lets go of the socket some milliseconds later. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopWaiting?.();
    PacketSocket.#closeLater(this.#fd);
  }

  #change(option: number, macAddress: string): number {
    return this.#unlessClosed((fd) => libc.setsockopt(fd, SOL_PACKET, option, membership(this.#linkIndex, macAddress)));
  }

  /** The descriptor's number may belong to another file by now. */
  #unlessClosed(call: (fd: number) => number): number {
    return this.#closed ? -constants.errno.EBADF : call(this.#fd);
  }

  #throwFailure(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
  }
}

const CLOSED: libc.Received = { length: -constants.errno.EBADF, address: Buffer.alloc(0) };

function copyFrame(length: number): Buffer {
  return Buffer.from(buffer.subarray(0, Math.min(length, buffer.length)));
}

function configure(operation: string, fd: number, spec: PacketSocketSpec): void {
  const { linkIndex, protocol = ETH_P_ALL, filter, memberships = [], ignoreOutgoing = false } = spec;
  // Without CAP_NET_ADMIN it stays what net.core.rmem_default says.
  if (spec.receiveBufferBytes) libc.setsockopt(fd, libc.SOL_SOCKET, SO_RCVBUFFORCE, spec.receiveBufferBytes);
  if (filter) check(operation, libc.attachFilter(fd, encodeProgram(filter)));
  if (ignoreOutgoing) libc.setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  for (const mac of memberships)
    check(operation, libc.setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership(linkIndex, mac)));
  check(operation, libc.bind(fd, linkAddress(linkIndex, protocol)));
}

/** struct packet_mreq {i32 index; u16 type; u16 length; u8 address[8]}. */
function membership(linkIndex: number, macAddress: string): Buffer {
  const mac = parseMac(macAddress);
  if (mac === undefined) throw new KernelError(`join ${JSON.stringify(macAddress)}`, constants.errno.EINVAL);
  const request = Buffer.alloc(16);
  request.writeInt32LE(linkIndex);
  request.writeUInt16LE(isMulticastMac(mac) ? PACKET_MR_MULTICAST : PACKET_MR_UNICAST, 4);
  request.writeUInt16LE(6, 6);
  request.set(macBytes(mac), 8);
  return request;
}

/** struct sockaddr_ll {u16 family; be16 protocol; i32 index; u16; u8 type; u8 length; u8 address[8]}. */
function linkAddress(linkIndex: number, protocol: number): Buffer {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(libc.AF_PACKET);
  address.writeUInt16BE(protocol, 2);
  address.writeInt32LE(linkIndex, 4);
  return address;
}
