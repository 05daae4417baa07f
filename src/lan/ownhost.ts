/**
 * What this host's kernel knows that no question to the LAN can tell: who on this host has an address, and whose a MAC
 * address is. Linux answers ARP for all addresses of a namespace on each of its links (ip-sysctl: arp_ignore 0), so what a
 * container says through another interface of its own, be it on another parent or of another driver, is told from what
 * a stranger says by the namespace its link is in.
 *
 * All of it comes from the table that the kernel's events keep; the kernel itself is asked again for an address that the
 * table finds, so that what goes at this very moment is no reason for a refusal.
 */
import { type Address, formatAddress } from '../address.ts';
import type { Link, LinkAddress, Links } from '../kernel/link.ts';
import type { LinkTable } from '../kernel/table.ts';
import type { DetectionSpec } from './detectionspec.ts';
import type { Verdict } from './verdict.ts';

/** An address, and who of our containers may have it. */
export interface OwnAddress extends Pick<DetectionSpec, 'isOwn'> {
  readonly address: Address;
}

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
 * `vacant`: the container's own link is nowhere; its engine died, and has not said so yet. `apart`: it lies in the host's namespace,
 * down. The engine has not moved it into the container yet, or has brought it back, or will never come for it.
 */
export type Owner =
  | { readonly kind: 'container' | 'daemon' | 'stranger' | 'unknown' | 'vacant' | 'apart' }
  | { readonly kind: 'host'; readonly linkName: string };

/** What is needed where only MAC addresses are looked up. */
export interface HasLinkTable {
  readonly table: LinkTable;
}

/** A verdict that the address is held on this host; undefined when it is not. Throws what the kernel refuses. */
export async function holderOnHost(links: Links, wanted: OwnAddress, parent: Link): Promise<Verdict | undefined> {
  return (await hostWith(links, wanted, parent)) ?? (await siblingWith(links, wanted, parent));
}

/**
 * A verdict that the host itself has the address, which no probe from its own links can hear; undefined when it has not.
 * IPv4: on whatever link, because Linux answers ARP for all of them on all links. IPv6: on this segment, because it answers
 * link by link. Throws what the kernel refuses.
 */
export async function hostWith(
  links: Links,
  { address, isOwn }: OwnAddress,
  parent: Link,
): Promise<Verdict | undefined> {
  const text = formatAddress(address);
  for (const linkIndex of await ownLinksWith(links, text)) {
    const link = await links.byIndex(linkIndex);
    if (link === undefined || isOwn(link.macAddress, false)) continue;
    if (address.family === 'IPv6' && link.index !== parent.index && !isOn(link, parent.index)) continue;
    if (!(await links.addresses(linkIndex)).some((one) => one.address === text)) continue;
    return onHost((link.isLoopback ? parent : link).macAddress, link.name);
  }
  return undefined;
}

/** An IPv6 address that is set without detection of duplicates is told late (table.ts), so those are read. */
async function ownLinksWith(links: Links, address: string): Promise<number[]> {
  const isIt = (one: LinkAddress) => one.address === address;
  if (address.includes(':')) return (await links.addresses()).filter(isIt).map(({ linkIndex }) => linkIndex);
  await links.table.update();
  const places = links.table.placesOf(address).filter(({ namespaceId }) => namespaceId === null);
  return places.map(({ linkIndex }) => linkIndex);
}

/** Siblings in modes private and vepa hear no probe of another sibling; their addresses can be read all the same. */
async function siblingWith(
  { table }: HasLinkTable,
  { address, isOwn }: OwnAddress,
  { index, name }: Link,
): Promise<Verdict | undefined> {
  const siblings = await table.subInterfacesElsewhere(index, formatAddress(address));
  const holder = siblings.find(({ macAddress }) => !isOwn(macAddress, false));
  return holder && onHost(holder.macAddress, name);
}

function onHost(macAddress: string, linkName: string): Verdict {
  return { held: true, macAddress, linkName, simultaneous: false, isOnHost: true };
}

/** Whether a link of this host, or of a container of whatever driver, has this MAC address. False if it cannot be read. */
export function isOnHost(links: HasLinkTable, macAddress: string): Promise<boolean> {
  return isKnown(links, macAddress, () => true);
}

/** Whether it is that of a link in the host's own namespace. False when that cannot be read. */
export function isOfHost(links: HasLinkTable, macAddress: string): Promise<boolean> {
  return isKnown(links, macAddress, (namespaceId) => namespaceId === null);
}

