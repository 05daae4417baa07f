/**
 * Who takes the addresses of running containers, remembered for each address apart, so that a flood at one hides nothing at
 * another, and told at a bounded rate.
 *
 * A frame with another MAC address is only a suspicion: the container may have more interfaces (ownership.ts), and a router may
 * answer for every address (proxyarp.ts). Both are found out before anything is told, and for each address and MAC address at
 * most once in ten seconds.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import type { InterfaceAddress } from '../model.ts';
import { isProbeMac } from './frames/mac.ts';
import type { Owner, OwnerQuestion } from './ownhost.ts';

/** An endpoint whose addresses are watched over. */
export interface MonitoredEndpoint {
  readonly parentName: string;
  readonly macAddress: string;
  readonly addresses: readonly InterfaceAddress[];
  /** Called at most every ten seconds for an address that somebody else uses; null without defence. */
  readonly defend: ((address: Address) => void) | null;
  /** Says once whose the address is: another host that has the same MAC address for it hears so that it is not alone. */
  readonly tellTwin: (address: Address) => void;
  /** Whether this MAC address, which answered for the address, answers for every address (proxyarp.ts). */
  readonly answersForAll: (address: InterfaceAddress, macAddress: string) => Promise<boolean>;
  /** Asks the LAN who else has the address; whoever answers is heard by the watch. False when it cannot be asked. */
  readonly ask: (address: InterfaceAddress) => Promise<boolean>;
}

/** A conflict to be reported, at most every ten seconds for each address and MAC address. */
export interface ConflictSeen {
  /** `mac`: another host uses the MAC address of the container, with an address that is not the container's. */
  readonly kind: 'address' | 'mac';
  readonly parentName: string;
  readonly address: Address;
  /** The other's; equal to ours when another host has the same. */
  readonly macAddress: string;
  readonly ourMacAddress: string;
  /** This host's own link that has the address too; null when it is somebody else's. */
  readonly hostLinkName: string | null;
  /** Frames since the last report, 1 at least. */
  readonly count: number;
  /**
   * `new`: not reported in the last ten minutes. `many`: nor this one, and it is the first of too many to be told one by one.
   * Null: known, or one of the many.
   */
  readonly news: 'new' | 'many' | null;
}

/** Somebody used the address of a container. */
export interface AddressUse {
  readonly endpoint: MonitoredEndpoint;
  readonly parentIndex: number;
  readonly address: InterfaceAddress;
  readonly macAddress: string;
  /** Answers may be given for others (proxy ARP); what a host says unasked is about itself. */
  readonly isAnswer: boolean;
  /** `here`: sent by this host. `segment`: to one, so perhaps by a sibling. `wire`: to all, and not sent by this host. */
  readonly origin: 'here' | 'segment' | 'wire';
}

/** What it works with. */
export interface TakersParts {
  /** See findOwners(). */
  readonly owners: (questions: readonly OwnerQuestion[]) => Promise<Owner[]>;
  /** The endpoint is watched over still. */
  readonly isWatched: (endpoint: MonitoredEndpoint) => boolean;
  /** The MAC address is that of an endpoint of this host. */
  readonly isEndpoint: (macAddress: string) => boolean;
  /** It was until a moment ago: what it said then is heard when its link is gone. */
  readonly hasLeft: (macAddress: string) => boolean;
  readonly onConflict: (conflict: ConflictSeen) => void;
  /** What was reported is none any more: a link of this host, say, that has lost the address. */
  readonly onExcused: (contest: Omit<LastingContest, 'seenAtMs'>) => void;
  readonly clock: Pick<Clock, 'nowMs'>;
}

/** RFC 5227 1.1: DEFEND_INTERVAL. Reports keep to it as well. */
const DEFEND_INTERVAL_MS = 10_000;
export const NEWS_MS = 600_000;
/** From Join until the engine has moved the link; where that takes longer, whoever has the address is found by the next question. */
const COMING_MS = 3000;
/** MAC addresses remembered for one address; more are an attack, and those seen longest ago are only counted. */
const MOST_TAKERS_EACH = 8;
/** Of each address in DEFEND_INTERVAL_MS, and of all. What is too much waits. */
const MOST_REPORTS_EACH = 8;
const MOST_REPORTS = 64;
/** Suspicions that one reading of the kernel settles, and answers that are judged at a time. */
const MOST_AT_ONCE = 64;
const MOST_JUDGED = 8;
/** Readings of the kernel take at most a twentieth of the time. */
const READING_SHARE = 20;
const MOST_REMEMBERED = 1024;

