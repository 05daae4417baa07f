/**
 * The daemon's settings: environment variables in one typed table. The reference in docs/ and the managed plugin's
 * config.json are generated from it, so a setting exists in one place.
 */
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { parseAddress } from './address.ts';
import { hookManaged, metricsNotLocal, settingsApart, unknownSettingValue } from './errors.ts';
import { CONFLICT_POLICIES, type ConflictPolicy, PROBE_PROFILES, type ProbeProfile } from './model.ts';
import { oneOf } from './nearest.ts';

/** One row of the table of settings. */
export interface Setting {
  readonly name: string;
  /** Used when the variable is absent or empty: an older install of the managed plugin lacks newer settings. */
  readonly fallback: string;
  readonly meaning: string;
  /** The only values taken; null for free text. */
  readonly allowed: readonly string[] | null;
  /** A running daemon takes it over when it reads its settings again; the others need a restart. */
  readonly isLive?: true;
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
    isLive: true,
  },
  LOG_NETLINK: {
    name: 'LOG_NETLINK',
    fallback: 'off',
    meaning: 'whether every message to the kernel about links, addresses and routes is logged, each with its answer',
    allowed: ['off', 'on'],
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
    meaning: 'how addresses are checked on the LAN: not at all, in 0.7 s, or in 4 to 7 s as in RFC 5227',
    allowed: PROBE_PROFILES,
  },
  PROBE_RATE: {
    name: 'PROBE_RATE',
    fallback: '500',
    meaning:
      'most ARP and neighbour discovery frames a second that are sent on a parent, 10 to 100000, or 0 for no limit; set it below what a switch with ARP inspection allows before it shuts the port',
    allowed: null,
  },
  DEFEND: {
    name: 'DEFEND',
    fallback: 'off',
    meaning:
      'whether the address of a running container is announced again when another machine uses it (RFC 5227 2.4)',
    allowed: ['off', 'on'],
    isLive: true,
  },
  CONFLICT: {
    name: 'CONFLICT',
    fallback: 'refuse',
    meaning:
      'what happens to a container whose address another machine on the LAN has: it does not start, or starts with a warning',
    allowed: CONFLICT_POLICIES,
    isLive: true,
  },
  REMEMBER: {
    name: 'REMEMBER',
    fallback: '30',
    meaning:
      "days for which a container's name keeps its address without use (engines from 29), 0 to 3650; 0 remembers no name",
    allowed: null,
  },
  DHCP_TIMEOUT: {
    name: 'DHCP_TIMEOUT',
    fallback: '25',
    meaning: 'seconds for which a start waits for a DHCP server (networks with -o source=dhcp), 5 to 28',
    allowed: null,
  },
  PARENTS: {
    name: 'PARENTS',
    fallback: '',
    meaning: 'names for parents on this host, "lan=ens33,storage=eth1", so that one -o parent=lan fits every host',
    allowed: null,
    isLive: true,
  },
  METRICS: {
    name: 'METRICS',
    fallback: '',
    meaning:
      'where Prometheus reads metrics and /healthz answers, "127.0.0.1:9618" or "unix:/run/tsmacvlan/metrics.sock"; empty for nowhere',
    allowed: null,
  },
  METRICS_OPEN: {
    name: 'METRICS_OPEN',
    fallback: 'off',
    meaning: 'whether METRICS may be an address that other machines reach; they can read it without a password',
    allowed: ['off', 'on'],
  },
  HOOK: {
    name: 'HOOK',
    fallback: '',
    meaning:
      'absolute path of a program that is run when a conflict begins or ends, empty for none; only root may be able to change it. The managed plugin cannot run programs of the host and refuses it',
    allowed: null,
  },
  STORE: {
    name: 'STORE',
    fallback: 'local',
    meaning:
      'where it is recorded who has an address: "local" on this host, or "etcd://HOST:PORT,HOST:PORT" by all hosts that share that etcd (etcds:// with TLS)',
    allowed: null,
  },
  STORE_CLUSTER: {
    name: 'STORE_CLUSTER',
    fallback: 'default',
    meaning: 'name of the cluster: hosts with the same name in one etcd share addresses',
    allowed: null,
  },
  STORE_USER: { name: 'STORE_USER', fallback: '', meaning: 'user of etcd, empty for none', allowed: null },
  STORE_PASSWORD: {
    name: 'STORE_PASSWORD',
    fallback: '',
    meaning: 'password of that user, or the path of a file that holds it',
    allowed: null,
  },
  STORE_CA: {
    name: 'STORE_CA',
    fallback: '',
    meaning: 'certificate of the authority that etcd is checked with, as a path or PEM; empty for those of the system',
    allowed: null,
  },
  STORE_CERT: {
    name: 'STORE_CERT',
    fallback: '',
    meaning: 'certificate that this host shows etcd, as a path or PEM; empty for none',
    allowed: null,
  },
  STORE_KEY: { name: 'STORE_KEY', fallback: '', meaning: 'private key of STORE_CERT, as a path or PEM', allowed: null },
  STORE_FALLBACK: {
    name: 'STORE_FALLBACK',
    fallback: 'refuse',
    meaning:
      'what happens to new addresses while etcd is away: they are refused, or given out after a check of the LAN by RFC 5227 and reconciled later; -o probe=off then counts as fast',
    allowed: ['refuse', 'probe'],
  },
} as const satisfies Record<string, Setting>;

