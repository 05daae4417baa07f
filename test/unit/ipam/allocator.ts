/** An Allocator with the parts around it, for tests that bring their own LAN and time. */
import { Ages } from '../../../src/ipam/ages.ts';
import { Allocator } from '../../../src/ipam/allocator.ts';
import type { Probe } from '../../../src/ipam/driver.ts';
import type { Leases } from '../../../src/ipam/leases.ts';
import { Names } from '../../../src/ipam/names.ts';
import { Nearby } from '../../../src/ipam/nearby.ts';
import { Offers } from '../../../src/ipam/offers.ts';
import { Recalls } from '../../../src/ipam/recalls.ts';
import { Releases } from '../../../src/ipam/releases.ts';
import { ServedPools } from '../../../src/ipam/served.ts';
import type { Standby } from '../../../src/ipam/standby.ts';
import type { Clock } from '../../../src/clock.ts';
import type { Store } from '../../../src/store/store.ts';
import { KEEPS_NOTHING } from '../../lab/quiet.ts';

interface Parts {
  readonly store: Store;
  readonly leases: Leases;
  readonly clock: Clock;
  readonly probe: Probe;
  readonly standby: Standby;
  /** Left out, those of the store. */
  readonly names?: Names;
  /** Left out, nothing is asked for ahead. */
  readonly nearby?: Nearby;
}

export function allocatorOf({ store, leases, clock, probe, standby, ...given }: Parts): Allocator {
  const now = () => new Date();
  const log = { info: () => undefined };
  const names = given.names ?? new Names({ store, now, days: 30, log });
  const offers = new Offers({ store, leases, now, probe });
  const served = new ServedPools({ leases, offers });
  const releases = new Releases({ store, leases, names, standby, served });
  const recalls = new Recalls({ store, leases, offers, releases, names, standby, log });
  const [ages, nearby] = [new Ages(now, clock), given.nearby ?? new Nearby({ keeper: KEEPS_NOTHING, clock })];
  return new Allocator({ store, leases, ages, clock, offers, releases, recalls, standby, nearby, served });
}
