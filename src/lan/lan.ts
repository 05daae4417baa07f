/**
 * The room's door: what the drivers want of the LAN. Whether an address may be used, asked as thoroughly as was wished;
 * addresses on standby; and a watch over those in use. What the drivers keep records of is unknown here.
 */
import { setImmediate as immediate } from 'node:timers/promises';
import { type Address, type Prefix, formatAddress, prefixOf } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { PluginError } from '../errors.ts';
import type { Links } from '../kernel/link.ts';
import type { Log } from '../log.ts';
import type { AnnouncementOptions, InterfaceAddress, ProbeProfile, Segment } from '../model.ts';
import type { CallLimit } from '../requests.ts';
import type { Settings } from '../settings.ts';
import { TOLD_ONCE } from './announce.ts';
import { isDaemonMac, isStandbyMac } from './frames/mac.ts';
import { Interruptions } from './interruptions.ts';
import { type FindSpeaker, Leavers } from './leavers.ts';
import { Monitor } from './monitor.ts';
import { isInContainer, isOfHost } from './ownhost.ts';
import { Prober } from './prober.ts';
import { type LanQuestion, Questions } from './questions.ts';
import { conflictReports, lanReports } from './report.ts';
import type { ConflictSeen } from './takers.ts';
import { moreThorough } from './timing.ts';
import type { HeldVerdict, Kept, LateConflict, Loss, LossListener, Verdict } from './verdict.ts';
import { NOT_HELD } from './verdict.ts';

/** An address that somebody wants to use, or to have on standby. */
export interface AddressCheck extends Segment {
  readonly address: Address;
  /** The subnet the address lies in; by it devices that answer for every address are known. */
  readonly subnet: Prefix;
  readonly signal?: AbortSignal | undefined;
  /** When the engine is answered at the latest (performance.now()): until then it is waited for a LAN that can be asked. */
  readonly atMs?: number | undefined;
  /** Nothing else promises that the address is free: the LAN is asked at least so, or it is an error. Null: as is usual. */
  readonly leastProfile?: ProbeProfile | null;
  /** Of the container that is to have the address, where that is known by now. */
  readonly macAddress?: string | null;
  /** Nobody has asked for the address: who has it is in nobody's way, and not recorded. */
  readonly isGuess?: boolean;
  /** Nobody gets the address before it is checked again: a tenth of a second is enough, and it is not guarded. */
  readonly isBrief?: boolean;
}

/** One of our endpoints, as far as the LAN sees it. */
export interface LanEndpoint extends Segment {
  readonly id: string;
  readonly macAddress: string;
  readonly addresses: readonly InterfaceAddress[];
}

/** Somebody else uses an address of ours. */
export interface FoundConflict {
  readonly parentName: string;
  readonly address: Address;
  /** The other's. */
  readonly macAddress: string;
  /** Of the container that has the address; null when it was found out before one got it. */
  readonly ourMacAddress: string | null;
  /** Frames since the last report, 1 at least. */
  readonly count: number;
  /** `mac`: another host uses the MAC address of the container, with an address that is not the container's. */
  readonly kind?: ConflictSeen['kind'];
  /** This host's own link that has the address too. */
  readonly hostLinkName?: string | null;
}

/** What the room works with. */
export interface LanParts extends Pick<ConstructorParameters<typeof Questions>[0], 'onProbe'> {
  readonly links: Links;
  readonly usualProfile: ProbeProfile;
  /** No less on any network. */
  readonly leastProfile?: ProbeProfile;
  /** Frames a second on one parent, at most; 0 for no limit. */
  readonly mostFrames: number;
  /** `defends`: addresses of running containers are defended (RFC 5227 2.4 b, c). It may change while they run. */
  readonly settings: Pick<Settings, 'defends'>;
  /** Our own endpoint on this parent with this MAC address and this address; undefined when there is none. */
  readonly speaker: FindSpeaker;
  /** Makes the conflict's record. */
  readonly record: (conflict: FoundConflict) => Promise<void>;
  /** A parent's LAN can be asked again after it could not: addresses may be kept on standby there. */
  readonly onBack: (parentName: string) => void;
  /** Notes in it that nobody else uses the address any more. */
  readonly ended: (parentName: string, address: Address) => Promise<void>;
  readonly log: Log;
  /** For what record() tells too; left out as `log`. */
  readonly conflictLog?: Log;
}

