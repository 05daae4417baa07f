/**
 * The lab itself, shown with the driver that Docker brings: what fails here is no fault of the plugin.
 *
 *     one ──lan0── switch 192.0.2.254 ──lan0── two
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { labCgroup, outsideLab } from '../lab/enclosure.ts';
import { Engine, SUITE_OF, type Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { until } from '../lab/patience.ts';

const FREEZER = '/sys/fs/cgroup/freezer';
const PING = ['ping', '-c', '1', '-W', '10'];

describe('the lab', { skip: outsideLab(), timeout: 400_000 }, () => {
  let lan: Lan;
  before(async () => {
    lan = await Lan.create(['192.0.2.254/24']);
  });

  // As of a container whose runc was killed at its work: a signal alone does not end it.
  test('a host loses its power with a frozen process on it', {
    skip: existsSync(FREEZER) ? false : 'needs cgroup v1',
  }, async () => {
    const host = await Host.boot('frozen', lan);
    const cgroup = join(FREEZER, labCgroup(), 'frozen');
    mkdirSync(cgroup, { recursive: true });
    const joining = 'echo 0 >"$1/cgroup.procs"; exec sleep 600';
    await host.start('sleep', ['sh', '-c', joining, 'join', cgroup], process.env);
    writeFileSync(join(cgroup, 'freezer.state'), 'FROZEN');
    await until(() => readFileSync(join(cgroup, 'freezer.state'), 'utf8') === 'FROZEN\n');
    await host.scrap(lan);
    assert.equal(readFileSync(join(cgroup, 'cgroup.procs'), 'utf8'), '');
  });

  for (const version of Object.keys(SUITE_OF) as Version[]) {
    describe(`with engine ${version}`, () => {
      let hosts: Host[];
      let engines: Engine[];

      before(async () => {
        hosts = await Promise.all(['one', 'two'].map((name) => Host.boot(name, lan)));
        engines = await Promise.all(hosts.map((host) => Engine.start(host, version)));
        for (const [index, engine] of engines.entries()) {
          const range = `192.0.2.${64 * (index + 1)}/26`;
          await engine.must(
            'network',
            'create',
            '-d',
            'macvlan',
            '--subnet',
            '192.0.2.0/24',
            '--ip-range',
            range,
            '-o',
            'parent=lan0',
            'net',
          );
        }
      });
      after(async () => {
        for (const host of hosts) await host.scrap(lan);
      });

      test('brings the version its name says', async (t) => {
        const found = await engines[0]?.must('version', '--format', '{{.Server.Version}}');
        if (!found?.startsWith(version)) t.skip(`Debian ${SUITE_OF[version]} now has ${found}`);
      });

      test('carries a ping from a container to one on the other host and to the switch', async () => {
        const [one, two] = engines as [Engine, Engine];
        await two.must(
          'run',
          '-d',
          '--name',
          'target',
          '--net',
          'net',
          '--ip',
          '192.0.2.130',
          '--stop-timeout',
          '0',
          'busybox',
          'sleep',
          '600',
        );
        const across = await one.docker('run', '--rm', '--net', 'net', 'busybox', ...PING, '192.0.2.130');
        assert.match(across.stdout, / 0% packet loss/, across.stderr);
        const toSwitch = await one.docker('run', '--rm', '--net', 'net', 'busybox', ...PING, '192.0.2.254');
        assert.match(toSwitch.stdout, / 0% packet loss/, toSwitch.stderr);
      });

      test('resolves the name of a container of the same network', async () => {
        const [, two] = engines as [Engine, Engine];
        const ping = await two.docker('run', '--rm', '--net', 'net', 'busybox', ...PING, 'target');
        assert.match(ping.stdout, / 0% packet loss/, ping.stderr);
      });

      test('survives SIGKILL of the engine and starts again soon', async () => {
        const [one] = engines as [Engine];
        await one.restart('SIGKILL');
        assert.match(await one.must('network', 'ls'), /net +macvlan/);
      });
    });
  }
});
