/**
 * How a lease is kept while a container has it (RFC 2131 4.4.5): its server is asked at T1, any server from T2 on, and both
 * again at half of the time that is left.
 *
 * A server that lost its leases says nothing to such a request, or refuses it; to a DISCOVER that wishes for the address most give
 * it again, also while it is in use. So that is tried before the lease ends. What cannot be kept is told, and asked for
 * on and on: nobody can change the address of a container from here.
 */
import { isSameAddress } from '../../address.ts';
import type { Clock } from '../../clock.ts';
import type { LeaseLoss } from '../../model.ts';
import { NEVER_ENDS_SECONDS } from '../frames/dhcp.ts';
import { type Acquired, acquire } from './acquisition.ts';
import { type DhcpAsker, type DhcpContext, type DhcpLease, ask, makeXid, pause, verdictOn } from './question.ts';

/** A lease, and when it was got by the wall clock, in milliseconds. */
export interface Dated<Lease> {
  readonly lease: Lease;
  readonly obtainedMs: number;
}

export type DatedLease = Dated<DhcpLease>;

/** What renewals work with. */
export type RenewalContext = DhcpContext & Keeping<DhcpLease>;

/** Of either family: the clocks, and who is told. */
export interface Keeping<Lease> {
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  /** The wall clock, in milliseconds. */
  readonly wallMs: () => number;
  readonly signal: AbortSignal;
  /** It was renewed, also after it was lost. */
  readonly onKept: (kept: Dated<Lease>) => void;
  /** Told once for each time that it is lost. */
  readonly onLost: (loss: LeaseLoss) => void;
}

/** How long a lease of either family lasts. */
export interface Lasting {
  readonly leaseSeconds: number;
  /** When the server wants to be asked again, and when any may be; null where it does not say. */
  readonly t1Seconds: number | null;
  readonly t2Seconds: number | null;
}

/** How servers of either family are asked for a lease that a container has. Each ends when the context's signal fires. */
export interface LeaseVoice<Lease> {
  /** Its server, or any. */
  renew(kind: 'RENEW' | 'REBIND', lease: Lease, forMs: number): Promise<LeaseWord<Lease>>;
  /** As one that comes to the LAN, and only the address that the container has will do. */
  regain(lease: Lease, forMs: number): Promise<LeaseWord<Lease>>;
}

/** What they say. */
export type LeaseWord<Lease> = { readonly lease: Lease } | 'refused' | 'silent';

interface Span {
  readonly t1Ms: number;
  readonly t2Ms: number;
  readonly endMs: number;
}

/** T1 is moved by up to so much of itself, so that containers that started together do not renew together. */
const JITTER = 0.1;
/** What is due already at a start is spread over this. */
const SPREAD_MS = 2000;
/** Sent twice, as a frame may get lost. */
export const RENEWAL_AT_MS = [0, 2000];
const LONGEST_ANSWER_MS = 4000;
const SHORTEST_ANSWER_MS = 500;
/** RFC 2131 4.4.5: a minute at least; leases of less than ten have no time for that. */
const LEAST_PAUSE_MS = 60_000;
const LEAST_PAUSE_OF_SHORT_MS = 10_000;
const SHORT_MS = 600_000;
/** The clocks are looked at as often: a host that slept finds its leases older than it counted. */
const LONGEST_SLEEP_MS = 600_000;
/** Each renewal is a write to the disk: a server that wants one each second, of each container, gets one in five. */
const LEAST_T1_MS = 5000;
const REFUSED_AGAIN_MS = 10_000;
const LEAST_REFUSED_AGAIN_MS = 1000;
const LOST_AGAIN_MS = 60_000;

/** Until the signal fires, whose reason is thrown then. */
export function keepLease(asker: DhcpAsker, dated: DatedLease, context: RenewalContext): Promise<never> {
  return keepWith(new Voice(asker, context), dated, context);
}

/** The same for a lease of either family. */
export function keepWith<Lease extends Lasting>(
  voice: LeaseVoice<Lease>,
  dated: Dated<Lease>,
  keeping: Keeping<Lease>,
): Promise<never> {
  return new Renewal(voice, dated, keeping).run();
}

