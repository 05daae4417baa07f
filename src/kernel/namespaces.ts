/**
 * A look into other network namespaces without entering them.
 *
 * A namespace that a link was moved to from here has a number here (dev_change_net_namespace, peernet2id_alloc), and
 * who has CAP_NET_ADMIN over it can read its links and addresses by that number (rtnl_get_net_ns_capable). So the
 * containers of every engine that makes links first and moves them then can be read. A namespace in which the link was
 * made directly, as CNI and netavark do, has no number and stays unseen.
 */
import { closeSync, openSync } from 'node:fs';
import { isKernelError } from './errno.ts';
import * as libc from './libc.ts';
import {
  type LinkAddress,
  type Link,
  RTM_DELLINK,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETNSID,
  addressDumpBody,
  decodeAddress,
  decodeLink,
  decodeNamespaceId,
  linkBody,
  linkNamespace,
  namespaceBody,
  withoutStatistics,
} from './message.ts';
import type { Message, Request } from './netlink.ts';
import { RtnetlinkSocket, openSocket } from './rtnetlink.ts';
import type { NetlinkTrace } from './trace.ts';

const SOL_NETLINK = 270;
const NETLINK_GET_STRICT_CHK = 12;
const SUB_INTERFACE_KINDS = ['macvlan', 'macvtap', 'ipvlan', 'ipvtap'];

/** A link of another namespace, with the namespace's number here. */
export interface ForeignLink extends Link {
  readonly namespaceId: number;
}

interface Place extends LinkAddress {
  readonly namespaceId: number;
}

/** Reads links and addresses of other namespaces on a socket with strict checks. */
export class Namespaces {
  /** Null before Linux 5.0, which takes no notice of the namespace that a request names. */
  readonly #socket: RtnetlinkSocket | null;
  #reading: Promise<Place[]> | undefined;

  constructor(trace: NetlinkTrace | null) {
    const fd = openSocket();
    const isStrict = libc.setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1) >= 0;
    if (!isStrict) libc.close(fd);
    this.#socket = isStrict ? new RtnetlinkSocket(fd, trace) : null;
  }

  /** Readings under way are finished. */
  close(): void {
    this.#socket?.close();
  }

  /** Sub-interfaces of the parent that live in other namespaces and have the address, which has no prefix length. */
  async subInterfaces(parentIndex: number, address: string): Promise<Link[]> {
    const links: Link[] = [];
    for (const place of (await this.#addresses()).filter((one) => one.address === address)) {
      const link = await this.#link(place);
      if (link?.parentIndex !== parentIndex || !SUB_INTERFACE_KINDS.includes(link.kind ?? '')) continue;
      // Asked after the link, because that gives our own namespace its number.
      if (link.parentNamespaceId === (await this.#ownId())) links.push(link);
    }
    return links;
  }

  /** The links of the other namespaces that have a number; null where they cannot be asked. */
  async links(decode: (message: Message) => Link | undefined): Promise<ForeignLink[] | null> {
    if (this.#socket === null) return null;
    const links: ForeignLink[] = [];
    // Our own has a number too, once #ownId() has made the kernel give it one.
    const ownId = await this.#ownId();
    for (const namespaceId of (await this.#ids()).filter((id) => id !== ownId)) {
      const operation = `list links of namespace ${namespaceId}`;
      const body = linkBody({}, withoutStatistics(), linkNamespace(namespaceId));
      const found = await this.#dump(operation, { type: RTM_GETLINK, flags: 0, body }, decode);
      links.push(...found.map((link) => ({ ...link, namespaceId })));
    }
    return links;
  }

  /** It may be gone already, or its namespace may. */
  async deleteLink({ namespaceId, index }: ForeignLink): Promise<void> {
    const operation = `delete link ${index} of namespace ${namespaceId}`;
    const request = { type: RTM_DELLINK, flags: 0, body: linkBody({ index }, linkNamespace(namespaceId)) };
    const [answer] = (await this.#socket?.batch(operation, [request])) ?? [];
    if (answer?.error && !isKernelError(answer.error, 'ENODEV', 'EINVAL')) throw answer.error;
  }

  async #ids(): Promise<number[]> {
    return this.#dump('list namespaces', { type: RTM_GETNSID, flags: 0, body: namespaceBody() }, decodeNamespaceId);
  }

  /** One reading serves all who ask while it lasts: it takes 0.15 ms for each namespace. */
  #addresses(): Promise<Place[]> {
    this.#reading ??= this.#readAddresses().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readAddresses(): Promise<Place[]> {
    const places: Place[] = [];
    for (const namespaceId of await this.#ids()) {
      const request = { type: RTM_GETADDR, flags: 0, body: addressDumpBody(namespaceId) };
      const addresses = await this.#dump(`list addresses of namespace ${namespaceId}`, request, decodeAddress);
      places.push(...addresses.map((one) => ({ ...one, namespaceId })));
    }
    return places;
  }

  /** Nothing for a namespace that is gone by now, or that another user owns. */
  async #dump<T>(
    operation: string,
    request: Request,
    decode: (message: Message) => T | null | undefined,
  ): Promise<T[]> {
    try {
      return (await this.#socket?.dump(operation, request, decode)) ?? [];
    } catch (error) {
      if (isKernelError(error, 'EINVAL', 'ENOENT', 'EPERM', 'EACCES')) return [];
      throw error;
    }
  }

  async #link({ namespaceId, linkIndex }: Place): Promise<Link | undefined> {
    const operation = `get link ${linkIndex} of namespace ${namespaceId}`;
    const body = linkBody({ index: linkIndex }, withoutStatistics(), linkNamespace(namespaceId));
    const message = await this.#get(operation, { type: RTM_GETLINK, flags: 0, body });
    return message && decodeLink(message);
  }

  async #ownId(): Promise<number | null> {
    const fd = openSync('/proc/thread-self/ns/net', 'r');
    try {
      const body = namespaceBody(fd);
      const message = await this.#get('get own namespace', { type: RTM_GETNSID, flags: 0, body });
      return message ? decodeNamespaceId(message) : null;
    } finally {
      closeSync(fd);
    }
  }

  async #get(operation: string, request: Request): Promise<Message | undefined> {
    const [answer] = (await this.#socket?.batch(operation, [request])) ?? [];
    return answer?.messages[0];
  }
}
