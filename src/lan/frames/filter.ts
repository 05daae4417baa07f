/** Which frames reach this process: those about addresses that matter to it, so that a busy LAN costs no CPU. Pure. */
import { type Address, macBytes } from '../../address.ts';
import {
  ARP_AND_NEIGHBOUR_DISCOVERY,
  type BpfInstruction,
  DROP_TAGGED,
  type Step,
  accept,
  assemble,
  drop,
  ifAnySet,
  ifEqual,
  ifEqualIndex,
  jump,
  loadByte,
  loadHalf,
  loadWord,
  setIndex,
} from '../../kernel/bpf.ts';
import { CLIENT_PORT } from './dhcp.ts';
import { DHCP6_CLIENT_PORT } from './dhcp6.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_BYTES } from './ethernet.ts';
import { NEXT_HEADER_ICMPV6 } from './nd.ts';
import { ADVERTISEMENT_TYPE } from './ra.ts';
import { FRAGMENT_BITS, IPV4_HEADER_BYTES, PROTOCOL_UDP, VERSION_AND_LENGTH } from './udp.ts';

/** RFC 4861 4.3 */
const NEIGHBOR_SOLICITATION_TYPE = 135;

/**
 * Each takes two instructions of eight bytes, and a socket's filter has to fit into net.core.optmem_max, which is 20 KiB on
 * older kernels (sk_filter_charge).
 */
const MOST_COMPARISONS = 1000;
const MOST_INSTRUCTIONS = 2 * MOST_COMPARISONS;
/** Generated MAC addresses begin alike; there may be a few chosen ones. */
const MOST_BEGINNINGS = 64;

const SOURCE_MAC_BEGINNING = 6;
/** The last four bytes of the frame's own source, and of the sender that an ARP packet names. */
const SOURCE_MAC_END = 8;
const ARP_SENDER_MAC_END = HEADER_BYTES + 10;
const ARP_SENDER = HEADER_BYTES + 14;
const ARP_TARGET = HEADER_BYTES + 24;
const IPV4_FRAGMENT = HEADER_BYTES + 6;
const IPV4_PROTOCOL = HEADER_BYTES + 9;
const UDP_DESTINATION_PORT = HEADER_BYTES + IPV4_HEADER_BYTES + 2;
const IPV6_NEXT_HEADER = HEADER_BYTES + 6;
const IPV6_SOURCE = HEADER_BYTES + 8;
/** The last four bytes of it. */
const IPV6_SOURCE_END = HEADER_BYTES + 8 + 12;
const ICMPV6_TYPE = HEADER_BYTES + 40;
const UDP6_DESTINATION_PORT = HEADER_BYTES + 40 + 2;
const ND_TARGET_END = HEADER_BYTES + 40 + 8 + 12;
/** Of the first byte of a MAC address: it is a group's (IEEE 802-2014, 8.2.2). */
const GROUP_BIT = 0x01;

/**
 * Frames from which readSighting (sighting.ts) can read something about one of these addresses. An IPv6 address is
 * compared by its last 32 bits, so a few others may pass.
 */
export function awaitingFilter(addresses: Iterable<Address>): readonly BpfInstruction[] {
  const words = endsOf(addresses);
  if (words.length > MOST_COMPARISONS) return ARP_AND_NEIGHBOUR_DISCOVERY;
  return assemble([
    ...DROP_TAGGED,
    loadHalf(12),
    ifEqual(ETHERTYPE_ARP, 'arp'),
    ifEqual(ETHERTYPE_IPV6, undefined, 'drop'),
    loadByte(IPV6_NEXT_HEADER),
    ifEqual(NEXT_HEADER_ICMPV6, undefined, 'drop'),
    loadByte(ICMPV6_TYPE),
    ifEqual(136, 'target'),
    ifEqual(NEIGHBOR_SOLICITATION_TYPE, undefined, 'drop'),
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
    ...acceptAny(words, 'address'),
    drop,
  ]);
}

