/**
 * Address conflict detection (RFC 5227) for one address on one LAN: it is asked for, and when nobody has it, guarded until
 * its container can speak for itself, or kept on standby for a container to come.
 *
 * Asking follows RFC 5227 2.1.1 and RFC 4862 5.4. Guarding continues to listen, as both RFCs want, and defends the
 * address against others that ask for it: between our verdict and the moment the container's own kernel answers there
 * would otherwise be a gap in which the address looks free to everybody. On standby we listen too, without a gap, and ask
 * again from time to time; but we defend nothing: whoever wants the address gets it (tiebreak.ts).
 *
 * Silence on standby is no evidence: hosts answer each other by unicast, and most announce nothing. So the LAN is asked at
 * the moment at which the address is given out, and again while its endpoint is made and joined.
 */
import type { Address } from '../address.ts';
import { standbyMac } from './frames/mac.ts';
import {
  defenceFrame,
  makeNonce,
  membershipFrames,
  probeFrames,
  standbyFrame,
  unicastProbeFrame,
} from './frames/outgoing.ts';
import { type Sighting, isStandbyNotice } from './frames/sighting.ts';
import type { DetectionContext, DetectionSpec, StandbyTerms } from './detectionspec.ts';
import { DefenceLimit } from './pacer.ts';
import { Contenders, TieBreak } from './tiebreak.ts';
import { AskedAhead, CONFIRM_MS, FRESH_TIMINGS, LATE_MS, LATE_WAIT_MS, TIMINGS, type Timing, gapMs } from './timing.ts';
import { type Loss, NOT_HELD, type Verdict } from './verdict.ts';

/** A verdict that is due waits this long, again and again, while an answer is being judged. */
const JUDGEMENT_TICK_MS = 5;
/** More who answer for one address are an attack, and at least one of them has it. */
const MOST_JUDGED = 16;
/** Answers that were lost in a flood are asked for again so often; longer a flood must not keep a start waiting. */
const MOST_REPEATS = 3;
/**
 * Switches forget who wants a group's frames 260 s after the last report (RFC 3810 9.4), and this link does not answer
 * when they ask for reports.
 */
const MEMBERSHIP_MS = 120_000;
/** While this host's own containers still answer for an address that one of them leaves, it is asked for again so often, */
const HOST_CHECKS = 5;
/** after so long each time. */
const HOST_CHECK_MS = 1000;
/** A daemon that wants the address asks us again within a second or not at all. */
const MAKE_ROOM_MS = 5000;

type Judge = (macAddress: string) => Promise<boolean>;

/** What is learnt of the verdict before anybody reads it is no unhandled rejection. */
function newVerdict(): PromiseWithResolvers<Verdict> {
  const settle = Promise.withResolvers<Verdict>();
  settle.promise.catch(() => undefined);
  return settle;
}

/**
 * The life of one detection: asking, then guarding or on standby, then over; from standby it goes back to asking when a
 * container is to get the address. Its owner hands it every sighting of the address by hear(), and begins it by start().
 */
export class Detection {
  readonly address: Address;
  readonly #spec: DetectionSpec;
  readonly #context: DetectionContext;
  readonly #tieBreak: TieBreak;
  readonly #contenders: Contenders;
  /** Of our solicitations: 12 hexadecimal digits. */
  readonly #nonce: string;
  #settle = newVerdict();
  readonly #thorough: Timing;
  readonly #fresh: Timing;
  /** The procedure that applies: the thorough one, or the question at the moment at which an address on standby is given out. */
  #timing: Timing;
  /** Null while a container waits for the address or has it. */
  #standby: StandbyTerms | null;
  /** Who began to use the address while it was guarded. */
  #taker: string | null = null;
  #confirmations = 0;
  #phase: 'asking' | 'standby' | 'guarding' | 'over' = 'asking';
  /** Probes sent since asking began; 0 while an address on standby is only listened for. */
  #sent = 0;
  #sentAtMs = 0;
  #isInLine = false;
  /** The last question asked ahead; null before one, and when anybody was heard to use the address since. */
  #ahead: AskedAhead | null = null;
  /** It was listened longer since the last probe because the machine is busy. */
  #isProlonged = false;
  /** Frames lost before the last probe, and probes sent once more because others were lost since. */
  #lostBefore = 0;
  #repeats = 0;
  /** They answered, and are being asked whether they answer for every address. */
  readonly #judged = new Set<string>();
  /** How often in a row only links of this host answered. */
  #hostChecks = 0;
  readonly #defences: DefenceLimit;
  #cancelTimer: () => void = () => undefined;

