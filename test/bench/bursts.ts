/**
 * Many at once on an engine: containers that are attached and detached, and containers that run. Each round makes its
 * networks anew, so that the first burst finds nothing ready; the second finds what the first left.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { inRotation, inTurns, type Spread, spread, timeOf } from './figures.ts';
import { excess, ratio, type Report } from './report.ts';
import { BUILT_IN, DOCKERS_IPAM, FLOOR, NAMED, OURS, type Stand, UNASKED, type Variant } from './stand.ts';

/** So many go on side by side, as with `docker compose up` of a stack. */
const IN_PARALLEL = 20;
/** What is attached stays for so long, and between two bursts everybody rests. */
const STAY_MS = 1000;
const REST_MS = 3000;

/** Variant → milliseconds of each burst. */
class Times {
  readonly #values = new Map<string, number[]>();

  add({ name }: Variant, tookMs: number): void {
    this.#values.set(name, [...(this.#values.get(name) ?? []), tookMs]);
  }

  spreads(): Record<string, Spread> {
    return Object.fromEntries([...this.#values].map(([name, values]) => [name, spread(values)]));
  }
}

export interface ConnectNames {
  readonly cold: string;
  readonly warm: string;
  readonly disconnects: string;
}

const CONNECTED = [BUILT_IN, OURS, UNASKED, NAMED, DOCKERS_IPAM, FLOOR];

/** `count` containers are attached at once and detached at once, twice. The containers `c0` and so on run. */
export async function measureConnects(
  stand: Stand,
  names: ConnectNames,
  report: Report,
  { count, rounds }: { count: number; rounds: number },
): Promise<void> {
  const [cold, warm, disconnects] = [new Times(), new Times(), new Times()];
  await inRotation(names.warm, rounds, CONNECTED, async (variant, round) => {
    const third = 4 * round;
    await stand.createNetwork(variant, 'burst', `10.${20 + CONNECTED.indexOf(variant)}.${third}.0/22`);
    for (const times of [cold, warm]) {
      times.add(variant, await timeOf(() => connectAll(stand, variant, count, third)));
      await sleep(STAY_MS);
      disconnects.add(variant, await timeOf(() => disconnectAll(stand, count)));
      await sleep(REST_MS);
    }
    await stand.deleteNetwork('burst');
  });
  const ONE_WINDOW_MS = 900;
  addRow(report, names.cold, cold, (values) => [
    ...excess(values, OURS.name, UNASKED.name, ONE_WINDOW_MS),
    // The first has nothing to go by, and the second asks for the rest.
    ...excess(values, NAMED.name, UNASKED.name, 2 * ONE_WINDOW_MS),
    ...excess(values, DOCKERS_IPAM.name, UNASKED.name, ONE_WINDOW_MS),
  ]);
  addRow(report, names.warm, warm, (values) => [
    ...ratio(values, OURS.name, BUILT_IN.name, 1.5),
    ...ratio(values, OURS.name, UNASKED.name, 1.1),
  ]);
  addRow(report, names.disconnects, disconnects, (values) => [
    ...ratio(values, OURS.name, BUILT_IN.name, 0.75),
    ...ratio(values, UNASKED.name, BUILT_IN.name, 0.75),
  ]);
}

async function connectAll({ engine }: Stand, variant: Variant, count: number, third: number): Promise<void> {
  const second = 20 + CONNECTED.indexOf(variant);
  await inTurns(count, IN_PARALLEL, async (number) => {
    const IPAMConfig = { IPv4Address: `10.${second}.${third + 1}.${number + 1}` };
    const EndpointConfig = variant.isNamed ? { IPAMConfig } : {};
    await engine.api('POST', '/networks/burst/connect', { Container: `c${number}`, EndpointConfig });
  });
}

async function disconnectAll({ engine }: Stand, count: number): Promise<void> {
  await inTurns(count, IN_PARALLEL, async (number) => {
    await engine.api('POST', '/networks/burst/disconnect', { Container: `c${number}` });
  });
}

/** `count` containers are made, run to their end and removed, all at once. */
export async function measureRuns(
  stand: Stand,
  what: string,
  report: Report,
  { count, rounds }: { count: number; rounds: number },
): Promise<void> {
  const variants = [BUILT_IN, OURS, UNASKED, DOCKERS_IPAM, FLOOR];
  const networkOf = (variant: Variant) => `runs${variants.indexOf(variant)}`;
  for (const [at, variant] of variants.entries())
    await stand.createNetwork(variant, networkOf(variant), `10.${40 + at}.0.0/22`);
  const times = new Times();
  await inRotation(what, rounds + 1, variants, async (variant, round) => {
    const tookMs = await timeOf(() =>
      inTurns(count, IN_PARALLEL, (number) => runOnce(stand, networkOf(variant), `r${number}`)),
    );
    // The first round warms all of them up.
    if (round > 0) times.add(variant, tookMs);
    await sleep(STAY_MS);
  });
  for (const variant of variants) await stand.deleteNetwork(networkOf(variant));
  addRow(report, what, times, (values) => ratio(values, OURS.name, BUILT_IN.name, 0.95));
}

/** As `docker run --rm`, by the API: twenty docker commands at once would be what is measured. */
async function runOnce({ engine }: Stand, network: string, name: string): Promise<void> {
  const HostConfig = { NetworkMode: network };
  await engine.api('POST', `/containers/create?name=${name}`, { Image: 'busybox', Cmd: ['true'], HostConfig });
  await engine.api('POST', `/containers/${name}/start`);
  await engine.api('POST', `/containers/${name}/wait`);
  await engine.api('DELETE', `/containers/${name}?force=1`);
}

type FiguresOf = (values: Record<string, Spread>) => ReturnType<typeof ratio>;

/** What the built-in driver and the floor take stands beside everything. */
function addRow(report: Report, what: string, times: Times, figuresOf: FiguresOf): void {
  const values = times.spreads();
  const beside = [BUILT_IN, FLOOR].flatMap(({ name }) => ratio(values, OURS.name, name));
  const wanted = figuresOf(values);
  const shown = beside.filter(({ name }) => !wanted.some((figure) => figure.name === name));
  report.add({ what, unit: 'ms', values, figures: [...wanted, ...shown] });
}
