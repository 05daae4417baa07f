/**
 * `make bench`: the built-in macvlan driver and tsmacvlan side by side on one engine, in turns, in one run; then the
 * probe and the daemon alone. Prints medians with their spread and the ratios, and writes bench.json. Machines are noisy: compare
 * ratios of one run, never times of two.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Daemon,
  makeParent,
  memoryOfEndpoints,
  pool,
  startDaemon,
  stopDaemon,
  withDaemon,
} from './bench/daemon.ts';
import { digits, inTurns, progress, type Spread, spread } from './bench/figures.ts';
import { measureLan } from './bench/lan.ts';
import { runEnclosed } from './lab/enclosure.ts';
import type { Engine, Version } from './lab/engine.ts';
import { fetchEngines, installTools } from './lab/packages.ts';
import { Site } from './lab/site.ts';

const REPORT = join(import.meta.dirname, '../bench.json');
const VERSION: Version = '28.5.2';
const DRIVERS = ['macvlan', 'tsmacvlan'] as const;
type Driver = (typeof DRIVERS)[number];

interface Row {
  readonly what: string;
  readonly unit: string;
  readonly values: Readonly<Record<string, Spread>>;
  /** The second median over the first, as tsmacvlan's over the built-in driver's; null where there is nothing to compare with. */
  readonly ratio: number | null;
}

const rows: Row[] = [];

async function prepare(): Promise<void> {
  await installTools(console.log);
  await fetchEngines(console.log);
}

async function measure(): Promise<number> {
  // Side by side both keep their state on the lab's disk, which is in memory; alone, the daemon writes to the real one.
  await compareOnEngine();
  await measureAsking();
  const disk = mkdtempSync(join(tmpdir(), 'tsmacvlan-bench-'));
  try {
    await measureDaemon(disk);
  } finally {
    rmSync(disk, { recursive: true, force: true });
  }
  print();
  return 0;
}

// --- side by side ----------------------------------------------------------------------------------------------------

async function compareOnEngine(): Promise<void> {
  const settings = { LOG_LEVEL: 'info' };
  const site = await Site.open({ version: VERSION, hosts: ['one'], links: ['lan0', 'lan1'], settings });
  const engine = site.machines[0]?.engine as Engine;
  try {
    await compare('network create + rm', 40, async (driver, round) => {
      const name = `n${round}-${driver}`;
      await createNetwork(engine, driver, name, `10.${driver === 'macvlan' ? 1 : 2}.${round}.0/24`);
      await engine.api('DELETE', `/networks/${name}`);
    });
    for (const driver of DRIVERS)
      await createNetwork(engine, driver, driver, driver === 'macvlan' ? '10.3.0.0/24' : '10.4.0.0/24');
    await compare('docker run --rm', 50, async (driver) => {
      await engine.must('run', '--rm', '--net', driver, 'busybox', 'true');
    });
    await compareProfiles(engine);
    await engine.must(
      'run',
      '-d',
      '--name',
      'idle',
      '--net',
      'none',
      '--stop-timeout',
      '1',
      'busybox',
      'sleep',
      '100000',
    );
    await engine.must('network', 'disconnect', 'none', 'idle');
    await compare('network connect + disconnect', 60, async (driver) => {
      await engine.api('POST', `/networks/${driver}/connect`, { Container: 'idle' });
      await engine.api('POST', `/networks/${driver}/disconnect`, { Container: 'idle' });
    });
  } finally {
    await site.close();
  }
}

async function createNetwork(engine: Engine, driver: Driver, name: string, subnet: string): Promise<void> {
  const IPAM = { Driver: driver === 'macvlan' ? 'default' : driver, Config: [{ Subnet: subnet }] };
  const parent = driver === 'macvlan' ? 'lan0' : 'lan1';
  await engine.api('POST', '/networks/create', { Name: name, Driver: driver, IPAM, Options: { parent } });
}

