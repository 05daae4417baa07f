/**
 * Asked by `make install` before it changes anything: is another tsmacvlan here? It would be refused at its start, and at the
 * next boot the one that starts first, with an empty state, would keep out the one that knows the containers.
 *
 * A command: `node plugin/occupied.ts`; exit code 1 and a sentence when there is one.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { daemonHeld } from '../src/errors.ts';
import { holderOfNamespace, ownPidNamespace } from '../src/kernel/oneprocess.ts';
import { askLocalEngine } from '../src/server/client.ts';

/** Where an engine that does not run keeps its plugins, unless it has another data-root. */
const PLUGINS = '/var/lib/docker/plugins';

/** As the engine tells of one, and writes it down (moby api/types/plugin.go). */
interface ListedPlugin {
  readonly Name: string;
  readonly Enabled: boolean;
  readonly Config?: { readonly Description?: string };
}

/** Names of the enabled managed plugins that are tsmacvlan, of whatever version: what they say of themselves begins so. */
async function enabledPlugins(): Promise<string[]> {
  const isOurs = ({ Config, Enabled }: ListedPlugin) => Enabled && String(Config?.Description).startsWith('tsmacvlan');
  // Not by the docker command: its context, or DOCKER_HOST, may lead to another machine.
  const listed = await askLocalEngine('/plugins');
  const plugins = Array.isArray(listed) ? (listed as ListedPlugin[]) : pluginsOnDisk();
  return plugins.filter(isOurs).map(({ Name }) => Name);
}

/** As the engine writes them down (moby plugin/store.go). */
function pluginsOnDisk(): ListedPlugin[] {
  const written = (id: string): ListedPlugin[] => {
    try {
      const { plugin } = JSON.parse(readFileSync(`${PLUGINS}/${id}/config.json`, 'utf8')) as { plugin?: ListedPlugin };
      return plugin === undefined ? [] : [plugin];
    } catch {
      return [];
    }
  };
  try {
    return readdirSync(PLUGINS).flatMap(written);
  } catch {
    return [];
  }
}

/** Of the service that may be installed already: it is the one that is upgraded. */
function servicePid(): number {
  const { stdout } = spawnSync('systemctl', ['show', '--property=MainPID', '--value', 'tsmacvlan'], {
    encoding: 'utf8',
  });
  return Number(stdout);
}

async function whyNot(): Promise<string | null> {
  const [plugin] = await enabledPlugins();
  if (plugin !== undefined)
    return `the managed plugin ${plugin} is enabled on this host, and one tsmacvlan is enough for a host; stay with it, or remove its networks, then "docker plugin disable ${plugin}" and "docker plugin rm ${plugin}", and install again`;
  const holder = await holderOfNamespace();
  if (holder === null || (holder.pid !== null && holder.pid === servicePid())) return null;
  const isSeen = holder.says === null || holder.says.pidNamespace === ownPidNamespace();
  return daemonHeld(isSeen ? holder.pid : null, holder.says).message;
}

const reason = await whyNot();
if (reason !== null) {
  process.stderr.write(`nothing was installed: ${reason}\n`);
  process.exitCode = 1;
}