const LEAST_DHCP_TIMEOUT = 5;
const MOST_DHCP_TIMEOUT = 28;
const LEAST_PROBE_RATE = 10;
const MOST_PROBE_RATE = 100_000;
const MOST_DAYS = 3650;

export type LogLevel = (typeof SETTINGS.LOG_LEVEL.allowed)[number];
export type LogFormat = (typeof SETTINGS.LOG_FORMAT.allowed)[number];
export type Scope = (typeof SETTINGS.SCOPE.allowed)[number];

/** What is said about an etcd that hosts share. Files are not read yet. */
export interface ClusterSettings {
  /** `10.0.0.1:2379` */
  readonly endpoints: readonly string[];
  readonly isSecure: boolean;
  readonly cluster: string;
  readonly user: string;
  readonly password: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly fallsBack: boolean;
}

/** Where metrics are read. */
export interface MetricsPlace {
  /** As it was given. */
  readonly text: string;
  /** Of a Unix socket; null for an address. */
  readonly path: string | null;
  readonly host: string;
  readonly port: number;
  /** No other machine reaches it. */
  readonly isLocal: boolean;
}

/** What the daemon goes by: the settings, read and checked. */
export interface Settings {
  /** One or two paths, the first from SOCKET, the other from ALIAS_SOCKET. */
  readonly sockets: readonly string[];
  readonly stateDirectory: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  /** Every exchange with the kernel is logged, at level info. */
  readonly logsNetlink: boolean;
  readonly scope: Scope;
  readonly probe: ProbeProfile;
  /** Frames a second on one parent; 0 for no limit. */
  readonly probeRate: number;
  readonly defends: boolean;
  readonly conflict: ConflictPolicy;
  /** Days. */
  readonly remember: number;
  /** Seconds. */
  readonly dhcpTimeout: number;
  /** Alias to link name, from PARENTS. */
  readonly parents: ReadonlyMap<string, string>;
  /** Null for nowhere. */
  readonly metrics: MetricsPlace | null;
  /** A path as it was given, not looked at yet; null for none. */
  readonly hook: string | null;
  /** Null: addresses are this host's alone. */
  readonly cluster: ClusterSettings | null;
}

/** What a running daemon takes over. */
export type LiveSettings = Pick<Settings, 'logLevel' | 'defends' | 'conflict' | 'parents'>;

