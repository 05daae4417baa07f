/**
 * Where etcd cannot promise that an address is free the LAN decides. Daemons, etcd and probes are real ones; containers are
 * namespaces, as an engine makes them:
 *
 *     one: tsmacvlan, container ── lan0 ──┐
 *     two: tsmacvlan, containers ─ lan0 ──┼── switch 192.0.2.254, with etcd
 *     machine: a kernel with addresses ───┘
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Capture } from '../lab/capture.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Questions } from '../lab/questions.ts';
import { type FakeNetwork, Refusal, Understudy } from '../lab/understudy.ts';

const ETCD = '192.0.2.254';
const MACHINE = '3c:22:fb:10:aa:01';
const PLAN = { subnet: '10.9.0.0/24', parent: 'lan0' };
/** RFC 5227 1.1: between two probes, and from the last one to the verdict. */
const [PROBE_MIN_MS, PROBE_MAX_MS, ANNOUNCE_WAIT_MS] = [1000, 2000, 2000];
/** Of the clocks that are compared here; a daemon on a busy machine is late. */
const EARLY_MS = 10;
const LATE_MS = 1000;

describe('the LAN where etcd promises nothing', { skip: outsideLab(), timeout: 300_000 }, () => {
  let lan: Lan;
  let hosts: Host[];
  let etcd: EtcdCluster;
  let machine: Neighbour;
  let one: Understudy;
  let two: Understudy;
  let network: FakeNetwork;

  before(async () => {
    lan = await Lan.create([`${ETCD}/24`]);
    const place = { namespace: lan.namespace, address: ETCD };
    etcd = await EtcdCluster.start({ directory: mkdtempSync('/run/etcd-'), place });
    machine = await Neighbour.plug(lan, 'machine', MACHINE);
    hosts = await Promise.all(['one', 'two'].map((name) => Host.boot(name, lan)));
    // The LAN is asked for what a lost host has, whether it is asked otherwise (and addresses are on standby) or not.
    const settings = [{ PROBE: 'off' }, { PROBE: 'fast', STORE_FALLBACK: 'probe' }];
    [one, two] = (await Promise.all(
      hosts.map(async (host, at) => {
        await host.namespace.ip(`address add 192.0.2.${at + 1}/24 dev lan0`);
        return new Understudy(await Plugin.start(host, { STORE: etcd.url, ...settings[at] }));
      }),
    )) as [Understudy, Understudy];
    network = await two.createNetwork(PLAN);
  });
  after(async () => {
    machine.close();
    await etcd.stop();
    for (const host of hosts) await host.scrap(lan);
    await lan.namespace.delete();
  });

  /** When the machine was asked for the address by ARP probes (RFC 5227), ms. */
  const asked = (address: string) => {
    const value = BigInt(
      `0x${address
        .split('.')
        .map((part) => Number(part).toString(16).padStart(2, '0'))
        .join('')}`,
    );
    return machine.heard.flatMap(({ atMs, packet }) =>
      packet.protocol === 'ARP' && packet.senderAddress.value === 0n && packet.targetAddress.value === value
        ? atMs
        : [],
    );
  };
  /** RFC 5227 1.1: PROBE_NUM of them, PROBE_MIN apart. More follow while the endpoint is made and joined. */
  const assertWholeProcedure = (address: string) => {
    const [first = 0, second = 0, third = 0] = asked(address);
    const gaps = [second - first, third - second];
    assert.ok(
      gaps.every((gap) => gap > 950),
      `${address} was asked for at ${asked(address).join(', ')}`,
    );
    machine.reset();
  };

  /** Who has the address, as etcd says: `one`. */
  const claimant = async (address: string) => {
    const value = await etcd.must('get', '--print-value-only', `/tsmacvlan/default/leases/TsmacvlanLocal/${address}`);
    return /"nodes":\["(\w+)-/.exec(value)?.[1];
  };
  const refusal = (address: string) =>
    two.run(network, { address }).then(
      () => assert.fail(`${address} was given out`),
      (error: unknown) => (error instanceof Refusal ? error.message : assert.fail(String(error))),
    );

  test('an address of a lost host is refused while its container answers, and given out when it does not', async () => {
    const address = '10.9.0.5';
    const container = await one.run(await one.createNetwork(PLAN), { address });
    await until(async () => (await refusal(address)).includes(`address ${address} is used on host one-`));

    await one.plugin.stop('SIGKILL');
    await endLeaseOf('one');
    const held = `address ${address} is already used on the LAN by 02:42:0a:09:00:05, which answered on lan0`;
    await until(async () => (await refusal(address)).includes(held));
    assert.equal(await claimant(address), 'one', 'what was refused is the lost host’s again');

    await container.namespace.ip('link delete eth0');
    assert.equal((await two.run(network, { address })).address, `${address}/24`);
    assert.equal(await claimant(address), 'two');
  });

  test('who may give out without etcd asks the LAN while it is there too, also on a network that says not to', async () => {
    const quiet = await two.createNetwork({ subnet: '10.11.0.0/24', options: { probe: 'off' } });
    await machine.namespace.ip('address add 10.11.0.1/24 dev lan0');
    assert.equal((await two.run(quiet)).address, '10.11.0.2/24');
  });

  test('without etcd an address that a neighbour has is left out, and one is given out that nobody answers for', async () => {
    await machine.namespace.ip('address add 10.9.0.1/24 dev lan0');
    await until(() => asked('10.9.0.4').length >= 3);
    await etcd.stopMember(0);
    assert.match(await refusal('10.9.0.1'), new RegExp(`10.9.0.1 is already used on the LAN by ${MACHINE}`));

    machine.reset();
    const container = await two.run(network);
    assert.equal(container.address, '10.9.0.2/24');
    assertWholeProcedure('10.9.0.2');
    assert.equal((await two.run(network, { address: '10.9.0.3' })).address, '10.9.0.3/24');
    assertWholeProcedure('10.9.0.3');
    assert.equal((await two.run(network, { address: '10.9.0.77' })).address, '10.9.0.77/24');
    assertWholeProcedure('10.9.0.77');
    // What it has just left is on standby as well.
    await two.remove(container);
    machine.reset();
    assert.equal((await two.run(network, { address: '10.9.0.2' })).address, '10.9.0.2/24');
    assertWholeProcedure('10.9.0.2');
    assert.match(await refusal('10.9.0.5'), /is used by endpoint/);

    etcd.startMember(0);
    await etcd.ready();
    await until(async () => (await claimant('10.9.0.2')) === 'two');
    assert.equal(await claimant('10.9.0.1'), undefined);
  });

  test('without etcd every address is asked for as RFC 5227 says, also those that were on standby', async () => {
    const kept = await two.createNetwork({ subnet: '10.10.0.0/24', options: { probe: 'fast' } });
    const questions = new Questions(machine);
    await two.run(kept, { address: '10.10.0.100' });
    const onStandby = () => questions.answered((address) => /^10\.10\.0\.\d$/.test(address));
    await until(() => onStandby().length >= 4);
    await etcd.stopMember(0);
    const capture = await Capture.start(lan.namespace, 'br0', 'arp');
    const ask = async (address?: string) => {
      const typed = await two.requestAddress(kept, { address });
      return { address: typed.split('/')[0] ?? '', atMs: Date.now() };
    };
    const given = await Promise.all([ask(), ask(), ask('10.10.0.4'), ask('10.10.0.50')]);
    const frames = await capture.stop();
    etcd.startMember(0);
    await etcd.ready();

    assert.deepEqual(given.map(({ address }) => address).sort(), ['10.10.0.1', '10.10.0.2', '10.10.0.4', '10.10.0.50']);
    for (const { address, atMs } of given) {
      const asked = frames.filter(({ arp }) => arp?.senderAddress === '0.0.0.0' && arp.targetAddress === address);
      // In a burst those that may be next are asked for once ahead, which is no part of it.
      const probes = asked.slice(-3);
      const times = [...probes.map((probe) => probe.atMs), atMs];
      const [first = 0, second = 0, last = 0] = times.slice(1).map((time, place) => time - (times[place] ?? 0));
      const told = `${address}: ${times.map((time) => Math.round(time - (times[0] ?? 0))).join(', ')} ms`;
      assert.equal(probes.length, 3, told);
      for (const gapMs of [first, second])
        assert.ok(gapMs >= PROBE_MIN_MS - EARLY_MS && gapMs <= PROBE_MAX_MS + LATE_MS, told);
      assert.ok(last >= ANNOUNCE_WAIT_MS - EARLY_MS, told);
    }
  });

  async function endLeaseOf(host: string): Promise<void> {
    const found = await etcd.must('get', '-w', 'json', '--prefix', `/tsmacvlan/default/nodes/${host}-`);
    const { kvs } = JSON.parse(found) as { kvs: { lease: number }[] };
    await etcd.must('lease', 'revoke', (kvs[0]?.lease ?? 0).toString(16));
  }
});
