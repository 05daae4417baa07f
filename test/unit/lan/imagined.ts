/**
 * An imagined LAN in imagined time: hosts whose event loops stall and a wire that delays and loses frames, all drawn
 * from the test's own random numbers. What is real is the Detection under test.
 */
import type { Address } from '../../../src/address.ts';
import type { Clock } from '../../../src/clock.ts';
import type { Detection } from '../../../src/lan/detection.ts';
import type { Wire } from '../../../src/lan/detectionspec.ts';
import { Pacer } from '../../../src/lan/pacer.ts';
import { announcementFrame, defenceFrame } from '../../../src/lan/frames/outgoing.ts';
import { decodePacket, readSighting } from '../../../src/lan/frames/sighting.ts';

interface Event {
  readonly atMs: number;
  readonly run: () => void;
}

export class World {
  nowMs = 0;
  /** In the order they were asked for, which decides between those due at the same time. */
  readonly #events = new Set<Event>();

  at(atMs: number, run: () => void): () => void {
    const event = { atMs: Math.max(atMs, this.nowMs), run };
    this.#events.add(event);
    return () => this.#events.delete(event);
  }

  /** Runs everything due up to `untilMs`, in order. */
  run(untilMs: number): void {
    for (let next = this.#next(untilMs); next !== undefined; next = this.#next(untilMs)) {
      this.#events.delete(next);
      this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = untilMs;
  }

  /** The same, where what is done waits for promises in between. */
  async live(untilMs: number): Promise<void> {
    for (let next = this.#next(untilMs); next !== undefined; next = this.#next(untilMs)) {
      this.#events.delete(next);
      this.nowMs = next.atMs;
      next.run();
      // All that the event set going has come to its next wait before this is called.
      await new Promise(setImmediate);
    }
    this.nowMs = untilMs;
  }

  #next(untilMs: number): Event | undefined {
    let first: Event | undefined;
    for (const event of this.#events) {
      if (event.atMs <= untilMs && (first === undefined || event.atMs < first.atMs)) first = event;
    }
    return first;
  }
}

export interface HostSpec {
  readonly macAddress: string;
  /** From wire to socket. */
  readonly latencyMs: number;
  /** Its event loop does nothing in this time. */
  readonly stall: { readonly fromMs: number; readonly forMs: number };
  /** Left out: no limit. */
  readonly mostFrames?: number;
  /** Until then it is alone on a LAN of its own; left out, it never is. */
  readonly joinsAtMs?: number;
}

/** What is on the LAN. */
export interface Station {
  arrive(frame: Buffer): void;
}

/** A host's socket and event loop. */
export class Host implements Wire, Station {
  readonly macAddress: string;
  readonly clock: Clock;
  detection: Detection | undefined;
  lostFrames = 0;
  lateAtMs = Number.NEGATIVE_INFINITY;
  /** Multicast listener reports are left out. */
  readonly sent: { readonly atMs: number; readonly frame: Buffer }[] = [];
  #waiting: Buffer[] = [];
  readonly #pacer: Pacer;
  readonly #world: World;
  readonly #spec: HostSpec;
  readonly #others: readonly Station[];

  constructor(world: World, spec: HostSpec, others: readonly Station[]) {
    this.macAddress = spec.macAddress;
    this.#world = world;
    this.#spec = spec;
    this.#others = others;
    this.clock = {
      nowMs: () => world.nowMs,
      after: (delayMs, run) => world.at(this.#awake(world.nowMs + delayMs), run),
    };
    this.#pacer = new Pacer(this.clock, spec.mostFrames ?? 0);
  }

  send(frame: Buffer): void {
    if (decodePacket(frame) !== undefined) this.sent.push({ atMs: this.#world.nowMs, frame });
    if (this.isJoined) for (const other of this.#others) if (other !== this) other.arrive(frame);
  }

  get isJoined(): boolean {
    return this.#world.nowMs >= (this.#spec.joinsAtMs ?? 0);
  }

  turn(): number {
    return this.#pacer.turn();
  }

  inTurn(isWaitedFor: boolean, run: () => void): (() => void) | null {
    return this.#pacer.inTurn(isWaitedFor, run);
  }

  spare(): boolean {
    return this.#pacer.spare();
  }

  /** As often as the port does at least. */
  tick(): void {
    this.drain();
    this.clock.after(this.detection?.isOnStandby ? 100 : 5, () => this.tick());
  }

  drain(): void {
    const frames = this.#waiting;
    this.#waiting = [];
    for (const frame of frames) this.#take(frame);
  }

  #take(frame: Buffer): void {
    const packet = decodePacket(frame);
    const sighting = packet && readSighting(packet);
    if (sighting && this.detection && sighting.address.value === this.detection.address.value)
      this.detection.hear(sighting);
  }

  arrive(frame: Buffer): void {
    if (this.detection === undefined || !this.isJoined) return;
    this.#world.at(this.#world.nowMs + this.#spec.latencyMs, () => this.#waiting.push(frame));
  }

  #awake(atMs: number): number {
    const { fromMs, forMs } = this.#spec.stall;
    return atMs >= fromMs && atMs < fromMs + forMs ? fromMs + forMs : atMs;
  }
}

/** A container on a host: its kernel announces its address and answers for it at once. */
export class Container implements Station {
  readonly #host: Host;
  readonly #address: Address;
  readonly #macAddress: string;
  readonly #others: readonly Station[];

  constructor(host: Host, address: Address, macAddress: string, others: readonly Station[]) {
    this.#host = host;
    this.#address = address;
    this.#macAddress = macAddress;
    this.#others = others;
  }

  announce(): void {
    this.#send(announcementFrame(this.#address, this.#macAddress));
  }

  arrive(frame: Buffer): void {
    const packet = decodePacket(frame);
    const sighting = packet && readSighting(packet);
    if (packet === undefined || sighting?.kind !== 'probe' || sighting.address.value !== this.#address.value) return;
    this.#send(defenceFrame(packet, this.#address, this.#macAddress));
  }

  #send(frame: Buffer): void {
    if (this.#host.isJoined) for (const other of this.#others) if (other !== this) other.arrive(frame);
  }
}
