/** The site of `make site`, which the runner has built, in a real browser that gets its files and nothing else: a request to another host is noted. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { LabBrowser, withoutBrowser } from '../lab/browser.ts';
import { DOCS } from '../lab/document.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Namespace } from '../lab/namespace.ts';

const CHECKOUT = join(DOCS, '..');
const SITE = join(CHECKOUT, 'dist/site');
const HOST = 'docs.invalid';
const { SCREENSHOTS } = process.env;

describe('the site of the documents', { skip: outsideLab() || withoutBrowser(), timeout: 400_000 }, () => {
  let lab: LabBrowser;
  let page: Page;
  const wrong: string[] = [];

  before(async () => {
    lab = await LabBrowser.open(await Namespace.create('reader'));
    page = await lab.browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
    page.setDefaultTimeout(60_000);
    page.on('pageerror', (error) => wrong.push(String(error)));
    await page.route('**', async (route) => {
      const { host, pathname } = new URL(route.request().url());
      const path = join(SITE, decodeURIComponent(pathname === '/' ? '/index.html' : pathname));
      if (host === HOST && existsSync(path)) return route.fulfill({ path });
      wrong.push(route.request().url());
      return route.abort();
    });
  });
  after(() => lab?.close());

  test('the first page is the README, with its picture', async () => {
    await page.goto(`http://${HOST}/`);
    await page.getByRole('heading', { name: 'The first network' }).waitFor();
    const width = await page.locator('main img').evaluate((image) => (image as { naturalWidth?: number }).naturalWidth);
    assert.ok((width ?? 0) > 600, `${width}`);
    // What the generator did not fill in is there as it is in its templates.
    assert.equal(await page.locator('.VPNavBarTitle').innerText(), 'tsmacvlan');
    assert.doesNotMatch(await page.locator('body').innerText(), /\{\{/);
    if (SCREENSHOTS !== undefined) await page.screenshot({ path: join(SCREENSHOTS, 'site.png') });
  });

  test('its search finds a message by its words, without another host', async () => {
    await page.keyboard.press('Control+k');
    await page.getByRole('searchbox').fill('access points drop frames');
    await page.locator('.result', { hasText: 'PARENT_WIRELESS' }).first().click();
    await page.waitForURL(/\/docs\/messages\.html#parent_wireless$/);
    await page.locator('h2#parent_wireless').waitFor();
  });

  test('the pages lead to each other, and links to headings arrive', async () => {
    await page.getByRole('link', { name: 'Troubleshooting', exact: true }).first().click();
    await page.getByRole('heading', { name: 'The host cannot ping its container' }).waitFor();
    await page.locator('main').getByRole('link', { name: 'ADDRESS_HELD' }).click();
    await page.waitForURL(/#address_held$/);
    await page.locator('h2#address_held').waitFor();
    assert.deepEqual(wrong, []);
  });
});
