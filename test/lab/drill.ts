/**
 * A daemon that is killed with SIGKILL again and again while a simulated engine keeps it busy: real processes, real HTTP,
 * real links moved into real namespaces. The engine does what libnetwork does with a call that breaks: it rolls back
 * (CreateEndpoint, Join) or goes on (Leave, DeleteEndpoint, ReleaseAddress), and never asks again.
 *
 * `run()` in an enclosure; the file's own network namespace is the host.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Endpoint, Lease } from '../../src/model.ts';
import { readLocalStore } from '../../src/store/local.ts';
import { BUNDLE } from './serving.ts';

export interface Plan {
  readonly directory: string;
  readonly kills: number;
  readonly workers: number;
  readonly seed: number;
  /** Until the collector has taken what broken calls left (two minutes); else it must at least be suspected. */
  readonly untilClean: boolean;
}

export interface Score {
  readonly calls: number;
  readonly kills: number;
  readonly containers: number;
  /** Calls that broke in flight. */
  readonly broken: number;
  /** What went wrong, in words; empty when all is well. */
  readonly faults: string[];
  /** Left at the end and not yet collected. */
  readonly suspected: number;
}

class Broken extends Error {}

interface Living {
  readonly endpointId: string;
  readonly namespace: string;
}

type Body = Readonly<Record<string, unknown>>;

const NETWORK = 'd'.repeat(64);
const SUBNET = '10.77.0.0/16';
const SPACE = 'TsmacvlanLocal';
const RETRY_MS = 15_000;

