/** What `tsmacvlan doctor` looks at: each check is a function of what was examined, and says one thing of one subject. */
import { type Address, contains, formatAddress, overlaps, parsePrefix, type Range } from '../address.ts';
import { conflictsOf, describeConflict } from '../contested.ts';
import type { EngineInventory } from '../engine/inventory.ts';
import { excludedBy, layoutOf } from '../ipam/pool.ts';
import type { Link, LinkAddress, Neighbour, Route } from '../kernel/link.ts';
import type { Verdict } from '../lan/verdict.ts';
import { hostLinkName } from '../linknames.ts';
import { type Endpoint, isOfSwarm, type Network, type NetworkSubnet, type Pool, type Records } from '../model.ts';
import type { Naming } from '../naming.ts';

/** One line of the doctor. */
export interface Diagnosis {
  readonly level: 'ok' | 'warning' | 'failure';
  /** The network's or the container's name, or `host`. */
  readonly subject: string;
  readonly says: string;
  /** What to do; empty for what is well. */
  readonly todo: string;
}

/** A link with what is on it. */
export interface ExaminedLink {
  readonly link: Link;
  readonly isWireless: boolean;
  readonly addresses: readonly LinkAddress[];
  readonly neighbours: readonly Neighbour[];
}

/** All that the checks look at, read before. */
export interface Examined {
  readonly records: Records;
  /** Null where Docker could not be asked. */
  readonly inventory: EngineInventory | null;
  readonly naming: Naming;
  readonly filteredParents: readonly string[];
  /** By name: parents, and the host's own links on them. */
  readonly links: ReadonlyMap<string, ExaminedLink>;
  readonly routes: readonly Route[];
  /** By endpoint: its link, wherever it is, with its addresses. Null where the kernel does not tell of other namespaces. */
  readonly containerLinks: ReadonlyMap<string, ExaminedContainer> | null;
  /** Who answers for an address on a parent; a sentence where it cannot be asked. */
  readonly ask: (parent: string, address: string) => Promise<Verdict | string>;
}

/** Where the records are. */
export interface ExaminedState {
  readonly directory: string;
  readonly freeBytes: number;
  readonly isWritable: boolean;
}

/** A container's link. */
export interface ExaminedContainer {
  readonly link: Link;
  /** False for one that is back in the host's namespace, where its engine left it. */
  readonly isElsewhere: boolean;
  readonly addresses: readonly string[];
}

/** Null where there is nothing to say. */
export type Check<Subject> = (subject: Subject, seen: Examined) => Diagnosis | null | Promise<Diagnosis | null>;

function ok(subject: string, says: string): Diagnosis {
  return { level: 'ok', subject, says, todo: '' };
}

function warning(subject: string, says: string, todo: string): Diagnosis {
  return { level: 'warning', subject, says, todo };
}

function failure(subject: string, says: string, todo: string): Diagnosis {
  return { level: 'failure', subject, says, todo };
}

// --- a network ---------------------------------------------------------------------------------------------------

/** The parent is there, up, with carrier. */
const parentIsReady: Check<Network> = ({ id, parent: { name, recipe } }, { links, naming }) => {
  const subject = naming.network(id);
  if (recipe === 'isolated') return null;
  const link = links.get(name)?.link;
  if (link === undefined)
    return failure(subject, `parent ${name} does not exist`, `bring ${name} back; its networks are restored then`);
  if (!link.isUp) return failure(subject, `parent ${name} is down`, `ip link set ${name} up`);
  if (!link.hasCarrier) return failure(subject, `parent ${name} has no carrier`, 'look at its cable, switch or VM');
  return ok(subject, `parent ${name} is up and has carrier`);
};

/** Access points drop the frames of containers. */
const parentIsWired: Check<Network> = ({ id, parent: { name } }, { links, naming }) =>
  links.get(name)?.isWireless === true
    ? failure(naming.network(id), `parent ${name} is a Wi-Fi interface`, 'use a wired parent')
    : null;