/** The LAN asked ahead, asked when it is too late for that, and not asked at all; the last is what the ratio is of. */
async function compareProfiles(engine: Engine): Promise<void> {
  const profiles = ['off', 'fast'] as const;
  for (const [at, probe] of profiles.entries()) {
    const IPAM = { Driver: 'tsmacvlan', Config: [{ Subnet: `10.${5 + at}.0.0/24` }] };
    const Options = { parent: 'lan1', probe };
    await engine.api('POST', '/networks/create', { Name: probe, Driver: 'tsmacvlan', IPAM, Options });
  }
  // Until the first addresses are in reserve.
  await sleep(6000);
  const times: Record<string, number[]> = { off: [], fast: [] };
  const rounds = 50;
  for (let round = 0; round < rounds; round++) {
    for (const probe of round % 2 ? profiles : profiles.toReversed()) {
      const begin = performance.now();
      await engine.must('run', '--rm', '--net', probe, 'busybox', 'true');
      if (round >= 2) times[probe]?.push(performance.now() - begin);
    }
    progress('docker run --rm, PROBE', round + 1, rounds);
  }
  const values = { off: spread(times['off'] ?? []), fast: spread(times['fast'] ?? []) };
  rows.push({ what: 'docker run --rm, PROBE', unit: 'ms', values, ratio: values.fast.median / values.off.median });
  for (const probe of profiles) await engine.api('DELETE', `/networks/${probe}`);
}

/** In turns, and the first of each round changes, so that neither has the warmer machine. */
async function compare(
  what: string,
  rounds: number,
  act: (driver: Driver, round: number) => Promise<void>,
): Promise<void> {
  const times: Record<Driver, number[]> = { macvlan: [], tsmacvlan: [] };
  for (let round = 0; round < rounds; round++) {
    for (const driver of round % 2 ? DRIVERS : DRIVERS.toReversed()) {
      const begin = performance.now();
      await act(driver, round);
      // The first two rounds warm both drivers up.
      if (round >= 2) times[driver].push(performance.now() - begin);
    }
    progress(what, round + 1, rounds);
  }
  const values = { macvlan: spread(times.macvlan), tsmacvlan: spread(times.tsmacvlan) };
  rows.push({ what, unit: 'ms', values, ratio: values.tsmacvlan.median / values.macvlan.median });
}

// --- asking the LAN ----------------------------------------------------------------------------------------------------

async function measureAsking(): Promise<void> {
  const { coldMs, oneMs, hundredMs, quietPercent, stormPercent } = await measureLan(progress);
  rows.push({ what: 'cold probe, free', unit: 'ms', values: { fast: spread(coldMs) }, ratio: null });
  const [one, hundred] = [spread(oneMs), spread(hundredMs)];
  rows.push({
    what: 'addresses probed at once',
    unit: 'ms',
    values: { one, hundred },
    ratio: hundred.median / one.median,
  });
  const values = { 'quiet LAN': spread(quietPercent), '10,000 ARP/s': spread(stormPercent) };
  rows.push({ what: 'CPU while listening', unit: '%', values, ratio: null });
}

// --- the daemon alone --------------------------------------------------------------------------------------------------

async function measureDaemon(disk: string): Promise<void> {
  await makeParent();
  await measureStart(join(disk, 'start'));
  await withDaemon(join(disk, 'memory'), measureMemory);
  await withDaemon(join(disk, 'time'), async (daemon) => {
    await measureRoundTrip(daemon);
    await measureAllocation(daemon);
  });
}

async function measureStart(stateDirectory: string): Promise<void> {
  const times: number[] = [];
  for (let round = 0; round < 12; round++) {
    const begin = performance.now();
    const daemon = await startDaemon(stateDirectory);
    times.push(performance.now() - begin);
    await stopDaemon(daemon);
    progress('start', round + 1, 12);
  }
  rows.push({ what: 'start until the first answer', unit: 'ms', values: { tsmacvlan: spread(times) }, ratio: null });
}

async function measureRoundTrip({ call }: Daemon): Promise<void> {
  const times: number[] = [];
  for (let round = 0; round < 3000; round++) {
    const begin = performance.now();
    await call('NetworkDriver.EndpointOperInfo', { NetworkID: 'n', EndpointID: 'e' });
    if (round >= 500) times.push((performance.now() - begin) * 1000);
  }
  rows.push({ what: 'one call without work', unit: 'µs', values: { tsmacvlan: spread(times) }, ratio: null });
}