/** One MAC address that uses an address of a container. */
interface Taker {
  readonly contest: Contest;
  use: AddressUse;
  /** Frames since the last report. */
  count: number;
  seenAtMs: number;
  reportedAtMs: number;
  /** It spoke unasked since the last report. */
  hasSpoken: boolean;
}

/** All that is remembered of one address of a container. */
interface Contest {
  /** By MAC address; the one seen last comes last. */
  readonly takers: LatestMap<string, Taker>;
  readonly reports: Allowance;
  readonly news: Allowance;
  defendedAtMs: number;
  /** When another host with the same MAC address was told last. */
  toldAtMs: number;
  /** Frames of MAC addresses that had to make room, not reported yet. */
  lostCount: number;
}

interface Stranger {
  readonly taker: Taker;
  readonly hostLinkName: string | null;
}

/** Somebody has used an address, and it is not known that he has stopped. */
export interface LastingContest {
  readonly endpoint: MonitoredEndpoint;
  readonly address: InterfaceAddress;
  readonly seenAtMs: number;
}

/** At most so many in each period. */
class Allowance {
  readonly #limit: number;
  readonly #periodMs: number;
  #sinceMs = Number.NEGATIVE_INFINITY;
  #count = 0;

  constructor(limit: number, periodMs: number) {
    this.#limit = limit;
    this.#periodMs = periodMs;
  }

  hasAny(nowMs: number): boolean {
    return this.#count < this.#limit || nowMs - this.#sinceMs >= this.#periodMs;
  }

  /** False when there is none. */
  take(nowMs: number): boolean {
    if (!this.hasAny(nowMs)) return false;
    if (nowMs - this.#sinceMs >= this.#periodMs) [this.#sinceMs, this.#count] = [nowMs, 0];
    this.#count++;
    return true;
  }
}

/** Remembers who uses which address, finds out whether that is a conflict, and reports it. */
export class Takers {
  readonly #parts: TakersParts;
  /** By parent and address. */
  readonly #contests = new LatestMap<string, Contest>(MOST_REMEMBERED);
  /** Those in which frames were counted that are not reported yet. */
  readonly #waiting = new Set<Contest>();
  /** Until when a use is known to be no conflict; by address, MAC address and origin, answers of routers apart. */
  readonly #excused = new LatestMap<string, number>(MOST_REMEMBERED);
  readonly #reports = new Allowance(MOST_REPORTS, DEFEND_INTERVAL_MS);
  readonly #news = new Allowance(MOST_REPORTS, NEWS_MS);
  readonly #many = new Allowance(1, NEWS_MS);
  #isSettling = false;
  #readAgainAtMs = Number.NEGATIVE_INFINITY;

  constructor(parts: TakersParts) {
    this.#parts = parts;
  }

