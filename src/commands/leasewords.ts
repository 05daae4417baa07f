/** A lease of a DHCP server in words, for the commands that show its container. Pure. */
import { NEVER_ENDS_SECONDS } from '../lan/frames/dhcp.ts';
import type { Tenancy } from '../model.ts';
import { stateOf } from '../tables.ts';

const UNITS = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
] as const;

/** `3 minutes`; what is less than nothing is 0 seconds. */
export function duration(ms: number): string {
  const [word, unit] = UNITS.find(([, one]) => ms >= one) ?? (['second', 1000] as const);
  const count = Math.max(0, Math.floor(ms / unit));
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

/** ISO 8601, when it ends; null where it does not. */
export function leaseEnd({ obtainedAt, leaseSeconds }: Pick<Tenancy, 'obtainedAt' | 'leaseSeconds'>): string | null {
  if (leaseSeconds === NEVER_ENDS_SECONDS) return null;
  return new Date(Date.parse(obtainedAt) + leaseSeconds * 1000).toISOString();
}

/** `for 3 hours more`, `lost: silent`. `nowMs`: by the wall clock. */
export function remaining(tenancy: Tenancy, nowMs: number): string {
  const until = leaseEnd(tenancy);
  if (tenancy.state === 'lost') return stateOf(tenancy);
  if (until === null) return 'for ever';
  const leftMs = Date.parse(until) - nowMs;
  return leftMs < 0 ? 'over' : `for ${duration(leftMs)} more`;
}
