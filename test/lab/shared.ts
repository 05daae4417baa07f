/** A host's store that shares its addresses, without a daemon around it. */
import { ClusterStore, readSelf } from '../../src/store/cluster.ts';
import { openLocalStore } from '../../src/store/local.ts';
import type { Self } from '../../src/store/registry.ts';

interface Choices {
  readonly fallsBack?: boolean;
  readonly self?: Self;
}

/** `diary`: what it logged. */
export function openShared(
  directory: string,
  endpoints: readonly string[],
  cluster: string,
  { fallsBack = false, self }: Choices = {},
): ClusterStore & { diary: string[] } {
  const diary: string[] = [];
  const note = (message: string) => void diary.push(message);
  const log = { debug: note, info: note, warn: note, error: note };
  const local = openLocalStore(directory);
  const access = { endpoints, tls: null, user: null };
  const parts = { local, access, cluster, self: self ?? readSelf(directory), fallsBack, log };
  return Object.assign(new ClusterStore(parts), { diary });
}