/** A parent whose MTU was made smaller drops what containers send. */
const parentIsWideEnough: Check<Network> = ({ id, parent: { name }, options: { mtu } }, { links, naming }) => {
  const link = links.get(name)?.link;
  if (link === undefined || mtu === null || mtu <= link.mtu) return null;
  const says = `containers have MTU ${mtu}, and parent ${name} has ${link.mtu}`;
  return failure(naming.network(id), says, `ip link set ${name} mtu ${mtu}`);
};

/** A network that was made without a parent reaches nobody; one that is `--internal` is meant so. */
const hasParent: Check<Network> = ({ id, parent, internal }, { naming }) =>
  parent.recipe === 'isolated' && !internal
    ? warning(
        naming.network(id),
        'it has no parent, so that its containers reach only each other',
        'if that is not wanted create it again with -o parent=',
      )
    : null;

/**
 * Of IPv4: where the host itself has another subnet on the parent, that is the LAN. Unless a gateway of the network answers there:
 * a LAN may have several subnets.
 */
const subnetIsOfLan: Check<Network> = async (network, { links, naming, ask }) => {
  const { id, parent, subnets } = network;
  const own = (links.get(parent.name)?.addresses ?? []).filter(({ family }) => family === 'IPv4');
  const prefixes = own.map(({ address, prefixLength }) => parsePrefix(`${address}/${prefixLength}`));
  const isMet = ({ subnet }: NetworkSubnet) => prefixes.some((one) => one !== undefined && overlapsWith(one, subnet));
  const foreign = subnets.filter(({ subnet, gateway }) => gateway !== null && !subnet.includes(':'));
  if (own.length === 0 || !hasGateway(network) || foreign.length === 0 || subnets.some(isMet)) return null;
  const verdicts = await Promise.all(foreign.map(({ gateway }) => ask(parent.name, gateway ?? '')));
  if (verdicts.some((verdict) => typeof verdict === 'string' || verdict.held)) return null;
  const hosts = own.map(({ address, prefixLength }) => `${address}/${prefixLength}`).join(' ');
  const says = `subnet ${foreign.map(({ subnet }) => subnet).join(' ')} is not that of ${parent.name}, on which this host has ${hosts}`;
  return warning(naming.network(id), says, 'create the network again with --subnet and --gateway of that LAN');
};

function overlapsWith(prefix: Range, text: string): boolean {
  const other = parsePrefix(text);
  return other !== undefined && overlaps(prefix, other);
}

/** Containers get one by which they reach others. */
function hasGateway({ parent, internal, options }: Network): boolean {
  return parent.recipe !== 'isolated' && !internal && options.gateway;
}

/** Frames of containers get no answer there. */
const portDelivers: Check<Network> = ({ id, parent: { name } }, { filteredParents, naming }) =>
  filteredParents.includes(name)
    ? failure(
        naming.network(id),
        `the network port of ${name} delivers to the MAC address of ${name} only`,
        'allow other MAC addresses there (promiscuous mode, forged transmits, MAC spoofing, port security)',
      )
    : null;

/** Each gateway that containers get answers. Where the port filters, silence says nothing. */
const gatewaysAnswer: Check<Network> = async (network, { ask, naming, filteredParents }) => {
  const { id, parent, subnets } = network;
  if (!hasGateway(network) || filteredParents.includes(parent.name)) return null;
  const subject = naming.network(id);
  const gateways = subnets.map(({ gateway }) => gateway).filter((one) => one !== null);
  for (const gateway of gateways) {
    const verdict = await ask(parent.name, gateway);
    if (typeof verdict === 'string') return null;
    if (!verdict.held)
      return failure(
        subject,
        `nobody on ${parent.name} answers for gateway ${gateway}`,
        'switch the router on, or create the network again with its --gateway',
      );
    if (verdict.isOnHost)
      return failure(
        subject,
        `gateway ${gateway} is this host (${verdict.linkName}), which containers on its own interface do not reach`,
        'name the router of the LAN with --gateway, or use -o host_access=true',
      );
  }
  return gateways.length === 0 ? null : ok(subject, `gateway ${gateways.join(' ')} answers`);
};

