/** Plays a scenario with one of the drivers and notes what a user saw. */
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Result } from '../lab/command.ts';
import type { Machine } from '../lab/site.ts';
import {
  containersOf,
  type Facts,
  type Known,
  isPassing,
  look,
  type Meanings,
  meaningsOfMac,
  networksOf,
} from './facts.ts';
import { type Outcome, type Question, readStep, type Scenario, type Step } from './scenario.ts';

/** Who plays: the words that are added where a network is made. */
export const CASTS = {
  macvlan: { driver: ['-d', 'macvlan'], ipam: [] },
  tsmacvlan: { driver: ['-d', 'tsmacvlan'], ipam: [] },
  'tsmacvlan with its IPAM': { driver: ['-d', 'tsmacvlan'], ipam: ['--ipam-driver', 'tsmacvlan'] },
} as const;

export type Cast = keyof typeof CASTS;

export interface Performance {
  readonly facts: Facts;
  /** Facts that are not as the scenario says, with what was said. */
  readonly surprises: ReadonlyMap<string, string>;
  /** What refused commands said. */
  readonly refusals: readonly string[];
}

const SETTLE_TIMEOUT_MS = 30_000;

export class Stage {
  readonly #machine: Machine;
  /** False where the kernel has no NAT: there the engine's name server hears nobody, and containers ask by address. */
  readonly #hasNames: boolean;
  /** The MAC addresses the host's links were born with. */
  readonly #born: Meanings;

  private constructor(machine: Machine, hasNames: boolean, born: Meanings) {
    this.#machine = machine;
    this.#hasNames = hasNames;
    this.#born = born;
  }

  static async set(machine: Machine, hasNames: boolean): Promise<Stage> {
    const links = await machine.host.namespace.show<{ ifname: string; address: string }>('link');
    const own = links.filter(({ ifname }) => ifname in machine.host.ports);
    return new Stage(
      machine,
      hasNames,
      own.flatMap(({ ifname, address }) => meaningsOfMac(address, `MAC OF ${ifname}`)),
    );
  }

  async play(scenario: Scenario, cast: Cast): Promise<Performance> {
    const play = new Play(this.#machine, cast, this.#hasNames, {
      meanings: this.#born,
      typed: scenario.steps.join(' '),
    });
    try {
      for (const [index, line] of scenario.steps.entries()) await play.step(`${index + 1}. ${line}`, readStep(line));
      await play.look('at the end');
    } finally {
      await play.clear();
    }
    return play;
  }
}

interface Inspected {
  readonly State: { readonly Pid: number };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, { readonly IPAddress: string }>> };
}

class Play implements Performance {
  readonly facts: Facts = new Map();
  readonly surprises = new Map<string, string>();
  readonly refusals: string[] = [];
  readonly #machine: Machine;
  readonly #cast: Cast;
  readonly #hasNames: boolean;
  #known: Known;
  /** Links that the scenario's host commands made. */
  readonly #made = new Set<string>();

  constructor(machine: Machine, cast: Cast, hasNames: boolean, known: Known) {
    this.#machine = machine;
    this.#cast = cast;
    this.#hasNames = hasNames;
    this.#known = known;
  }

  async step(name: string, step: Step): Promise<void> {
    switch (step.verb) {
      case 'docker':
        return this.#docker(name, step.words, step.expected);
      case 'host':
        return this.#onHost(step.words);
      case 'look':
        return this.look(`after ${name}`);
      case 'restart':
        return this.#machine.engine.restart();
      case 'resolve':
        return this.#hasNames ? this.#question(name, step, ['/bin/nslookup', step.target]) : undefined;
      case 'ping':
        return this.#question(name, step, await this.#ping(step));
    }
  }

