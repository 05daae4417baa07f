/**
 * Docker engines on one LAN as one swarm, with the managed plugin on each: swarm takes no other. Every node's cable has
 * a name of its own, as on machines of several makers, and PARENTS calls it `lan` on all of them.
 *
 *     m1: eth0 ──┐          ┌── eno1 :m3
 *                 switch .254
 *     m2: ens33 ─┘          └── enp3s0 :w1
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { output } from './command.ts';
import { assertPings, runInside } from './container.ts';
import { Engine, type Version } from './engine.ts';
import { Host } from './host.ts';
import { lastOf, readRecords } from './invariant.ts';
import { localAddressesIn } from './localroutes.ts';
import { makePlugin, ManagedPlugin } from './managed.ts';
import { Lan } from './namespace.ts';
import { until } from './patience.ts';
import { Scanner } from './scanner.ts';

/** The managed plugin's name on every node. */
export const DRIVER = 'tsmacvlan:lan';
export const GATEWAY = '192.0.2.254';
const SCANNER = '192.0.2.250';

/** Nodes try to pull an image first; here nobody answers at once, while a registry's name would be looked up for seconds. */
export const IMAGE = 'localhost/busybox';
const VERSION: Version = '28.5.2';
const CABLES = ['eth0', 'ens33', 'eno1', 'enp3s0', 'eth1', 'ens3'];
const POLL_MS = 200;
/** Where containerd has a directory for each container that it runs, with the number of its process in `init.pid`. */
const TASKS = '/run/containerd/io.containerd.runtime.v2.task/moby';
/** Without the load of other work a task runs two seconds after it was wanted, and a new leader is found after 20. */
const SETTLE_TIMEOUT_MS = 240_000;
/** Nodes remove their part of a network some time after the managers. Leaks are collected after two minutes. */
const LEFTOVER_TIMEOUT_MS = 60_000;
/**
 * What a manager says while none leads, and when the object was changed between the reading and the writing of one command, as
 * a node's is by its own reports (swarmkit manager/state/store ErrSequenceConflict). Nothing was done then.
 */
const TO_BE_REPEATED = /swarm does not have a leader|no elected cluster leader|update out of sequence/;

export interface Plan {
  managers: number;
  workers: number;
  /** Settings of the plugin, on all nodes or by node. */
  settings?: (node: Pick<Node, 'name' | 'cable'>) => Record<string, string>;
}

export interface Node {
  readonly name: string;
  readonly isManager: boolean;
  /** Of the host itself, on its cable. */
  readonly address: string;
  /** The name of its link to the LAN. */
  readonly cable: string;
  readonly host: Host;
  readonly engine: Engine;
  readonly plugin: ManagedPlugin;
  /** Containers that were seen running, by their ids; tasks never start a container again. */
  readonly containers: Map<string, Seen>;
  /** False while its engine is down by our doing. */
  isUp: boolean;
}

/** A task as a manager sees it. */
export interface Task {
  ID: string;
  NodeID: string;
  Slot?: number;
  DesiredState: string;
  Status: { State: string; Message?: string; Err?: string; ContainerStatus?: { ContainerID?: string; PID?: number } };
  NetworksAttachments?: { Network: { Spec: { Name: string } }; Addresses?: string[] }[];
}

interface Container {
  Id: string;
  State: string;
  Labels: Record<string, string>;
}

/** A running container. */
interface Seen {
  readonly containerId: string;
  readonly pid: number;
  /** Empty when it is of none. */
  readonly service: string;
}

/** A running container of a service, by its kernel's own word. */
export interface Occupant {
  readonly node: Node;
  readonly containerId: string;
  readonly address: string;
}

export class Swarm {
  readonly lan: Lan;
  readonly nodes: readonly Node[];
  readonly scanner: Scanner;

  private constructor(lan: Lan, nodes: Node[], scanner: Scanner) {
    this.lan = lan;
    this.nodes = nodes;
    this.scanner = scanner;
  }

