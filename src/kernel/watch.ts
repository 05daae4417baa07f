/** Changes of links as the kernel announces them (RTNLGRP_LINK), on a socket of their own. */
import { constants } from 'node:os';
import { isKernelError } from './errno.ts';
import * as libc from './libc.ts';
import { type Link, RTM_DELLINK, RTM_NEWLINK, decodeLink } from './message.ts';
import { type Message, decodeMessages } from './netlink.ts';
import { isFromKernel, openSocket } from './rtnetlink.ts';
import type { NetlinkTrace } from './trace.ts';

/** `overflow`: changes were lost, so whoever keeps a picture of the links has to list them again. */
export type LinkEvent = { readonly type: 'new' | 'deleted'; readonly link: Link } | { readonly type: 'overflow' };

const RTMGRP_LINK = 1;
const RECEIVE_SIZE = 64 * 1024;
/** Holds some thousand events: the event loop may be away for seconds. */
const RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024;
/** A timer, because nothing that waits in recv() lets the process end (deps: koffi in a Worker, fs.read). */
const DRAIN_INTERVAL_MS = 50;
/** Events taken in one go, so that a storm of them leaves the event loop time for requests. */
const DRAIN_LIMIT = 512;

/** Tells a listener of every change of a link, in order, at most 50 ms late, or when it is read. It does not keep the process alive. */
export class LinkWatch {
  readonly #fd: number;
  readonly #listener: (event: LinkEvent) => void;
  readonly #trace: NetlinkTrace | null;
  readonly #timer: NodeJS.Timeout;
  readonly #buffer = Buffer.alloc(RECEIVE_SIZE);
  #isReading = false;

  /** `receiveBufferBytes`: how much may wait between two readings, before changes are lost. */
  constructor(
    listener: (event: LinkEvent) => void,
    trace: NetlinkTrace | null,
    receiveBufferBytes = RECEIVE_BUFFER_BYTES,
  ) {
    this.#listener = listener;
    this.#trace = trace;
    this.#fd = openSocket(RTMGRP_LINK, receiveBufferBytes);
    this.#timer = setInterval(() => this.read(), DRAIN_INTERVAL_MS).unref();
  }

  /** Nothing is told any more. */
  close(): void {
    clearInterval(this.#timer);
    libc.close(this.#fd);
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
      const { length, address } = libc.receive(this.#fd, this.#buffer);
      if (length === -libc.EAGAIN) return;
      if (length < 0 || length > this.#buffer.length) this.#listener({ type: 'overflow' });
      else if (isFromKernel(address)) this.#tell(this.#buffer.subarray(0, length));
      if (length < 0 && length !== -constants.errno.ENOBUFS) return;
    }
  }

  #tell(datagram: Buffer): void {
    for (const event of decodeEvents(datagram, this.#trace)) this.#listener(event);
  }
}

function decodeEvents(datagram: Buffer, trace: NetlinkTrace | null): LinkEvent[] {
  try {
    const messages = decodeMessages(datagram);
    if (trace !== null) for (const message of messages) trace.event(message);
    return messages.flatMap(decodeEvent);
  } catch (error) {
    if (!isKernelError(error, 'EBADMSG')) throw error;
    return [{ type: 'overflow' }];
  }
}

function decodeEvent(message: Message): LinkEvent[] {
  if (message.type !== RTM_NEWLINK && message.type !== RTM_DELLINK) return [];
  const link = decodeLink(message);
  return link === undefined ? [] : [{ type: message.type === RTM_NEWLINK ? 'new' : 'deleted', link }];
}
