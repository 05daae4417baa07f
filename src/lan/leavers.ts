/**
 * Containers that leave an address at this moment, by the MAC addresses of their other interfaces. Linux answers for an address on
 * each interface of its namespace (ip-sysctl: arp_ignore 0), so what one on another parent of the same LAN said last is heard
 * when the namespace is gone, and nobody can tell any more whose it was: it is noted before the engine is told that it may
 * take the container apart. The MAC address of the interface that had the address is not among them: another Docker host makes
 * the same from the same address.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { type HasLinkTable, isSilent, namespacesWith } from './ownhost.ts';

/** An endpoint of ours that speaks for an address. */
export interface Speaker {
  /** It is being deleted: what it says counts until it is gone, but the address is not its any more. */
  readonly isLeaving: boolean;
}

/** Our own endpoint on this parent with this MAC address and this address; undefined when there is none. */
export type FindSpeaker = (parentName: string, macAddress: string, address: Address) => Speaker | undefined;

/** One address that a container leaves. */
interface LeftPlace {
  readonly parentName: string;
  readonly address: Address;
}

interface LeavingEndpoint {
  readonly parentName: string;
  readonly macAddress: string;
}

interface Leaving {
  readonly macs: ReadonlySet<string>;
  readonly sinceMs: number;
}

/** What a container said that is leaving was read and judged by then: by the watch, and by what keeps the address on standby. */
const LEAVING_MS = 3000;
const LEFT_MS = 1000;
/** More that end within that time are remembered no longer. */
const MOST_LEAVING = 1024;
/** Where the kernel has to be asked, no Leave waits longer for it. */
const READING_MS = 1000;

/** Those of this host. */
export class Leavers {
  readonly #links: HasLinkTable;
  readonly #speaker: FindSpeaker;
  readonly #leaving = new LatestMap<string, Leaving>(MOST_LEAVING);

  constructor(links: HasLinkTable, speaker: FindSpeaker) {
    this.#links = links;
    this.#speaker = speaker;
  }

  /**
   * The container whose link on the parent has this MAC address leaves these addresses: all that is to be known of it is when this
   * resolves. The kernel is asked only where its events do not tell what the container has (no CAP_NET_BROADCAST, events were
   * lost), or tell of two with that MAC address; else it is noted before this returns. Never throws.
   */
  async note(parentName: string, macAddress: string, addresses: readonly Address[]): Promise<void> {
    const { table } = this.#links;
    table.drain();
    const known = this.#knownPlaces(parentName, macAddress);
    const [first, ...others] = known;
    const places = others.length === 0 && table.isCurrent(first) ? known : await this.#read(parentName, macAddress);
    const leaving = { macs: this.#othersOf(places, macAddress), sinceMs: performance.now() };
    for (const address of addresses) this.#leaving.put(keyOf({ parentName, address }), leaving);
  }

  /** Whether the MAC address is that of another interface of the container that left the address a moment ago. */
  has(place: LeftPlace, macAddress: string): boolean {
    const leaving = this.#leaving.get(keyOf(place));
    return leaving !== undefined && performance.now() - leaving.sinceMs < LEAVING_MS && leaving.macs.has(macAddress);
  }

  /**
   * Who of ours may speak for the address with this MAC address. Not an endpoint that leaves and whose link came back and is
   * down: it cannot any more, so that is another host.
   */
  speaker(parentName: string, macAddress: string, address: Address): Speaker | undefined {
    const speaker = this.#speaker(parentName, macAddress, address);
    return speaker?.isLeaving && isSilent(this.#links, parentName, macAddress) ? undefined : speaker;
  }

  /**
   * For an address that a container leaves now: whether a MAC address is the container's, while that can still answer. Only on
   * standby: who answers for it with such a MAC address when it is given out again is another host's container.
   */
  judgeOf({ parentName, macAddress: own }: LeavingEndpoint, address: Address): (macAddress: string) => boolean {
    const sinceMs = performance.now();
    const isThere = () => this.speaker(parentName, own, address) !== undefined;
    return (macAddress) => {
      if (this.has({ parentName, address }, macAddress)) return true;
      if (macAddress !== own || isSilent(this.#links, parentName, own)) return false;
      return performance.now() - sinceMs < LEFT_MS || isThere();
    };
  }

  /** The namespaces of the container; what the events told of it where the kernel does not say in time. */
  async #read(parentName: string, macAddress: string): Promise<readonly number[]> {
    const { table } = this.#links;
    const read = async () => {
      await table.update();
      const parent = table.byName(parentName);
      return parent === undefined ? [] : namespacesWith(table, parent.index, macAddress);
    };
    const late = sleep(READING_MS, null, { ref: false });
    const places = await Promise.race([read(), late]).catch(() => null);
    return places ?? this.#knownPlaces(parentName, macAddress);
  }

  #othersOf(places: readonly number[], macAddress: string): Set<string> {
    const links = places.flatMap((namespaceId) => this.#links.table.contentsOf(namespaceId)?.links ?? []);
    const others = links.filter((link) => !link.isLoopback && link.macAddress !== macAddress);
    return new Set(others.map((link) => link.macAddress));
  }

  /** Namespaces with such a link, as far as events tell: another namespace's parent may have the same index. */
  #knownPlaces(parentName: string, macAddress: string): number[] {
    const { table } = this.#links;
    const parentIndex = table.byName(parentName)?.index;
    const found = table.withMac(macAddress).filter(({ parentIndex: on }) => on === parentIndex);
    return [...new Set(found.flatMap(({ namespaceId }) => namespaceId ?? []))];
  }
}

function keyOf({ parentName, address }: LeftPlace): string {
  return `${parentName} ${formatAddress(address)}`;
}
