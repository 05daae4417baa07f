/** How often and how long the LAN is asked before an address counts as free. */
import type { Clock } from '../clock.ts';
import { type Family, PROBE_PROFILES, type ProbeProfile } from '../model.ts';

/**
 * `rfc`: the standards' own waits, 4 to 7 s for IPv4 and 3 to 4 s for IPv6. `fast`: the same procedure in 0.59 to 0.7 s,
 * for wired LANs, where an answer takes milliseconds.
 */
export const PROFILES = ['fast', 'rfc'] as const;
/**
 * One of them; or `brief`, a tenth of a second, for what nobody gets before the LAN is asked as is usual. It finds what is awake.
 */
export type Profile = (typeof PROFILES)[number] | 'brief';

/** The waits of one detection, in milliseconds. */
export interface Timing {
  /** The first probe waits a random time up to this, so that hosts which start together do not ask together. */
  readonly firstWaitMs: number;
  readonly probes: number;
  /** Between two probes, at random in these bounds. */
  readonly minGapMs: number;
  readonly maxGapMs: number;
  /** From the last probe to the verdict. */
  readonly lastWaitMs: number;
}

/** The waits of `fast`. */
const FAST: Timing = { firstWaitMs: 10, probes: 3, minGapMs: 180, maxGapMs: 230, lastWaitMs: 230 };

/** The waits of `brief`: a device of a wired LAN answers within milliseconds, and two of three frames may get lost. */
const BRIEF: Timing = { firstWaitMs: 0, probes: 3, minGapMs: 25, maxGapMs: 35, lastWaitMs: 50 };

/** The waits of each profile. */
export const TIMINGS: Readonly<Record<Profile, Readonly<Record<Family, Timing>>>> = {
  brief: { IPv4: BRIEF, IPv6: BRIEF },
  fast: { IPv4: FAST, IPv6: FAST },
  rfc: {
    // RFC 5227 1.1: PROBE_WAIT, PROBE_NUM, PROBE_MIN, PROBE_MAX, ANNOUNCE_WAIT.
    IPv4: { firstWaitMs: 1000, probes: 3, minGapMs: 1000, maxGapMs: 2000, lastWaitMs: 2000 },
    // RFC 4862 5.4.2 and 5.1, RFC 4861 10: MAX_RTR_SOLICITATION_DELAY and RetransTimer. DupAddrDetectTransmits, whose
    // default is 1, is 3 here, because one frame may get lost.
    IPv6: { firstWaitMs: 1000, probes: 3, minGapMs: 1000, maxGapMs: 1000, lastWaitMs: 1000 },
  },
};

/**
 * From a question about an address that nobody had a while ago to the verdict, in milliseconds. Of 1,200 answers of a container
 * on another host, with two busy cores, and in a third of them four processes beside that only use the processor, 40 IPv4
 * answers were read later than 6 ms after the question, most of them while this process was woken late itself; those 12 ms
 * more are listened for. Five or six were missed so, as many as with the 10 ms that were waited before (and 4 of 1,200 answers of a
 * host without containers). IPv6 answers go to all nodes, by a queue of the kernel's (port.ts), and are missed twice as often.
 */
const ANSWER_MS: Readonly<Record<Family, number>> = { IPv4: 6, IPv6: 10 };
/** When this process was woken later than this since the question, in milliseconds, the machine is busy, and answers may be late as well: */
export const LATE_MS = 1.5;
/** then so much longer is listened. */
export const LATE_WAIT_MS = 12;

/** Another daemon that guards the address reads its socket every 5 ms while frames come (port.ts) before it can defend it. */
const DEFENCE_MS = 9;

function fresh(family: Family): Timing {
  return { ...FAST, firstWaitMs: 0, probes: 1, lastWaitMs: Math.max(DEFENCE_MS, ANSWER_MS[family]) };
}

/**
 * The question at the moment at which an address on standby is given out. Nobody had it when it was asked for thoroughly, so
 * this one is for who took it in silence since. No random wait goes before it: an address on standby is one daemon's alone.
 * What answers later is judged when the endpoint is made and joined.
 */
export const FRESH_TIMINGS: typeof TIMINGS = {
  brief: { IPv4: fresh('IPv4'), IPv6: fresh('IPv6') },
  fast: { IPv4: fresh('IPv4'), IPv6: fresh('IPv6') },
  rfc: { IPv4: { ...FAST, firstWaitMs: 0 }, IPv6: { ...FAST, firstWaitMs: 0 } },
};

/** From the question asked while an endpoint is made or joined to the verdict, in milliseconds. Only Join waits for it. */
export const CONFIRM_MS = ANSWER_MS;

/**
 * In a burst the addresses that are likely to be given out next are asked for a little ahead. An answer to that question has come
 * after so many milliseconds, be the machine busy or not, so that a grant waits for none any more;
 */
const AHEAD_LEAST_MS = ANSWER_MS.IPv6 + LATE_WAIT_MS;
/**
 * and so many milliseconds long it counts. Who takes the address after it is found by the grant's own question, but only when the
 * endpoint is made or joined, which ends a start that could have had another address; so not longer than a burst needs.
 */
const AHEAD_MOST_MS = 250;

/** A question asked ahead that nobody has answered. Times in milliseconds of a monotonic clock. */
export class AskedAhead {
  readonly #atMs: number;
  readonly #lostFrames: number;

  /** `lostFrames`: of the wire, until now. */
  constructor(atMs: number, lostFrames: number) {
    [this.#atMs, this.#lostFrames] = [atMs, lostFrames];
  }

  /** It need not be asked again yet. */
  isRecent(nowMs: number): boolean {
    return nowMs - this.#atMs < AHEAD_MOST_MS / 2;
  }

  /** What is left of the waiting for the answer to a fresh question; none, once an answer to this one would be there. */
  shorten(fresh: Timing, { clock, wire }: { clock: Clock; wire: { lostFrames: number } }): Timing {
    const ageMs = clock.nowMs() - this.#atMs;
    if (wire.lostFrames > this.#lostFrames || ageMs > AHEAD_MOST_MS) return fresh;
    return { ...fresh, lastWaitMs: Math.min(fresh.lastWaitMs, Math.max(0, AHEAD_LEAST_MS - ageMs)) };
  }
}

/** From one probe to the next, in milliseconds. `random`: 0 to 1, as Math.random. */
export function gapMs({ minGapMs, maxGapMs }: Timing, random: () => number): number {
  return minGapMs + (maxGapMs - minGapMs) * random();
}

/** The longest that a detection without rivals takes, in milliseconds. */
export function longestMs({ firstWaitMs, probes, maxGapMs, lastWaitMs }: Timing): number {
  return firstWaitMs + (probes - 1) * maxGapMs + lastWaitMs;
}

/** Of the two the one that asks the LAN for longer. */
export function moreThorough(one: ProbeProfile, other: ProbeProfile): ProbeProfile {
  return PROBE_PROFILES.indexOf(one) < PROBE_PROFILES.indexOf(other) ? other : one;
}
