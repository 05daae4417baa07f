/**
 * Who else is on a LAN. Each has a kernel of its own that answers as Linux does, unless its kind is to do otherwise.
 */
import { arpAnnouncement, arpProbe, decodeArp, encodeArp } from '../../src/lan/frames/arp.ts';
import { BROADCAST_MAC } from '../../src/lan/frames/ethernet.ts';
import { decodeNd } from '../../src/lan/frames/nd.ts';
import { announcementFrame, probeFrames } from '../../src/lan/frames/outgoing.ts';
import { type Address, formatAddress, formatMac, parseAddress } from './kernel/address.ts';
import { Kernel } from './kernel/kernel.ts';
import type { Link } from './kernel/link.ts';
import { babble } from './babble.ts';
import type { Port, Station } from './lan.ts';
import type { Random } from './random.ts';
import { SUBNETS } from './subnets.ts';
import { type Event, scheduler } from './time.ts';

export type Kind =
  | 'quiet'
  | 'announcing'
  | 'masked'
  | 'late'
  | 'proxy'
  | 'builtin'
  | 'dhcp'
  | 'forger'
  | 'scanner'
  | 'flooder'
  | 'many'
  | 'babbler'
  | 'router';

interface StrangerSpec {
  readonly name: string;
  readonly kind: Kind;
  readonly random: Random;
  readonly port: Port;
  /** Addresses that it speaks of when it speaks of many. */
  readonly subnet: readonly string[];
}

/** Longest that a kind `late` takes for an answer. */
const LATEST_MS = 400;
/** Addresses that one takes who takes many. */
const MANY = 3;
/** RFC 5227 1.1 */
const PROBES = 3;

/** One stranger with one cable. */
export class Stranger implements Station {
  readonly name: string;
  readonly kind: Kind;
  readonly kernel: Kernel;
  readonly nic: Link;
  readonly port: Port;
  readonly #spec: StrangerSpec;
  readonly #containers = new Map<string, Link>();
  readonly #wanting = new Map<string, Event>();
  /** Of those that it took together: the first. */
  readonly #many = new Map<string, string>();
  #busy: Event | undefined;

  constructor(spec: StrangerSpec) {
    this.#spec = spec;
    [this.name, this.kind, this.port] = [spec.name, spec.kind, spec.port];
    this.kernel = new Kernel(spec.name, spec.random.fork('kernel'));
    this.nic = this.kernel.addNic('eth0', macOfStranger(spec.name, spec.kind), spec.port);
    spec.port.station = this;
    if (spec.kind === 'late') this.kernel.neighbours.answerMs = () => spec.random.between(1, LATEST_MS);
  }

  receive(frame: Buffer): void {
    if (this.kind === 'proxy') this.#answerForAll(frame);
    if (this.#wanting.size > 0) this.#hearWhileAsking(frame);
    this.kernel.receive(this.nic, frame);
  }

  /** How long it may take to answer. */
  get answersWithinMs(): number {
    return this.kind === 'late' ? LATEST_MS : 1;
  }

  has(text: string): boolean {
    const address = parseAddress(text);
    return address !== undefined && [...this.kernel.namespaces].some((one) => one.holder(address) !== undefined);
  }

  /** It asks for the address in order to take it. */
  wants(text: string): boolean {
    return this.#wanting.has(text);
  }

  /** Begins to use an address, in the way of its kind. */
  take(text: string): void {
    const address = parseAddress(text);
    if (address === undefined || this.has(text) || this.#wanting.has(text)) return;
    if (this.kind === 'dhcp') return this.#ask(address, PROBES);
    if (this.kind === 'builtin') return this.#runContainer(address);
    if (this.kind === 'many') return this.#takeMany(text);
    this.kernel.addAddress(this.nic, address, prefixLengthOf(address));
    if (['announcing', 'masked'].includes(this.kind)) this.kernel.neighbours.announce(this.nic, address);
  }

  /** And those that follow. */
  #takeMany(text: string): void {
    const { subnet } = this.#spec;
    const first = subnet.indexOf(text);
    for (const one of subnet.slice(first, first + MANY)) {
      const address = parseAddress(one);
      if (address === undefined || this.has(one)) continue;
      this.#many.set(one, text);
      this.kernel.addAddress(this.nic, address, prefixLengthOf(address));
    }
  }

  leave(text: string): void {
    for (const [one, first] of this.#many) {
      const address = first === text ? parseAddress(one) : undefined;
      if (address === undefined) continue;
      this.#many.delete(one);
      this.kernel.removeAddress(this.nic, address);
    }
    const address = parseAddress(text);
    const wanting = this.#wanting.get(text);
    if (wanting !== undefined) wanting.isCancelled = true;
    this.#wanting.delete(text);
    if (address !== undefined) this.kernel.removeAddress(this.nic, address);
    const link = this.#containers.get(text);
    if (link !== undefined) this.kernel.removeNamespace(link.namespace);
    this.#containers.delete(text);
  }

  /** Bothers the LAN for so long, in the way of its kind. */
  act(forMs: number): void {
    if (this.#busy !== undefined) this.#busy.isCancelled = true;
    const untilMs = scheduler.nowMs + forMs;
    const step = () => {
      if (scheduler.nowMs >= untilMs) return;
      this.#bother();
      this.#busy = scheduler.inert(this.#pauseMs(), step);
    };
    step();
  }

  #pauseMs(): number {
    return { forger: 25, scanner: 40, flooder: 15, babbler: 30 }[this.kind as 'forger'] ?? 1000;
  }

  #bother(): void {
    const { random, subnet } = this.#spec;
    if (this.kind === 'babbler') return this.#send(babble(random, subnet));
    const address = parseAddress(random.pick(subnet));
    if (address === undefined || address.family !== 'IPv4') return;
    switch (this.kind) {
      case 'forger':
        // Speaks for the network's own address, which nobody can have, with somebody else's MAC address.
        return this.#forge(random.pick(this.port.lan.ports).station);
      case 'scanner':
        return this.#send(encodeArp(arpProbe(address, this.nic.macAddress)));
      case 'flooder':
        return this.#send(encodeArp(arpAnnouncement(address, madeUpMac(random))));
      default:
        return;
    }
  }