/** The values of the settings whose row says `isLive`. */
export function liveSettings({ logLevel, defends, conflict, parents }: Settings): LiveSettings {
  return { logLevel, defends, conflict, parents };
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The rows whose values are not the same in both. */
export function changedSettings(before: Environment, after: Environment): Setting[] {
  return Object.values<Setting>(SETTINGS).filter((setting) => text(before, setting) !== text(after, setting));
}

/**
 * Reads the environment; absent and empty variables have their defaults. Throws SETTING_INVALID or SETTINGS_APART for
 * a mistake.
 */
export function readSettings(environment: Environment): Settings {
  return {
    sockets: [SETTINGS.SOCKET, SETTINGS.ALIAS_SOCKET].map((setting) => text(environment, setting)).filter(Boolean),
    stateDirectory: text(environment, SETTINGS.STATE_DIR),
    logLevel: choice(environment, SETTINGS.LOG_LEVEL),
    logFormat: choice(environment, SETTINGS.LOG_FORMAT),
    logsNetlink: choice(environment, SETTINGS.LOG_NETLINK) === 'on',
    scope: choice(environment, SETTINGS.SCOPE),
    probe: choice(environment, SETTINGS.PROBE),
    probeRate: frameRate(text(environment, SETTINGS.PROBE_RATE)),
    defends: choice(environment, SETTINGS.DEFEND) === 'on',
    conflict: choice(environment, SETTINGS.CONFLICT),
    remember: days(text(environment, SETTINGS.REMEMBER)),
    dhcpTimeout: patience(text(environment, SETTINGS.DHCP_TIMEOUT)),
    parents: aliases(environment, SETTINGS.PARENTS),
    metrics: metricsPlace(environment),
    hook: hookPath(environment),
    cluster: clusterSettings(environment),
  };
}

/** Throws SETTING_INVALID, or METRICS_NOT_LOCAL for an address that other machines reach where nobody says that they may. */
function metricsPlace(environment: Environment): MetricsPlace | null {
  const given = text(environment, SETTINGS.METRICS);
  const isOpen = choice(environment, SETTINGS.METRICS_OPEN) === 'on';
  if (given === '') return null;
  const [, path] = /^unix:(\/.+)$/.exec(given) ?? [];
  if (path !== undefined) {
    const other = [SETTINGS.SOCKET, SETTINGS.ALIAS_SOCKET].find(
      (one) => resolve(text(environment, one)) === resolve(path),
    );
    if (other !== undefined)
      throw settingsApart('METRICS', other.name, 'engines ask there; give METRICS a path of its own');
    return { text: given, path, host: '', port: 0, isLocal: true };
  }
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(given) ?? [];
  const [host, port] = [bracketed ?? plain ?? '', Number(digits)];
  if (isIP(host) !== (bracketed === undefined ? 4 : 6) || port < 1 || port > 65_535)
    throw unknownSettingValue(SETTINGS.METRICS.name, given, METRICS_FORMS);
  const isLocal = isLoopback(host);
  if (!isLocal && !isOpen) throw metricsNotLocal(given, port);
  return { text: given, path: null, host, port, isLocal };
}

const METRICS_FORMS = '127.0.0.1:PORT, [::1]:PORT or unix:/PATH';

function isLoopback(host: string): boolean {
  const address = parseAddress(host);
  if (address === undefined) return false;
  return address.family === 'IPv4' ? address.value >> 24n === 127n : address.value === 1n;
}

/** The managed plugin's entry says what it is. Throws HOOK_MANAGED. */
function hookPath(environment: Environment): string | null {
  const path = text(environment, SETTINGS.HOOK);
  if (path === '') return null;
  if (environment['MANAGED_PLUGIN'] !== undefined) throw hookManaged(path);
  return path;
}

function clusterSettings(environment: Environment): ClusterSettings | null {
  const of = (setting: Pick<Setting, 'name' | 'fallback'>) => text(environment, setting);
  const place = of(SETTINGS.STORE);
  if (place === 'local') return null;
  const [scheme, endpoints] = readStore(place);
  const [ca, cert, key] = [of(SETTINGS.STORE_CA), of(SETTINGS.STORE_CERT), of(SETTINGS.STORE_KEY)];
  if (choice(environment, SETTINGS.SCOPE) === 'global')
    throw settingsApart(
      'STORE=etcd',
      'SCOPE=global',
      'with SCOPE=global the managers of the swarm choose, use STORE=local',
    );
  if (choice(environment, SETTINGS.STORE_FALLBACK) === 'probe' && choice(environment, SETTINGS.PROBE) === 'off')
    throw settingsApart(
      'STORE_FALLBACK=probe',
      'PROBE=off',
      'hosts that have etcd must ask the LAN too for what those without it gave out, use PROBE=fast on all hosts or STORE_FALLBACK=refuse',
    );
  if ((cert === '') !== (key === '')) throw settingsApart('STORE_CERT', 'STORE_KEY', 'give both or none');
  return {
    endpoints,
    isSecure: scheme === 'etcds' || ca !== '' || cert !== '',
    cluster: clusterName(of(SETTINGS.STORE_CLUSTER)),
    user: of(SETTINGS.STORE_USER),
    password: of(SETTINGS.STORE_PASSWORD),
    ca,
    cert,
    key,
    fallsBack: choice(environment, SETTINGS.STORE_FALLBACK) === 'probe',
  };
}

/** Scheme and endpoints. */
function readStore(place: string): [string, string[]] {
  const [, scheme = '', list = ''] = place.match(/^(etcds?):\/\/([^/]+)\/?$/) ?? [];
  const endpoints = list.split(',').map((endpoint) => endpoint.trim());
  if (!endpoints.every((endpoint) => /^(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}$/.test(endpoint)))
    throw unknownSettingValue(SETTINGS.STORE.name, place, 'local, or etcd://HOST:PORT with more members after commas');
  return [scheme, endpoints];
}

function clusterName(name: string): string {
  if (/^[\w.-]{1,64}$/.test(name)) return name;
  throw unknownSettingValue(SETTINGS.STORE_CLUSTER.name, name, '1 to 64 letters, digits, dots, dashes and underscores');
}

function text(environment: Environment, setting: Pick<Setting, 'name' | 'fallback'>): string {
  return environment[setting.name]?.trim() || setting.fallback;
}

function choice<const T extends string>(
  environment: Environment,
  setting: Omit<Setting, 'allowed'> & { readonly allowed: readonly T[] },
): T {
  const value = text(environment, setting);
  const found = oneOf(setting.allowed, value);
  if (found === undefined) throw unknownSettingValue(setting.name, value, setting.allowed.join(', '));
  return found;
}

/** Below the least a single check would take as long as an engine waits for it. */
function frameRate(value: string): number {
  const rate = /^\d{1,6}$/.test(value) ? Number(value) : Number.NaN;
  if (rate === 0 || (rate >= LEAST_PROBE_RATE && rate <= MOST_PROBE_RATE)) return rate;
  const allowed = `0 for no limit, or ${LEAST_PROBE_RATE} to ${MOST_PROBE_RATE} frames a second`;
  throw unknownSettingValue(SETTINGS.PROBE_RATE.name, value, allowed);
}

function days(value: string): number {
  const count = /^\d{1,4}$/.test(value) ? Number(value) : Number.NaN;
  if (count <= MOST_DAYS) return count;
  throw unknownSettingValue(SETTINGS.REMEMBER.name, value, `0 to ${MOST_DAYS} days`);
}

/** The least that a server needs which asks the LAN first; the most that engines give a managed plugin, less what follows. */
function patience(value: string): number {
  const seconds = /^\d{1,2}$/.test(value) ? Number(value) : Number.NaN;
  if (seconds >= LEAST_DHCP_TIMEOUT && seconds <= MOST_DHCP_TIMEOUT) return seconds;
  throw unknownSettingValue(SETTINGS.DHCP_TIMEOUT.name, value, `${LEAST_DHCP_TIMEOUT} to ${MOST_DHCP_TIMEOUT} seconds`);
}

function aliases(environment: Environment, setting: Setting): Map<string, string> {
  const found = new Map<string, string>();
  for (const pair of text(environment, setting).split(',')) {
    if (pair.trim() === '') continue;
    const [alias, link, ...rest] = pair.split('=').map((part) => part.trim());
    if (!alias || !link || rest.length > 0 || alias === 'auto' || found.has(alias)) {
      throw unknownSettingValue(
        setting.name,
        pair.trim(),
        'alias=link pairs with commas between, as lan=eth0,storage=eth1, each alias once and none named auto',
      );
    }
    found.set(alias, link);
  }
  return found;
}
