/**
 * What happens to the links below our LANs, as the kernel tells it: what is known of a LAN is void when the parent, or what
 * it stands on, was away. RFC 5227 2.1 wants addresses asked for again when a link comes back or the host wakes from sleep.
 *
 * A VLAN keeps its own state when its base loses its carrier for less than the kernel needs to tell of it, and one with
 * loose binding even when the base goes down (vlan_device_event, net/8021q/vlan.c). So the chain of links down to the
 * base is followed, and the kernel's count of carrier changes: linkwatch (net/core/link_watch.c) tells of a loss and a return
 * within a second as one change in which nothing seems to have happened. Of a bridge or bond the members count that were
 * without a carrier, because its own stays as long as one of them has one.
 *
 * A host that has just booted brought its cables up a moment ago, before anybody followed them.
 */
import { uptime } from 'node:os';
import { LatestMap } from '../bounded.ts';
import type { Link, LinkEvent, Links } from '../kernel/link.ts';

/** What the follower of carriers works with, and whom it tells. */
export interface CarrierParts {
  readonly links: Pick<Links, 'byName' | 'byIndex' | 'list' | 'onChange'>;
  /** What is known of the parent's LAN is void from now on. Told again for each change. */
  readonly onLost: (parentName: string) => void;
  /**
   * The parent is there again, up and with a carrier. `isNewCable`: the lowest link was without; false when only what stands
   * on it was gone, as a VLAN that was made again.
   */
  readonly onBack: (parentName: string, isNewCable: boolean) => void;
  /** Seconds since the host booted; left out, as the kernel counts them. */
  readonly uptimeS?: () => number;
}

/** What counts of a link. */
interface LinkState {
  readonly isRunning: boolean;
  readonly carrierChanges: number;
}

interface FollowedParent {
  readonly name: string;
  /** From the parent itself down to its base, by index; empty while it is not known, or not there. */
  chain: readonly number[];
  /** Of the chain, by index. */
  readonly states: Map<number, LinkState>;
  /** Of the members of bridges and bonds in the chain that were running at some time, by index. */
  readonly members: Map<number, LinkState>;
  /** The last that was seen, also while the parent is gone. */
  baseIndex: number | undefined;
  /** Undefined until the kernel was asked for the first time. */
  isThere: boolean | undefined;
  /** The base has been without carrier, or was another link, since the parent was last there. */
  isNewCable: boolean;
  isLearning: boolean;
  /** An event came while the kernel was asked. */
  isStale: boolean;
  era: number;
}

/** More parents than a host has; of those the ones used longest ago are not followed any more. */
const MOST_PARENTS = 1024;
/** More members than any bridge of the kernel has (BR_MAX_PORTS). */
const MOST_MEMBERS = 1024;
/** QinQ has two levels; deeper chains are followed this far. */
const MOST_LEVELS = 8;
/** So long after its boot, in seconds, a host's ports may still be blocked: it boots in some 20 s, spanning tree takes 30 s more. */
const BOOT_S = 90;
/** Kinds that never had a cable. */
const WITHOUT_CABLE: ReadonlySet<string> = new Set(['dummy', 'ifb']);
/** Kinds whose carrier is that of any of their members. */
const OF_MEMBERS: ReadonlySet<string> = new Set(['bridge', 'bond', 'team']);

/** Follows parents by name and tells when one was away. */
export class Carrier {
  readonly #parts: CarrierParts;
  readonly #parents = new LatestMap<string, FollowedParent>(MOST_PARENTS);
  #stop: (() => void) | undefined;

  constructor(parts: CarrierParts) {
    this.#parts = parts;
  }

  /** The LAN of this parent is used: from now on its links are followed. Costs nothing when they are already. */
  follow(name: string): void {
    this.#stop ??= this.#parts.links.onChange((event) => this.#hear(event));
    const known = this.#parents.get(name);
    const parent = known ?? newParent(name);
    this.#parents.put(name, parent);
    if (parent.chain.length === 0) void this.#learn(parent);
  }

  /** Changes with each loss and each return: a question that began in one era and ended in another asked nobody. */
  era(name: string): number {
    return this.#parents.get(name)?.era ?? 0;
  }

  /** The parent is known to be down, without carrier or gone. */
  isAway(name: string): boolean {
    return this.#parents.get(name)?.isThere === false;
  }

  /** Something else than a link made all knowledge void: the host slept. */
  wake(): void {
    for (const parent of this.#parents.values()) {
      this.#lose(parent);
      if (parent.isThere === true) this.#return(parent, false);
    }
  }

