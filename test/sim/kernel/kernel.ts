/**
 * The kernel of one machine: its namespaces and links, how frames go between them, and what it says to who asks by ARP and
 * neighbour discovery. It follows Linux where this product depends on it; the truth about kernels stays with test/netns.
 */
import { type Process, type Machine, scheduler } from '../time.ts';
import type { Random } from '../random.ts';
import { type Address, formatAddress } from './address.ts';
import { type Cable, Link, Namespace, destinationOf, isGroup } from './link.ts';
import { Neighbours } from './neighbour.ts';
import { encodeAddressEvent, encodeLinkEvent, encodeNumberEvent } from './message.ts';
import type { NetlinkSocket } from './socket.ts';

const GROUP_LINK = 0x1;
const GROUP_IPV4_ADDRESS = 0x10;
const GROUP_IPV6_ADDRESS = 0x100;
const GROUP_NUMBER = 0x8000000;

/** Of a machine that runs programs. */
export class Kernel {
  readonly name: string;
  readonly random: Random;
  readonly host: Namespace;
  readonly namespaces = new Set<Namespace>();
  readonly netlinkSockets = new Set<NetlinkSocket>();
  readonly neighbours: Neighbours;
  /** The machine is asleep or off: nothing comes in, nothing goes out. */
  isAsleep = false;
  /** Processes are told when a socket can be read. */
  tellsReadable = true;
  /** Told when an address or a link is not what it was. */
  onChange: () => void = () => undefined;
  #nextIndex = 2;
  #nextNumber = 0;

  constructor(name: string, random: Random) {
    [this.name, this.random] = [name, random];
    this.host = this.addNamespace(name);
    this.neighbours = new Neighbours(this);
  }

  // --- namespaces and links ----------------------------------------------------------------------------------------

  addNamespace(name: string): Namespace {
    const namespace = new Namespace(name);
    this.namespaces.add(namespace);
    return namespace;
  }

  /** Its links end with it. */
  removeNamespace(namespace: Namespace): void {
    for (const link of [...namespace.links.values()]) this.removeLink(link);
    this.namespaces.delete(namespace);
    if (namespace.id === null) return;
    this.#tell(this.host, GROUP_NUMBER, encodeNumberEvent(namespace.id, true));
    namespace.id = null;
  }

  /** The number of a namespace in the host's, which gets one if it has none. */
  numberOf(namespace: Namespace): number {
    if (namespace.id !== null) return namespace.id;
    namespace.id = this.#nextNumber++;
    this.#tell(this.host, GROUP_NUMBER, encodeNumberEvent(namespace.id, false));
    return namespace.id;
  }

  byNumber(id: number): Namespace | undefined {
    return [...this.namespaces].find((namespace) => namespace.id === id);
  }

