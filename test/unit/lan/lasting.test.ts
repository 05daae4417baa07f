import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { formatAddress, parseInterfaceAddress } from '../../../src/address.ts';
import { LastingConflicts } from '../../../src/lan/lasting.ts';
import type { LastingContest, MonitoredEndpoint } from '../../../src/lan/takers.ts';
import type { InterfaceAddress } from '../../../src/model.ts';

const endpoint: MonitoredEndpoint = {
  parentName: 'par',
  macAddress: '02:42:0a:09:00:05',
  addresses: [],
  defend: null,
  tellTwin: () => undefined,
  answersForAll: async () => false,
  ask: async () => true,
};
const address = (number: number) => parseInterfaceAddress(`10.9.0.${number}/24`) as InterfaceAddress;

describe('whether a conflict lasts', { timeout: 20_000 }, () => {
  let nowMs: number;
  /** When each address was used last. */
  let seen: Map<InterfaceAddress, number>;
  /** Those that answer when they are asked. */
  let answering: Set<InterfaceAddress>;
  let canAsk: boolean;
  let asked: [number, string][];
  let ended: string[];
  let lasting: LastingConflicts;
  let isStuck: boolean;
  let isWatched: boolean;

  beforeEach(() => {
    nowMs = 0;
    [seen, answering, asked, ended] = [new Map<InterfaceAddress, number>(), new Set<InterfaceAddress>(), [], []];
    [canAsk, isStuck, isWatched] = [true, false, true];
    const find = (text: string) => [...seen.keys()].find((one) => formatAddress(one) === text) as InterfaceAddress;
    lasting = new LastingConflicts({
      takers: {
        lasting: () =>
          [...seen].map(
            ([one, seenAtMs]): LastingContest => ({ endpoint: { ...endpoint, ask }, address: one, seenAtMs }),
          ),
        lastSeenMs: (_parent, one) => seen.get(find(formatAddress(one))) ?? Number.NEGATIVE_INFINITY,
        settle: async () => undefined,
        forget: (_parent, one) => void seen.delete(find(formatAddress(one))),
      },
      isWatched: () => isWatched,
      onEnd: (_parent, one) => ended.push(formatAddress(one)),
      clock: { nowMs: () => nowMs, after: () => () => undefined },
    });
  });

  async function ask(one: InterfaceAddress): Promise<boolean> {
    asked.push([nowMs, formatAddress(one)]);
    if (isStuck) await new Promise<void>(() => undefined);
    if (answering.has(one)) seen.set(one, nowMs);
    return canAsk;
  }

  async function pass(ms: number): Promise<void> {
    for (const endMs = nowMs + ms; nowMs < endMs; ) {
      nowMs += 250;
      lasting.review();
      await turn();
    }
  }

  test('who was not heard for a while is asked, and it has ended when nobody answers twice', async () => {
    seen.set(address(5), 0);
    await pass(60_000);
    assert.deepEqual(asked, [
      [15_000, '10.9.0.5'],
      [25_000, '10.9.0.5'],
    ]);
    assert.deepEqual(ended, ['10.9.0.5']);
  });

  test('it lasts as long as somebody answers, who is asked once a minute', async () => {
    const own = address(5);
    seen.set(own, 0);
    answering.add(own);
    await pass(600_000);
    assert.deepEqual([ended, asked.length], [[], 10]);
    answering.clear();
    await pass(100_000);
    assert.deepEqual(ended, ['10.9.0.5']);
  });

  test('one silence is none, and who speaks by himself is not asked', async () => {
    const own = address(5);
    seen.set(own, 0);
    await pass(16_000);
    answering.add(own);
    await pass(10_000);
    answering.clear();
    await pass(50_000);
    assert.deepEqual([asked.length, ended], [2, []]);
    for (let seconds = 0; seconds < 300; seconds++) {
      seen.set(own, nowMs);
      await pass(1000);
    }
    assert.deepEqual([asked.length, ended], [2, []]);
  });

  test('while the LAN cannot be asked nothing has ended', async () => {
    seen.set(address(5), 0);
    canAsk = false;
    await pass(3_600_000);
    assert.deepEqual(ended, []);
    assert.ok(asked.length <= 60, `${asked.length} questions`);
  });

  test('at most eight are asked for at a time', async () => {
    isStuck = true;
    for (let number = 1; number <= 100; number++) seen.set(address(number), 0);
    await pass(60_000);
    assert.equal(asked.length, 8);
  });

  const suspect = (one: InterfaceAddress) => lasting.suspect({ endpoint: { ...endpoint, ask }, address: one });

  test('who is only suspected is asked at once, and lasts when he answers', async () => {
    const own = address(5);
    answering.add(own);
    suspect(own);
    await pass(1000);
    assert.deepEqual(asked, [[250, '10.9.0.5']]);
    await pass(600_000);
    assert.deepEqual([ended, asked.length], [[], 11]);
  });

  test('a suspicion ends when nobody answers twice, and is no other one then', async () => {
    suspect(address(5));
    await pass(600_000);
    assert.deepEqual(
      [asked, ended],
      [
        [
          [250, '10.9.0.5'],
          [10_250, '10.9.0.5'],
        ],
        ['10.9.0.5'],
      ],
    );
  });

  test('who is suspected anew is asked at once, whenever he answered last', async () => {
    const own = address(5);
    answering.add(own);
    suspect(own);
    await pass(20_000);
    seen.delete(own);
    suspect(own);
    await pass(1000);
    assert.equal(asked.length, 2);
  });

  test('nobody is asked for an address that no container has any more', async () => {
    suspect(address(5));
    isWatched = false;
    await pass(60_000);
    isWatched = true;
    await pass(60_000);
    assert.deepEqual([asked, ended], [[], []]);
  });
});
