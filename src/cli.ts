/** The command line: `serve` is the daemon, the others look, or ask the daemon to do what an engine did not. */
import { networkInterfaces } from 'node:os';
import { parseArgs } from 'node:util';
import { type Address, contains, formatAddress, inOrderOfAddress, parseAddress, parsePrefix } from './address.ts';
import type { FoundLeak } from './collector.ts';
import { conflictsOf } from './contested.ts';
import * as errors from './errors.ts';
import { keptOf } from './ipam/kept.ts';
import type { Lease, Network, Pool } from './model.ts';
import { PROFILES } from './lan/timing.ts';
import { drawMap } from './map.ts';
import { nearest } from './nearest.ts';
import { SETTINGS, readSettings } from './settings.ts';
import {
  askDaemon,
  CLEAR_CONFLICTS,
  COLLECT_LEAKS,
  filteredParents,
  RESERVE_ADDRESS,
  UNRESERVE,
} from './server/client.ts';
import { writtenEndpoint } from './store/codec.ts';
import { lookIntoLocalStore, type ReadonlyStore } from './store/local.ts';
import { printSharedAddresses, sharedStore, type StoreFlags } from './sharedstore.ts';
import {
  conflictRow,
  endpointRow,
  keptRow,
  leaseRow,
  networkRow,
  poolRow,
  print,
  printJson,
  type Row,
  table,
} from './tables.ts';
import { VERSION } from './version.ts';

interface Command {
  readonly summary: string;
  /** How its arguments are written, for the usage, a word for each that it takes at most; without it the command takes none. */
  readonly argument?: string;
  /** How its own options are written, for the usage. */
  readonly options?: string;
  /** Resolves with the exit code; nothing is 0. */
  run(flags: Flags, argument: string, second: string): Promise<number | void>;
}

interface Flags extends StoreFlags {
  readonly isClearing: boolean;
  readonly parent: string | undefined;
  readonly profile: string | undefined;
  readonly isCluster: boolean;
  readonly network: string | undefined;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  serve: { summary: 'run the plugin; settings come from the environment (tsmacvlan settings)', run: serve },
  map: { summary: 'draw interfaces, VLANs, networks and containers', run: map },
  networks: { summary: 'list the networks', run: networks },
  endpoints: {
    summary: 'list the attachments of containers',
    run: (flags) => list(flags, (store) => store.endpoints.list(), endpointRow, writtenEndpoint),
  },
  pools: { summary: 'list the address pools', run: (flags) => list(flags, (store) => store.pools.list(), poolRow) },
  leases: {
    summary: 'list the addresses given out, here or by all hosts that share them',
    options: '[--cluster]',
    run: (flags) => (flags.isCluster ? printSharedAddresses(flags) : leases(flags)),
  },
  conflicts: {
    summary: 'list addresses that strangers on the LAN have, or forget what was recorded',
    argument: '[ADDRESS]',
    options: '[--clear]',
    run: conflicts,
  },
  probe: {
    summary: 'ask the LAN who has an address; exit code 0 nobody, 3 somebody',
    argument: 'ADDRESS',
    options: '--parent LINK [--profile fast|rfc]',
    run: probe,
  },
  gc: {
    summary: 'have the daemon remove what dead containers left; a dry run only tells what and why',
    options: '[--dry-run]',
    run: collectLeaks,
  },
  forget: {
    summary:
      'release a network that was removed while the plugin was away: Docker has none of this id, and tells nobody',
    argument: 'NETWORK',
    run: forget,
  },
  store: {
    summary:
      "of a shared store: list its hosts, free what one that is scrapped has, or claim this host's addresses there or give them back, while its daemon is stopped",
    argument: 'nodes|forget|migrate [NODE]',
    options: '[--from local --to etcd://HOST:PORT] [--dry-run] [--force]',
    run: sharedStore,
  },
  reserve: {
    summary: "give a container's name an address for good: it gets this one at each start, and no other container does",
    argument: 'NAME ADDRESS',
    options: '[--network ID]',
    run: reserve,
  },
  unreserve: {
    summary: 'forget the address that is reserved or remembered for a name',
    argument: 'NAME',
    options: '[--network ID]',
    run: unreserve,
  },
  settings: { summary: 'list the settings with their defaults', run: settings },
};

