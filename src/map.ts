/** The picture of `tsmacvlan map`: which container address is on which network, VLAN and interface. Pure. */
import { formatInterfaceAddress, inOrderOfAddress } from './address.ts';
import { conflictsOf, describeConflict } from './contested.ts';
import { escapeControls } from './errors.ts';
import type { Conflict, Endpoint, Network, NetworkSubnet } from './model.ts';
import { Naming } from './naming.ts';
import { lacksGateway, type NetworkRemark } from './remarks.ts';

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
  readonly naming: Naming;
  /** What may keep its containers from others. */
  readonly remarksOf: (network: Network) => readonly NetworkRemark[];
  /** What is kept for containers that do not run, by network and name. */
  readonly keptFor: (networkId: string, name: string) => readonly string[];
  /** By endpoint: what is left of its lease of a DHCP server, `for 3 hours more`. */
  readonly leases: ReadonlyMap<string | null, string>;
}

/** Beside a parent whose network port delivers to the parent's MAC address only. */
const FILTERS = "  (its network port lets no container's MAC address through)";

/** A tree in box-drawing characters, one root per base interface; ends with a newline unless there is nothing. */
export function drawMap(
  networks: readonly Network[],
  endpoints: readonly Endpoint[],
  remarks: Partial<MapRemarks> = {},
): string {
  const { filtered = [], conflicts = [], hostsOf = ({ hostAddresses }) => hostAddresses } = remarks;
  const {
    naming = new Naming(),
    keptFor = () => [],
    remarksOf = () => [],
    leases = new Map<string | null, string>(),
  } = remarks;
  const roots = new Map<string, Branch>();
  for (const network of networks) {
    const branch = parentBranch(roots, network, filtered.includes(network.parent.name) ? FILTERS : '');
    const containers = endpoints.filter(({ networkId, state }) => networkId === network.id && state !== 'deleting');
    const running = inOrderOfAddress(containers, ({ addresses }) => addresses[0]);
    const stopped = naming.known.stopped.get(network.id) ?? [];
    const labels = [
      ...running.map((endpoint) => endpointLabel(endpoint, conflicts, naming, leases.get(endpoint.id))),
      ...stopped.map((name) => stoppedLabel(naming.text(name), keptFor(network.id, name))),
    ];
    branch.children.push({
      label: networkLabel(network, hostsOf(network), remarksOf(network), naming),
      children: labels.map((label) => ({ label, children: [] })),
    });
  }
  const drawn = [...roots.values()].flatMap((root) => [root.label, ...lines(root.children)]);
  // Names of links come from elsewhere too: no line is obeyed by a terminal.
  return drawn.map((line) => `${escapeControls(line)}\n`).join('');
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

function networkLabel(
  network: Network,
  hosts: readonly string[],
  remarks: readonly NetworkRemark[],
  naming: Naming,
): string {
  const { id, options, internal, subnets } = network;
  const ranges = subnets.map((one) => `${one.subnet}${gatewayOf(network, one)}`);
  const host = hosts.length === 0 ? [] : [`this host ${hosts.join(' ')}`];
  const wholeId = naming.isWhole && naming.known.networks.has(id) ? [id] : [];
  return [
    `network ${naming.network(id)}`,
    ...wholeId,
    options.mode,
    ...(internal ? ['internal'] : []),
    ...(options.source === 'dhcp' ? ['addresses of the DHCP server'] : []),
    ...ranges,
    ...host,
    // Said beside its subnet.
    ...remarks.filter(({ kind }) => kind !== 'gateway').map(({ short }) => `(${short})`),
  ].join('  ');
}

/** One that containers get: engines before 28 name one for each network. That IPv4 has none is worth a word where nobody said so. */
export function gatewayOf(network: Network, one: NetworkSubnet): string {
  const { parent, internal, options } = network;
  if (parent.recipe === 'isolated' || internal || !options.gateway) return '';
  if (one.gateway !== null) return ` gateway ${one.gateway}`;
  return lacksGateway(network, one) ? ' (no gateway)' : '';
}

function stoppedLabel(name: string, kept: readonly string[]): string {
  return `${kept.join(' ') || 'no address'}  ${name}  (stopped)`;
}

function endpointLabel(
  endpoint: Endpoint,
  conflicts: readonly Conflict[],
  naming: Naming,
  lease: string | undefined,
): string {
  const { id, addresses, macAddress, state, lostAt } = endpoint;
  const written = addresses.map(formatInterfaceAddress).join(' ') || 'no address';
  const remarks = [
    ...(state === 'created' ? ['not joined yet'] : []),
    ...(lease === undefined ? [] : [`lease ${lease}`]),
    ...(lostAt === undefined ? [] : ['lost its interface with the parent: start the container again']),
    ...conflictsOf(endpoint, conflicts).map(describeConflict),
  ];
  const container = naming.container(id);
  const name = container === null ? [] : [container];
  const endpointId = container === null || naming.isWhole ? [`endpoint ${naming.id(id)}`] : [];
  return [written, macAddress, ...name, ...endpointId, ...remarks.map((remark) => `(${remark})`)].join('  ');
}

function lines(branches: readonly Branch[]): string[] {
  return branches.flatMap(({ label, children }, position) => {
    const isLast = position === branches.length - 1;
    const below = lines(children).map((line) => `${isLast ? '   ' : '│  '}${line}`);
    return [`${isLast ? '└─ ' : '├─ '}${label}`, ...below];
  });
}