  static async open({ managers, workers, settings = () => ({}) }: Plan): Promise<Swarm> {
    const lan = await Lan.create([`${GATEWAY}/24`]);
    const names = [...numbered('m', managers), ...numbered('w', workers)];
    const births = names.map((name, index) => ({ name, index, isManager: index < managers, settings }));
    const hosts = await Promise.all(births.map((birth) => bootHost(lan, birth)));
    const engines = await startEngines(hosts);
    const nodes = await Promise.all(
      births.map((birth, index) => toNode(birth, hosts[index] as Host, engines[index] as Engine)),
    );
    const swarm = new Swarm(lan, nodes, await Scanner.plug(lan, SCANNER));
    await swarm.form();
    return swarm;
  }

  async close(): Promise<void> {
    this.scanner.close();
    for (const { host } of this.nodes) await host.scrap(this.lan);
    await this.lan.namespace.delete();
  }

  private async form(): Promise<void> {
    const [first, ...others] = this.nodes;
    assert.ok(first);
    await first.engine.must('swarm', 'init', '--advertise-addr', first.address, '--listen-addr', first.address);
    const tokenFor = async (role: string) => first.engine.must('swarm', 'join-token', '--quiet', role);
    const tokens = { manager: await tokenFor('manager'), worker: await tokenFor('worker') };
    for (const { engine, address, isManager } of others) {
      const token = isManager ? tokens.manager : tokens.worker;
      const join = ['swarm', 'join', '--token', token, '--advertise-addr', address, `${first.address}:2377`];
      const { code, stderr } = await engine.docker(...join);
      // The command waits for 20 s.
      assert.ok(code === 0 || stderr.includes('will continue in the background'), stderr);
    }
    await this.ready();
  }

  // --- nodes --------------------------------------------------------------------------------------------------------

  node(name: string): Node {
    const found = this.nodes.find((node) => node.name === name);
    assert.ok(found, `no node ${name}`);
    return found;
  }

  /** A manager whose engine is up; whoever leads does the work. */
  get manager(): Engine {
    const found = this.nodes.find(({ isManager, isUp }) => isManager && isUp);
    assert.ok(found, 'no manager is up');
    return found.engine;
  }

  /** Runs a docker command on a manager that must succeed, as soon as somebody leads and nobody comes in between. */
  async manage(...words: string[]): Promise<string> {
    let said = await this.manager.docker(...words);
    const isHeard = async () => {
      if (said.code !== 0 && TO_BE_REPEATED.test(said.stderr)) said = await this.manager.docker(...words);
      return said.code === 0 || !TO_BE_REPEATED.test(said.stderr);
    };
    const limits = { timeoutMs: SETTLE_TIMEOUT_MS, pollMs: POLL_MS, detail: () => said.stderr };
    await until(isHeard, limits);
    assert.equal(said.code, 0, `${words.join(' ')}: ${said.stderr}`);
    return said.stdout.trimEnd();
  }

  /** Waits for one when there is none. */
  async leader(): Promise<Node> {
    let found: Node | undefined;
    await this.until('somebody leads', async () => {
      const name = (await this.states()).find(({ isLeader }) => isLeader)?.name;
      found = this.nodes.find((node) => node.name === name && node.isUp);
      return found !== undefined;
    });
    return found as Node;
  }

  async states(): Promise<{ name: string; id: string; state: string; isLeader: boolean }[]> {
    interface Seen {
      ID: string;
      Description: { Hostname: string };
      Status: { State: string };
      ManagerStatus?: { Leader?: boolean; Reachability?: string };
    }
    const seen = await this.manager.api<Seen[]>('GET', '/nodes');
    return seen.map(({ ID, Description, Status, ManagerStatus }) => ({
      name: Description.Hostname,
      id: ID,
      state: Status.State,
      isLeader: ManagerStatus?.Leader === true && ManagerStatus.Reachability === 'reachable',
    }));
  }

  /** Ends a node's engine and containers as a power cut does, but for the cable: the switch keeps its port. */
  async kill(node: Node): Promise<void> {
    node.isUp = false;
    await node.engine.stop('SIGKILL');
  }

