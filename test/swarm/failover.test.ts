/**
 * Leaders of a swarm that are killed, come back and lead again, and what its nodes' containers have meanwhile. Scope global:
 * a new leader claims again, of its own plugin, all that is in use (docs/swarm.md, "When the leader goes").
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { DRIVER, GATEWAY, Swarm } from '../lab/swarm.ts';

const NETWORK = `-d ${DRIVER} --ipam-driver ${DRIVER} --subnet 192.0.2.0/24 --gateway ${GATEWAY} --ip-range 192.0.2.64/26`;
const SERVICE = '--endpoint-mode dnsrr --network lan';
/** An engine that is killed between RequestAddress and CreateEndpoint leaves a lease, which is collected after two minutes. */
const COLLECTED_TIMEOUT_MS = 180_000;

describe('leaders of a swarm', { skip: outsideLab(), timeout: 1_200_000 }, () => {
  let swarm: Swarm;

  before(async () => {
    swarm = await Swarm.open({ managers: 3, workers: 1, settings: () => ({ SCOPE: 'global' }) });
  });
  after(() => swarm.close());
  afterEach(async () => {
    await swarm.clear();
    await swarm.assertNothingLeft({ butOfLeaders: true, timeoutMs: COLLECTED_TIMEOUT_MS });
  });

  async function createNetwork(): Promise<void> {
    await swarm.manage('network', 'create', ...NETWORK.split(' '), '-o', 'parent=lan', '--attachable', 'lan');
  }

  test('the leader is killed during a scale-up, and leads again later with claims of long ago: nothing doubled, nothing stuck', async () => {
    await createNetwork();
    await swarm.createService('web', `${SERVICE} --replicas 4`);
    await swarm.settled('web', 4);
    const watch = swarm.watch('web');
    const first = await swarm.leader();

    // Containers outlive an engine that is killed.
    const left = (await swarm.occupants('web')).filter(({ node }) => node === first);
    await swarm.scale('web', 12);
    await swarm.kill(first);
    assert.notEqual(await swarm.leader(), first);
    await swarm.settled('web', 12);
    const others = await swarm.assertOneEach('web', 12);
    assert.ok(left.every(({ address }) => others.every((other) => other.address !== address)));
    await swarm.start(first);
    await swarm.ready();

    // What the first remembers is over by now: other tasks have those addresses, or none.
    await swarm.scale('web', 3);
    await swarm.settled('web', 3);
    await swarm.leadBy(first);
    await swarm.scale('web', 10);
    await swarm.settled('web', 10);
    await swarm.assertOneEach('web', 10);
    assert.ok((await watch.end()) > 3);
  });

  test('all managers are restarted at once: every task has an address of its own again, and new ones come', async () => {
    await createNetwork();
    await swarm.createService('web', `${SERVICE} --replicas 8`);
    await swarm.settled('web', 8);
    const managers = swarm.nodes.filter(({ isManager }) => isManager);
    const before = await swarm.occupants('web');
    const worker = before.find(({ node }) => !node.isManager);
    await Promise.all(managers.map((node) => swarm.kill(node)));
    const stayed = await swarm.occupants('web');
    assert.ok(
      stayed.some(({ address, containerId }) => address === worker?.address && containerId === worker?.containerId),
    );
    await Promise.all(managers.map((node) => swarm.start(node)));
    await swarm.ready();
    await swarm.settled('web', 8);
    await swarm.assertOneEach('web', 8);
    await swarm.scale('web', 14);
    await swarm.settled('web', 14);
    await swarm.assertOneEach('web', 14);
  });
});
