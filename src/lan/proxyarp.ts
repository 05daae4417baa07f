/**
 * Devices that answer for every address: routers with proxy ARP (RFC 1027) or an ND proxy, networks of clouds. That such
 * a device answers is no sign that somebody has the address it was asked for.
 *
 * When a MAC address has answered for an address in question, it is asked for several that nobody can have, in frames
 * that go to it alone. It answers for all only if it answers those, to us, at that moment. So what others say about it,
 * and what it said before, counts nothing: a forger hears neither the questions nor what they are for.
 *
 * Not recognised, and so a holder: a device that leaves out the subnet's own network address, or answers later than in
 * 60 ms. What a host says unasked is about itself, whoever it is; that is not judged here.
 */
import {
  type Address,
  ADDRESS_BITS,
  formatAddress,
  formatPrefix,
  isSameAddress,
  overlaps,
  type Prefix,
  parsePrefix,
} from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import { makeNonce, unicastProbeFrame } from './frames/outgoing.ts';
import type { Sighting } from './frames/sighting.ts';

/** An answer to be judged: who gave it for which address. */
export interface GivenAnswer {
  readonly macAddress: string;
  readonly address: Address;
  /** The address's. */
  readonly subnet: Prefix;
}

/** A device, of this MAC address, answers for every address. */
export interface ProxyReport {
  readonly parentName: string;
  readonly macAddress: string;
}

/** What a judge works with. */
interface ProxyJudgeSpec {
  /** Questions come from it, and answers have to go to it. */
  readonly macAddress: string;
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  readonly send: (frame: Buffer) => void;
  /** Reserves so many frames; how many milliseconds from now they have to be sent (pacer.ts). */
  readonly turn: (frames: number) => number;
  /** So many that were just reserved are not sent. */
  readonly giveBack: (frames: number) => void;
  /** From now on hear() is called with what is said about these addresses. */
  readonly listen: (addresses: readonly Address[]) => void;
  /** No longer. */
  readonly ignore: (addresses: readonly Address[]) => void;
  /** This MAC address was just found to answer for all. */
  readonly onProxy: (macAddress: string) => void;
}

/** Addresses that nobody can have, to ask one MAC address for. */
interface ControlAddresses {
  /** All of these have to be answered. */
  readonly certain: readonly Address[];
  /** And this many of those. */
  readonly likely: readonly Address[];
  readonly leastLikely: number;
  /** Not asked for: whoever is said to have one of these is being spoken for by somebody else. */
  readonly unasked: readonly Address[];
}

/** The wait for the answers. */
const WAIT_MS = 60;
/** A device that has answered the last question, for the address it answered before, has got the others too. */
const GRACE_MS = 10;
/** "Does not answer for all" is believed for this long, "answers for all" for that long. */
const HOLDER_MEMORY_MS = 5000;
const PROXY_MEMORY_MS = 2000;
/** More MAC addresses that answer within seconds are an attack. */
const MOST_REMEMBERED = 256;
/** Each costs five frames; who comes after these is a holder unasked. */
const MOST_A_SECOND = 8;
/** Where frames are rationed (PROBE_RATE), no verdict waits longer for its turn, */
const MOST_TURN_MS = 500;
/** and nobody is asked for so many times that wait afterwards, as questions of our own need their frames too. */
const TURNS_BETWEEN = 3;

const LIKELY = 3;
const LEAST_LIKELY = 2;
/** With fewer host bits a random IPv6 address is not surely free. */
const LEAST_RANDOM_BITS = 32;
/** RFC 5737: documentation only. */
const DOCUMENTATION = ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24'].flatMap((text) => parsePrefix(text) ?? []);

/**
 * IPv4: the subnet's own network address, which hosts do not have and routers do not answer for themselves, with others
 * drawn from the subnet and from what is never assigned (a host with many addresses may have one of the first). IPv6: at
 * random, as there the lowest address is every router's anycast address (RFC 4291 2.6.1). Undefined when the subnet is too
 * small to have any. `wanted` is not among them.
 */
function controlAddresses(subnet: Prefix, wanted: Address, random: () => number): ControlAddresses | undefined {
  const hostBits = ADDRESS_BITS[subnet.family] - subnet.length;
  if (subnet.family === 'IPv6') {
    if (hostBits < LEAST_RANDOM_BITS) return undefined;
    const likely = drawHosts(subnet, [wanted], LIKELY, random);
    return { certain: [], likely, leastLikely: LEAST_LIKELY, unasked: [] };
  }
  if (hostBits < 2) return undefined;
  const own = drawHosts(subnet, [wanted], 2, random);
  const blocks = DOCUMENTATION.filter((block) => !overlaps(block, subnet));
  const documentation = blocks.flatMap((block) => drawHosts(block, [], 1, random));
  const likely = [...own, ...documentation].slice(0, LIKELY);
  return {
    certain: [{ family: 'IPv4', value: subnet.first }],
    likely,
    leastLikely: LEAST_LIKELY,
    unasked: documentation.filter((one) => !likely.includes(one)),
  };
}

