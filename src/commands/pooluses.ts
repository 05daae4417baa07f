/** `pools`, and how much of each is used: as the daemon counts it, else as the records say. */
import { type Address, inOrderOfAddress, parsePrefix } from '../address.ts';
import { PluginError } from '../errors.ts';
import { marksOf, type PoolUse, poolUse } from '../ipam/pooluse.ts';
import type { Pool, Records } from '../model.ts';
import type { Naming } from '../naming.ts';
import { askDaemon, POOL_USES } from '../server/client.ts';
import { print, printJson, type Row, table } from '../tables.ts';
import type { Options } from './command.ts';
import { withNaming } from './docker.ts';
import { daemonToAsk, readRecords } from './records.ts';

/** By the pool's id. */
export type PoolUses = ReadonlyMap<string, PoolUse>;

type PoolRecords = Pick<Records, 'pools' | 'leases' | 'names' | 'conflicts' | 'networks'>;

/** Of all pools. Only the daemon knows what others of a shared store have, and whom it met a moment ago. */
export async function readPoolUses(records: PoolRecords): Promise<PoolUses> {
  const socket = await daemonToAsk();
  const told = socket === null ? null : await askUses(socket);
  const uses = told ?? records.pools.map((pool) => useByRecords(pool, records));
  return new Map(uses.map((use) => [use.poolId, use]));
}

/** Null from a daemon that does not know the question: it is older than this command line. */
async function askUses(socket: string): Promise<readonly PoolUse[] | null> {
  try {
    const { Pools } = (await askDaemon(socket, POOL_USES, {})) as { Pools: readonly PoolUse[] };
    return Pools;
  } catch (error) {
    if (error instanceof PluginError && error.code === 'DAEMON_REFUSED') return null;
    throw error;
  }
}

function useByRecords(pool: Pool, records: PoolRecords): PoolUse {
  const network = records.networks.find(({ id }) => id === pool.networkId);
  return poolUse(pool, marksOf(pool, records, network));
}

/** `pools` */
export async function pools(options: Options): Promise<void> {
  const seen = readRecords('pools', 'leases', 'names', 'conflicts', 'networks');
  const [records, naming] = await withNaming(seen, options);
  const uses = await readPoolUses(records);
  const byRange = inOrderOfAddress(records.pools, ({ range, subnet }) => firstOf(range ?? subnet));
  const sorted = inOrderOfAddress(byRange, ({ subnet }) => firstOf(subnet));
  if (options.json) printJson(sorted.map((pool) => written(pool, uses.get(pool.id), naming)));
  else print(table(sorted.map((pool) => poolRow(pool, uses.get(pool.id), naming))));
}

function firstOf(text: string): Address | undefined {
  const prefix = parsePrefix(text);
  return prefix && { family: prefix.family, value: prefix.first };
}

function written(pool: Pool, use: PoolUse | undefined, naming: Naming) {
  return { ...pool, networkName: naming.known.networks.get(pool.networkId ?? '') ?? null, use: use ?? null };
}

/** A range, where it is narrower than the subnet. One that was made at this very moment has no counts yet. */
function poolRow({ subnet, range, networkId, addressSpace }: Pool, use: PoolUse | undefined, naming: Naming): Row {
  return {
    SUBNET: subnet,
    RANGE: range ?? '-',
    NETWORK: networkId === null ? '-' : naming.network(networkId),
    ...naming.columns({ 'NETWORK ID': [networkId] }),
    USED: count(use?.used),
    FREE: count(use?.free),
    HELD: count(use?.held),
    EXCLUDED: count(use?.excluded),
    REMEMBERED: count(use?.remembered),
    NEXT: use?.next ?? '-',
    SPACE: addressSpace,
  };
}

/** An IPv6 subnet has more addresses than anybody reads digits. */
function count(number: number | undefined): string {
  if (number === undefined) return '-';
  return number < 1e9 ? String(number) : `2^${Math.round(Math.log2(number))}`;
}
