/** What a host knows of the shared store, in whatever order answers and changes reach it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Entry, News } from '../../../../src/store/etcd/claims.ts';
import { isBehind, View } from '../../../../src/store/etcd/view.ts';

const CLUSTER = 'cdf818194e3a8c32';
const OURS = 'lan/192.168.1.2';

function claimed(node: string, revision: number): Entry {
  return { claim: { kind: 'container', nodes: [node] }, revision };
}

/** A view that was loaded at revision 5. */
function loaded(news: readonly News[] = []): View {
  const view = new View('me');
  view.load(news, { clusterId: CLUSTER, revision: 5 });
  return view;
}

describe('the view of the shared store', () => {
  test('nothing is behind for who knew nothing', () => {
    assert.equal(isBehind({ clusterId: CLUSTER, revision: 1 }, new View('me').latest), false);
  });

  test('the same store or a later one is not behind, an earlier or another one is', () => {
    const { latest } = loaded();
    const judge = (clusterId: string, revision: number) => isBehind({ clusterId, revision }, latest);
    assert.deepEqual(
      [judge(CLUSTER, 5), judge(CLUSTER, 6), judge(CLUSTER, 4), judge(`${CLUSTER}0`, 9)],
      [false, false, true, true],
    );
  });

  test('a claim that was answered counts although no change has told of it yet', () => {
    const view = loaded();
    view.note(OURS, claimed('me', 6));
    assert.equal(isBehind({ clusterId: CLUSTER, revision: 5 }, view.latest), true);
    assert.equal(isBehind({ clusterId: CLUSTER, revision: 6 }, view.latest), false);
  });

  test('after it was loaded anew, what a later store had said is forgotten', () => {
    const view = loaded();
    view.note(OURS, claimed('me', 9));
    view.load([], { clusterId: CLUSTER, revision: 5 });
    assert.equal(view.latest.revision, 5);
    assert.equal(view.at(OURS), undefined);
  });

  test('a claim of this host that an earlier store does not have is forgotten, one that came after it is not', () => {
    const news = [{ lease: OURS, entry: claimed('me', 3), revision: 3 }];
    const view = loaded(news);
    view.note('lan/192.168.1.3', claimed('me', 6));
    view.note('lan/192.168.1.4', claimed('other', 4));
    assert.deepEqual(view.forgotten([], { clusterId: CLUSTER, revision: 5 }), [OURS]);
    assert.deepEqual(view.forgotten(news, { clusterId: CLUSTER, revision: 5 }), []);
  });

  const LOST = { lease: OURS, entry: claimed('lost', 3), revision: 3 } as const;
  /** A view at a time that is set, whose host looks every 5 s whether the store takes changes. */
  const timed = (news: readonly News[]) => {
    let nowMs = 0;
    const view = new View('me', () => nowMs);
    view.load(news, { clusterId: CLUSTER, revision: 5 });
    const pass = (seconds: number, isWritable = true) => {
      for (let passed = 0; passed < seconds; passed += 5) {
        nowMs += 5000;
        view.noteWritable(isWritable);
      }
    };
    const isLost = () => [...view.lostBelow('lan/')].length > 0;
    return { view, pass, isLost, sleep: (ms: number) => (nowMs += ms) };
  };
  const LATER = { clusterId: CLUSTER, revision: 6 };

  test('a host is lost after 30 s in which it was not heard of and the store took changes', () => {
    const { view, pass, isLost } = timed([LOST, { node: 'lost', isAlive: true, host: '' }]);
    pass(300);
    assert.equal(isLost(), false);
    view.apply([{ node: 'lost', isAlive: false, host: '' }], LATER);
    pass(25);
    assert.equal(isLost(), false);
    pass(5);
    assert.equal(isLost(), true);
    view.apply([{ node: 'lost', isAlive: true, host: '' }], LATER);
    assert.equal(isLost(), false);
  });

  test('time in which the store took no changes, or in which nobody looked, does not count', () => {
    const { view, pass, isLost, sleep } = timed([LOST]);
    pass(20);
    pass(60, false);
    pass(30);
    assert.equal(isLost(), false, 'the first look that went well begins it');
    pass(5);
    assert.equal(isLost(), true);
    sleep(60_000);
    view.noteWritable(true);
    assert.equal(isLost(), false);
    pass(30);
    assert.equal(isLost(), true);
    view.load([LOST], LATER);
    assert.equal(isLost(), false, 'what was before a new look at all of it was perhaps not all');
  });

  test('an address goes on to nobody while its heir is alive, and gateways never do', () => {
    const heir = { kind: 'container', nodes: ['heir'] } as const;
    const torn = {
      lease: OURS,
      entry: { claim: { kind: 'container', nodes: ['taker'], heir }, revision: 3 },
      revision: 3,
    } as const;
    const kept = {
      lease: OURS,
      entry: { claim: { kind: 'gateway', nodes: ['lost'] }, revision: 3 },
      revision: 3,
    } as const;
    for (const [news, expected] of [
      [[torn, { node: 'heir', isAlive: true, host: '' }], false],
      [[torn], true],
      [[kept], false],
    ] as const) {
      const { pass, isLost } = timed(news);
      pass(60);
      assert.equal(isLost(), expected);
    }
  });

  test('a change says nothing new of a claim that was answered on what nobody had, and what others do is always news', () => {
    const view = loaded([{ lease: OURS, entry: claimed('other', 3), revision: 3 }]);
    const free = 'lan/192.168.1.3';
    const told = (lease: string, revision: number, node = 'me') =>
      view.apply([{ lease, entry: claimed(node, revision), revision }], { clusterId: CLUSTER, revision }).length;
    view.note(free, claimed('me', 6));
    assert.deepEqual([told(free, 6), told(free, 7), told(free, 8, 'other')], [0, 1, 1]);
    view.note(OURS, claimed('me', 9));
    assert.equal(told(OURS, 9), 1, 'it was another host’s before');
    assert.equal(told('lan/192.168.1.4', 10), 1, 'no answer came before it');
  });

  test('who has an address too, and who is awaited after a restore', () => {
    const view = loaded();
    assert.equal(view.isInDoubt, false);
    view.apply([{ awaited: 'other', isAwaited: true }, { isRestored: true }], LATER);
    view.apply([{ isRestored: false }], LATER);
    assert.deepEqual([view.isInDoubt, view.isAwaited], [true, false]);
    view.apply([{ awaited: 'other', isAwaited: false }], LATER);
    assert.equal(view.isInDoubt, false);
    view.apply(
      [
        { rival: OURS, of: 'me', since: '2026' },
        { rival: OURS, of: 'other', since: '2025' },
      ],
      LATER,
    );
    assert.deepEqual([view.isRival(OURS), view.rivals(OURS)], [true, [['other', '2025']]]);
    view.apply([{ rival: OURS, of: 'other', since: null }], LATER);
    assert.deepEqual(view.rivals(OURS), []);
  });
});
