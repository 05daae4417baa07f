/** The picture of `tsmacvlan map`: which container address is on which network, VLAN and interface. Pure. */
import { formatInterfaceAddress, inOrderOfAddress } from './address.ts';
import { conflictsOf, describeConflict } from './contested.ts';
import { short } from './errors.ts';
import type { Conflict, Endpoint, Network, NetworkSubnet } from './model.ts';

interface Branch {
  readonly label: string;
  readonly children: Branch[];
}

/** What stands beside what is drawn. */
interface MapRemarks {
  /** Parents whose network port delivers to their own MAC address only. */
  readonly filtered: readonly string[];
  /** Those that last. */
  readonly conflicts: readonly Conflict[];
  /** The addresses at which the containers of a network with host access reach this host. */
  readonly hostsOf: (network: Network) => readonly string[];
}

/** Beside a parent whose network port delivers to the parent's MAC address only. */
const FILTERS = "  (its network port lets no container's MAC address through)";

/** A tree in box-drawing characters, one root per base interface; ends with a newline unless there is nothing. */
export function drawMap(
  networks: readonly Network[],
  endpoints: readonly Endpoint[],
  { filtered = [], conflicts = [], hostsOf = ({ hostAddresses }) => hostAddresses }: Partial<MapRemarks> = {},
): string {
  const roots = new Map<string, Branch>();
  for (const network of networks) {
    const branch = parentBranch(roots, network, filtered.includes(network.parent.name) ? FILTERS : '');
    const containers = endpoints.filter(({ networkId, state }) => networkId === network.id && state !== 'deleting');
    branch.children.push({
      label: networkLabel(network, hostsOf(network)),
      children: inOrderOfAddress(containers, ({ addresses }) => addresses[0]).map((endpoint) => ({
        label: endpointLabel(endpoint, conflicts),
        children: [],
      })),
    });
  }
  return [...roots.values()].map((root) => `${[root.label, ...lines(root.children)].join('\n')}\n`).join('');
}

/** The base interface, and below it the VLAN when the network is on one. */
function parentBranch(roots: Map<string, Branch>, { parent }: Network, remark: string): Branch {
  if (parent.recipe === 'isolated') return findOrAdd(roots, `(isolated) ${parent.name}`);
  if (parent.recipe === null) return findOrAdd(roots, `${parent.name}${remark}`);
  const base = findOrAdd(roots, parent.recipe.base);
  const label = `VLAN ${parent.recipe.vlan.join('.')}  ${parent.name}${parent.made ? '' : '  (made by the administrator)'}${remark}`;
  const found = base.children.find((child) => child.label === label);
  if (found !== undefined) return found;
  const branch = { label, children: [] };
  base.children.push(branch);
  return branch;
}

function findOrAdd(roots: Map<string, Branch>, name: string): Branch {
  const root = roots.get(name) ?? { label: name, children: [] };
  roots.set(name, root);
  return root;
}

function networkLabel(network: Network, hosts: readonly string[]): string {
  const { id, options, internal, subnets } = network;
  const ranges = subnets.map((one) => `${one.subnet}${gatewayOf(network, one)}`);
  const host = hosts.length === 0 ? [] : [`this host ${hosts.join(' ')}`];
  return [`network ${short(id)}`, options.mode, ...(internal ? ['internal'] : []), ...ranges, ...host].join('  ');
}

/** One that containers get: engines before 28 name one for each network. That IPv4 has none is worth a word where nobody said so. */
function gatewayOf({ parent, internal, options }: Network, { subnet, gateway }: NetworkSubnet): string {
  if (parent.recipe === 'isolated' || internal || !options.gateway) return '';
  if (gateway !== null) return ` gateway ${gateway}`;
  return !subnet.includes(':') && options.gatewayFamilies?.includes('IPv4') !== false ? ' (no gateway)' : '';
}

function endpointLabel(endpoint: Endpoint, conflicts: readonly Conflict[]): string {
  const { id, addresses, macAddress, state, lostAt } = endpoint;
  const written = addresses.map(formatInterfaceAddress).join(' ') || 'no address';
  const remarks = [
    ...(state === 'created' ? ['not joined yet'] : []),
    ...(lostAt === undefined ? [] : ['lost its interface with the parent: start the container again']),
    ...conflictsOf(endpoint, conflicts).map(describeConflict),
  ];
  return [written, macAddress, `endpoint ${short(id)}`, ...remarks.map((remark) => `(${remark})`)].join('  ');
}

function lines(branches: readonly Branch[]): string[] {
  return branches.flatMap(({ label, children }, position) => {
    const isLast = position === branches.length - 1;
    const below = lines(children).map((line) => `${isLast ? '   ' : '│  '}${line}`);
    return [`${isLast ? '└─ ' : '├─ '}${label}`, ...below];
  });
}