class Renewal<Lease extends Lasting> {
  readonly #voice: LeaseVoice<Lease>;
  readonly #context: Keeping<Lease>;
  #lease: Lease;
  #span: Span;
  #obtainedMs: number;
  /** By the other clock; the lease is as old as the one says that runs ahead. */
  #heldSinceMs: number;

  constructor(voice: LeaseVoice<Lease>, { lease, obtainedMs }: Dated<Lease>, context: Keeping<Lease>) {
    this.#voice = voice;
    this.#context = context;
    this.#lease = lease;
    this.#span = spanOf(lease);
    this.#obtainedMs = obtainedMs;
    const ageMs = context.wallMs() - obtainedMs;
    // A lease from the future was got before the clock was set back: nobody knows how old it is.
    const unknownMs = Number.isFinite(this.#span.t1Ms) ? this.#span.t1Ms : 0;
    this.#heldSinceMs = context.clock.nowMs() - (ageMs < 0 ? unknownMs : ageMs);
  }

  async run(): Promise<never> {
    const { random } = this.#context;
    if (this.#ageMs() >= this.#span.t1Ms) await this.#pause(random() * SPREAD_MS);
    for (;;) {
      const { t1Ms, t2Ms } = this.#span;
      await this.#untilAge(Math.min(t1Ms * (1 + JITTER * (2 * random() - 1)), t2Ms));
      await this.#renew();
    }
  }

  /** Returns when the lease is kept. */
  async #renew(): Promise<void> {
    const { t2Ms, endMs } = this.#span;
    for (let ageMs = this.#ageMs(); ageMs < endMs; ageMs = this.#ageMs()) {
      const [isLate, untilMs] = ageMs < t2Ms ? [false, t2Ms] : [true, endMs];
      if (await this.#settle(await this.#ask(isLate ? 'REBIND' : 'RENEW', untilMs))) return;
      // Whoever forgot it knows nothing to renew, but gives it again to one who wishes for it.
      if (isLate && (await this.#settle(await this.#discover()))) return;
      await this.#untilAge(this.#nextAgeMs(untilMs));
    }
    await this.#insist('silent');
  }

  /** True when the lease is kept. */
  async #settle(word: LeaseWord<Lease>): Promise<boolean> {
    if (word === 'silent') return false;
    if (word !== 'refused') this.#keep(word.lease);
    else await this.#regain();
    return true;
  }

  /** After a refusal; returns when the lease is kept. */
  async #regain(): Promise<void> {
    for (let attempt = 0; attempt < 2; attempt++) {
      if (attempt > 0) await this.#pause(this.#shareMs(this.#span.endMs, LEAST_REFUSED_AGAIN_MS, REFUSED_AGAIN_MS));
      const word = await this.#discover();
      if (typeof word === 'object') return this.#keep(word.lease);
    }
    await this.#insist('refused');
  }

  /** The container goes on with the address when it is lost, so it is asked for until a server gives it. */
  async #insist(loss: LeaseLoss): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const word = await this.#discover();
      if (typeof word === 'object') return this.#keep(word.lease);
      if (attempt === 0) this.#context.onLost(loss);
      await this.#pause(LOST_AGAIN_MS);
    }
  }

