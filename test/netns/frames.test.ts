/**
 * What the daemon costs the LAN, counted in a capture on the switch; docs/lan.md has the figures.
 *
 *     host: tsmacvlan, containers ── lan0 ── br0 (ns "lan", where everything is captured)
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseInterfaceAddress } from '../../src/address.ts';
import type { InterfaceAddress } from '../../src/model.ts';
import { isProbeMac } from '../../src/lan/frames/mac.ts';
import { Capture, type Frame } from '../lab/capture.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import { type FakeNetwork, Understudy } from '../lab/understudy.ts';

const timeout = 60_000;
const RATE = 100;
const BURST = 40;
/** Asked for at once when none was ready: the one that is wanted, and those beside it (ipam/demand.ts). */
const BATCH = 1 + 48;
/** Three probes of one procedure take at least so long. */
const WINDOW_MS = 590;
/** A refill begins 2 s after the last start, and three probes take 0.65 s. */
const REFILLED_MS = 3500;
/** tcpdump stamps a frame where it enters the switch, some time after it was sent. */
const TOLERANCE = 1.1;

describe('frames on the LAN', { skip: outsideLab(), timeout: 200_000 }, () => {
  let lan: Lan;
  let engine: Understudy;
  /** Of a daemon that may send few frames. */
  let sparing: Understudy;
  let capture: Capture;

  before(async () => {
    lan = await Lan.create([]);
    engine = new Understudy(await Plugin.start(await Host.boot('one', lan)));
    sparing = new Understudy(await Plugin.start(await Host.boot('two', lan), { PROBE_RATE: String(RATE) }));
    capture = await Capture.start(lan.namespace, 'br0', 'arp or icmp6');
  });

  afterEach(async () => {
    await engine.clear();
    await sparing.clear();
  });
  after(async () => {
    await engine.plugin.stop();
    await sparing.plugin.stop();
  });

  /** ARP and neighbour discovery that the daemon sent while that was done. */
  async function framesOf(act: () => Promise<unknown>): Promise<Frame[]> {
    await capture.settle();
    const before = capture.frames().length;
    await act();
    await capture.settle();
    const all = capture.frames().slice(before);
    return all.filter(({ arp, neighbour, sourceMac }) => (arp ?? neighbour) && isProbeMac(sourceMac));
  }

  /** The most frames in any one second. */
  function busiest(frames: readonly Frame[]): number {
    const times = frames.map(({ atMs }) => atMs).sort((a, b) => a - b);
    return Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + 1000).length));
  }

  /** When each address was asked for first. */
  function firstAsked(frames: readonly Frame[]): Map<string, number> {
    const first = new Map<string, number>();
    for (const frame of frames) {
      const address = targetOf(frame);
      if (!first.has(address)) first.set(address, frame.atMs);
    }
    return first;
  }

  /** IPv6 in hexadecimal digits. */
  function asCaptured(text: string): string {
    const { family, value } = parseInterfaceAddress(text) as InterfaceAddress;
    return family === 'IPv4' ? (text.split('/')[0] ?? '') : value.toString(16).padStart(32, '0');
  }

  function targetOf({ arp, neighbour }: Frame): string {
    return arp?.targetAddress ?? neighbour?.target ?? '';
  }

  async function release(by: Understudy, { poolId }: FakeNetwork, addresses: readonly string[]): Promise<void> {
    for (const address of addresses)
      await by.call('IpamDriver.ReleaseAddress', { PoolID: poolId, Address: address.split('/')[0] });
  }

  for (const [family, subnet] of [
    ['IPv4', '10.60.1.0/24'],
    ['IPv6', 'fd00:60::/64'],
  ] as const) {
    test(`the first start of a network with its addresses on standby, and the next start, ${family}`, {
      timeout,
    }, async () => {
      let network: FakeNetwork | undefined;
      const first = await framesOf(async () => {
        network = await engine.createNetwork({ subnet });
        await engine.run(network);
        await sleep(REFILLED_MS);
      });
      let given = '';
      const all = await framesOf(async () => ({ address: given } = await engine.run(network as FakeNetwork)));
      // On a busy machine another address is put on standby in its place meanwhile.
      const next = all.filter((frame) => targetOf(frame) === asCaptured(given));
      const asked = firstAsked(first).size;
      console.log(
        `${family}: ${first.length} for the first start and ${asked - 1} on standby, ${next.length} for the next`,
      );
      // Three probes each, and four more for the one that was given.
      assert.ok(asked >= BATCH && asked <= BATCH + 1, `${asked} addresses`);
      assert.ok(first.length <= 3 * asked + 4, `${first.length} for the first start and its standby`);
      // One as the address is given, and two each as the endpoint is made and joined: to all, and to its MAC address.
      assert.ok(next.length >= 5 && next.length <= 7, `${next.length} for the next start`);
    });
  }

  test('forty addresses of a new network, one after the other, are asked for in one window', { timeout }, async () => {
    const network = await engine.createNetwork({ subnet: '10.60.3.0/24' });
    const given: string[] = [];
    const startedMs = performance.now();
    const ours = await framesOf(async () => {
      for (let n = 0; n < BURST; n++) given.push(await engine.requestAddress(network));
    });
    const tookMs = performance.now() - startedMs;
    await release(engine, network, given);
    const first = firstAsked(ours);
    const asked = given.map((address) => first.get(address.split('/')[0] ?? '') ?? Number.NaN);
    const spreadMs = Math.max(...asked) - Math.min(...asked);
    console.log(
      `${BURST} addresses in a row: ${ours.length} frames about ${first.size} addresses, first asked for within ${Math.round(spreadMs)} ms, given in ${Math.round(tookMs)} ms`,
    );
    // In what order depends on which answers the daemon of a busy machine has waited for.
    assert.equal(new Set(given).size, BURST);
    const farthest = Math.max(...given.map((address) => Number(address.split('/')[0]?.split('.')[3])));
    assert.ok(farthest <= BURST + 4, `the farthest is 10.60.3.${farthest}`);
    assert.ok(spreadMs < WINDOW_MS, `${spreadMs} ms`);
    // Three probes of each; and as each is given one, and one ahead of that.
    assert.ok(ours.length <= 3 * first.size + 2 * BURST, `${ours.length} frames`);
    assert.ok(first.size <= BATCH + 64, `${first.size} addresses`);
  });

  test('many starts at once have their addresses, and no second has more frames than PROBE_RATE says', {
    timeout,
  }, async () => {
    const network = await sparing.createNetwork({ subnet: '10.60.2.0/24' });
    const startedMs = performance.now();
    let addresses: string[] = [];
    const ours = await framesOf(async () => {
      addresses = await Promise.all(Array.from({ length: BURST }, () => sparing.requestAddress(network)));
    });
    const tookMs = performance.now() - startedMs;
    console.log(
      `${BURST} addresses at once: ${ours.length} frames, ${busiest(ours)} in the busiest second, ${Math.round(tookMs)} ms`,
    );
    assert.equal(new Set(addresses).size, BURST);
    assert.ok(busiest(ours) <= RATE * TOLERANCE, `${busiest(ours)} frames in one second`);
    assert.ok(ours.length >= BURST * 3, `${ours.length} frames`);
    await release(sparing, network, addresses);
  });
});
