/**
 * How a MAC address gets an address of the LAN's DHCP server (RFC 2131 4.4.1): DISCOVER, an offer, REQUEST, its
 * acknowledgement; and beside the last two the LAN is asked whether somebody has the address, which then is declined.
 *
 * The RFC's 1 to 10 s before the first DISCOVER are left out, since one container is no power cut, and so are the 10 s after a
 * DECLINE: there are three at most.
 */
import { type Address, formatAddress, isSameAddress } from '../../address.ts';
import { type DhcpServer, encodeDhcp } from '../frames/dhcp.ts';
import type { HeldVerdict, Verdict } from '../verdict.ts';
import {
  type DhcpAsker,
  type DhcpContext,
  type DhcpLease,
  ask,
  leaseOf,
  makeXid,
  pause,
  verdictOn,
} from './question.ts';

/** Who wants an address, and which. */
export interface AcquisitionSpec extends DhcpAsker {
  /** The address that is asked for; null for any. */
  readonly wish: Address | null;
  /** No other address will do. */
  readonly isStrict: boolean;
  /** When it is given up, by the clock. */
  readonly untilMs: number;
}

/** What it works with. */
export interface AcquisitionContext extends DhcpContext {
  /** Asks the LAN who has what a server offers, until the signal fires; null where the asker itself uses the address. */
  readonly check: ((offered: DhcpLease, signal: AbortSignal) => Promise<Verdict>) | null;
  /** Told of each address that is declined. */
  readonly onDecline?: (offered: DhcpLease, holder: HeldVerdict) => void;
}

/** What comes of it. */
export type Acquired =
  | { readonly kind: 'lease'; readonly lease: DhcpLease }
  /** No server answered. */
  | { readonly kind: 'silent' }
  /** A server offered, and then refused. */
  | { readonly kind: 'refused'; readonly server: DhcpServer; readonly message: string | null }
  /** Only another address than the one that alone will do. */
  | { readonly kind: 'other'; readonly offered: DhcpLease }
  /** So many addresses that others use, this one at last. */
  | { readonly kind: 'used'; readonly count: number; readonly offered: DhcpLease; readonly holder: HeldVerdict };

/** RFC 2131 4.1, from the first on; each but that is sent up to 0.3 s sooner or later, so that clients do not keep step. */
const DISCOVER_AT_MS = [0, 2000, 5000, 11_000, 18_000];
const JITTER_MS = 300;
/** The server has just spoken: it answers soon, or this exchange is lost. */
const REQUEST_AT_MS = [0, 1000];
const REQUEST_FOR_MS = 3000;
/** So long a better offer is waited for where an address is wished for. */
const BETTER_MS = 300;
/** Before it begins again after a refusal: a server that always refuses must not be asked on and on. */
const AGAIN_MS = 1000;
const MOST_REFUSALS = 3;
const MOST_DECLINED = 3;

/** Throws what `check` throws, and the signal's reason when it is aborted. */
export function acquire(spec: AcquisitionSpec, context: AcquisitionContext): Promise<Acquired> {
  return new Acquisition(spec, context).run();
}

/** What the first server that answers would give; undefined when none does in time. Nothing is asked of it: the offer lapses. */
export function firstOffer(
  { macAddress, hostname, untilMs }: Pick<AcquisitionSpec, 'macAddress' | 'hostname' | 'untilMs'>,
  context: DhcpContext,
): Promise<DhcpLease | undefined> {
  const beganMs = context.clock.nowMs();
  return ask<DhcpLease>(context, {
    macAddress,
    xid: makeXid(context.random),
    atMs: DISCOVER_AT_MS,
    forMs: Math.max(0, untilMs - beganMs),
    say: () => {
      const seconds = Math.floor((context.clock.nowMs() - beganMs) / 1000);
      return { kind: 'DISCOVER', macAddress, hostname, seconds, wish: null };
    },
    hear: (answer, settle) => {
      if (answer.kind === 'OFFER') settle(leaseOf(answer.terms, answer.server));
    },
  });
}

/** One asker's way to a lease. */
class Acquisition {
  readonly #spec: AcquisitionSpec;
  readonly #context: AcquisitionContext;
  readonly #beganMs: number;
  /** What servers offered and others use. */
  readonly #declined = new Set<string>();
  /** What is told if the time is over. */
  #outcome: Acquired = { kind: 'silent' };
  #wish: Address | null;
  #refusals = 0;

  constructor(spec: AcquisitionSpec, context: AcquisitionContext) {
    this.#spec = spec;
    this.#context = context;
    this.#beganMs = context.clock.nowMs();
    this.#wish = spec.wish;
  }

