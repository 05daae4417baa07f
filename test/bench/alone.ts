/** The daemon alone, called as an engine calls it: its start, its memory, and what one call takes beside many things. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { output } from '../lab/command.ts';
import {
  type Call,
  type Daemon,
  endpointId,
  makeEndpoint,
  makeNetwork,
  makeParent,
  memoryOfEndpoints,
  NETWORK,
  pool,
  residentMegabytes,
  startDaemon,
  startFloor,
  stopDaemon,
  withDaemon,
} from './daemon.ts';
import { inTurns, progress, type Spread, spread, timeOf } from './figures.ts';
import { ratio, type Report } from './report.ts';

/** Names are given to what is measured, directories are new ones on a disk. */
export async function measureStart(directory: string, what: string, report: Report): Promise<void> {
  await makeParent();
  const times: number[] = [];
  for (let round = 0; round < 12; round++) {
    let daemon: Daemon | undefined;
    times.push(await timeOf(async () => (daemon = await startDaemon(directory))));
    if (daemon) await stopDaemon(daemon);
    progress(what, round + 1, 12);
  }
  report.add({ what, unit: 'ms', values: { tsmacvlan: spread(times) }, figures: most('median', times, 115, 'ms') });
}

/** With a network, with 1,000 endpoints on it; and, of another daemon, after 10,000 calls. */
export async function measureMemory(directory: string, what: string, report: Report): Promise<void> {
  await makeParent();
  const { before, after } = await withDaemon(join(directory, 'endpoints'), (daemon) =>
    memoryOfEndpoints(daemon, 1000, false),
  );
  const called = await withDaemon(join(directory, 'calls'), async (daemon) => {
    const { PoolID } = await daemon.call<{ PoolID: string }>('IpamDriver.RequestPool', pool('10.16.0.0/16'));
    await inTurns(8500, 16, () => idleCall(daemon.call));
    await inTurns(1500, 1, () => daemon.call('IpamDriver.RequestAddress', { PoolID, Address: '', Options: null }));
    return residentMegabytes(daemon);
  });
  const found = { 'at the start': [before, 74], '1,000 endpoints': [after, 86], '10,000 calls': [called, 95] } as const;
  const values = Object.fromEntries(Object.entries(found).map(([name, [megabytes]]) => [name, spread([megabytes])]));
  const figures = Object.entries(found).flatMap(([name, [megabytes, wanted]]) => most(name, [megabytes], wanted, 'MB'));
  report.add({ what, unit: 'MB', values, figures });
}

/** Beside the same call of the floor, by turns. */
export async function measureRoundTrip(directory: string, what: string, report: Report): Promise<void> {
  await makeParent();
  const floor = await startFloor();
  const times: Record<string, number[]> = { tsmacvlan: [], floor: [] };
  await withDaemon(directory, async (daemon) => {
    for (let round = 0; round < 30; round++)
      for (const [name, { call }] of Object.entries({ tsmacvlan: daemon, floor }))
        for (let each = 0; each < 100; each++) {
          const tookMs = await timeOf(() => idleCall(call));
          if (round >= 5) times[name]?.push(tookMs * 1000);
        }
  });
  await stopDaemon(floor);
  const values = Object.fromEntries(Object.entries(times).map(([name, each]) => [name, spread(each)]));
  const figures = [...most('median', times['tsmacvlan'] ?? [], 100, 'µs'), ...ratio(values, 'tsmacvlan', 'floor')];
  report.add({ what, unit: 'µs', values, figures });
}

async function idleCall(call: Call): Promise<void> {
  await call('NetworkDriver.EndpointOperInfo', { NetworkID: 'n', EndpointID: 'e' });
}

