/** Which frames reach this process while addresses are awaited: those about them, so that a busy LAN costs no CPU. Pure. */
import type { Address } from '../../address.ts';
import {
  ARP_AND_NEIGHBOUR_DISCOVERY,
  type BpfInstruction,
  DROP_TAGGED,
  accept,
  assemble,
  drop,
  ifEqual,
  loadByte,
  loadHalf,
  loadWord,
} from '../../kernel/bpf.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IPV6, HEADER_BYTES } from './ethernet.ts';

/** A program has at most 4,096 instructions (BPF_MAXINSNS), and each address takes two. */
const MOST_ADDRESSES = 1000;

const ARP_SENDER = HEADER_BYTES + 14;
const ARP_TARGET = HEADER_BYTES + 24;
const IPV6_NEXT_HEADER = HEADER_BYTES + 6;
/** The last four bytes of it. */
const IPV6_SOURCE_END = HEADER_BYTES + 8 + 12;
const ICMPV6_TYPE = HEADER_BYTES + 40;
const ND_TARGET_END = HEADER_BYTES + 40 + 8 + 12;

/**
 * Frames from which readSighting (sighting.ts) can read something about one of these addresses. An IPv6 address is
 * compared by its last 32 bits, so a few others may pass.
 */
export function awaitingFilter(addresses: Iterable<Address>): readonly BpfInstruction[] {
  const words = [...new Set(Array.from(addresses, ({ value }) => Number(value & 0xffff_ffffn)))];
  if (words.length > MOST_ADDRESSES) return ARP_AND_NEIGHBOUR_DISCOVERY;
  return assemble([
    ...DROP_TAGGED,
    loadHalf(12),
    ifEqual(ETHERTYPE_ARP, 'arp'),
    ifEqual(ETHERTYPE_IPV6, undefined, 'drop'),
    loadByte(IPV6_NEXT_HEADER),
    ifEqual(58, undefined, 'drop'),
    loadByte(ICMPV6_TYPE),
    ifEqual(136, 'target'),
    ifEqual(135, undefined, 'drop'),
    // A solicitation from `::` is about its target, every other one about its source.
    loadWord(IPV6_SOURCE_END),
    ifEqual(0, 'target', 'compare'),
    'target',
    loadWord(ND_TARGET_END),
    ifEqual(0, 'compare', 'compare'),
    // Here, because a jump reaches no further than 255 instructions.
    'drop',
    drop,
    'arp',
    loadWord(ARP_SENDER),
    ifEqual(0, undefined, 'compare'),
    loadWord(ARP_TARGET),
    'compare',
    ...words.flatMap((word, position) => [ifEqual(word, undefined, `${position}`), accept, `${position}`]),
    drop,
  ]);
}
