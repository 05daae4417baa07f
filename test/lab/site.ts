/** Hosts on one LAN, each with an engine and, when wanted, the plugin: what most tests and the demo stand on. */
import { Engine, type Version } from './engine.ts';
import { Host } from './host.ts';
import { Lan } from './namespace.ts';
import { Plugin } from './plugin.ts';

export interface Machine {
  host: Host;
  engine: Engine;
  plugin: Plugin;
}

export interface Plan {
  version: Version;
  /** Name of the LAN's namespace, where several sites exist at once; their hosts need names of their own too. */
  lan?: string;
  hosts: string[];
  /** Links of each host that have a cable to the LAN; `lan0` when not given. */
  links?: string[];
  /** Addresses of the switch itself, as `192.0.2.254/24`. */
  addresses?: string[];
  /** Settings of the plugin. */
  settings?: Record<string, string>;
}

export class Site {
  readonly lan: Lan;
  readonly machines: Machine[];

  private constructor(lan: Lan, machines: Machine[]) {
    this.lan = lan;
    this.machines = machines;
  }

  static async open(plan: Plan): Promise<Site> {
    const lan = await Lan.create(plan.addresses, plan.lan);
    return new Site(lan, await Promise.all(plan.hosts.map((name) => bootMachine(name, lan, plan))));
  }

  async close(): Promise<void> {
    for (const { host } of this.machines) await host.scrap(this.lan);
    await this.lan.namespace.delete();
  }
}

/** Starts one more machine on a LAN. */
export async function bootMachine(name: string, lan: Lan, plan: Omit<Plan, 'hosts'>): Promise<Machine> {
  const host = await Host.boot(name, lan, plan.links);
  const [engine, plugin] = await Promise.all([Engine.start(host, plan.version), Plugin.start(host, plan.settings)]);
  return { host, engine, plugin };
}
