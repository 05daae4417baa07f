/**
 * A node that is cut off, demoted and removed by force goes on with its containers, while the managers give their addresses to
 * other tasks. Neither swarm nor the plugin can know while it is away; once its cable is in again both sides tell.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';
import { DRIVER, GATEWAY, type Node, type Occupant, Swarm } from '../lab/swarm.ts';
import { readLocalStore } from '../../src/store/local.ts';

/** Eight addresses: the leader gives out one after the other, and begins anew when it has come to the end. */
const NETWORK = `-d ${DRIVER} --ipam-driver ${DRIVER} --subnet 192.0.2.0/24 --gateway ${GATEWAY} --ip-range 192.0.2.64/29`;
/** Of hearing each other. */
const TOLD_MS = 10_000;

describe('a node that is removed while it is cut off', { skip: outsideLab(), timeout: 900_000 }, () => {
  let swarm: Swarm;

  before(async () => {
    swarm = await Swarm.open({ managers: 3, workers: 0, settings: () => ({ SCOPE: 'global' }) });
  });
  after(() => swarm.close());

  test('every node that shares an address with it tells so within 10 s of its return', async () => {
    await swarm.manage('network', 'create', ...NETWORK.split(' '), '-o', 'parent=lan', 'lan');
    await swarm.createService('web', '--endpoint-mode dnsrr --network lan --replicas 6');
    await swarm.settled('web', 6);
    const cut = swarm.node('m3');
    const left = (await swarm.occupants('web')).filter(({ node }) => node === cut);
    assert.ok(left.length > 0);

    const port = cut.host.ports[cut.cable] ?? '';
    await swarm.lan.setCarrier(port, false);
    cut.isUp = false;
    await swarm.leader();
    await swarm.manage('node', 'demote', 'm3');
    await swarm.manage('node', 'rm', '--force', 'm3');
    // Two tasks more than there were: so what the removed node's had is given out again.
    await swarm.scale('web', 8);
    let doubled: Occupant[] = [];
    await until(async () => {
      doubled = (await swarm.occupants('web')).filter(({ address }) => left.some((one) => one.address === address));
      return doubled.length === left.length;
    });

    await swarm.lan.setCarrier(port, true);
    const beganAtMs = performance.now();
    const isTold = async () => {
      const sides = [...doubled, ...doubled.map(({ address }) => ({ node: cut, address }))];
      const told = await Promise.all(sides.map(({ node, address }) => tells(node, address)));
      return told.every(Boolean);
    };
    await until(isTold, { timeoutMs: TOLD_MS, detail: () => swarm.describe() });
    console.log(`${doubled.length} addresses told on both sides after ${Math.round(performance.now() - beganAtMs)} ms`);
  });
});

/** Whether the node has a row of the conflict. */
async function tells({ plugin }: Node, address: string): Promise<boolean> {
  const store = readLocalStore(plugin.stateDirectory());
  try {
    return (await store.conflicts.list()).some((one) => one.address === address && one.endedAt === null);
  } finally {
    await store.close();
  }
}
