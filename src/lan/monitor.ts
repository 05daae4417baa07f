/**
 * The watch over addresses of running containers (RFC 5227 2.4, RFC 4862 5.4.4): a frame on the LAN in which somebody
 * else speaks for one of them is a conflict.
 *
 * One packet socket on each parent that has containers. From the parent the whole wire is in reach, and what its children
 * send out passes there too, so our containers' own frames are seen and known. The socket's filter knows the addresses:
 * what else passes by costs this process nothing. Nothing is sent, except in defence.
 *
 * Two Docker hosts make the same MAC address from the same IP address. So a frame that comes in with our own MAC is a
 * conflict too, unless it is one that went out a moment ago: some switches (vepa), bonds and bridges send frames back.
 * Only frames to all count there: what one child of a parent sends to another alone is shown to the parent as if it
 * came in (macvlan_queue_xmit, dev_forward_skb). And a container with two interfaces on a parent speaks for all its
 * addresses on both, as Linux does.
 */
import { type Address, formatAddress, isMulticastMac, isSameAddress } from '../address.ts';
import { CappedMap } from '../bounded.ts';
import type { BpfInstruction } from '../kernel/bpf.ts';
import type { Links } from '../kernel/link.ts';
import { PacketSocket } from '../kernel/packet.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { InterfaceAddress } from '../model.ts';
import { ETHERTYPE_ARP, HEADER_BYTES, etherTypeOf } from './frames/ethernet.ts';
import { awaitingFilter } from './frames/filter.ts';
import { ALL_NODES_MAC } from './frames/nd.ts';
import { isStandbyMac, isProbeMac } from './frames/mac.ts';
import { type Sighting, decodePacket, readSighting } from './frames/sighting.ts';

/** An endpoint whose addresses are watched over. */
export interface MonitoredEndpoint {
  readonly parentName: string;
  readonly macAddress: string;
  readonly addresses: readonly InterfaceAddress[];
  /** Called at most every ten seconds while somebody else speaks for an address; null without defence. */
  readonly defend: ((address: Address) => void) | null;
  /** Whether this MAC address, which answered for the address, answers for every address (proxyarp.ts). */
  readonly answersForAll: (address: InterfaceAddress, macAddress: string) => Promise<boolean>;
}

/** A conflict to be reported, at most every ten seconds for each address and MAC address. */
export interface ConflictSeen {
  readonly parentName: string;
  readonly address: Address;
  /** The other's; equal to ours when another host made the same. */
  readonly macAddress: string;
  readonly ourMacAddress: string;
  /** Frames since the last report. */
  readonly count: number;
  /** Not reported in the last ten minutes. */
  readonly isNews: boolean;
}

/** What a monitor works with. */
export interface MonitorParts {
  readonly links: Pick<Links, 'byName'>;
  readonly onConflict: (conflict: ConflictSeen) => void;
  readonly clock?: Clock;
}

/** How often the sockets are read: whoever takes an address notices himself within seconds. */
const READ_MS = 500;
/** A parent that is down or gone is looked for this often. */
const RETRY_MS = 2000;
/** RFC 5227 1.1: DEFEND_INTERVAL. Reports keep to it as well. */
const DEFEND_INTERVAL_MS = 10_000;
const NEWS_MS = 600_000;
/** Conflicts remembered at a time; more are an attack. */
const MOST_CONFLICTS = 256;
/** Frames that were sent back come within this time. */
const ECHO_MS = 3000;

interface MonitoredParent {
  /** By address. */
  readonly endpoints: Map<string, MonitoredEndpoint>;
  /** What our containers sent, and when. */
  readonly sent: Map<string, number>;
  socket: PacketSocket | undefined;
  isFilterStale: boolean;
  isOpening: boolean;
  retryAtMs: number;
}

/** What is remembered of a conflict. */
interface ConflictMemory {
  count: number;
  seenAtMs: number;
  reportedAtMs: number;
}

