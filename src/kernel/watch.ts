/**
 * Changes of links and addresses as the kernel announces them, on a socket of their own: those of this network namespace,
 * and those of every other one that has a number here (namespaces.ts) if the process may hear them (CAP_NET_BROADCAST,
 * NETLINK_LISTEN_ALL_NSID in net/netlink/af_netlink.c).
 *
 * The kernel queues an event before the system call returns that made the change. What it tells later is whether a link
 * has carrier (net/core/link_watch.c), and an IPv6 address that the kernel gave itself, once it was found unique, or that is
 * to be used without that (IFA_F_NODAD), once a work queue gets to it (addrconf_dad_start, net/ipv6/addrconf.c). What it tells of
 * a link only while that is up is an alias or alternative name that it gets or loses (netdev_state_change, net/core/dev.c);
 * when it comes up, all names that it has are told.
 */
import { constants } from 'node:os';
import { isKernelError } from './errno.ts';
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
import { isFromKernel, openSocket } from './rtnetlink.ts';
import type { NetlinkTrace } from './trace.ts';

/** One change. `namespaceId`: of the namespace it happened in; null for this one. `lost`: there were more than could wait. */
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
/** More at one time are a storm: reading everything anew costs less than following it. */
const DRAIN_LIMIT = 20_000;

/** Tells of every change, in order, when it is read. */
export class EventSocket {
  readonly #fd: number;
  readonly #tell: (event: KernelEvent) => void;
  readonly #trace: NetlinkTrace | null;
  readonly #receiver = new libc.MessageReceiver(RECEIVE_SIZE);
  /** This namespace's own number; null while only its own events come. */
  #ownId: number | null = null;
  #isReading = false;

  /** `receiveBufferBytes`: how much may wait between two readings, before changes are lost. */
  constructor(
    tell: (event: KernelEvent) => void,
    trace: NetlinkTrace | null,
    receiveBufferBytes = RECEIVE_BUFFER_BYTES,
  ) {
    this.#tell = tell;
    this.#trace = trace;
    this.#fd = openSocket(GROUPS, receiveBufferBytes);
  }

  /** Nothing is told any more. */
  close(): void {
    libc.close(this.#fd);
  }

  /** From now on the changes in other namespaces are told too, given this one's number. False where that is not allowed. */
  hearAll(ownId: number): boolean {
    if (libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1) < 0) return false;
    this.#ownId = ownId;
    return true;
  }

  /** Tells now what waits. Nothing when a listener calls it: it is being told already, in order. */
  read(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      this.#drain();
    } finally {
      this.#isReading = false;
    }
  }

  #drain(): void {
    for (let count = 0; count < DRAIN_LIMIT; count++) {
      const length = this.#receiver.receive(this.#fd);
      if (length === -libc.EAGAIN) return;
      if (length < 0 || length > this.#receiver.data.length) this.#tell({ about: 'lost' });
      else if (isFromKernel(this.#receiver.sender)) this.#decode(this.#receiver.data.subarray(0, length));
      if (length < 0 && length !== -constants.errno.ENOBUFS) return;
    }
    this.#tell({ about: 'lost' });
  }

  #decode(datagram: Buffer): void {
    for (const event of this.#eventsOf(datagram, this.#receiver.control(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID)))
      this.#tell(event);
  }

  #eventsOf(datagram: Buffer, from: number | null): KernelEvent[] {
    // Some kernels tell this namespace's number with its own events, if it has one, and some do not.
    const namespaceId = from === this.#ownId ? null : from;
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
        if (namespaceId === null) this.#trace?.event(message);
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
        if (namespaceId !== null || numbered === null || numbered === this.#ownId) return [];
        return [{ about: 'namespace', namespaceId: numbered }];
      }
      default:
        return [];
    }
  }
}
