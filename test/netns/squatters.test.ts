/**
 * Strangers on the LAN have, take or want the addresses of a pool, each kind in its own way, and the daemon must give none
 * of them to a container. Daemons are real ones; containers are namespaces into which links are moved as an engine does:
 *
 *     host one: tsmacvlan, containers ── lan0 ──┐
 *     host two: tsmacvlan, containers ── lan0 ──┼── br0 (ns "lan", where everything is captured)
 *     machine: a Linux kernel with addresses ───┤
 *     stranger, router: scripted frames ────────┘
 *
 * Judged by the addresses that the kernels of containers and strangers have, and by who speaks for an address in the
 * capture; the daemon's own word counts only where it has to tell of a conflict.
 *
 *     make squatters ROUNDS=100     that many squatters of each kind, and ten times as many starts without any
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, parseAddress } from '../../src/address.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { encodeNd, ndAnnouncement } from '../../src/lan/frames/nd.ts';
import { isStandbyMac, isProbeMac } from '../../src/lan/frames/mac.ts';
import type { Conflict } from '../../src/model.ts';
import { Capture, type Frame } from '../lab/capture.ts';
import { addressesOf, doubles, speakers } from '../lab/census.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { lastOf } from '../lab/invariant.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { undisturbed, until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Taker } from '../lab/taker.ts';
import { Turns } from '../lab/turns.ts';
import { type Container, type FakeNetwork, Refusal, Understudy } from '../lab/understudy.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 4);
const CLEAN = ROUNDS * 10;
/** Starts at a time. Those by name ask for eight seconds before they are refused. */
const AT_ONCE = 8;
const NAMED_AT_ONCE = 50;
const MACHINE = '3c:22:fb:10:aa:01';
const STRANGER = '3c:22:fb:10:aa:02';
const ROUTER = '3c:22:fb:10:aa:03';
/** The shortest window of the profile `fast` is 590 ms. */
const HALF_WINDOW_MS = 295;
const LONGEST_STALL_MS = 400;
/** Longer than a fresh address is guarded (10 s), so that strangers come within that time and after it; others come at once. */
const LATER_MS = 12_000;

type Place = ReturnType<typeof nextSubnet>;

interface Findings {
  rounds?: number;
  /** Addresses that strangers have now. */
  squatted?: readonly string[];
  /** Those that strangers had or asked for. */
  wanted?: readonly string[];
  /** A MAC address that speaks for every address. */
  router?: string;
  /** Those of which a stranger spoke too late to count. */
  excused?: readonly string[];
  also?: string;
}

const table: Record<string, object> = {};

/** A subnet of its own for each test, and in it every second address, from the first, for squatters. */
let subnets = 19;
function nextSubnet(family: Address['family'] = 'IPv4') {
  const number = ++subnets;
  const isIPv4 = family === 'IPv4';
  const at = (host: number) =>
    isIPv4 ? `10.${number}.${host >> 8}.${host & 255}` : `fd00:${number}::${host.toString(16)}`;
  return {
    subnet: isIPv4 ? `10.${number}.0.0/16` : `fd00:${number}::/64`,
    squatted: Array.from({ length: ROUNDS }, (_, round) => at(2 * round + 1)),
    isWithin: (address: string) => address.startsWith(isIPv4 ? `10.${number}.` : `fd00:${number}:`),
  };
}

/** Whether the stranger answered each probe for an address before the window of its question can have closed. */
function answeredInTime(frames: readonly Frame[]): (address: string) => boolean {
  const sightings = (address: string, mac: (one: string) => boolean) =>
    frames
      .filter(({ arp, sourceMac }) => [arp?.targetAddress, arp?.senderAddress].includes(address) && mac(sourceMac))
      .map(({ atMs }) => atMs);
  return (address) => {
    const answers = sightings(address, (mac) => mac === STRANGER);
    const isInTime = (askedMs: number) =>
      answers.some((atMs) => atMs > askedMs && atMs < askedMs + 1.3 * HALF_WINDOW_MS);
    const probes = sightings(address, isProbeMac);
    return probes.length >= 2 && probes.every(isInTime);
  };
}

