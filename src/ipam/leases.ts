/**
 * Leases and who may have them: claiming a named address, giving one up, and taking back what nobody will release.
 */
import { type Address, contains, formatAddress, isSameAddress, parseAddress, type Range } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import * as errors from '../errors.ts';
import type { Leak } from '../leak.ts';
import type { Lease } from '../model.ts';
import type { CallLimit } from '../requests.ts';
import { Serial } from '../serial.ts';
import { leaseKey, type Store } from '../store/store.ts';
import type { Ages } from './ages.ts';
import { Occupancy } from './occupancy.ts';
import type { Names } from './names.ts';
import { isGlobal } from './pool.ts';
import { Realm } from './realm.ts';
import { type Evidence, isManagersLease, isStale, isUnused, readEvidence, secondsUntilStale } from './unused.ts';
import { isUnanswered } from './swarm.ts';

/** What the network room knows of its endpoints by the kernel, whatever their records say. */
export interface EndpointWitness {
  /** No container has the endpoint any more, which is then removed: an engine that was killed, or that could not reach us. */
  isGone(endpointId: string): Promise<boolean>;
  /** Its engine has said DeleteEndpoint, perhaps just now, and so will say ReleaseAddress. */
  hasEnded(endpointId: string): boolean;
  /** False only when it is certain that the endpoint's link is in its container and does not have the address. */
  hasAddress(endpointId: string, address: Address): Promise<boolean>;
  /** The endpoint has the address no longer; others may. */
  dropAddress(endpointId: string, address: Address): Promise<void>;
}

/** Where nobody looks at the kernel. */
const BY_THE_RECORDS: EndpointWitness = {
  isGone: async () => false,
  hasEnded: () => false,
  hasAddress: async () => true,
  dropAddress: async () => undefined,
};

type NamesOfRealms = Pick<Names, 'follow' | 'longestUnused' | 'countReserved' | 'at'>;

/** Where no container's address is remembered. */
const NO_NAMES: NamesOfRealms = {
  follow: async () => undefined,
  longestUnused: () => [],
  countReserved: () => 0,
  at: async () => undefined,
};

/** Another's change came between reading a record and writing it: read again. */
const ATTEMPTS = 8;
/** So many leases are read sooner one by one than together with all the others of their realm. */
const FEW = 2000;
/** What a call that waited for another still has to do: to ask the LAN. */
const RESERVE_MS = 1200;
/** How often it is looked whether the other is over. */
const LOOK_MS = 10;
/** Of the leases taken over last from endpoints that are gone. */
const MOST_SUCCEEDED = 1024;
const NO_ADDRESSES = { IPv4: new Occupancy(), IPv6: new Occupancy() };

interface Parts {
  readonly store: Store;
  /** For what is recorded. */
  readonly now: () => Date;
  readonly ages: Ages;
  /** For spans of time. */
  readonly clock: Clock;
  readonly endpoints?: EndpointWitness;
  /** Tells each realm what of it is remembered for containers, and for whom an address is reserved. */
  readonly names?: NamesOfRealms;
}