  #forge(victim: Station | null): void {
    const mac = victim instanceof Stranger ? victim.nic.macAddress : this.nic.macAddress;
    const [first = ''] = this.#spec.subnet;
    const address = parseAddress(first);
    if (address === undefined) return;
    const nobodys = { family: address.family, value: address.value & ~0xffn };
    this.#send(encodeArp({ ...arpAnnouncement(nobodys, mac), operation: 'reply', destinationMac: BROADCAST_MAC }));
  }

  #send(frame: Buffer): void {
    this.kernel.transmit(this.nic, frame);
  }

  /** Says of every address that it is here. */
  #answerForAll(frame: Buffer): void {
    const packet = decodeArp(frame);
    if (packet === undefined || packet.operation !== 'request' || this.kernel.isAsleep) return;
    const isForMe = packet.destinationMac === BROADCAST_MAC || packet.destinationMac === this.nic.macAddress;
    const isAnnouncement = packet.senderAddress.value === packet.targetAddress.value;
    if (!isForMe || isAnnouncement || this.kernel.host.holder(packet.targetAddress) !== undefined) return;
    const reply = encodeArp({
      ...packet,
      operation: 'reply',
      destinationMac: packet.senderMac,
      sourceMac: this.nic.macAddress,
      senderMac: this.nic.macAddress,
      senderAddress: packet.targetAddress,
      targetMac: packet.senderMac,
      targetAddress: packet.senderAddress,
    });
    scheduler.inert(this.#spec.random.delay(0.3, 3), () => this.#send(reply));
  }

  /** As a DHCP client does with what its server gave it (RFC 5227 2.1): whoever has it, or asks for it too, keeps it. */
  #ask(address: Address, left: number): void {
    const text = formatAddress(address);
    if (left === 0) {
      this.#wanting.delete(text);
      this.kernel.addAddress(this.nic, address, prefixLengthOf(address));
      this.#send(announcementFrame(address, this.nic.macAddress));
      scheduler.inert(2000, () => this.has(text) && this.#send(announcementFrame(address, this.nic.macAddress)));
      return;
    }
    for (const frame of probeFrames(address, this.nic.macAddress, '000000000001')) this.#send(frame);
    const waitMs = left === 1 ? 2000 : this.#spec.random.between(1000, 2000);
    this.#wanting.set(
      text,
      scheduler.inert(waitMs, () => this.#ask(address, left - 1)),
    );
  }

  #hearWhileAsking(frame: Buffer): void {
    const about = spokenOf(frame, this.nic.macAddress);
    for (const [text, event] of this.#wanting) {
      if (about !== text) continue;
      event.isCancelled = true;
      this.#wanting.delete(text);
    }
  }

  /** A container of Docker's built-in driver, as engines up to 27 make them: its MAC address follows from the address. */
  #runContainer(address: Address): void {
    const bytes = Number(address.value & 0xffff_ffffn)
      .toString(16)
      .padStart(8, '0');
    const mac = `02:42:${bytes.match(/../g)?.join(':')}`;
    const text = formatAddress(address);
    const link = this.kernel.addMacvlan(`veth${bytes}`, this.nic, mac);
    this.kernel.moveLink(link, this.kernel.addNamespace(`${this.name}/${text}`), 'eth0');
    this.kernel.addAddress(link, address, prefixLengthOf(address));
    this.kernel.setUp(link, true);
    this.#containers.set(text, link);
  }
}

function prefixLengthOf({ family }: Address): number {
  return SUBNETS[family].prefixLength;
}

/** The address that another uses, or asks for in order to use it. */
function spokenOf(frame: Buffer, ownMac: string): string | null {
  const arp = decodeArp(frame);
  if (arp !== undefined && arp.senderMac !== ownMac)
    return formatAddress(arp.senderAddress.value === 0n ? arp.targetAddress : arp.senderAddress);
  const nd = decodeNd(frame);
  if (nd === undefined || nd.sourceMac === ownMac) return null;
  return nd.protocol === 'NA' || nd.source.value === 0n ? formatAddress(nd.target) : null;
}

function madeUpMac(random: Random): string {
  const bytes = random.bytes(6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 2;
  return formatMac(bytes);
}

/** One that is masked has a MAC address that looks like what a daemon of this kind has on standby. */
function macOfStranger(name: string, kind: Kind): string {
  return `${kind === 'masked' ? '02:74:6b' : '52:54:00'}:00:01:${Number(name.replaceAll(/\D/g, '')).toString(16).padStart(2, '0')}`;
}
