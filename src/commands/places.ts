/** Where the state of this host may lie while no daemon runs: of a service, or of a managed plugin, below the engine's directory. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as errors from '../errors.ts';
import { readSettings, SETTINGS } from '../settings.ts';

/** The engine's `data-root`, where its configuration names no other. */
const DATA_ROOT = '/var/lib/docker';
const ENGINE_CONFIGURATION = '/etc/docker/daemon.json';

/** The state that is there. Throws SEVERAL_STATES where it is not clear which is meant. */
export function stateToRead(): string {
  return onlyOne(managedPlugins().filter(hasState));
}

/** Where a state is to be restored: also that of a managed plugin which was just made and never ran. */
export function stateToRestore(): string {
  return onlyOne(managedPlugins());
}

/** STATE_DIR; else the usual place, or that of a managed plugin: whichever is there. */
function onlyOne(managed: readonly string[]): string {
  const { stateDirectory } = readSettings(process.env);
  if (process.env[SETTINGS.STATE_DIR.name]?.trim()) return stateDirectory;
  const places = [...(hasState(stateDirectory) ? [stateDirectory] : []), ...managed];
  if (places.length > 1) throw errors.severalStates(places);
  return places[0] ?? stateDirectory;
}

function hasState(directory: string): boolean {
  return existsSync(join(directory, 'tsmacvlan.db'));
}

/** The state directories of plugins that say of themselves what ours does (moby plugin/store.go: PLUGIN/config.json). */
function managedPlugins(): string[] {
  const files = globSync(join(dataRoot(), 'plugins/*/config.json'));
  return files.filter(isOurs).map((file) => join(dirname(file), 'propagated-mount'));
}

function isOurs(file: string): boolean {
  const { plugin } = readJson(file) as { plugin?: { Config?: { Description?: unknown } } };
  return String(plugin?.Config?.Description).startsWith('tsmacvlan');
}

function dataRoot(): string {
  const { 'data-root': root } = readJson(ENGINE_CONFIGURATION);
  return typeof root === 'string' ? root : DATA_ROOT;
}

function readJson(file: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(readFileSync(file, 'utf8'))) as Record<string, unknown>;
  } catch {
    return {};
  }
}
