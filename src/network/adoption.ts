/**
 * After a restore the records are older than the containers that run. Those that were started since the backup was made are
 * found by the alias of their interface, which stays with it wherever an engine moves it, and get their records and leases
 * back before anything is given out: with PROBE=off nothing else would say that their addresses are in use.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress, formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';
import { short } from '../errors.ts';
import type { Link, Links } from '../kernel/link.ts';
import { endpointLinkName, endpointOfAlias } from '../linknames.ts';
import type { Log } from '../log.ts';
import type { Endpoint, InterfaceAddress, Lease, Network } from '../model.ts';
import { leaseKey, realmOf, type Store } from '../store/store.ts';
import type { Endpoints } from './endpoints.ts';
import { linkElsewhere } from './identity.ts';
import { subnetOf } from './request.ts';
import { undo } from './undo.ts';

/** What it works with. */
interface AdoptionParts {
  readonly store: Store;
  readonly endpoints: Endpoints;
  readonly links: Links;
  readonly log: Log;
  readonly now: () => Date;
}

const ID = /^[0-9a-f]{64}$/;
/** A namespace that changes while it is read shows what is in it a moment later. */
const AGAIN_MS = 300;
const MOST_LOOKS = 10;

/**
 * Records what runs here and is not recorded, once after a restore: until two looks in a row find nothing more. What cannot be
 * recorded is named in the log, and is tried again at the next start.
 */
export async function adoptContainers(parts: AdoptionParts): Promise<void> {
  const { store, log } = parts;
  if (store.isRestored !== true) return;
  log.warn('the records were restored from a backup; containers that were started since are looked for');
  let quiet = 0;
  const told = new Set<string>();
  for (let look = 1; look <= MOST_LOOKS && quiet < 2; look++) {
    if (look > 1) await sleep(AGAIN_MS);
    quiet = (await adoptAll(parts, told)) ? quiet + 1 : 0;
  }
  if (quiet < 2) log.error('not all containers that run could be recorded; it is tried again at the next start');
  else await undo(log, 'the mark of a restore', async () => store.settleRestore?.());
}

/** True when nothing more was found, and nothing failed. */
async function adoptAll(parts: AdoptionParts, told: Set<string>): Promise<boolean> {
  try {
    const found = await findUnrecorded(parts, told);
    const outcomes = await Promise.allSettled(found.map((endpoint) => adopt(parts, endpoint)));
    for (const one of outcomes) if (one.status === 'rejected') throw one.reason;
    return found.length === 0;
  } catch (error) {
    parts.log.error('running containers could not be recorded', { error: String(error) });
    return false;
  }
}

/** A container's interface on a parent of this host, with what it has there. */
interface Found {
  readonly id: string;
  readonly parentName: string;
  readonly macAddress: string;
  readonly addresses: readonly InterfaceAddress[];
}

/** `told`: those of which the log has said that their network is not known. */
async function findUnrecorded(parts: AdoptionParts, told: Set<string>): Promise<Endpoint[]> {
  const { store, log, now } = parts;
  const networks = await store.networks.list();
  const endpoints: Endpoint[] = [];
  for (const { id, parentName, macAddress, addresses } of await unknownInterfaces(parts)) {
    const isIts = ({ parent, subnets }: Network) => parent.name === parentName && within(subnets, addresses).length > 0;
    const network = networks.find(isIts);
    if (network === undefined) {
      if (!told.has(id)) tellOfUnknown(log, { id, parentName, addresses });
      told.add(id);
      continue;
    }
    if (await isOfAnother(parts, parentName, addresses)) continue;
    endpoints.push({
      id,
      networkId: network.id,
      state: 'joined',
      parent: parentName,
      linkName: endpointLinkName(id),
      macAddress,
      addresses: within(network.subnets, addresses),
      interfaceName: null,
      changedAt: now().toISOString(),
    });
  }
  return endpoints;
}

