/** A scenario happens: the world is built, the steps are done at their moments, the judge looks on, and all is taken apart. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Audit, isManagers, leaseRecords, recordsIn } from './audit.ts';
import type { CallSeen, NetworkSpec, Start } from './container.ts';
import { Engine } from './engine.ts';
import { Host, type Line, PARENT } from './host.ts';
import { COLLECTED_MS, Judge, USUAL_RATE, type Violation, daemonOf, seconds } from './judge.ts';
import { parseAddress } from './kernel/address.ts';
import { GOOD, Lan, type Quality } from './lan.ts';
import { Random } from './random.ts';
import { type Burst, SETTLED_MS, burstsOf } from './quiet.ts';
import { EtcdWorld } from './etcd/world.ts';
import { Progress } from './progress.ts';
import { GATEWAY, type Scenario, type Step } from './scenario.ts';
import { Stranger } from './strangers.ts';
import { SUBNETS, familiesOf, rangeOf, rangeOfFamily, subpoolOf } from './subnets.ts';
import { Swarm } from './swarm.ts';
import { scheduler } from './time.ts';

const QUALITIES: Readonly<Record<Scenario['quality'], Quality>> = {
  good: GOOD,
  slow: { delayMs: 4, longestMs: 80, loss: 0, duplication: 0.01 },
  lossy: { delayMs: 0.3, longestMs: 5, loss: 0.03, duplication: 0.03 },
};

/** What a run came to. */
export interface Outcome {
  readonly violations: readonly Violation[];
  /** By the calendar. */
  readonly virtualMs: number;
  readonly steps: number;
  /** Of all hosts; and the part of it that was played event by event. */
  readonly hostMs: number;
  readonly playedMs: number;
  readonly bursts: number;
  readonly containers: number;
  /** How long they lived, all together. */
  readonly containerMs: number;
  readonly refusals: number;
  readonly doubles: number;
  readonly excused: ReadonlyMap<string, number>;
  readonly faults: ReadonlyMap<string, number>;
  readonly frames: number;
  /** Of all that was logged. */
  readonly digest: string;
  readonly log: readonly string[];
  /** Of all hosts, before all is stopped and given back. */
  readonly records: readonly string[];
}

/** How a scenario is played. */
interface Manner {
  readonly keepsLog?: boolean;
  /** Quiet stretches are played event by event too. */
  readonly isWhole?: boolean;
}

/** How long a host takes to come up before the first step. */
const BEGIN_MS = 5000;
/** What is left of a stretch after the cut, at most: the periodic timers are somewhere in their periods then. */
const LAST_MS = 60_000;
/** Networks are removed so long after the last container was stopped. */
const END_MS = 100_000;
/** The longest that a fault lasts. */
const MENDED_MS = 80_000;

/** A daemon that was killed is back by then. */
const KILLED_MS = 1500;
const SWARM_NETWORK = 'dgqfni1fpk397osx2mlscegj6';

type LeaderStep = Extract<Step, { do: 'change leader' | 'kill leader after' | 'kill leading engine' }>;

function isOfLeader(step: Step): step is LeaderStep {
  return ['change leader', 'kill leader after', 'kill leading engine'].includes(step.do);
}

/** Runs it until the end, or until something is wrong. */
export async function play(scenario: Scenario, manner: Manner = {}): Promise<Outcome> {
  scheduler.reset();
  const world = new World(scenario, manner);
  try {
    return await world.play();
  } finally {
    world.remove();
  }
}

class World {
  readonly #scenario: Scenario;
  readonly #manner: Manner;
  readonly #directory = mkdtempSync(join(tmpdir(), 'tsmacvlan-sim-'));
  readonly #lan: Lan;
  readonly #hosts: Host[];
  readonly #engines: Engine[];
  readonly #strangers: Stranger[];
  readonly #judge: Judge;
  readonly #etcd: EtcdWorld | null;
  readonly #audit: Audit;
  readonly #progress: Progress;
  /** Null where the hosts are in none. */
  readonly #swarm: Swarm | null;
  readonly #violations: Violation[] = [];
  readonly #hash = createHash('sha256');
  readonly #log: string[] = [];
  readonly #records: string[] = [];
  readonly #faults = new Map<string, number>();
  #containers = 0;
  #refusals = 0;
  #bursts = 0;
  #isEnding = false;