/** Up to `count` host addresses of the prefix, all different, none of `others`; fewer where it is small. */
function drawHosts(prefix: Prefix, others: readonly Address[], count: number, random: () => number): Address[] {
  const bits = BigInt(Math.min(ADDRESS_BITS[prefix.family] - prefix.length, 64));
  const isHost = (offset: bigint) => offset > 0n && offset < (1n << bits) - 1n;
  const drawn: Address[] = [];
  // A small subnet may have no more of them.
  for (let tries = 0; tries < 16 && drawn.length < count; tries++) {
    const offset = drawBits(bits, random);
    const address: Address = { family: prefix.family, value: prefix.first | offset };
    if (isHost(offset) && ![...others, ...drawn].some((one) => isSameAddress(one, address))) drawn.push(address);
  }
  return drawn;
}

/** A random number has 52 good bits; two halves of 32 are drawn apart. */
function drawBits(bits: bigint, random: () => number): bigint {
  const half = () => BigInt(Math.floor(random() * 2 ** 32));
  return ((half() << 32n) | half()) & ((1n << bits) - 1n);
}

/** The questions to one MAC address, while their answers are awaited. */
interface Judgement {
  readonly answer: GivenAnswer;
  readonly controls: ControlAddresses;
  readonly answered: Set<string>;
  readonly result: PromiseWithResolvers<boolean>;
  endsAtMs: number;
  cancel: () => void;
}

interface Opinion {
  readonly isProxy: boolean;
  readonly untilMs: number;
}

/** Asks MAC addresses whether they answer for every address; what is asked of one at the same time is asked once. */
export class ProxyJudge {
  readonly #spec: ProxyJudgeSpec;
  /** By MAC address and subnet. */
  readonly #running = new Map<string, Judgement>();
  readonly #opinions = new LatestMap<string, Opinion>(MOST_REMEMBERED);
  #idleUntilMs = Number.NEGATIVE_INFINITY;
  #begun = { sinceMs: Number.NEGATIVE_INFINITY, count: 0 };

  constructor(spec: ProxyJudgeSpec) {
    this.#spec = spec;
  }

  /** Answers are awaited. */
  get isAsking(): boolean {
    return this.#running.size > 0;
  }

