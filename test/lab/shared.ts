/** A host's store that shares its addresses, without a daemon around it. */
import type { Log } from '../../src/log.ts';
import { ClusterStore, readSelf } from '../../src/store/cluster.ts';
import { openLocalStore } from '../../src/store/local.ts';

export interface Diary extends Log {
  readonly lines: string[];
}

export function diary(): Diary {
  const lines: string[] = [];
  const note = (message: string) => void lines.push(message);
  return { lines, debug: note, info: note, warn: note, error: note };
}

export function openShared(
  directory: string,
  endpoints: readonly string[],
  cluster: string,
  { log = diary(), fallsBack = false }: { log?: Log; fallsBack?: boolean } = {},
): ClusterStore {
  const local = openLocalStore(directory);
  const access = { endpoints, tls: null, user: null };
  return new ClusterStore({ local, access, cluster, self: readSelf(directory), fallsBack, log });
}
