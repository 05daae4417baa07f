/** The command line's part of a shared store: its addresses, its hosts, and moving in and out. */
import { contains, inOrderOfAddress, parseAddress, parsePrefix } from '../address.ts';
import * as errors from '../errors.ts';
import { type Lease, type Network, type NetworkSubnet, segmentOf } from '../model.ts';
import type { Move, SharedAddress } from '../store/etcd/migrate.ts';
import type { Forgotten, SharedNode } from '../store/etcd/nodes.ts';
import { print, printJson, type Row, table } from '../tables.ts';
import type { Options } from './command.ts';
import { settingsHere } from './places.ts';
import { readRecords } from './records.ts';

/** What can be said with `tsmacvlan store`. */
type StoreOptions = Pick<Options, 'json' | 'dry-run' | 'force' | 'from' | 'to'>;

const SOME_TAKE = ['from', 'to', 'dry-run', 'force'] as const;
const TAKEN: Readonly<Record<string, readonly (typeof SOME_TAKE)[number][]>> = {
  migrate: ['from', 'to', 'dry-run', 'force'],
  nodes: [],
  forget: ['dry-run', 'force'],
};

/** `leases --cluster`: the addresses of all hosts. */
export async function printSharedAddresses({ json }: Pick<Options, 'json'>): Promise<void> {
  const { cluster } = settingsHere();
  if (cluster === null) throw errors.storeIsLocal();
  const { readShared } = await import('../store/etcd/migrate.ts');
  const addresses = byAddress(await readShared(cluster));
  if (json) printJson(addresses);
  else print(table(addresses.map(sharedRow)));
}

/** `store`: `argument` is the word after it, `node` the one after that. Resolves with the exit code; nothing is 0. */
export async function sharedStore(options: StoreOptions, argument: string, node: string): Promise<number | void> {
  refuseOptions(options, argument);
  if (argument === 'migrate' && node === '') return migrate(options);
  if (argument === 'nodes' && node === '') return sharedNodes(options);
  if (argument === 'forget' && node !== '') return forgetShared(options, node);
  if (argument === 'forget' || argument === '') throw errors.storeWordMissing(argument);
  throw errors.storeUsage(['migrate', 'nodes'].includes(argument) ? node : argument);
}

/** An option that says nothing there was meant for something else. Throws USAGE, naming it. */
function refuseOptions(options: StoreOptions, argument: string): void {
  const known = TAKEN[argument];
  for (const name of known === undefined ? [] : SOME_TAKE)
    if (options[name] !== undefined && known?.includes(name) === false) throw errors.storeOption(`--${name}`, argument);
}

/** The other settings of the shared store are those of the daemon. Exit code 3: some of them are another host's. */
async function migrate({
  json,
  'dry-run': isDryRun = false,
  force: isForced = false,
  from,
  to,
}: StoreOptions): Promise<number> {
  const place = from === 'local' ? to : to === 'local' ? from : undefined;
  if (place === undefined || place === 'local') throw errors.migrateUsage();
  const { cluster, stateDirectory } = settingsHere({ STORE: place });
  if (cluster === null) throw errors.migrateUsage();
  const { moveIn, moveOut } = await import('../store/etcd/migrate.ts');
  const moves = byAddress(await (from === 'local' ? moveIn : moveOut)(stateDirectory, cluster, isDryRun, isForced));
  if (json) printJson(moves);
  else print(table(moves.map((move) => moveRow(move, isDryRun))));
  return moves.some(({ outcome }) => outcome === 'taken') ? 3 : 0;
}

async function sharedNodes({ json }: StoreOptions): Promise<void> {
  const { cluster, stateDirectory } = settingsHere();
  if (cluster === null) throw errors.storeIsLocal();
  const { readNodes } = await import('../store/etcd/nodes.ts');
  const nodes = await readNodes(cluster, stateDirectory);
  if (json) printJson(nodes);
  else print(table(nodes.map(nodeRow)));
}

/** Exit code 3: some of its addresses are in use, or could not be asked for. */
async function forgetShared(
  { json, 'dry-run': isDryRun = false, force: isForced = false }: StoreOptions,
  node: string,
): Promise<number> {
  const { cluster, stateDirectory } = settingsHere();
  if (cluster === null) throw errors.storeIsLocal();
  const { forgetNode } = await import('../store/etcd/nodes.ts');
  const { networks } = await readRecords('networks');
  const wish = { node, isDryRun, isForced };
  const found = byAddress(await forgetNode(cluster, stateDirectory, wish, (lease) => holderOnLan(networks, lease)));
  if (json) printJson(found);
  else print(table(found.map((one) => forgottenRow(one, isDryRun))));
  return found.every(({ outcome }) => outcome === 'freed') ? 0 : 3;
}

/** Asked on the parent of a network of this host on whose LAN the address is; null without. */
async function holderOnLan(
  networks: readonly Network[],
  { realm, address: text }: Pick<Lease, 'realm' | 'address'>,
): Promise<string | null> {
  const address = parseAddress(text);
  if (address === undefined) return null;
  const isOn = ({ realm: own, subnet }: NetworkSubnet) => {
    const prefix = parsePrefix(subnet);
    return own === realm && prefix !== undefined && contains(prefix, address);
  };
  const network = networks.find((one) => segmentOf(one) !== null && one.subnets.some(isOn));
  if (network === undefined) return null;
  const { askLan } = await import('../main.ts');
  const verdict = await askLan(network.parent.name, address, 'fast');
  return verdict.held ? verdict.macAddress : '';
}

function byAddress<T extends Pick<Lease, 'address'>>(records: readonly T[]): T[] {
  return inOrderOfAddress(records, ({ address }) => parseAddress(address));
}

function sharedRow({ address, kind, nodes, isAlive, rivals, realm }: SharedAddress): Row {
  const state = isAlive ? 'alive' : 'lost';
  const alsoOn = rivals.join(' ') || '-';
  return { ADDRESS: address, KIND: kind, HOST: nodes.join(' '), STATE: state, REALM: realm, 'ALSO ON': alsoOn };
}

function nodeRow({ node, host, isAlive, isThisHost, addresses, isAwaited }: SharedNode): Row {
  // A daemon that runs is not heard of either while etcd takes no changes.
  const state = `${isAlive ? 'alive' : 'not heard of'}${isThisHost ? ', this host' : ''}`;
  return {
    NODE: node,
    HOST: host || '-',
    STATE: isAwaited ? `${state}, awaited since etcd was restored` : state,
    ADDRESSES: String(addresses),
  };
}

function forgottenRow({ address, kind, outcome, usedBy, realm }: Forgotten, isDryRun: boolean): Row {
  const words = {
    freed: isDryRun ? 'would be freed' : 'freed',
    used: `used by ${usedBy}`,
    unasked: 'kept: no network here to ask for it',
  };
  return { ADDRESS: address, KIND: kind, OUTCOME: words[outcome], REALM: realm };
}

function moveRow({ address, kind, outcome, nodes, realm }: Move, isDryRun: boolean): Row {
  const isChange = outcome === 'claimed' || outcome === 'given back';
  const verdict = outcome === 'taken' ? `taken by ${nodes.join(' ')}` : outcome;
  return {
    ADDRESS: address,
    KIND: kind,
    OUTCOME: isDryRun && isChange ? `would be ${verdict}` : verdict,
    REALM: realm,
  };
}
