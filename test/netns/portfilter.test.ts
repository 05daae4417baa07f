/**
 * A switch port that delivers frames to the NIC's own MAC address only, as those of virtual switches and clouds do, and the
 * host's neighbour table as a witness. The file's own network namespace is the host:
 *
 *     par (10.9.0.2, a route by the gateway) ── veth ── port-par ┐            ┌── gateway (10.9.0.1, a Linux kernel)
 *                                                            br0 (ns "lan") ──┤── printer (a Linux kernel)
 *                                                                             └── sleeper (scripted frames)
 *
 * Filtered: the bridge learns nothing on port-par, floods no unicast frame to it, and knows the parent's MAC address there.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, macFromIPv4, macFromIPv6, parseAddress, parsePrefix } from '../../src/address.ts';
import { Links } from '../../src/kernel/link.ts';
import { arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { encodeNd, ndDefence } from '../../src/lan/frames/nd.ts';
import type { Packet } from '../../src/lan/frames/sighting.ts';
import { type ProbeRequest, Prober } from '../../src/lan/prober.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';

const timeout = 60_000;
const GATEWAY = '3c:22:fb:10:aa:01';
const PRINTER = '3c:22:fb:10:aa:02';
const SLEEPER = '3c:22:fb:10:aa:03';
/** Of a container, named by its user. */
const NAMED = '02:00:00:00:00:09';

const ip = (words: string) => output(['ip', ...words.split(' ')]);

function address(text: string): Address {
  return parseAddress(text) ?? assert.fail(text);
}

let last = 50;
const next = () => address(`10.9.0.${++last}`);
const nextIPv6 = () => address(`fd00::${(++last).toString(16)}`);

