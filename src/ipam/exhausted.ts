/** Why no address is left: what those of the ranges are used for, and who was met on the LAN. */
import * as errors from '../errors.ts';
import type { Pool } from '../model.ts';
import { layoutOf, nameOf, sizeWithin } from './pool.ts';
import type { Realm } from './realm.ts';
import type { Search } from './search.ts';

/** RANGE_EXHAUSTED or RANGE_HELD, of the pools that a search has gone through. `lost`: hosts of a shared store that have some of them, `free` that could be tried. */
export function rangeRefusal(
  pools: readonly Pool[],
  realm: Pick<Realm, 'count'>,
  { last, suspect }: Search,
  { lost, free }: { readonly lost: errors.LostHosts; readonly free: number },
): errors.PluginError {
  const layouts = pools.map(layoutOf);
  const counts = realm.count(layouts.map(({ range }) => range));
  const excluded = layouts.reduce((sum, layout) => sum + sizeWithin(layout.range, layout.excluded), 0n);
  const uses = [
    [counts.container, 'leased'],
    [free, 'of hosts that are not heard of'],
    [counts.gateway, 'gateway'],
    [counts.auxiliary, 'auxiliary'],
    [counts.host, 'of this host'],
    [counts.reserved, 'reserved for containers'],
    [excluded, 'excluded'],
    [counts.used, 'used by others on the LAN'],
    [counts.wanted, 'being checked by others on the LAN'],
  ] as const;
  const names = pools.map(nameOf);
  if (last !== undefined && suspect !== null) return errors.rangeAnsweredByOne(names, uses, last, suspect);
  if (last !== undefined) return errors.rangeHeld(names, uses, last, lost);
  const isRangeGiven = pools.some(({ range }) => range !== null);
  return errors.rangeExhausted(names, uses, isRangeGiven, lost);
}