  async run(): Promise<Acquired> {
    for (;;) {
      const xid = makeXid(this.#context.random);
      const offered = await this.#discover(xid);
      if (offered === undefined) return this.#outcome;
      if (this.#spec.isStrict && !this.#isWished(offered.address)) return { kind: 'other', offered };
      const end = await this.#take(offered, xid);
      if (end !== undefined) return end;
    }
  }

  /** The first offer, or that of the wish if it comes soon after it. Only one is kept, however many come. */
  #discover(xid: number): Promise<DhcpLease | undefined> {
    const { clock, random } = this.#context;
    let first: DhcpLease | undefined;
    let stopWaiting = () => {};
    return ask<DhcpLease>(this.#context, {
      ...this.#spec,
      xid,
      atMs: DISCOVER_AT_MS.map((atMs) => (atMs === 0 ? 0 : atMs + (2 * random() - 1) * JITTER_MS)),
      forMs: this.#leftMs,
      say: () => ({ ...this.#who(), kind: 'DISCOVER', wish: this.#wish }),
      hear: (answer, settle) => {
        if (answer.kind !== 'OFFER' || this.#declined.has(formatAddress(answer.terms.address))) return;
        const offered = leaseOf(answer.terms, answer.server);
        if (this.#wish === null || this.#isWished(offered.address)) return settle(offered);
        if (first !== undefined) return;
        first = offered;
        stopWaiting = clock.after(BETTER_MS, () => settle(offered));
      },
    }).finally(() => stopWaiting());
  }

  /** Undefined when it has to begin again. */
  async #take(offered: DhcpLease, xid: number): Promise<Acquired | undefined> {
    const stop = new AbortController();
    const { wire, check, signal } = this.#context;
    const signals = signal === undefined ? [stop.signal] : [stop.signal, signal];
    const checking = check?.(offered, AbortSignal.any(signals));
    checking?.catch(() => undefined);
    try {
      const word = await this.#request(offered, xid);
      if (word === undefined) return undefined;
      if ('refusedBy' in word) return await this.#refused(word.refusedBy, word.message);
      const verdict = await checking;
      return verdict?.held === true ? this.#decline(word.lease, verdict, xid) : { kind: 'lease', lease: word.lease };
    } catch (error) {
      const { address, server } = offered;
      // Nobody takes what the server has given, or is about to give; a container that has the address already keeps it.
      if (check !== null) wire.send(encodeDhcp({ ...this.#who(), xid, kind: 'RELEASE', address, server }));
      throw error;
    } finally {
      stop.abort();
    }
  }

  #request({ address, server }: DhcpLease, xid: number) {
    return ask<NonNullable<ReturnType<typeof verdictOn>>>(this.#context, {
      ...this.#spec,
      xid,
      atMs: REQUEST_AT_MS,
      forMs: Math.min(REQUEST_FOR_MS, this.#leftMs),
      say: () => ({ ...this.#who(), kind: 'REQUEST', address, server }),
      hear: (answer, settle) => {
        // Another server's word is about its own offer.
        if (!isSameAddress(answer.server.address, server.address)) return;
        const word = verdictOn(answer, address);
        if (word !== undefined) settle(word);
      },
    });
  }

  /** What was wished for may be what is refused: the next time anything will do, if it may. */
  async #refused(server: DhcpServer, message: string | null): Promise<Acquired | undefined> {
    this.#outcome = { kind: 'refused', server, message };
    if (++this.#refusals >= MOST_REFUSALS) return this.#outcome;
    if (!this.#spec.isStrict) this.#wish = null;
    await pause(this.#context, Math.min(AGAIN_MS, this.#leftMs));
    return undefined;
  }

  #decline(offered: DhcpLease, holder: HeldVerdict, xid: number): Acquired | undefined {
    const { address, server } = offered;
    const { wire, onDecline } = this.#context;
    wire.send(encodeDhcp({ ...this.#who(), xid, kind: 'DECLINE', address, server }));
    onDecline?.(offered, holder);
    this.#declined.add(formatAddress(address));
    this.#outcome = { kind: 'used', count: this.#declined.size, offered, holder };
    if (this.#spec.isStrict || this.#declined.size >= MOST_DECLINED) return this.#outcome;
    this.#wish = null;
    return undefined;
  }

  #isWished(address: Address): boolean {
    return this.#wish !== null && isSameAddress(this.#wish, address);
  }

  #who() {
    const { macAddress, hostname } = this.#spec;
    const seconds = Math.floor((this.#context.clock.nowMs() - this.#beganMs) / 1000);
    return { macAddress, hostname, seconds };
  }

  get #leftMs(): number {
    return Math.max(0, this.#spec.untilMs - this.#context.clock.nowMs());
  }
}
