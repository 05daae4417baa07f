/** The kernel's links, addresses and routes of this network namespace, in rtnetlink's verbs. */
import { randomInt } from 'node:crypto';
import { constants } from 'node:os';
import { type Address, formatAddress, isSameAddress } from '../address.ts';
import type { Family, Mode } from '../model.ts';
import { Deletions } from './deletion.ts';
import { KernelError, isKernelError } from './errno.ts';
import {
  IPV4_DEVCONF_ARP_ANNOUNCE,
  IPV4_DEVCONF_ARP_FILTER,
  IFF_NOARP,
  IFF_PROMISC,
  IFF_UP,
  type LinkAddress,
  type Link,
  type LinkHeader,
  RTM_DELADDR,
  RTM_DELROUTE,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETROUTE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWROUTE,
  RTM_SETLINK,
  type Route,
  type RouteSpec,
  type VlanKind,
  addressBody,
  addressDumpBody,
  decodeAddress,
  decodeLink,
  decodeRoute,
  RT_TABLE_MAIN,
  ipv4Config,
  linkAlias,
  linkAlternativeName,
  linkBody,
  linkGroup,
  linkInfo,
  linkMacAddress,
  linkMtu,
  linkName,
  linkParent,
  macvlanInfo,
  routeBody,
  routeDumpBody,
  vlanInfo,
  withoutAddressGeneration,
  withoutStatistics,
} from './message.ts';
import { type ForeignLink, Namespaces } from './namespaces.ts';
import {
  type Neighbour,
  RTM_GETNEIGH,
  decodeFilterEntry,
  decodeNeighbour,
  filterDumpBody,
  neighbourBody,
  neighbourDumpBody,
} from './neighbour.ts';
import { type Answer, type Message, NLM_F_CREATE, NLM_F_EXCL, type Request } from './netlink.ts';
import { RtnetlinkSocket } from './rtnetlink.ts';
import { carriedFrames, isVirtualFunctionName, isWirelessName, upperNames, writeIPv6Switch } from './sysfs.ts';
import { type LinkEvent, LinkTable } from './table.ts';
import { NetlinkTrace } from './trace.ts';

export type { LinkAddress, Link, LinkEvent, Neighbour, Route, RouteSpec, VlanKind };

/** A macvlan sub-interface to be made. */
export interface MacvlanSpec {
  readonly name: string;
  readonly alias: string;
  readonly parentIndex: number;
  readonly mode: Mode;
  /** Null lets the kernel make one up, which udev may then change (MACAddressPolicy=persistent). */
  readonly macAddress: string | null;
  /** Bytes; null takes the parent's. */
  readonly mtu: number | null;
  /** IFLA_MACVLAN_BC_QUEUE_LEN; null takes the kernel's 1000. */
  readonly broadcastQueueLength: number | null;
}

/** A VLAN sub-interface to be made. `id`: 1 to 4094. */
export interface VlanSpec {
  readonly name: string;
  readonly alias: string;
  readonly parentIndex: number;
  readonly id: number;
  readonly protocol: VlanKind;
}

/** A link to be made of which no more has to be said. `name`: at most 15 bytes. */
export interface NameSpec {
  readonly name: string;
  readonly alias: string;
}

/** IFNAMSIZ and ALTIFNAMSIZ without the NUL. */
const NAME_BYTES = 15;
const ALTERNATIVE_NAME_BYTES = 127;

/** Of the kinds that need nothing beside themselves; see addIsolated. */
const ISOLATED_KINDS = ['dummy', 'ifb', 'bridge'] as const;

/**
 * The verbs on links, addresses and routes. Each throws a KernelError with the kernel's refusal, unless its comment
 * says otherwise; each may be called while others are under way.
 */
export class Links {
  /** What is known without asking the kernel. */
  readonly table: LinkTable;
  readonly #requests: RtnetlinkSocket;
  readonly #deletions: Deletions;
  readonly #namespaces: Namespaces;