/** Who is in the host's neighbour table with an address that containers may get, and still answers. */
const rangeIsFree: Check<Network> = async ({ id, parent }, { records, links, naming, ask }) => {
  const pools = records.pools.filter(({ networkId }) => networkId === id);
  const taken = new Set(records.leases.map(({ address }) => address));
  const isWithin = (pool: Pool, address: Address) =>
    contains(layoutOf(pool).range, address) && excludedBy(pool, address) === undefined;
  const strangers = (links.get(parent.name)?.neighbours ?? [])
    .filter(({ macAddress, state }) => macAddress !== null && !['failed', 'incomplete'].includes(state))
    .filter(({ address }) => !taken.has(formatAddress(address)) && pools.some((pool) => isWithin(pool, address)))
    .slice(0, MOST_NEIGHBOURS);
  const verdicts = await Promise.all(strangers.map(({ address }) => ask(parent.name, formatAddress(address))));
  const named = strangers.flatMap(({ address }, position) => {
    const verdict = verdicts[position];
    return typeof verdict === 'object' && verdict.held ? [`${formatAddress(address)} (${verdict.macAddress})`] : [];
  });
  if (named.length === 0) return null;
  const says = `others on the LAN have addresses of the range: ${named.join(', ')}`;
  return warning(naming.network(id), says, 'keep such addresses out with --ip-range or --ipam-opt exclude=');
};

const MOST_NEIGHBOURS = 4;

/** The host's own link, up and with its addresses, and its routes to the containers. */
const hostIsReached: Check<Network> = ({ id, parent, hostAddresses }, { records, links, routes, naming }) => {
  if (hostAddresses.length === 0) return null;
  const subject = naming.network(id);
  const todo = 'restart tsmacvlan, which makes it again';
  const examined = links.get(hostLinkName(parent.name));
  if (examined === undefined) return failure(subject, "the host's own interface for host access is not there", todo);
  const { link, addresses } = examined;
  if (!link.isUp) return failure(subject, `${link.name}, for host access, is down`, `ip link set ${link.name} up`);
  const missing = hostAddresses.find((one) => !addresses.some(({ address }) => address === one));
  if (missing !== undefined) return failure(subject, `${link.name} has not the address ${missing}`, todo);
  const own = records.endpoints.filter(({ networkId, state }) => networkId === id && state === 'joined');
  const lost = own
    .flatMap((one) => one.addresses)
    .find((address) => {
      const bits = address.family === 'IPv4' ? 32 : 128;
      return !routes.some(
        (one) => one.linkIndex === link.index && one.destination === `${formatAddress(address)}/${bits}`,
      );
    });
  if (lost !== undefined)
    return failure(
      subject,
      `this host has no route to ${formatAddress(lost)} by ${link.name}`,
      'start its container again',
    );
  return ok(subject, `host access by ${link.name}`);
};

/** Docker has the network too. A swarm's networks come and go with its tasks. */
const engineHasNetwork: Check<Network> = ({ id }, { inventory, naming }) =>
  inventory === null || isOfSwarm(id) || inventory.networks.some((one) => one.id === id)
    ? null
    : warning(naming.network(id), 'Docker has no such network', `tsmacvlan forget ${naming.id(id)}`);

/** In the order of what they say. */
export const NETWORK_CHECKS: readonly Check<Network>[] = [
  parentIsReady,
  parentIsWired,
  parentIsWideEnough,
  hasParent,
  subnetIsOfLan,
  portDelivers,
  gatewaysAnswer,
  rangeIsFree,
  hostIsReached,
  engineHasNetwork,
];

// --- a container -------------------------------------------------------------------------------------------------

function nameOf({ id }: Endpoint, naming: Naming): string {
  return naming.container(id) ?? `endpoint ${naming.id(id)}`;
}

/** With many containers at once (a boot) an engine moves the interface half a minute after it joined, and lists it then. */
const NEW_MS = 60_000;

/** By a clock that may be set: then too much is said, or too little, for so long. */
function isNew({ changedAt }: Endpoint): boolean {
  return Math.abs(Date.now() - Date.parse(changedAt)) < NEW_MS;
}

/** Docker has the endpoint too. */
const engineHasEndpoint: Check<Endpoint> = (endpoint, { inventory, naming }) => {
  const { id, state } = endpoint;
  if (inventory === null || state !== 'joined' || isNew(endpoint) || naming.known.containers.has(id)) return null;
  const todo = 'wait two minutes: what is left over is removed; tsmacvlan gc --dry-run tells what';
  return warning(`endpoint ${naming.id(id)}`, 'no container that Docker has is at this endpoint', todo);
};

