/** Keeps one record per parent and address, however often the conflict shows. */
import type { Conflict } from '../model.ts';
import { conflictKey, type Table } from './store.ts';

export type ConflictReport = Pick<Conflict, 'parent' | 'address' | 'macAddress' | 'ourMacAddress'>;

/** Resolves with the record as it is now. `times`: how often it was seen. Gives up without an error when others change the record all the time. */
export async function recordConflict(
  conflicts: Table<Conflict>,
  report: ConflictReport,
  now: Date,
  times = 1,
): Promise<Conflict> {
  const seenAt = now.toISOString();
  const first: Conflict = { ...report, count: times, firstSeenAt: seenAt, seenAt };
  if (await conflicts.insert(first)) return first;
  const known = await conflicts.get(conflictKey(report));
  const next = { ...first, count: (known?.count ?? 0) + times, firstSeenAt: known?.firstSeenAt ?? seenAt };
  if (known !== undefined) await conflicts.replace(known, next);
  return next;
}
