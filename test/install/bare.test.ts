/**
 * What a stranger does on a bare Debian 12, which has an engine, and neither Node nor npm: the .deb, the one file alone, the archive, the
 * managed plugin, and the npm package below a Node that he brings.
 *
 *     server ──eth0── switch 192.0.2.254
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ownArchitecture } from '../../plugin/artefacts.ts';
import { makeDeb } from '../../plugin/deb.ts';
import { LAB } from '../../plugin/debian.ts';
import { layInstallation } from '../../plugin/installation.ts';
import { VERSION } from '../../src/version.ts';
import { assertNoGap } from '../lab/container.ts';
import { shellBlocks } from '../lab/document.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Machine } from '../lab/machine.ts';
import { makePlugin } from '../lab/managed.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { BARE_ROOT, BUSYBOX_ARCHIVE } from '../lab/packages.ts';
import { until, untilSaid } from '../lab/patience.ts';

const CHECKOUT = resolve(import.meta.dirname, '../..');
const OCCUPIED = join(CHECKOUT, 'plugin/occupied.sh');
/** The one that make brings; on a bare machine it is as if its archive had been unpacked there. */
const NODE_PACKAGE = dirname(dirname(process.execPath));
const NETWORK = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 --gateway 192.0.2.254 -o parent=eth0';
/** For the commands to the first container, which take 4 s; this machine may have other work. */
const MOST_SECONDS = 30;
const UNIT_OF_MAKE = '/usr/local/lib/systemd/system/tsmacvlan.service';
/** Whatever comes and goes there is nothing of ours: dpkg's and systemd's own books, and the engine's. */
const BOOKS =
  '/var/(lib/(dpkg|apt|docker)|cache|log)|/root|/tmp|/run/(systemd|containerd|docker/(netns|runtime-runc|containerd))';

const skip = outsideLab() || (!existsSync(BARE_ROOT) && 'needs a bare Debian 12, and it could not be had');

