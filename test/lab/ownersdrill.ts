/**
 * Hosts that share one small subnet, each with containers that come and go, while everything that an operator, a machine room
 * and chance can do is done to them and to etcd. Whoever brings a container up knows which addresses are up elsewhere; the
 * kernels of all containers are read besides.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from './drill.ts';
import { demandLogin, type Owner, Owners, PASSWORD_FILE } from './owners.ts';
import { until } from './patience.ts';
import { type Container, Refusal } from './understudy.ts';

export interface OwnersDrillPlan {
  readonly minutes: number;
  readonly seed: number;
}

export interface OwnersScore {
  readonly claims: number;
  readonly refused: number;
  /** What was done, and how often. */
  readonly faults: Readonly<Record<string, number>>;
  /** In words; empty when each address had one owner. */
  readonly doubled: string[];
  /** Starts that were refused though nothing befell their host or etcd; empty when all is well. */
  readonly unexplained: string[];
  /** Why starts were refused, by code words, for the reader. */
  readonly refusals: Readonly<Record<string, number>>;
}

const NAMES = ['one', 'two', 'three', 'four'];
/** 62 addresses. */
const SUBNET = '10.9.0.0/26';
/** Containers of each host, more or less: together they want a little less than there is. */
const EACH = 13;
/** Between two acts of an engine, from half as much to half as much again. */
const PACE_MS = 300;
const SNAPSHOT = '/run/owners-snapshot';
/** As long as an engine tries a call. */
const CALL_MS = 15_000;
/** A daemon that stands still, or is away, for so long counts as lost. */
const LONG_MS = 60_000;
const KERNELS_MS = 15_000;
/** A host that was struck starts containers so soon after. */
const BACK_MS = 10_000;
/** After a restore nothing is given out for 10 s on each host, from when it notices. */
const RESTORED_MS = 25_000;
/** What etcd says is in line with what containers have so soon after the last blow. */
const IN_LINE_MS = 60_000;

export class OwnersDrill {
  readonly #plan: OwnersDrillPlan;
  readonly #random: () => number;
  readonly #faults: Record<string, number> = {};
  readonly #refusals: Record<string, number> = {};
  readonly #doubled = new Set<string>();
  readonly #unexplained: string[] = [];
  /** By address, the containers that are up with it, each by its host. */
  readonly #up = new Map<string, Set<string>>();
  /** By host, until when a refused start there has a reason. */
  readonly #excusedUntilMs = new Map<string, number>();
  /** What was done, and when. */
  readonly #diary: string[] = [];
  #password = 'first';
  #claims = 0;
  #refused = 0;
  #endMs = 0;
  #isOver = false;
  #last = 'nothing';

  constructor(plan: OwnersDrillPlan) {
    this.#plan = plan;
    this.#random = randomOf(plan.seed);
  }

