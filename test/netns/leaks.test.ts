/**
 * What dead containers leave, and what living ones must keep, on real links. The file's own network namespace is the
 * host; containers are namespaces into which a test moves the links, as the engine does:
 *
 *     lan0 ── veth ── lan1          c1, c2 … ── links on lan0
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseAddress } from '../../src/address.ts';
import { type FoundLeak, Collector } from '../../src/collector.ts';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { Links } from '../../src/kernel/link.ts';
import { MODES } from '../../src/model.ts';
import type { NetworkDriver } from '../../src/network/driver.ts';
import { type LocalStore, openLocalStore } from '../../src/store/local.ts';
import { requestedAddresses } from '../lab/addresses.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { quietDriver } from '../lab/networkdriver.ts';
import { type Line, logInto } from '../unit/server/door.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';
import { callLimit } from '../lab/patience.ts';

const ip = (words: string) =>
  execFileSync('ip', words.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
const linkNames = () => [...ip('-o link').matchAll(/^\d+: ([^:@]+)/gm)].map(([, name = '']) => name);

const NETWORK = 'a'.repeat(64);
const SWARM_NETWORK = 'k3f9z1q8w2e7r6t5y4u3i2o1p';
const SPACE = 'TsmacvlanLocal';
const MINUTE_MS = 60_000;
/** So old nothing counts as recent any more. */
const SETTLED_MS = 10_000;
const PATIENCE_MS = 2 * MINUTE_MS;

/** Time that a test lets pass instead of waiting for it, so that no stall of the machine looks like patience. */
let passedMs = 0;
const monotonic = performance.now.bind(performance);
performance.now = () => monotonic() + passedMs;

