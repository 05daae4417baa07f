/**
 * Hosts that share one small subnet, each with containers that come and go, while everything that an operator, a machine room
 * and chance can do is done to them and to etcd. Whoever brings a container up knows which addresses are up elsewhere; the
 * kernels of all containers are read besides.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from './drill.ts';
import { type Owner, Owners } from './owners.ts';
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
  /** Why starts were refused, by code words, for the reader. */
  readonly refusals: Readonly<Record<string, number>>;
}

const NAMES = ['one', 'two', 'three', 'four'];
/** 62 addresses. */
const SUBNET = '10.9.0.0/26';
/** Containers of each host, more or less: together they want a little less than there is. */
const EACH = 13;
const PASSWORD_FILE = '/run/disk/password';
const SNAPSHOT = '/run/owners-snapshot';
/** As long as an engine tries a call. */
const CALL_MS = 15_000;
/** A daemon that stands still, or is away, for so long counts as lost. */
const LONG_MS = 60_000;
const KERNELS_MS = 15_000;

export class OwnersDrill {
  readonly #plan: OwnersDrillPlan;
  readonly #random: () => number;
  readonly #faults: Record<string, number> = {};
  readonly #refusals: Record<string, number> = {};
  readonly #doubled = new Set<string>();
  /** By address, the containers that are up with it, each by its host. */
  readonly #up = new Map<string, Set<string>>();
  #password = 'first';
  #claims = 0;
  #refused = 0;
  #isOver = false;

  constructor(plan: OwnersDrillPlan) {
    this.#plan = plan;
    this.#random = randomOf(plan.seed);
  }