  async look(when: string): Promise<void> {
    const found = await look(this.#machine, this.#known);
    for (const [path, value] of found) this.facts.set(`${when} › ${path}`, value);
  }

  /** Removes everything; what stays on the host is noted, and removed too. */
  async clear(): Promise<void> {
    const { engine, host } = this.#machine;
    const removeContainer = ({ Id }: { Id: string }) => engine.api('DELETE', `/containers/${Id}?force=1`);
    await Promise.all((await containersOf(engine)).map(removeContainer));
    // Newest first: a network made from a configuration goes before the configuration.
    for (const { Id } of await networksByAge(engine)) await engine.api('DELETE', `/networks/${Id}`);
    const left = await this.#leftovers();
    this.facts.set('left on the host', left.join(' '));
    for (const link of [...left, ...this.#made]) await host.run(['ip', 'link', 'delete', link]);
    await this.look('afterwards');
  }

  async #docker(name: string, words: readonly string[], expected: Outcome): Promise<void> {
    const result = await this.#machine.engine.docker(...this.#command(words));
    if (result.code !== 0) this.refusals.push(result.stderr.trim());
    this.facts.set(`${name} › exit code`, String(result.code));
    this.#note(name, result.code === 0 ? 'done' : 'refused', expected, result);
  }

  #command([first = '', second = '', ...rest]: readonly string[]): string[] {
    const idle = ['-d', '--stop-timeout', '0', ...rest, 'busybox', 'sleep', '3600'];
    if (first === 'run') return ['run', '--name', second, ...idle];
    return [first, second, ...(`${first} ${second}` === 'network create' ? this.#choice(rest) : []), ...rest];
  }

  /** A configuration has no driver, and what is made from it no IPAM of its own. */
  #choice(words: readonly string[]): readonly string[] {
    const { driver, ipam } = CASTS[this.#cast];
    if (words.includes('--config-only')) return ipam;
    return words.includes('--config-from') ? driver : [...driver, ...ipam];
  }

  /** Links that it makes are the scenario's. */
  async #onHost(words: readonly string[]): Promise<void> {
    const before = await this.#links();
    const { code, stderr } = await this.#machine.host.run([...words]);
    if (code !== 0) throw new Error(`${words.join(' ')}: ${stderr}`);
    for (const { ifname, address } of await this.#links()) {
      if (before.some((link) => link.ifname === ifname)) continue;
      this.#made.add(ifname);
      const meanings = [...this.#known.meanings, ...meaningsOfMac(address, `MAC OF ${ifname}`)];
      this.#known = { ...this.#known, meanings };
    }
  }

  /** Asked inside the container, with its own tools, resolver and namespaces; again where an answer is expected. */
  async #question(name: string, { who, expected }: Question, words: readonly string[]): Promise<void> {
    const { State } = await this.#inspect(who);
    const ask = () => this.#machine.host.run(['nsenter', '-t', String(State.Pid), '-n', '-m', ...words]);
    const first = await ask();
    const result = first.code !== 0 && expected === 'answered' ? await ask() : first;
    this.#note(name, result.code === 0 ? 'answered' : 'not answered', expected, result);
  }

  async #ping({ target, expected }: Question): Promise<string[]> {
    const withinS = expected === 'answered' ? '5' : '1';
    return ['/bin/ping', '-c', '1', '-W', withinS, await this.#goal(target)];
  }

  async #goal(target: string): Promise<string> {
    if (this.#hasNames || isIP(target)) return target;
    const [attachment] = Object.values((await this.#inspect(target)).NetworkSettings.Networks);
    return attachment?.IPAddress ?? target;
  }

  #inspect(container: string): Promise<Inspected> {
    return this.#machine.engine.api('GET', `/containers/${container}/json`);
  }

  #note(name: string, outcome: Outcome, expected: Outcome, { stdout, stderr }: Result): void {
    this.facts.set(name, outcome);
    if (outcome !== expected) this.surprises.set(name, `${outcome}: ${stderr.trim() || stdout.trim()}`);
  }

  async #leftovers(): Promise<string[]> {
    const deadlineMs = Date.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const left = (await this.#links()).map(({ ifname }) => ifname).filter((name) => !this.#made.has(name));
      if (left.length === 0 || Date.now() > deadlineMs) return left;
      await sleep(10);
    }
  }

  /** Links of the host beside those it was born with. */
  async #links(): Promise<{ ifname: string; address: string }[]> {
    const { host } = this.#machine;
    const links = await host.namespace.show<{ ifname: string; ifalias?: string; address: string }>('link');
    return links.filter((link) => link.ifname !== 'lo' && !(link.ifname in host.ports) && !isPassing(link));
  }
}

async function networksByAge(engine: Machine['engine']): Promise<{ Id: string }[]> {
  const networks = (await networksOf(engine)) as { Id: string; Created: string }[];
  return networks.sort((a, b) => Date.parse(b.Created) - Date.parse(a.Created));
}
