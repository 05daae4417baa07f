/**
 * One address on one LAN: asked for, and when nobody has it, guarded until its container can speak for itself, or kept
 * in reserve for a container to come.
 *
 * Asking follows RFC 5227 2.1.1 and RFC 4862 5.4. Guarding continues to listen, as both RFCs want, and defends the
 * address against others that ask for it: between our verdict and the moment the container's own kernel answers there
 * would otherwise be a gap in which the address looks free to everybody. Keeping listens too, without a gap, and asks
 * again from time to time; but it claims nothing: whoever wants the address gets it (tiebreak.ts).
 */
import type { Address } from '../address.ts';
import type { Clock } from '../clock.ts';
import { defenceFrame, makeNonce, membershipFrames, probeFrames, reserveFrame } from './frames/outgoing.ts';
import type { ProxyWatch } from './proxyarp.ts';
import { isKeeperMac, keeperMac } from './frames/mac.ts';
import { Claimants, Rivalry } from './tiebreak.ts';
import type { Sighting } from './frames/sighting.ts';
import type { Timing } from './timing.ts';

export type Verdict =
  | { readonly held: false }
  | {
      readonly held: true;
      readonly macAddress: string;
      /** It is only asking for the address at this moment, as we were. */
      readonly simultaneous: boolean;
    };

/** The LAN as seen from one link. */
export interface Wire {
  /** Our frames come from it. */
  readonly macAddress: string;
  send(frame: Buffer): void;
  /** Hands the frames that wait to those concerned, before it returns. */
  drain(): void;
}

export interface Question {
  readonly address: Address;
  readonly timing: Timing;
  /** How long a free address is guarded; 0 not at all. */
  readonly guardMs: number;
  /** A container of ours, whose use of the address is no conflict. `isGiven`: it was found free and one has it by now. */
  readonly isOwn: (macAddress: string, isGiven: boolean) => boolean;
  /** Somebody began to use the address while it was guarded, which ends the guard. */
  readonly onLateConflict: (macAddress: string) => void;
  /** `loss`: why an address in reserve is so no longer; null when it was ended or nothing was kept. */
  readonly onOver: (loss: Loss | null) => void;
  /** Left out when a container waits for the address. */
  readonly reserve?: Reservation;
}

/** How an address is kept for a container to come. */
export interface Reservation {
  /** It is asked for again when the last time was this long ago. */
  readonly refreshMs: number;
  /** It has been a container's of ours until now: kept from the first moment, and asked for meanwhile. */
  readonly isOurs: boolean;
}

/** `use`: somebody has the address. `probe`: somebody wants it and gets it. */
export interface Loss {
  readonly kind: 'use' | 'probe';
  readonly macAddress: string;
}

export interface Surroundings {
  readonly wire: Wire;
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  /** Undefined where proxies cannot be told from holders. */
  readonly proxies: ProxyWatch | undefined;
}

/** An answer later than this may have been overtaken by the same router's answer to the control probe. */
const PROMPT_MS = 50;
/** Defences against a flood of probes are held to 100 a second. */
const DEFENCE_PERIOD_MS = 100;
const DEFENCES_PER_PERIOD = 10;
/**
 * Switches forget who wants a group's frames 260 s after the last report (RFC 3810 9.4), and this link does not answer
 * when they ask for reports.
 */
const MEMBERSHIP_MS = 120_000;
/** A daemon that wants the address asks us again within a second or not at all. */
const MAKE_ROOM_MS = 5000;

export class Inquiry {
  readonly address: Address;
  readonly verdict: Promise<Verdict>;
  readonly #question: Question;
  readonly #surroundings: Surroundings;
  readonly #rivalry: Rivalry;
  readonly #claimants: Claimants;
  /** Of our solicitations: 12 hexadecimal digits. */
  readonly #nonce: string;
  readonly #settle: PromiseWithResolvers<Verdict>;
  #phase: 'asking' | 'kept' | 'guarding' | 'over' = 'asking';
  /** Probes of this time of asking; 0 while a kept address is only listened for. */
  #sent = 0;
  #sentAtMs = 0;
  /** When a kept address is asked for again. */
  #askAtMs = 0;
  /** They answered so late that they may be proxies. */
  readonly #suspects = new Set<string>();
  #defences = { sinceMs: Number.NEGATIVE_INFINITY, count: 0 };
  #cancelTimer: () => void = () => undefined;

