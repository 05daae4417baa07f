/**
 * A parent on a busy LAN, and the prober under load. The network namespace of this process is the host:
 *
 *     host: par ── veth ── br0 (ns "lan") ── veth ── crowd (a Linux kernel with addresses)
 *                                         └─ veth ── storm (a process that floods the LAN with ARP)
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress } from '../../src/address.ts';
import { Links } from '../../src/kernel/link.ts';
import { Prober } from '../../src/lan/prober.ts';
import type { Verdict } from '../../src/lan/verdict.ts';
import { output } from './command.ts';
import { Lan, Namespace } from './namespace.ts';

const STORM_PER_SECOND = 10_000;

/** Sends ARP requests of changing senders, or probes for one address, at an even rate until it is killed. */
const STORM = (target: number | null) => `
  import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
  import { PacketSocket } from ${JSON.stringify(import.meta.resolve('../../src/kernel/packet.ts'))};
  import { arpProbe, encodeArp } from ${JSON.stringify(import.meta.resolve('../../src/lan/frames/arp.ts'))};
  const links = Links.open();
  const socket = PacketSocket.open({ linkIndex: (await links.byName('lan0')).index, filter: [{ code: 6, jt: 0, jf: 0, k: 0 }] });
  const target = ${target};
  const frame = encodeArp(arpProbe({ family: 'IPv4', value: BigInt(target ?? 0xc0a80001) }, '3c:22:fb:10:aa:07'));
  let sent = 0;
  const startedMs = performance.now();
  setInterval(() => {
    const due = ((performance.now() - startedMs) / 1000) * ${STORM_PER_SECOND};
    for (; sent < due; sent++) {
      if (target === null) frame.writeUInt32BE(0xc0a80000 + (sent % 65536), 28);
      try { socket.send(frame); } catch {}
    }
  }, 2);
  console.log('blowing');`;

/** Of 10.9.0.0/16 and of fd00::/64. */
export const address = (number: number): Address => ({ family: 'IPv4', value: 0x0a090000n + BigInt(number) });
export const addressIPv6 = (number: number): Address => ({ family: 'IPv6', value: (0xfd00n << 112n) + BigInt(number) });

export class BusyLan {
  readonly #crowd: Namespace;
  readonly #stormyPlace: Namespace;
  readonly #links: Links;
  readonly #prober: Prober;
  #storm: ChildProcess | undefined;

  private constructor(crowd: Namespace, stormyPlace: Namespace) {
    this.#crowd = crowd;
    this.#stormyPlace = stormyPlace;
    this.#links = Links.open();
    this.#prober = new Prober({ links: this.#links });
  }

  static async open(): Promise<BusyLan> {
    const lan = await Lan.create([], 'lan');
    const [crowd, stormyPlace] = [await Namespace.create('crowd'), await Namespace.create('storm')];
    for (const namespace of [crowd, stormyPlace]) await lan.plug(namespace);
    await output(['ip', 'link', 'add', 'par', 'type', 'veth', 'peer', 'name', 'port-par', 'netns', 'lan']);
    await lan.namespace.ip('link set port-par master br0 up');
    await output(['ip', 'link', 'set', 'par', 'up']);
    // The kernels' own IPv6 start-up noise.
    await sleep(2500);
    return new BusyLan(crowd, stormyPlace);
  }

  /** The crowd has it from now on. */
  async occupy(one: Address): Promise<void> {
    const length = one.family === 'IPv4' ? 16 : 64;
    await this.#crowd.ip(`address add ${formatAddress(one)}/${length} dev lan0 nodad`);
  }

  probe(one: Address, guardMs = 0): Promise<Verdict> {
    const isOwn = () => false;
    return this.#prober.probe({ parentName: 'par', mode: 'bridge', profile: 'fast', address: one, isOwn, guardMs });
  }

  /** The next probe makes its link anew. */
  async cool(): Promise<void> {
    this.#storm?.kill('SIGKILL');
    await this.#prober.close();
  }

  /** Until cool(). Requests about other hosts, or probes for the IPv4 address with this number. */
  async blow(target: number | null): Promise<void> {
    const words = this.#stormyPlace.enter([process.execPath, '--input-type=module-typescript', '-e', STORM(target)]);
    this.#storm = spawn(words[0] ?? '', words.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(this.#storm.stdout as NodeJS.ReadableStream, 'data');
  }

  async close(): Promise<void> {
    await this.cool();
    this.#links.close();
  }
}

export interface Measured<T> {
  readonly result: T;
  readonly tookMs: number;
  /** Of this process. */
  readonly cpuMs: number;
}

export async function measured<T>(act: () => Promise<T>): Promise<Measured<T>> {
  const [startedMs, before] = [performance.now(), process.cpuUsage()];
  const result = await act();
  const { user, system } = process.cpuUsage(before);
  return { result, tookMs: performance.now() - startedMs, cpuMs: (user + system) / 1000 };
}
