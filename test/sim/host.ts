/**
 * A Docker host: its machine with kernel, clocks and disk, the daemon that runs on it, which is the product as src/main.ts
 * composes it, and its cable.
 */
import type { Server } from 'node:http';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Daemon, startDaemon } from '../../src/main.ts';
import { type Settings, readSettings } from '../../src/settings.ts';
import { type Reply, post } from './call.ts';
import { HostDisk } from './disk.ts';
import { BEGIN } from './globals.ts';
import type { EtcdNetwork } from './etcd/cluster.ts';
import type { Address } from './kernel/address.ts';
import { type Computer, Kernel, type Program } from './kernel/kernel.ts';
import { rtnetlinkOf } from './kernel/libc.ts';
import type { Link } from './kernel/link.ts';
import type { Port } from './lan.ts';
import type { Random } from './random.ts';
import { Process, scheduler } from './time.ts';
// The product loads it where it is needed, and reading a file takes real time.
import '../../src/store/etcd/store.ts';

/** What a line of a daemon's log says. */
export type Line = { readonly level: string; readonly message: string; readonly fields: Record<string, unknown> };

interface HostSpec {
  readonly name: string;
  readonly random: Random;
  readonly port: Port;
  readonly directory: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly onLine: (host: Host, line: Line) => void;
}

/** The parent of all macvlans. */
export const PARENT = 'lan0';

export class Host implements Computer {
  readonly name: string;
  readonly random: Random;
  readonly kernel: Kernel;
  readonly nic: Link;
  readonly port: Port;
  readonly disk: HostDisk;
  /** HTTP servers that the engine can reach. */
  readonly listeners = new Set<Server>();
  readonly #spec: HostSpec;
  /** Null where it has none. */
  etcd: EtcdNetwork | null = null;
  daemon: Program | null = null;
  #running: Daemon | null = null;
  #isStopping = false;
  #isOff = false;
  #startsAgain = false;
  #bootedAtMs = scheduler.nowMs;
  #sleptMs = 0;
  #sleptAtMs: number | null = null;
  /** How far the wall clock is off. */
  wallErrorMs = 0;

  constructor(spec: HostSpec) {
    this.#spec = spec;
    [this.name, this.random, this.port] = [spec.name, spec.random, spec.port];
    this.kernel = new Kernel(spec.name, spec.random.fork('kernel'));
    this.nic = this.kernel.addNic(PARENT, macOfHost(spec.name), spec.port);
    this.disk = new HostDisk(spec.random.fork('disk'), spec.directory);
    spec.port.station = {
      receive: (frame) => this.kernel.receive(this.nic, frame),
      carrierChanged: () => this.kernel.carrierChanged(this.nic),
    };
    mkdirSync(spec.directory, { recursive: true });
    // Long up: its ports forward.
    this.#bootedAtMs = scheduler.nowMs - 3_600_000;
  }

  // --- clocks ------------------------------------------------------------------------------------------------------

