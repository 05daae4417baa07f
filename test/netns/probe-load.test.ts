/**
 * What the probe costs, and what a crowd and a storm do to it:
 *
 *     host: par ── veth ── br0 (ns "lan") ── veth ── crowd (a Linux kernel with 25 addresses)
 *                                         └─ veth ── storm (a process that floods the LAN with ARP)
 *
 * The figures are printed; the bounds leave room for a busy machine.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress } from '../../src/address.ts';
import { Links } from '../../src/kernel/link.ts';
import { Prober } from '../../src/lan/probe.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';

const timeout = 60_000;
const STORM_PER_SECOND = 10_000;
const STORM_MS = 3000;

/** Sends ARP requests of changing senders, or probes for one address, at an even rate until it is killed. */
const STORM = (target: number | null) => `
  import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
  import { PacketSocket } from ${JSON.stringify(import.meta.resolve('../../src/kernel/packet.ts'))};
  import { arpProbe, encodeArp } from ${JSON.stringify(import.meta.resolve('../../src/lan/arp.ts'))};
  const links = Links.open();
  const socket = PacketSocket.open({ linkIndex: (await links.byName('lan0')).index, filter: [{ code: 6, jt: 0, jf: 0, k: 0 }] });
  const target = ${target};
  const frame = encodeArp(arpProbe({ family: 'IPv4', value: BigInt(target ?? 0xc0a80001) }, '3c:22:fb:10:aa:07'));
  let sent = 0;
  const startedMs = performance.now();
  setInterval(() => {
    const due = ((performance.now() - startedMs) / 1000) * ${STORM_PER_SECOND};
    for (; sent < due; sent++) {
      if (target === null) frame.writeUInt32BE(0xc0a80000 + (sent % 65536), 28);
      try { socket.send(frame); } catch {}
    }
  }, 2);
  console.log('blowing');`;

