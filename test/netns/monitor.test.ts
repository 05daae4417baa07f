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
import { ARP_AND_NEIGHBOUR_DISCOVERY } from '../../src/kernel/bpf.ts';
import { Links } from '../../src/kernel/link.ts';
import { PacketSocket } from '../../src/kernel/packet.ts';
import type { InterfaceAddress } from '../../src/model.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { encodeNd, ndDefence, ndProbe } from '../../src/lan/frames/nd.ts';
import { standbyFrame } from '../../src/lan/frames/outgoing.ts';
import { decodePacket } from '../../src/lan/frames/sighting.ts';
import { Monitor } from '../../src/lan/monitor.ts';
import type { ConflictSeen } from '../../src/lan/takers.ts';
import { output, run } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';

const timeout = 120_000;
const SQUATTER = '3c:22:fb:10:aa:01';
const CONTAINER = '02:42:0a:09:00:05';
const SIBLING = '02:42:0a:09:00:06';
const [IPV4, IPV6, OTHER, NINTH] = ['10.9.0.5', 'fd00::5', '10.9.0.6', '10.9.0.9'].map(
  (text) => parseAddress(text) as Address,
) as [Address, Address, Address, Address];

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
  const lost: number[] = [];
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
      onLost: (_parent, count) => lost.push(count),
      onEnd: () => undefined,
    });
    watch();
    await watching();
  });

  afterEach(() => {
    monitor.close();
    seen.length = 0;
    defended.length = 0;
    lost.length = 0;
    proxies.clear();
  });

  after(() => {
    squatter.close();
    links.close();
  });

  const answersForAll = async (_address: Address, macAddress: string) => Promise.resolve(proxies.has(macAddress));
  const endpoint = {
    parentName: 'par',
    defend: null,
    tellTwin: () => undefined,
    answersForAll,
    ask: async () => Promise.resolve(true),
  };

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
    await setUpContainer();
  }

  async function setUpContainer(): Promise<void> {
    await box.ip('link set box0 up');
    await box.ip('address add 10.9.0.5/24 dev box0');
    await box.ip('address add fd00::5/64 dev box0 nodad');
  }

  async function addSibling(name: string, macAddress: string): Promise<Namespace> {
    const sibling = await Namespace.create(name);
    await ip(`link add ${name} link par address ${macAddress} type macvlan mode bridge`);
    await ip(`link set ${name} netns ${name} name eth0`);
    await sibling.ip('link set eth0 up');
    return sibling;
  }

  const fromSquatter = (address: Address, ourMacAddress = CONTAINER, macAddress = SQUATTER) => ({
    kind: 'address',
    parentName: 'par',
    address: on(address, address.family === 'IPv4' ? 24 : 64),
    macAddress,
    ourMacAddress,
    hostLinkName: null,
    count: 1,
    news: 'new',
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
    assert.deepEqual(
      (await reports(2)).map((conflict) => ({ ...conflict, count: 1 })),
      [fromSquatter(IPV4), fromSquatter(IPV6)],
    );
    assert.ok(seen.every(({ count }) => count <= 20));
    assert.deepEqual(defended, [on(IPV4, 24), on(IPV6, 64)]);
    assert.ok(monitor.isContested('par', IPV4));
    assert.ok(!monitor.isContested('par', OTHER));
  });

  test('what another socket heard counts once, and where this one did not hear it', { timeout }, async () => {
    assert.ok(!monitor.hear('par', OTHER, SQUATTER), 'nobody has the address');
    const sibling = await addSibling('sibling', SIBLING);
    monitor.watch('db', { ...endpoint, macAddress: SIBLING, addresses: [on(OTHER, 24)] });
    assert.ok(monitor.hear('par', OTHER, SQUATTER));
    assert.ok(monitor.hear('par', OTHER, SQUATTER));
    assert.ok(monitor.hear('par', OTHER, SIBLING), 'the container itself');
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    await reports(2);
    monitor.hear('par', IPV4, SQUATTER);
    await sleep(1200);
    await sibling.delete();
    assert.deepEqual(seen, [fromSquatter(OTHER, SIBLING), fromSquatter(IPV4)]);
  });

  test("the container's own words, questions of others and other addresses are no conflict", { timeout }, async () => {
    await box.run(['ping', '-c', '2', '-i', '0.2', '-W', '1', '10.9.0.77']);
    squatter.send(encodeArp(arpProbe(IPV4, SQUATTER)));
    squatter.send(encodeArp(arpAnnouncement(OTHER, SQUATTER)));
    squatter.send(standbyFrame(arpProbe(IPV4, '02:74:73:00:00:01'), IPV4, '02:74:73:00:00:02'));
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
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
  });

  test('a container that is gone is not watched over', { timeout }, async () => {
    monitor.forget('web');
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    await sleep(1200);
    assert.deepEqual(seen, []);
  });

  test('nothing is told or said of a container whose interface lies in the host’s namespace, down, until it is in the container', {
    timeout,
  }, async () => {
    const tellTwin = (address: Address) => void defended.push(address);
    const addresses = [on(IPV4, 24)];
    await box.ip(`link set box0 netns ${process.pid}`);
    monitor.watch('web', { ...endpoint, macAddress: CONTAINER, addresses, defend: tellTwin, tellTwin });
    await sleep(700);
    for (const macAddress of [SQUATTER, CONTAINER]) squatter.send(encodeArp(arpAnnouncement(IPV4, macAddress)));
    squatter.send(encodeArp(arpAnnouncement(OTHER, CONTAINER)));
    await sleep(800);
    assert.deepEqual([seen, defended], [[], []]);
    await ip('link set box0 netns box');
    await setUpContainer();
    const told = (await reports(2)).toSorted((one, other) => one.macAddress.localeCompare(other.macAddress));
    assert.deepEqual(told, [fromSquatter(IPV4, CONTAINER, CONTAINER), fromSquatter(IPV4)]);
  });

  test('a container whose interface is gone, and its engine has not said so, has nothing to lose', {
    timeout,
  }, async () => {
    const tellTwin = (address: Address) => void defended.push(address);
    const defend = tellTwin;
    const addresses = [on(IPV4, 24)];
    monitor.watch('web', { ...endpoint, macAddress: CONTAINER, addresses, defend, tellTwin });
    await watching();
    await box.ip('link delete box0');
    for (const macAddress of [SQUATTER, CONTAINER]) squatter.send(encodeArp(arpAnnouncement(IPV4, macAddress)));
    squatter.send(encodeArp(arpAnnouncement(OTHER, CONTAINER)));
    await sleep(1200);
    assert.deepEqual([seen, defended], [[], []]);
    await addContainer();
    await sleep(700);
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
    assert.deepEqual(defended, [on(IPV4, 24)]);
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
    await addContainer();
    await watching();
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
  });

  // --- by what they may speak for -----------------------------------------------------------------------------------

  for (const [whose, macAddress] of [
    ['that another daemon would name for an address on standby', '02:74:6b:00:00:07'],
    ['from which another daemon would ask', '02:74:73:00:00:07'],
  ] as const) {
    test(`who takes the address with a MAC address ${whose} is reported`, { timeout }, async () => {
      squatter.send(encodeArp(arpAnnouncement(IPV4, macAddress)));
      squatter.send(encodeNd(ndDefence(IPV6, macAddress)));
      squatter.send(standbyFrame(arpProbe(OTHER, SQUATTER), OTHER, '02:74:73:00:00:01'));
      assert.deepEqual(await reports(2), [
        fromSquatter(IPV4, CONTAINER, macAddress),
        fromSquatter(IPV6, CONTAINER, macAddress),
      ]);
    });
  }

  test('a sibling that takes the address and announces it is reported, and so is who forges its MAC address', {
    timeout,
  }, async () => {
    const sibling = await addSibling('sibling', SIBLING);
    monitor.watch('db', { ...endpoint, macAddress: SIBLING, addresses: [on(OTHER, 24)] });
    await sleep(700);
    // The kernel announces what it has when the link comes up.
    await sibling.run(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/all/arp_notify']);
    await sibling.ip('link set eth0 down');
    await sibling.ip('address add 10.9.0.5/24 dev eth0');
    await sibling.ip('link set eth0 up');
    const [first] = await reports(1);
    assert.deepEqual({ ...first, count: 1 }, fromSquatter(IPV4, CONTAINER, SIBLING));
    await sibling.ip('address delete 10.9.0.5/24 dev eth0');
    monitor.close();
    seen.length = 0;
    watch();
    monitor.watch('db', { ...endpoint, macAddress: SIBLING, addresses: [on(OTHER, 24)] });
    await watching();
    monitor.forgetConflicts(null);
    squatter.send(encodeNd(ndDefence(IPV6, SIBLING)));
    const [one, other] = (await reports(2)).toSorted((a, b) => a.kind.localeCompare(b.kind));
    assert.deepEqual(one, fromSquatter(IPV6, CONTAINER, SIBLING));
    assert.deepEqual(other, { ...fromSquatter(IPV6, SIBLING, SIBLING), kind: 'mac', address: IPV6 });
    await sibling.delete();
  });

  test('256 MAC addresses come first, then one that stays', { timeout }, async () => {
    for (let number = 0; number < 256; number++)
      squatter.send(encodeArp(arpAnnouncement(IPV4, `3c:22:fb:11:00:${number.toString(16).padStart(2, '0')}`)));
    squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    await until(() => seen.some(({ macAddress }) => macAddress === SQUATTER));
    assert.ok(seen.length <= 8, `${seen.length} reports`);
    assert.deepEqual(lost, []);
  });

  test('10,000 frames a second that say nothing about who has the address cost nothing and hide nothing', {
    timeout,
  }, async () => {
    const nobody = { family: 'IPv4', value: 0n } as const;
    const meaningless = [
      encodeArp(arpProbe(IPV4, SQUATTER)),
      encodeArp({ ...arpProbe(IPV4, SQUATTER), operation: 'reply' }),
      encodeArp({ ...arpReply(arpProbe(IPV4, CONTAINER), SQUATTER), senderAddress: nobody, targetAddress: IPV4 }),
      encodeArp({ ...arpAnnouncement(OTHER, SQUATTER), targetAddress: IPV4 }),
      encodeNd(ndProbe(IPV6, SQUATTER, '000000000001')),
      encodeNd(ndDefence({ family: 'IPv6', value: 77n }, SQUATTER)),
    ];
    for (let round = 0; round < 50; round++) {
      for (let count = 0; count < 200; count++) squatter.send(meaningless[count % meaningless.length] as Buffer);
      if (round === 25) squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
      await sleep(10);
    }
    assert.deepEqual(await reports(1), [fromSquatter(IPV4)]);
    await sleep(700);
    assert.deepEqual([seen.length, lost], [1, []]);
  });

  test('what came too fast to be read is told once, and the watch goes on', { timeout }, async () => {
    for (let count = 0; count < 20_000; count++) squatter.send(encodeArp(arpAnnouncement(IPV4, SQUATTER)));
    await until(() => lost.length > 0);
    await sleep(3000);
    assert.equal(lost.length, 1);
    assert.equal(seen.length, 1);
    squatter.send(encodeNd(ndDefence(IPV6, SQUATTER)));
    assert.deepEqual((await reports(2)).at(1), fromSquatter(IPV6));
  });

  test('four hundred frames from as many MAC addresses are answered by one defence (RFC 5227 2.4)', {
    timeout,
  }, async () => {
    for (let number = 0; number < 400; number++) {
      const [high, low] = [number >> 8, number & 255].map((byte) => byte.toString(16).padStart(2, '0'));
      squatter.send(encodeArp(arpAnnouncement(IPV4, `3c:22:fb:12:${high}:${low}`)));
      if (number % 20 === 0) await sleep(100);
    }
    await until(() => seen.length >= 8);
    assert.deepEqual(defended, [on(IPV4, 24)]);
  });

  test('interfaces of the same container on another parent of the LAN, and of another driver, are its own', {
    timeout,
  }, async () => {
    await ip('link add par2 type veth peer name port-par2 netns lan');
    await lan.namespace.ip('link set port-par2 master br0 up');
    await ip('link set par2 up');
    const second = '02:42:0a:09:00:09';
    await ip(`link add box9 link par2 address ${second} type macvlan mode bridge`);
    await ip('link set box9 netns box');
    await ip('link add box8 type veth peer name port-box8 netns lan');
    await lan.namespace.ip('link set port-box8 master br0 up');
    await ip('link set box8 netns box');
    for (const name of ['box9', 'box8']) await box.ip(`link set ${name} up`);
    await box.ip('address add 10.9.0.9/24 dev box9');
    monitor.watch('web9', { ...endpoint, parentName: 'par2', macAddress: second, addresses: [on(NINTH, 24)] });
    await sleep(700);
    await squatter.namespace.ip('address add 10.9.0.50/24 dev lan0');
    squatter.reset();
    for (const address of ['10.9.0.5', '10.9.0.9'])
      await squatter.namespace.run(['ping', '-c', '1', '-W', '5', address]);
    for (const from of ['10.9.0.5', '10.9.0.9']) await box.run(['ping', '-c', '1', '-W', '1', '-I', from, '10.9.0.88']);
    await sleep(1500);
    squatter.drain();
    const answering = squatter.heard.flatMap(({ packet }) =>
      packet.protocol === 'ARP' && packet.operation === 'reply' ? packet.senderMac : [],
    );
    await squatter.namespace.ip('address del 10.9.0.50/24 dev lan0');
    for (const name of ['box9', 'box8']) await box.ip(`link delete ${name}`);
    await ip('link delete par2');
    assert.ok(new Set(answering).size >= 3, `answers from ${[...new Set(answering)].join(' ')}`);
    assert.deepEqual(seen, []);
  });

  test('another host with the MAC address of a container is reported, whatever it says', { timeout }, async () => {
    const toOne = { destinationMac: SIBLING };
    squatter.send(encodeArp({ ...arpAnnouncement(OTHER, CONTAINER), ...toOne }));
    squatter.send(encodeArp(arpProbe(OTHER, CONTAINER)));
    await sleep(700);
    assert.deepEqual(seen, [], 'a sibling looks the same, and who only asks has no address');
    squatter.send(encodeArp(arpAnnouncement(OTHER, CONTAINER)));
    const expected = { ...fromSquatter(OTHER, CONTAINER, CONTAINER), kind: 'mac', address: OTHER };
    assert.deepEqual(await reports(1), [expected]);
    assert.deepEqual(defended, []);
    assert.ok(!monitor.isContested('par', IPV4));
  });

  test('what a container says about an address of its own choice, and a switch sends back, is no conflict', {
    timeout,
  }, async () => {
    await lan.namespace.ip('link set port-par type bridge_slave hairpin on');
    await box.ip('address add 10.9.0.55/24 dev box0');
    await box.ip('address add fd00::55/64 dev box0 nodad');
    const [{ ifindex = 0 } = {}] = JSON.parse(await ip('-j link show par')) as { ifindex: number }[];
    const observer = PacketSocket.open({ linkIndex: ifindex, filter: ARP_AND_NEIGHBOUR_DISCOVERY });
    for (const [from, to] of [
      ['10.9.0.55', '10.9.0.88'],
      ['fd00::55', 'fd00::88'],
    ] as const)
      await box.run(['ping', '-c', '2', '-i', '0.2', '-W', '1', '-I', from, to]);
    await sleep(1500);
    const back = observer.receive().filter(({ outgoing }) => !outgoing);
    observer.close();
    await box.ip('address del 10.9.0.55/24 dev box0');
    await box.ip('address del fd00::55/64 dev box0');
    await lan.namespace.ip('link set port-par type bridge_slave hairpin off');
    const protocols = new Set(back.map(({ frame }) => decodePacket(frame)?.protocol));
    assert.ok(protocols.has('ARP') && protocols.has('NS'), [...protocols].join());
    assert.deepEqual(seen, []);
  });

  test('the host itself is named, when it has the address of a container', { timeout }, async () => {
    await ip('address add 10.9.0.5/24 dev par');
    await run(['ping', '-c', '1', '-W', '1', '-I', 'par', '10.9.0.99']);
    const [first] = await reports(1);
    await ip('address del 10.9.0.5/24 dev par');
    const [{ address: parMac = '' } = {}] = JSON.parse(await ip('-j link show par')) as { address: string }[];
    assert.deepEqual({ ...first, count: 1 }, { ...fromSquatter(IPV4, CONTAINER, parMac), hostLinkName: 'par' });
  });

  test('the daemon that defends the address from a link of its own, or from the parent, is no conflict', {
    timeout,
  }, async () => {
    await ip('link add tsmp0 link par address 02:74:73:00:00:09 type macvlan mode bridge');
    await ip('link set tsmp0 up arp off');
    const [tsmp, par] = (await Promise.all(['tsmp0', 'par'].map((name) => ip(`-j link show ${name}`)))).map((text) => {
      const [link] = JSON.parse(text) as { ifindex: number; address: string }[];
      assert.ok(link);
      return link;
    });
    assert.ok(tsmp && par);
    for (const link of [tsmp, par]) {
      const socket = PacketSocket.open({ linkIndex: link.ifindex });
      socket.send(encodeArp(arpReply(arpProbe(IPV4, SQUATTER), link.address)));
      socket.send(encodeArp(arpReply(arpProbe(IPV4, CONTAINER), link.address)));
      socket.send(encodeNd(ndDefence(IPV6, link.address)));
      socket.close();
    }
    await sleep(1200);
    await ip('link delete tsmp0');
    assert.deepEqual(seen, []);
  });
});
