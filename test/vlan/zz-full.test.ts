import { join } from 'node:path';
import { runInVlanKernel } from '../lab/uml.ts';
for (const file of ['link.test.ts', 'packet.test.ts']) runInVlanKernel(join(import.meta.dirname, '../netns', file), { timeoutMs: 280_000 });