const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
  json: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  clear: { type: 'boolean' },
  force: { type: 'boolean' },
  parent: { type: 'string' },
  profile: { type: 'string' },
  cluster: { type: 'boolean' },
  from: { type: 'string' },
  to: { type: 'string' },
  network: { type: 'string' },
} as const;

/** Resolves with the exit code: 0 done, 1 failed, 2 called wrongly; `probe` adds 3. */
export async function main(words: readonly string[]): Promise<number> {
  try {
    const { values, positionals } = parseWords(words);
    if (values.version) return print(`tsmacvlan ${VERSION}\n`);
    const [name, argument = '', ...rest] = positionals;
    if (values.help || name === undefined || name === 'help') return print(usage());
    const command = commandNamed(name, [argument, ...rest]);
    return (await command.run(flagsOf(values), argument, rest[0] ?? '')) ?? 0;
  } catch (error) {
    process.stderr.write(`tsmacvlan: ${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof errors.PluginError && error.code !== 'USAGE' ? 1 : 2;
  }
}

function flagsOf(values: ReturnType<typeof parseWords>['values']): Flags {
  const { json = false, 'dry-run': isDryRun = false, clear: isClearing = false, force: isForced = false } = values;
  const { cluster: isCluster = false, parent, profile, from, to, network } = values;
  return { json, isDryRun, isClearing, isForced, isCluster, parent, profile, from, to, network };
}

function parseWords(words: readonly string[]) {
  const { tokens } = parseArgs({
    args: [...words],
    allowPositionals: true,
    strict: false,
    options: OPTIONS,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind !== 'option' || Object.hasOwn(OPTIONS, token.name)) continue;
    const near = nearest(token.name, Object.keys(OPTIONS));
    throw errors.unknownCommandOption(token.rawName, near && `--${near}`);
  }
  return parseArgs({ args: [...words], allowPositionals: true, options: OPTIONS });
}

function commandNamed(name: string, given: readonly string[]): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw errors.unknownCommand(name, nearest(name, Object.keys(COMMANDS)));
  const surplus = given.filter((word) => word !== '')[command.argument?.split(' ').length ?? 0];
  if (surplus !== undefined) throw errors.surplusArgument(surplus, name);
  return command;
}

function usage(): string {
  const rows = Object.entries(COMMANDS).map(([name, { summary, argument, options }]) => ({
    call: [name, argument, options].filter((word) => word !== undefined).join(' '),
    summary,
  }));
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const commands = rows.map(({ call, summary }) =>
    call.length > width ? `  ${call}\n  ${' '.repeat(width)}  ${summary}` : `  ${call.padEnd(width)}  ${summary}`,
  );
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

async function serve(): Promise<void> {
  // Loaded only here: the commands that read need neither Express nor the kernel.
  const { serveUntilSignal } = await import('./serve.ts');
  await serveUntilSignal(process.env);
}

function withStore<T>(use: (store: ReadonlyStore) => Promise<T>): Promise<T> {
  return lookIntoLocalStore(readSettings(process.env).stateDirectory, use);
}

async function map({ json }: Flags): Promise<void> {
  const filtered = await filteredParents(readSettings(process.env).sockets[0] ?? '');
  await withStore(async (store) => {
    const [networks, endpoints] = [await store.networks.list(), await store.endpoints.list()];
    const conflicts = (await store.conflicts.list()).filter(({ endedAt }) => endedAt === null);
    const written = endpoints.map(writtenEndpoint);
    if (json) printJson({ networks, endpoints: written, conflicts, filteredParents: filtered });
    else print(drawMap(networks, endpoints, { filtered, conflicts, hostsOf }) || 'no networks\n');
  });
}

/** Host access reaches this host at its own addresses on the parent too, as far as they lie in the network's subnets. */
function hostsOf({ hostAddresses, parent, subnets }: Network): string[] {
  if (hostAddresses.length === 0) return [];
  const isInside = (text: string) => {
    const address = parseAddress(text);
    return address !== undefined && subnets.some(({ subnet }) => isWithin(subnet, address));
  };
  const own = (networkInterfaces()[parent.name] ?? []).map(({ address }) => address).filter(isInside);
  return [...new Set([...hostAddresses, ...own])];
}

function isWithin(subnet: string, address: Address): boolean {
  const prefix = parsePrefix(subnet);
  return prefix !== undefined && contains(prefix, address);
}

async function list<T>(
  { json }: Flags,
  read: (store: ReadonlyStore) => Promise<T[]>,
  row: (record: T) => Row,
  write: (record: T) => unknown = (record) => record,
): Promise<void> {
  const records = await withStore(read);
  if (json) printJson(records.map(write));
  else print(table(records.map(row)));
}

async function networks({ json }: Flags): Promise<void> {
  const filtered = await filteredParents(readSettings(process.env).sockets[0] ?? '');
  const isFiltered = ({ parent }: Network) => filtered.includes(parent.name);
  const { records, endpoints, conflicts } = await withStore(async (store) => ({
    records: await store.networks.list(),
    endpoints: await store.endpoints.list(),
    conflicts: await store.conflicts.list(),
  }));
  const conflictsIn = ({ id }: Network) =>
    endpoints.filter(({ networkId }) => networkId === id).flatMap((endpoint) => conflictsOf(endpoint, conflicts));
  if (json) printJson(records.map((network) => ({ ...network, isPortFiltered: isFiltered(network) })));
  else
    print(
      table(records.map((network) => networkRow(network, isFiltered(network), hostsOf(network), conflictsIn(network)))),
    );
}

/** Each with the conflict that its container has; and what is kept for containers that are not there. */
async function leases({ json }: Flags): Promise<void> {
  const { records, pools, names, endpoints, conflicts } = await withStore(async (store) => ({
    records: await store.leases.list(),
    pools: new Map((await store.pools.list()).map((pool) => [pool.id, pool])),
    names: await store.names.list(),
    endpoints: new Map((await store.endpoints.list()).map((endpoint) => [endpoint.id, endpoint])),
    conflicts: await store.conflicts.list(),
  }));
  const conflictOf = ({ endpointId, address }: Lease) => {
    const endpoint = endpoints.get(endpointId ?? '');
    return (endpoint && conflictsOf(endpoint, conflicts).find((one) => one.address === address)) ?? null;
  };
  const networksOf = (poolIds: readonly string[]) => poolIds.flatMap((id) => pools.get(id)?.networkId ?? []);
  const kept = keptOf(records, names);
  const written = records.map((lease) => ({
    ...lease,
    networkIds: networksOf(lease.poolIds),
    isReserved: kept.reservedFor(lease) !== null,
    reservedFor: kept.reservedFor(lease),
    conflict: conflictOf(lease),
  }));
  const idle = kept.idle.map(({ poolId, ...one }) => ({ ...one, networkIds: networksOf([poolId]) }));
  const all = inOrderOfAddress([...written, ...idle], ({ address }) => parseAddress(address));
  if (json) return printJson(all);
  const rows = all.map((one) =>
    'endpointId' in one ? leaseRow(one, one.reservedFor, one.conflict, one.networkIds) : keptRow(one, one.networkIds),
  );
  print(table(rows));
}

/** Of all addresses, or of one; `--clear` has the daemon forget them. */
async function conflicts({ json, isClearing }: Flags, argument: string): Promise<void> {
  const typed = argument === '' ? null : parseAddress(argument);
  if (typed === undefined) throw errors.conflictsUsage(argument);
  const address = typed && formatAddress(typed);
  if (!isClearing) return showConflicts(json, address);
  const socket = readSettings(process.env).sockets[0] ?? '';
  const { Cleared } = (await askDaemon(socket, CLEAR_CONFLICTS, { Address: address })) as { Cleared: number };
  if (json) printJson({ cleared: Cleared });
  else if (Cleared === 0) print(`nothing was recorded${address === null ? '' : ` of ${address}`}\n`);
  else print(`${Cleared} ${Cleared === 1 ? 'conflict is' : 'conflicts are'} forgotten; what lasts is reported again\n`);
}

async function showConflicts(json: boolean, address: string | null): Promise<void> {
  const known = await withStore((store) => store.conflicts.list());
  const wanted = address === null ? known : known.filter((conflict) => conflict.address === address);
  const shown = inOrderOfAddress(wanted, (conflict) => parseAddress(conflict.address));
  if (json) printJson(shown);
  else print(table(shown.map(conflictRow)));
}

async function settings({ json }: Flags): Promise<void> {
  const rows = Object.values(SETTINGS);
  if (json) printJson(rows);
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

async function probe({ json, parent, profile = 'fast' }: Flags, argument: string): Promise<number> {
  const address = parseAddress(argument);
  if (address === undefined) throw errors.probeUsage(argument);
  if (parent === undefined) throw errors.probeNeedsParent();
  const known = PROFILES.find((name) => name === profile);
  if (known === undefined) throw errors.probeProfile(profile, PROFILES);
  const { askLan } = await import('./main.ts');
  const begin = performance.now();
  const finding = await askLan(parent, address, known);
  const durationMs = Math.round(performance.now() - begin);
  if (json) printJson({ address: argument, parent, durationMs, ...finding });
  else if (finding.held)
    print(`${argument} is used by ${finding.macAddress}, which answered on ${finding.linkName} (${durationMs} ms)\n`);
  else print(`nobody answered for ${argument} on ${parent} (${durationMs} ms)\n`);
  return finding.held ? 3 : 0;
}

/** Takes some seconds when anything is suspected: two readings have to agree. */
async function collectLeaks({ json, isDryRun }: Flags): Promise<void> {
  const { sockets } = readSettings(process.env);
  const answer = (await askDaemon(sockets[0] ?? '', COLLECT_LEAKS, { DryRun: isDryRun })) as { Leaks: FoundLeak[] };
  if (json) printJson(answer.Leaks);
  else print(table(answer.Leaks.map(findingRow)));
}

async function reserve({ json, network }: Flags, name: string, address: string): Promise<void> {
  if (name === '' || address === '') throw errors.reserveUsage();
  const socket = readSettings(process.env).sockets[0] ?? '';
  const body = { Name: name, Address: address, Network: network ?? '' };
  const reserved = (await askDaemon(socket, RESERVE_ADDRESS, body)) as { Name: string; Address: string };
  if (json) printJson({ name: reserved.Name, address: reserved.Address });
  else print(reservedFor(reserved.Name, reserved.Address));
}

function reservedFor(name: string, address: string): string {
  const option = address.includes(':') ? '--ip6' : '--ip';
  return `${address} is reserved for ${name}, which gets it at its next start; an engine before 29 tells no names, and needs ${option} ${address}\n`;
}

async function unreserve({ json, network }: Flags, name: string): Promise<void> {
  if (name === '') throw errors.unreserveUsage();
  const socket = readSettings(process.env).sockets[0] ?? '';
  const answer = await askDaemon(socket, UNRESERVE, { Name: name, Network: network ?? '' });
  const { Addresses: addresses } = answer as { Addresses: string[] };
  if (json) printJson({ name, addresses });
  else print(`nothing is kept for ${name} any more; it had ${addresses.join(' ')}\n`);
}

/** What the engine would have said, in its order: a network that is left without its pools is collected. */
async function forget({ json }: Flags, argument: string): Promise<void> {
  const { network, pools } = await withStore((store) => findForgotten(store, argument));
  const socket = readSettings(process.env).sockets[0] ?? '';
  for (const { id } of pools) await askDaemon(socket, 'IpamDriver.ReleasePool', { PoolID: id });
  await askDaemon(socket, 'NetworkDriver.DeleteNetwork', { NetworkID: network.id });
  const subnets = network.subnets.map(({ subnet }) => subnet);
  if (json) printJson({ network: network.id, subnets });
  else print(`network ${errors.short(network.id)} is forgotten; free again: ${subnets.join(' ')}\n`);
}

async function findForgotten(store: ReadonlyStore, typed: string): Promise<{ network: Network; pools: Pool[] }> {
  const found = typed === '' ? [] : await networksNamed(store, typed);
  const [network] = found;
  if (network === undefined || found.length > 1)
    throw errors.networkNotNamed(typed, found.length, 'call tsmacvlan forget');
  const endpoint = (await store.endpoints.list()).find(({ networkId }) => networkId === network.id);
  if (endpoint !== undefined) throw errors.networkHasContainers(network.id, endpoint.id);
  const pools = (await store.pools.list()).filter(({ networkId }) => networkId === network.id);
  return { network, pools };
}

async function networksNamed(store: ReadonlyStore, typed: string): Promise<Network[]> {
  return (await store.networks.list()).filter(({ id }) => id.startsWith(typed));
}

const STATES = { collected: 'removed', certain: 'would be removed', suspected: 'being watched' } as const;

function findingRow({ kind, name, why, state }: FoundLeak): Row {
  return { STATE: STATES[state], KIND: kind, NAME: name, WHY: why };
}
