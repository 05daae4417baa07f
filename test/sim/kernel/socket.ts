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

/** From a frame to the process that it wakes. */
const WAKING_MS = 0.2;

/** A process waits until something is there to be read (src/kernel/readiness.ts). */
abstract class Readable {
  readonly kernel: Kernel;
  readonly #owner: Process;
  #waiter: (() => void) | null = null;
  #isWaking = false;

  constructor(kernel: Kernel, owner: Process) {
    [this.kernel, this.#owner] = [kernel, owner];
  }

  /** The next reading takes something, or fails. */
  protected abstract get isReadable(): boolean;

  /** Calls `run` once when that is so. Answers how to call it off. */
  whenReadable(run: () => void): () => void {
    this.#waiter = run;
    if (this.isReadable) this.#wake();
    return () => {
      if (this.#waiter === run) this.#waiter = null;
    };
  }

  protected arrived(): void {
    this.#owner.idle.arrived(scheduler.nowMs);
    if (this.#waiter !== null) this.#wake();
  }

  /** The process finds what is there by then. Not at random, or quiet stretches would change the rest of a life (quiet.ts). */
  #wake(): void {
    if (this.#isWaking || !this.#owner.isAlive) return;
    this.#isWaking = true;
    this.#owner.enter(() => scheduler.after(WAKING_MS, () => this.#tell()));
  }

  #tell(): void {
    this.#isWaking = false;
    const run = this.#waiter;
    if (run === null || !this.isReadable) return;
    this.#waiter = null;
    run();
  }
}

/** An rtnetlink socket. */
export class NetlinkSocket extends Readable {
  /** RTMGRP_* that it hears. */
  groups = 0;
  hearsAll = false;
  readonly waiting: Datagram[] = [];
  /** Events were lost, which the next reading tells. */
  hasLost = false;
  mostWaiting = 8000;

  protected get isReadable(): boolean {
    return this.waiting.length > 0 || this.hasLost;
  }

  take(datagram: Datagram): void {
    if (this.waiting.length < this.mostWaiting) this.waiting.push(datagram);
    else this.hasLost = true;
    this.arrived();
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
export class PacketSocket extends Readable {
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

  protected get isReadable(): boolean {
    return this.waiting.length > 0 || this.errno !== 0;
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
    this.arrived();
  }

  /** Its link went down, or away. */
  lose(isGone: boolean): void {
    this.errno = constants.errno.ENETDOWN;
    this.arrived();
    if (!isGone) return;
    this.link?.sockets.delete(this);
    this.link = null;
  }

  close(): void {
    this.link?.sockets.delete(this);
    this.link = null;
  }
}
