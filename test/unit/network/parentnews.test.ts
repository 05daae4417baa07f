/** What is told of parents: each change once, and none of what a network's end or a new VLAN brings about by itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Link, LinkEvent } from '../../../src/kernel/link.ts';
import { ParentNews } from '../../../src/network/parentnews.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

function link(name: string, isUp = true, hasCarrier = true, kind: string | null = null): Link {
  return { name, alternativeNames: [`${name}-alt`], isUp, hasCarrier, kind } as unknown as Link;
}

function stage() {
  const there = new Map<string, Link>();
  const told: string[] = [];
  const due: (() => void)[] = [];
  let failure: Error | null = null;
  let hear: (event: LinkEvent) => void = () => undefined;
  const news = new ParentNews({
    links: {
      known: async (name) => {
        if (failure !== null) throw failure;
        return there.get(name);
      },
      onChange: (listener) => {
        hear = listener;
        return () => undefined;
      },
    },
    tell: (parent, state) => told.push(`${parent} ${state}`),
    clock: { nowMs: () => 0, after: (_, run) => (due.push(run), () => undefined) },
  });
  const pass = () => due.splice(0).forEach((run) => run());
  const fail = (error: Error | null) => (failure = error);
  return { there, told, news, pass, fail, hear: (event: LinkEvent) => hear(event) };
}

test('each change is told once, whatever its link is called', async () => {
  const { there, told, news, hear } = stage();
  there.set('eth0', link('eth0'));
  news.follow(new Set(['eth0', 'eth1-alt']));
  await turn();
  assert.deepEqual(
    [...news.states()],
    [
      ['eth0', 'carrier'],
      ['eth1-alt', 'gone'],
    ],
  );
  hear({ type: 'new', link: link('eth0', true, false) });
  hear({ type: 'new', link: link('eth0', true, false) });
  hear({ type: 'new', link: link('eth0', false, false) });
  hear({ type: 'new', link: link('eth1') });
  hear({ type: 'new', link: link('eth9', false) });
  hear({ type: 'new', link: link('eth0', true, true, 'macvlan') });
  assert.deepEqual(told, ['eth0 no carrier', 'eth0 down', 'eth1-alt carrier']);
});

test('one that is gone is told of when it stays away, and its network is still there', async () => {
  const { there, told, news, hear, pass } = stage();
  for (const name of ['a', 'b', 'c']) there.set(name, link(name));
  news.follow(new Set(['a', 'b', 'c']));
  await turn();
  for (const name of ['a', 'b', 'c']) hear({ type: 'deleted', link: link(name) });
  hear({ type: 'new', link: link('b') });
  news.follow(new Set(['a', 'b']));
  pass();
  assert.deepEqual(told, ['b carrier', 'a gone']);
});

test('after lost events all are looked at, and what cannot be read is as it was', async () => {
  const { there, told, news, hear, fail } = stage();
  there.set('eth0', link('eth0'));
  news.follow(new Set(['eth0']));
  await turn();
  fail(new Error('busy'));
  hear({ type: 'overflow' });
  await turn();
  assert.deepEqual([...news.states()], [['eth0', 'carrier']]);
  fail(null);
  there.set('eth0', link('eth0', false));
  hear({ type: 'overflow' });
  await turn();
  assert.deepEqual(told, ['eth0 down']);
  news.close();
  assert.deepEqual([...news.states()], []);
});
