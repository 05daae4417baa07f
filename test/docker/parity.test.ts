/** Whatever works with `-d macvlan` works with `-d tsmacvlan`: one list of scenarios, played by both on one engine. */
import { describe } from 'node:test';
import type { Version } from '../lab/engine.ts';
import { SCENARIOS } from '../parity/scenarios.ts';
import { playOn } from '../parity/suite.ts';

/**
 * Every scenario and every wanted difference of the engine between them is one of these too: it has its turn with
 * `make parity ENGINES=26.1.5`. Where engines are named, each plays what is of links alone too (scenario.ts).
 */
const VERSIONS = (process.env.ENGINES?.split(',') ?? ['20.10.24', '28.5.2']) as Version[];

// Those that need VLANs are played at the level vlan.
const scenarios = SCENARIOS.filter(({ needs }) => !needs?.includes('vlan'));

describe('parity', { concurrency: true }, () => {
  for (const version of VERSIONS) playOn(version, scenarios);
});