/** What servers say to DHCP clients, whoever these are: untagged IPv4 without options, no fragment, UDP to port 68. */
export const DHCP_ANSWERS: readonly BpfInstruction[] = assemble([
  ...DROP_TAGGED,
  loadHalf(12),
  ifEqual(ETHERTYPE_IPV4, undefined, 'drop'),
  loadByte(HEADER_BYTES),
  ifEqual(VERSION_AND_LENGTH, undefined, 'drop'),
  loadByte(IPV4_PROTOCOL),
  ifEqual(PROTOCOL_UDP, undefined, 'drop'),
  loadHalf(IPV4_FRAGMENT),
  ifAnySet(FRAGMENT_BITS, 'drop'),
  loadHalf(UDP_DESTINATION_PORT),
  ifEqual(CLIENT_PORT, undefined, 'drop'),
  accept,
  'drop',
  drop,
]);

/** What routers say of themselves, and what they ask to find who asks them: untagged ICMPv6 without extension headers. */
export const ROUTER_WORDS: readonly BpfInstruction[] = assemble([
  ...DROP_TAGGED,
  loadHalf(12),
  ifEqual(ETHERTYPE_IPV6, undefined, 'drop'),
  loadByte(IPV6_NEXT_HEADER),
  ifEqual(NEXT_HEADER_ICMPV6, undefined, 'drop'),
  loadByte(ICMPV6_TYPE),
  ifEqual(NEIGHBOR_SOLICITATION_TYPE, 'take'),
  ifEqual(ADVERTISEMENT_TYPE, undefined, 'drop'),
  'take',
  accept,
  'drop',
  drop,
]);

/** What servers say to DHCPv6 clients, and what they ask to find these: untagged IPv6 without extension headers, UDP to port 546 or a Neighbour Solicitation. */
export const DHCP6_ANSWERS: readonly BpfInstruction[] = assemble([
  ...DROP_TAGGED,
  loadHalf(12),
  ifEqual(ETHERTYPE_IPV6, undefined, 'drop'),
  loadByte(IPV6_NEXT_HEADER),
  ifEqual(PROTOCOL_UDP, undefined, 'no datagram'),
  loadHalf(UDP6_DESTINATION_PORT),
  ifEqual(DHCP6_CLIENT_PORT, undefined, 'drop'),
  accept,
  'no datagram',
  ifEqual(NEXT_HEADER_ICMPV6, undefined, 'drop'),
  loadByte(ICMPV6_TYPE),
  ifEqual(NEIGHBOR_SOLICITATION_TYPE, undefined, 'drop'),
  accept,
  'drop',
  drop,
]);

/** A container, as far as the watch over it listens. */
export interface WatchedContainer {
  readonly macAddress: string;
  readonly addresses: readonly Address[];
}

/**
 * Frames in which somebody uses an address of a container, and frames to all in which a container's MAC address uses whatever
 * address. What the container itself says to one does not pass, and who only asks does not either: a scan or a flood of
 * questions, and the answers to it, say nothing new. 32 bits of each address are compared, so a few others may pass. Where the
 * program has no room for all MAC addresses, first those that ARP packets name for their senders are left out, then those that
 * frames come from.
 */
