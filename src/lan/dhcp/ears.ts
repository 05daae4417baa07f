/**
 * Ears on parents: what servers and routers say is heard there, to all, to a MAC address that no link has yet, to one that a
 * container has, and from one container to another.
 */
import type { Clock } from '../../clock.ts';
import type { BpfInstruction } from '../../kernel/bpf.ts';
import type { Links } from '../../kernel/link.ts';
import { PacketSocket } from '../../kernel/packet.ts';

/** What ears work with, and what they understand. */
export interface EarsParts<Heard> {
  readonly links: Pick<Links, 'known'>;
  readonly clock: Clock;
  readonly filter: readonly BpfInstruction[];
  readonly decode: (frame: Buffer) => Heard | undefined;
}

/** Who listens on a parent. */
export interface Listener<Heard> {
  /** MAC addresses to which others speak, which the network card would leave out. */
  readonly memberships: readonly string[];
  readonly hear: (heard: Heard) => void;
}

/** How often the socket is read while frames come; while none comes, the kernel tells the next one. */
const TICK_MS = 5;
const TOLD_TICK_MS = 1000;
/** It stays for the next question of an exchange. */
const LINGER_MS = 1000;
/** After its link went down or away. */
const REOPEN_MS = 100;
/** Servers answer one by one; a flood of answers is left to the kernel to drop. */
const RECEIVE_BUFFER_BYTES = 512 * 1024;

/** One ear for each parent, as long as somebody listens there. */
export class Ears<Heard> {
  readonly #parts: EarsParts<Heard>;
  readonly #ears = new Map<string, Ear<Heard>>();

  constructor(parts: EarsParts<Heard>) {
    this.#parts = parts;
  }

  /** Listens until the returned function is called. Whatever happens to the parent, it is the one of this name. */
  listen(parentName: string, listener: Listener<Heard>): () => void {
    return this.#ear(parentName).add(listener);
  }

  /** Resolves when what is said from now on would be heard, or cannot. */
  async ready(parentName: string): Promise<void> {
    await this.#ears.get(parentName)?.ready;
  }

  /** Nobody hears anything any more. */
  close(): void {
    for (const ear of this.#ears.values()) ear.close();
    this.#ears.clear();
  }

  #ear(parentName: string): Ear<Heard> {
    const known = this.#ears.get(parentName);
    if (known !== undefined) return known;
    const ear: Ear<Heard> = new Ear(this.#parts, parentName, () => {
      ear.close();
      if (this.#ears.get(parentName) === ear) this.#ears.delete(parentName);
    });
    this.#ears.set(parentName, ear);
    return ear;
  }
}

/** A socket on a parent. */
class Ear<Heard> {
  readonly #parts: EarsParts<Heard>;
  readonly #parentName: string;
  readonly #onIdle: () => void;
  readonly #listeners = new Set<Listener<Heard>>();
  #socket: PacketSocket | undefined;
  #opening: Promise<void> | undefined;
  #isClosed = false;
  #cancel = () => {};

  constructor(parts: EarsParts<Heard>, parentName: string, onIdle: () => void) {
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
  add(listener: Listener<Heard>): () => void {
    const { memberships } = listener;
    this.#listeners.add(listener);
    this.#attempt((socket) => memberships.forEach((mac) => socket.join(mac)));
    this.#schedule(TICK_MS);
    return () => {
      if (!this.#listeners.delete(listener)) return;
      this.#attempt((socket) => memberships.forEach((mac) => socket.leave(mac)));
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
      const memberships = [...this.#listeners].flatMap((listener) => listener.memberships);
      this.#socket = PacketSocket.open({
        linkIndex: parent.index,
        filter: this.#parts.filter,
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
    let isTold = false;
    this.#attempt((socket) => {
      const frames = socket.receive();
      for (const { frame } of frames) this.#tell(frame);
      isTold = frames.length === 0 && socket.whenReadable(this.#hearNow);
    });
    if (this.#isClosed) return;
    if (isOpen) this.#schedule(isTold ? TOLD_TICK_MS : TICK_MS);
    else this.#schedule(REOPEN_MS);
  }

  readonly #hearNow = () => {
    if (this.#isClosed) return;
    this.#cancel();
    this.#tick();
  };

  /** Unless somebody listens again soon. */
  #rest(): void {
    this.#cancel = this.#parts.clock.after(LINGER_MS, () => {
      if (this.#listeners.size === 0) this.#onIdle();
      else this.#tick();
    });
  }

  #tell(frame: Buffer): void {
    const heard = this.#parts.decode(frame);
    if (heard === undefined) return;
    for (const { hear } of [...this.#listeners]) hear(heard);
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
