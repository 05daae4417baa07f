/**
 * What Prometheus gets: counters of what happened since the start, and what there is at the moment it asks. Names and meanings stand
 * in docs/monitoring.md. Loaded with METRICS only.
 */
import Counter from 'prom-client/lib/counter.js';
import Gauge from 'prom-client/lib/gauge.js';
import Histogram from 'prom-client/lib/histogram.js';
import Registry from 'prom-client/lib/registry.js';
import { escapeControls, short } from './errors.ts';
import type { ParentState, ToldHappening } from './happenings.ts';
import type { EndedCall, Health, Sharing } from './health.ts';
import { type Conflict, type Endpoint, TABLES, type TableName, type Tenancy } from './model.ts';
import { VERSION } from './version.ts';

/** One pool with what is used of it. */
export interface CountedPool {
  /** Empty for one without a network, or of another driver's. */
  readonly networkId: string;
  readonly realm: string;
  readonly subnet: string;
  readonly range: string;
  readonly used: number;
  readonly free: number;
  readonly held: number;
  readonly remembered: number;
  readonly excluded: number;
}

/** A question to the LAN for a container, as the LAN's room tells it. */
interface CountedProbe {
  readonly ms: number;
  readonly verdict: string;
  readonly isStandby: boolean;
}

/** What there is at this moment. */
export interface Present {
  readonly pools: readonly CountedPool[];
  readonly endpoints: readonly Pick<Endpoint, 'networkId' | 'state' | 'lostAt'>[];
  readonly conflicts: readonly Conflict[];
  readonly tenancies: readonly Pick<Tenancy, 'networkId' | 'state' | 'ipv6'>[];
  readonly parents: ReadonlyMap<string, ParentState>;
  readonly filteredParents: readonly string[];
  /** How many records each table has, but for leases, of which the pools tell. */
  readonly records: Readonly<Partial<Record<TableName, number>>>;
  /** Null where the store is this host's alone. */
  readonly sharing: Sharing | null;
  /** Addresses that another host of a shared store has too. */
  readonly contests: number;
  readonly watchers: { readonly listening: number; readonly dropped: number };
  readonly health: Health;
}

