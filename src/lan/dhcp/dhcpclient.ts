/** The door for the drivers to the DHCP servers of a LAN: a lease got, kept and given back, for a MAC address. */
import { type Address, formatAddress, prefixOf } from '../../address.ts';
import { backgroundClock, type Clock } from '../../clock.ts';
import * as errors from '../../errors.ts';
import type { Links } from '../../kernel/link.ts';
import type { Log } from '../../log.ts';
import type { LeaseLoss, Segment } from '../../model.ts';
import type { CallLimit } from '../../requests.ts';
import { encodeDhcp } from '../frames/dhcp.ts';
import type { Lan } from '../lan.ts';
import type { HeldVerdict } from '../verdict.ts';
import { type Acquired, acquire, firstOffer } from './acquisition.ts';
import { type DhcpAsker, type DhcpLease, makeXid } from './question.ts';
import { type DatedLease, type RenewalContext, keepLease } from './renewal.ts';
import { DhcpWires } from './wire.ts';

/** What the client works with. */
export interface DhcpClientParts {
  readonly links: Pick<Links, 'known'>;
  readonly lan: Pick<Lan, 'check' | 'release' | 'sendOn'>;
  /** Seconds for which a start waits for a server. */
  readonly timeout: number;
  readonly log: Log;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
  /** Of each word with servers, once it is over. It must not throw. */
  readonly onExchange?: (exchange: EndedExchange) => void;
}

/**
 * `given`: a lease was got; `renewed`: kept, or got back; `lost`: see LeaseLoss. `declined`: somebody on the LAN has what was offered,
 * and `used`: so often that no more is asked for. `other`: only another address than the one that was wanted.
 */
export interface EndedExchange {
  readonly outcome: 'given' | 'renewed' | 'released' | 'declined' | 'silent' | 'refused' | 'other' | 'used' | 'lost';
  readonly parent: string;
  readonly macAddress: string;
  /** Without prefix length; null where there was none. */
  readonly address: string | null;
  readonly server: string | null;
  /** The server's own words, or who has the address; null without. */
  readonly reason: string | null;
}

/** A lease that is wanted. */
export interface LeaseRequest extends DhcpAsker {
  readonly segment: Segment;
  readonly wish: Address | null;
  /** No other address will do. */
  readonly isStrict: boolean;
  /** Who on this host has an address that a server offers, perhaps without being heard on the LAN. */
  readonly holder: (address: Address) => Promise<HeldVerdict | undefined>;
  readonly limit: CallLimit;
}

/** An offer that is looked at, and not taken. */
type OfferRequest = Pick<LeaseRequest, 'segment' | 'macAddress' | 'limit'>;

/** Of a call's time this much is left for what follows the lease. */
const RESERVED_MS = 1500;

/** The leases of this host's containers. */
export class DhcpClient {
  /** Seconds. */
  readonly timeout: number;
  readonly #parts: DhcpClientParts;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #wires: DhcpWires;
  readonly #kept = new Map<string, AbortController>();

