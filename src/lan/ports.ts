/** The open vantages: one for each parent, opened with the first question and closed when nobody has asked for a while. */
import { isKernelError } from '../kernel/errno.ts';
import type { Link, Links } from '../kernel/link.ts';
import { makeProbeLinkName } from '../linknames.ts';
import type { Mode } from '../model.ts';
import type { Clock } from '../clock.ts';
import { makeProbeMac } from './frames/mac.ts';
import { Vantage, type VantageSpec } from './port.ts';

export interface VantagesSpec {
  readonly links: Links;
  readonly clock: Clock;
  readonly random: () => number;
  readonly onProxy: (parent: Link, macAddress: string) => void;
}

/** A vantage on the parent itself, or on a link of our own where the kernel allows one. */
const PLACES = ['parent', 'link'] as const;
type Place = (typeof PLACES)[number];

export class Vantages {
  readonly #spec: VantagesSpec;
  readonly #open = new Map<string, Promise<Vantage>>();
  readonly #closing = new Map<string, Promise<void>>();
  /** By parent index, and kept, so that a switch learns one MAC for all our probes on a port. */
  readonly #macAddresses = new Map<number, string>();

  constructor(spec: VantagesSpec) {
    this.#spec = spec;
  }

  /** Use it before anything else is awaited: an idle one closes itself. None is opened for what is stopped already. */
  get(parent: Link, mode: Mode, stop: AbortSignal): Promise<Vantage> {
    stop.throwIfAborted();
    const place = mode === 'passthru' ? 'parent' : 'link';
    const key = `${place} ${parent.index}`;
    const known = this.#open.get(key);
    if (known !== undefined) return known;
    const opening = this.#make(key, place, parent);
    this.#open.set(key, opening);
    opening.catch(() => this.#open.delete(key));
    return opening;
  }

  /** Those open on a parent at this moment. */
  async on(parentIndex: number): Promise<Vantage[]> {
    const opening = PLACES.map((place) => this.#open.get(`${place} ${parentIndex}`));
    const settled = await Promise.allSettled(opening.filter((one) => one !== undefined));
    return settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
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

  async #make(key: string, place: Place, parent: Link): Promise<Vantage> {
    // Only when the old link is gone its MAC address is free again.
    await this.#closing.get(key);
    const { links, clock, random, onProxy } = this.#spec;
    const spec: VantageSpec = {
      links,
      clock,
      random,
      parent,
      macAddress: this.#macAddress(parent),
      linkName: makeProbeLinkName(),
      onProxy: (macAddress) => onProxy(parent, macAddress),
      onEnd: (reason) => this.#retire(key, reason),
    };
    return place === 'parent' ? Vantage.openParent(spec) : openLinkOrParent(spec);
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
    // A link that cannot be removed is left to recovery, which knows it by its alias; the questions have got their answers.
    const closing = opening.then((vantage) => vantage.close(reason)).catch(() => undefined);
    this.#closing.set(key, closing);
    void closing.then(() => this.#closing.get(key) === closing && this.#closing.delete(key));
  }
}

/** EINVAL: a child in passthru mode wants the parent for itself. EBUSY: an ipvlan has it. */
async function openLinkOrParent(spec: VantageSpec): Promise<Vantage> {
  try {
    return await Vantage.openLink(spec);
  } catch (error) {
    if (isKernelError(error, 'EINVAL', 'EBUSY')) return Vantage.openParent(spec);
    throw error;
  }
}
