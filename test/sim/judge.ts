/**
 * The judge. He knows nothing of the product: he reads the simulated kernels, the wire, what the engine was answered, and what
 * was done to the world. docs/conflicts.md has the promise in words; here it is as a rule that can fail.
 */
import type { CallSeen, Start } from './container.ts';
import type { Engine } from './engine.ts';
import type { Host, Line } from './host.ts';
import { formatAddress } from './kernel/address.ts';
import { type Link, type Namespace, sourceOf } from './kernel/link.ts';
import type { Lan, Passing, Port } from './lan.ts';
import type { Stranger } from './strangers.ts';
import { scheduler } from './time.ts';

export type Rule =
  | 'double'
  | 'double MAC'
  | 'told'
  | 'false alarm'
  | 'limit'
  | 'progress'
  | 'left over'
  | 'frames'
  | 'gateway'
  | 'lease'
  | 'memory'
  | 'sentence';

/** A promise that was broken. */
export interface Violation {
  readonly rule: Rule;
  readonly atMs: number;
  readonly what: string;
}

/** Somebody who has an address and would answer for it. */
interface Holder {
  readonly name: string;
  readonly owner: Host | Stranger;
  readonly namespace: Namespace;
  readonly link: Link;
  readonly address: string;
  /** Since when the kernel answers. */
  sinceMs: number;
  /** Since when this machine has had it, but for less than the ten minutes after which that is news again. */
  readonly newsMs: number;
  /** The same as sinceMs by the calendar. */
  readonly bornMs: number;
  /** Since when its daemon answers for it; that of a stranger is the kernel. */
  claimedMs: number;
  readonly start: Start | null;
}

/** An address of a container that a stranger has too. */
interface Contested {
  readonly address: string;
  readonly stranger: Stranger;
  /** Since when both have it. */
  readonly sinceMs: number;
}

interface Parts {
  readonly lan: Lan;
  readonly hosts: readonly Host[];
  readonly engines: readonly Engine[];
  readonly strangers: readonly Stranger[];
  /** Frames that a daemon may send in a second. */
  readonly probeRate: number;
  /** Hosts have a route by somebody on the LAN who answers. */
  readonly knowsNeighbour: boolean;
  /** Of all networks on the LAN. */
  readonly gateways: ReadonlySet<string>;
  readonly onViolation: (violation: Violation) => void;
}

/** Who answers no later than this has to be found by the last question before Join is answered. */
export const ANSWER_MS = 4;
/** Before the container is there, and after the plugin has answered, so much may pass: then an engine is known to have stood still. */
const UP_MS = 500;
/** An engine is answered within nine seconds; what the machine takes on top of it. */
const LIMIT_MS = 9300;
/** What a program says that did not know what to say. */
const NO_SENTENCE = /internal error|undefined|SQLITE|ERR_|^\s*$/;
/** A LAN that was quiet for so long has no address back that somebody gave up. */
export const QUIET_MS = 20_000;
/** What a crash leaves is collected by then. */
export const COLLECTED_MS = 600_000;
/** PROBE_RATE where it is not set. */
export const USUAL_RATE = 500;
/** Of the frames of one second on one parent, with the fifth that may go at once, and what goes whatever is left: answers to a rival. */
const FRAMES_SHARE = 1.2;
const MORE_FRAMES = 10;
/** Daemons send from a MAC address that begins with 02:74:73. */
const DAEMONS_PREFIX = 0x027473;
/** Who speaks for a container's address to all is reported by then. */
export const TOLD_MS = 5000;

/** Who uses the address of a container is told once in ten minutes, and once for as long as he does. */
const NEWS_MS = 610_000;
/** Of the networks' subnets. */
const ADDRESS = /\b192\.168\.77\.\d+\b|\bfd00:77::[0-9a-f]+\b/;
/** What a daemon says of who uses the address of a running container. */
const ALARM = /^somebody else uses the address of a running container/;
/** A cluster is said to be another one than itself. */
const OWN_CLUSTER = /is of cluster (\w+), and the claims of this host are in cluster \1\b/;
/** What was said by who has left is read by then. */
const LEFT_MS = 10_000;
/** After a cable is back, who took an address meanwhile is found by then. */
const BACK_MS = 60_000;

