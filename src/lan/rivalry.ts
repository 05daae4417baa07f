/**
 * Two hosts probe for one address at the same moment. The standards let both give up (RFC 5227 2.1.1, RFC 4862 5.4.3).
 * Against a stranger's host that is what we do. Between two daemons of ours, which share nothing but the LAN, exactly one
 * goes on, so that hosts which start their containers together do not lose every address.
 *
 * The rule. Our probes come from MAC addresses with a prefix of their own. Who hears such a probe from a lower MAC than
 * its own gives up. Who hears one from a higher MAC probes again at once (reasserts) and waits its full last wait once
 * more. A rival that still asks after that does not hear us or follows another rule, so we give up. And whoever has found
 * an address free defends it, by an answer, until the container can speak for itself.
 *
 * Why never both. Let A have the lower MAC, and let no frame get lost for good. Suppose both found the address free.
 * (1) B sent a probe while A was asking. A heard it at the latest when it drained its socket before its verdict, and
 *     reasserted. If B was still asking, it heard a lower MAC and gave up; if B had finished, it was defending, and A,
 *     which waits on after a reassertion, heard the defence and gave up.
 * (2) B sent a probe after A's verdict: A defended, and B, which waits after each probe, heard it.
 * (3) All of B's probes came before A began to listen. Then A's first probe came later. If B was still waiting it heard
 *     a lower MAC; if it had finished it defended.
 * One of the three is always the case. What breaks it is an event loop that stands still, just after its verdict, for as
 * long as the rival asks; or a LAN that loses all frames of one direction. Then both have it, the first frame that gets
 * through is a late conflict, and that is reported (Inquiry, onLateConflict).
 *
 * Why safe against strangers. A stranger's probe makes us give up whatever its MAC; only one whose random MAC has our
 * prefix (1 in 16 million) would be treated as ours, and even then a second probe of it makes us give up.
 */
import { formatMac } from '../address.ts';
import type { Clock } from './clock.ts';

/** Locally administered, and different from the engine's 02:42, from which containers get theirs. */
const PROBE_MAC_PREFIX = '02:74:73';
/** More rivals than this are an attack or a storm. */
const MOST_REASSERTIONS = 4;
/** A rival's next probe comes no sooner than this, see timing.ts; what comes sooner had been sent before. */
const REASSERTION_GRACE_MS = 120;

export function makeProbeMac(random: () => number): string {
  return `${PROBE_MAC_PREFIX}:${formatMac(Uint8Array.from({ length: 3 }, () => Math.floor(random() * 256)))}`;
}

/** Whether a daemon of this kind probes with it, on this host or another. */
export function isProbeMac(mac: string): boolean {
  return mac.startsWith(`${PROBE_MAC_PREFIX}:`);
}

/** The rivals of one probe. */
export class Rivalry {
  readonly #macAddress: string;
  readonly #clock: Clock;
  /** When we reasserted ourselves against each. */
  readonly #reasserted = new Map<string, number>();

  constructor(macAddress: string, clock: Clock) {
    this.#macAddress = macAddress;
    this.#clock = clock;
  }

  /** What a probe from this MAC asks us to do. */
  hear(rivalMac: string): 'yield' | 'reassert' | 'ignore' {
    if (!isProbeMac(rivalMac) || rivalMac < this.#macAddress) return 'yield';
    const atMs = this.#reasserted.get(rivalMac);
    if (atMs !== undefined) return this.#clock.nowMs() - atMs < REASSERTION_GRACE_MS ? 'ignore' : 'yield';
    if (this.#reasserted.size === MOST_REASSERTIONS) return 'yield';
    this.#reasserted.set(rivalMac, this.#clock.nowMs());
    return 'reassert';
  }
}