/** Its link is where a container is, up, and has the MAC address and the addresses that were given to it. */
const linkIsAsRecorded: Check<Endpoint> = (endpoint, { containerLinks, naming }) => {
  const { id, state, macAddress, addresses } = endpoint;
  if (containerLinks === null || state !== 'joined') return null;
  const subject = nameOf(endpoint, naming);
  const todo = `docker restart ${naming.container(id) ?? ''}`.trimEnd();
  const found = containerLinks.get(id);
  if (found?.isElsewhere !== true && isNew(endpoint)) return null;
  if (found === undefined) return failure(subject, 'its interface is nowhere', todo);
  if (!found.isElsewhere) return failure(subject, 'its interface is back on the host: its container has ended', todo);
  if (!found.link.isUp) return failure(subject, 'its interface is down inside the container', todo);
  if (found.link.macAddress !== macAddress)
    return failure(subject, `it has MAC address ${found.link.macAddress}, and was given ${macAddress}`, todo);
  const missing = addresses.map(formatAddress).find((one) => !found.addresses.includes(one));
  if (missing !== undefined) return failure(subject, `address ${missing} is not on its interface`, todo);
  return ok(subject, `its interface is up with ${addresses.map(formatAddress).join(' ') || 'no address'}`);
};

/** Nobody else has its addresses or its MAC address. */
const isUncontested: Check<Endpoint> = (endpoint, { records, naming }) => {
  const [conflict] = conflictsOf(endpoint, records.conflicts);
  if (conflict === undefined) return null;
  const todo = `find that device (tsmacvlan who ${conflict.macAddress}), or give the container another --ip`;
  return failure(nameOf(endpoint, naming), describeConflict(conflict), todo);
};

/** In the order of what they say. */
export const CONTAINER_CHECKS: readonly Check<Endpoint>[] = [engineHasEndpoint, linkIsAsRecorded, isUncontested];

/** Those of which the records do not tell by themselves. */
export const LINK_CHECKS: readonly Check<Endpoint>[] = [engineHasEndpoint, linkIsAsRecorded];

// --- the host ----------------------------------------------------------------------------------------------------

/** Networks of the driver that Docker has and the plugin does not know. */
export function unknownNetworks({ inventory, records, naming }: Examined): Diagnosis[] {
  const unknown = (inventory?.networks ?? []).filter(
    ({ id, driver }) =>
      /(^|\/)tsmacvlan(:|$)/.test(driver) && !isOfSwarm(id) && !records.networks.some((one) => one.id === id),
  );
  const todo = 'remove the network and create it again';
  return unknown.map(({ name }) =>
    failure(naming.text(name), 'Docker has this network, and tsmacvlan does not know it', todo),
  );
}

/** A change that finds no room, or no file that may be written, is refused, and with it the start of a container. */
export function stateHasRoom({ directory, freeBytes, isWritable }: ExaminedState): Diagnosis {
  const says = `state directory ${directory}`;
  if (!isWritable) return failure('host', `${says} cannot be written`, 'make it writable, and mount its disk so');
  const free = `${Math.floor(freeBytes / 1_000_000)} MB free`;
  return freeBytes < LEAST_FREE_BYTES
    ? warning('host', `${says} has only ${free}`, 'make room on its disk')
    : ok('host', `${says} can be written, ${free}`);
}

const LEAST_FREE_BYTES = 20_000_000;

/** `sentence`: why Docker cannot be asked. Without it neither names nor what Docker knows otherwise can be told. */
export function engineIsSilent(sentence: string): Diagnosis {
  const [says = '', ...todo] = sentence.split('; ');
  return warning('host', says, todo.join('; '));
}

/** Whether the daemon runs, and has told what is in its state. */
export function daemonIsThere(socket: string | null): Diagnosis {
  return socket === null
    ? failure('host', 'no tsmacvlan runs', 'systemctl start tsmacvlan, or docker plugin enable')
    : ok('host', `tsmacvlan answers on ${socket}`);
}