  private constructor(trace: NetlinkTrace | null, onFault: (error: unknown) => void) {
    this.#requests = RtnetlinkSocket.open(trace);
    this.#deletions = new Deletions(trace);
    this.#namespaces = new Namespaces(trace);
    const readHere = async () => ({ links: await this.list(), addresses: await this.addresses(), isWhole: true });
    this.table = new LinkTable({ readHere, namespaces: this.#namespaces, trace, onFault });
  }

  /**
   * Five sockets, in the network namespace of this thread; close() closes them. `tell` gets a line for each exchange with
   * the kernel and each of its events (trace.ts); null, and nothing is spent on that. `onFault` gets what a listener of onChange() threw.
   */
  static open(
    tell: ((line: string) => void) | null = null,
    onFault: (error: unknown) => void = () => undefined,
  ): Links {
    return new Links(tell === null ? null : new NetlinkTrace(tell), onFault);
  }

  /** Requests that were made before are finished; onChange() tells nothing any more. */
  close(): void {
    this.#requests.close();
    this.#deletions.close();
    this.#namespaces.close();
    this.table.close();
  }

  /** By name or alternative name. */
  async byName(name: string): Promise<Link | undefined> {
    const attribute = nameAttribute(name);
    return attribute === undefined ? undefined : this.#get(`get link ${name}`, getLink({}, attribute));
  }

  /** As byName(), without asking the kernel where its events have told all: whether it has carrier may be a second old. */
  async known(name: string): Promise<Link | undefined> {
    await this.table.updateHere();
    const link = this.table.byName(name);
    // A link that is down may have got or lost the alternative name since (watch.ts).
    const isSure = link !== undefined && (link.isUp || link.name === name);
    return isSure ? link : this.byName(name);
  }

  /** Undefined when there is no such link. */
  async byIndex(index: number): Promise<Link | undefined> {
    return index > 0 ? this.#get(`get link ${index}`, getLink({ index })) : undefined;
  }

  /** Those that `keep` says yes to. */
  async list(keep: (link: Link) => boolean = () => true): Promise<Link[]> {
    return this.#requests.dump('list links', getLink({}), linkIf(keep));
  }

  /**
   * The links of this namespace that sit on it: VLANs, macvlans, a bridge or bond it is a member of. By sysfs, which costs
   * the same however many links there are, if sysfs shows this namespace; else by a look at all links.
   */
  async upper(link: Link): Promise<Link[]> {
    const names = upperNames(link);
    if (names === null)
      return this.list(
        ({ parentIndex, parentNamespaceId, index }) =>
          (parentIndex === link.index && parentNamespaceId === null && index !== link.index) ||
          index === link.masterIndex,
      );
    const found = await Promise.all(names.map((name) => this.byName(name)));
    return found.filter((upper) => upper !== undefined);
  }

  /** A frame came in or went out by it, so that it was up once. False too where sysfs does not show this namespace. */
  hasCarriedFrames(link: Link): boolean {
    return (carriedFrames(link) ?? 0) > 0;
  }

  /** By sysfs, which shows the namespace it was mounted in. */
  isWireless(name: string): boolean {
    return isWirelessName(name);
  }

  /** By sysfs too. */
  isVirtualFunction(name: string): boolean {
    return isVirtualFunctionName(name);
  }

  /**
   * Down, with its alias from the first moment. A passthru child gets the parent's MAC address whatever the request says,
   * and setting its address changes the parent's. EINVAL without a text: passthru beside another child, or an MTU above
   * the parent's. EBUSY: the parent has an owner. EADDRINUSE comes only when the second of one MAC is set up.
   */
  async addMacvlan(spec: MacvlanSpec): Promise<Link> {
    return this.#add('macvlan', spec, [
      linkParent(spec.parentIndex),
      macvlanInfo(spec.mode, spec.broadcastQueueLength),
      ...(spec.macAddress === null ? [] : [linkMacAddress(spec.macAddress)]),
      ...(spec.mtu === null ? [] : [linkMtu(spec.mtu)]),
    ]);
  }

  /** An 802.1Q or 802.1ad sub-interface on which the host takes no IPv6 address. Down; EOPNOTSUPP without 8021q. */
  async addVlan(spec: VlanSpec): Promise<Link> {
    const attributes = [linkParent(spec.parentIndex), vlanInfo(spec.id, spec.protocol)];
    return this.#withoutHostIPv6(await this.#add('vlan', spec, attributes, [withoutAddressGeneration()]));
  }

