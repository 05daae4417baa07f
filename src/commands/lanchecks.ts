/** The checks of `tsmacvlan doctor` that ask the LAN of a network. */
import { type Address, contains, formatAddress, overlaps, parsePrefix, type Range } from '../address.ts';
import { excludedBy, layoutOf } from '../ipam/pool.ts';
import type { HeardAnswers } from '../lan/survey.ts';
import type { Network, NetworkSubnet, Pool } from '../model.ts';
import { wordsForLan } from '../remarks.ts';
import { type Check, type ExaminedLink, failure, hasGateway, ok, warning } from './diagnosis.ts';

/**
 * Of IPv4: where the host itself has another subnet on the parent, that is the LAN. Unless a gateway of the network answers there:
 * a LAN may have several subnets.
 */
export const subnetIsOfLan: Check<Network> = async (network, { links, naming, lan, routes }) => {
  const { id, parent, subnets } = network;
  const examined = links.get(parent.name);
  const own = (examined?.addresses ?? []).filter(({ family }) => family === 'IPv4');
  const prefixes = own.flatMap(({ address, prefixLength }) => parsePrefix(`${address}/${prefixLength}`) ?? []);
  const isMet = ({ subnet }: NetworkSubnet) => prefixes.some((one) => overlapsWith(one, subnet));
  const foreign = subnets.filter(({ subnet }) => (parsePrefix(subnet)?.length ?? 0) > 0 && !subnet.includes(':'));
  if (own.length === 0 || !hasGateway(network) || foreign.length === 0 || subnets.some(isMet)) return null;
  const gateways = foreign.flatMap(({ gateway }) => gateway ?? []);
  const heard = await Promise.all(gateways.map((gateway) => lan.who(parent.name, gateway)));
  if (heard.some((one) => typeof one === 'string' || isThere(one))) return null;
  const hosts = own.map(({ address, prefixLength }) => `${address}/${prefixLength}`).join(' ');
  const says = `subnet ${foreign.map(({ subnet }) => subnet).join(' ')} is not that of ${parent.name}, on which this host has ${hosts}`;
  const words = wordsForLan(prefixes, routes, examined?.link.index);
  return warning(naming.network(id), says, `create the network again with ${words}`);
};

function overlapsWith(prefix: Range, text: string): boolean {
  const other = parsePrefix(text);
  return other !== undefined && overlaps(prefix, other);
}

function isThere({ toSubInterface, toParent, hostLink }: HeardAnswers): boolean {
  return toSubInterface !== null || toParent !== null || hostLink !== null;
}

function gatewaysOf({ subnets }: Network): string[] {
  return subnets.flatMap(({ gateway }) => gateway ?? []);
}

/**
 * A gateway that answers the parent and not a sub-interface: the port in between, or the network card, lets the MAC addresses of
 * containers through no more. Where no gateway can tell, what the daemon found says it.
 */
export const portDelivers: Check<Network> = async (network, { filteredParents, links, naming, lan }) => {
  const { id, parent } = network;
  const gateways = hasGateway(network) ? gatewaysOf(network) : [];
  const heard = await Promise.all(gateways.map((gateway) => lan.who(parent.name, gateway)));
  const answers = heard.filter((one) => typeof one !== 'string');
  const subject = naming.network(id);
  const examined = links.get(parent.name);
  if (answers.some(({ toSubInterface }) => toSubInterface !== null))
    return examined === undefined ? null : ok(subject, deliveredInWords(parent.name, examined));
  if (!answers.some(({ toParent }) => toParent !== null) && !filteredParents.includes(parent.name)) return null;
  return failure(
    subject,
    `the network port of ${parent.name} delivers to the MAC address of ${parent.name} only`,
    `${allowedHow(examined)}; if the port lets them through, the network card does not: -o promisc=true`,
  );
};

/** The question came from one more MAC address, which the card took as well. */
function deliveredInWords(name: string, { link, filteredMacs }: ExaminedLink): string {
  const count = filteredMacs.length;
  const others = `${count} MAC ${count === 1 ? 'address' : 'addresses'} beside its own`;
  const most =
    link.promiscuity > 0
      ? 'and takes all frames (promiscuous mode), so their number has no limit'
      : 'and was answered for one more; how many its card takes, the kernel does not tell';
  return `${name} receives for ${others}, ${most}`;
}

function allowedHow(examined: ExaminedLink | undefined): string {
  const port = 'allow other MAC addresses there (promiscuous mode, forged transmits, MAC spoofing, port security)';
  return examined?.isVirtualFunction === true
    ? `${port}; it is a virtual function (SR-IOV): ip link set DEVICE vf NUMBER trust on spoofchk off, on the host that has the card`
    : port;
}

