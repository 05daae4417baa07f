/**
 * Questions about an address that is to be used, and what was heard since they were answered: who takes an address between
 * two questions of one start. They wait for a LAN that can be asked as long as their calls have time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, type Prefix, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { PluginError } from '../errors.ts';
import type { Log } from '../log.ts';
import { isProbeMac } from './frames/mac.ts';
import type { Interruptions, OnInterruptedParent } from './interruptions.ts';
import { type EndedProbe, measured } from './measured.ts';
import type { ProbeRequest, Prober } from './prober.ts';
import { TIMINGS, longestMs } from './timing.ts';
import { NOT_HELD, type Verdict } from './verdict.ts';

/** One address to be asked for. `atMs`: when the engine is answered at the latest, as performance.now(). */
export interface LanQuestion extends ProbeRequest {
  readonly subnet: Prefix;
  readonly atMs?: number | undefined;
  /** The MAC address of the endpoint that gets the address after it: what this host has by now counts as well. */
  readonly givenTo?: string | null;
}

/** What they work with. */
interface QuestionsParts {
  readonly prober: Pick<Prober, 'probe' | 'confirm'> & Partial<Pick<Prober, 'isOnStandby'>>;
  readonly interruptions: Pick<Interruptions<OnInterruptedParent>, 'uninterrupted'>;
  /** The MAC address is that of another interface of a container of ours that has just left the address. */
  readonly isLeaver: (place: Place, macAddress: string) => boolean;
  readonly log: Pick<Log, 'warn'>;
  /** Each time the LAN was asked for an address that a container is to get. */
  readonly onProbe?: (probe: EndedProbe) => void;
}

interface Place {
  readonly parentName: string;
  readonly address: Address;
}

/** Until when askAgain() goes on, as performance.now(), and who is told what it finds out. */
interface Insistence {
  readonly atMs: number;
  readonly tell: (verdict: Verdict) => void;
}

/** More are an attack. */
const MOST_TAKERS = 256;
/** How long until an address that somebody has is asked for again. */
const AGAIN_MS = 1000;
/** A container that has just left it is waited for so long, and the LAN asked again as often. */
const LEAVER_MS = 1500;
const LEAVER_AGAIN_MS = 75;
/** Of a call's time this much is left for what follows the last verdict. */
const RESERVED_MS = 500;
/** How long a parent that is down is waited for, and how often it is tried meanwhile. */
const DOWN_WAIT_MS = 1000;
const DOWN_STEP_MS = 50;
/** How long a question without a limit waits for a LAN that can be asked. */
const USUAL_WAIT_MS = 5000;

/** Each method throws a PluginError when the LAN cannot be asked, and the signal's reason when it fires. */
export class Questions {
  readonly #parts: QuestionsParts;
  /** Said once for each, until it is up again. */
  readonly #parentsDown = new Set<string>();
  /** Who took an address since it was found free, while no container has it yet; by parent and address. */
  readonly #takers = new LatestMap<string, string>(MOST_TAKERS);

  constructor(parts: QuestionsParts) {
    this.#parts = parts;
  }

  /** The whole procedure, or a fresh question to an address on standby. Who took it before counts no more. */
  check(question: LanQuestion): Promise<Verdict> {
    this.forgetTaker(question);
    return this.#whenHeard(question, () => this.#askWithoutLeaver(question));
  }

  /** One more question, for an address that was found free; the answer is there at once when somebody was heard to take it. */
  async confirm(question: LanQuestion): Promise<Verdict> {
    const taker = this.#takerOf(question);
    if (taker !== null) return heldBy(taker, question.parentName);
    return this.#whenHeard(question, () => this.#parts.prober.confirm(question, question.givenTo));
  }

  /**
   * Asks on about every second, as long as somebody else has the address and there is time until `atMs`. When the procedure
   * of `rfc` has no more time that of `fast` decides, unless nothing else promises that the address is free. `tell` hears
   * each verdict, the first too.
   */
  async askAgain(question: LanQuestion, first: Verdict, { atMs, tell }: Insistence): Promise<Verdict> {
    const { signal, isProof } = question;
    const shortest: LanQuestion = isProof ? question : { ...question, profile: 'fast' };
    const lastAtMs = lastMoment(shortest, atMs);
    let verdict = first;
    tell(verdict);
    while (verdict.held && !verdict.isOnHost) {
      const pauseMs = Math.min(AGAIN_MS, lastAtMs - performance.now());
      if (pauseMs <= 0) break;
      await sleep(pauseMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
      const isTimeForAll = performance.now() <= lastMoment(question, atMs);
      const asked = this.check(isTimeForAll ? question : shortest);
      verdict = await unlessLate(asked, verdict, atMs - RESERVED_MS / 2);
      tell(verdict);
    }
    return verdict;
  }

  /** Somebody was heard to use an address that was found free, and that no container has yet. */
  noteTaker({ parentName, address, macAddress }: Place & { readonly macAddress: string }): void {
    this.#takers.put(placeKey({ parentName, address }), macAddress);
  }

  /** His MAC address; null when nobody was heard. */
  #takerOf(place: Place): string | null {
    return this.#takers.get(placeKey(place)) ?? null;
  }

