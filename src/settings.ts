/**
 * The daemon's settings: environment variables in one typed table. The reference in docs/ and the managed plugin's
 * config.json are generated from it, so a setting exists in one place.
 */
import { unknownSettingValue } from './errors.ts';
import { PROBE_PROFILES, type ProbeProfile } from './model.ts';

export interface Setting {
  readonly name: string;
  /** Used when the variable is absent or empty: an older install of the managed plugin lacks newer settings. */
  readonly fallback: string;
  readonly meaning: string;
  /** The only values taken; null for free text. */
  readonly allowed: readonly string[] | null;
}

export const SETTINGS = {
  SOCKET: {
    name: 'SOCKET',
    fallback: '/run/docker/plugins/tsmacvlan.sock',
    meaning: 'Unix socket the engine calls; the file name without .sock is the driver name',
    allowed: null,
  },
  ALIAS_SOCKET: {
    name: 'ALIAS_SOCKET',
    fallback: '',
    meaning:
      'second Unix socket of the same daemon, empty for none: gives the managed plugin a driver name without tag',
    allowed: null,
  },
  STATE_DIR: {
    name: 'STATE_DIR',
    fallback: '/var/lib/tsmacvlan',
    meaning: 'directory of the durable state (networks, endpoints, pools, leases)',
    allowed: null,
  },
  LOG_LEVEL: {
    name: 'LOG_LEVEL',
    fallback: 'info',
    meaning: 'least severe messages that are logged',
    allowed: ['error', 'warn', 'info', 'debug'],
  },
  LOG_FORMAT: { name: 'LOG_FORMAT', fallback: 'text', meaning: 'form of the log lines', allowed: ['text', 'json'] },
  SCOPE: {
    name: 'SCOPE',
    fallback: 'local',
    meaning: 'scope told to the engine; global makes swarm networks directly',
    allowed: ['local', 'global'],
  },
  PROBE: {
    name: 'PROBE',
    fallback: 'fast',
    meaning: 'how the LAN is asked whether somebody has an address: not at all, in 0.7 s, or in 4 to 7 s as RFC 5227',
    allowed: PROBE_PROFILES,
  },
  DEFEND: {
    name: 'DEFEND',
    fallback: 'off',
    meaning: 'whether the address of a running container is announced again when somebody else uses it (RFC 5227 2.4)',
    allowed: ['off', 'on'],
  },
  PARENTS: {
    name: 'PARENTS',
    fallback: '',
    meaning: 'names for parents on this host, "lan=ens33,storage=eth1", so that one -o parent=lan fits every host',
    allowed: null,
  },
} as const satisfies Record<string, Setting>;

export type LogLevel = (typeof SETTINGS.LOG_LEVEL.allowed)[number];
export type LogFormat = (typeof SETTINGS.LOG_FORMAT.allowed)[number];
export type Scope = (typeof SETTINGS.SCOPE.allowed)[number];

export interface Settings {
  /** One or two paths, the first from SOCKET, the other from ALIAS_SOCKET. */
  readonly sockets: readonly string[];
  readonly stateDirectory: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly scope: Scope;
  readonly probe: ProbeProfile;
  readonly defends: boolean;
  /** Alias to link name, from PARENTS. */
  readonly parents: ReadonlyMap<string, string>;
}

export function readSettings(environment: Readonly<Record<string, string | undefined>>): Settings {
  return {
    sockets: [SETTINGS.SOCKET, SETTINGS.ALIAS_SOCKET].map((setting) => text(environment, setting)).filter(Boolean),
    stateDirectory: text(environment, SETTINGS.STATE_DIR),
    logLevel: oneOf(environment, SETTINGS.LOG_LEVEL),
    logFormat: oneOf(environment, SETTINGS.LOG_FORMAT),
    scope: oneOf(environment, SETTINGS.SCOPE),
    probe: oneOf(environment, SETTINGS.PROBE),
    defends: oneOf(environment, SETTINGS.DEFEND) === 'on',
    parents: aliases(environment, SETTINGS.PARENTS),
  };
}

function text(
  environment: Readonly<Record<string, string | undefined>>,
  setting: Pick<Setting, 'name' | 'fallback'>,
): string {
  return environment[setting.name]?.trim() || setting.fallback;
}

function oneOf<const T extends string>(
  environment: Readonly<Record<string, string | undefined>>,
  setting: Omit<Setting, 'allowed'> & { readonly allowed: readonly T[] },
): T {
  const value = text(environment, setting);
  const found = setting.allowed.find((allowed) => allowed === value);
  if (found === undefined) throw unknownSettingValue(setting.name, value, setting.allowed.join(', '));
  return found;
}

function aliases(environment: Readonly<Record<string, string | undefined>>, setting: Setting): Map<string, string> {
  const found = new Map<string, string>();
  for (const pair of text(environment, setting).split(',')) {
    if (pair.trim() === '') continue;
    const [alias, link, ...rest] = pair.split('=').map((part) => part.trim());
    if (!alias || !link || rest.length > 0 || alias === 'auto' || found.has(alias)) {
      throw unknownSettingValue(
        setting.name,
        pair.trim(),
        'alias=link pairs with commas between, each alias once and none named auto',
      );
    }
    found.set(alias, link);
  }
  return found;
}