  #keep(lease: Lease): void {
    const { clock, wallMs, onKept } = this.#context;
    this.#lease = lease;
    this.#span = spanOf(lease);
    [this.#obtainedMs, this.#heldSinceMs] = [wallMs(), clock.nowMs()];
    onKept({ lease, obtainedMs: this.#obtainedMs });
  }

  #ask(kind: 'RENEW' | 'REBIND', untilAgeMs: number): Promise<LeaseWord<Lease>> {
    return this.#voice.renew(kind, this.#lease, this.#shareMs(untilAgeMs, SHORTEST_ANSWER_MS, LONGEST_ANSWER_MS));
  }

  /** A quarter of the time until that age: what fails is tried once more before it. */
  #shareMs(untilAgeMs: number, leastMs: number, mostMs: number): number {
    return Math.min(Math.max((untilAgeMs - this.#ageMs()) / 4, leastMs), mostMs);
  }

  #discover(): Promise<LeaseWord<Lease>> {
    return this.#voice.regain(this.#lease, LONGEST_ANSWER_MS);
  }

  #nextAgeMs(untilAgeMs: number): number {
    const least = this.#span.endMs < SHORT_MS ? LEAST_PAUSE_OF_SHORT_MS : LEAST_PAUSE_MS;
    const ageMs = this.#ageMs();
    return Math.min(untilAgeMs, ageMs + Math.max((untilAgeMs - ageMs) / 2, least));
  }

  #ageMs(): number {
    const { clock, wallMs } = this.#context;
    return Math.max(clock.nowMs() - this.#heldSinceMs, wallMs() - this.#obtainedMs);
  }

  async #untilAge(ageMs: number): Promise<void> {
    for (let leftMs = ageMs - this.#ageMs(); leftMs > 0; leftMs = ageMs - this.#ageMs())
      await this.#pause(Math.min(leftMs, LONGEST_SLEEP_MS));
  }

  #pause(delayMs: number): Promise<void> {
    return pause(this.#context, delayMs);
  }
}

/** How servers of IPv4 are asked. */
class Voice implements LeaseVoice<DhcpLease> {
  readonly #asker: DhcpAsker;
  readonly #context: RenewalContext;

  constructor(asker: DhcpAsker, context: RenewalContext) {
    [this.#asker, this.#context] = [asker, context];
  }

  async renew(kind: 'RENEW' | 'REBIND', { address, server }: DhcpLease, forMs: number): Promise<LeaseWord<DhcpLease>> {
    const { clock, random } = this.#context;
    const beganMs = clock.nowMs();
    const seconds = () => Math.floor((clock.nowMs() - beganMs) / 1000);
    const word = await ask<NonNullable<ReturnType<typeof verdictOn>>>(this.#context, {
      ...this.#asker,
      xid: makeXid(random),
      atMs: RENEWAL_AT_MS,
      forMs,
      say: () => ({ ...this.#asker, seconds: seconds(), kind, address, server }),
      hear: (answer, settle) => {
        const said = verdictOn(answer, address);
        if (said !== undefined) settle(said);
      },
    });
    return word === undefined ? 'silent' : 'lease' in word ? { lease: word.lease } : 'refused';
  }

  /** Nobody is asked whether somebody has the address: the container has. */
  async regain({ address }: DhcpLease, forMs: number): Promise<LeaseWord<DhcpLease>> {
    const untilMs = this.#context.clock.nowMs() + forMs;
    const spec = { ...this.#asker, wish: address, isStrict: true, untilMs };
    const acquired: Acquired = await acquire(spec, { ...this.#context, check: null });
    if (acquired.kind === 'lease') return isSameAddress(acquired.lease.address, address) ? acquired : 'refused';
    return acquired.kind === 'silent' ? 'silent' : 'refused';
  }
}

/** Times that make no sense are those that the RFC has for a server that does not say them. */
function spanOf({ leaseSeconds, t1Seconds, t2Seconds }: Lasting): Span {
  if (leaseSeconds === NEVER_ENDS_SECONDS) {
    const never = Number.POSITIVE_INFINITY;
    return { t1Ms: never, t2Ms: never, endMs: never };
  }
  const usual = { t1: leaseSeconds / 2, t2: leaseSeconds * 0.875 };
  const said = { t1: t1Seconds ?? usual.t1, t2: t2Seconds ?? usual.t2 };
  const { t1, t2 } = said.t1 > 0 && said.t1 <= said.t2 && said.t2 <= leaseSeconds ? said : usual;
  const t1Ms = Math.max(t1 * 1000, LEAST_T1_MS);
  return { t1Ms, t2Ms: Math.max(t2 * 1000, t1Ms), endMs: Math.max(leaseSeconds * 1000, t1Ms) };
}
