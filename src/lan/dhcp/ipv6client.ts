/**
 * The door for the drivers to the IPv6 addresses that a LAN has for its hosts: what its routers advertise, or what its DHCPv6 server
 * gives, for a MAC address.
 */
import { type Address, formatAddress, prefixOf } from '../../address.ts';
import { backgroundClock, type Clock } from '../../clock.ts';
import type { InterfaceAddress, IPv6Method, LeaseLoss, Segment } from '../../model.ts';
import type { CallLimit } from '../../requests.ts';
import { encodeDhcp6 } from '../frames/dhcp6.ts';
import type { Lan } from '../lan.ts';
import type { HeldVerdict } from '../verdict.ts';
import { type Acquired6, type Dhcp6Lease, Voice6, acquire6, makeXid6 } from './acquisition6.ts';
import type { DhcpClientParts, EndedExchange } from './dhcpclient.ts';
import type { DhcpAsker } from './question.ts';
import { type Dated, type Keeping, keepWith } from './renewal.ts';
import { ROUTER_ANSWER_MS, Routers } from './routers.ts';
import { type Advertised, SLAAC_BITS, slaacAddress } from './slaac.ts';
import { Dhcp6Wires } from './wire6.ts';

/** An address that is wanted. */
export interface IPv6Request extends DhcpAsker {
  readonly segment: Segment;
  readonly method: IPv6Method;
  /** The address that the MAC address had. */
  readonly last: Address | null;
  readonly limit: CallLimit;
}

/** What comes of it. */
export type AcquiredIPv6 =
  | { readonly kind: 'slaac'; readonly address: InterfaceAddress; readonly router: Address }
  /** No router answered, within so many seconds. */
  | { readonly kind: 'unrouted'; readonly seconds: number }
  /** None has a prefix of which hosts make addresses. */
  | { readonly kind: 'prefixless' }
  /** Somebody else has the address that the MAC address makes. */
  | { readonly kind: 'taken'; readonly address: Address; readonly holder: HeldVerdict }
  /** No DHCPv6 server answered, within so many seconds. */
  | { readonly kind: 'silent'; readonly seconds: number }
  | Exclude<Acquired6, { kind: 'silent' }>;

/** Of a call's time this much is left for what follows. */
const RESERVED_MS = 1500;
/** Where a container starts as well without, no server is waited for longer. */
const PATIENCE_MS = 4000;

/** The IPv6 addresses of this host's containers. */
export class IPv6Client {
  readonly #parts: DhcpClientParts;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #routers: Routers;
  readonly #wires: Dhcp6Wires;
  readonly #kept = new Map<string, AbortController>();

