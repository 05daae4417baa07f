/** A scenario happens: the world is built, the steps are done at their moments, the judge looks on, and all is taken apart. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Audit, recordsIn } from './audit.ts';
import type { NetworkSpec, Start } from './container.ts';
import { Engine, NONE_LEFT } from './engine.ts';
import { Host, type Line, PARENT } from './host.ts';
import { COLLECTED_MS, Judge, QUIET_MS, USUAL_RATE, type Violation, daemonOf, seconds } from './judge.ts';
import { GOOD, Lan, type Quality } from './lan.ts';
import { Random } from './random.ts';
import { type Burst, SETTLED_MS, burstsOf } from './quiet.ts';
import { EtcdWorld } from './etcd/world.ts';
import { SUBNETS, type Scenario, type Step, rangeOf, subpoolOf } from './scenario.ts';
import { Stranger } from './strangers.ts';
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
        prefixLength: SUBNETS[scenario.family].prefixLength,
        subnet,
      });
    });
    this.#judge = new Judge({
      lan: this.#lan,
      hosts: this.#hosts,
      engines: this.#engines,
      strangers: this.#strangers,
      probeRate: scenario.probeRate || USUAL_RATE,
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
    const { probeRate } = this.#scenario;
    const settings = { ...this.#etcd?.settings, ...(probeRate > 0 && { PROBE_RATE: String(probeRate) }) };
    const host = new Host({ name, random: random.fork(name), port: this.#lan.plug(name), directory, settings, onLine });
    host.etcd = this.#etcd?.networkOf(name) ?? null;
    return host;
  }

  #makeEngine(host: Host, random: Random): Engine {
    return new Engine({
      host,
      random: random.fork(`${host.name} engine`),
      onStart: (start) => this.#started(start),
      onCall: (call) => this.#judge.hearCall(call),
    });
  }

  async play(): Promise<Outcome> {
    const { steps, lengthMs } = this.#scenario;
    for (const host of this.#hosts) host.start();
    for (const [index, engine] of this.#engines.entries())
      scheduler.world(1000 + index, () => engine.do(() => engine.createNetwork(this.#networkOf(index))));
    const isOver = () => this.#violations.length > 0;
    for (const burst of burstsOf(steps)) if (!isOver()) await this.#playBurst(burst, isOver);
    if (!isOver()) await this.#passTo(lengthMs, isOver);
    if (!isOver()) await this.#end(isOver);
    return this.#outcome();
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
      this.#audit.look(true);
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
    if (!isOver() && this.#isQuiet) this.#audit.look(false);
    for (const host of this.#hosts) this.#records.push(...recordsIn(join(this.#directoryOf(host), 'tsmacvlan.db')));
    for (const engine of this.#engines)
      for (const name of [...engine.containers.keys()]) engine.do(() => engine.stop(name));
    await scheduler.run(scheduler.nowMs + END_MS, isOver);
    for (const [index, engine] of this.#engines.entries())
      engine.do(() => engine.removeNetwork(this.#networkOf(index).id));
    await scheduler.run(scheduler.nowMs + COLLECTED_MS, isOver);
    if (!isOver()) this.#judge.expectNothing();
  }

  #networkOf(index: number): NetworkSpec {
    const { family, hosts } = this.#scenario;
    const { subnet, prefixLength } = SUBNETS[family];
    return {
      id: `${index + 1}`.repeat(64),
      subnet,
      range: subpoolOf(this.#scenario),
      gateway: hosts[index]?.gateway ?? null,
      isDockersIpam: hosts[index]?.isDockersIpam ?? false,
      options: { parent: PARENT },
      addresses: rangeOf(this.#scenario),
      prefixLength,
    };
  }

  // --- steps -------------------------------------------------------------------------------------------------------

  #do(step: Step): void {
    this.#write(`STEP ${JSON.stringify(step)}`);
    if ('stranger' in step) this.#doStranger(step, this.#strangers[step.stranger] as Stranger);
    else if (step.do === 'start' || step.do === 'stop') this.#doContainer(step, this.#engines[step.host] as Engine);
    else if (!('host' in step)) this.#doEtcd(step);
    else this.#doFault(step, this.#hosts[step.host] as Host, this.#engines[step.host] as Engine);
  }

  #doContainer(step: Extract<Step, { do: 'start' | 'stop' }>, engine: Engine): void {
    if (!engine.isRunning || engine.host.isAsleep) return;
    const networkId = this.#networkOf(step.host).id;
    if (step.do === 'start') engine.do(() => engine.start(step.container, networkId, step.wanted));
    else
      engine.do(async () => {
        const address = await engine.stop(step.container);
        if (address !== null) this.#judge.noteUse(address);
      });
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

  #doEtcd(step: Exclude<Step, { host: number } | { stranger: number }>): void {
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
    engine.loseAll();
    this.#crashed(host);
    const boot = () => {
      host.boot(blockedMs);
      this.#restart(host, engine);
    };
    this.#during(host.name, forMs + blockedMs, () => undefined, forMs, boot);
  }

  #restart(host: Host, engine: Engine): void {
    const networkId = `${this.#hosts.indexOf(host) + 1}`.repeat(64);
    engine.restart(async (names) => {
      for (const name of names) await engine.start(name, networkId, null);
    });
  }

  #killEngine(host: Host, engine: Engine, forMs: number): void {
    if (!engine.isRunning) return;
    engine.kill();
    this.#crashed(host);
    scheduler.world(forMs, () => this.#restart(host, engine));
  }

  /** What an engine said while nobody could note it, or has not said, stays somebody's for a while. */
  #crashed(host: Host): void {
    this.#judge.jolt(`${host.name} leases`);
  }

  // --- what came of it ---------------------------------------------------------------------------------------------

  #started(start: Start): void {
    const { host, container, address, wanted, refusal, beganAtMs } = start;
    this.#write(`START ${host.name}/${container} ${address ?? ''} ${refusal ?? 'ok'}`);
    if (refusal === null) this.#containers++;
    else {
      this.#refusals++;
      this.#judgeRefusal(start, beganAtMs);
    }
    for (const used of [address, wanted]) if (used !== null) this.#judge.noteUse(used);
  }

  /** Somebody had to get an address: the LAN was quiet and one was free. */
  #judgeRefusal({ host, address, wanted, refusal }: Start, beganAtMs: number): void {
    const index = this.#hosts.indexOf(host);
    const isDockersIpam = this.#scenario.hosts[index]?.isDockersIpam ?? false;
    if (
      refusal === NONE_LEFT ||
      this.#isEnding ||
      (isDockersIpam && wanted === null) ||
      this.#scenario.quality !== 'good'
    )
      return;
    if (this.#judge.calmSince('lan', 'peace', 'etcd', host.name, daemonOf(host)) > beganAtMs - QUIET_MS) return;
    // Whoever took the address after it was given had it before the container.
    if (address !== null && this.#judge.holdersOf(address).some(({ sinceMs }) => sinceMs >= beganAtMs)) return;
    // Addresses of a host that is lost, or was, are nobody's for a while.
    if (
      this.#scenario.isShared &&
      this.#judge.calmSince(...this.#hosts.flatMap((one) => [one.name, daemonOf(one)])) > beganAtMs - COLLECTED_MS
    )
      return;
    if (this.#judge.calmSince(`${host.name} leases`) > beganAtMs - COLLECTED_MS) return;
    const gateways = this.#scenario.hosts.map(({ gateway }) => gateway);
    const candidates = (wanted === null ? rangeOf(this.#scenario) : [wanted]).filter((one) => !gateways.includes(one));
    const free = candidates.filter((address) => this.#freeSince(address) < beganAtMs - QUIET_MS);
    if (free.length > 0)
      this.#judge.violate('progress', `${host.name} was refused “${refusal}” while ${free[0]} was free`);
  }

  /** Since when nobody has the address, or is on the way to it. */
  #freeSince(address: string): number {
    const isOnTheWay =
      this.#engines.some((engine) => engine.isUsing(address)) || this.#strangers.some((one) => one.wants(address));
    return isOnTheWay ? Number.POSITIVE_INFINITY : this.#judge.freeSince(address);
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
