/**
 * A service that grows and shrinks again and again while a node is drained and another one killed. The usual run is small;
 * `make swarm-long` makes it what it is meant to be: 30 replicas, then 5 ↔ 60 ten times.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { DRIVER, GATEWAY, Swarm } from '../lab/swarm.ts';

const [ROUNDS, FEW, MANY] = [Number(process.env.ROUNDS ?? 1), 5, Number(process.env.MANY ?? 16)];
// The nodes' own addresses and the scanner's: strangers that tasks would have to find out one by one.
const OTHERS = '192.0.2.1-192.0.2.9,192.0.2.250';
const NETWORK = `-d ${DRIVER} --ipam-driver ${DRIVER} --subnet 192.0.2.0/24 --gateway ${GATEWAY} --ipam-opt exclude=${OTHERS}`;

describe('a service that grows and shrinks', { skip: outsideLab(), timeout: 3_600_000 }, () => {
  let swarm: Swarm;

  before(async () => {
    swarm = await Swarm.open({ managers: 3, workers: 1, settings: () => ({ SCOPE: 'global' }) });
  });
  after(() => swarm.close());

  test(`${MANY / 2} replicas, then ${FEW} ↔ ${MANY} ${ROUNDS} times: every task has its own address at every moment`, async () => {
    await swarm.manage('network', 'create', ...NETWORK.split(' '), '-o', 'parent=lan', 'lan');
    await swarm.createService('web', `--endpoint-mode dnsrr --network lan --replicas ${MANY / 2}`);
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
    await swarm.assertNothingLeft({
      butOfLeaders: true,
      timeoutMs: isLong ? 900_000 : 60_000,
      isKept: (node, what) => !isLong && node === killed && /^(networks|pools|leases: .*"gateway")/.test(what),
    });
  });

  async function scaled(replicas: number): Promise<void> {
    await swarm.settled('web', replicas, 300_000);
    await swarm.assertOneEach('web', replicas);
  }
});