  constructor(parts: DhcpClientParts) {
    const { links, lan, clock = backgroundClock, random = Math.random } = parts;
    const outward = {
      links,
      clock,
      sendOn: (segment: Parameters<Lan['sendOn']>[0], frame: Buffer) => lan.sendOn(segment, frame),
    };
    [this.#parts, this.#clock, this.#random] = [parts, clock, random];
    [this.#routers, this.#wires] = [new Routers(outward), new Dhcp6Wires(outward)];
  }

  /** Asks routers and servers, and the LAN whether somebody has the address. Throws what Lan.check() throws, and the signal's reason when it fires. */
  async acquire(request: IPv6Request): Promise<AcquiredIPv6> {
    const { segment, method, limit } = request;
    if (method === 'dhcp') return this.#lease(request, this.#parts.timeout * 1000);
    const advertised = await this.#routers.advertised(segment, request, limit.signal);
    if (advertised === null) return { kind: 'unrouted', seconds: ROUTER_ANSWER_MS[method] / 1000 };
    if (advertised.prefix !== null || method === 'slaac' || !advertised.isManaged)
      return this.#make(request, advertised);
    return this.#lease(request, PATIENCE_MS);
  }

  /** Renews the lease until endKeeping(); `id` names it there. */
  keep(
    id: string,
    segment: Segment,
    asker: DhcpAsker,
    dated: Dated<Dhcp6Lease>,
    told: Pick<Keeping<Dhcp6Lease>, 'onKept' | 'onLost'>,
  ): void {
    this.endKeeping(id);
    const controller = new AbortController();
    this.#kept.set(id, controller);
    const { signal } = controller;
    const tell = this.#teller(segment.parentName, asker.macAddress);
    const onKept = (kept: Dated<Dhcp6Lease>) => {
      tell('renewed', kept.lease);
      told.onKept(kept);
    };
    const onLost = (loss: LeaseLoss) => {
      tell('lost', dated.lease, loss);
      told.onLost(loss);
    };
    const context = { wire: this.#wires.on(segment, false), clock: this.#clock, random: this.#random, signal };
    const keeping = { ...context, wallMs: () => Date.now(), onKept, onLost };
    keepWith(new Voice6(asker, context), dated, keeping).catch((error: unknown) => {
      if (signal.aborted) return;
      this.#parts.log.error('the lease is not renewed any more; restart the container', {
        endpoint: id,
        macAddress: asker.macAddress,
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
  async release(segment: Segment, asker: DhcpAsker, lease: Dhcp6Lease): Promise<void> {
    const { address, server } = lease;
    const frame = encodeDhcp6({
      ...asker,
      kind: 'RELEASE',
      xid: makeXid6(this.#random),
      elapsedMs: 0,
      address,
      server,
    });
    await this.#wires.sent(segment, frame).catch(() => undefined);
    this.#parts.lan.release({ parentName: segment.parentName, address });
    this.#teller(segment.parentName, asker.macAddress)('released', lease);
  }

  /** Leases are kept by records, not by this process: nothing is said to any server. */
  close(): void {
    for (const id of [...this.#kept.keys()]) this.endKeeping(id);
    this.#routers.close();
    this.#wires.close();
  }

  /** Of the router's prefix. */
  async #make({ segment, macAddress, limit }: IPv6Request, { prefix, router }: Advertised): Promise<AcquiredIPv6> {
    if (prefix === null || router === null) return { kind: 'prefixless' };
    const { signal, atMs } = limit;
    const address = slaacAddress(prefix, macAddress);
    const verdict = await this.#parts.lan.check({ ...segment, address, subnet: prefix, signal, atMs, macAddress });
    if (verdict.held) return { kind: 'taken', address, holder: verdict };
    return { kind: 'slaac', address: { ...address, length: SLAAC_BITS }, router };
  }

  /** Of a DHCPv6 server. */
  async #lease(request: IPv6Request, patienceMs: number): Promise<AcquiredIPv6> {
    const { segment, macAddress, hostname, last, limit } = request;
    const { signal, atMs } = limit;
    const forMs = Math.max(0, Math.min(patienceMs, atMs - performance.now() - RESERVED_MS));
    const check = ({ address }: Dhcp6Lease, stop: AbortSignal) => {
      const subnet = prefixOf(address, SLAAC_BITS);
      return this.#parts.lan.check({ ...segment, address, subnet, signal: stop, atMs, macAddress });
    };
    const tell = this.#teller(segment.parentName, macAddress);
    const onDecline = (offered: Dhcp6Lease, holder: HeldVerdict) => tell('declined', offered, holder.macAddress);
    const wire = this.#wires.on(segment, true);
    const context = { wire, clock: this.#clock, random: this.#random, signal, check, onDecline };
    const untilMs = this.#clock.nowMs() + forMs;
    const acquired = await acquire6({ macAddress, hostname, wish: last, isStrict: false, untilMs }, context);
    tellAcquired(acquired, tell);
    return acquired.kind === 'silent' ? { kind: 'silent', seconds: Math.round(forMs / 1000) } : acquired;
  }

  #teller(parent: string, macAddress: string): Tell {
    return (outcome, of = null, reason = null) => {
      const address = of === null ? null : formatAddress(of.address);
      this.#parts.onExchange?.({ outcome, parent, macAddress, address, server: of?.server ?? null, reason });
    };
  }
}

type Tell = (outcome: EndedExchange['outcome'], of?: Dhcp6Lease | null, reason?: string | null) => void;

function tellAcquired(acquired: Acquired6, tell: Tell): void {
  const { kind } = acquired;
  if (kind === 'lease') tell('given', acquired.lease);
  else if (kind === 'refused') tell('refused', null, acquired.message);
  else if (kind === 'used') tell('used', acquired.offered);
  else tell('silent');
}
