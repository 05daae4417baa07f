/**
 * What Docker's IPAM gives out next is asked for ahead: kernels and the daemon are real, the engine is played.
 *
 *     host: tsmacvlan, containers ── lan0 ──────────┐
 *     neighbour: has an address that nobody wants ──┼── br0 (ns "lan")
 *     listener: hears what is asked ────────────────┘
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Questions } from '../lab/questions.ts';
import { SilentTaker } from '../lab/silenttaker.ts';
import { Understudy } from '../lab/understudy.ts';

const timeout = 60_000;
const HOLDER = '3c:22:fb:10:aa:04';
const LISTENER = '3c:22:fb:10:aa:05';
const FAMILIES = [
  { family: 'IPv4', subnet: '10.70.1.0/24', at: (host: number) => `10.70.1.${host}`, length: 24 },
  { family: 'IPv6', subnet: 'fd00:70::/64', at: (host: number) => `fd00:70::${host.toString(16)}`, length: 64 },
] as const;
/** With a network's first container so many are asked for ahead, of which one is the neighbour's. */
const GUESSED = 48;
const HELD = 6;
/** A whole procedure takes at least so long. */
const WINDOW_MS = 590;

describe('what Docker’s IPAM is likely to give out', { skip: outsideLab(), timeout: 120_000 }, () => {
  let lan: Lan;
  let engine: Understudy;
  let holder: SilentTaker;
  let listener: Neighbour;
  let questions: Questions;

  before(async () => {
    lan = await Lan.create([]);
    holder = await SilentTaker.plug(lan, 'neighbour', HOLDER);
    listener = await Neighbour.plug(lan, 'listener', LISTENER);
    questions = new Questions(listener);
    engine = new Understudy(await Plugin.start(await Host.boot('one', lan)));
  });

  after(async () => {
    await engine.clear();
    await engine.plugin.stop();
    listener.close();
  });

  for (const { family, subnet, at, length } of FAMILIES) {
    test(`is asked for in the window of a network's first container, ${family}`, { timeout }, async () => {
      await holder.take(at(HELD));
      const network = await engine.createNetwork({ subnet, ipamOptions: null });
      /** Answers how long CreateEndpoint took. */
      const run = async (host: number) => {
        let [beganMs, tookMs] = [0, 0];
        const moments = {
          chosen: async () => (beganMs = performance.now()),
          created: async () => (tookMs = performance.now() - beganMs),
        };
        await engine.run(network, { address: `${at(host)}/${length}` }, moments);
        return tookMs;
      };
      assert.ok((await run(1)) >= WINDOW_MS);
      const next = Array.from({ length: GUESSED }, (_, n) => at(n + 2));
      await until(() => questions.answered((address) => next.includes(address)).length >= GUESSED - 1);
      const tookMs: number[] = [];
      for (const host of [2, 3, 4, 5, 7, 8, 9]) tookMs.push(await run(host));
      // One may be late on a busy machine.
      assert.ok(tookMs.filter((ms) => ms >= WINDOW_MS).length <= 1, `${tookMs.join(', ')} ms`);
    });

    test(`is no conflict where somebody has it, and nothing is said of him, ${family}`, { timeout }, async () => {
      assert.ok(questions.count(at(HELD)) > 0, 'it was asked for');
      const listed = JSON.parse(await engine.plugin.command('conflicts', '--json')) as { address: string }[];
      assert.deepEqual(listed, []);
      assert.ok(!engine.plugin.log().includes(HOLDER));
    });
  }
});
