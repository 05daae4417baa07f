/**
 * What may keep the containers of a network from others, as far as this host's own links, addresses and routes tell: said in the log
 * when the network is made, and marked in `map` and `networks`. Whether it is so the LAN alone knows, which `doctor` asks. Pure.
 */
import {
  type Address,
  contains,
  formatAddress,
  formatPrefix,
  overlaps,
  parseAddress,
  parsePrefix,
  type Prefix,
} from './address.ts';
import type { Network, NetworkSubnet } from './model.ts';

/** One of this host's routes. `destination`: `192.168.1.0/24`, or `default`. `gateway`: null where that is on the link. */
interface HostRoute {
  readonly linkIndex: number;
  readonly destination: string;
  readonly gateway: string | null;
}

/** What this host has. */
export interface HostView {
  /** The network's parent; undefined where it is gone. */
  readonly parent:
    | { readonly name: string; readonly index: number; readonly isUp: boolean; readonly hasCarrier: boolean }
    | undefined;
  /** Of all its links. */
  readonly addresses: readonly {
    readonly linkIndex: number;
    readonly address: string;
    readonly prefixLength: number;
  }[];
  readonly routes: readonly HostRoute[];
  /** By index. */
  readonly nameOf: (linkIndex: number) => string;
}

/** What stands out, and what to do. */
export interface NetworkRemark {
  /** What it is about. Of parents and gateways the log speaks in other words. */
  readonly kind: 'parent' | 'isolated' | 'subnet' | 'route' | 'gateway';
  readonly short: string;
  readonly todo: string;
}

/** The most telling first. */
export function remarksOn(network: Network, view: HostView): NetworkRemark[] {
  if (network.parent.recipe === 'isolated')
    return network.internal
      ? []
      : [remark('isolated', 'no parent: containers reach only each other', 'create it again with -o parent=')];
  return [
    ...parentRemarks(network, view),
    ...foreignRemarks(network, view),
    ...routeRemarks(network, view),
    ...gatewayRemarks(network),
  ];
}

/** A subnet of IPv4 whose containers get no gateway although nobody said so. Those of IPv6 hear of routers by advertisements. */
export function lacksGateway({ parent, internal, options }: Network, { subnet, gateway }: NetworkSubnet): boolean {
  if (parent.recipe === 'isolated' || internal || !options.gateway || gateway !== null) return false;
  return !subnet.includes(':') && options.gatewayFamilies?.includes('IPv4') !== false;
}

function gatewayRemarks(network: Network): NetworkRemark[] {
  // That of all addresses is of an IPAM that gives none.
  const asked = network.subnets.filter(({ subnet }) => (prefixOfIPv4(subnet)?.length ?? 0) > 0);
  if (asked.length === 0 || !asked.every((one) => lacksGateway(network, one))) return [];
  return [
    remark(
      'gateway',
      'no gateway: containers get no IPv4 default route',
      'create it again with --gateway, or with -o gateway=none if that is meant',
    ),
  ];
}

function parentRemarks({ parent: { name } }: Network, { parent }: HostView): NetworkRemark[] {
  const ofParent = (short: string, todo: string) => [remark('parent', short, todo)];
  if (parent === undefined) return ofParent(`${name} is not there`, `bring ${name} back`);
  if (!parent.isUp) return ofParent(`${name} is down`, `ip link set ${name} up`);
  return parent.hasCarrier ? [] : ofParent(`${name} has no carrier`, 'look at its cable, switch or VM');
}

/** Of IPv4: where this host has addresses on the parent, they are of its LAN. A LAN may have several subnets. */
function foreignRemarks({ subnets, internal, options, parent }: Network, view: HostView): NetworkRemark[] {
  if (internal || !options.gateway) return [];
  const own = view.addresses.filter(
    ({ linkIndex, address }) => linkIndex === view.parent?.index && !address.includes(':'),
  );
  const prefixes = own.flatMap(({ address, prefixLength }) => parsePrefix(`${address}/${prefixLength}`) ?? []);
  const asked = subnets.flatMap(({ subnet }) => prefixOfIPv4(subnet) ?? []);
  if (prefixes.length === 0 || asked.length === 0) return [];
  if (asked.some((one) => prefixes.some((prefix) => overlaps(prefix, one)))) return [];
  const hosts = own.map(({ address, prefixLength }) => `${address}/${prefixLength}`).join(' ');
  return [
    remark(
      'subnet',
      `not the subnet of ${parent.name}, on which this host has ${hosts}`,
      `create it again with ${wordsForLan(prefixes, view.routes, view.parent?.index)}, unless that LAN has several subnets`,
    ),
  ];
}

/** What `docker network create` is to be told of the LAN of which a host has these prefixes on a link. */
export function wordsForLan(
  prefixes: readonly Prefix[],
  routes: readonly HostRoute[],
  linkIndex: number | undefined,
): string {
  const [first] = prefixes;
  if (first === undefined) return '--subnet and --gateway of that LAN';
  for (const { linkIndex: at, destination, gateway: text } of routes) {
    const gateway = at === linkIndex && destination === 'default' ? parseAddress(text ?? '') : undefined;
    const prefix = gateway && prefixes.find((one) => contains(one, gateway));
    if (gateway && prefix) return `--subnet ${formatPrefix(prefix)} --gateway ${formatAddress(gateway)}`;
  }
  return `--subnet ${formatPrefix(first)} and the --gateway of that LAN`;
}

/** A subnet that this host reaches elsewhere: behind another link there are others with these addresses. */
function routeRemarks({ subnets, parent }: Network, view: HostView): NetworkRemark[] {
  const wanted = subnets.flatMap(({ subnet }) => prefixOfIPv4(subnet) ?? []);
  const met = view.routes.filter(({ destination }) => {
    const prefix = prefixOfIPv4(destination);
    // A route to one host is of host access, or somebody's exception.
    return (
      prefix !== undefined && prefix.length > 0 && prefix.length < 32 && wanted.some((one) => overlaps(prefix, one))
    );
  });
  if (view.parent === undefined || met.some(({ linkIndex }) => linkIndex === view.parent?.index)) return [];
  const [elsewhere] = met;
  if (elsewhere === undefined) return [];
  const name = view.nameOf(elsewhere.linkIndex);
  return [
    remark(
      'route',
      `this host reaches ${elsewhere.destination} by ${name}, not by ${parent.name}`,
      'create it again with another --subnet, unless both are meant',
    ),
  ];
}

function remark(kind: NetworkRemark['kind'], short: string, todo: string): NetworkRemark {
  return { kind, short, todo };
}

function prefixOfIPv4(text: string): Prefix | undefined {
  const prefix = parsePrefix(text);
  const family: Address['family'] | undefined = prefix?.family;
  return family === 'IPv4' ? prefix : undefined;
}