/** Every address of a /16, sixteen asked for at a time; the first and the last thousand apart. */
async function measureAllocation({ call }: Daemon): Promise<void> {
  const { PoolID } = await call<{ PoolID: string }>('IpamDriver.RequestPool', pool('10.16.0.0/16'));
  await call('IpamDriver.RequestAddress', {
    PoolID,
    Address: '10.16.0.1',
    Options: { RequestAddressType: 'com.docker.network.gateway' },
  });
  const seen = new Set<string>();
  const total = 65_533;
  const stretches: number[] = [];
  for (let begun = 0; begun < total; ) {
    const wanted = Math.min(1000, total - begun);
    const begin = performance.now();
    await inTurns(wanted, 16, async () => {
      seen.add(
        (await call<{ Address: string }>('IpamDriver.RequestAddress', { PoolID, Address: '', Options: null })).Address,
      );
    });
    stretches.push(((performance.now() - begin) * 1000) / wanted);
    begun += wanted;
    progress('addresses of a /16', begun, total);
  }
  if (seen.size !== total) throw new Error(`${total} requests gave ${seen.size} different addresses`);
  const [first, last] = [spread(stretches.slice(1, 11)), spread(stretches.slice(-11, -1))];
  rows.push({ what: 'one address of an empty /16', unit: 'µs', values: { tsmacvlan: first }, ratio: null });
  rows.push({
    what: 'one address of a nearly full /16',
    unit: 'µs',
    values: { tsmacvlan: last },
    ratio: last.median / first.median,
  });
  await measureNetworks(call, total);
  await call('IpamDriver.ReleasePool', { PoolID });
}

/** Networks without a gateway of the user's come and go beside so many leases of the same realm. */
async function measureNetworks(call: Daemon['call'], leases: number): Promise<void> {
  const times: Record<'gateway' | 'release', number[]> = { gateway: [], release: [] };
  const rounds = 100;
  for (let round = 0; round < rounds; round++) {
    const { PoolID } = await call<{ PoolID: string }>('IpamDriver.RequestPool', pool(`10.18.${round}.0/24`));
    const Options = { RequestAddressType: 'com.docker.network.gateway' };
    const begin = performance.now();
    await call('IpamDriver.RequestAddress', { PoolID, Address: '', Options });
    const chosen = performance.now();
    await call('IpamDriver.ReleasePool', { PoolID });
    times.gateway.push(chosen - begin);
    times.release.push(performance.now() - chosen);
    progress('networks beside a full /16', round + 1, rounds);
  }
  const values = { gateway: spread(times.gateway), release: spread(times.release) };
  rows.push({ what: `network beside ${leases} leases`, unit: 'ms', values, ratio: null });
}

async function measureMemory(daemon: Daemon): Promise<void> {
  const { before, after } = await memoryOfEndpoints(daemon, 1000, false);
  const megabytes = (what: string, value: number) =>
    rows.push({ what, unit: 'MB', values: { tsmacvlan: spread([value]) }, ratio: null });
  megabytes('resident memory at the start', before);
  megabytes('resident memory with 1,000 endpoints', after);
}

// --- the report --------------------------------------------------------------------------------------------------------

function print(): void {
  const machine = `${cpus().length} cores, Node ${process.version}, engine ${VERSION}`;
  writeFileSync(REPORT, `${JSON.stringify({ machine, date: new Date().toISOString(), rows }, null, 2)}\n`);
  console.log(`\n${machine}; median (10 % to 90 %)\n`);
  for (const { what, unit, values, ratio } of rows) {
    const cells = Object.entries(values).map(
      ([name, { median, p10, p90 }]) => `${name} ${digits(median)} ${unit} (${digits(p10)} to ${digits(p90)})`,
    );
    console.log(`${what.padEnd(38)} ${cells.join('   ')}${ratio === null ? '' : `   ratio ${ratio.toFixed(2)}`}`);
  }
  console.log(`\nwritten to bench.json`);
}

process.exitCode = await runEnclosed(import.meta.filename, prepare, measure);
