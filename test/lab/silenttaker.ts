/**
 * Linux hosts that take addresses and tell nobody, as they all do unless arp_notify or ndisc_notify is set: from then on the
 * kernel answers whoever asks, and says nothing by itself. With IPv6 the address is taken without the kernel's own detection.
 */
import { formatAddress, parseAddress } from '../../src/address.ts';
import { solicitedNodeGroup } from '../../src/lan/frames/nd.ts';
import type { Lan } from './namespace.ts';
import { Namespace } from './namespace.ts';
import { until } from './patience.ts';

const PREFIX_LENGTH = { IPv4: 16, IPv6: 64 } as const;
let twins = 0;

export interface Taking {
  /** It had the address by then; since the epoch. */
  readonly atMs: number;
  /** Of the link that has the address. */
  readonly macAddress: string;
}

/** The link that has an address. */
interface Owner {
  readonly namespace: Namespace;
  readonly linkName: string;
  readonly macAddress: string;
}

export class SilentTaker {
  readonly namespace: Namespace;
  /** Of its link on the LAN, `lan0`. */
  readonly macAddress: string;
  /** By address. What it gave up stays. */
  readonly taken = new Map<string, Taking>();
  readonly #owner = new Map<string, Owner>();

  private constructor(namespace: Namespace, macAddress: string) {
    this.namespace = namespace;
    this.macAddress = macAddress;
  }

  static async plug(lan: Lan, name: string, macAddress: string): Promise<SilentTaker> {
    const namespace = await Namespace.create(name);
    await lan.plug(namespace);
    await namespace.ip(`link set lan0 address ${macAddress}`);
    return new SilentTaker(namespace, macAddress);
  }

  /** Takes the address, `10.9.0.5`, on a link of its host, or on its VLAN: `lan0.7`. */
  async take(address: string, linkName = 'lan0'): Promise<void> {
    await this.#settle(address, { namespace: this.namespace, linkName, macAddress: this.macAddress });
  }

  /** A container of the built-in driver takes it: both drivers derive the same MAC address from the address. */
  async takeAsContainer(address: string, macAddress: string): Promise<void> {
    const container = await Namespace.create(`twin${++twins}`);
    const link = `link lan0 name eth0 netns ${container.name} address ${macAddress} type macvlan mode bridge`;
    await this.namespace.ip(`link add ${link}`);
    await container.ip('link set eth0 up');
    await this.#settle(address, { namespace: container, linkName: 'eth0', macAddress });
  }

  /** A container goes with its address. */
  async giveUp(address: string): Promise<void> {
    const owner = this.#owner.get(address);
    this.#owner.delete(address);
    if (owner === undefined) return;
    if (owner.namespace === this.namespace)
      await this.namespace.ip(`address delete ${withLength(address)} dev ${owner.linkName}`);
    else await owner.namespace.delete();
  }

  async #settle(address: string, owner: Owner): Promise<void> {
    const words = address.includes(':') ? ' nodad' : '';
    await owner.namespace.ip(`address add ${withLength(address)} dev ${owner.linkName}${words}`);
    await until(() => answers(address, owner));
    this.#owner.set(address, owner);
    this.taken.set(address, { atMs: Date.now(), macAddress: owner.macAddress });
  }
}

/** Linux joins the group on which it is asked for an IPv6 address a moment after it has the address (addrconf_dad_work). */
async function answers(address: string, { namespace, linkName }: Owner): Promise<boolean> {
  const own = parseAddress(address);
  if (own?.family !== 'IPv6') return true;
  const [shown] = await namespace.show<{ maddr: { address?: string }[] }>(`maddress show dev ${linkName}`);
  const group = formatAddress(solicitedNodeGroup(own));
  return (shown?.maddr ?? []).some((one) => one.address === group);
}

function withLength(address: string): string {
  return `${address}/${PREFIX_LENGTH[address.includes(':') ? 'IPv6' : 'IPv4']}`;
}
