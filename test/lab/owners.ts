/**
 * Daemons that share one subnet through etcd, and what their containers really have: read from the kernels of all of them.
 *
 *     one: tsmacvlan, containers ─ lan0 ──┐
 *     two: tsmacvlan, containers ─ lan0 ──┼── switch 192.0.2.254, with the members of etcd
 *     …                                  ─┘
 */
import { copyFileSync, mkdtempSync, renameSync } from 'node:fs';
import { EtcdCluster } from './etcd.ts';
import { Host } from './host.ts';
import { Lan } from './namespace.ts';
import { Plugin } from './plugin.ts';
import { type Container, type FakeNetwork, Refusal, Understudy } from './understudy.ts';

const ETCD = '192.0.2.254';

export interface OwnersPlan {
  readonly names: readonly string[];
  readonly members?: number;
  readonly settings?: Record<string, string>;
  readonly subnet?: string;
  /** Settings of one host. */
  readonly probe?: (name: string) => Record<string, string>;
  /** Before its daemon starts. */
  readonly prepare?: (host: Host) => void;
  /** Once etcd answers, before any daemon starts. */
  readonly lock?: (etcd: EtcdCluster) => Promise<void>;
}

/** One of the hosts. */
export interface Owner {
  readonly name: string;
  readonly host: Host;
  readonly engine: Understudy;
  readonly plugin: Plugin;
  readonly network: FakeNetwork;
}

export class Owners {
  readonly lan: Lan;
  readonly etcd: EtcdCluster;
  readonly #plan: OwnersPlan;
  readonly #owners: Owner[] = [];
  #booted = 0;

  private constructor(lan: Lan, etcd: EtcdCluster, plan: OwnersPlan) {
    this.lan = lan;
    this.etcd = etcd;
    this.#plan = plan;
  }

  static async open(plan: OwnersPlan): Promise<Owners> {
    const { names, members = 3, lock } = plan;
    const lan = await Lan.create([`${ETCD}/24`]);
    const place = { namespace: lan.namespace, address: ETCD };
    const etcd = await EtcdCluster.start({ directory: mkdtempSync('/run/etcd-'), members, place });
    await lock?.(etcd);
    const owners = new Owners(lan, etcd, plan);
    await Promise.all(names.map((name) => owners.add(name)));
    return owners;
  }

  /** One more host, whose daemon starts now. */
  async add(name: string): Promise<Owner> {
    const place = ++this.#booted;
    const host = await Host.boot(name, this.lan);
    await host.namespace.ip(`address add 192.0.2.${place}/24 dev lan0`);
    const { settings, subnet = '10.9.0.0/24', probe, prepare } = this.#plan;
    prepare?.(host);
    const plugin = await Plugin.start(host, { STORE: this.etcd.url, ...settings, ...probe?.(name) });
    const engine = new Understudy(plugin);
    const network = await engine.createNetwork({ subnet });
    const owner = { name, host, engine, plugin, network };
    this.#owners.push(owner);
    return owner;
  }

  of(name: string): Owner {
    const found = this.#owners.find((owner) => owner.name === name);
    if (found === undefined) throw new Error(`no host ${name}`);
    return found;
  }

  async close(): Promise<void> {
    for (const { plugin, host } of this.#owners) {
      await plugin.thaw();
      await host.scrap(this.lan);
    }
    await this.etcd.stop();
    await this.lan.namespace.delete();
  }

  /** Nothing of this host reaches etcd, and it is not told so; its containers are on the LAN as ever. */
  async cutFromEtcd(name: string, isCut: boolean): Promise<void> {
    await this.of(name).host.namespace.ip(`route ${isCut ? 'add' : 'delete'} blackhole ${ETCD}/32`);
  }

  /** While its daemon is stopped: to the next one the machine has booted. Answers the file with the node's name. */
  boot(name: string): string {
    const file = this.of(name).host.file('/run/disk/tsmacvlan/node');
    copyFileSync(file, `${file}.copy`);
    renameSync(`${file}.copy`, file);
    return file;
  }

  /** The sentence of a start that is refused; fails when it is not. */
  async refusal(name: string, address?: string): Promise<string> {
    const { engine, network } = this.of(name);
    let container: Container;
    try {
      container = await engine.run(network, { address });
    } catch (error) {
      if (error instanceof Refusal) return error.message;
      throw error;
    }
    throw new Error(`${container.address} was given out on ${name}`);
  }

  /**
   * Addresses that the kernels of two containers have at one moment. Reading all takes a while, in which an address may go from one
   * to another: so those that have one that was found twice are read once more, in the same order.
   */
  async doubled(): Promise<string[]> {
    const containers = this.#owners.flatMap(({ engine }) => [...engine.containers]);
    const suspected = await twiceAmong(containers);
    const holders = [...suspected.values()].flat();
    return holders.length === 0 ? [] : [...(await twiceAmong(holders)).keys()];
  }

  /** The claim on an address as it stands in etcd. */
  async claim(address: string): Promise<{ kind: string; nodes: string[]; heir?: { nodes: string[] } } | null> {
    const text = await this.etcd.must('get', '--print-value-only', this.#key(address));
    return text === '' ? null : (JSON.parse(text) as { kind: string; nodes: string[] });
  }

  /** The name of the host whose claim it is; '' without. */
  async claimant(address: string): Promise<string> {
    return nameOf((await this.claim(address))?.nodes ?? []);
  }

  /** By address, the name of the host whose claim it is. */
  async claimants(): Promise<Map<string, string>> {
    const [claimants, key] = [new Map<string, string>(), this.#key('')];
    const lines = (await this.etcd.must('get', '--prefix', key)).split('\n');
    for (const [at, line] of lines.entries()) {
      if (!line.startsWith(key)) continue;
      const { nodes } = JSON.parse(lines[at + 1] ?? '') as { nodes: string[] };
      claimants.set(line.slice(key.length), nameOf(nodes));
    }
    return claimants;
  }

  /** Whether etcd has heard of the host in the last seconds. */
  async isHeardOf(name: string): Promise<boolean> {
    return (await this.etcd.must('get', '--prefix', '--keys-only', `/tsmacvlan/default/nodes/${name}-`)) !== '';
  }

  #key(address: string): string {
    return `/tsmacvlan/default/leases/TsmacvlanLocal/${address}`;
  }
}

function nameOf([node = '']: readonly string[]): string {
  return node.replace(/-[0-9a-f]{12}$/, '');
}

/** Addresses that several of the containers have, each with those. */
async function twiceAmong(containers: readonly Container[]): Promise<Map<string, Container[]>> {
  const had = new Map<string, Container[]>();
  for (const container of new Set(containers))
    for (const address of await addressesIn(container.namespace))
      had.set(address, [...(had.get(address) ?? []), container]);
  return new Map([...had].filter(([, holders]) => holders.length > 1));
}

/** None where the container is just coming or going. */
async function addressesIn(namespace: Container['namespace']): Promise<string[]> {
  type Shown = { ifname: string; addr_info?: { local: string; scope: string }[] };
  const links = await namespace.show<Shown>('address show').catch(() => []);
  const infos = links.filter(({ ifname }) => ifname === 'eth0').flatMap(({ addr_info = [] }) => addr_info);
  return infos.filter(({ scope }) => scope === 'global').map(({ local }) => local);
}
