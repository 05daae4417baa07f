/**
 * What this host's kernel knows of an address that no probe from here can tell: the host's own addresses, and those of
 * sub-interfaces of the parent that were moved to other namespaces.
 */
import { type Address, formatAddress } from '../address.ts';
import type { Link, LinkAddress, Links } from '../kernel/link.ts';
import { SharedReadings } from '../once.ts';
import type { DetectionSpec } from './detectionspec.ts';
import type { Verdict } from './verdict.ts';

/** An address, and who of our containers may have it. */
export interface OwnAddress extends Pick<DetectionSpec, 'isOwn'> {
  readonly address: Address;
}

/** What is read for one serves all who ask for it while it lasts. Its methods throw what the kernel refuses. */
export class OwnHost {
  readonly #links: Links;
  readonly #addresses = new SharedReadings<LinkAddress[]>();
  readonly #macs = new SharedReadings<boolean>();

  constructor(links: Links) {
    this.#links = links;
  }

  /** A verdict that the address is held on this host; undefined when it is not. */
  async holderOf(wanted: OwnAddress, parent: Link): Promise<Verdict | undefined> {
    return (await this.addressOf(wanted, parent)) ?? this.#heldBySibling(wanted, parent);
  }

  /**
   * A verdict that the host itself has the address, which no probe from its own links can hear; undefined when it has not.
   * IPv4: on whatever link, because Linux answers ARP for all of them on all links (ip-sysctl: arp_ignore 0). IPv6: on this
   * segment, because it answers link by link.
   */
  async addressOf({ address, isOwn }: OwnAddress, parent: Link): Promise<Verdict | undefined> {
    const text = formatAddress(address);
    const all = await this.#addresses.get('', () => this.#links.addresses());
    for (const { linkIndex } of all.filter((one) => one.address === text)) {
      const link = await this.#links.byIndex(linkIndex);
      if (link === undefined || isOwn(link.macAddress, false)) continue;
      if (address.family === 'IPv6' && link.index !== parent.index && link.parentIndex !== parent.index) continue;
      return onHost((link.isLoopback ? parent : link).macAddress, link.name);
    }
    return undefined;
  }

  /** Whether a link of this host, or of a container of whatever driver, has this MAC address. False if it cannot be read. */
  hasMac(macAddress: string): Promise<boolean> {
    const isIt = (link: Link) => link.macAddress === macAddress;
    const read = async () => {
      if ((await this.#links.list(isIt)).length > 0) return true;
      return ((await this.#links.foreignLinks(isIt)) ?? []).length > 0;
    };
    return this.#macs.get(macAddress, read).catch(() => false);
  }

  /** Siblings in modes private and vepa hear no probe of another sibling; their addresses can be read all the same. */
  async #heldBySibling({ address, isOwn }: OwnAddress, { index, name }: Link): Promise<Verdict | undefined> {
    const siblings = await this.#links.foreignSubInterfaces(index, formatAddress(address));
    const holder = siblings.find(({ macAddress }) => !isOwn(macAddress, false));
    return holder && onHost(holder.macAddress, name);
  }
}

function onHost(macAddress: string, linkName: string): Verdict {
  return { held: true, macAddress, linkName, simultaneous: false, isOnHost: true };
}
