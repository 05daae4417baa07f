/**
 * Whose MAC address is it? The kernel knows which links are in which network namespace, so what a container says through
 * another interface of its own, be it on another parent or of another driver, can be told from what a stranger says: Linux
 * answers ARP for all addresses of a namespace on each of its links (ip-sysctl: arp_ignore 0).
 *
 * Read only when a frame gives reason to: with hundreds of containers a reading takes tens of milliseconds.
 */
import { type Address, formatAddress } from '../address.ts';
import type { Link, LinkAddress, Links } from '../kernel/link.ts';

/** Somebody of this MAC address used the address of a container. */
export interface OwnerQuestion {
  /** Of the link that carries the container's. */
  readonly parentIndex: number;
  /** The container's. */
  readonly ourMacAddress: string;
  readonly macAddress: string;
  readonly address: Address;
}

/**
 * `container`: an interface in the same namespace. `host`: a link of this host, which has the address as well. `daemon`: a
 * link of this host that has not. `stranger`: nothing that can be seen here. `unknown`: the kernel could not be asked.
 */
export type Owner =
  | { readonly kind: 'container' | 'daemon' | 'stranger' | 'unknown' }
  | { readonly kind: 'host'; readonly linkName: string };

/** The verbs it needs. */
export type OwnershipLinks = Pick<Links, 'list' | 'addresses' | 'foreignLinks'>;

interface Reading {
  readonly ours: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  readonly foreign: readonly (Link & { readonly namespaceId: number })[] | null;
}

/** One reading for all questions; the answers in their order. Never throws. */
export async function findOwners(links: OwnershipLinks, questions: readonly OwnerQuestion[]): Promise<Owner[]> {
  const reading = await read(links, questions).catch(() => undefined);
  return questions.map((question) => (reading === undefined ? { kind: 'unknown' } : judge(question, reading)));
}

/** Whether it is that of a link in the host's own namespace. False when that cannot be read. */
export async function isOfHost(links: Pick<OwnershipLinks, 'list'>, macAddress: string): Promise<boolean> {
  return links
    .list((link) => link.macAddress === macAddress)
    .then(
      (found) => found.length > 0,
      () => false,
    );
}

async function read(links: OwnershipLinks, questions: readonly OwnerQuestion[]): Promise<Reading> {
  const macs = new Set(questions.flatMap(({ macAddress, ourMacAddress }) => [macAddress, ourMacAddress]));
  const isAskedFor = ({ macAddress }: Link) => macs.has(macAddress);
  const [ours, foreign] = await Promise.all([links.list(isAskedFor), links.foreignLinks(isAskedFor)]);
  return { ours, foreign, addresses: ours.length > 0 ? await links.addresses() : [] };
}

function judge({ parentIndex, ourMacAddress, macAddress, address }: OwnerQuestion, reading: Reading): Owner {
  const { ours, foreign, addresses } = reading;
  const isContainers = (link: Link) => link.macAddress === ourMacAddress && link.parentIndex === parentIndex;
  const namespaces = new Set(foreign?.filter(isContainers).map(({ namespaceId }) => namespaceId));
  if (foreign?.some((link) => link.macAddress === macAddress && namespaces.has(link.namespaceId)))
    return { kind: 'container' };
  if (ours.some((link) => link.macAddress === macAddress)) return judgeHost(address, reading, addresses);
  return { kind: foreign === null ? 'unknown' : 'stranger' };
}

function judgeHost(address: Address, { ours }: Reading, addresses: readonly LinkAddress[]): Owner {
  const text = formatAddress(address);
  const place = addresses.find((one) => one.address === text);
  if (place === undefined) return { kind: 'daemon' };
  const name = ours.find(({ index }) => index === place.linkIndex)?.name;
  return { kind: 'host', linkName: name ?? `link ${place.linkIndex}` };
}
