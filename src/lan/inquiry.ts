/**
 * One host asked for one address, beside all detections: a probe to its MAC address alone. It tells nothing about others,
 * and so nothing about whether the address is free.
 */
import { type Address, isSameAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import { makeNonce, unicastProbeFrame } from './frames/outgoing.ts';
import type { Sighting } from './frames/sighting.ts';

/** What inquiries work with. */
interface InquirySpec {
  /** Questions come from it, and answers have to go to it. */
  readonly macAddress: string;
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  readonly send: (frame: Buffer) => void;
  /** Reserves so many frames; how many milliseconds from now they have to be sent (pacer.ts). */
  readonly turn: (frames: number) => number;
  /** From now on hear() is called with what is said about these addresses. */
  readonly listen: (addresses: readonly Address[]) => void;
  /** No longer. */
  readonly ignore: (addresses: readonly Address[]) => void;
}

interface Inquiry {
  readonly address: Address;
  readonly answer: PromiseWithResolvers<string | null>;
  cancel: () => void;
}

/** The wait for the answer. */
const WAIT_MS = 100;

/** The inquiries that go out by one socket. */
export class Inquiries {
  readonly #spec: InquirySpec;
  readonly #open = new Set<Inquiry>();

  constructor(spec: InquirySpec) {
    this.#spec = spec;
  }

  /** Answers are awaited. */
  get isAsking(): boolean {
    return this.#open.size > 0;
  }

  /** What answers are awaited about. */
  get addresses(): Address[] {
    return [...this.#open].map(({ address }) => address);
  }

  /**
   * Asks the host of this MAC address (all, if it is that of all) whether it has the address. The MAC address that answers,
   * null when none does within 100 ms. Throws what `listen` throws.
   */
  async ask(address: Address, to: string): Promise<string | null> {
    const { clock, listen, turn } = this.#spec;
    const inquiry: Inquiry = { address, answer: Promise.withResolvers<string | null>(), cancel: () => undefined };
    this.#open.add(inquiry);
    try {
      listen([address]);
    } catch (error) {
      this.#open.delete(inquiry);
      throw error;
    }
    const waitMs = turn(1);
    if (waitMs > 0) inquiry.cancel = clock.after(waitMs, () => this.#send(inquiry, to));
    else this.#send(inquiry, to);
    return inquiry.answer.promise;
  }

  /** Any sighting on the LAN; answers to us count. */
  hear({ kind, isAnswer, address, macAddress, packet }: Sighting): void {
    if (kind !== 'use' || !isAnswer) return;
    // An advertisement goes to all, because who asks from `::` cannot be addressed (RFC 4861 7.2.4).
    if (packet.protocol === 'ARP' && packet.destinationMac !== this.#spec.macAddress) return;
    for (const inquiry of this.#open) if (isSameAddress(inquiry.address, address)) this.#end(inquiry, macAddress);
  }

  /** Nothing is asked any more; nobody has answered. */
  close(): void {
    for (const inquiry of this.#open) this.#end(inquiry, null);
  }

  #send(inquiry: Inquiry, to: string): void {
    const { macAddress, clock, random, send } = this.#spec;
    send(unicastProbeFrame(inquiry.address, macAddress, to, makeNonce(random)));
    // Sending can fail, and so close us.
    if (this.#open.has(inquiry)) inquiry.cancel = clock.after(WAIT_MS, () => this.#end(inquiry, null));
  }

  #end(inquiry: Inquiry, macAddress: string | null): void {
    if (!this.#open.delete(inquiry)) return;
    inquiry.cancel();
    this.#spec.ignore([inquiry.address]);
    inquiry.answer.resolve(macAddress);
  }
}
