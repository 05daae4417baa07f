/** Many containers come and go at once, and nothing of them stays: no link, no address, no record, no complaint. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertConsistent, assertNoLinkLeft, assertNothingLeft } from '../lab/invariant.ts';
import { type Machine, Site } from '../lab/site.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
/** `make lifecycle CYCLES=200` for the long run. */
const CYCLES = Number(process.env.CYCLES ?? 12);
const IN_PARALLEL = Math.min(20, CYCLES);

for (const version of VERSIONS) {
  describe(`lifecycle, engine ${version}`, { skip: outsideLab(), timeout: 1_100_000 }, () => {
    let site: Site;
    let machine: Machine;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'], settings: { LOG_LEVEL: 'info' } });
      machine = site.machines[0] as Machine;
    });
    after(() => site.close());

    test(`${CYCLES} networks and containers, ${IN_PARALLEL} at a time, leave nothing behind`, async () => {
      const { engine } = machine;
      await engine.api('POST', '/networks/create', networkBody('shared', '10.255.0.0/16'));
      const numbers = Array.from({ length: CYCLES }, (_, index) => index);
      const work = async () => {
        for (let number = numbers.shift(); number !== undefined; number = numbers.shift()) await cycle(engine, number);
      };
      await Promise.all(Array.from({ length: IN_PARALLEL }, work));
      await assertConsistent([machine], site.lan);
      await engine.api('DELETE', '/networks/shared');
      await assertNothingLeft(machine);
      await assertNoLinkLeft(machine);
    });

    test('neither the engine nor the plugin had anything to complain about', () => {
      const ofEngine = machine.engine.log().split('\n');
      assert.deepEqual(
        ofEngine.filter((line) => /level=(error|fatal)/.test(line)),
        [],
      );
      assert.deepEqual(
        ofEngine.filter((line) => /level=warning.*(tsmacvlan|endpoint|network|address)/i.test(line)),
        [],
      );
      const said = machine.plugin
        .log()
        .split('\n')
        .filter((line) => /\b(error|warn)\b/.test(line));
      // That the networks have no gateway, as nobody named one and nobody answers.
      assert.deepEqual(
        said.filter((line) => !line.includes('no gateway was named')),
        [],
      );
    });
  });
}

/** create → run → stop → start → connect → disconnect → rm → network rm */
async function cycle(engine: Engine, number: number): Promise<void> {
  const name = `c${number}`;
  await engine.api('POST', '/networks/create', networkBody(`n${number}`, `10.${number}.0.0/24`));
  const host = { NetworkMode: `n${number}` };
  await engine.api('POST', `/containers/create?name=${name}`, {
    Image: 'busybox',
    Cmd: ['sleep', '600'],
    HostConfig: host,
  });
  await engine.api('POST', `/containers/${name}/start`);
  await engine.api('POST', `/containers/${name}/stop?t=0`);
  await engine.api('POST', `/containers/${name}/start`);
  await engine.api('POST', '/networks/shared/connect', { Container: name });
  await engine.api('POST', '/networks/shared/disconnect', { Container: name });
  await engine.api('DELETE', `/containers/${name}?force=1`);
  await engine.api('DELETE', `/networks/n${number}`);
}

function networkBody(name: string, subnet: string): object {
  const ipam = { Driver: 'tsmacvlan', Config: [{ Subnet: subnet }] };
  return { Name: name, Driver: 'tsmacvlan', IPAM: ipam, Options: { parent: 'lan0' } };
}
