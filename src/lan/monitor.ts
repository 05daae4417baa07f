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
import { type Address, formatAddress, isMulticastMac } from '../address.ts';
import { CappedMap } from '../bounded.ts';
import type { BpfInstruction } from '../kernel/bpf.ts';
import type { Links } from '../kernel/link.ts';
import { PacketSocket } from '../kernel/packet.ts';
import { type Clock, systemClock } from '../clock.ts';
import { ETHERTYPE_ARP, HEADER_BYTES, etherTypeOf } from './frames/ethernet.ts';
import { awaitingFilter } from './frames/filter.ts';
import { ALL_NODES_MAC } from './frames/nd.ts';
import { isKeeperMac, isProbeMac } from './frames/mac.ts';
import { type Sighting, decodePacket, readSighting } from './frames/sighting.ts';

/** An endpoint whose addresses are watched over. */
export interface Ward {
  readonly parentName: string;
  readonly macAddress: string;
  readonly addresses: readonly Address[];
  /** Called at most every ten seconds while somebody else speaks for an address; null without defence. */
  readonly defend: ((address: Address) => void) | null;
}

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

interface Parts {
  readonly links: Pick<Links, 'byName'>;
  /** A router that answers for every address. */
  readonly isProxy: (parentName: string, macAddress: string) => boolean;
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

interface Post {
  /** By address. */
  readonly wards: Map<string, Ward>;
  /** What our containers sent, and when. */
  readonly sent: Map<string, number>;
  socket: PacketSocket | undefined;
  isFilterStale: boolean;
  isOpening: boolean;
  retryAtMs: number;
}

interface Memory {
  count: number;
  seenAtMs: number;
  reportedAtMs: number;
}

export class Sentinel {
  readonly #parts: Parts;
  readonly #clock: Clock;
  readonly #posts = new Map<string, Post>();
  readonly #wards = new Map<string, Ward>();
  /** By parent, address and MAC. */
  readonly #conflicts = new CappedMap<string, Memory>(MOST_CONFLICTS);
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#clock = parts.clock ?? systemClock;
  }

  /** `id` names the ward in forget(); given again it replaces the first. */
  watch(id: string, ward: Ward): void {
    this.forget(id);
    if (ward.addresses.length === 0) return;
    const post = this.#posts.get(ward.parentName) ?? this.#place(ward.parentName);
    // What waits there was said before: perhaps by the container that had the address until now.
    this.#read(ward.parentName, post);
    for (const address of ward.addresses) post.wards.set(formatAddress(address), ward);
    post.isFilterStale = true;
    this.#wards.set(id, ward);
    this.#timer ??= setInterval(() => this.#round(), READ_MS).unref();
  }

  forget(id: string): void {
    const ward = this.#wards.get(id);
    const post = ward && this.#posts.get(ward.parentName);
    this.#wards.delete(id);
    if (ward === undefined || post === undefined) return;
    for (const address of ward.addresses.map(formatAddress)) {
      if (post.wards.get(address) === ward) post.wards.delete(address);
    }
    post.isFilterStale = true;
    if (post.wards.size === 0) this.#leave(ward.parentName, post);
  }

  /**
   * Another socket of ours heard somebody use an address. Told as if it was heard here, where the filter learns of a new
   * address only at the next round. False when the address is not watched over.
   */
  hear(parentName: string, address: Address, macAddress: string): boolean {
    const post = this.#posts.get(parentName);
    const ward = post?.wards.get(formatAddress(address));
    if (post === undefined || ward === undefined) return false;
    this.#read(parentName, post);
    const known = this.#conflicts.get(conflictKey(parentName, address, macAddress));
    const isHeard = known !== undefined && this.#clock.nowMs() - known.seenAtMs < READ_MS;
    if (!isHeard && !this.isWard(parentName, macAddress)) this.#report(ward, { address, macAddress });
    return true;
  }

