/**
 * What others can see of the daemon while it runs: what happens, told to `tsmacvlan watch` and to the hook; metrics; health. Built
 * around the rest by main.ts, and nothing of the rest depends on it.
 */
import { formatInterfaceAddress, parseAddress } from './address.ts';
import { conflictNews, endpointNews, Happenings, leaseNews, networkNews, overheard } from './happenings.ts';
import { type EndedCall, type Health, HealthWatch } from './health.ts';
import { checkHook, Hook } from './hook.ts';
import type { PoolUse } from './ipam/pooluse.ts';
import type { Links } from './kernel/link.ts';
import type { EndedExchange } from './lan/dhcp/dhcpclient.ts';
import type { EndedProbe } from './lan/measured.ts';
import type { Log } from './log.ts';
import type { CountedPool, Metrics, Present } from './metrics.ts';
import { type Conflict, type Endpoint, segmentOf } from './model.ts';
import type { Endpoints } from './network/endpoints.ts';
import { ParentNews } from './network/parentnews.ts';
import { MetricsDoor } from './server/metricsdoor.ts';
import { Watchers } from './server/watchers.ts';
import type { Settings } from './settings.ts';
import { realmOf, type Store } from './store/store.ts';
import { toldStore } from './store/told.ts';

/** The rest of the daemon, as far as it is looked at. */
interface Subjects {
  readonly links: Links;
  readonly endpoints: Pick<Endpoints, 'all' | 'withAddress'>;
  readonly filteredParents: () => string[];
  readonly poolUses: () => Promise<readonly PoolUse[]>;
  readonly contests: { readonly count: number };
  /** Settled when recovery is over. */
  readonly recovered: Promise<unknown>;
}

type Options = Pick<Settings, 'metrics' | 'hook'>;

/** To count them is to look at every address in use. */
const POOLS_FRESH_MS = 10_000;
const NOBODY = { endpointId: null, networkId: null };

/** Sees all, and is seen. */
export class Looking {
  /** Whoever logs by it is heard. */
  readonly log: Log;
  readonly watchers: Watchers;
  readonly #happenings = new Happenings();
  readonly #options: Options;
  readonly #plainLog: Log;
  readonly #metrics: Metrics | null;
  #store: Store | undefined;
  #subjects: Subjects | undefined;
  #health: HealthWatch | undefined;
  #parents: ParentNews | undefined;
  #hook: Hook | undefined;
  #door: MetricsDoor | undefined;
  #uses: { readonly atMs: number; readonly value: Promise<CountedPool[]> } | undefined;

