/**
 * "Does anybody on this LAN have this address?" What is asked at the same time on one parent shares one vantage, so a
 * hundred questions cost about the time of one. An address in reserve was asked for ahead and costs no time at all.
 */
import { type Address, type Prefix, formatAddress } from '../address.ts';
import { CappedMap } from '../bounded.ts';
import * as errors from '../errors.ts';
import { KernelError } from '../kernel/errno.ts';
import type { InterfaceAddress, Link, Links } from '../kernel/link.ts';
import type { Mode } from '../model.ts';
import { type Announcement, announce } from './announce.ts';
import { type Clock, systemClock } from '../clock.ts';
import { Inquiry, type Question, type Reservation, type Verdict } from './detection.ts';
import { type Lost, Reserve } from './standby.ts';
import { SharedReadings } from '../once.ts';
import { type Profile, timingOf } from './timing.ts';
import type { Vantage } from './port.ts';
import { Vantages } from './ports.ts';

interface OnParent {
  readonly parentName: string;
  /** Of the network the address is for. */
  readonly mode: Mode;
  readonly address: Address;
  readonly signal?: AbortSignal | undefined;
}

export interface ProbeRequest extends OnParent {
  readonly profile: Profile;
  /** See Question.isOwn. */
  readonly isOwn: Question['isOwn'];
  /** The address's subnet; without it routers that answer for every address count as holders. */
  readonly subnet?: Prefix | undefined;
  /** How long an address found free is guarded: listened for and defended against others who ask for it. */
  readonly guardMs?: number | undefined;
}

export type Finding =
  | { readonly held: false }
  | {
      readonly held: true;
      readonly macAddress: string;
      /** Where it was seen: the parent, or the host's own link that has the address. */
      readonly linkName: string;
      /** It asked for the address at the same moment as we did, and may or may not take it. */
      readonly simultaneous: boolean;
    };

/** `macAddress`: the container's. */
export interface AnnounceRequest extends OnParent, Announcement {}

export interface LateConflict {
  readonly parentName: string;
  readonly address: Address;
  readonly macAddress: string;
}

export interface ProxyReport {
  readonly parentName: string;
  readonly macAddress: string;
}

export interface Parts {
  readonly links: Links;
  /** Somebody began to use an address that we had found free, while it was guarded. */
  readonly onLateConflict?: (conflict: LateConflict) => void;
  /** A router answers for every address. Told once for each. */
  readonly onProxy?: (report: ProxyReport) => void;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
}

/** Engines put the address on the container's interface within seconds of asking us for it. */
const GUARD_MS = 10_000;
/** The age of what is known about an address in reserve, beside what was heard ever since. */
export const REFRESH_MS = 600_000;
/** ARPHRD_ETHER (linux/if_arp.h). */
const ETHERNET = 1;

/** More are an attack. */
const MOST_REPORTS = 256;

/** The reason that ends what is asked when the daemon stops. */
class Stopped extends Error {}

export class Prober {
  readonly #links: Links;
  readonly #vantages: Vantages;
  readonly #onLateConflict: (conflict: LateConflict) => void;
  readonly #onProxy: (report: ProxyReport) => void;
  readonly #clock: Clock;
  readonly #random: () => number;
  /** Parent and MAC address of each router that answers for every address. */
  readonly #reportedProxies = new CappedMap<string, true>(MOST_REPORTS);
  readonly #reserve: Reserve;
  readonly #parents = new SharedReadings<Link | undefined>();
  readonly #hostAddresses = new SharedReadings<InterfaceAddress[]>();
  /** Of what was begun since the last close(): also what has not opened its vantage yet ends with it. */
  #stop = new AbortController();

  constructor({ links, onLateConflict, onProxy, clock = systemClock, random = Math.random }: Parts) {
    this.#links = links;
    this.#onLateConflict = onLateConflict ?? (() => undefined);
    this.#onProxy = onProxy ?? (() => undefined);
    this.#clock = clock;
    this.#random = random;
    this.#reserve = new Reserve(clock);
    this.#vantages = new Vantages({ links, clock, random, onProxy: (parent, mac) => this.#reportProxy(parent, mac) });
  }

