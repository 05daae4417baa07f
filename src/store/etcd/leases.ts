/**
 * Leases of addresses that hosts share. What this host has is in its own store, as without a cluster; a claim in etcd comes
 * first and decides who may have it. So the two can differ only where a call broke between them or etcd was away: what
 * this host has is then claimed, and what it no longer has is given back, as soon as that can be done. Nothing else has to
 * be queued for it.
 */
import * as errors from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { Lease, Pool, ProbeProfile } from '../../model.ts';
import { Serial } from '../../serial.ts';
import { byBytes } from '../mirror.ts';
import { type Claim, type Entry, isShared, type News, type Registry } from './claims.ts';
import { type ClaimEvent, isContested, isDoubted, type Phase, transition } from './claimstate.ts';
import { type Contest, leaseKey, type LeaseListener, type LeaseTable, type Table } from '../store.ts';
import { partsOf, type View } from './view.ts';

interface Parts {
  /** Of this host. */
  readonly own: Table<Lease>;
  readonly pools: Pick<Table<Pool>, 'get'>;
  /** Resolves when what was changed there is on the disk. */
  readonly durable: () => Promise<void>;
  readonly registry: Registry;
  readonly view: View;
  /** Resolves when claims can be made; throws a sentence when they cannot. */
  readonly gate: () => Promise<void>;
  /** Without quorum addresses are given out all the same, once the LAN was asked. */
  readonly fallsBack: boolean;
  readonly log: Log;
}

type Named = Pick<Lease, 'realm' | 'address'>;

/** For calls that nobody waits for, or that are made again: others may wait for the same address. */
const BRIEF_MS = 1500;
/** Keys brought in line at a time. */
const AT_ONCE = 16;

/** Leases of this host and, as far as the view knows, of others. Claims and what is given back go through etcd. */
export class SharedLeases implements LeaseTable {
  readonly #parts: Parts;
  readonly #serial = new Serial();
  readonly #listeners: LeaseListener[] = [];
  readonly #contestListeners: ((contest: Contest) => void)[] = [];
  /** By key of the lease; those that agree are left out. */
  readonly #phases = new Map<string, Phase>();
  /** Keys of leases that this process took over from lost hosts. */
  readonly #fresh = new Set<string>();
  /** Keys of leases whose containers came to be here, or for which the LAN was asked: see #isKept(). */
  readonly #proven = new Set<string>();
  /** By key, the other hosts that have it too, and since when, as it was told last. */
  readonly #reported = new Map<string, string>();
  #settling: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Who this host is for others. */
  get node(): string {
    return this.#parts.registry.node;
  }

  // --- the table ----------------------------------------------------------------------------------------------------

