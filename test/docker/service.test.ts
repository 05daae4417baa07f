/**
 * The systemd service: installed with make on a Debian machine with a real systemd, before a real engine.
 *
 *     server ──eth0── switch 192.0.2.254
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseSettingsFile } from '../../src/settingsfile.ts';
import { VERSION } from '../../src/version.ts';
import { assertNoGap } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Machine } from '../lab/machine.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { BUSYBOX_ARCHIVE } from '../lab/packages.ts';
import { until, untilSaid } from '../lab/patience.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const NETWORK = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 --gateway 192.0.2.254 -o parent=eth0';
/** CAP_NET_BROADCAST is bit 11, CAP_NET_ADMIN bit 12, CAP_NET_RAW bit 13 (linux/capability.h). */
const CAPABILITIES = '0000000000003800';
/** In tenths: systemd calls 0 to 20 SAFE and 21 to 50 OK. */
const EXPOSURE_LIMIT = 30;
/** More than systemd takes by itself, five in ten seconds; `make outages` makes both longer. */
const { KILLS = '6', OUTAGE_SECONDS = '0' } = process.env;
/** Then each kill comes a second after the one before. */
const isLong = Number(OUTAGE_SECONDS) > 0;
const SECOND_MS = 1000;
const SETTINGS = '/etc/default/tsmacvlan';
const STATE = '/var/lib/tsmacvlan';
const PLUGIN = 'tsmacvlan:lan';
const OLD_UNIT = '/etc/systemd/system/tsmacvlan.service';
const UNIT = '/usr/local/lib/systemd/system/tsmacvlan.service';

