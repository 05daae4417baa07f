/**
 * The boot of a host whose containers come by themselves: power is cut, then engine and plugin start together, and what is
 * measured ends when all containers run. Each variant has a host with a disk of its own; one is on at a time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Engine, type Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import { inRotation, spread, timeOf } from './figures.ts';
import { excess, ratio, type Report } from './report.ts';
import {
  BUILT_IN,
  createNetwork,
  FLOOR,
  makeContainers,
  NAMED,
  OURS,
  startFloor,
  UNASKED,
  type Variant,
} from './stand.ts';

const VARIANTS = [BUILT_IN, OURS, UNASKED, NAMED, FLOOR];
/** A container that is refused is tried again after a pause that grows, up to a minute (moby, restartmanager). */
const BOOT_TIMEOUT_MS = 120_000;

/** A host of one variant, off unless it boots. */
class BootingHost {
  readonly #variant: Variant;
  readonly #version: Version;
  readonly #name: string;
  readonly #lan: Lan;
  #host: Host | undefined;
  #engine: Engine | undefined;

  constructor(variant: Variant, version: Version, name: string, lan: Lan) {
    this.#variant = variant;
    this.#version = version;
    this.#name = name;
    this.#lan = lan;
  }

  /** With `count` containers that are to come back. */
  static async install(variant: Variant, version: Version, count: number): Promise<BootingHost> {
    const name = `boot${VARIANTS.indexOf(variant)}`;
    const booting = new BootingHost(variant, version, name, await Lan.create([], `${name}-lan`));
    await booting.powerOn();
    const engine = await booting.start();
    await createNetwork(engine, variant, { name: 'lan', subnet: '10.60.0.0/22', parent: 'lan0' });
    await makeContainers(engine, count, (number) => {
      const IPAMConfig = { IPv4Address: `10.60.1.${number + 1}` };
      const EndpointsConfig = { lan: variant.isNamed ? { IPAMConfig } : {} };
      const HostConfig = { NetworkMode: 'lan', RestartPolicy: { Name: 'always' } };
      return { HostConfig, NetworkingConfig: { EndpointsConfig } };
    });
    await booting.cutPower();
    return booting;
  }

  async powerOn(): Promise<void> {
    this.#host = await Host.boot(this.#name, this.#lan);
  }

  /** Starts engine and plugin together. */
  async start(): Promise<Engine> {
    const host = this.#host as Host;
    const plugin = {
      macvlan: async () => undefined,
      tsmacvlan: () => Plugin.start(host, { LOG_LEVEL: 'info' }),
      floor: () => startFloor(host, 'lan0'),
    }[this.#variant.driver];
    [this.#engine] = await Promise.all([Engine.start(host, this.#version), plugin()]);
    return this.#engine;
  }

  /** Resolves when so many containers run. */
  async untilRunning(count: number): Promise<void> {
    const deadlineMs = performance.now() + BOOT_TIMEOUT_MS;
    for (;;) {
      const running = (await this.#engine?.api<unknown[]>('GET', '/containers/json'))?.length;
      if (running === count) return;
      if (performance.now() > deadlineMs) throw new Error(`${this.#variant.name}: ${running} of ${count} run`);
      await sleep(50);
    }
  }

  async cutPower(): Promise<void> {
    await this.#host?.cutPower(this.#lan);
  }

  async scrap(): Promise<void> {
    await this.powerOn();
    await this.#host?.scrap(this.#lan);
    await this.#lan.namespace.delete();
  }
}

/** `count` containers with `restart=always`. */
export async function measureBoot(
  version: Version,
  what: string,
  report: Report,
  { count, rounds }: { count: number; rounds: number },
): Promise<void> {
  const times = new Map<Variant, number[]>(VARIANTS.map((variant) => [variant, []]));
  const hosts = new Map<Variant, BootingHost>();
  for (const variant of VARIANTS) hosts.set(variant, await BootingHost.install(variant, version, count));
  await inRotation(what, rounds, VARIANTS, async (variant) => {
    const host = hosts.get(variant) as BootingHost;
    await host.powerOn();
    const tookMs = await timeOf(async () => {
      await host.start();
      await host.untilRunning(count);
    });
    times.get(variant)?.push(tookMs);
    await host.cutPower();
  });
  for (const host of hosts.values()) await host.scrap();
  const values = Object.fromEntries([...times].map(([{ name }, tookMs]) => [name, spread(tookMs)]));
  const figures = [
    ...excess(values, OURS.name, UNASKED.name, 900),
    ...excess(values, NAMED.name, UNASKED.name, 900),
    ...[BUILT_IN, FLOOR].flatMap(({ name }) => ratio(values, OURS.name, name)),
  ];
  report.add({ what, unit: 'ms', values, figures });
}
