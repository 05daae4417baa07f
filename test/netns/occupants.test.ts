/**
 * Who is in the way of a start, on real links: what a record says is asked of the kernel before anybody is refused. The
 * file's own network namespace is the host; containers are namespaces into which a test moves the links, as engines do:
 *
 *     lan0 ── veth ── lan1          c1, c2 … ── links on lan0
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import { parseAddress } from '../../src/address.ts';
import { PluginError } from '../../src/errors.ts';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { Links } from '../../src/kernel/link.ts';
import { MODES, type Mode } from '../../src/model.ts';
import type { NetworkDriver } from '../../src/network/driver.ts';
import type { EndpointRequest } from '../../src/requests.ts';
import { readCreateEndpoint } from '../../src/server/wire.ts';
import { type LocalStore, openLocalStore } from '../../src/store/local.ts';
import { requestedAddresses } from '../lab/addresses.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { quietDriver } from '../lab/networkdriver.ts';
import { callLimit, until } from '../lab/patience.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';
import { type Line, logInto } from '../unit/server/door.ts';

const ip = (words: string) =>
  execFileSync('ip', words.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
const linkNames = () => [...ip('-o link').matchAll(/^\d+: ([^:@]+)/gm)].map(([, name = '']) => name);
const id = (digit: string) => digit.repeat(64);

const NETWORK = id('a');
/** A call with so little time refuses as soon as it is not certain that the other one is gone. */
const SHORT_MS = 2500;
/** Who lives is refused in less; who may live is waited for longer. */
const SOON_MS = 2000;
/** Longer than an engine needs to move a link, with many containers at once. */
const SETTLED_MS = 60_000;

/** Time that a test lets pass instead of waiting for it. */
let passedMs = 0;
const monotonic = performance.now.bind(performance);
performance.now = () => monotonic() + passedMs;

