/**
 * A port on a parent's LAN, to listen and speak from: one packet socket for everything that is asked on that parent.
 *
 * The usual port is a macvlan link of our own, in bridge mode beside the containers' links. From there the wire is in
 * reach and so are siblings in bridge mode, whoever made them; frames sent on the parent itself never reach siblings
 * (macvlan_queue_xmit, drivers/net/macvlan.c). The link must not act on the host's behalf:
 * - It answers no ARP (IFF_NOARP). Linux answers on any link for every address of the host, so the LAN would see the
 *   host's addresses at a second MAC.
 * - Its MTU is below 1280, where the kernel gives a link no IPv6 at all (addrconf_notify, net/ipv6/addrconf.c): no
 *   address, no routes from router advertisements. That needs no write to /proc/sys, which a plugin's container has not.
 *
 * An advertisement of an IPv6 address goes to all nodes, because who asks from `::` cannot be addressed (RFC 4861 7.2.4).
 * Such frames reach macvlan links by a queue that serves all of them (macvlan_broadcast_enqueue): with 60 containers on the
 * parent one in a hundred came 7 ms late on a calm machine, and under load some are dropped. So advertisements are
 * heard on the parent as well.
 *
 * In passthru mode the parent's one child would be kept out by such a link, and beside a foreign passthru child or an
 * ipvlan the kernel refuses it. Then the port is the parent itself, with its own MAC.
 */
import { type Address, formatAddress } from '../address.ts';
import { isKernelError } from '../kernel/errno.ts';
import type { Link, Links } from '../kernel/link.ts';
import { PacketSocket } from '../kernel/packet.ts';
import { PROBE_ALIAS } from '../linknames.ts';
import type { Clock } from '../clock.ts';
import { ETHERTYPE_IPV6 } from './frames/ethernet.ts';
import { awaitingFilter } from './frames/filter.ts';
import type { Detection } from './detection.ts';
import type { Wire } from './detectionspec.ts';
import { Inquiries } from './inquiry.ts';
import type { Pacer } from './pacer.ts';
import { ALL_NODES_MAC, multicastMac, solicitedNodeGroup } from './frames/nd.ts';
import { type GivenAnswer, ProxyJudge } from './proxyarp.ts';
import { LATE_MS } from './timing.ts';
import { type Sighting, decodePacket, readSighting } from './frames/sighting.ts';

/** The least MTU that IPv4 hosts must cope with (RFC 791); our longest frame has 94 bytes. */
const PROBE_MTU = 576;

/**
 * How often the socket is read: just after a frame of ours, when most answers come, and a process that is woken late must be noticed;
 * while frames come about an address that is asked for or guarded, as a fresh question of another daemon waits no longer than 9 or 10 ms
 * for our defence; and while they come about addresses on standby only. While none comes, the kernel tells the next one.
 */
const PROMPT_TICK_MS = 2;
const ASKING_TICK_MS = 5;
const STANDBY_TICK_MS = 100;
const TOLD_TICK_MS = 1000;
const PROMPT_MS = 10;
/** The kernel doubles it, and a short frame takes some 800 bytes: 2,600 frames between two readings, */
const RECEIVE_BUFFER_BYTES = 1024 * 1024;
/** which so many times 1,024 hold. */
const MOST_BATCHES = 3;
const BATCH_FRAMES = 1024;
/** With fewer in one reading none was lost, whatever their size and the buffer's. */
const LEAST_FLOOD_FRAMES = 16;
/** The link stays for the next detection, because the kernel takes 16 ms to delete it. */
const LINGER_MS = 2000;

/** What a port needs. */
export interface PortSpec {
  readonly links: Links;
  readonly parent: Link;
  /** The probe link's; not used on the parent itself. */
  readonly macAddress: string;
  readonly linkName: string;
  readonly clock: Clock;
  readonly random: () => number;
  /** The parent's. */
  readonly pacer: Pacer;
  /** This MAC address was found to answer for every address. */
  readonly onProxy: (macAddress: string) => void;
  /** Nobody has used it for a while, or its link went down or away. Close it with this reason. */
  readonly onEnd: (reason: Error) => void;
}

const EARS = { filter: awaitingFilter([]), receiveBufferBytes: RECEIVE_BUFFER_BYTES };