  /** The address is asked for again, or not wanted any more. */
  forgetTaker(place: Place): void {
    this.#takers.delete(placeKey(place));
  }

  /** Asks when the parent's LAN can be asked, or when there is no more time to wait for it. */
  #whenHeard(question: LanQuestion, ask: () => Promise<Verdict>): Promise<Verdict> {
    const untilMs = lastMoment(question, question.atMs ?? performance.now() + USUAL_WAIT_MS);
    return this.#parts.interruptions.uninterrupted(question, untilMs, () => this.#unlessDown(question, untilMs, ask));
  }

  /** A container that has just left the address may answer still, until its engine has taken it apart. */
  async #askWithoutLeaver(question: LanQuestion): Promise<Verdict> {
    const { signal } = question;
    const isLeavers = (one: Verdict) => one.held && !one.simultaneous && this.#parts.isLeaver(question, one.macAddress);
    const untilMs = Math.min(
      performance.now() + LEAVER_MS,
      lastMoment(question, question.atMs ?? Number.POSITIVE_INFINITY),
    );
    let verdict = await this.#ask(question);
    while (isLeavers(verdict) && performance.now() < untilMs) {
      await sleep(LEAVER_AGAIN_MS, undefined, { signal }).catch(() => signal?.throwIfAborted());
      verdict = await this.#ask(question);
    }
    return verdict.held && isLeavers(verdict) ? { ...verdict, isOnHost: true } : verdict;
  }

  /** Of two daemons that ask at once one gives way, perhaps to one that only wanted it on standby: so it asks once more. */
  async #ask(question: LanQuestion): Promise<Verdict> {
    const { prober, onProbe = () => undefined } = this.#parts;
    const isStandby = prober.isOnStandby?.(question) === true;
    const first = await measured(() => prober.probe(question), isStandby, onProbe);
    const isContended = first.held && first.simultaneous && isProbeMac(first.macAddress);
    return isContended ? prober.probe(question) : first;
  }

  /**
   * Below a parent that is down no container talks to anybody: it may start, as with the built-in driver. The first start waits a
   * moment for the parent, which may be set down and up again.
   */
  async #unlessDown(question: LanQuestion, untilMs: number, ask: () => Promise<Verdict>): Promise<Verdict> {
    const { parentName: parent, signal } = question;
    const lastAtMs = Math.min(untilMs, performance.now() + DOWN_WAIT_MS);
    for (;;) {
      const verdict = await this.#askBelow(question, ask);
      if (verdict !== 'down') return verdict;
      if (this.#parentsDown.has(parent)) return NOT_HELD;
      if (performance.now() >= lastAtMs) break;
      await sleep(DOWN_STEP_MS, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
    this.#parts.log.warn('parent is down: addresses are given out without asking the LAN', { parent });
    this.#parentsDown.add(parent);
    return NOT_HELD;
  }

  async #askBelow({ parentName, isProof }: LanQuestion, ask: () => Promise<Verdict>): Promise<Verdict | 'down'> {
    try {
      const verdict = await ask();
      this.#parentsDown.delete(parentName);
      return verdict;
    } catch (error) {
      if (isProof || !(error instanceof PluginError) || error.code !== 'PROBE_PARENT_DOWN') throw error;
      return 'down';
    }
  }
}

/** `known` where a busy machine takes too long to ask again: who was told of a holder knows more than who was told nothing. */
async function unlessLate(asked: Promise<Verdict>, known: Verdict, atMs: number): Promise<Verdict> {
  asked.catch(() => undefined);
  const waiting = new AbortController();
  const late = sleep(Math.max(0, atMs - performance.now()), known, { signal: waiting.signal }).catch(() => known);
  return Promise.race([asked, late]).finally(() => waiting.abort());
}

/** A question that is asked later has no time for its answer. */
function lastMoment({ profile, address }: LanQuestion, atMs: number): number {
  return atMs - RESERVED_MS - longestMs(TIMINGS[profile][address.family]);
}

function placeKey({ parentName, address }: Place): string {
  return `${parentName} ${formatAddress(address)}`;
}

function heldBy(macAddress: string, linkName: string): Verdict {
  return { held: true, macAddress, linkName, simultaneous: false, isOnHost: false };
}
