/**
 * Whether a switch port forwards: it does when a frame comes in that another host sent. What the switch itself says while
 * the port does not forward yet (spanning tree, LLDP, LACP) is no IP, no IPv6 and no ARP; but where the switch is a Linux
 * bridge, the port's own link may say in IPv6 what every link says when it comes up: Multicast Listener Reports, Router
 * Solicitations, and Neighbour Solicitations from `::`.
 *
 * Listened for on the parent itself. Frames that siblings send each other show there as if they came in
 * (macvlan_queue_xmit, dev_forward_skb, drivers/net/macvlan.c), but never as broadcasts, nor to the parent's own MAC. So
 * what is asked to get an answer comes from that MAC.
 */
import { type Address, macBytes } from '../address.ts';
import {
  DROP_TAGGED,
  accept,
  assemble,
  type BpfInstruction,
  drop,
  ifAnySet,
  ifEqual,
  loadByte,
  loadHalf,
  loadWord,
} from '../kernel/bpf.ts';
import type { Link } from '../kernel/link.ts';
import { PacketSocket } from '../kernel/packet.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IPV6, HEADER_BYTES } from './frames/ethernet.ts';
import { ALL_NODES_MAC } from './frames/nd.ts';
import { makeNonce, probeFrames } from './frames/outgoing.ts';

/** An ear on one parent. */
export interface LifeSign {
  /** Whether another host was heard since it was opened. Throws when the parent went down or away. */
  isHeard(): boolean;
  /** Asks for the address, unless other questions need all that may be sent now. Throws as isHeard(). */
  ask(address: Address): void;
  close(): void;
}

const ETHERTYPE_IPV4 = 0x0800;
const IPV6_NEXT_HEADER = HEADER_BYTES + 6;
const IPV6_SOURCE = HEADER_BYTES + 8;
const ICMPV6_TYPE = HEADER_BYTES + 40;
/** Before an extension header for routers, as Multicast Listener Reports have. */
const HOP_BY_HOP = 0;
const ICMPV6 = 58;
const ROUTER_SOLICITATION = 133;
const NEIGHBOUR_SOLICITATION = 135;

/** `spare`: whether a frame may go now (pacer.ts). Throws a KernelError where the parent cannot be listened to. */
export function openLifeSign({ index, macAddress }: Link, spare: () => boolean): LifeSign {
  const filter = fromOthers(macAddress);
  const socket = PacketSocket.open({ linkIndex: index, filter, memberships: [ALL_NODES_MAC], ignoreOutgoing: true });
  return {
    isHeard: () => socket.receive().length > 0,
    ask: (address) => {
      // For IPv6 there are two.
      const frames = probeFrames(address, macAddress, makeNonce(Math.random));
      if (frames.every(() => spare())) for (const frame of frames) socket.send(frame);
    },
    close: () => socket.close(),
  };
}

/** IP, IPv6 and ARP, to all, to a group, or to this MAC address. */
function fromOthers(macAddress: string): BpfInstruction[] {
  const mac = Buffer.from(macBytes(macAddress));
  return assemble([
    ...DROP_TAGGED,
    loadHalf(12),
    ifEqual(ETHERTYPE_ARP, 'ours'),
    ifEqual(ETHERTYPE_IPV4, 'ours'),
    ifEqual(ETHERTYPE_IPV6, undefined, 'drop'),
    loadByte(IPV6_NEXT_HEADER),
    ifEqual(HOP_BY_HOP, 'drop'),
    ifEqual(ICMPV6, undefined, 'ours'),
    loadByte(ICMPV6_TYPE),
    ifEqual(ROUTER_SOLICITATION, 'drop'),
    ifEqual(NEIGHBOUR_SOLICITATION, undefined, 'ours'),
    loadWord(IPV6_SOURCE),
    ifEqual(0, 'drop'),
    'ours',
    loadByte(0),
    // The group bit of the destination.
    ifAnySet(1, 'accept'),
    loadWord(0),
    ifEqual(mac.readUInt32BE(0), undefined, 'drop'),
    loadHalf(4),
    ifEqual(mac.readUInt16BE(4), 'accept', 'drop'),
    'accept',
    accept,
    'drop',
    drop,
  ]);
}
