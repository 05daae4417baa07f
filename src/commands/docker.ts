/** Docker's names for what a command shows; ids where Docker cannot be asked, which is said once. */
import { homedir } from 'node:os';
import { askEngine, type EngineInventory } from '../engine/inventory.ts';
import { findEngine } from '../engine/place.ts';
import * as errors from '../errors.ts';
import { Naming } from '../naming.ts';

/** Where Docker said nothing. */
export const EMPTY: EngineInventory = { containers: [], networks: [] };

/** Never throws for Docker: `tell` gets the sentence why it cannot be asked; left out, the standard error output. */
export async function readInventory(
  tell: (sentence: string) => unknown = (sentence) => process.stderr.write(`tsmacvlan: ${sentence}\n`),
): Promise<EngineInventory> {
  try {
    return await askEngine(findEngine(process.env, homedir()));
  } catch (error) {
    if (!(error instanceof errors.PluginError)) throw error;
    tell(error.message);
    return EMPTY;
  }
}

/** `isWhole`: after `--no-trunc`. */
export function namingOf({ containers, networks }: EngineInventory, isWhole: boolean): Naming {
  const stopped = new Map<string, string[]>();
  const running = new Map<string, string>();
  for (const { name, attachments } of containers) {
    for (const { endpointId, networkId } of attachments) {
      if (endpointId !== '') running.set(endpointId, name);
      else stopped.set(networkId, [...(stopped.get(networkId) ?? []), name]);
    }
  }
  return new Naming(
    { networks: new Map(networks.map(({ id, name }) => [id, name])), containers: running, stopped },
    isWhole,
  );
}

/** Asks Docker for its names. */
export async function readNaming({ 'no-trunc': isWhole = false }: { readonly 'no-trunc'?: boolean }): Promise<Naming> {
  return namingOf(await readInventory(), isWhole);
}
