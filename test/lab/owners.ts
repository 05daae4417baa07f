/**
 * Daemons that share one subnet through etcd, and what their containers really have: read from the kernels of all of them.
 *
 *     one: tsmacvlan, containers ─ lan0 ──┐
 *     two: tsmacvlan, containers ─ lan0 ──┼── switch 192.0.2.254, with the members of etcd
 *     …                                  ─┘
 */
import { copyFileSync, mkdtempSync, renameSync } from 'node:fs';
import { output } from './command.ts';
import { EtcdCluster } from './etcd.ts';
import { Host } from './host.ts';
import { localAddressesOf } from './localroutes.ts';
import { Lan } from './namespace.ts';
import { Plugin } from './plugin.ts';
import { type Container, type FakeNetwork, Refusal, Understudy } from './understudy.ts';

const ETCD = '192.0.2.254';
const ETCDS_NET = '192.0.2.0/24';
/** Of the router between the two LANs of Sites. */
const [ROUTER_THERE, ROUTER] = ['192.0.2.253', '198.51.100.254'];
/** With `off` etcd alone keeps an address from being given out again. */
export const PROBES = ['off', 'fast'] as const;

export interface OwnersPlan {
  readonly names: readonly string[];
  readonly members?: number;
  /** Of etcd's database, in bytes. */
  readonly quota?: number;
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

/** Where hosts are. */
interface Site {
  readonly lan: Lan;
  /** Stands before the names of their namespaces; the hosts do not know it. */
  readonly prefix: string;
  /** STORE_CLUSTER */
  readonly cluster: string;
  /** Of the hosts' own addresses. */
  readonly net: string;
  /** By which they reach etcd; null where it is on their LAN. */
  readonly router: string | null;
}

export class Owners {
  readonly etcd: EtcdCluster;
  readonly #site: Site;
  readonly #plan: OwnersPlan;
  readonly #owners: Owner[] = [];
  readonly #copies: Host[] = [];
  #booted = 0;

  private constructor(site: Site, etcd: EtcdCluster, plan: OwnersPlan) {
    this.#site = site;
    this.etcd = etcd;
    this.#plan = plan;
  }

  static async open(plan: OwnersPlan): Promise<Owners> {
    const lan = await Lan.create([`${ETCD}/24`]);
    const site = { lan, prefix: '', cluster: 'default', net: '192.0.2', router: null };
    return Owners.at(site, await startEtcd(lan, plan), plan);
  }

  /** Hosts whose daemons run. */
  static async at(site: Site, etcd: EtcdCluster, plan: OwnersPlan): Promise<Owners> {
    const owners = new Owners(site, etcd, plan);
    await Promise.all(plan.names.map((name) => owners.add(name)));
    return owners;
  }

  get lan(): Lan {
    return this.#site.lan;
  }

  /** One more host, whose daemon starts now. */
  async add(name: string): Promise<Owner> {
    const host = await this.#boot(name, name);
    const { subnet = '10.9.0.0/24', prepare } = this.#plan;
    prepare?.(host);
    const plugin = await Plugin.start(host, this.#settingsOf(name));
    const engine = new Understudy(plugin);
    const network = await engine.createNetwork({ subnet });
    const owner = { name, host, engine, plugin, network };
    this.#owners.push(owner);
    return owner;
  }

  /** A machine that is a copy of another one, with its name and its state directory; its daemon starts now. */
  async copyOf(name: string): Promise<Plugin> {
    const { host } = this.of(name);
    const copy = await this.#boot(`copy${this.#copies.length}`, name);
    this.#copies.push(copy);
    await output(['cp', '-a', `${host.directory}/disk/tsmacvlan`, `${copy.directory}/disk/tsmacvlan`]);
    return Plugin.start(copy, this.#settingsOf(name));
  }

  async #boot(namespace: string, name: string): Promise<Host> {
    const { lan, prefix, net, router } = this.#site;
    const place = ++this.#booted;
    const host = await Host.boot(`${prefix}${namespace}`, lan);
    await host.namespace.ip(`address add ${net}.${place}/24 dev lan0`);
    if (router !== null) await host.namespace.ip(`route add ${ETCDS_NET} via ${router}`);
    await host.run(['hostname', name]);
    return host;
  }

  #settingsOf(name: string): Record<string, string> {
    const { settings, probe } = this.#plan;
    return { STORE: this.etcd.url, STORE_CLUSTER: this.#site.cluster, ...settings, ...probe?.(name) };
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
    for (const copy of this.#copies) await copy.scrap(this.lan);
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
  doubled(): string[] {
    const containers = this.#owners.flatMap(({ engine }) => [...engine.containers]);
    const holders = [...twiceAmong(containers).values()].flat();
    return [...twiceAmong(holders).keys()];
  }

  /** The claim on an address as it is in etcd. */
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
    return (await this.etcd.must('get', '--prefix', '--keys-only', this.key(`nodes/${name}-`))) !== '';
  }

  #key(address: string): string {
    return this.key(`leases/TsmacvlanLocal/${address}`);
  }

  /** As it is in etcd, of what hosts here call so. */
  key(words: string): string {
    return `/tsmacvlan/${this.#site.cluster}/${words}`;
  }
}

/**
 * The same hosts twice, each time on a LAN of their own and with the same addresses there: once with PROBE=off and once with fast.
 * Both have the same members of etcd, so what befalls those befalls both.
 *
 *     LAN of off: hosts, etcd 192.0.2.254 ─── router ─── LAN of fast: hosts
 */
export class Sites implements Readonly<Record<(typeof PROBES)[number], Owners>> {
  readonly off: Owners;
  readonly fast: Owners;

