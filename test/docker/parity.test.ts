/** Whatever works with `-d macvlan` works with `-d tsmacvlan`: one list of scenarios, played by both on one engine. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { SUITE_OF, type Version } from '../lab/engine.ts';
import { serveNames } from '../lab/nameserver.ts';
import { type Machine, Site } from '../lab/site.ts';
import { SCENARIOS } from '../parity/scenarios.ts';
import { type Cast, CASTS, perform, type Performance } from '../parity/stage.ts';

for (const version of Object.keys(SUITE_OF) as Version[]) {
  describe(`parity, engine ${version}`, { skip: outsideLab(), timeout: 300_000 }, () => {
    let site: Site;
    let machine: Machine;
    before(async () => {
      site = await Site.open({
        version,
        hosts: ['host'],
        links: ['lan0', 'lan1'],
        addresses: ['192.0.2.254/24', '2001:db8::fe/64'],
      });
      machine = site.machines[0] as Machine;
      await site.lan.namespace.ip('address add 198.51.100.1/32 dev lo');
      await serveNames(site.lan.namespace, 'outside.example', '198.51.100.1');
    });
    after(() => site.close());
    for (const scenario of SCENARIOS) {
      if (scenario.engines && !scenario.engines.includes(version)) continue;
      if (scenario.needs?.includes('vlan')) continue;
      test(scenario.name, async () => {
        const all: Record<string, Performance> = {};
        for (const cast of Object.keys(CASTS) as Cast[]) {
          if (cast === 'macvlan' && scenario.needs) continue;
          const t = Date.now();
          const p = await perform(machine, scenario, cast);
          all[cast] = p;
          console.log(`## ${version} ${scenario.name} [${cast}] ${Date.now() - t} ms`);
          for (const s of p.surprises) console.log(`   surprise ${s}`);
          for (const s of p.refusals) console.log(`   refusal ${s}`);
        }
        const reference = all['macvlan'];
        if (!reference) {
          return;
        }
        for (const cast of ['tsmacvlan', 'tsmacvlan with its IPAM']) {
          const mine = all[cast]!;
          for (const key of new Set([...reference.facts.keys(), ...mine.facts.keys()])) {
            const [x, y] = [reference.facts.get(key), mine.facts.get(key)];
            if (x !== y) console.log(`   diff [${cast}] ${key}: ${x} => ${y}`);
          }
        }
        writeFileSync('/tmp/facts.json', JSON.stringify([...reference.facts], null, 1));
        assert.ok(true);
      });
    }
  });
}
