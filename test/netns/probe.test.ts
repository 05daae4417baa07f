/**
 * The probe on real links. The file's own network namespace is the host; `par` and `par2` have no address unless a test
 * gives them one. Neighbours say what each test has them say:
 *
 *     par ── veth ── ┐                ┌ ── veth ── squatter (scripted frames)
 *                    br0 (ns "lan")───┤
 *     par2 ─ veth ── br1 (ns "lan2")  └ ── veth ── machine  (a Linux kernel with addresses)
 *
 *     sib0: a macvlan child of par in namespace "sibling", made by somebody else
 *
 * Judged by what is answered, by a capture on the LAN, and by `ip`.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, parseAddress, parsePrefix } from '../../src/address.ts';
import { PluginError } from '../../src/errors.ts';
import { Links } from '../../src/kernel/link.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { MODES } from '../../src/model.ts';
import { mldReportFrame } from '../../src/lan/frames/mld.ts';
import { encodeNd, ndDefence, ndProbe, solicitedNodeGroup } from '../../src/lan/frames/nd.ts';
import { type ProbeRequest, Prober } from '../../src/lan/prober.ts';
import type { ProxyReport } from '../../src/lan/proxyarp.ts';
import type { LateConflict, Verdict } from '../../src/lan/verdict.ts';
import { isProbeMac } from '../../src/lan/frames/mac.ts';
import type { Packet } from '../../src/lan/frames/sighting.ts';
import { Capture } from '../lab/capture.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { inTime, undisturbed, until } from '../lab/patience.ts';

const timeout = 90_000;
const SQUATTER = '3c:22:fb:10:aa:01';
const MACHINE = '3c:22:fb:10:aa:02';
const CONTAINER = '02:42:0a:09:00:32';

interface KernelLink {
  ifname: string;
  ifalias?: string;
  promiscuity: number;
  allmulti: number;
  mtu: number;
  address: string;
  flags: string[];
}

const ip = (words: string) => output(['ip', ...words.split(' ')]);
const kernelLinks = async () => JSON.parse(await ip('-j -d link')) as KernelLink[];
const probeLinks = async () => (await kernelLinks()).filter(({ ifalias }) => ifalias === 'tsmacvlan probe');

/** The probe link of what was just asked, as soon as it is made ready. */
async function probeLinkSoon() {
  for (let waited = 0; waited < 1000; waited++) {
    const [link] = await probeLinks();
    if (link?.flags.includes('UP')) return link;
    await sleep(5);
  }
  return assert.fail('no probe link was made');
}

