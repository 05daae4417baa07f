/**
 * Swarm networks of scope local: each node has its own configuration of the network and hands out addresses by itself
 * (docs/swarm.md, "Each node by itself"). Judged by the addresses inside the containers of all nodes, and by who answers
 * for them on the LAN.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { DRIVER, GATEWAY, type Node, type Occupant, Swarm } from '../lab/swarm.ts';

const SUBNET = `--subnet 192.0.2.0/24 --gateway ${GATEWAY}`;
const SERVICE = '--endpoint-mode dnsrr';
const DHCP_PLAN: DhcpPlan = { address: '192.0.2.2/24', range: ['192.0.2.100', '192.0.2.150'], leaseSeconds: 600 };

describe('swarm networks of scope local', { skip: outsideLab(), timeout: 1_200_000 }, () => {
  let swarm: Swarm;

  before(async () => {
    swarm = await Swarm.open({ managers: 3, workers: 1 });
  });
  after(() => swarm.close());
  afterEach(async () => {
    await swarm.clear();
    await swarm.assertNothingLeft();
  });

  /** A configuration on every node, and on a manager the network made from it. */
  async function createNetwork(name: string, rangeOf: (node: Node) => string): Promise<void> {
    for (const node of swarm.nodes) {
      const words = `--config-only --ipam-driver ${DRIVER} ${SUBNET} --ip-range ${rangeOf(node)} -o parent=lan ${name}-config`;
      await node.engine.must('network', 'create', ...words.split(' '));
    }
    await swarm.manage(
      ...`network create -d ${DRIVER} --scope swarm --config-from ${name}-config --attachable ${name}`.split(' '),
    );
  }

  test('ranges of their own: addresses are unique and each from its node; tasks find and reach each other', async () => {
    const firstOf = (node: Node) => 64 + 16 * swarm.nodes.indexOf(node);
    await createNetwork('ranges', (node) => `192.0.2.${firstOf(node)}/28`);
    await swarm.createService('web', `${SERVICE} --network ranges --replicas 8`);
    await swarm.settled('web', 8);
    const occupants = await swarm.assertOneEach('web', 8);
    for (const { node, address } of occupants) {
      const last = Number(address.split('.').at(-1));
      assert.ok(last >= firstOf(node) && last < firstOf(node) + 16, `${address} on ${node.name}`);
    }
    await swarm.assertFindEachOther('web', occupants);

    // The network is made again with the first task on a node and goes with its last.
    for (const replicas of [0, 4, 3, 8]) {
      await swarm.scale('web', replicas);
      await swarm.settled('web', replicas);
      // Engine 28 removes the network from under a task that starts while the last one is being removed.
      if (replicas === 0) await swarm.assertNothingLeft();
      await swarm.assertOneEach('web', replicas);
    }
  });

  test('the recipe of moby#49921, one range on all nodes: no address twice, where the built-in driver has each four times', async () => {
    await createNetwork('shared', () => '192.0.2.128/27');
    for (const { engine, cable } of swarm.nodes) {
      const words = `--config-only ${SUBNET} --ip-range 192.0.2.192/27 -o parent=${cable} builtin-config`;
      await engine.must('network', 'create', ...words.split(' '));
    }
    await swarm.manage(...'network create -d macvlan --scope swarm --config-from builtin-config builtin'.split(' '));
    await swarm.createService('ours', `${SERVICE} --network shared --replicas 8`);
    // Each node gives its first addresses: two nodes' worth of them on one would be other ones.
    await swarm.createService('theirs', `${SERVICE} --network builtin --replicas 8 --replicas-max-per-node 2`);
    await swarm.settled('ours', 8);
    await swarm.settled('theirs', 8);

    const oracle = await answersFor(swarm.occupants('theirs'), 4);
    console.log(`built-in driver: ${oracle}; tsmacvlan: ${await answersFor(swarm.occupants('ours'), 1)}`);
    assert.equal(oracle, '192.0.2.192 by 4, 192.0.2.193 by 4');
    await swarm.assertOneEach('ours', 8);

    await swarm.scale('ours', 14);
    await swarm.settled('ours', 14);
    await swarm.assertOneEach('ours', 14);
  });

  test('a node whose engine is killed and comes back starts its tasks again, and what they had is free', async () => {
    await createNetwork('lan', () => '192.0.2.64/26');
    await swarm.createService('web', `${SERVICE} --network lan --mode global`);
    await swarm.settled('web', 4);
    const worker = swarm.node('w1');
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      await worker.engine.restart(signal);
      await swarm.until('the worker runs its task', () => {
        const occupants = swarm.occupants('web');
        return occupants.length === 4 && occupants.some(({ node }) => node === worker);
      });
      await swarm.assertOneEach('web', 4);
    }
  });

  test("addresses of the LAN's DHCP server are unique without any range, and the server has each on file", async (t) => {
    const reason = withoutDhcp();
    if (reason) return t.skip(String(reason));
    const server = await DhcpServer.plug(swarm.lan, 'dhcp', 'kea', DHCP_PLAN);
    for (const { engine } of swarm.nodes)
      await engine.must(
        ...'network create --config-only --ipam-driver null -o parent=lan -o source=dhcp leased-config'.split(' '),
      );
    await swarm.manage(
      ...`network create -d ${DRIVER} --scope swarm --config-from leased-config --attachable leased`.split(' '),
    );
    await swarm.createService('web', `${SERVICE} --network leased --replicas 8`);
    await swarm.settled('web', 8);
    const occupants = await swarm.assertOneEach('web', 8);
    const onFile = (await server.leases()).map(({ address }) => address);
    assert.deepEqual(onFile.toSorted(), occupants.map(({ address }) => address).toSorted());
    await swarm.clear();
    await swarm.assertNothingLeft();
    assert.deepEqual(await server.leases(), []);
    await server.unplug();
  });

  async function answersFor(occupants: readonly Occupant[], expected: number): Promise<string> {
    const addresses = [...new Set(occupants.map(({ address }) => address))].sort();
    const holders = await swarm.scanner.holders(addresses, expected);
    return [...holders].map(([address, macs]) => `${address} by ${macs.length}`).join(', ');
  }
});
