/**
 * What is known of a LAN is void when its cable was out, and the addresses in use are asked for again when it is back. Real
 * links and a switch with spanning tree, whose times are shortened:
 *
 *     host: tsmacvlan, containers ── lan0 ── port ── br0 (ns "lan") ── machine (a Linux kernel with addresses)
 */
import assert from 'node:assert/strict';
import { type TestContext, after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, parseAddress } from '../../src/address.ts';
import { type Link, type LinkEvent, Links } from '../../src/kernel/link.ts';
import { isProbeMac } from '../../src/lan/frames/mac.ts';
import { Carrier, type CarrierParts } from '../../src/lan/carrier.ts';
import { Interruptions } from '../../src/lan/interruptions.ts';
import { Capture } from '../lab/capture.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type FakeNetwork, Refusal, Understudy } from '../lab/understudy.ts';

const timeout = 60_000;
const ip = (words: string) => output(['ip', ...words.split(' ')]);

describe('the carrier of a parent', { skip: outsideLab(), timeout: 120_000 }, () => {
  let links: Links;
  let carrier: Carrier;
  const told: string[] = [];

  before(async () => {
    await Namespace.create('wire');
    links = Links.open();
  });

  beforeEach(async () => {
    await ip('link add par type veth peer name plug netns wire');
    await ip('-n wire link set plug up');
    await ip('link set par up');
    await follow('par');
  });

  afterEach(async () => {
    carrier.close();
    await ip('link delete par').catch(() => undefined);
  });

  after(() => links.close());

  /** Once what the kernel told of the making of the links is told, and the carrier has read them. */
  async function follow(name: string, uptimeS = 3600, seen: CarrierParts['links'] = links): Promise<void> {
    await sleep(100);
    told.length = 0;
    let reads = 0;
    carrier = new Carrier({
      links: {
        byName: (wanted) => seen.byName(wanted).finally(() => reads++),
        byIndex: (index) => seen.byIndex(index),
        list: (keep) => seen.list(keep),
        onChange: (listener) => seen.onChange(listener),
      },
      uptimeS: () => uptimeS,
      onLost: () => told.push('lost'),
      onBack: (_name, isNewCable) => told.push(isNewCable ? 'cable back' : 'back'),
    });
    carrier.follow(name);
    await until(() => reads > 0);
    await sleep(100);
    if (uptimeS > 90) told.length = 0;
  }

  /** What was told, once that much is told, and nothing follows. */
  async function news(count: number): Promise<string[]> {
    await until(() => told.length >= count);
    await sleep(200);
    return told.splice(0);
  }

  test('a cable that is out and in again', { timeout }, async () => {
    const era = carrier.era('par');
    await ip('-n wire link set plug down');
    assert.deepEqual(await news(1), ['lost']);
    assert.ok(carrier.isAway('par'));
    await ip('-n wire link set plug up');
    assert.deepEqual(await news(1), ['cable back']);
    assert.ok(!carrier.isAway('par'));
    assert.notEqual(carrier.era('par'), era);
  });

  test('a cable that is out for less time than the kernel needs to tell of it', { timeout }, async () => {
    const flap = 'for n in 1 2 3 4 5; do ip link set plug down; ip link set plug up; done';
    await output(['nsenter', '--net=/run/netns/wire', 'sh', '-c', flap]);
    const words = await news(2);
    assert.deepEqual(words.slice(-2), ['lost', 'cable back']);
  });

  test('a parent that is set down and up', { timeout }, async () => {
    await ip('link set par down');
    assert.deepEqual(await news(1), ['lost']);
    await ip('link set par up');
    assert.deepEqual(await news(1), ['cable back']);
  });

  test('a cable that came in while the links were read is back once, whatever was read before', {
    timeout,
  }, async () => {
    carrier.close();
    let tell: (event: LinkEvent) => void = () => undefined;
    const held = Promise.withResolvers<void>();
    let isHeld = false;
    await follow('par', 3600, {
      byName: async (name) => {
        const link = await links.byName(name);
        if (isHeld) await held.promise;
        return link;
      },
      byIndex: (index) => links.byIndex(index),
      list: (keep) => links.list(keep),
      onChange: (listener) => links.onChange((tell = listener)),
    });
    await ip('-n wire link set plug down');
    assert.deepEqual(await news(1), ['lost']);
    isHeld = true;
    tell({ type: 'overflow' });
    await sleep(100);
    await ip('-n wire link set plug up');
    await until(() => told.length > 0);
    held.resolve();
    assert.deepEqual(await news(1), ['cable back']);
  });

  test('a cable that was in when the host booted, a moment ago', { timeout }, async () => {
    carrier.close();
    await follow('par', 20);
    assert.deepEqual(await news(0), [], 'behind a virtual link is no switch with spanning tree');
    carrier.close();
    // No namespace of a test has a NIC: the link is shown as one.
    const asNic = async (link: Promise<Link | undefined>) => {
      const found = await link;
      return found && { ...found, kind: null };
    };
    await follow('par', 20, {
      byName: (name) => asNic(links.byName(name)),
      byIndex: (index) => asNic(links.byIndex(index)),
      list: (keep) => links.list(keep),
      onChange: (listener) => links.onChange(listener),
    });
    assert.deepEqual(await news(1), ['cable back']);
  });

  test('a parent that is made again under its name', { timeout }, async () => {
    await ip('link delete par');
    assert.deepEqual(await news(1), ['lost']);
    await ip('link add par type veth peer name plug netns wire');
    await ip('link set par up');
    await ip('-n wire link set plug up');
    assert.deepEqual(await news(1), ['cable back']);
  });

  test('a parent that is renamed and gets its name back', { timeout }, async () => {
    await ip('link set par down');
    await ip('link set par name other');
    assert.deepEqual(await news(1), ['lost']);
    await ip('link set other up');
    await ip('link set other down');
    await ip('link set other name par');
    await ip('link set par up');
    assert.deepEqual((await news(1)).at(-1), 'cable back');
  });

  /** Undefined, and the test skipped, when the kernel has no VLANs. */
  async function addVlan(t: TestContext, ...options: string[]): Promise<boolean> {
    try {
      await output(['ip', 'link', 'add', 'par.7', 'link', 'par', 'type', 'vlan', 'id', '7', ...options]);
    } catch (error) {
      t.skip(`this kernel cannot: ${(error as Error).message}`);
      return false;
    }
    await ip('link set par.7 up');
    carrier.close();
    await follow('par.7');
    return true;
  }

  test('a parent that is known by an alternative name, which it loses and which another link gets', {
    timeout,
  }, async () => {
    carrier.close();
    await ip('link property add dev par altname uplink');
    await follow('uplink');
    await ip('link property del dev par altname uplink');
    assert.deepEqual(await news(1), ['lost']);
    await ip('link property add dev par altname uplink');
    assert.deepEqual(await news(1), ['cable back']);
    await ip('link set par down');
    assert.deepEqual(await news(1), ['lost']);
    // Of a link that is down the kernel tells no names.
    await ip('link property del dev par altname uplink');
    await ip('link set par up');
    await sleep(500);
    assert.deepEqual(told, []);
    assert.ok(carrier.isAway('uplink'));
    await ip('link add par2 type veth peer name plug2 netns wire');
    await ip('-n wire link set plug2 up');
    await ip('link property add dev par2 altname uplink');
    await ip('link set par2 up');
    await news(1);
    assert.ok(!carrier.isAway('uplink'));
    await ip('link delete par2');
  });

  test('a VLAN whose base has its cable out', { timeout }, async (t) => {
    if (!(await addVlan(t))) return;
    await ip('-n wire link set plug down');
    assert.deepEqual(await news(1), ['lost']);
    await ip('-n wire link set plug up');
    assert.deepEqual(await news(1), ['cable back']);
  });

  test('a VLAN with loose binding, which stays up when its base goes down', { timeout }, async (t) => {
    if (!(await addVlan(t, 'loose_binding', 'on'))) return;
    await ip('link set par down');
    assert.deepEqual((await news(1))[0], 'lost');
    assert.ok(carrier.isAway('par.7'));
    await ip('link set par up');
    assert.deepEqual((await news(1)).at(-1), 'cable back');
  });

  test('a VLAN that is made again while the cable stays in', { timeout }, async (t) => {
    if (!(await addVlan(t))) return;
    await ip('link delete par.7');
    assert.deepEqual(await news(1), ['lost']);
    await ip('link add par.7 link par type vlan id 7');
    await ip('link set par.7 up');
    assert.deepEqual(await news(1), ['back']);
  });

  test('whatever else happens to the parent, or on it, is no news', { timeout }, async () => {
    await ip('link set par alias uplink');
    await ip('link set par mtu 1400');
    await ip('link set par promisc on');
    for (let count = 0; count < 3; count++) {
      await ip('link add box0 link par type macvlan mode bridge');
      await ip('link set box0 up');
      await ip('link delete box0');
    }
    await ip('address add 10.1.1.1/24 dev par');
    await sleep(300);
    assert.deepEqual(told, []);
    carrier.wake();
    assert.deepEqual(await news(2), ['lost', 'back'], 'the host slept');
  });

  test('a port of a bridge, whose own carrier stays', { timeout }, async () => {
    await ip('link add br7 type bridge');
    await ip('link add guest type veth peer name guest0 netns wire');
    await ip('-n wire link set guest0 up');
    await ip('link set guest master br7 up');
    await ip('link set par master br7');
    await ip('link set br7 up');
    await sleep(500);
    carrier.close();
    await follow('br7');
    await ip('-n wire link set plug down');
    await sleep(1200);
    assert.deepEqual(told, []);
    assert.ok(!carrier.isAway('br7'));
    await ip('-n wire link set plug up');
    assert.deepEqual(await news(2), ['lost', 'back']);
    await ip('link add other type veth peer name other0 netns wire');
    await ip('link set other master br7 up');
    await ip('-n wire link set other0 up');
    await sleep(500);
    assert.deepEqual(told, [], 'a machine that was switched on was no part of the LAN before');
    await ip('link delete other');
    assert.deepEqual(told, []);
    await ip('link delete br7');
    assert.deepEqual((await news(1)).at(-1), 'lost');
    await ip('link delete guest');
  });
});

