/**
 * The store of hosts that share addresses through etcd: everything but the leases is this host's alone (local.ts).
 *
 * Without etcd the daemon starts and goes on: only new claims are refused until it is back.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as errors from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { Conflict, Endpoint, Network, Pool } from '../../model.ts';
import { type ChangeStream, Etcd, type EtcdAccess, type Position } from './client.ts';
import { Registry, type Self } from './claims.ts';
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
  readonly fallsBack: boolean;
  readonly log: Log;
}

const KEEP_ALIVE_MS = 5000;
/** Between two visits: after a failure, and where a watch ended at once, as it does when a member sends nonsense. */
const RETRY_MS = 1000;
/** For the first claim after the start, which may come before etcd was reached. */
const START_MS = 5000;
const NONSENSE = 'the shared store sent what is no answer; its changes are followed anew';
const WATCH_TRIES = 3;
/** After etcd was restored from a snapshot: until the hosts have claimed again what they got since it was made. */
const RESTORED_MS = 10_000;

/** The store of one host of several. Its tables work as long as this host's own store does, but for new claims. */
export class ClusterStore implements Store {
  readonly networks: Table<Network>;
  readonly endpoints: Table<Endpoint>;
  readonly pools: Table<Pool>;
  readonly conflicts: Table<Conflict>;
  readonly leases: SharedLeases;
  readonly #local: Store;
  readonly #log: Log;
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
  #restoredAtMs = Number.NEGATIVE_INFINITY;

  constructor({ local, access, cluster, self, fallsBack, log }: Parts) {
    const { networks, endpoints, pools, conflicts, leases } = local;
    [this.networks, this.endpoints, this.pools, this.conflicts] = [networks, endpoints, pools, conflicts];
    [this.#local, this.#log] = [local, log];
    this.#etcd = new Etcd(access);
    this.#registry = new Registry(this.#etcd, cluster, self);
    this.#view = new View(self.node);
    const [registry, view, gate] = [this.#registry, this.#view, () => this.#gate()];
    const durable = () => local.durable();
    this.leases = new SharedLeases({ own: leases, durable, registry, view, gate, fallsBack, log });
    this.#stay = this.#run();
  }

  async durable(): Promise<void> {
    await this.#local.durable();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#etcd.close();
    await this.#stay;
    await this.leases.settle();
    await this.#local.close();
  }

  async #gate(): Promise<void> {
    if (!this.#isUp && this.#fault === null)
      await Promise.race([this.#started.promise, delay(START_MS, null, { ref: false })]);
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
    if (!(await this.#registry.keepAlive())) {
      await this.#registry.checkSchema();
      await this.#registry.register();
    }
    const watch = await this.#follow();
    const leave = new AbortController();
    try {
      this.#goUp();
      const began = performance.now();
      const failure = await Promise.race([watch.ended, this.#keepUp(leave.signal)]);
      if (failure !== undefined) this.#log.warn(NONSENSE, { cause: failure.message });
      await this.#pause(began + RETRY_MS - performance.now());
    } finally {
      leave.abort();
      watch.cancel();
    }
  }

  async #keepUp(leave: AbortSignal): Promise<never> {
    const signal = AbortSignal.any([leave, this.#stop.signal]);
    for (;;) {
      await this.leases.settle();
      await delay(KEEP_ALIVE_MS, null, { signal });
      if (!(await this.#registry.keepAlive())) await this.#registry.register();
    }
  }

  /** From all there is: where it was read a moment ago too, etcd may have been restored from a snapshot since. */
  async #follow(): Promise<ChangeStream> {
    const known = this.#view.latest;
    const { news, position } = await this.#registry.load();
    const forgotten = this.#view.forgotten(news, position);
    // What this host gave back itself is no sign.
    if (isBehind(position, known) || (await this.leases.hasAny(forgotten))) this.#noteRestored();
    // At once, since what is gone is known only now.
    await this.leases.reviewAll(this.#view.load(news, position));
    if (!this.#view.knows(this.#registry.node)) await this.#registry.register();
    return this.#watch(position);
  }

  /** Where a connection breaks just now, the watch begins on the next one: every other call is tried again too. */
  async #watch(position: Position): Promise<ChangeStream> {
    for (let tries = 1; ; tries++) {
      const watch = this.#registry.watch(position, (changes, at) => {
        this.#view.apply(changes, at);
        this.leases.review(changes);
      });
      const error = await watch.began.then(
        () => undefined,
        (reason: errors.PluginError) => reason,
      );
      if (error === undefined) return watch;
      if (error.code !== 'CLUSTER_UNREACHABLE' || tries === WATCH_TRIES || this.#stop.signal.aborted) throw error;
    }
  }

  #noteRestored(): void {
    this.#restoredAtMs = performance.now();
    this.#log.warn('the shared store was restored or replaced: what this host has is claimed anew');
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

/** Throws a sentence when the state directory or a file named in the settings cannot be used; etcd may be away. */
export function openClusterStore(stateDirectory: string, settings: ClusterSettings, log: Log): ClusterStore {
  const access = readAccess(settings);
  const local = openLocalStore(stateDirectory);
  const { cluster, fallsBack } = settings;
  return new ClusterStore({ local, access, cluster, self: readSelf(stateDirectory), fallsBack, log });
}

/** Who this host is for others, kept beside its state: `web1-3f2a9c1d04be`. Named at the first call. */
export function readSelf(stateDirectory: string): Self {
  const self = peekSelf(stateDirectory);
  if (!existsSync(self.file)) writeFileSync(self.file, `${self.node}\n`, { flag: 'wx', mode: 0o600, flush: true });
  return self;
}

/** Who it is, or would be, without writing anything. */
export function peekSelf(stateDirectory: string): Self {
  const file = join(resolve(stateDirectory), 'node');
  const host = hostname();
  const node = existsSync(file) ? readFileSync(file, 'utf8').trim() : `${host}-${randomBytes(6).toString('hex')}`;
  return { node, host, file };
}
