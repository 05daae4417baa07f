/**
 * The four modes: who among the siblings on one parent sees whom.
 *
 *     host: ann, bob ──lan0── switch 192.0.2.254, which may send frames back through the port they came from (hairpin)
 *                   ──lan1──
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { assertNoPing, assertPings, attachment, clearEngine, runIdle, runInside } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { Site } from '../lab/site.ts';

/** The kernel keeps siblings apart, whatever engine started them. */
const VERSION: Version = '28.5.2';
const ROUTER = '192.0.2.254';

describe(`modes, engine ${VERSION}`, { skip: outsideLab(), timeout: 400_000 }, () => {
  let site: Site;
  let engine: Engine;

  before(async () => {
    site = await Site.open({ version: VERSION, hosts: ['host'], links: ['lan0', 'lan1'], addresses: [`${ROUTER}/24`] });
    engine = site.machines[0]?.engine as Engine;
  });
  after(() => site.close());
  afterEach(() => clearEngine(engine));

  test('bridge: siblings reach each other and the LAN', async () => {
    await twoSiblings(engine, 'bridge');
    await assertPings(engine, 'ann', 'bob');
    await assertPings(engine, 'ann', ROUTER);
  });

  test('private: siblings never reach each other, both reach the LAN', async () => {
    await twoSiblings(engine, 'private');
    await assertNoPing(engine, 'ann', (await attachment(engine, 'bob', 'net')).IPAddress);
    for (const name of ['ann', 'bob']) await assertPings(engine, name, ROUTER);
  });

  test('private: not even when the switch sends frames back', async () => {
    await twoSiblings(engine, 'private');
    await withHairpin(site, async () => {
      await assertNoPing(engine, 'ann', (await attachment(engine, 'bob', 'net')).IPAddress);
    });
  });

  test('vepa: siblings reach each other when the switch sends frames back, and only then', async () => {
    await twoSiblings(engine, 'vepa');
    const { IPAddress: target } = await attachment(engine, 'bob', 'net');
    await assertNoPing(engine, 'ann', target);
    await withHairpin(site, () => assertPings(engine, 'ann', target));
    await assertNoPing(engine, 'ann', target);
    for (const name of ['ann', 'bob']) await assertPings(engine, name, ROUTER);
  });

  test('passthru: the container has the parent to itself, with the MAC of the parent', async () => {
    await createNetwork(engine, 'net', 'passthru', 'lan1');
    await runIdle(engine, 'ann', '--net net');
    await assertPings(engine, 'ann', ROUTER);
    const [parent] = (await site.machines[0]?.host.namespace.show<{ address: string }>('link show lan1')) ?? [];
    assert.equal((await attachment(engine, 'ann', 'net')).MacAddress, parent?.address);
    const second = await engine.docker('run', '--rm', '--net', 'net', 'busybox', 'true');
    assert.match(
      second.stderr,
      /parent "lan1" is in mode passthru and already belongs to endpoint [0-9a-f]{12}; stop that container first/,
    );
  });

  test('passthru: no other network on that parent, whichever comes first', async () => {
    await createNetwork(engine, 'net', 'passthru', 'lan1');
    const second = await tryCreateNetwork(engine, 'second', 'bridge', 'lan1', '198.51.100.0/24');
    assert.match(
      second.stderr,
      /parent "lan1" belongs to network [0-9a-f]{12} in mode passthru, which takes the whole interface/,
    );
    await createNetwork(engine, 'first', 'bridge', 'lan0', '198.51.100.0/24');
    const third = await tryCreateNetwork(engine, 'third', 'passthru', 'lan0', '203.0.113.0/24');
    assert.match(
      third.stderr,
      /parent "lan0" already carries network [0-9a-f]{12}, and mode passthru needs a parent of its own/,
    );
  });

  test('networks of different modes share one parent', async () => {
    await createNetwork(engine, 'net', 'bridge', 'lan0');
    await createNetwork(engine, 'lonely', 'private', 'lan0', '198.51.100.0/24');
    await runIdle(engine, 'ann', '--net net');
    await runIdle(engine, 'bob', '--net net');
    await runIdle(engine, 'cem', '--net lonely');
    await runIdle(engine, 'dan', '--net lonely');
    await assertPings(engine, 'ann', 'bob');
    await assertNoPing(engine, 'cem', (await attachment(engine, 'dan', 'lonely')).IPAddress);
  });

  test('two networks on one parent are one LAN: a container of the other subnet answers ARP', async () => {
    await createNetwork(engine, 'net', 'bridge', 'lan0');
    await createNetwork(engine, 'other', 'bridge', 'lan0', '198.51.100.0/24');
    await runIdle(engine, 'ann', '--net net');
    await runIdle(engine, 'bob', '--net other');
    const { IPAddress, MacAddress } = await attachment(engine, 'bob', 'other');
    const { stdout } = await runInside(engine, 'ann', 'arping', '-c', '1', '-w', '5', '-I', 'eth0', IPAddress);
    assert.ok(stdout.includes(MacAddress), stdout);
  });
});

async function twoSiblings(engine: Engine, mode: string): Promise<void> {
  await createNetwork(engine, 'net', mode, 'lan0');
  for (const name of ['ann', 'bob']) await runIdle(engine, name, '--net net');
}

async function createNetwork(
  engine: Engine,
  name: string,
  mode: string,
  parent: string,
  subnet?: string,
): Promise<void> {
  const { code, stderr } = await tryCreateNetwork(engine, name, mode, parent, subnet);
  assert.equal(code, 0, stderr);
}

function tryCreateNetwork(engine: Engine, name: string, mode: string, parent: string, subnet = '192.0.2.0/24') {
  const gateway = subnet === '192.0.2.0/24' ? ['--gateway', ROUTER] : [];
  const options = ['--subnet', subnet, ...gateway, '-o', `parent=${parent}`, '-o', `macvlan_mode=${mode}`];
  return engine.docker('network', 'create', '-d', 'tsmacvlan', '--ipam-driver', 'tsmacvlan', ...options, name);
}

async function withHairpin(site: Site, action: () => Promise<void>): Promise<void> {
  const port = site.machines[0]?.host.ports.lan0 ?? '';
  await site.lan.setHairpin(port, true);
  await action();
  await site.lan.setHairpin(port, false);
}
