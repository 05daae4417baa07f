/** Where the state of this host may lie while no daemon runs: of a service, or of a managed plugin, below the engine's directory. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as errors from '../errors.ts';
import { localEngineInfo } from '../server/client.ts';
import { type Settings, readSettings, SETTINGS } from '../settings.ts';
import { settingsOfService } from './daemon.ts';

/** The engine's `data-root`, where its configuration names no other. */
const DATA_ROOT = '/var/lib/docker';
const ENGINE_CONFIGURATION = '/etc/docker/daemon.json';

/** The state that is there. Throws SEVERAL_STATES where it is not clear which is meant. */
export async function stateToRead(): Promise<string> {
  return onlyOne(async () => (await managedPlugins()).filter(hasState));
}

/** Where a state is to be restored: also that of a managed plugin which was just made and never ran. */
export async function stateToRestore(): Promise<string> {
  return onlyOne(managedPlugins);
}

/** The settings of the service where there is one, and over them what the environment of the command or `said` names. */
export function settingsHere(said: Readonly<Record<string, string>> = {}): Settings {
  const named = Object.entries(process.env).filter(([, value]) => value?.trim());
  return readSettings({ ...settingsOfService(), ...Object.fromEntries(named), ...said });
}

/** STATE_DIR; else the service's place, or that of a managed plugin: whichever is there. */
async function onlyOne(managed: () => Promise<readonly string[]>): Promise<string> {
  const { name } = SETTINGS.STATE_DIR;
  const named = process.env[name]?.trim();
  const { stateDirectory } = readSettings({ ...process.env, [name]: named || settingsOfService()[name] });
  if (named) return stateDirectory;
  const places = [...(hasState(stateDirectory) ? [stateDirectory] : []), ...(await managed())];
  if (places.length > 1) throw errors.severalStates(places);
  return places[0] ?? stateDirectory;
}

function hasState(directory: string): boolean {
  return existsSync(join(directory, 'tsmacvlan.db'));
}

/** The state directories of plugins that say of themselves what ours does (moby plugin/store.go: PLUGIN/config.json). */
async function managedPlugins(): Promise<string[]> {
  const files = globSync(join(await dataRoot(), 'plugins/*/config.json'));
  return files.filter(isOurs).map((file) => join(dirname(file), 'propagated-mount'));
}

function isOurs(file: string): boolean {
  const { plugin } = readJson(file) as { plugin?: { Config?: { Description?: unknown } } };
  return String(plugin?.Config?.Description).startsWith('tsmacvlan');
}

/** As the engine says; where it does not answer, as its configuration does. */
async function dataRoot(): Promise<string> {
  const known = (await localEngineInfo()) ?? {};
  const { 'data-root': root } = readJson(ENGINE_CONFIGURATION);
  return [known['DockerRootDir'], root].find((path) => typeof path === 'string') ?? DATA_ROOT;
}

function readJson(file: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(readFileSync(file, 'utf8'))) as Record<string, unknown>;
  } catch {
    return {};
  }
}
