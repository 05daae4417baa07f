/** Tests on real links once more, in a kernel where none is skipped for want of a kind of link. */
import { join } from 'node:path';
import { runInVlanKernel } from '../lab/uml.ts';

const NETNS = join(import.meta.dirname, '../netns');

runInVlanKernel(join(NETNS, 'link.test.ts'), { pattern: 'a.VLAN|a.dummy|isolated' });
runInVlanKernel(join(NETNS, 'network.test.ts'), {});
runInVlanKernel(join(NETNS, 'carrier.test.ts'), { pattern: 'a.VLAN' });
