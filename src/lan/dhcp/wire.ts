/**
 * The LAN below a parent, as DHCP clients use it. What they say goes out by our link for asking the LAN, with the container's
 * own MAC address as the frame's source: siblings hear it, a server in one of them too. What servers answer is heard on the
 * parent: to all, to a MAC address that no link has yet, to one that a container has, and from one container to another.
 */
import type { Clock } from '../../clock.ts';
import type { Links } from '../../kernel/link.ts';
import { PacketSocket } from '../../kernel/packet.ts';
import type { Segment } from '../../model.ts';
import { type DhcpAnswer, decodeDhcp } from '../frames/dhcp.ts';
import { DHCP_ANSWERS } from '../frames/filter.ts';
import type { DhcpWire } from './question.ts';

/** The LAN of a network, as far as DHCP goes by it. */
export type DhcpSegment = Pick<Segment, 'parentName' | 'mode'>;

/** What wires work with. */
export interface DhcpWiresParts {
  readonly links: Pick<Links, 'known'>;
  /** Lan.sendOn() */
  readonly sendOn: (segment: DhcpSegment, frame: Buffer) => Promise<void>;
  readonly clock: Clock;
}

interface Listener {
  readonly macAddress: string;
  readonly xid: number;
  readonly hear: (answer: DhcpAnswer) => void;
}

/** How often the socket is read. */
const TICK_MS = 5;
/** It stays for the next question of an exchange. */
const LINGER_MS = 1000;
/** After its link went down or away. */
const REOPEN_MS = 100;
/** Servers answer one by one; a flood of answers is left to the kernel to drop. */
const RECEIVE_BUFFER_BYTES = 512 * 1024;

/** One ear for each parent, as long as somebody listens there. */
export class DhcpWires {
  readonly #parts: DhcpWiresParts;
  readonly #ears = new Map<string, Ear>();

  constructor(parts: DhcpWiresParts) {
    this.#parts = parts;
  }

  /** Whatever happens to the parent, it is the one of this name. */
  on(segment: DhcpSegment): DhcpWire {
    return {
      send: (frame) => void this.sent(segment, frame).catch(() => undefined),
      listen: (macAddress, xid, hear) => this.#ear(segment.parentName).add({ macAddress, xid, hear }),
    };
  }

  /** Resolves when the frame has gone out, or is lost; not before answers to it would be heard. */
  async sent(segment: DhcpSegment, frame: Buffer): Promise<void> {
    await this.#ears.get(segment.parentName)?.ready;
    await this.#parts.sendOn(segment, frame);
  }

  /** Nobody hears anything any more. */
  close(): void {
    for (const ear of this.#ears.values()) ear.close();
    this.#ears.clear();
  }

  #ear(parentName: string): Ear {
    const known = this.#ears.get(parentName);
    if (known !== undefined) return known;
    const ear: Ear = new Ear(this.#parts, parentName, () => {
      ear.close();
      if (this.#ears.get(parentName) === ear) this.#ears.delete(parentName);
    });
    this.#ears.set(parentName, ear);
    return ear;
  }
}

/** A socket on a parent that hears servers. */
class Ear {
  readonly #parts: DhcpWiresParts;
  readonly #parentName: string;
  readonly #onIdle: () => void;
  readonly #listeners = new Set<Listener>();
  #socket: PacketSocket | undefined;
  #opening: Promise<void> | undefined;
  #isClosed = false;
  #cancel = () => {};

  constructor(parts: DhcpWiresParts, parentName: string, onIdle: () => void) {
    this.#parts = parts;
    this.#parentName = parentName;
    this.#onIdle = onIdle;
  }

  /** Resolves when it hears, or cannot. */
  get ready(): Promise<void> {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  /** Listens until the returned function is called. */
  add(listener: Listener): () => void {
    this.#listeners.add(listener);
    this.#attempt((socket) => socket.join(listener.macAddress));
    this.#schedule(TICK_MS);
    return () => {
      if (!this.#listeners.delete(listener)) return;
      this.#attempt((socket) => socket.leave(listener.macAddress));
    };
  }

  close(): void {
    this.#isClosed = true;
    this.#cancel();
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #open(): Promise<void> {
    const parent = await this.#parts.links.known(this.#parentName).catch(() => undefined);
    if (parent === undefined || this.#isClosed || this.#socket !== undefined) return;
    try {
      const memberships = Array.from(this.#listeners, ({ macAddress }) => macAddress);
      this.#socket = PacketSocket.open({
        linkIndex: parent.index,
        filter: DHCP_ANSWERS,
        receiveBufferBytes: RECEIVE_BUFFER_BYTES,
        memberships,
      });
    } catch {
      // It is tried again with the next reading: the parent may come back.
    }
  }

  #schedule(delayMs: number): void {
    this.#cancel();
    this.#cancel = this.#parts.clock.after(delayMs, () => this.#tick());
  }

  #tick(): void {
    if (this.#listeners.size === 0) return this.#rest();
    const isOpen = this.#socket !== undefined;
    if (!isOpen) this.#opening = this.#open();
    this.#attempt((socket) => {
      for (const { frame } of socket.receive()) this.#tell(frame);
    });
    if (!this.#isClosed) this.#schedule(isOpen ? TICK_MS : REOPEN_MS);
  }

  /** Unless somebody listens again soon. */
  #rest(): void {
    this.#cancel = this.#parts.clock.after(LINGER_MS, () => {
      if (this.#listeners.size === 0) this.#onIdle();
      else this.#tick();
    });
  }

  #tell(frame: Buffer): void {
    const answer = decodeDhcp(frame);
    if (answer === undefined) return;
    for (const { macAddress, xid, hear } of [...this.#listeners])
      if (answer.xid === xid && answer.macAddress === macAddress) hear(answer);
  }

  /** A socket that breaks is opened again: its link went down or was made again. */
  #attempt(act: (socket: PacketSocket) => void): void {
    if (this.#socket === undefined) return;
    try {
      act(this.#socket);
    } catch {
      this.#socket?.close();
      this.#socket = undefined;
    }
  }
}
