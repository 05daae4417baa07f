/** What `tsmacvlan doctor` looks at: each check is a function of what was examined, and says one thing of one subject. */
import { formatAddress } from '../address.ts';
import { conflictsOf, describeConflict } from '../contested.ts';
import { PluginError } from '../errors.ts';
import { IPAM_OPTION_ROWS } from '../ipam/pool.ts';
import { hostLinkName } from '../linknames.ts';
import { type Endpoint, isOfSwarm, type Network } from '../model.ts';
import type { Naming } from '../naming.ts';
import { nearest } from '../nearest.ts';
import type { NetworkRemark } from '../remarks.ts';
import { isWhereEnginesLook } from '../server/socket.ts';
import { SETTINGS } from '../settings.ts';
import { VERSION } from '../version.ts';
import { SERVICE_SETTINGS } from './daemon.ts';
import { type Check, type Diagnosis, type Examined, type ExaminedState, failure, ok, warning } from './diagnosis.ts';
import { remaining } from './leasewords.ts';
import {
  dhcpServerAnswers,
  gatewaysAnswer,
  nobodyHasAll,
  offersAreOutside,
  portDelivers,
  rangeIsFree,
  subnetIsOfLan,
} from './lanchecks.ts';

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

/** What this host's own routes and the network's record tell, without a question to the LAN. */
const remarked =
  (kind: NetworkRemark['kind']): Check<Network> =>
  (network, { remarksOf, naming }) => {
    const found = remarksOf(network).find((one) => one.kind === kind);
    return found === undefined ? null : warning(naming.network(network.id), found.short, found.todo);
  };

/** Docker keeps the options of its own IPAM driver to itself, which knows none of ours. */
const ipamOptionsAreHeard: Check<Network> = ({ id }, { inventory, naming }) => {
  const found = inventory?.networks.find((one) => one.id === id);
  const ours = found?.ipamOptions.filter((name) => IPAM_OPTION_ROWS.some((row) => row.name === name)) ?? [];
  if (found === undefined || ours.length === 0 || found.ipamDriver !== 'default') return null;
  return warning(
    naming.network(id),
    `Docker's own IPAM driver does nothing with --ipam-opt ${ours.map((name) => `${name}=`).join(' ')}`,
    'create it again with --ipam-driver tsmacvlan as well',
  );
};

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
  remarked('route'),
  remarked('gateway'),
  ipamOptionsAreHeard,
  portDelivers,
  gatewaysAnswer,
  dhcpServerAnswers,
  rangeIsFree,
  hostIsReached,
  engineHasNetwork,
];

/** Those that say nothing of whether its containers reach the LAN, but which addresses there are theirs. */
export const RANGE_CHECKS: readonly Check<Network>[] = [nobodyHasAll, offersAreOutside];

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

/** A container of this driver has all its ports at its own address, and none at the host's. */
const publishesNothing: Check<Endpoint> = (endpoint, { naming }) => {
  const { ignoredPorts: [first] = [], addresses } = endpoint;
  if (first === undefined) return null;
  const reached = addresses.map(formatAddress).join(' or ') || 'its own address';
  return warning(
    nameOf(endpoint, naming),
    `-p does nothing (${first})`,
    `leave it out: the container is reached at ${reached}`,
  );
};

/** Its lease is kept by a DHCP server. */
const leaseIsKept: Check<Endpoint> = (endpoint, { records, naming }) => {
  const tenancy = records.tenancies.find(({ endpointId }) => endpointId === endpoint.id);
  if (tenancy === undefined) return null;
  const { parent, address, server, loss } = tenancy;
  const subject = nameOf(endpoint, naming);
  if (tenancy.state !== 'lost') return ok(subject, `DHCP server ${server} leases it ${remaining(tenancy, Date.now())}`);
  return loss === 'refused'
    ? failure(subject, `the DHCP server gives ${address} to it no more`, 'start it again: it gets another address')
    : failure(
        subject,
        `its lease is over, and no DHCP server answers`,
        `tsmacvlan dhcp ${parent}; look at that server`,
      );
};