  async stop(node: Node): Promise<void> {
    node.isUp = false;
    await node.engine.stop();
  }

  async start(node: Node): Promise<void> {
    await node.engine.start();
    node.isUp = true;
  }

  /** Waits until the managers count on every node that is up. */
  async ready(): Promise<void> {
    const names = this.nodes.filter(({ isUp }) => isUp).map(({ name }) => name);
    await this.until('all nodes are ready', async () => {
      const ready = (await this.states()).filter(({ state }) => state === 'ready').map(({ name }) => name);
      return names.every((name) => ready.includes(name));
    });
  }

  /** Makes one of three managers lead: who missed the last change cannot be elected, and the leader is away. */
  async leadBy(node: Node): Promise<void> {
    const leader = await this.leader();
    if (leader === node) return;
    const third = this.nodes.find((other) => other.isManager && other !== node && other !== leader);
    assert.ok(third);
    await this.stop(third);
    await leader.engine.must('node', 'update', '--label-add', `missed-by=${third.name}`, leader.name);
    await this.stop(leader);
    await this.start(third);
    assert.equal(await this.leader(), node);
    await this.start(leader);
    await this.ready();
  }

  // --- services -----------------------------------------------------------------------------------------------------

  /** Tasks of a service, those of the past included. */
  async tasks(service: string): Promise<Task[]> {
    const filters = encodeURIComponent(JSON.stringify({ service: [service] }));
    return this.manager.api<Task[]>('GET', `/tasks?filters=${filters}`);
  }

  /** A service of idle containers; `words` are further options of docker service create. */
  async createService(name: string, words: string): Promise<void> {
    // busybox as process 1 ignores SIGTERM: without a grace period of its own each stop takes 10 s.
    const options = ['--detach', '--no-resolve-image', '--stop-grace-period', '0s', '--restart-delay', '500ms'];
    const given = words.split(' ').filter(Boolean);
    await this.manage('service', 'create', '--name', name, ...options, ...given, IMAGE, 'sleep', '36000');
  }

  async scale(service: string, replicas: number): Promise<void> {
    await this.manage('service', 'scale', '--detach', `${service}=${replicas}`);
  }

  /**
   * Waits until so many tasks run on nodes that are up, and no other is wanted there, still ends, or still has a container:
   * with a container that is removed goes the node's part of the network, if no task needs it at that moment. A task counts
   * with its container only: a node that comes back counts as ready some milliseconds before it tells which of its tasks
   * have ended (swarmkit agent/session.go: it registers first).
   */
  async settled(service: string, replicas: number, timeoutMs = SETTLE_TIMEOUT_MS): Promise<Task[]> {
    let tasks: Task[] = [];
    let running: Task[] = [];
    const isSettled = async () => {
      tasks = await this.tasks(service);
      // Managers keep the last word of a node that is gone.
      const down = await this.idsOfThoseDown();
      const here = tasks.filter(({ NodeID }) => !down.includes(NodeID));
      running = here.filter(({ DesiredState, Status }) => DesiredState === 'running' && Status.State === 'running');
      const isOnlyThose = here.every((task) => running.includes(task) || isOver(task));
      if (running.length !== replicas || !isOnlyThose) return false;
      return (await this.haveTheirContainers(service, tasks, running)) && this.runOwnPrograms(service) === replicas;
    };
    await this.until(`${service} has ${replicas} running tasks`, isSettled, timeoutMs, () => describeTasks(tasks));
    return running;
  }

  /** How many containers of the service are there to be looked into: an engine calls one running a moment before it is. */
  private runOwnPrograms(service: string): number {
    return new Set(this.occupants(service).map(({ containerId }) => containerId)).size;
  }

  /** Each task that runs has a container that does, and no container is of a task that is to be forgotten. */
  private async haveTheirContainers(
    service: string,
    tasks: readonly Task[],
    running: readonly Task[],
  ): Promise<boolean> {
    const up = this.nodes.filter(({ isUp }) => isUp);
    const containers = (await Promise.all(up.map((node) => containersOf(node, service, true)))).flat();
    const taskOf = ({ Labels }: Container) => Labels['com.docker.swarm.task.id'] ?? '';
    const kept = tasks.filter(({ DesiredState }) => DesiredState !== 'remove').map(({ ID }) => ID);
    const alive = containers.filter(({ State }) => State === 'running').map(taskOf);
    return containers.map(taskOf).every((id) => kept.includes(id)) && running.every(({ ID }) => alive.includes(ID));
  }

