/**
 * What a kernel says of its addresses: ARP as net/ipv4/arp.c does, for every local address on every link of the namespace;
 * neighbour discovery as net/ipv6/ndisc.c does, for those of the link. And whom it knows: its neighbour table.
 */
import { encodeArp, arpReply, type ArpPacket, decodeArp, isUnspecified } from '../../../src/lan/frames/arp.ts';
import {
  type NeighborAdvertisement,
  type NeighborSolicitation,
  decodeNd,
  encodeNd,
  ndAnnouncement,
  ndDefence,
} from '../../../src/lan/frames/nd.ts';
import { announcementFrame } from '../../../src/lan/frames/outgoing.ts';
import { scheduler } from '../time.ts';
import { type Address, formatAddress } from './address.ts';
import type { Link } from './link.ts';
import type { Kernel } from './kernel.ts';

const ETHERTYPE_ARP = 0x0806;
const ARP_TARGET_AT = 38;
const ARP_LENGTH = 42;
const ETHERTYPE_IPV6 = 0x86dd;

/** An entry of the host's table. */
export interface Entry {
  readonly link: Link;
  readonly address: Address;
  readonly macAddress: string;
}

/** Of all links of one machine. */
export class Neighbours {
  readonly #kernel: Kernel;
  /** Of the host, by link and address. */
  readonly entries = new Map<string, Entry>();
  /** How long the machine takes to answer: a Wi-Fi station that sleeps takes long. Null: it does not answer. */
  answerMs: ((address: Address) => number | null) | null = null;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  hear(link: Link, frame: Buffer): void {
    const type = frame.readUInt16BE(12);
    if (!link.hasArp) return;
    if (type === ETHERTYPE_ARP) {
      if (frame.length < ARP_LENGTH) return;
      const isForUs = link.namespace.hasIPv4(frame.readUInt32BE(ARP_TARGET_AT));
      if (!isForUs && (this.entries.size === 0 || link.namespace !== this.#kernel.host)) return;
      const packet = decodeArp(frame);
      if (packet !== undefined) this.#hearArp(link, packet);
    } else if (type === ETHERTYPE_IPV6) {
      const packet = decodeNd(frame);
      if (packet !== undefined) this.#hearNd(link, packet);
    }
  }

  /** As an engine does, or arping -A: all learn of it. */
  announce(link: Link, address: Address): void {
    this.#kernel.transmit(link, announcementFrame(address, link.macAddress));
  }

  /** The host has spoken with somebody. */
  learn(link: Link, address: Address, macAddress: string): void {
    this.entries.set(keyOf(link, address), { link, address, macAddress });
  }

  find(link: Link, address: Address): Entry | undefined {
    return this.entries.get(keyOf(link, address));
  }

  #hearArp(link: Link, packet: ArpPacket): void {
    const { operation, senderAddress, targetAddress, senderMac } = packet;
    if (link.namespace === this.#kernel.host && !isUnspecified(senderAddress))
      this.#update(link, senderAddress, senderMac);
    if (operation !== 'request' || link.namespace.holder(targetAddress) === undefined) return;
    // A gratuitous request for an address of ours is no question: Linux answers it all the same, to who sent it.
    this.#answer(link, targetAddress, encodeArp(arpReply(packet, link.macAddress)));
  }

  /** Only what is known already is changed, and what answers a question of the host's own. */
  #update(link: Link, address: Address, macAddress: string): void {
    if (this.find(link, address) !== undefined) this.learn(link, address, macAddress);
  }

  #hearNd(link: Link, packet: NeighborSolicitation | NeighborAdvertisement): void {
    if (packet.protocol !== 'NS') return;
    const own = link.addresses.find(
      ({ address }) => address.family === 'IPv6' && address.value === packet.target.value,
    );
    if (own === undefined || own.isTentative) return;
    if (isUnspecified(packet.source))
      return this.#answer(link, packet.target, encodeNd(ndDefence(packet.target, link.macAddress)));
    const advertisement = { ...ndAnnouncement(packet.target, link.macAddress), isSolicited: true };
    const to = packet.linkLayerAddress ?? packet.sourceMac;
    this.#answer(link, packet.target, encodeNd({ ...advertisement, destination: packet.source, destinationMac: to }));
  }

  #answer(link: Link, address: Address, frame: Buffer): void {
    const delayMs = this.answerMs === null ? this.#kernel.random.delay(0.05, 0.8) : this.answerMs(address);
    if (delayMs === null) return;
    const send = () => {
      if (link.namespace.links.has(link.index)) this.#kernel.transmit(link, frame);
    };
    scheduler.inert(delayMs, send);
  }
}

function keyOf(link: Link, address: Address): string {
  return `${link.index} ${formatAddress(address)}`;
}
