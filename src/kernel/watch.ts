/**
 * Changes of links and addresses as the kernel announces them, on sockets of their own: one for those of this network namespace,
 * and one for those of every other that has a number here (namespaces.ts) if the process may hear them (CAP_NET_BROADCAST,
 * NETLINK_LISTEN_ALL_NSID in net/netlink/af_netlink.c). They are two because a container with CAP_NET_ADMIN can change what is
 * in its own namespace without end, and must not drown what is told of the host's parents.
 *
 * No more are read than a fair host makes. When more come, all that waits is thrown away with the socket, and after a rest that
 * doubles while the flood lasts a new one hears on. Whoever wants to know something meanwhile has to ask the kernel.
 *
 * The kernel queues an event before the system call returns that made the change. What it tells later is whether a link
 * has carrier (net/core/link_watch.c), and an IPv6 address that the kernel gave itself, once it was found unique, or that is
 * to be used without that (IFA_F_NODAD), once a work queue gets to it (addrconf_dad_start, net/ipv6/addrconf.c). What it tells of
 * a link only while that is up is an alias or alternative name that it gets or loses (netdev_state_change, net/core/dev.c);
 * when it comes up, all names that it has are told.
 */
import { constants } from 'node:os';
import { check, isKernelError } from './errno.ts';
import * as libc from './libc.ts';
import {
  type Link,
  type LinkAddress,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_NEWADDR,
  RTM_NEWLINK,
  decodeAddress,
  decodeLink,
} from './message.ts';
import { type Message, decodeMessages } from './netlink.ts';
import { RTM_DELNSID, RTM_NEWNSID, decodeNamespaceId } from './nsid.ts';
import { whenReadable } from './readiness.ts';
import { isFromKernel, openSocket } from './rtnetlink.ts';
import type { NetlinkTrace } from './trace.ts';

/** One change. `namespaceId`: of the namespace it happened in; null for this one. `lost`: some were not told. */
export type KernelEvent =
  | { readonly about: 'link'; readonly isGone: boolean; readonly link: Link; readonly namespaceId: number | null }
  | {
      readonly about: 'address';
      readonly isGone: boolean;
      readonly address: LinkAddress;
      readonly namespaceId: number | null;
    }
  /** Another namespace has, or had, this number here from now on. */
  | { readonly about: 'namespace'; readonly namespaceId: number }
  | { readonly about: 'lost' };

const SOL_NETLINK = 270;
const NETLINK_LISTEN_ALL_NSID = 8;
/** RTNLGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR and _NSID as bits (linux/rtnetlink.h). */
const GROUPS = 0x1 | 0x10 | 0x100 | 0x8000000;
const RECEIVE_SIZE = 64 * 1024;
/** Holds some thousand events: the event loop may be away for seconds. */
const RECEIVE_BUFFER_BYTES = 16 * 1024 * 1024;
/**
 * So many events may come at once, and in each millisecond on average. The start of a container makes some thirty, its end as many.
 * To read one takes some 10 µs.
 */
const MOST_AT_ONCE = 4000;
const MOST_A_MS = 4;
/** The rest after a flood; of this namespace's own events, which others can make by the flags of their macvlan links only, never longer. */
const FIRST_REST_MS = 250;
const LONGEST_REST_MS = 30_000;
/** Who was heard for so long without a flood begins with the first rest again. */
const CALM_MS = 10_000;

/** What a socket tells, and whom. */
export interface EventSocketParts {
  readonly tell: (event: KernelEvent) => void;
  readonly trace?: NetlinkTrace | null;
  /** The number of this namespace: told are the changes in all others, and not its own. */
  readonly othersThan?: number;
  /** How much may wait between two readings, before changes are lost. */
  readonly receiveBufferBytes?: number;
}

/** Tells of every change, in order, when it is read. */
export class EventSocket {
  readonly #parts: EventSocketParts;
  readonly #receiver = new libc.MessageReceiver(RECEIVE_SIZE);
  /** Null while it rests. */
  #fd: number | null;
  #stopWaiting: (() => void) | null = null;
  #isReading = false;
  #isClosed = false;
  /** How many events may be read still, as of then. */
  #left = MOST_AT_ONCE;
  #leftAtMs = performance.now();
  #hearsSinceMs = performance.now();
  #restMs = FIRST_REST_MS / 2;
  #restsUntilMs = 0;

  /** Throws what the kernel refuses: EPERM for the events of others without CAP_NET_BROADCAST. */
  constructor(parts: EventSocketParts) {
    this.#parts = parts;
    this.#fd = openEvents(parts);
  }

