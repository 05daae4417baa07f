/** What a kernel does when it is asked by rtnetlink: each request of one send, in order, whatever becomes of the one before. */
import { constants } from 'node:os';
import { Attributes, type Message, decodeMessages } from '../../../src/kernel/netlink.ts';
import { IFA, IFLA, IFLA_INFO, NDA, RTA } from '../../../src/kernel/uapi.ts';
import { addressFromBytes, formatMac } from './address.ts';
import type { Kernel } from './kernel.ts';
import type { Link, Namespace } from './link.ts';
import {
  IFF,
  RTM,
  acknowledgement,
  addressMessage,
  dump,
  linkMessage,
  message,
  neighbourMessage,
  numberMessage,
  type Route,
  routeMessage,
} from './message.ts';
import type { NetlinkSocket } from './socket.ts';

const NLM_F_DUMP = 0x300;
const NLM_F_CREATE = 0x400;
const { EBUSY, EADDRINUSE, EADDRNOTAVAIL, EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, ESRCH } = constants.errno;

/** The kernel's no. */
class Refusal extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

/** Of one machine. */
export class Rtnetlink {
  readonly #kernel: Kernel;
  readonly routes: Route[] = [];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Carries out what one send() brought; the answers wait in the socket. */
  handle(socket: NetlinkSocket, datagram: Buffer): void {
    for (const request of decodeMessages(datagram)) {
      const raw = Buffer.alloc(16);
      raw.writeUInt32LE(request.sequence, 8);
      raw.writeUInt16LE(request.type, 4);
      const answer = (bytes: Buffer) => socket.take({ bytes, namespaceId: null });
      try {
        if (isDump(request)) {
          answer(dump(replyType(request.type), this.#dump(request), request.sequence));
          continue;
        }
        const body = this.#one(request);
        if (body !== null) answer(message(replyType(request.type), body, { sequence: request.sequence }));
        answer(acknowledgement(request.sequence, 0, raw));
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        answer(acknowledgement(request.sequence, error.errno, raw));
      }
    }
  }

  #dump(request: Message): Buffer[] {
    const { host, namespaces } = this.#kernel;
    switch (request.type) {
      case RTM.GETLINK:
        return [...this.#namespaceOf(request, IFLA.TARGET_NETNSID, 16).links.values()].map((link) => this.#show(link));
      case RTM.GETADDR: {
        const namespace = this.#namespaceOf(request, IFA.TARGET_NETNSID, 8);
        return [...namespace.links.values()].flatMap(({ index, addresses }) =>
          addresses.map(({ address, length }) => addressMessage(index, address, length)),
        );
      }
      case RTM.GETROUTE:
        return this.routes.filter(({ link }) => host.links.has(link.index)).map(routeMessage);
      case RTM.GETNEIGH:
        return [...this.#kernel.neighbours.entries.values()].map(neighbourMessage);
      case RTM.GETNSID:
        return [...namespaces].flatMap(({ id }) => (id === null ? [] : [numberMessage(id)]));
      default:
        throw new Error(`a dump of type ${request.type} is not known here`);
    }
  }

  /** What is answered beside the acknowledgement. */
  #one(request: Message): Buffer | null {
    switch (request.type) {
      case RTM.GETLINK:
        return this.#show(this.#linkOf(request));
      case RTM.NEWLINK:
        return (request.flags & NLM_F_CREATE) === 0 ? this.#change(request) : this.#create(request);
      case RTM.SETLINK:
        return this.#change(request);
      case RTM.DELLINK:
        return this.#delete(request);
      case RTM.NEWADDR:
      case RTM.DELADDR:
        return this.#address(request);
      case RTM.NEWROUTE:
      case RTM.DELROUTE:
        return this.#route(request);
      case RTM.GETNEIGH:
        return this.#neighbour(request);
      case RTM.NEWNSID:
        if (this.#kernel.host.id !== null) throw new Refusal(EEXIST);
        this.#kernel.numberOf(this.#kernel.host);
        return null;
      case RTM.GETNSID: {
        const { id } = this.#kernel.host;
        return numberMessage(id ?? -1 >>> 0);
      }
      default:
        throw new Error(`a request of type ${request.type} is not known here`);
    }
  }

  // --- links -------------------------------------------------------------------------------------------------------

  /** As who asks in the host's namespace is shown it. */
  #show(link: Link): Buffer {
    const isApart = link.namespace !== this.#kernel.host && link.parent?.namespace === this.#kernel.host;
    return linkMessage(link, isApart ? this.#kernel.numberOf(this.#kernel.host) : null);
  }

  #namespaceOf({ body }: Message, attribute: number, offset: number): Namespace {
    const id = new Attributes(body, offset).i32(attribute);
    if (id === null) return this.#kernel.host;
    const namespace = this.#kernel.byNumber(id);
    if (namespace === undefined) throw new Refusal(EINVAL);
    return namespace;
  }

  #linkOf(request: Message): Link {
    const { links } = this.#namespaceOf(request, IFLA.TARGET_NETNSID, 16);
    const attributes = new Attributes(request.body, 16);
    const index = request.body.readInt32LE(4);
    const name = attributes.text(IFLA.IFNAME) ?? attributes.text(IFLA.ALT_IFNAME);
    const found = index > 0 ? links.get(index) : [...links.values()].find((link) => link.name === name);
    if (found === undefined) throw new Refusal(ENODEV);
    return found;
  }

  #ofGroup(group: number): Link[] {
    return [...this.#kernel.host.links.values()].filter((link) => link.group === group);
  }

  #create({ body }: Message): null {
    const kernel = this.#kernel;
    const attributes = new Attributes(body, 16);
    const name = attributes.text(IFLA.IFNAME) ?? '';
    if (kernel.host.byName(name) !== undefined) throw new Refusal(EEXIST);
    const mac = attributes.bytes(IFLA.ADDRESS);
    const macAddress = mac === null ? this.#madeUpMac() : formatMac(mac);
    const link = this.#make(attributes, name, macAddress);
    link.group = attributes.u32(IFLA.GROUP) ?? 0;
    link.mtu = attributes.u32(IFLA.MTU) ?? link.parent?.mtu ?? 1500;
    kernel.tellLink(link);
    return null;
  }

