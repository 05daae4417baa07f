import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Patrol } from '../../../src/lan/patrol.ts';

/** A clock that is moved by hand. */
function handClock() {
  let nowMs = 0;
  const due: { atMs: number; run: () => void }[] = [];
  const clock = {
    nowMs: () => nowMs,
    after(delayMs: number, run: () => void) {
      const timer = { atMs: nowMs + delayMs, run };
      due.push(timer);
      return () => void due.splice(due.indexOf(timer), due.includes(timer) ? 1 : 0);
    },
  };
  const pass = async (untilMs: number) => {
    for (;;) {
      const next = due.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      due.splice(due.indexOf(next), 1);
      nowMs = next.atMs;
      next.run();
      await turn();
    }
    nowMs = untilMs;
  };
  return { clock, pass, due };
}

test('each address is asked for once a minute, one a second, and none after the end', async () => {
  const { clock, pass, due } = handClock();
  const asked: string[] = [];
  const patrol = new Patrol({
    clock,
    all: () => ['a', 'b', 'c'],
    ask: async (one) => void asked.push(`${one}${clock.nowMs() / 1000}`),
  });
  await pass(59_999);
  assert.deepEqual(asked, []);
  await pass(125_000);
  assert.deepEqual(asked, ['a60', 'b61', 'c62', 'a120', 'b121', 'c122']);
  patrol.close();
  await pass(600_000);
  assert.equal(asked.length, 6);
  assert.equal(due.length, 0);
});

test('more addresses than seconds in a minute take longer, not faster', async () => {
  const { clock, pass } = handClock();
  const asked: number[] = [];
  const patrol = new Patrol({
    clock,
    all: () => Array.from({ length: 100 }, (_, at) => at),
    ask: async (one) => void asked.push(one),
  });
  await pass(60_000 + 99_000);
  assert.equal(asked.length, 100);
  await pass(60_000 + 101_000);
  assert.deepEqual(asked.slice(100), [0, 1]);
  patrol.close();
});
