import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, formatAddress } from '../../../src/address.ts';
import { PassedOver } from '../../../src/ipam/passed-over.ts';
import { known } from '../../../src/ipam/pool.ts';

const FIRST = 0x0a00_0000n;
const at = (host: number): Address => ({ family: 'IPv4', value: FIRST + BigInt(host) });
const ALL = [known('10.0.0.0/8')];

function started() {
  let nowMs = 0;
  const passedOver = new PassedOver(() => nowMs);
  const texts = () => Array.from(passedOver.resting(), ({ address }) => formatAddress(address));
  return { passedOver, texts, pass: (ms: number) => (nowMs += ms) };
}

test('whatever answers, a few thousand addresses are remembered, and the one found longest ago makes room', () => {
  const { passedOver, texts } = started();
  const dropped: string[] = [];
  for (let host = 0; host < 10_000; host++) {
    const gone = passedOver.add(at(host), 'used');
    if (gone !== undefined) dropped.push(formatAddress(gone));
  }
  assert.equal(texts().length, 4096);
  assert.equal(dropped.length, 10_000 - 4096);
  assert.equal(dropped[0], '10.0.0.0');
});

test('those found longest ago are tried first, each no sooner than it may be', () => {
  const { passedOver, texts, pass } = started();
  for (const host of [3, 1, 2]) {
    passedOver.add(at(host), 'used');
    pass(1000);
  }
  assert.deepEqual(passedOver.takeLongest(ALL, 5, 2000).map(formatAddress), ['10.0.0.3', '10.0.0.1']);
  assert.deepEqual(texts(), ['10.0.0.2']);
  assert.deepEqual(passedOver.takeLongest([known('10.1.0.0/16')], 5, 0), [], 'nor any of another range');
});

test('one that was tried before its time and answers rests no longer than before', () => {
  const { passedOver, pass } = started();
  for (let round = 0; round < 3; round++) {
    passedOver.add(at(1), 'used');
    pass(2000);
    assert.equal(passedOver.takeLongest(ALL, 1, 2000).length, 1);
  }
  passedOver.add(at(1), 'used');
  pass(9999);
  assert.deepEqual(passedOver.expire(), []);
  pass(1);
  assert.equal(passedOver.expire().length, 1);
  passedOver.add(at(1), 'used');
  pass(19_999);
  assert.deepEqual(passedOver.expire(), []);
  pass(1);
  assert.equal(passedOver.expire().length, 1);
});

test('who only asks makes no rest longer, and one that was found free begins anew', () => {
  const { passedOver, pass } = started();
  const rests = (finding: 'used' | 'wanted') => {
    passedOver.add(at(1), finding);
    let ms = 0;
    for (; passedOver.expire().length === 0; ms += 1000) pass(1000);
    return ms;
  };
  assert.deepEqual([rests('wanted'), rests('wanted'), rests('used'), rests('used')], [10_000, 10_000, 10_000, 20_000]);
  passedOver.forget(at(1));
  assert.equal(rests('used'), 10_000);
});
