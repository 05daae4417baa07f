import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress, parsePrefix } from '../../../src/address.ts';
import type { ProbeRequest } from '../../../src/lan/prober.ts';
import { Questions } from '../../../src/lan/questions.ts';
import { NOT_HELD, type Verdict } from '../../../src/lan/verdict.ts';

const LEAVER = '02:42:0a:79:00:03';
const STRANGER = '3c:22:fb:10:00:01';
const QUESTION = {
  parentName: 'lan0',
  mode: 'bridge',
  address: parseAddress('10.120.0.3') ?? assert.fail(),
  profile: 'fast',
  subnet: parsePrefix('10.120.0.0/24') ?? assert.fail(),
  isOwn: () => false,
} as const;

/** The answers come one after the other; the last one again and again. */
function questions(answers: readonly Verdict[]) {
  const asked: ProbeRequest[] = [];
  const probe = async (request: ProbeRequest) => answers[Math.min(asked.push(request), answers.length) - 1] ?? NOT_HELD;
  const asking = new Questions({
    prober: { probe, confirm: probe },
    interruptions: { uninterrupted: (_on, _untilMs, ask) => ask() },
    isLeaver: (_place, macAddress) => macAddress === LEAVER,
    log: { warn: () => undefined },
  });
  return { asking, asked };
}

function heldBy(macAddress: string): Verdict {
  return { held: true, macAddress, linkName: 'lan0', simultaneous: false, isOnHost: false };
}

test('a container that has just left the address and answers still is waited for', async () => {
  const { asking, asked } = questions([heldBy(LEAVER), heldBy(LEAVER), NOT_HELD]);
  assert.deepEqual(await asking.check(QUESTION), NOT_HELD);
  assert.equal(asked.length, 3);
});

test('a container that keeps the address it left is this host’s', { timeout: 5000 }, async () => {
  const { asking } = questions([heldBy(LEAVER)]);
  assert.deepEqual(await asking.check(QUESTION), { ...heldBy(LEAVER), isOnHost: true });
});

test('a stranger is asked once', async () => {
  const { asking, asked } = questions([heldBy(STRANGER), NOT_HELD]);
  assert.deepEqual(await asking.check(QUESTION), heldBy(STRANGER));
  assert.equal(asked.length, 1);
});

for (const [isProof, profiles] of [
  [false, ['fast', 'fast']],
  [true, []],
] as const) {
  test(`without time for the whole procedure of rfc ${isProof ? 'nothing' : 'the fast one'} is asked`, async () => {
    const { asking, asked } = questions([heldBy(STRANGER), NOT_HELD]);
    const told: Verdict[] = [];
    const verdict = await asking.askAgain({ ...QUESTION, profile: 'rfc', isProof }, heldBy(STRANGER), {
      atMs: performance.now() + 2300,
      tell: (one) => told.push(one),
    });
    assert.deepEqual(told, isProof ? [heldBy(STRANGER)] : [heldBy(STRANGER), heldBy(STRANGER), NOT_HELD]);
    assert.deepEqual(verdict, isProof ? heldBy(STRANGER) : NOT_HELD);
    assert.deepEqual(
      asked.map(({ profile }) => profile),
      profiles,
    );
  });
}

test('with time for the whole procedure of rfc it is asked', async () => {
  const { asking, asked } = questions([NOT_HELD]);
  const terms = { atMs: performance.now() + 9000, tell: () => undefined };
  assert.deepEqual(await asking.askAgain({ ...QUESTION, profile: 'rfc' }, heldBy(STRANGER), terms), NOT_HELD);
  assert.deepEqual(
    asked.map(({ profile }) => profile),
    ['rfc'],
  );
});
