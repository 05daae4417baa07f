/**
 * Containers of several engines live and die at random on one LAN, on one subnet with a range for each host, while
 * daemons, engines and parents fail. After each round all must tell the same (invariant.ts); what only the collector can
 * take back must be known to it, and is gone in the end.
 *
 * A seed decides what is done and what fails; when a fault hits is left to the machine.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { askDaemon, COLLECT_LEAKS } from '../../src/server/client.ts';
import { randomOf } from './drill.ts';
import { type Engine, isLate } from './engine.ts';
import { type Violation, lastOf, readRecords, violations } from './invariant.ts';
import type { Lan } from './namespace.ts';
import type { Machine } from './site.ts';

export interface Plan {
  readonly seed: number;
  /** Rounds begin within this time. */
  readonly durationMs: number;
  /** The only fault there is, by its name below; any when not given. */
  readonly fault?: string | undefined;
  /** Until the collector has taken the last leak (some minutes). */
  readonly untilClean: boolean;
}

export interface Score {
  rounds: number;
  /** Requests to the engines. */
  requests: number;
  /** Of these, those that an engine refused, mostly for a fault. */
  refused: number;
  /** Calls that the daemons answered. */
  calls: number;
  readonly faults: Record<string, number>;
  /** Engines that did not answer any more, by their own fault, and were killed. */
  hung: number;
  /** What only the collector takes back, seen after rounds. */
  suspected: number;
  /** Networks removed while a daemon was away, which took an operator. */
  forgotten: number;
  /** Pools whose engine was killed before their network was made: the next network had them. */
  takenOver: number;
  /** Endpoints that an engine lists though it said Leave: their containers were removed. */
  left: number;
  readonly broken: string[];
  /** Resident, MB, of each host's daemon. */
  memoryMb: { start: number[]; end: number[] };
}

type Random = () => number;
type Fault = (machine: Machine, random: Random) => Promise<void>;

const SLOTS = 3;
const STEPS = 3;
const SETTLE_MS = 40_000;
/** Two minutes of patience, and the readings before and after. */
const CLEAN_MS = 240_000;
export const SUBNET = '192.0.2.0/24';
export const GATEWAY = '192.0.2.254';
const SUBNET_V6 = '2001:db8:5::/64';