describe('leaks on real links', { skip: outsideLab(), timeout: 300_000 }, () => {
  let directory: string;
  let store: LocalStore;
  let links: Links;
  let ipam: IpamDriver;
  let driver: NetworkDriver;
  let collector: Collector;
  let lines: Line[];
  let clockMs: number;
  let containers: string[];

  before(() => {
    ip('link add lan0 type veth peer name lan1');
    // What the host's own IPv6 says at its start would be taken for ours.
    for (const name of ['lan0', 'lan1']) {
      writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
      ip(`link set ${name} up`);
    }
  });

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'tsm-leaks-'));
    clockMs = Date.now() - 60 * MINUTE_MS;
    lines = [];
    containers = [];
    await start();
  });

  afterEach(async () => {
    for (const name of containers) ip(`netns delete ${name}`);
    await stop();
    rmSync(directory, { recursive: true });
    for (const name of linkNames()) if (name.startsWith('tsm')) ip(`link delete ${name}`);
  });

  /** The kernel takes the links of a deleted namespace down a moment later (cleanup_net, net/core/net_namespace.c). */
  async function untilAlone(parent: string): Promise<void> {
    for (const untilMs = performance.now() + 5000; ; await sleep(20)) {
      try {
        ip(`link add alone0 link ${parent} type macvlan mode passthru`);
        return void ip('link delete alone0');
      } catch (error) {
        if (performance.now() > untilMs) throw error;
      }
    }
  }

  async function start(): Promise<void> {
    store = openLocalStore(directory);
    links = Links.open();
    const now = () => new Date(clockMs);
    const log = logInto(lines);
    ipam = new IpamDriver({ store, now, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
    driver = quietDriver({ store, links, hostAddresses: ipam, parentAliases: new Map(), log, now });
    await driver.recover();
    collector = new Collector({
      sources: [driver, ipam],
      log,
      agreeMs: 30,
      patienceMs: PATIENCE_MS,
      periodMs: 600_000,
    });
  }

  async function stop(): Promise<void> {
    await collector.stop();
    await driver.close();
    links.close();
    await store.close();
  }

  /** A network with our addresses, and its pool. */
  async function makeNetwork(options?: Record<string, string>, networkId = NETWORK): Promise<string> {
    const poolId = await requestPool(null);
    await createNetwork(networkId, options);
    return poolId;
  }

  async function requestPool(subPool: string | null): Promise<string> {
    const request = { addressSpace: SPACE, pool: '10.9.0.0/24', subPool, options: {}, v6: false };
    return (await ipam.requestPool(request)).poolId;
  }

  async function createNetwork(networkId: string, options: Record<string, string> = { parent: 'lan0' }): Promise<void> {
    const subnets = [{ addressSpace: SPACE, subnet: '10.9.0.0/24', gateway: null }];
    const families = { enableIPv4: true, enableIPv6: false, skipsGateways: true };
    await driver.createNetwork({ networkId, options, internal: false, ...families, subnets });
  }

  /** The endpoint as the engine makes it; answers its link's name. */
  async function makeEndpoint(poolId: string, digit: string): Promise<string> {
    const address = await ipam.requestAddress({
      poolId,
      address: null,
      isGateway: false,
      serial: false,
      name: null,
      limit: callLimit(),
    });
    const endpointId = digit.repeat(64);
    const rest = {
      macAddress: null,
      interfaceName: null,
      publishedPorts: [],
      wishedAddress: null,
      hostname: null,
      limit: callLimit(),
    };
    await driver.createEndpoint({ networkId: NETWORK, endpointId, ...requestedAddresses(address), ...rest });
    return `tsm${digit.repeat(12)}`;
  }

  /** Join, and what the engine does after it. */
  async function join_(digit: string, container: string): Promise<void> {
    const { linkName } = await driver.join(NETWORK, digit.repeat(64), callLimit());
    ip(`netns add ${container}`);
    containers.push(container);
    ip(`link set ${linkName} netns ${container} name eth0`);
    ip(`-n ${container} link set eth0 up`);
  }

  /** The engine and the container are killed: the namespace goes, and the link with it. */
  function kill(container: string): void {
    ip(`-n ${container} link delete eth0`);
    ip(`netns delete ${container}`);
    containers = containers.filter((name) => name !== container);
  }

  async function collect(isDryRun = false): Promise<string[]> {
    settle();
    return (await collector.collect({ isDryRun })).map(inWords);
  }

  function settle(): void {
    passedMs += SETTLED_MS;
    clockMs += SETTLED_MS;
  }

  const inWords = ({ state, kind, name }: FoundLeak) => `${state} ${kind} ${name}`;
  const endpointIds = async () => (await store.endpoints.list()).map(({ id }) => id[0]);
  const leased = async () => (await store.leases.list()).map(({ address }) => address);

  for (const mode of MODES) {
    test(`mode ${mode}: a container that lives keeps its address, one that died gives it back`, async () => {
      const pool = await makeNetwork({ parent: 'lan0', macvlan_mode: mode });
      await makeEndpoint(pool, '1');
      await join_('1', 'c1');
      assert.deepEqual(await collect(), []);
      kill('c1');
      assert.deepEqual(await collect(true), ['certain endpoint 111111111111 10.9.0.1/24']);
      assert.deepEqual(await endpointIds(), ['1']);
      assert.deepEqual(await collect(), ['collected endpoint 111111111111 10.9.0.1/24', 'collected lease 10.9.0.1']);
      assert.deepEqual([await endpointIds(), await leased()], [[], []]);
      await makeEndpoint(pool, '2');
      assert.deepEqual(await leased(), ['10.9.0.1']);
    });
  }

  test('the reason is said', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    kill('c1');
    settle();
    const [finding] = await collector.collect({ isDryRun: true });
    assert.equal(finding?.why, 'its link is gone and its MAC address is not in use on lan0');
  });

  test('a link that is down inside its container belongs to a living one', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    ip('-n c1 link set eth0 down');
    assert.deepEqual(await collect(), []);
  });

  test('a link whose MAC address was changed inside its container belongs to a living one', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    ip('-n c1 link set eth0 address 02:00:00:00:00:77');
    assert.deepEqual(await collect(), []);
  });

  test('a link that lost its alias inside its container belongs to a living one', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    execFileSync('ip', ['-n', 'c1', 'link', 'set', 'eth0', 'alias', '']);
    assert.deepEqual(await collect(), []);
  });

  for (const [what, alias] of [
    ['an alias of its own', 'uplink'],
    ['the alias of another endpoint', `tsmacvlan endpoint ${'2'.repeat(64)}`],
    ['the alias of a parent', 'tsmacvlan parent'],
  ] as const)
    test(`a link that got ${what} inside its container goes with it, by whatever way, and keeps nobody out`, async () => {
      await untilAlone('lan0');
      const pool = await makeNetwork({ parent: 'lan0', macvlan_mode: 'passthru' });
      // Of two whose aliases say the same one is not known in a namespace that a killed engine left: it goes with that.
      const ends = alias.includes('endpoint') ? ['DeleteEndpoint', 'none'] : ['DeleteEndpoint', 'none', 'kill'];
      for (const end of ends) {
        await makeEndpoint(pool, '1');
        await join_('1', 'c1');
        execFileSync('ip', ['-n', 'c1', 'link', 'set', 'eth0', 'alias', alias]);
        ip('-n c1 link set eth0 name other0');
        // The leases of the rounds before are nobody's.
        assert.deepEqual(
          (await collect(true)).filter((found) => !found.includes('lease')),
          [],
        );
        if (end !== 'kill') {
          // Linux numbers the namespaces that it shows: this one is process 1's for the engine.
          ip('-n c1 link set other0 down');
          ip(`-n c1 link set other0 netns ${process.pid} name tsm111111111111`);
        }
        if (end !== 'none') await driver.deleteEndpoint(NETWORK, '1'.repeat(64));
        // Whoever starts next finds its parent free, also when the engine never said that the first one has ended.
        settle();
        await makeEndpoint(pool, '3');
        await driver.deleteEndpoint(NETWORK, '3'.repeat(64));
        await stop();
        await start();
        assert.deepEqual(
          linkNames().filter((name) => /^tsm[0-9]/.test(name)),
          [],
        );
        assert.equal(ip('-n c1 -o link show type macvlan').trim(), '');
        assert.deepEqual(await endpointIds(), []);
        ip('netns delete c1');
        containers = [];
      }
    });

  test('a link of the MAC address of one that died is not its own on a link of another namespace with the index of the parent', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    const [endpoint] = await store.endpoints.list();
    const lan0 = await links.byName('lan0');
    assert.ok(endpoint && lan0);
    await join_('1', 'c1');
    kill('c1');
    ip('netns add c2');
    containers.push('c2');
    // The namespaces that a link was moved to from here are those that are read.
    ip('link add tie0 type veth peer name tie1');
    ip('link set tie0 netns c2');
    ip(`-n c2 link add base0 index ${lan0.index} type bridge`);
    ip(`-n c2 link add link base0 name like0 address ${endpoint.macAddress} type macvlan`);
    assert.equal((await collect())[0], 'collected endpoint 111111111111 10.9.0.1/24');
    assert.match(ip('-n c2 -o link show type macvlan'), /like0/);
  });

  for (const alias of [`tsmacvlan endpoint ${'2'.repeat(64)}`, `tsmacvlan endpoint ${'9'.repeat(64)}`, 'uplink'])
    test(`a link that got the alias "${alias.slice(0, 21)}…" and another MAC address inside its container keeps its address, and stays`, async () => {
      const pool = await makeNetwork();
      for (const digit of ['1', '2']) await makeEndpoint(pool, digit);
      for (const digit of ['1', '2']) await join_(digit, `c${digit}`);
      for (const digit of ['1', '2']) ip(`-n c${digit} address add 10.9.0.${digit}/24 dev eth0`);
      ip('-n c1 link set eth0 address 02:00:00:00:00:77');
      execFileSync('ip', ['-n', 'c1', 'link', 'set', 'eth0', 'alias', alias]);
      assert.deepEqual(await collect(), []);
      const address = parseAddress('10.9.0.1');
      assert.ok(address);
      const seen = [await driver.isGone('1'.repeat(64)), await driver.hasAddress('1'.repeat(64), address)];
      assert.deepEqual(seen, [false, true]);
      // The other one ends, where its engine was killed, and without a word.
      kill('c2');
      await driver.deleteEndpoint(NETWORK, '2'.repeat(64));
      await stop();
      await start();
      settle();
      assert.deepEqual(
        (await collect()).filter((found) => !found.includes('10.9.0.2')),
        [],
      );
      assert.match(ip('-n c1 -o link show type macvlan'), /eth0/);
      assert.deepEqual(await endpointIds(), ['1']);
    });

  test('a link that came back under its name is its endpoint’s, whatever aliases others have, and is not taken for another’s', async () => {
    const pool = await makeNetwork();
    for (const digit of ['1', '2']) await makeEndpoint(pool, digit);
    for (const digit of ['1', '2']) await join_(digit, `c${digit}`);
    for (const digit of ['1', '2']) {
      ip(`-n c${digit} link set eth0 down`);
      // Each says that it is the other one, in words that once were looked up among the names.
      const other = digit === '1' ? '2' : '1';
      const alias = digit === '1' ? `tsm${other.repeat(12)}` : `tsmacvlan endpoint ${other.repeat(64)}`;
      execFileSync('ip', ['-n', `c${digit}`, 'link', 'set', 'eth0', 'alias', alias]);
      ip(`-n c${digit} link set eth0 netns ${process.pid} name tsm${digit.repeat(12)}`);
    }
    // Both were found: what is nowhere is certain to be left over.
    const found = ['1', '2'].map((digit) => `suspected endpoint ${digit.repeat(12)} 10.9.0.${digit}/24`);
    assert.deepEqual(await collect(), found);
    await driver.deleteEndpoint(NETWORK, '1'.repeat(64));
    await stop();
    await start();
    assert.deepEqual(
      linkNames().filter((name) => /^tsm[0-9]/.test(name)),
      ['tsm222222222222'],
    );
    assert.deepEqual(await endpointIds(), ['2']);
  });

  test('DeleteEndpoint takes a link also out of a namespace that a killed engine left behind, and no other', async () => {
    const pool = await makeNetwork();
    for (const digit of ['1', '2', '3']) await makeEndpoint(pool, digit);
    for (const digit of ['1', '2', '3']) await join_(digit, `c${digit}`);
    // Killed before it gave the link its name and brought it up.
    ip('-n c1 link set eth0 down');
    ip('-n c1 link set eth0 name tsm111111111111');
    for (const digit of ['1', '2']) await driver.deleteEndpoint(NETWORK, digit.repeat(64));
    // Those on their way out are waited for.
    await stop();
    await start();
    const linkLines = (container: string) => ip(`-n ${container} -o link show type macvlan`).trim();
    assert.deepEqual([linkLines('c1'), linkLines('c2')], ['', '']);
    assert.match(linkLines('c3'), /eth0/);
    assert.deepEqual(await endpointIds(), ['3']);
  });

  test('a link in another namespace whose DeleteEndpoint was cut short is removed at the next start', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    const [endpoint] = await store.endpoints.list();
    assert.ok(endpoint);
    await stop();
    const before = openLocalStore(directory);
    await before.endpoints.replace(endpoint, { ...endpoint, state: 'deleting' });
    await before.close();
    await start();
    while ((await endpointIds()).length > 0) await sleep(10);
    assert.equal(ip('-n c1 -o link show type macvlan').trim(), '');
  });

  test('a parent that was renamed under its containers changes nothing for them', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    execFileSync('ip', ['-n', 'c1', 'link', 'set', 'eth0', 'alias', '']);
    ip('link set lan0 down');
    ip('link set lan0 name lan9');
    try {
      assert.deepEqual(await collect(), []);
    } finally {
      ip('link set lan9 name lan0');
      ip('link set lan0 up');
    }
  });

  test('a network that a swarm’s engine forgot when it was started anew goes with its pool; one that it asked for again stays', async () => {
    const collectLate = async () => {
      await collect();
      passedMs += PATIENCE_MS;
      return collect();
    };
    for (const isAskedForAgain of [true, false]) {
      await makeNetwork({ parent: 'lan0' }, SWARM_NETWORK);
      assert.deepEqual(await collectLate(), [], 'the engine made it');
      await stop();
      await start();
      if (isAskedForAgain) await makeNetwork({ parent: 'lan0' }, SWARM_NETWORK);
      assert.deepEqual(
        await collectLate(),
        isAskedForAgain ? [] : ['collected network k3f9z1q8w2e7', 'suspected pool 10.9.0.0/24'],
      );
    }
    assert.deepEqual(await store.networks.list(), []);
    assert.deepEqual(await collectLate(), ['collected pool 10.9.0.0/24']);
    assert.deepEqual(await store.pools.list(), []);
  });

  test('a network whose pools were released goes in minutes when no DeleteNetwork came; beside a living one on its subnet too', async () => {
    const other = 'b'.repeat(64);
    const pool = await makeNetwork();
    await collect();
    passedMs += PATIENCE_MS;
    assert.deepEqual(await collect(), [], 'its pool is there');
    await ipam.releasePool(pool);
    await makeNetwork({ parent: 'lan0' }, other);
    assert.deepEqual(await collect(), ['suspected network aaaaaaaaaaaa']);
    passedMs += PATIENCE_MS;
    assert.deepEqual(await collect(), ['collected network aaaaaaaaaaaa']);
    assert.deepEqual(
      (await store.networks.list()).map(({ id }) => id),
      [other],
    );
    assert.equal(
      lines.at(-1)?.fields['why'],
      'it has no containers and its pools were released, but no DeleteNetwork came',
    );
  });

  test('two networks made at the same moment, with ranges of one subnet: when one goes, the other keeps its pool', async () => {
    const other = 'b'.repeat(64);
    const [first, second] = [await requestPool('10.9.0.64/26'), await requestPool('10.9.0.128/26')];
    for (const networkId of [NETWORK, other]) await createNetwork(networkId);
    await ipam.releasePool(first);
    await driver.deleteNetwork(NETWORK);
    await collect();
    passedMs += PATIENCE_MS;
    assert.deepEqual(await collect(), []);
    assert.deepEqual(
      (await store.pools.list()).map(({ id, networkId }) => [id, networkId]),
      [[second, other]],
    );
    await ipam.releasePool(second);
    await driver.deleteNetwork(other);
    assert.deepEqual([await store.pools.list(), await store.networks.list()], [[], []]);
  });

  test('a network with a container stays, whatever became of its pools', async () => {
    await ipam.releasePool(await makeNetwork());
    const [pool] = [await makeNetwork()];
    await makeEndpoint(pool, '1');
    await ipam.releasePool(pool);
    await collect();
    passedMs += PATIENCE_MS;
    await collect();
    assert.equal((await store.networks.list()).length, 1);
  });

  test('what the engine is doing at this moment is left alone', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    kill('c1');
    const findings = await collector.collect({ isDryRun: false });
    assert.deepEqual(findings.map(inWords), []);
  });

  test('a link that came back and is waited for is collected in minutes, not in seconds', async () => {
    const pool = await makeNetwork();
    const linkName = await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    ip(`-n c1 link set eth0 down`);
    ip(`-n c1 link set eth0 netns 1 name ${linkName}`);
    assert.deepEqual(await collect(), ['suspected endpoint 111111111111 10.9.0.1/24']);
    assert.ok(linkNames().includes(linkName));
    passedMs += PATIENCE_MS;
    assert.ok((await collect()).includes('collected endpoint 111111111111 10.9.0.1/24'));
    assert.ok(!linkNames().includes(linkName));
  });

  test('a DeleteEndpoint that comes while it is suspected is the engine’s as ever', async () => {
    const pool = await makeNetwork();
    const linkName = await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    ip(`-n c1 link set eth0 down`);
    ip(`-n c1 link set eth0 netns 1 name ${linkName}`);
    await collect();
    await driver.deleteEndpoint(NETWORK, '1'.repeat(64));
    await ipam.releaseAddress({ poolId: pool, address: '10.9.0.1' });
    await driver.close();
    assert.deepEqual(await collect(), []);
    assert.deepEqual([await endpointIds(), await leased()], [[], []]);
  });

  test('an endpoint that is never joined is collected, one that is joined meanwhile is not', async () => {
    const pool = await makeNetwork();
    for (const digit of ['1', '2']) await makeEndpoint(pool, digit);
    assert.deepEqual(await collect(), [
      'suspected endpoint 111111111111 10.9.0.1/24',
      'suspected endpoint 222222222222 10.9.0.2/24',
    ]);
    await join_('2', 'c2');
    passedMs += PATIENCE_MS;
    assert.ok((await collect()).includes('collected endpoint 111111111111 10.9.0.1/24'));
    assert.deepEqual(await endpointIds(), ['2']);
  });

  test('a link of the host’s own that is up is in somebody’s use', async () => {
    const pool = await makeNetwork();
    const linkName = await makeEndpoint(pool, '1');
    ip(`link set ${linkName} up`);
    assert.deepEqual(await collect(), []);
  });

  test('links with our alias and no record go, those without our alias stay', async () => {
    await makeNetwork();
    for (const [name, alias] of [
      ['tsm333333333333', `tsmacvlan endpoint ${'3'.repeat(64)}`],
      ['tsmh33333333333', 'tsmacvlan host'],
      ['tsm444444444444', 'somebody else'],
    ] as const) {
      ip(`link add ${name} link lan0 type macvlan mode bridge`);
      execFileSync('ip', ['link', 'set', name, 'alias', alias]);
    }
    assert.deepEqual(await collect(), ['collected link tsm333333333333', 'collected link tsmh33333333333']);
    assert.deepEqual(
      linkNames().filter((name) => name.startsWith('tsm')),
      ['tsm444444444444'],
    );
  });

  test('a container in which nothing is known of us keeps its links', async () => {
    await makeNetwork();
    ip('netns add c1');
    containers.push('c1');
    ip('link add tsm555555555555 link lan0 netns c1 type macvlan mode bridge');
    assert.deepEqual(await collect(), []);
    assert.match(ip('-n c1 -o link'), /tsm555555555555/);
  });

  test('an address nobody asked a container for is freed, and a pool whose network is gone', async () => {
    const pool = await makeNetwork();
    await ipam.requestAddress({
      poolId: pool,
      address: null,
      isGateway: false,
      serial: false,
      name: null,
      limit: callLimit(),
    });
    assert.deepEqual(await collect(), ['suspected lease 10.9.0.1']);
    await driver.deleteNetwork(NETWORK);
    passedMs += PATIENCE_MS;
    assert.ok((await collect()).includes('suspected pool 10.9.0.0/24'));
    passedMs += PATIENCE_MS;
    clockMs += MINUTE_MS;
    await collect();
    assert.deepEqual([await store.pools.list(), await leased()], [[], []]);
  });

  test('the gateway of a pool that a crash took is freed', async () => {
    const pool = await makeNetwork();
    await ipam.requestAddress({
      poolId: pool,
      address: '10.9.0.1',
      isGateway: true,
      serial: false,
      name: null,
      limit: callLimit(),
    });
    assert.deepEqual(await collect(), []);
    const record = await store.pools.get(pool);
    assert.ok(record && (await store.pools.remove(record)));
    assert.deepEqual(await collect(), ['suspected network aaaaaaaaaaaa', 'suspected lease 10.9.0.1']);
    passedMs += PATIENCE_MS;
    await collect();
    assert.deepEqual([await leased(), await store.networks.list()], [[], []]);
  });

  test('a start after a reboot finds the dead of before', async () => {
    const pool = await makeNetwork();
    for (const digit of ['1', '2', '3']) {
      await makeEndpoint(pool, digit);
      await join_(digit, `c${digit}`);
    }
    for (const container of ['c1', 'c3']) kill(container);
    await stop();
    await start();
    assert.deepEqual((await collect()).sort(), [
      'collected endpoint 111111111111 10.9.0.1/24',
      'collected endpoint 333333333333 10.9.0.3/24',
      'suspected lease 10.9.0.1',
      'suspected lease 10.9.0.3',
    ]);
    assert.deepEqual(await endpointIds(), ['2']);
  });

  test('a clock that is set ahead by a day makes nothing old', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    clockMs += 24 * 60 * MINUTE_MS;
    assert.deepEqual((await collector.collect({ isDryRun: false })).map(inWords), []);
  });

  test('a clock that is set back by a day delays nothing', async () => {
    const pool = await makeNetwork();
    await makeEndpoint(pool, '1');
    await join_('1', 'c1');
    kill('c1');
    clockMs -= 24 * 60 * MINUTE_MS;
    assert.ok((await collect()).includes('collected endpoint 111111111111 10.9.0.1/24'));
    assert.deepEqual(await collect(), ['collected lease 10.9.0.1']);
  });

  test('a trial leaves no link behind, and says nothing on the LAN', async () => {
    const pool = await makeNetwork();
    for (const digit of ['1', '2', '3', '4', '5', '6', '7', '8', '9']) {
      await makeEndpoint(pool, digit);
      await driver.join(NETWORK, digit.repeat(64), callLimit());
      ip(`link delete tsm${digit.repeat(12)}`);
    }
    const before = sent();
    await collect(true);
    assert.equal(sent(), before);
    assert.deepEqual(linkNames().sort(), ['lan0', 'lan1', 'lo']);
  });

  function sent(): number {
    const [link] = JSON.parse(ip('-j -s link show lan0')) as { stats64: { tx: { packets: number } } }[];
    return link?.stats64.tx.packets ?? -1;
  }
});
