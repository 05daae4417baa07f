/**
 * How a MAC address gets an address of the LAN's DHCPv6 server, and keeps it (RFC 8415 18.2): SOLICIT, ADVERTISE, REQUEST, REPLY; beside
 * the last two the LAN is asked whether somebody has the address, which then is declined.
 *
 * The RFC's second before the first SOLICIT is left out, since one container is no power cut. Of several servers the one of the
 * highest preference is waited for a third of a second, and not a whole one, as a container waits meanwhile.
 */
import { type Address, formatAddress, isSameAddress } from '../../address.ts';
import { type Dhcp6Answer, type Dhcp6Request, encodeDhcp6 } from '../frames/dhcp6.ts';
import type { HeldVerdict, Verdict } from '../verdict.ts';
import { type DhcpAsker, type ExchangeContext, exchange } from './question.ts';
import { type Lasting, type LeaseVoice, type LeaseWord, RENEWAL_AT_MS } from './renewal.ts';

/** An IPv6 address of this LAN's server, for a time. */
export interface Dhcp6Lease extends Lasting {
  readonly address: Address;
  /** Its DUID in hexadecimal digits. */
  readonly server: string;
}

/** Who wants an address, and which. */
export interface Acquisition6Spec extends DhcpAsker {
  readonly wish: Address | null;
  /** No other address will do. */
  readonly isStrict: boolean;
  /** When it is given up, by the clock. */
  readonly untilMs: number;
}

/** What it works with. */
export interface Acquisition6Context extends ExchangeContext<Dhcp6Answer> {
  /** Asks the LAN who has what a server offers, until the signal fires; null where the asker itself uses the address. */
  readonly check: ((offered: Dhcp6Lease, signal: AbortSignal) => Promise<Verdict>) | null;
  /** Told of each address that is declined. */
  readonly onDecline?: (offered: Dhcp6Lease, holder: HeldVerdict) => void;
}

/** What comes of it. */
export type Acquired6 =
  | { readonly kind: 'lease'; readonly lease: Dhcp6Lease }
  /** No server answered. */
  | { readonly kind: 'silent' }
  /** A server has no address for it. */
  | { readonly kind: 'refused'; readonly message: string | null }
  /** So many addresses that others use, this one at last. */
  | { readonly kind: 'used'; readonly count: number; readonly offered: Dhcp6Lease; readonly holder: HeldVerdict };

/** RFC 8415 15 and 7.6: each time twice as long, up to 0.3 s sooner or later, so that clients do not keep step. */
const SOLICIT_AT_MS = [0, 1000, 3000, 7000, 15_000];
const JITTER_MS = 300;
const REQUEST_AT_MS = [0, 1000];
const REQUEST_FOR_MS = 3000;
const BETTER_MS = 300;
/** After a server without an address: another one may have some. */
const OTHERS_MS = 2000;
const HIGHEST_PREFERENCE = 255;
const MOST_REFUSALS = 3;
const MOST_DECLINED = 3;

/** Throws what `check` throws, and the signal's reason when it is aborted. */
export function acquire6(spec: Acquisition6Spec, context: Acquisition6Context): Promise<Acquired6> {
  return new Acquisition6(spec, context).run();
}

interface Offer {
  readonly lease: Dhcp6Lease;
  readonly preference: number;
}

class Acquisition6 {
  readonly #spec: Acquisition6Spec;
  readonly #context: Acquisition6Context;
  readonly #beganMs: number;
  /** What servers offered and others use. */
  readonly #declined = new Set<string>();
  /** What is told if the time is over. */
  #outcome: Acquired6 = { kind: 'silent' };
  #wish: Address | null;
  #refusals = 0;

  constructor(spec: Acquisition6Spec, context: Acquisition6Context) {
    this.#spec = spec;
    this.#context = context;
    this.#beganMs = context.clock.nowMs();
    this.#wish = spec.wish;
  }

  async run(): Promise<Acquired6> {
    for (;;) {
      const offered = await this.#solicit();
      if (offered === undefined) return this.#outcome;
      const end = await this.#take(offered);
      if (end !== undefined) return end;
    }
  }