  /** What answers are awaited about. */
  get addresses(): Address[] {
    return [...this.#running.values()].flatMap(awaited);
  }

  /**
   * Whether the one who gave this answer would have given it for any address, so that it says nothing about this one.
   * False as well when that cannot be found out. Takes 60 ms at most.
   */
  answersForAll(answer: GivenAnswer): Promise<boolean> {
    const key = `${answer.macAddress} ${formatPrefix(answer.subnet)}`;
    const opinion = this.#opinions.get(key);
    if (opinion !== undefined && this.#spec.clock.nowMs() < opinion.untilMs) return Promise.resolve(opinion.isProxy);
    const judgement = this.#running.get(key) ?? this.#begin(key, answer);
    return judgement?.result.promise ?? Promise.resolve(false);
  }

  /** Any sighting on the LAN; those that answer a question count. */
  hear(sighting: Sighting): void {
    if (sighting.kind !== 'use' || !sighting.isAnswer) return;
    for (const [key, judgement] of this.#running) {
      if (judgement.answer.macAddress === sighting.macAddress) this.#weigh(key, judgement, sighting);
    }
  }

  /** Nothing is asked any more; what is being judged is no proxy. */
  close(): void {
    for (const key of this.#running.keys()) this.#end(key, false);
  }

  #begin(key: string, answer: GivenAnswer): Judgement | undefined {
    const { clock, random, turn, giveBack } = this.#spec;
    const controls = controlAddresses(answer.subnet, answer.address, random);
    if (controls === undefined || clock.nowMs() < this.#idleUntilMs || this.#isFlooded()) return undefined;
    const judgement: Judgement = {
      answer,
      controls,
      answered: new Set(),
      result: Promise.withResolvers<boolean>(),
      endsAtMs: Number.POSITIVE_INFINITY,
      cancel: () => undefined,
    };
    const questions = questionsOf(judgement);
    const turnMs = turn(questions.length);
    this.#idleUntilMs = clock.nowMs() + TURNS_BETWEEN * turnMs;
    if (turnMs > MOST_TURN_MS || !this.#listenFor(key, judgement)) {
      giveBack(questions.length);
      return undefined;
    }
    if (turnMs > 0) judgement.cancel = clock.after(turnMs, () => this.#ask(key, judgement, questions));
    else this.#ask(key, judgement, questions);
    return judgement;
  }

  /** False where that cannot be: it is not asked either. */
  #listenFor(key: string, judgement: Judgement): boolean {
    this.#running.set(key, judgement);
    try {
      this.#spec.listen(awaited(judgement));
      return true;
    } catch {
      this.#running.delete(key);
      return false;
    }
  }

  #ask(key: string, judgement: Judgement, questions: readonly Address[]): void {
    const { macAddress, random, send, clock } = this.#spec;
    const nonce = makeNonce(random);
    for (const address of questions) send(unicastProbeFrame(address, macAddress, judgement.answer.macAddress, nonce));
    // Sending can fail, and so close us.
    if (this.#running.has(key)) this.#endAt(key, judgement, clock.nowMs() + WAIT_MS);
  }

  #isFlooded(): boolean {
    const nowMs = this.#spec.clock.nowMs();
    if (nowMs - this.#begun.sinceMs >= 1000) this.#begun = { sinceMs: nowMs, count: 0 };
    return ++this.#begun.count > MOST_A_SECOND;
  }

  #weigh(key: string, judgement: Judgement, { address, packet }: Sighting): void {
    const { answer, controls, answered } = judgement;
    if (includes(controls.unasked, address)) return this.#end(key, false);
    // An advertisement goes to all, because who asks from `::` cannot be addressed (RFC 4861 7.2.4).
    if (packet.protocol === 'ARP' && packet.destinationMac !== this.#spec.macAddress) return;
    if (isSameAddress(address, answer.address)) return this.#endAt(key, judgement, this.#spec.clock.nowMs() + GRACE_MS);
    answered.add(formatAddress(address));
    if (isDecided(judgement)) this.#end(key, true);
  }

  #endAt(key: string, judgement: Judgement, atMs: number): void {
    if (atMs >= judgement.endsAtMs) return;
    judgement.cancel();
    judgement.endsAtMs = atMs;
    judgement.cancel = this.#spec.clock.after(atMs - this.#spec.clock.nowMs(), () => this.#end(key, false));
  }

  #end(key: string, isProxy: boolean): void {
    const judgement = this.#running.get(key);
    if (judgement === undefined) return;
    this.#running.delete(key);
    judgement.cancel();
    this.#spec.ignore(awaited(judgement));
    const memoryMs = isProxy ? PROXY_MEMORY_MS : HOLDER_MEMORY_MS;
    this.#opinions.put(key, { isProxy, untilMs: this.#spec.clock.nowMs() + memoryMs });
    if (isProxy) this.#spec.onProxy(judgement.answer.macAddress);
    judgement.result.resolve(isProxy);
  }
}

/** The address that was answered comes last: its answer says that the others were received. */
function questionsOf({ answer, controls }: Judgement): Address[] {
  return [...controls.certain, ...controls.likely, answer.address];
}

function awaited(judgement: Judgement): Address[] {
  return [...judgement.controls.unasked, ...questionsOf(judgement)];
}

function isDecided({ controls: { certain, likely, leastLikely }, answered }: Judgement): boolean {
  const isAnswered = (address: Address) => answered.has(formatAddress(address));
  return certain.every(isAnswered) && likely.filter(isAnswered).length >= leastLikely;
}

function includes(addresses: readonly Address[], address: Address): boolean {
  return addresses.some((one) => isSameAddress(one, address));
}

/** It is told again after an hour that a device answers for every address. */
const REPORT_MS = 3_600_000;
/** More are an attack. */
const MOST_REPORTS = 256;

/** Tells of devices that answer for every address, of each once an hour at most. */
export class ProxyReports {
  readonly #clock: Clock;
  readonly #tell: (report: ProxyReport) => void;
  /** When it was told last, by parent and MAC address. */
  readonly #toldAtMs = new LatestMap<string, number>(MOST_REPORTS);

  constructor(clock: Clock, tell: (report: ProxyReport) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** One was found. */
  note(report: ProxyReport): void {
    const key = `${report.parentName} ${report.macAddress}`;
    const nowMs = this.#clock.nowMs();
    if (nowMs - (this.#toldAtMs.get(key) ?? Number.NEGATIVE_INFINITY) < REPORT_MS) return;
    this.#toldAtMs.put(key, nowMs);
    this.#tell(report);
  }
}