/** An address that is ready, asked for on a host that has ever more containers of others. The last question to the LAN is in both times. */
export async function measureForeign(directory: string, what: string, report: Report): Promise<void> {
  await makeParent();
  const values: Record<string, Spread> = {};
  const NAMESPACES = 300;
  await withDaemon(directory, async (daemon) => {
    const PoolID = await makeNetwork(daemon);
    values['beside none'] = spread(await requestsOneByOne(daemon, PoolID));
    await makeForeign(NAMESPACES);
    values[`beside ${NAMESPACES}`] = spread(await requestsOneByOne(daemon, PoolID));
  });
  await removeForeign(NAMESPACES);
  const beside = `beside ${NAMESPACES}`;
  report.add({ what, unit: 'ms', values, figures: ratio(values, beside, 'beside none', 1.25) });
}

/** Some time after each other, so that one is ready each time. */
async function requestsOneByOne({ call }: Daemon, PoolID: string): Promise<number[]> {
  const times: number[] = [];
  // Until the first are ready.
  await sleep(6000);
  for (let round = 0; round < 10; round++) {
    const begin = performance.now();
    const { Address } = await call<{ Address: string }>('IpamDriver.RequestAddress', { PoolID, Address: '' });
    times.push(performance.now() - begin);
    await call('IpamDriver.ReleaseAddress', { PoolID, Address: Address.split('/')[0] });
    await sleep(1500);
  }
  return times.slice(1);
}

async function makeForeign(count: number): Promise<void> {
  const one = `ip netns add foreign$n
    ip link add foreign$n type veth peer name eth0 netns foreign$n
    ip -n foreign$n address add 10.9.0.1/24 dev eth0`;
  await output(['sh', '-euc', `for n in $(seq ${count}); do ${one}; done`]);
}

async function removeForeign(count: number): Promise<void> {
  await output(['sh', '-euc', `for n in $(seq ${count}); do ip netns delete foreign$n; done`]);
}

export interface GivingBackNames {
  readonly leave: string;
  readonly remove: string;
  readonly release: string;
}

/** 200 endpoints end, twenty at once. */
export async function measureGivingBack(directory: string, names: GivingBackNames, report: Report): Promise<void> {
  const COUNT = 200;
  const WIDTH = 20;
  await makeParent();
  const times: Record<keyof GivingBackNames, number[]> = { leave: [], remove: [], release: [] };
  await withDaemon(directory, async (daemon) => {
    const PoolID = await makeNetwork(daemon);
    const given: string[] = [];
    await inTurns(COUNT, WIDTH, async (number) => {
      const { Address } = await daemon.call<{ Address: string }>('IpamDriver.RequestAddress', { PoolID, Address: '' });
      given[number] = Address.split('/')[0] ?? '';
      await makeEndpoint(daemon, endpointId(number), Address);
    });
    await inTurns(COUNT, WIDTH, async (number) => {
      const ids = { NetworkID: NETWORK, EndpointID: endpointId(number) };
      const release = { PoolID, Address: given[number] };
      times.leave.push(await timeOf(() => daemon.call('NetworkDriver.Leave', ids)));
      times.remove.push(await timeOf(() => daemon.call('NetworkDriver.DeleteEndpoint', ids)));
      times.release.push(await timeOf(() => daemon.call('IpamDriver.ReleaseAddress', release)));
    });
  });
  const LIMITS = { leave: 20, remove: null, release: 20 };
  for (const call of ['leave', 'remove', 'release'] as const) {
    const found = spread(times[call]);
    const figures = [
      { name: 'p99', value: found.p99, unit: 'ms', wanted: LIMITS[call] },
      { name: 'worst', value: found.max, unit: 'ms', wanted: null },
    ] as const;
    report.add({ what: names[call], unit: 'ms', values: { tsmacvlan: found }, figures });
  }
}

export interface AllocationNames {
  readonly address: string;
  readonly networks: string;
}

