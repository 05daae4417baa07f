/**
 * The store of hosts that share addresses through etcd: everything but the leases is this host's alone (local.ts).
 *
 * Without etcd the daemon starts and goes on: only new claims are refused until it is back.
 */
import { setTimeout as delay } from 'node:timers/promises';
import * as errors from '../../errors.ts';
import type { Sharing } from '../../health.ts';
import type { Log } from '../../log.ts';
import type { Conflict, Endpoint, Network, Pool, Remembered, Tenancy } from '../../model.ts';
import { type ChangeStream, Etcd, type EtcdAccess, type Position } from './client.ts';
import { type News, Registry } from './claims.ts';
import { KnownCluster, type KnownPosition, readSelf, type Self } from './identity.ts';
import { SharedLeases } from './leases.ts';
import type { ClusterSettings } from '../../settings.ts';
import { readAccess } from './access.ts';
import { openLocalStore } from '../local.ts';
import type { Store, Table } from '../store.ts';
import { isBehind, View } from './view.ts';

interface Parts {
  readonly access: EtcdAccess;
  /** Hosts of one name share addresses. */
  readonly cluster: string;
  readonly local: Store;
  readonly self: Self;
  /** Of etcd, as it was known last. */
  readonly known: KnownCluster;
  readonly fallsBack: boolean;
  readonly log: Log;
}

const KEEP_ALIVE_MS = 5000;
/** Between two visits: after a failure, and where a watch ended at once, as it does when a member sends nonsense. */
const RETRY_MS = 1000;
/** For the first claim after the start, which may come before etcd was reached. */
const START_MS = 5000;
const NONSENSE = 'the shared store sent what is no answer; its changes are followed again';
const WATCH_TRIES = 3;
const SURVEYS = 3;
/** After etcd was restored from a snapshot: until the hosts have claimed again what they got since it was made. */
const RESTORED_MS = 10_000;
/** What an operator is changing just now is waited for. */
const CHANGING = ['CLUSTER_LOGIN', 'CLUSTER_TLS'];
const CHANGING_MS = 3000;
/** The record of the run before a power cut ends in this time, but for a boot that took no longer than seconds. */
const RECORD_ENDS_MS = 7000;
const TRIES_MS = 100;
/** A stop waits so long for etcd, twice. */
const CLOSE_MS = 1500;

/** The store of one host of several. Its tables work as long as this host's own store does, but for new claims. */
export class ClusterStore implements Store {
  readonly networks: Table<Network>;
  readonly endpoints: Table<Endpoint>;
  readonly pools: Table<Pool>;
  readonly conflicts: Table<Conflict>;
  readonly names: Table<Remembered>;
  readonly tenancies: Table<Tenancy>;
  readonly leases: SharedLeases;
  readonly #local: Store;
  readonly #log: Log;
  readonly #known: KnownCluster;
  readonly #etcd: Etcd;
  readonly #registry: Registry;
  readonly #view: View;
  readonly #stop = new AbortController();
  readonly #stay: Promise<void>;
  /** Settled when etcd was reached, or could not be, for the first time. */
  readonly #started = Promise.withResolvers<void>();
  /** Why no claim can be made; null when they can. */
  #fault: errors.PluginError | null = null;
  #isUp = false;
  /** Endpoints of which the log says that they are of another cluster. */
  readonly #named = new Map<string, string>();
  #restoredAtMs = Number.NEGATIVE_INFINITY;

