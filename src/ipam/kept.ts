/** What `tsmacvlan leases` shows of names beside the leases. Pure. */
import type { Lease, Remembered } from '../model.ts';
import { leaseKey } from '../store/store.ts';
import { realmOfPoolId } from './pool.ts';

/** An address that nobody has at this moment and that is kept for a name, as the command line prints it. */
export interface KeptAddress extends Omit<Remembered, 'isReserved'> {
  readonly kind: 'reserved' | 'remembered';
  readonly realm: string;
}

/** What is kept for names beside the leases; and for which name the address of a lease is reserved, whoever has it; null for none. */
export function keptOf(
  leases: readonly Lease[],
  names: readonly Remembered[],
): { idle: KeptAddress[]; reservedFor: (lease: Lease) => string | null } {
  const leased = new Set(leases.map(leaseKey));
  const kept = names.filter(({ name }) => name !== '').map((one) => ({ ...one, realm: realmOfPoolId(one.poolId) }));
  const reserved = new Map(kept.filter(({ isReserved }) => isReserved).map((one) => [leaseKey(one), one.name]));
  const idle = kept
    .filter((one) => !leased.has(leaseKey(one)))
    .map(({ isReserved, ...one }) => ({
      ...one,
      kind: isReserved ? ('reserved' as const) : ('remembered' as const),
    }));
  return { idle, reservedFor: (lease) => reserved.get(leaseKey(lease)) ?? null };
}
