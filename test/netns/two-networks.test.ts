/**
 * Networks of one host whose addresses are not chosen by one and the same, on one LAN: no container gets the address of
 * another. The daemon is a real one; containers are namespaces.
 *
 *     host: tsmacvlan ── lan0 ──┬── br0 (ns "lan")          lan2 ── br0 (ns "elsewhere")
 *                     └─ lan1 ──┘
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { addressesOf, doubles } from '../lab/census.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import { type FakeNetwork, Refusal, Understudy } from '../lab/understudy.ts';

const OTHER_MAC = '02:00:00:00:00:07';

describe('two networks of one host on one LAN', { skip: outsideLab(), timeout: 500_000 }, () => {
  let lan: Lan;
  let host: Host;
  let engine: Understudy;
  let subnet: string;
  let subnets = 50;

  const at = (number: number) => subnet.replace('0/24', String(number));

  before(async () => {
    lan = await Lan.create();
    host = await Host.boot('one', lan, ['lan0', 'lan1']);
    await (await Lan.create([], 'elsewhere')).plug(host.namespace, 'lan2');
    engine = new Understudy(await Plugin.start(host));
    subnet = nextSubnet();
  });

  afterEach(async () => {
    await engine.clear();
    subnet = nextSubnet();
  });

  after(() => host.scrap(lan));

  function nextSubnet(): string {
    return `10.${++subnets}.0.0/24`;
  }

  async function assertRefused(attempt: Promise<unknown>, words: RegExp): Promise<void> {
    await assert.rejects(attempt, (error) => error instanceof Refusal && words.test(error.message));
  }

  test('an address that Docker’s IPAM chose is not given out by ours, and the other way round', async () => {
    const docker = await engine.createNetwork({ subnet, ipamOptions: null });
    const ours = await engine.createNetwork({ subnet });
    await engine.run(docker, { address: `${at(1)}/24` });
    assert.equal((await engine.run(ours)).address, `${at(2)}/24`);
    const here = /is already used on this host by 02:42:/;
    await assertRefused(engine.run(ours, { address: at(1), macAddress: OTHER_MAC }), here);
    await assertRefused(engine.run(docker, { address: `${at(2)}/24`, macAddress: OTHER_MAC }), here);
    assert.equal(await engine.plugin.command('conflicts'), 'none', 'our own containers are no strangers');
  });

  test('networks with address sets of their own, on two parents of the same LAN', async () => {
    const networks = await Promise.all(
      ['lan0', 'lan1'].map((parent) => engine.createNetwork({ subnet, parent, ipamOptions: { parent } })),
    );
    for (let count = 0; count < 3; count++) await engine.run(networks[0] as FakeNetwork);
    // So long a fresh address is guarded; after that its container speaks for itself.
    await sleep(10_500);
    for (let count = 0; count < 3; count++) await engine.run(networks[1] as FakeNetwork);
    const used = await Promise.all(Array.from(engine.containers, ({ namespace }) => addressesOf(namespace, 'eth0')));
    assert.deepEqual([used.flat().length, doubles(used.flat())], [6, []]);
    assert.equal(await engine.plugin.command('conflicts'), 'none', 'nor are those on another parent of the LAN');
  });

  for (const parents of [
    ['lan0', 'lan0'],
    ['lan0', 'lan1'],
  ]) {
    test(`asked at the same moment on ${parents.join(' and ')}, at most one gets an address`, async () => {
      const [docker, ours] = [
        await engine.createNetwork({ subnet, parent: parents[0] ?? '', ipamOptions: null }),
        await engine.createNetwork({ subnet, parent: parents[1] ?? '' }),
      ];
      const wanted = Array.from({ length: 10 }, (_, number) => at(number + 1));
      const outcomes = await Promise.allSettled(
        wanted.flatMap((address) => [
          engine.run(docker, {
            address: `${address}/24`,
            macAddress: OTHER_MAC.replace('07', address.split('.')[3]?.padStart(2, '0') ?? ''),
          }),
          engine.run(ours, { address }),
        ]),
      );
      for (const outcome of outcomes)
        if (outcome.status === 'rejected')
          assert.match(String(outcome.reason), /^Error: address .* is already used on/);
      const used = await Promise.all(Array.from(engine.containers, ({ namespace }) => addressesOf(namespace, 'eth0')));
      assert.deepEqual(doubles(used.flat()), []);
      assert.ok(used.length > 5, `${used.length} of 10 addresses were given out`);
    });
  }

  test('a container with interfaces on two parents of the LAN starts again with its address', async () => {
    const network = await engine.createNetwork({ subnet });
    let container = await engine.run(network);
    for (let round = 0; round < 3; round++) {
      // Of another driver: the kernel alone knows that it is the container's.
      await host.namespace.ip('link add other link lan1 type macvlan mode bridge');
      await host.namespace.ip(`link set other netns ${container.namespace.name} name eth1`);
      await container.namespace.ip('link set eth1 up');
      await sleep(100);
      const {
        network: { id },
        endpointId,
      } = container;
      await engine.call('NetworkDriver.Leave', { NetworkID: id, EndpointID: endpointId });
      // By then eth1 has answered, and it is gone before anybody can find out whose it was.
      await sleep(20);
      await engine.remove(container);
      container = await engine.run(network);
      assert.equal(container.address, `${at(1)}/24`);
    }
    assert.equal(await engine.plugin.command('conflicts'), 'none', 'its other interface is no stranger');
  });

  test('the same address is given out on two LANs, and again when its container is gone', async () => {
    const networks = await Promise.all(
      ['lan0', 'lan2'].map((parent) => engine.createNetwork({ subnet, parent, ipamOptions: { parent } })),
    );
    for (const network of networks) assert.equal((await engine.run(network)).address, `${at(1)}/24`);
    for (const container of engine.containers) await engine.remove(container);
    for (const network of networks)
      assert.equal((await engine.run(network, { address: at(1) })).address, `${at(1)}/24`);
    assert.doesNotMatch(engine.plugin.log(), /somebody/);
  });
});
