/** What a host knows of the shared store, in whatever order answers and changes reach it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Entry, News } from '../../../../src/store/etcd/claims.ts';
import { isBehind, View } from '../../../../src/store/etcd/view.ts';

const CLUSTER = 7;
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
    const judge = (clusterId: number, revision: number) => isBehind({ clusterId, revision }, latest);
    assert.deepEqual(
      [judge(CLUSTER, 5), judge(CLUSTER, 6), judge(CLUSTER, 4), judge(CLUSTER + 1, 9)],
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
});
