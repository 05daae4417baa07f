/**
 * How long the kernel room's verbs take, and how long each keeps the event loop from turning; `node test/bench/kernel.ts`
 * as root. Figures of one run stand in docs/kernel.md.
 */
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { ARP_AND_NEIGHBOUR_DISCOVERY } from '../../src/kernel/bpf.ts';
import { type Link, Links } from '../../src/kernel/link.ts';
import { PacketSocket } from '../../src/kernel/packet.ts';
import { enclose, outsideLab } from '../lab/enclosure.ts';

const ROUNDS = 300;
const TOGETHER = 50;

class Bench {
  readonly #links = Links.open();
  readonly #parent: Link;

  constructor(parent: Link) {
    this.#parent = parent;
  }

  async run(): Promise<void> {
    await this.#alone();
    await this.#together();
    await this.#listing();
    await this.#packets();
    this.#links.close();
  }

  #add(name: string): Promise<Link> {
    const spec = { alias: 'tsmacvlan bench', macAddress: null, mtu: 1400, broadcastQueueLength: null };
    return this.#links.addMacvlan({ ...spec, name, parentIndex: this.#parent.index, mode: 'bridge' });
  }

  async #addMany(count: number): Promise<number[]> {
    const indexes = [];
    for (let each = 0; each < count; each++) indexes.push((await this.#add(`tsm${each}`)).index);
    return indexes;
  }

  async #alone(): Promise<void> {
    const times = { add: [] as number[], get: [] as number[], up: [] as number[], delete: [] as number[] };
    const startedMs = performance.now();
    const stall = startStallMeter();
    for (let round = 0; round < ROUNDS; round++) {
      let index = 0;
      times.add.push(await timed(async () => void ({ index } = await this.#add('tsm0'))));
      times.get.push(await timed(() => this.#links.byIndex(index)));
      times.up.push(await timed(() => this.#links.setUp(index)));
      times.delete.push(await timed(() => this.#links.deleteLink(index)));
    }
    const longest = stallMs(stall);
    for (const [verb, values] of Object.entries(times)) report(`${verb}, one after the other`, values);
    const control = startStallMeter();
    await sleep(performance.now() - startedMs);
    const words = `${longest.toFixed(1)} ms; doing nothing for as long: ${stallMs(control).toFixed(1)} ms`;
    console.log(`longest stall of the event loop meanwhile: ${words}`);
  }

  async #together(): Promise<void> {
    const totals = [];
    const adds = [];
    for (let round = 0; round < 5; round++) {
      const indexes = await this.#addMany(TOGETHER);
      const deletion = timed(() => Promise.all(indexes.map((index) => this.#links.deleteLink(index))));
      await sleep(1);
      let index = 0;
      adds.push(await timed(async () => void ({ index } = await this.#add('other'))));
      totals.push(await deletion);
      await this.#links.deleteLink(index);
    }
    report(`delete ${TOGETHER} at once, all`, totals);
    report('add while they are deleted', adds);
  }

  async #listing(): Promise<void> {
    const indexes = await this.#addMany(200);
    const times = [];
    for (let round = 0; round < 50; round++) times.push(await timed(() => this.#links.list()));
    report('list 200 links', times);
    await Promise.all(indexes.map((index) => this.#links.deleteLink(index)));
  }

  async #packets(): Promise<void> {
    const times = { open: [] as number[], close: [] as number[] };
    for (let round = 0; round < 100; round++) {
      let socket: PacketSocket | undefined;
      const spec = { linkIndex: this.#parent.index, filter: ARP_AND_NEIGHBOUR_DISCOVERY };
      times.open.push(await timed(async () => void (socket = PacketSocket.open(spec))));
      times.close.push(await timed(async () => socket?.close()));
      await sleep(5);
    }
    for (const [verb, values] of Object.entries(times)) report(`packet socket: ${verb}`, values);
  }
}

async function timed(task: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await task();
  return performance.now() - startedMs;
}

function startStallMeter() {
  const meter = monitorEventLoopDelay({ resolution: 1 });
  meter.enable();
  return meter;
}

/** Its timer is due every millisecond. */
function stallMs(meter: ReturnType<typeof startStallMeter>): number {
  meter.disable();
  return meter.max / 1e6 - 1;
}

function report(what: string, timesMs: number[]): void {
  const sorted = timesMs.toSorted((a, b) => a - b);
  const at = (share: number) =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(2);
  console.log(
    `${what.padEnd(32)} p50 ${at(0.5).padStart(7)}   p99 ${at(0.99).padStart(7)}   max ${at(1).padStart(7)} ms`,
  );
}

async function measure(): Promise<void> {
  const links = Links.open();
  const parent = await links.addIsolated({ name: 'parent0', alias: 'tsmacvlan bench' });
  await links.setUp(parent.index);
  links.close();
  await new Bench(parent).run();
}

if (outsideLab())
  process.exitCode = (
    (await once(enclose([process.execPath, import.meta.filename], 'inherit'), 'exit')) as [number]
  )[0];
else await measure();
