/**
 * A LAN: a switch with ports. Frames take time, are lost and doubled; ports are blocked by spanning tree, filter MAC addresses,
 * lose their carrier; the LAN falls apart and grows together.
 */
import { type Event, scheduler } from './time.ts';
import type { Random } from './random.ts';
import { destinationOf, isGroup, sourceOf } from './kernel/link.ts';

/** What is at the end of a cable. */
export interface Station {
  receive(frame: Buffer): void;
  /** Its NIC has a carrier or none. */
  carrierChanged?(): void;
}

/** How good or bad a LAN is. */
export interface Quality {
  /** Of one frame to one port, in milliseconds. */
  readonly delayMs: number;
  readonly longestMs: number;
  readonly loss: number;
  readonly duplication: number;
}

export const GOOD: Quality = { delayMs: 0.1, longestMs: 1, loss: 0, duplication: 0 };

/** A frame on the wire, for who watches. */
export interface Passing {
  readonly atMs: number;
  readonly port: Port;
  readonly frame: Buffer;
}

/** One switch. */
export class Lan {
  readonly random: Random;
  quality: Quality;
  readonly ports: Port[] = [];
  /** Sees each frame that enters the switch. */
  readonly watchers: ((passing: Passing) => void)[] = [];
  frames = 0;
  /** Where it learned that a MAC address is. */
  readonly #learned = new Map<number, Port>();

  constructor(random: Random, quality: Quality = GOOD) {
    [this.random, this.quality] = [random, quality];
  }

  plug(name: string): Port {
    const port = new Port(this, name);
    this.ports.push(port);
    return port;
  }

  /** Whether what one sends reaches the other at this moment. */
  connects(one: Port, other: Port): boolean {
    return one.forwards && other.forwards && one.part === other.part;
  }

  enter(from: Port, frame: Buffer): void {
    if (!from.forwards || !from.admits(sourceOf(frame))) return;
    this.frames++;
    this.#learned.set(sourceOf(frame), from);
    for (const watch of this.watchers) watch({ atMs: scheduler.nowMs, port: from, frame });
    const destination = destinationOf(frame);
    const known = isGroup(destination) ? undefined : this.#learned.get(destination);
    const to = known === undefined ? this.ports : [known];
    for (const port of to) if (port !== from && this.connects(from, port)) this.#carry(port, frame, destination);
  }

  #carry(port: Port, frame: Buffer, destination: number): void {
    const { delayMs, longestMs, loss, duplication } = this.quality;
    if (port.isFiltered(destination)) return;
    const copies = this.random.chance(duplication) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (loss > 0 && this.random.chance(loss)) continue;
      scheduler.inert(this.random.delay(delayMs, longestMs) + port.extraDelayMs, () => port.deliver(frame));
    }
  }
}

/** One port of a switch, and the cable to what is plugged in. */
export class Port {
  readonly lan: Lan;
  readonly name: string;
  station: Station | null = null;
  hasCarrier = true;
  /** Ports of different parts do not hear each other: a cable between two switches is out. */
  part = 0;
  extraDelayMs = 0;
  /** Spanning tree: the carrier is there, and nothing passes. */
  #isBlocked = false;
  #unblocking: Event | undefined;
  /** Unicast frames for these alone come out of it, as of virtual switches' ports; null for all. */
  allowed: ReadonlySet<number> | null = null;
  /** Port security: nor do frames of others come in. */
  isSecured = false;

  constructor(lan: Lan, name: string) {
    [this.lan, this.name] = [lan, name];
  }

  get forwards(): boolean {
    return this.hasCarrier && !this.#isBlocked;
  }

  send(frame: Buffer): void {
    this.lan.enter(this, frame);
  }

  deliver(frame: Buffer): void {
    if (this.forwards) this.station?.receive(frame);
  }

  admits(source: number): boolean {
    return !this.isSecured || this.allowed === null || this.allowed.has(source);
  }

  isFiltered(destination: number): boolean {
    return this.allowed !== null && !isGroup(destination) && !this.allowed.has(destination);
  }

  /** The carrier stays. Null: until it is told otherwise. */
  block(forMs: number | null): void {
    if (this.#unblocking !== undefined) this.#unblocking.isCancelled = true;
    this.#isBlocked = true;
    if (forMs !== null) this.#unblocking = scheduler.world(forMs, () => this.unblock());
  }

  unblock(): void {
    this.#isBlocked = false;
  }

  /** `blockedMs`: so long a port with spanning tree does not forward after its carrier is back. */
  setCarrier(hasCarrier: boolean, blockedMs = 0): void {
    if (this.hasCarrier === hasCarrier) return;
    this.hasCarrier = hasCarrier;
    if (hasCarrier && blockedMs > 0) this.block(blockedMs);
    this.station?.carrierChanged?.();
  }
}