  /** Nothing is told any more. */
  close(): void {
    this.#isClosed = true;
    if (this.#fd !== null) this.#end(this.#fd);
  }

  /** Too much was told: what happens is not heard for a while. Then `lost` is told. */
  get isResting(): boolean {
    return this.#fd === null;
  }

  /**
   * Calls `run` once, when something waits to be read, unless the socket ends before; one call is due at a time. False in a rest, and where
   * that cannot be waited for.
   */
  whenReadable(run: () => void): boolean {
    if (this.#fd === null) return false;
    this.#stopWaiting = whenReadable(this.#fd, run);
    return this.#stopWaiting !== null;
  }

  /** Tells now what waits. Nothing when a listener calls it: it is being told already, in order. */
  read(): void {
    if (this.#isReading || this.#isClosed) return;
    this.#isReading = true;
    try {
      const fd = this.#fd ?? this.#hearAgain();
      if (fd !== null) this.#drain(fd);
    } finally {
      this.#isReading = false;
    }
  }

  #drain(fd: number): void {
    const nowMs = performance.now();
    this.#left = Math.min(MOST_AT_ONCE, this.#left + (nowMs - this.#leftAtMs) * MOST_A_MS);
    this.#leftAtMs = nowMs;
    for (; this.#left >= 1; this.#left--) {
      // A listener may have closed it.
      const length = this.#fd === fd ? this.#receiver.receive(fd) : -libc.EAGAIN;
      if (length === -libc.EAGAIN) return;
      if (length < 0 || length > this.#receiver.data.length) this.#parts.tell({ about: 'lost' });
      else if (isFromKernel(this.#receiver.sender)) this.#decode(this.#receiver.data.subarray(0, length));
      if (length < 0 && length !== -constants.errno.ENOBUFS) return;
    }
    this.#rest(fd);
  }

  #rest(fd: number): void {
    const nowMs = performance.now();
    const longestMs = this.#parts.othersThan === undefined ? FIRST_REST_MS : LONGEST_REST_MS;
    const isFirst = nowMs - this.#hearsSinceMs > CALM_MS;
    this.#restMs = isFirst ? FIRST_REST_MS : Math.min(2 * this.#restMs, longestMs);
    this.#restsUntilMs = nowMs + this.#restMs;
    this.#end(fd);
    this.#parts.tell({ about: 'lost' });
  }

  #end(fd: number): void {
    this.#stopWaiting?.();
    this.#fd = null;
    libc.close(fd);
  }

  #hearAgain(): number | null {
    const nowMs = performance.now();
    if (nowMs < this.#restsUntilMs) return null;
    this.#hearsSinceMs = nowMs;
    try {
      this.#fd = openEvents(this.#parts);
    } catch {
      // Where there is no descriptor left it goes on resting.
      this.#restsUntilMs = nowMs + this.#restMs;
      return null;
    }
    this.#parts.tell({ about: 'lost' });
    return this.#fd;
  }

  #decode(datagram: Buffer): void {
    const { othersThan: ownId, tell } = this.#parts;
    const from = this.#receiver.control(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID);
    // Some kernels tell this namespace's number with its own events, if it has one, and some do not.
    const isOwn = from === null || from === ownId;
    if (isOwn && ownId !== undefined) return;
    for (const event of this.#eventsOf(datagram, isOwn ? null : from)) tell(event);
  }

  #eventsOf(datagram: Buffer, namespaceId: number | null): KernelEvent[] {
    try {
      return decodeMessages(datagram).flatMap((message) => this.#eventOf(message, namespaceId));
    } catch (error) {
      if (!isKernelError(error, 'EBADMSG')) throw error;
      return [{ about: 'lost' }];
    }
  }

  #eventOf(message: Message, namespaceId: number | null): KernelEvent[] {
    switch (message.type) {
      case RTM_NEWLINK:
      case RTM_DELLINK: {
        if (namespaceId === null) this.#parts.trace?.event(message);
        const link = decodeLink(message);
        return link === undefined ? [] : [{ about: 'link', isGone: message.type === RTM_DELLINK, link, namespaceId }];
      }
      case RTM_NEWADDR:
      case RTM_DELADDR: {
        const address = decodeAddress(message);
        if (address === undefined) return [];
        return [{ about: 'address', isGone: message.type === RTM_DELADDR, address, namespaceId }];
      }
      case RTM_NEWNSID:
      case RTM_DELNSID: {
        const numbered = decodeNamespaceId(message);
        // Other namespaces number theirs too.
        if (namespaceId !== null || numbered === null) return [];
        return [{ about: 'namespace', namespaceId: numbered }];
      }
      default:
        return [];
    }
  }
}

function openEvents({ othersThan, receiveBufferBytes = RECEIVE_BUFFER_BYTES }: EventSocketParts): number {
  const fd = openSocket(GROUPS, receiveBufferBytes);
  if (othersThan === undefined) return fd;
  try {
    check('hear of other namespaces', libc.setsockopt(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1));
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}