/** The realms of this host and the leases in them. Throws RECORD_CONTENDED when others go on changing the same lease. */
export class Leases {
  readonly #store: Store;
  readonly #now: () => Date;
  readonly #ages: Ages;
  readonly #clock: Clock;
  readonly #endpoints: EndpointWitness;
  readonly #names: NamesOfRealms;
  /** Leases whose calls are not answered yet, and how many those are. */
  readonly #underway = new Map<string, number>();
  /** When an engine took up with the plugin last, by the clock. */
  #takenUpAtMs = Number.NEGATIVE_INFINITY;
  /** One claim of an address at a time: what makes room for one is not for the other. */
  readonly #claims = new Serial();
  /** By key of the lease, which lease took the place of a gone endpoint's. */
  readonly #succeeded = new LatestMap<string, { readonly endpointId: string; readonly changedAt: string }>(
    MOST_SUCCEEDED,
  );
  readonly #realms = new Map<string, Promise<Realm>>();
  #areAllLoaded = false;

  constructor({ store, now, ages, clock, names = NO_NAMES, endpoints = BY_THE_RECORDS }: Parts) {
    this.#store = store;
    this.#now = now;
    this.#ages = ages;
    this.#clock = clock;
    this.#endpoints = endpoints;
    this.#names = names;
    store.leases.follow?.((lease, isTaken, other) => {
      const address = parseAddress(lease.address);
      if (address !== undefined)
        void this.#realms.get(lease.realm)?.then((realm) => realm.hear(address, isTaken, other));
    });
  }

  /** An engine takes up with the plugin: what it was about when it ended before is over. */
  takeUp(): void {
    this.#takenUpAtMs = this.#clock.nowMs();
  }

  /** While `act` runs a call is about the lease. */
  async underway<T>(lease: Lease, act: () => Promise<T>): Promise<T> {
    const key = leaseKey(lease);
    this.#underway.set(key, (this.#underway.get(key) ?? 0) + 1);
    try {
      return await act();
    } finally {
      const others = (this.#underway.get(key) ?? 1) - 1;
      if (others > 0) this.#underway.set(key, others);
      else this.#underway.delete(key);
    }
  }

  /** The store is read once per realm; from then on its index follows our own changes, and those of other hosts. */
  async realm(name: string): Promise<Realm> {
    const loading = this.#realms.get(name) ?? this.#load(name);
    this.#realms.set(name, loading);
    const realm = await loading;
    await realm.settle();
    return realm;
  }

  /** Undefined where the realm has no leases: a release may name one that never was, and leaves nothing behind then. */
  async realmWithLeases(name: string): Promise<Realm | undefined> {
    if (!this.#realms.has(name)) await this.#loadAll();
    return this.#realms.has(name) ? this.realm(name) : undefined;
  }

  async #load(name: string): Promise<Realm> {
    try {
      const realm = new Realm(name, this.#store.leases, this.#ages, this.#clock, this.#names);
      await realm.refresh();
      await this.#names.follow(name, (address, isKept) => realm.setKept(address, isKept));
      return realm;
    } catch (error) {
      this.#realms.delete(name);
      throw error;
    }
  }

  /**
   * The address as `wanted`, or the lease that already serves the wish: a gateway is shared by the networks of its
   * subnet. Another call that is about it, and may let go of it, is waited for while there is time.
   * Throws ADDRESS_RESERVED_FOR, and ADDRESS_TAKEN, naming the holder. `option`: where the user named it, for the sentence.
   */
  async claim(address: Address, wanted: Lease, option: string, limit: CallLimit | null = null): Promise<Lease> {
    return this.alone(address, wanted, { option, limit }, (claim) => claim());
  }

  /**
   * Nobody else claims the address while `act` runs, which may claim it. So what is reserved meanwhile is known to whoever
   * waits. Throws as claim() does.
   */
  async alone<T>(
    address: Address,
    wanted: Lease,
    { option, limit }: { readonly option: string; readonly limit: CallLimit | null },
    act: (claim: () => Promise<Lease>) => Promise<T>,
  ): Promise<T> {
    const key = leaseKey(wanted);
    return this.#claims.run(key, async () => {
      limit?.signal.throwIfAborted();
      // A search holds a lease on each address that it asks for, and lets most of them go.
      if (wanted.kind === 'container') await this.#whileUnderway(key, limit);
      await this.#refuseReserved(wanted, option);
      return act(() => this.#claim(address, wanted, option));
    });
  }

  /** What is reserved goes to its name, to whoever names the address without saying a name, and to a gateway that is named. */
  async #refuseReserved({ realm, address, name, isUnnamed }: Lease, option: string): Promise<void> {
    if (name === undefined && isUnnamed !== true) return;
    const kept = await this.#names.at(realm, address);
    if (kept?.isReserved === true && kept.name !== name) throw errors.addressReservedFor(address, kept.name, option);
  }

  async #whileUnderway(key: string, limit: CallLimit | null): Promise<void> {
    if (limit === null) return;
    while (this.#underway.has(key) && this.#clock.nowMs() < limit.atMs - RESERVE_MS) {
      limit.signal.throwIfAborted();
      await new Promise<void>((resolve) => void this.#clock.after(LOOK_MS, resolve));
    }
  }

  async #claim(address: Address, wanted: Lease, option: string): Promise<Lease> {
    const realm = await this.realm(wanted.realm);
    let gone: string | null = null;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (await realm.insert(address, wanted)) return wanted;
      const existing = await this.#store.leases.get(leaseKey(wanted));
      if (existing === undefined) continue;
      gone = await this.#goneEndpointOf(address, existing, gone);
      const next = gone === null ? await this.#successor(existing, wanted, option) : wanted;
      if (gone !== null) this.#succeeded.put(leaseKey(wanted), { endpointId: gone, changedAt: wanted.changedAt });
      if (next === existing || (await realm.replace(address, existing, next))) return next;
    }
    throw errors.recordContended(leaseKey(wanted));
  }

  /**
   * The endpoint that the lease is for where its container is gone by the kernel, or it is itself by the records: mostly it is
   * the very container that starts again. `before`: the one that was gone a moment ago, before it went and untied the lease.
   */
  async #goneEndpointOf(
    address: Address,
    { kind, endpointId, holder }: Lease,
    before: string | null,
  ): Promise<string | null> {
    if (kind !== 'container' || holder !== undefined) return null;
    if (endpointId === null) return before;
    const isThere = (await this.#store.endpoints.get(endpointId)) !== undefined;
    if (isThere && !(await this.#endpoints.isGone(endpointId))) return null;
    // Whatever the lease says: another endpoint that has this address needs it.
    const others = (await this.#store.endpoints.list()).filter(({ id }) => id !== endpointId);
    const isNeeded = others.some(({ addresses }) => addresses.some((one) => isSameAddress(one, address)));
    return isNeeded ? null : endpointId;
  }

  async #successor(existing: Lease, wanted: Lease, option: string): Promise<Lease> {
    if (existing.kind === 'gateway' && wanted.kind === 'gateway') return shared(existing, wanted);
    if (existing.holder !== undefined) throw errors.addressOfNode(existing.address, existing.holder.node, option);
    const evidence = await readEvidence(this.#store);
    if (isManagersLease(existing, evidence)) return successorInSwarm(existing, wanted, option);
    if (areForNoContainer(existing, wanted)) return successorOfFixed(existing, wanted, option);
    if (isStale(existing, evidence, this.#ages) || this.#isCutShort(existing, evidence)) return wanted;
    // Whoever reserves is alone with the address until he is done: this one was killed.
    if (existing.isReserving === true || isAskedAgain(existing, wanted)) return wanted;
    const pool = existing.poolIds.map((id) => evidence.pools.get(id)).find((found) => found !== undefined);
    throw this.#refusal(existing, pool?.networkId ?? null, option);
  }

  /**
   * An engine that was killed in a start, or between the end of an endpoint and the release of its address, says nothing more
   * of the address. Who names it is mostly the same container.
   */
  #isCutShort(lease: Lease, evidence: Evidence): boolean {
    const { kind, endpointId, changedAt } = lease;
    const key = leaseKey(lease);
    if (kind !== 'container' || endpointId !== null || this.#underway.has(key)) return false;
    const sinceMs = this.#clock.nowMs() - this.#takenUpAtMs;
    return isUnused(lease, evidence) && this.#ages.ageMs({ key, changedAt }, 0) > sinceMs;
  }

  #refusal(lease: Lease, networkId: string | null, option: string): errors.PluginError {
    const { address, kind, endpointId } = lease;
    if (kind === 'gateway') return errors.addressIsGateway(address, networkId, option);
    if (kind === 'auxiliary') return errors.addressIsAuxiliary(address, networkId, option);
    if (kind === 'host') return errors.addressOfHost(address, networkId, option);
    if (endpointId !== null) return errors.addressOfEndpoint(address, endpointId, networkId, option);
    const waitSeconds = networkId === null ? null : secondsUntilStale(lease, this.#ages);
    return errors.addressLeased(address, networkId, waitSeconds, option);
  }

  /** The reply with the address goes out now: a swarm's manager will know of it. */
  async answer(address: Address, realmName: string): Promise<void> {
    const realm = await this.realm(realmName);
    const key = leaseKey({ realm: realmName, address: formatAddress(address) });
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const current = await this.#store.leases.get(key);
      if (current === undefined || !isUnanswered(current)) return;
      const { askedBy: _, ...answered } = current;
      if (await realm.replace(address, current, answered)) return;
    }
    throw errors.recordContended(key);
  }

  /**
   * The pool holds the address no longer; the last one to give it up frees it. A living endpoint keeps its address
   * even then, as long as the kernel says that it has it: a release that comes late must not free what is in use again.
   * `isByEngine`: the engine says so, which does not say for which container.
   */
  async giveUp(address: Address, realmName: string, poolId: string, isByEngine = false): Promise<void> {
    const realm = await this.realm(realmName);
    const key = leaseKey({ realm: realmName, address: formatAddress(address) });
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const current = await this.#store.leases.get(key);
      if (current === undefined || !current.poolIds.includes(poolId)) return;
      const poolIds = current.poolIds.filter((id) => id !== poolId);
      if (poolIds.length > 0) {
        if (await realm.replace(address, current, this.#changed(current, { poolIds }))) return;
        continue;
      }
      if (isByEngine && this.#isOfPredecessor(key, current)) return;
      const user = await this.#userOf(current);
      if (user !== undefined && (await this.#endpoints.hasAddress(user, address))) return;
      if (!(await realm.remove(address, current))) continue;
      // Engine 29 gives an IPv6 address back right after Join where IPv6 is switched off for the endpoint (a sysctl).
      if (user !== undefined) await this.#endpoints.dropAddress(user, address);
      return;
    }
    throw errors.recordContended(key);
  }

  /**
   * The lease took the place of one whose endpoint was gone, and whose engine ends that endpoint besides: this release, the first,
   * is about the earlier one. It would free what the next container is about to get.
   */
  #isOfPredecessor(key: string, { endpointId, changedAt }: Lease): boolean {
    const earlier = this.#succeeded.get(key);
    if (endpointId !== null || earlier?.changedAt !== changedAt) return false;
    return this.#endpoints.hasEnded(earlier.endpointId) && this.#succeeded.delete(key);
  }

  /** The living endpoint that the lease is for. */
  async #userOf({ endpointId }: Lease): Promise<string | undefined> {
    const endpoint = endpointId === null ? undefined : await this.#store.endpoints.get(endpointId);
    return endpoint === undefined || endpoint.state === 'deleting' ? undefined : endpoint.id;
  }

  #changed(lease: Lease, change: Partial<Lease>): Lease {
    return { ...lease, ...change, changedAt: this.#now().toISOString() };
  }

  /** Frees the addresses of the realm whose release will not come, and offers those of hosts that are lost. */
  async reclaim(realmName: string): Promise<void> {
    const realm = await this.realm(realmName);
    const evidence = await readEvidence(this.#store);
    for (const [address, lease] of await this.#perhapsUnused(realm, evidence))
      if (isStale(lease, evidence, this.#ages)) await realm.remove(address, lease);
    for (const text of this.#store.leases.ofLostHosts?.(realmName) ?? []) {
      const address = parseAddress(text);
      if (address !== undefined) realm.offer(address);
    }
  }

  /** Hosts that are lost, and how many addresses of the ranges they have; `free`: those that could be tried. */
  async ofLostHosts(realmName: string, ranges: readonly Range[]): Promise<{ lost: [string, number][]; free: number }> {
    const counts = new Map<string, number>();
    const realm = await this.realm(realmName);
    let free = 0;
    for (const text of this.#store.leases.ofLostHosts?.(realmName) ?? []) {
      const address = parseAddress(text);
      const lease = await this.#store.leases.get(leaseKey({ realm: realmName, address: text }));
      const node = lease?.holder?.node;
      if (address === undefined || node === undefined || !ranges.some((range) => contains(range, address))) continue;
      counts.set(node, (counts.get(node) ?? 0) + 1);
      if (realm.isFree(address)) free++;
    }
    return { lost: [...counts], free };
  }

  /**
   * This host's leases of the realm whose address no container's endpoint has: all that can be unused are among them. What a
   * swarm's managers gave out may be unused although a container of this host has the address.
   */
  async #perhapsUnused(realm: Realm, { endpointAddresses }: Evidence): Promise<[Address, Lease][]> {
    const addresses = realm.index.without(isGlobal(realm.name) ? NO_ADDRESSES : endpointAddresses);
    const leases = addresses.length > FEW ? await this.#all(realm.name) : undefined;
    const found: [Address, Lease][] = [];
    for (const address of addresses) {
      const key = leaseKey({ realm: realm.name, address: formatAddress(address) });
      const lease = leases === undefined ? await this.#store.leases.get(key) : leases.get(key);
      if (lease !== undefined) found.push([address, lease]);
    }
    return found;
  }

  async #all(realmName: string): Promise<Map<string, Lease>> {
    return new Map((await this.#store.leases.list(`${realmName}/`)).map((lease) => [leaseKey(lease), lease]));
  }

  /**
   * Leases of all realms that nobody uses. One that was never tied may be on its way to an endpoint: it is waited for by
   * the collector's clock, since the record's was perhaps set meanwhile.
   */
  async leaks(): Promise<Leak[]> {
    await this.#loadAll();
    const evidence = await readEvidence(this.#store);
    const leaks: Leak[] = [];
    for (const name of this.#realms.keys()) {
      const leases = await this.#perhapsUnused(await this.realm(name), evidence);
      const unused = leases.filter(([, lease]) => isUnused(lease, evidence));
      leaks.push(...unused.map(([address, lease]) => this.#leak(address, lease)));
    }
    return leaks;
  }

  /** Once: a realm whose pools are gone may have leases that nobody asks for. */
  async #loadAll(): Promise<void> {
    if (this.#areAllLoaded) return;
    const names = new Set((await this.#store.leases.list()).map(({ realm }) => realm));
    for (const name of names) await this.realm(name);
    this.#areAllLoaded = true;
  }

  #leak(address: Address, lease: Lease): Leak {
    return {
      key: `lease ${leaseKey(lease)} ${lease.changedAt}`,
      kind: 'lease',
      name: lease.address,
      why: whyUnused(lease),
      patience: lease.endpointId === null ? 'late' : 'soon',
      collect: () => this.#collect(address, lease),
    };
  }

  async #collect(address: Address, lease: Lease): Promise<boolean> {
    const realm = await this.realm(lease.realm);
    return isUnused(lease, await readEvidence(this.#store)) && (await realm.remove(address, lease));
  }
}

/**
 * What was claimed in an earlier round, or out of the pool of another network, may be over: the claim is granted, and the
 * node that gets the task asks its LAN. A gateway always goes to who asks for it: a network whose gateway is refused
 * keeps all its tasks from starting for ever. So does a claim whose answer was lost with the process, which the engine repeats.
 */
function successorInSwarm(existing: Lease, wanted: Lease, option: string): Lease {
  if (wanted.kind === 'gateway') return wanted;
  if (existing.kind === 'gateway') return existing;
  const isHeld = existing.poolIds[0] === wanted.poolIds[0] && existing.round === wanted.round;
  const wasAnswered = !isUnanswered(existing) || existing.askedBy === wanted.askedBy;
  if (isHeld && wasAnswered) throw errors.addressOfTask(existing.address, option);
  return wanted;
}

function areForNoContainer(...leases: readonly Lease[]): boolean {
  return leases.every(({ kind }) => kind !== 'container');
}

/**
 * Addresses that belong to the subnet and to no container are shared by its networks, as it is one LAN; and one that is
 * named as auxiliary, to keep containers from it, may be the host's own end. Else a network names an address once.
 */
function successorOfFixed(existing: Lease, wanted: Lease, option: string): Lease {
  const isOfPool = existing.poolIds.some((id) => wanted.poolIds.includes(id));
  const kinds = new Set([existing.kind, wanted.kind]);
  if (kinds.has('host') && kinds.has('gateway')) throw errors.addressIsNoHosts(existing.address, option);
  const kind = kinds.has('host') ? 'host' : existing.kind;
  // The engine asks for a gateway before it says the auxiliary addresses, of which one may be the router's.
  if (isOfPool && existing.isUnnamed === true && wanted.kind === 'auxiliary') return existing;
  if (!isOfPool || (wanted.kind === 'host' && existing.kind === 'host')) return { ...shared(existing, wanted), kind };
  if (wanted.kind !== 'host') throw errors.addressNamedTwice(existing.address, existing.kind, option);
  return { ...existing, kind, changedAt: wanted.changedAt };
}

/**
 * The same container asks again on the same network: its engine gave up the call before, or ended in it, and no endpoint came of
 * the address.
 */
function isAskedAgain(existing: Lease, wanted: Lease): boolean {
  const { kind, endpointId, name, poolIds } = existing;
  const isSame = name !== undefined && name === wanted.name && poolIds.some((id) => wanted.poolIds.includes(id));
  return kind === 'container' && endpointId === null && isSame;
}

function whyUnused(lease: Lease): string {
  const { kind, round } = lease;
  if (isUnanswered(lease)) return 'the plugin was killed before it answered with it';
  if (round !== undefined) return 'no task of the swarm has it any more, and another leader was told to release it';
  return `no ${kind === 'container' ? 'container' : 'pool'} has it, and no ReleaseAddress came`;
}

/** A gateway that one of the networks named is a named one. */
function shared(existing: Lease, { poolIds, changedAt, isUnnamed }: Lease): Lease {
  const added = poolIds.filter((id) => !existing.poolIds.includes(id));
  if (added.length === 0) return existing;
  const { isUnnamed: wasUnnamed, ...lease } = existing;
  const remains = wasUnnamed === true && isUnnamed === true;
  return { ...lease, ...(remains && { isUnnamed }), poolIds: [...existing.poolIds, ...added], changedAt };
}
