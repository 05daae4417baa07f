/**
 * The watch over addresses in use, on real links. The file's own network namespace is the host:
 *
 *     par ── veth ── br0 (ns "lan") ── veth ── squatter (scripted frames)
 *      └ box0, a macvlan child in namespace "box": the container
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, parseAddress } from '../../src/address.ts';
import { Links } from '../../src/kernel/link.ts';
import type { InterfaceAddress } from '../../src/model.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { encodeNd, ndDefence } from '../../src/lan/frames/nd.ts';
import { standbyMac } from '../../src/lan/frames/mac.ts';
import { type ConflictSeen, Monitor } from '../../src/lan/monitor.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';

const timeout = 120_000;
const SQUATTER = '3c:22:fb:10:aa:01';
const CONTAINER = '02:42:0a:09:00:05';
const [IPV4, IPV6, OTHER] = ['10.9.0.5', 'fd00::5', '10.9.0.6'].map((text) => parseAddress(text) as Address) as [
  Address,
  Address,
  Address,
];

const on = (address: Address, length: number): InterfaceAddress => ({ ...address, length });
const ip = (words: string) => output(['ip', ...words.split(' ')]);

describe('the watch over addresses in use', { skip: outsideLab(), timeout: 500_000 }, () => {
  let lan: Lan;
  let box: Namespace;
  let squatter: Neighbour;
  let links: Links;
  let monitor: Monitor;
  const seen: ConflictSeen[] = [];
  const defended: Address[] = [];
  const proxies = new Set<string>();

  before(async () => {
    lan = await Lan.create([], 'lan');
    box = await Namespace.create('box');
    await addParent();
    squatter = await Neighbour.plug(lan, 'squatter', SQUATTER);
    links = Links.open();
    await addContainer();
    await sleep(2000);
  });

  beforeEach(async () => {
    monitor = new Monitor({
      links,
      onConflict: (one) => seen.push(one),
    });
    watch();
    await watching();
  });

  afterEach(() => {
    monitor.close();
    seen.length = 0;
    defended.length = 0;
    proxies.clear();
  });

  after(() => {
    squatter.close();
    links.close();
  });

  const answersForAll = async (_address: Address, macAddress: string) => Promise.resolve(proxies.has(macAddress));
  const endpoint = { parentName: 'par', defend: null, answersForAll };

  function watch(): void {
    const defend = (address: Address) => void defended.push(address);
    monitor.watch('web', { ...endpoint, macAddress: CONTAINER, addresses: [on(IPV4, 24), on(IPV6, 64)], defend });
  }

  /** Its socket is on the parent (/proc/net/packet, the fifth column), and the next reading has told that what to hear. */
  async function watching(): Promise<void> {
    const [{ ifindex = 0 } = {}] = JSON.parse(await ip('-j link show par')) as { ifindex: number }[];
    await until(() => {
      const rows = readFileSync('/proc/net/packet', 'utf8').split('\n');
      return rows.some((row) => row.trim().split(/\s+/)[4] === String(ifindex));
    });
    await sleep(700);
  }

  async function addParent(): Promise<void> {
    await ip('link add par type veth peer name port-par netns lan');
    await lan.namespace.ip('link set port-par master br0 up');
    await ip('link set par up');
  }

  async function addContainer(): Promise<void> {
    await ip(`link add box0 link par address ${CONTAINER} type macvlan mode bridge`);
    await ip('link set box0 netns box');
    await box.ip('link set box0 up');
    await box.ip('address add 10.9.0.5/24 dev box0');
    await box.ip('address add fd00::5/64 dev box0 nodad');
  }

  const fromSquatter = (address: Address, ourMacAddress = CONTAINER, macAddress = SQUATTER) => ({
    parentName: 'par',
    address,
    macAddress,
    ourMacAddress,
    count: 1,
    isNews: true,
  });

  /** Once there are so many. */
  async function reports(count: number): Promise<ConflictSeen[]> {
    await until(() => seen.length >= count);
    return seen;
  }

  test('who speaks for the address of a container is reported once, and defended against once', {
    timeout,
  }, async () => {
    for (let count = 0; count < 20; count++) squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    squatter.send(encodeNd(ndDefence(IPV6, SQUATTER)));
    assert.deepEqual(await reports(2), [fromSquatter(IPV4), fromSquatter(IPV6)]);
    assert.deepEqual(defended, [IPV4, IPV6]);
    assert.ok(monitor.isContested('par', IPV4));
    assert.ok(!monitor.isContested('par', OTHER));
  });

  test('what another socket heard counts once, and where this one did not hear it', { timeout }, async () => {
    assert.ok(!monitor.hear('par', OTHER, SQUATTER), 'nobody has the address');
    monitor.watch('db', { ...endpoint, macAddress: '02:42:0a:09:00:06', addresses: [on(OTHER, 24)] });
    assert.ok(monitor.hear('par', OTHER, SQUATTER));
    assert.ok(monitor.hear('par', OTHER, SQUATTER));
    assert.ok(monitor.hear('par', OTHER, CONTAINER), 'a sibling');
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    await reports(2);
    monitor.hear('par', IPV4, SQUATTER);
    await sleep(1200);
    assert.deepEqual(seen, [fromSquatter(OTHER, '02:42:0a:09:00:06'), fromSquatter(IPV4)]);
  });

  test("the container's own words, questions of others and other addresses are no conflict", { timeout }, async () => {
    await box.run(['ping', '-c', '2', '-i', '0.2', '-W', '1', '10.9.0.77']);
    squatter.send(encodeArp(arpProbe(IPV4, SQUATTER)));
    squatter.send(encodeArp(arpAnnouncement(OTHER, SQUATTER)));
    squatter.send(encodeArp(arpReply(arpProbe(IPV4, SQUATTER), standbyMac('02:74:73:00:00:01'))));
    await sleep(1500);
    assert.deepEqual(seen, []);
  });

  test('another host that made the same MAC address is reported, what is sent back is not', { timeout }, async () => {
    const announcement = encodeArp(arpAnnouncement(IPV4, CONTAINER));
    squatter.send(announcement);
    assert.deepEqual(await reports(1), [fromSquatter(IPV4, CONTAINER, CONTAINER)]);
    assert.deepEqual(defended, [], 'an announcement of the same MAC would tell nobody anything');
    seen.length = 0;
    squatter.react = (packet) => {
      if (packet.protocol === 'ARP' && packet.senderMac === CONTAINER) squatter.send(encodeArp(packet));
    };
    monitor.close();
    watch();
    await watching();
    await box.run(['ping', '-c', '2', '-i', '0.2', '-W', '1', '10.9.0.78']);
    await sleep(1500);
    squatter.reset();
    assert.deepEqual(seen, []);
  });

  test('a container that has two interfaces on the parent, and siblings that talk, are no conflict', {
    timeout,
  }, async () => {
    monitor.watch('web2', { ...endpoint, macAddress: '02:42:0a:09:00:06', addresses: [on(OTHER, 24)] });
    await ip('link add box1 link par address 02:42:0a:09:00:06 type macvlan mode bridge');
    await ip('link set box1 netns box');
    await box.ip('link set box1 up');
    await box.ip('address add 10.9.0.6/24 dev box1');
    await sleep(700);
    await ip('link add ask0 link par type macvlan mode bridge');
    await ip('link set ask0 up');
    await ip('address add 10.9.0.50/24 dev ask0');
    // Asked anew by each: the container answers on both of its interfaces.
    for (const address of ['10.9.0.5', '10.9.0.6'])
      await output(['ping', '-c', '1', '-W', '15', '-I', 'ask0', address]);
    squatter.send(encodeArp(arpProbe(IPV4, SQUATTER)));
    await sleep(1500);
    await ip('link delete ask0');
    await box.ip('link delete box1');
    assert.deepEqual(seen, []);
  });

  test('a router that answers for every address is none', { timeout }, async () => {
    proxies.add(SQUATTER);
    squatter.send(encodeArp({ ...arpReply(arpProbe(IPV4, CONTAINER), SQUATTER), destinationMac: 'ff:ff:ff:ff:ff:ff' }));
    await sleep(1200);
    assert.deepEqual(seen, []);
    proxies.clear();
    squatter.send(encodeArp({ ...arpReply(arpProbe(IPV4, CONTAINER), SQUATTER), destinationMac: 'ff:ff:ff:ff:ff:ff' }));
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
  });

  test('a container that is gone is not watched over', { timeout }, async () => {
    monitor.forget('web');
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    await sleep(1200);
    assert.deepEqual(seen, []);
  });

  test('a parent that goes down and comes up is watched on', { timeout }, async () => {
    await ip('link set par down');
    await sleep(1200);
    await ip('link set par up');
    await watching();
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
  });

  test('a parent that is unplugged and comes back under its name is watched on', { timeout }, async () => {
    await ip('link delete par');
    await sleep(1200);
    await addParent();
    await watching();
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
  });
});
