/** What a simulated kernel has: network namespaces, links and addresses, as plain state. */
import { type Address, type Family, formatAddress } from './address.ts';
import type { PacketSocket } from './socket.ts';

/** An address on a link. */
export interface LinkAddress {
  readonly address: Address;
  readonly length: number;
  /** IPv6: it is not known yet whether another has it; it is not answered for. */
  isTentative: boolean;
}

/** A network namespace. The first of a machine is the host's own. */
export class Namespace {
  /** Of the host, or of the container `name`. */
  readonly name: string;
  /** The number that it has in the host's; null while it has none. */
  id: number | null = null;
  readonly links = new Map<number, Link>();
  #ipv4: Set<number> | null = null;

  constructor(name: string) {
    this.name = name;
  }

  byName(name: string): Link | undefined {
    for (const link of this.links.values()) if (link.name === name) return link;
    return undefined;
  }

  /** Its links or their addresses are not what they were. */
  changed(): void {
    this.#ipv4 = null;
  }

  /** Whether a link that is up has it. Asked for each frame, so it is kept. */
  hasIPv4(address: number): boolean {
    this.#ipv4 ??= new Set(
      Array.from(this.links.values()).flatMap((link) =>
        link.isUp ? link.addressesOf('IPv4').map(({ address: { value } }) => Number(value)) : [],
      ),
    );
    return this.#ipv4.has(address);
  }

  /** The link that is up and has the address. */
  holder(address: Address): Link | undefined {
    for (const link of this.links.values()) if (link.isUp && link.has(address)) return link;
    return undefined;
  }
}

/** What a cable leads to. */
export interface Cable {
  send(frame: Buffer): void;
  readonly hasCarrier: boolean;
}

export type Kind = 'macvlan' | 'dummy' | null;

interface LinkSpec {
  readonly index: number;
  readonly name: string;
  readonly kind: Kind;
  readonly macAddress: string;
  readonly parent?: Link | null;
  readonly cable?: Cable | null;
}

/** A link: a NIC with its cable, or a macvlan on one. */
export class Link {
  readonly index: number;
  name: string;
  readonly kind: Kind;
  readonly macAddress: string;
  /** The same as a number, as frames are looked at by the thousand. */
  readonly mac: number;
  readonly parent: Link | null;
  readonly cable: Cable | null;
  alias: string | null = null;
  group = 0;
  mtu = 1500;
  isUp = false;
  hasArp = true;
  isPromiscuous = false;
  carrierChanges = 0;
  /** Frames in and out. */
  carried = 0;
  namespace: Namespace;
  readonly addresses: LinkAddress[] = [];
  readonly children = new Set<Link>();
  readonly sockets = new Set<PacketSocket>();
  #hadCarrier = false;

  constructor({ index, name, kind, macAddress, parent = null, cable = null }: LinkSpec, namespace: Namespace) {
    [this.index, this.name, this.kind, this.macAddress] = [index, name, kind, macAddress];
    this.mac = Number.parseInt(macAddress.replaceAll(':', ''), 16);
    [this.parent, this.cable, this.namespace] = [parent, cable, namespace];
    parent?.children.add(this);
    namespace.links.set(index, this);
  }

  /** IFF_LOWER_UP: up, and what is below can carry frames. */
  get hasCarrier(): boolean {
    if (!this.isUp) return false;
    if (this.parent !== null) return this.parent.hasCarrier;
    return this.cable?.hasCarrier ?? true;
  }

  /** Counts a change of the carrier since the last call; true when there was one. */
  countCarrier(): boolean {
    const now = this.hasCarrier;
    if (now === this.#hadCarrier) return false;
    this.#hadCarrier = now;
    this.carrierChanges++;
    return true;
  }

  has(address: Address): boolean {
    return this.addresses.some((one) => one.address.value === address.value && one.address.family === address.family);
  }

  /** Of one family. */
  addressesOf(family: Family): LinkAddress[] {
    return this.addresses.filter(({ address }) => address.family === family);
  }

  /** The frame is for this link, or for all. */
  accepts(destination: number): boolean {
    return this.isPromiscuous || isGroup(destination) || destination === this.mac;
  }

  toString(): string {
    return `${this.namespace.name}:${this.name} (${this.addresses.map(({ address }) => formatAddress(address)).join(' ')})`;
  }
}

const GROUP_BIT = 2 ** 40;

/** Broadcast or multicast. */
export function isGroup(mac: number): boolean {
  return Math.floor(mac / GROUP_BIT) % 2 === 1;
}

/** Whom a frame is for. */
export function destinationOf(frame: Buffer): number {
  return frame.readUIntBE(0, 6);
}

export function sourceOf(frame: Buffer): number {
  return frame.readUIntBE(6, 6);
}