export class Judge {
  readonly #parts: Parts;
  readonly #holders = new Map<string, Holder>();
  /** Since when nothing was done to a station that could keep it from hearing, or from being heard; Infinity while it lasts. */
  readonly #calmSince = new Map<string, number>();
  readonly #disturbed = new Map<string, number>();
  /** When the last disturbance of each began. */
  readonly #beganAtMs = new Map<string, number>();
  readonly #frames = new Map<number, { second: number; count: number }>();
  /** When an address was last somebody's, or on the way to be. */
  readonly #usedAtMs = new Map<string, number>();
  /** What daemons told of conflicts: host and address. */
  readonly #told = new Map<string, number>();
  doubles = 0;
  excused = new Map<string, number>();
  /** Which machine had an address, until when. */
  readonly #gone = new Map<string, { readonly newsMs: number; readonly sinceMs: number; readonly atMs: number }>();
  /** How long containers lived that are gone. */
  #livedMs = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    for (const owner of [...parts.hosts, ...parts.strangers]) owner.kernel.onChange = () => this.#look(owner);
    parts.lan.watchers.push((passing) => this.#count(passing));
  }

  // --- what is done to the world -----------------------------------------------------------------------------------

  /** From now on something keeps this station, or 'lan' all of them, from being what it should. */
  disturb(name: string): void {
    const count = this.#disturbed.get(name) ?? 0;
    if (count === 0) this.#beganAtMs.set(name, scheduler.nowMs);
    this.#disturbed.set(name, count + 1);
    this.#calmSince.set(name, Number.POSITIVE_INFINITY);
  }

