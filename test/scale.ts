/**
 * `make scale`: hosts that share addresses through three members of etcd, measured as they become many, and their claims too.
 * docs/scale.md says what the figures mean. Machines are noisy: compare figures of one run, never those of two.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Etcd } from '../src/store/etcd/client.ts';
import { type Daemon, makeParent, memoryOfEndpoints, pool, residentMegabytes, withDaemon } from './bench/daemon.ts';
import { digits, progress, spread } from './bench/figures.ts';
import { Hosts, type Report, SUBNET } from './bench/hosts.ts';
import { accessTo } from './lab/access.ts';
import { runEnclosed } from './lab/enclosure.ts';
import { EtcdCluster } from './lab/etcd.ts';
import { fetchEtcd, installTools } from './lab/packages.ts';

const CLIENTS = [1, 4, 16];
const FILLINGS = [0, 1000, 10_000, 30_000, 60_000];
const LISTENERS = [0, 10, 100];
const LOOK_MS = 5000;
/** A container starts somewhere each so often. */
const PACE_MS = 50;
/** Of one transaction; etcd takes 128. */
const AT_ONCE = 100;

const MACHINE = () =>
  `${cpus().length} cores (${cpus()[0]?.model.trim()}), Node ${process.version}, load ${loadavg()[0]?.toFixed(1)}`;

async function prepare(): Promise<void> {
  await installTools(console.log);
  await fetchEtcd(console.log);
}

async function measure(): Promise<number> {
  console.log(MACHINE());
  const disk = mkdtempSync(join(tmpdir(), 'tsmacvlan-scale-'));
  try {
    await onMembers('members on disk', disk, measureClients);
  } finally {
    rmSync(disk, { recursive: true, force: true });
  }
  await onMembers('members in memory', mkdtempSync('/run/etcd-'), async (etcd) => {
    await measureClients(etcd);
    await measureFilling(etcd);
    await measureListeners(etcd);
    await measureEndpoints(etcd);
  });
  console.log(MACHINE());
  return 0;
}

async function onMembers(what: string, directory: string, act: (etcd: EtcdCluster) => Promise<void>): Promise<void> {
  console.log(`\n${what}`);
  const etcd = await EtcdCluster.start({ directory, members: 3 });
  try {
    await act(etcd);
  } finally {
    await etcd.stop();
  }
}

// --- hosts that claim ---------------------------------------------------------------------------------------------------

async function measureClients(etcd: EtcdCluster): Promise<void> {
  title('hosts', 'claims/s', 'median ms', 'p99 ms', 'tries', 'host CPU ms', 'etcd CPU ms', 'fsync ms');
  for (const count of CLIENTS) {
    const cluster = `clients${count}`;
    const hosts = await Promise.all(Array.from({ length: count }, () => Hosts.open(etcd.endpoints, cluster)));
    const meter = await Meter.start(etcd);
    const reports = await Promise.all(hosts.map((host) => host.do({ forMs: LOOK_MS })));
    const { transactions, cpuMs, fsyncMs } = await meter.stop();
    await Promise.all(hosts.map((host) => host.close()));
    const took = reports.flatMap(({ tookMs }) => tookMs);
    const { median, p99 } = spread(took);
    const [perSecond, tries] = [(took.length / LOOK_MS) * 1000, transactions / took.length];
    row(count, perSecond, median, p99, tries, cpuOf(reports) / took.length, cpuMs / took.length, fsyncMs);
  }
}

function cpuOf(reports: readonly Report[]): number {
  return reports.reduce((sum, { cpuMs }) => sum + cpuMs, 0);
}

/** What the members did between two moments. */
class Meter {
  readonly #etcd: EtcdCluster;
  readonly #before: readonly number[];

  private constructor(etcd: EtcdCluster, before: readonly number[]) {
    this.#etcd = etcd;
    this.#before = before;
  }