  /**
   * A link that leads nowhere, as the parent of sub-interfaces that talk to nobody but each other; the host takes no
   * IPv6 address on it. A dummy where the kernel has that kind. Else an ifb: a single device too, with carrier, that
   * drops what is sent to it. Last a bridge without ports, which loses its carrier when its MAC address is set.
   */
  async addIsolated(spec: NameSpec): Promise<Link> {
    return this.#addIsolatedOf(spec, ...ISOLATED_KINDS);
  }

  async #addIsolatedOf(spec: NameSpec, kind: string, ...others: string[]): Promise<Link> {
    try {
      return this.#withoutHostIPv6(await this.#add(kind, spec, [linkInfo(kind)], [withoutAddressGeneration()]));
    } catch (error) {
      const [next, ...rest] = others;
      if (next === undefined || !isKernelError(error, 'EOPNOTSUPP')) throw error;
      return this.#addIsolatedOf(spec, next, ...rest);
    }
  }

  /** EADDRINUSE when a sibling that is up has the same MAC address (macvlan_open). */
  async setUp(index: number): Promise<void> {
    await this.#set(`set link ${index} up`, { index, flags: IFF_UP, change: IFF_UP });
  }

  /** Its addresses stay; its routes go. */
  async setDown(index: number): Promise<void> {
    await this.#set(`set link ${index} down`, { index, change: IFF_UP });
  }

  /** Off: the link answers no ARP request, not even for the host's own addresses, which Linux answers for on any link. */
  async setArp(index: number, on: boolean): Promise<void> {
    const header = { index, flags: on ? 0 : IFF_NOARP, change: IFF_NOARP };
    await this.#set(`set link ${index} arp ${on ? 'on' : 'off'}`, header);
  }

  /**
   * A link of the host beside another on the same LAN: it answers ARP only those to whom the host's routes lead through it
   * (arp_filter), for any address of the host, and asks from its own (arp_announce 2); else every neighbour would hear two MAC
   * addresses for one address of the host.
   */
  async keepArpApart(index: number): Promise<void> {
    const values = { [IPV4_DEVCONF_ARP_FILTER]: 1, [IPV4_DEVCONF_ARP_ANNOUNCE]: 2 };
    await this.#set(`set ARP policy of link ${index}`, { index }, ipv4Config(values));
  }

  /**
   * The host's IPv6 on the link: only the addresses it is given, no router is listened to. Where /proc/sys is read-only
   * (a plugin's container) only the first of the two comes true.
   */
  async keepIPv6Static(link: Link): Promise<void> {
    await this.#set(
      `stop IPv6 autoconfiguration of link ${link.index}`,
      { index: link.index },
      withoutAddressGeneration(),
    );
    writeIPv6Switch(link.name, 'accept_ra', '0');
  }

  /** IFF_PROMISC as an administrator sets it; the kernel counts its own wishes apart from it. */
  async setPromiscuous(index: number, on: boolean): Promise<void> {
    const header = { index, flags: on ? IFF_PROMISC : 0, change: IFF_PROMISC };
    await this.#set(`set link ${index} promisc ${on ? 'on' : 'off'}`, header);
  }

  /** False when it was gone already. Takes the kernel some 16 ms; nothing else waits behind it. */
  deleteLink(index: number): Promise<boolean> {
    return this.#deletions.delete(index);
  }

  /** IPv4 and IPv6, of one link or of all. */
  async addresses(index?: number): Promise<LinkAddress[]> {
    const request = { type: RTM_GETADDR, flags: 0, body: addressDumpBody() };
    const addresses = await this.#requests.dump('list addresses', request, decodeAddress);
    return index === undefined ? addresses : addresses.filter(({ linkIndex }) => linkIndex === index);
  }

  /** It may be gone already, or its namespace may. */
  async deleteForeignLink(link: ForeignLink): Promise<void> {
    await this.#namespaces.deleteLink(link);
  }

  /** `address` with its prefix length: `192.168.1.2/24`. EEXIST when it is there already. */
  async addAddress(index: number, address: string, { noDad = false }: { noDad?: boolean } = {}): Promise<void> {
    const request = { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL, body: addressBody(index, address, noDad) };
    await this.#requests.request(`add address ${address} to link ${index}`, request);
  }

  /** False when it was gone already, or its link was. */
  async deleteAddress(index: number, address: string): Promise<boolean> {
    const request = { type: RTM_DELADDR, flags: 0, body: addressBody(index, address) };
    const result = this.#requests.request(`delete address ${address} from link ${index}`, request);
    return unlessGone(result, 'EADDRNOTAVAIL', 'ENODEV');
  }

  /** What the host's neighbour table has for an address on a link; undefined when it has nothing. */
  async neighbour(linkIndex: number, address: Address): Promise<Neighbour | undefined> {
    const request = { type: RTM_GETNEIGH, flags: 0, body: neighbourBody(linkIndex, address) };
    const [answer] = await this.#requests.batch(`get neighbour ${formatAddress(address)}`, [request]);
    const [message] = answer?.messages ?? [];
    if (message !== undefined) return decodeNeighbour(message);
    const error = answer?.error ?? null;
    if (error === null || isKernelError(error, 'ENOENT', 'ENODEV')) return undefined;
    // Before Linux 5.0 there is only the whole table.
    if (!isKernelError(error, 'EOPNOTSUPP')) throw error;
    return (await this.neighbours(linkIndex, address.family)).find((one) => isSameAddress(one.address, address));
  }

  /** What the host's neighbour table has for the addresses of a family on a link. */
  async neighbours(linkIndex: number, family: Family): Promise<Neighbour[]> {
    const request = { type: RTM_GETNEIGH, flags: 0, body: neighbourDumpBody(family) };
    const all = await this.#requests.dump('list neighbours', request, decodeNeighbour);
    return all.filter((one) => one.linkIndex === linkIndex);
  }

  /**
   * The MAC addresses that the link is to let through beside its own: of its sub-interfaces in whatever namespace (`bridge fdb show
   * dev LINK`). How many its NIC has room for the kernel does not know (ndo_set_rx_mode answers nothing).
   */
  async filteredMacs(linkIndex: number): Promise<string[]> {
    const request = { type: RTM_GETNEIGH, flags: 0, body: filterDumpBody() };
    const all = await this.#requests.dump('list MAC addresses of links', request, decodeFilterEntry);
    return all.filter((one) => one.linkIndex === linkIndex).map(({ macAddress }) => macAddress);
  }

  /** Unicast routes of all tables. */
  async routes(): Promise<Route[]> {
    const request = { type: RTM_GETROUTE, flags: 0, body: routeDumpBody() };
    return (await this.#requests.dump('list routes', request, decodeRoute)).flat();
  }

  /** Of table main: what another table has is for some packets alone (ip-rule(8)). */
  async defaultRoutes(): Promise<Route[]> {
    return (await this.routes()).filter(
      ({ destination, table }) => destination === 'default' && table === RT_TABLE_MAIN,
    );
  }

  /** In table main. EEXIST when it is there already. */
  async addRoute(spec: RouteSpec): Promise<void> {
    const request = { type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_EXCL, body: routeBody(spec) };
    await this.#requests.request(`add route ${spec.destination}`, request);
  }

  /** False when it was gone already, or its link was. */
  async deleteRoute(spec: RouteSpec): Promise<boolean> {
    const request = { type: RTM_DELROUTE, flags: 0, body: routeBody(spec) };
    return unlessGone(this.#requests.request(`delete route ${spec.destination}`, request), 'ESRCH', 'ENODEV');
  }

  /** See LinkTable.onChange(). */
  onChange(listener: (event: LinkEvent) => void): () => void {
    return this.table.onChange(listener);
  }

  /** Tells the listeners now of all changes that the kernel has announced until this moment. */
  readChanges(): void {
    this.table.drain();
  }

  /**
   * Creates a link together with its alias, so that none of ours is ever without its mark, even when this process is
   * killed. RTM_NEWLINK ignores IFLA_IFALIAS while it creates (rtnl_create_link), so a second message of the same
   * send() sets it. That message must not touch a stranger's link which made the first one fail with EEXIST: it
   * addresses the link by a random group, in which there is nothing but the link just made (rtnl_group_changelink).
   */
  async #add(kind: string, { name, alias }: NameSpec, attributes: Buffer[], afterwards: Buffer[] = []): Promise<Link> {
    const operation = `add ${kind} ${name}`;
    const group = randomInt(2 ** 30, 2 ** 31);
    const [created, aliased, got, ...others] = await this.#requests.batch(operation, [
      {
        type: RTM_NEWLINK,
        flags: NLM_F_CREATE | NLM_F_EXCL,
        body: linkBody({}, linkName(name), linkGroup(group), ...attributes),
      },
      { type: RTM_NEWLINK, flags: 0, body: linkBody({}, linkGroup(group), linkAlias(alias)) },
      getLink({}, linkName(name)),
      ...afterwards.map((attribute) => ({
        type: RTM_NEWLINK,
        flags: 0,
        body: linkBody({}, linkGroup(group), attribute),
      })),
    ]);
    if (created?.error) throw created.error;
    const link = decodeAnswer(got);
    const failure = aliased?.error ?? got?.error ?? others.find(isRefused)?.error;
    if (link === undefined || failure)
      return this.#undo(link, failure ?? new KernelError(operation, constants.errno.ENODEV));
    await this.#set(operation, { index: link.index }, linkGroup(0)).catch((error) => this.#undo(link, error as Error));
    return link;
  }

  /** The first failure goes on, also when the link cannot be removed again. */
  async #undo(link: Link | undefined, failure: Error): Promise<never> {
    if (link !== undefined) await this.deleteLink(link.index).catch(() => false);
    throw failure;
  }

  /**
   * addr_gen_mode none leaves router advertisements in force, only this switch ends IPv6 on the link. In a plugin's
   * container /proc/sys is read-only: then the first has to do.
   */
  #withoutHostIPv6(link: Link): Link {
    writeIPv6Switch(link.name, 'disable_ipv6', '1');
    return link;
  }

  async #get(operation: string, request: Request): Promise<Link | undefined> {
    const [answer] = await this.#requests.batch(operation, [request]);
    if (answer?.error && !isKernelError(answer.error, 'ENODEV')) throw answer.error;
    return decodeAnswer(answer);
  }

  async #set(operation: string, header: LinkHeader, ...attributes: Buffer[]): Promise<void> {
    await this.#requests.request(operation, { type: RTM_SETLINK, flags: 0, body: linkBody(header, ...attributes) });
  }
}

