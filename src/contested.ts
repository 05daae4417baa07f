/** Which conflicts a container has at this moment, for all that shows them. Pure. */
import { formatAddress } from './address.ts';
import type { Conflict, Endpoint } from './model.ts';

/** Those of its addresses and of its MAC address that have not ended. */
export function conflictsOf(endpoint: Endpoint, conflicts: readonly Conflict[]): Conflict[] {
  const { parent, macAddress, addresses } = endpoint;
  const own = addresses.map(formatAddress);
  return conflicts.filter((conflict) => {
    const isIts = conflict.parent === parent && conflict.ourMacAddress === macAddress && conflict.endedAt === null;
    return isIts && (conflict.kind === 'mac' || own.includes(conflict.address));
  });
}

/** Who has the address, for people: another host of the shared store, a MAC address, or this host. */
export function holderOf({ macAddress, hostLink, node, newer }: Conflict): string {
  if (node !== undefined) return `${node.includes(' ') ? 'hosts' : 'host'} ${node}${AGES[newer ?? 'unknown']}`;
  return hostLink === null ? macAddress : `this host (${hostLink})`;
}

const AGES = { here: ' (ours is newer)', there: ' (its is newer)', unknown: '' } as const;

/** One conflict of a container in words. */
export function describeConflict(conflict: Conflict): string {
  const { kind, address } = conflict;
  return kind === 'mac'
    ? `MAC address also used by another host, with ${address}`
    : `${address} also used by ${holderOf(conflict)}`;
}