  calm(name: string): void {
    const left = Math.max(0, (this.#disturbed.get(name) ?? 0) - 1);
    this.#disturbed.set(name, left);
    if (left === 0) this.#calmSince.set(name, scheduler.nowMs);
  }

  /** It was disturbed for a moment. */
  jolt(name: string): void {
    this.disturb(name);
    this.calm(name);
  }

  /** Nothing is wrong with anybody. */
  get isCalm(): boolean {
    return [...this.#disturbed.values()].every((count) => count === 0);
  }

  /** -Infinity where nothing was ever wrong with any of them. */
  calmSince(...names: string[]): number {
    return Math.max(...names.map((name) => this.#calmSince.get(name) ?? Number.NEGATIVE_INFINITY));
  }

  // --- doubles -----------------------------------------------------------------------------------------------------

  #look(owner: Host | Stranger): void {
    const seen = new Set<string>();
    for (const namespace of owner.kernel.namespaces) {
      for (const link of namespace.links.values()) {
        if (!link.isUp) continue;
        for (const { address } of link.addresses) {
          const text = formatAddress(address);
          const key = `${owner.name} ${namespace.name} ${link.index} ${text}`;
          seen.add(key);
          if (!this.#holders.has(key)) this.#appear(key, { owner, namespace, link, address: text });
        }
      }
    }
    for (const [key, holder] of this.#holders) {
      if (holder.owner !== owner || seen.has(key)) continue;
      this.#holders.delete(key);
      this.#livedMs += ageOf(holder);
      this.#gone.set(`${owner.name} ${holder.address}`, {
        newsMs: holder.newsMs,
        sinceMs: holder.sinceMs,
        atMs: scheduler.nowMs,
      });
      this.noteUse(holder.address);
    }
  }

  /** Of all containers until now, by the calendar. */
  get livedMs(): number {
    return Array.from(this.#holders.values(), ageOf).reduce((sum, age) => sum + age, this.#livedMs);
  }

  /** Somebody has something to do with the address. */
  noteUse(address: string): void {
    this.#usedAtMs.set(address, scheduler.nowMs);
  }

  /** Since when nobody has it; Infinity while somebody does. */
  freeSince(address: string): number {
    return this.holdersOf(address).length > 0 ? Number.POSITIVE_INFINITY : (this.#usedAtMs.get(address) ?? 0);
  }

  #appear(key: string, found: Pick<Holder, 'owner' | 'namespace' | 'link' | 'address'>): void {
    const start = this.#startOf(found.namespace.name, found.address);
    const { nowMs } = scheduler;
    const gone = this.#gone.get(`${found.owner.name} ${found.address}`);
    const holder: Holder = {
      ...found,
      name: found.namespace.name,
      start,
      sinceMs: nowMs,
      newsMs: gone !== undefined && nowMs - gone.atMs < NEWS_MS ? gone.newsMs : nowMs,
      bornMs: scheduler.calendarMs,
      claimedMs: start?.grants.get(found.address) ?? nowMs,
    };
    for (const other of this.#holders.values()) {
      if (other.address === holder.address && other.namespace !== holder.namespace) this.#judgeDouble(holder, other);
      else if (other.link.macAddress === holder.link.macAddress && other.namespace !== holder.namespace)
        this.#judgeDoubleMac(holder, other);
    }
    this.#holders.set(key, holder);
    if (start !== null && this.#parts.gateways.has(found.address))
      this.#violate('gateway', `${holder.name} got ${found.address}, which a network names as its gateway`);
  }

  #startOf(namespaceName: string, address: string): Start | null {
    for (const engine of this.#parts.engines) {
      const start = engine.starts.get(namespaceName.slice(engine.host.name.length + 1));
      if (namespaceName.startsWith(`${engine.host.name}/`) && start?.grants.has(address)) return start;
    }
    return null;
  }

  /** Two have an address from now on. */
  #judgeDouble(newer: Holder, older: Holder): void {
    if (newer.start === null && older.start === null) return;
    this.doubles++;
    const excuse =
      newer.start === null ? 'a stranger took it while the container ran' : this.#excuse(newer, newer.start, older);
    if (excuse !== null) {
      this.excused.set(excuse, (this.excused.get(excuse) ?? 0) + 1);
      return;
    }
    const who = `${newer.name} and ${older.name} (who had it ${seconds(scheduler.nowMs - older.sinceMs)} before)`;
    this.#violate('double', `${newer.address} is used by ${who}`);
  }

  /** Why nobody could have known that the older one has the address; null when it had to be known. */
  #excuse({ owner, sinceMs }: Holder, start: Start, older: Holder): string | null {
    const askedMs = start.joiningAtMs ?? sinceMs;
    const { lan } = this.#parts;
    const isElsewhere = owner !== older.owner;
    if (isElsewhere && !lan.connects(owner.port, older.owner.port)) return 'they do not hear each other';
    if (isElsewhere && (owner.port.isSecured || older.owner.port.isSecured))
      return 'what containers say does not pass a port between them';
    if (isElsewhere && this.#isHiding(owner.port))
      return 'its port hides all answers, and the host knows nobody whose answer could show that';
    if (isElsewhere && lan.quality.loss > 0) return 'the LAN loses frames';
    if (isElsewhere && lan.quality.longestMs > 2) return 'the LAN is slow';
    if (isElsewhere && this.calmSince('lan', owner.name, older.owner.name) > askedMs - 1)
      return 'one of the machines was away when the LAN was asked';
    if ('answersWithinMs' in older.owner && older.owner.answersWithinMs > ANSWER_MS) return 'the other answers late';
    if ('kind' in older.owner && older.owner.kind === 'proxy') return 'the other answers for every address';
    if (older.sinceMs <= askedMs - 1) return null;
    if (older.claimedMs > askedMs - 1) return 'the other took it after the last question';
    const standing = this.calmSince(daemonOf(owner), daemonOf(older.owner));
    if (isElsewhere && standing > older.claimedMs) return 'the daemon of a container that was on its way stood still';
    return sinceMs - askedMs > UP_MS ? 'the engine stood still after Join' : null;
  }

  #judgeDoubleMac(newer: Holder, older: Holder): void {
    if (newer.start === null || older.start === null || newer.address.includes(':') !== older.address.includes(':'))
      return;
    // The MAC address follows from an address that both have, which is judged by itself.
    if (newer.link.addresses.some(({ address }) => older.link.has(address))) return;
    this.#violate('double MAC', `${newer.link.macAddress} is used by ${newer.name} and ${older.name}`);
  }

  /** Who has an address at this moment. */
  holdersOf(address: string): readonly Holder[] {
    return [...this.#holders.values()].filter((holder) => holder.address === address);
  }

  /** Somebody has, or had, it, and for no longer than since then. */
  wasTakenSince(address: string, sinceMs: number): boolean {
    const isNew = this.holdersOf(address).some((holder) => holder.sinceMs >= sinceMs);
    const owners = [...this.#parts.hosts, ...this.#parts.strangers];
    return isNew || owners.some(({ name }) => (this.#gone.get(`${name} ${address}`)?.sinceMs ?? 0) >= sinceMs);
  }

  /** Somebody has it who answers later than the last question waits: that it was given out nobody could have known better. */
  isHeldByLate(address: string): boolean {
    return this.holdersOf(address).some(({ owner }) => 'kind' in owner && owner.answersWithinMs > ANSWER_MS);
  }

  // --- what daemons tell -------------------------------------------------------------------------------------------

  hearLine(host: Host, { level, message, fields }: Line): void {
    if (OWN_CLUSTER.test(message)) this.#violate('sentence', `${host.name}: ${message}`);
    if (level !== 'warn') return;
    const address = `${message} ${JSON.stringify(fields)}`.match(ADDRESS)?.[0];
    if (address === undefined) return;
    this.#told.set(`${host.name} ${address}`, scheduler.nowMs);
    const { by } = fields;
    if (typeof by === 'string' && ALARM.test(message)) this.#judgeAlarm(host, address, by);
  }

  /** Who is named as a stranger is none when he is the host's own container. */
  #judgeAlarm(host: Host, address: string, by: string): void {
    const own = [...host.kernel.namespaces].some(({ links }) =>
      [...links.values()].some((link) => link.macAddress === by),
    );
    if (own && !this.#wasHeldElsewhere(host, address) && this.calmSince('peace') < scheduler.nowMs - LEFT_MS)
      this.#violate(
        'false alarm',
        `${host.name} calls ${by}, which is its own container’s, a stranger with ${address}`,
      );
  }

  /** Somebody else has the address, or had it a moment ago: for a daemon that stood still, a moment before it did. */
  #wasHeldElsewhere(host: Host, address: string): boolean {
    if (this.holdersOf(address).some(({ owner }) => owner !== host)) return true;
    const names = [host.name, daemonOf(host)].filter((name) => this.calmSince(name) > scheduler.nowMs - LEFT_MS);
    const stoodAtMs = names.map((name) => this.#beganAtMs.get(name) ?? 0);
    const sinceMs = Math.min(scheduler.nowMs, ...stoodAtMs) - LEFT_MS;
    const others = [...this.#parts.hosts, ...this.#parts.strangers].filter((one) => one !== host);
    return others.some(({ name }) => (this.#gone.get(`${name} ${address}`)?.atMs ?? 0) > sinceMs);
  }

  /** A stranger said to all that he has the address of a running container: its daemon has to say so. */
  expectTold(stranger: Stranger, address: string): void {
    const saidAtMs = scheduler.nowMs;
    for (const { owner, start } of this.holdersOf(address)) {
      if (start === null || !('daemon' in owner)) continue;
      const upAtMs = start.upAtMs ?? Number.POSITIVE_INFINITY;
      if (upAtMs > saidAtMs - 2000 || this.#calmWith(owner, stranger) > saidAtMs - 10_000) continue;
      const ours = { host: owner, start };
      scheduler.world(TOLD_MS, () => this.#checkTold(ours, stranger, address, saidAtMs));
    }
  }

  /** The cable of this host is back: who has taken the address of a container meanwhile has to be told. */
  expectToldOfAll(host: Host): void {
    const backAtMs = scheduler.nowMs;
    const contested = this.#contestedOn(host);
    scheduler.world(BACK_MS, () => {
      if (this.calmSince('lan', 'peace', host.name, daemonOf(host)) > backAtMs + 1) return;
      const still = this.#contestedOn(host);
      for (const [key, { address, stranger, sinceMs }] of contested) {
        const toldAtMs = this.#told.get(`${host.name} ${address}`) ?? Number.NEGATIVE_INFINITY;
        const isTold = toldAtMs >= Math.min(sinceMs, backAtMs - NEWS_MS);
        if (still.has(key) && this.calmSince(stranger.name) < backAtMs && !isTold)
          this.#violate(
            'told',
            `${stranger.name} took ${address} of ${host.name} while its cable was out, and nobody says so`,
          );
      }
    });
  }

  /** It hides answers, and nobody is known by whom that could be found out. */
  #isHiding({ allowed }: Port): boolean {
    return allowed !== null && !this.#parts.knowsNeighbour;
  }

  /** What strangers have of the addresses of its containers, and since when; nothing where its port hides them. */
  #contestedOn(host: Host): Map<string, Contested> {
    const found = new Map<string, Contested>();
    if (host.port.isSecured || this.#isHiding(host.port)) return found;
    for (const holder of this.#holders.values()) {
      const { owner, start, address } = holder;
      if (owner !== host || start === null) continue;
      for (const other of this.holdersOf(address))
        if (isFindable(other, holder)) {
          const sinceMs = Math.max(holder.newsMs, other.newsMs);
          found.set(`${other.owner.name} ${start.beganAtMs} ${address}`, { address, stranger: other.owner, sinceMs });
        }
    }
    return found;
  }

  #calmWith(host: Host, stranger: Stranger): number {
    return this.calmSince('lan', host.name, daemonOf(host), stranger.name);
  }

  /** Unless the container is gone by then, and another one has the address. */
  #checkTold(ours: { host: Host; start: Start }, stranger: Stranger, address: string, saidAtMs: number): void {
    const { host, start } = ours;
    const { lan } = this.#parts;
    const holders = this.holdersOf(address);
    const own = holders.find((one) => one.owner === host && one.start === start);
    const other = holders.find(({ owner }) => owner === stranger);
    if (own === undefined || !lan.connects(host.port, stranger.port) || lan.quality.loss > 0) return;
    if (this.#calmWith(host, stranger) > saidAtMs) return;
    const toldAtMs = this.#told.get(`${host.name} ${address}`) ?? Number.NEGATIVE_INFINITY;
    const { newsMs = saidAtMs } = other ?? this.#gone.get(`${stranger.name} ${address}`) ?? {};
    if (toldAtMs < Math.min(saidAtMs - NEWS_MS, Math.max(own.newsMs, newsMs)))
      this.#violate('told', `${stranger.name} said that it has ${address} of ${host.name}, which said nothing`);
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  hearCall({ host, name, beganMonotonicMs, endedMonotonicMs, error }: CallSeen): void {
    if (error !== null && NO_SENTENCE.test(error)) this.#violate('sentence', `${name} on ${host.name}: ${error}`);
    const tookMs = endedMonotonicMs - beganMonotonicMs;
    const beganMs = scheduler.nowMs - tookMs;
    if (tookMs > LIMIT_MS && this.calmSince(host.name, daemonOf(host)) < beganMs)
      this.#violate('limit', `${name} on ${host.name} was answered after ${(tookMs / 1000).toFixed(1)} s`);
  }

  #count({ atMs, frame }: Passing): void {
    const mac = sourceOf(frame);
    if (isListenerReport(frame)) return;
    if (Math.floor(mac / 2 ** 24) !== DAEMONS_PREFIX) return;
    const second = Math.floor(atMs / 1000);
    const known = this.#frames.get(mac);
    if (known?.second !== second) return void this.#frames.set(mac, { second, count: 1 });
    const most = Math.ceil(this.#parts.probeRate * FRAMES_SHARE) + MORE_FRAMES;
    if (++known.count === most) this.#violate('frames', `${mac.toString(16)} sent ${most} frames in a second`);
  }

  // --- in the end --------------------------------------------------------------------------------------------------

  /** All was stopped and given back long ago: nothing is left on the hosts. */
  expectNothing(): void {
    for (const { name, kernel, nic } of this.#parts.hosts) {
      const left = [...kernel.namespaces].flatMap(({ links }) => [...links.values()].filter((link) => link !== nic));
      if (left.length > 0) this.#violate('left over', `${name} has still ${left.join(', ')}`);
    }
  }

  violate(rule: Rule, what: string): void {
    this.#violate(rule, what);
  }

  #violate(rule: Rule, what: string): void {
    this.#parts.onViolation({ rule, atMs: scheduler.calendarMs, what });
  }
}

/** What goes beside a question of IPv6, for switches that listen to it, and is no neighbour discovery: it has a hop-by-hop header. */
function isListenerReport(frame: Buffer): boolean {
  return frame.length > IPV6_NEXT_HEADER && frame.readUInt16BE(12) === 0x86dd && frame[IPV6_NEXT_HEADER] === 0;
}

const IPV6_NEXT_HEADER = 20;

/** A stranger whose answers can be told from the container's, and are evidence. */
function isFindable(other: Holder, { link }: Holder): other is Holder & { readonly owner: Stranger } {
  const { owner } = other;
  if (!('answersWithinMs' in owner)) return false;
  return owner.answersWithinMs <= ANSWER_MS && owner.kind !== 'proxy' && other.link.macAddress !== link.macAddress;
}

/** How long a container has been there; nothing of a stranger. */
function ageOf({ start, bornMs }: Holder): number {
  return start === null ? 0 : scheduler.calendarMs - bornMs;
}

/** What may be disturbed apart from the machine. */
export function daemonOf({ name }: { readonly name: string }): string {
  return `${name} daemon`;
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(3)} s`;
}
