/**
 * Containers come back after whatever ended them without a word to the plugin: the record that their last life left is in
 * nobody's way. With Docker's IPAM, which gives the same addresses again at once, and with ours.
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertPings, attachment, clearEngine, isRunning, runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Engine, type Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Interposer } from '../lab/interposer.ts';
import { assertConsistent } from '../lab/invariant.ts';
import { Lan } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
const ROUTER = '192.0.2.254';
const SUBNET = ['--subnet', '192.0.2.0/24', '--gateway', ROUTER];
const IPAMS = {
  'Docker’s IPAM': [],
  'our IPAM': ['--ipam-driver', 'tsmacvlan'],
} as const;
const MAC = '02:00:00:00:00:09';
/** An engine gives a plugin that is away up after 15 s; here it hears of it at once, and its container is as old. */
const OUTAGE_MS = 10_500;
/** The calls by which an engine says that a container ends. */
const ENDS = /\.(Leave|DeleteEndpoint|ReleaseAddress|RevokeExternalConnectivity)$/;

const LIMITS = { skip: outsideLab(), timeout: 900_000 };

// Each on a LAN of its own: half of the time they wait.
describe('coming back', { ...LIMITS, concurrency: true }, () => {
  for (const version of VERSIONS) {
    describe(`engine ${version}`, { ...LIMITS, concurrency: 1 }, () => {
      let lan: Lan;
      let host: Host;
      let engine: Engine;
      let plugin: Plugin;
      let interposer: Interposer;
      let isAway = false;

      before(async () => {
        lan = await Lan.create([`${ROUTER}/24`], `lan-${version}`);
        await boot();
      });
      after(async () => {
        interposer.close();
        await host.scrap(lan);
        await lan.namespace.delete();
      });
      afterEach(async () => {
        isAway = false;
        try {
          await assertConsistent([{ host, engine, plugin }], lan);
        } finally {
          await clearEngine(engine);
        }
      });

      async function boot(): Promise<void> {
        host = await Host.boot(`host-${version}`, lan);
        plugin = await Plugin.start(host, { SOCKET: '/run/tsmacvlan.sock' });
        const engineSide = host.file('/run/docker/plugins/tsmacvlan.sock');
        mkdirSync(dirname(engineSide), { recursive: true });
        interposer = await Interposer.listen(engineSide, host.file('/run/tsmacvlan.sock'), async (call) => {
          if (isAway && ENDS.test(call)) throw new Error(`${call}: nobody is there`);
        });
        engine = await Engine.start(host, version);
      }

      const create = (ipam: readonly string[], ...options: string[]) =>
        engine.must('network', 'create', '-d', 'tsmacvlan', ...ipam, ...SUBNET, '-o', 'parent=lan0', ...options, 'lan');

      /** Three containers that restart always, as they are wished for mostly. */
      async function runThree(): Promise<void> {
        await runIdle(engine, 'plain', '--net lan --restart always');
        await runIdle(engine, 'named', '--net lan --restart always --ip 192.0.2.9');
        await runIdle(engine, 'pinned', `--net lan --restart always --mac-address ${MAC}`);
      }

      async function assertAreBack(...names: string[]): Promise<void> {
        for (const name of names) {
          await until(() => isRunning(engine, name), {
            detail: () => `${name}: ${engine.log().slice(-2000)}\n${plugin.log().slice(-2000)}`,
          });
          await assertPings(engine, name, ROUTER);
        }
      }

      for (const [ipam, words] of Object.entries(IPAMS)) {
        test(`${ipam}: after kill -9 of the engine`, async () => {
          await create(words);
          await runThree();
          await engine.restart('SIGKILL');
          await assertAreBack('plain', 'named', 'pinned');
          assert.equal((await attachment(engine, 'named', 'lan')).IPAddress, '192.0.2.9');
          assert.equal((await attachment(engine, 'pinned', 'lan')).MacAddress, MAC);
        });

        // Our IPAM after one on the other engine: plugin.test.ts.
        if (version === '28.5.2' || ipam === 'Docker’s IPAM')
          test(`${ipam}: after a power cut`, async () => {
            await create(words);
            await runThree();
            interposer.close();
            await host.cutPower(lan);
            await boot();
            await assertAreBack('plain', 'named', 'pinned');
          });

        test(`${ipam}: docker restart while the plugin is away`, async () => {
          await create(words);
          await runThree();
          await sleep(OUTAGE_MS);
          isAway = true;
          for (const name of ['named', 'pinned']) await engine.must('restart', '-t', '0', name);
          isAway = false;
          await assertAreBack('named', 'pinned');
          assert.equal((await attachment(engine, 'named', 'lan')).IPAddress, '192.0.2.9');
        });
      }

      // What is left of a link that nobody can share with it: neither engine nor IPAM has a part in that.
      if (version === '28.5.2')
        test('after kill -9 of the engine, in mode passthru', async () => {
          await create(IPAMS['Docker’s IPAM'], '-o', 'macvlan_mode=passthru');
          await runIdle(engine, 'plain', '--net lan --restart always');
          await engine.restart('SIGKILL');
          await assertAreBack('plain');
        });
    });
  }
});
