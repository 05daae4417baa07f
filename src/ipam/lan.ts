/** Where the LAN of a pool is, for the check of its addresses. */
import { type Address, parseAddress } from '../address.ts';
import type { LanCheck, Place } from '../lan/check.ts';
import { placeOf } from '../lan/check.ts';
import type { Network, Pool, ProbeProfile } from '../model.ts';
import type { Table } from '../store/store.ts';
import type { Probe } from './allocator.ts';

/** The network that CreateNetwork tied to the pool tells the parent, else `--ipam-opt parent=`; without either nobody is asked. */
export function lanProbe(check: LanCheck, networks: Table<Network>): Probe {
  return async (pool, text, signal) => {
    const place = await placeOfPool(pool, networks);
    if (place === null) return { held: false };
    return check.check({ ...place, address: parseAddress(text) as Address, subnet: pool.subnet, signal });
  };
}

async function placeOfPool({ networkId, options }: Pool, networks: Table<Network>): Promise<Place | null> {
  const profile = (options['probe'] as ProbeProfile | undefined) ?? null;
  const network = networkId === null ? undefined : await networks.get(networkId);
  if (network !== undefined) {
    const place = placeOf(network);
    return place && { ...place, profile: profile ?? place.profile };
  }
  const parentName = options['parent'];
  return parentName === undefined ? null : { parentName, mode: 'bridge', profile };
}
