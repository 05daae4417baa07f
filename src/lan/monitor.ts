/**
 * The watch over addresses of running containers (RFC 5227 2.4, RFC 4862 5.4.4): a frame on the LAN in which somebody
 * else speaks for one of them is a conflict.
 *
 * One packet socket on each parent that has containers. From the parent the whole wire is in reach, and what its children
 * send out passes there too, so our containers' own frames are seen and known. The socket's filter knows the addresses:
 * what else passes by costs this process nothing. Nothing is sent, except in defence.
 *
 * Whoever speaks for an address is judged by what he may speak for, not by the look of his MAC address: takers.ts finds out
 * whether it is the container's own, and remembers those of strangers.
 *
 * Two Docker hosts make the same MAC address from the same IP address. So a frame that comes in with our own MAC is a
 * conflict too, unless it is one that went out a moment ago: some switches (vepa), bonds and bridges send frames back.
 * Only frames to all count there: what one child of a parent sends to another alone is shown to the parent as if it
 * came in (macvlan_queue_xmit, dev_forward_skb).
 */
import { type Address, formatAddress, isMulticastMac, isSameAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { BpfInstruction } from '../kernel/bpf.ts';
import type { Links } from '../kernel/link.ts';
import { PacketSocket } from '../kernel/packet.ts';
import { type Clock, systemClock } from '../clock.ts';
import { DuplicateMacs } from './duplicatemac.ts';
import { ETHERTYPE_ARP, HEADER_BYTES, etherTypeOf } from './frames/ethernet.ts';
import { watchingFilter } from './frames/filter.ts';
import { ALL_NODES_MAC } from './frames/nd.ts';
import { type Sighting, decodePacket, isStandbyNotice, readSighting } from './frames/sighting.ts';
import { LastingConflicts, type LastingParts } from './lasting.ts';
import { type HasLinkTable, findOwners, isInContainer } from './ownhost.ts';
import { type MonitoredEndpoint, Takers, type TakersParts } from './takers.ts';

/** What a monitor works with. */
export interface MonitorParts extends Pick<TakersParts, 'onConflict'>, Pick<LastingParts, 'onEnd'> {
  readonly links: Pick<Links, 'byName'> & HasLinkTable;
  /** So many frames about addresses of containers were lost on a parent, because they came too fast. Told once in ten minutes. */
  readonly onLost: (parentName: string, count: number) => void;
  /** The MAC address is that of another interface of a container that has just left the address: what it says is not noted. */
  readonly isLeaver?: (parentName: string, address: Address, macAddress: string) => boolean;
  readonly clock?: Clock;
}

/** How often the sockets are read: whoever takes an address notices himself within seconds. */
const READ_MS = 250;
/** In one reading, of 1,024 frames each: all that can wait. */
const MOST_BATCHES = 3;
/** A parent that is down or gone is looked for this often. */
const RETRY_MS = 2000;
/** Frames that were sent back come within this time. */
const ECHO_MS = 3000;
const MOST_SENT = 4096;
/** What a container said before it went was read and judged by then. */
const LEFT_MS = 3000;
const MOST_LEFT = 1024;
/** The kernel doubles it, and a short frame takes some 800 bytes: 2,600 frames between two readings. */
const RECEIVE_BUFFER_BYTES = 1024 * 1024;
const LOSS_INTERVAL_MS = 600_000;

interface MonitoredParent {
  /** By address, and by MAC address. */
  readonly endpoints: Map<string, MonitoredEndpoint>;
  readonly byMac: Map<string, MonitoredEndpoint>;
  /** By MAC address and address, containers that have said to all where they are. */
  readonly spoken: Set<string>;
  /** What this host sent to all about them, and when. */
  readonly sent: LatestMap<string, number>;
  socket: PacketSocket | undefined;
  linkIndex: number;
  isFilterStale: boolean;
  isOpening: boolean;
  retryAtMs: number;
  lossToldAtMs: number;
}

/** Listens on each parent that has endpoints, and reports conflicts. */
export class Monitor {
  readonly #parts: MonitorParts;
  readonly #clock: Clock;
  readonly #parents = new Map<string, MonitoredParent>();
  readonly #endpoints = new Map<string, MonitoredEndpoint>();
  readonly #takers: Takers;
  readonly #lasting: LastingConflicts;
  /** When the watch over an endpoint ended, by its MAC address. */
  readonly #leftAtMs = new LatestMap<string, number>(MOST_LEFT);
  readonly #duplicateMacs: DuplicateMacs;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: MonitorParts) {
    const { links, onConflict, onEnd, clock = systemClock } = parts;
    this.#parts = parts;
    this.#clock = clock;
    this.#duplicateMacs = new DuplicateMacs(clock, (conflict) => {
      void isInContainer(links, conflict.parentName, conflict.ourMacAddress).then(
        (isThere) => isThere && onConflict(conflict),
      );
    });
    this.#takers = new Takers({
      owners: (questions) => findOwners(links, questions),
      isWatched: (endpoint) => this.#isWatched(endpoint),
      isEndpoint: (macAddress) => this.#ofMac(macAddress).length > 0,
      hasLeft: (macAddress) => clock.nowMs() - (this.#leftAtMs.get(macAddress) ?? Number.NEGATIVE_INFINITY) < LEFT_MS,
      onConflict,
      onExcused: (contest) => this.#lasting.suspect(contest),
      clock,
    });
    const isWatched = (endpoint: MonitoredEndpoint) => this.#isWatched(endpoint);
    this.#lasting = new LastingConflicts({ takers: this.#takers, isWatched, onEnd, clock });
  }

  /** Begins the watch over an endpoint. `id` names it in forget(); given again it replaces the first. */
  watch(id: string, endpoint: MonitoredEndpoint): void {
    this.forget(id);
    if (endpoint.addresses.length === 0) return;
    const parent = this.#parents.get(endpoint.parentName) ?? this.#begin(endpoint.parentName);
    // What waits there was said before: perhaps by the container that had the address until now.
    this.#read(endpoint.parentName, parent);
    for (const address of endpoint.addresses) {
      parent.endpoints.set(formatAddress(address), endpoint);
      parent.spoken.delete(spokenKey(endpoint, address));
    }
    parent.byMac.set(endpoint.macAddress, endpoint);
    parent.isFilterStale = true;
    this.#endpoints.set(id, endpoint);
    this.#timer ??= setInterval(() => this.#round(), READ_MS).unref();
  }

  /** The endpoint goes, and with it the watch. */
  forget(id: string): void {
    const endpoint = this.#endpoints.get(id);
    const parent = endpoint && this.#parents.get(endpoint.parentName);
    this.#endpoints.delete(id);
    if (endpoint === undefined || parent === undefined) return;
    this.#leftAtMs.put(endpoint.macAddress, this.#clock.nowMs());
    for (const address of endpoint.addresses) {
      const text = formatAddress(address);
      parent.spoken.delete(spokenKey(endpoint, address));
      if (parent.endpoints.get(text) === endpoint) parent.endpoints.delete(text);
    }
    if (parent.byMac.get(endpoint.macAddress) === endpoint) parent.byMac.delete(endpoint.macAddress);
    parent.isFilterStale = true;
    if (parent.endpoints.size === 0) this.#end(endpoint.parentName, parent);
  }

  /**
   * Another socket of ours heard somebody use an address, and it was found out that he does not answer for all. Told as if it
   * was heard here, where the filter learns of a new address only at the next round. False when the address is not watched
   * over.
   */
  hear(parentName: string, address: Address, macAddress: string): boolean {
    const parent = this.#parents.get(parentName);
    const endpoint = parent?.endpoints.get(formatAddress(address));
    const own = endpoint?.addresses.find((one) => isSameAddress(one, address));
    if (parent === undefined || endpoint === undefined || own === undefined) return false;
    if (macAddress === endpoint.macAddress || this.#isLeaver(endpoint, own, macAddress)) return true;
    this.#read(parentName, parent);
    const isHeard = this.#clock.nowMs() - this.#takers.lastSeenOf(parentName, address, macAddress) < READ_MS;
    const { linkIndex: parentIndex } = parent;
    if (!isHeard)
      this.#takers.note({ endpoint, parentIndex, address: own, macAddress, isAnswer: false, origin: 'segment' });
    void this.#takers.settle();
    return true;
  }

  /** Somebody may have the address, if a container has it: he is asked, and whether he answers is told like anything heard. */
  suspect(parentName: string, address: Address): void {
    const endpoint = this.#parents.get(parentName)?.endpoints.get(formatAddress(address));
    const own = endpoint?.addresses.find((one) => isSameAddress(one, address));
    if (endpoint !== undefined && own !== undefined) this.#lasting.suspect({ endpoint, address: own });
  }

  /** The container has said to all that it has the address, since the watch over it began. */
  hasSpoken(id: string, address: Address): boolean {
    const endpoint = this.#endpoints.get(id);
    const parent = endpoint && this.#parents.get(endpoint.parentName);
    if (endpoint === undefined || parent === undefined) return false;
    this.#read(endpoint.parentName, parent);
    return parent.spoken.has(spokenKey(endpoint, address));
  }

  /** Somebody else spoke for the address not long ago. */
  isContested(parentName: string, address: Address): boolean {
    return this.#takers.isContested(parentName, address);
  }

  /** An endpoint of this host, on whatever parent, has this MAC address and this address. */
  isOwn(macAddress: string, address: Address): boolean {
    const hasIt = ({ addresses }: MonitoredEndpoint) => addresses.some((one) => isSameAddress(one, address));
    return this.#ofMac(macAddress).some(hasIt);
  }

  /** Conflicts of an address, or of any (null), are news when they show again: what was said until now is over. */
  forgetConflicts(address: Address | null): void {
    for (const [parentName, parent] of this.#parents) this.#read(parentName, parent);
    this.#duplicateMacs.clear();
    if (address === null) this.#takers.clear();
    else for (const parentName of this.#parents.keys()) this.#takers.forget(parentName, address);
  }

  /** Ends every watch. */
  close(): void {
    clearInterval(this.#timer);
    for (const [parentName, parent] of this.#parents) this.#end(parentName, parent);
    this.#endpoints.clear();
  }

  #isWatched(endpoint: MonitoredEndpoint): boolean {
    const { endpoints } = this.#parents.get(endpoint.parentName) ?? {};
    return endpoint.addresses.some((address) => endpoints?.get(formatAddress(address)) === endpoint);
  }

  #ofMac(macAddress: string): MonitoredEndpoint[] {
    return [...this.#parents.values()].flatMap(({ byMac }) => byMac.get(macAddress) ?? []);
  }

  #begin(parentName: string): MonitoredParent {
    const parent: MonitoredParent = {
      endpoints: new Map(),
      byMac: new Map(),
      spoken: new Set(),
      sent: new LatestMap(MOST_SENT),
      socket: undefined,
      linkIndex: 0,
      isFilterStale: false,
      isOpening: false,
      retryAtMs: 0,
      lossToldAtMs: Number.NEGATIVE_INFINITY,
    };
    this.#parents.set(parentName, parent);
    void this.#open(parentName, parent);
    return parent;
  }

  #end(parentName: string, parent: MonitoredParent): void {
    this.#parents.delete(parentName);
    parent.socket?.close();
    parent.socket = undefined;
    if (this.#parents.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #round(): void {
    const nowMs = this.#clock.nowMs();
    this.#takers.expire();
    for (const [parentName, parent] of this.#parents) {
      if (parent.socket !== undefined) this.#read(parentName, parent);
      else if (nowMs >= parent.retryAtMs) void this.#open(parentName, parent);
    }
    void this.#takers.settle();
    this.#lasting.review();
  }

  /** Until it succeeds the parent is looked for again and again. */
  async #open(parentName: string, parent: MonitoredParent): Promise<void> {
    if (parent.isOpening) return;
    parent.isOpening = true;
    parent.retryAtMs = this.#clock.nowMs() + RETRY_MS;
    try {
      const link = await this.#parts.links.byName(parentName);
      if (!link?.isUp || this.#parents.get(parentName) !== parent) return;
      parent.linkIndex = link.index;
      parent.socket = PacketSocket.open({
        linkIndex: link.index,
        filter: filterFor(parent),
        memberships: [ALL_NODES_MAC],
        receiveBufferBytes: RECEIVE_BUFFER_BYTES,
      });
      parent.isFilterStale = false;
    } catch {
      // It went away just now.
    } finally {
      parent.isOpening = false;
    }
  }

  #read(parentName: string, parent: MonitoredParent): void {
    try {
      if (parent.isFilterStale) parent.socket?.setFilter(filterFor(parent));
      parent.isFilterStale = false;
      for (let batch = 0; batch < MOST_BATCHES; batch++) {
        const frames = parent.socket?.receive() ?? [];
        for (const { frame, outgoing } of frames) this.#judge(parent, frame, outgoing);
        if (frames.length === 0) break;
      }
      this.#tellLost(parentName, parent);
    } catch {
      // The parent went down or away.
      parent.socket?.close();
      parent.socket = undefined;
    }
    const nowMs = this.#clock.nowMs();
    for (const [key, atMs] of parent.sent) if (nowMs - atMs > ECHO_MS) parent.sent.delete(key);
  }

  #tellLost(parentName: string, parent: MonitoredParent): void {
    const count = parent.socket?.dropped() ?? 0;
    const nowMs = this.#clock.nowMs();
    if (count === 0 || nowMs - parent.lossToldAtMs < LOSS_INTERVAL_MS) return;
    parent.lossToldAtMs = nowMs;
    this.#parts.onLost(parentName, count);
  }

  #judge(parent: MonitoredParent, frame: Buffer, outgoing: boolean): void {
    const packet = decodePacket(frame);
    const sighting = packet && readSighting(packet);
    if (sighting?.kind !== 'use') return;
    const origin = originOf(sighting, outgoing);
    const isToAll = isMulticastMac(sighting.packet.destinationMac);
    if (isToAll && origin === 'here') parent.sent.put(echoKey(frame), this.#clock.nowMs());
    if (origin === 'wire' && parent.sent.has(echoKey(frame))) return;
    if (origin === 'wire') this.#findDuplicateMac(parent, sighting);
    const { address, macAddress, isAnswer } = sighting;
    const endpoint = parent.endpoints.get(formatAddress(address));
    const own = endpoint?.addresses.find((one) => isSameAddress(one, address));
    if (endpoint === undefined || own === undefined || isStandbyNotice(sighting)) return;
    if (macAddress === endpoint.macAddress && origin === 'here' && isToAll) parent.spoken.add(spokenKey(endpoint, own));
    if (macAddress === endpoint.macAddress && (origin !== 'wire' || this.#isOnOtherParent(endpoint))) return;
    if (this.#isLeaver(endpoint, own, macAddress)) return;
    this.#takers.note({ endpoint, parentIndex: parent.linkIndex, address: own, macAddress, isAnswer, origin });
  }

  #isLeaver({ parentName }: MonitoredEndpoint, address: Address, macAddress: string): boolean {
    return this.#parts.isLeaver?.(parentName, address, macAddress) ?? false;
  }

  /** The frame, or the sender that an ARP packet names, has a container's MAC address. */
  #findDuplicateMac(parent: MonitoredParent, { address, macAddress, packet }: Sighting): void {
    const endpoint = parent.byMac.get(packet.sourceMac) ?? parent.byMac.get(macAddress);
    if (endpoint === undefined || this.#isOnOtherParent(endpoint)) return;
    if (endpoint.addresses.some((one) => isSameAddress(one, address))) return;
    this.#duplicateMacs.note(endpoint, address);
  }

  /** A container that has this MAC address on two parents of one LAN is heard on each from the other. */
  #isOnOtherParent({ macAddress, parentName }: MonitoredEndpoint): boolean {
    return this.#ofMac(macAddress).some((endpoint) => endpoint.parentName !== parentName);
  }
}

function spokenKey({ macAddress }: MonitoredEndpoint, address: Address): string {
  return `${macAddress} ${formatAddress(address)}`;
}

function originOf({ packet }: Sighting, outgoing: boolean): 'here' | 'segment' | 'wire' {
  if (outgoing) return 'here';
  return isMulticastMac(packet.destinationMac) ? 'wire' : 'segment';
}

function filterFor({ endpoints }: MonitoredParent): readonly BpfInstruction[] {
  return watchingFilter([...new Set(endpoints.values())]);
}

/** An ARP packet has 28 bytes; the wire pads it to what Ethernet needs. */
const ARP_END = HEADER_BYTES + 28;

/** What a frame says, whatever brought it. */
function echoKey(frame: Buffer): string {
  return frame.toString('base64', HEADER_BYTES, etherTypeOf(frame) === ETHERTYPE_ARP ? ARP_END : frame.length);
}
