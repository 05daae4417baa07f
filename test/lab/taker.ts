/**
 * A host of another maker that takes addresses by RFC 5227 2.1.1 and 2.3: it asks three times, and has the address when nobody
 * speaks for it or asks for it meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress } from '../../src/address.ts';
import { arpAnnouncement, arpProbe, encodeArp } from '../../src/lan/frames/arp.ts';
import type { Packet } from '../../src/lan/frames/sighting.ts';
import type { Neighbour } from './neighbour.ts';

export class Taker {
  readonly taken = new Set<string>();
  readonly #neighbour: Neighbour;
  readonly #wanted = new Set<string>();

  constructor(neighbour: Neighbour) {
    this.#neighbour = neighbour;
    neighbour.react = (packet) => this.#hear(packet);
  }

  async take(address: Address): Promise<void> {
    const [key, { macAddress }] = [formatAddress(address), this.#neighbour];
    this.#wanted.add(key);
    await sleep(Math.random() * 1000);
    for (let sent = 0; sent < 3; sent++) {
      if (this.#wanted.has(key)) this.#neighbour.send(encodeArp(arpProbe(address, macAddress)));
      await sleep(sent < 2 ? 1000 + Math.random() * 1000 : 2000);
    }
    if (this.#wanted.has(key)) await this.#settle(address);
  }

  /** From here on its kernel answers for the address, also when this process has no time to. */
  async #settle(address: Address): Promise<void> {
    const [key, { namespace, macAddress }] = [formatAddress(address), this.#neighbour];
    await namespace.ip(`address add ${key}/32 dev lan0`);
    this.#neighbour.drain();
    if (!this.#wanted.delete(key)) return void (await namespace.ip(`address delete ${key}/32 dev lan0`));
    this.taken.add(key);
    this.#neighbour.send(encodeArp(arpAnnouncement(address, macAddress)));
  }

  #hear(packet: Packet): void {
    if (packet.protocol !== 'ARP') return;
    const isProbe = packet.operation === 'request' && packet.senderAddress.value === 0n;
    this.#wanted.delete(formatAddress(isProbe ? packet.targetAddress : packet.senderAddress));
  }
}
