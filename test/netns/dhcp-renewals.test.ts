/**
 * Leases of 20 s, kept from outside the containers: through a daemon that is killed, servers that lose their leases, and a server
 * that is away. Judged by the servers' lease files, the containers' kernels and the frames on the wire.
 *
 *     host "one": tsmacvlan, containers ── lan0 ── br0 (ns "lan")   ── kea
 *                                       ── lan1 ── br0 (ns "other") ── udhcpd, which refuses what it forgot
 *
 * Two minutes with eight containers, or as many as `DHCP_MINUTES` and `DHCP_CONTAINERS` say.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Capture } from '../lab/capture.ts';
import { addressesOf } from '../lab/census.ts';
import { type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, Understudy } from '../lab/understudy.ts';

const RUN_MS = Number(process.env.DHCP_MINUTES ?? 2) * 60_000;
/** Half of them on each LAN. */
const CONTAINERS = Number(process.env.DHCP_CONTAINERS ?? 8);
const LEASE_SECONDS = 20;
const PLAN: DhcpPlan = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: LEASE_SECONDS,
};
const LOOK_MS = 2000;
const AWAY_MS = 6000;
/** The machine may stand still for a second or two. */
const PATIENCE_MS = 3000;
/** The daemon's, beyond what it has once all containers run. */
const MOST_GROWTH_MB = 25;

interface Kept {
  readonly container: Container;
  readonly macAddress: string;
  readonly server: DhcpServer;
  /** The last end that the server promised. */
  endsAtMs: number;
}

describe('leases of 20 s', { skip: outsideLab() || withoutDhcp(), timeout: RUN_MS + 300_000 }, () => {
  let engine: Understudy;
  let servers: DhcpServer[];
  let capture: Capture;

  before(async () => {
    const [lan, other] = [await Lan.create(), await Lan.create([], 'other')];
    const host = await Host.boot('one', lan);
    await other.plug(host.namespace, 'lan1');
    engine = new Understudy(await Plugin.start(host));
    servers = await Promise.all([
      DhcpServer.plug(lan, 'kea', 'kea', PLAN),
      DhcpServer.plug(other, 'udhcpd', 'udhcpd', PLAN),
    ]);
    capture = await Capture.start(lan.namespace, host.ports['lan0'] ?? '', 'udp dst port 67');
  });

  after(async () => {
    await engine.plugin.stop();
    for (const server of servers) await server.stop();
  });

  async function start(): Promise<Kept[]> {
    const all: Kept[] = [];
    for (const [at, server] of servers.entries()) {
      const network = await engine.createNullNetwork({ parent: `lan${at}`, source: 'dhcp' });
      const containers = await Promise.all(Array.from({ length: CONTAINERS / 2 }, () => engine.run(network)));
      for (const container of containers) {
        const [link] = await container.namespace.show<{ address: string }>('link show dev eth0');
        all.push({ container, macAddress: link?.address ?? '', server, endsAtMs: Infinity });
      }
    }
    return all;
  }

  /** For less than T1, however long the run is: whoever asks meanwhile asks again. */
  async function leave(server: DhcpServer): Promise<void> {
    await server.stop();
    await sleep(AWAY_MS);
    await server.restart();
  }

  /** No server let the end pass that it promised last, and each has the address on file for the container that has it. */
  async function assertKept(all: readonly Kept[]): Promise<void> {
    for (const server of servers) {
      const leases = new Map((await server.leases()).map((lease) => [lease.macAddress, lease]));
      for (const kept of all.filter((one) => one.server === server)) {
        const lease = leases.get(kept.macAddress);
        const address = kept.container.address.split('/')[0];
        if (lease !== undefined) {
          assert.equal(lease.address, address);
          kept.endsAtMs = lease.endsAtMs;
        }
        const isInTime = Date.now() < kept.endsAtMs + PATIENCE_MS;
        assert.ok(isInTime, `${server.kind} has nothing for ${address} any more\n${engine.plugin.log().slice(-3000)}`);
      }
    }
  }

  test('none is lost, and no container changes its address', async () => {
    const all = await start();
    await assertKept(all);
    const beganMs = performance.now();
    const events: [share: number, act: () => Promise<unknown>][] = [
      [0.2, () => engine.plugin.restart('SIGKILL')],
      [0.4, () => Promise.all(servers.map((server) => server.loseLeases()))],
      [0.7, () => Promise.all(servers.map(leave))],
    ];
    let startMb = 0;
    for (let spentMs = 0; spentMs < RUN_MS; spentMs = performance.now() - beganMs) {
      const [share = Infinity, act] = events[0] ?? [];
      if (spentMs > share * RUN_MS) {
        events.shift();
        await act?.();
        if (events.length === 2) startMb = await engine.plugin.memoryMb();
      }
      await sleep(LOOK_MS);
      await assertKept(all);
    }
    for (const { container } of all)
      assert.deepEqual(await addressesOf(container.namespace, 'eth0'), [container.address.split('/')[0]]);
    const endMb = await engine.plugin.memoryMb();
    console.log(`${all.length} containers, ${RUN_MS / 60_000} min; memory ${startMb} MB, then ${endMb} MB`);
    assert.ok(endMb < startMb + MOST_GROWTH_MB, `${startMb} MB became ${endMb} MB`);
    assert.doesNotMatch(engine.plugin.log(), /internal error|INTERNAL|lost/);

    const sources = new Set((await capture.stop()).map(({ sourceMac }) => sourceMac));
    const ours = new Set(all.filter(({ server }) => server === servers[0]).map(({ macAddress }) => macAddress));
    assert.deepEqual(sources, ours);
  });
});
