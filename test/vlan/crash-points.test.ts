/** The steps of calls that make and remove a VLAN: the rest of test/netns/crash-points.test.ts. */
import { join } from 'node:path';
import { runInVlanKernel } from '../lab/uml.ts';

runInVlanKernel(join(import.meta.dirname, '../netns/crash-points.test.ts'), { pattern: 'VLAN', timeoutMs: 500_000 });
