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
import type { Verdict } from '../../src/lan/verdict.ts';
import { isProbeMac } from '../../src/lan/frames/mac.ts';
import { Capture } from '../lab/capture.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';

const timeout = 200_000;
const ROUNDS = 200;
/** They run beside each other: rounds of different addresses do not touch. */
const AT_ONCE = 20;
/**
 * A daemon that stands still for longer may not hear its rival in time; then both may get an address, and one of them must
 * report it (test/unit/lan/detection.test.ts).
 */
const LONGEST_STALL_MS = 400;
/** In place of rounds in which the machine let one of them stand still. */
const MORE_ROUNDS = 300;
/** From racing head to head to one being nearly done when the other begins, and after that. */
const LARGEST_LEAD_MS = 900;

interface Order {
  address: { family: 'IPv4' | 'IPv6'; value: string };
  afterMs: number;
  /** First kept on standby, and needed this long after it was found free; null when needed from the start. */
  keepMs: number | null;
}

interface Answer {
  readonly address: string;
  readonly finding: Verdict;
}

interface Report {
  /** The longest time it stood still. */
  readonly awayMs: number;
  /** Addresses that somebody else used although it had them. */
  readonly late: readonly string[];
}

interface Round {
  readonly address: Order['address'];
  readonly winners: number;
  readonly isDisturbed: boolean;
}

/** Reads orders, a list in each line: tells how long it stood still since the line before, and answers each with a line. */
const RACER = `
  import { createInterface } from 'node:readline';
  import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
  import { Prober } from ${JSON.stringify(import.meta.resolve('../../src/lan/prober.ts'))};
  const links = Links.open();
  const late = [];
  const prober = new Prober({ links, onLateConflict: ({ address }) => late.push(String(address.value)) });
  let seenMs = performance.now();
  let awayMs = 0;
  setInterval(() => {
    awayMs = Math.max(awayMs, performance.now() - seenMs);
    seenMs = performance.now();
  }, 5).unref();
  const pause = (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs));
  async function obey({ address, afterMs, keepMs }) {
    await pause(afterMs);
    const request = {
      parentName: 'lan0', mode: 'bridge', profile: 'fast', isOwn: () => false,
      address: { family: address.family, value: BigInt(address.value) },
    };
    if (keepMs !== null && !(await prober.keep(request, () => {}).catch(() => ({ held: true }))).held) await pause(keepMs);
    const finding = await prober.probe(request);
    console.log(JSON.stringify({ address: address.value, finding }));
  }
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify({ awayMs, late }));
    awayMs = 0;
    for (const order of JSON.parse(line)) void obey(order);
  }
  await prober.close();
  links.close();`;

class Racer {
  readonly #process: ChildProcess;
  readonly #answers = new Map<string, Verdict>();
  readonly #reports: Report[] = [];

  constructor(namespace: Namespace) {
    const [command = '', ...args] = namespace.enter([process.execPath, '--input-type=module-typescript', '-e', RACER]);
    this.#process = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.#process.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const said = JSON.parse(line) as Answer | Report;
      if ('late' in said) this.#reports.push(said);
      else this.#answers.set(said.address, said.finding);
    });
  }

  async run(orders: Order[]): Promise<Verdict[]> {
    await this.report(orders);
    await this.#until(() => orders.every(({ address }) => this.#answers.has(address.value)));
    return orders.map(({ address }) => this.#answers.get(address.value) as Verdict);
  }

  /** Of the time since the last one. */
  async report(orders: Order[] = []): Promise<Report> {
    const known = this.#reports.length;
    this.#process.stdin?.write(`${JSON.stringify(orders)}\n`);
    await this.#until(() => this.#reports.length > known);
    return this.#reports.at(-1) as Report;
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      assert.equal(this.#process.exitCode, null, 'the racer lives');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  end(): void {
    this.#process.kill('SIGKILL');
  }
}

describe('two daemons that want the same addresses', { skip: outsideLab(), timeout: 500_000 }, () => {
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
    const how = longestKeepMs === null ? '' : ', where one or both kept it on standby before,';
    test(`never both get the same ${family} address${how} in ${ROUNDS} rounds`, { timeout }, async (t) => {
      const capture = await Capture.start(lan.namespace, 'br0');
      const rounds: Round[] = [];
      const calm = () => rounds.filter(({ isDisturbed }) => !isDisturbed);
      while (calm().length < ROUNDS && rounds.length < ROUNDS + MORE_ROUNDS) {
        const values = Array.from({ length: AT_ONCE }, (_, at) => String(first + BigInt(rounds.length + at)));
        rounds.push(
          ...(await race(
            values.map((value) => ({ family, value })),
            longestKeepMs,
          )),
        );
      }
      const frames = await capture.stop();
      const speakers = new Set(frames.map(({ sourceMac }) => sourceMac).filter(isProbeMac));
      assert.equal(speakers.size, 2);
      const won = (number: number) => calm().filter(({ winners }) => winners === number);
      const disturbed = rounds.length - calm().length;
      const words = `one got it: ${won(1).length}, none: ${won(0).length}, both: ${won(2).length}`;
      t.diagnostic(`${words}; ${disturbed} more in which one stood still`);
      assert.ok(calm().length >= ROUNDS / 2, `${disturbed} of ${rounds.length} rounds disturbed`);
      assert.deepEqual(won(2), []);
      assert.ok(won(0).length <= calm().length / 20, `none got it in ${won(0).length} rounds`);
      const reports = await Promise.all(racers.map((racer) => racer.report()));
      const late = reports.flatMap((report) => report.late);
      assert.deepEqual(
        calm().filter(({ address }) => late.includes(address.value)),
        [],
      );
      assert.deepEqual(
        rounds.filter(({ winners, address }) => winners === 2 && !late.includes(address.value)),
        [],
        'both got it, and neither says so',
      );
    });
  }

  async function race(addresses: Order['address'][], longestKeepMs: number | null): Promise<Round[]> {
    const keepMs = () => (longestKeepMs === null || Math.random() < 0.3 ? null : Math.random() * longestKeepMs);
    const some = addresses.map((address) => ({ address, leadMs: (Math.random() * 2 - 1) * LARGEST_LEAD_MS }));
    const findings = await Promise.all(
      racers.map((racer, at) =>
        racer.run(
          some.map(({ address, leadMs }) => ({
            address,
            afterMs: Math.max(0, at === 0 ? leadMs : -leadMs),
            keepMs: keepMs(),
          })),
        ),
      ),
    );
    const reports = await Promise.all(racers.map((racer) => racer.report()));
    const isDisturbed = reports.some(({ awayMs }) => awayMs > LONGEST_STALL_MS);
    return addresses.map((address, at) => {
      const winners = findings.filter((ofRacer) => ofRacer[at]?.held === false).length;
      return { address, winners, isDisturbed };
    });
  }
});
