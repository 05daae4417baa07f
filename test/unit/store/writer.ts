/**
 * Writes leases as fast as it can and prints each address when it is acknowledged: `writer.ts local DIRECTORY ROUND`, or
 * `writer.ts etcd '["DIRECTORY",["127.0.0.1:2379"],"CLUSTER"]' ROUND`.
 */
import { writeSync } from 'node:fs';
import { openLocalStore } from '../../../src/store/local.ts';
import type { Store } from '../../../src/store/store.ts';
import { leaseRecord } from './lease.ts';

const OPENERS: Readonly<Record<string, (place: string) => Promise<Store>>> = {
  local: async (directory) => openLocalStore(directory),
  etcd: async (place) => {
    const { openShared } = await import('../../lab/shared.ts');
    return openShared(...(JSON.parse(place) as [string, string[], string]));
  },
};

const [kind = '', place = '', round = '0'] = process.argv.slice(2);
const store = await OPENERS[kind]?.(place);
if (store === undefined) throw new Error(`no store ${kind}`);

// In one piece and at once: a line that is read was written after its insert was acknowledged.
for (let i = 0; ; i++) {
  const address = `10.${round}.${i >> 8}.${i & 255}`;
  if (await store.leases.insert(leaseRecord(address))) writeSync(1, `${address}\n`);
}