  private constructor(off: Owners, fast: Owners) {
    [this.off, this.fast] = [off, fast];
  }

  static async open(plan: OwnersPlan): Promise<Sites> {
    const first = await Lan.create([`${ETCD}/24`]);
    const second = await behind(first);
    const etcd = await startEtcd(first, plan);
    const places = {
      off: { lan: first, prefix: '', cluster: 'off', net: '192.0.2', router: null },
      fast: { lan: second, prefix: 'fast-', cluster: 'fast', net: '198.51.100', router: ROUTER },
    };
    const open = (probe: keyof typeof places) =>
      Owners.at(places[probe], etcd, { ...plan, settings: { ...plan.settings, PROBE: probe } });
    const [off, fast] = await Promise.all([open('off'), open('fast')]);
    return new Sites(off, fast);
  }

  get etcd(): EtcdCluster {
    return this.off.etcd;
  }

  /** At both at the same time. */
  each<T>(act: (owners: Owners) => Promise<T>): Promise<T[]> {
    return Promise.all([act(this.off), act(this.fast)]);
  }

  async close(): Promise<void> {
    await this.fast.close();
    await this.off.close();
  }
}

async function startEtcd({ namespace }: Lan, { members = 3, quota, lock }: OwnersPlan): Promise<EtcdCluster> {
  const place = { namespace, address: ETCD };
  const size = quota === undefined ? {} : { quota };
  const etcd = await EtcdCluster.start({ directory: mkdtempSync('/run/etcd-'), members, place, ...size });
  await lock?.(etcd);
  return etcd;
}

/** Another LAN, from which what is on the first can be reached through a router. */
async function behind(first: Lan): Promise<Lan> {
  const second = await Lan.create([`${ROUTER}/24`], 'lan2');
  const { namespace } = second;
  await first.plug(namespace, 'uplink');
  await namespace.ip(`address add ${ROUTER_THERE}/24 dev uplink`);
  await output(namespace.enter(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward']));
  await first.namespace.ip(`route add 198.51.100.0/24 via ${ROUTER_THERE}`);
  return second;
}

function nameOf([node = '']: readonly string[]): string {
  return node.replace(/-[0-9a-f]{12}$/, '');
}

/** Addresses that several of the containers have, each with those. */
function twiceAmong(containers: readonly Container[]): Map<string, Container[]> {
  const had = new Map<string, Container[]>();
  for (const container of new Set(containers))
    for (const address of localAddressesOf(container.namespace.name))
      had.set(address, [...(had.get(address) ?? []), container]);
  return new Map([...had].filter(([, holders]) => holders.length > 1));
}

/** Where a host keeps the password of its user in etcd, `host`: STORE_PASSWORD. */
export const PASSWORD_FILE = '/run/disk/password';

/** From now on whoever speaks to etcd has to log in, as `host` with the password `first`. */
export async function demandLogin(etcd: EtcdCluster): Promise<void> {
  const words = ['user add root:r00t', 'user grant-role root root', 'user add host:first', 'role add tsmacvlan'];
  for (const one of words) await etcd.must(...one.split(' '));
  await etcd.must('role', 'grant-permission', 'tsmacvlan', '--prefix=true', 'readwrite', '/tsmacvlan/');
  await etcd.must('user', 'grant-role', 'host', 'tsmacvlan');
  await etcd.must('auth', 'enable');
  etcd.login = 'root:r00t';
}
