/** Which addresses were asked for on a LAN, how often and when: probes of any of our daemons, as a neighbour hears them. */
import { formatAddress } from '../../src/address.ts';
import { isUnspecified } from '../../src/lan/frames/arp.ts';
import type { Packet } from '../../src/lan/frames/sighting.ts';
import type { Neighbour } from './neighbour.ts';

/** Between two probes of the profile `rfc` at most two seconds pass (RFC 5227 1.1), then two until the verdict. */
const OVER_MS = { fast: 450, rfc: 2300 } as const;
const PROBES = 3;
/** After so long it is over also where a busy listener has missed a probe. */
const LONG_OVER_MS = 10_000;

interface Question {
  probes: number;
  lastMs: number;
}

export class Questions {
  readonly #asked = new Map<string, Question>();

  constructor(neighbour: Neighbour) {
    neighbour.react = (packet) => this.#hear(packet);
  }

  /** Addresses whose detection has surely ended since they were forgotten, or from the beginning; in the order of their first probes. */
  answered(isMeant: (address: string) => boolean, profile: 'fast' | 'rfc' = 'fast'): string[] {
    const nowMs = performance.now();
    const isOver = ({ probes, lastMs }: Question) =>
      nowMs - lastMs > (probes >= PROBES ? OVER_MS[profile] : LONG_OVER_MS);
    return [...this.#asked].filter(([address, one]) => isMeant(address) && isOver(one)).map(([address]) => address);
  }

  /** Probes for it since it was forgotten, or from the beginning. */
  count(address: string): number {
    return this.#asked.get(address)?.probes ?? 0;
  }

  forget(address: string): void {
    this.#asked.delete(address);
  }

  #hear(packet: Packet): void {
    const target = probed(packet);
    if (target === undefined) return;
    const question = this.#asked.get(target) ?? { probes: 0, lastMs: 0 };
    question.probes++;
    question.lastMs = performance.now();
    this.#asked.set(target, question);
  }
}

function probed(packet: Packet): string | undefined {
  if (packet.protocol === 'NA') return undefined;
  if (packet.protocol === 'NS') return packet.source.value === 0n ? formatAddress(packet.target) : undefined;
  const isProbe = packet.operation === 'request' && isUnspecified(packet.senderAddress);
  return isProbe ? formatAddress(packet.targetAddress) : undefined;
}
