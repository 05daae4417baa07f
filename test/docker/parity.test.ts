/** Whatever works with `-d macvlan` works with `-d tsmacvlan`: one list of scenarios, played by both on one engine. */
import { describe } from 'node:test';
import { SUITE_OF, type Version } from '../lab/engine.ts';
import { SCENARIOS } from '../parity/scenarios.ts';
import { playOn } from '../parity/suite.ts';

// Those that need VLANs are played at the level vlan.
const scenarios = SCENARIOS.filter(({ needs }) => !needs?.includes('vlan'));

describe('parity', { concurrency: true }, () => {
  for (const version of Object.keys(SUITE_OF) as Version[]) playOn(version, scenarios);
});
