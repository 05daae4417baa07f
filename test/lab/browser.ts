/** A browser on a host of the lab: Debian's chromium without a screen, driven by playwright-core. */
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import type { Namespace } from './namespace.ts';
import { browserFiles } from './packages.ts';

/** The reason for skipping what needs one; false where there is one. */
export function withoutBrowser(): string | false {
  return existsSync(browserFiles().program) ? false : 'no browser could be fetched from Debian';
}

/** One in the network namespace of a host; it has no way to anywhere but that host and its LAN. */
export class LabBrowser {
  readonly browser: Browser;
  readonly #directory: string;

  private constructor(browser: Browser, directory: string) {
    this.browser = browser;
    this.#directory = directory;
  }

  static async open(namespace: Namespace): Promise<LabBrowser> {
    const { program, libraries, fonts } = browserFiles();
    const directory = await mkdtemp(join(tmpdir(), 'browser-'));
    const configuration = join(directory, 'fonts.conf');
    const launcher = join(directory, 'launcher');
    await writeFile(configuration, fontConfiguration(fonts, directory));
    const surroundings = ['env', `LD_LIBRARY_PATH=${libraries}`, `FONTCONFIG_FILE=${configuration}`];
    const words = namespace.enter([...surroundings, program]).map((word) => `'${word}'`);
    await writeFile(launcher, `#!/bin/sh\nexec ${words.join(' ')} "$@"\n`);
    await chmod(launcher, 0o755);
    // Its own sandbox wants another user than root; what it opens is ours.
    const browser = await chromium.launch({ executablePath: launcher, args: ['--no-sandbox', '--disable-gpu'] });
    return new LabBrowser(browser, directory);
  }

  async close(): Promise<void> {
    await this.browser.close();
    await rm(this.#directory, { recursive: true });
  }
}

function fontConfiguration(fonts: string, cache: string): string {
  return `<?xml version="1.0"?>
<fontconfig>
<dir>${fonts}</dir>
<cachedir>${cache}/cache</cachedir>
<alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
</fontconfig>
`;
}
