import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress, parsePrefix } from '../../../src/address.ts';
import * as errors from '../../../src/errors.ts';
import { type LanQuestion, Questions } from '../../../src/lan/questions.ts';
import { NOT_HELD, type Verdict } from '../../../src/lan/verdict.ts';

const HELD: Verdict = {
  held: true,
  macAddress: '3c:22:fb:10:aa:01',
  linkName: 'lan0',
  simultaneous: false,
  isOnHost: false,
};

function question(more: Partial<LanQuestion> = {}): LanQuestion {
  const [address, subnet] = [parseAddress('10.9.0.2'), parsePrefix('10.9.0.0/24')];
  assert.ok(address && subnet);
  return { parentName: 'lan0', mode: 'bridge', address, subnet, profile: 'fast', isOwn: () => false, ...more };
}

/** The parent is down for the first so many questions. */
function belowParent(downs: number) {
  const warnings: string[] = [];
  let asked = 0;
  const probe = async () => {
    if (++asked <= downs) throw errors.probeParentDown('10.9.0.2', 'lan0');
    return HELD;
  };
  const questions = new Questions({
    prober: { probe, confirm: probe },
    interruptions: { uninterrupted: (_awaited, _untilMs, ask) => ask() },
    isLeaver: () => false,
    log: { warn: (text: string) => void warnings.push(text) },
  });
  return { questions, warnings, asked: () => asked };
}

test('a parent that is down for a moment is waited for, and then its LAN is asked', async () => {
  const { questions, warnings } = belowParent(2);
  assert.deepEqual(await questions.confirm(question()), HELD);
  assert.deepEqual(warnings, []);
});

test('below a parent that stays down the first start waits a second, and those after it do not', async () => {
  const { questions, warnings, asked } = belowParent(Number.POSITIVE_INFINITY);
  const startedMs = performance.now();
  assert.deepEqual(await questions.check(question()), NOT_HELD);
  const [firstMs, before] = [performance.now() - startedMs, asked()];
  assert.ok(firstMs >= 1000 && firstMs < 2000, `${firstMs} ms`);
  assert.deepEqual(await questions.confirm(question()), NOT_HELD);
  assert.equal(asked(), before + 1);
  assert.equal(warnings.length, 1);
});

test('where the LAN has to prove that an address is free, a parent that is down is refused at once', async () => {
  const { questions, asked } = belowParent(1);
  await assert.rejects(questions.check(question({ isProof: true })), { code: 'PROBE_PARENT_DOWN' });
  assert.equal(asked(), 1);
});
