/**
 * What the command line asks the LANs of this host, beside a daemon that runs or without one: not whether an address may be
 * used, but who answers, and whom. All that is asked at one time on a parent shares its ports.
 */
import type { Address, Prefix } from '../address.ts';
import { systemClock } from '../clock.ts';
import type { Link, Links } from '../kernel/link.ts';
import { PacketSocket } from '../kernel/packet.ts';
import { collectOffers, type DhcpOffer } from './dhcpoffers.ts';
import { BROADCAST_MAC } from './frames/ethernet.ts';
import { DHCP_ANSWERS } from './frames/filter.ts';
import { hostWith } from './ownhost.ts';
import type { Port } from './port.ts';
import { Ports } from './ports.ts';
import { usable } from './prober.ts';

/** Who answers for an address, asked from the MAC address of a sub-interface and from the parent's own. */
export interface HeardAnswers {
  /** The MAC address that answered the sub-interface; null for silence. */
  readonly toSubInterface: string | null;
  /** The one that answered the parent. Not waited for once the sub-interface is answered. */
  readonly toParent: string | null;
  /** This host's own link that has the address; nobody else is asked then. */
  readonly hostLink: string | null;
}

/** To whom DHCP clients speak. */
const EVERYBODY: Address = { family: 'IPv4', value: 0xffff_ffffn };
/** Each waits a tenth of a second: as long as a thorough question altogether (timing.ts). */
const MOST_ROUNDS = 6;
/** So often only the parent has to be answered: one lost frame is no filter (portfilter.ts). */
const SURE_ROUNDS = 3;

/** The questions of one command. */
export class Survey {
  readonly #links: Links;
  readonly #ports: Ports;
  readonly #stop = new AbortController();

  constructor(links: Links) {
    this.#links = links;
    this.#ports = new Ports({
      links,
      clock: systemClock,
      random: Math.random,
      mostFrames: 0,
      onProxy: () => undefined,
    });
  }

  /**
   * As soon as a sub-interface of the parent would be answered, or only the parent is, three times; after 0.6 s nobody is. Throws a
   * PluginError or a KernelError where that cannot be asked.
   */
  async answers(parentName: string, address: Address): Promise<HeardAnswers> {
    const parent = await this.#parent(parentName, address);
    const own = hostWith(this.#links, { address, isOwn: () => false }, parent);
    const opened = this.#open(parent);
    const [host, ports] = await Promise.all([own, opened]);
    if (host?.held) return { toSubInterface: null, toParent: null, hostLink: host.linkName };
    return ask(ports, address);
  }

  /**
   * The MAC address of a device that answers for every address of the subnet, the one that nobody can have among them (proxyarp.ts);
   * null where there is none. Of IPv4. A tenth of a second at least.
   */
  async proxy(parentName: string, subnet: Prefix): Promise<string | null> {
    const nobodys: Address = { family: 'IPv4', value: subnet.first };
    const parent = await this.#parent(parentName, nobodys);
    const { subInterface: port } = await this.#open(parent);
    const macAddress = await port.ask(nobodys, BROADCAST_MAC);
    if (macAddress === null) return null;
    const address: Address = { family: 'IPv4', value: subnet.last };
    return (await port.answersForAll({ macAddress, address, subnet })) ? macAddress : null;
  }

  /**
   * What DHCP servers offer to a sub-interface of the parent within the time, which it takes. One DISCOVER. Throws a PluginError or a
   * KernelError where that cannot be asked.
   */
  async offers(parentName: string, waitMs: number): Promise<DhcpOffer[]> {
    const parent = await this.#parent(parentName, EVERYBODY);
    const { subInterface: port } = await this.#open(parent);
    const socket = PacketSocket.open({ linkIndex: port.linkIndex, filter: DHCP_ANSWERS, ignoreOutgoing: true });
    try {
      const { macAddress } = port;
      return await collectOffers({ socket, macAddress, clock: systemClock, random: Math.random, waitMs });
    } finally {
      socket.close();
    }
  }

  /** Nothing of it is left on the host. */
  async close(): Promise<void> {
    const reason = new Error('the command is over');
    this.#stop.abort(reason);
    await this.#ports.close(reason);
  }

  async #parent(parentName: string, address: Address): Promise<Link> {
    return usable({ parentName, address }, await this.#links.known(parentName));
  }

  async #open(parent: Link): Promise<Vantages> {
    const { signal } = this.#stop;
    const [subInterface, own] = await Promise.all([
      this.#ports.get(parent, 'bridge', signal),
      this.#ports.get(parent, 'passthru', signal),
    ]);
    for (const port of [subInterface, own]) port.hold();
    return { subInterface, own };
  }
}

/** Where questions come from. Both are the parent where the kernel allows no sub-interface of ours. */
interface Vantages {
  readonly subInterface: Port;
  readonly own: Port;
}

async function ask({ subInterface, own }: Vantages, address: Address): Promise<HeardAnswers> {
  let toParent: string | null = null;
  for (let [round, heard] = [0, 0]; round < MOST_ROUNDS && heard < SURE_ROUNDS; round++) {
    const asked = own.ask(address, BROADCAST_MAC);
    const toSubInterface = await subInterface.ask(address, BROADCAST_MAC);
    if (toSubInterface !== null) return { toSubInterface, toParent, hostLink: null };
    const answer = await asked;
    if (answer !== null) heard++;
    toParent = answer ?? toParent;
  }
  return { toSubInterface: null, toParent, hostLink: null };
}
