/**
 * A LAN on which most addresses are used, asked for or answered for by others: a start finds the free ones, in the time
 * that a call has, and what was passed over comes back. The daemon is a real one; containers are namespaces.
 *
 *     host one: tsmacvlan, containers ── lan0 ──┐
 *     machine: a Linux kernel with addresses ───┼── br0 (ns "lan", where everything is captured)
 *     stranger: scripted frames ────────────────┘
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, parseAddress } from '../../src/address.ts';
import { arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { BROADCAST_MAC } from '../../src/lan/frames/ethernet.ts';
import { addressesOf } from '../lab/census.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Refusal, Understudy } from '../lab/understudy.ts';

const MACHINE = '3c:22:fb:10:aa:01';
const STRANGER = '3c:22:fb:10:aa:02';
/** An engine is answered by then (server.ts). */
const CALL_MS = 9000;
/** How long a stranger asks or answers for everything; longer by the environment. */
const TROUBLE_MS = Number(process.env.TROUBLE_MS ?? 5000);
/** Before an address is on standby, and from the last of them to the verdict (lan/timing.ts). */
const [PROBES, VERDICT_MS] = [3, 400];
/** Between two frames of a scan: arp-scan's usual rate is about this. */
const SCAN_GAP_MS = 4;

const table: Record<string, object> = {};
const parsed = (text: string) => parseAddress(text) as Address;
const hosts = (net: string, from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, n) => `${net}.${from + n}`);

async function timed<T>(act: () => Promise<T>): Promise<{ answer: T | string; ms: number }> {
  const beganMs = performance.now();
  const answer = await act().catch((error: unknown) => {
    if (error instanceof Refusal) return error.message;
    throw error;
  });
  return { answer, ms: Math.round(performance.now() - beganMs) };
}

