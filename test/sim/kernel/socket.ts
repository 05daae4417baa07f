/** Sockets of simulated kernels, by descriptor: rtnetlink and AF_PACKET. */
import { constants } from 'node:os';
import type { BpfInstruction } from '../../../src/kernel/bpf.ts';
import { accepts } from './bpf.ts';
import type { Link } from './link.ts';
import { type Process, scheduler } from '../time.ts';
import type { Kernel } from './kernel.ts';

/** A message that waits; with the number of the namespace it tells of. */
export interface Datagram {
  readonly bytes: Buffer;
  readonly namespaceId: number | null;
}

/** An rtnetlink socket. */
export class NetlinkSocket {
  readonly kernel: Kernel;
  readonly #owner: Process;
  /** RTMGRP_* that it hears. */
  groups = 0;
  hearsAll = false;
  readonly waiting: Datagram[] = [];
  /** Events were lost, which the next reading tells. */
  hasLost = false;
  mostWaiting = 8000;

  constructor(kernel: Kernel, owner: Process) {
    [this.kernel, this.#owner] = [kernel, owner];
  }

  take(datagram: Datagram): void {
    if (this.waiting.length < this.mostWaiting) this.waiting.push(datagram);
    else this.hasLost = true;
    this.#owner.idle.arrived(scheduler.nowMs);
  }

  close(): void {
    this.kernel.netlinkSockets.delete(this);
  }
}

/** What waits for a packet socket. */
interface Waiting {
  readonly frame: Buffer;
  readonly isOutgoing: boolean;
}

const ETH_P_ALL = 3;
/** net.core.rmem_default, in short frames. */
const USUAL_WAITING = 270;

/** An AF_PACKET socket. */
export class PacketSocket {
  readonly kernel: Kernel;
  readonly #owner: Process;
  link: Link | null = null;
  protocol = 0;
  filter: readonly BpfInstruction[] | null = null;
  ignoresOutgoing = false;
  mostWaiting = USUAL_WAITING;
  readonly memberships = new Map<string, number>();
  readonly waiting: Waiting[] = [];
  drops = 0;
  /** What the next call is told. */
  errno = 0;

  constructor(kernel: Kernel, owner: Process) {
    [this.kernel, this.#owner] = [kernel, owner];
  }

  bind(link: Link, protocol: number): void {
    [this.link, this.protocol] = [link, protocol];
    link.sockets.add(this);
    if (!link.isUp) this.errno = constants.errno.ENETDOWN;
  }

  hear(frame: Buffer, isOutgoing: boolean): void {
    if (isOutgoing && this.ignoresOutgoing) return;
    if (this.protocol !== ETH_P_ALL && (isOutgoing || frame.readUInt16BE(12) !== this.protocol)) return;
    if (this.filter !== null && !accepts(this.filter, frame)) return;
    if (this.waiting.length >= this.mostWaiting) this.drops++;
    else this.waiting.push({ frame, isOutgoing });
    this.#owner.idle.arrived(scheduler.nowMs);
  }

  /** Its link went down, or away. */
  lose(isGone: boolean): void {
    this.errno = constants.errno.ENETDOWN;
    this.#owner.idle.arrived(scheduler.nowMs);
    if (!isGone) return;
    this.link?.sockets.delete(this);
    this.link = null;
  }

  close(): void {
    this.link?.sockets.delete(this);
    this.link = null;
  }
}
