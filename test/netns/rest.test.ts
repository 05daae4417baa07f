/** A daemon about which nothing happens leaves the machine alone, for years: the kernel counts how often it wakes. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import { Understudy } from '../lab/understudy.ts';

const SECONDS = 5;
/** Timers that look by the time, the port's, the table of links or the monitor's, would be 10 to 200 more. */
const MOST_A_SECOND = 12;
/** An address is guarded by the port itself for ten seconds after a start (GUARD_MS in lan/prober.ts). */
const GUARD_SECONDS = 10;

describe('a daemon at rest', { skip: outsideLab(), timeout: 120_000 }, () => {
  test('with three running containers it sleeps', async () => {
    const lan = await Lan.create();
    const host = await Host.boot('one', lan);
    const plugin = await Plugin.start(host);
    const engine = new Understudy(plugin);
    const network = await engine.createNetwork({ subnet: '10.9.0.0/24' });
    for (let starts = 0; starts < 3; starts++) await engine.run(network);
    const wakingsASecond = async () => {
      const before = await plugin.wakings();
      await sleep(SECONDS * 1000);
      return ((await plugin.wakings()) - before) / SECONDS;
    };
    await sleep(GUARD_SECONDS * 500);
    const guarding = await wakingsASecond();
    await sleep(GUARD_SECONDS * 500);
    const resting = await wakingsASecond();
    console.log(`note: ${guarding} wakings a second while three addresses are guarded, ${resting} afterwards`);
    assert.ok(guarding < 2 * MOST_A_SECOND, `${guarding} wakings a second while addresses are guarded`);
    assert.ok(resting < MOST_A_SECOND, `${resting} wakings a second`);
    await plugin.stop();
  });
});
