/**
 * A host boots with many containers, named and not: their addresses are asked for in one window before the engine asks for the
 * first. Counted are the questions on the LAN, by a listener on it:
 *
 *     host: tsmacvlan, containers ── lan0 ─┬─ br0 (ns "lan")
 *     listener, taker ─────────────────────┘
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Questions } from '../lab/questions.ts';
import { SilentTaker } from '../lab/silenttaker.ts';
import { type FakeNetwork, Refusal, Understudy } from '../lab/understudy.ts';

const timeout = 30_000;
const LISTENER = '3c:22:fb:10:aa:05';
const TAKER = '3c:22:fb:10:aa:04';
/** A fresh question, in a burst one ahead of it, and those of CreateEndpoint and Join. */
const QUESTIONS_OF_START = 4;
/** A whole procedure; a start of the daemon asks so for what is in its records, and for what may come back. */
const WINDOW = 3;

describe('containers that come back', { skip: outsideLab(), timeout: 200_000 }, () => {
  let engine: Understudy;
  let listener: Neighbour;
  let taker: SilentTaker;
  let questions: Questions;
  let ours: FakeNetwork;
  let dockers: FakeNetwork;

  before(async () => {
    const lan = await Lan.create();
    listener = await Neighbour.plug(lan, 'listener', LISTENER);
    taker = await SilentTaker.plug(lan, 'taker', TAKER);
    questions = new Questions(listener);
    // In memory: behind a slow disk Join asks once more.
    engine = new Understudy(await Plugin.start(await Host.boot('one', lan), { STATE_DIR: '/run/state' }));
    ours = await engine.createNetwork({ subnet: '10.9.0.0/24' });
    dockers = await engine.createNetwork({ subnet: '10.9.1.0/24', ipamOptions: null });
  });
  after(() => listener.close());

  const named = Array.from({ length: 8 }, (_, at) => `10.9.0.${100 + at}`);
  const chosen = Array.from({ length: 8 }, (_, at) => `10.9.1.${2 + at}`);
  const all = [...named, ...chosen];
  const start = (address: string) =>
    named.includes(address) ? engine.run(ours, { address }) : engine.run(dockers, { address: `${address}/24` });

  /** Each answers what the engine ends when it is back. */
  const ENDS = {
    'a power cut': async () => {
      await engine.plugin.stop('SIGKILL');
      const containers = [...engine.containers];
      for (const { namespace } of containers) await namespace.delete();
      engine.containers.clear();
      // The kernel takes a namespace apart after its name is gone.
      await sleep(500);
      return containers;
    },
    'an engine that stops them, and the daemon after it': async () => {
      for (const container of engine.containers) await engine.remove(container);
      await engine.plugin.stop();
      return [];
    },
  } as const;

  for (const [name, end] of Object.entries(ENDS))
    test(`after ${name} all are asked for at once, and no start waits for a window`, { timeout }, async () => {
      const running = new Set([...engine.containers].map(({ address }) => address.split('/')[0]));
      await Promise.all(all.filter((address) => !running.has(address)).map(start));
      const dead = await end();
      for (const address of all) questions.forget(address);
      const [lost] = named;
      assert.ok(lost !== undefined);
      await taker.take(lost);
      await engine.plugin.start();
      const others = all.filter((address) => address !== lost);
      const answered = () => questions.answered((address) => others.includes(address));
      await until(() => answered().length === others.length);
      for (const address of others) questions.forget(address);

      for (const container of dead) await engine.forget(container);
      const refused = await start(lost).catch((error: unknown) => error);
      assert.ok(refused instanceof Refusal && refused.message.includes(TAKER), String(refused));
      await Promise.all(others.map(start));
      const counts = others.map((address) => questions.count(address));
      assert.deepEqual(
        counts.filter((count) => count > QUESTIONS_OF_START),
        [],
        counts.join(' '),
      );
      await taker.giveUp(lost);
    });

  test('a start that comes while its address is being asked for waits for that question', { timeout }, async () => {
    const dead = await ENDS['a power cut']();
    const back = dead.map(({ address }) => address.split('/')[0] ?? '');
    assert.ok(back.length > 0);
    for (const address of back) questions.forget(address);
    await engine.plugin.start();
    await until(() => back.every((address) => questions.count(address) > 0));
    for (const container of dead) await engine.forget(container);
    await Promise.all(back.map(start));
    const counts = back.map((address) => questions.count(address));
    assert.deepEqual(
      counts.filter((count) => count > 2 * WINDOW + QUESTIONS_OF_START),
      [],
      counts.join(' '),
    );
  });
});