/** Whether a link with this MAC address lies on the parent in the host's own namespace, down: it says nothing. Asks nobody. */
export function isSilent({ table }: HasLinkTable, parentName: string, macAddress: string): boolean {
  table.drain();
  const parent = table.byName(parentName);
  return table.withMac(macAddress).some((link) => link.namespaceId === null && isOn(link, parent?.index) && !link.isUp);
}

/**
 * Whether a container has a link with this MAC address on the parent: one that lies in the host's namespace, down, answers nobody,
 * and whoever has its addresses has them rightly. True as well where that cannot be read.
 */
export async function isInContainer({ table }: HasLinkTable, parentName: string, macAddress: string): Promise<boolean> {
  try {
    await table.update();
    const parent = table.byName(parentName);
    return parent === undefined || (await placeOf(table, parent.index, macAddress)).kind === 'there';
  } catch {
    return true;
  }
}

/** A link of this namespace whose parent is as well: the index of one elsewhere says nothing here. */
function isOn({ parentIndex, parentNamespaceId }: Link, index: number | undefined): boolean {
  return parentIndex === index && parentNamespaceId === null;
}

/** Where a container's link is, or why it is not to be found. */
type Place =
  | { readonly kind: 'there'; readonly namespaceIds: readonly number[] }
  | { readonly kind: 'vacant' | 'apart' };

/** Throws what the kernel refuses. */
async function placeOf(table: LinkTable, parentIndex: number, macAddress: string): Promise<Place> {
  const here = table.withMac(macAddress).filter((link) => link.namespaceId === null && isOn(link, parentIndex));
  const namespaceIds = await namespacesWith(table, parentIndex, macAddress);
  const isUpHere = here.some(({ isUp }) => isUp);
  if (namespaceIds.length > 0 || isUpHere || (here.length === 0 && !table.seesOthers))
    return { kind: 'there', namespaceIds };
  return { kind: here.length > 0 ? 'apart' : 'vacant' };
}

/**
 * In which namespaces of containers there is a link with this MAC address on the parent, which is of this namespace. More than one only
 * while it is up in none: of two the kernel brings up one (macvlan_open, drivers/net/macvlan.c), and who has CAP_NET_ADMIN in a
 * container makes links of any MAC address there, on its own links and so on the parent too. Throws what the kernel refuses.
 */
export async function namespacesWith(table: LinkTable, parentIndex: number, macAddress: string): Promise<number[]> {
  const found = await table.subInterfacesWithMac(parentIndex, macAddress);
  const up = found.filter(({ isUp }) => isUp);
  return (up.length > 0 ? up : found).map(({ namespaceId }) => namespaceId);
}

function isKnown(
  { table }: HasLinkTable,
  macAddress: string,
  isWanted: (namespaceId: number | null) => boolean,
): Promise<boolean> {
  return table.update().then(
    () => table.withMac(macAddress).some(({ namespaceId }) => isWanted(namespaceId)),
    () => false,
  );
}

/** One look for all questions, of which many may be about one container; the answers in their order. Never throws. */
export async function findOwners({ table }: HasLinkTable, questions: readonly OwnerQuestion[]): Promise<Owner[]> {
  const places = new Map<string, Promise<Place>>();
  const placeIn = ({ parentIndex, ourMacAddress }: OwnerQuestion) => {
    const key = `${parentIndex} ${ourMacAddress}`;
    const place = places.get(key) ?? placeOf(table, parentIndex, ourMacAddress);
    places.set(key, place);
    return place;
  };
  try {
    await table.update();
    return await Promise.all(questions.map(async (question) => ownerOf(table, question, await placeIn(question))));
  } catch {
    return questions.map(() => ({ kind: 'unknown' }));
  }
}

function ownerOf(table: LinkTable, { macAddress, address }: OwnerQuestion, place: Place): Owner {
  if (place.kind !== 'there') return place;
  const found = table.withMac(macAddress).map(({ namespaceId }) => namespaceId);
  if (found.some((id) => id !== null && place.namespaceIds.includes(id))) return { kind: 'container' };
  if (found.includes(null)) return hostOrDaemon(table, address);
  return { kind: table.seesOthers ? 'stranger' : 'unknown' };
}

function hostOrDaemon(table: LinkTable, address: Address): Owner {
  const place = table.placesOf(formatAddress(address)).find(({ namespaceId }) => namespaceId === null);
  if (place === undefined) return { kind: 'daemon' };
  return { kind: 'host', linkName: table.byIndex(place.linkIndex)?.name ?? `link ${place.linkIndex}` };
}
