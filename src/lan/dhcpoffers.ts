/**
 * Which DHCP servers are on a LAN, and what they would give: one DISCOVER to all and no REQUEST, so that no server gives an address
 * away (RFC 2131 3.1). Some keep what they offer for a minute.
 */
import type { Clock } from '../clock.ts';
import type { PacketSocket } from '../kernel/packet.ts';
import { type DhcpServer, type DhcpTerms, decodeDhcp, encodeDhcp } from './frames/dhcp.ts';

/** What a server would give to a client. */
export interface DhcpOffer {
  readonly server: DhcpServer;
  readonly terms: DhcpTerms;
}

/** More servers that answer are an attack. */
const MOST_SERVERS = 64;
/** Between two readings of the socket. */
const TICK_MS = 20;

/** Of whom to ask for, and by what. */
interface DhcpQuestion {
  /** On a link that has this MAC address, open to DHCP answers; it is closed by who opened it. */
  readonly socket: Pick<PacketSocket, 'send' | 'receive'>;
  readonly macAddress: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly waitMs: number;
}

/** The first offer of each server that answers within the time. All of it is waited for: nobody knows how many there are. */
export async function collectOffers(question: DhcpQuestion): Promise<DhcpOffer[]> {
  const { socket, macAddress, clock, random, waitMs } = question;
  const xid = Math.floor(random() * 2 ** 32);
  const offers = new Map<string, DhcpOffer>();
  const hear = () => {
    for (const { frame } of socket.receive()) {
      const answer = decodeDhcp(frame);
      if (answer?.kind !== 'OFFER' || answer.xid !== xid || answer.macAddress !== macAddress) continue;
      const { server, terms } = answer;
      const key = `${server.macAddress} ${server.address.value}`;
      if (!offers.has(key) && offers.size < MOST_SERVERS) offers.set(key, { server, terms });
    }
  };
  socket.send(encodeDhcp({ kind: 'DISCOVER', macAddress, xid, seconds: 0, hostname: null, wish: null }));
  const endsAtMs = clock.nowMs() + waitMs;
  while (clock.nowMs() < endsAtMs) {
    await new Promise<void>((resolve) => clock.after(TICK_MS, resolve));
    hear();
  }
  return [...offers.values()];
}
