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
  addressDumpBody,
  decodeAddress,
  decodeLink,
  linkBody,
  linkNamespace,
  withoutStatistics,
} from './message.ts';
import type { Message, Request } from './netlink.ts';
import { RTM_GETNSID, RTM_NEWNSID, decodeNamespaceId, namespaceBody, numberingBody } from './nsid.ts';
import { type Listing, RtnetlinkSocket, openSocket } from './rtnetlink.ts';
import type { NetlinkTrace } from './trace.ts';

const SOL_NETLINK = 270;
const NETLINK_GET_STRICT_CHK = 12;

/** A link of another namespace, with the namespace's number here. */
export interface ForeignLink extends Link {
  readonly namespaceId: number;
}

/** What a namespace has. */
export interface NamespaceContents {
  readonly links: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  /** False where it changed each time it was read, so that something may be missing. */
  readonly isWhole: boolean;
}

/** Reads links and addresses of other namespaces on a socket with strict checks. Its methods throw what the kernel refuses. */
export class Namespaces {
  /** Null before Linux 5.0, which takes no notice of the namespace that a request names. */
  readonly #socket: RtnetlinkSocket | null;

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

  /** False where other namespaces cannot be read. */
  get canRead(): boolean {
    return this.#socket !== null;
  }

  /** The numbers of all namespaces that have one here, this one's too once it has one. */
  async ids(): Promise<number[]> {
    const request = { type: RTM_GETNSID, flags: 0, body: namespaceBody() };
    return (await this.#socket?.dump('list namespaces', request, decodeNamespaceId)) ?? [];
  }

  /** The number of this namespace, which gets one if it has none: a look at a link whose parent is here would give it one too. */
  async ownId(): Promise<number | null> {
    const fd = openSync('/proc/thread-self/ns/net', 'r');
    try {
      const number = { type: RTM_NEWNSID, flags: 0, body: numberingBody(fd) };
      const get = { type: RTM_GETNSID, flags: 0, body: namespaceBody(fd) };
      // The first is refused where it has one already.
      const [, answer] = (await this.#socket?.batch('number own namespace', [number, get])) ?? [];
      const [message] = answer?.messages ?? [];
      return message === undefined ? null : decodeNamespaceId(message);
    } finally {
      closeSync(fd);
    }
  }

  /** Null for a namespace that is gone, or that another user owns. */
  async contents(namespaceId: number): Promise<NamespaceContents | null> {
    const ofNamespace = linkBody({}, withoutStatistics(), linkNamespace(namespaceId));
    const getLinks = { type: RTM_GETLINK, flags: 0, body: ofNamespace };
    const getAddresses = { type: RTM_GETADDR, flags: 0, body: addressDumpBody(namespaceId) };
    const links = await this.#dump(`list links of namespace ${namespaceId}`, getLinks, decodeLink);
    if (links === null) return null;
    const addresses = await this.#dump(`list addresses of namespace ${namespaceId}`, getAddresses, decodeAddress);
    if (addresses === null) return null;
    return { links: links.values, addresses: addresses.values, isWhole: links.isWhole && addresses.isWhole };
  }

  /** Those of the links that are there still, as they are now. */
  async again(links: readonly ForeignLink[]): Promise<ForeignLink[]> {
    const found: ForeignLink[] = [];
    for (let start = 0; start < links.length; start += RtnetlinkSocket.BATCH_LIMIT) {
      const some = links.slice(start, start + RtnetlinkSocket.BATCH_LIMIT);
      const requests = some.map(({ index, namespaceId }) => {
        const body = linkBody({ index }, withoutStatistics(), linkNamespace(namespaceId));
        return { type: RTM_GETLINK, flags: 0, body };
      });
      const answers = (await this.#socket?.batch('get links of other namespaces', requests)) ?? [];
      some.forEach(({ namespaceId }, position) => {
        const message = answers[position]?.messages[0];
        const link = message && decodeLink(message);
        if (link !== undefined) found.push({ ...link, namespaceId });
      });
    }
    return found;
  }

  /** It may be gone already, or its namespace may. */
  async deleteLink({ namespaceId, index }: ForeignLink): Promise<void> {
    const operation = `delete link ${index} of namespace ${namespaceId}`;
    const request = { type: RTM_DELLINK, flags: 0, body: linkBody({ index }, linkNamespace(namespaceId)) };
    const [answer] = (await this.#socket?.batch(operation, [request])) ?? [];
    if (answer?.error && !isKernelError(answer.error, 'ENODEV', 'EINVAL')) throw answer.error;
  }

  /** Whoever changes his own namespace without end is read no better than he lets us, and keeps nobody waiting. */
  async #dump<T>(
    operation: string,
    request: Request,
    decode: (message: Message) => T | null | undefined,
  ): Promise<Listing<T> | null> {
    try {
      return (await this.#socket?.dumpLoosely(operation, request, decode)) ?? null;
    } catch (error) {
      if (isKernelError(error, 'EINVAL', 'ENOENT', 'EPERM', 'EACCES')) return null;
      throw error;
    }
  }
}
