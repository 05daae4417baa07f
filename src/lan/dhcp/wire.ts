/**
 * The LAN below a parent, as DHCP clients use it. What they say goes out by our link for asking the LAN, with the container's
 * own MAC address as the frame's source: siblings hear it, a server in one of them too. What servers answer is heard on the
 * parent.
 */
import type { Clock } from '../../clock.ts';
import type { Links } from '../../kernel/link.ts';
import type { Segment } from '../../model.ts';
import { type DhcpAnswer, decodeDhcp } from '../frames/dhcp.ts';
import { DHCP_ANSWERS } from '../frames/filter.ts';
import { Ears } from './ears.ts';
import type { DhcpWire } from './question.ts';

/** The LAN of a network, as far as DHCP goes by it. */
export type DhcpSegment = Pick<Segment, 'parentName' | 'mode'>;

/** What wires work with. */
export interface DhcpWiresParts {
  readonly links: Pick<Links, 'known'>;
  /** Lan.sendOn() */
  readonly sendOn: (segment: DhcpSegment, frame: Buffer) => Promise<void>;
  readonly clock: Clock;
}

/** The LANs of this host. */
export class DhcpWires {
  readonly #parts: DhcpWiresParts;
  readonly #ears: Ears<DhcpAnswer>;

  constructor(parts: DhcpWiresParts) {
    const { links, clock } = parts;
    this.#parts = parts;
    this.#ears = new Ears({ links, clock, filter: DHCP_ANSWERS, decode: decodeDhcp });
  }

  /** Whatever happens to the parent, it is the one of this name. */
  on(segment: DhcpSegment): DhcpWire {
    return {
      send: (frame) => void this.sent(segment, frame).catch(() => undefined),
      listen: (macAddress, xid, hear) =>
        this.#ears.listen(segment.parentName, {
          memberships: [macAddress],
          hear: (answer) => answer.xid === xid && answer.macAddress === macAddress && hear(answer),
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