  /** The best offer, as RFC 8415 18.2.9 has it. Only one is kept, however many come. */
  #solicit(): Promise<Dhcp6Lease | undefined> {
    const { clock, random } = this.#context;
    let best: Offer | undefined;
    const stopsWaiting: (() => void)[] = [];
    return this.#ask<Dhcp6Lease | undefined>({
      atMs: SOLICIT_AT_MS.map((atMs) => (atMs === 0 ? 0 : atMs + (2 * random() - 1) * JITTER_MS)),
      forMs: this.#leftMs,
      say: () => ({ kind: 'SOLICIT', wish: this.#wish }),
      hear: (answer, settle) => {
        if (answer.kind !== 'ADVERTISE') return;
        const lease = this.#offerIn(answer);
        // RFC 8415 18.2.9: one without an address is no offer; another server may have one.
        if (lease === undefined) {
          if (this.#note(answer)) stopsWaiting.push(clock.after(OTHERS_MS, () => settle(best?.lease)));
          return;
        }
        const { preference } = answer;
        if (preference === HIGHEST_PREFERENCE || this.#isWished(lease.address)) return settle(lease);
        if (best === undefined) stopsWaiting.push(clock.after(BETTER_MS, () => settle(best?.lease)));
        if (best === undefined || preference > best.preference) best = { lease, preference };
      },
    }).finally(() => {
      for (const stopWaiting of stopsWaiting) stopWaiting();
    });
  }

  #offerIn(answer: Dhcp6Answer): Dhcp6Lease | undefined {
    const usable = answer.addresses.filter(
      ({ address, validSeconds }) => validSeconds > 0 && !this.#declined.has(formatAddress(address)),
    );
    const wished = usable.find(({ address }) => this.#isWished(address));
    const chosen = wished ?? (this.#spec.isStrict ? undefined : usable[0]);
    return chosen && leaseIn6(answer, chosen.address);
  }

  /** True for the first that says so. */
  #note({ failure }: Dhcp6Answer): boolean {
    if (this.#outcome.kind !== 'silent') return false;
    this.#outcome = { kind: 'refused', message: failure?.message ?? null };
    return true;
  }

  /** Undefined when it has to begin again. */
  async #take(offered: Dhcp6Lease): Promise<Acquired6 | undefined> {
    const stop = new AbortController();
    const { check, signal } = this.#context;
    const signals = signal === undefined ? [stop.signal] : [stop.signal, signal];
    const checking = check?.(offered, AbortSignal.any(signals));
    checking?.catch(() => undefined);
    try {
      const answer = await this.#request(offered);
      const lease = answer && leaseIn6(answer, offered.address);
      if (lease === undefined) return this.#refused(answer);
      const verdict = await checking;
      return verdict?.held === true ? this.#decline(lease, verdict) : { kind: 'lease', lease };
    } catch (error) {
      // Nobody takes what the server has given, or is about to give; a container that has the address already keeps it.
      if (check !== null) this.#tell('RELEASE', offered);
      throw error;
    } finally {
      stop.abort();
    }
  }

  #request({ address, server }: Dhcp6Lease): Promise<Dhcp6Answer | undefined> {
    return this.#ask<Dhcp6Answer>({
      atMs: REQUEST_AT_MS,
      forMs: Math.min(REQUEST_FOR_MS, this.#leftMs),
      say: () => ({ kind: 'REQUEST', address, server }),
      hear: (answer, settle) => {
        // Another server's word is about its own offer.
        if (answer.kind === 'REPLY' && answer.server === server) settle(answer);
      },
    });
  }

  #refused(answer: Dhcp6Answer | undefined): Acquired6 | undefined {
    if (answer !== undefined) this.#outcome = { kind: 'refused', message: answer.failure?.message ?? null };
    if (++this.#refusals >= MOST_REFUSALS || this.#leftMs <= 0) return this.#outcome;
    if (!this.#spec.isStrict) this.#wish = null;
    return undefined;
  }

  /** The next SOLICIT gets another address. */
  #decline(offered: Dhcp6Lease, holder: HeldVerdict): Acquired6 | undefined {
    this.#tell('DECLINE', offered);
    this.#context.onDecline?.(offered, holder);
    this.#declined.add(formatAddress(offered.address));
    this.#outcome = { kind: 'used', count: this.#declined.size, offered, holder };
    if (this.#spec.isStrict || this.#declined.size >= MOST_DECLINED) return this.#outcome;
    this.#wish = null;
    return undefined;
  }

  /** Nobody waits for the server's word about it. */
  #tell(kind: 'DECLINE' | 'RELEASE', { address, server }: Dhcp6Lease): void {
    const { wire, random } = this.#context;
    wire.send(encodeDhcp6({ ...this.#who(), xid: makeXid6(random), kind, address, server }));
  }

  #ask<T>(question: Pick<Question6<T>, 'atMs' | 'forMs' | 'say' | 'hear'>): Promise<T | undefined> {
    return ask6(this.#context, { ...question, who: () => this.#who() });
  }

  #isWished(address: Address): boolean {
    return this.#wish !== null && isSameAddress(this.#wish, address);
  }

  #who() {
    const { macAddress, hostname } = this.#spec;
    return { macAddress, hostname, elapsedMs: this.#context.clock.nowMs() - this.#beganMs };
  }

  get #leftMs(): number {
    return Math.max(0, this.#spec.untilMs - this.#context.clock.nowMs());
  }
}

/** A request without what a question itself knows. */
type Said6 = Dhcp6Request extends infer Request
  ? Request extends Dhcp6Request
    ? Omit<Request, 'xid' | 'macAddress' | 'hostname' | 'elapsedMs'>
    : never
  : never;

interface Question6<T> {
  readonly atMs: readonly number[];
  readonly forMs: number;
  readonly who: () => DhcpAsker & { readonly elapsedMs: number };
  readonly say: () => Said6;
  readonly hear: (answer: Dhcp6Answer, settle: (result: T) => void) => void;
}

function ask6<T>(context: ExchangeContext<Dhcp6Answer>, question: Question6<T>): Promise<T | undefined> {
  const { atMs, forMs, who, say, hear } = question;
  const xid = makeXid6(context.random);
  const frame = () => encodeDhcp6({ ...who(), ...say(), xid });
  return exchange<Dhcp6Answer, T>(context, { macAddress: who().macAddress, xid, atMs, forMs, frame, hear });
}

/** An xid that nobody else on the LAN is likely to use. */
export function makeXid6(random: () => number): number {
  return Math.floor(random() * 2 ** 24);
}

/** What the answer gives of this address; undefined for nothing. Where the server leaves T1 and T2 to the client: RFC 8415 18.2.4. */
function leaseIn6(answer: Dhcp6Answer, address: Address): Dhcp6Lease | undefined {
  const given = answer.addresses.find((one) => isSameAddress(one.address, address));
  if (given === undefined || given.validSeconds === 0) return undefined;
  const { preferredSeconds, validSeconds } = given;
  // One that is not preferred from the first is renewed by its end.
  const until = preferredSeconds || validSeconds;
  return {
    address,
    server: answer.server,
    leaseSeconds: validSeconds,
    t1Seconds: answer.t1Seconds ?? Math.floor(until * 0.5),
    t2Seconds: answer.t2Seconds ?? Math.floor(until * 0.8),
  };
}

/** NoAddrsAvail, NoBinding, NotOnLink (RFC 8415 21.13), or no failure and no address. */
function isFinal({ failure }: Dhcp6Answer): boolean {
  return failure === null || [2, 3, 4].includes(failure.code);
}

/** How DHCPv6 servers are asked for an address that a container has. */
export class Voice6 implements LeaseVoice<Dhcp6Lease> {
  readonly #asker: DhcpAsker;
  readonly #context: ExchangeContext<Dhcp6Answer>;

  constructor(asker: DhcpAsker, context: ExchangeContext<Dhcp6Answer>) {
    [this.#asker, this.#context] = [asker, context];
  }

  async renew(
    kind: 'RENEW' | 'REBIND',
    { address, server }: Dhcp6Lease,
    forMs: number,
  ): Promise<LeaseWord<Dhcp6Lease>> {
    const { clock } = this.#context;
    const beganMs = clock.nowMs();
    const word = await ask6<LeaseWord<Dhcp6Lease>>(this.#context, {
      atMs: RENEWAL_AT_MS,
      forMs,
      who: () => ({ ...this.#asker, elapsedMs: clock.nowMs() - beganMs }),
      say: () => (kind === 'RENEW' ? { kind, address, server } : { kind, address }),
      hear: (answer, settle) => {
        if (answer.kind !== 'REPLY' || (kind === 'RENEW' && answer.server !== server)) return;
        const lease = leaseIn6(answer, address);
        if (lease !== undefined) settle({ lease });
        // Of others than its own server only a lease counts; what fails for a moment is asked for again.
        else if (kind === 'RENEW' && isFinal(answer)) settle('refused');
      },
    });
    return word ?? 'silent';
  }

  /** Nobody is asked whether somebody has the address: the container has. */
  async regain({ address }: Dhcp6Lease, forMs: number): Promise<LeaseWord<Dhcp6Lease>> {
    const untilMs = this.#context.clock.nowMs() + forMs;
    const spec = { ...this.#asker, wish: address, isStrict: true, untilMs };
    const acquired = await acquire6(spec, { ...this.#context, check: null });
    if (acquired.kind === 'lease') return acquired;
    return acquired.kind === 'silent' ? 'silent' : 'refused';
  }
}