/** Listens on each parent that has endpoints, and reports conflicts. */
export class Monitor {
  readonly #parts: MonitorParts;
  readonly #clock: Clock;
  readonly #parents = new Map<string, MonitoredParent>();
  readonly #endpoints = new Map<string, MonitoredEndpoint>();
  /** By parent, address and MAC. */
  readonly #conflicts = new CappedMap<string, ConflictMemory>(MOST_CONFLICTS);
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: MonitorParts) {
    this.#parts = parts;
    this.#clock = parts.clock ?? systemClock;
  }

  /** Begins the watch over an endpoint. `id` names it in forget(); given again it replaces the first. */
  watch(id: string, endpoint: MonitoredEndpoint): void {
    this.forget(id);
    if (endpoint.addresses.length === 0) return;
    const parent = this.#parents.get(endpoint.parentName) ?? this.#begin(endpoint.parentName);
    // What waits there was said before: perhaps by the container that had the address until now.
    this.#read(parent);
    for (const address of endpoint.addresses) parent.endpoints.set(formatAddress(address), endpoint);
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
    for (const address of endpoint.addresses.map(formatAddress)) {
      if (parent.endpoints.get(address) === endpoint) parent.endpoints.delete(address);
    }
    parent.isFilterStale = true;
    if (parent.endpoints.size === 0) this.#end(endpoint.parentName, parent);
  }

  /**
   * Another socket of ours heard somebody use an address. Told as if it was heard here, where the filter learns of a new
   * address only at the next round. False when the address is not watched over.
   */
  hear(parentName: string, address: Address, macAddress: string): boolean {
    const parent = this.#parents.get(parentName);
    const endpoint = parent?.endpoints.get(formatAddress(address));
    if (parent === undefined || endpoint === undefined) return false;
    this.#read(parent);
    const known = this.#conflicts.get(conflictKey(parentName, address, macAddress));
    const isHeard = known !== undefined && this.#clock.nowMs() - known.seenAtMs < READ_MS;
    if (!isHeard && !this.isMonitored(parentName, macAddress)) this.#report(endpoint, { address, macAddress });
    return true;
  }

  /** Somebody else spoke for the address not long ago. */
  isContested(parentName: string, address: Address): boolean {
    const prefix = conflictKey(parentName, address, '');
    for (const key of this.#conflicts.keys()) if (key.startsWith(prefix)) return true;
    return false;
  }

  /** The MAC address is that of an endpoint on this parent. */
  isMonitored(parentName: string, macAddress: string): boolean {
    return [...this.#endpoints.values()].some(
      (endpoint) => endpoint.parentName === parentName && endpoint.macAddress === macAddress,
    );
  }

  /** Ends every watch. */
  close(): void {
    clearInterval(this.#timer);
    for (const [parentName, parent] of this.#parents) this.#end(parentName, parent);
    this.#endpoints.clear();
  }

  #begin(parentName: string): MonitoredParent {
    const parent: MonitoredParent = {
      endpoints: new Map(),
      sent: new Map(),
      socket: undefined,
      isFilterStale: false,
      isOpening: false,
      retryAtMs: 0,
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
    for (const [key, { seenAtMs }] of this.#conflicts) if (nowMs - seenAtMs > NEWS_MS) this.#conflicts.delete(key);
    for (const [parentName, parent] of this.#parents) {
      if (parent.socket !== undefined) this.#read(parent);
      else if (nowMs >= parent.retryAtMs) void this.#open(parentName, parent);
    }
  }

  /** Until it succeeds the parent is looked for again and again. */
  async #open(parentName: string, parent: MonitoredParent): Promise<void> {
    if (parent.isOpening) return;
    parent.isOpening = true;
    parent.retryAtMs = this.#clock.nowMs() + RETRY_MS;
    try {
      const link = await this.#parts.links.byName(parentName);
      if (!link?.isUp || this.#parents.get(parentName) !== parent) return;
      const [linkIndex, filter] = [link.index, filterFor(parent)];
      parent.socket = PacketSocket.open({ linkIndex, filter, memberships: [ALL_NODES_MAC] });
      parent.isFilterStale = false;
    } catch {
      // It went away just now.
    } finally {
      parent.isOpening = false;
    }
  }

  #read(parent: MonitoredParent): void {
    try {
      if (parent.isFilterStale) parent.socket?.setFilter(filterFor(parent));
      parent.isFilterStale = false;
      for (const { frame, outgoing } of parent.socket?.receive() ?? []) this.#judge(parent, frame, outgoing);
    } catch {
      // The parent went down or away.
      parent.socket?.close();
      parent.socket = undefined;
    }
    const nowMs = this.#clock.nowMs();
    for (const [key, atMs] of parent.sent) if (nowMs - atMs > ECHO_MS) parent.sent.delete(key);
  }

  #judge(parent: MonitoredParent, frame: Buffer, outgoing: boolean): void {
    const packet = decodePacket(frame);
    const sighting = packet && readSighting(packet);
    if (sighting?.kind !== 'use') return;
    const endpoint = parent.endpoints.get(formatAddress(sighting.address));
    if (endpoint === undefined || isStandbyMac(sighting.macAddress)) return;
    if (outgoing ? this.#isFromHere(parent, endpoint, sighting, frame) : parent.sent.has(echoKey(frame))) return;
    if (this.#isOfSibling(endpoint, sighting)) return;
    if (sighting.isAnswer) void this.#reportUnlessProxy(endpoint, sighting);
    else this.#report(endpoint, sighting);
  }

  /** An answer may be given for others too. It counts when that cannot be found out. */
  async #reportUnlessProxy(endpoint: MonitoredEndpoint, sighting: Sighting): Promise<void> {
    const { parentName, addresses, answersForAll } = endpoint;
    const address = addresses.find((one) => isSameAddress(one, sighting.address));
    const isProxy = address !== undefined && (await answersForAll(address, sighting.macAddress).catch(() => false));
    const isWatched = this.#parents.get(parentName)?.endpoints.get(formatAddress(sighting.address)) === endpoint;
    if (!isProxy && isWatched) this.#report(endpoint, sighting);
  }

  #isOfSibling(endpoint: MonitoredEndpoint, { macAddress, packet }: Sighting): boolean {
    if (macAddress === endpoint.macAddress) return !isMulticastMac(packet.destinationMac);
    return this.isMonitored(endpoint.parentName, macAddress);
  }

  /** Sent by this host: by the container, or by us in its stead. */
  #isFromHere(parent: MonitoredParent, { macAddress }: MonitoredEndpoint, sighting: Sighting, frame: Buffer): boolean {
    if (sighting.macAddress !== macAddress) return isProbeMac(sighting.macAddress);
    parent.sent.set(echoKey(frame), this.#clock.nowMs());
    return true;
  }

  #report(endpoint: MonitoredEndpoint, { address, macAddress }: Pick<Sighting, 'address' | 'macAddress'>): void {
    const { parentName, macAddress: ourMacAddress } = endpoint;
    const key = conflictKey(parentName, address, macAddress);
    const nowMs = this.#clock.nowMs();
    const known = this.#conflicts.get(key);
    const memory = known ?? { count: 0, seenAtMs: nowMs, reportedAtMs: Number.NEGATIVE_INFINITY };
    if (!this.#conflicts.put(key, memory)) return;
    memory.count++;
    memory.seenAtMs = nowMs;
    if (nowMs - memory.reportedAtMs < DEFEND_INTERVAL_MS) return;
    memory.reportedAtMs = nowMs;
    const { count } = memory;
    memory.count = 0;
    this.#parts.onConflict({ parentName, address, macAddress, ourMacAddress, count, isNews: known === undefined });
    // An announcement of the same MAC would tell nobody anything.
    if (macAddress !== ourMacAddress) endpoint.defend?.(address);
  }
}

function conflictKey(parentName: string, address: Address, macAddress: string): string {
  return `${parentName} ${formatAddress(address)} ${macAddress}`;
}

function filterFor({ endpoints }: MonitoredParent): readonly BpfInstruction[] {
  return awaitingFilter([...endpoints.values()].flatMap(({ addresses }) => addresses));
}

/** An ARP packet has 28 bytes; the wire pads it to what Ethernet needs. */
const ARP_END = HEADER_BYTES + 28;

/** What a frame says, whatever brought it. */
function echoKey(frame: Buffer): string {
  return frame.toString('base64', HEADER_BYTES, etherTypeOf(frame) === ETHERTYPE_ARP ? ARP_END : frame.length);
}
