/** The scenarios of test/docker/parity.test.ts that need a kernel with 802.1Q and dummy links. */
import { inVlanKernel } from '../lab/uml.ts';
import { SCENARIOS } from '../parity/scenarios.ts';
import { playOn } from '../parity/suite.ts';

inVlanKernel(import.meta.filename, { memoryMb: 1536, timeoutMs: 1_000_000 }, () => {
  const scenarios = SCENARIOS.filter(({ needs }) => needs !== undefined);
  playOn('28.5.2', scenarios, false);
});