/** An address for a container whose name is new, as engines from 29 on ask, before and after ten thousand names are remembered. */
export async function measureNames(directory: string, what: string, report: Report): Promise<void> {
  await withDaemon(directory, async ({ call }) => {
    const { PoolID } = await call<{ PoolID: string }>('IpamDriver.RequestPool', pool('10.16.0.0/16'));
    let count = 0;
    const comeAndGo = async () => {
      const Options = { 'com.docker.network.endpoint.name': `c${++count}` };
      const wish = { PoolID, Address: '', Options };
      let given = '';
      const tookMs = await timeOf(
        async () => (given = (await call<{ Address: string }>('IpamDriver.RequestAddress', wish)).Address),
      );
      await call('IpamDriver.ReleaseAddress', { PoolID, Address: given.split('/')[0] });
      return tookMs * 1000;
    };
    const measured = async () => {
      const times: number[] = [];
      for (let number = 0; number < 1000; number++) times.push(await comeAndGo());
      return spread(times);
    };
    const few = await measured();
    await inTurns(10_000, 16, async () => void (await comeAndGo()));
    progress(what, count, count);
    const values = { 'a thousand': few, 'eleven thousand': await measured() };
    report.add({ what, unit: 'µs', values, figures: ratio(values, 'eleven thousand', 'a thousand', 1.25) });
  });
}

/** Every address of a /16, sixteen asked for at a time; the first and the last thousand apart. Then networks beside them. */
export async function measureAllocation(directory: string, names: AllocationNames, report: Report): Promise<void> {
  await withDaemon(directory, async ({ call }) => {
    const { PoolID } = await call<{ PoolID: string }>('IpamDriver.RequestPool', pool('10.16.0.0/16'));
    const Options = { RequestAddressType: 'com.docker.network.gateway' };
    await call('IpamDriver.RequestAddress', { PoolID, Address: '10.16.0.1', Options });
    const stretches = await fill(call, PoolID, names.address);
    const values = { empty: spread(stretches.slice(1, 11)), 'nearly full': spread(stretches.slice(-11, -1)) };
    report.add({ what: names.address, unit: 'µs', values, figures: ratio(values, 'nearly full', 'empty') });
    await measureNetworksBeside(call, names.networks, report);
    await call('IpamDriver.ReleasePool', { PoolID });
  });
}

/** Microseconds for one address, of each thousand. */
async function fill(call: Call, PoolID: string, what: string): Promise<number[]> {
  const seen = new Set<string>();
  const total = 65_533;
  const stretches: number[] = [];
  for (let begun = 0; begun < total; ) {
    const wanted = Math.min(1000, total - begun);
    const tookMs = await timeOf(() =>
      inTurns(wanted, 16, async () => {
        const wish = { PoolID, Address: '', Options: null };
        seen.add((await call<{ Address: string }>('IpamDriver.RequestAddress', wish)).Address);
      }),
    );
    stretches.push((tookMs * 1000) / wanted);
    begun += wanted;
    progress(what, begun, total);
  }
  if (seen.size !== total) throw new Error(`${total} requests gave ${seen.size} different addresses`);
  return stretches;
}

/** Networks without a gateway of the user's come and go beside so many leases of the same realm. */
async function measureNetworksBeside(call: Call, what: string, report: Report): Promise<void> {
  const times: Record<'gateway' | 'release', number[]> = { gateway: [], release: [] };
  const rounds = 100;
  for (let round = 0; round < rounds; round++) {
    const { PoolID } = await call<{ PoolID: string }>('IpamDriver.RequestPool', pool(`10.18.${round}.0/24`));
    const Options = { RequestAddressType: 'com.docker.network.gateway' };
    times.gateway.push(await timeOf(() => call('IpamDriver.RequestAddress', { PoolID, Address: '', Options })));
    times.release.push(await timeOf(() => call('IpamDriver.ReleasePool', { PoolID })));
    progress(what, round + 1, rounds);
  }
  const values = { gateway: spread(times.gateway), ReleasePool: spread(times.release) };
  const figures = [...most('gateway', times.gateway, 3, 'ms'), ...most('ReleasePool', times.release, 3, 'ms')];
  report.add({ what, unit: 'ms', values, figures });
}

function most(name: string, values: readonly number[], wanted: number, unit: 'ms' | 'µs' | 'MB') {
  return [{ name, value: spread(values).median, unit, wanted }];
}
