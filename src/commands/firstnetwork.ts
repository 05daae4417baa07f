/** The whole `docker network create` line for the LAN of this host, where there is no network yet. */
import {
  type Address,
  contains,
  formatAddress,
  formatPrefix,
  parseAddress,
  type Prefix,
  prefixOf,
} from '../address.ts';
import type { Links } from '../kernel/link.ts';
import type { Diagnosis } from './diagnosis.ts';

/** ARPHRD_ETHER. */
const ETHERNET = 1;
/** Of a larger subnet only the /24 around this host is divided: what else is there, nobody here knows. */
const LARGEST = 24;
/** Thirty addresses are enough to begin with, and few enough to be outside of most routers' DHCP ranges. */
const RANGE = 27;

/** What is known of the LAN that the host's default route leads to. */
interface HostLan {
  readonly parent: string;
  readonly subnet: Prefix;
  readonly gateway: Address;
  /** Of this host, the gateway, and neighbours that the kernel knows. */
  readonly used: readonly Address[];
}

/** Null where the host has no IPv4 default route, or one by a link that cannot be a parent. */
async function lanOfHost(links: Links): Promise<HostLan | null> {
  const route = (await links.defaultRoutes()).find(({ family, gateway }) => family === 'IPv4' && gateway !== null);
  const link = route && (await links.byIndex(route.linkIndex));
  const gateway = parseAddress(route?.gateway ?? '');
  if (link === undefined || gateway === undefined) return null;
  if (link.type !== ETHERNET || links.isWireless(link.name)) return null;
  const own = (await links.addresses(link.index)).flatMap(({ address, prefixLength }) => {
    const parsed = parseAddress(address);
    return parsed === undefined ? [] : [{ parsed, subnet: prefixOf(parsed, prefixLength) }];
  });
  const ours = own.find(({ subnet }) => contains(subnet, gateway));
  if (ours === undefined) return null;
  const neighbours = await links.neighbours(link.index, 'IPv4');
  const answered = neighbours.filter(({ macAddress }) => macAddress !== null).map(({ address }) => address);
  return { parent: link.name, subnet: ours.subnet, gateway, used: [ours.parsed, gateway, ...answered] };
}

/** As it is typed. */
function firstNetwork({ parent, subnet, gateway, used }: HostLan): string {
  const range = freeRange(subnet, used);
  const words = [
    'docker network create -d tsmacvlan --ipam-driver tsmacvlan',
    `--subnet ${formatPrefix(subnet)} --gateway ${formatAddress(gateway)}`,
    ...(range === undefined ? [] : [`--ip-range ${formatPrefix(range)}`]),
    `-o parent=${parent} -o host_access=true lan`,
  ];
  return words.join(' ');
}

/** A part of the subnet in which nobody is known: the third of eight first, else the last one; none of a subnet that is small. */
function freeRange(subnet: Prefix, used: readonly Address[]): Prefix | undefined {
  const [near] = used;
  if (near === undefined || subnet.length >= RANGE) return undefined;
  const around = subnet.length < LARGEST ? prefixOf(near, LARGEST) : subnet;
  const size = 2n ** BigInt(32 - RANGE);
  const count = 2 ** (RANGE - around.length);
  const all = Array.from({ length: count }, (_, index) =>
    prefixOf({ family: 'IPv4', value: around.first + BigInt(index) * size }, RANGE),
  );
  const [third, ...others] = [...all.slice(2, 3), ...all.filter((_, index) => index !== 2).reverse()];
  return [third, ...others].find((range) => range !== undefined && !used.some((address) => contains(range, address)));
}

/** A line of the doctor; nothing is wrong. */
export async function suggestNetwork(links: Links): Promise<Diagnosis[]> {
  const lan = await lanOfHost(links);
  if (lan === null) return [];
  const says = `there is no network yet; create one, with an --ip-range outside of the DHCP range of your router: ${firstNetwork(lan)}`;
  return [{ level: 'ok', subject: 'host', says, todo: '' }];
}