  private async idsOfThoseDown(): Promise<string[]> {
    const down = this.nodes.filter(({ isUp }) => !isUp).map(({ name }) => name);
    if (down.length === 0) return [];
    return (await this.states()).filter(({ name }) => down.includes(name)).map(({ id }) => id);
  }

  /** Waits until the managers want no task on the node any more: until they have read the order, all tasks look settled there. */
  async drain(name: string): Promise<void> {
    await this.manage('node', 'update', '--availability', 'drain', name);
    const id = (await this.states()).find((node) => node.name === name)?.id;
    await this.until(`no task is wanted on ${name}`, async () => {
      const tasks = await this.manager.api<Task[]>('GET', '/tasks');
      return tasks.every(({ NodeID, DesiredState }) => NodeID !== id || DesiredState !== 'running');
    });
  }

  /** Waits until a rolling update is through. */
  async updated(service: string): Promise<void> {
    const format = '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}';
    let state = '';
    let tasks: Task[] = [];
    const isOver = async () => {
      state = await this.manager.must('service', 'inspect', '--format', format, service);
      tasks = await this.tasks(service);
      return state === 'completed';
    };
    await this.until(`${service} is updated`, isOver, undefined, () => `${state}\n${describeTasks(tasks)}`);
  }

  /** What the managers and the nodes' engines with their plugins say, for a test that failed. */
  async describe(): Promise<string> {
    const tasks = await this.manager.api<Task[]>('GET', '/tasks');
    const logs = this.nodes.map(({ name, engine }) => `--- ${name}\n${engine.log().split('\n').slice(-80).join('\n')}`);
    return [describeTasks(tasks), ...logs].join('\n');
  }

  /** Removes services and waits until their containers are gone everywhere. */
  async removeServices(...names: string[]): Promise<void> {
    await this.manage('service', 'rm', ...names);
    await this.until(`the containers of ${names.join()} are gone`, async () => {
      const up = this.nodes.filter(({ isUp }) => isUp);
      const left = await Promise.all(up.flatMap((node) => names.map((name) => containersOf(node, name))));
      return left.flat().length === 0;
    });
  }

  /** Removing is refused until the last task is forgotten, by the managers and by the node. */
  async removeNetwork(name: string, engine = this.manager): Promise<void> {
    await this.until(`network ${name} is removed`, async () => {
      const { code, stderr } = await engine.docker('network', 'rm', name);
      return code === 0 || /not found/.test(stderr);
    });
  }

  /** Removes every service and every network that tests made. */
  async clear(): Promise<void> {
    let services: { Spec: { Name: string } }[] = [];
    await this.until('somebody leads', async () => {
      services = await this.manager.api('GET', '/services');
      return true;
    });
    if (services.length > 0) await this.removeServices(...services.map(({ Spec }) => Spec.Name));
    for (const { Name, ConfigOnly, Scope, Ingress } of await networksOf(this.manager))
      if (Scope === 'swarm' && !ConfigOnly && !Ingress) await this.removeNetwork(Name);
    for (const { engine } of this.nodes)
      for (const { Name, ConfigOnly } of await networksOf(engine))
        if (ConfigOnly) await this.removeNetwork(Name, engine);
  }

  // --- the world ----------------------------------------------------------------------------------------------------

  /** IPv4 addresses inside the containers of a service on all nodes, read from their namespaces. */
  occupants(service: string): Occupant[] {
    return this.nodes.filter(({ isUp }) => isUp).flatMap((node) => occupantsOf(node, service));
  }

  /** Looks all the time whether an address is in two containers; what `end` answers is how often it looked. */
  watch(...services: string[]): Watch {
    return new Watch(() => services.flatMap((service) => this.occupants(service)));
  }