  async run(): Promise<OwnersScore> {
    const settings = { STORE_USER: 'host', STORE_PASSWORD: PASSWORD_FILE, LOG_LEVEL: 'warn' };
    const prepare = (host: Owner['host']) => writeFileSync(host.file(PASSWORD_FILE), `${this.#password}\n`);
    const probe = (name: string) => ({ PROBE: NAMES.indexOf(name) % 2 === 0 ? 'off' : 'fast' });
    const owners = await Owners.open({ names: NAMES, settings, subnet: SUBNET, lock: demandLogin, prepare, probe });
    try {
      this.#endMs = performance.now() + this.#plan.minutes * 60_000;
      const engines = NAMES.flatMap((name, at) => [0, 1].map((which) => this.#engine(owners.of(name), 2 * at + which)));
      const kernels = this.#readKernels(owners);
      while (performance.now() < this.#endMs) {
        await sleep(500 + this.#random() * 2500);
        await this.#strike(owners);
      }
      this.#isOver = true;
      await Promise.all([...engines, kernels]);
      for (const address of owners.doubled()) this.#doubled.add(`${address} at the end`);
      await until(() => this.#isInLine(owners), { timeoutMs: IN_LINE_MS, detail: () => this.#story(owners) });
    } finally {
      this.#isOver = true;
      await owners.close();
    }
    const [claims, refused] = [this.#claims, this.#refused];
    const [doubled, unexplained] = [[...this.#doubled], this.#unexplained];
    return { claims, refused, faults: this.#faults, doubled, unexplained, refusals: this.#refusals };
  }

  #story(owners: Owners): string {
    const logs = NAMES.map((name) => `--- ${name}\n${owners.of(name).plugin.log().slice(-2000)}`);
    const members = [0, 1, 2].map((member) => `--- member ${member}\n${owners.etcd.log(member).slice(-4000)}`);
    return [this.#last, ...this.#diary, ...logs, ...members].join('\n');
  }

  /** Every host starts containers, and what containers have is claimed by their hosts. */
  async #isInLine(owners: Owners): Promise<boolean> {
    for (const name of NAMES) {
      const { engine, network } = owners.of(name);
      const wrong = await engine.run(network).catch((error: unknown) => String(error));
      if (typeof wrong === 'string') this.#last = `${name}: ${wrong}`;
      if (typeof wrong === 'string') return false;
      await engine.remove(wrong);
    }
    const claimants = await owners.claimants();
    for (const name of NAMES)
      for (const { address } of owners.of(name).engine.containers) {
        const [text = ''] = address.split('/');
        this.#last = `${text} runs on ${name} and is claimed by ${claimants.get(text) ?? 'nobody'}`;
        if (claimants.get(text) !== name) return false;
      }
    return true;
  }

  // --- containers -----------------------------------------------------------------------------------------------------

  async #engine(owner: Owner, which: number): Promise<void> {
    // Of its own, so that a seed strikes alike however long calls take.
    const random = randomOf(this.#plan.seed + 1 + which);
    const mine: Container[] = [];
    while (!this.#isOver) {
      const isStart = mine.length < EACH / 2 && random() < 0.6;
      if (isStart) await this.#start(owner, mine);
      else if (mine.length > 0) await this.#end(owner, mine.splice(Math.floor(random() * mine.length), 1)[0]);
      await sleep(PACE_MS * (0.5 + random()));
    }
  }

  async #start(owner: Owner, mine: Container[]): Promise<void> {
    const { engine, network, name } = owner;
    const beganAtMs = performance.now();
    try {
      mine.push(await engine.run(network, {}, { up: (address) => this.#noteUp(address, name) }));
      this.#claims++;
    } catch (error) {
      this.#noteRefusal(error, owner, beganAtMs);
    }
  }

  async #end({ engine, name }: Owner, container: Container | undefined): Promise<void> {
    if (container === undefined) return;
    await engine.remove(container, CALL_MS, () => this.#noteDown(container.address, name)).catch(() => undefined);
  }

  #noteUp(address: string, name: string): void {
    const there = this.#up.get(address) ?? new Set();
    if (there.size > 0) this.#doubled.add(`${address} on ${name} and ${[...there].join()} after ${this.#last}`);
    this.#up.set(address, there.add(`${name} ${randomBytes(2).toString('hex')}`));
  }

  #noteDown(address: string, name: string): void {
    const there = this.#up.get(address);
    for (const one of there ?? [])
      if (one.startsWith(`${name} `)) {
        there?.delete(one);
        return;
      }
  }

  #noteRefusal(error: unknown, { name, plugin }: Owner, beganAtMs: number): void {
    this.#refused++;
    const said = error instanceof Refusal ? error.message : `no answer: ${String(error)}`;
    const words = said.replace(/[\d.]+|[0-9a-f]{12}/g, 'N').slice(0, 60);
    this.#refusals[words] = (this.#refusals[words] ?? 0) + 1;
    if ((this.#excusedUntilMs.get(name) ?? 0) >= beganAtMs) return;
    const story = [...this.#diary.slice(-3), ...plugin.log().split('\n').slice(-5)];
    this.#unexplained.push([`${name}, at ${this.#last}: ${said}`, ...story].join('\n'));
  }

  async #readKernels(owners: Owners): Promise<void> {
    for (let lookedAtMs = performance.now(); !this.#isOver; await sleep(PACE_MS)) {
      if (performance.now() - lookedAtMs < KERNELS_MS) continue;
      lookedAtMs = performance.now();
      for (const address of owners.doubled()) this.#doubled.add(`${address} by the kernels, after ${this.#last}`);
    }
  }

  // --- what is done to them ---------------------------------------------------------------------------------------------

  async #strike(owners: Owners): Promise<void> {
    const all = Object.entries(STRIKES);
    const [name, { hits, act }] = all[Math.floor(this.#random() * all.length)] as (typeof all)[number];
    const owner = owners.of(NAMES[Math.floor(this.#random() * NAMES.length)] ?? '');
    const member = Math.floor(this.#random() * 3);
    const [lengthMs, atMs] = [this.#random() ** 3 * LONG_MS, this.#random() * 500];
    const lastMs = Math.min(lengthMs, Math.max(0, this.#endMs - performance.now()));
    this.#faults[name] = (this.#faults[name] ?? 0) + 1;
    this.#last = `${name} ${hits === 'nobody' ? member : owner.name}`;
    this.#diary.push(`${new Date().toISOString()} ${this.#last}, ${Math.round(lastMs)} ms`);
    const struck = hits === 'host' ? [owner.name] : hits === 'all' ? NAMES : [];
    for (const one of struck) this.#excuse(one, Number.POSITIVE_INFINITY);
    await act({ owners, owner, member, lastMs, atMs, rotate: () => this.#rotate(owners) });
    await owners.etcd.ready();
    for (const one of struck) this.#excuse(one, performance.now() + (hits === 'all' ? RESTORED_MS : BACK_MS));
  }

  #excuse(name: string, untilMs: number): void {
    this.#excusedUntilMs.set(name, untilMs);
  }

  async #rotate(owners: Owners): Promise<void> {
    this.#password = randomBytes(6).toString('hex');
    await owners.etcd.changePassword('host', this.#password, owners.etcd.login);
    for (const name of NAMES) writeFileSync(owners.of(name).host.file(PASSWORD_FILE), `${this.#password}\n`);
  }
}

interface Strike {
  readonly owners: Owners;
  readonly owner: Owner;
  readonly member: number;
  readonly lastMs: number;
  readonly atMs: number;
  readonly rotate: () => Promise<void>;
}

/** `hits`: whose starts may be refused meanwhile. What befalls one member of three nobody notices. */
interface Blow {
  readonly hits: 'host' | 'all' | 'nobody';
  readonly act: (strike: Strike) => Promise<unknown>;
}

const STRIKES: Readonly<Record<string, Blow>> = {
  freeze: {
    hits: 'host',
    async act({ owner, lastMs }) {
      await owner.plugin.freeze();
      await sleep(lastMs);
      await owner.plugin.thaw();
    },
  },
  kill: {
    hits: 'host',
    async act({ owner, atMs, lastMs }) {
      await sleep(atMs);
      await owner.plugin.stop('SIGKILL');
      await sleep(lastMs);
      await owner.plugin.start();
    },
  },
  rename: {
    hits: 'host',
    async act({ owner, atMs }) {
      await owner.plugin.stop(atMs < 250 ? 'SIGTERM' : 'SIGKILL');
      await owner.host.run(['hostname', `host-${Math.round(atMs)}`]);
      await owner.plugin.start();
    },
  },
  cut: {
    hits: 'host',
    async act({ owners, owner, lastMs }) {
      await owners.cutFromEtcd(owner.name, true);
      await sleep(lastMs);
      await owners.cutFromEtcd(owner.name, false);
    },
  },
  'member killed': {
    hits: 'nobody',
    async act({ owners: { etcd }, member, lastMs }) {
      await etcd.stopMember(member);
      await sleep(lastMs / 6);
      etcd.startMember(member);
      await healthy(etcd);
    },
  },
  'member replaced': {
    hits: 'nobody',
    async act({ owners: { etcd }, member }) {
      await etcd.replace(member);
      await healthy(etcd);
    },
  },
  'member replaced wrongly': {
    hits: 'nobody',
    async act({ owners: { etcd }, member, lastMs }) {
      await etcd.replaceByStranger(member);
      await sleep(lastMs / 6);
      await etcd.replace(member);
      await healthy(etcd);
    },
  },
  'restore of a snapshot': {
    hits: 'all',
    async act({ owners, owner, lastMs, rotate }) {
      const { etcd } = owners;
      await etcd.save(SNAPSHOT);
      await sleep(lastMs / 6);
      await owners.cutFromEtcd(owner.name, true);
      for (const one of [0, 1, 2]) await etcd.stopMember(one);
      await etcd.restore(SNAPSHOT);
      for (const one of [0, 1, 2]) etcd.startMember(one);
      await healthy(etcd);
      // Where it was changed since the snapshot.
      await rotate();
      await sleep(lastMs / 2);
      await owners.cutFromEtcd(owner.name, false);
    },
  },
  rotation: {
    hits: 'nobody',
    act: ({ rotate }) => rotate(),
  },
};

/** All three, so that the next that goes leaves a majority. */
async function healthy(etcd: Owners['etcd']): Promise<void> {
  await until(async () => (await etcd.ctl('endpoint', 'health')).code === 0);
}
