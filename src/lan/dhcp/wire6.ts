/**
 * The LAN below a parent, as DHCPv6 clients use it: as in wire.ts. A server asks where the client is before it answers (presence.ts).
 */
import type { Clock } from '../../clock.ts';
import type { Links } from '../../kernel/link.ts';
import { type Dhcp6Answer, decodeDhcp6 } from '../frames/dhcp6.ts';
import { DHCP6_ANSWERS } from '../frames/filter.ts';
import type { NeighborSolicitation } from '../frames/nd.ts';
import { Ears } from './ears.ts';
import { decodeSolicitation, presenceAnswer, wherePresent } from './presence.ts';
import type { ExchangeWire } from './question.ts';
import type { DhcpSegment } from './wire.ts';

export type Dhcp6Wire = ExchangeWire<Dhcp6Answer>;

/** What wires work with. */
export interface Dhcp6WiresParts {
  readonly links: Pick<Links, 'known'>;
  /** Lan.sendOn() */
  readonly sendOn: (segment: DhcpSegment, frame: Buffer) => Promise<void>;
  readonly clock: Clock;
}

/** The LANs of this host. */
export class Dhcp6Wires {
  readonly #parts: Dhcp6WiresParts;
  readonly #ears: Ears<Dhcp6Answer | NeighborSolicitation>;

  constructor(parts: Dhcp6WiresParts) {
    const { links, clock } = parts;
    this.#parts = parts;
    this.#ears = new Ears({ links, clock, filter: DHCP6_ANSWERS, decode });
  }

  /** `isAbsent`: no link has the MAC address, so who asks for it is answered here. */
  on(segment: DhcpSegment, isAbsent: boolean): Dhcp6Wire {
    const send = (frame: Buffer) => void this.sent(segment, frame).catch(() => undefined);
    return {
      send,
      listen: (macAddress, xid, hear) =>
        this.#ears.listen(segment.parentName, {
          memberships: wherePresent(macAddress),
          hear: (heard) => {
            if (heard.protocol === 'DHCPv6') return heard.xid === xid && heard.macAddress === macAddress && hear(heard);
            const answer = isAbsent ? presenceAnswer(heard, macAddress) : undefined;
            if (answer !== undefined) send(answer);
          },
        }),
    };
  }

  /** Resolves when the frame has gone out, or is lost; not before answers to it would be heard. */
  async sent(segment: DhcpSegment, frame: Buffer): Promise<void> {
    await this.#ears.ready(segment.parentName);
    await this.#parts.sendOn(segment, frame);
  }

  /** Nobody hears anything any more. */
  close(): void {
    this.#ears.close();
  }
}

function decode(frame: Buffer): Dhcp6Answer | NeighborSolicitation | undefined {
  return decodeDhcp6(frame) ?? decodeSolicitation(frame);
}