  constructor(spec: DetectionSpec, context: DetectionContext) {
    this.address = spec.address;
    this.#spec = spec;
    this.#context = context;
    this.#tieBreak = new TieBreak(context.wire.macAddress, context.clock);
    this.#contenders = new Contenders(context.clock, spec.standby?.isGuess === true);
    this.#defences = new DefenceLimit(context.clock);
    this.#nonce = makeNonce(context.random);
    this.#thorough = TIMINGS[spec.profile][spec.address.family];
    this.#fresh = FRESH_TIMINGS[spec.profile][spec.address.family];
    this.#timing = this.#thorough;
    this.#standby = spec.standby ?? null;
  }

  /** Of what is asked at this moment, or was asked last. */
  get verdict(): Promise<Verdict> {
    return this.#settle.promise;
  }

  /** The name that the parent had when it began. */
  get parentName(): string {
    return this.#spec.parentName;
  }

  /** The verdict is not known yet. */
  get isAsking(): boolean {
    return this.#phase === 'asking';
  }

  /** A container has the address, or is about to get it. */
  get isGuarding(): boolean {
    return this.#phase === 'guarding';
  }

  /** It leaves neither guard nor standby behind when it is over. */
  get isPassing(): boolean {
    return this.#spec.guardMs === 0;
  }

  /** The address is kept for a container to come. */
  get isOnStandby(): boolean {
    return this.#phase === 'standby';
  }

