/** The door for the drivers to the IPv6 addresses that a LAN has for its hosts: what its routers advertise, for a MAC address. */
import { type Address, prefixOf } from '../../address.ts';
import { backgroundClock, type Clock } from '../../clock.ts';
import type { Links } from '../../kernel/link.ts';
import type { InterfaceAddress, IPv6Method, Segment } from '../../model.ts';
import type { CallLimit } from '../../requests.ts';
import type { Lan } from '../lan.ts';
import type { HeldVerdict } from '../verdict.ts';
import { ROUTER_ANSWER_MS, Routers } from './routers.ts';
import { SLAAC_BITS, slaacAddress } from './slaac.ts';

/** What the client works with. */
export interface IPv6ClientParts {
  readonly links: Pick<Links, 'known'>;
  readonly lan: Pick<Lan, 'check' | 'sendOn'>;
  readonly clock?: Clock;
}

/** An address that is wanted. */
export interface IPv6Request {
  readonly segment: Segment;
  readonly macAddress: string;
  readonly method: IPv6Method;
  /** The address that the MAC address had. */
  readonly last: Address | null;
  readonly limit: CallLimit;
}

/** What comes of it. */
export type AcquiredIPv6 =
  | { readonly kind: 'slaac'; readonly address: InterfaceAddress; readonly router: Address }
  /** No router answered, within so many seconds. */
  | { readonly kind: 'silent'; readonly seconds: number }
  /** None has a prefix of which hosts make addresses. */
  | { readonly kind: 'prefixless' }
  /** Somebody else has it. */
  | { readonly kind: 'used'; readonly address: Address; readonly holder: HeldVerdict };

/** The IPv6 addresses of this host's containers. */
export class IPv6Client {
  readonly #lan: IPv6ClientParts['lan'];
  readonly #routers: Routers;

  constructor({ links, lan, clock = backgroundClock }: IPv6ClientParts) {
    this.#lan = lan;
    this.#routers = new Routers({ links, clock, sendOn: (segment, frame) => lan.sendOn(segment, frame) });
  }

  /** Asks the routers, and the LAN whether somebody has the address. Throws what Lan.check() throws, and the signal's reason when it fires. */
  async acquire({ segment, macAddress, last, limit }: IPv6Request): Promise<AcquiredIPv6> {
    const { signal, atMs } = limit;
    const advertised = await this.#routers.advertised(segment, { macAddress, last }, signal);
    if (advertised === null) return { kind: 'silent', seconds: ROUTER_ANSWER_MS / 1000 };
    const { prefix, router } = advertised;
    if (prefix === null || router === null) return { kind: 'prefixless' };
    const address = slaacAddress(prefix, macAddress);
    const subnet = prefixOf(address, SLAAC_BITS);
    const verdict = await this.#lan.check({ ...segment, address, subnet, signal, atMs, macAddress });
    if (verdict.held) return { kind: 'used', address, holder: verdict };
    return { kind: 'slaac', address: { ...address, length: SLAAC_BITS }, router };
  }

  /** Nobody is heard any more. */
  close(): void {
    this.#routers.close();
  }
}