  /** Somebody else spoke for the address not long ago. */
  isContested(parentName: string, address: Address): boolean {
    const prefix = conflictKey(parentName, address, '');
    for (const key of this.#conflicts.keys()) if (key.startsWith(prefix)) return true;
    return false;
  }

  /** The MAC address is that of an endpoint on this parent. */
  isWard(parentName: string, macAddress: string): boolean {
    return [...this.#wards.values()].some((ward) => ward.parentName === parentName && ward.macAddress === macAddress);
  }

  close(): void {
    clearInterval(this.#timer);
    for (const [parentName, post] of this.#posts) this.#leave(parentName, post);
    this.#wards.clear();
  }

  #place(parentName: string): Post {
    const post: Post = {
      wards: new Map(),
      sent: new Map(),
      socket: undefined,
      isFilterStale: false,
      isOpening: false,
      retryAtMs: 0,
    };
    this.#posts.set(parentName, post);
    void this.#open(parentName, post);
    return post;
  }

  #leave(parentName: string, post: Post): void {
    this.#posts.delete(parentName);
    post.socket?.close();
    post.socket = undefined;
    if (this.#posts.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #round(): void {
    const nowMs = this.#clock.nowMs();
    for (const [key, { seenAtMs }] of this.#conflicts) if (nowMs - seenAtMs > NEWS_MS) this.#conflicts.delete(key);
    for (const [parentName, post] of this.#posts) {
      if (post.socket !== undefined) this.#read(parentName, post);
      else if (nowMs >= post.retryAtMs) void this.#open(parentName, post);
    }
  }

  /** Until it succeeds the parent is looked for again and again. */
  async #open(parentName: string, post: Post): Promise<void> {
    if (post.isOpening) return;
    post.isOpening = true;
    post.retryAtMs = this.#clock.nowMs() + RETRY_MS;
    try {
      const link = await this.#parts.links.byName(parentName);
      if (!link?.isUp || this.#posts.get(parentName) !== post) return;
      const [linkIndex, filter] = [link.index, filterFor(post)];
      post.socket = PacketSocket.open({ linkIndex, filter, memberships: [ALL_NODES_MAC] });
      post.isFilterStale = false;
    } catch {
      // It went away just now.
    } finally {
      post.isOpening = false;
    }
  }

  #read(parentName: string, post: Post): void {
    try {
      if (post.isFilterStale) post.socket?.setFilter(filterFor(post));
      post.isFilterStale = false;
      for (const { frame, outgoing } of post.socket?.receive() ?? []) this.#judge(parentName, post, frame, outgoing);
    } catch {
      // The parent went down or away.
      post.socket?.close();
      post.socket = undefined;
    }
    const nowMs = this.#clock.nowMs();
    for (const [key, atMs] of post.sent) if (nowMs - atMs > ECHO_MS) post.sent.delete(key);
  }

  #judge(parentName: string, post: Post, frame: Buffer, outgoing: boolean): void {
    const packet = decodePacket(frame);
    const sighting = packet && readSighting(packet);
    if (sighting?.kind !== 'use') return;
    const ward = post.wards.get(formatAddress(sighting.address));
    if (ward === undefined || isKeeperMac(sighting.macAddress)) return;
    if (sighting.isAnswer && this.#parts.isProxy(parentName, sighting.macAddress)) return;
    if (outgoing ? this.#isFromHere(post, ward, sighting, frame) : post.sent.has(echoKey(frame))) return;
    if (this.#isOfSibling(ward, sighting)) return;
    this.#report(ward, sighting);
  }

  #isOfSibling(ward: Ward, { macAddress, packet }: Sighting): boolean {
    if (macAddress === ward.macAddress) return !isMulticastMac(packet.destinationMac);
    return this.isWard(ward.parentName, macAddress);
  }

  /** Sent by this host: by the container, or by us in its stead. */
  #isFromHere(post: Post, { macAddress }: Ward, sighting: Sighting, frame: Buffer): boolean {
    if (sighting.macAddress !== macAddress) return isProbeMac(sighting.macAddress);
    post.sent.set(echoKey(frame), this.#clock.nowMs());
    return true;
  }

  #report(ward: Ward, { address, macAddress }: Pick<Sighting, 'address' | 'macAddress'>): void {
    const { parentName, macAddress: ourMacAddress } = ward;
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
    if (macAddress !== ourMacAddress) ward.defend?.(address);
  }
}

function conflictKey(parentName: string, address: Address, macAddress: string): string {
  return `${parentName} ${formatAddress(address)} ${macAddress}`;
}

function filterFor({ wards }: Post): readonly BpfInstruction[] {
  return awaitingFilter([...wards.values()].flatMap(({ addresses }) => addresses));
}

/** An ARP packet has 28 bytes; the wire pads it to what Ethernet needs. */
const ARP_END = HEADER_BYTES + 28;

/** What a frame says, whatever brought it. */
function echoKey(frame: Buffer): string {
  return frame.toString('base64', HEADER_BYTES, etherTypeOf(frame) === ETHERTYPE_ARP ? ARP_END : frame.length);
}
