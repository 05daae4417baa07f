/** What a start that was refused says of the daemon: whether somebody had to get an address, for the LAN was quiet and one was free. */
import { type Start, isIPv6 } from './container.ts';
import { type Engine, NONE_LEFT } from './engine.ts';
import type { Host } from './host.ts';
import { COLLECTED_MS, type Judge, QUIET_MS, daemonOf } from './judge.ts';
import type { Scenario } from './scenario.ts';
import type { Stranger } from './strangers.ts';
import { familiesOf, rangeOf, rangeOfFamily } from './subnets.ts';
import { scheduler } from './time.ts';

interface Parts {
  readonly scenario: Scenario;
  readonly judge: Judge;
  readonly hosts: readonly Host[];
  readonly engines: readonly Engine[];
  readonly strangers: readonly Stranger[];
}

export class Progress {
  readonly #parts: Parts;
  /** When a start came to nothing, or an engine was killed in one, by host: it may have left an address leased that nobody else knows of. */
  readonly #lost = new Map<Host, number[]>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  judgeRefusal(start: Start): void {
    const { host, refusal, beganAtMs, grants } = start;
    const { scenario, judge } = this.#parts;
    const lost = this.#lostLately(host, beganAtMs);
    this.#noteLost(host);
    if (refusal === NONE_LEFT || scenario.quality !== 'good') return;
    if (judge.calmSince('lan', 'peace', 'etcd', host.name, daemonOf(host)) > beganAtMs - QUIET_MS) return;
    // Whoever took the address after it was given had it before the container.
    if ([...grants.keys()].some((address) => judge.wasTakenSince(address, beganAtMs))) return;
    if ([...grants.keys()].some((address) => judge.isHeldByLate(address))) return;
    // Addresses of a host that is lost, or was, are nobody's for a while.
    if (scenario.isShared && judge.calmSince(...this.#machines()) > beganAtMs - COLLECTED_MS) return;
    const isLeaking = judge.calmSince(`${host.name} leases`) > beganAtMs - COLLECTED_MS;
    const chosen = this.#chosenByOthers(start);
    if (isLeaking && chosen.length > 0) return;
    const free = this.#candidates(chosen, beganAtMs - (isLeaking ? COLLECTED_MS : QUIET_MS));
    if (free.some(({ length }) => length <= (isLeaking ? lost : 0))) return;
    const [first] = free.flat();
    if (first !== undefined) judge.violate('progress', `${host.name} was refused “${refusal}” while ${first} was free`);
  }

  /** In whose choice the daemon has no part: what a user names with --ip, and all that Docker's IPAM offers. It cannot give another one. */
  #chosenByOthers({ host, wanted, grants }: Start): string[] {
    const { scenario, hosts } = this.#parts;
    if (scenario.hosts[hosts.indexOf(host)]?.isDockersIpam) return [...grants.keys()];
    return wanted === null ? [] : [wanted];
  }

  /** By family: addresses that the start could have got, nobody's since then. */
  #candidates(chosen: readonly string[], sinceMs: number): string[][] {
    const { addresses } = this.#parts.scenario;
    return familiesOf(this.#parts.scenario).map((family) => {
      const ofFamily = chosen.filter((address) => isIPv6(address) === (family === 'IPv6'));
      return this.#free(ofFamily.length > 0 ? ofFamily : rangeOfFamily(addresses, family), sinceMs);
    });
  }

  #machines(): string[] {
    return this.#parts.hosts.flatMap((host) => [host.name, daemonOf(host)]);
  }

  /**
   * The engine is killed. A network's starts ask for addresses one after the other, so of each family one at most is given out in
   * an answer that nobody hears: what was answered before is known to be somebody's.
   */
  noteDeath({ host, isStartingAny }: Engine): void {
    if (isStartingAny) this.#noteLost(host);
  }

  #noteLost(host: Host): void {
    this.#lost.set(host, [...(this.#lost.get(host) ?? []), scheduler.nowMs]);
  }

  #lostLately(host: Host, untilMs: number): number {
    return (this.#lost.get(host) ?? []).filter((atMs) => atMs > untilMs - COLLECTED_MS).length;
  }

  /** A node of a swarm, which does not ask the LAN, was refused what the leader gave out. */
  judgeNode({ host }: Engine, address: string, error: string): void {
    const { scenario, judge } = this.#parts;
    if (scenario.asksLan || judge.holdersOf(address).length > 0) return;
    if (judge.calmSince(host.name, daemonOf(host), `${host.name} leases`) > scheduler.nowMs - COLLECTED_MS) return;
    judge.violate('progress', `${host.name} was refused “${error}” for ${address}, which the swarm’s leader gave out`);
  }

  /** Addresses of the range that nobody has had, or was on the way to, for so long. */
  freeFor(forMs: number): string[] {
    return this.#free(rangeOf(this.#parts.scenario), scheduler.nowMs - forMs);
  }

  #free(addresses: readonly string[], sinceMs: number): string[] {
    const gateways = this.#parts.scenario.hosts.map(({ gateway }) => gateway);
    return addresses.filter((one) => !gateways.includes(one) && this.#freeSince(one) < sinceMs);
  }

  /** Since when nobody has the address, or is on the way to it. */
  #freeSince(address: string): number {
    const { engines, strangers, judge } = this.#parts;
    const isOnTheWay = engines.some((engine) => engine.isUsing(address)) || strangers.some((one) => one.wants(address));
    return isOnTheWay ? Number.POSITIVE_INFINITY : judge.freeSince(address);
  }
}