const CALL_SECONDS = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 9];
const PROBE_SECONDS = [0.005, 0.025, 0.1, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const EXCHANGES = ['given', 'renewed', 'released', 'declined', 'silent', 'refused', 'other', 'used', 'lost'] as const;
/** Words with a DHCP server, as its client tells them. */
interface CountedExchange {
  readonly outcome: (typeof EXCHANGES)[number];
}

/** Who asks more often gets the same answer. */
const FRESH_MS = 1000;
const POOL_STATES = ['used', 'free', 'held', 'remembered', 'excluded'] as const;
const PARENT_STATES = ['carrier', 'no carrier', 'down', 'gone'] as const;

/** Of parents with a label of their own: each has up to eleven series. What more of them do is told together. */
const MOST_PARENTS = 256;
const OTHER_PARENTS = 'others';

/** What parents are called in labels: a name that may have any character but a slash and white space. */
class ParentLabels {
  readonly #named = new Set<string>();

  of(parent: string): string {
    if (!this.#named.has(parent) && this.#named.size >= MOST_PARENTS) return OTHER_PARENTS;
    this.#named.add(parent);
    return escapeControls(parent);
  }

  /** Answers the labels of those that are not among them any more. */
  forgetBut(parents: ReadonlySet<string>): string[] {
    const gone = [...this.#named].filter((parent) => !parents.has(parent));
    for (const parent of gone) this.#named.delete(parent);
    return gone.map(escapeControls);
  }
}

/** The registry, and what fills it. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #present: () => Promise<Present>;
  readonly #calls = this.#counter('calls_total', 'Calls of engines and of the command line', 'call', 'outcome');
  readonly #callSeconds = this.#histogram('call_seconds', 'Time until the answer to a call', CALL_SECONDS, 'call');
  readonly #probes = this.#counter('probes_total', 'Questions to the LAN about addresses for containers', 'verdict');
  readonly #standby = this.#counter('standby_total', 'Addresses asked for, by whether they were ready', 'hit');
  readonly #probeSeconds = this.#histogram('probe_seconds', 'Time of such a question', PROBE_SECONDS, 'standby');
  readonly #exchanges = this.#counter('dhcp_exchanges_total', 'What came of words with DHCP servers', 'outcome');
  readonly #conflicts = this.#counter('conflict_changes_total', 'Conflicts that began and ended', 'state', 'kind');
  readonly #endpoints = this.#counter(
    'endpoint_changes_total',
    'Containers that started, ended, or lost their parent',
    'state',
  );
  readonly #parentChanges = this.#counter('parent_changes_total', 'Changes of parent interfaces', 'parent', 'state');
  readonly #log = this.#counter('log_lines_total', 'Warnings and errors in the log', 'level');
  readonly #storeErrors = this.#counter(
    'store_errors_total',
    'Calls that failed for the state on the disk or the shared store',
    'code',
  );
  readonly #hooks = this.#counter('hook_runs_total', 'Runs of the program of HOOK', 'outcome');
  readonly #gauges = this.#makeGauges();
  readonly #parents = new ParentLabels();
  #text: { readonly atMs: number; readonly value: Promise<string> } | undefined;

  constructor(present: () => Promise<Present>) {
    this.#present = present;
    this.#gauge('build_info', 'Always 1; the version of tsmacvlan and of Node', 'version', 'node').set(
      { version: VERSION, node: process.version },
      1,
    );
    this.#plainGauge('process_start_time_seconds', 'When the process started').set(
      Date.now() / 1000 - process.uptime(),
    );
    for (const [metric, values] of [
      [this.#probes, ['free', 'held', 'contended', 'failed'].map((verdict) => ({ verdict }))],
      [this.#exchanges, EXCHANGES.map((outcome) => ({ outcome }))],
      [this.#hooks, ['ok', 'failed', 'dropped'].map((outcome) => ({ outcome }))],
      [this.#standby, ['yes', 'no'].map((hit) => ({ hit }))],
      [this.#log, ['warning', 'error'].map((level) => ({ level }))],
      [this.#endpoints, ['started', 'ended', 'lost'].map((state) => ({ state }))],
      [this.#conflicts, ['address', 'mac'].flatMap((kind) => ['begun', 'ended'].map((state) => ({ kind, state })))],
    ] as const)
      for (const labels of values) (metric as { inc(labels: object, value: number): void }).inc(labels, 0);
  }

  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;

  /** Of a call, once it is answered. */
  noteCall({ name, outcome, ms }: EndedCall): void {
    this.#calls.inc({ call: name, outcome });
    this.#callSeconds.observe({ call: name }, ms / 1000);
    if (/^(STORE|CLUSTER)_/.test(outcome)) this.#storeErrors.inc({ code: outcome });
  }

  /** Of a question to the LAN, once it is answered. */
  noteProbe({ verdict, ms, isStandby }: CountedProbe): void {
    const hit = isStandby ? 'yes' : 'no';
    this.#probes.inc({ verdict });
    this.#standby.inc({ hit });
    this.#probeSeconds.observe({ standby: hit }, ms / 1000);
  }

  /** Of a word with a DHCP server, once it is over. */
  noteExchange({ outcome }: CountedExchange): void {
    this.#exchanges.inc({ outcome });
  }

  /** Of a run of the hook. */
  noteHook(outcome: 'ok' | 'failed' | 'dropped'): void {
    this.#hooks.inc({ outcome });
  }

  /** Of what happens. */
  hear(happening: ToldHappening): void {
    const { what } = happening;
    if (what === 'conflict') this.#conflicts.inc({ state: happening.state, kind: happening.kind });
    else if (what === 'endpoint') this.#endpoints.inc({ state: happening.state });
    else if (what === 'parent')
      this.#parentChanges.inc({ parent: this.#parents.of(happening.parent), state: happening.state });
    else if (what !== 'network' && what !== 'lease') this.#log.inc({ level: what });
  }

  /** In the text format of Prometheus, at most a second old. */
  text(): Promise<string> {
    const nowMs = performance.now();
    if (this.#text === undefined || nowMs - this.#text.atMs > FRESH_MS)
      this.#text = { atMs: nowMs, value: this.#write().finally(() => undefined) };
    this.#text.value.catch(() => (this.#text = undefined));
    return this.#text.value;
  }

  async #write(): Promise<string> {
    this.#fill(await this.#present());
    return this.#registry.metrics();
  }

  // --- what there is ------------------------------------------------------------------------------------------------

  #makeGauges() {
    return {
      pools: this.#gauge('pool_addresses', 'Addresses of a pool', 'network', 'realm', 'subnet', 'range', 'state'),
      endpoints: this.#gauge('endpoints', 'Containers on networks', 'network', 'state'),
      tenancies: this.#gauge('dhcp_leases', 'MAC addresses with a lease of a DHCP server', 'network', 'state'),
      conflicts: this.#gauge('conflicts', 'Conflicts that last', 'parent', 'kind', 'by', 'container'),
      parents: this.#gauge('parent_state', '1 for the state that a parent interface is in', 'parent', 'state'),
      filtered: this.#gauge(
        'parent_filtered',
        '1 for a network port that delivers to the MAC address of the parent only',
        'parent',
      ),
      records: this.#gauge('records', 'Records in the state', 'table'),
      sharedUp: this.#gauge('shared_store_up', '1 while the shared store can be used; only with STORE=etcd'),
      sharedFault: this.#gauge('shared_store_fault', '1 for why it cannot be used', 'code'),
      contests: this.#gauge('contested_claims', 'Addresses here that another host of the shared store has claimed too'),
      doubles: this.#gauge(
        'double_addresses',
        'Containers here whose address a container of another host of the shared store has',
      ),
      watchers: this.#gauge('watchers', 'Who listens by tsmacvlan watch'),
      dropped: this.#gauge('watchers_dropped', 'Of them those that were too slow, since the start'),
      healthy: this.#gauge('healthy', '1 while new containers can start'),
      memory: this.#plainGauge('process_resident_memory_bytes', 'Memory of the process'),
      cpu: new Counter({
        name: 'process_cpu_seconds_total',
        help: 'Processor time of the process',
        registers: [this.#registry],
      }),
    };
  }

  #fill(present: Present): void {
    const gauges = this.#gauges;
    for (const gauge of Object.values(gauges)) gauge.reset();
    for (const pool of present.pools) {
      const { networkId, realm, subnet, range } = pool;
      const labels = { network: short(networkId), realm: escapeControls(realm), subnet, range };
      for (const state of POOL_STATES) gauges.pools.set({ ...labels, state }, pool[state]);
    }
    for (const { networkId, state, lostAt } of present.endpoints)
      gauges.endpoints.inc({ network: short(networkId), state: lostAt === undefined ? state : 'lost' });
    for (const tenancy of present.tenancies)
      gauges.tenancies.inc({ network: short(tenancy.networkId), state: leaseState(tenancy) });
    this.#fillParents(present);
    this.#fillConflicts(present);
    for (const table of TABLES)
      if (present.records[table] !== undefined) gauges.records.set({ table }, present.records[table]);
    gauges.watchers.set(present.watchers.listening);
    gauges.dropped.set(present.watchers.dropped);
    gauges.healthy.set(['ok', 'degraded'].includes(present.health.status) ? 1 : 0);
    gauges.memory.set(process.memoryUsage.rss());
    const { user, system } = process.cpuUsage();
    gauges.cpu.inc((user + system) / 1e6);
  }

  /** Of several that have one label the sum. */
  #fillParents({ parents, filteredParents, conflicts }: Present): void {
    const known = new Set([...parents.keys(), ...conflicts.map(({ parent }) => parent)]);
    for (const parent of this.#parents.forgetBut(known))
      for (const state of PARENT_STATES) this.#parentChanges.remove({ parent, state });
    for (const [name, now] of parents) {
      const parent = this.#parents.of(name);
      for (const state of PARENT_STATES) this.#gauges.parents.inc({ parent, state }, state === now ? 1 : 0);
      this.#gauges.filtered.inc({ parent }, filteredParents.includes(name) ? 1 : 0);
    }
  }

  #fillConflicts({ conflicts, sharing, contests }: Present): void {
    const gauges = this.#gauges;
    const lasting = conflicts.filter(({ endedAt }) => endedAt === null);
    for (const { parent: name, kind, hostLink, node, ourMacAddress } of lasting) {
      const parent = this.#parents.of(name);
      const by = node !== undefined ? 'own host' : hostLink === null ? 'stranger' : 'this host';
      gauges.conflicts.inc({ parent, kind, by, container: ourMacAddress === null ? 'no' : 'yes' });
    }
    if (sharing === null) {
      // A host that shares nothing has no series of these.
      for (const gauge of [gauges.sharedUp, gauges.contests, gauges.doubles]) gauge.remove();
      return;
    }
    gauges.sharedUp.set(sharing.isUp ? 1 : 0);
    if (sharing.code !== null) gauges.sharedFault.set({ code: sharing.code }, 1);
    gauges.contests.set(contests);
    gauges.doubles.set(lasting.filter(({ node }) => node !== undefined).length);
  }

  // --- parts --------------------------------------------------------------------------------------------------------

  #counter<L extends string>(name: string, help: string, ...labelNames: L[]) {
    return new Counter<L>({ name: `tsmacvlan_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #gauge<L extends string>(name: string, help: string, ...labelNames: L[]) {
    return new Gauge<L>({ name: `tsmacvlan_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #plainGauge(name: string, help: string) {
    return new Gauge({ name, help, registers: [this.#registry] });
  }

  #histogram<L extends string>(name: string, help: string, buckets: number[], ...labelNames: L[]) {
    return new Histogram<L>({ name: `tsmacvlan_${name}`, help, buckets, labelNames, registers: [this.#registry] });
  }
}

/** A MAC address that has lost one of its two leases counts among the lost ones. */
function leaseState({ state, ipv6 }: Pick<Tenancy, 'state' | 'ipv6'>): Tenancy['state'] {
  return state === 'bound' && ipv6?.how === 'dhcpv6' ? ipv6.state : state;
}
