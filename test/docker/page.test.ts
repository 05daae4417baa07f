/**
 * The page of `tsmacvlan map --serve` in a real browser, beside a real engine and a real LAN; and `map --html` with very many
 * containers. `SCREENSHOTS=directory` keeps what it looks like (make screenshots).
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { BrowserContext, Locator, Page } from 'playwright-core';
import { pageWith } from '../../src/commands/pagefile.ts';
import { LabBrowser, withoutBrowser } from '../lab/browser.ts';
import { attachment, clearEngine, runIdle } from '../lab/container.ts';
import { crowdedPicture, manySubnetsPicture } from '../lab/crowd.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Daemon } from '../lab/host.ts';
import { inTime, until } from '../lab/patience.ts';
import { type Machine, Site } from '../lab/site.ts';

const CREATE = [
  ...'network create -d tsmacvlan --ipam-driver tsmacvlan -o parent=lan0 --subnet 192.0.2.0/24'.split(' '),
  ...'--gateway 192.0.2.254 --ip-range 192.0.2.64/27 --ipam-opt exclude=192.0.2.90-192.0.2.95'.split(' '),
];
/** Docker takes it, and what the page shows of it is these characters. */
const HOSTILE = '<img src=x onerror=document.title=1>';
const PORT = 8099;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const { SCREENSHOTS } = process.env;

/** What a page that looks on a name within this time sees it. */
const NAME_MS = 2000;
const DRAW_MS = 200;

