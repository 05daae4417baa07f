/**
 * Packet sockets on real links. The file's own network namespace is the host; frames are sent and received on both
 * ends of a cable by this process, which opens the far end's sockets inside the far namespace:
 *
 *     near0 ── veth ── far0 (namespace "far")        mv0: a child of near0 in namespace "container"
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { macBytes } from '../../src/address.ts';
import {
  ARP_AND_NEIGHBOUR_DISCOVERY,
  type BpfInstruction,
  accept,
  assemble,
  drop,
  ifEqual,
  loadHalf,
} from '../../src/kernel/bpf.ts';
import { type Link, Links } from '../../src/kernel/link.ts';
import { PacketSocket, type PacketSocketSpec } from '../../src/kernel/packet.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';
import { inNamespace } from '../lab/thread.ts';

const timeout = 60_000;
const NEAR = '02:00:00:00:00:01';
const FAR = '02:00:00:00:00:02';
const CHILD = '02:00:00:00:00:03';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const NOBODY = 65534;
const ALIAS = 'tsmacvlan test';

const ip = (words: string) =>
  execFileSync('ip', words.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const openFiles = () => readdirSync('/proc/self/fd').length;
/** Sockets are closed some milliseconds later, one after the other: the count once no more are. */
const settledFiles = async (): Promise<number> => {
  const counts = [openFiles()];
  while (counts.length < 6 || new Set(counts.slice(-6)).size > 1) {
    await sleep(80);
    counts.push(openFiles());
  }
  return counts.at(-1) ?? 0;
};

/** Frames take a moment: waits until so many have come, and gives also those that came too much. */
const gather = async (socket: PacketSocket | undefined, count: number) => {
  const received = socket?.receive() ?? [];
  for (let waited = 0; received.length < count && waited < 400; waited++) {
    await sleep(5);
    received.push(...(socket?.receive() ?? []));
  }
  return received;
};

/** An Ethernet frame; `type` and what follows it in hex. */
const frame = (to: string, from: string, rest: string) =>
  Buffer.concat([macBytes(to), macBytes(from), Buffer.from(rest, 'hex')]);
const arp = (to: string, from: string) => frame(to, from, `0806${'0001080006040001'}${'00'.repeat(20)}`);
const ipv4 = (to: string, from: string) => frame(to, from, `0800${'45'.repeat(20)}`);
const icmp6 = (to: string, from: string, type: number) => {
  return frame(to, from, `86dd60000000${'0018'}3aff${'00'.repeat(32)}${type.toString(16)}00${'00'.repeat(22)}`);
};
const udp6 = (to: string, from: string) =>
  frame(to, from, `86dd60000000${'0018'}11ff${'00'.repeat(32)}${'8700'}${'00'.repeat(22)}`);
/** The same frame with a VLAN tag put in. */
const tagged = (untagged: Buffer, tag: string) =>
  Buffer.concat([untagged.subarray(0, 12), Buffer.from(`8100${tag}`, 'hex'), untagged.subarray(12)]);