  constructor(question: Question, surroundings: Surroundings) {
    this.address = question.address;
    this.#question = question;
    this.#surroundings = surroundings;
    this.#rivalry = new Rivalry(surroundings.wire.macAddress, surroundings.clock);
    this.#claimants = new Claimants(surroundings.clock);
    this.#nonce = makeNonce(surroundings.random);
    this.#settle = Promise.withResolvers<Verdict>();
    this.verdict = this.#settle.promise;
  }

  get isAsking(): boolean {
    return this.#phase === 'asking';
  }

  get isGuarding(): boolean {
    return this.#phase === 'guarding';
  }

  /** In reserve. */
  get isKept(): boolean {
    return this.#phase === 'kept';
  }

  start(): void {
    const { timing, reserve } = this.#question;
    if (reserve?.isOurs) this.#keep();
    this.#askAtMs = this.#surroundings.clock.nowMs();
    this.#in(timing.firstWaitMs * this.#surroundings.random(), () => this.#step());
  }

  /** A container gets the address out of the reserve, and it is guarded. False when it is, or may be, lost. */
  grant(): boolean {
    // What came before counts before: a daemon that was already heard asking twice must get the address.
    this.#surroundings.wire.drain();
    if (this.#phase !== 'kept' || this.#suspects.size > 0) return false;
    this.#guard();
    return true;
  }

  /** A sighting of this address. */
  hear(sighting: Sighting): void {
    if (this.#phase === 'over' || this.#isOurs(sighting)) return;
    if (isKeeperMac(sighting.macAddress)) this.#hearKeeper(sighting.macAddress);
    else if (sighting.kind === 'use') this.#hearUse(sighting);
    else if (this.#phase === 'asking') this.#hearRival(sighting.macAddress);
    else if (this.#phase === 'kept') this.#hearClaimant(sighting);
    else this.#defend(sighting);
  }

  /** Ends it; a verdict that is still awaited becomes `reason`. */
  end(reason: Error): void {
    this.#over();
    this.#settle.reject(reason);
  }

  #step(): void {
    // What came first counts first: a rival that reasserted itself while we were busy must not get another probe.
    this.#surroundings.wire.drain();
    if (this.#phase !== 'asking' && this.#phase !== 'kept') return;
    const { timing } = this.#question;
    if (this.#sent < timing.probes) {
      this.#sent++;
      this.#probe();
    }
    const restMs = this.#restMs();
    if (restMs > 0) this.#in(restMs, () => this.#step());
    else this.#conclude();
  }

  /** Until the next step. The last wait counts from the last frame, be it one of the timing or a reassertion. */
  #restMs(): number {
    const { timing } = this.#question;
    const { random, clock } = this.#surroundings;
    if (this.#sent < timing.probes) return timing.minGapMs + (timing.maxGapMs - timing.minGapMs) * random();
    return this.#sentAtMs + timing.lastWaitMs - clock.nowMs();
  }

  #probe(): void {
    const { wire, proxies, clock } = this.#surroundings;
    proxies?.ask();
    this.#sentAtMs = clock.nowMs();
    for (const frame of probeFrames(this.address, wire.macAddress, this.#nonce)) wire.send(frame);
  }

  #isOurs({ macAddress, nonce }: Sighting): boolean {
    const own = this.#surroundings.wire.macAddress;
    return (
      macAddress === own ||
      macAddress === keeperMac(own) ||
      nonce === this.#nonce ||
      this.#question.isOwn(macAddress, this.#phase === 'guarding')
    );
  }

  #hearUse({ macAddress, isAnswer }: Sighting): void {
    if (isAnswer && this.#surroundings.proxies?.isProxy(macAddress)) return;
    if (this.#phase === 'guarding') {
      this.#over();
      this.#question.onLateConflict(macAddress);
    } else if (isAnswer && this.#isConcluding() && this.#mayBeProxy()) this.#suspects.add(macAddress);
    else this.#lose(macAddress, 'use');
  }

  /** There will be a verdict that looks at the suspects. */
  #isConcluding(): boolean {
    return this.#phase === 'asking' || this.#sent > 0;
  }

  #mayBeProxy(): boolean {
    const { proxies, clock } = this.#surroundings;
    return proxies !== undefined && clock.nowMs() - this.#sentAtMs > PROMPT_MS;
  }

  #hearRival(macAddress: string): void {
    const response = this.#question.reserve === undefined ? this.#rivalry.hear(macAddress) : 'yield';
    if (response === 'yield') this.#lose(macAddress, 'probe');
    else if (response === 'reassert') this.#reassert();
  }

  /**
   * Where this was to be the last probe, one more follows: whoever came while we stood still may keep the address by now
   * and lets go of it at the second, or have given it to a container, and that is heard only in time if we ask on.
   */
  #reassert(): void {
    this.#probe();
    this.#sent = Math.min(this.#sent, this.#question.timing.probes - 1);
  }

  /** Another daemon keeps the address in reserve, and lets go of it when it is needed. */
  #hearKeeper(macAddress: string): void {
    if (this.#question.reserve !== undefined && this.#phase !== 'guarding') this.#lose(macAddress, 'use');
  }

  /** Told once that the address is in reserve; who needs it all the same asks on. */
  #hearClaimant({ macAddress, packet }: Sighting): void {
    if (this.#claimants.hear(macAddress) === 'yield') return this.#lose(macAddress, 'probe');
    const { wire } = this.#surroundings;
    wire.send(reserveFrame(packet, this.address, wire.macAddress));
    // Questions of ours would look like those of a rival.
    if (this.#sent > 0 || this.#askAtMs - this.#surroundings.clock.nowMs() < MAKE_ROOM_MS) this.#rest(MAKE_ROOM_MS);
  }

  #conclude(): void {
    const holder = [...this.#suspects].find((mac) => !this.#surroundings.proxies?.isProxy(mac));
    if (holder !== undefined) this.#lose(holder, 'use');
    else if (this.#question.reserve === undefined) this.#guard();
    else this.#keep();
  }

  #lose(macAddress: string, kind: Loss['kind']): void {
    this.#over(this.#phase === 'kept' ? { kind, macAddress } : null);
    this.#settle.resolve({ held: true, macAddress, simultaneous: kind === 'probe' });
  }

  #guard(): void {
    this.#phase = 'guarding';
    this.#settle.resolve({ held: false });
    if (this.#question.guardMs > 0) this.#in(this.#question.guardMs, () => this.#over());
    else this.#over();
  }

  #keep(): void {
    this.#phase = 'kept';
    this.#settle.resolve({ held: false });
    // Not all at once, when many are kept since the same moment.
    this.#rest((this.#question.reserve?.refreshMs ?? 0) * (0.9 + 0.1 * this.#surroundings.random()));
  }

  /** Only listens for so long, and then asks again. */
  #rest(restMs: number): void {
    this.#sent = 0;
    this.#suspects.clear();
    const { wire, clock } = this.#surroundings;
    this.#askAtMs = clock.nowMs() + restMs;
    const memberships = membershipFrames(this.address, wire.macAddress);
    if (memberships.length === 0 || restMs <= MEMBERSHIP_MS) return this.#in(restMs, () => this.#step());
    this.#in(MEMBERSHIP_MS, () => {
      for (const frame of memberships) wire.send(frame);
      this.#rest(restMs - MEMBERSHIP_MS);
    });
  }

  #defend({ packet }: Sighting): void {
    if (this.#isFlooded()) return;
    const { wire } = this.#surroundings;
    wire.send(defenceFrame(packet, this.address, wire.macAddress));
  }

  #isFlooded(): boolean {
    const nowMs = this.#surroundings.clock.nowMs();
    if (nowMs - this.#defences.sinceMs >= DEFENCE_PERIOD_MS) this.#defences = { sinceMs: nowMs, count: 0 };
    this.#defences.count++;
    return this.#defences.count > DEFENCES_PER_PERIOD;
  }

  #over(loss: Loss | null = null): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#cancelTimer();
    this.#question.onOver(loss);
  }

  #in(delayMs: number, run: () => void): void {
    this.#cancelTimer();
    // Sending can fail and so end it.
    if (this.#phase === 'over') return;
    this.#cancelTimer = this.#surroundings.clock.after(delayMs, run);
  }
}