describe('who is in the way of a start, on real links', { skip: outsideLab(), timeout: 300_000 }, () => {
  let directory: string;
  let store: LocalStore;
  let links: Links;
  let driver: NetworkDriver;
  let lines: Line[];
  let containers: string[];
  let clockMs: number;

  before(() => {
    ip('link add lan0 type veth peer name lan1');
    for (const name of ['lan0', 'lan1']) {
      writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
      ip(`link set ${name} up`);
    }
  });

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'tsm-occupants-'));
    [lines, containers, clockMs] = [[], [], Date.now()];
    await start();
  });

  afterEach(async () => {
    for (const name of containers) {
      // The kernel may take its time for a namespace, and its links have the MAC addresses of the next test.
      for (const [, link = ''] of ip(`-n ${name} -o link show type macvlan`).matchAll(/^\d+: ([^:@]+)/gm))
        ip(`-n ${name} link delete ${link}`);
      ip(`netns delete ${name}`);
    }
    await driver.deleteNetwork(NETWORK);
    await stop();
    rmSync(directory, { recursive: true });
    assert.deepEqual(
      linkNames().filter((name) => name.startsWith('tsm')),
      [],
    );
  });

  async function start(): Promise<void> {
    store = openLocalStore(directory);
    links = Links.open();
    const hostAddresses = new IpamDriver({ store, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
    const now = () => new Date(clockMs);
    driver = quietDriver({ store, links, hostAddresses, parentAliases: new Map(), log: logInto(lines), now });
    await driver.recover();
  }

  async function stop(): Promise<void> {
    await driver.close();
    links.close();
    await store.close();
  }

  async function makeNetwork(mode: Mode = 'bridge'): Promise<void> {
    const subnets = [
      { addressSpace: 'Local', subnet: '10.9.0.0/24', gateway: '10.9.0.254' },
      { addressSpace: 'Local', subnet: 'fd09::/64', gateway: 'fd09::fe' },
    ];
    const options = { parent: 'lan0', macvlan_mode: mode };
    const families = { enableIPv4: true, enableIPv6: true, skipsGateways: true };
    await driver.createNetwork({ networkId: NETWORK, options, internal: false, ...families, subnets });
  }

  interface Wish {
    readonly macAddress?: string;
    readonly limitMs?: number;
  }

  async function create(digit: string, address: string | null, { macAddress, limitMs = 9000 }: Wish = {}) {
    const [ipv4, ipv6 = null] = address?.split(' ') ?? [null];
    const request: EndpointRequest = {
      networkId: NETWORK,
      endpointId: id(digit),
      ...requestedAddresses(ipv4 || null, ipv6),
      macAddress: macAddress ?? null,
      interfaceName: null,
      publishedPorts: [],
      wishedAddress: null,
      hostname: null,
      limit: callLimit(limitMs),
    };
    return driver.createEndpoint(request);
  }

  /** Join, and what the engine does after it. */
  async function enter(digit: string, ...addresses: string[]): Promise<void> {
    await driver.join(NETWORK, id(digit), callLimit());
    const container = move(digit);
    for (const address of addresses) ip(`-n ${container} address add ${address} dev eth0${noDad(address)}`);
    ip(`-n ${container} link set eth0 up`);
  }

  /** The engine puts the link into the container; its name there is answered. */
  function move(digit: string): string {
    const container = `c${digit}`;
    ip(`netns add ${container}`);
    containers.push(container);
    ip(`link set tsm${digit.repeat(12)} netns ${container} name eth0`);
    return container;
  }

  const noDad = (address: string) => (address.includes(':') ? ' nodad' : '');

  /** The container is killed: the kernel ends its namespace, and the link with it, some time later. */
  function kill(digit: string): void {
    ip(`netns delete c${digit}`);
    containers = containers.filter((name) => name !== `c${digit}`);
  }

  /** The engine takes the link back, and its DeleteEndpoint never comes. */
  function giveBack(digit: string): void {
    ip(`-n c${digit} link set eth0 down`);
    ip(`-n c${digit} link set eth0 netns 1 name tsm${digit.repeat(12)}`);
  }

  async function refusal(attempt: Promise<unknown>): Promise<string> {
    const error: unknown = await attempt.then(
      () => assert.fail('was accepted'),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof PluginError, String(error));
    return error.code;
  }

  async function refusedSoon(attempt: () => Promise<unknown>): Promise<string> {
    const beginMs = monotonic();
    const code = await refusal(attempt());
    assert.ok(monotonic() - beginMs < SOON_MS);
    return code;
  }

  const recorded = async () => (await store.endpoints.list()).map((one) => one.id[0]).sort();
  /** The last of another one goes in the background. */
  const untilOnly = (digit: string) => until(async () => (await recorded()).join() === digit);

  // --- a container that is gone ---------------------------------------------------------------------------------------

  for (const mode of MODES) {
    test(`mode ${mode}: whose container was killed is in nobody's way, whoever lives is`, async () => {
      await makeNetwork(mode);
      await create('1', '10.9.0.2/24');
      await enter('1', '10.9.0.2/24');
      const code = mode === 'passthru' ? 'PASSTHRU_OCCUPIED' : 'ADDRESS_TAKEN';
      assert.equal(await refusedSoon(() => create('2', '10.9.0.2/24')), code);
      kill('1');
      await create('2', '10.9.0.2/24');
      await enter('2', '10.9.0.2/24');
      await untilOnly('2');
      const [line] = lines.filter(({ level }) => level === 'warn');
      assert.match(line?.message ?? '', /^removing an endpoint whose container is gone/);
    });
  }

  test('its MAC address is free too, for who wants it by name', async () => {
    await makeNetwork();
    const macAddress = '02:00:00:00:00:09';
    await create('1', '10.9.0.2/24', { macAddress });
    await enter('1', '10.9.0.2/24');
    assert.equal(await refusedSoon(() => create('2', '10.9.0.3/24', { macAddress })), 'MAC_TAKEN');
    kill('1');
    assert.deepEqual(await create('2', '10.9.0.3/24', { macAddress }), { macAddress: null });
    await untilOnly('2');
  });

  test('forty containers that were killed together start again together', async () => {
    await makeNetwork();
    const digits = Array.from({ length: 40 }, (_, number) =>
      String.fromCharCode(0x41 + number + (number > 25 ? 6 : 0)),
    );
    const ids = digits.filter((digit) => /[A-Za-z]/.test(digit));
    for (const [number, digit] of ids.entries()) {
      await create(digit, `10.9.0.${number + 2}/24`);
      await enter(digit, `10.9.0.${number + 2}/24`);
    }
    for (const digit of ids) kill(digit);
    await Promise.all(ids.map((_, number) => create(String(number).padStart(2, '0'), `10.9.0.${number + 2}/24`)));
    await until(async () => (await store.endpoints.list()).length === ids.length);
  });

  test('a link that is down inside its container, or lost its alias there, is that of a living one', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await enter('1', '10.9.0.2/24');
    ip('-n c1 link set eth0 down');
    assert.equal(await refusedSoon(() => create('2', '10.9.0.2/24')), 'ADDRESS_TAKEN');
    ip('-n c1 link set eth0 up');
    execFileSync('ip', ['-n', 'c1', 'link', 'set', 'eth0', 'alias', '']);
    assert.equal(await refusal(create('2', '10.9.0.2/24', { limitMs: SHORT_MS })), 'ADDRESS_TAKEN');
    assert.deepEqual(await recorded(), ['1']);
  });

  test('a link that came back without a DeleteEndpoint is in nobody’s way', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await enter('1', '10.9.0.2/24');
    passedMs += SETTLED_MS;
    giveBack('1');
    await create('2', '10.9.0.2/24');
    await untilOnly('2');
    await enter('2', '10.9.0.2/24');
  });

  test('a link that carried frames was in a container, however short ago that was', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await enter('1', '10.9.0.2/24');
    speak('c1');
    giveBack('1');
    await create('2', '10.9.0.2/24', { limitMs: SHORT_MS });
    await untilOnly('2');
  });

  /** At least one frame goes out, which nobody answers. */
  function speak(container: string): void {
    try {
      execFileSync('ip', ['netns', 'exec', container, 'ping', '-c', '1', '-W', '1', '10.9.0.99'], { stdio: 'ignore' });
    } catch {
      // Nobody is there.
    }
  }

  test('a link that an engine is about to move is waited for: who gets it into a container lives', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    assert.equal(await refusal(create('2', '10.9.0.2/24', { limitMs: SHORT_MS })), 'ADDRESS_TAKEN');
    const [, code] = await Promise.all([
      sleep(300).then(() => enter('1', '10.9.0.2/24')),
      refusal(create('2', '10.9.0.2/24')),
    ]);
    assert.equal(code, 'ADDRESS_TAKEN');
    assert.deepEqual(await recorded(), ['1']);
  });

  test('a link that waits for its container for half a minute is not one that came back', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await driver.join(NETWORK, id('1'), callLimit());
    passedMs += SETTLED_MS / 2;
    assert.equal(await driver.isGone(id('1')), false);
    assert.equal(await refusal(create('2', '10.9.0.2/24', { limitMs: SHORT_MS })), 'ADDRESS_TAKEN');
    ip(`-n ${move('1')} link show eth0`);
    assert.deepEqual(await recorded(), ['1']);
  });

  for (const moment of ['look', 'deletion'] as const) {
    test(`a link that its engine moves at last, at the ${moment}, is not deleted in the container`, async () => {
      await makeNetwork();
      await create('1', '10.9.0.2/24');
      await driver.join(NETWORK, id('1'), callLimit());
      passedMs += SETTLED_MS;
      moveAt(moment, '1');
      assert.equal(await refusal(create('2', '10.9.0.2/24', { limitMs: SHORT_MS })), 'ADDRESS_TAKEN');
      ip('-n c1 link show eth0');
      assert.equal((await store.endpoints.get(id('1')))?.state, 'joined');
    });
  }

  test('nor is it by who looks for leaks', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await driver.join(NETWORK, id('1'), callLimit());
    passedMs += SETTLED_MS;
    const [leak, ...others] = await driver.leaks();
    assert.deepEqual(others, []);
    moveAt('deletion', '1');
    assert.equal(await leak?.collect(), false);
    ip('-n c1 link show eth0');
    assert.equal((await store.endpoints.get(id('1')))?.state, 'joined');
  });

  /** Between the first look and the next step, or when the deletion of the link is on its way to the kernel. */
  function moveAt(moment: 'look' | 'deletion', digit: string): void {
    const [list, deleteLink] = [links.list.bind(links), links.deleteLink.bind(links)];
    const isMoved = () => containers.includes(`c${digit}`);
    links.list = async (keep) => {
      const found = await list(keep);
      if (moment === 'look' && !isMoved()) move(digit);
      return found;
    };
    links.deleteLink = async (index) => {
      if (moment === 'deletion' && !isMoved()) move(digit);
      return deleteLink(index);
    };
  }

  test('whatever the clock is set to, a link is not older than it is, nor younger than this process', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    clockMs += 24 * 3_600_000;
    assert.equal(await refusal(create('2', '10.9.0.2/24', { limitMs: SHORT_MS })), 'ADDRESS_TAKEN');
    // The record is from tomorrow now, for the next process.
    clockMs -= 48 * 3_600_000;
    await stop();
    await start();
    assert.equal(await refusal(create('2', '10.9.0.2/24', { limitMs: SHORT_MS })), 'ADDRESS_TAKEN');
    passedMs += SETTLED_MS;
    await create('2', '10.9.0.2/24');
    await untilOnly('2');
  });

  test('what a restart of the plugin finds that came back long ago is in nobody’s way', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await enter('1', '10.9.0.2/24');
    giveBack('1');
    await stop();
    clockMs += SETTLED_MS;
    await start();
    await create('2', '10.9.0.2/24', { limitMs: SHORT_MS });
    await untilOnly('2');
  });

  test('the IPAM is told who is gone', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await enter('1', '10.9.0.2/24');
    assert.equal(await driver.isGone(id('1')), false);
    assert.equal(await driver.isGone(id('9')), true, 'unknown');
    kill('1');
    assert.equal(await driver.isGone(id('1')), true);
    await driver.deleteEndpoint(NETWORK, id('1'));
    assert.equal(await driver.isGone(id('1')), true, 'leaving');
  });

  test('a network that comes back otherwise than it was is refused while a container of it lives', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24');
    await enter('1', '10.9.0.2/24');
    assert.equal(await refusal(makeNetwork('private')), 'NETWORK_DIFFERS');
    kill('1');
    await until(() =>
      makeNetwork('private').then(
        () => true,
        () => false,
      ),
    );
    assert.equal((await store.networks.get(NETWORK))?.options.mode, 'private');
    assert.deepEqual(await recorded(), []);
  });

  // --- an address that the engine took back ----------------------------------------------------------------------------

  /** As engine 29 sends it for a container with `net.ipv6.conf.IFNAME.disable_ipv6=1`: nothing of that is in it. */
  const sentBy29 = (EndpointID: string, Address: string, AddressIPv6: string) => ({
    ...readCreateEndpoint({
      NetworkID: NETWORK,
      EndpointID,
      Options: {
        'com.docker.network.endpoint.exposedports': [],
        'com.docker.network.portmap': [],
      },
      Interface: { Address, AddressIPv6, MacAddress: '' },
    }),
    limit: callLimit(),
  });

  test('engine 29 gives an IPv6 address on that a container with IPv6 disabled does not have', async () => {
    await makeNetwork();
    await driver.createEndpoint(sentBy29(id('1'), '10.9.0.2/24', 'fd09::2/64'));
    await enter('1', '10.9.0.2/24');
    assert.equal(await driver.hasAddress(id('1'), address('10.9.0.2')), true);
    assert.equal(await driver.hasAddress(id('1'), address('fd09::2')), false);
    await driver.createEndpoint(sentBy29(id('2'), '10.9.0.3/24', 'fd09::2/64'));
    await enter('2', '10.9.0.3/24', 'fd09::2/64');
    const kept = (await store.endpoints.get(id('1')))?.addresses.map(({ family }) => family);
    assert.deepEqual(kept, ['IPv4']);
    const again = driver.createEndpoint(sentBy29(id('3'), '10.9.0.4/24', 'fd09::2/64'));
    assert.equal(await refusal(again), 'ADDRESS_TAKEN', 'the second has it');
    assert.equal(await refusal(driver.createEndpoint(sentBy29(id('3'), '10.9.0.2/24', ''))), 'ADDRESS_TAKEN');
  });

  test('an address is not lost before the engine has brought the link up', async () => {
    await makeNetwork();
    await create('1', '10.9.0.2/24 fd09::2/64');
    await enter('1', '10.9.0.2/24');
    ip('-n c1 link set eth0 down');
    assert.equal(await driver.hasAddress(id('1'), address('fd09::2')), true);
    assert.equal(await driver.hasAddress(id('9'), address('fd09::2')), false, 'unknown');
    assert.equal(await refusal(create('2', '10.9.0.3/24 fd09::2/64')), 'ADDRESS_TAKEN');
  });

  const address = (text: string) => {
    const parsed = parseAddress(text);
    assert.ok(parsed);
    return parsed;
  };

  // --- MAC addresses that nobody chose ---------------------------------------------------------------------------------

  for (const [family, own, other] of [
    ['IPv4', '10.9.0.64/24', '10.9.0.9/24'],
    ['IPv6', ' fd09::64/64', ' fd09::9/64'],
  ] as const) {
    test(`${family}: a MAC address that nobody chose gives way to one that somebody did`, async () => {
      await makeNetwork();
      const usual = (await create('1', own)).macAddress;
      assert.ok(usual);
      await driver.deleteEndpoint(NETWORK, id('1'));
      await create('2', other, { macAddress: usual });
      await enter('2', other.trim());
      const { macAddress: replaced } = await create('1', own);
      assert.match(replaced ?? '', /^02:42:/);
      assert.notEqual(replaced, usual);
      await enter('1', own.trim());
      kill('1');
      assert.deepEqual(await create('3', own), { macAddress: replaced }, 'the same when it starts again');
      assert.equal(await refusedSoon(() => create('4', '10.9.0.4/24', { macAddress: usual })), 'MAC_TAKEN');
      for (const digit of ['2', '3']) await driver.deleteEndpoint(NETWORK, id(digit));
      assert.deepEqual(await create('5', own), { macAddress: usual }, 'free again');
    });
  }

  test('the MAC address of the parent is no container’s', async () => {
    ip('link set lan0 address 02:42:0a:09:00:07');
    await makeNetwork();
    const { macAddress } = await create('1', '10.9.0.7/24');
    assert.match(macAddress ?? '', /^02:42:(?!0a:09:00:07)/);
    const typed = create('2', '10.9.0.8/24', { macAddress: '02:42:0A:09:00:07' });
    assert.equal(await refusal(typed), 'MAC_OF_PARENT');
    await enter('1', '10.9.0.7/24');
  });

  test('of two that come at once with one MAC address both get one', async () => {
    await makeNetwork();
    const answers = await Promise.all([
      create('1', '10.9.0.5/24', { macAddress: '02:42:0a:09:00:06' }),
      create('2', '10.9.0.6/24'),
    ]);
    const macs = (await store.endpoints.list()).map(({ macAddress }) => macAddress);
    assert.equal(new Set(macs).size, 2, JSON.stringify(answers));
  });
});