  #make(attributes: Attributes, name: string, macAddress: string): Link {
    const kind = attributes.nested(IFLA.LINKINFO).text(IFLA_INFO.KIND);
    if (kind === 'dummy') return this.#kernel.addDummy(name, macAddress);
    if (kind !== 'macvlan') throw new Refusal(EOPNOTSUPP);
    const parent = this.#kernel.host.links.get(attributes.u32(IFLA.LINK) ?? 0);
    if (parent === undefined) throw new Refusal(ENODEV);
    if (parent.kind === 'macvlan') throw new Refusal(EBUSY);
    return this.#kernel.addMacvlan(name, parent, macAddress);
  }

  #madeUpMac(): string {
    const bytes = this.#kernel.random.bytes(6);
    bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 2;
    return formatMac(bytes);
  }

  #change(request: Message): null {
    const index = request.body.readInt32LE(4);
    const attributes = new Attributes(request.body, 16);
    const group = attributes.u32(IFLA.GROUP);
    const links = index > 0 ? [this.#linkOf(request)] : this.#ofGroup(group ?? -1);
    if (links.length === 0) throw new Refusal(ENODEV);
    for (const link of links) this.#changeLink(link, request.body, attributes);
    if (index > 0 && group !== null) for (const link of links) link.group = group;
    return null;
  }

  #changeLink(link: Link, body: Buffer, attributes: Attributes): void {
    const [flags, change] = [body.readUInt32LE(8), body.readUInt32LE(12)];
    const alias = attributes.bytes(IFLA.IFALIAS);
    if (alias !== null) link.alias = alias.toString();
    if (change & IFF.NOARP) link.hasArp = (flags & IFF.NOARP) === 0;
    if (change & IFF.PROMISC) link.isPromiscuous = (flags & IFF.PROMISC) !== 0;
    if (change & IFF.UP && (flags & IFF.UP) !== 0) this.#bringUp(link);
    else if (change & IFF.UP) this.#kernel.setUp(link, false);
    else if (alias !== null && link.isUp) this.#kernel.tellLink(link);
  }

  /** macvlan_open: the MAC address is on the parent already. */
  #bringUp(link: Link): void {
    const siblings = [...(link.parent?.children ?? [])];
    const isBusy = siblings.some((one) => one !== link && one.isUp && one.macAddress === link.macAddress);
    if (isBusy || link.parent?.macAddress === link.macAddress) throw new Refusal(EADDRINUSE);
    this.#kernel.setUp(link, true);
  }

  #delete(request: Message): null {
    const group = new Attributes(request.body, 16).u32(IFLA.GROUP);
    const links = request.body.readInt32LE(4) > 0 ? [this.#linkOf(request)] : this.#ofGroup(group ?? -1);
    if (links.length === 0) throw new Refusal(ENODEV);
    for (const link of links) this.#kernel.removeLink(link);
    return null;
  }

  // --- addresses, routes, neighbours -------------------------------------------------------------------------------

  #address({ type, body }: Message): null {
    const link = this.#kernel.host.links.get(body.readUInt32LE(4));
    const bytes = new Attributes(body, 8).bytes(IFA.LOCAL);
    if (link === undefined) throw new Refusal(ENODEV);
    if (bytes === null) throw new Refusal(EINVAL);
    const address = addressFromBytes(bytes);
    if (type === RTM.DELADDR && !this.#kernel.removeAddress(link, address)) throw new Refusal(EADDRNOTAVAIL);
    if (type === RTM.NEWADDR && link.has(address)) throw new Refusal(EEXIST);
    if (type === RTM.NEWADDR) this.#kernel.addAddress(link, address, body.readUInt8(1));
    return null;
  }

  #route({ type, body }: Message): null {
    const attributes = new Attributes(body, 12);
    const link = this.#kernel.host.links.get(attributes.u32(RTA.OIF) ?? 0);
    const to = attributes.bytes(RTA.DST);
    if (link === undefined) throw new Refusal(ENODEV);
    const destination = to === null ? null : addressFromBytes(to);
    const isSame = (route: Route) =>
      route.link === link && route.destination?.value === destination?.value && route.length === body.readUInt8(1);
    const at = this.routes.findIndex(isSame);
    if (type === RTM.NEWROUTE && at >= 0) throw new Refusal(EEXIST);
    if (type === RTM.NEWROUTE) this.routes.push({ destination, length: body.readUInt8(1), link, gateway: null });
    else if (at < 0) throw new Refusal(ESRCH);
    else this.routes.splice(at, 1);
    return null;
  }

  #neighbour({ body }: Message): Buffer {
    const link = this.#kernel.host.links.get(body.readInt32LE(4));
    const bytes = new Attributes(body, 12).bytes(NDA.DST);
    if (link === undefined) throw new Refusal(ENODEV);
    const entry = bytes && this.#kernel.neighbours.find(link, addressFromBytes(bytes));
    if (!entry) throw new Refusal(ENOENT);
    return neighbourMessage(entry);
  }
}

/** A get of one thing by its key looks the same, but for the flags. */
function isDump({ type, flags }: Message): boolean {
  const isGet = [RTM.GETLINK, RTM.GETADDR, RTM.GETROUTE, RTM.GETNEIGH, RTM.GETNSID].includes(type as never);
  return isGet && (flags & NLM_F_DUMP) === NLM_F_DUMP;
}

function replyType(type: number): number {
  return type - 2;
}