  /** Follows no parent any more. */
  close(): void {
    this.#stop?.();
    this.#stop = undefined;
    this.#parents.clear();
  }

  /** Reads the chain of links from the kernel, again when an event came meanwhile. */
  async #learn(parent: FollowedParent): Promise<void> {
    parent.isStale = true;
    if (parent.isLearning) return;
    parent.isLearning = true;
    try {
      while (parent.isStale && this.#parents.get(parent.name) === parent) {
        parent.isStale = false;
        const chain = await this.#chainOf(parent.name);
        const members = await this.#membersOf(chain);
        // What was told meanwhile counts, and not what was read before that: it is read again.
        if (!parent.isStale || !chain.some(isOlder(parent))) this.#adopt(parent, chain, members);
      }
    } catch {
      // The next event or the next use asks again.
    } finally {
      parent.isLearning = false;
    }
  }

  async #chainOf(name: string): Promise<Link[]> {
    const chain: Link[] = [];
    let link = await this.#parts.links.byName(name);
    while (link !== undefined && chain.length < MOST_LEVELS) {
      chain.push(link);
      const { kind, parentIndex, parentNamespaceId } = link;
      const isOnOther = kind === 'vlan' && parentIndex !== null && parentNamespaceId === null;
      link = isOnOther ? await this.#parts.links.byIndex(parentIndex) : undefined;
    }
    return chain;
  }

  async #membersOf(chain: readonly Link[]): Promise<Link[]> {
    const masters = chain.filter(({ kind }) => OF_MEMBERS.has(kind ?? '')).map(({ index }) => index);
    if (masters.length === 0) return [];
    return this.#parts.links.list(({ masterIndex }) => masterIndex !== null && masters.includes(masterIndex));
  }

  #adopt(parent: FollowedParent, chain: readonly Link[], members: readonly Link[]): void {
    const isFirst = parent.isThere === undefined;
    const base = chain.at(-1);
    const isChanged = String(chain.map(({ index }) => index)) !== String(parent.chain) || chain.some(isNews(parent));
    if (base !== undefined && !isFirst && isOtherCable(parent, base, chain.length)) parent.isNewCable = true;
    if (base !== undefined && !stateOf(base).isRunning) parent.isNewCable = true;
    // What had the parent's name before may have had one.
    if (WITHOUT_CABLE.has(base?.kind ?? '')) parent.isNewCable = false;
    parent.chain = chain.map(({ index }) => index);
    parent.baseIndex = base?.index ?? parent.baseIndex;
    for (const index of parent.states.keys()) if (index !== parent.baseIndex) parent.states.delete(index);
    for (const link of chain) parent.states.set(link.index, stateOf(link));
    for (const link of members) remember(parent, link.index, stateOf(link));
    if (isFirst) return this.#begin(parent, [...chain, ...members]);
    if (isChanged) this.#depart(parent);
    this.#judge(parent);
  }

  /** What was up before is no return, unless the host has just booted. Behind a virtual link is no switch with spanning tree. */
  #begin(parent: FollowedParent, links: readonly Link[]): void {
    parent.isThere = this.#isThere(parent);
    const { uptimeS = uptime } = this.#parts;
    if (parent.isThere && uptimeS() < BOOT_S && links.some(isNic)) this.#return(parent, true);
  }

  #hear(event: LinkEvent): void {
    // The links of containers come and go by the hundred, and nothing stands on one.
    if (event.type !== 'overflow' && event.link.kind === 'macvlan') return;
    for (const parent of this.#parents.values()) {
      // Changes were lost: the kernel's counts say whether any was one of this parent.
      if (event.type === 'overflow') void this.#learn(parent);
      else this.#hearLink(parent, event);
    }
  }

  #hearLink(parent: FollowedParent, { type, link }: Exclude<LinkEvent, { type: 'overflow' }>): void {
    // What is read at this moment may be older.
    parent.isStale ||= parent.isLearning;
    const { chain, states } = parent;
    const isTop = chain[0] === link.index;
    const isOfChain = chain.includes(link.index);
    if (isTop !== isNamed(link, parent.name) || (type === 'deleted' && isOfChain))
      return this.#lookAgain(parent, link, isOfChain);
    if (!isOfChain) return this.#hearMember(parent, type, link);
    const [before, now] = [states.get(link.index), stateOf(link)];
    // Told up to 50 ms late: the kernel was asked since.
    if (before === undefined || now.carrierChanges < before.carrierChanges || isSame(before, now)) return;
    states.set(link.index, now);
    this.#linkChanged(parent, link, before.isRunning && now.isRunning);
  }

  /** The parent is gone, was renamed, or is another link now. */
  #lookAgain(parent: FollowedParent, link: Link, isOfChain: boolean): void {
    if (isOfChain) {
      if (link.index === parent.baseIndex && !WITHOUT_CABLE.has(link.kind ?? '')) parent.isNewCable = true;
      this.#depart(parent);
    }
    void this.#learn(parent);
  }

  /** A port of a bridge or bond that was without carrier and is back: a part of the LAN was away, and nobody knows which. */
  #hearMember(parent: FollowedParent, type: 'new' | 'deleted', link: Link): void {
    if (type === 'deleted') parent.members.delete(link.index);
    if (type === 'deleted' || link.masterIndex === null || !parent.chain.includes(link.masterIndex)) return;
    const [before, now] = [parent.members.get(link.index), stateOf(link)];
    if (before !== undefined && now.carrierChanges < before.carrierChanges) return;
    remember(parent, link.index, now);
    if (before === undefined || isSame(before, now) || !now.isRunning || parent.isThere !== true) return;
    this.#lose(parent);
    this.#return(parent, isNic(link));
  }

  /** `wasAway`: the kernel counted a loss and a return, and tells of both at once. */
  #linkChanged(parent: FollowedParent, link: Link, wasAway: boolean): void {
    if (link.index === parent.baseIndex && !WITHOUT_CABLE.has(link.kind ?? '')) parent.isNewCable = true;
    if (wasAway) this.#depart(parent);
    this.#judge(parent);
  }

  #depart(parent: FollowedParent): void {
    const wasThere = parent.isThere === true;
    parent.isThere = false;
    if (wasThere) this.#lose(parent);
  }

  #judge(parent: FollowedParent): void {
    if (!this.#isThere(parent)) return this.#depart(parent);
    if (parent.isThere === true) return;
    parent.isThere = true;
    const { isNewCable } = parent;
    parent.isNewCable = false;
    this.#return(parent, isNewCable);
  }

  #isThere({ chain, states }: FollowedParent): boolean {
    return chain.length > 0 && chain.every((index) => states.get(index)?.isRunning === true);
  }

  #lose(parent: FollowedParent): void {
    parent.era++;
    this.#parts.onLost(parent.name);
  }

  #return(parent: FollowedParent, isNewCable: boolean): void {
    parent.era++;
    this.#parts.onBack(parent.name, isNewCable);
  }
}