  constructor(scenario: Scenario, manner: Manner) {
    this.#scenario = scenario;
    this.#manner = manner;
    const random = new Random(scenario.seed);
    this.#lan = new Lan(random.fork('lan'), QUALITIES[scenario.quality]);
    const subnet = rangeOf(scenario);
    this.#etcd = scenario.isShared ? new EtcdWorld() : null;
    this.#hosts = scenario.hosts.map((_, index) => this.#makeHost(`host${index + 1}`, random));
    this.#engines = this.#hosts.map((host) => this.#makeEngine(host, random));
    this.#strangers = scenario.strangers.map(({ kind }, index) => {
      const name = `stranger${index + 1}`;
      return new Stranger({
        name,
        kind,
        random: random.fork(name),
        port: this.#lan.plug(name),
        subnet,
      });
    });
    this.#filterPorts(random);
    this.#judge = new Judge({
      lan: this.#lan,
      hosts: this.#hosts,
      engines: this.#engines,
      strangers: this.#strangers,
      probeRate: scenario.probeRate || USUAL_RATE,
      knowsNeighbour: scenario.filter?.hasRouter === true,
      gateways: new Set(scenario.hosts.map(({ gateway }) => gateway)),
      onViolation: (violation) => {
        this.#violations.push(violation);
        this.#write(`VIOLATION ${violation.rule}: ${violation.what}`);
      },
    });
    this.#audit = new Audit({
      hosts: this.#hosts,
      engines: this.#engines,
      etcd: this.#etcd,
      directoryOf: (host) => this.#directoryOf(host),
      violate: (rule, what) => this.#judge.violate(rule, what),
    });
    const [judge, engines, strangers] = [this.#judge, this.#engines, this.#strangers];
    this.#progress = new Progress({ scenario, judge, hosts: this.#hosts, engines, strangers });
    this.#swarm = scenario.isSwarm ? this.#makeSwarm() : null;
  }

  /** Ports that let through only what is for the NIC, or from it, and a router that hosts know. */
  #filterPorts(random: Random): void {
    const { filter } = this.#scenario;
    if (filter === null) return;
    for (const { port, nic } of this.#hosts) {
      port.allowed = new Set([nic.mac]);
      port.isSecured = filter.how === 'security';
    }
    if (!filter.hasRouter) return;
    const name = `stranger${this.#strangers.length + 1}`;
    const router = new Stranger({
      name,
      kind: 'router',
      random: random.fork(name),
      port: this.#lan.plug(name),
      subnet: [],
    });
    router.take(GATEWAY);
    const address = parseAddress(GATEWAY);
    for (const host of this.#hosts) if (address !== undefined) host.addRoute(address, router.nic.macAddress);
  }

  #makeSwarm(): Swarm {
    return new Swarm({
      engines: this.#engines,
      network: { ...this.#networkOf(0), isOfSwarm: true },
      violate: (rule, what) => this.#judge.violate(rule, what),
      isCalm: ({ host }, forMs) => this.#judge.calmSince(host.name, daemonOf(host)) < scheduler.nowMs - forMs,
      freeFor: (forMs) => this.#progress.freeFor(forMs),
      refused: (node, address, error) => this.#progress.judgeNode(node, address, error),
      noteUse: (address) => this.#judge.noteUse(address),
    });
  }

  #directoryOf({ name }: { readonly name: string }): string {
    return join(this.#directory, name);
  }

  #makeHost(name: string, random: Random): Host {
    const onLine = (host: Host, line: Line) => {
      this.#judge.hearLine(host, line);
      this.#write(`${host.name} ${line.level} ${line.message} ${JSON.stringify(line.fields)}`);
    };
    const directory = this.#directoryOf({ name });
    const { probeRate, isSwarm, asksLan, looksByTime } = this.#scenario;
    const settings = {
      ...this.#etcd?.settings,
      ...(probeRate > 0 && { PROBE_RATE: String(probeRate) }),
      ...(isSwarm && { SCOPE: 'global' }),
      ...(!asksLan && { PROBE: 'off' }),
    };
    const host = new Host({ name, random: random.fork(name), port: this.#lan.plug(name), directory, settings, onLine });
    host.etcd = this.#etcd?.networkOf(name) ?? null;
    host.kernel.tellsReadable = looksByTime !== true;
    return host;
  }

  #makeEngine(host: Host, random: Random): Engine {
    return new Engine({
      host,
      random: random.fork(`${host.name} engine`),
      onStart: (start) => this.#started(start),
      onCall: (call) => this.#hearCall(call),
    });
  }

  #hearCall(call: CallSeen): void {
    this.#judge.hearCall(call);
    this.#swarm?.hearCall(call);
  }

  async play(): Promise<Outcome> {
    const { steps, lengthMs } = this.#scenario;
    for (const host of this.#hosts) host.start();
    this.#makeNetworks();
    const isOver = () => this.#violations.length > 0;
    for (const burst of burstsOf(steps)) if (!isOver()) await this.#playBurst(burst, isOver);
    if (!isOver()) await this.#passTo(lengthMs, isOver);
    if (!isOver()) await this.#end(isOver);
    return this.#outcome();
  }

  #makeNetworks(): void {
    const swarm = this.#swarm;
    if (swarm !== null) return void scheduler.world(1000, () => swarm.lead(swarm.leadingEngine));
    for (const [index, engine] of this.#engines.entries())
      scheduler.world(1000 + index, () => engine.do(() => engine.createNetwork(this.#networkOf(index))));
  }

  /** Nothing has happened for long. */
  #lookInQuiet(isSettled: boolean): void {
    this.#audit.look(isSettled);
    if (!isSettled) return;
    this.#swarm?.audit(({ host }) => {
      const records = leaseRecords(join(this.#directoryOf(host), 'tsmacvlan.db'));
      const managers = records.filter(({ kind, realm }) => kind === 'container' && isManagers(realm));
      return new Map(managers.map(({ address, askedBy }) => [address, askedBy === undefined]));
    });
  }

  async #playBurst({ atMs, steps }: Burst, isOver: () => boolean): Promise<void> {
    this.#bursts++;
    await this.#passTo(atMs, isOver);
    const beganMs = scheduler.calendarMs;
    for (const step of steps) scheduler.world(Math.max(BEGIN_MS, step.atMs) - beganMs, () => this.#do(step));
    const last = Math.max(...steps.map((step) => step.atMs));
    await scheduler.run(scheduler.nowMs + last - beganMs, isOver);
  }

  /** To this moment of the calendar. Of a long quiet stretch the first part is played and the rest cut out. */
  async #passTo(calendarMs: number, isOver: () => boolean): Promise<void> {
    while (!isOver() && calendarMs - scheduler.calendarMs > SETTLED_MS) {
      await scheduler.run(scheduler.nowMs + SETTLED_MS, isOver);
      if (isOver() || !this.#isQuiet) continue;
      this.#lookInQuiet(true);
      if (this.#manner.isWhole) continue;
      scheduler.cutMs += Math.max(0, calendarMs - scheduler.calendarMs - LAST_MS);
    }
    await scheduler.run(scheduler.nowMs + calendarMs - scheduler.calendarMs, isOver);
  }

  /** Nothing lasts that somebody began. */
  get #isQuiet(): boolean {
    return this.#judge.isCalm && this.#engines.every(({ isIdle }) => isIdle);
  }

  /** Everything is mended, stopped and given back, and what is left then is too much. */
  async #end(isOver: () => boolean): Promise<void> {
    this.#isEnding = true;
    await scheduler.run(scheduler.nowMs + MENDED_MS, isOver);
    if (!isOver() && this.#isQuiet) this.#lookInQuiet(false);
    for (const host of this.#hosts) this.#records.push(...recordsIn(join(this.#directoryOf(host), 'tsmacvlan.db')));
    this.#swarm?.stopAll();
    if (this.#swarm === null)
      for (const engine of this.#engines)
        for (const name of [...engine.containers.keys()]) engine.do(() => engine.stop(name));
    await scheduler.run(scheduler.nowMs + END_MS, isOver);
    this.#swarm?.removeNetwork();
    for (const [index, engine] of this.#engines.entries())
      engine.do(() => engine.removeNetwork(this.#networkOf(index).id));
    await scheduler.run(scheduler.nowMs + COLLECTED_MS, isOver);
    if (!isOver()) this.#judge.expectNothing();
  }

  #networkOf(index: number): NetworkSpec {
    const { hosts, addresses, isSwarm } = this.#scenario;
    return {
      id: isSwarm ? SWARM_NETWORK : `${index + 1}`.repeat(64),
      subnets: familiesOf(this.#scenario).map((family) => {
        const { subnet, prefix, prefixLength } = SUBNETS[family];
        const named = hosts[index]?.gateway ?? '';
        return {
          subnet,
          range: subpoolOf(addresses, family),
          gateway: named.startsWith(prefix) ? named : `${prefix}1`,
          addresses: rangeOfFamily(addresses, family),
          prefixLength,
        };
      }),
      isDockersIpam: hosts[index]?.isDockersIpam ?? false,
      options: { parent: PARENT },
      isOfSwarm: isSwarm,
    };
  }

  // --- steps -------------------------------------------------------------------------------------------------------

  #do(step: Step): void {
    this.#write(`STEP ${JSON.stringify(step)}`);
    if ('stranger' in step) this.#doStranger(step, this.#strangers[step.stranger] as Stranger);
    else if (step.do === 'start' || step.do === 'stop') this.#doContainer(step, this.#engines[step.host] as Engine);
    else if (isOfLeader(step)) this.#doLeader(step);
    else if (!('host' in step)) this.#doEtcd(step);
    else this.#doFault(step, this.#hosts[step.host] as Host, this.#engines[step.host] as Engine);
  }

  #doContainer(step: Extract<Step, { do: 'start' | 'stop' }>, engine: Engine): void {
    if (!engine.isRunning || engine.host.isAsleep) return;
    if (this.#swarm !== null) {
      if (step.do === 'start') return this.#swarm.start(engine, step.container);
      return this.#swarm.stop(engine, step.container);
    }
    const networkId = this.#networkOf(step.host).id;
    if (step.do === 'start') engine.do(() => engine.start(step.container, networkId, step.wanted));
    else
      engine.do(async () => {
        for (const address of await engine.stop(step.container)) this.#judge.noteUse(address);
      });
  }

  /** What is done to whoever leads the swarm. */
  #doLeader(step: LeaderStep): void {
    const swarm = this.#swarm;
    if (swarm === null) return;
    this.#count(step.do);
    const engine = swarm.leadingEngine;
    const { host } = engine;
    switch (step.do) {
      case 'change leader':
        return swarm.changeLeader();
      case 'kill leader after':
        return host.daemon?.afterSteps(step.steps, () => this.#killDaemon(host, step.forMs));
      case 'kill leading engine':
        return this.#killEngine(host, engine, step.forMs);
    }
  }

  #doStranger(step: Extract<Step, { stranger: number }>, stranger: Stranger): void {
    this.#count(`stranger ${stranger.kind}: ${step.do}`);
    if ('address' in step) this.#judge.noteUse(step.address);
    if (step.do === 'take') {
      if (this.#hasElsewhere(stranger, step.address) || stranger.has(step.address)) return;
      stranger.take(step.address);
      if (['announcing', 'masked'].includes(stranger.kind)) this.#judge.expectTold(stranger, step.address);
    } else if (step.do === 'leave') stranger.leave(step.address);
    else if (step.do === 'act') {
      stranger.act(step.forMs);
      if (['scanner', 'flooder', 'forger'].includes(stranger.kind)) this.#busy(step.forMs);
    } else if (step.do === 'sleep stranger') {
      stranger.kernel.isAsleep = true;
      this.#during(stranger.name, step.forMs, () => (stranger.kernel.isAsleep = false));
    }
  }

  /** Strangers do not fight each other: that is no business of ours. */
  #hasElsewhere(stranger: Stranger, address: string): boolean {
    return this.#strangers.some((other) => other !== stranger && other.has(address));
  }

  /** Somebody bothers the LAN: nothing is promised about progress meanwhile. */
  #busy(forMs: number): void {
    this.#judge.disturb('peace');
    scheduler.world(forMs, () => this.#judge.calm('peace'));
  }

  #doEtcd(step: Exclude<Step, { host: number } | { stranger: number } | LeaderStep>): void {
    this.#count(step.do);
    this.#etcd?.do(step);
    if ('forMs' in step) this.#during('etcd', step.forMs, () => this.#etcd?.mend(step));
    else this.#judge.jolt('etcd');
  }

  #doFault(step: Extract<Step, { host: number }>, host: Host, engine: Engine): void {
    this.#count(step.do);
    switch (step.do) {
      case 'kill daemon':
        return this.#killDaemon(host, step.forMs);
      case 'stop daemon':
        host.stop();
        this.#crashed(host);
        return this.#during(daemonOf(host), step.forMs + 10_000, () => host.start());
      case 'kill daemon after':
        return host.daemon?.afterSteps(step.steps, () => this.#killDaemon(host, step.forMs));
      case 'freeze daemon after':
        return host.daemon?.afterSteps(step.steps, () => this.#freezeDaemon(host, step.forMs));
      case 'sleep host':
        return this.#sleepHost(host, engine, step.forMs);
      case 'kill engine':
        return this.#killEngine(host, engine, step.forMs);
      case 'cut cable':
        if (host.isAsleep) return;
        host.port.setCarrier(false);
        return this.#during(
          host.name,
          step.forMs + step.blockedMs,
          () => this.#cableBack(host),
          step.forMs,
          () => host.port.setCarrier(true, step.blockedMs),
        );
      case 'cut power':
        return this.#cutPower(host, engine, step);
      case 'block port':
        host.port.block(step.forMs);
        return this.#during(host.name, step.forMs, () => undefined);
      case 'split':
        host.port.part = 1;
        return this.#during('lan', step.forMs, () => (host.port.part = 0));
      case 'fail disk':
        host.disk.fails = true;
        this.#crashed(host);
        return this.#during(daemonOf(host), step.forMs, () => {
          host.disk.fails = false;
          // A daemon whose disk failed is started again.
          host.kill();
          host.start();
        });
      case 'break disk':
        return this.#breakDisk(host, step);
      case 'cut etcd':
        this.#etcd?.cut(host.name, true);
        return this.#during(daemonOf(host), step.forMs, () => this.#etcd?.cut(host.name, false));
      case 'set clock':
        host.wallErrorMs += step.byMs;
        return;
      default:
        return;
    }
  }

  /** Something is wrong with a station for so long; `midway` happens earlier. */
  #during(name: string, forMs: number, mend: () => void, midwayMs = 0, midway: (() => void) | null = null): void {
    this.#judge.disturb(name);
    if (midway !== null) scheduler.world(midwayMs, midway);
    scheduler.world(forMs, () => {
      mend();
      this.#judge.calm(name);
    });
  }

  /** The calm begins at this moment. */
  #cableBack(host: Host): void {
    scheduler.world(0, () => this.#judge.expectToldOfAll(host));
  }

  #killDaemon(host: Host, forMs: number): void {
    host.kill();
    this.#crashed(host);
    this.#during(daemonOf(host), forMs, () => host.start());
  }

  #freezeDaemon(host: Host, forMs: number): void {
    const { daemon } = host;
    daemon?.freeze();
    this.#during(daemonOf(host), forMs, () => {
      if (!host.isAsleep) daemon?.thaw();
    });
  }

  /** Writes fail from one of its next changes on. When they succeed again, nobody starts the daemon for that. */
  #breakDisk(host: Host, { changes, how, kills, forMs }: Extract<Step, { do: 'break disk' }>): void {
    host.disk.breakAfter(changes, how, () => {
      if (kills) scheduler.world(0, () => this.#killDaemon(host, Math.min(forMs, KILLED_MS)));
    });
    this.#crashed(host);
    this.#during(daemonOf(host), forMs, () => {
      host.disk.mend();
      this.#crashed(host);
      // One that could not start is started again, as systemd does.
      if (!host.isServing) host.kill();
      host.start();
    });
  }

  #sleepHost(host: Host, engine: Engine, forMs: number): void {
    if (host.isAsleep) return;
    host.sleep();
    engine.process.freeze();
    this.#during(host.name, forMs, () => {
      host.wake();
      engine.process.thaw();
    });
  }

  /** What ran is started again when the machine is up: `--restart=always`. */
  #cutPower(host: Host, engine: Engine, { forMs, blockedMs }: { forMs: number; blockedMs: number }): void {
    if (!engine.isRunning || host.isAsleep) return;
    host.cutPower();
    this.#progress.noteDeath(engine);
    engine.loseAll();
    this.#crashed(host);
    const boot = () => {
      host.boot(blockedMs);
      this.#restart(host, engine);
    };
    this.#during(host.name, forMs + blockedMs, () => undefined, forMs, boot);
  }

  #restart(host: Host, engine: Engine): void {
    const swarm = this.#swarm;
    if (swarm !== null) return engine.restart(async () => swarm.nodeIsBack(engine));
    const networkId = `${this.#hosts.indexOf(host) + 1}`.repeat(64);
    engine.restart(async (names) => {
      for (const name of names) await engine.start(name, networkId, null);
    });
  }

  #killEngine(host: Host, engine: Engine, forMs: number): void {
    if (!engine.isRunning) return;
    this.#progress.noteDeath(engine);
    engine.kill();
    this.#swarm?.lost(engine);
    this.#crashed(host);
    scheduler.world(forMs, () => this.#restart(host, engine));
  }

  /** What an engine said while nobody could note it, or has not said, stays somebody's for a while. */
  #crashed(host: Host): void {
    this.#judge.jolt(`${host.name} leases`);
  }

  // --- what came of it ---------------------------------------------------------------------------------------------

  #started(start: Start): void {
    const { host, container, grants, wanted, refusal } = start;
    this.#write(`START ${host.name}/${container} ${[...grants.keys()].join(' ')} ${refusal ?? 'ok'}`);
    if (refusal === null) this.#containers++;
    else {
      this.#refusals++;
      if (!this.#isEnding && this.#swarm === null) this.#progress.judgeRefusal(start);
    }
    for (const used of [...grants.keys(), wanted]) if (used !== null) this.#judge.noteUse(used);
  }

  #count(fault: string): void {
    this.#faults.set(fault, (this.#faults.get(fault) ?? 0) + 1);
  }

  #write(text: string): void {
    // The directory has another name in each run.
    const line = `${seconds(scheduler.calendarMs)} ${text.replaceAll(this.#directory, '')}`;
    this.#hash.update(`${line}\n`);
    if (this.#manner.keepsLog) this.#log.push(line);
  }

  #outcome(): Outcome {
    return {
      violations: this.#violations,
      virtualMs: scheduler.calendarMs,
      steps: scheduler.steps,
      hostMs: scheduler.calendarMs * this.#hosts.length,
      playedMs: scheduler.nowMs * this.#hosts.length,
      bursts: this.#bursts,
      containers: this.#containers,
      containerMs: this.#judge.livedMs,
      refusals: this.#refusals,
      doubles: this.#judge.doubles,
      excused: this.#judge.excused,
      faults: this.#faults,
      frames: this.#lan.frames,
      digest: this.#hash.update(`${scheduler.steps}`).digest('hex'),
      log: this.#log,
      records: this.#records,
    };
  }

  remove(): void {
    for (const engine of this.#engines) engine.kill();
    for (const host of this.#hosts) host.remove();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
