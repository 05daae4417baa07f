/** One question to DHCP servers: sent again and again until an answer settles it, or the time is over. */
import { type Address, isSameAddress } from '../../address.ts';
import type { Clock } from '../../clock.ts';
import { type DhcpAnswer, type DhcpRequest, type DhcpServer, type DhcpTerms, encodeDhcp } from '../frames/dhcp.ts';

/** The LAN, as a DHCP client of either family uses it. */
export interface ExchangeWire<Answer> {
  /** Never throws: a frame may get lost here as it may on the LAN. */
  send(frame: Buffer): void;
  /** Hands on what servers say to this MAC address with this xid, until the returned function is called. */
  listen(macAddress: string, xid: number, hear: (answer: Answer) => void): () => void;
}

export type DhcpWire = ExchangeWire<DhcpAnswer>;

/** What a question works with. */
export type DhcpContext = ExchangeContext<DhcpAnswer>;

/** The same for either family. */
export interface ExchangeContext<Answer> {
  readonly wire: ExchangeWire<Answer>;
  readonly clock: Clock;
  /** 0 to 1, as Math.random. */
  readonly random: () => number;
  /** Ends what is asked. */
  readonly signal?: AbortSignal | undefined;
}

/** Who asks. */
export interface DhcpAsker {
  readonly macAddress: string;
  /** For option 12; null for none. */
  readonly hostname: string | null;
}

/** An address of this LAN's server, for a time. */
export interface DhcpLease extends DhcpTerms {
  readonly prefixLength: number;
  readonly server: DhcpServer;
}

/** A request without what the question itself knows. */
type Said = DhcpRequest extends infer Request ? (Request extends DhcpRequest ? Omit<Request, 'xid'> : never) : never;

interface Question<T> extends Omit<Exchange<DhcpAnswer, T>, 'frame'> {
  /** Asked again for each frame, because some fields tell the time. */
  readonly say: () => Said;
}

/** A question to servers of either family. */
interface Exchange<Answer, T> {
  readonly macAddress: string;
  readonly xid: number;
  /** When it is sent, in milliseconds from now. */
  readonly atMs: readonly number[];
  /** How long an answer is waited for, from now on. */
  readonly forMs: number;
  /** Asked for again each time that it is sent. */
  readonly frame: () => Buffer;
  /** Calls `settle` with what settles the question. */
  readonly hear: (answer: Answer, settle: (result: T) => void) => void;
}

/** Undefined when nothing settled it in time. Throws the signal's reason when it is aborted. */
export function ask<T>(context: DhcpContext, question: Question<T>): Promise<T | undefined> {
  const { xid, say } = question;
  return exchange(context, { ...question, frame: () => encodeDhcp({ ...say(), xid }) });
}

/** The same with servers of either family. */
export async function exchange<Answer, T>(
  { wire, clock, signal }: ExchangeContext<Answer>,
  { macAddress, xid, atMs, forMs, frame, hear }: Exchange<Answer, T>,
): Promise<T | undefined> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<T | undefined>();
  const abort = () => reject(signal?.reason as Error);
  const silence = wire.listen(macAddress, xid, (answer) => hear(answer, resolve));
  const cancels = [
    clock.after(forMs, () => resolve(undefined)),
    ...atMs.filter((offsetMs) => offsetMs < forMs).map((offsetMs) => clock.after(offsetMs, () => wire.send(frame()))),
  ];
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await promise;
  } finally {
    signal?.removeEventListener('abort', abort);
    silence();
    for (const cancel of cancels) cancel();
  }
}

/** An xid that nobody else on the LAN is likely to use. */
export function makeXid(random: () => number): number {
  return Math.floor(random() * 2 ** 32);
}

/** Ends early when the signal is aborted, whose reason is thrown then. */
export async function pause({ clock, signal }: Pick<DhcpContext, 'clock' | 'signal'>, delayMs: number): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = clock.after(delayMs, resolve);
  const abort = () => reject(signal?.reason as Error);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    await promise;
  } finally {
    signal?.removeEventListener('abort', abort);
    cancel();
  }
}

/** Without a subnet mask that makes sense it is the one of the address's class (RFC 950 2.1). */
export function leaseOf(terms: DhcpTerms, server: DhcpServer): DhcpLease {
  return { ...terms, prefixLength: terms.prefixLength ?? classOf(terms.address), server };
}

function classOf({ value }: Address): number {
  const first = Number(value >> 24n);
  return first < 128 ? 8 : first < 192 ? 16 : 24;
}

/** The server's word for an address that it gave or offered before: its lease, or that it is refused. */
export function verdictOn(
  answer: DhcpAnswer,
  address: Address,
): { readonly lease: DhcpLease } | { readonly refusedBy: DhcpServer; readonly message: string | null } | undefined {
  const { server, message } = answer;
  if (answer.kind === 'NAK') return { refusedBy: server, message };
  if (answer.kind !== 'ACK' || !isSameAddress(answer.terms.address, address)) return undefined;
  return { lease: leaseOf(answer.terms, server) };
}
