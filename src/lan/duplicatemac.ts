/**
 * MAC addresses of containers that another host uses as well: a frame to all that this host did not send, from a container's
 * MAC address, and about an address that is not the container's. Switches then send the container's frames to whichever of the
 * two spoke last, so half of them are lost, and nobody has an address twice.
 */
import type { Address } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import { type ConflictSeen, type MonitoredEndpoint, NEWS_MS } from './takers.ts';

/** Between two reports of one MAC address. */
const REPORT_INTERVAL_MS = 10_000;
const MOST_REMEMBERED = 1024;

interface DuplicateMac {
  count: number;
  seenAtMs: number;
  reportedAtMs: number;
}

/** Counts what is heard of duplicates, and reports each at a bounded rate. */
export class DuplicateMacs {
  readonly #clock: Clock;
  readonly #onConflict: (conflict: ConflictSeen) => void;
  /** By parent and MAC address. */
  readonly #known = new LatestMap<string, DuplicateMac>(MOST_REMEMBERED);

  constructor(clock: Clock, onConflict: (conflict: ConflictSeen) => void) {
    this.#clock = clock;
    this.#onConflict = onConflict;
  }

  /** The other, who has the endpoint's MAC address, used this address. */
  note({ parentName, macAddress }: MonitoredEndpoint, address: Address): void {
    const nowMs = this.#clock.nowMs();
    const key = `${parentName} ${macAddress}`;
    const found = this.#known.get(key);
    const isKnown = found !== undefined && nowMs - found.seenAtMs < NEWS_MS;
    const duplicate = found ?? { count: 0, seenAtMs: nowMs, reportedAtMs: Number.NEGATIVE_INFINITY };
    this.#known.put(key, duplicate);
    duplicate.count++;
    duplicate.seenAtMs = nowMs;
    if (nowMs - duplicate.reportedAtMs < REPORT_INTERVAL_MS) return;
    const { count } = duplicate;
    Object.assign(duplicate, { count: 0, reportedAtMs: nowMs });
    this.#onConflict({
      kind: 'mac',
      parentName,
      address,
      macAddress,
      ourMacAddress: macAddress,
      hostLinkName: null,
      count,
      news: isKnown ? null : 'new',
    });
  }

  /** Each is news when it shows again. */
  clear(): void {
    this.#known.clear();
  }
}
