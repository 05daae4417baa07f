/** How much of a pool's range is used, and for what: for `tsmacvlan pools`. Pure. */
import { type Address, contains, formatAddress, parseAddress, type Range } from '../address.ts';
import type { Conflict, Lease, Network, Pool, Remembered } from '../model.ts';
import { realmOf } from '../store/store.ts';
import { Occupancy } from './occupancy.ts';
import { layoutOf, nextAddress, realmOfPoolId, sizeWithin } from './pool.ts';

/**
 * Of the addresses that a search may give, which is those of the range. What is excluded is in no other count. Beyond 2^53 numbers
 * lose their last digits.
 */
export interface PoolUse {
  readonly poolId: string;
  /** Leased, by this host or by others that share the addresses. */
  readonly used: number;
  /** Free here, and used or asked for by others on the LAN when it was last asked. */
  readonly held: number;
  /** Free, and remembered or reserved for a container that is not there. */
  readonly remembered: number;
  readonly excluded: number;
  /** For whoever comes. */
  readonly free: number;
  /** What whoever comes gets next; null when nothing is left. */
  readonly next: string | null;
}

/** Addresses of one realm, of the pool's family. */
export interface Marks {
  readonly leased: Occupancy;
  readonly held: Occupancy;
  readonly kept: Occupancy;
}

/** `next`: where it is known better than by the order of the addresses. */
export function poolUse(pool: Pool, { leased, held, kept }: Marks, next?: Address): PoolUse {
  const { range, skipped, excluded, order, subnet } = layoutOf(pool);
  const closed = union(range, [leased, held, kept]);
  const count = (some: Occupancy) => countBetween(some, range, skipped);
  const [used, heldToo, taken] = [count(leased), count(union(range, [leased, held])), count(closed)];
  const after = order === 'sequential' && pool.lastGiven !== undefined ? parseAddress(pool.lastGiven) : undefined;
  const lowest = nextAddress(layoutOf(pool), closed, after?.value ?? null);
  const chosen = next ?? (lowest === undefined ? undefined : { family: subnet.family, value: lowest });
  return {
    poolId: pool.id,
    used,
    held: heldToo - used,
    remembered: taken - heldToo,
    excluded: Number(sizeWithin(range, excluded)),
    free: Number(range.last - range.first + 1n - sizeWithin(range, skipped) - BigInt(taken)),
    next: chosen === undefined ? null : formatAddress(chosen),
  };
}

function union({ first, last }: Range, some: readonly Occupancy[]): Occupancy {
  const all = new Occupancy();
  for (const one of some) {
    for (const value of one.addresses()) if (value >= first && value <= last) all.add(value);
  }
  return all;
}

/** `gaps` lie apart from each other. */
function countBetween(some: Occupancy, { first, last }: Range, gaps: readonly Range[]): number {
  const within = gaps.map((gap) =>
    some.count(gap.first < first ? first : gap.first, gap.last > last ? last : gap.last),
  );
  return some.count(first, last) - within.reduce((sum, count) => sum + count, 0);
}

/** What the records of this host say, where no daemon can be asked. */
export function marksOf(
  pool: Pool,
  records: {
    readonly leases: readonly Lease[];
    readonly names: readonly Remembered[];
    readonly conflicts: readonly Conflict[];
  },
  network: Network | undefined,
): Marks {
  const realm = realmOf(pool);
  const { subnet } = layoutOf(pool);
  const mark = (texts: readonly string[]) => {
    const marked = new Occupancy();
    for (const text of texts) {
      const address = parseAddress(text);
      if (address !== undefined && contains(subnet, address)) marked.add(address.value);
    }
    return marked;
  };
  const isHeld = ({ kind, parent, endedAt }: Conflict) =>
    kind === 'address' && endedAt === null && parent === network?.parent.name;
  return {
    leased: mark(records.leases.filter((lease) => lease.realm === realm).map(({ address }) => address)),
    held: mark(records.conflicts.filter(isHeld).map(({ address }) => address)),
    kept: mark(records.names.filter(({ poolId }) => realmOfPoolId(poolId) === realm).map(({ address }) => address)),
  };
}
