/** The tree of a picture: parents, VLANs, networks and containers, with what the doctor says of them. Pure. */
import { formatAddress, inOrderOfAddress, parseAddress } from '../address.ts';
import { conflictsOf, describeConflict } from '../contested.ts';
import { escapeControls } from '../errors.ts';
import { gatewayOf } from '../map.ts';
import type { Conflict, Endpoint, Network, Records } from '../model.ts';
import type { PictureBranch, PictureTrouble } from '../page/picture.ts';
import type { AddressElsewhere, PictureFacts } from './picturegrids.ts';

/** What only the tree shows. */
export interface TreeFacts extends PictureFacts {
  /** By the id of a network or an endpoint. */
  readonly troubles: ReadonlyMap<string, readonly PictureTrouble[]>;
  /** Names of containers that do not run, by the id of their network. */
  readonly stopped: ReadonlyMap<string, readonly string[]>;
  /** Parents whose network port lets no container's MAC address through. */
  readonly filteredParents: readonly string[];
}

/** A branch that still gets others. */
interface Growing extends PictureBranch {
  readonly branches: PictureBranch[];
}

const BARE = { facts: '', addresses: [], macAddress: '', troubles: [] } as const;

const FILTERED: PictureTrouble = {
  level: 'failure',
  says: "its network port lets no container's MAC address through",
  todo: 'allow other MAC addresses there',
};

/** Other hosts come last. */
export function treeOf(facts: TreeFacts): PictureBranch[] {
  const roots = new Map<string, Growing>();
  const endpoints = Map.groupBy(
    facts.records.endpoints.filter(({ state }) => state !== 'deleting'),
    ({ networkId }) => networkId,
  );
  const lasting = facts.records.conflicts.filter(({ endedAt }) => endedAt === null);
  const named = facts.records.networks.map((network) => ({ network, name: facts.networkName(network) }));
  for (const { network } of named.sort((a, b) => a.name.localeCompare(b.name)))
    parentOf(roots, network, facts).branches.push(
      networkBranch(network, endpoints.get(network.id) ?? [], lasting, facts),
    );
  return [...byName([...roots.values()]), ...hostsOf(facts.elsewhere)];
}

/** The same order in each picture. */
function byName(branches: readonly PictureBranch[]): PictureBranch[] {
  return branches.toSorted((a, b) => a.name.localeCompare(b.name));
}

function parentOf(roots: Map<string, Growing>, { parent }: Network, { filteredParents }: TreeFacts): Growing {
  const { name, recipe } = parent;
  const troubles = filteredParents.includes(name) ? [FILTERED] : [];
  if (recipe === 'isolated') return growing(roots, { kind: 'parent', id: name, name, facts: 'isolated', troubles });
  if (recipe === null) return growing(roots, { kind: 'parent', id: name, name, facts: '', troubles });
  const base = growing(roots, { kind: 'parent', id: recipe.base, name: recipe.base, facts: '', troubles: [] });
  const words = `VLAN ${recipe.vlan.join('.')}`;
  const found = base.branches.find(({ id }) => id === name);
  if (found !== undefined) return found as Growing;
  const facts = parent.made ? name : `${name}, made by the administrator`;
  const vlan: Growing = {
    ...BARE,
    kind: 'vlan',
    id: name,
    name: words,
    facts: escapeControls(facts),
    troubles,
    branches: [],
  };
  base.branches.push(vlan);
  return vlan;
}

function growing(
  roots: Map<string, Growing>,
  one: Pick<PictureBranch, 'kind' | 'id' | 'name' | 'facts' | 'troubles'>,
): Growing {
  const root = roots.get(one.id) ?? { ...BARE, ...one, name: escapeControls(one.name), branches: [] };
  roots.set(one.id, root);
  return root;
}

function networkBranch(
  network: Network,
  endpoints: readonly Endpoint[],
  lasting: readonly Conflict[],
  facts: TreeFacts,
): PictureBranch {
  const { id, options, internal, subnets, hostAddresses } = network;
  const words = [
    options.mode,
    ...(internal ? ['internal'] : []),
    ...subnets.map((one) => `${one.subnet}${gatewayOf(network, one)}`),
    ...(hostAddresses.length > 0 ? [`this host ${hostAddresses.join(' ')}`] : []),
  ];
  const running = inOrderOfAddress(endpoints, ({ addresses }) => addresses[0]);
  const stopped = facts.stopped.get(id) ?? [];
  return {
    ...BARE,
    kind: 'network',
    id,
    name: facts.networkName(network),
    facts: words.join(' · '),
    troubles: facts.troubles.get(id) ?? [],
    branches: [
      ...running.map((endpoint) => containerBranch(endpoint, lasting, facts)),
      ...stopped.map((name) => stoppedBranch(id, name, facts.records)),
    ],
  };
}

function containerBranch(endpoint: Endpoint, lasting: readonly Conflict[], facts: TreeFacts): PictureBranch {
  const { id, addresses, macAddress, state, lostAt } = endpoint;
  const conflicts = conflictsOf(endpoint, lasting).map((one): PictureTrouble => {
    const todo = `find that device (tsmacvlan who ${one.macAddress}), or give the container another --ip`;
    return { level: 'failure', says: describeConflict(one), todo };
  });
  const lost: PictureTrouble[] =
    lostAt === undefined
      ? []
      : [{ level: 'failure', says: 'lost its interface with the parent', todo: 'start the container again' }];
  return {
    kind: 'container',
    id,
    name: facts.containerName(id),
    facts: state === 'created' ? 'is starting' : '',
    addresses: addresses.map(formatAddress),
    macAddress,
    troubles: [...conflicts, ...lost, ...(facts.troubles.get(id) ?? [])],
    branches: [],
  };
}

/** With what is kept for its name there. */
function stoppedBranch(networkId: string, name: string, { pools, names }: Records): PictureBranch {
  const poolIds = pools.filter((pool) => pool.networkId === networkId).map(({ id }) => id);
  const kept = names.filter((one) => one.name === name && poolIds.includes(one.poolId));
  return {
    ...BARE,
    kind: 'stopped',
    id: `${networkId} ${name}`,
    name: escapeControls(name),
    facts: 'does not run',
    addresses: kept.map(({ address }) => address),
    branches: [],
  };
}

function hostsOf(elsewhere: readonly AddressElsewhere[]): PictureBranch[] {
  const branches = [...Map.groupBy(elsewhere, ({ host }) => host)].map(([host, all]) => ({
    ...BARE,
    kind: 'host' as const,
    id: `host ${host}`,
    name: escapeControls(host),
    facts: `another host: ${all.length} ${all.length === 1 ? 'address' : 'addresses'}`,
    branches: inOrderOfAddress(all, ({ address }) => parseAddress(address)).map(({ address, realm }) => ({
      ...BARE,
      kind: 'address' as const,
      id: `host ${host} ${realm} ${address}`,
      name: address,
      branches: [],
    })),
  }));
  return byName(branches);
}