  async get(key: string): Promise<Lease | undefined> {
    return (await this.#parts.own.get(key)) ?? this.#parts.view.foreign(key);
  }

  async list(prefix = ''): Promise<Lease[]> {
    const own = await this.#parts.own.list(prefix);
    const others = [...this.#parts.view.foreignBelow(prefix)];
    if (others.length === 0) return own;
    const leases = new Map([...others, ...own].map((lease) => [leaseKey(lease), lease]));
    return byBytes([...leases.keys()]).flatMap((key) => leases.get(key) ?? []);
  }

  /** Throws a sentence when the claim cannot be made. */
  async insert(lease: Lease): Promise<boolean> {
    const key = leaseKey(lease);
    return this.#serial.run(key, async () => {
      if ((await this.#parts.own.get(key)) !== undefined) return false;
      try {
        const wasOurs = this.#parts.view.isOurs(key);
        const isDone = (await this.#claim(key, lease)) && (await this.#parts.own.insert(lease));
        if (isDone && (!wasOurs || (await this.#isOfOtherDriver(lease)))) this.#proven.add(key);
        if (isDone && this.#parts.view.at(key)?.claim.heir !== undefined) this.#fresh.add(key);
        return isDone;
      } catch (error) {
        // Perhaps it was claimed, and only the answer was lost.
        this.#note(key, 'doubted');
        throw error;
      }
    });
  }

  /**
   * What endpoint an address is for concerns only this host. But one that was taken over from a lost host is for good when it
   * is tied: throws ADDRESS_TAKEN where it went back meanwhile, and a sentence when etcd cannot be told.
   */
  async replace(previous: Lease, next: Lease): Promise<boolean> {
    const key = leaseKey(next);
    if (previous.holder !== undefined) return false;
    return this.#serial.run(key, async () => {
      if (next.endpointId !== null) await this.#settleHeir(key);
      if (next.endpointId !== null) this.#proven.add(key);
      return this.#parts.own.replace(previous, next);
    });
  }

  async #settleHeir(key: string): Promise<void> {
    const { registry, view } = this.#parts;
    const known = view.at(key);
    if (known?.claim.heir === undefined || !view.isOurs(key)) return;
    const { isOurs, entry } = await registry.settleHeir(key, known);
    if (entry !== undefined) view.note(key, entry);
    if (!isOurs) throw this.#refusal(key, entry);
  }

  /** It is gone when that is durable here; etcd is told now, or as soon as it can be. */
  async remove(lease: Lease): Promise<boolean> {
    const key = leaseKey(lease);
    if (lease.holder !== undefined) return false;
    return this.#serial.run(key, async () => {
      if (!(await this.#parts.own.remove(lease))) return false;
      this.#fresh.delete(key);
      if (await this.#isOfOtherDriver(lease)) this.#proven.add(key);
      await this.#giveBack(key, BRIEF_MS).catch(() => undefined);
      return true;
    });
  }

  follow(listener: LeaseListener): void {
    this.#listeners.push(listener);
  }

  contests(listener: (contest: Contest) => void): void {
    this.#contestListeners.push(listener);
  }

  ofLostHosts(realm: string): string[] {
    return Array.from(this.#parts.view.lostBelow(`${realm}/`), (key) => partsOf(key)[1]);
  }

  needsProof(lease: Named): ProbeProfile | null {
    const { view } = this.#parts;
    const key = leaseKey(lease);
    if (this.#phase(key) === 'unclaimed') return 'rfc';
    const isKept = view.isOurs(key) && this.#isKept(key);
    return isKept || view.isInDoubt || view.at(key)?.claim.heir !== undefined ? 'fast' : null;
  }

  // --- what this node had at another place -------------------------------------------------------------------------------

  /**
   * This machine has booted since the address was claimed, or it is a copy of the one that claimed it, where the container
   * may run on: the claim stays until the LAN was asked for the address.
   */
  #isKept(key: string): boolean {
    const { registry, view } = this.#parts;
    const kind = view.at(key)?.claim.kind;
    return !registry.membership.isAlone && !this.#proven.has(key) && kind !== undefined && !isShared(kind);
  }

  /** See LeaseTable. Where nothing is left that the LAN has to be asked for, that is noted in etcd. */
  async kept(): Promise<Named[]> {
    const { own, registry, view } = this.#parts;
    if (registry.membership.isAlone) return [];
    const kept: Named[] = [];
    let used = 0;
    for (const key of view.keys()) {
      if (!view.isOurs(key) || !this.#isKept(key)) continue;
      const lease = await own.get(key);
      if (lease === undefined) kept.push(named(key));
      else if (lease.kind === 'container' && !(await this.#isOfOtherDriver(lease))) used++;
    }
    // Before all of it was read this host knows nothing of what it has.
    if (kept.length + used === 0 && this.isSettled && !registry.isHeld) await registry.membership.settlePlace();
    return kept;
  }

  /** See LeaseTable. */
  async letGo(lease: Named): Promise<void> {
    const key = leaseKey(lease);
    await this.#serial.run(key, async () => {
      if ((await this.#parts.own.get(key)) !== undefined) return;
      this.#proven.add(key);
      await this.#giveBack(key, BRIEF_MS);
    });
  }

  /**
   * A host that stood still, or was cut off, perhaps lost its claim to another one and has not heard of it yet: then etcd is
   * asked.
   */
  async assure(named: Named): Promise<void> {
    const key = leaseKey(named);
    return this.#serial.run(key, async () => {
      const { own, registry, view } = this.#parts;
      const lease = await own.get(key);
      if (lease === undefined) throw this.#refusal(key, view.at(key));
      const phase = this.#phase(key);
      if (phase === 'unclaimed' && view.foreign(key) === undefined) return;
      if (view.isOurs(key) && !isContested(phase) && registry.membership.isSurelyAlive) return;
      const { isOurs, entry } = await registry.take(key, lease.kind, () => false);
      if (entry !== undefined) view.note(key, entry);
      if (!isOurs) throw this.#refusal(key, entry);
    });
  }

  #refusal(key: string, entry: Entry | undefined): errors.PluginError {
    const [, address] = partsOf(key);
    const node = entry?.claim.nodes.find((one) => one !== this.node);
    return node === undefined ? errors.addressNotLeased(address) : errors.addressGone(address, node);
  }

  #phase(key: string): Phase {
    return this.#phases.get(key) ?? 'agreed';
  }

  #note(key: string, event: ClaimEvent): void {
    const phase = transition(this.#phase(key), event);
    if (phase === 'agreed') this.#phases.delete(key);
    else this.#phases.set(key, phase);
  }

  // --- claims -------------------------------------------------------------------------------------------------------

  async #claim(key: string, { kind }: Lease): Promise<boolean> {
    const { gate, registry, view } = this.#parts;
    // Who did not know that a lost host has it, as at the start, may choose another one.
    const known = view.at(key);
    const isLost = (claim: Claim) => known !== undefined && view.isLost(claim);
    try {
      await gate();
      const patienceMs = this.#parts.fallsBack ? BRIEF_MS : undefined;
      const { isOurs, entry } = await registry.take(key, kind, isLost, patienceMs);
      if (entry !== undefined) view.note(key, entry);
      return isOurs;
    } catch (error) {
      if (!this.#mayFallBack(key, error)) throw error;
      this.#note(key, 'grantedUnclaimed');
      return true;
    }
  }

  #mayFallBack(key: string, error: unknown): boolean {
    const { fallsBack, view } = this.#parts;
    const isAway = error instanceof errors.PluginError && error.code === 'CLUSTER_UNREACHABLE';
    return fallsBack && isAway && view.foreign(key) === undefined;
  }

  async #giveBack(key: string, patienceMs?: number): Promise<void> {
    const { durable, gate, registry, view } = this.#parts;
    this.#note(key, 'gone');
    // Else a power cut could bring back here what another host has got since.
    await durable();
    await gate();
    if (this.#isKept(key)) {
      this.#note(key, 'givenBack');
      return this.#declare(key, undefined);
    }
    const rest = await registry.giveBack(key, view.at(key), patienceMs);
    if (rest !== undefined) view.note(key, rest);
    this.#proven.delete(key);
    this.#note(key, 'givenBack');
    await this.#declare(key, undefined);
  }

  // --- bringing both in line ------------------------------------------------------------------------------------------

  async hasAny(keys: readonly string[]): Promise<boolean> {
    for (const key of keys) if ((await this.#parts.own.get(key)) !== undefined) return true;
    return false;
  }

  /** After the view was loaded again. `gone`: what others and this host gave back while nothing could be heard. */
  async reviewAll(gone: readonly string[]): Promise<void> {
    const { own, view } = this.#parts;
    for (const key of gone) this.#tell(key);
    for (const key of view.keys()) {
      if (view.isOurs(key)) this.#note(key, 'doubted');
      else this.#tell(key);
    }
    for (const lease of await own.list()) this.#note(leaseKey(lease), 'doubted');
  }

  /** After changes of others, or of our own. */
  review(news: readonly News[]): void {
    for (const one of news) {
      if ('lease' in one) this.#tell(one.lease);
      if ('lease' in one) this.#note(one.lease, 'doubted');
      // Of our own it is news when it is gone: it ended with the record of an earlier process.
      if ('rival' in one && (one.of !== this.node || one.since === null)) this.#note(one.rival, 'doubted');
    }
    void this.settle();
  }

  #tell(key: string): void {
    const [realm, address] = partsOf(key);
    const isTaken = this.#parts.view.at(key) !== undefined;
    const other = this.#parts.view.kindOfOther(key) ?? null;
    for (const listener of this.#listeners) listener({ realm, address }, isTaken, other);
  }

  /** Whether all that this host has is claimed, and nothing else. */
  get isSettled(): boolean {
    return ![...this.#phases.values()].some(isDoubted);
  }

  /** Never throws: what cannot be done now is tried again at the next call. */
  settle(): Promise<void> {
    this.#settling ??= this.#settleAll().finally(() => (this.#settling = undefined));
    return this.#settling;
  }

  async #settleAll(): Promise<void> {
    const doubted = [...this.#phases].filter(([, phase]) => isDoubted(phase));
    const keys = doubted.map(([key]) => key).values();
    const work = async () => {
      for (const key of keys) await this.#serial.run(key, () => this.#settleOne(key));
    };
    // The first failure ends it: the next would fail too.
    const atOnce = Math.min(AT_ONCE, doubted.length);
    await Promise.all(Array.from({ length: atOnce }, work)).catch(() => undefined);
  }

  async #settleOne(key: string): Promise<void> {
    // Whoever came before in the queue perhaps did it.
    if (!isDoubted(this.#phase(key))) return;
    const { own, view } = this.#parts;
    const lease = await own.get(key);
    if (lease === undefined && view.isOurs(key)) return this.#giveBack(key, BRIEF_MS);
    if (lease !== undefined && !(view.isOurs(key) && view.at(key)?.claim.kind === lease.kind))
      return this.#reclaim(key, lease);
    if (lease !== undefined && (await this.#isTorn(key, lease))) {
      await own.remove(lease);
      return this.#giveBack(key, BRIEF_MS);
    }
    this.#note(key, 'agreed');
    await this.#declare(key, lease);
  }

  /** It was being taken over from a lost host when the process before this one ended. */
  async #isTorn(key: string, lease: Lease): Promise<boolean> {
    const isTakenOver = this.#parts.view.at(key)?.claim.heir !== undefined;
    return isTakenOver && !this.#fresh.has(key) && (await this.#isIdle(lease));
  }

  /** This host has it: it was given out without quorum, or before there was a cluster, or etcd lost it. */
  async #reclaim(key: string, lease: Lease): Promise<void> {
    const { own, registry, view } = this.#parts;
    const { isOurs, entry } = await registry.take(key, lease.kind, () => false, BRIEF_MS);
    if (entry !== undefined) view.note(key, entry);
    // What was heard meanwhile is newer.
    if (isOurs !== view.isOurs(key)) return;
    this.#note(key, isOurs ? 'agreed' : 'refused');
    if (!isOurs && (await this.#isIdle(lease))) {
      await own.remove(lease);
      this.#note(key, 'agreed');
      this.#tell(key);
      return this.#declare(key, undefined);
    }
    await this.#declare(key, lease, !isOurs);
  }

  /** No container has it: whoever is about to start is refused then (assure()). Of other drivers' networks that is not known. */
  async #isIdle({ kind, endpointId, poolIds }: Lease): Promise<boolean> {
    if (kind !== 'container' || endpointId !== null) return false;
    const pools = await Promise.all(poolIds.map((id) => this.#parts.pools.get(id)));
    return pools.every((pool) => pool?.networkId !== null);
  }

  /** Its networks are another driver's, on whose LAN nobody can be asked. */
  async #isOfOtherDriver({ poolIds }: Lease): Promise<boolean> {
    const pools = await Promise.all(poolIds.map((id) => this.#parts.pools.get(id)));
    return pools.every((pool) => pool?.networkId === null && pool.options['parent'] === undefined);
  }

  /**
   * Two hosts that have an address both say so, since when, as long as it lasts; so each can tell its user. `isRefused`: etcd
   * says that it is the other's.
   */
  async #declare(key: string, lease: Lease | undefined, isRefused = false): Promise<void> {
    const { registry, view } = this.#parts;
    // Of most that is heard of other hosts there is nothing to say.
    if (lease === undefined && !this.#reported.has(key) && !view.isRival(key)) return;
    const claimants = isRefused ? (view.at(key)?.claim.nodes ?? []) : [];
    const claiming = claimants.filter((node) => node !== this.node).map((node) => [node, ''] as const);
    const others = new Map(lease === undefined ? [] : [...claiming, ...view.rivals(key)]);
    if (lease !== undefined && others.size > 0) this.#report(key, others, lease);
    const isRival = lease !== undefined && (isRefused || others.size > 0);
    if (!isRival && this.#reported.delete(key)) this.#tellContest({ ...named(key), others, isOver: true });
    if (isRival === view.isRival(key)) return;
    await registry.declareRival(key, isRival ? lease.changedAt : null).catch((error: unknown) => {
      this.#note(key, 'doubted');
      throw error;
    });
  }

  /** Once, and again when more is known of it. */
  #report(key: string, others: ReadonlyMap<string, string>, lease: Lease): void {
    const [known, now] = [this.#reported.get(key), Array.from(others).join(' ')];
    if (known === now) return;
    this.#reported.set(key, now);
    this.#tellContest({ ...named(key), others, isOver: false });
    if (known !== undefined) return;
    this.#parts.log.error('an address of this host is another one’s too: stop one of the two containers', {
      address: lease.address,
      endpoint: lease.endpointId,
      other: [...others.keys()].join(' '),
    });
  }

  #tellContest(contest: Contest): void {
    for (const listener of this.#contestListeners) listener(contest);
  }
}

function named(key: string): Named {
  const [realm, address] = partsOf(key);
  return { realm, address };
}
