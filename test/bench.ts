/**
 * `make bench`: the built-in macvlan driver, tsmacvlan and the floor (a plugin that answers at once) on one engine, by turns, in
 * one run; then the probe and the daemon alone. Prints medians with their spread and the figures that are judged, and writes
 * bench.json. Machines are noisy: compare ratios of one run, never times of two.
 *
 * ROWS=TEXT measures only what brings a row with this in its name, ENGINES=28.5.2 one engine; ROUNDS=2 and CONTAINERS=40
 * say how much.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  measureAllocation,
  measureForeign,
  measureGivingBack,
  measureMemory,
  measureNames,
  measureRoundTrip,
  measureStart,
} from './bench/alone.ts';
import { measureBoot } from './bench/boot.ts';
import { measureConnects, measureRuns } from './bench/bursts.ts';
import { spread } from './bench/figures.ts';
import { measureLan } from './bench/lan.ts';
import { ratio, Report } from './bench/report.ts';
import { measureLooking, measurePage, measureQuestions } from './bench/questions.ts';
import { measureConnect, measureDhcpRun, measureNetworks, measureRun } from './bench/single.ts';
import { makeContainers, Stand } from './bench/stand.ts';
import { runEnclosed } from './lab/enclosure.ts';
import type { Version } from './lab/engine.ts';
import { fetchDhcp, fetchEngines, installTools, withoutDhcp } from './lab/packages.ts';

const REPORT = join(import.meta.dirname, '../bench.json');
const { ENGINES = '28.5.2,20.10.24', ROWS = '', ROUNDS = '2', CONTAINERS = '40' } = process.env;
const SIZE = { count: Number(CONTAINERS), rounds: Number(ROUNDS) };

/** What is measured together, and the names of the rows that it brings. */
interface Measurement {
  readonly rows: readonly string[];
  readonly measure: () => Promise<void>;
}

const report = new Report();

async function prepare(): Promise<void> {
  await installTools(console.log);
  await fetchEngines(console.log);
  await fetchDhcp(console.log);
}

async function measure(): Promise<number> {
  // On engines all keep their state on the lab's disk, which is in memory; alone, the daemon writes to the real one.
  const disk = mkdtempSync(join(tmpdir(), 'tsmacvlan-bench-'));
  try {
    for (const version of ENGINES.split(',')) await measureOnEngine(version as Version);
    await measureAll([{ rows: ['cold probe', 'addresses probed at once', 'CPU while listening'], measure: asking }]);
    await measureAll(daemonMeasurements(disk));
  } finally {
    rmSync(disk, { recursive: true, force: true });
  }
  report.print();
  report.write(REPORT);
  console.log(`\nwritten to bench.json`);
  return report.hasFailed ? 1 : 0;
}

function isWanted({ rows }: Measurement): boolean {
  return rows.some((row) => row.toLowerCase().includes(ROWS.toLowerCase()));
}

async function measureAll(measurements: readonly Measurement[]): Promise<void> {
  for (const { rows, measure: act } of measurements.filter(isWanted)) {
    try {
      await act();
    } catch (error) {
      report.fail(rows.join('; '), error);
    }
  }
}

// --- side by side ----------------------------------------------------------------------------------------------------

async function measureOnEngine(version: Version): Promise<void> {
  const named = (what: string) => `${what}, engine ${version}`;
  const single = [
    { what: named('network create + rm'), act: measureNetworks },
    { what: named('docker run --rm'), act: measureRun },
    ...(withoutDhcp() ? [] : [{ what: named('docker run --rm with kea'), act: measureDhcpRun }]),
    { what: named('network connect + disconnect'), act: measureConnect },
  ];
  const connects = {
    cold: named(`${CONTAINERS} connects at once, cold`),
    warm: named(`${CONTAINERS} connects at once, warm`),
    disconnects: named(`${CONTAINERS} disconnects at once`),
  };
  const runs = named('20 docker run at once');
  const boot = named(`boot with ${CONTAINERS} containers`);
  const onStand = (stand: Stand): Measurement[] => [
    ...single.map(({ what, act }) => ({ rows: [what], measure: () => act(stand, what, report) })),
    { rows: Object.values(connects), measure: () => measureConnects(stand, connects, report, SIZE) },
    { rows: [runs], measure: () => measureRuns(stand, runs, report, { ...SIZE, count: 20 }) },
  ];
  if (onStand({} as Stand).some(isWanted)) await withStand(version, async (stand) => measureAll(onStand(stand)));
  await measureAll([{ rows: [boot], measure: () => measureBoot(version, boot, report, SIZE) }]);
}

/** With containers that have no network yet. */
async function withStand(version: Version, act: (stand: Stand) => Promise<void>): Promise<void> {
  const stand = await Stand.open(version);
  try {
    await makeContainers(stand.engine, SIZE.count, () => ({ HostConfig: { NetworkMode: 'none' } }));
    for (let number = 0; number < SIZE.count; number++)
      await stand.engine.api('POST', '/networks/none/disconnect', { Container: `c${number}` });
    await act(stand);
  } finally {
    await stand.close();
  }
}

// --- asking the LAN --------------------------------------------------------------------------------------------------

async function asking(): Promise<void> {
  const { coldMs, oneMs, hundredMs, quietPercent, stormPercent } = await measureLan();
  report.add({ what: 'cold probe, free', unit: 'ms', values: { fast: spread(coldMs) }, figures: [] });
  const atOnce = { one: spread(oneMs), hundred: spread(hundredMs) };
  report.add({
    what: 'addresses probed at once',
    unit: 'ms',
    values: atOnce,
    figures: ratio(atOnce, 'hundred', 'one'),
  });
  const values = { 'quiet LAN': spread(quietPercent), '10,000 ARP/s': spread(stormPercent) };
  report.add({ what: 'CPU while listening', unit: '%', values, figures: [] });
}

// --- the daemon alone ------------------------------------------------------------------------------------------------

function daemonMeasurements(disk: string): Measurement[] {
  const giving = {
    leave: 'Leave, 20 in parallel',
    remove: 'DeleteEndpoint, 20 in parallel',
    release: 'ReleaseAddress, 20 in parallel',
  };
  const filling = { address: 'one address of a /16', networks: 'network beside 65,533 leases' };
  const [start, memory] = ['start until the first answer', 'resident memory'];
  const [call, foreign] = ['one call without work', 'RequestAddress beside foreign namespaces'];
  const names = 'RequestAddress beside remembered names';
  const [questions, looking, page] = ['questions of every day', 'metrics and a watcher', 'the page at rest'];
  return [
    { rows: [start], measure: () => measureStart(join(disk, 'start'), start, report) },
    { rows: [memory], measure: () => measureMemory(join(disk, 'memory'), memory, report) },
    { rows: [call], measure: () => measureRoundTrip(join(disk, 'call'), call, report) },
    { rows: Object.values(giving), measure: () => measureGivingBack(join(disk, 'giving'), giving, report) },
    { rows: [foreign], measure: () => measureForeign(join(disk, 'foreign'), foreign, report) },
    { rows: [names], measure: () => measureNames(join(disk, 'names'), names, report) },
    { rows: [questions], measure: () => measureQuestions(questions, report) },
    { rows: [page], measure: () => measurePage(page, report) },
    { rows: [looking], measure: () => measureLooking(join(disk, 'looking'), looking, report) },
    { rows: Object.values(filling), measure: () => measureAllocation(join(disk, 'filling'), filling, report) },
  ];
}

process.exitCode = await runEnclosed(import.meta.filename, prepare, measure);