  /** Throws a PluginError when the LAN cannot be asked, and the signal's reason when it is aborted. */
  probe(request: ProbeRequest): Promise<Finding> {
    return this.#onParent(request, async (parent, stop) => {
      const held = (await this.#heldByHost(request, parent)) ?? (await this.#heldBySibling(request, parent));
      if (held !== undefined) return held;
      return this.#reserve.grant(keyOf(request)) ? { held: false } : this.#heldOnLan(request, parent, stop);
    });
  }

  /**
   * Asks for an address that nobody needs yet, and keeps it in reserve when it is free: listened for without a gap, asked
   * for again every ten minutes, left to whoever wants it, and given out by probe() at once. `lost` is told when that is
   * over. Asked for again while it is kept, it gets one more to be told.
   */
  keep(request: ProbeRequest, lost: Lost): Promise<Finding> {
    return this.#onParent(request, async (parent, stop) => {
      if (this.#reserve.join(keyOf(request), lost)) return { held: false };
      const held = (await this.#heldByHost(request, parent)) ?? (await this.#heldBySibling(request, parent));
      return held ?? this.#keepOnLan(request, parent, stop, lost);
    });
  }

  /** The one who gave `lost` wants it kept no longer. */
  letGo(request: Pick<ProbeRequest, 'parentName' | 'address'>, lost: Lost): void {
    this.#reserve.leave(keyOf(request), lost);
  }

  isKept(request: Pick<ProbeRequest, 'parentName' | 'address'>): boolean {
    return this.#reserve.has(keyOf(request));
  }

  /**
   * An address that a container of ours is just leaving, whose kernel has answered for it until now: kept in reserve at
   * once for two minutes, and asked for meanwhile, so that the container can start again without waiting.
   */
  keepLeft(request: ProbeRequest): Promise<void> {
    return this.#onParent(request, async (parent, stop) => {
      const key = keyOf(request);
      const vantage = await this.#vantages.get(parent, request.mode, stop);
      if (this.#reserve.has(key)) return;
      const inquiry = this.#inquiry(request, parent, vantage, { refreshMs: REFRESH_MS, isOurs: true });
      if (!this.#reserve.addLeft(key, inquiry)) return;
      vantage.add(inquiry);
      inquiry.start();
    });
  }

  /** No container comes back to a network that is gone. */
  endLeft(parentName: string, subnet: Prefix): void {
    this.#reserve.endLeft(parentName, subnet);
  }

  /**
   * Tells the LAN, siblings in bridge mode included, that the address is at this MAC from now on, so that caches and
   * switches learn it. For engines, of which not all do. Takes 2 s; call it once the container's interface is up.
   */
  announce(request: AnnounceRequest): Promise<void> {
    return this.#onParent(request, async (parent, stop) => {
      const vantage = await this.#vantages.get(parent, request.mode, stop);
      const letGo = vantage.hold();
      await announce(vantage, this.#clock, request).finally(letGo);
    });
  }

  /** A router that was seen to answer for every address: its answers say nothing about one. */
  isProxy(parentName: string, macAddress: string): boolean {
    return this.#reportedProxies.has(`${parentName} ${macAddress}`);
  }

  /** Ends the guard of an address that was found free and is not wanted any more. */
  async release(parentName: string, address: Address): Promise<void> {
    const parent = await this.#links.byName(parentName);
    if (parent === undefined) return;
    for (const vantage of await this.#vantages.on(parent.index)) vantage.release(address);
  }

  /**
   * Takes our link off a parent at once, for a child in passthru mode that must be alone there. What is being asked from
   * the link ends in an error, and its guards end.
   */
  async vacate(parentName: string): Promise<void> {
    const parent = await this.#links.byName(parentName);
    if (parent !== undefined) await this.#vantages.vacate(parent.index, new Stopped());
  }

  /** What is being asked ends in an error; every guard ends; no link or socket stays. */
  close(): Promise<void> {
    const reason = new Stopped();
    this.#stop.abort(reason);
    this.#stop = new AbortController();
    return this.#vantages.close(reason);
  }

  async #onParent<T>(request: OnParent, act: (parent: Link, stop: AbortSignal) => Promise<T>): Promise<T> {
    request.signal?.throwIfAborted();
    const stop = this.#stop.signal;
    try {
      return await act(await this.#parent(request), stop);
    } catch (error) {
      if (error instanceof Stopped) throw errors.probeStopped(formatAddress(request.address));
      throw error instanceof KernelError ? await this.#refusal(request, error) : error;
    }
  }

  async #parent({ parentName, address }: OnParent): Promise<Link> {
    const parent = await this.#parents.get(parentName, () => this.#links.byName(parentName));
    if (parent === undefined) throw errors.probeParentGone(formatAddress(address), parentName);
    if (parent.type !== ETHERNET || parent.isLoopback) throw errors.parentNotEthernet(parentName);
    if (!parent.isUp) throw errors.probeParentDown(formatAddress(address), parentName);
    return parent;
  }

  /** The kernel's words for a parent that went down or away are many; its state says which it was. */
  async #refusal(request: OnParent, error: KernelError): Promise<Error> {
    if (error.code === 'EPERM') return errors.notPermitted('watch a network link', error);
    try {
      await this.#parent(request);
      return errors.probeFailed(formatAddress(request.address), request.parentName, error.code, error);
    } catch (sentence) {
      return sentence as Error;
    }
  }

  /**
   * The host's own addresses, which no probe from its own links can hear. IPv4: on whatever link, because Linux answers
   * ARP for all of them on all links (ip-sysctl: arp_ignore 0). IPv6: on this segment, because it answers link by link.
   */
  async #heldByHost({ address, isOwn }: ProbeRequest, parent: Link): Promise<Finding | undefined> {
    const text = formatAddress(address);
    const all = await this.#hostAddresses.get('', () => this.#links.addresses());
    for (const { linkIndex } of all.filter((one) => one.address === text)) {
      const link = await this.#links.byIndex(linkIndex);
      if (link === undefined || isOwn(link.macAddress, false)) continue;
      if (address.family === 'IPv6' && link.index !== parent.index && link.parentIndex !== parent.index) continue;
      const { macAddress } = link.isLoopback ? parent : link;
      return { held: true, macAddress, linkName: link.name, simultaneous: false };
    }
    return undefined;
  }

  /** Siblings in modes private and vepa hear no probe of another sibling; their addresses can be read all the same. */
  async #heldBySibling({ address, isOwn }: ProbeRequest, { index, name }: Link): Promise<Finding | undefined> {
    const siblings = await this.#links.foreignSubInterfaces(index, formatAddress(address));
    const holder = siblings.find(({ macAddress }) => !isOwn(macAddress, false));
    return holder && { held: true, macAddress: holder.macAddress, linkName: name, simultaneous: false };
  }

  async #heldOnLan(request: ProbeRequest, parent: Link, stop: AbortSignal): Promise<Finding> {
    const vantage = await this.#vantages.get(parent, request.mode, stop);
    request.signal?.throwIfAborted();
    const inquiry = this.#inquiry(request, parent, vantage);
    vantage.add(inquiry);
    inquiry.start();
    return this.#verdict(request, parent, inquiry);
  }

  async #keepOnLan(request: ProbeRequest, parent: Link, stop: AbortSignal, lost: Lost): Promise<Finding> {
    const vantage = await this.#vantages.get(parent, request.mode, stop);
    request.signal?.throwIfAborted();
    const inquiry = this.#inquiry(request, parent, vantage, { refreshMs: REFRESH_MS, isOurs: false });
    vantage.add(inquiry);
    inquiry.start();
    const finding = await this.#verdict(request, parent, inquiry);
    if (finding.held) return finding;
    if (!inquiry.isKept) throw new Stopped();
    if (!this.#reserve.add(keyOf(request), inquiry, lost)) inquiry.end(new Error('kept already'));
    return finding;
  }

  async #verdict(request: ProbeRequest, parent: Link, inquiry: Inquiry): Promise<Finding> {
    const verdict = await unlessAborted(request.signal, inquiry);
    if (verdict.held) return { ...verdict, linkName: parent.name };
    // A parent that went down lost our probes without a word.
    await this.#parent(request).catch((error: unknown) => {
      inquiry.end(error as Error);
      throw error;
    });
    return verdict;
  }

  #inquiry(request: ProbeRequest, { name: parentName }: Link, vantage: Vantage, reserve?: Reservation): Inquiry {
    const { address, profile, isOwn, subnet, guardMs = GUARD_MS } = request;
    const inquiry: Inquiry = new Inquiry(
      {
        address,
        timing: timingOf(profile, address.family),
        guardMs,
        isOwn,
        onLateConflict: (macAddress) => this.#onLateConflict({ parentName, address, macAddress }),
        onOver: (loss) => {
          vantage.remove(inquiry);
          this.#reserve.remove(keyOf(request), inquiry, loss);
        },
        ...(reserve && { reserve }),
      },
      { wire: vantage, clock: this.#clock, random: this.#random, proxies: subnet && vantage.proxies(subnet) },
    );
    return inquiry;
  }

  #reportProxy({ name: parentName }: Link, macAddress: string): void {
    const key = `${parentName} ${macAddress}`;
    if (this.#reportedProxies.has(key) || !this.#reportedProxies.put(key, true)) return;
    this.#onProxy({ parentName, macAddress });
  }
}

function keyOf({ parentName, address }: Pick<ProbeRequest, 'parentName' | 'address'>): string {
  return `${parentName} ${formatAddress(address)}`;
}

async function unlessAborted(signal: AbortSignal | undefined, inquiry: Inquiry): Promise<Verdict> {
  const abort = () => inquiry.end(signal?.reason as Error);
  signal?.addEventListener('abort', abort, { once: true });
  return inquiry.verdict.finally(() => signal?.removeEventListener('abort', abort));
}