  /**
   * Neither links nor records of any node, but what `isKept` names. `butOfLeaders`: what a manager gave out that leads no
   * more stays in its records, since it hears of no release.
   */
  async assertNothingLeft({
    butOfLeaders = false,
    isKept = (_node: Node, _what: string): boolean => false,
    timeoutMs = LEFTOVER_TIMEOUT_MS,
  } = {}): Promise<void> {
    const leader = await this.leader();
    const isExpected = (node: Node, what: string) =>
      isKept(node, what) || (butOfLeaders && node !== leader && what.includes('TsmacvlanGlobal'));
    const left = async () => {
      const all = await Promise.all(
        this.nodes.map(async (node) => {
          const unexpected = await leftoversOf(node, (what) => isExpected(node, what));
          return unexpected.map((what) => `${node.name} ${what}`);
        }),
      );
      return all.flat();
    };
    assert.deepEqual(await lastOf(left, timeoutMs, POLL_MS), []);
  }

  /** So many containers, each with an address of its own, for which one machine answers on the LAN. */
  async assertOneEach(service: string, count: number): Promise<Occupant[]> {
    const occupants = this.occupants(service);
    if (occupants.length !== count || occupants.some(({ address }) => address === 'none'))
      assert.fail(`not ${count} addresses:\n${describeOccupants(occupants)}\n${await this.describe()}`);
    assertUnique(occupants);
    for (const [address, macs] of await this.scanner.holders(occupants.map(({ address }) => address)))
      assert.equal(macs.length, 1, `${address} is answered ${macs.length} times: ${macs.join(', ')}`);
    return occupants;
  }

  /** By name, from one container, all; and one on another node answers. */
  async assertFindEachOther(service: string, occupants: readonly Occupant[]): Promise<void> {
    const [asker] = occupants;
    assert.ok(asker);
    const wanted = occupants.map(({ address }) => address).sort();
    let found: string[] = [];
    const isWhole = async () => {
      found = await resolve(asker, `tasks.${service}`);
      return found.join() === wanted.join();
    };
    await this.until(`tasks.${service} names all tasks`, isWhole, undefined, () => `found ${found.join()}`);
    const elsewhere = occupants.find(({ node }) => node !== asker.node);
    assert.ok(elsewhere, 'all are on one node');
    await assertPings(asker.node.engine, asker.containerId, elsewhere.address);
  }

  /** Waits until it is so; throws what `detail` says when the time is over. */
  async until(
    what: string,
    isSo: () => boolean | Promise<boolean>,
    timeoutMs = SETTLE_TIMEOUT_MS,
    detail: () => string = () => '',
  ): Promise<void> {
    let fault = '';
    const isSoNow = async () => {
      try {
        const answer = await isSo();
        fault = '';
        return answer;
      } catch (error) {
        // A manager without a leader refuses; it is asked again.
        fault = String(error);
        return false;
      }
    };
    await until(isSoNow, { timeoutMs, pollMs: POLL_MS, detail: () => [what, fault, detail()].join('\n') });
  }
}

export class Watch {
  readonly #look: () => Occupant[];
  readonly #watching: Promise<number>;
  #isOver = false;

  constructor(look: () => Occupant[]) {
    this.#look = look;
    this.#watching = this.#run();
    // What it throws is thrown by `end`.
    this.#watching.catch(() => undefined);
  }

  /** Throws what was found twice. */
  end(): Promise<number> {
    this.#isOver = true;
    return this.#watching;
  }

