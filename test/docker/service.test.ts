/**
 * The systemd service: installed with make on a Debian machine with a real systemd, before a real engine.
 *
 *     server ──eth0── switch 192.0.2.254
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { VERSION } from '../../src/version.ts';
import { assertNoGap } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Machine } from '../lab/machine.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { BUSYBOX_ARCHIVE, environmentOf, fileOf } from '../lab/packages.ts';
import { until, untilSaid } from '../lab/patience.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const NETWORK = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 --gateway 192.0.2.254 -o parent=eth0';
/** CAP_NET_BROADCAST is bit 11, CAP_NET_ADMIN bit 12, CAP_NET_RAW bit 13 (linux/capability.h). */
const CAPABILITIES = '0000000000003800';
/** In tenths: systemd calls 0 to 20 SAFE and 21 to 50 OK. */
const EXPOSURE_LIMIT = 30;

describe('systemd service', { skip: outsideLab(), timeout: 700_000 }, () => {
  let lan: Lan;
  let machine: Machine;

  before(async () => {
    lan = await Lan.create(['192.0.2.254/24']);
    const namespace = await Namespace.create('server');
    await lan.plug(namespace, 'eth0');
    machine = await Machine.boot('server', namespace);
  });
  after(() => machine.scrap());

  test('make install leaves it enabled and running, with the command beside it', async () => {
    await machine.must('make', '-C', CHECKOUT, 'install');
    assert.equal(await machine.must('systemctl', 'is-active', 'tsmacvlan'), 'active');
    assert.equal(await machine.must('systemctl', 'is-enabled', 'tsmacvlan'), 'enabled');
    assert.equal(await machine.must('/usr/local/bin/tsmacvlan', '--version'), `tsmacvlan ${VERSION}`);
    assert.equal(await machine.must('/usr/local/bin/tsmacvlan', 'networks'), 'none');
    assert.equal(await machine.must('/usr/local/bin/tsmacvlan', 'map'), 'no networks');
  });

  test('systemd finds nothing wrong with the unit, and little exposed', async (t) => {
    assert.equal(await machine.must('systemd-analyze', 'verify', 'tsmacvlan.service'), '');
    const security = ['security', '--no-pager', '--offline=yes', `--threshold=${EXPOSURE_LIMIT}`];
    const report = await machine.must('systemd-analyze', ...security, '/etc/systemd/system/tsmacvlan.service');
    t.diagnostic(report.split('\n').at(-1) ?? '');
  });

  test('it holds three capabilities and writes to the journal', async () => {
    const status = await machine.must('cat', `/proc/${await mainPid()}/status`);
    assert.match(status, new RegExp(`CapEff:\\s${CAPABILITIES}\\nCapBnd:\\s${CAPABILITIES}`));
    await untilSaid(new RegExp(`info listening version=${VERSION.replaceAll('.', '\\.')} `), journal);
  });

  test('an engine that starts after it has the driver', async () => {
    await installEngine();
    await docker('import', '--change', 'CMD ["sh"]', BUSYBOX_ARCHIVE, 'busybox');
    await docker('network', 'create', ...NETWORK.split(' '), '-o', 'host_access=true', 'lan');
    await docker(...'run -d --name web --net lan --ip 192.0.2.80 --restart always busybox sleep 3600'.split(' '));
    await docker('exec', 'web', 'ping', '-c', '1', '-W', '10', '192.0.2.254');
  });

  test('no container notices its restart or its crash, and systemd has it back at once', async () => {
    await docker('run', '-d', '--name', 'steady', '--net', 'lan', 'busybox', 'ping', '-i', '0.2', '192.0.2.254');
    await machine.must('systemctl', 'restart', 'tsmacvlan');
    await docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
    const before = await mainPid();
    await machine.must('kill', '-9', before);
    // The engine has to see its old connection closed: a call sent on it is repeated without its body (moby#35459).
    await until(async () => ![before, '0'].includes(await mainPid()));
    await docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
    await docker('kill', '--signal', 'INT', 'steady');
    await docker('wait', 'steady');
    assertNoGap(await docker('logs', 'steady'));
  });

  test('after a power cut it is up before the engine, and containers that restart always are back', async () => {
    await machine.powerOff();
    await machine.powerOn();
    assert.ok((await activeSince('tsmacvlan')) < (await activeSince('docker')));
    await docker('exec', 'web', 'ping', '-c', '1', '-W', '10', '192.0.2.254');
    const format = '{{(index .NetworkSettings.Networks "lan").IPAddress}}';
    assert.equal(await docker('inspect', '--format', format, 'web'), '192.0.2.80');
  });

  test('a setting that is not known fails the start, and the journal says which are', async () => {
    machine.write('/etc/default/tsmacvlan', 'LOG_LEVEL=loud\n');
    const startedMs = Date.now();
    assert.notEqual((await machine.run('systemctl', 'restart', 'tsmacvlan')).code, 0);
    // It would wait for 30 s.
    assert.ok(Date.now() - startedMs < 25_000, 'systemd was left waiting');
    await untilSaid(/setting LOG_LEVEL="loud" is not known; use error, warn, info, debug/, journal);
    machine.write('/etc/default/tsmacvlan', 'LOG_LEVEL=debug\n');
    await machine.must('systemctl', 'reset-failed', 'tsmacvlan');
    await machine.must('systemctl', 'restart', 'tsmacvlan');
  });

  for (const [missing, kept] of [
    ['CAP_NET_ADMIN', 'CAP_NET_RAW'],
    ['CAP_NET_RAW', 'CAP_NET_ADMIN'],
  ] as const) {
    test(`without ${missing} the container that needs it does not start, and the engine says so`, async () => {
      await machine.must('mkdir', '-p', '/etc/systemd/system/tsmacvlan.service.d');
      machine.write(
        '/etc/systemd/system/tsmacvlan.service.d/weak.conf',
        `[Service]\nCapabilityBoundingSet=\nCapabilityBoundingSet=${kept}\n`,
      );
      await machine.must('systemctl', 'daemon-reload');
      await machine.must('systemctl', 'restart', 'tsmacvlan');
      const ran = await machine.run('docker', 'run', '--rm', '--net', 'lan', 'busybox', 'true');
      assert.match(ran.stderr, new RegExp(`not allowed to .*\\(EPERM\\); .*${missing}`));
    });
  }

  test('make uninstall takes all but the state', async () => {
    await machine.must('make', '-C', CHECKOUT, 'uninstall');
    const paths = ['/usr/local/bin/tsmacvlan', '/usr/local/lib/tsmacvlan', '/etc/systemd/system/tsmacvlan.service'];
    for (const path of paths)
      assert.notEqual((await machine.run('test', '-e', path)).code, 0, `${path} is still there`);
    await machine.must('test', '-s', '/var/lib/tsmacvlan/tsmacvlan.db');
    assert.notEqual((await machine.run('systemctl', 'is-active', 'tsmacvlan')).code, 0);
  });

  function docker(...words: string[]): Promise<string> {
    return machine.must('docker', ...words);
  }

  function mainPid(): Promise<string> {
    return machine.must('systemctl', 'show', '--property=MainPID', '--value', 'tsmacvlan');
  }

  function journal(): Promise<string> {
    return machine.must('journalctl', '--no-pager', '--unit', 'tsmacvlan');
  }

  async function activeSince(unit: string): Promise<number> {
    const property = '--property=ActiveEnterTimestampMonotonic';
    return Number(await machine.must('systemctl', 'show', property, '--value', unit));
  }

  /** Debian's engine 28 with its own units in short; the command `docker` goes to the path. */
  async function installEngine(): Promise<void> {
    const environment = Object.entries(environmentOf('forky')).map(
      ([name, value]) => `Environment="${name}=${value}"\n`,
    );
    const unit = (after: string, command: string) =>
      `[Unit]\nAfter=${after}\n[Service]\nType=notify\nExecStart=${command}\nDelegate=yes\nKillMode=process\n` +
      `${environment.join('')}[Install]\nWantedBy=multi-user.target\n`;
    const root = '/var/lib/docker';
    const containerd = `${fileOf('bookworm', 'usr/bin/containerd')} --root ${root}/containerd`;
    const dockerd = `${fileOf('forky', 'usr/sbin/dockerd')} --data-root ${root}/engine --containerd /run/containerd/containerd.sock --bridge none --iptables=false --ip6tables=false`;
    machine.write('/etc/systemd/system/containerd.service', unit('network.target', containerd));
    machine.write('/etc/systemd/system/docker.service', unit('network-online.target containerd.service', dockerd));
    await machine.must('ln', '-sf', fileOf('forky', 'usr/bin/docker'), '/usr/local/bin/docker');
    await machine.must('systemctl', 'daemon-reload');
    await machine.must('systemctl', 'enable', '--now', 'containerd', 'docker');
  }
});
