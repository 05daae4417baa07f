/**
 * What the probe costs, and what a crowd and a storm do to it. `make bench` shows the figures; the bounds here leave room for
 * a busy machine.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BusyLan, type Measured, address, addressIPv6, measured } from '../lab/busy.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';

const timeout = 120_000;
const STORM_MS = 3000;
const TRIES = 3;
const MOST_PAIRS = 10;

describe('the probe under load', { skip: outsideLab(), timeout: 500_000 }, () => {
  let lan: BusyLan;

  before(async () => {
    lan = await BusyLan.open();
  });

  afterEach(() => lan.cool());

  after(() => lan.close());

  test('a cold probe, a warm one and a held one', { timeout }, async () => {
    const cold = await bestOf(async () => {
      await lan.cool();
      return measured(() => lan.probe(address(500)));
    });
    const warm = await bestOf(() => measured(() => lan.probe(address(501))));
    await lan.occupy(address(0x201));
    const held = [];
    for (let round = 0; round < 20; round++) held.push((await measured(() => lan.probe(address(0x201)))).tookMs);
    held.sort((a, b) => a - b);
    console.log(
      `free: cold ${cold.tookMs.toFixed()} ms (${cold.cpuMs.toFixed(1)} ms CPU), warm ${warm.tookMs.toFixed()} ms (${warm.cpuMs.toFixed(1)} ms CPU)`,
    );
    console.log(
      `held: median ${held[10]?.toFixed(1)} ms, longest ${held[19]?.toFixed(1)} ms (with a first wait of 0 to 10 ms)`,
    );
    assert.ok(cold.tookMs < 1000 && warm.tookMs < 900);
    assert.ok((held[10] ?? 1000) < 100);
  });

  test('a hundred addresses at once take about the time of one, and every verdict is right', { timeout }, async () => {
    const asked = Array.from({ length: 100 }, (_, at) => ((at + 1) % 2 ? address : addressIPv6)(at + 1));
    for (const used of asked.slice(0, 25)) await lan.occupy(used);
    await lan.probe(address(500));
    // One pair is enough: what a busy machine adds is not the same each time.
    const pairs: string[] = [];
    const isAboutTheSame = async () => {
      const one = await measured(() => lan.probe(address(501)));
      const hundred = await measured(() => Promise.all(asked.map((each) => lan.probe(each))));
      assert.deepEqual(
        hundred.result.map(({ held }) => held),
        asked.map((_, at) => at < 25),
      );
      pairs.push(
        `one: ${one.tookMs.toFixed()} ms, a hundred: ${hundred.tookMs.toFixed()} ms and ${hundred.cpuMs.toFixed()} ms CPU`,
      );
      return hundred.tookMs < one.tookMs * 1.5 + 100;
    };
    while (!(await isAboutTheSame())) assert.ok(pairs.length < MOST_PAIRS, pairs.join('; '));
    console.log(pairs.at(-1));
  });

  test('ten thousand ARP frames a second that pass by cost next to nothing, and hide nothing', {
    timeout,
  }, async () => {
    await lan.occupy(address(0x301));
    await lan.probe(address(600), 20_000);
    const calm = await measured(() => sleep(STORM_MS));
    await lan.blow(null);
    const storms = [];
    for (let round = 0; round < TRIES; round++) storms.push(await measured(() => sleep(STORM_MS)));
    const stormy = storms.reduce((one, other) => (one.cpuMs < other.cpuMs ? one : other));
    const findings = await Promise.all([lan.probe(address(0x301)), lan.probe(address(601))]);
    console.log(`CPU of one core: calm ${share(calm)} %, in the storm ${share(stormy)} %`);
    assert.deepEqual(
      findings.map(({ held }) => held),
      [true, false],
    );
    assert.ok(stormy.cpuMs - calm.cpuMs < STORM_MS * 0.05);
  });

  test('ten thousand probes a second for a guarded address get bounded work and bounded answers', {
    timeout,
  }, async () => {
    assert.equal((await lan.probe(address(700), 20_000)).held, false);
    await lan.blow(0x0a090000 + 700);
    const { result: answers, ...stormy } = await measured(async () => {
      const before = await sentFrames();
      await sleep(STORM_MS);
      return (await sentFrames()) - before;
    });
    console.log(`CPU of one core: ${share(stormy)} %, ${answers} answers in ${stormy.tookMs.toFixed()} ms`);
    assert.ok(answers > 0 && answers <= (stormy.tookMs / 100) * 10 + 20);
    assert.ok(stormy.cpuMs < stormy.tookMs * 0.6);
  });

  /** The quickest of three: a busy machine may be late, but not each time. */
  async function bestOf<T>(act: () => Promise<Measured<T>>): Promise<Measured<T>> {
    const all = [];
    for (let round = 0; round < TRIES; round++) all.push(await act());
    return all.reduce((one, other) => (one.tookMs < other.tookMs ? one : other));
  }

  const share = ({ cpuMs, tookMs }: { cpuMs: number; tookMs: number }) => ((cpuMs / tookMs) * 100).toFixed(1);

  async function sentFrames(): Promise<number> {
    const all = JSON.parse(await output(['ip', '-j', '-s', 'link'])) as {
      ifname: string;
      stats64: { tx: { packets: number } };
    }[];
    return all.find(({ ifname }) => ifname.startsWith('tsmp'))?.stats64.tx.packets ?? 0;
  }
});
