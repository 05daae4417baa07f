/** The JSON shapes of what our own command line asks the daemon, read and written as those of Docker are (wire.ts). */
import * as v from 'valibot';
import type { FoundLeak } from '../collector.ts';
import { type Remembered, TABLES } from '../model.ts';
import { knownName, object, optionalText, reader, text } from './shapes.ts';

export const readCollection = reader(
  v.pipe(
    object({ DryRun: v.nullish(v.boolean(), false) }),
    v.transform(({ DryRun }) => ({ isDryRun: DryRun })),
  ),
);

/** The leaks that were found, as the collector tells them. */
export function writeLeaks(leaks: readonly FoundLeak[]) {
  return { Leaks: leaks };
}

/** Which tables are wanted. */
export const readTables = reader(
  v.pipe(
    object({ Tables: v.array(v.picklist(TABLES, `one of ${TABLES.join(', ')}`)) }),
    v.transform(({ Tables }) => ({ tables: Tables })),
  ),
);

export const readClearance = reader(
  v.pipe(
    object({ Address: v.nullish(text, null) }),
    v.transform(({ Address }) => ({ address: Address })),
  ),
);

const containerName = v.pipe(text, v.transform(knownName));

export const readReservation = reader(
  v.pipe(
    object({ Name: containerName, Address: text, Network: optionalText }),
    v.transform(({ Name, Address, Network }) => ({ name: Name, address: Address, networkId: Network })),
  ),
);

export const readUnreserve = reader(
  v.pipe(
    object({ Name: containerName, Network: optionalText }),
    v.transform(({ Name, Network }) => ({ name: Name, networkId: Network })),
  ),
);

/** What was reserved. */
export function writeRemembered({ name, address }: Remembered) {
  return { Name: name, Address: address };
}

/** The addresses that the name had. */
export function writeForgotten({ forgotten }: { forgotten: readonly Remembered[] }) {
  return { Addresses: forgotten.map(({ address }) => address) };
}

/** How many. */
export function writeCleared({ count }: { count: number }) {
  return { Cleared: count };
}