test('a host that slept asks again for what is in use, and nothing stays on standby', {
  skip: outsideLab(),
  timeout,
}, async () => {
  await ip('link add par type veth peer name plug');
  await ip('link set plug up');
  await ip('link set par up');
  const links = Links.open();
  const told: string[] = [];
  let sleptMs = 0;
  const interruptions = new Interruptions({
    links,
    log: { warn: () => undefined },
    outdate: () => void told.push('outdated'),
    onBack: () => void told.push('back'),
    recheck: async (_endpoint, address) => void told.push(formatAddress(address)),
    spare: () => true,
    sleepless: [() => performance.now() + sleptMs],
  });
  const address = { ...(parseAddress('10.9.0.5') as Address), length: 24 };
  interruptions.watch({ id: 'web', parentName: 'par', addresses: [address] });
  await sleep(300);
  assert.deepEqual(told, []);
  sleptMs = 60_000;
  interruptions.follow('par');
  await until(() => told.length >= 4);
  assert.deepEqual(told, ['outdated', 'outdated', 'back', '10.9.0.5']);
  interruptions.close();
  links.close();
  await ip('link delete par');
});

describe('a cable that was out', { skip: outsideLab(), timeout: 300_000 }, () => {
  const MACHINE = '3c:22:fb:10:bb:01';
  let lan: Lan;
  let host: Host;
  let port: string;
  let machine: Namespace;
  let engine: Understudy;
  let subnets = 0;
  let at: (host: number) => string;
  let network: FakeNetwork;
  let capture: Capture;

  before(async () => {
    lan = await Lan.create([]);
    // The switch is no host itself: it would speak whenever a port comes up.
    await lan.namespace.run(['sysctl', '-qw', 'net.ipv6.conf.br0.disable_ipv6=1']);
    host = await Host.boot('one', lan);
    port = host.ports['lan0'] ?? '';
    machine = await Namespace.create('machine');
    await lan.plug(machine);
    await machine.ip(`link set lan0 address ${MACHINE}`);
    engine = new Understudy(await Plugin.start(host));
  });

  beforeEach(async () => {
    const number = ++subnets;
    at = (one) => `10.40.${number}.${one}`;
    capture = await Capture.start(lan.namespace, 'br0', 'arp');
    network = await engine.createNetwork({ subnet: `10.40.${number}.0/24` });
  });

  afterEach(async () => {
    await engine.clear();
    await machine.ip('address flush dev lan0');
    await setForwardDelay(null);
    await capture.stop();
    assert.doesNotMatch(engine.plugin.log(), /internal error|INTERNAL/);
  });

  after(() => engine.plugin.stop());

  /** Spanning tree on the switch, whose ports forward only after two such times; null for none. The kernel allows 2 s at least. */
  async function setForwardDelay(seconds: number | null): Promise<void> {
    const words =
      seconds === null ? 'stp_state 0' : `stp_state 1 hello_time 100 max_age 600 forward_delay ${seconds * 100}`;
    await lan.namespace.ip(`link set br0 type bridge ${words}`);
    if (seconds !== null) await until(isForwarding, { timeoutMs: 3 * seconds * 1000 });
  }

  async function isForwarding(): Promise<boolean> {
    const ports = await lan.namespace.show<{ linkinfo?: { info_slave_data?: { state?: string } } }>(
      '-d link show master br0',
    );
    return ports.every((one) => one.linkinfo?.info_slave_data?.state === 'forwarding');
  }

  async function unplugged(act: () => Promise<unknown>): Promise<void> {
    await lan.namespace.ip(`link set ${port} down`);
    await sleep(300);
    await act();
    await lan.namespace.ip(`link set ${port} up`);
    await sleep(200);
  }

  /** Until the daemon keeps addresses: it has asked the LAN for each three times since that frame. */
  async function standby(sinceFrame = 0): Promise<void> {
    const isAsked = () =>
      [2, 3, 4, 5].every(
        (one) =>
          probed()
            .slice(sinceFrame)
            .filter((text) => text === at(one)).length >= 3,
      );
    await until(isAsked);
    await sleep(300);
  }

  function probed(): string[] {
    return capture.frames().flatMap(({ arp, sourceMac }) => (arp && isProbeMac(sourceMac) ? [arp.targetAddress] : []));
  }

  const isTold = async (address: string, ourMacAddress: string) =>
    (await engine.plugin.conflicts()).some(
      (one) => one.address === address && one.macAddress === MACHINE && one.ourMacAddress === ourMacAddress,
    );

  async function macOf(container: { namespace: Namespace }): Promise<string> {
    const [link] = await container.namespace.show<{ address: string }>('link show eth0');
    return link?.address ?? '';
  }

  test('an address on standby that somebody took in silence meanwhile is not given out', { timeout }, async () => {
    await engine.run(network);
    await standby();
    await unplugged(() => machine.ip(`address add ${at(2)}/24 dev lan0`));
    await assert.rejects(
      engine.requestAddress(network, { address: at(2) }),
      (error) => error instanceof Refusal && error.message.includes(MACHINE),
    );
    const others = [await engine.requestAddress(network), await engine.requestAddress(network)];
    assert.deepEqual(others, [`${at(3)}/24`, `${at(4)}/24`]);
    for (const address of [at(3), at(4)])
      await engine.call('IpamDriver.ReleaseAddress', { PoolID: network.poolId, Address: address });
  });

  test('the same when the switch port forwards only seconds after the carrier is back', { timeout }, async () => {
    await setForwardDelay(2);
    await engine.run(network);
    await standby();
    await unplugged(() => machine.ip(`address add ${at(2)}/24 dev lan0`));
    const startedMs = performance.now();
    await assert.rejects(
      engine.requestAddress(network, { address: at(2) }),
      (error) => error instanceof Refusal && error.message.includes(MACHINE),
    );
    assert.ok(performance.now() - startedMs < 9000);
    assert.equal(await engine.requestAddress(network), `${at(3)}/24`);
    await engine.call('IpamDriver.ReleaseAddress', { PoolID: network.poolId, Address: at(3) });
  });

  test('the address of a container that was taken meanwhile is a conflict within seconds', { timeout }, async () => {
    const container = await engine.run(network);
    const mac = await macOf(container);
    await unplugged(() => machine.ip(`address add ${at(1)}/24 dev lan0`));
    await until(() => isTold(at(1), mac), { timeoutMs: 5000 });
  });

  test('the same within seconds after the port forwards', { timeout }, async () => {
    await setForwardDelay(2);
    const container = await engine.run(network);
    const mac = await macOf(container);
    await unplugged(() => machine.ip(`address add ${at(1)}/24 dev lan0`));
    assert.ok(!(await isTold(at(1), mac)), 'the port does not forward yet');
    await until(isForwarding, { timeoutMs: 10_000 });
    await until(() => isTold(at(1), mac), { timeoutMs: 6000 });
  });

  test('addresses are kept ready again soon after the cable is back', { timeout }, async () => {
    await machine.ip(`address add ${at(1)}/24 dev lan0`);
    await engine.run(network);
    await standby();
    const before = probed().length;
    await unplugged(() => sleep(100));
    await standby(before);
    const startedMs = performance.now();
    await engine.requestAddress(network);
    assert.ok(performance.now() - startedMs < 400, `${performance.now() - startedMs} ms`);
    await engine.call('IpamDriver.ReleaseAddress', { PoolID: network.poolId, Address: at(3) });
  });

  test('on a LAN without any other host a start waits once, is told in the log, and succeeds', {
    timeout,
  }, async () => {
    await lan.namespace.ip('link set port2 down');
    await unplugged(() => Promise.resolve());
    const startedMs = performance.now();
    const container = await engine.run(network);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs > 5000 && tookMs < 10_000, `${tookMs} ms`);
    assert.equal(container.address, `${at(1)}/24`);
    assert.match(
      engine.plugin.log(),
      /no other host was heard since the parent has its carrier back.*parent[=": ]+lan0/,
    );
    await lan.namespace.ip('link set port2 up');
  });
});