describe('the probe under load', { skip: outsideLab(), timeout: 170_000 }, () => {
  let lan: Lan;
  let crowd: Namespace;
  let stormyPlace: Namespace;
  let links: Links;
  let prober: Prober;
  let storm: ChildProcess | undefined;

  const address = (number: number): Address => ({ family: 'IPv4', value: 0x0a090000n + BigInt(number) });
  const addressIPv6 = (number: number): Address => ({ family: 'IPv6', value: (0xfd00n << 112n) + BigInt(number) });
  const probe = (one: Address, guardMs = 0) =>
    prober.probe({ parentName: 'par', mode: 'bridge', profile: 'fast', address: one, isOwn: () => false, guardMs });

  before(async () => {
    lan = await Lan.create([], 'lan');
    crowd = await Namespace.create('crowd');
    stormyPlace = await Namespace.create('storm');
    for (const namespace of [crowd, stormyPlace]) await lan.plug(namespace);
    await output(['ip', 'link', 'add', 'par', 'type', 'veth', 'peer', 'name', 'port-par', 'netns', 'lan']);
    await lan.namespace.ip('link set port-par master br0 up');
    await output(['ip', 'link', 'set', 'par', 'up']);
    links = Links.open();
    prober = new Prober({ links });
    await sleep(2500);
  });

  afterEach(async () => {
    storm?.kill('SIGKILL');
    await prober.close();
  });

  after(() => links.close());

  async function blow(target: number | null): Promise<void> {
    const [command = '', ...args] = stormyPlace.enter([
      process.execPath,
      '--input-type=module-typescript',
      '-e',
      STORM(target),
    ]);
    storm = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(storm.stdout as NodeJS.ReadableStream, 'data');
  }

  async function measured<T>(act: () => Promise<T>): Promise<{ result: T; tookMs: number; cpuMs: number }> {
    const [startedMs, before] = [performance.now(), process.cpuUsage()];
    const result = await act();
    const { user, system } = process.cpuUsage(before);
    return { result, tookMs: performance.now() - startedMs, cpuMs: (user + system) / 1000 };
  }

  test('a cold probe, a warm one and a held one', { timeout }, async (t) => {
    const cold = await measured(() => probe(address(500)));
    const warm = await measured(() => probe(address(501)));
    await crowd.ip('address add 10.9.2.1/16 dev lan0');
    const held = [];
    for (let round = 0; round < 20; round++) held.push((await measured(() => probe(address(0x201)))).tookMs);
    held.sort((a, b) => a - b);
    t.diagnostic(
      `free: cold ${cold.tookMs.toFixed()} ms (${cold.cpuMs.toFixed(1)} ms CPU), warm ${warm.tookMs.toFixed()} ms (${warm.cpuMs.toFixed(1)} ms CPU)`,
    );
    t.diagnostic(
      `held: median ${held[10]?.toFixed(1)} ms, longest ${held[19]?.toFixed(1)} ms (with a first wait of 0 to 10 ms)`,
    );
    assert.ok(cold.tookMs < 1000 && warm.tookMs < 900);
    assert.ok((held[10] ?? 1000) < 100);
  });

  test('a hundred addresses at once take about the time of one, and every verdict is right', { timeout }, async (t) => {
    for (let number = 1; number <= 25; number++) {
      const used = number % 2 ? `${formatAddress(address(number))}/16` : `${formatAddress(addressIPv6(number))}/64`;
      await crowd.ip(`address add ${used} dev lan0 nodad`);
    }
    await probe(address(500));
    const one = await measured(() => probe(address(501)));
    const asked = Array.from({ length: 100 }, (_, at) => ((at + 1) % 2 ? address : addressIPv6)(at + 1));
    const hundred = await measured(() => Promise.all(asked.map((each) => probe(each))));
    t.diagnostic(
      `one: ${one.tookMs.toFixed()} ms, a hundred: ${hundred.tookMs.toFixed()} ms and ${hundred.cpuMs.toFixed()} ms CPU`,
    );
    assert.deepEqual(
      hundred.result.map(({ held }) => held),
      asked.map((_, at) => at < 25),
    );
    assert.ok(hundred.tookMs < one.tookMs * 1.5 + 100);
  });

  test('ten thousand ARP frames a second that pass by cost next to nothing, and hide nothing', {
    timeout,
  }, async (t) => {
    await crowd.ip('address add 10.9.3.1/16 dev lan0');
    await probe(address(600), 20_000);
    const calm = await measured(() => sleep(STORM_MS));
    await blow(null);
    const stormy = await measured(() => sleep(STORM_MS));
    const findings = await Promise.all([probe(address(0x301)), probe(address(601))]);
    t.diagnostic(`CPU of one core: calm ${share(calm)} %, in the storm ${share(stormy)} %`);
    assert.deepEqual(
      findings.map(({ held }) => held),
      [true, false],
    );
    assert.ok(stormy.cpuMs - calm.cpuMs < STORM_MS * 0.05);
  });

  test('ten thousand probes a second for a guarded address get bounded work and bounded answers', {
    timeout,
  }, async (t) => {
    assert.equal((await probe(address(700), 20_000)).held, false);
    await blow(0x0a090000 + 700);
    const before = await sentFrames();
    const stormy = await measured(() => sleep(STORM_MS));
    const answers = (await sentFrames()) - before;
    t.diagnostic(`CPU of one core: ${share(stormy)} %, ${answers} answers in ${STORM_MS} ms`);
    assert.ok(answers > 0 && answers <= (STORM_MS / 100) * 10 + 20);
    assert.ok(stormy.cpuMs < STORM_MS * 0.6);
  });

  const share = ({ cpuMs, tookMs }: { cpuMs: number; tookMs: number }) => ((cpuMs / tookMs) * 100).toFixed(1);

  async function sentFrames(): Promise<number> {
    const all = JSON.parse(await output(['ip', '-j', '-s', 'link'])) as {
      ifname: string;
      stats64: { tx: { packets: number } };
    }[];
    return all.find(({ ifname }) => ifname.startsWith('tsmp'))?.stats64.tx.packets ?? 0;
  }
});
