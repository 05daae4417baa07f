/**
 * Swarm networks of scope global: made once, on a manager, and the swarm's leader hands out the addresses
 * (docs/swarm.md, "One network for the swarm"). Judged by the addresses inside the containers of all nodes, by who answers
 * for them on the LAN, and by what a user sees of a task that does not start.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { assertNoPing, assertPings } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Namespace } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';
import { DRIVER, GATEWAY, IMAGE, type Node, type Occupant, Swarm } from '../lab/swarm.ts';
import { readLocalStore } from '../../src/store/local.ts';

const NETWORK = `-d ${DRIVER} --ipam-driver ${DRIVER} --subnet 192.0.2.0/24 --gateway ${GATEWAY}`;
const SERVICE = '--endpoint-mode dnsrr';
/** Of hearing each other. */
const TOLD_MS = 10_000;

describe('swarm networks of scope global', { skip: outsideLab(), timeout: 1_200_000 }, () => {
  let swarm: Swarm;
  let worker: Node;

  before(async () => {
    // Only the managers are plugged into the second LAN.
    const parents = ({ name, cable }: Pick<Node, 'name' | 'cable'>) =>
      `lan=${cable}${name === 'w1' ? '' : `,iot=${cable}`}`;
    swarm = await Swarm.open({
      managers: 3,
      workers: 1,
      settings: (node) => ({ SCOPE: 'global', PARENTS: parents(node) }),
    });
    worker = swarm.node('w1');
  });
  after(() => swarm.close());
  afterEach(async () => {
    // The last test takes a node out of the swarm.
    if (swarm.nodes.some(({ isUp }) => !isUp)) return;
    await swarm.clear();
    await swarm.assertNothingLeft();
  });

  async function createNetwork(name: string, words: string): Promise<void> {
    const follower = swarm.nodes[1] as Node;
    await follower.engine.must('network', 'create', ...`${NETWORK} ${words} --attachable ${name}`.split(' '));
  }

  test('services on all nodes, made and changed in every way: addresses are unique at every moment', async () => {
    await createNetwork('lan', '--ip-range 192.0.2.64/26 -o parent=lan');
    await swarm.createService('web', `${SERVICE} --network lan --replicas 8`);
    await swarm.createService('each', `${SERVICE} --network lan --mode global`);
    const watch = swarm.watch('web', 'each');
    await swarm.settled('web', 8);
    await swarm.settled('each', 4);
    const occupants = await swarm.assertOneEach('web', 8);
    assert.equal(new Set(occupants.map(({ node }) => node)).size, 4, 'on every node');
    for (const { address } of occupants) assert.match(address, /^192\.0\.2\.(6[4-9]|[789]\d|1[01]\d|12[0-7])$/);
    await swarm.assertFindEachOther('web', occupants);

    for (const replicas of [2, 10]) {
      await swarm.scale('web', replicas);
      await swarm.settled('web', replicas);
      await swarm.assertOneEach('web', replicas);
    }

    const update = '--detach --force --update-parallelism 5 --update-delay 0s --update-order start-first';
    await swarm.manage('service', 'update', ...update.split(' '), 'web');
    await swarm.updated('web');
    await swarm.settled('web', 10);
    await swarm.assertOneEach('web', 10);

    await swarm.drain('w1');
    await swarm.settled('web', 10);
    await swarm.settled('each', 3);
    const moved = await swarm.assertOneEach('web', 10);
    assert.ok(moved.every(({ node }) => node !== worker));
    await swarm.manage('node', 'update', '--availability', 'active', 'w1');
    await swarm.settled('each', 4);
    assert.ok((await watch.end()) > 3);
  });

  test('a stack: two services, one of them on two networks', async () => {
    await createNetwork('front', '--ip-range 192.0.2.64/27 -o parent=lan');
    const { host, engine } = swarm.nodes[0] as Node;
    writeFileSync(host.file('/run/stack.yaml'), STACK);
    const file = host.file('/run/stack.yaml');
    await engine.must(...`stack deploy --detach --resolve-image never -c ${file} shop`.split(' '));
    await swarm.settled('shop_web', 4);
    await swarm.settled('shop_db', 2);
    const web = swarm.occupants('shop_web');
    assert.equal(web.length, 8, 'two addresses each');
    const back = await swarm.assertOneEach('shop_db', 2);
    assert.ok(back.every(({ address }) => /^198\.51\.100\./.test(address)));
    const asker = web.find(({ node }) => node !== back[0]?.node);
    assert.ok(asker, 'all are on one node');
    await assertPings(asker.node.engine, asker.containerId, 'tasks.shop_db');
    assert.equal(new Set(web.map(({ address }) => address)).size, 8);
    await engine.must('stack', 'rm', 'shop');
  });

  test('an address that a stranger on the LAN has: its task fails with the stranger’s name, the next one gets the next address', async () => {
    const stranger = await Namespace.create('stranger');
    const port = await swarm.lan.plug(stranger);
    await stranger.ip('address add 192.0.2.65/24 dev lan0');
    await createNetwork('lan', '--ip-range 192.0.2.64/28 -o parent=lan');
    await swarm.createService('web', `${SERVICE} --network lan --replicas 4`);
    await swarm.settled('web', 4);
    const occupants = await swarm.assertOneEach('web', 4);
    assert.ok(occupants.every(({ address }) => address !== '192.0.2.65'));
    const errors = (await swarm.tasks('web')).map(({ Status }) => Status.Err ?? '');
    assert.match(
      errors.join('\n'),
      /address 192\.0\.2\.65 is already used on the LAN by [0-9a-f:]{17}, which answered on \w+/,
    );
    await swarm.lan.unplug(port);
    await stranger.delete();
  });

  test('a node without the parent, or options it refuses: the task says so', async () => {
    await createNetwork('iot', '--ip-range 192.0.2.64/28 -o parent=iot');
    await swarm.createService('everywhere', `${SERVICE} --network iot --mode global`);
    const message = await refusal('everywhere', worker);
    assert.match(message, /parent interface "iot" does not exist on this host \(there are enp3s0[,)]/);
    await swarm.until('the managers run theirs', () => swarm.occupants('everywhere').length === 3);

    await createNetwork('typo', '--ip-range 192.0.2.128/28 -o parnt=lan');
    await swarm.createService('mistaken', `${SERVICE} --network typo --replicas 1`);
    assert.match(await refusal('mistaken'), /unknown option -o "parnt" \(did you mean parent\?\)/);
  });

  test('parent=auto takes each node’s own default route', async () => {
    await createNetwork('auto', '--ip-range 192.0.2.64/28 -o parent=auto');
    await swarm.createService('web', `${SERVICE} --network auto --mode global`);
    await swarm.settled('web', 4);
    await swarm.assertFindEachOther('web', await swarm.assertOneEach('web', 4));
  });

  test('two networks of one description share its addresses, and one goes without the other', async () => {
    for (const name of ['one', 'two']) await createNetwork(name, '--ip-range 192.0.2.64/28 -o parent=lan -o probe=off');
    for (const name of ['one', 'two']) await swarm.createService(name, `${SERVICE} --network ${name} --replicas 2`);
    for (const name of ['one', 'two']) await swarm.settled(name, 2);
    const occupants = [...swarm.occupants('one'), ...swarm.occupants('two')];
    assert.equal(new Set(occupants.map(({ address }) => address)).size, 4);
    await swarm.removeServices('one');
    await swarm.removeNetwork('one');
    await swarm.scale('two', 4);
    await swarm.settled('two', 4);
    await swarm.assertOneEach('two', 4);
  });

  test('a single container on an attachable network: any address but a task’s', async () => {
    await createNetwork('lan', '--ip-range 192.0.2.64/28 -o parent=lan -o probe=off');
    await swarm.createService('web', `${SERVICE} --network lan --replicas 2`);
    await swarm.settled('web', 2);
    const [taken] = swarm.occupants('web');
    const run = (...words: string[]) =>
      worker.engine.docker('run', '--rm', '--network', 'lan', ...words, IMAGE, 'ip', '-4', 'address');
    const given = (await run()).stdout.match(/inet (192\.0\.2\.(?:6[4-9]|7\d))\/24/)?.[1];
    assert.ok(given && given !== taken?.address);
    const named = await run('--ip', '192.0.2.77');
    assert.match(named.stdout, /inet 192\.0\.2\.77\/24/, `${named.stdout}${named.stderr}`);
    const refused = await run('--ip', taken?.address ?? '');
    assert.match(
      refused.stderr,
      /attaching to network failed, make sure your network options are correct and check manager logs/,
    );
    const leader = await swarm.leader();
    const sentence = `address ${taken?.address} is given to a task of this swarm already; choose another --ip`;
    await leader.plugin.logs(new RegExp(sentence));
    await swarm.assertOneEach('web', 2);
  });

  test('a virtual IP takes an address for which nobody answers, and the manager’s log says what to do', async () => {
    await createNetwork('lan', '--ip-range 192.0.2.64/28 -o parent=lan');
    await swarm.createService('web', '--network lan --replicas 2');
    await swarm.settled('web', 2);
    const [asker] = await swarm.assertOneEach('web', 2);
    assert.ok(asker);
    const format = '{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}';
    const virtual = (await swarm.manage('service', 'inspect', '--format', format, 'web')).split('/')[0] ?? '';
    assert.match(virtual, /^192\.0\.2\./);
    await assertNoPing(asker.node.engine, asker.containerId, virtual);
    const leader = await swarm.leader();
    await leader.plugin.logs(/its services need --endpoint-mode dnsrr, nobody answers for a virtual IP/);
  });

  /**
   * Neither swarm nor the plugin can know of a node's containers while it is away; once its cable is in again both sides tell. Last,
   * because the node stays away.
   */
  test('a node that is cut off, demoted and removed by force: every node that shares an address with it tells so within 10 s of its return', async () => {
    // Eight addresses: the leader gives out one after the other, and begins again when it has come to the end.
    await createNetwork('lan', '--ip-range 192.0.2.64/29 -o parent=lan');
    await swarm.createService('web', `${SERVICE} --network lan --replicas 6`);
    await swarm.settled('web', 6);
    const cut = swarm.node('m3');
    const left = swarm.occupants('web').filter(({ node }) => node === cut);
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
    await until(() => {
      doubled = swarm.occupants('web').filter(({ address }) => left.some((one) => one.address === address));
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

  /** What docker service ps shows of a task that does not start, on any node or on this one. */
  async function refusal(service: string, node?: Node): Promise<string> {
    let messages: string[] = [];
    await swarm.until('a task is refused', async () => {
      const id = node && (await swarm.states()).find(({ name }) => name === node.name)?.id;
      const tasks = (await swarm.tasks(service)).filter(({ NodeID }) => id === undefined || NodeID === id);
      messages = tasks.flatMap(({ Status }) => Status.Err ?? []);
      return messages.length > 0;
    });
    return messages.join('\n');
  }
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

const STACK = `version: "3.8"
services:
  web:
    image: ${IMAGE}
    command: sleep 36000
    stop_grace_period: 0s
    networks: [front, back]
    deploy: { replicas: 4, endpoint_mode: dnsrr }
  db:
    image: ${IMAGE}
    command: sleep 36000
    stop_grace_period: 0s
    networks: [back]
    deploy: { replicas: 2, endpoint_mode: dnsrr }
networks:
  front: { external: true }
  back:
    driver: ${DRIVER}
    driver_opts: { parent: lan }
    ipam:
      driver: ${DRIVER}
      config: [{ subnet: 198.51.100.0/24 }]
`;
