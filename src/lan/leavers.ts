/**
 * Containers that leave an address at this moment, by the MAC addresses of their other interfaces. Linux answers for an address on
 * each interface of its namespace (ip-sysctl: arp_ignore 0), so what one on another parent of the same LAN said last is heard
 * when the namespace is gone, and nobody can tell any more whose it was: it is noted before the engine is told that it may
 * take the container apart. The MAC address of the interface that had the address is not among them: another Docker host makes
 * the same from the same address.
 */
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { HasLinkTable } from './ownhost.ts';

/** One address that a container leaves. */
interface LeftPlace {
  readonly parentName: string;
  readonly address: Address;
}

interface Leaving {
  readonly macs: ReadonlySet<string>;
  readonly sinceMs: number;
}

/** What a container said that is leaving was read and judged by then. */
const LEAVING_MS = 3000;
/** More that end within that time are remembered no longer. */
const MOST_LEAVING = 1024;

/** Those of this host. */
export class Leavers {
  readonly #links: HasLinkTable;
  readonly #leaving = new LatestMap<string, Leaving>(MOST_LEAVING);

  constructor(links: HasLinkTable) {
    this.#links = links;
  }

  /** The container whose link on the parent has this MAC address leaves these addresses. The kernel is not asked. */
  note(parentName: string, macAddress: string, addresses: readonly Address[]): void {
    const leaving = { macs: this.#othersOf(parentName, macAddress), sinceMs: performance.now() };
    for (const address of addresses) this.#leaving.put(keyOf({ parentName, address }), leaving);
  }

  /** Whether the MAC address is that of another interface of the container that left the address a moment ago. */
  has(place: LeftPlace, macAddress: string): boolean {
    const leaving = this.#leaving.get(keyOf(place));
    return leaving !== undefined && performance.now() - leaving.sinceMs < LEAVING_MS && leaving.macs.has(macAddress);
  }

  #othersOf(parentName: string, macAddress: string): Set<string> {
    const { table } = this.#links;
    table.drain();
    const parentIndex = table.byName(parentName)?.index;
    const own = table.withMac(macAddress).find((link) => link.namespaceId !== null && link.parentIndex === parentIndex);
    const { links = [] } = own === undefined ? {} : (table.contentsOf(own.namespaceId) ?? {});
    const others = links.filter((link) => !link.isLoopback && link.macAddress !== macAddress);
    return new Set(others.map((link) => link.macAddress));
  }
}

function keyOf({ parentName, address }: LeftPlace): string {
  return `${parentName} ${formatAddress(address)}`;
}
