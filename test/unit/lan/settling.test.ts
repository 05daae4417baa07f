import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, formatAddress, parseAddress } from '../../../src/address.ts';
import { Settling } from '../../../src/lan/settling.ts';
import { World } from './imagined.ts';

const [WANTED, GATEWAY, LIKELY] = ['10.0.0.5', '10.0.0.1', '10.0.0.254'].map(
  (text) => parseAddress(text) as Address,
) as [Address, Address, Address];

/** A parent whose port forwards from a certain moment on, with another host that speaks every second. */
function settlingPort({ forwardsAtMs = Number.POSITIVE_INFINITY, failsUntilMs = 0, likely = [LIKELY] } = {}) {
  const world = new World();
  const asked: [number, string][] = [];
  const settled: [number, boolean][] = [];
  let open = 0;
  const clock = {
    nowMs: () => world.nowMs,
    after: (delayMs: number, run: () => void) => world.at(world.nowMs + delayMs, run),
  };
  const ear = {
    isHeard: () => {
      if (world.nowMs < failsUntilMs) throw new Error('ENETDOWN');
      return world.nowMs >= forwardsAtMs;
    },
    ask: (address: Address) => void asked.push([world.nowMs, formatAddress(address)]),
    close: () => void open--,
  };
  const settling = new Settling({
    clock,
    listen: () => {
      open++;
      return Promise.resolve(ear);
    },
    likely: () => likely,
    onSettled: (_name, isHeard) => settled.push([world.nowMs, isHeard]),
  });
  return { world, settling, asked, settled, isOpen: () => open > 0 };
}

/** Time goes on in small steps, and what was promised in each is done. */
async function run(world: World, untilMs: number): Promise<void> {
  while (world.nowMs < untilMs) {
    await new Promise((resolve) => setImmediate(resolve));
    world.run(Math.min(world.nowMs + 25, untilMs));
  }
  await new Promise((resolve) => setImmediate(resolve));
}

test('a parent settles when another host is heard, and who waits goes on then', async () => {
  const { world, settling, settled, isOpen } = settlingPort({ forwardsAtMs: 4000 });
  settling.begin('lan0');
  assert.ok(settling.has('lan0') && !settling.has('lan1'));
  const waited = settling.wait('lan0', [WANTED], 7000).then((isSettled) => [world.nowMs, isSettled] as const);
  await run(world, 10_000);
  const [atMs, isSettled] = await waited;
  assert.equal(isSettled, true);
  assert.ok(Number(atMs) >= 4000 && Number(atMs) < 4200, `${atMs} ms`);
  assert.ok(!settling.has('lan0') && !isOpen());
  assert.deepEqual(
    settled.map(([, isHeard]) => isHeard),
    [true],
  );
});

test('a parent on which nobody is ever heard settles after 35 s', async () => {
  const { world, settling, settled, isOpen } = settlingPort();
  settling.begin('lan0');
  await run(world, 34_000);
  assert.equal(settled.length, 0);
  await run(world, 36_000);
  assert.deepEqual(
    settled.map(([, isHeard]) => isHeard),
    [false],
  );
  assert.ok(!isOpen());
});

test('who has no more time is told so, and for the same address nobody waits again', async () => {
  const { world, settling } = settlingPort();
  settling.begin('lan0');
  const first = settling.wait('lan0', [WANTED], 5000);
  await run(world, 5100);
  assert.equal(await first, false);
  assert.equal(await settling.wait('lan0', [WANTED], 5000), false);
  const other = settling.wait('lan0', [GATEWAY], 1000).then(() => world.nowMs);
  await run(world, 7000);
  assert.ok((await other) >= 6100);
  settling.end('lan0');
  assert.equal(await settling.wait('lan0', [WANTED], 5000), true, 'the parent settles no more');
});

test('a call that ends stops waiting', async () => {
  const { world, settling } = settlingPort();
  settling.begin('lan0');
  const controller = new AbortController();
  const waited = settling.wait('lan0', [WANTED], 5000, controller.signal);
  const refused = assert.rejects(waited, { message: 'the engine went away' });
  await run(world, 1000);
  controller.abort(new Error('the engine went away'));
  await run(world, 1100);
  await refused;
});

test('addresses that are waited for, and those of likely routers, are asked for once a second, four frames at most', async () => {
  const { world, settling, asked } = settlingPort();
  settling.begin('lan0');
  void settling.wait('lan0', [WANTED, GATEWAY], 9000);
  await run(world, 3500);
  const seconds = new Set(asked.map(([atMs]) => Math.floor(atMs / 1000)));
  assert.equal(seconds.size, 4);
  for (const second of seconds) {
    const words = asked.filter(([atMs]) => Math.floor(atMs / 1000) === second).map(([, text]) => text);
    assert.deepEqual(words, ['10.0.0.5', '10.0.0.1', '10.0.0.254']);
  }
  for (let host = 10; host < 20; host++)
    void settling.wait('lan0', [{ family: 'IPv4', value: 0x0a000000n + BigInt(host) }], 9000);
  asked.length = 0;
  await run(world, 6500);
  assert.equal(asked.length, 12);
});

test('where no container is and none starts nobody is listened for, and one that starts finds out at once', async () => {
  const { world, settling, settled, asked, isOpen } = settlingPort({ forwardsAtMs: 1000, likely: [] });
  settling.begin('lan0');
  await run(world, 5000);
  assert.ok(!isOpen() && settling.has('lan0'));
  assert.deepEqual(asked, []);
  assert.equal(await Promise.race([settling.wait('lan0', [WANTED], 7000), run(world, 5500)]), true);
  assert.equal(settled.length, 1);
});

test('a parent that cannot be listened to yet is tried again', async () => {
  const { world, settling, settled } = settlingPort({ forwardsAtMs: 0, failsUntilMs: 2000 });
  settling.begin('lan0');
  await run(world, 3000);
  assert.deepEqual(
    settled.map(([, isHeard]) => isHeard),
    [true],
  );
});

test('a parent that is gone again settles no more, and its socket is closed', async () => {
  const { world, settling, settled, isOpen } = settlingPort();
  settling.begin('lan0');
  const waited = settling.wait('lan0', [WANTED], 9000);
  await run(world, 1000);
  settling.end('lan0');
  assert.equal(await waited, true);
  settling.begin('lan0');
  settling.begin('lan1');
  settling.close();
  await run(world, 40_000);
  assert.ok(!isOpen());
  assert.equal(settled.length, 0);
});
