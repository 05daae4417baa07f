/**
 * Two hosts probe for one address at the same moment. The standards let both give up (RFC 5227 2.1.1, RFC 4862 5.4.3).
 * Against a stranger's host that is what we do. Between two daemons of ours, which share nothing but the LAN, exactly one
 * goes on, so that hosts which start their containers together do not lose every address.
 *
 * The rule. Our probes come from MAC addresses with a prefix of their own. Who hears such a probe from a lower MAC than
 * its own gives up. Who hears one from a higher MAC probes again at once (reasserts) and waits its full last wait once
 * more, after one more probe if its last was sent already. A rival that still asks after that does not hear us or follows
 * another rule, so we give up. And whoever has found an address free defends it, by an answer, until the container can
 * speak for itself.
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
 * through is a late conflict, and that is reported (DetectionSpec, onLateConflict).
 *
 * Why safe against strangers. A stranger's probe makes us give up whatever its MAC; only one whose random MAC has our
 * prefix (1 in 16 million) would be treated as ours, and even then a second probe of it makes us give up.
 *
 * Addresses on standby. A daemon keeps some addresses that it found free, so that the next container need not wait long.
 * To the first probe of another daemon it answers that the address is on standby, by a MAC of a kind that only keepers
 * name. Who only looks for addresses to keep then takes another, and also gives way to any probe at all. Who needs the
 * address for a container takes no notice and asks on, and at its second probe the keeper lets go in silence. So two
 * daemons keep different addresses, and neither keeps the other from the last free one or from one the user named.
 *
 * The fresh question. A keeper that needs the address itself reads what waits in its socket and sends one probe; after 9 ms (IPv6: 10)
 * in silence the address is its container's, and it defends it. Whoever was heard to probe for it within 5 s may still be
 * asking: then the keeper asks as thoroughly as anybody. 5 s after another's probe a keeper asks again in any case.
 *
 * Why still never both. Let A keep the address since it found it free, listening ever since, and B want it as well.
 * (4) B asks thoroughly. If one of its probes came before A's question, A knew of it: at the second A let go; after the first
 *     A asked thoroughly, and (1) to (3) hold. If the first came later, A was asking, and the rule holds, with A waiting as
 *     long as anybody once it had to reassert itself; or A was defending, and B, which waits after each probe, heard that.
 * (5) B asks freshly too: it also had the address on standby, as after two LANs were joined. If one heard the other's probe
 *     before its own question, it asks thoroughly: (4). If both probes were under way at once and came within that time, both were
 *     still asking: the higher MAC gives up, and the lower, which waits on, hears a defence if the other was done already.
 * (6) B asked before A kept: then A was asking too, heard B and gave way; or the address was that of A's container until then,
 *     whose kernel answered B.
 *
 * Asked ahead (timing.ts), a grant waits for no answer. That takes nothing from the proof: until the grant the question is one
 * of a keeper, whom (4) and (5) allow to ask at any time, and whoever answers it or asks too is known; from the grant on A
 * defends, as after any verdict. It leaves less open than (5), since the other keeper has heard a question some time before.
 *
 * What is weaker than the thorough procedure: in (5) a frame that takes longer, or a daemon that stands still that
 * long while it defends, gives both the verdict. But whatever answers later counts until Join is answered, and both
 * ask twice more, while the endpoint is made and while it is joined; then both are refused rather than both started. One lost
 * frame spoils one question of three. What is heard after Join is a conflict, and is reported.
 */
import type { Clock } from '../clock.ts';
import { isProbeMac } from './frames/mac.ts';

/** More rivals than this are an attack or a storm. */
const MOST_REASSERTIONS = 4;
/** A rival's next probe comes no sooner than this, see timing.ts; what comes sooner had been sent before. */
const REASSERTION_GRACE_MS = 120;

/** Two probes within this time belong to one detection: the longest gap of timing.ts, and more. */
const PROBING_MS = 5000;
/** More who want one address are an attack or a storm. */
const MOST_CONTENDERS = 16;

/** Who wants an address that is on standby here. */
export class Contenders {
  readonly #clock: Clock;
  /** When each was heard first. */
  readonly #heardAtMs = new Map<string, number>();
  readonly #isGuess: boolean;

  /** `isGuess`: nobody may ever want it here. */
  constructor(clock: Clock, isGuess: boolean) {
    this.#clock = clock;
    this.#isGuess = isGuess;
  }

  /** One that may still want the address was heard. */
  areAround(): boolean {
    this.#forget();
    return this.#heardAtMs.size > 0;
  }

  /** What a probe from this MAC asks the keeper to do: tell that it is on standby, or let go. Strangers get what they want. */
  hear(macAddress: string): 'answer' | 'yield' {
    this.#forget();
    if (this.#isGuess || !isProbeMac(macAddress) || this.#heardAtMs.has(macAddress)) return 'yield';
    if (this.#heardAtMs.size === MOST_CONTENDERS) return 'yield';
    this.#heardAtMs.set(macAddress, this.#clock.nowMs());
    return 'answer';
  }

  #forget(): void {
    const nowMs = this.#clock.nowMs();
    for (const [mac, atMs] of this.#heardAtMs) if (nowMs - atMs > PROBING_MS) this.#heardAtMs.delete(mac);
  }
}

/** Simultaneous probes for an address that is asked for here (as RFC 6762 8.2 for names): who goes on. */
export class TieBreak {
  readonly #macAddress: string;
  readonly #clock: Clock;
  /** When we reasserted ourselves against each. */
  readonly #reasserted = new Map<string, number>();

  constructor(macAddress: string, clock: Clock) {
    this.#macAddress = macAddress;
    this.#clock = clock;
  }

  /** What a probe from this MAC asks us to do: give up, probe again at once, or nothing, as it was sent before our last. */
  hear(rivalMac: string): 'yield' | 'reassert' | 'ignore' {
    if (!isProbeMac(rivalMac) || rivalMac < this.#macAddress) return 'yield';
    const atMs = this.#reasserted.get(rivalMac);
    if (atMs !== undefined) return this.#clock.nowMs() - atMs < REASSERTION_GRACE_MS ? 'ignore' : 'yield';
    if (this.#reasserted.size === MOST_REASSERTIONS) return 'yield';
    this.#reasserted.set(rivalMac, this.#clock.nowMs());
    return 'reassert';
  }
}