export function watchingFilter(containers: readonly WatchedContainer[]): readonly BpfInstruction[] {
  const owners = new Map(
    containers.flatMap(({ macAddress, addresses }) => endsOf(addresses).map((word) => [word, endOfMac(macAddress)])),
  );
  const macs = [...new Set(containers.map(({ macAddress }) => endOfMac(macAddress)))];
  const room = MOST_INSTRUCTIONS - 3 * owners.size;
  if (room < 0) return ARP_AND_NEIGHBOUR_DISCOVERY;
  return assemble([
    ...DROP_TAGGED,
    loadHalf(12),
    ifEqual(ETHERTYPE_ARP, 'arp'),
    ifEqual(ETHERTYPE_IPV6, undefined, 'drop'),
    loadByte(IPV6_NEXT_HEADER),
    ifEqual(NEXT_HEADER_ICMPV6, undefined, 'drop'),
    loadByte(ICMPV6_TYPE),
    ifEqual(136, 'advertisement'),
    ifEqual(NEIGHBOR_SOLICITATION_TYPE, undefined, 'drop'),
    // From `::` it is a question of one who has no address.
    loadWord(IPV6_SOURCE),
    ifEqual(0, undefined, 'solicitation'),
    loadWord(IPV6_SOURCE_END),
    ifEqual(0, 'drop'),
    'solicitation',
    loadWord(IPV6_SOURCE_END),
    ifEqual(0, 'compare', 'compare'),
    'advertisement',
    loadWord(ND_TARGET_END),
    ifEqual(0, 'compare', 'compare'),
    'drop',
    drop,
    'arp',
    loadWord(ARP_SENDER),
    ifEqual(0, undefined, 'compare'),
    drop,
    'compare',
    ...findOwner([...owners]),
    ...acceptDuplicates(macs, room),
    'owner found',
    ...acceptUnlessOwn(containers),
  ]);
}

/** Goes to `owner found` with the last bytes of the MAC address that has the address; on behind it when nobody has. */
function findOwner(owners: readonly (readonly number[])[]): (Step | string)[] {
  return owners.flatMap(([word = 0, mac = 0], position) => [
    setIndex(mac),
    ifEqual(word, undefined, `address ${position}`),
    jump('owner found'),
    `address ${position}`,
  ]);
}

function acceptDuplicates(macs: readonly number[], room: number): (Step | string)[] {
  return [
    loadByte(0),
    ifAnySet(GROUP_BIT, 'to all'),
    drop,
    'to all',
    loadWord(SOURCE_MAC_END),
    ...acceptAny(2 * macs.length <= room ? macs : [], 'source'),
    loadHalf(12),
    ifEqual(ETHERTYPE_ARP, 'sender'),
    drop,
    'sender',
    loadWord(ARP_SENDER_MAC_END),
    ...acceptAny(4 * macs.length <= room ? macs : [], 'sender'),
    drop,
  ];
}

/** Of a container that speaks for itself only what it says to all is needed: to know it when a switch sends it back. */
function acceptUnlessOwn(containers: readonly WatchedContainer[]): (Step | string)[] {
  const beginnings = [...new Set(containers.map(({ macAddress }) => beginningOfMac(macAddress)))];
  return [
    loadWord(SOURCE_MAC_END),
    ifEqualIndex('perhaps own'),
    accept,
    'perhaps own',
    loadHalf(SOURCE_MAC_BEGINNING),
    // With more kinds of MAC addresses than that they are those of strangers too.
    ...(beginnings.length > MOST_BEGINNINGS ? [] : beginnings.map((beginning) => ifEqual(beginning, 'own'))),
    accept,
    'own',
    loadByte(0),
    ifAnySet(GROUP_BIT, 'own to all'),
    drop,
    'own to all',
    accept,
  ];
}

function beginningOfMac(mac: string): number {
  return Buffer.from(macBytes(mac)).readUInt16BE(0);
}

function endOfMac(mac: string): number {
  return Buffer.from(macBytes(mac)).readUInt32BE(2);
}

function endsOf(addresses: Iterable<Address>): number[] {
  return [...new Set(Array.from(addresses, ({ value }) => Number(value & 0xffff_ffffn)))];
}

/** Goes on behind it where the word that was loaded is none of these. `name` keeps its labels apart from others. */
function acceptAny(words: readonly number[], name: string): (Step | string)[] {
  return words.flatMap((word, position) => [
    ifEqual(word, undefined, `${name} ${position}`),
    accept,
    `${name} ${position}`,
  ]);
}