describe('on a bare Debian 12', { skip, timeout: 500_000 }, () => {
  const scratch = mkdtempSync(join(tmpdir(), 'install-'));
  const installed = join(scratch, 'installed');
  const single = join(installed, 'usr/bin/tsmacvlan');
  let machine: Machine;
  let packages: string[];
  let filesBefore: ReadonlySet<string>;

  before(async () => {
    await layInstallation(installed, '/usr', ownArchitecture());
    packages = ['', '+next'].map((suffix) =>
      makeDeb(scratch, ownArchitecture(), installed, { version: VERSION + suffix, compression: 'none' }),
    );
    const lan = await Lan.create(['192.0.2.254/24']);
    const namespace = await Namespace.create('server');
    await lan.plug(namespace, 'eth0');
    machine = await Machine.boot('server', namespace, { root: BARE_ROOT, shared: [LAB, scratch, NODE_PACKAGE] });
    await machine.installEngine();
    // Which every machine has but the root of a container; the engine mounts it into the managed plugin.
    machine.write('/etc/hosts', '127.0.0.1 localhost\n');
    await docker('import', '--change', 'CMD ["sh"]', BUSYBOX_ARCHIVE, 'busybox');
    filesBefore = new Set(await filesOfMachine());
  });
  after(async () => {
    await machine.scrap();
    rmSync(scratch, { recursive: true });
  });

  test('there is no Node', async () => {
    assert.notEqual((await machine.run('sh', '-c', 'command -v node || command -v npm')).code, 0);
  });

  test('three commands, and the first container is on the LAN: the .deb, a network, the container', async () => {
    const startedMs = Date.now();
    await machine.must('apt-get', 'install', '--yes', packages[0] ?? '');
    await docker('network', 'create', ...NETWORK.split(' '), 'lan');
    await askRouter();
    assertFast('.deb, 3 commands', startedMs);
  });

  test('the daemon runs and is enabled, and the command knows it', async () => {
    assert.equal(await machine.must('systemctl', 'is-active', 'tsmacvlan'), 'active');
    assert.equal(await machine.must('systemctl', 'is-enabled', 'tsmacvlan'), 'enabled');
    assert.equal(await machine.must('tsmacvlan', '--version'), `tsmacvlan ${VERSION}`);
    assert.match(await machine.must('tsmacvlan', 'map'), /^eth0\n└─ network lan /);
    assert.equal(await machine.must('dpkg', '--verify', 'tsmacvlan'), '');
    assert.match(await machine.must('zcat', '/usr/share/man/man8/tsmacvlan.8.gz'), /^\.TH TSMACVLAN 8 /m);
    const { stderr } = await machine.run('sh', '-c', `${readFileSync(OCCUPIED, 'utf8')}\noccupied make`);
    assert.match(stderr, /nothing was installed: the Debian package tsmacvlan is installed/);
  });

  test('no container notices an upgrade', async () => {
    await docker('run', '-d', '--name', 'steady', '--net', 'lan', 'busybox', 'ping', '-i', '0.2', '192.0.2.254');
    const pid = await mainPid();
    machine.write('/etc/default/tsmacvlan', 'LOG_LEVEL=debug\n');
    await machine.must('dpkg', '--install', packages[1] ?? '');
    assert.notEqual(await mainPid(), pid);
    assert.equal(await machine.must('dpkg-query', '--show', '--showformat=${Version}', 'tsmacvlan'), `${VERSION}+next`);
    assert.equal(await machine.must('cat', '/etc/default/tsmacvlan'), 'LOG_LEVEL=debug');
    await docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
    await docker('kill', '--signal', 'INT', 'steady');
    await docker('wait', 'steady');
    assertNoGap(await docker('logs', 'steady'));
  });

  test('what an administrator switched off stays off through an upgrade', async () => {
    await machine.must('systemctl', 'disable', 'tsmacvlan');
    await machine.must('dpkg', '--install', packages[0] ?? '');
    assert.equal((await machine.run('systemctl', 'is-enabled', 'tsmacvlan')).stdout.trim(), 'disabled');
    await machine.must('systemctl', 'enable', '--now', 'tsmacvlan');
  });

  test('it is not removed while networks are left, and says which', async () => {
    const pid = await mainPid();
    const { code, stdout, stderr } = await machine.run('apt-get', 'remove', '--yes', 'tsmacvlan');
    assert.notEqual(code, 0);
    // apt prints what dpkg's scripts complain about.
    assert.match(stdout + stderr, /192\.0\.2\.0\/24[\s\S]*tsmacvlan is not removed: these networks are left/);
    assert.equal(await mainPid(), pid);
  });

  test('also while it is stopped, beside another state; once another daemon has taken over, they are no reason', async () => {
    const other = '/var/lib/docker/engine/plugins/other';
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must('mkdir', '-p', `${other}/propagated-mount`);
    machine.write(`${other}/config.json`, '{"plugin":{"Config":{"Description":"tsmacvlan"}}}');
    machine.write(`${other}/propagated-mount/tsmacvlan.db`, '');
    assert.match((await machine.run('dpkg', '--remove', 'tsmacvlan')).stderr, /192\.0\.2\.0\/24[^]*is not removed/);
    await machine.must('rm', '-r', other);
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must('mv', '/var/lib/tsmacvlan/tsmacvlan.db', '/run/whole');
    machine.write('/var/lib/tsmacvlan/tsmacvlan.db', 'damaged');
    assert.match((await machine.run('dpkg', '--remove', 'tsmacvlan')).stderr, /cannot be told: [^]*is not removed/);
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must('mv', '/run/whole', '/var/lib/tsmacvlan/tsmacvlan.db');
    // A removal that is refused starts what runs at a boot, as everywhere in Debian.
    await machine.must('systemctl', 'stop', 'tsmacvlan');
    await machine.must('sh', '-ec', 'tsmacvlan backup /run/b; STATE_DIR=/run/other tsmacvlan restore /run/b');
    await machine.must('systemd-run', '--unit', 'other', '--setenv=STATE_DIR=/run/other', 'tsmacvlan', 'serve');
    // Until it runs the command answers from the state that the package left.
    await untilSaid(/@tsmacvlan/, () => machine.must('ss', '-xlH'));
    await untilSaid(/192\.0\.2\.0/, () => machine.must('tsmacvlan', 'networks'));
    const left = await machine.run('sh', '-c', `${readFileSync(OCCUPIED, 'utf8')}\nnetworks_left tsmacvlan`);
    assert.deepEqual([left.code, left.stdout], [1, '']);
    await machine.must('systemctl', 'stop', 'other');
    await machine.must('rm', '-r', '/run/other', '/run/b');
    await machine.must('systemctl', 'start', 'tsmacvlan');
    await docker('rm', '-f', 'steady');
    await docker('network', 'rm', 'lan');
  });

  test('removed it leaves state and settings; purged nothing, but for a state that may be of another way of installing it', async () => {
    await machine.must('apt-get', 'remove', '--yes', 'tsmacvlan');
    await machine.must('test', '-s', '/var/lib/tsmacvlan/tsmacvlan.db', '-a', '-s', '/etc/default/tsmacvlan');
    assert.notEqual((await machine.run('pgrep', 'tsmacvlan')).code, 0);
    await layUnitOfMake();
    await machine.must('systemctl', 'enable', '--force', UNIT_OF_MAKE);
    const { stderr } = await machine.run('dpkg', '--purge', 'tsmacvlan');
    assert.match(stderr, /the state in \/var\/lib\/tsmacvlan is left: another tsmacvlan is here/);
    await machine.must('test', '-s', '/var/lib/tsmacvlan/tsmacvlan.db');
    assert.equal(await machine.must('systemctl', 'is-enabled', 'tsmacvlan'), 'enabled');
    await machine.must('systemctl', 'disable', 'tsmacvlan');
    await machine.must('rm', '-r', '/usr/local/lib/systemd');
    await machine.must('dpkg', '--install', packages[0] ?? '');
    await machine.must('mount', '--bind', '/var/lib/tsmacvlan', '/var/lib/tsmacvlan');
    await machine.must('apt-get', 'purge', '--yes', 'tsmacvlan');
    await machine.must('umount', '/var/lib/tsmacvlan');
    await machine.must('rmdir', '/var/lib/tsmacvlan');
    await assertNoTrace();
  });

  test('three commands with the one file alone: it runs, a network, the container; and the command finds it', async () => {
    await machine.must('install', single, '/usr/local/bin/tsmacvlan');
    const startedMs = Date.now();
    await machine.must('systemd-run', '--unit', 'by-hand', '/usr/local/bin/tsmacvlan', 'serve');
    await until(async () => (await machine.run('test', '-S', '/run/docker/plugins/tsmacvlan.sock')).code === 0);
    await docker('network', 'create', ...NETWORK.split(' '), 'lan');
    await docker('run', '-d', '--name', 'steady', '--net', 'lan', 'busybox', 'ping', '-i', '0.2', '192.0.2.254');
    assertFast('the one file alone, 3 commands', startedMs);
    assert.match(await machine.must('tsmacvlan', 'map'), /^eth0\n└─ network lan [^]*steady/);
  });

  test('beside it, or beside the unit of make install, the .deb is refused before anything is unpacked', async () => {
    const refused = async (reason: RegExp) => {
      const { code, stderr } = await machine.run('dpkg', '--install', packages[0] ?? '');
      assert.notEqual(code, 0);
      assert.match(stderr, reason);
      assert.notEqual((await machine.run('test', '-e', '/usr/bin/tsmacvlan')).code, 0);
    };
    await refused(/nothing was installed: another tsmacvlan runs in this network namespace/);
    await layUnitOfMake();
    await refused(/nothing was installed: \/usr\/local\/lib\/systemd\/system\/tsmacvlan\.service is of make install/);
    await machine.must('rm', '-r', '/usr/local/lib/systemd');
  });

  test('it is replaced while it runs, and started again no container has noticed; stopped and removed it leaves nothing', async () => {
    await machine.must('install', single, '/usr/local/bin/tsmacvlan');
    await machine.must('systemctl', 'stop', 'by-hand');
    await machine.must('systemd-run', '--unit', 'again', '/usr/local/bin/tsmacvlan', 'serve');
    await untilSaid(/steady/, async () => (await machine.run('tsmacvlan', 'map')).stdout);
    await docker('kill', '--signal', 'INT', 'steady');
    await docker('wait', 'steady');
    assertNoGap(await docker('logs', 'steady'));
    await docker('rm', 'steady');
    await docker('network', 'rm', 'lan');
    await machine.must('systemctl', 'stop', 'again');
    await machine.must('rm', '-r', '/usr/local/bin/tsmacvlan', '/var/lib/tsmacvlan');
    await assertNoTrace();
  });

  test('the archive is installed and removed as docs/install.md says', async () => {
    const [install = '', remove = ''] = shellBlocks('install.md', 'The one file');
    const name = `tsmacvlan-${VERSION}-linux-amd64`;
    const archive = join(scratch, `${name}.tar`);
    const root = join(scratch, 'archive');
    await layInstallation(root, '/usr/local', ownArchitecture(), single);
    renameSync(join(root, 'usr/local'), join(root, name));
    execFileSync('tar', ['--directory', root, '--create', '--file', archive, name]);
    const type = (text: string) =>
      machine.must('sh', '-ec', text.replaceAll('sudo ', '').replace('tsmacvlan-VERSION-linux-amd64.tar.gz', archive));
    const startedMs = Date.now();
    await type(install);
    await docker('network', 'create', ...NETWORK.split(' '), 'lan');
    await askRouter();
    assertFast('the archive, 5 commands', startedMs);
    assert.equal(await machine.must('systemctl', 'is-enabled', 'tsmacvlan'), 'enabled');
    await docker('network', 'rm', 'lan');
    assert.equal(await machine.must('tsmacvlan', 'map'), 'no networks');
    await type(install);
    assert.equal(await machine.must('systemctl', 'is-active', 'tsmacvlan'), 'active');
    await type(remove);
    await machine.must('rm', '-r', '/var/lib/tsmacvlan');
    await assertNoTrace('! -type d');
  });

  test('the managed plugin is installed from its archive and removed as docs/install.md says; its command is a link', async () => {
    const name = `tsmacvlan-${VERSION}-plugin-linux-amd64`;
    await makePlugin(join(scratch, name));
    execFileSync('tar', ['--directory', scratch, '--create', '--file', join(scratch, `${name}.tar.gz`), name]);
    const type = (heading: string) =>
      machine.must(
        'sh',
        '-ec',
        `cd /run/stranger\n${shellBlocks('install.md', heading)[0]}`.replaceAll('VERSION', VERSION),
      );
    await machine.must('mkdir', '/run/stranger');
    await machine.must('ln', '-s', join(scratch, `${name}.tar.gz`), '/run/stranger/');
    const startedMs = Date.now();
    await type('Install the plugin from a file');
    await docker('network', 'create', ...NETWORK.split(' '), 'lan');
    await askRouter();
    assertFast('managed plugin from its archive, 5 commands', startedMs);
    assert.match(await type('The command tsmacvlan'), /^eth0\n└─ network lan /);
    await docker('network', 'rm', 'lan');
    await type('Remove the plugin');
    await machine.must('rm', '-r', '/run/stranger', '/usr/local/bin/tsmacvlan');
    await assertNoTrace('! -type d');
  });

  test('the npm package runs with nothing but Node', async (t) => {
    const prefix = join(scratch, 'npm');
    const inCheckout = { cwd: CHECKOUT, stdio: 'pipe' } as const;
    execFileSync('npm', ['pack', '--silent', '--pack-destination', scratch], inCheckout);
    const install = [
      'install',
      '--global',
      '--prefix',
      prefix,
      '--offline',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
    ];
    const startedMs = Date.now();
    const { status, stderr } = spawnSync('npm', [...install, join(scratch, `tsmacvlan-${VERSION}.tgz`)], inCheckout);
    if (String(stderr).includes('ENOTCACHED'))
      return t.skip('koffi is not in the cache of npm, and there is no network here');
    assert.equal(status, 0, String(stderr));
    const path = `PATH=${NODE_PACKAGE}/bin:${prefix}/bin:/usr/bin:/bin`;
    await machine.must('systemd-run', '--unit', 'by-npm', `--setenv=${path}`, 'env', 'tsmacvlan', 'serve');
    await until(async () => (await machine.run('test', '-S', '/run/docker/plugins/tsmacvlan.sock')).code === 0);
    await docker('network', 'create', ...NETWORK.split(' '), 'lan');
    await askRouter();
    assertFast('npm package, 4 commands', startedMs);
    assert.match(await machine.must('env', path, 'tsmacvlan', 'map'), /^eth0\n└─ network lan /);
    await docker('network', 'rm', 'lan');
    await machine.must('systemctl', 'stop', 'by-npm');
    await machine.must('rm', '-r', '/var/lib/tsmacvlan');
    await assertNoTrace('! -type d');
  });

  test('the library of the one file is loaded from wherever that is allowed, and nothing is left there; where it is allowed nowhere it says so', async () => {
    // What is in front of the call mounts over everything in which the file is not.
    const probe = (places: readonly string[], ...before: string[]) => {
      const mounts = places.map((place) => `mount -t tmpfs -o noexec tmpfs ${place} && `).join('');
      const call = [...before, '/opt/tsmacvlan', 'probe', '192.0.2.1', '--parent', 'absent0'].join(' ');
      return machine.run('unshare', '--mount', 'sh', '-c', `${mounts}{ ${call}; ls -A ${places.join(' ')}; }`);
    };
    await machine.must('install', single, '/opt/tsmacvlan');
    const places = ['/tmp', '/dev/shm', '/var/tmp', '/run'];
    for (const left of places) {
      const { stdout, stderr } = await probe(places.filter((place) => place !== left));
      assert.match(stderr, /^tsmacvlan: .*absent0/);
      assert.doesNotMatch(stdout, /^[^/\n]/m);
    }
    const { stderr } = await probe(places, 'setpriv', '--reuid', '65534');
    assert.match(
      stderr,
      /^tsmacvlan: no directory is writable and mounted without noexec, .*\/tmp.*\/opt.*; set TMPDIR/,
    );
    await machine.must('rm', '/opt/tsmacvlan');
  });

  /** The first container. */
  function askRouter(): Promise<string> {
    return docker('run', '--rm', '--net', 'lan', 'busybox', 'ping', '-c', '1', '-W', '10', '192.0.2.254');
  }

  function assertFast(way: string, startedMs: number): void {
    const seconds = (Date.now() - startedMs) / 1000;
    console.log(`note: ${way}: the router answered the first container after ${seconds.toFixed(1)} s`);
    assert.ok(seconds < MOST_SECONDS, `${seconds} s`);
  }

  function docker(...words: string[]): Promise<string> {
    return machine.must('docker', ...words);
  }

  function mainPid(): Promise<string> {
    return machine.must('systemctl', 'show', '--property=MainPID', '--value', 'tsmacvlan');
  }

  /** Links that ask the LAN come and go. */
  async function links(): Promise<string> {
    const shown = JSON.parse(await machine.must('ip', '-json', 'link')) as { ifname: string }[];
    const names = shown.map(({ ifname }) => ifname).filter((name) => !/^tsm[pt]/.test(name));
    return names.sort().join(' ');
  }

  async function layUnitOfMake(): Promise<void> {
    await machine.must('mkdir', '-p', dirname(UNIT_OF_MAKE));
    machine.write(
      UNIT_OF_MAKE,
      '[Service]\nExecStart=/usr/local/bin/tsmacvlan serve\n[Install]\nWantedBy=multi-user.target\n',
    );
  }

  async function assertNoTrace(which = ''): Promise<void> {
    const files = await filesOfMachine(which);
    assert.deepEqual(
      files.filter((path) => !filesBefore.has(path)),
      [],
    );
    assert.equal(await links(), 'eth0 lo');
  }

  /** On its disk and in /run. */
  async function filesOfMachine(which = ''): Promise<string[]> {
    const found = await machine.must('sh', '-c', `find / /run -xdev ${which} | grep -vE '^(${BOOKS})(/|$)'`);
    return found.split('\n');
  }
});
