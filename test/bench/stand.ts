/**
 * A host with an engine, tsmacvlan and the floor, and what is compared there. Every variant has a parent with a switch of
 * its own: on a shared one a container's other interface answers ARP for the address that just left.
 *
 *     host "one": lan0 ── switch "lan"
 *                 lan1 ── switch "lan1"
 *                 …
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { exchange } from '../lab/exchange.ts';
import type { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Site } from '../lab/site.ts';
import { inTurns } from './figures.ts';

/** One way to have a network. `isNamed`: each container names its address, as with `--ip`. */
export interface Variant {
  readonly name: string;
  readonly driver: 'macvlan' | 'tsmacvlan' | 'floor';
  readonly ipam: 'default' | 'tsmacvlan' | 'floor' | 'null';
  readonly options?: Readonly<Record<string, string>>;
  readonly isNamed?: true;
}

export const BUILT_IN: Variant = { name: 'macvlan', driver: 'macvlan', ipam: 'default' };
export const OURS: Variant = { name: 'tsmacvlan', driver: 'tsmacvlan', ipam: 'tsmacvlan' };
/** Nobody names a gateway for it: the LAN is asked whether there is one. */
export const UNROUTED: Variant = { ...OURS, name: 'no --gateway' };
export const UNASKED: Variant = { ...OURS, name: 'PROBE=off', options: { probe: 'off' } };
export const NAMED: Variant = { ...OURS, name: '--ip', isNamed: true };
export const DOCKERS_IPAM: Variant = { ...OURS, name: "Docker's IPAM", ipam: 'default' };
/** The addresses are those of a DHCP server on the parent's LAN, which serveDhcp() starts. */
export const DHCP: Variant = { name: 'kea', driver: 'tsmacvlan', ipam: 'null', options: { source: 'dhcp' } };
export const FLOOR: Variant = { name: 'floor', driver: 'floor', ipam: 'floor' };

const VARIANTS = [BUILT_IN, OURS, UNROUTED, UNASKED, NAMED, DOCKERS_IPAM, DHCP, FLOOR];
const DHCP_PLAN: DhcpPlan = { address: '10.99.0.1/16', range: ['10.99.1.1', '10.99.250.250'], leaseSeconds: 3600 };

const PROGRAM = join(import.meta.dirname, 'floor.ts');
/** So many commands at once make what is not measured. */
const WIDTH = 8;

export class Stand {
  readonly engine: Engine;
  readonly #site: Site;
  readonly #lans: ReadonlyMap<Variant, Lan>;
  readonly #links: ReadonlyMap<Variant, string>;

  private constructor(site: Site, lans: ReadonlyMap<Variant, Lan>, links: ReadonlyMap<Variant, string>) {
    this.engine = site.machines[0]?.engine as Engine;
    this.#site = site;
    this.#lans = lans;
    this.#links = links;
  }

  static async open(version: Version): Promise<Stand> {
    const site = await Site.open({ version, hosts: ['one'], settings: { LOG_LEVEL: 'info' } });
    const host = site.machines[0]?.host as Host;
    const links = new Map(VARIANTS.map((variant, at) => [variant, `lan${at}`]));
    const lans = new Map<Variant, Lan>();
    for (const [variant, link] of [...links].slice(1)) {
      const lan = await Lan.create([], link);
      await lan.plug(host.namespace, link);
      lans.set(variant, lan);
    }
    await startFloor(host, links.get(FLOOR) ?? 'lan0');
    return new Stand(site, lans, links);
  }

  async close(): Promise<void> {
    await this.#site.close();
    for (const { namespace } of this.#lans.values()) await namespace.delete();
  }

  /** Kea, on the LAN of the variant that has its addresses by DHCP; the caller stops it. */
  async serveDhcp(): Promise<DhcpServer> {
    return DhcpServer.plug(this.#lans.get(DHCP) as Lan, 'kea', 'kea', DHCP_PLAN);
  }

  /** Makes a network of the variant on its own parent. */
  async createNetwork(variant: Variant, name: string, subnet: string, gateway?: string): Promise<void> {
    await createNetwork(this.engine, variant, { name, subnet, gateway, parent: this.#links.get(variant) ?? '' });
  }

  async deleteNetwork(name: string): Promise<void> {
    await this.engine.api('DELETE', `/networks/${name}`);
  }
}

/** Starts the floor on a host, on that parent; answers when it answers. */
export async function startFloor(host: Host, parent: string): Promise<void> {
  const socket = '/run/docker/plugins/floor.sock';
  const { PATH } = process.env;
  await host.start('floor', [process.execPath, PROGRAM, socket, parent], { PATH });
  const answers = () => exchange(host.file(socket), { path: '/Plugin.Activate' }).then(Boolean, () => false);
  for (let attempt = 0; !(await answers()); attempt++) {
    if (attempt > 500) throw new Error('the floor does not answer');
    await sleep(10);
  }
}

/** Makes a network of the variant. */
export async function createNetwork(
  engine: Engine,
  { driver, ipam, options }: Variant,
  { name, subnet, gateway, parent }: { name: string; subnet: string; gateway?: string | undefined; parent: string },
): Promise<void> {
  const IPAM = { Driver: ipam, Config: ipam === 'null' ? [] : [{ Subnet: subnet, Gateway: gateway }] };
  await engine.api('POST', '/networks/create', { Name: name, Driver: driver, IPAM, Options: { parent, ...options } });
}

/** Makes containers `c0`, `c1`, …  that wait; `words` are more of what the engine is asked for with each. */
export async function makeContainers(engine: Engine, count: number, words: (number: number) => object): Promise<void> {
  await inTurns(count, WIDTH, async (number) => {
    const Cmd = ['sleep', '100000'];
    const body = { Image: 'busybox', Cmd, StopTimeout: 0, ...words(number) };
    await engine.api('POST', `/containers/create?name=c${number}`, body);
    await engine.api('POST', `/containers/c${number}/start`);
  });
}