function tellOfUnknown(log: Log, { id, parentName, addresses }: Omit<Found, 'macAddress'>): void {
  log.error('a container runs on a network that the backup does not know; remove it and make it again', {
    parent: parentName,
    endpoint: short(id),
    addresses: addresses.map(formatInterfaceAddress).join(' '),
  });
}

async function unknownInterfaces({ endpoints, links }: AdoptionParts): Promise<Found[]> {
  const idOf = ({ alias }: Link) => endpointOfAlias(alias) ?? '';
  const isUnknown = (link: Link) => ID.test(idOf(link)) && endpoints.get(idOf(link)) === undefined;
  const found: Found[] = [];
  for (const link of (await links.table.linksElsewhere(isUnknown)) ?? []) {
    const { namespaceId, index, parentIndex, macAddress } = link;
    const all = links.table.contentsOf(namespaceId)?.addresses ?? [];
    const own = all.filter(({ linkIndex, address }) => linkIndex === index && !address.startsWith('fe80:'));
    const parent = parentIndex === null ? undefined : await links.byIndex(parentIndex);
    const [first] = own;
    if (parent === undefined || first === undefined) continue;
    // Another namespace's parent may have the same index.
    const isOnOurs = (await links.table.subInterfacesElsewhere(parent.index, first.address)).some(isUnknown);
    const addresses = own.flatMap(
      ({ address, prefixLength }) => parseInterfaceAddress(`${address}/${prefixLength}`) ?? [],
    );
    if (isOnOurs) found.push({ id: idOf(link), parentName: parent.name, macAddress, addresses });
  }
  return found;
}

/** One that is recorded and there has such an address: an alias says whatever CAP_NET_ADMIN writes into it. */
async function isOfAnother(
  { endpoints, links }: AdoptionParts,
  parentName: string,
  addresses: readonly InterfaceAddress[],
): Promise<boolean> {
  for (const one of addresses.flatMap((address) => endpoints.withAddress(parentName, address)))
    if ((await linkElsewhere(links, one)) !== undefined) return true;
  return false;
}

/** Those of the network, one of each family. */
function within(subnets: Network['subnets'], addresses: readonly InterfaceAddress[]): InterfaceAddress[] {
  const own = addresses.filter((address) => subnetOf(address, subnets) !== undefined);
  return (['IPv4', 'IPv6'] as const).flatMap((family) => own.find((address) => address.family === family) ?? []);
}

/** The lease first: without its endpoint it keeps the address from everybody else all the same. */
async function adopt(parts: AdoptionParts, endpoint: Endpoint): Promise<void> {
  const { store, endpoints, log } = parts;
  const network = await store.networks.get(endpoint.networkId);
  for (const address of endpoint.addresses)
    if (network !== undefined) await lease(parts, network, endpoint.id, address);
  // A container with CAP_NET_ADMIN may give a second interface the alias of its first.
  if (endpoints.get(endpoint.id) !== undefined) return;
  await endpoints.arrive(endpoint, async () => void (await store.endpoints.insert(endpoint)));
  log.warn('a running container that the backup does not know is recorded', {
    network: short(endpoint.networkId),
    endpoint: short(endpoint.id),
    addresses: endpoint.addresses.map(formatInterfaceAddress).join(' '),
  });
}

async function lease(
  { store, now }: AdoptionParts,
  network: Network,
  endpointId: string,
  address: InterfaceAddress,
): Promise<void> {
  const subnet = subnetOf(address, network.subnets);
  const pools = await store.pools.list();
  const pool = pools.find(
    (one) => one.networkId === network.id && one.subnet === subnet?.subnet && realmOf(one) === subnet.realm,
  );
  if (pool === undefined) return;
  const taken: Lease = {
    realm: realmOf(pool),
    address: formatAddress(address),
    kind: 'container',
    poolIds: [pool.id],
    endpointId,
    changedAt: now().toISOString(),
  };
  const known = await store.leases.get(leaseKey(taken));
  if (known === undefined) await store.leases.insert(taken);
  else if (known.kind === 'container' && known.holder === undefined)
    await store.leases.replace(known, { ...known, endpointId });
}
