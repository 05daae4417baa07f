/**
 * "Does anybody on this LAN have this address?" What is asked at the same time on one parent shares one port, so a
 * hundred detections cost about the time of one. An address on standby was asked for ahead; when it is given out one short
 * question is left.
 */
import { type Address, type Prefix, formatAddress } from '../address.ts';
import * as errors from '../errors.ts';
import { KernelError } from '../kernel/errno.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { Mode } from '../model.ts';
import { type Announcement, announce } from './announce.ts';
import { type Clock, systemClock } from '../clock.ts';
import { Detection } from './detection.ts';
import type { DetectionSpec, StandbyTerms } from './detectionspec.ts';
import { holderOnHost, hostWith, isOnHost } from './ownhost.ts';
import { StandbyList, type StandbyQuestion } from './standby.ts';
import type { Profile } from './timing.ts';
import type { Port } from './port.ts';
import { holderInTable } from './neighbourtable.ts';
import { PortFilters } from './portfilter.ts';
import { Ports } from './ports.ts';
import { type GivenAnswer, type ProxyReport, ProxyReports } from './proxyarp.ts';
import { type LateConflict, type LossListener, NOT_HELD, type Verdict } from './verdict.ts';

interface OnParent {
  readonly parentName: string;
  /** Of the network the address is for. */
  readonly mode: Mode;
  readonly address: Address;
  readonly signal?: AbortSignal | undefined;
}

/** One address to be asked for. */
export interface ProbeRequest extends OnParent {
  readonly profile: Profile;
  /** See DetectionSpec. */
  readonly isOwn: DetectionSpec['isOwn'];
  /** The address's subnet; without it devices that answer for every address count as holders. */
  readonly subnet?: Prefix | undefined;
  /** How long an address found free is guarded: listened for and defended against others who ask for it. */
  readonly guardMs?: number | undefined;
  /** Nothing else promises that the address is free: the whole procedure runs, also for what is on standby. */
  readonly isProof?: boolean | undefined;
  /** Of the container that is to have the address, where that is known by now. */
  readonly macAddress?: string | null | undefined;
  /** Nobody has asked for it. */
  readonly isGuess?: boolean | undefined;
}

/** An address to be announced. `macAddress`: the container's. */
export interface AnnounceRequest extends OnParent, Announcement {}

/** What a prober works with. Left out are reports that nobody wants to hear. */
export interface ProberParts {
  readonly links: Links;
  /** Somebody began to use an address that we had found free, while it was guarded. */
  readonly onLateConflict?: (conflict: LateConflict) => void;
  /** A device answers for every address. Told at most once an hour for each. */
  readonly onProxy?: (report: ProxyReport) => void;
  /** The switch port of this parent was found to deliver to the parent's MAC address only, or not any more. */
  readonly onPortFilter?: (parentName: string, isFiltered: boolean) => void;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
  /** Frames a second on one parent, at most; 0, as when it is left out, for no limit. */
  readonly mostFrames?: number;
}

/** Engines put the address on the container's interface within seconds of asking us for it. */
const GUARD_MS = 10_000;
/** The age of what is known about an address on standby, beside what was heard ever since. */
export const REFRESH_MS = 600_000;
/** ARPHRD_ETHER (linux/if_arp.h). */
const ETHERNET = 1;

/** The reason that ends what is asked when the daemon stops. */
class Stopped extends Error {}

/** All that this host asks on its LANs, announces to them, and has on standby. */
export class Prober {
  readonly #links: Links;
  readonly #ports: Ports;
  readonly #filters: PortFilters;
  readonly #onLateConflict: (conflict: LateConflict) => void;
  readonly #onPortFilter: (parentName: string, isFiltered: boolean) => void;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #standby: StandbyList;
  readonly #detections = new Set<Detection>();
  /** The last detection that found an address free for a container, by parent and address, until its guard ends. */
  readonly #guards = new Map<string, Detection>();
  /** Of what was begun since the last close(): also what has not opened its port yet ends with it. */
  #stop = new AbortController();

