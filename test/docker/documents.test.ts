/** What docs/ tells users to do, done: the migration from the built-in driver, the compose file. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { assertPings, attachment, runIdle } from '../lab/container.ts';
import { DOCS, follow } from '../lab/document.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { programOf } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { Site } from '../lab/site.ts';

const BUILT_IN =
  '-d macvlan --subnet 192.168.1.0/24 --gateway 192.168.1.1 --ip-range 192.168.1.64/26 -o parent=eth0 lan';
const BACK = { '-d tsmacvlan --ipam-driver tsmacvlan': '-d macvlan' };
const COMPOSE = ['--config', '/run/compose', 'compose', '--file', join(DOCS, 'examples/compose.yaml')];

for (const version of ['20.10.24', '28.5.2'] satisfies Version[]) {
  describe(`documents, engine ${version}`, { skip: outsideLab(), timeout: 600_000 }, () => {
    let site: Site;
    let engine: Engine;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'], links: ['eth0'], addresses: ['192.168.1.1/24'] });
      engine = site.machines[0]?.engine as Engine;
    });
    after(() => site.close());

    for (const [direction, driver, words] of [
      ['to tsmacvlan', 'tsmacvlan', {}],
      ['back to the built-in driver', 'macvlan', BACK],
    ] as const) {
      test(`docs/migration.md takes running containers ${direction}, each with its address`, async () => {
        if (driver === 'tsmacvlan') {
          await engine.must('network', 'create', ...BUILT_IN.split(' '));
          for (const name of ['web', 'db']) await runIdle(engine, name, '--net lan');
        }
        const started = await startTimes();
        const printed = await follow(engine, 'migration.md', 'Step by step', words);
        assert.match(printed, /192\.168\.1\.64\/26.*eth0[\s\S]*web 192\.168\.1\.64\/24/);
        assert.equal(await engine.must('network', 'inspect', '--format', '{{.Driver}}', 'lan'), driver);
        assert.equal((await attachment(engine, 'web', 'lan')).IPAddress, '192.168.1.64');
        assert.equal((await attachment(engine, 'db', 'lan')).IPAddress, '192.168.1.65');
        assert.equal(await startTimes(), started);
        await assertPings(engine, 'web', 'db');
        await assertPings(engine, 'db', '192.168.1.1');
      });
    }

    test('docs/examples/compose.yaml goes up and down', async () => {
      await engine.must('rm', '-f', 'web', 'db');
      await engine.must('network', 'rm', 'lan');
      mkdirSync('/run/compose/cli-plugins', { recursive: true });
      await engine.shell(`ln -sf ${programOf('compose')} /run/compose/cli-plugins/docker-compose`);
      await engine.must(...COMPOSE, 'up', '--detach');
      // The container runs before its web server listens.
      const page = () => engine.docker(...COMPOSE, 'exec', '-T', 'probe', 'wget', '-qO-', 'http://web/');
      await until(async () => (await page()).stdout === 'hello\n');
      const fromLan = await site.lan.namespace.run(['ping', '-c', '1', '-W', '10', '192.168.1.80']);
      assert.match(fromLan.stdout, / 0% packet loss/);
      await engine.must(...COMPOSE, 'down');
      assert.equal(await engine.must('network', 'ls', '--quiet', '--filter', 'driver=tsmacvlan'), '');
    });

    function startTimes(): Promise<string> {
      return engine.must('inspect', '--format', '{{.State.StartedAt}}', 'web', 'db');
    }
  });
}
