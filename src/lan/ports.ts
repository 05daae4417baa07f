/** The open ports: one for each parent, opened with the first detection and closed when nobody has asked for a while. */
import { LatestMap } from '../bounded.ts';
import { isKernelError } from '../kernel/errno.ts';
import type { Link, Links } from '../kernel/link.ts';
import { makeProbeLinkName } from '../linknames.ts';
import type { Mode } from '../model.ts';
import type { Clock } from '../clock.ts';
import { makeProbeMac } from './frames/mac.ts';
import { Pacer } from './pacer.ts';
import { Port, type PortSpec } from './port.ts';

/** What the ports need. */
export interface PortsSpec {
  readonly links: Links;
  readonly clock: Clock;
  readonly random: () => number;
  /** Frames a second on one parent, at most; 0 for no limit. */
  readonly mostFrames: number;
  readonly onProxy: (parent: Link, macAddress: string) => void;
}

/** More parents than a host has: those of VLANs that were made again are left. */
const MOST_PACERS = 1024;

/** A port is on the parent itself, or on a link of our own where the kernel allows one. */
type Position = 'parent' | 'link';

/** Opens, shares and closes ports, so that all that is asked on a parent at one time goes through one socket. */
export class Ports {
  readonly #spec: PortsSpec;
  readonly #open = new Map<string, Promise<Port>>();
  readonly #closing = new Map<string, Promise<void>>();
  /** By parent index, and kept, so that a switch learns one MAC for all our probes on a port. */
  readonly #macAddresses = new Map<number, string>();
  /** By parent index, and kept, so that a port that is opened again begins with no new burst. */
  readonly #pacers = new LatestMap<number, Pacer>(MOST_PACERS);

  constructor(spec: PortsSpec) {
    this.#spec = spec;
  }

  /** Use it before anything else is awaited: an idle one closes itself. None is opened for what is stopped already. */
  get(parent: Link, mode: Mode, stop: AbortSignal): Promise<Port> {
    stop.throwIfAborted();
    const position: Position = mode === 'passthru' ? 'parent' : 'link';
    const key = `${position} ${parent.index}`;
    const known = this.#open.get(key);
    if (known !== undefined) return known;
    const opening = this.#make(key, position, parent);
    this.#open.set(key, opening);
    opening.catch(() => this.#open.delete(key));
    return opening;
  }

  /** Of all that is sent on a parent. */
  pacer(parentIndex: number): Pacer {
    const { clock, mostFrames } = this.#spec;
    const pacer = this.#pacers.get(parentIndex) ?? new Pacer(clock, mostFrames);
    this.#pacers.put(parentIndex, pacer);
    return pacer;
  }

  /** Takes our own link off a parent. */
  async vacate(parentIndex: number, reason: Error): Promise<void> {
    const key = `link ${parentIndex}`;
    this.#retire(key, reason);
    await this.#closing.get(key);
  }

  /** Ends with `reason` what is still asked. */
  async close(reason: Error): Promise<void> {
    for (const key of this.#open.keys()) this.#retire(key, reason);
    await Promise.all(this.#closing.values());
  }

  async #make(key: string, position: Position, parent: Link): Promise<Port> {
    // Only when the old link is gone its MAC address is free again.
    await this.#closing.get(key);
    const { links, clock, random, onProxy } = this.#spec;
    const spec: PortSpec = {
      links,
      clock,
      random,
      parent,
      macAddress: this.#macAddress(parent),
      pacer: this.pacer(parent.index),
      linkName: makeProbeLinkName(),
      onProxy: (macAddress) => onProxy(parent, macAddress),
      onEnd: (reason) => this.#retire(key, reason),
    };
    return position === 'parent' ? Port.openParent(spec) : openLinkOrParent(spec);
  }

  #macAddress({ index }: Link): string {
    const macAddress = this.#macAddresses.get(index) ?? makeProbeMac(this.#spec.random);
    this.#macAddresses.set(index, macAddress);
    return macAddress;
  }

  #retire(key: string, reason: Error): void {
    const opening = this.#open.get(key);
    if (opening === undefined) return;
    this.#open.delete(key);
    // A link that cannot be removed is left to recovery, which knows it by its alias; those who asked have got their answers.
    const closing = opening.then((port) => port.close(reason)).catch(() => undefined);
    this.#closing.set(key, closing);
    void closing.then(() => this.#closing.get(key) === closing && this.#closing.delete(key));
  }
}

/** EINVAL: a child in passthru mode wants the parent for itself. EBUSY: an ipvlan has it. */
async function openLinkOrParent(spec: PortSpec): Promise<Port> {
  try {
    return await Port.openLink(spec);
  } catch (error) {
    if (isKernelError(error, 'EINVAL', 'EBUSY')) return Port.openParent(spec);
    throw error;
  }
}