  constructor(parts: ProberParts) {
    const { links, onLateConflict, onProxy, onPortFilter } = parts;
    const { clock = systemClock, random = Math.random, mostFrames = 0 } = parts;
    this.#links = links;
    this.#onLateConflict = onLateConflict ?? (() => undefined);
    this.#clock = clock;
    this.#random = random;
    this.#standby = new StandbyList(clock);
    const proxies = new ProxyReports(clock, onProxy ?? (() => undefined));
    const reportProxy = ({ name: parentName }: Link, macAddress: string) => proxies.note({ parentName, macAddress });
    this.#ports = new Ports({ links, clock, random, mostFrames, onProxy: reportProxy });
    this.#filters = new PortFilters({
      links,
      ports: this.#ports,
      clock,
      onChange: (...change) => this.#tellFilter(...change),
    });
    this.#onPortFilter = onPortFilter ?? (() => undefined);
  }

  /**
   * Asks for an address that a container is to get: the whole procedure, or one fresh question where it is on standby.
   * Throws a PluginError when the LAN cannot be asked, and the signal's reason when it is aborted.
   */
  async probe(request: ProbeRequest): Promise<Verdict> {
    request.signal?.throwIfAborted();
    // First of all, so that the kernel is read while the LAN is asked.
    const granted = this.#granted(request);
    try {
      return await this.#onParent(request, (parent, stop) => this.#probe(request, parent, stop, granted));
    } catch (error) {
      granted?.end(error as Error);
      throw error;
    }
  }

  /**
   * Asks once more for an address that probe() found free; the verdict is there some milliseconds later. Where it is guarded
   * no longer, as probe(). Given the MAC address of the endpoint that gets it now, the kernel is read meanwhile too.
   */
  async confirm(request: ProbeRequest, givenTo: string | null = null): Promise<Verdict> {
    request.signal?.throwIfAborted();
    const guard = this.#guards.get(keyOf(request));
    if (guard === undefined) return this.probe(request);
    const isOwn = (mac: string) => mac === givenTo || request.isOwn(mac, false);
    const read = () => this.#onParent(request, (parent) => holderOnHost(this.#links, { ...request, isOwn }, parent));
    const [asked, here] = await Promise.all([
      guard.confirm(request.macAddress ?? null),
      givenTo === null ? undefined : read(),
    ]);
    return here ?? asked ?? this.probe(request);
  }

  /**
   * Asks, thoroughly, who else than those that `isOwn` names has an address of a container that runs: on the LAN, or else this
   * host itself. Guards nothing.
   */
  recheck(request: ProbeRequest): Promise<Verdict> {
    return this.#onParent(request, async (parent, stop) => {
      const detection = await this.#begin({ ...request, guardMs: 0 }, parent, stop);
      const [onLan, onHost] = await Promise.all([detection.verdict, hostWith(this.#links, request, parent)]);
      return onLan.held && !onLan.simultaneous ? onLan : (onHost ?? onLan);
    });
  }

  /**
   * Asks for an address that nobody needs yet, and keeps it on standby when it is free: listened for without a gap, asked
   * for again every ten minutes, and left to whoever wants it. `lost` is told when that is over. Asked for again while it is
   * kept or asked for, it gets one more to be told (standby.ts). `ended` where a container has it by now, and where the parent
   * has no carrier, since silence says nothing there.
   */
  async keep(request: ProbeRequest, lost: LossListener): Promise<Verdict | 'ended'> {
    const key = keyOf(request);
    return this.#standby.keep(key, lost, request.signal, (question) =>
      this.#onParent(request, async (parent, stop) => {
        if (!parent.hasCarrier || this.#guards.has(key)) return 'ended';
        if (this.#standby.join(key, lost)) return NOT_HELD;
        const here = await this.#heldHere(request, parent, stop);
        return here ?? this.#keepOnLan(request, parent, stop, { question, lost });
      }),
    );
  }

  /** The one who gave `lost` wants it kept no longer. */
  letGo(request: Pick<ProbeRequest, 'parentName' | 'address'>, lost: LossListener): void {
    this.#standby.leave(keyOf(request), lost);
  }

  /** A container may get it soon: where it is on standby, it is asked for once, unless the pacer leaves no frame for that. */
  askAhead(request: Pick<ProbeRequest, 'parentName' | 'address'>): void {
    this.#standby.askAhead(keyOf(request));
  }

  /** Whether probe() would have only one short question to ask. */
  isOnStandby(request: Pick<ProbeRequest, 'parentName' | 'address'>): boolean {
    return this.#standby.has(keyOf(request));
  }

  /**
   * An address that a container of ours is just leaving, whose kernel has answered for it until now: kept on standby at
   * once for two minutes, and asked for meanwhile, so that the container can start again without waiting.
   */
  keepLeft(request: ProbeRequest, isLeaver: (macAddress: string) => boolean): Promise<void> {
    const key = keyOf(request);
    const leaversGuard = this.#guards.get(key);
    return this.#onParent(request, async (parent, stop) => {
      if (!parent.hasCarrier) return;
      const port = await this.#port(request, parent, stop);
      const guard = this.#guards.get(key);
      // Nobody waits for this, so another container may be about to get the address by now.
      if (this.#standby.has(key) || (guard !== undefined && guard !== leaversGuard)) return;
      const isOfHost = (macAddress: string) => isOnHost(this.#links, macAddress);
      const terms = { refreshMs: REFRESH_MS, isOurs: true, isLeaver, isOfHost };
      const detection = this.#detection(request, parent, port, terms);
      if (!this.#standby.addLeft(key, detection)) return;
      port.add(detection);
      detection.start();
    });
  }

  /** No container comes back to a network that is gone. */
  endLeft(parentName: string, subnet: Prefix): void {
    this.#standby.endLeft(parentName, subnet);
  }

  /**
   * Tells the LAN, siblings in bridge mode included, that the address is at this MAC from now on, so that caches and
   * switches learn it. For engines, of which not all do. Takes 2 s; call it once the container's interface is up.
   */
  announce(request: AnnounceRequest): Promise<void> {
    return this.#onParent(request, async (parent, stop) => {
      const port = await this.#ports.get(parent, request.mode, stop);
      const letGo = port.hold();
      await announce(port, this.#clock, request).finally(letGo);
    });
  }

  /** Sends a frame of another protocol by our link. A parent that is down or gone loses it, as the wire might. */
  async sendOn({ parentName, mode }: Pick<OnParent, 'parentName' | 'mode'>, frame: Buffer): Promise<void> {
    const parent = await this.#links.known(parentName);
    if (parent?.isUp) (await this.#ports.get(parent, mode, this.#stop.signal)).send(frame);
  }

  /**
   * Whether this MAC address, which answered for the address, answers for every address of the subnet. It is asked now
   * (proxyarp.ts), which takes 60 ms at most. Throws as probe() does.
   */
  answersForAll(request: OnParent & GivenAnswer): Promise<boolean> {
    return this.#onParent(request, async (parent, stop) => {
      const port = await this.#port(request, parent, stop);
      const letGo = port.hold();
      return port.answersForAll(request).finally(letGo);
    });
  }

  /** Whether a frame that can as well be left out may be sent on this parent now. */
  spare(parentIndex: number): boolean {
    return this.#ports.pacer(parentIndex).spare();
  }

  /** Ends the guard of an address that was found free and is not wanted any more. */
  release(request: Pick<ProbeRequest, 'parentName' | 'address'>): void {
    this.#guards.get(keyOf(request))?.end(new Error('released'));
  }

  /**
   * Something happened on this parent's LAN after which anybody may have any address: what was found out counts no more.
   * Nothing stays on standby or guarded, and what is being asked is asked again.
   */
  outdate(parentName: string): void {
    this.#filters.outdate(parentName);
    for (const detection of this.#detections) if (detection.parentName === parentName) detection.outdate();
  }

  /** Parents whose network port was found to deliver to the parent's MAC address only. */
  filteredParents(): string[] {
    return this.#filters.filtered();
  }

  /**
   * Takes our link off a parent at once, for a child in passthru mode that must be alone there. What is being asked from
   * the link ends in an error, and its guards end.
   */
  async vacate(parentName: string): Promise<void> {
    const parent = await this.#links.known(parentName);
    if (parent !== undefined) await this.#ports.vacate(parent.index, new Stopped());
  }

  /** What is being asked ends in an error; every guard ends; no link or socket stays. */
  close(): Promise<void> {
    const reason = new Stopped();
    this.#stop.abort(reason);
    this.#stop = new AbortController();
    return this.#ports.close(reason);
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

  async #parent(request: OnParent): Promise<Link> {
    return usable(request, await this.#links.known(request.parentName));
  }

  /**
   * The kernel's words for a parent that went down or away are many; its state says which it was. It is asked itself, as it
   * tells of a link that is deleted as of one that went down first.
   */
  async #refusal(request: OnParent, error: KernelError): Promise<Error> {
    if (error.code === 'EPERM') return errors.notPermitted('watch a network link', error);
    try {
      usable(request, await this.#links.byName(request.parentName));
      return errors.probeFailed(formatAddress(request.address), request.parentName, error.code, error);
    } catch (sentence) {
      return sentence as Error;
    }
  }

  async #probe(
    request: ProbeRequest,
    parent: Link,
    stop: AbortSignal,
    granted: Detection | undefined,
  ): Promise<Verdict> {
    const detection = granted ?? (await this.#begin(request, parent, stop));
    const here = await this.#heldHere(request, parent, stop).catch((error: unknown) => {
      detection.end(error as Error);
      throw error;
    });
    if (here !== undefined) {
      detection.end(new Error('held on this host'));
      return here;
    }
    const verdict = await this.#verdict(request, detection);
    if (detection.isGuarding) this.#guard(keyOf(request), detection);
    // The parent was read while the fresh question was out.
    if (granted === undefined && !verdict.held) await this.#refuseDown(request, detection);
    return verdict;
  }

  /** An address is guarded or on standby, not both: somebody else may have asked for it meanwhile to keep it. */
  #guard(key: string, detection: Detection): void {
    this.#guards.set(key, detection);
    this.#standby.end(key);
  }

  /** A question that is under way, or a fresh one; undefined where only the whole procedure, begun now, can tell. */
  #granted(request: ProbeRequest): Detection | undefined {
    const key = keyOf(request);
    // Nobody gets the address: it stays on standby.
    if (request.profile === 'brief') return undefined;
    if (!request.isProof)
      return this.#standby.joinQuestion(key, request.profile) ?? this.#standby.grant(key, request.profile);
    this.#standby.end(key);
    return undefined;
  }

  /** What the kernel knows: of this host, and of others by its neighbour table. */
  async #heldHere(request: ProbeRequest, parent: Link, stop: AbortSignal): Promise<Verdict | undefined> {
    const onHost = await holderOnHost(this.#links, request, parent);
    if (onHost !== undefined) return onHost;
    const macAddress = await holderInTable({ links: this.#links, ports: this.#ports }, request, parent, stop);
    if (macAddress === null) return undefined;
    return { held: true, macAddress, linkName: parent.name, simultaneous: false, isOnHost: false };
  }

  /** Where answers come in: on the parent itself, when its switch port delivers to nobody else. */
  #port({ mode }: OnParent, parent: Link, stop: AbortSignal): Promise<Port> {
    return this.#ports.get(parent, this.#filters.isFiltered(parent.name) ? 'passthru' : mode, stop);
  }

  async #begin(request: ProbeRequest, parent: Link, stop: AbortSignal): Promise<Detection> {
    return this.#start(request, parent, await this.#askingPort(request, parent, stop));
  }

  async #askingPort(request: ProbeRequest, parent: Link, stop: AbortSignal): Promise<Port> {
    if (request.mode !== 'passthru') await this.#filters.check(parent, stop);
    const port = await this.#port(request, parent, stop);
    request.signal?.throwIfAborted();
    return port;
  }

  #start(request: ProbeRequest, parent: Link, port: Port, standby?: StandbyTerms): Detection {
    const detection = this.#detection(request, parent, port, standby);
    port.add(detection);
    detection.start();
    return detection;
  }

  async #keepOnLan(
    request: ProbeRequest,
    parent: Link,
    stop: AbortSignal,
    { question, lost }: { question: StandbyQuestion; lost: LossListener },
  ): Promise<Verdict | 'ended'> {
    const key = keyOf(request);
    const port = await this.#askingPort(request, parent, stop);
    if (this.#guards.has(key)) return 'ended';
    const { isGuess } = request;
    const terms = { refreshMs: REFRESH_MS, isOurs: false, isOfHost: null, isGuess };
    const detection = this.#start(request, parent, port, terms);
    question.detection = detection;
    const verdict = await this.#verdict(request, detection, () => !question.isJoined);
    if (verdict.held) return verdict;
    await this.#refuseDown(request, detection);
    // It may be the container's own guard by now, or stand beside one.
    if (detection.isOnStandby && this.#guards.has(key)) detection.end(new Error('a container has it'));
    if (!detection.isOnStandby) return 'ended';
    if (!this.#standby.add(key, detection, lost)) detection.end(new Error('kept already'));
    return verdict;
  }

  /** `isOwn`: it ends with this request's signal. */
  async #verdict({ signal }: ProbeRequest, detection: Detection, isOwn = () => true): Promise<Verdict> {
    const abort = () => {
      if (isOwn()) detection.end(signal?.reason as Error);
    };
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort, { once: true });
    return detection.verdict.finally(() => signal?.removeEventListener('abort', abort));
  }

  /** A parent that went down lost our probes without a word. */
  async #refuseDown(request: ProbeRequest, detection: Detection): Promise<void> {
    await this.#parent(request).catch((error: unknown) => {
      detection.end(error as Error);
      throw error;
    });
  }

  #detection(request: ProbeRequest, { name: parentName }: Link, port: Port, standby?: StandbyTerms): Detection {
    const { address, profile, isOwn, subnet, guardMs = GUARD_MS } = request;
    const answersForAll = subnet && ((macAddress: string) => port.answersForAll({ macAddress, address, subnet }));
    const key = keyOf(request);
    const detection: Detection = new Detection(
      {
        address,
        parentName,
        profile,
        guardMs,
        isOwn,
        onLateConflict: (macAddress) => this.#onLateConflict({ parentName, address, macAddress }),
        onOver: (loss, by) => {
          port.remove(detection);
          this.#detections.delete(detection);
          if (this.#guards.get(key) === detection) this.#guards.delete(key);
          this.#standby.remove(key, detection, loss, by);
        },
        ...(standby && { standby }),
      },
      { wire: port, clock: this.#clock, random: this.#random, answersForAll },
    );
    this.#detections.add(detection);
    return detection;
  }

  /** What was found out by a link that hears no answers counts no more. */
  #tellFilter(parentName: string, isFiltered: boolean): void {
    for (const detection of this.#detections)
      if (isFiltered && detection.parentName === parentName && !detection.isAsking) detection.outdate();
    this.#onPortFilter(parentName, isFiltered);
  }
}

/** The parent, if it can be asked on. Throws a PluginError. */
export function usable(
  { parentName, address }: Pick<OnParent, 'parentName' | 'address'>,
  parent: Link | undefined,
): Link {
  if (parent === undefined) throw errors.probeParentGone(formatAddress(address), parentName);
  if (parent.type !== ETHERNET || parent.isLoopback) throw errors.parentNotEthernet(parentName);
  if (!parent.isUp) throw errors.probeParentDown(formatAddress(address), parentName);
  return parent;
}

function keyOf({ parentName, address }: Pick<ProbeRequest, 'parentName' | 'address'>): string {
  return `${parentName} ${formatAddress(address)}`;
}