export class Drill {
  readonly #plan: Plan;
  readonly #random: () => number;
  /** Addresses of containers that run, and whose they are. */
  readonly #living = new Map<string, Living>();
  /** Addresses acknowledged and not given back, also of containers that are being started. */
  readonly #given = new Set<string>();
  readonly #faults: string[] = [];
  #daemon: ChildProcess | undefined;
  #poolId = '';
  #calls = 0;
  #broken = 0;
  #containers = 0;
  #isOver = false;

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#random = randomOf(plan.seed);
  }

  async run(): Promise<Score> {
    try {
      return await this.#run();
    } finally {
      this.#isOver = true;
      this.#daemon?.kill('SIGKILL');
    }
  }

  async #run(): Promise<Score> {
    await this.#start();
    await this.#makeNetwork();
    const work = Array.from({ length: this.#plan.workers }, (_, index) => this.#work(`w${index}`));
    for (let kill = 0; kill < this.#plan.kills; kill++) {
      await sleep(20 + this.#random() * 600);
      await this.#kill();
      await this.#start();
      await this.#check(`after kill ${kill + 1}`);
      if ((kill + 1) % 50 === 0) console.log(`${kill + 1} kills, ${this.#containers} containers`, this.#faults);
    }
    this.#isOver = true;
    await Promise.all(work);
    const suspected = await this.#finish();
    const { kills } = this.#plan;
    return {
      calls: this.#calls,
      kills,
      containers: this.#containers,
      broken: this.#broken,
      faults: this.#faults,
      suspected,
    };
  }

  // --- the daemon ---------------------------------------------------------------------------------------------------

  async #start(): Promise<void> {
    const env = {
      PATH: process.env.PATH,
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      SOCKET: this.#socket,
      STATE_DIR: this.#state,
      LOG_LEVEL: 'warn',
      PROBE: 'off',
    };
    this.#daemon = spawn(process.execPath, [BUNDLE, 'serve'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#daemon.stderr?.setEncoding('utf8').on('data', (lines: string) => {
      for (const line of lines.split('\n')) if (/internal error|recovery failed/.test(line)) this.#faults.push(line);
    });
    await this.#call('Plugin.Activate', {});
  }

  async #kill(): Promise<void> {
    const daemon = this.#daemon as ChildProcess;
    daemon.kill('SIGKILL');
    if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, 'exit');
  }

  get #socket(): string {
    return join(this.#plan.directory, 's.sock');
  }

  get #state(): string {
    return join(this.#plan.directory, 'state');
  }

  // --- the engine ---------------------------------------------------------------------------------------------------

  /** Tried again for 15 s while nothing was sent; a call that broke in flight comes back as an empty body, refused. */
  async #call(name: string, body: Body): Promise<Body> {
    const deadlineMs = performance.now() + RETRY_MS;
    for (;;) {
      try {
        const answer = await this.#post(name, body);
        this.#calls++;
        return answer;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        const wasSent = code !== 'ENOENT' && code !== 'ECONNREFUSED';
        if (!wasSent && performance.now() < deadlineMs) await sleep(10);
        else {
          this.#broken++;
          throw new Broken(name, { cause: error });
        }
      }
    }
  }

  async #post(name: string, body: Body): Promise<Body> {
    const call = request({ socketPath: this.#socket, path: `/${name}`, method: 'POST', agent: false });
    // A connection that breaks behind the reply tells nobody.
    call.on('error', () => undefined);
    call.end(JSON.stringify(body));
    const [response] = (await once(call, 'response')) as [IncomingMessage];
    const answer = JSON.parse(await text(response)) as Body;
    if (response.statusCode !== 200) this.#faults.push(`${name} was refused: ${String(answer['Err'])}`);
    return answer;
  }

  /** Where the engine logs the error and goes on. */
  async #anyway(name: string, body: Body): Promise<void> {
    await this.#call(name, body).catch(() => undefined);
  }

  async #makeNetwork(): Promise<void> {
    const pool = await this.#call('IpamDriver.RequestPool', { AddressSpace: SPACE, Pool: SUBNET, V6: false });
    this.#poolId = String(pool['PoolID']);
    await this.#call('NetworkDriver.CreateNetwork', {
      NetworkID: NETWORK,
      Options: { 'com.docker.network.generic': { parent: 'lan0' } },
      IPv4Data: [{ AddressSpace: SPACE, Pool: SUBNET }],
    });
  }

  async #work(namespace: string): Promise<void> {
    execFileSync('ip', ['netns', 'add', namespace]);
    while (!this.#isOver) await this.#live(namespace).catch((error: unknown) => this.#faults.push(String(error)));
  }

  /** docker run … docker rm -f */
  async #live(namespace: string): Promise<void> {
    const given = await this.#call('IpamDriver.RequestAddress', { PoolID: this.#poolId, Address: '' }).catch(
      () => undefined,
    );
    if (given?.['Address'] === undefined) return;
    const address = given['Address'] as string;
    if (this.#given.has(address)) this.#faults.push(`${address} was given to two`);
    this.#given.add(address);
    const endpointId = randomBytes(32).toString('hex');
    try {
      if (await this.#attach(address, endpointId, namespace)) {
        this.#containers++;
        await sleep(this.#random() * 200);
        await this.#detach(address, endpointId, namespace);
      }
    } finally {
      this.#given.delete(address);
      await this.#anyway('IpamDriver.ReleaseAddress', { PoolID: this.#poolId, Address: address.split('/')[0] });
    }
  }

  async #attach(address: string, endpointId: string, namespace: string): Promise<boolean> {
    const ids = { NetworkID: NETWORK, EndpointID: endpointId };
    try {
      await this.#call('NetworkDriver.CreateEndpoint', { ...ids, Interface: { Address: address } });
    } catch {
      return false;
    }
    try {
      const answer = await this.#call('NetworkDriver.Join', ids);
      const { SrcName } = answer['InterfaceName'] as { SrcName: string };
      batch([], [`link set ${SrcName} netns ${namespace} name eth0`]);
      batch(['-n', namespace], ['link set eth0 up', `address add ${address} dev eth0`]);
    } catch (error) {
      if (!(error instanceof Broken)) this.#faults.push(`${address}: ${String(error)}`);
      await this.#anyway('NetworkDriver.DeleteEndpoint', ids);
      return false;
    }
    this.#living.set(address, { endpointId, namespace });
    return true;
  }

  async #detach(address: string, endpointId: string, namespace: string): Promise<void> {
    const ids = { NetworkID: NETWORK, EndpointID: endpointId };
    this.#living.delete(address);
    await this.#anyway('NetworkDriver.Leave', ids);
    // Some containers take their namespace, and the link in it, with them.
    if (this.#random() < 0.3) batch(['-n', namespace], ['link delete eth0']);
    else batch(['-n', namespace], ['link set eth0 down', `link set eth0 netns 1 name tsm${endpointId.slice(0, 12)}`]);
    await this.#anyway('NetworkDriver.DeleteEndpoint', ids);
  }

  // --- what must be true --------------------------------------------------------------------------------------------

  /** Every container that ran before the look and runs after it has its records and its link; no address is twice. */
  async #check(when: string): Promise<void> {
    const before = new Map(this.#living);
    const { endpoints, leases } = await this.#records();
    const state = new Map(endpoints.map((endpoint) => [endpoint.id, endpoint]));
    const leased = new Map(leases.map((lease) => [lease.address, lease]));
    for (const [address, { endpointId, namespace }] of before) {
      if (this.#living.get(address)?.endpointId !== endpointId) continue;
      const endpoint = state.get(endpointId);
      if (endpoint?.state !== 'joined')
        this.#faults.push(`${when}: ${address} runs, its endpoint is ${endpoint?.state}`);
      if (leased.get(bare(address))?.endpointId !== endpointId)
        this.#faults.push(`${when}: ${address} runs without its lease`);
      const link = execFileSync('ip', ['-n', namespace, '-o', 'link', 'show'], { encoding: 'utf8' });
      if (this.#living.get(address)?.endpointId === endpointId && !link.includes('eth0'))
        this.#faults.push(`${when}: ${address} runs without its link`);
    }
    // One that goes may still have its record when the next has its address: its link is down already.
    const macs = endpoints.filter(({ state }) => state !== 'deleting').map(({ macAddress }) => macAddress);
    if (new Set(macs).size !== macs.length) this.#faults.push(`${when}: one MAC address belongs to two endpoints`);
  }

  async #records(): Promise<{ endpoints: Endpoint[]; leases: Lease[] }> {
    const store = readLocalStore(this.#state);
    try {
      return { endpoints: await store.endpoints.list(), leases: await store.leases.list() };
    } finally {
      await store.close();
    }
  }

  /** All containers are gone. Answers how much the collector has still to take. */
  async #finish(): Promise<number> {
    await sleep(500);
    let left = await this.#left();
    const deadlineMs = performance.now() + 180_000;
    while (this.#plan.untilClean && left.length > 0 && performance.now() < deadlineMs) {
      await sleep(1000);
      left = await this.#left();
    }
    if (this.#plan.untilClean) this.#faults.push(...left.map((what) => `left: ${what}`));
    else {
      // What an engine did in the last 10 s is not looked at.
      await sleep(11_000);
      const { Leaks } = (await this.#call('Tsmacvlan.CollectLeaks', { DryRun: true })) as { Leaks: { name: string }[] };
      const known = Leaks.map(({ name }) => name).join(' ');
      // Some may have been collected since.
      left = await this.#left();
      for (const what of left) if (!known.includes(what)) this.#faults.push(`left and not suspected: ${what}`);
    }
    const isOver = once(this.#daemon as ChildProcess, 'exit');
    this.#daemon?.kill('SIGTERM');
    await isOver;
    return left.length;
  }

  /** Records and links of containers, by the names that the collector gives them. */
  async #left(): Promise<string[]> {
    const { endpoints, leases } = await this.#records();
    const links = [...execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' }).matchAll(/^\d+: (tsm\w+)@/gm)];
    const records = endpoints.filter(({ state }) => state !== 'deleting').map(({ id }) => id.slice(0, 12));
    const known = new Set(endpoints.map(({ linkName }) => linkName));
    return [
      ...records,
      ...leases.map(({ address }) => address),
      ...links.map(([, name = '']) => name).filter((name) => !known.has(name)),
    ];
  }
}

function bare(address: string): string {
  return address.split('/')[0] ?? '';
}

function batch(flags: string[], commands: string[]): void {
  execFileSync('ip', [...flags, '-batch', '-'], { input: commands.join('\n'), stdio: ['pipe', 'pipe', 'pipe'] });
}

/** The same numbers for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
