/**
 * Two daemons on two hosts that share nothing but the LAN want the same addresses at about the same time. Each is a
 * process of its own:
 *
 *     racer A in namespace "a": par ── veth ── br0 (ns "lan") ── veth ── par :in namespace "b", racer B
 *
 * Judged by the verdicts, and by a capture on the switch.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { createInterface } from 'node:readline';
import type { Finding } from '../../src/lan/probe.ts';
import { isProbeMac } from '../../src/lan/rivalry.ts';
import { Capture } from '../lab/capture.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';

const timeout = 100_000;
const ROUNDS = 200;
/** They run beside each other: rounds of different addresses do not touch. */
const AT_ONCE = 20;
/** From racing head to head to one being nearly done when the other begins, and after that. */
const LARGEST_LEAD_MS = 900;

interface Order {
  address: { family: 'IPv4' | 'IPv6'; value: string };
  afterMs: number;
  /** First looked for as a reserve, and needed this long after it was found free; null when needed from the start. */
  keepMs: number | null;
}

/** Reads orders, one line each, and answers each with a line. */
const RACER = `
  import { createInterface } from 'node:readline';
  import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
  import { Prober } from ${JSON.stringify(import.meta.resolve('../../src/lan/probe.ts'))};
  const links = Links.open();
  const late = [];
  const prober = new Prober({ links, onLateConflict: ({ address }) => late.push(String(address.value)) });
  const free = new Set();
  const pause = (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs));
  async function obey({ address, afterMs, keepMs }) {
    await pause(afterMs);
    const request = {
      parentName: 'lan0', mode: 'bridge', profile: 'fast', isOwn: () => false,
      address: { family: address.family, value: BigInt(address.value) },
    };
    if (keepMs !== null && !(await prober.keep(request, () => {}).catch(() => ({ held: true }))).held) await pause(keepMs);
    const finding = await prober.probe(request);
    console.log(JSON.stringify({ address: address.value, finding, late }));
  }
  for await (const line of createInterface({ input: process.stdin })) for (const order of JSON.parse(line)) void obey(order);
  await prober.close();
  links.close();`;

class Racer {
  readonly #process: ChildProcess;
  readonly #answers = new Map<string, Finding>();
  late: string[] = [];

  constructor(namespace: Namespace) {
    const [command = '', ...args] = namespace.enter([process.execPath, '--input-type=module-typescript', '-e', RACER]);
    this.#process = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.#process.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const { address, finding, late } = JSON.parse(line) as { address: string; finding: Finding; late: string[] };
      this.#answers.set(address, finding);
      this.late = late;
    });
  }

  async run(orders: Order[]): Promise<Finding[]> {
    this.#process.stdin?.write(`${JSON.stringify(orders)}\n`);
    while (orders.some(({ address }) => !this.#answers.has(address.value))) {
      assert.equal(this.#process.exitCode, null, 'the racer lives');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return orders.map(({ address }) => this.#answers.get(address.value) as Finding);
  }

  end(): void {
    this.#process.kill('SIGKILL');
  }
}

describe('two daemons that want the same addresses', { skip: outsideLab(), timeout: 170_000 }, () => {
  let lan: Lan;
  let racers: Racer[];

  before(async () => {
    lan = await Lan.create([], 'lan');
    racers = [];
    for (const name of ['a', 'b']) {
      const namespace = await Namespace.create(name);
      await lan.plug(namespace);
      racers.push(new Racer(namespace));
    }
  });

  after(() => {
    for (const racer of racers) racer.end();
  });

  for (const [family, first, longestKeepMs] of [
    ['IPv4', 0x0a090001n, null],
    ['IPv6', 0xfd00_0000_0000_0000_0000_0000_0000_0001n, null],
    ['IPv4', 0x0a0a0001n, 800],
  ] as const) {
    const how = longestKeepMs === null ? '' : ', where one or both looked for a reserve before,';
    test(`never both get the same ${family} address${how} in ${ROUNDS} rounds`, { timeout }, async (t) => {
      const capture = await Capture.start(lan.namespace, 'br0');
      const rounds = Array.from({ length: ROUNDS }, (_, number) => ({ family, value: String(first + BigInt(number)) }));
      const outcomes: boolean[][] = [];
      for (let from = 0; from < ROUNDS; from += AT_ONCE) {
        const some = rounds
          .slice(from, from + AT_ONCE)
          .map((address) => ({ address, leadMs: (Math.random() * 2 - 1) * LARGEST_LEAD_MS }));
        const keepMs = () => (longestKeepMs === null || Math.random() < 0.3 ? null : Math.random() * longestKeepMs);
        const [a = [], b = []] = await Promise.all([
          racers[0]?.run(
            some.map(({ address, leadMs }) => ({ address, afterMs: Math.max(0, leadMs), keepMs: keepMs() })),
          ),
          racers[1]?.run(
            some.map(({ address, leadMs }) => ({ address, afterMs: Math.max(0, -leadMs), keepMs: keepMs() })),
          ),
        ]);
        some.forEach((_, at) => outcomes.push([a[at], b[at]].map((finding) => finding?.held === false)));
      }
      const frames = await capture.stop();
      const speakers = new Set(frames.map(({ sourceMac }) => sourceMac).filter(isProbeMac));
      assert.equal(speakers.size, 2);
      const winners = outcomes.map((outcome) => outcome.filter(Boolean).length);
      const count = (number: number) => winners.filter((one) => one === number).length;
      t.diagnostic(`one got it: ${count(1)}, none: ${count(0)}, both: ${count(2)}`);
      assert.equal(count(2), 0);
      assert.deepEqual(
        racers.map(({ late }) => late),
        [[], []],
      );
      assert.ok(count(0) <= ROUNDS / 20, `none got it in ${count(0)} rounds`);
    });
  }
});