function address(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

/** A free address of its own for each test. */
let last = 50;
const next = () => address(`10.9.0.${++last}`);
const nextIPv6 = () => address(`fd00::${(++last).toString(16)}`);

describe('the probe on real links', { skip: outsideLab(), timeout: 500_000 }, () => {
  let lan: Lan;
  let lan2: Lan;
  let squatter: Neighbour;
  let machine: Neighbour;
  let links: Links;
  let prober: Prober;
  const late: LateConflict[] = [];
  const proxies: ProxyReport[] = [];

  before(async () => {
    lan = await Lan.create([], 'lan');
    lan2 = await Lan.create([], 'lan2');
    await plugHost(lan, 'par');
    await plugHost(lan2, 'par2');
    squatter = await Neighbour.plug(lan, 'squatter', SQUATTER);
    machine = await Neighbour.plug(lan, 'machine', MACHINE);
    links = Links.open();
    // The kernels' own IPv6 start-up noise.
    await sleep(2500);
    // The very first one compiles much, also in the kernel.
    prober = new Prober({ links });
    await probe(address('10.9.0.1'));
    await prober.close();
  });

  beforeEach(() => {
    prober = new Prober({ links, onLateConflict: (one) => late.push(one), onProxy: (one) => proxies.push(one) });
  });

  afterEach(async () => {
    await prober.close();
    squatter.reset();
    machine.reset();
    late.length = 0;
    proxies.length = 0;
  });

  after(() => {
    squatter.close();
    machine.close();
    links.close();
  });

  async function plugHost(to: Lan, name: string): Promise<void> {
    await ip(`link add ${name} type veth peer name port-${name} netns ${to.namespace.name}`);
    await to.namespace.ip(`link set port-${name} master br0 up`);
    await ip(`link set ${name} up`);
  }

  const request = (one: Address, more: Partial<ProbeRequest> = {}): ProbeRequest => ({
    parentName: 'par',
    mode: 'bridge',
    address: one,
    profile: 'fast',
    isOwn: (mac) => mac === CONTAINER,
    ...more,
  });
  const probe = (one: Address, more: Partial<ProbeRequest> = {}) => prober.probe(request(one, more));

  async function timed(finding: Promise<Verdict>): Promise<Verdict & { tookMs: number }> {
    const startedMs = performance.now();
    return { ...(await finding), tookMs: performance.now() - startedMs };
  }

  async function refusal(attempt: Promise<unknown>): Promise<PluginError & { tookMs: number }> {
    const startedMs = performance.now();
    try {
      await attempt;
    } catch (error) {
      assert.ok(error instanceof PluginError, error instanceof Error ? error.stack : String(error));
      return Object.assign(error, { tookMs: performance.now() - startedMs });
    }
    return assert.fail('was accepted');
  }

  const heldBy = (macAddress: string, simultaneous = false) => ({
    held: true,
    macAddress,
    linkName: 'par',
    simultaneous,
    isOnHost: false,
  });
  const heldOnHost = (macAddress: string) => ({ ...heldBy(macAddress), isOnHost: true });
  const asks = (packet: Packet, one: Address) =>
    packet.protocol === 'ARP'
      ? packet.targetAddress.value === one.value && packet.senderAddress.value === 0n
      : packet.protocol === 'NS' && packet.target.value === one.value;
  const reply = (packet: Packet, mac: string) =>
    packet.protocol === 'ARP' ? encodeArp(arpReply(packet, mac)) : encodeNd(ndDefence(packet.target, mac));

  /** Sends once, this long after the first probe for the address, or another one. */
  function reactOnce(to: Address, afterMs: number, frame: (packet: Packet) => Buffer, probeNumber = 1): void {
    let asked = 0;
    squatter.react = (packet) => {
      if (!asks(packet, to) || ++asked !== probeNumber) return;
      setTimeout(() => squatter.send(frame(packet)), afterMs);
    };
  }

  /** The MAC addresses of those that spoke since, once so many did and time for more is over. */
  async function heardFrom(count: number): Promise<string[]> {
    await until(() => squatter.heard.length >= count);
    await sleep(100);
    return squatter.heard.map(({ packet }) => packet.sourceMac);
  }

  for (const [family, free] of [
    ['IPv4', next],
    ['IPv6', nextIPv6],
  ] as const) {
    test(`a free ${family} address is found free in well under a second`, { timeout }, async () => {
      const times = [];
      for (let round = 0; round < 3; round++) {
        const { held, tookMs } = await timed(probe(free()));
        assert.equal(held, false);
        times.push(tookMs);
      }
      // A busy machine may be late, but not each time.
      assert.ok(Math.min(...times) > 589 && Math.min(...times) < 1000, `${times.join(' ')} ms`);
    });

    test(`an ${family} address of a Linux host is held, at once`, { timeout }, async () => {
      const used = free();
      await machine.namespace.ip(`address add ${formatAddress(used)}/24 dev lan0 nodad`);
      await probe(free());
      await inTime(150, async () => assert.deepEqual(await probe(used), heldBy(MACHINE)));
    });

    test(`a squatter that answers half a window late holds the ${family} address`, { timeout }, async () => {
      const used = free();
      reactOnce(used, 330, (packet) => reply(packet, SQUATTER));
      assert.deepEqual(await probe(used), heldBy(SQUATTER));
    });

    test(`a squatter that answers only after the last probe holds the ${family} address`, { timeout }, async () => {
      const used = free();
      reactOnce(used, 100, (packet) => reply(packet, SQUATTER), 3);
      assert.deepEqual(await probe(used), heldBy(SQUATTER));
    });

    test(`a stranger that probes for the same ${family} address at the same time makes us give up`, {
      timeout,
    }, async () => {
      const wanted = free();
      const ask =
        family === 'IPv4' ? encodeArp(arpProbe(wanted, SQUATTER)) : encodeNd(ndProbe(wanted, SQUATTER, 'abcdefabcdef'));
      reactOnce(wanted, 100, () => ask);
      assert.deepEqual(await probe(wanted), heldBy(SQUATTER, true));
    });

    for (const siblingMode of ['bridge', 'private', 'vepa']) {
      test(`a sibling in mode ${siblingMode} that somebody else made holds its ${family} address`, {
        timeout,
      }, async () => {
        const used = free();
        const sibling = await addSibling(siblingMode, used);
        for (const mode of MODES) assert.deepEqual(await probe(used, { mode }), heldOnHost(sibling.macAddress), mode);
        assert.deepEqual(await probe(used, { isOwn: (mac) => mac === sibling.macAddress }), { held: false });
        await sibling.remove();
      });
    }

    test(`a private sibling that took the ${family} address since is found at the last question`, {
      timeout,
    }, async () => {
      const used = free();
      assert.deepEqual(await probe(used), { held: false });
      const sibling = await addSibling('private', used);
      assert.deepEqual(await prober.confirm(request(used)), { held: false });
      assert.deepEqual(await prober.confirm(request(used), CONTAINER), heldOnHost(sibling.macAddress));
      assert.deepEqual(await prober.confirm(request(used), sibling.macAddress), { held: false });
      await sibling.remove();
    });

    test(`a sibling made right in a namespace without a number answers our probe (${family})`, {
      timeout,
    }, async () => {
      const used = free();
      const sibling = await addSibling('bridge', used, true);
      assert.deepEqual(await probe(used), heldBy(sibling.macAddress));
      await sibling.remove();
    });

    test(`the host's own ${family} address on the parent is held by the parent`, { timeout }, async () => {
      const used = free();
      await ip(`address add ${formatAddress(used)}/24 dev par nodad`);
      const parent = (await kernelLinks()).find(({ ifname }) => ifname === 'par');
      assert.deepEqual(await probe(used), heldOnHost(parent?.address ?? ''));
      await ip(`address delete ${formatAddress(used)}/24 dev par`);
    });

    test(`a parent that was renamed since the last probe has its new name in the answer (${family})`, {
      timeout,
    }, async (context) => {
      const used = free();
      const guarded = free();
      assert.deepEqual(await probe(guarded), { held: false });
      const isRenamed = await ip('link set par name par9').then(
        () => true,
        () => false,
      );
      if (!isRenamed) return context.skip('Linux before 6.2 renames no link that is up');
      try {
        reactOnce(used, 0, (packet) => reply(packet, SQUATTER));
        assert.deepEqual(await probe(used, { parentName: 'par9' }), { ...heldBy(SQUATTER), linkName: 'par9' });
      } finally {
        await ip('link set par9 name par');
      }
    });

    test(`in mode passthru a squatter is found from the parent itself (${family})`, { timeout }, async () => {
      const used = free();
      reactOnce(used, 0, (packet) => reply(packet, SQUATTER));
      const asked = probe(used, { mode: 'passthru' });
      await sleep(20);
      assert.deepEqual(await probeLinks(), []);
      assert.deepEqual(await asked, heldBy(SQUATTER));
    });

    test(`a free ${family} address is defended until its container can speak for itself`, { timeout }, async () => {
      const wanted = free();
      assert.equal((await probe(wanted)).held, false);
      const [link] = await probeLinks();
      squatter.heard.length = 0;
      squatter.send(
        family === 'IPv4' ? encodeArp(arpProbe(wanted, SQUATTER)) : encodeNd(ndProbe(wanted, SQUATTER, 'abcdefabcdef')),
      );
      assert.deepEqual(await heardFrom(1), [link?.address]);
      prober.release({ parentName: 'par', address: wanted });
      squatter.heard.length = 0;
      squatter.send(
        family === 'IPv4' ? encodeArp(arpProbe(wanted, SQUATTER)) : encodeNd(ndProbe(wanted, SQUATTER, 'abcdefabcdef')),
      );
      await sleep(100);
      assert.deepEqual(squatter.heard, []);
    });
  }

  async function addSibling(mode: string, one: Address, isMadeThere = false) {
    const namespace = await Namespace.create('sibling');
    await ip(`link add sib0 link par ${isMadeThere ? 'netns sibling ' : ''}type macvlan mode ${mode}`);
    if (!isMadeThere) await ip('link set sib0 netns sibling');
    await namespace.ip('link set sib0 up');
    await namespace.ip(`address add ${formatAddress(one)}/24 dev sib0 nodad`);
    const [link] = await namespace.show<KernelLink>('link show sib0');
    const remove = async () => {
      await namespace.ip('link delete sib0');
      await namespace.delete();
    };
    return { namespace, macAddress: link?.address ?? '', remove };
  }

  test('on the LAN a probe is three ARP probes and nothing else', { timeout }, async () => {
    const capture = await Capture.start(lan.namespace, 'br0');
    const wanted = next();
    await probe(wanted);
    const ours = (await capture.stop()).filter(({ sourceMac }) => isProbeMac(sourceMac));
    const expected = {
      operation: 'request',
      senderMac: ours[0]?.sourceMac,
      senderAddress: '0.0.0.0',
      targetAddress: formatAddress(wanted),
    };
    assert.deepEqual(
      ours.map(({ arp }) => arp),
      [expected, expected, expected],
    );
  });

  test('a squatter known only by its gratuitous ARP holds the address', { timeout }, async () => {
    const used = next();
    reactOnce(used, 250, () => encodeArp(arpAnnouncement(used, SQUATTER)));
    assert.deepEqual(await probe(used), heldBy(SQUATTER));
  });

  test('when a kernel adds the same IPv6 address at the same time, at most one of the two gets it', {
    timeout,
  }, async () => {
    const add = async (afterMs: number) => {
      const wanted = nextIPv6();
      const shown = (words: string) => machine.namespace.ip(`-6 address show ${words} to ${formatAddress(wanted)}`);
      const asked = probe(wanted);
      await sleep(afterMs);
      await machine.namespace.ip(`address add ${formatAddress(wanted)}/64 dev lan0`);
      const { held } = await asked;
      // Detection begins within a second (rtr_solicit_delay) and takes one more; one that failed stays tentative.
      await until(async () => (await shown('tentative')) === '' || (await shown('dadfailed')) !== '');
      assert.ok(held || (await shown('dadfailed')) !== '', `after ${afterMs} ms`);
    };
    // The kernel takes what nobody defends within a second.
    for (const afterMs of [0, 150, 300, 450, 600]) await undisturbed(500, () => add(afterMs));
  });

  test('a switch that forwards groups only where they were asked for lets us hear who else probes', {
    timeout,
  }, async (t) => {
    const wanted = nextIPv6();
    const rival = await Neighbour.plug(lan2, 'rival', '3c:22:fb:10:aa:03');
    t.after(() => rival.close());
    await lan2.namespace.ip('link set br0 type bridge mcast_query_response_interval 100');
    await lan2.namespace.ip('link set br0 type bridge mcast_snooping 1 mcast_querier 1');
    // The bridge starts to trust what was reported when its first question is that old.
    await sleep(2500);
    // From now on the bridge sends the group's frames only to those who reported it.
    rival.send(mldReportFrame(solicitedNodeGroup(wanted), rival.macAddress));
    const asked = probe(wanted, { parentName: 'par2' });
    await until(() => rival.heard.some(({ packet }) => asks(packet, wanted)));
    rival.send(encodeNd(ndProbe(wanted, rival.macAddress, 'abcdefabcdef')));
    assert.deepEqual(await asked, { ...heldBy(rival.macAddress, true), linkName: 'par2' });
    await lan2.namespace.ip('link set br0 type bridge mcast_snooping 0');
  });

  test("the host's address on another interface is held, on the parent's LAN too", { timeout }, async () => {
    const used = next();
    await ip(`address add ${formatAddress(used)}/24 dev par2`);
    const other = (await kernelLinks()).find(({ ifname }) => ifname === 'par2');
    assert.deepEqual(await probe(used), { ...heldOnHost(other?.address ?? ''), linkName: 'par2' });
    await ip(`address delete ${formatAddress(used)}/24 dev par2`);
  });

  test('several parents are asked at once, each on its own LAN', { timeout }, async () => {
    const wanted = next();
    reactOnce(wanted, 0, (packet) => reply(packet, SQUATTER));
    const findings = await Promise.all([probe(wanted), probe(wanted, { parentName: 'par2' })]);
    assert.deepEqual(findings, [heldBy(SQUATTER), { held: false }]);
  });

  test('the parent is left as it was: no link, no promiscuity, no group', { timeout }, async () => {
    const state = async () =>
      (await kernelLinks()).map(({ ifname, promiscuity, allmulti, flags }) => ({
        ifname,
        promiscuity,
        allmulti,
        flags,
      }));
    const groups = () => ip('maddress show dev par');
    const before = [await state(), await groups()];
    const asked = Promise.all([probe(next()), probe(nextIPv6()), probe(nextIPv6(), { mode: 'passthru' })]);
    await probeLinkSoon();
    assert.equal((await probeLinks()).length, 1);
    await asked;
    await prober.close();
    assert.deepEqual([await state(), await groups()], before);
  });

  test('the port closes by itself when nobody has asked for two seconds', { timeout }, async () => {
    // A look that came too late says nothing.
    await inTime(
      1900,
      async () => {
        const beginMs = performance.now();
        await sleep(1500);
        const found = await probeLinks();
        if (performance.now() - beginMs < 1900) assert.equal(found.length, 1);
      },
      async () => void (await probe(next(), { guardMs: 0 })),
    );
    await until(async () => (await probeLinks()).length === 0);
  });

  test("the probe link has no IPv6 and does not answer for the host's addresses", { timeout }, async () => {
    await ip('address add 10.9.0.40/24 dev par');
    const asked = probe(next());
    const link = await probeLinkSoon();
    assert.ok(link.flags.includes('NOARP'));
    assert.ok(!readdirSync('/proc/sys/net/ipv6/conf').includes(link.ifname));
    machine.heard.length = 0;
    machine.send(encodeArp(arpProbe(address('10.9.0.40'), MACHINE)));
    await asked;
    const answers = machine.heard.filter(({ packet }) => packet.protocol === 'ARP' && packet.operation === 'reply');
    assert.equal(answers.length, 1);
    assert.notEqual(answers[0]?.packet.sourceMac, link.address);
    await ip('address delete 10.9.0.40/24 dev par');
  });

  test('our own container, and a child of ours in passthru mode afterwards, do not suffer', { timeout }, async () => {
    const wanted = next();
    const asked = probe(wanted);
    await sleep(50);
    squatter.send(encodeArp(arpAnnouncement(wanted, CONTAINER)));
    assert.equal((await asked).held, false);
    await probe(next(), { parentName: 'par2', mode: 'passthru' });
    await ip('link add pass0 link par2 type macvlan mode passthru');
    assert.equal(
      (await probe(next(), { parentName: 'par2' })).held,
      false,
      'beside a passthru child the parent is asked',
    );
    await ip('link delete pass0');
  });

  test('a parent that is vacated has room for a child in passthru mode', { timeout }, async () => {
    await probe(next(), { parentName: 'par2' });
    await assert.rejects(ip('link add pass0 link par2 type macvlan mode passthru'), /Invalid argument/);
    await prober.vacate('par2');
    await ip('link add pass0 link par2 type macvlan mode passthru');
    await ip('link delete pass0');
  });

  test('who takes a guarded address is reported', { timeout }, async () => {
    const wanted = next();
    await probe(wanted);
    squatter.send(encodeArp(arpAnnouncement(wanted, CONTAINER)));
    squatter.send(encodeArp(arpAnnouncement(wanted, SQUATTER)));
    squatter.send(encodeArp(arpAnnouncement(wanted, SQUATTER)));
    await until(() => late.length > 0);
    await sleep(100);
    assert.deepEqual(late, [{ parentName: 'par', address: wanted, macAddress: SQUATTER }]);
  });

  test('a router that answers for every address is named once and blocks nothing', { timeout }, async () => {
    const subnet = parsePrefix('10.9.0.0/24');
    const [used, ...wanted] = [next(), next(), next()];
    await machine.namespace.ip(`address add ${formatAddress(used)}/24 dev lan0`);
    squatter.react = (packet) => {
      if (packet.protocol === 'ARP' && packet.operation === 'request') squatter.send(reply(packet, SQUATTER));
    };
    const findings = await Promise.all([used, ...wanted].map((one) => probe(one, { subnet })));
    assert.deepEqual(findings, [heldBy(MACHINE), { held: false }, { held: false }]);
    assert.deepEqual(proxies, [{ parentName: 'par', macAddress: SQUATTER }]);
    assert.deepEqual(late, []);
  });

  test('a router that answers for every IPv6 address is named too', { timeout }, async () => {
    squatter.react = (packet) => {
      if (packet.protocol === 'NS') squatter.send(reply(packet, SQUATTER));
    };
    assert.equal((await probe(nextIPv6(), { subnet: parsePrefix('fd00::/64') })).held, false);
    assert.deepEqual(proxies, [{ parentName: 'par', macAddress: SQUATTER }]);
  });

  test('a forged answer for the network address makes no proxy of a holder, at any time', { timeout }, async () => {
    const subnet = parsePrefix('10.9.0.0/24');
    const [before, meanwhile] = [next(), next()];
    for (const one of [before, meanwhile]) await machine.namespace.ip(`address add ${formatAddress(one)}/24 dev lan0`);
    // The printer is said to have 10.9.0.0, and every address that is meant for documentation.
    const forge = () => {
      squatter.send(forged('10.9.0.0'));
      squatter.send(forged(`192.0.2.${Math.floor(Math.random() * 256)}`));
    };
    const forged = (text: string) =>
      encodeArp({
        ...arpReply(arpProbe(address(text), SQUATTER), MACHINE),
        sourceMac: SQUATTER,
        destinationMac: 'ff:ff:ff:ff:ff:ff',
      });
    forge();
    await sleep(50);
    assert.deepEqual(await probe(before, { subnet }), heldBy(MACHINE));
    await sleep(5100);
    const timer = setInterval(forge, 5);
    try {
      assert.deepEqual(await probe(meanwhile, { subnet }), heldBy(MACHINE));
    } finally {
      clearInterval(timer);
    }
    assert.deepEqual(proxies, []);
  });

  test('many held addresses of one host cost one judgement, and are held at once', { timeout }, async () => {
    const subnet = parsePrefix('10.9.0.0/24');
    const used = Array.from({ length: 20 }, next);
    for (const one of used) await machine.namespace.ip(`address add ${formatAddress(one)}/24 dev lan0`);
    await probe(next(), { subnet });
    machine.heard.length = 0;
    await inTime(300, async () =>
      assert.deepEqual(
        await Promise.all(used.map((one) => probe(one, { subnet }))),
        used.map(() => heldBy(MACHINE)),
      ),
    );
    const questions = machine.heard.filter(({ packet }) => packet.destinationMac === MACHINE);
    assert.ok(questions.length <= 10, `${questions.length} questions`);
    for (const one of used) await machine.namespace.ip(`address delete ${formatAddress(one)}/24 dev lan0`);
  });

  for (const [family, free, subnet] of [
    ['IPv4', next, parsePrefix('10.9.0.0/24')],
    ['IPv6', nextIPv6, parsePrefix('fd00::/64')],
  ] as const) {
    test(`a Linux host is soon known to answer for its own ${family} address only`, { timeout }, async () => {
      let used = free();
      // Less than the whole wait of 60 ms, on a machine that is not busy.
      await inTime(
        150,
        async () => assert.deepEqual(await probe(used, { subnet }), heldBy(MACHINE)),
        async () => {
          used = free();
          await machine.namespace.ip(`address add ${formatAddress(used)}/24 dev lan0 nodad`);
          await probe(free(), { subnet });
        },
      );
    });
  }

  test('a Linux router with proxy ARP answers no probe', { timeout }, async () => {
    const settings = ['ip_forward=1', 'conf/lan0/proxy_arp=1', 'conf/lan0/proxy_arp_pvlan=1'];
    for (const setting of settings) await machine.namespace.run(['sysctl', '-qw', `net/ipv4/${setting}`]);
    await machine.namespace.ip('address add 10.9.0.43/24 dev lan0');
    assert.equal((await probe(next(), { subnet: parsePrefix('10.9.0.0/24') })).held, false);
    assert.deepEqual(await probe(address('10.9.0.43'), { subnet: parsePrefix('10.9.0.0/24') }), heldBy(MACHINE));
    for (const setting of settings) await machine.namespace.run(['sysctl', '-qw', `net/ipv4/${setting.slice(0, -1)}0`]);
    await machine.namespace.ip('address delete 10.9.0.43/24 dev lan0');
  });

  test('frames of other VLANs that reach the parent say nothing about this LAN', { timeout }, async () => {
    const wanted = next();
    reactOnce(wanted, 50, (packet) => {
      const bare = reply(packet, SQUATTER);
      return Buffer.concat([bare.subarray(0, 12), Buffer.from('81000014', 'hex'), bare.subarray(12)]);
    });
    assert.equal((await probe(wanted)).held, false);
  });

  test('broken and spoofed frames are no conflict and do no harm', { timeout }, async () => {
    const wanted = next();
    const whole = encodeArp(arpAnnouncement(wanted, SQUATTER));
    let sent = 0;
    squatter.react = (packet) => {
      if (!asks(packet, wanted)) return;
      for (let length = 15; length < 42; length++, sent++) squatter.send(whole.subarray(0, length));
      for (let at = 14; at < 20; at++, sent++) {
        const odd = Buffer.from(whole);
        odd.writeUInt8(odd.readUInt8(at) ^ 0xff, at);
        squatter.send(odd);
      }
      squatter.send(encodeArp({ ...arpAnnouncement(wanted, '00:00:00:00:00:00'), sourceMac: '00:00:00:00:00:00' }));
    };
    assert.equal((await probe(wanted)).held, false);
    assert.ok(sent > 90);
  });

  test('a parent without carrier delays nothing', { timeout }, async () => {
    await lan2.namespace.ip('link set port-par2 down');
    await inTime(1000, async () => assert.equal((await probe(next(), { parentName: 'par2' })).held, false));
    await lan2.namespace.ip('link set port-par2 up');
  });

  test('a parent that does not exist, is down or is no Ethernet link is refused at once', { timeout }, async () => {
    await ip('link add gone0 type veth peer name gone1');
    const sentences = {
      nosuch0:
        'cannot check address 10.9.0.7 on the LAN, because parent interface "nosuch0" is not on this host; bring it back and try again',
      gone0:
        'cannot check address 10.9.0.7 on the LAN, because parent interface "gone0" is down; set it up with "ip link set gone0 up" and try again',
      lo: 'parent "lo" is not an Ethernet interface; give an Ethernet interface with -o parent=',
    };
    for (const [parentName, sentence] of Object.entries(sentences)) {
      await inTime(100, async () =>
        assert.equal((await refusal(probe(address('10.9.0.7'), { parentName }))).message, sentence),
      );
    }
    await ip('link delete gone0');
  });

  for (const [what, mode, words, code] of [
    ['is deleted', 'bridge', 'link delete gone0', 'PROBE_PARENT_GONE'],
    ['is deleted', 'passthru', 'link delete gone0', 'PROBE_PARENT_GONE'],
    ['goes down', 'bridge', 'link set gone0 down', 'PROBE_PARENT_DOWN'],
    ['goes down', 'passthru', 'link set gone0 down', 'PROBE_PARENT_DOWN'],
  ] as const) {
    test(`a parent that ${what} during the probe ends it in time (${mode})`, { timeout }, async () => {
      const openFiles = () => readdirSync('/proc/self/fd').length;
      const files = openFiles();
      const endsInTime = async () => {
        await ip('link delete gone0').catch(() => undefined);
        await ip('link add gone0 type veth peer name gone1');
        await ip('link set gone0 up');
        await ip('link set gone1 up');
        const beginMs = performance.now();
        const refused = refusal(probe(next(), { parentName: 'gone0', mode }));
        refused.catch(() => undefined);
        await sleep(200);
        await ip(words);
        // A busy machine may be so late that nothing is left to end.
        if (performance.now() - beginMs > 500) return refused.then(() => false).catch(() => false);
        const { code: got, tookMs } = await refused;
        assert.equal(got, code);
        return tookMs < 1000;
      };
      let isInTime = false;
      for (let tries = 0; tries < 5 && !isInTime; tries++) isInTime = await endsInTime();
      assert.ok(isInTime);
      await prober.close();
      await ip('link delete gone0').catch(() => undefined);
      assert.deepEqual(await probeLinks(), []);
      // Fewer, when what an earlier test closed was still going.
      await until(() => openFiles() <= files);
    });
  }

  test('a parent that comes back is asked anew', { timeout }, async () => {
    await ip('link add gone0 type veth peer name gone1');
    await ip('link set gone0 up');
    await ip('link set gone1 up');
    const refused = refusal(probe(next(), { parentName: 'gone0', profile: 'rfc' }));
    await sleep(100);
    await ip('link delete gone0');
    await refused;
    await ip('link add gone0 type veth peer name gone1');
    await ip('link set gone0 up');
    await ip('link set gone1 up');
    assert.deepEqual(await probe(next(), { parentName: 'gone0' }), { held: false });
    await prober.close();
    await ip('link delete gone0');
  });

  test('an aborted probe ends with the reason, and a stopping daemon with a sentence', { timeout }, async () => {
    const cause = new Error('enough');
    const signal = AbortSignal.abort(cause);
    await assert.rejects(probe(next(), { signal }), cause);
    const controller = new AbortController();
    const asked = probe(next(), { signal: controller.signal, profile: 'rfc' });
    setTimeout(() => controller.abort(cause), 50);
    await assert.rejects(asked, cause);
    // Also one that has not got as far as its link.
    for (const afterMs of [0, 2, 50]) {
      const stopped = refusal(probe(next(), { profile: 'rfc' }));
      await sleep(afterMs);
      await prober.close();
      assert.equal((await stopped).code, 'PROBE_STOPPED', `after ${afterMs} ms`);
    }
    assert.deepEqual(await probeLinks(), []);
  });

  test("what a killed process left is known by its alias and is in nobody's way", { timeout }, async () => {
    const script = `
      import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
      import { Prober } from ${JSON.stringify(import.meta.resolve('../../src/lan/prober.ts'))};
      const prober = new Prober({ links: Links.open() });
      await prober.probe({ parentName: 'par', mode: 'bridge', address: { family: 'IPv4', value: 1n }, profile: 'rfc', isOwn: () => false });`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const left = await probeLinkSoon();
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal((await probe(next())).held, false);
    await prober.close();
    assert.deepEqual(
      (await probeLinks()).map(({ ifname }) => ifname),
      [left.ifname],
    );
    await ip(`link delete ${left.ifname}`);
  });

  test('an announcement reaches neighbours, siblings and the switch', { timeout }, async () => {
    const [moved, movedIPv6] = [next(), nextIPv6()];
    const sibling = await addSibling('bridge', address('10.9.0.41'));
    await sibling.namespace.ip('address add fd00::41/64 dev sib0 nodad');
    await machine.namespace.ip('address add 10.9.0.42/24 dev lan0');
    await machine.namespace.ip('address add fd00::42/64 dev lan0 nodad');
    for (const [namespace, link] of [
      [machine.namespace, 'lan0'],
      [sibling.namespace, 'sib0'],
    ] as const) {
      for (const one of [moved, movedIPv6]) {
        await namespace.ip(`neighbour replace ${formatAddress(one)} lladdr ${SQUATTER} dev ${link} nud stale`);
      }
    }
    await Promise.all(
      [moved, movedIPv6].map((one) =>
        prober.announce({ parentName: 'par', mode: 'bridge', address: one, macAddress: CONTAINER }),
      ),
    );
    const knows = async (namespace: Namespace, one: Address) => {
      const known = await namespace.show<{ dst: string; lladdr: string }>('neighbour');
      return known.find(({ dst }) => dst === formatAddress(one))?.lladdr === CONTAINER;
    };
    for (const namespace of [machine.namespace, sibling.namespace]) {
      for (const one of [moved, movedIPv6]) await until(() => knows(namespace, one));
    }
    const learnt = await lan.namespace.run(['bridge', '-j', 'fdb', 'show', 'br', 'br0']);
    const entries = JSON.parse(learnt.stdout) as { mac: string; ifname: string }[];
    assert.equal(entries.find(({ mac }) => mac === CONTAINER)?.ifname, 'port-par');
    await sibling.remove();
  });
});