  /** A frame was heard; settle() tells it if it is a conflict. */
  note(use: AddressUse): void {
    const nowMs = this.#parts.clock.nowMs();
    if (this.#isKnownAsNone(use, nowMs)) return;
    const contest = this.#contestOf(use);
    const taker = contest.takers.get(use.macAddress) ?? newTaker(contest, use);
    taker.count++;
    taker.seenAtMs = nowMs;
    taker.hasSpoken ||= !use.isAnswer;
    // What once came from the wire cannot be excused as this host's own.
    if (taker.use.endpoint !== use.endpoint || use.origin === 'wire') taker.use = use;
    contest.lostCount += contest.takers.put(use.macAddress, taker)?.count ?? 0;
    this.#waiting.add(contest);
  }

  /** Tells what is a conflict; what there is no time for now waits for the next call. Never throws. */
  async settle(): Promise<void> {
    if (this.#isSettling) return;
    this.#isSettling = true;
    try {
      const strangers = await this.#withoutOwn(this.#due());
      for (const stranger of await this.#withoutProxies(strangers)) this.#report(stranger);
    } finally {
      this.#isSettling = false;
    }
  }

  /** Somebody else used the address not long ago. */
  isContested(parentName: string, address: Address): boolean {
    return this.lastSeenMs(parentName, address) > this.#parts.clock.nowMs() - NEWS_MS;
  }

  /** When somebody else was last heard to use the address; negative infinity when nobody was. */
  lastSeenMs(parentName: string, address: Address): number {
    const { takers } = this.#contests.get(contestKey(parentName, address)) ?? {};
    return Math.max(...Array.from(takers?.values() ?? [], ({ seenAtMs }) => seenAtMs));
  }

  /** Of this MAC address; negative infinity when it was not heard to. */
  lastSeenOf(parentName: string, address: Address, macAddress: string): number {
    const contest = this.#contests.get(contestKey(parentName, address));
    return contest?.takers.get(macAddress)?.seenAtMs ?? Number.NEGATIVE_INFINITY;
  }

  /** Of endpoints that are watched over; not those in which another host has the container's own MAC address too. */
  lasting(): LastingContest[] {
    return Array.from(this.#contests.values()).flatMap(({ takers }) => {
      const latest = [...takers.values()].at(-1);
      if (latest === undefined || !this.#parts.isWatched(latest.use.endpoint)) return [];
      const { endpoint, address } = latest.use;
      return takers.has(endpoint.macAddress) ? [] : [{ endpoint, address, seenAtMs: latest.seenAtMs }];
    });
  }

  /** Whoever used the address is news when he does it again. */
  forget(parentName: string, address: Address): void {
    this.#drop(contestKey(parentName, address));
  }

  /** The same for all addresses. */
  clear(): void {
    this.#contests.clear();
    this.#waiting.clear();
  }

  /** Forgets whom nobody has heard for ten minutes. */
  expire(): void {
    const beforeMs = this.#parts.clock.nowMs() - NEWS_MS;
    for (const [key, { takers }] of this.#contests) {
      for (const [mac, { seenAtMs }] of takers) if (seenAtMs < beforeMs) takers.delete(mac);
      if (takers.size === 0) this.#drop(key);
    }
  }

  #drop(key: string): void {
    const contest = this.#contests.get(key);
    if (contest === undefined) return;
    this.#contests.delete(key);
    this.#waiting.delete(contest);
  }

  #contestOf({ endpoint, address }: AddressUse): Contest {
    const key = contestKey(endpoint.parentName, address);
    const known = this.#contests.get(key);
    if (known !== undefined) return known;
    const contest: Contest = {
      takers: new LatestMap(MOST_TAKERS_EACH),
      reports: new Allowance(MOST_REPORTS_EACH, DEFEND_INTERVAL_MS),
      news: new Allowance(MOST_REPORTS_EACH, NEWS_MS),
      defendedAtMs: Number.NEGATIVE_INFINITY,
      toldAtMs: Number.NEGATIVE_INFINITY,
      lostCount: 0,
    };
    const dropped = this.#contests.put(key, contest);
    if (dropped !== undefined) this.#waiting.delete(dropped);
    return contest;
  }

  #due(): Taker[] {
    const nowMs = this.#parts.clock.nowMs();
    const due: Taker[] = [];
    for (const contest of this.#waiting) {
      const waiting = [...contest.takers.values()].filter(({ count }) => count > 0);
      if (waiting.length === 0) this.#waiting.delete(contest);
      if (contest.reports.hasAny(nowMs)) due.push(...waiting.filter((taker) => this.#isDue(taker, nowMs)));
    }
    return this.#reports.hasAny(nowMs) ? due.slice(0, MOST_AT_ONCE) : [];
  }

  #isDue({ use, reportedAtMs }: Taker, nowMs: number): boolean {
    return nowMs - reportedAtMs >= DEFEND_INTERVAL_MS && this.#parts.isWatched(use.endpoint);
  }

  /** Those with the container's own MAC address are another host's: what the container itself says is not noted. */
  async #withoutOwn(due: readonly Taker[]): Promise<Stranger[]> {
    const { clock, owners } = this.#parts;
    const beganAtMs = clock.nowMs();
    if (due.length === 0 || beganAtMs < this.#readAgainAtMs) return [];
    const found = await owners(due.map(({ use }) => ({ ...use, ourMacAddress: use.endpoint.macAddress })));
    const endedAtMs = clock.nowMs();
    this.#readAgainAtMs = endedAtMs + (endedAtMs - beganAtMs) * READING_SHARE;
    return due.flatMap((taker, position) => this.#judge(taker, found[position] ?? { kind: 'unknown' }) ?? []);
  }

  #judge(taker: Taker, owner: Owner): Stranger | undefined {
    const { contest, use } = taker;
    if (owner.kind === 'vacant' || owner.kind === 'apart') {
      // Nobody here has anything to lose, unless the container comes in a moment. What he says next is looked at again.
      const mayCome = owner.kind === 'apart' && this.#parts.clock.nowMs() - taker.seenAtMs < COMING_MS;
      if (!mayCome) contest.takers.delete(use.macAddress);
      return undefined;
    }
    if (hasOurMac(taker)) return { taker, hostLinkName: null };
    if (!this.#isExcused(use, owner)) return { taker, hostLinkName: owner.kind === 'host' ? owner.linkName : null };
    this.#excuse(taker, excuseKey(use));
    return undefined;
  }

  /**
   * A link of this host without the address speaks for another: the daemon's own that defends the address, or the host with
   * proxy ARP. It may be gone by now, but nobody else sends from here with such a MAC address.
   */
  #isExcused({ macAddress, origin }: AddressUse, { kind }: Owner): boolean {
    const { isEndpoint, hasLeft } = this.#parts;
    if (kind === 'container') return true;
    if (kind === 'host') return false;
    if (hasLeft(macAddress) || (kind === 'unknown' && isEndpoint(macAddress))) return true;
    return kind === 'daemon' ? origin !== 'wire' : origin === 'here' && isProbeMac(macAddress);
  }

  #excuse({ contest, use, reportedAtMs }: Taker, key: string): void {
    contest.takers.delete(use.macAddress);
    if (reportedAtMs !== Number.NEGATIVE_INFINITY) this.#parts.onExcused(use);
    this.#excused.put(key, this.#parts.clock.nowMs() + DEFEND_INTERVAL_MS);
  }

