/**
 * Hosts that share addresses, in a process of their own, without daemons around them: `hosts.ts DIRECTORY ENDPOINTS CLUSTER
 * COUNT`, driven by messages. `Hosts` is the other end.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IpamDriver } from '../../src/ipam/driver.ts';
import type { ClusterStore } from '../../src/store/etcd/store.ts';
import { callLimit, until } from '../lab/patience.ts';
import { openShared } from '../lab/shared.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';

/** The addresses of all measurements. */
export const SUBNET = '10.77.0.0/16';
const REALM = 'TsmacvlanLocal';

interface Wish {
  /** Each host claims one address after the other for so long. */
  readonly forMs?: number;
  /** Between two claims. */
  readonly pauseMs?: number;
  /** All hosts name the gateway at once. */
  readonly gateway?: true;
  /** Looks once for leases that nobody uses. */
  readonly leaks?: true;
  /** Gives back what was claimed before. */
  readonly back?: true;
}

/** Since the last report. */
export interface Report {
  readonly tookMs: readonly number[];
  /** Of all hosts in the process, and for all they did. */
  readonly cpuMs: number;
  /** Address → when it was claimed, or when the last of the hosts heard of it: milliseconds since 1970. */
  readonly claimedAtMs: Readonly<Record<string, number>>;
  readonly heardAtMs: Readonly<Record<string, number>>;
}

export class Hosts {
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#process = child;
  }

  /** Hosts that are in touch with etcd. */
  static async open(endpoints: readonly string[], cluster: string, count = 1): Promise<Hosts> {
    const words = [mkdtempSync('/run/hosts-'), endpoints.join(','), cluster, String(count)];
    const child = fork(import.meta.filename, words);
    const hosts = new Hosts(child);
    await once(child, 'message');
    return hosts;
  }

  async do(wish: Wish): Promise<Report> {
    this.#process.send(wish);
    const [report] = (await once(this.#process, 'message')) as [Report];
    return report;
  }

  async close(): Promise<void> {
    this.#process.kill('SIGKILL');
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, 'exit');
  }
}

// --- in the process -----------------------------------------------------------------------------------------------------

interface Host {
  readonly store: ClusterStore & { diary: string[] };
  readonly ipam: IpamDriver;
  readonly poolId: string;
}

const now = () => performance.timeOrigin + performance.now();

class Worker {
  readonly #hosts: readonly Host[];
  readonly #heard = new Map<string, { count: number; atMs: number }>();
  readonly #claimed = new Map<Host, string[]>();
  #cpu = process.cpuUsage();

  constructor(hosts: readonly Host[]) {
    this.#hosts = hosts;
    for (const { store } of hosts) store.leases.follow(({ address }, isTaken) => isTaken && this.#hear(address));
  }

  async do({ forMs = 0, pauseMs = 0, gateway, leaks, back }: Wish): Promise<Report> {
    const tookMs: number[] = [];
    const claimedAtMs: Record<string, number> = {};
    const timed = async <T>(act: () => Promise<T>): Promise<T> => {
      const begin = performance.now();
      const result = await act();
      tookMs.push(performance.now() - begin);
      return result;
    };
    const untilMs = performance.now() + forMs;
    const claim = async (host: Host) => {
      while (performance.now() < untilMs) {
        const address = await timed(() => request(host, null));
        claimedAtMs[address] = now();
        this.#claimed.set(host, (this.#claimed.get(host) ?? []).concat(address));
        if (pauseMs > 0) await sleep(pauseMs);
      }
    };
    await Promise.all(this.#hosts.map(claim));
    if (gateway) await Promise.all(this.#hosts.map((host) => timed(() => request(host, '10.77.0.1'))));
    for (const { ipam } of leaks ? this.#hosts : []) await timed(() => ipam.leaks());
    for (const host of back ? this.#hosts : []) await this.#giveBack(host);
    return this.#report(tookMs, claimedAtMs);
  }

  #report(tookMs: number[], claimedAtMs: Record<string, number>): Report {
    const { user, system } = process.cpuUsage(this.#cpu);
    this.#cpu = process.cpuUsage();
    const heardByAll = [...this.#heard].filter(([, { count }]) => count === this.#hosts.length);
    this.#heard.clear();
    return {
      tookMs,
      cpuMs: (user + system) / 1000,
      claimedAtMs,
      heardAtMs: Object.fromEntries(heardByAll.map(([address, { atMs }]) => [address, atMs])),
    };
  }

  #hear(address: string): void {
    const count = (this.#heard.get(address)?.count ?? 0) + 1;
    this.#heard.set(address, { count, atMs: now() });
  }

  async #giveBack(host: Host): Promise<void> {
    const { ipam, poolId } = host;
    for (const address of this.#claimed.get(host) ?? []) await ipam.releaseAddress({ poolId, address });
    this.#claimed.delete(host);
  }
}

async function openHost(directory: string, endpoints: string, cluster: string): Promise<Host> {
  const store = openShared(directory, endpoints.split(','), cluster);
  const ipam = new IpamDriver({ store, hostId: directory, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
  const wish = { addressSpace: REALM, pool: SUBNET, subPool: null, options: {}, v6: false };
  const { poolId } = await ipam.requestPool(wish);
  await until(async () => store.diary.length > 0);
  return { store, ipam, poolId };
}

async function request({ ipam, poolId }: Host, gateway: string | null): Promise<string> {
  const given = await ipam.requestAddress({
    poolId,
    address: gateway,
    isGateway: gateway !== null,
    serial: false,
    name: null,
    limit: callLimit(),
  });
  return given.split('/')[0] ?? '';
}

async function serve([directory = '', endpoints = '', cluster = '', count = '1']: string[]): Promise<void> {
  const places = Array.from({ length: Number(count) }, (_, at) => join(directory, String(at)));
  const worker = new Worker(await Promise.all(places.map((place) => openHost(place, endpoints, cluster))));
  process.on('message', (wish: Wish) => {
    void worker.do(wish).then((report) => process.send?.(report));
  });
  process.send?.('ready');
}

if (process.argv[1] === import.meta.filename) await serve(process.argv.slice(2));