  /** Asks, after the random wait that keeps hosts which start together apart. */
  start(): void {
    if (this.#standby?.isOurs) this.#stand();
    this.#askAnew();
  }

  /**
   * A container is to get the address, which is on standby: the LAN is asked at this moment, and `verdict` is about that.
   * False when the address is, or may be, lost, or this profile asks more; then only a detection of its own can tell.
   */
  grant(profile = this.#spec.profile): boolean {
    const isEnough = FRESH_TIMINGS[profile][this.address.family].probes <= this.#fresh.probes;
    // What came before counts before: a daemon that was already heard asking twice must get the address.
    this.#context.wire.drain();
    if (this.#phase !== 'standby' || this.#contenders.areAround() || !isEnough) return false;
    [this.#phase, this.#standby] = ['asking', null];
    this.#settle = newVerdict();
    this.#timing = this.#fresh;
    [this.#sent, this.#repeats] = [0, 0];
    this.#step();
    return true;
  }

  /**
   * A container is to get the address, which is just being asked for to be kept on standby: `verdict` is about the container from
   * here on. False when it is not, or not by this profile.
   */
  join(profile: DetectionSpec['profile']): boolean {
    if (this.#phase !== 'asking' || this.#standby === null || profile !== this.#spec.profile) return false;
    this.#standby = null;
    if (this.#isInLine) this.#probeInTurn();
    return true;
  }

  /**
   * A container may get the address soon, which is on standby: unless that was done just now, the LAN is asked at this moment, so
   * that a grant has no answer to wait for. Who answers has the address, and it is on standby no longer.
   */
  askAhead(): void {
    const { wire, clock } = this.#context;
    const nowMs = clock.nowMs();
    if (this.#phase !== 'standby' || this.#ahead?.isRecent(nowMs) === true || this.#contenders.areAround()) return;
    if (this.#fresh.probes > 1 || !wire.spare()) return;
    this.#ahead = new AskedAhead(nowMs, wire.lostFrames);
    this.#probe();
  }

  /**
   * Asks once more for an address that is guarded. Null when it is guarded no longer, though nobody took it. No container
   * of ours can speak for the address meanwhile, so whoever does is somebody else, whatever his MAC address.
   *
   * `twinMac`: of the endpoint that gets the address. Another Docker host makes the same from the same address, and hands its
   * containers what is sent to all by a queue (macvlan_broadcast_enqueue, drivers/net/macvlan.c), which a busy machine delays;
   * what is sent to the container alone passes that by.
   */
  async confirm(twinMac: string | null): Promise<Verdict | null> {
    const { wire } = this.#context;
    const waitMs = CONFIRM_MS[this.address.family];
    wire.drain();
    if (this.#phase === 'guarding') {
      this.#confirmations++;
      this.#repeats = 0;
      do {
        await this.#pause(wire.turn());
        this.#probe();
        this.#askTwin(twinMac);
        await this.#pause(waitMs);
        if (this.#isLate(waitMs)) await this.#pause(LATE_WAIT_MS);
        wire.drain();
      } while (this.#phase === 'guarding' && this.#isToRepeat());
      while (this.#judged.size > 0) await this.#pause(JUDGEMENT_TICK_MS);
      this.#confirmations--;
    }
    if (this.#taker !== null) return this.#held(this.#taker, 'used');
    return this.#phase === 'guarding' ? NOT_HELD : null;
  }

  /**
   * Something happened after which anybody may have the address. Whoever waits for the verdict waits for a new procedure;
   * what was found out before counts no more.
   */
  outdate(): void {
    if (this.#phase === 'asking') this.#askAnew();
    else this.#over();
  }

  /** A sighting of this address. */
  hear(sighting: Sighting): void {
    if (sighting.kind === 'use') this.#ahead = null;
    if (this.#phase === 'over' || this.#isOurs(sighting)) return;
    if (isStandbyNotice(sighting)) this.#hearStandby(sighting.macAddress);
    else if (sighting.kind === 'use') this.#hearUse(sighting);
    else if (this.#phase === 'asking') this.#hearRival(sighting.macAddress);
    else if (this.#phase === 'standby') this.#hearContender(sighting);
    else this.#defend(sighting);
  }

  /** Ends it; a verdict that is still awaited becomes `reason`. */
  end(reason: Error): void {
    this.#over();
    this.#settle.reject(reason);
  }

  #askAnew(): void {
    this.#timing = this.#thorough;
    [this.#sent, this.#repeats] = [0, 0];
    this.#in(this.#timing.firstWaitMs * this.#context.random(), () => this.#step());
  }

  #step(): void {
    // What came first counts first: a rival that reasserted itself while we were busy must not get another probe.
    this.#context.wire.drain();
    if (this.#phase !== 'asking' && this.#phase !== 'standby') return;
    if (this.#sent < this.#timing.probes) return this.#probeInTurn();
    const restMs = this.#restMs();
    if (restMs > 0) this.#in(restMs, () => this.#step());
    else if (!this.#isProlonged && this.#isLate(this.#timing.lastWaitMs)) this.#prolong();
    else if (this.#isToRepeat()) this.#probeInTurn();
    else this.#conclude();
  }

  #prolong(): void {
    this.#isProlonged = true;
    this.#in(LATE_WAIT_MS, () => this.#step());
  }

  /** The wait for the answers begins when the probe is really sent. Those that a container waits for go first. */
  #probeInTurn(): void {
    this.#cancelTimer();
    this.#isInLine = true;
    const callOff = this.#context.wire.inTurn(this.#standby === null, () => this.#probeNow());
    if (callOff !== null) this.#cancelTimer = callOff;
  }

  #probeNow(): void {
    this.#isInLine = false;
    this.#context.wire.drain();
    if (this.#phase !== 'asking' && this.#phase !== 'standby') return;
    // When one that was asked just before had no answer, nothing is waited for.
    const isFirst = this.#timing === this.#fresh && this.#sent === 0;
    if (isFirst) this.#timing = this.#ahead?.shorten(this.#fresh, this.#context) ?? this.#fresh;
    this.#sent = Math.min(this.#sent + 1, this.#timing.probes);
    this.#isProlonged = false;
    this.#probe();
    const restMs = this.#restMs();
    if (restMs > 0) this.#in(restMs, () => this.#step());
    else this.#step();
  }

  /** Until the next step. The last wait counts from the last frame, be it one of the timing or a reassertion. */
  #restMs(): number {
    if (this.#sent < this.#timing.probes) return gapMs(this.#timing, this.#context.random);
    return this.#sentAtMs + this.#timing.lastWaitMs - this.#context.clock.nowMs();
  }

  /** Since the last probe this process was not woken when it was to be: the machine is busy. */
  #isLate(waitMs: number): boolean {
    const { wire, clock } = this.#context;
    return wire.lateAtMs >= this.#sentAtMs || clock.nowMs() - this.#sentAtMs > waitMs + LATE_MS;
  }

  /** An answer may be among the frames that were lost since the last probe. */
  #isToRepeat(): boolean {
    return this.#context.wire.lostFrames > this.#lostBefore && this.#repeats++ < MOST_REPEATS;
  }

  async #pause(ms: number): Promise<void> {
    if (ms > 0) await new Promise<void>((resolve) => this.#context.clock.after(ms, resolve));
  }

  #probe(): void {
    const { wire, clock } = this.#context;
    this.#sentAtMs = clock.nowMs();
    this.#lostBefore = wire.lostFrames;
    for (const frame of probeFrames(this.address, wire.macAddress, this.#nonce)) wire.send(frame);
  }

  #askTwin(twinMac: string | null): void {
    const { wire } = this.#context;
    if (twinMac === null || twinMac === wire.macAddress || !wire.spare()) return;
    wire.send(unicastProbeFrame(this.address, wire.macAddress, twinMac, this.#nonce));
  }

  #isOurs(sighting: Sighting): boolean {
    const { macAddress, nonce } = sighting;
    const own = this.#context.wire.macAddress;
    return (
      macAddress === own ||
      (macAddress === standbyMac(own) && isStandbyNotice(sighting)) ||
      nonce === this.#nonce ||
      this.#standby?.isLeaver?.(macAddress) === true ||
      this.#spec.isOwn(macAddress, this.#phase === 'guarding' && this.#confirmations === 0)
    );
  }

  /** What a host says unasked is about itself; an answer may be given for others too. */
  #hearUse({ macAddress, isAnswer }: Sighting): void {
    const answersForAll = isAnswer ? this.#context.answersForAll : undefined;
    const isOfHost = (this.#phase === 'standby' && this.#standby?.isOfHost) || undefined;
    if (answersForAll === undefined && isOfHost === undefined) return this.#take(macAddress);
    if (this.#judged.has(macAddress)) return;
    if (this.#judged.size === MOST_JUDGED) return this.#take(macAddress);
    this.#judged.add(macAddress);
    const judgement = this.#isExcused(macAddress, answersForAll, isOfHost).catch(() => false);
    void judgement.then((isExcused) => {
      this.#judged.delete(macAddress);
      if (!isExcused) this.#take(macAddress);
    });
  }

  async #isExcused(macAddress: string, answersForAll?: Judge, isOfHost?: Judge): Promise<boolean> {
    // Both at once: a container that ends is soon not to be seen any more.
    const [isForAll, isHosts] = await Promise.all([answersForAll?.(macAddress), isOfHost?.(macAddress)]);
    if (isForAll === true) return true;
    if (isHosts !== true) return false;
    // Once a container is to get the address, whoever answers for it has it.
    if (this.#phase !== 'standby') return false;
    if (++this.#hostChecks > HOST_CHECKS) this.#over();
    else this.#rest(HOST_CHECK_MS);
    return true;
  }

  /** Somebody has the address. */
  #take(macAddress: string): void {
    if (this.#phase === 'guarding') {
      this.#taker = macAddress;
      this.#over();
      this.#spec.onLateConflict(macAddress);
    } else if (this.#phase !== 'over') this.#lose(macAddress, 'used');
  }

  #hearRival(macAddress: string): void {
    const response = this.#standby === null ? this.#tieBreak.hear(macAddress) : 'yield';
    if (response === 'yield') this.#lose(macAddress, 'wanted');
    else if (response === 'reassert') this.#reassert();
  }

  /**
   * Where this was to be the last probe, one more follows: whoever came while we stood still may keep the address by now
   * and lets go of it at the second, or have given it to a container, and that is heard only in time if we ask on. From
   * here on the thorough procedure applies.
   */
  #reassert(): void {
    const isFresh = this.#timing !== this.#thorough;
    const all = this.#thorough.probes;
    this.#timing = this.#thorough;
    // At once, and counted: the rule allows no waiting.
    this.#context.wire.turn();
    this.#probe();
    this.#sent = isFresh ? all - 1 : Math.min(this.#sent, all - 1);
    if (isFresh) this.#in(gapMs(this.#timing, this.#context.random), () => this.#step());
  }

  /** Another daemon has the address on standby, and lets go of it when it is needed. */
  #hearStandby(macAddress: string): void {
    if (this.#standby !== null) this.#lose(macAddress, 'used');
  }

  /** Another daemon is told once that the address is on standby; if it needs it all the same it asks on. */
  #hearContender({ macAddress, packet }: Sighting): void {
    if (this.#contenders.hear(macAddress) === 'yield') return this.#lose(macAddress, 'wanted');
    const { wire } = this.#context;
    if (wire.spare()) wire.send(standbyFrame(packet, this.address, wire.macAddress));
    // Not at once, as probes of ours would look like those of a rival; but then, for it may have got the address.
    this.#rest(MAKE_ROOM_MS);
  }

  #conclude(): void {
    if (this.#judged.size > 0) this.#in(JUDGEMENT_TICK_MS, () => this.#step());
    else if (this.#standby === null) this.#guard();
    else this.#stand();
  }

  #lose(macAddress: string, loss: Loss): void {
    if (this.#phase === 'standby') this.#over(loss, macAddress);
    else this.#over();
    this.#settle.resolve(this.#held(macAddress, loss));
  }

  #held(macAddress: string, loss: Loss): Verdict {
    const { parentName: linkName } = this.#spec;
    return { held: true, macAddress, linkName, simultaneous: loss === 'wanted', isOnHost: false };
  }

  #guard(): void {
    this.#phase = 'guarding';
    this.#settle.resolve(NOT_HELD);
    if (this.#spec.guardMs > 0) this.#in(this.#spec.guardMs, () => this.#over());
    else this.#over();
  }

  #stand(): void {
    this.#phase = 'standby';
    this.#hostChecks = 0;
    this.#settle.resolve(NOT_HELD);
    // Not all ask at once, when many are on standby since the same moment.
    this.#rest((this.#standby?.refreshMs ?? 0) * (0.9 + 0.1 * this.#context.random()));
  }

  /** Only listens for so long, and then asks again. */
  #rest(restMs: number): void {
    [this.#sent, this.#repeats] = [0, 0];
    const { wire } = this.#context;
    const memberships = membershipFrames(this.address, wire.macAddress);
    if (memberships.length === 0 || restMs <= MEMBERSHIP_MS) return this.#in(restMs, () => this.#step());
    this.#in(MEMBERSHIP_MS, () => {
      for (const frame of memberships) wire.send(frame);
      this.#rest(restMs - MEMBERSHIP_MS);
    });
  }

  #defend({ packet }: Sighting): void {
    const { wire, clock } = this.#context;
    if (!this.#defences.allows()) return;
    const frame = defenceFrame(packet, this.address, wire.macAddress);
    if (!this.#defences.isAssured()) {
      if (wire.spare()) wire.send(frame);
      return;
    }
    const waitMs = wire.turn();
    if (waitMs === 0) wire.send(frame);
    else clock.after(waitMs, () => this.#phase === 'guarding' && wire.send(frame));
  }

  #over(loss: Loss = 'ended', by: string | null = null): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#cancelTimer();
    this.#spec.onOver(loss, by);
  }

  #in(delayMs: number, run: () => void): void {
    this.#cancelTimer();
    // Sending can fail and so end it.
    if (this.#phase === 'over') return;
    this.#cancelTimer = this.#context.clock.after(delayMs, run);
  }
}
