/**
 * Leaders of a swarm that are killed, come back and lead again, and what its nodes' containers have meanwhile. Scope global:
 * a new leader claims again, of its own plugin, all that is in use (docs/swarm.md, "When the leader goes"). Then a service grows and
 * shrinks while a node is drained and another one killed: the usual run of that is small, and `make swarm-long` makes it what it is
 * meant to be: 30 replicas, then 5 ↔ 60 ten times.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { DRIVER, GATEWAY, type Node, Swarm } from '../lab/swarm.ts';

const RANGE = '192.0.2.64/26';
const NETWORK = `-d ${DRIVER} --ipam-driver ${DRIVER} --subnet 192.0.2.0/24 --gateway ${GATEWAY} --ip-range ${RANGE}`;
const SERVICE = '--endpoint-mode dnsrr --network lan';
const [ROUNDS, FEW, MANY] = [Number(process.env.ROUNDS ?? 1), 5, Number(process.env.MANY ?? 12)];
// The nodes' own addresses and the scanner's: strangers that tasks would have to find out one by one.
const OTHERS = '192.0.2.1-192.0.2.9,192.0.2.250';
const WIDE = `-d ${DRIVER} --ipam-driver ${DRIVER} --subnet 192.0.2.0/24 --gateway ${GATEWAY} --ipam-opt exclude=${OTHERS}`;
/** An engine that is killed between RequestAddress and CreateEndpoint leaves a lease, which is collected after two minutes. */
const COLLECTED_TIMEOUT_MS = 180_000;

describe('leaders of a swarm', { skip: outsideLab(), timeout: 3_600_000 }, () => {
  let swarm: Swarm;
  /** Who led when a network of NETWORK was removed, and heard of it. */
  const heardOfRemoval: Node[] = [];

  before(async () => {
    swarm = await Swarm.open({ managers: 3, workers: 1, settings: () => ({ SCOPE: 'global' }) });
  });
  after(() => swarm.close());

  async function createNetwork(words: string): Promise<void> {
    await swarm.manage('network', 'create', ...words.split(' '), '-o', 'parent=lan', '--attachable', 'lan');
  }

  test('the leader is killed during a scale-up, and leads again later with claims of long ago: nothing doubled, nothing stuck', async () => {
    await createNetwork(NETWORK);
    await swarm.createService('web', `${SERVICE} --replicas 4`);
    await swarm.settled('web', 4);
    const watch = swarm.watch('web');
    const first = await swarm.leader();

    // Containers outlive an engine that is killed.
    const left = swarm.occupants('web').filter(({ node }) => node === first);
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
    heardOfRemoval.push(await swarm.leader());
    await swarm.clear();
  });

  test('all managers are restarted at once: every task has an address of its own again, and new ones come', async () => {
    await createNetwork(NETWORK);
    await swarm.createService('web', `${SERVICE} --replicas 8`);
    await swarm.settled('web', 8);
    const managers = swarm.nodes.filter(({ isManager }) => isManager);
    const before = swarm.occupants('web');
    const worker = before.find(({ node }) => !node.isManager);
    await Promise.all(managers.map((node) => swarm.kill(node)));
    const stayed = swarm.occupants('web');
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

    heardOfRemoval.push(await swarm.leader());
    // Leases that a killed engine left have their two minutes while the next test runs, which looks for them.
    await swarm.clear();
    await swarm.assertNothingLeft({ butOfLeaders: true, isKept: (_, what) => /^(pools|leases)/.test(what) });
  });

  test(`${MANY / 2} replicas, then ${FEW} ↔ ${MANY} ${ROUNDS} times: every task has its own address at every moment`, async () => {
    await createNetwork(WIDE);
    await swarm.createService('web', `${SERVICE} --replicas ${MANY / 2}`);
    const watch = swarm.watch('web');
    await scaled(MANY / 2);
    const killed = swarm.nodes.find((node) => node.isManager && node.engine !== swarm.manager);
    assert.ok(killed);
    for (let round = 1; round <= ROUNDS; round++) {
      const startedMs = Date.now();
      await swarm.scale('web', FEW);
      await scaled(FEW);
      if (round === Math.ceil(ROUNDS / 2)) await swarm.drain('w1');
      await swarm.scale('web', MANY);
      if (round === ROUNDS) await swarm.kill(killed);
      await scaled(MANY);
      if (round === ROUNDS) await swarm.start(killed);
      console.log(`round ${round}: ${((Date.now() - startedMs) / 1000).toFixed(1)} s`);
    }
    await swarm.manage('node', 'update', '--availability', 'active', 'w1');
    await swarm.ready();
    await scaled(MANY);
    console.log(`${await watch.end()} looks into all containers`);
    const failures = (await swarm.tasks('web')).flatMap(({ Status }) => Status.Err ?? []);
    console.log(`tasks that failed, of those the managers remember: ${failures.length} ${failures.join('; ')}`);

    await swarm.clear();
    // What a killed engine forgot without a word is collected after minutes: first containers, then the network.
    const isLong = process.env.ROUNDS !== undefined;
    // Who leads now may have led while one of them was there, and not when it was removed.
    const isOfEarlierLead = (node: Node, what: string) =>
      what.includes('TsmacvlanGlobal') && what.includes(RANGE) && heardOfRemoval.some((other) => other !== node);
    const isOfNetwork = (what: string) => /^(networks|pools|leases: .*"gateway")/.test(what) && !what.includes(RANGE);
    await swarm.assertNothingLeft({
      butOfLeaders: true,
      timeoutMs: isLong ? 900_000 : COLLECTED_TIMEOUT_MS,
      isKept: (node, what) => isOfEarlierLead(node, what) || (!isLong && node === killed && isOfNetwork(what)),
    });
  });

  async function scaled(replicas: number): Promise<void> {
    await swarm.settled('web', replicas, 300_000);
    await swarm.assertOneEach('web', replicas);
  }
});
