/** Docker's names for what a command shows; ids where Docker cannot be asked, which is said once. */
import { homedir } from 'node:os';
import { askEngine, type EngineInventory } from '../engine/inventory.ts';
import { findEngine } from '../engine/place.ts';
import * as errors from '../errors.ts';
import { Naming } from '../naming.ts';

/** Where Docker said nothing. */
export const EMPTY: EngineInventory = { containers: [], networks: [] };

/** Never throws for Docker: `tell` gets the sentence why it cannot be asked. */
export async function readInventory(tell: (sentence: string) => unknown): Promise<EngineInventory> {
  try {
    return await askEngine(findEngine(process.env, homedir()));
  } catch (error) {
    if (!(error instanceof errors.PluginError)) throw error;
    tell(error.message);
    return EMPTY;
  }
}

/** Both at once. Why Docker cannot be asked goes to the standard error output, but not beside records that cannot be read either. */
export async function withInventory<T>(reading: Promise<T>): Promise<[T, EngineInventory]> {
  const reasons: string[] = [];
  const [records, inventory] = await Promise.all([reading, readInventory((reason) => reasons.push(reason))]);
  for (const reason of reasons) process.stderr.write(`tsmacvlan: ${errors.escapeControls(reason)}\n`);
  return [records, inventory];
}

/** `isWhole`: after `--no-trunc`. */
export function namingOf({ containers, networks }: EngineInventory, isWhole: boolean): Naming {
  const stopped = new Map<string, string[]>();
  const running = new Map<string, string>();
  for (const { name, attachments } of containers) {
    for (const { endpointId, networkId } of attachments) {
      if (endpointId !== '') running.set(endpointId, name);
      else if (stopped.get(networkId)?.push(name) === undefined) stopped.set(networkId, [name]);
    }
  }
  return new Naming(
    { networks: new Map(networks.map(({ id, name }) => [id, name])), containers: running, stopped },
    isWhole,
  );
}

/** See withInventory(). */
export async function withNaming<T>(
  reading: Promise<T>,
  { 'no-trunc': isWhole = false }: { readonly 'no-trunc'?: boolean },
): Promise<[T, Naming]> {
  const [records, inventory] = await withInventory(reading);
  return [records, namingOf(inventory, isWhole)];
}