  constructor({ local, access, cluster, self, known, fallsBack, log }: Parts) {
    const { networks, endpoints, pools, conflicts, names, tenancies, leases } = local;
    [this.networks, this.endpoints, this.pools] = [networks, endpoints, pools];
    [this.conflicts, this.names, this.tenancies] = [conflicts, names, tenancies];
    [this.#local, this.#log, this.#known] = [local, log, known];
    this.#etcd = new Etcd(access);
    this.#etcd.keepTo(known.position?.clusterId ?? '');
    this.#registry = new Registry(this.#etcd, cluster, self);
    this.#view = new View(self.node);
    const [registry, view, gate] = [this.#registry, this.#view, () => this.#gate()];
    const durable = () => local.durable();
    this.leases = new SharedLeases({ own: leases, pools, durable, registry, view, gate, fallsBack, log });
    registry.hold();
    this.#stay = this.#run();
  }

  get isRestored(): boolean {
    return this.#local.isRestored === true;
  }

  async settleRestore(): Promise<void> {
    await this.#local.settleRestore?.();
  }

  sharing(): Sharing {
    return { isUp: this.#isUp, code: this.#fault?.code ?? null };
  }

  async durable(): Promise<void> {
    await this.#local.durable();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    // What is under way goes on as long as etcd is silent.
    const late = () => delay(CLOSE_MS, null, { ref: false });
    if (this.#isUp) await Promise.race([this.#stay.then(() => this.leases.settle()), late()]);
    if (this.#isUp) this.#known.keep(this.#position);
    this.#etcd.close();
    this.#registry.membership.stop();
    this.#registry.release(null);
    await this.#stay;
    await this.leases.settle();
    await this.#local.close();
  }

  async #gate(): Promise<void> {
    if (!this.#isUp && this.#fault === null)
      await Promise.race([this.#started.promise, delay(START_MS, null, { ref: false })]);
    const beganAtMs = performance.now();
    while (!this.#isUp && performance.now() - beganAtMs < patienceWith(this.#fault)) await delay(TRIES_MS);
    if (!this.#isUp) throw this.#fault ?? this.#etcd.silence();
    const waitMs = this.#restoredAtMs + RESTORED_MS - performance.now();
    if (waitMs > 0) throw errors.clusterRestored(Math.ceil(waitMs / 1000));
  }

  // --- staying in touch -----------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const error = await this.#visit().catch((reason: unknown) => reason);
      if (this.#stop.signal.aborted || error === undefined) continue;
      this.#goDown(error);
      await this.#pause(RETRY_MS);
    }
  }

  async #pause(ms: number): Promise<void> {
    if (ms > 0) await delay(ms, null, { signal: this.#stop.signal }).catch(() => undefined);
  }

  /** Follows the changes until the member goes away, which is no fault yet; throws when no other can be reached. */
  async #visit(): Promise<void> {
    if (this.#known.position === undefined) await this.#chooseCluster();
    if (!(await this.#isAlive())) await this.#registry.membership.enter();
    const watch = await this.#follow();
    const leave = new AbortController();
    try {
      this.#goUp();
      this.#nameOthers();
      const began = performance.now();
      const failure = await Promise.race([watch.ended, this.#keepUp(leave.signal)]);
      if (failure !== undefined) this.#log.warn(NONSENSE, { cause: failure.message });
      await this.#pause(began + RETRY_MS - performance.now());
    } finally {
      leave.abort();
      watch.cancel();
      if (!this.#stop.signal.aborted) this.#registry.hold();
    }
  }

  /** Throws what another cluster makes of it: see #judgeCluster(). */
  async #isAlive(): Promise<boolean> {
    try {
      // Asks for the cluster as well, also where there is nothing to keep alive.
      const isAlive = await this.#registry.membership.keepAlive();
      if (!isAlive) await this.#registry.checkSchema();
      return isAlive;
    } catch (error) {
      if (this.#etcd.others.size > 0) await this.#judgeCluster();
      throw error;
    }
  }

  async #keepUp(leave: AbortSignal): Promise<never> {
    const signal = AbortSignal.any([leave, this.#stop.signal]);
    const { membership } = this.#registry;
    for (;;) {
      // A thousand claims take longer than the node's record lasts.
      void this.leases.settle().then(() => this.#noteBack());
      await delay(KEEP_ALIVE_MS, null, { signal });
      if (!(await membership.keepAlive()) || !this.#view.knows(this.#registry.node)) await membership.enter();
      if (this.#view.hasSilent) await this.#lookWhetherWritable();
      this.#known.keep(this.#position);
      this.#nameOthers();
    }
  }

  /** A member that was replaced by one of a cluster of its own is passed over, but somebody has to mend it. */
  #nameOthers(): void {
    for (const [endpoint, clusterId] of this.#etcd.others) {
      if (this.#named.get(endpoint) === clusterId) continue;
      this.#named.set(endpoint, clusterId);
      this.#log.error(errors.clusterSplit(new Map([[endpoint, [clusterId]]]), this.#view.latest.clusterId).message);
    }
  }

  /** Who comes back while the store takes no changes cannot say so. */
  async #lookWhetherWritable(): Promise<void> {
    const isWritable = await this.#registry.tryToWrite().then(
      () => true,
      () => false,
    );
    this.#view.noteWritable(isWritable);
  }

  /** After etcd was restored: all that this host has is claimed again. Tried again at the next look. */
  async #noteBack(): Promise<void> {
    if (this.#view.isAwaited && this.leases.isSettled) await this.#registry.noteBack().catch(() => undefined);
  }

  /** From all there is: where it was read a moment ago too, etcd may have been restored from a snapshot since. */
  async #follow(): Promise<ChangeStream> {
    const known = this.#view.latest.revision > 0 ? this.#position : this.#known.position;
    const { news, position } = await this.#registry.load();
    let refusal: errors.PluginError | null = null;
    if (known !== undefined && (await this.#isRestored(known, news, position)))
      refusal = await this.#noteRestored(news);
    // At once, since what is gone is known only now.
    await this.leases.reviewAll(this.#view.load(news, position));
    this.#known.keep(this.#position);
    if (!this.#view.knows(this.#registry.node)) await this.#registry.membership.enter();
    const watch = await this.#watch(position);
    this.#registry.release(refusal);
    return watch;
  }

  /**
   * It is another store than the one that had come to `known`, or stands before it, or went on from before it: then it does
   * not have, at the revision that was known, the claim that was changed last. Of what was compacted since, only the claims of this
   * host tell, but for those that it gave back itself.
   */
  async #isRestored({ lastClaim, ...known }: KnownPosition, news: readonly News[], now: Position): Promise<boolean> {
    if (isBehind(now, known) || (await this.leases.hasAny(this.#view.forgotten(news, now)))) return true;
    const isIt = (one: News) => 'lease' in one && one.lease === lastClaim?.lease && one.revision === lastClaim.revision;
    if (lastClaim === undefined || news.some(isIt)) return false;
    const revision = await this.#registry.changeAt(lastClaim.lease, known.revision);
    return revision !== null && revision !== lastClaim.revision;
  }

  get #position(): KnownPosition {
    return { ...this.#view.latest, lastClaim: this.#view.lastClaim };
  }

  /** Where a connection breaks just now, the watch begins on the next one: every other call is tried again too. */
  async #watch(position: Position): Promise<ChangeStream> {
    for (let tries = 1; ; tries++) {
      const watch = this.#registry.watch(position, (changes, at) => {
        this.leases.review(this.#view.apply(changes, at));
      });
      const error = await watch.began.then(
        () => undefined,
        (reason: errors.PluginError) => reason,
      );
      if (error === undefined) return watch;
      if (error.code !== 'CLUSTER_UNREACHABLE' || tries === WATCH_TRIES || this.#stop.signal.aborted) throw error;
    }
  }

  /**
   * Before anything else is written: hosts that come after it know then that the store does not know everything. Answers what
   * those are told who waited for it.
   */
  async #noteRestored(news: readonly News[]): Promise<errors.PluginError> {
    this.#restoredAtMs = performance.now();
    this.#log.warn('the shared store was restored or replaced: what this host has is claimed again');
    await this.#registry.noteRestored([...this.#view.allNodes(news).add(this.#registry.node)]);
    return errors.clusterRestored(RESTORED_MS / 1000);
  }

  /** At the first contact: that of most endpoints, since any of them could have become a cluster of its own. */
  async #chooseCluster(): Promise<void> {
    for (let tries = 1; ; tries++) {
      const answers = await this.#etcd.survey();
      const chosen = clusterOfMost(answers);
      if (chosen !== undefined) return this.#etcd.keepTo(chosen);
      if ([...answers.values()].some((ids) => ids !== null)) throw errors.clusterSplit(answers, null);
      if (tries === SURVEYS) throw this.#etcd.silence();
      // What keeps them from answering is told; a member that comes up meanwhile is waited for, and then all are asked again.
      await this.#registry.load();
    }
  }

  /**
   * No member of the cluster that this host knows answers, and one of another does. Where most of the endpoints have become that
   * other one, etcd was replaced or restored, and they cannot have a majority elsewhere. Else two clusters stand at the
   * addresses of one: throws CLUSTER_SPLIT, since whoever follows the other one gives out what its hosts have.
   */
  async #judgeCluster(): Promise<void> {
    const kept = this.#known.position?.clusterId ?? '';
    const answers = await this.#etcd.survey();
    if ([...answers.values()].some((ids) => ids?.includes(kept))) return;
    const chosen = clusterOfMost(answers);
    if (chosen === undefined) throw errors.clusterSplit(answers, kept);
    this.#etcd.keepTo(chosen);
  }

  #goUp(): void {
    if (!this.#isUp) this.#log.info('the shared store can be reached', { node: this.#registry.node });
    this.#isUp = true;
    this.#fault = null;
    this.#started.resolve();
  }

  #goDown(error: unknown): void {
    const fault = error instanceof errors.PluginError ? error : errors.internalError('STORE', error);
    if (this.#fault?.code !== fault.code) this.#log.error(fault.message);
    this.#isUp = false;
    this.#fault = fault;
    this.#started.resolve();
  }
}

function patienceWith(fault: errors.PluginError | null): number {
  if (fault?.code === 'CLUSTER_NODE_TAKEN') return RECORD_ENDS_MS;
  return CHANGING.includes(fault?.code ?? '') ? CHANGING_MS : 0;
}

/** Undefined where no cluster has most of the endpoints; one behind which several answer has none. */
function clusterOfMost(answers: ReadonlyMap<string, readonly string[] | null>): string | undefined {
  const ids = [...answers.values()].map((one) => (one?.length === 1 ? one[0] : undefined));
  return ids.find((id) => id !== undefined && 2 * ids.filter((one) => one === id).length > ids.length);
}

/** Throws a sentence when the state directory or a file named in the settings cannot be used; etcd may be away. */
export function openClusterStore(stateDirectory: string, settings: ClusterSettings, log: Log): ClusterStore {
  const access = readAccess(settings);
  const local = openLocalStore(stateDirectory);
  const { cluster, fallsBack } = settings;
  const [self, known] = [readSelf(stateDirectory), new KnownCluster(stateDirectory)];
  return new ClusterStore({ local, access, cluster, self, known, fallsBack, log });
}