/** Each gateway that containers get answers. What only the parent hears is told by portDelivers. */
export const gatewaysAnswer: Check<Network> = async (network, { lan, naming, filteredParents }) => {
  const { id, parent, options } = network;
  if (!hasGateway(network) || filteredParents.includes(parent.name)) return null;
  const subject = naming.network(id);
  const gateways = gatewaysOf(network);
  const heard = await Promise.all(gateways.map((gateway) => lan.who(parent.name, gateway)));
  for (const [position, one] of heard.entries()) {
    const gateway = gateways[position] ?? '';
    if (typeof one === 'string') return null;
    if (!isThere(one))
      return failure(
        subject,
        `nobody on ${parent.name} answers for gateway ${gateway}`,
        'switch the router on, or create the network again with its --gateway',
      );
    if (one.hostLink !== null && !options.hostAccess)
      return failure(
        subject,
        `gateway ${gateway} is this host (${one.hostLink}), which containers on its own interface do not reach`,
        'name the router of the LAN with --gateway, or use -o host_access=true',
      );
  }
  const isHeard = heard.every((one) => typeof one !== 'string' && (one.toSubInterface ?? one.hostLink) !== null);
  return gateways.length === 0 || !isHeard ? null : ok(subject, `gateway ${gateways.join(' ')} answers`);
};

/** Who is in the host's neighbour table with an address that containers may get, and still answers. */
export const rangeIsFree: Check<Network> = async ({ id, parent, options }, { records, links, naming, lan }) => {
  if (options.source === 'dhcp') return null;
  const pools = records.pools.filter(({ networkId }) => networkId === id);
  const taken = new Set(records.leases.map(({ address }) => address));
  const strangers = (links.get(parent.name)?.neighbours ?? [])
    .filter(({ macAddress, state }) => macAddress !== null && !['failed', 'incomplete'].includes(state))
    .filter(({ address }) => !taken.has(formatAddress(address)) && pools.some((pool) => givesOut(pool, address)))
    .slice(0, MOST_NEIGHBOURS);
  const heard = await Promise.all(strangers.map(({ address }) => lan.who(parent.name, formatAddress(address))));
  const named = strangers.flatMap(({ address }, position) => {
    const one = heard[position];
    const macAddress = typeof one === 'object' ? (one.toSubInterface ?? one.toParent) : null;
    return macAddress === null ? [] : [`${formatAddress(address)} (${macAddress})`];
  });
  if (named.length === 0) return null;
  const says = `others on the LAN have addresses of the range: ${named.join(', ')}`;
  return warning(naming.network(id), says, 'keep such addresses out with --ip-range or --ipam-opt exclude=');
};

const MOST_NEIGHBOURS = 4;

function givesOut(pool: Pool, address: Address): boolean {
  return contains(layoutOf(pool).range, address) && excludedBy(pool, address) === undefined;
}

/** A device that answers for every address hides who has one: its answers say nothing. Of IPv4. */
export const nobodyHasAll: Check<Network> = async ({ id, parent, subnets }, { naming, lan }) => {
  if (parent.recipe === 'isolated') return null;
  const asked = subnets.filter(({ subnet }) => !subnet.includes(':'));
  const found = (await Promise.all(asked.map(({ subnet }) => lan.proxy(parent.name, subnet)))).find(
    (macAddress) => macAddress !== null,
  );
  if (found === undefined || found === null) return null;
  const says = `${found} on ${parent.name} answers for every address (proxy ARP), so that its answers say of none whether it is free`;
  return warning(naming.network(id), says, 'switch proxy ARP off on that router, unless the LAN needs it');
};

/** A DHCP server that gives to others what containers get: the address that it would give next says so. */
export const offersAreOutside: Check<Network> = async ({ id, parent, options }, { records, naming, lan }) => {
  if (options.source === 'dhcp') return null;
  const pools = records.pools.filter(({ networkId, subnet }) => networkId === id && !subnet.includes(':'));
  if (parent.recipe === 'isolated' || pools.length === 0) return null;
  const offers = await lan.offers(parent.name);
  const within = offers.filter(({ terms }) => pools.some((pool) => givesOut(pool, terms.address)));
  if (within.length === 0) return null;
  const servers = within.map(
    ({ server, terms }) =>
      `DHCP server ${formatAddress(server.address)} (${server.macAddress}) offers ${formatAddress(terms.address)}`,
  );
  return warning(
    naming.network(id),
    `${servers.join(', ')}, which containers may get as well`,
    'create the network again with an --ip-range outside of what the server gives out, or make its range smaller',
  );
};

/** Of a network that lives by it. What is alone on its parent (mode passthru) asks nobody. */
export const dhcpServerAnswers: Check<Network> = async ({ id, parent, options }, { naming, lan }) => {
  if (options.source !== 'dhcp' || options.mode === 'passthru') return null;
  const subject = naming.network(id);
  const offers = await lan.offers(parent.name, 'patient');
  const servers = offers.map(({ server }) => `${formatAddress(server.address)} (${server.macAddress})`);
  if (servers.length > 0) return ok(subject, `DHCP server ${servers.join(', ')} answers on ${parent.name}`);
  const todo = 'look at the server, and whether it has addresses left; no container starts without it';
  return failure(subject, `no DHCP server answers on ${parent.name}`, todo);
};