  #isKnownAsNone(use: AddressUse, nowMs: number): boolean {
    const isExcused = (key: string) => (this.#excused.get(key) ?? 0) > nowMs;
    return isExcused(excuseKey(use)) || (use.isAnswer && isExcused(answerKey(use)));
  }

  async #withoutProxies(strangers: readonly Stranger[]): Promise<Stranger[]> {
    const conflicts = strangers.filter(({ taker }) => taker.hasSpoken);
    const answering = strangers.filter(({ taker }) => !taker.hasSpoken).slice(0, MOST_JUDGED);
    const judgements = answering.map(async (stranger) => {
      const { use } = stranger.taker;
      // It counts when that cannot be found out.
      const isProxy = await use.endpoint.answersForAll(use.address, use.macAddress).catch(() => false);
      if (!isProxy || stranger.taker.hasSpoken) conflicts.push(stranger);
      else this.#excuse(stranger.taker, answerKey(use));
    });
    await Promise.all(judgements);
    return conflicts;
  }

  #report({ taker, hostLinkName }: Stranger): void {
    const { onConflict, clock, isWatched } = this.#parts;
    const { contest, use } = taker;
    const { endpoint, address, macAddress } = use;
    const nowMs = clock.nowMs();
    // It may be forgotten while it was found out who speaks.
    if (this.#contests.get(contestKey(endpoint.parentName, address)) !== contest) return;
    if (!isWatched(endpoint) || !contest.reports.hasAny(nowMs) || !this.#reports.take(nowMs)) return;
    contest.reports.take(nowMs);
    const count = taker.count + contest.lostCount;
    const news = taker.reportedAtMs === Number.NEGATIVE_INFINITY ? this.#newsOf(contest, nowMs) : null;
    Object.assign(taker, { count: 0, reportedAtMs: nowMs, hasSpoken: false });
    contest.lostCount = 0;
    const { parentName, macAddress: ourMacAddress } = endpoint;
    onConflict({ kind: 'address', parentName, address, macAddress, ourMacAddress, hostLinkName, count, news });
    this.#defend(taker, nowMs);
  }

  #newsOf({ news }: Contest, nowMs: number): ConflictSeen['news'] {
    if (news.hasAny(nowMs) && this.#news.hasAny(nowMs) && news.take(nowMs) && this.#news.take(nowMs)) return 'new';
    return this.#many.take(nowMs) ? 'many' : null;
  }

  /**
   * RFC 5227 2.4: one announcement in ten seconds, whoever the others are. To one with the same MAC address it takes nothing away,
   * and without it he would not know.
   */
  #defend({ contest, use }: Taker, nowMs: number): void {
    const { endpoint, address, macAddress } = use;
    const isTwin = macAddress === endpoint.macAddress;
    const saidAtMs = isTwin ? contest.toldAtMs : contest.defendedAtMs;
    if (nowMs - saidAtMs < DEFEND_INTERVAL_MS) return;
    contest[isTwin ? 'toldAtMs' : 'defendedAtMs'] = nowMs;
    if (isTwin) endpoint.tellTwin(address);
    else endpoint.defend?.(address);
  }
}

function newTaker(contest: Contest, use: AddressUse): Taker {
  const never = Number.NEGATIVE_INFINITY;
  return { contest, use, count: 0, seenAtMs: never, reportedAtMs: never, hasSpoken: false };
}

function hasOurMac({ use }: Taker): boolean {
  return use.macAddress === use.endpoint.macAddress;
}

function contestKey(parentName: string, address: Address): string {
  return `${parentName} ${formatAddress(address)}`;
}

function excuseKey({ endpoint, address, macAddress, origin }: AddressUse): string {
  return `${contestKey(endpoint.parentName, address)} ${macAddress} ${origin}`;
}

/** What a router that answers for every address says when it is asked. */
function answerKey({ endpoint, address, macAddress }: AddressUse): string {
  return `${contestKey(endpoint.parentName, address)} ${macAddress} answer`;
}