  async #run(): Promise<number> {
    let looks = 0;
    for (; !this.#isOver; looks++) {
      const seen = this.#look();
      // The nodes are not read at one moment: a container may have ended before the next one with its address was read.
      if (twice(seen).length > 0) assertUnique(stillThere(seen, this.#look()));
      await sleep(POLL_MS);
    }
    return looks;
  }
}

function stillThere(before: readonly Occupant[], now: readonly Occupant[]): Occupant[] {
  return before.filter((one) => now.some((two) => two.containerId === one.containerId && two.address === one.address));
}

function numbered(letter: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${letter}${index + 1}`);
}

interface Birth {
  name: string;
  index: number;
  isManager: boolean;
  settings: NonNullable<Plan['settings']>;
}

/** Of the host itself, on its cable. */
const wiringOf = ({ index }: Birth) => ({ cable: CABLES[index] ?? `eth${index}`, address: `192.0.2.${index + 1}` });

async function bootHost(lan: Lan, birth: Birth): Promise<Host> {
  const { cable, address } = wiringOf(birth);
  const host = await Host.boot(birth.name, lan, [cable]);
  await host.namespace.ip(`address add ${address}/24 dev ${cable}`);
  await host.namespace.ip(`route add default via ${GATEWAY}`);
  return host;
}

/** With the plugin on each. An engine packs it for two seconds of a core: the first does, and the others get a copy of what it has then. */
async function startEngines([first, ...others]: readonly Host[]): Promise<Engine[]> {
  assert.ok(first);
  const engine = await startEngine(first);
  await engine.must('plugin', 'create', DRIVER, await makePlugin('/run/plugin'));
  for (const host of others) await copyPlugin(first, host);
  return [engine, ...(await Promise.all(others.map(startEngine)))];
}

/** Under an id of its own, as each engine gives one: it names the plugin's cgroup, and those of all nodes lie beside each other. */
async function copyPlugin(from: Host, to: Host): Promise<void> {
  const [source, target] = [from, to].map(({ directory }) => join(directory, 'disk/docker')) as [string, string];
  mkdirSync(target, { recursive: true });
  await output(['cp', '--archive', join(source, 'plugins'), target]);
  const plugins = join(target, 'plugins');
  const id = readdirSync(plugins).find((name) => /^[0-9a-f]{64}$/.test(name)) ?? '';
  const ownId = randomBytes(32).toString('hex');
  renameSync(join(plugins, id), join(plugins, ownId));
  const configuration = join(plugins, ownId, 'config.json');
  writeFileSync(configuration, readFileSync(configuration, 'utf8').replaceAll(id, ownId));
}

async function startEngine(host: Host): Promise<Engine> {
  const engine = await Engine.start(host, VERSION);
  await engine.api('POST', `/images/busybox/tag?repo=${encodeURIComponent(IMAGE)}`);
  return engine;
}

async function toNode(birth: Birth, host: Host, engine: Engine): Promise<Node> {
  const { name, isManager, settings } = birth;
  const { cable, address } = wiringOf(birth);
  const given = { PARENTS: `lan=${cable}`, ...settings({ name, cable }) };
  const words = Object.entries(given).map(([key, value]) => `${key}=${value}`);
  await engine.api('POST', `/plugins/${DRIVER}/set`, words);
  await engine.api('POST', `/plugins/${DRIVER}/enable?timeout=30`);
  const plugin = await ManagedPlugin.find(engine, DRIVER);
  return { name, isManager, address, cable, host, engine, plugin, containers: new Map(), isUp: true };
}

/** `all`: not only those that run. */
async function containersOf({ engine }: Node, service: string, all = false): Promise<Container[]> {
  const filters = encodeURIComponent(JSON.stringify({ label: [`com.docker.swarm.service.name=${service}`] }));
  return engine.api<Container[]>('GET', `/containers/json?all=${all}&filters=${filters}`);
}

/** Read from files, without a word to the engine: tests look all the time. */
function occupantsOf(node: Node, service: string): Occupant[] {
  return runningOn(node)
    .filter((seen) => seen.service === service)
    .flatMap(({ containerId, pid }) => {
      const addresses = localAddressesIn(node.host.fileOf(pid, 'net/fib_trie'));
      const told = addresses?.length === 0 ? ['none'] : (addresses ?? []);
      return told.map((address) => ({ node, containerId, address }));
    });
}

/** Containers that containerd has, once their own program runs in place of runc's (`runc:[2:INIT]`). */
function runningOn({ host, containers }: Node): Seen[] {
  // The first container makes it.
  const ids = existsSync(host.file(TASKS)) ? readdirSync(host.file(TASKS)) : [];
  return ids.flatMap((containerId) => {
    const seen = containers.get(containerId) ?? firstLookAt(host, containerId);
    if (seen) containers.set(containerId, seen);
    return seen ?? [];
  });
}

function firstLookAt(host: Host, containerId: string): Seen | undefined {
  try {
    const pid = Number(readFileSync(join(host.file(TASKS), containerId, 'init.pid'), 'utf8'));
    if (readFileSync(host.fileOf(pid, 'comm'), 'utf8').startsWith('runc')) return undefined;
    const { Config } = JSON.parse(
      readFileSync(host.file(`/run/disk/docker/containers/${containerId}/config.v2.json`), 'utf8'),
    ) as { Config: { Labels?: Record<string, string> } };
    return { containerId, pid, service: Config.Labels?.['com.docker.swarm.service.name'] ?? '' };
  } catch (error) {
    // It has ended, or does not run yet.
    if (/^(ENOENT|ESRCH)$/.test((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** The IPv4 addresses of a name, as a container's own resolver says. */
export async function resolve({ node, containerId }: Occupant, name: string): Promise<string[]> {
  const { stdout } = await runInside(node.engine, containerId, 'nslookup', name);
  // The resolver's own address stands above.
  const answer = stdout.includes('Name:') ? stdout.slice(stdout.indexOf('Name:')) : '';
  return Array.from(answer.matchAll(/\d+\.\d+\.\d+\.\d+/g), ([address]) => address).sort();
}

function describeTasks(tasks: readonly Task[]): string {
  return tasks
    .map(({ ID, Slot, DesiredState, Status, NetworksAttachments = [] }) => {
      const addresses = NetworksAttachments.flatMap(({ Addresses = [] }) => Addresses).join();
      return `${ID.slice(0, 8)} slot ${Slot} ${Status.State} (wanted ${DesiredState}) ${addresses} ${Status.Err ?? ''}`;
    })
    .join('\n');
}

interface SeenNetwork {
  Name: string;
  Scope: string;
  ConfigOnly: boolean;
  Ingress: boolean;
}

function networksOf(engine: Engine): Promise<SeenNetwork[]> {
  return engine.api<SeenNetwork[]>('GET', '/networks');
}

interface Link {
  ifname: string;
  ifalias?: string;
}

/** Records; when there are none, links of ours, save the place for questions to the LAN: a look at them takes a program. */
async function leftoversOf({ host, plugin }: Node, isExpected: (what: string) => boolean): Promise<string[]> {
  const records = Object.entries(readRecords(join(plugin.stateDirectory(), 'tsmacvlan.db')));
  const left = records.flatMap(([kind, rows]) => (rows as object[]).map((row) => `${kind}: ${JSON.stringify(row)}`));
  const unexpected = left.filter((what) => !isExpected(what));
  if (unexpected.length > 0) return unexpected;
  const links = await host.namespace.show<Link>('link');
  const ours = links.filter(({ ifalias = '' }) => ifalias.startsWith('tsmacvlan') && ifalias !== 'tsmacvlan probe');
  return ours.map(({ ifname }) => `link ${ifname}`).filter((what) => !isExpected(what));
}

/** Neither it nor its container comes back. */
function isOver({ Status }: Task): boolean {
  return ['complete', 'shutdown', 'failed', 'rejected', 'remove', 'orphaned'].includes(Status.State);
}

/** Fails when two have one address. */
function assertUnique(occupants: readonly Occupant[]): void {
  assert.deepEqual(twice(occupants), [], `addresses more than once:\n${describeOccupants(occupants)}`);
}

function twice(occupants: readonly Occupant[]): string[] {
  const all = occupants.map(({ address }) => address).filter((address) => address !== 'none');
  return all.sort().filter((address, index) => all[index - 1] === address);
}

function describeOccupants(occupants: readonly Occupant[]): string {
  const lines = occupants.map(({ node, containerId, address }) =>
    [node.name, containerId.slice(0, 12), address].join(' '),
  );
  return lines.sort().join('\n');
}