/** A question about an address that is to be confirmed. */
export interface AddressConfirmation extends AddressCheck {
  /** The endpoint's that is to have the address; null when it has none yet. */
  readonly macAddress: string | null;
  /** Nobody asks again before the container has it: this host's kernel is asked as well. */
  readonly isLast?: boolean;
}

/** What cannot be recorded is said once in this time. */
const UNRECORDED_MS = 60_000;
/** Two addresses given out on a parent within this time are the beginning of more. */
const BURST_MS = 1000;
/** Of the frames of a second, those that are due in the fifth of one from one probe of an address to its next (pacer.ts). */
const FRAMES_A_ROUND = 0.16;
/** More than a host has. */
const MOST_PARENTS = 1024;

/** The LANs below all parents of this host. */
export class Lan {
  readonly #parts: LanParts;
  readonly #prober: Prober;
  readonly #monitor: Monitor;
  readonly #interruptions: Interruptions<LanEndpoint>;
  readonly #questions: Questions;
  readonly #leavers: Leavers;
  /** When an address was last given out on a parent. */
  readonly #givenAtMs = new LatestMap<string, number>(MOST_PARENTS);
  /** Begun by keepLeft() and not over. */
  readonly #keepingLeft = new Set<Promise<void>>();
  #unrecordedAtMs = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(parts: LanParts) {
    this.#parts = parts;
    const { links } = parts;
    const prober = new Prober({
      links,
      mostFrames: parts.mostFrames,
      onLateConflict: (late) => this.#hearLate(late),
      ...lanReports(parts.log),
    });
    this.#prober = prober;
    this.#leavers = new Leavers(links, parts.speaker);
    this.#monitor = new Monitor({
      links,
      ...conflictReports(parts),
      isLeaver: (parentName, address, macAddress) => this.#leavers.has({ parentName, address }, macAddress),
    });
    this.#interruptions = new Interruptions<LanEndpoint>({
      links,
      log: parts.log,
      outdate: (parentName) => this.voidParent(parentName),
      onBack: parts.onBack,
      spare: (linkIndex) => prober.spare(linkIndex),
      recheck: async (endpoint, address) => void (await this.#recheck(endpoint, address, true)),
    });
    this.#questions = new Questions({
      ...parts,
      prober,
      interruptions: this.#interruptions,
      isLeaver: (place, macAddress) => this.#leavers.has(place, macAddress),
    });
  }

  // --- before an address is used ------------------------------------------------------------------------------------

  /**
   * Whether somebody else has the address: the LAN is asked thoroughly, or by one fresh question where it is on standby.
   * Throws a PluginError when the LAN cannot be asked, and the signal's reason when it fires.
   */
  async check(request: AddressCheck): Promise<Verdict> {
    const question = this.#question(request);
    if (question === null) return NOT_HELD;
    const verdict = await this.#questions.check(question);
    await this.#tellHolder(request, verdict, null);
    return verdict;
  }

  /**
   * Asks once more for an address that check() found free, while its endpoint is made or joined, and judges some milliseconds
   * later; at once when somebody was heard to take it since. An answer counts whatever MAC address it names: no container
   * of ours speaks before Join is answered. Cheap. Throws as check() does.
   */
  async confirm(request: AddressConfirmation): Promise<Verdict> {
    const question = this.#question(request);
    if (question === null) return NOT_HELD;
    const givenTo = request.isLast ? request.macAddress : null;
    const verdict = await this.#questions.confirm({ ...question, givenTo });
    await this.#tellHolder(request, verdict, request.macAddress);
    return verdict;
  }

  /**
   * As check(), but asks again about every second while somebody else has the address, as long as there is time: a start
   * that was refused is not tried again by the engine. What this host itself has is refused at once. `refusal`: what is said
   * of who has it, also where the time is over before the last question is answered.
   */
  async insist(
    request: AddressCheck,
    limit: CallLimit,
    refusal: (holder: HeldVerdict) => PluginError,
  ): Promise<Verdict> {
    const { signal, atMs, ifLate } = limit;
    const limited = { ...request, signal, atMs };
    const first = await this.check(limited);
    const question = this.#question(limited);
    if (question === null || !first.held) return first;
    const tell = (verdict: Verdict) => ifLate(verdict.held ? refusal(verdict) : null);
    return this.#questions.askAgain(question, first, { atMs, tell });
  }

  /** Makes room for a child in passthru mode, which must be alone on its parent. */
  async vacate(parentName: string): Promise<void> {
    await this.#prober.vacate(parentName);
  }

  /** See Prober.sendOn(). */
  sendOn(segment: Pick<Segment, 'parentName' | 'mode'>, frame: Buffer): Promise<void> {
    return this.#prober.sendOn(segment, frame);
  }

  /** The address is not wanted any more although it was found free. */
  release(request: Pick<AddressCheck, 'parentName' | 'address'>): void {
    this.#questions.forgetTaker(request);
    this.#prober.release(request);
  }

  /**
   * Something happened on this parent's LAN after which anybody may have any address: its carrier went, it was down, made
   * again, or the host slept. Nothing stays on standby there, and what is being asked is asked again.
   */
  voidParent(parentName: string): void {
    this.#prober.outdate(parentName);
  }

  // --- on standby ---------------------------------------------------------------------------------------------------

  /**
   * Asks for an address and keeps it on standby while nobody else has it; `lost` is told when that is over. Else why it is
   * not kept, `ended` while silence says nothing on this LAN; null where the LAN is not asked. Throws while it cannot be asked.
   */
  async keep(request: AddressCheck, lost: (loss: Loss) => void): Promise<Kept | Loss | null> {
    const probe = this.#question(request);
    if (probe === null) return null;
    if (this.#interruptions.isDeaf(request.parentName)) return 'ended';
    const listener: LossListener = (loss, by) => {
      if (loss === 'used' && by !== null && request.isGuess !== true)
        void this.#recordHolder(request, by, null).catch(() => undefined);
      lost(loss);
    };
    const verdict = await this.#prober.keep(probe, listener);
    if (verdict === 'ended') return verdict;
    if (!verdict.held) return { release: () => this.#prober.letGo(probe, listener) };
    if (request.isGuess !== true) await this.#tellHolder(request, verdict, null);
    return verdict.simultaneous || isStandbyMac(verdict.macAddress) ? 'wanted' : 'used';
  }

  /** Addresses that may be asked for at a time on one LAN without going beyond its rate of frames; infinite without a limit. */
  get mostAtOnce(): number {
    const { mostFrames } = this.#parts;
    return mostFrames === 0 ? Number.POSITIVE_INFINITY : Math.floor(mostFrames * FRAMES_A_ROUND);
  }

  /** Whether the LAN is asked for what is used on the segment. */
  asks(segment: Segment): boolean {
    return this.#profileOf(segment) !== 'off';
  }

  /** Whether check() would have only one short question to ask. */
  isOnStandby(request: Pick<AddressCheck, 'parentName' | 'address'>): boolean {
    return this.#prober.isOnStandby(request);
  }

  /**
   * An address was given out on this parent, and these are the ones that are likely to follow. In a burst, when the last was
   * given out less than a second ago, those of them that are on standby are asked for, so that their own grants have no answer
   * to wait for. Each is asked for again when it is given out.
   */
  askAhead(parentName: string, addresses: readonly Address[]): void {
    const nowMs = performance.now();
    const isBurst = nowMs - (this.#givenAtMs.get(parentName) ?? Number.NEGATIVE_INFINITY) < BURST_MS;
    this.#givenAtMs.put(parentName, nowMs);
    if (isBurst) for (const address of addresses) this.#prober.askAhead({ parentName, address });
  }

  // --- while it is used ---------------------------------------------------------------------------------------------

  /** Watches over the endpoint's addresses until forget(). */
  watch(endpoint: LanEndpoint): void {
    if (this.#profileOf(endpoint) === 'off') return;
    const { id, parentName, mode, macAddress, addresses } = endpoint;
    const tell = (address: Address) => void this.#tell(endpoint, address).catch(() => undefined);
    const answersForAll = (address: InterfaceAddress, by: string) => {
      const subnet = prefixOf(address, address.length);
      return this.#prober.answersForAll({ parentName, mode, address, subnet, macAddress: by });
    };
    const ask = async (address: InterfaceAddress) =>
      (await this.#recheck(endpoint, address)) && !this.#interruptions.isDeaf(parentName);
    const defend = (address: Address) => (this.#parts.settings.defends ? tell(address) : undefined);
    this.#monitor.watch(id, { parentName, macAddress, addresses, defend, tellTwin: tell, answersForAll, ask });
    this.#interruptions.watch(endpoint);
  }

  /** Nobody listened until now: the LAN is asked who else has the addresses that are watched over. */
  recheck(): void {
    this.#interruptions.recheck();
  }

  /** Somebody had the address of a container, and may have it still: he is asked soon. Nothing where no container has it. */
  suspect(parentName: string, address: Address): void {
    this.#monitor.suspect(parentName, address);
  }

  /** Who used the address of a container, or any (null), is news when he does it again. */
  forgetConflicts(address: Address | null): void {
    this.#monitor.forgetConflicts(address);
  }

  /** The endpoint goes: its addresses are not watched over any more. */
  forget(endpointId: string): void {
    this.#monitor.forget(endpointId);
    this.#interruptions.forget(endpointId);
  }

  /** Tells the LAN of a container that is up, unless it has done so: engines from 28 on announce most of them. Failing is no error. */
  async announce(
    { id, addresses, ...place }: LanEndpoint,
    how: AnnouncementOptions,
    signal: AbortSignal,
  ): Promise<void> {
    const silent = addresses.filter((address) => !this.#monitor.hasSpoken(id, address));
    if (silent.length === 0 || !(await isInContainer(this.#parts.links, place.parentName, place.macAddress))) return;
    await Promise.allSettled(silent.map((address) => this.#prober.announce({ ...place, ...how, address, signal })));
  }

  /**
   * The container is about to leave: what its other interfaces say from now on is no conflict. Its engine is to be answered when this
   * resolves, as it takes the container apart then. That is at once, unless the kernel has to be asked (Leavers.note()).
   */
  async noteLeaver(endpoint: LanEndpoint): Promise<void> {
    const { parentName, macAddress, addresses } = endpoint;
    if (this.asks(endpoint)) await this.#leavers.note(parentName, macAddress, addresses);
  }

  /**
   * Then its kernel still answers for its addresses: from here on they are on standby, so that it can start again without
   * waiting. Not an address that somebody else was heard to use. Nobody has to wait for what it resolves to.
   */
  keepLeft(endpoint: LanEndpoint): Promise<void> {
    const keeping = this.#keepLeft(endpoint).finally(() => this.#keepingLeft.delete(keeping));
    this.#keepingLeft.add(keeping);
    return keeping;
  }

  async #keepLeft(endpoint: LanEndpoint): Promise<void> {
    const { parentName } = endpoint;
    // The engine is answered first, and others that leave at the same moment are noted.
    await immediate();
    for (const address of endpoint.addresses) {
      // Nobody would close a port that is opened now.
      if (this.#isClosed) return;
      const probe = this.#question({ ...endpoint, address, subnet: prefixOf(address, address.length) });
      if (probe === null || this.#monitor.isContested(parentName, address)) continue;
      if (this.#interruptions.isDeaf(parentName)) continue;
      const isLeaver = this.#leavers.judgeOf(endpoint, address);
      // Without standby the next start takes a little longer.
      await this.#prober.keepLeft(probe, isLeaver).catch(() => undefined);
    }
  }

  /** The network with these subnets is gone, and with it the wish of its containers to come back. */
  endLeft(parentName: string, subnets: readonly Prefix[]): void {
    const end = () => subnets.forEach((subnet) => this.#prober.endLeft(parentName, subnet));
    end();
    // Leave has not waited for what its containers left.
    if (this.#keepingLeft.size > 0) void Promise.allSettled(this.#keepingLeft).then(end);
  }

  /** Parents whose network port was found to deliver to the parent's MAC address only. */
  filteredParents(): string[] {
    return this.#prober.filteredParents();
  }

  /** Ends everything; no link or socket stays. What is being asked ends in an error. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#interruptions.close();
    this.#monitor.close();
    await this.#prober.close();
  }

  /** The watch hears who else has the address. False when the LAN cannot be asked. `tells`: nobody else does, and a host with the same MAC address hears whose it is. */
  async #recheck(endpoint: LanEndpoint, address: InterfaceAddress, tells = false): Promise<boolean> {
    const { parentName, macAddress } = endpoint;
    const probe = this.#question({ ...endpoint, address, subnet: prefixOf(address, address.length) });
    if (probe === null) return false;
    const isOwn = (mac: string, isGiven: boolean) => mac === macAddress || probe.isOwn(mac, isGiven);
    try {
      // Of a container that is gone without a word to us nobody has taken anything.
      if (!(await isInContainer(this.#parts.links, parentName, macAddress))) return true;
      const verdict = await this.#prober.recheck({ ...probe, isOwn });
      if (verdict.held && !verdict.simultaneous) this.#monitor.hear(parentName, address, verdict.macAddress);
      if (tells && (!verdict.held || isDaemonMac(verdict.macAddress))) await this.#tell(endpoint, address);
      return true;
    } catch {
      // A parent that cannot be asked is asked again when it is back.
      return false;
    }
  }

  /** Says whose the address is, in the name of a container that is there: else another may have both by now, elsewhere. */
  async #tell({ parentName, mode, macAddress }: LanEndpoint, address: Address): Promise<void> {
    if (await isInContainer(this.#parts.links, parentName, macAddress))
      await this.#prober.announce({ parentName, mode, address, macAddress, ...TOLD_ONCE });
  }

  // --- what is heard ------------------------------------------------------------------------------------------------

  /**
   * Who only asks for an address does not have it, and this host is no stranger. A verdict that cannot be recorded, on a disk
   * that is full, is none the less true.
   */
  async #tellHolder(request: AddressCheck, verdict: Verdict, ourMacAddress: string | null): Promise<void> {
    if (!verdict.held || verdict.simultaneous || verdict.isOnHost) return;
    const { macAddress: by } = verdict;
    await this.#recordHolder(request, by, ourMacAddress).catch((error: unknown) => this.#tellUnrecorded(error));
  }

  /** Once a minute: a search for an address may meet with many that somebody has. */
  #tellUnrecorded(error: unknown): void {
    if (performance.now() < this.#unrecordedAtMs + UNRECORDED_MS) return;
    this.#unrecordedAtMs = performance.now();
    this.#parts.log.error('somebody has an address, which could not be recorded', { error: String(error) });
  }

  /** Unless it is this host, one of its containers, or another daemon. */
  async #recordHolder(
    { parentName, address }: AddressCheck,
    macAddress: string,
    ourMacAddress: string | null,
  ): Promise<void> {
    if (this.#leavers.has({ parentName, address }, macAddress)) return;
    if (isDaemonMac(macAddress) || this.#leavers.speaker(parentName, macAddress, address) !== undefined) return;
    // On another parent of the same LAN they are heard like anybody else.
    if (this.#monitor.isOwn(macAddress, address) || (await isOfHost(this.#parts.links, macAddress))) return;
    await this.#parts.record({ parentName, address, macAddress, ourMacAddress, count: 1 });
  }

  /**
   * Somebody began to use an address while it was guarded: that of a container, or one just given out. The watch over a
   * container begins to hear up to half a second after it was asked for.
   */
  #hearLate({ parentName, address, macAddress }: LateConflict): void {
    if (this.#leavers.has({ parentName, address }, macAddress)) return;
    if (this.#monitor.hear(parentName, address, macAddress)) return;
    this.#parts.log.warn('somebody began to use an address that was just given out', {
      parent: parentName,
      address: formatAddress(address),
      by: macAddress,
    });
    if (isDaemonMac(macAddress)) return;
    this.#questions.noteTaker({ parentName, address, macAddress });
    void this.#parts.record({ parentName, address, macAddress, ourMacAddress: null, count: 1 }).catch(() => undefined);
  }

  // --- parts --------------------------------------------------------------------------------------------------------

  /** Null where the LAN is not to be asked. */
  #question(request: AddressCheck): LanQuestion | null {
    const { parentName, mode, address, subnet, macAddress, signal, atMs, isGuess } = request;
    const profile = moreThorough(this.#profileOf(request), request.leastProfile ?? 'off');
    if (profile === 'off') return null;
    this.#interruptions.follow(parentName);
    // Before the address is given out, only the endpoint that had it until now: networks whose addresses are not chosen by
    // one and the same can meet on a parent. After that, the one it was for.
    const isOwn = (mac: string, isGiven: boolean) => {
      const speaker = this.#leavers.speaker(parentName, mac, address);
      return speaker !== undefined && (isGiven || speaker.isLeaving);
    };
    const asked = { parentName, mode, address, subnet, macAddress, signal, atMs, isGuess };
    const brief = request.isBrief && { profile: 'brief' as const, guardMs: 0 };
    return { ...asked, profile, isOwn, isProof: (request.leastProfile ?? null) !== null, ...brief };
  }

  #profileOf({ profile }: Segment): ProbeProfile {
    return moreThorough(profile ?? this.#parts.usualProfile, this.#parts.leastProfile ?? 'off');
  }
}
