/**
 * config.json, what the engine is told about the managed plugin (moby api/types/plugin.go, PluginConfig). Its settings
 * are those of src/settings.ts.
 *
 * Also a command: `node plugin/manifest.ts > config.json`
 */
import { SETTINGS, type Setting } from '../src/settings.ts';

/**
 * The engine calls a managed plugin by its name with the tag only, `tsmacvlan:latest`. A second socket, where engines look
 * for plugins that they do not manage, gives the same process the bare name (docs/install.md).
 */
const ALIAS_SOCKET = '/host/plugins/tsmacvlan.sock';

/** Both are where the manifest mounts something: another value would lead into the plugin's own file system. */
const FIXED: readonly string[] = [SETTINGS.SOCKET.name, SETTINGS.STATE_DIR.name];

export function manifest(): object {
  return {
    description: 'tsmacvlan: containers straight on the LAN, each with an address nobody else has',
    documentation: 'docs/install.md',
    // As plugin/launcher.sh.
    entrypoint: ['/bin/node', '--max-semi-space-size=1', '/app/managed.cjs', 'serve'],
    workdir: '/',
    interface: { types: ['docker.networkdriver/1.0', 'docker.ipamdriver/1.0'], socket: 'tsmacvlan.sock' },
    network: { type: 'host' },
    linux: { capabilities: ['CAP_NET_ADMIN', 'CAP_NET_BROADCAST', 'CAP_NET_RAW'] },
    // Survives disable, upgrade and reboot; only `docker plugin rm` removes it.
    propagatedMount: SETTINGS.STATE_DIR.fallback,
    mounts: [
      {
        name: 'plugins',
        description: 'where the engine looks for plugins it does not manage',
        source: '/run/docker/plugins',
        destination: '/host/plugins',
        type: 'bind',
        options: ['rbind', 'rw'],
        settable: ['source'],
      },
    ],
    env: Object.values<Setting>(SETTINGS).map((setting) => ({
      name: setting.name,
      description: describe(setting),
      value: setting.name === SETTINGS.ALIAS_SOCKET.name ? ALIAS_SOCKET : setting.fallback,
      settable: FIXED.includes(setting.name) ? [] : ['value'],
    })),
  };
}

function describe({ meaning, allowed }: Setting): string {
  return allowed === null ? meaning : `${meaning}: ${allowed.join(', ')}`;
}

if (import.meta.main) process.stdout.write(`${JSON.stringify(manifest(), null, 2)}\n`);
