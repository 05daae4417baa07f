/**
 * A host that loses its power, and the last time is shut down in order, comes back with everything on the LAN: boots over
 * one disk, three of them or `make reboots COUNT=20`. Links, addresses, routes and everything in /run are gone each time; Docker's state and ours are on the disk.
 *
 *     host: tagged, shared (host access), lone ── eth0 ── switch ── trunk0 ── neighbour (10.50.N.254 on VLAN 5N)
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { output } from '../lab/command.ts';
import { assertPings, attachment, removeContainers, runIdle } from '../lab/container.ts';
import type { Engine } from '../lab/engine.ts';
import { assertNothingLeft } from '../lab/invariant.ts';
import { Namespace } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';
import { type Machine, Site } from '../lab/site.ts';
import { inVlanKernel } from '../lab/uml.ts';

interface Network {
  readonly name: string;
  readonly number: number;
  /** Words of `docker network create`. */
  readonly options: string;
  /** Words of `docker run`. */
  readonly run: string;
}

const OURS = '--ipam-driver tsmacvlan';
const ON_LAN: Network[] = [
  { name: 'tagged', number: 1, options: `${OURS} -o parent=eth0.51`, run: '--ip 10.50.1.9' },
  {
    name: 'shared',
    number: 2,
    options: `${OURS} -o parent=eth0 -o vlan=52 -o host_access=true`,
    run: '--ip 10.50.2.9',
  },
  { name: 'default-ipam', number: 3, options: '-o parent=eth0.53', run: '--ip 10.50.3.9' },
];
const ALONE: Network = { name: 'alone', number: 4, options: OURS, run: '--ip 10.50.4.9' };
/** Made in the last moment before the power is cut. */
const LATE: Network = { name: 'late', number: 5, options: `${OURS} -o parent=eth0.55`, run: '' };
const timeout = 240_000;
/** The first sets up, the last cleans; at least 3. */
const BOOTS = Number(process.env['VLAN_BOOTS'] ?? process.env['BOOTS'] ?? 3);

inVlanKernel(import.meta.filename, { memoryMb: 2048, boots: BOOTS, losesPower: true }, (boot) => {
  describe('a host', () => {
    let machine: Machine;
    let engine: Engine;
    let host: Namespace;

    before(
      async () => {
        const site = await Site.open({ version: '28.5.2', hosts: ['host'], links: ['eth0'] });
        machine = site.machines[0] as Machine;
        ({ engine } = machine);
        host = machine.host.namespace;
        const neighbour = await Namespace.create('neighbour');
        await site.lan.plug(neighbour, 'trunk0');
        for (const { number } of ON_LAN) await addVlan(neighbour, 50 + number, `10.50.${number}.254/24`);
      },
      { timeout },
    );

    if (boot === 1) {
      test('gets networks and containers, and its power is cut', { timeout }, async () => {
        for (const network of [...ON_LAN, ALONE]) {
          await create(engine, network);
          await runIdle(engine, network.name, `--restart always --net ${network.name} ${network.run}`);
        }
        await runIdle(engine, 'second', '--restart always --net alone');
        // Docker does not sync what it writes about containers. A network, it and we do.
        await output(['sync']);
        await create(engine, LATE);
      });
      return;
    }

    test('has its containers running again, with their addresses', { timeout }, async () => {
      for (const { name, number } of [...ON_LAN, ALONE]) {
        await isRunning(engine, name);
        assert.equal((await attachment(engine, name, name)).IPAddress, `10.50.${number}.9`);
      }
    });

    test('has its VLANs, its isolated link and its own end of host access', { timeout }, async () => {
      const links = await host.show<{ ifname: string; ifalias?: string; operstate: string }>('-d link');
      const aliasOf = (name: string) => links.find(({ ifname }) => ifname === name)?.ifalias;
      for (const { number } of [...ON_LAN, LATE]) assert.equal(aliasOf(`eth0.${50 + number}`), 'tsmacvlan parent');
      assert.equal(links.filter(({ ifalias }) => ifalias === 'tsmacvlan parent').length, 5);
      assert.equal(links.filter(({ ifalias }) => ifalias === 'tsmacvlan host').length, 1);
      const routes = await host.show<{ dst: string }>('route');
      assert.ok(
        routes.some(({ dst }) => dst === '10.50.2.9'),
        JSON.stringify(routes),
      );
    });

    test('has its containers on the LAN again', { timeout }, async () => {
      for (const { name, number } of ON_LAN) await assertPings(engine, name, `10.50.${number}.254`);
      await isRunning(engine, 'second');
      await assertPings(engine, 'alone', (await attachment(engine, 'second', 'alone')).IPAddress);
      const { code, stdout } = await host.run(['ping', '-c', '1', '-W', '10', '10.50.2.9']);
      assert.equal(code, 0, stdout);
    });

    test('gives a new container an address that nobody has', { timeout }, async () => {
      const taken = await engine.docker('run', '--rm', '--net', 'tagged', '--ip', '10.50.1.9', 'busybox', 'true');
      assert.match(taken.stderr, /10\.50\.1\.9/);
      await runIdle(engine, 'new', '--net tagged');
      await assertPings(engine, 'new', '10.50.1.9');
      await removeContainers(engine, 'new');
    });

    if (boot < BOOTS - 1) {
      test('loses its power right after a change', { timeout }, async () => {
        await output(['sync']);
        await engine.must('network', 'rm', LATE.name);
        await create(engine, LATE);
      });
      return;
    }

    if (boot === BOOTS - 1) {
      test('is shut down in order', { timeout }, async () => {
        await engine.stop();
        await machine.plugin.stop();
        await output(['sync']);
      });
      return;
    }

    test('can be cleaned: nothing is left', { timeout }, async () => {
      await removeContainers(engine, ...[...ON_LAN, ALONE].map(({ name }) => name), 'second');
      await engine.must('network', 'rm', ...[...ON_LAN, ALONE, LATE].map(({ name }) => name));
      await assertNothingLeft(machine);
    });
  });
});

async function addVlan(namespace: Namespace, id: number, address: string): Promise<void> {
  await namespace.ip(`link add trunk0.${id} link trunk0 type vlan id ${id}`);
  await namespace.ip(`address add ${address} dev trunk0.${id}`);
  await namespace.ip(`link set trunk0.${id} up`);
}

function create(engine: Engine, { name, number, options }: Network): Promise<string> {
  const subnet = `--subnet 10.50.${number}.0/24`;
  return engine.must('network', 'create', ...`-d tsmacvlan ${subnet} ${options} ${name}`.split(' '));
}

/** Waits for what a restart policy brings back. */
async function isRunning(engine: Engine, name: string): Promise<void> {
  const state = async () => {
    const { State } = await engine.inspect<{ State: { Status: string; Error: string } }>(`/containers/${name}/json`);
    return `${State.Status} ${State.Error}`.trim();
  };
  await until(async () => (await state()) === 'running', { detail: state });
}