  static async start(etcd: EtcdCluster): Promise<Meter> {
    return new Meter(etcd, await Meter.#read(etcd));
  }

  async stop() {
    const after = await Meter.#read(this.#etcd);
    const [transactions = 0, cpuSeconds = 0, fsyncSeconds = 0, fsyncs = 0, bytes = 0, messages = 0] = after.map(
      (value, at) => value - (this.#before[at] ?? 0),
    );
    return { transactions, cpuMs: cpuSeconds * 1000, fsyncMs: (fsyncSeconds / fsyncs) * 1000, bytes, messages };
  }

  static #read(etcd: EtcdCluster): Promise<number[]> {
    return Promise.all([
      etcd.metric('grpc_server_started_total', 'grpc_method="Txn"'),
      etcd.metric('process_cpu_seconds_total'),
      etcd.metric('etcd_disk_wal_fsync_duration_seconds_sum'),
      etcd.metric('etcd_disk_wal_fsync_duration_seconds_count'),
      etcd.metric('etcd_network_client_grpc_sent_bytes_total'),
      etcd.metric('grpc_server_msg_sent_total', 'grpc_method="Watch"'),
    ]);
  }
}

// --- a pool that fills --------------------------------------------------------------------------------------------------

async function measureFilling(etcd: EtcdCluster): Promise<void> {
  title('leases', 'claims/s', 'median ms', 'p99 ms', 'host CPU ms', 'leaks ms', 'start ms', 'daemon MB', 'read MB');
  let filled = 0;
  for (const goal of FILLINGS) {
    await fill(etcd, filled, goal);
    filled = goal;
    const host = await Hosts.open(etcd.endpoints, 'filled');
    const report = await host.do({ forMs: LOOK_MS / 2 });
    const [leaksMs = 0] = (await host.do({ leaks: true })).tookMs;
    await host.do({ back: true });
    await host.close();
    const { median, p99, count } = spread(report.tookMs);
    const { startMs, megabytes, bytes } = await start(etcd);
    const cells = [
      (count / LOOK_MS) * 2000,
      median,
      p99,
      report.cpuMs / count,
      leaksMs,
      startMs,
      megabytes,
      bytes / 1e6,
    ];
    row(goal, ...cells);
  }
}

/** Claims of fifty hosts, on the lowest addresses. */
async function fill({ endpoints }: EtcdCluster, from: number, to: number): Promise<void> {
  const etcd = new Etcd(accessTo(endpoints));
  const nodes = Array.from({ length: 50 }, (_, at) => ({
    put: { key: `/tsmacvlan/filled/nodes/${node(at)}`, value: '{}' },
  }));
  await etcd.transaction([], nodes, []);
  for (let done = from; done < to; done += AT_ONCE) {
    const changes = Array.from({ length: Math.min(AT_ONCE, to - done) }, (_, at) => {
      const number = done + at + 1;
      const key = `/tsmacvlan/filled/leases/TsmacvlanLocal/10.77.${number >> 8}.${number & 255}`;
      return { put: { key, value: JSON.stringify({ kind: 'container', nodes: [node(number % 50)] }) } };
    });
    await etcd.transaction([], changes, []);
    progress('leases', done + changes.length, to);
  }
  etcd.close();
}

function node(number: number): string {
  return `web${number}-3f2a9c1d04be`;
}

/** The real daemon: from its start until it has given out an address; its memory and what it read then. */
async function start(etcd: EtcdCluster): Promise<{ startMs: number; megabytes: number; bytes: number }> {
  const [begin, meter] = [performance.now(), await Meter.start(etcd)];
  const use = async (daemon: Daemon) => {
    const { PoolID } = await daemon.call<{ PoolID: string }>('IpamDriver.RequestPool', pool(SUBNET));
    await daemon.call('IpamDriver.RequestAddress', { PoolID, Address: '', Options: null });
    const startMs = performance.now() - begin;
    await sleep(1000);
    const { bytes } = await meter.stop();
    const megabytes = residentMegabytes(daemon);
    await daemon.call('IpamDriver.ReleasePool', { PoolID });
    return { startMs, megabytes, bytes };
  };
  return withDaemon(mkdtempSync('/run/daemon-'), use, { STORE: etcd.url, STORE_CLUSTER: 'filled' });
}

// --- hosts that listen --------------------------------------------------------------------------------------------------

async function measureListeners(etcd: EtcdCluster): Promise<void> {
  title(
    'listeners',
    'claims/s',
    'median ms',
    'p99 ms',
    'known by all',
    'p99 ms',
    'bytes',
    'messages',
    'host CPU µs',
    'etcd CPU ms',
  );
  for (const pauseMs of [PACE_MS, 0]) for (const count of LISTENERS) await measureFanOut(etcd, count, pauseMs);
  const many = await Hosts.open(etcd.endpoints, 'gateway', 100);
  const { tookMs } = await many.do({ gateway: true });
  await many.close();
  console.log(`100 hosts name one gateway at once: all have it after ${Math.max(...tookMs).toFixed(0)} ms`);
}

/** Per claim; bytes, messages and the hosts' CPU also per listener. */
async function measureFanOut(etcd: EtcdCluster, count: number, pauseMs: number): Promise<void> {
  const cluster = `listeners${count}-${pauseMs}`;
  const listeners = count === 0 ? undefined : await Hosts.open(etcd.endpoints, cluster, count);
  const claimer = await Hosts.open(etcd.endpoints, cluster);
  await listeners?.do({});
  const meter = await Meter.start(etcd);
  const { tookMs, claimedAtMs } = await claimer.do({ forMs: LOOK_MS, pauseMs });
  await sleep(1000);
  const [{ bytes, messages, cpuMs }, heard] = [await meter.stop(), await listeners?.do({})];
  await Promise.all([listeners?.close(), claimer.close()]);
  const { median, p99 } = spread(tookMs);
  const lags = Object.entries(heard?.heardAtMs ?? {}).flatMap(
    ([address, at]) => at - (claimedAtMs[address] ?? Number.NaN),
  );
  const known = spread(lags);
  const [claims, share] = [tookMs.length, count + 1];
  const each = [bytes / claims / share, messages / claims / share, ((heard?.cpuMs ?? 0) * 1000) / claims / count];
  row(count, (claims / LOOK_MS) * 1000, median, p99, known.median, known.p99, ...each, cpuMs / claims);
}

// --- endpoints ----------------------------------------------------------------------------------------------------------

async function measureEndpoints(etcd: EtcdCluster): Promise<void> {
  title('store', 'MB', 'with 1,000');
  for (const [name, settings] of Object.entries({ local: {}, etcd: { STORE: etcd.url } })) {
    await makeParent();
    const use = (daemon: Daemon) => memoryOfEndpoints(daemon, 1000, true);
    const { before, after } = await withDaemon(mkdtempSync('/run/daemon-'), use, { PROBE: 'off', ...settings });
    row(name, before, after);
  }
}

// --- the table ----------------------------------------------------------------------------------------------------------

const WIDTH = 13;

function title(...names: string[]): void {
  console.log(`\n${names.map((name) => name.padStart(WIDTH)).join('')}`);
}

function row(name: number | string, ...values: number[]): void {
  const cells = [name.toLocaleString('en'), ...values.map((value) => (Number.isNaN(value) ? '–' : digits(value)))];
  console.log(cells.map((cell) => cell.padStart(WIDTH)).join(''));
}

process.exitCode = await runEnclosed(import.meta.filename, prepare, measure);