describe('ports that filter MAC addresses, and the neighbour table', { skip: outsideLab(), timeout: 300_000 }, () => {
  let lan: Lan;
  let gateway: Neighbour;
  let printer: Neighbour;
  let sleeper: Neighbour;
  let links: Links;
  let prober: Prober;
  let parentMac: string;
  const told: [parent: string, isFiltered: boolean][] = [];

  before(async () => {
    lan = await Lan.create([], 'lan');
    await ip(`link add par type veth peer name port-par netns ${lan.namespace.name}`);
    await lan.namespace.ip('link set port-par master br0 up');
    await ip('link set par up');
    await ip('address add 10.9.0.2/24 dev par');
    await ip('address add fd00::2/64 dev par nodad');
    gateway = await Neighbour.plug(lan, 'gateway', GATEWAY);
    printer = await Neighbour.plug(lan, 'printer', PRINTER);
    sleeper = await Neighbour.plug(lan, 'sleeper', SLEEPER);
    await gateway.namespace.ip('address add 10.9.0.1/24 dev lan0');
    await printer.namespace.ip('address add 10.9.0.3/24 dev lan0');
    await printer.namespace.ip('address add fd00::3/64 dev lan0 nodad');
    await ip('route add 10.8.0.0/16 via 10.9.0.1 dev par');
    links = Links.open();
    parentMac = (await links.byName('par'))?.macAddress ?? assert.fail();
    await sleep(2500);
  });

  beforeEach(async () => {
    prober = new Prober({ links, onPortFilter: (...change) => told.push(change) });
    await ip('neighbour flush dev par');
  });

  afterEach(async () => {
    await prober.close();
    await setFilter(false);
    for (const neighbour of [gateway, printer, sleeper]) neighbour.reset();
    told.length = 0;
  });

  after(() => {
    for (const neighbour of [gateway, printer, sleeper]) neighbour.close();
    links.close();
  });

  async function setFilter(isOn: boolean): Promise<void> {
    const state = isOn ? 'off' : 'on';
    await lan.namespace.run(['bridge', 'link', 'set', 'dev', 'port-par', 'learning', state, 'flood', state]);
    const entry = ['dev', 'port-par', 'master', 'static'];
    await lan.namespace.run(['bridge', 'fdb', isOn ? 'replace' : 'delete', parentMac, ...entry]);
    await lan.namespace.run(['bridge', 'fdb', 'flush', 'dev', 'br0', 'nostatic', 'nopermanent']);
  }

  const request = (one: Address, more: Partial<ProbeRequest> = {}): ProbeRequest => ({
    parentName: 'par',
    mode: 'bridge',
    address: one,
    profile: 'fast',
    subnet: parsePrefix(one.family === 'IPv4' ? '10.9.0.0/24' : 'fd00::/64'),
    isOwn: () => false,
    ...more,
  });
  const probe = (one: Address, more: Partial<ProbeRequest> = {}) => prober.probe(request(one, more));
  const heldBy = (macAddress: string) => ({
    held: true,
    macAddress,
    linkName: 'par',
    simultaneous: false,
    isOnHost: false,
  });
  const ping = (text: string) => output(['ping', '-c', '1', '-W', '2', text]);

  describe('a port that delivers to the parent only', () => {
    test('is known by hosts that answer the parent and not us; holders are found, and it is told once', {
      timeout,
    }, async () => {
      await ping('10.9.0.1');
      await setFilter(true);
      assert.deepEqual(await probe(address('10.9.0.1')), heldBy(GATEWAY));
      assert.deepEqual(await probe(address('10.9.0.3')), heldBy(PRINTER));
      assert.deepEqual(await probe(address('fd00::3')), heldBy(PRINTER));
      assert.equal((await probe(next())).held, false);
      assert.deepEqual(told, [['par', true]]);
      assert.deepEqual(prober.filteredParents(), ['par']);
    });

    test('is known by the gateway alone, which the neighbour table need not have', { timeout }, async () => {
      await setFilter(true);
      assert.deepEqual(await probe(address('10.9.0.3')), heldBy(PRINTER));
      assert.deepEqual(told, [['par', true]]);
    });

    test('keeps addresses on standby by questions that can be answered', { timeout }, async () => {
      await setFilter(true);
      const [used, free] = [next(), next()];
      await printer.namespace.ip(`address add ${formatAddress(used)}/24 dev lan0`);
      assert.deepEqual(await prober.keep(request(used), () => undefined), heldBy(PRINTER));
      assert.deepEqual(await prober.keep(request(free), () => undefined), { held: false });
      await printer.namespace.ip(`address add ${formatAddress(free)}/24 dev lan0`);
      assert.deepEqual(await probe(free), heldBy(PRINTER), 'taken in silence since');
      for (const one of [used, free]) await printer.namespace.ip(`address delete ${formatAddress(one)}/24 dev lan0`);
    });

    test('is forgotten when it filters no more, once something happened to the link', { timeout }, async () => {
      await setFilter(true);
      await probe(next());
      await setFilter(false);
      prober.outdate('par');
      assert.deepEqual(await probe(address('10.9.0.3')), heldBy(PRINTER));
      assert.deepEqual(told, [
        ['par', true],
        ['par', false],
      ]);
    });
  });

  test('a port that lets everything through is told of by nobody, nor one on which nobody answers', {
    timeout,
  }, async () => {
    await ping('10.9.0.3');
    assert.deepEqual(await probe(address('10.9.0.3')), heldBy(PRINTER));
    for (const { namespace } of [gateway, printer]) await namespace.ip('link set lan0 arp off');
    prober.outdate('par');
    assert.equal((await probe(next())).held, false);
    for (const { namespace } of [gateway, printer]) await namespace.ip('link set lan0 arp on');
    assert.deepEqual(told, []);
  });

  test('of a router that answers for every address only that is known which the host routes through', {
    timeout,
  }, async () => {
    const [own, other] = [next(), next()];
    sleeper.react = (packet) => {
      if (packet.protocol === 'ARP' && packet.operation === 'request')
        sleeper.send(encodeArp(arpReply(packet, SLEEPER)));
    };
    for (const one of [own, other])
      await ip(`neighbour replace ${formatAddress(one)} lladdr ${SLEEPER} dev par nud stale`);
    await ip(`route add 10.7.0.0/16 via ${formatAddress(own)} dev par`);
    assert.deepEqual(await probe(own), heldBy(SLEEPER));
    assert.deepEqual(await probe(other), { held: false });
    await ip('route delete 10.7.0.0/16');
  });

  for (const [family, free] of [
    ['IPv4', next],
    ['IPv6', nextIPv6],
  ] as const) {
    /** Asleep, it answers only what is meant for it alone. */
    const answerAlone = (one: Address, macAddress = SLEEPER) => {
      sleeper.react = (packet: Packet) => {
        if (packet.destinationMac !== macAddress) return;
        if (packet.protocol === 'ARP' && packet.targetAddress.value === one.value)
          sleeper.send(encodeArp(arpReply(packet, macAddress)));
        else if (packet.protocol === 'NS' && packet.target.value === one.value)
          sleeper.send(encodeNd(ndDefence(one, macAddress)));
      };
    };
    const enter = (one: Address, state: string, macAddress = SLEEPER) =>
      ip(`neighbour replace ${formatAddress(one)} lladdr ${macAddress} dev par nud ${state}`);

    for (const state of ['reachable', 'stale'])
      test(`a host that the neighbour table has as ${state}, and that answers when asked alone, holds its ${family} address`, {
        timeout,
      }, async () => {
        const used = free();
        answerAlone(used);
        assert.equal((await probe(used, { guardMs: 0 })).held, false, 'without the entry nobody knows');
        await enter(used, state);
        assert.deepEqual(await probe(used), heldBy(SLEEPER));
      });

    test(`a host that left stays in the neighbour table for a while and holds no ${family} address`, {
      timeout,
    }, async () => {
      const left = free();
      await enter(left, 'reachable');
      assert.deepEqual(await probe(left), { held: false });
    });

    test(`what an administrator wrote into the neighbour table holds the ${family} address`, { timeout }, async () => {
      const written = free();
      await enter(written, 'permanent');
      assert.deepEqual(await probe(written), heldBy(SLEEPER));
      await ip(`neighbour delete ${formatAddress(written)} dev par`);
    });

    test(`what an administrator wrote of the container to come is no other holder of its ${family} address, unless it answers`, {
      timeout,
    }, async () => {
      const own = free();
      const derived = own.family === 'IPv4' ? macFromIPv4('02:9a', own) : macFromIPv6('02:9a', own);
      for (const macAddress of [derived, NAMED]) {
        await enter(own, 'permanent', macAddress);
        assert.deepEqual(await probe(own, { macAddress: NAMED }), { held: false }, macAddress);
      }
      answerAlone(own, NAMED);
      assert.deepEqual(await probe(own, { macAddress: NAMED }), heldBy(NAMED), 'another host has its twin');
      assert.deepEqual(await probe(own), heldBy(NAMED), 'of whom nothing is known yet');
      await ip(`neighbour delete ${formatAddress(own)} dev par`);
    });

    test(`an entry of the container that has just left is no other holder (${family})`, { timeout }, async () => {
      const left = free();
      answerAlone(left);
      await enter(left, 'stale');
      assert.deepEqual(await probe(left, { isOwn: (mac) => mac === SLEEPER }), { held: false });
    });
  }
});