/** With `-o ipv6=auto` a container starts without one too. So is the one of a DHCPv6 server kept. */
const hasIPv6: Check<Endpoint> = (endpoint, { records, naming }) => {
  const tenancy = records.tenancies.find(({ endpointId }) => endpointId === endpoint.id);
  const network = records.networks.find(({ id }) => id === endpoint.networkId);
  if (tenancy === undefined) return null;
  const { ipv6 } = tenancy;
  const subject = nameOf(endpoint, naming);
  if (ipv6 === undefined && network?.options.ipv6 !== undefined)
    return warning(
      subject,
      `it has no IPv6 address: at its start no router or DHCPv6 server on ${endpoint.parent} had one for it`,
      'switch router advertisements on at the router, and start it again',
    );
  if (ipv6?.how !== 'dhcpv6' || ipv6.state !== 'lost') return null;
  return ipv6.loss === 'silent'
    ? failure(subject, 'its IPv6 lease is over, and no DHCPv6 server answers', 'look at that server')
    : failure(
        subject,
        `the DHCPv6 server gives ${ipv6.address} to it no more`,
        'start it again: it gets another address',
      );
};

/** In the order of what they say. */
export const CONTAINER_CHECKS: readonly Check<Endpoint>[] = [
  engineHasEndpoint,
  linkIsAsRecorded,
  leaseIsKept,
  hasIPv6,
  isUncontested,
  publishesNothing,
];

/** Those of which the records do not tell by themselves. */
export const LINK_CHECKS: readonly Check<Endpoint>[] = [
  engineHasEndpoint,
  linkIsAsRecorded,
  leaseIsKept,
  hasIPv6,
  publishesNothing,
];

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

/** After an upgrade the old program runs until it is restarted. */
export function isThisVersion({ version }: Pick<Examined, 'version'>): Diagnosis[] {
  if (version === VERSION) return [];
  const says = `tsmacvlan ${version} runs, and this command is of ${VERSION}`;
  return [
    warning('host', says, 'systemctl restart tsmacvlan, or upgrade the managed plugin; containers run on meanwhile'),
  ];
}

/** `names`: in the file of the service's settings. One that is no setting and looks like one is a typo, and changes nothing. */
export function misspeltSettings(names: readonly string[]): Diagnosis[] {
  const known = Object.values(SETTINGS).map(({ name }) => name);
  return names.flatMap((name) => {
    const meant = known.some((one) => one === name) ? undefined : nearest(name, known);
    const says = `${SERVICE_SETTINGS} sets ${name}, which is no setting`;
    return meant === undefined ? [] : [warning('host', says, `write ${meant}, and restart tsmacvlan`)];
  });
}

/** A change that finds no room, or no file that may be written, is refused, and with it the start of a container. */
export function stateHasRoom(state: ExaminedState, schema: number): Diagnosis {
  const { directory, freeBytes, bytes, isWritable } = state;
  const says = `state directory ${directory}`;
  if (!isWritable) return failure('host', `${says} cannot be written`, 'make it writable, and mount its disk so');
  const free = `${Math.floor(freeBytes / 1_000_000)} MB free`;
  return freeBytes < LEAST_FREE_BYTES
    ? warning('host', `${says} has only ${free}`, 'make room on its disk')
    : ok(
        'host',
        `${says} can be written, ${free}; what is in it takes ${(bytes / 1_000_000).toFixed(1)} MB (schema ${schema})`,
      );
}

/** Nothing else can be told where it is another version's, or damaged. Rethrows what is about anything else than the state's file. */
export function stateIsUnreadable(error: unknown): Diagnosis {
  if (!(error instanceof PluginError) || !UNREADABLE.has(error.code)) throw error;
  const [says = '', ...todo] = error.message.split('; ');
  return failure('host', says, todo.join('; '));
}

const UNREADABLE = new Set(['STORE_NEWER', 'STORE_OLDER', 'STORE_DAMAGED']);
const LEAST_FREE_BYTES = 20_000_000;

/** `sentence`: why Docker cannot be asked. Without it neither names nor what Docker knows otherwise can be told. */
export function engineIsSilent(sentence: string): Diagnosis {
  const [says = '', ...todo] = sentence.split('; ');
  return warning('host', says, todo.join('; '));
}

/** Whether the daemon runs, and has told what is in its state. */
export function daemonIsThere(socket: string | null): Diagnosis {
  if (socket === null)
    return failure('host', 'no tsmacvlan runs', 'systemctl start tsmacvlan, or docker plugin enable');
  const says = `tsmacvlan answers on ${socket}`;
  if (isWhereEnginesLook(socket)) return ok('host', says);
  return warning(
    'host',
    `${says}, where no engine looks for a driver`,
    'set SOCKET to /run/docker/plugins/NAME.sock, or name this one in a .spec file in /etc/docker/plugins',
  );
}