function getLink(header: LinkHeader, ...attributes: Buffer[]): Request {
  return { type: RTM_GETLINK, flags: 0, body: linkBody(header, withoutStatistics(), ...attributes) };
}

/** A host may have thousands: what is not wanted does not outlive its message. */
function linkIf(keep: (link: Link) => boolean): (message: Message) => Link | undefined {
  return (message) => {
    const link = decodeLink(message);
    return link !== undefined && keep(link) ? link : undefined;
  };
}

function decodeAnswer(answer: Answer | undefined): Link | undefined {
  const message: Message | undefined = answer?.messages[0];
  return message === undefined ? undefined : decodeLink(message);
}

/** A kernel with IPv6 switched off knows no address generation (EAFNOSUPPORT), and needs none. */
function isRefused({ error }: Answer): boolean {
  return error !== null && !isKernelError(error, 'EAFNOSUPPORT');
}

/** The attribute a link is looked up by; undefined when no link can have that name. */
function nameAttribute(name: string): Buffer | undefined {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > ALTERNATIVE_NAME_BYTES || name.includes('\0')) return undefined;
  return bytes > NAME_BYTES ? linkAlternativeName(name) : linkName(name);
}

async function unlessGone(result: Promise<unknown>, ...goneCodes: string[]): Promise<boolean> {
  try {
    await result;
    return true;
  } catch (error) {
    if (error instanceof KernelError && goneCodes.includes(error.code)) return false;
    throw error;
  }
}
