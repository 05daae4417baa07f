/**
 * Three engines on one LAN, random lives of containers, random faults; whatever happens, nothing is lost or doubled and
 * nothing leaks.
 *
 *     make soak MINUTES=30        SEED=… repeats a run, FAULT='engine killed' has only this one
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { Engine, type Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import type { Machine } from '../lab/site.ts';
import { GATEWAY, Soak, traces } from '../lab/soak.ts';

/** Without MINUTES a short one, in which what only time can collect has to be known at least. */
const MINUTES = Number(process.env.MINUTES ?? 0.5);
const IS_LONG = process.env.MINUTES !== undefined;
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

/** The second one's containers live on without their engine. */
const HOSTS: { name: string; version: Version; options: string[] }[] = [
  { name: 'one', version: '20.10.24', options: [] },
  { name: 'two', version: '26.1.5', options: ['--live-restore'] },
  { name: 'three', version: '28.5.2', options: [] },
];

describe('soak', { skip: outsideLab(), timeout: (MINUTES + 20) * 60_000 }, () => {
  let lan: Lan;
  let machines: Machine[];

  before(async () => {
    lan = await Lan.create([`${GATEWAY}/24`]);
    machines = await Promise.all(HOSTS.map(boot));
  });
  after(async () => {
    for (const { host } of machines) await host.scrap(lan);
    await lan.namespace.delete();
  });

  async function boot({ name, version, options }: (typeof HOSTS)[number]): Promise<Machine> {
    const host = await Host.boot(name, lan);
    const plugin = await Plugin.start(host, { LOG_LEVEL: 'info' });
    return { host, plugin, engine: await Engine.start(host, version, options) };
  }

  test(`${MINUTES} minutes of random lives and faults, seed ${SEED}`, async () => {
    const plan = { seed: SEED, durationMs: MINUTES * 60_000, untilClean: IS_LONG, fault: process.env.FAULT };
    const soak = new Soak(machines, lan, plan);
    const score = await soak.run();
    console.log(JSON.stringify({ seed: SEED, ...score }, null, 2));
    if (score.broken.length > 0) {
      console.log(traces(machines, score.broken.join()));
      console.log(soak.journal.slice(-300).join('\n'));
      for (const { host, engine } of machines) console.log(`${host.name}:\n${engine.log().slice(-20_000)}`);
    }
    assert.deepEqual(score.broken, []);
    assert.ok(score.rounds > 0 && score.calls > 0, JSON.stringify(score));
  });
});
