/** The command line: `serve` is the daemon, the other commands only read. */
import { parseArgs } from 'node:util';
import * as errors from './errors.ts';
import { drawMap } from './map.ts';
import { nearest } from './nearest.ts';
import { SETTINGS, readSettings } from './settings.ts';
import { readLocalStore, type ReadonlyStore } from './store/local.ts';
import { VERSION } from './version.ts';

interface Command {
  readonly summary: string;
  run(asJson: boolean): Promise<void>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  serve: { summary: 'run the plugin; settings come from the environment (tsmacvlan settings)', run: serve },
  map: { summary: 'draw interfaces, VLANs, networks and containers', run: map },
  networks: {
    summary: 'list the networks',
    run: (asJson) => list(asJson, (store) => store.networks.list(), networkRow),
  },
  endpoints: {
    summary: 'list the attachments of containers',
    run: (asJson) => list(asJson, (store) => store.endpoints.list(), endpointRow),
  },
  pools: { summary: 'list the address pools', run: (asJson) => list(asJson, (store) => store.pools.list(), poolRow) },
  conflicts: {
    summary: 'list addresses that strangers on the LAN have',
    run: (asJson) => list(asJson, (store) => store.conflicts.list(), conflictRow),
  },
  leases: {
    summary: 'list the addresses given out',
    run: (asJson) => list(asJson, (store) => store.leases.list(), leaseRow),
  },
  settings: { summary: 'list the settings with their defaults', run: settings },
};

/** Resolves with the exit code: 0 done, 1 failed, 2 called wrongly. */
export async function main(words: readonly string[]): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
        json: { type: 'boolean' },
      },
    });
    if (values.version) return print(`tsmacvlan ${VERSION}\n`);
    if (values.help || positionals[0] === undefined || positionals[0] === 'help') return print(usage());
    await commandNamed(positionals).run(values.json ?? false);
    return 0;
  } catch (error) {
    process.stderr.write(`tsmacvlan: ${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof errors.PluginError && error.code !== 'USAGE' ? 1 : 2;
  }
}

function commandNamed([name = '', ...rest]: readonly string[]): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw errors.unknownCommand(name, nearest(name, Object.keys(COMMANDS)));
  if (rest[0] !== undefined) throw errors.surplusArgument(rest[0], name);
  return command;
}

function usage(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const commands = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'usage: tsmacvlan COMMAND [--json]',
    '',
    ...commands,
    '',
    '  --json     print data as JSON',
    '  --version  print the version',
    '',
  ].join('\n');
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

async function serve(): Promise<void> {
  // Loaded only here: the commands that read need neither Express nor the kernel.
  const { serveUntilSignal } = await import('./main.ts');
  await serveUntilSignal(readSettings(process.env));
}

async function withStore<T>(use: (store: ReadonlyStore) => Promise<T>): Promise<T> {
  const store = readLocalStore(readSettings(process.env).stateDirectory);
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

async function map(asJson: boolean): Promise<void> {
  await withStore(async (store) => {
    const [networks, endpoints] = [await store.networks.list(), await store.endpoints.list()];
    if (asJson) printJson({ networks, endpoints });
    else print(drawMap(networks, endpoints) || 'no networks\n');
  });
}

async function list<T>(
  asJson: boolean,
  read: (store: ReadonlyStore) => Promise<T[]>,
  row: (record: T) => Row,
): Promise<void> {
  const records = await withStore(read);
  if (asJson) printJson(records);
  else print(table(records.map(row)));
}

async function settings(asJson: boolean): Promise<void> {
  const rows = Object.values(SETTINGS);
  if (asJson) printJson(rows);
  else
    print(
      table(
        rows.map(({ name, fallback, allowed, meaning }) => ({
          SETTING: name,
          DEFAULT: fallback || '-',
          VALUES: allowed?.join(' ') ?? '-',
          MEANING: meaning,
        })),
      ),
    );
}

function printJson(data: unknown): void {
  print(`${JSON.stringify(data, null, 2)}\n`);
}

type Row = Readonly<Record<string, string>>;
type Records = {
  [K in 'networks' | 'endpoints' | 'pools' | 'leases' | 'conflicts']: Awaited<
    ReturnType<ReadonlyStore[K]['list']>
  >[number];
};

function networkRow({ id, parent, options, internal, subnets }: Records['networks']): Row {
  return {
    NETWORK: errors.short(id),
    PARENT: parent.name,
    MODE: options.mode,
    INTERNAL: internal ? 'yes' : 'no',
    SUBNETS: subnets.map(({ subnet }) => subnet).join(' '),
  };
}

function endpointRow({ id, networkId, parent, macAddress, address, addressIPv6, state }: Records['endpoints']): Row {
  const addresses = [address, addressIPv6].filter((text) => text !== null).join(' ') || '-';
  return {
    ENDPOINT: errors.short(id),
    NETWORK: errors.short(networkId),
    PARENT: parent,
    MAC: macAddress,
    ADDRESSES: addresses,
    STATE: state,
  };
}

function poolRow({ subnet, range, networkId, addressSpace }: Records['pools']): Row {
  return {
    SUBNET: subnet,
    RANGE: range ?? '-',
    NETWORK: networkId === null ? '-' : errors.short(networkId),
    SPACE: addressSpace,
  };
}

function leaseRow({ address, kind, endpointId, realm, changedAt }: Records['leases']): Row {
  return {
    ADDRESS: address,
    KIND: kind,
    ENDPOINT: endpointId === null ? '-' : errors.short(endpointId),
    REALM: realm,
    SINCE: changedAt,
  };
}

function conflictRow({ address, parent, macAddress, ourMacAddress, count, seenAt }: Records['conflicts']): Row {
  return {
    ADDRESS: address,
    PARENT: parent,
    'HELD BY': macAddress,
    OURS: ourMacAddress ?? '-',
    TIMES: String(count),
    'LAST SEEN': seenAt,
  };
}

/** Columns as wide as their widest cell; the header alone when there are no rows is no use, so a word instead. */
function table(rows: readonly Row[]): string {
  const headers = Object.keys(rows[0] ?? {});
  if (headers.length === 0) return 'none\n';
  const lines = [headers, ...rows.map((row) => headers.map((header) => row[header] ?? ''))];
  const widths = headers.map((_, column) => Math.max(...lines.map((cells) => (cells[column] ?? '').length)));
  return lines
    .map(
      (cells) =>
        `${cells
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