  async run(): Promise<OwnersScore> {
    const settings = { STORE_USER: 'host', STORE_PASSWORD: PASSWORD_FILE, LOG_LEVEL: 'warn' };
    const prepare = (host: Owner['host']) => writeFileSync(host.file(PASSWORD_FILE), `${this.#password}\n`);
    const probe = (name: string) => ({ PROBE: NAMES.indexOf(name) % 2 === 0 ? 'off' : 'fast' });
    const owners = await Owners.open({ names: NAMES, settings, subnet: SUBNET, lock, prepare, probe });
    try {
      const endMs = performance.now() + this.#plan.minutes * 60_000;
      const engines = NAMES.flatMap((name) => [this.#engine(owners.of(name)), this.#engine(owners.of(name))]);
      const kernels = this.#readKernels(owners);
      while (performance.now() < endMs) {
        await sleep(500 + this.#random() * 2500);
        await this.#strike(owners);
      }
      this.#isOver = true;
      await Promise.all([...engines, kernels]);
      for (const address of await owners.doubled()) this.#doubled.add(`${address} at the end`);
    } finally {
      this.#isOver = true;
      await owners.close();
    }
    const [claims, refused] = [this.#claims, this.#refused];
    return { claims, refused, faults: this.#faults, doubled: [...this.#doubled], refusals: this.#refusals };
  }

  // --- containers -----------------------------------------------------------------------------------------------------

  async #engine(owner: Owner): Promise<void> {
    const mine: Container[] = [];
    while (!this.#isOver) {
      const isStart = mine.length < EACH / 2 && this.#random() < 0.6;
      if (isStart) await this.#start(owner, mine).catch((error: unknown) => this.#noteRefusal(error));
      else if (mine.length > 0) await this.#end(owner, mine.splice(Math.floor(this.#random() * mine.length), 1)[0]);
      await sleep(20);
    }
  }

  async #start({ engine, network, name }: Owner, mine: Container[]): Promise<void> {
    const container = await engine.run(network, {}, { up: (address) => this.#noteUp(address, name) });
    this.#claims++;
    mine.push(container);
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

  #noteRefusal(error: unknown): void {
    this.#refused++;
    const words =
      error instanceof Refusal ? error.message.replace(/[\d.]+|[0-9a-f]{12}/g, 'N').slice(0, 60) : 'no answer';
    this.#refusals[words] = (this.#refusals[words] ?? 0) + 1;
  }

  async #readKernels(owners: Owners): Promise<void> {
    while (!this.#isOver) {
      await sleep(KERNELS_MS);
      for (const address of await owners.doubled()) this.#doubled.add(`${address} by the kernels, after ${this.#last}`);
    }
  }

  // --- what is done to them ---------------------------------------------------------------------------------------------

  #last = 'nothing';

  async #strike(owners: Owners): Promise<void> {
    const all = Object.entries(STRIKES);
    const [name, act] = all[Math.floor(this.#random() * all.length)] as (typeof all)[number];
    const owner = owners.of(NAMES[Math.floor(this.#random() * NAMES.length)] ?? '');
    const member = Math.floor(this.#random() * 3);
    const lastMs = this.#random() ** 3 * LONG_MS;
    this.#faults[name] = (this.#faults[name] ?? 0) + 1;
    this.#last = `${name} ${owner.name}`;
    await act({ owners, owner, member, lastMs, atMs: this.#random() * 500, rotate: () => this.#rotate(owners) });
    await owners.etcd.ready();
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

const STRIKES: Readonly<Record<string, (strike: Strike) => Promise<unknown>>> = {
  async freeze({ owner, lastMs }) {
    await owner.plugin.freeze();
    await sleep(lastMs);
    await owner.plugin.thaw();
  },
  async kill({ owner, atMs, lastMs }) {
    await sleep(atMs);
    await owner.plugin.stop('SIGKILL');
    await sleep(lastMs);
    await owner.plugin.start();
  },
  async rename({ owner, atMs }) {
    await owner.plugin.stop(atMs < 250 ? 'SIGTERM' : 'SIGKILL');
    await owner.host.run(['hostname', `host-${Math.round(atMs)}`]);
    await owner.plugin.start();
  },
  async cut({ owners, owner, lastMs }) {
    await owners.cutFromEtcd(owner.name, true);
    await sleep(lastMs);
    await owners.cutFromEtcd(owner.name, false);
  },
  async 'member killed'({ owners: { etcd }, member, lastMs }) {
    await etcd.stopMember(member);
    await sleep(lastMs / 6);
    etcd.startMember(member);
    await healthy(etcd);
  },
  async 'member replaced'({ owners: { etcd }, member }) {
    await etcd.replace(member);
    await healthy(etcd);
  },
  async 'member replaced wrongly'({ owners: { etcd }, member, lastMs }) {
    await etcd.replaceByStranger(member);
    await sleep(lastMs / 6);
    await etcd.replace(member);
    await healthy(etcd);
  },
  async 'restore of a snapshot'({ owners, owner, lastMs, rotate }) {
    const { etcd } = owners;
    await etcd.save(SNAPSHOT);
    await sleep(lastMs / 6);
    await owners.cutFromEtcd(owner.name, true);
    for (const one of [0, 1, 2]) await etcd.stopMember(one);
    await etcd.restore(SNAPSHOT);
    for (const one of [0, 1, 2]) etcd.startMember(one);
    await healthy(etcd);
    await rotate();
    await sleep(lastMs / 2);
    await owners.cutFromEtcd(owner.name, false);
  },
  async rotation({ rotate }) {
    await rotate();
  },
};

async function lock(etcd: Owners['etcd']): Promise<void> {
  const words = ['user add root:r00t', 'user grant-role root root', 'user add host:first', 'role add tsmacvlan'];
  for (const one of words) await etcd.must(...one.split(' '));
  await etcd.must('role', 'grant-permission', 'tsmacvlan', '--prefix=true', 'readwrite', '/tsmacvlan/');
  await etcd.must('user', 'grant-role', 'host', 'tsmacvlan');
  await etcd.must('auth', 'enable');
  etcd.login = 'root:r00t';
}

/** All three, so that the next that goes leaves a majority. */
async function healthy(etcd: Owners['etcd']): Promise<void> {
  await until(async () => (await etcd.ctl('endpoint', 'health')).code === 0);
}