describe('the page, engine 28.5.2', { skip: outsideLab() || withoutBrowser(), timeout: 400_000 }, () => {
  let site: Site;
  let machine: Machine;
  let lab: LabBrowser;
  let context: BrowserContext;
  let page: Page;
  const errors: string[] = [];

  let startMap: () => Promise<Daemon>;
  let map: Daemon;

  before(async () => {
    site = await Site.open({ version: '28.5.2', hosts: ['host'], addresses: ['192.0.2.254/24'] });
    machine = site.machines[0] as Machine;
    const { engine, host, plugin } = machine;
    await engine.must(...CREATE, 'lan');
    await engine.must(...'network create -d tsmacvlan --subnet 198.51.100.0/24 -o parent=lan0'.split(' '), HOSTILE);
    startMap = () => host.start('map', plugin.commandLine('map', '--serve'), plugin.environment());
    map = await startMap();
    lab = await LabBrowser.open(host.namespace);
    context = await lab.browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
    page = await context.newPage();
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => void (message.type() === 'error' && errors.push(message.text())));
    await until(() =>
      page.goto(`http://127.0.0.1:${PORT}/`).then(
        () => true,
        () => false,
      ),
    );
    await sees('lan', '#tree');
  });
  after(async () => {
    await lab?.close();
    await site?.close();
  });

  const textOf = (where: string) => page.locator(where).innerText();
  async function sees(words: string | RegExp, where: string): Promise<void> {
    await page.locator(where).getByText(words).first().waitFor({ timeout: 60_000 });
  }

  const activeIn = async (list: Locator) => page.locator(`#${await list.getAttribute('aria-activedescendant')}`);

  test('a container has its name within two seconds of docker run', async () => {
    let count = 0;
    const name = () => `web${count}`;
    await inTime(
      NAME_MS,
      () => sees(name(), '#tree .container'),
      () => runIdle(machine.engine, `web${++count}`, '--net lan'),
    );
    await sees('192.0.2.64', '#tree .container');
    await sees('02:42:c0:00:02:40', '#tree .container');
  });

  test('what the doctor finds is marked where it is', async () => {
    await sees(/nobody on lan0 answers for gateway 198\.51\.100\.1; switch the router on/, '#tree .network.failure');
    assert.equal(await page.locator('#tree .network.failure').count(), 1);
  });

  test('a name is text, whatever it looks like', async () => {
    await sees(HOSTILE, '#tree');
    assert.equal(await page.title(), 'tsmacvlan');
    assert.equal(await page.locator('img').count(), 0);
    assert.deepEqual(errors, []);
  });

  test('a conflict appears where it is, and goes', async () => {
    // The switch takes the address of web1, and says so.
    const { namespace } = site.lan;
    await namespace.ip('address add 192.0.2.64/32 dev br0');
    await namespace.run(['ping', '-c', '1', '-W', '1', '-I', '192.0.2.64', '192.0.2.65']);
    await sees(/192\.0\.2\.64 also used by 0a:5c:/, '#tree .container.failure');
    await sees('it lasts', '#conflicts');
    await namespace.ip('address delete 192.0.2.64/32 dev br0');
    // What was on its way is heard after the first time.
    await until(async () => {
      assert.equal((await machine.plugin.commandInside('conflicts', '--clear')).code, 0);
      return page.locator('#conflicts').getByText('None in this time.').isVisible();
    });
    await page.locator('#tree .container.failure').waitFor({ state: 'detached', timeout: 60_000 });
  });

  test('arrow keys lead through the squares and the tree, and what is active is said', async () => {
    const squares = page.getByRole('grid').first();
    await squares.focus();
    const said = async () => (await activeIn(squares)).getAttribute('aria-label');
    for (const [key, words] of [
      ['Home', /^192\.0\.2\.0: network address$/],
      ['ArrowDown', /^192\.0\.2\.32: free, outside the range$/],
      ['ArrowDown', /^192\.0\.2\.64: container web1, 02:42:c0:00:02:40$/],
      ['ArrowLeft', /^192\.0\.2\.63: free, outside the range$/],
      ['Control+End', /^192\.0\.2\.255: broadcast address$/],
      ['ArrowRight', /^192\.0\.2\.255: broadcast address$/],
      ['ArrowLeft', /^192\.0\.2\.254: gateway$/],
    ] as const) {
      await squares.press(key);
      assert.match((await said()) ?? '', words, key);
    }
    await page.getByRole('button', { name: 'As a table' }).first().click();
    await sees('192.0.2.90 – 192.0.2.95', '#grids');
    const tree = page.getByRole('treegrid');
    await tree.focus();
    const active = async () => (await activeIn(tree)).innerText();
    await tree.press('Home');
    assert.match(await active(), /lan0/);
    await tree.press('ArrowDown');
    assert.match(await active(), /^<img /);
    await tree.press('ArrowDown');
    assert.match(await active(), /lan\n/);
    await tree.press('ArrowLeft');
    assert.doesNotMatch(await textOf('#tree'), /web1/);
    await tree.press('ArrowRight');
    await sees('web1', '#tree');
    await page.getByRole('searchbox').fill('WEB1');
    await sees('1 containers found', 'header');
    await page.getByRole('searchbox').fill('');
  });

  test('has nothing that keeps people out, in light and in dark', async () => {
    // The tool itself makes markup of text.
    const free = await lab.browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: true });
    const looked = await free.newPage();
    for (const colorScheme of ['light', 'dark'] as const) {
      await looked.emulateMedia({ colorScheme });
      await looked.goto(`http://127.0.0.1:${PORT}/`);
      await looked.getByText('web1').first().waitFor();
      await looked.getByRole('button', { name: 'As a table' }).first().click();
      await looked.evaluate(AXE);
      const findings = await looked.evaluate(async () => {
        const { axe } = globalThis as unknown as {
          axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
        };
        return (await axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
      });
      assert.deepEqual(findings, [], colorScheme);
    }
    await free.close();
  });

  test('says of when it is what it shows once nobody answers, though nothing has changed for a while', async () => {
    await page.evaluate(`
      lives = [];
      new MutationObserver(() => lives.push(document.getElementById('live').textContent))
        .observe(document.getElementById('live'), { childList: true, characterData: true, subtree: true });`);
    const lives = async () => (await page.evaluate<string[]>('lives')).filter((one) => one.startsWith('live, '));
    await until(async () => new Set(await lives()).size >= 3);
    await map.kill('SIGKILL');
    await sees(/does not answer; this is the picture of/, '#trouble');
    const [said, last = ''] = [await textOf('#trouble'), (await lives()).at(-1)];
    assert.ok(said.endsWith(last.slice('live, '.length)), `${said}: ${last}`);
    map = await startMap();
    await until(async () => (await textOf('#trouble')) === '');
    // What the browser says of a connection that broke off.
    errors.length = 0;
  });

  test('an engine or a daemon that is away is said, and nothing is blank; then it is back', async () => {
    await machine.engine.stop('SIGKILL');
    await sees(/names are those of .* UTC, since Docker does not answer/, '#remarks');
    assert.match(await textOf('#tree'), /web1/);
    await machine.plugin.stop();
    await sees(/no tsmacvlan runs on this host/, '#remarks');
    assert.match(await textOf('#tree'), /web1/);
    await Promise.all([machine.engine.start(), machine.plugin.start()]);
    await until(async () => (await textOf('#remarks')) === '');
    // An engine that was killed ends at its start what ran, and it is shown as what it is.
    await sees('web1', '#tree');
    await runIdle(machine.engine, 'again', '--net lan');
    await sees('again', '#tree .container');
  });

  test('ten thousand containers on a /16 are drawn in less than 200 ms, and a search as well', async () => {
    const file = join(machine.host.directory, 'crowd.html');
    writeFileSync(file, (await pageWith(crowdedPicture(10_000))).html);
    await page.goto(`file://${file}`);
    await sees('container-0', '#tree');
    for (const words of ['container-99', '10.9.7.', '02:42:0a:09:07', 'nobody', '']) {
      await page.getByRole('searchbox').fill(words);
      await page.evaluate('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))');
    }
    const times = await page.evaluate(() => performance.getEntriesByName('draw').map(({ duration }) => duration));
    console.log(`drawn in ${times.map((ms) => ms.toFixed(0)).join(', ')} ms`);
    // The machine may be away for a moment, but not at each.
    assert.ok(times.length >= 5 && Math.min(...times) < DRAW_MS, `drawn in ${times.join(', ')} ms`);
    const scrolled = page.getByRole('grid').first();
    await scrolled.press('Control+End');
    assert.match(
      (await (await activeIn(scrolled)).getAttribute('aria-label')) ?? '',
      /^10\.9\.255\.255: broadcast address$/,
    );
    assert.deepEqual(errors, []);
  });

  test('of a thousand subnets those near what is in sight are painted, and no others', async () => {
    const file = join(machine.host.directory, 'subnets.html');
    writeFileSync(file, (await pageWith(manySubnetsPicture(1000))).html);
    await page.goto(`file://${file}`);
    const canvases = page.locator('#grids .frame canvas');
    const bytesOf = (all: readonly unknown[]) =>
      all.map((one) => {
        const { width, height } = one as { width: number; height: number };
        return 4 * width * height;
      });
    const isPainted = async (at: number) => ((await canvases.evaluateAll(bytesOf)).at(at) ?? 0) > 0;
    await until(() => isPainted(0));
    const sizes = await canvases.evaluateAll(bytesOf);
    assert.equal(sizes.length, 1000);
    const megabytes = sizes.reduce((sum, one) => sum + one, 0) / 1e6;
    assert.ok(megabytes < 20, `${megabytes.toFixed(0)} MB of squares`);
    const title = page.locator('#grids').getByText(/^net999 /);
    await title.scrollIntoViewIfNeeded();
    await until(async () => (await isPainted(-1)) && !(await isPainted(0)));
    await page.getByRole('grid').last().press('Control+End');
    assert.match(
      (await (await activeIn(page.getByRole('grid').last())).getAttribute('aria-label')) ?? '',
      /^10\.3\.231\.255: /,
    );
    const times = await page.evaluate(() => performance.getEntriesByName('draw').map(({ duration }) => duration));
    console.log(
      `a thousand subnets, ${megabytes.toFixed(1)} MB, drawn in ${times.map((ms) => ms.toFixed(0)).join(', ')} ms`,
    );
    assert.deepEqual(errors, []);
  });

  // Only for make screenshots.
  const directory = SCREENSHOTS;
  if (directory === undefined) return;
  test('looks as it does in the docs', async () => {
    mkdirSync(directory, { recursive: true });
    await page.setViewportSize({ width: 1280, height: 640 });
    const { engine, plugin } = machine;
    await clearEngine(engine);
    await engine.must(...CREATE, 'lan');
    for (const name of ['homeassistant', 'unifi', 'pihole']) await runIdle(engine, name, '--net lan');
    await runIdle(engine, 'dns', '--net lan -p 53:53/udp');
    // Of another LAN than its parent's, as the doctor says.
    await machine.host.namespace.ip('address add 192.0.2.10/24 dev lan0');
    await engine.must(
      ...'network create -d tsmacvlan --ipam-driver tsmacvlan -o parent=lan0 --subnet 198.51.100.0/27'.split(' '),
      'office',
    );
    await engine.must('create', '--name', 'backup', '--net', 'lan', 'busybox');
    assert.equal((await plugin.commandInside('reserve', 'backup', '192.0.2.80')).code, 0);
    // Somebody has an address that no container gets, and somebody that of a container.
    const { IPAddress } = await attachment(engine, 'unifi', 'lan');
    for (const address of ['192.0.2.75', IPAddress]) await site.lan.namespace.ip(`address add ${address}/32 dev br0`);
    assert.notEqual((await engine.docker('run', '--rm', '--net', 'lan', '--ip', '192.0.2.75', 'busybox')).code, 0);
    await site.lan.namespace.run(['ping', '-c', '1', '-W', '1', '-I', IPAddress, '192.0.2.95']);
    await page.goto(`http://127.0.0.1:${PORT}/`);
    await sees(`${IPAddress} also used by`, '#tree .container.failure');
    await sees('192.0.2.75', '#conflicts');
    await sees('-p does nothing', '#tree');
    await sees('no gateway: containers get no IPv4 default route', '#tree');
    await page
      .getByRole('grid')
      .first()
      .hover({ position: { x: 72, y: 34 } });
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(directory, `map-${colorScheme}.png`), fullPage: true });
    }
  });
});