  constructor(parts: DhcpClientParts) {
    const { links, lan, clock = backgroundClock, random = Math.random } = parts;
    this.#parts = parts;
    this.timeout = parts.timeout;
    [this.#clock, this.#random] = [clock, random];
    this.#wires = new DhcpWires({ links, clock, sendOn: (segment, frame) => lan.sendOn(segment, frame) });
  }

  /**
   * Asks for a lease, and the LAN whether somebody uses what is offered. Throws DHCP_PARENT_DOWN, what Lan.check() throws,
   * and the signal's reason when it fires.
   */
  async acquire({ segment, macAddress, hostname, wish, isStrict, holder, limit }: LeaseRequest): Promise<Acquired> {
    const { lan } = this.#parts;
    const { parentName } = segment;
    const untilMs = await this.#untilMs(parentName, limit);
    const check = async ({ address, prefixLength }: DhcpLease, signal: AbortSignal) =>
      (await holder(address)) ??
      lan.check({ ...segment, address, subnet: prefixOf(address, prefixLength), signal, atMs: limit.atMs, macAddress });
    const tell = this.#teller(parentName, macAddress);
    const acquired = await acquire(
      { macAddress, hostname, wish, isStrict, untilMs },
      {
        ...this.#context(segment),
        signal: limit.signal,
        check,
        onDecline: (offered, holder) => tell('declined', offered, holder.macAddress),
      },
    );
    tellAcquired(acquired, tell);
    return acquired;
  }

  /** What a server would give to a MAC address. Throws DHCP_SILENT when none answers, and as acquire(). */
  async offer({ segment, macAddress, limit }: OfferRequest): Promise<DhcpLease> {
    const { parentName } = segment;
    const untilMs = await this.#untilMs(parentName, limit);
    const seconds = Math.round((untilMs - this.#clock.nowMs()) / 1000);
    const context = { ...this.#context(segment), signal: limit.signal };
    const offered = await firstOffer({ macAddress, hostname: null, untilMs }, context);
    if (offered === undefined) throw errors.dhcpSilent(parentName, seconds);
    return offered;
  }

  /** By the clock, when a call has to go on without an answer. */
  async #untilMs(parentName: string, limit: CallLimit): Promise<number> {
    const { links, timeout } = this.#parts;
    if ((await links.known(parentName))?.isUp !== true) throw errors.dhcpParentDown(parentName);
    return this.#clock.nowMs() + Math.min(timeout * 1000, limit.atMs - performance.now() - RESERVED_MS);
  }

  #teller(parent: string, macAddress: string): Tell {
    return (outcome, of = null, reason = null) => {
      const address = of?.address === undefined ? null : formatAddress(of.address);
      const server = of === null ? null : formatAddress(of.server.address);
      this.#parts.onExchange?.({ outcome, parent, macAddress, address, server, reason });
    };
  }

  /** Renews the lease until endKeeping(); `id` names it there. */
  keep(
    id: string,
    segment: Segment,
    asker: DhcpAsker,
    dated: DatedLease,
    told: Pick<RenewalContext, 'onKept' | 'onLost'>,
  ): void {
    this.endKeeping(id);
    const controller = new AbortController();
    this.#kept.set(id, controller);
    const tell = this.#teller(segment.parentName, asker.macAddress);
    const onKept = (kept: DatedLease) => {
      tell('renewed', kept.lease);
      told.onKept(kept);
    };
    const onLost = (loss: LeaseLoss) => {
      tell('lost', dated.lease, loss);
      told.onLost(loss);
    };
    const context = { ...this.#context(segment), signal: controller.signal, wallMs: () => Date.now(), onKept, onLost };
    keepLease(asker, dated, context).catch((error: unknown) => {
      if (controller.signal.aborted) return;
      const container = { endpoint: id, macAddress: asker.macAddress };
      this.#parts.log.error('the lease is not renewed any more; restart the container', {
        ...container,
        error: String(error),
      });
    });
  }

  /** The container is gone: nobody renews its lease. */
  endKeeping(id: string): void {
    this.#kept.get(id)?.abort(new Error('the lease is not kept any longer'));
    this.#kept.delete(id);
  }

  /** Tells the server that the address is not used any more. Nobody hears whether it heard that. */
  async release(segment: Segment, asker: DhcpAsker, { address, server }: DhcpLease): Promise<void> {
    const request = { ...asker, xid: makeXid(this.#random), seconds: 0, address, server };
    await this.#wires.sent(segment, encodeDhcp({ ...request, kind: 'RELEASE' })).catch(() => undefined);
    this.#parts.lan.release({ parentName: segment.parentName, address });
    this.#teller(segment.parentName, asker.macAddress)('released', { address, server });
  }

  /** Leases are kept by records, not by this process: nothing is said to any server. */
  close(): void {
    for (const id of [...this.#kept.keys()]) this.endKeeping(id);
    this.#wires.close();
  }

  #context(segment: Segment) {
    return { wire: this.#wires.on(segment), clock: this.#clock, random: this.#random };
  }
}

type Tell = (
  outcome: EndedExchange['outcome'],
  of?: { readonly address?: Address; readonly server: DhcpLease['server'] } | null,
  reason?: string | null,
) => void;

function tellAcquired(acquired: Acquired, tell: Tell): void {
  const { kind } = acquired;
  if (kind === 'lease') tell('given', acquired.lease);
  else if (kind === 'silent') tell('silent');
  else if (kind === 'refused') tell('refused', { server: acquired.server }, acquired.message);
  else tell(kind, acquired.offered);
}

/** Why there is no lease, as a sentence. `seconds`: how long it was asked for. `wish`: the address that alone would have done. */
export function refusalOf(
  acquired: Exclude<Acquired, { kind: 'lease' }>,
  asked: { readonly parentName: string; readonly seconds: number; readonly wish: Address | null },
): errors.PluginError {
  switch (acquired.kind) {
    case 'silent':
      return errors.dhcpSilent(asked.parentName, asked.seconds);
    case 'refused':
      return errors.dhcpRefused(formatAddress(acquired.server.address), acquired.message);
    case 'other': {
      const { address, server } = acquired.offered;
      const wish = asked.wish === null ? 'it' : formatAddress(asked.wish);
      return errors.dhcpOther(formatAddress(server.address), formatAddress(address), wish);
    }
    case 'used':
      return errors.dhcpUsed(acquired.count, formatAddress(acquired.offered.address), acquired.holder.macAddress);
  }
}
