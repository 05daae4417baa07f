/** A machine on the LAN that asks who has an address, as any neighbour would, and counts the answers. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress, parseAddress } from '../../src/address.ts';
import { arpAnnouncement, encodeArp } from '../../src/lan/frames/arp.ts';
import type { Lan } from './namespace.ts';
import { Neighbour } from './neighbour.ts';

const MAC_ADDRESS = '02:00:5e:10:00:99';
/** The bridge and the containers answer within milliseconds; a busy machine takes its time. */
const ANSWER_MS = 700;
const PATIENCE_MS = 30_000;

export class Scanner {
  readonly #neighbour: Neighbour;
  readonly #address: string;

  private constructor(neighbour: Neighbour, address: string) {
    this.#neighbour = neighbour;
    this.#address = address;
  }

  static async plug(lan: Lan, address: string): Promise<Scanner> {
    const neighbour = await Neighbour.plug(lan, 'scanner', MAC_ADDRESS);
    await neighbour.namespace.ip(`address add ${address}/24 dev lan0`);
    return new Scanner(neighbour, address);
  }

  /**
   * The MAC address of each answer for each address. Two machines with one address answer both, also with one MAC.
   * Waits for as many answers as expected for each, and for more for a while.
   */
  async holders(addresses: readonly string[], expected = 1): Promise<Map<string, string[]>> {
    this.#neighbour.reset();
    for (const target of addresses) this.#ask(target);
    const isWhole = () => [...this.#answers(addresses).values()].every((macs) => macs.length >= expected);
    for (const endMs = performance.now() + PATIENCE_MS; !isWhole() && performance.now() < endMs; ) await sleep(20);
    await sleep(ANSWER_MS);
    return this.#answers(addresses);
  }

  #answers(addresses: readonly string[]): Map<string, string[]> {
    const found = new Map<string, string[]>(addresses.map((address) => [address, []]));
    for (const { packet } of this.#neighbour.heard) {
      if (packet.protocol !== 'ARP' || packet.operation !== 'reply') continue;
      found.get(formatAddress(packet.senderAddress))?.push(packet.sourceMac);
    }
    return found;
  }

  #ask(target: string): void {
    const [own, wanted] = [parseAddress(this.#address), parseAddress(target)];
    assert.ok(own && wanted);
    this.#neighbour.send(encodeArp({ ...arpAnnouncement(own, MAC_ADDRESS), targetAddress: wanted }));
  }

  close(): void {
    this.#neighbour.close();
  }
}
