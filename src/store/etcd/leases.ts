/**
 * Leases of addresses that hosts share. What this host has is in its own store, as without a cluster; a claim in etcd comes
 * first and decides who may have it. So the two can differ only where a call broke between them or etcd was away: what
 * this host has is then claimed, and what it no longer has is given back, as soon as that can be done. Nothing else has to
 * be queued for it.
 */
import * as errors from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { Lease, LeaseKind, ProbeProfile } from '../../model.ts';
import { Serial } from '../../serial.ts';
import { byBytes } from '../mirror.ts';
import type { Claim, News, Registry } from './claims.ts';
import { AGREED, type ClaimEvent, type ClaimState, isContested, isDoubted, transition } from './claimstate.ts';
import { leaseKey, type LeaseTable, type Table } from '../store.ts';
import { partsOf, type View } from './view.ts';

interface Parts {
  /** Of this host. */
  readonly own: Table<Lease>;
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
type Listener = (lease: Named, isTaken: boolean, other: LeaseKind | null) => void;

/** For calls that nobody waits for, or that are made again: others may wait for the same address. */
const BRIEF_MS = 1500;
/** Keys brought in line at a time. */
const AT_ONCE = 16;

/** Leases of this host and, as far as the view knows, of others. Claims and what is given back go through etcd. */
export class SharedLeases implements LeaseTable {
  readonly #parts: Parts;
  readonly #serial = new Serial();
  readonly #listeners: Listener[] = [];
  /** By key of the lease; those of which there is nothing to remember are left out. */
  readonly #states = new Map<string, ClaimState>();
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
        return (await this.#claim(key, lease)) && (await this.#parts.own.insert(lease));
      } catch (error) {
        // Perhaps it was claimed, and only the answer was lost.
        this.#note(key, { type: 'doubted' });
        throw error;
      }
    });
  }

  /** What endpoint an address is for concerns only this host. */
  async replace(previous: Lease, next: Lease): Promise<boolean> {
    const key = leaseKey(next);
    if (previous.holder !== undefined) return false;
    return this.#serial.run(key, async () => {
      if (!(await this.#parts.own.replace(previous, next))) return false;
      if (next.endpointId !== null) this.#note(key, { type: 'tied' });
      return true;
    });
  }

  /** It is gone when that is durable here; etcd is told now, or as soon as it can be. */
  async remove(lease: Lease): Promise<boolean> {
    const key = leaseKey(lease);
    if (lease.holder !== undefined) return false;
    return this.#serial.run(key, async () => {
      if (!(await this.#parts.own.remove(lease))) return false;
      await this.#giveBack(key, BRIEF_MS).catch(() => undefined);
      return true;
    });
  }

  follow(listener: Listener): void {
    this.#listeners.push(listener);
  }

  ofLostHosts(realm: string): string[] {
    return Array.from(this.#parts.view.lostBelow(`${realm}/`), (key) => partsOf(key)[1]);
  }

  needsProof(lease: Named): ProbeProfile | null {
    const { phase, heir } = this.#state(leaseKey(lease));
    if (phase === 'unclaimed') return 'rfc';
    return heir === undefined ? null : 'fast';
  }

  #state(key: string): ClaimState {
    return this.#states.get(key) ?? AGREED;
  }

  #note(key: string, event: ClaimEvent): void {
    const state = transition(this.#state(key), event);
    if (state.phase === 'agreed' && state.heir === undefined) this.#states.delete(key);
    else this.#states.set(key, state);
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
      const { isOurs, entry, inherited } = await registry.take(key, kind, isLost, patienceMs);
      if (entry !== undefined) view.note(key, entry);
      if (isOurs) this.#note(key, { type: 'claimed', heir: inherited });
      return isOurs;
    } catch (error) {
      if (!this.#mayFallBack(key, error)) throw error;
      this.#note(key, { type: 'grantedUnclaimed' });
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
    this.#note(key, { type: 'gone' });
    // Else a power cut could bring back here what another host has got since.
    await durable();
    await gate();
    await registry.giveBack(key, view.at(key), this.#state(key).heir, patienceMs);
    this.#note(key, { type: 'givenBack' });
  }

  // --- bringing both in line ------------------------------------------------------------------------------------------

  async hasAny(keys: readonly string[]): Promise<boolean> {
    for (const key of keys) if ((await this.#parts.own.get(key)) !== undefined) return true;
    return false;
  }

  /** After the view was loaded anew. `gone`: what others and this host gave back while nothing could be heard. */
  async reviewAll(gone: readonly string[]): Promise<void> {
    const { own, view } = this.#parts;
    for (const key of gone) this.#tell(key);
    for (const key of view.keys()) {
      if (view.isOurs(key)) this.#note(key, { type: 'doubted' });
      else this.#tell(key);
    }
    for (const lease of await own.list()) this.#note(leaseKey(lease), { type: 'doubted' });
  }

  /** After changes of others, or of our own. */
  review(news: readonly News[]): void {
    for (const one of news) {
      if (!('lease' in one)) continue;
      this.#note(one.lease, { type: 'doubted' });
      this.#tell(one.lease);
    }
    void this.settle();
  }

  #tell(key: string): void {
    const [realm, address] = partsOf(key);
    const isTaken = this.#parts.view.at(key) !== undefined;
    const other = this.#parts.view.foreign(key)?.kind ?? null;
    for (const listener of this.#listeners) listener({ realm, address }, isTaken, other);
  }

  /** Never throws: what cannot be done now is tried again at the next call. */
  settle(): Promise<void> {
    this.#settling ??= this.#settleAll().finally(() => (this.#settling = undefined));
    return this.#settling;
  }

  async #settleAll(): Promise<void> {
    const doubted = [...this.#states].filter(([, state]) => isDoubted(state));
    const keys = doubted.map(([key]) => key).values();
    const work = async () => {
      for (const key of keys) await this.#serial.run(key, () => this.#settleOne(key));
    };
    // The first failure ends it: the next would fail too.
    await Promise.all(Array.from({ length: AT_ONCE }, work)).catch(() => undefined);
  }

  async #settleOne(key: string): Promise<void> {
    // Whoever came before in the queue perhaps did it.
    if (!isDoubted(this.#state(key))) return;
    const { own, view } = this.#parts;
    const lease = await own.get(key);
    if (lease === undefined ? !view.isOurs(key) : view.isOurs(key) && view.at(key)?.claim.kind === lease.kind)
      this.#note(key, { type: 'agreed' });
    else if (lease === undefined) await this.#giveBack(key, BRIEF_MS);
    else await this.#reclaim(key, lease);
  }

  /** This host has it: it was given out without quorum, or before there was a cluster, or etcd lost it. */
  async #reclaim(key: string, lease: Lease): Promise<void> {
    const { registry, view, log } = this.#parts;
    const { isOurs, entry } = await registry.take(key, lease.kind, () => false, BRIEF_MS);
    if (entry !== undefined) view.note(key, entry);
    if (isOurs) return this.#note(key, { type: 'agreed' });
    const isNews = !isContested(this.#state(key));
    this.#note(key, { type: 'refused' });
    if (!isNews) return;
    log.error('an address of this host is claimed by another one: restart one of the two containers', {
      address: lease.address,
      endpoint: lease.endpointId,
      other: entry?.claim.nodes.join(' ') ?? null,
    });
  }
}