describe('a crowded LAN', { skip: outsideLab(), timeout: 600_000 }, () => {
  let lan: Lan;
  let one: Understudy;
  let machine: Neighbour;
  let stranger: Neighbour;

  before(async () => {
    lan = await Lan.create();
    one = new Understudy(await Plugin.start(await Host.boot('one', lan)));
    machine = await Neighbour.plug(lan, 'machine', MACHINE);
    stranger = await Neighbour.plug(lan, 'stranger', STRANGER);
  });

  afterEach(async () => {
    stranger.reset();
    await one.clear();
    await machine.namespace.ip('address flush dev lan0 scope global');
  });

  after(() => {
    console.table(table);
    for (const neighbour of [machine, stranger]) neighbour.close();
  });

  async function settle(addresses: readonly string[]): Promise<void> {
    const lines = addresses.map((address) => `address add ${address}/24 dev lan0`);
    await machine.namespace.run(['ip', '-batch', '-'], { input: lines.join('\n') });
  }

  function timesAsked(address: string): number {
    return machine.heard.filter(
      ({ packet }) =>
        packet.protocol === 'ARP' &&
        packet.senderAddress.value === 0n &&
        formatAddress(packet.targetAddress) === address,
    ).length;
  }

  /** Starts one container; answers its address or the refusal. */
  async function start(network: Awaited<ReturnType<Understudy['createNetwork']>>) {
    return timed(async () => {
      const container = await one.run(network);
      const [own = ''] = await addressesOf(container.namespace, 'eth0');
      return own.split('/')[0] ?? '';
    });
  }

  test('225 of a /24 are used: the first start finds the 226th', async () => {
    await settle(hosts('10.60.0', 1, 225));
    const network = await one.createNetwork({ subnet: '10.60.0.0/24' });
    const { answer, ms } = await start(network);
    table['225 of a /24 used, first start'] = { ms };
    assert.equal(answer, '10.60.0.226');
    assert.ok(ms < CALL_MS);
    // On a busy machine the next one is still being asked for, and a start takes what is known to be free.
    await until(() => timesAsked('10.60.0.227') >= PROBES);
    await sleep(VERDICT_MS);
    const again = await start(network);
    table['225 of a /24 used, second start'] = { ms: again.ms };
    assert.equal(again.answer, '10.60.0.227');
  });

  test('the first pool of a network is used by others: its second one is searched', async () => {
    await settle(hosts('10.61.0', 1, 254));
    const space = { AddressSpace: 'TsmacvlanLocal', SubPool: '', Options: {}, V6: false };
    const pools = ['10.61.0.0/24', '10.61.1.0/24'];
    const ids: string[] = [];
    for (const Pool of pools)
      ids.push(String((await one.call('IpamDriver.RequestPool', { ...space, Pool }))['PoolID']));
    await one.call('NetworkDriver.CreateNetwork', {
      NetworkID: '6'.repeat(64),
      Options: { 'com.docker.network.generic': { parent: 'lan0' }, 'com.docker.network.enable_ipv4': true },
      IPv4Data: pools.map((Pool) => ({ AddressSpace: 'TsmacvlanLocal', Pool })),
      IPv6Data: [],
    });
    one.networks.add({ id: '6'.repeat(64), isIPv6: false, poolId: ids[0] ?? null });
    const { answer, ms } = await timed(() => one.call('IpamDriver.RequestAddress', { PoolID: ids[0], Address: '' }));
    table['first pool used, second searched'] = { ms };
    assert.deepEqual(answer, { Address: '10.61.1.1/24', Data: {} });
    await one.call('IpamDriver.ReleaseAddress', { PoolID: ids[0], Address: '10.61.1.1' });
    await one.call('IpamDriver.ReleasePool', { PoolID: ids[1] });
  });

  test('all of a range are used: the refusal comes in time and says by whom', async () => {
    await settle(hosts('10.62.0', 1, 14));
    const network = await one.createNetwork({ subnet: '10.62.0.0/28' });
    const { answer, ms } = await start(network);
    table['all of a /28 used'] = { ms };
    assert.match(
      String(answer),
      /^no free address found in 10\.62\.0\.0\/28: 14 used by others on the LAN, .*3c:22:fb:10:aa:01.*, seen on lan0; /,
    );
    assert.ok(ms < CALL_MS);
    await machine.namespace.ip('address del 10.62.0.9/24 dev lan0');
    assert.equal((await start(network)).answer, '10.62.0.9');
  });

  test('with conflict=warn a named address that somebody has is given and told of, and one to choose is another', async () => {
    await settle(hosts('10.66.0', 1, 3));
    const network = await one.createNetwork({ subnet: '10.66.0.0/24', options: { conflict: 'warn' } });
    const { answer, ms } = await timed(() => one.run(network, { address: '10.66.0.2' }));
    table['named, used, conflict=warn'] = { ms };
    assert.equal(typeof answer === 'string' ? answer : answer.address, '10.66.0.2/24');
    const said = one.plugin
      .log()
      .split('\n')
      .filter((line) => line.includes('is given out although'));
    assert.equal(said.filter((line) => line.includes('10.66.0.2') && line.includes(MACHINE)).length, 1);
    const listed = JSON.parse(await one.plugin.command('conflicts', '--json')) as {
      address: string;
      macAddress: string;
    }[];
    assert.ok(listed.some(({ address, macAddress }) => address === '10.66.0.2' && macAddress === MACHINE));
    assert.equal((await start(network)).answer, '10.66.0.4');
  });

  test('somebody asks for a whole /24 over and over (arp-scan without an address): the pool is not full', async () => {
    const network = await one.createNetwork({ subnet: '10.63.0.0/24' });
    let isOver = false;
    const scanned = (async () => {
      for (let host = 1; !isOver; host = (host % 254) + 1) {
        stranger.send(encodeArp(arpProbe(parsed(`10.63.0.${host}`), STRANGER)));
        await sleep(SCAN_GAP_MS);
      }
    })();
    const endMs = performance.now() + Math.min(TROUBLE_MS, 10_000);
    const starts: { answer: string; ms: number }[] = [];
    while (performance.now() < endMs) starts.push(await start(network));
    isOver = true;
    await scanned;
    const refused = starts.filter(({ answer }) => !/^10\.63\.0\.\d+$/.test(answer));
    table['a /24 asked for by another'] = {
      ms: Math.max(...starts.map(({ ms }) => ms)),
      also: `${starts.length - refused.length} started, ${refused.length} refused`,
    };
    for (const { answer } of refused)
      assert.match(answer, /being checked by others on the LAN|was free when it was chosen/, answer);
    const { answer, ms } = await start(network);
    table['afterwards'] = { ms };
    assert.match(String(answer), /^10\.63\.0\.\d+$/);
    assert.ok(ms < 3000, `${ms} ms`);
    assert.ok(starts.length > refused.length, 'some start all the same');
  });

  for (const kind of ['changing MAC addresses', 'one MAC address'] as const) {
    const net = kind === 'one MAC address' ? '10.64.0' : '10.65.0';
    test(`a device answers for everything, from ${kind}: soon after it stopped a container starts`, async () => {
      let answers = 0;
      const asked = new Set<string>();
      stranger.react = (packet) => {
        if (packet.protocol !== 'ARP' || packet.operation !== 'request') return;
        const target = formatAddress(packet.targetAddress);
        // Who answered for the subnet's own address too would be known for a proxy.
        if (!target.startsWith(`${net}.`) || target === `${net}.0`) return;
        // What is asked of a MAC address alone judges whether it is a proxy.
        if (packet.destinationMac === BROADCAST_MAC) asked.add(target);
        const low = (answers++).toString(16).padStart(4, '0');
        const mac = kind === 'one MAC address' ? STRANGER : `3c:22:fb:11:${low.slice(0, 2)}:${low.slice(2)}`;
        stranger.send(encodeArp(arpReply(packet, mac)));
      };
      const network = await one.createNetwork({ subnet: `${net}.0/24` });
      await sleep(TROUBLE_MS);
      const before = asked.size;
      const refused = await start(network);
      stranger.reset();
      const { answer, ms } = await start(network);
      table[`answered for everything, from ${kind}`] = {
        ms,
        also: `${before} asked for without any start, refused after ${refused.ms} ms`,
      };
      assert.match(String(refused.answer), /one device \(.*\) seems to answer for all of them/);
      assert.ok(String(answer).startsWith(`${net}.`), String(answer));
      assert.ok(ms < 10_000);
      assert.ok(before <= 32, `${before} asked for without any start`);
    });
  }
});