describe('packet sockets', { skip: outsideLab(), timeout: 300_000 }, () => {
  const sockets: PacketSocket[] = [];
  let links: Links;
  let near: Link;
  let far: Link;

  const open = (spec: Partial<PacketSocketSpec> = {}): PacketSocket => {
    const socket = PacketSocket.open({ linkIndex: near.index, ...spec });
    sockets.push(socket);
    return socket;
  };
  const openFar = (spec: Partial<PacketSocketSpec> = {}) =>
    inNamespace('far', () => open({ linkIndex: far.index, ...spec }));

  before(async () => {
    links = Links.open();
    // Neighbour discovery of the kernel's own would be in the way.
    const off = ['sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1'];
    execFileSync('env', off);
    for (const name of ['far', 'container']) {
      ip(`netns add ${name}`);
      ip(`netns exec ${name} ${off.join(' ')}`);
    }
    await plug();
  });

  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.close();
  });

  after(() => links.close());

  async function plug(): Promise<void> {
    ip(`link add near0 address ${NEAR} type veth peer name far0 address ${FAR} netns far`);
    ip('link set near0 up');
    ip('-n far link set far0 up');
    near = (await links.byName('near0')) as Link;
    const there = inNamespace('far', () => Links.open());
    far = (await there.byName('far0')) as Link;
    there.close();
    await cabled();
  }

  /** The kernel lets frames out a moment after both ends are up (net/core/link_watch.c). */
  async function cabled(): Promise<void> {
    const isUp = (words: string) => ip(words).includes('"operstate":"UP"');
    await until(() => isUp('-j link show near0') && isUp('-n far -j link show far0'));
  }

  /** A child of `parent` in a new namespace, and a socket on it. */
  async function sibling(name: string, parent: Link): Promise<{ socket: PacketSocket; macAddress: string }> {
    const spec = { alias: ALIAS, mode: 'bridge', macAddress: null, mtu: null, broadcastQueueLength: null } as const;
    const { macAddress } = await links.addMacvlan({ ...spec, name: `mv-${name}`, parentIndex: parent.index });
    ip(`netns add ${name}`);
    ip(`link set mv-${name} netns ${name}`);
    ip(`-n ${name} link set mv-${name} up`);
    const there = inNamespace(name, () => Links.open());
    const { index = 0 } = (await there.byName(`mv-${name}`)) ?? {};
    there.close();
    const socket = inNamespace(name, () =>
      open({ linkIndex: index, filter: ARP_AND_NEIGHBOUR_DISCOVERY, ignoreOutgoing: true }),
    );
    return { socket, macAddress };
  }

  test('the kernel tells a frame once to all who wait, at once what waits already, and a link that goes down', {
    timeout,
  }, async () => {
    const [one, other] = [open({ ignoreOutgoing: true }), open({ ignoreOutgoing: true })];
    const told: string[] = [];
    const wait = (socket: PacketSocket, name: string) => assert.ok(socket.whenReadable(() => told.push(name)));
    wait(one, 'one');
    wait(other, 'other');
    await sleep(50);
    assert.equal(told.length, 0);
    const neighbour = openFar();
    neighbour.send(arp(BROADCAST, FAR));
    await until(() => told.length === 2);
    neighbour.send(arp(BROADCAST, FAR));
    await sleep(50);
    assert.deepEqual(told.toSorted(), ['one', 'other']);
    wait(one, 'what waits');
    await until(() => told.includes('what waits'));
    one.receive();
    wait(one, 'its link');
    ip('link set near0 down');
    await until(() => told.includes('its link'));
    assert.throws(() => one.receive(), { code: 'ENETDOWN' });
    ip('link set near0 up');
    await cabled();
  });

  test('of a socket that is closed nothing is told', { timeout }, async () => {
    const [closed, kept] = [open(), open()];
    const told: string[] = [];
    assert.ok(closed.whenReadable(() => told.push('closed')));
    assert.ok(kept.whenReadable(() => told.push('open')));
    closed.close();
    assert.ok(!closed.whenReadable(() => told.push('closed')));
    openFar().send(arp(BROADCAST, FAR));
    await until(() => told.length > 0);
    assert.deepEqual(told, ['open']);
  });

  test('a frame that is sent is received by the neighbour, byte for byte', { timeout }, async () => {
    const [here, there, observer] = [open(), openFar(), open()];
    here.send(arp(BROADCAST, NEAR));
    there.send(arp(NEAR, FAR));
    assert.deepEqual(await gather(there, 1), [{ frame: arp(BROADCAST, NEAR), outgoing: false }]);
    assert.deepEqual(await gather(here, 1), [{ frame: arp(NEAR, FAR), outgoing: false }]);
    assert.deepEqual(await gather(observer, 2), [
      { frame: arp(BROADCAST, NEAR), outgoing: true },
      { frame: arp(NEAR, FAR), outgoing: false },
    ]);
    assert.deepEqual(here.receive(), []);
  });

  test('frames of this host are left out when they are to be ignored', { timeout }, async () => {
    const [here, observer] = [open(), open({ ignoreOutgoing: true })];
    here.send(arp(BROADCAST, NEAR));
    openFar().send(arp(NEAR, FAR));
    assert.deepEqual(await gather(observer, 1), [{ frame: arp(NEAR, FAR), outgoing: false }]);
  });

  test('the filter lets ARP and neighbour discovery of the untagged LAN through and nothing else', {
    timeout,
  }, async () => {
    const [here, there] = [open({ filter: ARP_AND_NEIGHBOUR_DISCOVERY }), openFar()];
    const wanted = [arp(BROADCAST, FAR), icmp6(NEAR, FAR, 135), icmp6(NEAR, FAR, 136)];
    const priorityTagged = tagged(arp(NEAR, FAR), 'e000');
    const others = [
      ipv4(NEAR, FAR),
      icmp6(NEAR, FAR, 128),
      icmp6(NEAR, FAR, 134),
      udp6(NEAR, FAR),
      frame(NEAR, FAR, '88b5'),
    ];
    const ofVlan = [tagged(arp(BROADCAST, FAR), '000a'), tagged(icmp6(NEAR, FAR, 135), 'e00a')];
    for (const each of [...others, ...wanted, ...ofVlan, priorityTagged]) there.send(each);
    assert.deepEqual(
      (await gather(here, 4)).map((received) => received.frame.toString('hex')),
      [...wanted, arp(NEAR, FAR)].map((each) => each.toString('hex')),
    );
  });

  test('without a filter a VLAN’s ARP would look like one of the untagged LAN', { timeout }, async () => {
    const [here, there] = [open(), openFar()];
    there.send(tagged(arp(BROADCAST, FAR), '000a'));
    assert.deepEqual(await gather(here, 1), [{ frame: arp(BROADCAST, FAR), outgoing: false }]);
  });

  test('a parent sees the unicast frames of its macvlan child', { timeout }, async () => {
    const child = await links.addMacvlan({
      name: 'mv0',
      alias: ALIAS,
      parentIndex: near.index,
      mode: 'bridge',
      macAddress: CHILD,
      mtu: null,
      broadcastQueueLength: null,
    });
    ip('link set mv0 netns container');
    ip('-n container link set mv0 up');
    const [all, arpOnly, there] = [open(), open({ protocol: 0x0806 }), openFar()];
    there.send(arp(CHILD, FAR));
    assert.deepEqual(await gather(all, 1), [{ frame: arp(CHILD, FAR), outgoing: false }]);
    assert.deepEqual(arpOnly.receive(), []);
    ip('-n container link delete mv0');
    assert.equal(await links.byIndex(child.index), undefined);
  });

  test('siblings on an isolated link hear each other and nobody else does', { timeout }, async () => {
    const isolated = await links.addIsolated({ name: 'iso0', alias: ALIAS });
    await links.setUp(isolated.index);
    const one = await sibling('one', isolated);
    const two = await sibling('two', isolated);
    const here = open({ filter: ARP_AND_NEIGHBOUR_DISCOVERY });
    for (const to of [BROADCAST, two.macAddress]) {
      one.socket.send(arp(to, one.macAddress));
      assert.deepEqual(await gather(two.socket, 1), [{ frame: arp(to, one.macAddress), outgoing: false }]);
    }
    assert.deepEqual(here.receive(), []);
    for (const name of ['one', 'two']) ip(`-n ${name} link delete mv-${name}`);
    await links.deleteLink(isolated.index);
  });

  test('memberships last as long as the socket', { timeout }, async () => {
    const joined = () => ip('maddress show dev near0').includes('33:33:ff:00:00:99');
    const socket = open({ memberships: ['33:33:ff:00:00:99', '33:33:00:00:00:01'] });
    assert.ok(joined());
    socket.close();
    await until(() => !joined());
  });

  test('a membership is joined and left while the socket is open', { timeout }, () => {
    const joined = () => ip('maddress show dev near0').includes('33:33:ff:00:00:98');
    const socket = open();
    socket.join('33:33:ff:00:00:98');
    assert.ok(joined());
    socket.leave('33:33:ff:00:00:98');
    assert.ok(!joined());
    assert.throws(() => socket.join('33:33'), { code: 'EINVAL' });
  });

  test('the filter is replaced while the socket is open', { timeout }, async () => {
    const [here, there] = [open({ filter: ARP_AND_NEIGHBOUR_DISCOVERY }), openFar()];
    here.setFilter(assemble([loadHalf(12), ifEqual(0x0800, undefined, 'drop'), accept, 'drop', drop]));
    for (const each of [arp(NEAR, FAR), ipv4(NEAR, FAR)]) there.send(each);
    assert.deepEqual(await gather(here, 1), [{ frame: ipv4(NEAR, FAR), outgoing: false }]);
  });

  test('a flood is received whole, as far as the buffer of the socket reaches', { timeout }, async () => {
    const [here, there] = [open({ filter: ARP_AND_NEIGHBOUR_DISCOVERY }), openFar()];
    for (let count = 0; count < 200; count++) there.send(arp(BROADCAST, FAR));
    assert.equal((await gather(here, 200)).length, 200);
    assert.deepEqual(here.receive(), []);
  });

  test('a larger buffer holds a larger flood, and what was lost all the same is counted once', {
    timeout,
  }, async () => {
    const filter = ARP_AND_NEIGHBOUR_DISCOVERY;
    const [small, large, there] = [open({ filter }), open({ filter, receiveBufferBytes: 8 * 1024 * 1024 }), openFar()];
    for (let count = 0; count < 3000; count++) there.send(arp(BROADCAST, FAR));
    assert.equal((await gather(large, 3000)).length, 3000);
    assert.equal(large.dropped(), 0);
    const heard = (await gather(small, 1)).length;
    const lost = small.dropped();
    assert.ok(heard > 0 && lost > 0 && heard + lost <= 3000, `${heard} heard and ${lost} lost`);
    assert.equal(small.dropped(), 0);
    small.close();
    assert.equal(small.dropped(), 0);
  });

  test('a link that goes down is told once, and the socket goes on when it is up again', { timeout }, async () => {
    const [here, observer, there] = [open(), open(), openFar()];
    there.send(arp(NEAR, FAR));
    assert.equal((await gather(observer, 1)).length, 1);
    await links.setDown(near.index);
    assert.throws(() => here.receive(), { name: 'KernelError', code: 'ENETDOWN' });
    assert.equal(here.receive().length, 1, 'the frame that came before');
    assert.throws(() => here.send(arp(BROADCAST, NEAR)), { name: 'KernelError', code: 'ENETDOWN' });
    assert.deepEqual(here.receive(), []);
    await links.setUp(near.index);
    await cabled();
    there.send(arp(NEAR, FAR));
    assert.deepEqual(await gather(here, 1), [{ frame: arp(NEAR, FAR), outgoing: false }]);
  });

  test('a socket on a link that is down fails on the first receive', { timeout }, async () => {
    await links.setDown(near.index);
    const here = open();
    assert.throws(() => here.receive(), { name: 'KernelError', code: 'ENETDOWN' });
    await links.setUp(near.index);
    await cabled();
  });

  test('a link that is deleted is told as an error, again and again, and never as a crash', { timeout }, async () => {
    const here = open({ memberships: ['33:33:00:00:00:01'], filter: ARP_AND_NEIGHBOUR_DISCOVERY });
    await links.deleteLink(near.index);
    const codes = new Set<unknown>();
    for (let count = 0; count < 20; count++) {
      for (const attempt of [() => here.receive(), () => here.send(arp(BROADCAST, NEAR))]) {
        try {
          attempt();
        } catch (error) {
          codes.add((error as { code?: unknown }).code);
        }
      }
    }
    assert.ok(
      codes.size > 0 && [...codes].every((code) => ['ENETDOWN', 'ENXIO', 'ENODEV'].includes(String(code))),
      [...codes].join(),
    );
    await plug();
  });

  test('a link, filter, membership or right that is missing is refused with its code, and leaves no descriptor', {
    timeout,
  }, async () => {
    const before = await settledFiles();
    const endless: BpfInstruction[] = [{ code: 0x05, jt: 0, jf: 0, k: 0xfffffff0 }];
    assert.throws(() => open({ linkIndex: 123_456 }), { code: 'ENODEV' });
    assert.throws(() => open({ linkIndex: 0 }), { code: 'ENODEV' });
    assert.throws(() => open({ filter: endless }), { code: 'EINVAL' });
    assert.throws(() => open({ filter: [] }), { code: 'EINVAL' });
    assert.throws(() => open({ memberships: ['33:33'] }), { code: 'EINVAL' });
    process.seteuid?.(NOBODY);
    try {
      assert.throws(() => open(), { code: 'EPERM' });
    } finally {
      process.seteuid?.(0);
    }
    await until(() => openFiles() <= before);
  });

  test('300 sockets opened and closed leave no descriptor, and the event loop runs meanwhile', {
    timeout,
  }, async () => {
    const before = await settledFiles();
    for (let count = 0; count < 300; count++) {
      const socket = PacketSocket.open({
        linkIndex: near.index,
        filter: ARP_AND_NEIGHBOUR_DISCOVERY,
        memberships: ['33:33:00:00:00:01'],
      });
      socket.send(arp(BROADCAST, NEAR));
      socket.receive();
      socket.close();
      socket.close();
    }
    assert.ok(openFiles() > before, 'close() did not wait for the kernel');
    await until(() => openFiles() <= before);
  });

  test('a closed socket refuses, and touches no descriptor that was opened since', { timeout }, () => {
    const closed = open();
    closed.close();
    const reused = open();
    assert.throws(() => closed.send(arp(BROADCAST, NEAR)), { code: 'EBADF' });
    assert.throws(() => closed.receive(), { code: 'EBADF' });
    assert.deepEqual(reused.receive(), []);
  });
});