/** One socket on one parent, and the detections that share it. */
export class Port implements Wire {
  readonly macAddress: string;
  readonly #spec: PortSpec;
  readonly #socket: PacketSocket;
  /** Undefined on the parent itself. */
  readonly #link: Link | undefined;
  /** On the parent, beside a link of our own, once an IPv6 address is asked for. */
  #advertisements: PacketSocket | undefined;
  readonly #detections = new Map<string, Set<Detection>>();
  readonly #judge: ProxyJudge;
  readonly #inquiries: Inquiries;
  #holds = 0;
  #isFilterStale = false;
  /** The filter lets pass what is said about addresses that are awaited no longer. */
  #isFilterWide = false;
  #lostFrames = 0;
  #lateAtMs = Number.NEGATIVE_INFINITY;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  /** Null while it is open. */
  #closedBy: Error | null = null;
  #next = NOTHING;
  /** The last reading found frames. */
  #isHearing = true;
  /** The kernel tells the next frame. */
  #isTold = false;

  private constructor(spec: PortSpec, link: Link | undefined, socket: PacketSocket) {
    this.#spec = spec;
    this.#link = link;
    this.#socket = socket;
    this.macAddress = (link ?? spec.parent).macAddress;
    this.#judge = new ProxyJudge({ ...this.#voice(), onProxy: spec.onProxy });
    this.#inquiries = new Inquiries(this.#voice());
    this.#schedule();
  }

  /** A link of our own. EINVAL or EBUSY where the kernel allows none on this parent. */
  static async openLink(spec: PortSpec): Promise<Port> {
    const link = await spec.links.addMacvlan({
      name: spec.linkName,
      alias: PROBE_ALIAS,
      parentIndex: spec.parent.index,
      mode: 'bridge',
      macAddress: spec.macAddress,
      mtu: PROBE_MTU,
      broadcastQueueLength: null,
    });
    try {
      await spec.links.setArp(link.index, false);
      await spec.links.setUp(link.index);
      const socket = PacketSocket.open({ linkIndex: link.index, ...EARS, ignoreOutgoing: true });
      return new Port(spec, link, socket);
    } catch (error) {
      await spec.links.deleteLink(link.index).catch(() => false);
      throw error;
    }
  }

  /** The parent itself. What it sends is heard too, because its children send through it. */
  static openParent(spec: PortSpec): Port {
    const socket = PacketSocket.open({ linkIndex: spec.parent.index, ...EARS });
    return new Port(spec, undefined, socket);
  }

  /** Of the link that questions come from. */
  get linkIndex(): number {
    return (this.#link ?? this.#spec.parent).index;
  }

  get #isClosed(): boolean {
    return this.#closedBy !== null;
  }

  /**
   * Listens for the detection's address; the caller starts it. Where that cannot be done, and once the port is closed, whose
   * silence is no answer, the detection ends with the reason, which is thrown.
   */
  add(detection: Detection): void {
    try {
      this.#add(detection);
    } catch (error) {
      detection.end(error as Error);
      throw error;
    }
  }

  #add(detection: Detection): void {
    if (this.#closedBy !== null) throw this.#closedBy;
    // What was said before the detection is no answer to it.
    this.drain();
    const key = formatAddress(detection.address);
    const others = this.#detections.get(key);
    // A new detection replaces the guard left by an earlier one, unless it would leave the address without any.
    if (!detection.isPassing)
      for (const other of others ?? []) if (!other.isAsking) other.end(new Error('asked again'));
    if (this.#detections.get(key)?.add(detection) === undefined) {
      this.#listen(detection.address);
      this.#detections.set(key, new Set([detection]));
    }
    this.#schedule();
  }

  /** The detection is over. */
  remove(detection: Detection): void {
    const key = formatAddress(detection.address);
    const detections = this.#detections.get(key);
    if (!detections?.delete(detection) || detections.size > 0) return;
    this.#detections.delete(key);
    this.#ignore(detection.address);
    this.#schedule();
  }

  /** Whether the one who gave this answer answers for every address; see ProxyJudge. False once the port is closed. */
  answersForAll(answer: GivenAnswer): Promise<boolean> {
    return this.#isClosed ? Promise.resolve(false) : this.#judge.answersForAll(answer);
  }

  /** Who answers when the host of this MAC address is asked for the address; see Inquiries. Null once the port is closed. */
  ask(address: Address, to: string): Promise<string | null> {
    return this.#isClosed ? Promise.resolve(null) : this.#inquiries.ask(address, to);
  }