describe('systemd service', { skip: outsideLab(), timeout: 700_000 }, () => {
  let lan: Lan;
  let machine: Machine;
  let enabling: ReturnType<Machine['run']> | undefined;

  before(async () => {
    lan = await Lan.create(['192.0.2.254/24']);
    const namespace = await Namespace.create('server');
    await lan.plug(namespace, 'eth0');
    machine = await Machine.boot('server', namespace);
  });
  after(() => machine.scrap());

  test('make install leaves it enabled and running, with the command beside it, and nothing of an earlier version', async () => {
    machine.write(
      OLD_UNIT,
      '[Service]\nExecStart=/usr/local/bin/tsmacvlan serve\n[Install]\nWantedBy=multi-user.target\n',
    );
    await machine.must('systemctl', 'enable', 'tsmacvlan');
    const startedMs = Date.now();
    const said = await machine.must('make', '-C', CHECKOUT, 'install');
    console.log(`note: make install of what is built: ${((Date.now() - startedMs) / 1000).toFixed(1)} s`);
    assert.ok(said.includes(`was kept as ${OLD_UNIT}.bak; `), said);
    assert.match(await machine.must('cat', `${OLD_UNIT}.bak`), /^ExecStart=\/usr\/local\/bin\/tsmacvlan serve$/m);
    assert.equal(await machine.must('systemctl', 'show', '--property=FragmentPath', '--value', 'tsmacvlan'), UNIT);
    assert.equal(await machine.must('systemctl', 'is-active', 'tsmacvlan'), 'active');
    assert.equal(await machine.must('systemctl', 'is-enabled', 'tsmacvlan'), 'enabled');
    assert.equal(await machine.must('/usr/local/bin/tsmacvlan', '--version'), `tsmacvlan ${VERSION}`);
    assert.equal(await machine.must('/usr/local/bin/tsmacvlan', 'networks'), 'none');
    assert.equal(await machine.must('/usr/local/bin/tsmacvlan', 'map'), 'no networks');
  });

  test('systemd finds nothing wrong with the unit, and little exposed', async (t) => {
    assert.equal(await machine.must('systemd-analyze', 'verify', 'tsmacvlan.service'), '');
    const security = ['security', '--no-pager', '--offline=yes', `--threshold=${EXPOSURE_LIMIT}`];
    const report = await machine.must('systemd-analyze', ...security, UNIT);
    t.diagnostic(report.split('\n').at(-1) ?? '');
  });

  test('it holds three capabilities and writes to the journal', async () => {
    const status = await machine.must('cat', `/proc/${await mainPid()}/status`);
    assert.match(status, new RegExp(`CapEff:\\s${CAPABILITIES}\\nCapBnd:\\s${CAPABILITIES}`));
    await untilSaid(new RegExp(`info listening version=${VERSION.replaceAll('.', '\\.')} `), journal);
  });

  test('an engine that starts after it has the driver', async () => {
    await machine.installEngine();
    await docker('import', '--change', 'CMD ["sh"]', BUSYBOX_ARCHIVE, 'busybox');
    await docker('network', 'create', ...NETWORK.split(' '), '-o', 'host_access=true', 'lan');
    await docker(...'run -d --name web --net lan --ip 192.0.2.80 --restart always busybox sleep 3600'.split(' '));
    await docker('exec', 'web', 'ping', '-c', '1', '-W', '10', '192.0.2.254');
  });

  test('no container notices its restart', async () => {
    await docker('run', '-d', '--name', 'steady', '--net', 'lan', 'busybox', 'ping', '-i', '0.2', '192.0.2.254');
    await machine.must('systemctl', 'restart', 'tsmacvlan');
    await docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
    // Its link goes when the command has ended.
    await until(async () => (await linksOfHost()).every((name) => !/^tsm[^h]/.test(name)));
  });

  test('a second daemon is refused, whatever its paths and whoever starts it, and the first one has all its links', async () => {
    const links = await linksOfHost();
    const pid = await mainPid();
    const { SOCKET, STATE_DIR } = { SOCKET: '/run/other.sock', STATE_DIR: '/run/other' };
    const installed = ['/usr/local/bin/tsmacvlan'];
    const asFromNpm = [process.execPath, join(CHECKOUT, 'dist/tsmacvlan.cjs')];
    const refuse = async (program: readonly string[], settings: Record<string, string>) => {
      const words = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
      const { code, stderr } = await machine.run('env', ...words, ...program, 'serve');
      const sentence = `tsmacvlan: another tsmacvlan runs in this network namespace (process ${pid}, socket "/run/docker/plugins/tsmacvlan.sock", state directory "${STATE}"); `;
      assert.deepEqual([code, stderr.slice(0, sentence.length)], [1, sentence]);
    };
    const create = async () => {
      await createPlugin();
      // The engine looks for its socket for 13 s: what it says is read later.
      enabling = machine.run('docker', 'plugin', 'enable', PLUGIN);
    };
    await Promise.all([
      create(),
      refuse(installed, {}),
      refuse(installed, { SOCKET }),
      refuse(installed, { STATE_DIR }),
      refuse(installed, { SOCKET, STATE_DIR }),
      refuse(asFromNpm, { SOCKET, STATE_DIR }),
    ]);
    await untilSaid(/another tsmacvlan runs in this network namespace .in another PID namespace/, () =>
      machine.must('journalctl', '--no-pager', '--unit', 'docker'),
    );
    assert.deepEqual(await linksOfHost(), links);
    assert.equal(await mainPid(), pid);
  });

  test('SIGHUP and systemctl reload have the settings read again as systemd reads them, and a mistake changes nothing', async () => {
    const tricky = `# LOG_LEVEL=error\n  ; SCOPE=global\nexport PROBE=rfc\nno line\nLOG_LEVEL = "debug"\nPARENTS='lan=eth0'",a=b" \nA=one \\\n two\nB="x \\" \\$ y\\z"tail\nC=it's\nD=\nD=4 # all\n`;
    machine.write(SETTINGS, tricky);
    await machine.must('systemctl', 'restart', 'tsmacvlan');
    const pid = await mainPid();
    const environment = (await machine.must('cat', `/proc/${pid}/environ`)).split('\0');
    const given = Object.keys(parseSettingsFile(tricky)).map((name) => [name, valueIn(environment, name)]);
    assert.deepEqual(Object.fromEntries(given), parseSettingsFile(tricky));
    machine.write(SETTINGS, 'LOG_LEVEL=info\nDEFEND=on\nSCOPE=global\nPROBE=rfc\nREMEMBER=7\n');
    await machine.must('systemctl', 'reload', 'tsmacvlan');
    await untilSaid(/info settings are read again .* changed="LOG_LEVEL DEFEND PARENTS"/, journal);
    await untilSaid(/warn changed settings need a restart of tsmacvlan settings="SCOPE PROBE REMEMBER"/, journal);
    machine.write(SETTINGS, 'LOG_LEVEL=loud\n');
    await machine.must('systemctl', 'kill', '--signal', 'HUP', 'tsmacvlan');
    await untilSaid(/error the settings stay as they are .*loud.{1,3} for LOG_LEVEL; use error/, journal);
    machine.write(SETTINGS, '');
    assert.equal(await mainPid(), pid);
  });

  test('systemd has it back each time it is killed, and when it stands still', async (t) => {
    await machine.must('mkdir', '-p', '/run/systemd/system/tsmacvlan.service.d');
    machine.write('/run/systemd/system/tsmacvlan.service.d/watchdog.conf', '[Service]\nWatchdogSec=2\n');
    await machine.must('systemctl', 'daemon-reload');
    await machine.must('systemctl', 'restart', 'tsmacvlan');
    const links = await linksOfHost();
    const beganMs = performance.now();
    for (let kills = 0; kills < Number(KILLS); kills++) {
      const before = await mainPid();
      await machine.must('kill', '-KILL', before);
      await Promise.all([untilBack(before), sleep(isLong ? SECOND_MS : 0)]);
    }
    t.diagnostic(`${KILLS} times killed and back in ${Math.round((performance.now() - beganMs) / 100) / 10} s`);
    const still = await mainPid();
    await machine.must('kill', '-STOP', still);
    await untilBack(still);
    await untilSaid(/Watchdog timeout/, journal);
    assert.deepEqual(await linksOfHost(), links);
    await machine.must('rm', '-r', '/run/systemd/system/tsmacvlan.service.d');
    await machine.must('systemctl', 'daemon-reload');
    await docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
  });

  test('it tries again for as long as its state directory is in use', async () => {
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    const hold = `new (require('node:sqlite').DatabaseSync)('${STATE}/tsmacvlan.lock').exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')`;
    const script = `${hold}; require('node:fs').writeFileSync('/run/held', ''); setInterval(() => undefined, 1e9)`;
    await machine.must('systemd-run', '--unit', 'holder', process.execPath, '-e', script);
    await until(async () => (await machine.run('test', '-e', '/run/held')).code === 0);
    await machine.must('systemctl', 'start', '--no-block', 'tsmacvlan');
    await untilSaid(/tsmacvlan: state directory ".*" is in use by another running tsmacvlan/, journal);
    await sleep(Number(OUTAGE_SECONDS) * SECOND_MS);
    await machine.must('systemctl', 'stop', 'holder');
    await untilBack('0');
  });

  test('it goes on when a full disk has room again, if it was killed meanwhile too', async () => {
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must('cp', '-a', STATE, `${STATE}.kept`);
    await machine.must('mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', STATE);
    await machine.must('cp', '-a', `${STATE}.kept/.`, STATE);
    await machine.must('systemctl', 'start', 'tsmacvlan');
    await machine.run('dd', 'if=/dev/zero', `of=${STATE}/filler`, 'bs=4k');
    await machine.must('kill', '-9', await mainPid());
    await untilSaid(
      /no space left/,
      async () => (await tryDocker('run', '--rm', '--net', 'lan', 'busybox', 'true')).stderr + (await journal()),
    );
    await sleep(Number(OUTAGE_SECONDS) * SECOND_MS);
    await machine.must('rm', `${STATE}/filler`);
    await until(async () => (await tryDocker('run', '--rm', '--net', 'lan', 'busybox', 'true')).code === 0);
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must(
      'sh',
      '-c',
      `cp -a ${STATE}/. ${STATE}.kept && umount ${STATE} && cp -a ${STATE}.kept/. ${STATE}`,
    );
    await machine.must('systemctl', 'start', 'tsmacvlan');
  });

  test('no container noticed any of that, and the managed plugin is not enabled; make plugin-enable says why before it makes one', async () => {
    assert.notEqual((await enabling)?.code, 0);
    await docker('plugin', 'rm', PLUGIN);
    assert.match(await occupied('plugin'), /nothing was installed: the service tsmacvlan is on this host/);
    await docker('kill', '--signal', 'INT', 'steady');
    await docker('wait', 'steady');
    assertNoGap(await docker('logs', 'steady'));
  });

  test('its socket is there again when somebody has removed it', async () => {
    await machine.must('rm', '-r', '/run/docker/plugins');
    await until(async () => (await machine.run('test', '-S', '/run/docker/plugins/tsmacvlan.sock')).code === 0);
    await docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
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
    await untilSaid(/invalid value "loud" for LOG_LEVEL; use error, warn, info, debug/, journal);
    machine.write('/etc/default/tsmacvlan', 'STATE_DIR=/srv/made/there\n');
    await machine.must('systemctl', 'restart', '--no-block', 'tsmacvlan');
    await untilSaid(
      /read-only file system\); .* with mkdir -p \/srv\/made\/there and ReadWritePaths=\/srv\/made\/there .systemctl edit tsmacvlan/,
      journal,
    );
    assert.match(
      await machine.must('systemctl', 'show', '--property=StatusText', 'tsmacvlan'),
      /not started: cannot keep/,
    );
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

  test('make uninstall is refused while networks are there, and says which', async () => {
    await machine.must('rm', '-r', '/etc/systemd/system/tsmacvlan.service.d');
    await machine.must('systemctl', 'daemon-reload');
    machine.write(SETTINGS, `STATE_DIR="${STATE}"\n`);
    const refused = await machine.run('make', '-C', CHECKOUT, 'uninstall');
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /192\.0\.2\.0\/24[\s\S]*nothing was removed/);
    await machine.must('systemctl', 'restart', 'tsmacvlan');
    await docker('rm', '-f', 'web', 'steady');
    await docker('network', 'rm', 'lan');
  });

  test('make uninstall takes all but the state', async () => {
    await machine.must('make', '-C', CHECKOUT, 'uninstall');
    const paths = ['/usr/local/bin/tsmacvlan', '/usr/local/share/doc/tsmacvlan', UNIT];
    for (const path of paths)
      assert.notEqual((await machine.run('test', '-e', path)).code, 0, `${path} is still there`);
    await machine.must('test', '-s', '/var/lib/tsmacvlan/tsmacvlan.db');
    assert.notEqual((await machine.run('systemctl', 'is-active', 'tsmacvlan')).code, 0);
  });

  test('make uninstall leaves the service of a Debian package alone', async () => {
    machine.write('/usr/lib/systemd/system/tsmacvlan.service', '[Service]\nExecStart=/usr/bin/sleep 3600\n');
    await machine.must('systemctl', 'daemon-reload');
    await machine.must('systemctl', 'start', 'tsmacvlan');
    await machine.must('make', '-C', CHECKOUT, 'uninstall');
    await machine.must('systemctl', 'is-active', 'tsmacvlan');
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must('rm', '/usr/lib/systemd/system/tsmacvlan.service');
    await machine.must('systemctl', 'daemon-reload');
  });

  test('beside an enabled managed plugin make install and a daemon by hand are refused, and its container has its link', async () => {
    await createPlugin();
    await docker('plugin', 'enable', PLUGIN);
    await docker('network', 'create', ...NETWORK.split(' '), '-o', 'host_access=true', 'lan');
    await docker('run', '-d', '--name', 'web', '--net', 'lan', 'busybox', 'sleep', '3600');
    const links = await linksOfHost();
    // Wherever the user's own Docker settings lead: it is this machine that is installed on.
    const refused = await machine.run('env', 'DOCKER_HOST=tcp://192.0.2.1:2375', 'make', '-C', CHECKOUT, 'install');
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /nothing was installed: the managed plugin tsmacvlan:lan is enabled on this host/);
    assert.notEqual((await machine.run('test', '-e', UNIT)).code, 0);
    const settings = ['env', 'SOCKET=/run/other.sock', 'STATE_DIR=/run/other'];
    const second = await machine.run(...settings, process.execPath, join(CHECKOUT, 'dist/tsmacvlan.cjs'), 'serve');
    assert.equal(second.code, 1);
    assert.match(
      second.stderr,
      /another tsmacvlan runs in this network namespace .in another PID namespace, as the managed plugin is/,
    );
    assert.deepEqual(await linksOfHost(), links);
    await docker('exec', 'web', 'ping', '-c', '1', '-W', '10', '192.0.2.254');
    // With the engine goes the plugin, and at the next boot it would be there.
    await machine.must('systemctl', 'stop', 'docker');
    await machine.must('mkdir', '-p', '/etc/docker');
    machine.write('/etc/docker/daemon.json', '{ "data-root": "/var/lib/docker/engine" }\n');
    assert.match(
      await occupied('make'),
      /nothing was installed: the managed plugin tsmacvlan:lan is enabled on this host/,
    );
    assert.match(
      await occupied('plugin'),
      /nothing was installed: the managed plugin tsmacvlan:lan is enabled already/,
    );
  });

  /** What stands on the host for networks and containers; links that ask the LAN come and go. */
  async function linksOfHost(): Promise<string[]> {
    const links = JSON.parse(await machine.must('ip', '-json', 'link')) as { ifname: string }[];
    return links.map(({ ifname }) => ifname).filter((name) => !/^tsm[pt]|^veth/.test(name));
  }

  /** One look: the state of one process and the number of the next would not belong together. */
  async function untilBack(before: string): Promise<void> {
    await until(async () => {
      const shown = await machine.must('systemctl', 'show', '--property=MainPID,ActiveState', 'tsmacvlan');
      return (
        /^ActiveState=active$/m.test(shown) && !/^MainPID=0$/m.test(shown) && !shown.includes(`MainPID=${before}\n`)
      );
    });
  }

  /** Why an installation is refused. */
  async function occupied(installer: 'make' | 'plugin'): Promise<string> {
    const { code, stderr } = await machine.run('sh', '-c', `. ${CHECKOUT}/plugin/occupied.sh; occupied ${installer}`);
    assert.equal(code, 1);
    return stderr;
  }

  async function createPlugin(): Promise<void> {
    const make = `cd ${CHECKOUT} && ${process.execPath} plugin/rootfs.ts plugin/rootfs && install -m 644 config.json plugin/`;
    await machine.must('sh', '-c', `${make} && docker plugin create ${PLUGIN} plugin`);
  }

  function tryDocker(...words: string[]) {
    return machine.run('docker', ...words);
  }

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
});

function valueIn(environment: readonly string[], name: string): string | undefined {
  return environment.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
}
