/** LANs for tests that are about something else. */
import type { Keeper, Probe } from '../../src/ipam/driver.ts';

/** Nobody answers. */
export const NOBODY_ANSWERS: Probe = async () => ({ held: false });

/** No address is kept on standby, as where the LAN is not asked. */
export const KEEPS_NOTHING: Keeper = {
  parentOf: async () => null,
  mostAtOnce: Number.POSITIVE_INFINITY,
  keep: async () => null,
  isKept: async () => false,
  askAhead: async () => undefined,
  release: async () => undefined,
};