  /** What questions beside the detections need. */
  #voice() {
    const { clock, random, pacer } = this.#spec;
    return {
      macAddress: this.macAddress,
      clock,
      random,
      send: (frame: Buffer) => this.send(frame),
      turn: (frames: number) => pacer.turn(frames),
      giveBack: (frames: number) => pacer.giveBack(frames),
      listen: (addresses: readonly Address[]) => {
        for (const address of addresses) this.#listen(address);
        this.#schedule();
      },
      ignore: (addresses: readonly Address[]) => {
        for (const address of addresses) this.#ignore(address);
        this.#schedule();
      },
    };
  }

  /** Keeps it open until the returned function is called. */
  hold(): () => void {
    this.#holds++;
    this.#schedule();
    return () => {
      this.#holds--;
      this.#schedule();
    };
  }

  turn(): number {
    return this.#spec.pacer.turn();
  }

  inTurn(isWaitedFor: boolean, run: () => void): (() => void) | null {
    return this.#spec.pacer.inTurn(isWaitedFor, run);
  }

  spare(): boolean {
    return this.#spec.pacer.spare();
  }

  /** Never throws: a port that cannot send any more ends. */
  send(frame: Buffer): void {
    if (this.#isClosed) return;
    try {
      this.#refreshFilter();
      this.#socket.send(frame);
      this.#sentAtMs = this.#spec.clock.nowMs();
      this.#schedule();
    } catch (error) {
      // A full queue, or a parent without carrier, loses a frame as the wire might.
      if (!isKernelError(error, 'ENOBUFS', 'EAGAIN')) this.#spec.onEnd(error as Error);
    }
  }

  /** Hands the frames that wait to the detections of their addresses. Never throws. */
  drain(): void {
    if (this.#isClosed) return;
    try {
      this.#refreshFilter();
      this.#hear(this.#receiveAdvertisements());
      let count = BATCH_FRAMES;
      this.#isHearing = false;
      for (let batch = 0; count >= BATCH_FRAMES && batch < MOST_BATCHES; batch++) {
        const frames = this.#socket.receive();
        count = frames.length;
        this.#isHearing ||= count > 0;
        if (count >= LEAST_FLOOD_FRAMES) this.#lostFrames += this.#socket.dropped();
        this.#hear(frames.flatMap(({ frame }) => toSighting(frame)));
      }
    } catch (error) {
      this.#spec.onEnd(error as Error);
    }
  }

  get lateAtMs(): number {
    return this.#lateAtMs;
  }

  get lostFrames(): number {
    return this.#lostFrames;
  }

  /** Ends everything asked here with `reason`, and removes the link. */
  async close(reason: Error): Promise<void> {
    if (this.#isClosed) return;
    this.#closedBy = reason;
    this.#next.cancel();
    for (const detection of this.#all()) detection.end(reason);
    this.#judge.close();
    this.#inquiries.close();
    this.#socket.close();
    this.#advertisements?.close();
    if (this.#link !== undefined) await this.#spec.links.deleteLink(this.#link.index);
  }

  #hear(sightings: readonly Sighting[]): void {
    let unawaited = 0;
    for (const sighting of sightings) {
      this.#judge.hear(sighting);
      this.#inquiries.hear(sighting);
      const detections = this.#detections.get(formatAddress(sighting.address));
      if (detections === undefined) unawaited++;
      else for (const detection of detections) detection.hear(sighting);
    }
    this.#isFilterStale ||= this.#isFilterWide && unawaited >= LEAST_FLOOD_FRAMES;
  }

  #listen(address: Address): void {
    this.#isFilterStale = true;
    // There may be one socket more.
    this.#isTold = false;
    for (const mac of groups(address)) this.#socket.join(mac);
    if (address.family === 'IPv6' && this.#link !== undefined) this.#advertisements ??= this.#openAdvertisements();
  }

  /** Undefined when the parent has just gone down or away, which the other socket tells. */
  #openAdvertisements(): PacketSocket | undefined {
    try {
      const { index: linkIndex } = this.#spec.parent;
      return PacketSocket.open({
        linkIndex,
        protocol: ETHERTYPE_IPV6,
        filter: awaitingFilter([]),
        ignoreOutgoing: true,
      });
    } catch {
      return undefined;
    }
  }

  #receiveAdvertisements(): Sighting[] {
    try {
      const frames = this.#advertisements?.receive() ?? [];
      // What else is heard there is heard on our own link too, and a question must not count twice.
      return frames.flatMap(({ frame }) => toSighting(frame)).filter(({ packet }) => packet.protocol === 'NA');
    } catch {
      this.#advertisements?.close();
      this.#advertisements = undefined;
      return [];
    }
  }

  #ignore(address: Address): void {
    // A filter that lets too much pass does no harm unless it is much, and a new program costs more than a few frames.
    this.#isFilterWide = true;
    this.#isFilterStale ||= this.#detections.size === 0;
    for (const mac of groups(address)) this.#socket.leave(mac);
  }

  /** Before the next frame goes out or comes in, so that many changes at once cost one program. */
  #refreshFilter(): void {
    if (!this.#isFilterStale) return;
    [this.#isFilterStale, this.#isFilterWide] = [false, false];
    const filter = awaitingFilter([
      ...this.#all().map(({ address }) => address),
      ...this.#judge.addresses,
      ...this.#inquiries.addresses,
    ]);
    this.#socket.setFilter(filter);
    this.#advertisements?.setFilter(filter);
  }

  /** Reads the socket as often as those who wait need it; with nobody waiting, counts down to the end. */
  #schedule(): void {
    if (this.#isClosed) return;
    const { clock, onEnd } = this.#spec;
    const isUsed = this.#detections.size > 0 || this.#holds > 0 || this.#isQuestioning;
    const delayMs = isUsed ? this.#tickMs() : LINGER_MS;
    const dueMs = clock.nowMs() + delayMs;
    // What is due sooner stays, or a steady stream of detections would put the reading off for ever.
    if (isUsed === this.#next.isTick && this.#next.dueMs <= dueMs) return;
    this.#next.cancel();
    this.#next = {
      isTick: isUsed,
      dueMs,
      cancel: clock.after(delayMs, isUsed ? () => this.#tick() : () => onEnd(new Error('idle'))),
    };
  }

  #tick(): void {
    const nowMs = this.#spec.clock.nowMs();
    if (nowMs - this.#next.dueMs > LATE_MS) this.#lateAtMs = nowMs;
    this.#next = NOTHING;
    this.drain();
    this.#schedule();
  }

  #tickMs(): number {
    if (this.#isQuestioning || this.#spec.clock.nowMs() - this.#sentAtMs < PROMPT_MS) return PROMPT_TICK_MS;
    if (this.#isToldInTime()) return TOLD_TICK_MS;
    return this.#isAllOnStandby() ? STANDBY_TICK_MS : ASKING_TICK_MS;
  }

  /** What follows the frame that the kernel tells is read by the time, so that a flood costs little. */
  #isToldInTime(): boolean {
    if (this.#isHearing) return false;
    this.#isTold ||= [this.#socket, this.#advertisements].every(
      (socket) => socket?.whenReadable(this.#hearNext) ?? true,
    );
    return this.#isTold;
  }

  readonly #hearNext = (): void => {
    this.#isTold = false;
    this.drain();
    this.#isHearing = true;
    this.#schedule();
  };

  /** Somebody was asked beside the detections. */
  get #isQuestioning(): boolean {
    return this.#judge.isAsking || this.#inquiries.isAsking;
  }

  /** Asked for each frame that is sent: no list is made for it. */
  #isAllOnStandby(): boolean {
    for (const set of this.#detections.values()) for (const { isOnStandby } of set) if (!isOnStandby) return false;
    return true;
  }

  #all(): Detection[] {
    return [...this.#detections.values()].flatMap((set) => [...set]);
  }
}

interface Next {
  /** Else it is the end of an idle port. */
  readonly isTick: boolean;
  readonly dueMs: number;
  readonly cancel: () => void;
}

const NOTHING: Next = { isTick: false, dueMs: Number.POSITIVE_INFINITY, cancel: () => undefined };

/** The multicast MACs on which others speak about an address: defences go to all nodes, probes to the address's group. */
function groups(address: Address): string[] {
  return address.family === 'IPv4' ? [] : [ALL_NODES_MAC, multicastMac(solicitedNodeGroup(address))];
}

function toSighting(frame: Buffer): Sighting[] {
  const packet = decodePacket(frame);
  const sighting = packet && readSighting(packet);
  return sighting === undefined ? [] : [sighting];
}