/** Daemons speak for addresses that they guard until the container does. */
function count(macs: ReadonlySet<string>): number {
  return [...macs].filter((mac) => !isProbeMac(mac) && !isStandbyMac(mac)).length;
}

const parsed = (text: string) => parseAddress(text) as Address;

/** Starts that many at a time; answers in order. */
function inTurns<T, R>(all: readonly T[], act: (one: T, round: number) => Promise<R>, atOnce = AT_ONCE): Promise<R[]> {
  const turns = new Turns(atOnce);
  return Promise.all(all.map((one, round) => turns.run(() => act(one, round))));
}

const times = (count: number) => Array.from({ length: count }, (_, round) => round);

async function refusal(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt;
    return 'was given out';
  } catch (error) {
    if (error instanceof Refusal) return error.message;
    throw error;
  }
}

/** Who has which address beside whom. */
type Claim = Pick<Conflict, 'address' | 'macAddress' | 'ourMacAddress'>;

describe('squatters', { skip: outsideLab(), timeout: 3_600_000 }, () => {
  let lan: Lan;
  let one: Understudy;
  let two: Understudy;
  let machine: Neighbour;
  let stranger: Neighbour;
  let router: Neighbour;
  let capture: Capture;

  before(async () => {
    lan = await Lan.create();
    const hosts = await Promise.all(['one', 'two'].map((name) => Host.boot(name, lan)));
    const daemons = await Promise.all(hosts.map(async (host) => new Understudy(await Plugin.start(host))));
    [one, two] = daemons as [Understudy, Understudy];
    machine = await Neighbour.plug(lan, 'machine', MACHINE);
    stranger = await Neighbour.plug(lan, 'stranger', STRANGER);
    router = await Neighbour.plug(lan, 'router', ROUTER);
  });

  const begin = async () => {
    capture = await Capture.start(lan.namespace, 'br0', 'arp or ip6');
  };
  const clear = async () => {
    stranger.reset();
    await Promise.all([one.clear(), two.clear()]);
    for (const { namespace } of [machine, stranger]) await namespace.ip('address flush dev lan0 scope global');
  };

  beforeEach(begin);

  afterEach(clear);

  /** Who stands still while another asks for the same address may not hear him in time: such a failure is tried anew. */
  const race = (act: () => Promise<void>) => () =>
    undisturbed(LONGEST_STALL_MS, () =>
      act().catch(async (error: unknown) => {
        await clear();
        await begin();
        throw error;
      }),
    );

  after(() => {
    console.table(table);
    for (const neighbour of [machine, stranger, router]) neighbour.close();
  });

  async function settle(addresses: readonly string[], words = ''): Promise<void> {
    const length = addresses[0]?.includes(':') ? 64 : 16;
    const lines = addresses.map((address) => `address add ${address}/${length} dev lan0${words}`);
    await machine.namespace.run(['ip', '-batch', '-'], { input: lines.join('\n') });
  }

  /** Containers choose among all addresses, and each of the squatters' is asked for by name. */
  async function besiege(network: FakeNetwork, squatted: readonly string[], macAddress: string): Promise<void> {
    await inTurns(times(ROUNDS), () => one.run(network));
    const words = await inTurns(squatted, (address) => refusal(one.run(network, { address })), NAMED_AT_ONCE);
    const option = network.isIPv6 ? '--ip6' : '--ip';
    const sentence = (address: string) =>
      `address ${address} is already used on the LAN by ${macAddress}, which answered on lan0; choose another ${option}`;
    const beginnings = words.map((word) =>
      word.slice(0, word.indexOf(`another ${option}`) + `another ${option}`.length),
    );
    assert.deepEqual(beginnings, squatted.map(sentence));
  }

  async function judge(kind: string, place: Place, findings: Findings = {}): Promise<void> {
    const { squatted = [], wanted = squatted, rounds = ROUNDS, router = '', excused = [], also = '' } = findings;
    const containers = [...one.containers, ...two.containers];
    const had = (await inTurns(containers, ({ namespace }) => addressesOf(namespace, 'eth0'))).flat();
    const heard = speakers((await capture.stop()).filter(({ sourceMac }) => sourceMac !== router));
    const disputed = [...heard].filter(
      ([address, macs]) => place.isWithin(address) && !excused.includes(address) && count(macs) > 1,
    );
    const duplicates = new Set([...doubles([...had, ...squatted]), ...disputed.map(([address]) => address)]);
    const listed = (await Promise.all([one, two].map(({ plugin }) => plugin.conflicts()))).flat();
    const alarms = listed.filter(
      ({ address, macAddress }) =>
        place.isWithin(address) && !wanted.includes(address) && !heard.get(address)?.has(macAddress),
    );
    table[kind] = { rounds, duplicates: duplicates.size, 'false alarms': alarms.length, also };
    assert.equal(had.length, containers.length, 'every container has its address');
    assert.deepEqual([[...duplicates], alarms], [[], []]);
  }

  for (const [kind, family] of [
    ['answers at once (a Linux host)', 'IPv4'],
    ['IPv6 of a Linux host', 'IPv6'],
  ] as const) {
    test(kind, async () => {
      const place = nextSubnet(family);
      await settle(place.squatted, family === 'IPv6' ? ' nodad' : '');
      await besiege(await one.createNetwork(place), place.squatted, MACHINE);
      await judge(kind, place, place);
    });
  }

  test('never answers a ping', async () => {
    const place = nextSubnet();
    await settle(place.squatted);
    await machine.namespace.run(['sysctl', '-qw', 'net.ipv4.icmp_echo_ignore_all=1']);
    await besiege(await one.createNetwork(place), place.squatted, MACHINE);
    const [container] = one.containers as Iterable<Container>;
    const ping = await container?.namespace.run(['ping', '-c', '1', '-W', '1', place.squatted[0] ?? '']);
    await machine.namespace.run(['sysctl', '-qw', 'net.ipv4.icmp_echo_ignore_all=0']);
    assert.match(ping?.stdout ?? '', / 0 received/);
    await judge('never answers a ping', place, place);
  });

  test('answers after half of the window', async () => {
    const place = nextSubnet();
    stranger.react = (packet) => {
      if (packet.protocol !== 'ARP' || packet.operation !== 'request') return;
      if (place.squatted.includes(formatAddress(packet.targetAddress)))
        setTimeout(() => stranger.send(encodeArp(arpReply(packet, STRANGER))), HALF_WINDOW_MS);
    };
    const network = await one.createNetwork(place);
    await inTurns(times(ROUNDS), () => one.run(network));
    await inTurns(place.squatted, (address) => refusal(one.run(network, { address })), NAMED_AT_ONCE);
    await sleep(2 * HALF_WINDOW_MS);
    const squatted = place.squatted.filter(answeredInTime(await capture.stop()));
    const excused = place.squatted.filter((address) => !squatted.includes(address));
    const also = excused.length === 0 ? '' : `${excused.length} answered only after the window, on a busy machine`;
    await judge('answers after half of the window', place, {
      squatted,
      wanted: place.squatted,
      excused,
      rounds: squatted.length,
      also,
    });
    assert.ok(squatted.length > 0);
  });

  test('a router with proxy ARP beside Linux hosts', async () => {
    const place = nextSubnet();
    await settle(place.squatted);
    router.react = (packet) => {
      if (packet.protocol !== 'ARP' || packet.operation !== 'request') return;
      const [asker, asked] = [packet.senderAddress, packet.targetAddress].map(formatAddress) as [string, string];
      if (place.isWithin(asked) && asker !== asked) router.send(encodeArp(arpReply(packet, ROUTER)));
    };
    await besiege(await one.createNetwork(place), place.squatted, MACHINE);
    const named = () =>
      one.plugin
        .log()
        .split('\n')
        .filter((line) => line.includes('proxy ARP') && line.includes(ROUTER));
    await until(() => named().length > 0);
    assert.equal(named().length, 1);
    router.reset();
    await judge('a router with proxy ARP beside Linux hosts', place, { ...place, router: ROUTER });
  });

  test(
    'a stranger asks for the address at the same time (RFC 5227 2.1.1)',
    race(async () => {
      const place = nextSubnet();
      const network = await one.createNetwork(place);
      const taker = new Taker(stranger);
      const given = await inTurns(place.squatted, async (address) => {
        const taking = taker.take(parsed(address));
        await sleep(Math.random() * 4000);
        const words = await refusal(one.run(network, { address }));
        await taking;
        return words === 'was given out';
      });
      const [ours, theirs] = [given.filter(Boolean).length, taker.taken.size];
      const also = `a container ${ours}, the stranger ${theirs}, nobody ${ROUNDS - ours - theirs}`;
      await judge('a stranger asks at the same time', place, {
        squatted: [...taker.taken],
        wanted: place.squatted,
        also,
      });
    }),
  );

  test(
    'a kernel adds the same IPv6 address at the same time (DAD)',
    race(async () => {
      const place = nextSubnet('IPv6');
      const network = await one.createNetwork(place);
      const given = await inTurns(place.squatted, async (address) => {
        const [words] = await Promise.all([
          sleep(Math.random() * 2500).then(() => refusal(one.run(network, { address }))),
          sleep(Math.random() * 1500).then(() => settle([address])),
        ]);
        return words === 'was given out';
      });
      const squatted = (await addressesOf(machine.namespace, 'lan0')).filter(place.isWithin);
      const [ours, theirs] = [given.filter(Boolean).length, squatted.length];
      const also = `a container ${ours}, the kernel ${theirs}, nobody ${ROUNDS - ours - theirs}`;
      await judge('a kernel adds the same IPv6 address', place, { squatted, wanted: place.squatted, also });
    }),
  );

  test(
    'two daemons without shared state give out addresses at the same time',
    race(async () => {
      const place = nextSubnet();
      // Both would make the same MAC address of the same address; the capture shall tell them apart.
      const networks = [
        await one.createNetwork(place),
        await two.createNetwork({ ...place, options: { mac_prefix: '02:43' } }),
      ] as const;
      await inTurns(times(ROUNDS), () => Promise.all([one.run(networks[0]), two.run(networks[1])]));
      await judge('two daemons choose at the same time', place);
    }),
  );

  test(
    'two daemons are asked for one address at the same time',
    race(async () => {
      const place = nextSubnet();
      const networks = [
        await one.createNetwork(place),
        await two.createNetwork({ ...place, options: { mac_prefix: '02:43' } }),
      ] as const;
      const given = await inTurns(place.squatted, async (address) => {
        const leadMs = (Math.random() * 2 - 1) * 900;
        const words = await Promise.all([
          sleep(Math.max(0, leadMs)).then(() => refusal(one.run(networks[0], { address }))),
          sleep(Math.max(0, -leadMs)).then(() => refusal(two.run(networks[1], { address }))),
        ]);
        return words.filter((word) => word === 'was given out').length;
      });
      const of = (count: number) => given.filter((one) => one === count).length;
      await judge('two daemons are asked for one address', place, {
        squatted: [],
        also: `one ${of(1)}, nobody ${of(0)}`,
      });
      assert.ok(of(0) <= Math.ceil(ROUNDS / 20), `nobody got it in ${of(0)} rounds`);
    }),
  );

  test('comes later, after the address was given out', async () => {
    const place = nextSubnet();
    const placeIPv6 = nextSubnet('IPv6');
    const networks = [await one.createNetwork(place), await one.createNetwork(placeIPv6)] as const;
    const containers = await inTurns(times(2 * ROUNDS), async (round) => {
      const container = await one.run(networks[round % 2 ? 1 : 0]);
      return {
        container,
        isDone: sleep(round % 4 < 2 ? 0 : Math.random() * LATER_MS).then(() => intrude(container, round)),
      };
    });
    const wanted = await Promise.all(containers.map(({ isDone }) => isDone));
    const unlisted = async () => {
      const listed = await one.plugin.conflicts();
      const isSame = (a: Claim, b: Claim) =>
        a.address === b.address && a.macAddress === b.macAddress && a.ourMacAddress === b.ourMacAddress;
      return wanted.filter((conflict) => !listed.some((other) => isSame(other, conflict)));
    };
    const missed = await lastOf(unlisted, 10_000);
    const shown = await one.plugin.command('leases');
    const unshown = wanted.filter(({ address }) => !new RegExp(`^${address} .*${STRANGER}`, 'm').test(shown));
    const heard = speakers(capture.frames());
    for (const { address } of wanted) assert.ok(heard.get(address)?.has(STRANGER), `${address} in the capture`);
    const listed = (await one.plugin.conflicts()).map(({ address }) => address);
    const alarms = listed.filter(
      (address) =>
        (place.isWithin(address) || placeIPv6.isWithin(address)) && !wanted.some((one) => one.address === address),
    );
    const also = `noticed ${wanted.length - missed.length} of ${wanted.length}, IPv4 and IPv6`;
    table['comes later'] = { rounds: wanted.length, duplicates: 0, 'false alarms': alarms.length, also };
    assert.deepEqual([missed, unshown, alarms], [[], [], []]);
  });

  /** Takes the address of a container: says so, or just begins to talk. */
  async function intrude({ namespace, address }: Container, round: number): Promise<Claim> {
    const own = parsed(address.split('/')[0] ?? '');
    const [link] = await namespace.show<{ address: string }>('link show eth0');
    if (own.family === 'IPv6') stranger.send(encodeNd(ndAnnouncement(own, STRANGER)));
    else if (round % 8 < 4) stranger.send(encodeArp(arpAnnouncement(own, STRANGER)));
    else stranger.send(encodeArp({ ...arpProbe(parsed('10.1.1.1'), STRANGER), senderAddress: own }));
    return { address: formatAddress(own), macAddress: STRANGER, ourMacAddress: link?.address ?? '' };
  }

  test('comes between the address and its container', async () => {
    const network = await one.createNetwork(nextSubnet());
    const typed = await one.requestAddress(network);
    const [address = ''] = typed.split('/');
    stranger.react = (packet) => {
      if (packet.protocol !== 'ARP' || packet.operation !== 'request') return;
      if (formatAddress(packet.targetAddress) === address) stranger.send(encodeArp(arpReply(packet, STRANGER)));
    };
    stranger.send(encodeArp(arpAnnouncement(parsed(address), STRANGER)));
    const isListed = async () =>
      (await one.plugin.conflicts()).some(
        (conflict) =>
          conflict.address === address && conflict.macAddress === STRANGER && conflict.ourMacAddress === null,
      );
    await until(isListed);
    const endpoint = { NetworkID: network.id, EndpointID: '5'.repeat(64), Interface: { Address: typed } };
    const words = await refusal(one.call('NetworkDriver.CreateEndpoint', endpoint));
    const sentence = `address ${address} was free when it was chosen, but is now used on the LAN by ${STRANGER}`;
    assert.ok(words.startsWith(sentence), words);
    await one.call('IpamDriver.ReleaseAddress', { PoolID: network.poolId, Address: address });
    // The stranger says nothing more.
    stranger.reset();
    await one.run(network, { address });
  });

  test('nobody is there', async () => {
    const place = nextSubnet();
    const network = await one.createNetwork(place);
    await inTurns(times(CLEAN), async (round) => {
      const container = await one.run(network);
      if (round % 10) await one.remove(container);
    });
    await judge('nobody is there', place, { rounds: CLEAN });
  });
});
