/** The commands that have the daemon change something, since an engine did not or cannot. */
import type { FoundLeak } from '../collector.ts';
import * as errors from '../errors.ts';
import type { Network, Pool } from '../model.ts';
import { CLEAR_CONFLICTS, COLLECT_LEAKS, RESERVE_ADDRESS, UNRESERVE } from '../server/client.ts';
import { print, printJson, type Row, table } from '../tables.ts';
import type { Options } from './command.ts';
import { askRunning } from './daemon.ts';
import { readInventory } from './docker.ts';
import { addressTyped } from './listings.ts';
import { readRecords } from './records.ts';

/** `gc`: takes some seconds when anything is suspected, since two readings have to agree. */
export async function collectLeaks({ json, 'dry-run': isDryRun = false }: Options): Promise<void> {
  const { Leaks } = (await askRunning(COLLECT_LEAKS, { DryRun: isDryRun })) as { Leaks: FoundLeak[] };
  if (json) printJson(Leaks);
  else print(table(Leaks.map(findingRow)));
}

const STATES = { collected: 'removed', certain: 'would be removed', suspected: 'being watched' } as const;

function findingRow({ kind, name, why, state }: FoundLeak): Row {
  return { STATE: STATES[state], KIND: kind, NAME: name, WHY: why };
}

/** `conflicts --clear` */
export async function clearConflicts({ json }: Options, typed: string): Promise<void> {
  const address = addressTyped(typed);
  const { Cleared } = (await askRunning(CLEAR_CONFLICTS, { Address: address })) as { Cleared: number };
  if (json) printJson({ cleared: Cleared });
  else if (Cleared === 0) print(`nothing was recorded${address === null ? '' : ` of ${address}`}\n`);
  else print(`${Cleared} ${Cleared === 1 ? 'conflict is' : 'conflicts are'} forgotten; what lasts is reported again\n`);
}

/** `reserve` */
export async function reserve({ json, network = '' }: Options, name: string, address: string): Promise<void> {
  const body = { Name: name, Address: address, Network: await networkMeant(network) };
  const reserved = (await askRunning(RESERVE_ADDRESS, body)) as { Name: string; Address: string };
  if (json) printJson({ name: reserved.Name, address: reserved.Address });
  else print(reservedFor(reserved.Name, reserved.Address));
}

/** The id of the network that Docker calls so; else what was typed, which may be the beginning of an id. */
async function networkMeant(typed: string): Promise<string> {
  if (typed === '') return '';
  const { networks } = await readInventory(() => undefined);
  return networks.find(({ name }) => name === typed)?.id ?? typed;
}

function reservedFor(name: string, address: string): string {
  const option = address.includes(':') ? '--ip6' : '--ip';
  return `${address} is reserved for ${name}, which gets it at its next start; an engine before 29 tells no names, and needs ${option} ${address}\n`;
}

/** `unreserve` */
export async function unreserve({ json, network = '' }: Options, name: string): Promise<void> {
  const answer = (await askRunning(UNRESERVE, { Name: name, Network: await networkMeant(network) })) as {
    Addresses: string[];
  };
  if (json) printJson({ name, addresses: answer.Addresses });
  else print(`nothing is kept for ${name} any more; it had ${answer.Addresses.join(' ')}\n`);
}

/** `forget`: what the engine would have said, in its order: a network that is left without its pools is collected. */
export async function forget({ json }: Options, typed: string): Promise<void> {
  const { network, pools } = await findForgotten(typed);
  for (const { id } of pools) await askRunning('IpamDriver.ReleasePool', { PoolID: id });
  await askRunning('NetworkDriver.DeleteNetwork', { NetworkID: network.id });
  const subnets = network.subnets.map(({ subnet }) => subnet);
  if (json) printJson({ network: network.id, subnets });
  else print(`network ${errors.short(network.id)} is forgotten; free again: ${subnets.join(' ')}\n`);
}

async function findForgotten(typed: string): Promise<{ network: Network; pools: readonly Pool[] }> {
  const { networks, endpoints, pools } = await readRecords('networks', 'endpoints', 'pools');
  const found = networks.filter(({ id }) => id.startsWith(typed));
  const [network] = found;
  if (network === undefined || found.length > 1)
    throw errors.networkNotNamed(typed, found.length, 'call tsmacvlan forget');
  const endpoint = endpoints.find(({ networkId }) => networkId === network.id);
  if (endpoint !== undefined) throw errors.networkHasContainers(network.id, endpoint.id);
  // A Docker that cannot be asked is taken at the word of who calls.
  const docker = (await readInventory(() => undefined)).networks.find(({ id }) => id === network.id);
  if (docker !== undefined) throw errors.networkInDocker(network.id, docker.name);
  return { network, pools: pools.filter(({ networkId }) => networkId === network.id) };
}