  private constructor(options: Options, log: Log, makeMetrics: ((present: () => Promise<Present>) => Metrics) | null) {
    this.#options = options;
    this.#plainLog = log;
    this.log = overheard(log, this.#happenings);
    this.watchers = new Watchers({ happenings: this.#happenings, standing: () => this.#lastingConflicts() });
    this.#metrics = makeMetrics?.(() => this.#present()) ?? null;
  }

  /** Throws HOOK_UNUSABLE. What makes metrics is loaded only where they are wanted. */
  static async open(options: Options, log: Log): Promise<Looking> {
    if (options.hook !== null) checkHook(options.hook);
    if (options.metrics === null) return new Looking(options, log, null);
    const { Metrics: Made } = await import('./metrics.ts');
    return new Looking(options, log, (present) => new Made(present));
  }

  /** The same store; what is changed by way of this one is told. */
  overhear(store: Store): Store {
    const happenings = this.#happenings;
    const tell = (happening: Parameters<Happenings['tell']>[0] | null) => happening && happenings.tell(happening);
    this.#store = toldStore(store, {
      conflicts: (before, after) => {
        if (happenings.isHeard) tell(conflictNews(before, after, (conflict) => this.#ownerOf(conflict)));
      },
      endpoints: (before, after) => {
        if (happenings.isHeard) tell(endpointNews(before, after, addressesOf(after ?? before)));
      },
      tenancies: (before, after) => leaseNews(before, after).forEach(tell),
      networks: (before, after) => {
        tell(networkNews(before, after));
        if (before === null || after === null) void this.#followParents();
      },
    });
    return this.#store;
  }

  /** From now on all there is to see can be seen. */
  begin(subjects: Subjects): void {
    const { metrics: place, hook: path } = this.#options;
    const [store, metrics] = [this.#store as Store, this.#metrics];
    this.#subjects = subjects;
    const sharing = () => store.sharing?.() ?? null;
    this.#health = new HealthWatch({ recovered: subjects.recovered, durable: () => store.durable(), sharing });
    if (path !== null) {
      const hook = new Hook({ path, log: this.log, onRun: (outcome) => metrics?.noteHook(outcome) });
      this.#hook = hook;
      this.#happenings.listen((happening) => hook.hear(happening));
    }
    if (metrics !== null) this.#happenings.listen((happening) => metrics.hear(happening));
    if (metrics !== null && place !== null)
      this.#door = new MetricsDoor({ place, metrics, health: () => this.health(), log: this.#plainLog });
    const tell = (parent: string, state: 'carrier' | 'no carrier' | 'down' | 'gone') =>
      this.#happenings.tell({ what: 'parent', parent, state });
    // What recovery has to make is not there before.
    const follow = () => {
      this.#parents = new ParentNews({ links: subjects.links, tell });
      void this.#followParents();
    };
    void subjects.recovered.then(follow, () => undefined);
    void this.tend();
  }

  /** From time to time: metrics can be read again where they could not. */
  async tend(): Promise<void> {
    await this.#door?.open();
  }

  /** Nothing is told any more. */
  async stop(): Promise<void> {
    this.#door?.close();
    this.#parents?.close();
    await this.#hook?.close();
  }

  /** See HealthWatch.health(). */
  async health(): Promise<Health> {
    return (await this.#health?.health()) ?? { status: 'starting', reasons: [] };
  }

  /** A call was answered. */
  readonly noteCall = (call: EndedCall): void => {
    this.#health?.noteCall(call);
    this.#metrics?.noteCall(call);
  };

  /** The LAN was asked. */
  readonly noteProbe = (probe: EndedProbe): void => this.#metrics?.noteProbe(probe);

  /** A DHCP server was spoken with. What becomes of a lease that is recorded its record tells. */
  readonly noteExchange = (exchange: EndedExchange): void => {
    this.#metrics?.noteExchange(exchange);
    const { outcome, ...words } = exchange;
    if (outcome !== 'refused' && outcome !== 'declined') return;
    // A DHCPv6 server without addresses has offered nothing that it could take back.
    if (outcome === 'refused' && words.server === null) return;
    this.#happenings.tell({ what: 'lease', state: outcome, ...words, ...NOBODY });
  };

  // --- what there is ------------------------------------------------------------------------------------------------

  #ownerOf({ kind, parent, address: text, ourMacAddress }: Conflict) {
    const { endpoints } = this.#subjects ?? {};
    const address = parseAddress(text);
    const some = kind === 'mac' || address === undefined ? endpoints?.all() : endpoints?.withAddress(parent, address);
    const found = some?.find((one) => one.parent === parent && one.macAddress === ourMacAddress);
    return found === undefined ? NOBODY : { endpointId: found.id, networkId: found.networkId };
  }

  async #lastingConflicts(): Promise<object[]> {
    const conflicts = (await this.#store?.conflicts.list()) ?? [];
    return conflicts
      .filter(({ endedAt }) => endedAt === null)
      .map((conflict) =>
        this.#happenings.timed({ what: 'conflict', state: 'lasts', ...conflict, ...this.#ownerOf(conflict) }),
      );
  }

  async #followParents(): Promise<void> {
    const networks = (await this.#store?.networks.list()) ?? [];
    this.#parents?.follow(new Set(networks.flatMap((network) => segmentOf(network)?.parentName ?? [])));
  }

  async #present(): Promise<Present> {
    const [store, subjects] = [this.#store as Store, this.#subjects as Subjects];
    const [networks, endpoints, conflicts, names, tenancies, pools] = await Promise.all([
      store.networks.list(),
      store.endpoints.list(),
      store.conflicts.list(),
      store.names.list(),
      store.tenancies.list(),
      this.#countedPools(store, subjects),
    ]);
    return {
      pools,
      endpoints,
      conflicts,
      tenancies,
      parents: this.#parents?.states() ?? new Map(),
      filteredParents: subjects.filteredParents(),
      records: {
        networks: networks.length,
        endpoints: endpoints.length,
        conflicts: conflicts.length,
        names: names.length,
        tenancies: tenancies.length,
        pools: pools.length,
      },
      sharing: store.sharing?.() ?? null,
      contests: subjects.contests.count,
      watchers: this.watchers.counts,
      health: await this.health(),
    };
  }

  #countedPools(store: Store, subjects: Subjects): Promise<CountedPool[]> {
    const nowMs = performance.now();
    if (this.#uses === undefined || nowMs - this.#uses.atMs > POOLS_FRESH_MS)
      this.#uses = { atMs: nowMs, value: countPools(store, subjects) };
    this.#uses.value.catch(() => (this.#uses = undefined));
    return this.#uses.value;
  }
}

function addressesOf(endpoint: Endpoint | null): string[] {
  return endpoint?.addresses.map(formatInterfaceAddress) ?? [];
}

async function countPools(store: Store, { poolUses }: Subjects): Promise<CountedPool[]> {
  const [pools, uses] = [await store.pools.list(), await poolUses()];
  const byId = new Map(uses.map((use) => [use.poolId, use]));
  return pools.flatMap((pool) => {
    const use = byId.get(pool.id);
    const { networkId, subnet, range } = pool;
    return use === undefined
      ? []
      : [{ ...use, networkId: networkId ?? '', realm: realmOf(pool), subnet, range: range ?? subnet }];
  });
}