  monotonicMs(): number {
    return (this.#sleptAtMs ?? scheduler.nowMs) - this.#bootedAtMs - this.#sleptMs;
  }

  wallMs(): number {
    return Math.floor(BEGIN + scheduler.nowMs + this.wallErrorMs);
  }

  uptimeS(): number {
    return (scheduler.nowMs - this.#bootedAtMs) / 1000;
  }

  /** Its default route goes by this router, which it knows. */
  addRoute(gateway: Address, macAddress: string): void {
    const { kernel, nic } = this;
    rtnetlinkOf(kernel).routes.push({ destination: null, length: 0, link: nic, gateway });
    this.#learnRouter = () => kernel.neighbours.learn(nic, gateway, macAddress);
    this.#learnRouter();
  }

  #learnRouter: () => void = () => undefined;

  // --- the daemon --------------------------------------------------------------------------------------------------

  /** Starts it; its start goes on as time does. */
  start(): void {
    this.#startsAgain = this.#isStopping;
    if (this.daemon?.isAlive || this.#isOff) return;
    const process: Program = new Process<Computer>(this, `${this.name} daemon`);
    this.daemon = process;
    if (this.isAsleep) process.freeze();
    const log = this.#log();
    scheduler.world(0, () =>
      process.enter(() => {
        void startDaemon(this.#settings(), log)
          .then((daemon) => (this.#running = daemon))
          .catch((error: unknown) => log.error('the daemon did not start', { error: String(error) }));
      }),
    );
  }

  /** SIGTERM: its end goes on as time does. */
  stop(): void {
    const [daemon, process] = [this.#running, this.daemon];
    this.#running = null;
    if (daemon === null || process === null || !process.isAlive) return;
    this.#isStopping = true;
    const end = () => {
      process.kill();
      this.#isStopping = false;
      if (this.#startsAgain) this.start();
    };
    process.enter(() => scheduler.after(0, () => void daemon.stop().finally(() => scheduler.world(0, end))));
  }

  kill(): void {
    this.#running = null;
    this.#isStopping = false;
    this.daemon?.kill();
  }

  get isServing(): boolean {
    return this.daemon?.isAlive === true && this.listeners.size > 0;
  }

  /** An engine calls: false when nobody listens. `onReply` is called by the world. */
  call(name: string, body: object | null, onReply: (reply: Reply) => void): boolean {
    const [server] = this.listeners;
    const { daemon } = this;
    if (daemon === null || !daemon.isAlive || server === undefined) return false;
    daemon.enter(() =>
      scheduler.after(this.random.delay(0.1, 3), () => {
        post(server, name, body, (reply) => {
          if (daemon.isAlive) scheduler.world(this.random.delay(0.05, 1), () => onReply(reply));
        });
      }),
    );
    return true;
  }

  // --- the machine -------------------------------------------------------------------------------------------------

  /** Suspended, or a virtual machine that is paused. */
  sleep(): void {
    if (this.#sleptAtMs !== null || this.#isOff) return;
    this.#sleptAtMs = scheduler.nowMs;
    this.kernel.isAsleep = true;
    this.daemon?.freeze();
  }

  wake(): void {
    if (this.#sleptAtMs === null) return;
    this.#sleptMs += scheduler.nowMs - this.#sleptAtMs;
    this.#sleptAtMs = null;
    this.kernel.isAsleep = false;
    this.daemon?.thaw();
  }

  /** The power goes: the daemon is dead, and of its files and the kernel's links there is what outlasts that. */
  cutPower(): void {
    const writeBack = this.disk.loseCache();
    this.kill();
    writeBack();
    [this.#isOff, this.kernel.isAsleep] = [true, true];
    for (const link of [...this.kernel.host.links.values()]) if (link !== this.nic) this.kernel.removeLink(link);
    this.port.setCarrier(false);
  }

  /** The power is back: `blockedMs` later its port forwards. Who runs on it is started by others. */
  boot(blockedMs: number): void {
    [this.#bootedAtMs, this.#sleptMs, this.#sleptAtMs] = [scheduler.nowMs, 0, null];
    [this.#isOff, this.kernel.isAsleep] = [false, false];
    this.kernel.neighbours.entries.clear();
    this.#learnRouter();
    this.port.setCarrier(true, blockedMs);
    this.start();
  }

  /** Asleep or off: nothing runs on it. */
  get isAsleep(): boolean {
    return this.#sleptAtMs !== null || this.#isOff;
  }

  /** Copies the state of a host that is off. */
  copyState(to: string): void {
    cpSync(this.#spec.directory, to, { recursive: true });
  }

  /** It is no more. */
  remove(): void {
    this.kill();
    rmSync(this.#spec.directory, { recursive: true, force: true });
  }

  #settings(): Settings {
    return readSettings({
      SOCKET: join(this.#spec.directory, 'socket'),
      STATE_DIR: this.#spec.directory,
      ...this.#spec.settings,
    });
  }

  #log() {
    const line =
      (level: string) =>
      (message: string, fields: Record<string, unknown> = {}) => {
        if (this.daemon?.isAlive) this.#spec.onLine(this, { level, message, fields });
      };
    return { debug: () => undefined, info: line('info'), warn: line('warn'), error: line('error') };
  }
}

function macOfHost(name: string): string {
  return `3c:22:fb:00:00:${Number(name.replaceAll(/\D/g, '')).toString(16).padStart(2, '0')}`;
}
