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
import { type Endpoint, FAMILIES, type InterfaceAddress, type Lease, type Network } from '../model.ts';
import { leaseKey, realmOf, type Store, tenancyKey } from '../store/store.ts';
import type { Endpoints } from './endpoints.ts';
import { linkElsewhere } from './identity.ts';
import { subnetOf } from './request.ts';
import { adoptedTenancy } from './tenancyrecord.ts';
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

/** True when nothing more was found, and nothing failed. One after the other: of two with one address the second sees the first. */
async function adoptAll(parts: AdoptionParts, told: Set<string>): Promise<boolean> {
  let isQuiet = true;
  try {
    for (const found of await unknownInterfaces(parts)) if (await adoptOne(parts, found, told)) isQuiet = false;
    return isQuiet;
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

/** Whether it is recorded now. `told`: those of which the log has said why they are not. */
async function adoptOne(parts: AdoptionParts, found: Found, told: Set<string>): Promise<boolean> {
  const { id, parentName, addresses } = found;
  // A container with CAP_NET_ADMIN may give a second interface the alias of its first.
  if (parts.endpoints.get(id) !== undefined) return false;
  const here = (await parts.store.networks.list()).filter(({ parent }) => parent.name === parentName);
  const network =
    here.find(({ subnets }) => within(subnets, addresses).length > 0) ?? (await leasing(parts, found, here));
  const newcomer = network && newEndpoint(found, network, parts.now());
  const other = newcomer && (await holderOf(parts, newcomer));
  if (network === undefined || newcomer === undefined || other !== undefined) {
    if (!told.has(id)) tellOfUnrecorded(parts.log, found, other);
    told.add(id);
    return false;
  }
  await adopt(parts, network, newcomer);
  return true;
}

/** The network whose addresses are a DHCP server's: that of the MAC address, where the backup knows it. */
async function leasing({ store }: AdoptionParts, found: Found, here: readonly Network[]): Promise<Network | undefined> {
  const all = here.filter(({ options }) => options.source === 'dhcp');
  const tenancy = await store.tenancies.get(tenancyKey({ parent: found.parentName, macAddress: found.macAddress }));
  return all.find(({ id }) => id === tenancy?.networkId) ?? all[0];
}

function newEndpoint({ id, parentName: parent, macAddress, addresses }: Found, network: Network, now: Date): Endpoint {
  const isLeased = network.options.source === 'dhcp';
  return {
    id,
    networkId: network.id,
    state: 'joined',
    parent,
    linkName: endpointLinkName(id),
    macAddress,
    addresses: isLeased ? oneOfEach(addresses) : within(network.subnets, addresses),
    interfaceName: null,
    changedAt: now.toISOString(),
  };
}

/** `other`: who is recorded with its address; undefined where it is its network that is not known. */
function tellOfUnrecorded(log: Log, { id, parentName, macAddress, addresses }: Found, other?: Endpoint): void {
  const interfaces = {
    parent: parentName,
    endpoint: short(id),
    addresses: addresses.map(formatInterfaceAddress).join(' '),
  };
  if (other === undefined)
    log.error('a container runs on a network that the backup does not know; remove it and create it again', interfaces);
  else
    log.error(
      'two containers have one address; the second of them is not recorded: stop one of the two, and start it again',
      {
        ...interfaces,
        macAddress,
        other: short(other.id),
        otherMacAddress: other.macAddress,
      },
    );
}

async function unknownInterfaces({ endpoints, links }: AdoptionParts): Promise<Found[]> {
  const idOf = ({ alias }: Link) => endpointOfAlias(alias) ?? '';
  const isUnknown = (link: Link) => ID.test(idOf(link)) && endpoints.get(idOf(link)) === undefined;
  const found: Found[] = [];
  for (const link of await links.table.withParentsHere((await links.table.linksElsewhere(isUnknown)) ?? [])) {
    const { namespaceId, index, parentIndex, macAddress } = link;
    const all = links.table.contentsOf(namespaceId)?.addresses ?? [];
    const own = all.filter(({ linkIndex, address }) => linkIndex === index && !address.startsWith('fe80:'));
    const parent = parentIndex === null ? undefined : await links.byIndex(parentIndex);
    if (parent === undefined || own.length === 0) continue;
    const addresses = own.flatMap(
      ({ address, prefixLength }) => parseInterfaceAddress(`${address}/${prefixLength}`) ?? [],
    );
    found.push({ id: idOf(link), parentName: parent.name, macAddress, addresses });
  }
  return found;
}

/** Who is recorded with one of its addresses, and there: an alias says whatever CAP_NET_ADMIN writes into it. */
async function holderOf({ endpoints, links }: AdoptionParts, newcomer: Endpoint): Promise<Endpoint | undefined> {
  const recorded = (id: string) => (id === newcomer.id ? newcomer : endpoints.get(id));
  for (const one of newcomer.addresses.flatMap((address) => endpoints.withAddress(newcomer.parent, address)))
    if ((await linkElsewhere(links, one, recorded)) !== undefined) return one;
  return undefined;
}

/** Those of the network, one of each family. */
function within(subnets: Network['subnets'], addresses: readonly InterfaceAddress[]): InterfaceAddress[] {
  return oneOfEach(addresses.filter((address) => subnetOf(address, subnets) !== undefined));
}

function oneOfEach(addresses: readonly InterfaceAddress[]): InterfaceAddress[] {
  return FAMILIES.flatMap((family) => addresses.find((address) => address.family === family) ?? []);
}

/** The lease first: without its endpoint it keeps the address from everybody else all the same. */
async function adopt(parts: AdoptionParts, network: Network, endpoint: Endpoint): Promise<void> {
  const { store, endpoints, log } = parts;
  if (network.options.source === 'dhcp') await tenancy(parts, network, endpoint);
  for (const address of endpoint.addresses) await lease(parts, network, endpoint.id, address);
  await endpoints.arrive(endpoint, async () => void (await store.endpoints.insert(endpoint)));
  log.warn('a running container that the backup does not know is recorded', {
    network: short(endpoint.networkId),
    endpoint: short(endpoint.id),
    addresses: endpoint.addresses.map(formatInterfaceAddress).join(' '),
  });
}

/** Which server gave it nobody knows: it is asked for as one whose lease is over. */
async function tenancy({ store, now }: AdoptionParts, network: Network, endpoint: Endpoint): Promise<void> {
  const address = endpoint.addresses.find(({ family }) => family === 'IPv4');
  if (address === undefined) return;
  const known = await store.tenancies.get(tenancyKey(endpoint));
  const next = adoptedTenancy({ endpoint, network, address, known, now: now() });
  if (known === undefined) await store.tenancies.insert(next);
  else await store.tenancies.replace(known, next);
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