export class Soak {
  readonly #machines: readonly Machine[];
  readonly #lan: Lan;
  readonly #plan: Plan;
  readonly #random: Random;
  readonly #freed = new Map<Engine, Promise<void>>();
  /** What was asked of the engines and what failed, line by line. */
  readonly journal: string[] = [];
  readonly #score: Score = {
    rounds: 0,
    requests: 0,
    refused: 0,
    calls: 0,
    faults: {},
    hung: 0,
    suspected: 0,
    forgotten: 0,
    takenOver: 0,
    left: 0,
    broken: [],
    memoryMb: { start: [], end: [] },
  };

  constructor(machines: readonly Machine[], lan: Lan, plan: Plan) {
    this.#machines = machines;
    this.#lan = lan;
    this.#plan = plan;
    this.#random = randomOf(plan.seed);
  }

  async run(): Promise<Score> {
    await Promise.all(this.#machines.map((machine, number) => this.#makeNetwork(machine, number)));
    this.#score.memoryMb.start = await this.#memory();
    const deadlineMs = performance.now() + this.#plan.durationMs;
    while (performance.now() < deadlineMs && this.#score.broken.length === 0) await this.#round();
    await this.#empty();
    this.#score.memoryMb.end = await this.#memory();
    this.#score.calls = this.#machines.reduce((sum, { plugin }) => sum + callsIn(plugin.log()), 0);
    return this.#score;
  }

  // --- rounds -----------------------------------------------------------------------------------------------------

  async #round(): Promise<void> {
    this.#score.rounds++;
    const seeds = this.#machines.map(() => Math.floor(this.#random() * 2 ** 32));
    await Promise.all(this.#machines.map((machine, number) => this.#roundOn(machine, number, seeds[number] ?? 0)));
    // With the journal and the logs of all, as anything that is broken.
    await this.#check().catch((error: unknown) => this.#break(String(error)));
  }

  async #roundOn(machine: Machine, number: number, seed: number): Promise<void> {
    const random = randomOf(seed);
    const fault = pick(
      random,
      Object.keys(FAULTS).filter((name) => name === (this.#plan.fault ?? name)),
    );
    const isQuiet = random() < 0.3;
    const slots = Array.from({ length: SLOTS }, (_, slot) => this.#live(machine, number, slot, randomOf(seed + slot)));
    // A call repeated while the engine takes back what it made would be a new one.
    if (fault === 'calls repeated') await Promise.all(slots);
    if (!isQuiet) await this.#inject(machine, fault, random);
    await Promise.all(slots);
  }

  async #inject(machine: Machine, name: string, random: Random): Promise<void> {
    await sleep(random() * 2000);
    this.#score.faults[name] = (this.#score.faults[name] ?? 0) + 1;
    this.#note(`${machine.host.name}: fault: ${name}`);
    try {
      await FAULTS[name]?.(machine, random);
    } catch (error) {
      this.#break(`${machine.host.name}: ${name}: ${String(error)}`);
    }
  }

  async #live(machine: Machine, number: number, slot: number, random: Random): Promise<void> {
    for (let step = 0; step < STEPS; step++) await this.#step(machine, `${number}${slot}`, random);
  }

  // --- containers -------------------------------------------------------------------------------------------------

  async #step(machine: Machine, id: string, random: Random): Promise<void> {
    const name = `c${id}`;
    const state = await machine.engine
      .api<{ State: { Running: boolean } }>('GET', `/containers/${name}/json`)
      .then(({ State }) => (State.Running ? 'running' : 'stopped'))
      .catch(() => 'absent' as const);
    const network = `x${id}`;
    const asked = pick(random, CHOICES[state]);
    switch (asked) {
      case 'create':
        await this.#ask(machine, 'POST', `/containers/create?name=${name}`, containerBody(random));
        return this.#ask(machine, 'POST', `/containers/${name}/start`);
      case 'remove':
        return this.#ask(machine, 'DELETE', `/containers/${name}?force=1`);
      case 'connect':
        await this.#ask(machine, 'POST', '/networks/create', networkBody(network, id, random));
        return this.#ask(machine, 'POST', `/networks/${network}/connect`, { Container: name });
      case 'drop':
        return this.#ask(machine, 'DELETE', `/networks/${network}`);
      case 'disconnect':
        return this.#ask(machine, 'POST', `/networks/${network}/disconnect`, { Container: name });
      default:
        return this.#ask(machine, 'POST', `/containers/${name}/${asked}${asked === 'start' ? '' : '?t=0'}`);
    }
  }

  /** What the engine refuses, or is not there to answer, is only counted: the round's check tells what came of it. */
  async #ask({ engine, host }: Machine, method: string, path: string, body?: object): Promise<void> {
    this.#score.requests++;
    const asked = this.#note(`${host.name}: ${method} ${path} ${JSON.stringify(body ?? null)}`);
    await engine.api(method, path, body).catch(async (error: unknown) => {
      this.#score.refused++;
      this.#note(`${host.name}: that of ${asked}: ${String(error)}`);
      if (isLate(error)) await this.#free(engine);
    });
  }

  /**
   * Engine 28.5.2 was seen to wait for ever for the output of a container that it could not start, with the container locked
   * (containerStart, ForceDelete, stream.Config.Wait): no call of ours was under way.
   */
  async #free(engine: Engine): Promise<void> {
    const running = this.#freed.get(engine) ?? this.#restart(engine).finally(() => this.#freed.delete(engine));
    this.#freed.set(engine, running);
    await running;
  }

  async #restart(engine: Engine): Promise<void> {
    this.#score.hung++;
    await engine.restart('SIGKILL');
  }

  /** Answers when it was. */
  #note(line: string): string {
    const at = new Date().toISOString();
    this.journal.push(`${at} ${line}`);
    return at;
  }

  async #makeNetwork({ engine }: Machine, number: number): Promise<void> {
    const ipam = [
      { Subnet: SUBNET, Gateway: GATEWAY, IPRange: `192.0.2.${64 * number}/26` },
      { Subnet: SUBNET_V6, IPRange: `2001:db8:5:0:${number + 1}::/80` },
    ];
    const options = { parent: 'lan0' };
    const body = { Name: 'lan', Driver: 'tsmacvlan', EnableIPv6: true, Options: options };
    await engine.api('POST', '/networks/create', { ...body, IPAM: { Driver: 'tsmacvlan', Config: ipam } });
  }

  // --- what must be true ------------------------------------------------------------------------------------------

  async #check(): Promise<void> {
    await this.#finishRemovals();
    await this.#finishDisconnects();
    let found: Violation[] = [];
    const faults = await lastOf(async () => {
      found = await this.#look();
      return found.filter((violation) => !isLeak(violation));
    }, SETTLE_MS);
    for (const { kind, text } of faults) this.#break(`${kind}: ${text}`);
    // These are not waited for.
    const leaks = found.filter(isLeak);
    this.#score.suspected += leaks.length;
    if (leaks.length === 0) return;
    const known = await this.#suspects();
    // Some were collected since.
    const still = (await this.#look()).map(({ text }) => text);
    for (const leak of leaks) if (!known.includes(leak.name) && still.includes(leak.text)) await this.#mend(leak);
  }

  /** An engine that is killed in the middle of network rm has released the pool and lists the network: once more. */
  async #finishRemovals(): Promise<void> {
    for (const machine of this.#machines) {
      const { networks, pools } = readRecords(machine.plugin.stateFile);
      for (const { id } of networks.filter((network) => !pools.some(({ networkId }) => networkId === network.id)))
        await this.#ask(machine, 'DELETE', `/networks/${id}`);
    }
  }

  /**
   * An engine with live-restore that is killed between Leave and DeleteEndpoint has the link back and goes on listing the
   * container's endpoint, until the container goes.
   */
  async #finishDisconnects(): Promise<void> {
    for (const machine of this.#machines) {
      const { endpoints } = readRecords(machine.plugin.stateFile);
      const log = machine.plugin.log();
      const left = endpoints.filter(({ id, state }) => state === 'joined' && isLeft(log, id));
      for (const { id, networkId } of left) {
        const container = await containerOf(machine.engine, networkId, id);
        if (container === undefined) continue;
        this.#score.left++;
        await this.#ask(machine, 'DELETE', `/containers/${container}?force=1`);
      }
    }
  }

  /** What is not for the collector to take is for an operator or for the next network, or it is a fault. */
  async #mend({ name, text }: Violation): Promise<void> {
    for (const machine of this.#machines) {
      const { networks, pools } = readRecords(machine.plugin.stateFile);
      if (networks.some(({ id }) => id.startsWith(name))) return this.#forget(machine, name);
      if (pools.some(({ networkId, subnet }) => networkId === null && subnet === name))
        return this.#takeOver(machine, name);
    }
    this.#break(`unknown to the collector: ${text}`);
  }

  async #forget({ plugin }: Machine, networkId: string): Promise<void> {
    await plugin.command('forget', networkId);
    this.#score.forgotten++;
  }

  /** An engine that was killed between RequestPool and CreateNetwork left it; it goes with the next network that has it. */
  async #takeOver(machine: Machine, subnet: string): Promise<void> {
    const ipam = { Driver: 'tsmacvlan', Config: [{ Subnet: subnet }] };
    const body = { Name: 'heir', Driver: 'tsmacvlan', IPAM: ipam, Options: { parent: 'lan0' } };
    await this.#ask(machine, 'POST', '/networks/create', body);
    await this.#ask(machine, 'DELETE', '/networks/heir');
    this.#score.takenOver++;
  }

  async #look(): Promise<Violation[]> {
    try {
      return await violations(this.#machines, this.#lan);
    } catch (error) {
      if (!isLate(error)) throw error;
      await Promise.all(this.#machines.map(({ engine }) => this.#free(engine)));
      return violations(this.#machines, this.#lan);
    }
  }

  async #suspects(): Promise<string> {
    // What an engine did in the last 10 s is not looked at.
    await sleep(11_000);
    return JSON.stringify(await Promise.all(this.#machines.map(findingsOf)));
  }

  async #empty(): Promise<void> {
    for (const machine of this.#machines) {
      for (let slot = 0; slot < SLOTS; slot++) {
        const id = `${this.#machines.indexOf(machine)}${slot}`;
        await this.#ask(machine, 'DELETE', `/containers/c${id}?force=1`);
        await this.#ask(machine, 'DELETE', `/networks/x${id}`);
      }
    }
    await this.#check();
    if (!this.#plan.untilClean) return;
    for (const leak of await lastOf(() => this.#look(), CLEAN_MS)) await this.#mend(leak);
    for (const { kind, text } of await this.#look()) this.#break(`in the end: ${kind}: ${text}`);
  }

  #break(text: string): void {
    this.#note(`broken: ${text}`);
    this.#score.broken.push(`round ${this.#score.rounds}: ${text}`);
  }

  #memory(): Promise<number[]> {
    return Promise.all(this.#machines.map(({ plugin }) => plugin.memoryMb()));
  }
}

const CHOICES = {
  absent: ['create', 'create', 'create', 'drop'],
  stopped: ['start', 'start', 'drop', 'remove'],
  running: ['stop', 'restart', 'kill', 'connect', 'connect', 'disconnect', 'remove'],
} as const;

const FAULTS: Readonly<Record<string, Fault>> = {
  'daemon killed': ({ plugin }) => plugin.restart('SIGKILL'),
  'daemon ended': ({ plugin }) => plugin.restart('SIGTERM'),
  'daemon away': async ({ plugin }, random) => {
    await plugin.stop('SIGTERM');
    await sleep(2000 + random() * 18_000);
    await plugin.start();
  },
  'engine killed': ({ engine }) => engine.restart('SIGKILL'),
  'engine ended': ({ engine }) => engine.restart('SIGTERM'),
  'parent down': async ({ host }, random) => {
    await host.namespace.ip('link set lan0 down');
    await sleep(random() * 3000);
    await host.namespace.ip('link set lan0 up');
  },
  'calls repeated': repeatCalls,
};

/** As an engine would that lost the answers, and as none would. What is in use must not be hurt by it. */
async function repeatCalls({ host, plugin }: Machine): Promise<void> {
  const ask = (call: string, body: object) => askDaemon(socketOf(host), call, body).catch(() => undefined);
  const { endpoints, pools, networks } = readRecords(plugin.stateFile);
  for (const { id, networkId, addresses } of endpoints.filter(({ state }) => state === 'joined')) {
    const ids = { NetworkID: networkId, EndpointID: id };
    const address = addresses.find((text) => !text.includes(':')) ?? '';
    const addressIPv6 = addresses.find((text) => text.includes(':')) ?? '';
    await ask('NetworkDriver.CreateEndpoint', {
      ...ids,
      Interface: { Address: address, AddressIPv6: addressIPv6 },
    });
    await ask('NetworkDriver.Join', { ...ids, SandboxKey: '/nowhere' });
    const tied = pools.filter((pool) => pool.networkId === networkId);
    for (const { id: PoolID } of tied)
      await ask('IpamDriver.ReleaseAddress', { PoolID, Address: address.split('/')[0] });
  }
  for (const { addressSpace, subnet, range } of pools)
    await ask('IpamDriver.RequestPool', {
      AddressSpace: addressSpace,
      Pool: subnet,
      SubPool: range ?? '',
      V6: subnet.includes(':'),
    });
  for (const { id } of networks)
    await ask('NetworkDriver.DeleteEndpoint', { NetworkID: id, EndpointID: 'f'.repeat(64) });
  await ask('NetworkDriver.DeleteNetwork', { NetworkID: 'f'.repeat(64) });
}

/** What the daemons logged of all that a text names. */
export function traces(machines: readonly Machine[], text: string): string {
  const names = [...new Set(text.match(/[0-9a-f]{12}|\d+(\.\d+){3}|2001:[0-9a-f:]*[0-9a-f]/g))];
  const lines = machines.flatMap(({ host, plugin }) => {
    const all = plugin.log().split('\n');
    return all.filter((line) => names.some((name) => line.includes(name))).map((line) => `${host.name}: ${line}`);
  });
  return lines.slice(-200).join('\n');
}

/** Leave was the last that the daemon heard of the endpoint. */
function isLeft(log: string, endpointId: string): boolean {
  const calls = [...log.matchAll(/NetworkDriver\.(Join|Leave|DeleteEndpoint) .*endpoint=(\w+)/g)];
  return calls.findLast(([, , id = '']) => endpointId.startsWith(id))?.[1] === 'Leave';
}

async function containerOf(engine: Engine, networkId: string, endpointId: string): Promise<string | undefined> {
  const { Containers } = await engine
    .api<{ Containers: Record<string, { EndpointID: string }> }>('GET', `/networks/${networkId}`)
    .catch(() => ({ Containers: {} }));
  return Object.entries(Containers).find(([, { EndpointID }]) => EndpointID === endpointId)?.[0];
}

function isLeak({ kind }: Violation): boolean {
  return kind === 'surplus';
}

/** Two readings take 4 s, and all that is asked of a daemon 9 s at most: a busy machine is asked again. */
async function findingsOf({ host }: Machine): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await askDaemon(socketOf(host), COLLECT_LEAKS, { DryRun: true });
    } catch (error) {
      if (attempt === 5 || !String(error).includes('was not done within')) throw error;
    }
  }
}

function socketOf(host: Machine['host']): string {
  return host.file('/run/docker/plugins/tsmacvlan.sock');
}

function containerBody(random: Random): object {
  const policy = pick(random, ['no', 'no', 'always']);
  const host = { NetworkMode: 'lan', RestartPolicy: { Name: policy } };
  return { Image: 'busybox', Cmd: ['sleep', '3600'], StopTimeout: 0, HostConfig: host };
}

function networkBody(name: string, id: string, random: Random): object {
  const options = { parent: 'lan0', macvlan_mode: pick(random, ['bridge', 'private', 'vepa']) };
  const ipam = { Driver: 'tsmacvlan', Config: [{ Subnet: `10.1.${Number(id)}.0/24` }] };
  return { Name: name, Driver: 'tsmacvlan', CheckDuplicate: true, IPAM: ipam, Options: options };
}

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[Math.floor(random() * choices.length)] as T;
}

/** One line per call. */
function callsIn(log: string): number {
  return log.match(/(NetworkDriver|IpamDriver)\.\w+/g)?.length ?? 0;
}