function newParent(name: string): FollowedParent {
  return {
    name,
    chain: [],
    states: new Map(),
    members: new Map(),
    baseIndex: undefined,
    isThere: undefined,
    isNewCable: false,
    isLearning: false,
    isStale: false,
    era: 0,
  };
}

/** One that never ran is no part of the LAN that was away: a machine that is switched on. */
function remember({ members }: FollowedParent, index: number, now: LinkState): void {
  if (members.has(index) || (now.isRunning && members.size < MOST_MEMBERS)) members.set(index, now);
}

function isNamed({ name, alternativeNames }: Link, wanted: string): boolean {
  return name === wanted || alternativeNames.includes(wanted);
}

/** A parent that stands on nothing and was not there is a cable that was plugged in. */
function isOtherCable({ baseIndex, states }: FollowedParent, base: Link, levels: number): boolean {
  if (WITHOUT_CABLE.has(base.kind ?? '')) return false;
  if (baseIndex === undefined) return levels === 1;
  const before = states.get(base.index);
  return baseIndex !== base.index || (before !== undefined && !isSame(before, stateOf(base)));
}

/** One that the kernel names no kind of is no virtual link. */
function isNic({ kind }: Link): boolean {
  return kind === null;
}

/** The kernel has told of changes of the link that had not happened when it was read. */
function isOlder({ states }: FollowedParent): (link: Link) => boolean {
  return ({ index, carrierChanges }) => carrierChanges < (states.get(index)?.carrierChanges ?? 0);
}

function isNews({ states }: FollowedParent): (link: Link) => boolean {
  return (link) => {
    const before = states.get(link.index);
    return before === undefined || !isSame(before, stateOf(link));
  };
}

function stateOf({ isUp, hasCarrier, carrierChanges }: Link): LinkState {
  return { isRunning: isUp && hasCarrier, carrierChanges };
}

function isSame(one: LinkState, other: LinkState): boolean {
  return one.isRunning === other.isRunning && one.carrierChanges === other.carrierChanges;
}