  addNic(name: string, macAddress: string, cable: Cable): Link {
    const link = new Link({ index: this.#nextIndex++, name, kind: null, macAddress, cable }, this.host);
    this.setUp(link, true);
    return link;
  }

  addMacvlan(name: string, parent: Link, macAddress: string): Link {
    const spec = { index: this.#nextIndex++, name, kind: 'macvlan', macAddress, parent } as const;
    return new Link(spec, parent.namespace);
  }

  addDummy(name: string, macAddress: string): Link {
    return new Link({ index: this.#nextIndex++, name, kind: 'dummy', macAddress }, this.host);
  }

  removeLink(link: Link): void {
    for (const child of [...link.children]) this.removeLink(child);
    if (link.isUp) this.setUp(link, false);
    for (const socket of [...link.sockets]) socket.lose(true);
    link.parent?.children.delete(link);
    link.namespace.links.delete(link.index);
    this.tellLink(link, true);
  }

  /** As `ip link set netns`: it goes down first and loses its addresses. */
  moveLink(link: Link, to: Namespace, name = link.name): void {
    if (link.isUp) this.setUp(link, false);
    for (const { address, length } of link.addresses.splice(0)) this.#tellAddress(link, address, length, true);
    if (to !== this.host) this.numberOf(to);
    this.tellLink(link, true);
    link.namespace.links.delete(link.index);
    [link.namespace, link.name] = [to, name];
    to.links.set(link.index, link);
    this.tellLink(link);
  }

  setUp(link: Link, isUp: boolean): void {
    if (link.isUp === isUp) return;
    link.isUp = isUp;
    if (!isUp) for (const socket of link.sockets) socket.lose(false);
    this.tellLink(link);
    this.carrierChanged(link);
  }

  /** A link's carrier may have changed, and with it that of what stands on it. Told a moment later (linkwatch). */
  carrierChanged(link: Link): void {
    if (link.countCarrier()) scheduler.inert(1, () => this.#tellCarrier(link));
    for (const child of link.children) this.carrierChanged(child);
  }

  #tellCarrier(link: Link): void {
    if (link.namespace.links.has(link.index)) this.tellLink(link);
  }

  addAddress(link: Link, address: Address, length: number): void {
    link.addresses.push({ address, length, isTentative: false });
    this.#tellAddress(link, address, length, false);
  }

  removeAddress(link: Link, address: Address): boolean {
    const at = link.addresses.findIndex((one) => formatAddress(one.address) === formatAddress(address));
    const [gone] = at < 0 ? [] : link.addresses.splice(at, 1);
    if (gone !== undefined) this.#tellAddress(link, address, gone.length, true);
    return gone !== undefined;
  }

  // --- what it tells -----------------------------------------------------------------------------------------------

  tellLink(link: Link, isGone = false): void {
    link.namespace.changed();
    this.#tell(link.namespace, GROUP_LINK, encodeLinkEvent(link, isGone));
    this.onChange();
  }

  #tellAddress(link: Link, address: Address, length: number, isGone: boolean): void {
    link.namespace.changed();
    const group = address.family === 'IPv4' ? GROUP_IPV4_ADDRESS : GROUP_IPV6_ADDRESS;
    this.#tell(link.namespace, group, encodeAddressEvent(link.index, address, length, isGone));
    this.onChange();
  }

  #tell(namespace: Namespace, group: number, bytes: Buffer): void {
    for (const socket of this.netlinkSockets) {
      if ((socket.groups & group) === 0) continue;
      if (namespace === this.host) socket.take({ bytes, namespaceId: null });
      else if (socket.hearsAll && namespace.id !== null) socket.take({ bytes, namespaceId: namespace.id });
    }
  }

  // --- frames ------------------------------------------------------------------------------------------------------

  /** A frame comes in by the cable. What the NIC does not take nobody hears. */
  receive(nic: Link, frame: Buffer): void {
    const destination = destinationOf(frame);
    const child = childWith(nic, destination);
    if (this.isAsleep || !nic.isUp || !(nic.accepts(destination) || child !== undefined)) return;
    this.#arrive(nic, frame, destination, child);
  }

  #arrive(nic: Link, frame: Buffer, destination: number, child: Link | undefined): void {
    nic.carried++;
    for (const socket of nic.sockets) socket.hear(frame, false);
    if (child !== undefined) return this.#deliver(child, frame);
    if (isGroup(destination)) this.#broadcast(nic, frame, undefined);
    if (!isGroup(destination) && destination !== nic.mac) return;
    this.neighbours.hear(nic, frame);
  }

  /** To the children of a link, by a queue (macvlan_broadcast_enqueue). */
  #broadcast(parent: Link, frame: Buffer, from: Link | undefined): void {
    const children = [...parent.children].filter((child) => child !== from && child.isUp);
    if (children.length === 0) return;
    const deliver = () => {
      for (const child of children) if (child.isUp && child.parent?.children.has(child)) this.#deliver(child, frame);
    };
    scheduler.inert(this.random.delay(0.03, 2), deliver);
  }

  #deliver(link: Link, frame: Buffer): void {
    link.carried++;
    for (const socket of link.sockets) socket.hear(frame, false);
    this.neighbours.hear(link, frame);
  }

  /** False when the link is down. What a child sends to a sibling comes in at their parent. */
  transmit(link: Link, frame: Buffer): boolean {
    if (!link.isUp) return false;
    link.carried++;
    for (const socket of link.sockets) socket.hear(frame, true);
    if (this.isAsleep || !link.hasCarrier) return true;
    const { parent } = link;
    if (parent === null) {
      link.cable?.send(frame);
      return true;
    }
    const destination = destinationOf(frame);
    const sibling = childWith(parent, destination);
    if (sibling !== undefined && sibling !== link) {
      for (const socket of parent.sockets) socket.hear(frame, false);
      this.#deliver(sibling, frame);
      return true;
    }
    if (isGroup(destination)) this.#broadcast(parent, frame, link);
    return this.transmit(parent, frame);
  }
}

function childWith({ children }: Link, mac: number): Link | undefined {
  for (const child of children) if (child.isUp && child.mac === mac) return child;
  return undefined;
}

/** A machine that has a kernel. */
export interface Computer extends Machine {
  readonly kernel: Kernel;
}

export type Program = Process<Computer>;
