/**
 * Gratuitous ARP and unsolicited Neighbour Advertisements on behalf of a container.
 *
 * They carry the container's MAC as the frame's source although they leave by another link. That is sound: macvlan
 * passes a frame on whatever its source is; siblings in bridge mode get it, the container itself takes no harm (it has
 * that MAC), and the switch learns the MAC on the port where it is.
 */
import type { Address } from '../address.ts';
import type { Family } from '../model.ts';
import type { Clock } from '../clock.ts';
import { announcementFrame, makeNonce } from './frames/outgoing.ts';
import type { Wire } from './detectionspec.ts';

/** RFC 5227 1.1: ANNOUNCE_NUM, ANNOUNCE_INTERVAL. RFC 4861 10: MAX_NEIGHBOR_ADVERTISEMENT, RetransTimer. */
const REPETITION: Readonly<Record<Family, { readonly count: number; readonly gapMs: number }>> = {
  IPv4: { count: 2, gapMs: 2000 },
  IPv6: { count: 3, gapMs: 1000 },
};

/** Which address is at which MAC address from now on. */
export interface Announcement {
  readonly address: Address;
  readonly macAddress: string;
  /** Left out: as often as the RFC has it for a new address. */
  readonly times?: number | undefined;
  /** Milliseconds between two; left out: as the RFC has it. */
  readonly gapMs?: number | undefined;
  /**
   * Another host that has the same MAC address for it is to hear of it: it must not take it for an echo of what it said itself
   * (monitor.ts).
   */
  readonly tellsTwin?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Of a container that runs. */
export const TOLD_ONCE = { times: 1, tellsTwin: true } as const;

/** Ends with the last frame; throws the signal's reason when it is aborted before. */
export async function announce(
  wire: Pick<Wire, 'send' | 'turn'>,
  clock: Clock,
  { address, macAddress, times, gapMs, tellsTwin = false, signal }: Announcement,
): Promise<void> {
  const usual = REPETITION[address.family];
  const count = times ?? usual.count;
  for (let sent = 0; sent < count; sent++) {
    const waitMs = (sent > 0 ? (gapMs ?? usual.gapMs) : 0) + wire.turn();
    if (waitMs > 0) await pause(clock, waitMs, signal);
    signal?.throwIfAborted();
    wire.send(announcementFrame(address, macAddress, tellsTwin ? makeNonce(Math.random) : null));
  }
}

/** Ends early when the signal is aborted. */
function pause(clock: Clock, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    });
    function abort(): void {
      cancel();
      resolve();
    }
    signal?.addEventListener('abort', abort, { once: true });
  });
}
