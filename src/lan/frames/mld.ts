/**
 * Multicast Listener Reports (RFC 3810) as frames. Pure.
 *
 * A switch with MLD snooping sends a group's frames only to ports that reported it. Others ask for an IPv6 address in
 * the group of that address, so without a report we would not hear them (RFC 4862 5.4.2), and two hosts that ask at the
 * same time would both find it free.
 */
import { type Address, addressBytes } from '../../address.ts';
import { ETHERTYPE_IPV6, encodeFrame } from './ethernet.ts';
import { encodeIcmpv6, multicastMac } from './nd.ts';

const REPORT = 143;
const CHANGE_TO_EXCLUDE_MODE = 4;
/** ff02::16, all MLDv2-capable routers. */
const ALL_ROUTERS: Address = { family: 'IPv6', value: 0xff02_0000_0000_0000_0000_0000_0000_0016n };
/** From `::`, as a node without an address on the link does (RFC 3590). */
const UNSPECIFIED: Address = { family: 'IPv6', value: 0n };
/** Hop-by-hop options: next header ICMPv6, router alert for MLD (RFC 2711), padding. */
const ROUTER_ALERT = Buffer.from('3a00050200000100', 'hex');

/** "Send me what is sent to this group, from whatever source." */
export function mldReportFrame(group: Address, sourceMac: string): Buffer {
  const message = Buffer.alloc(28);
  message.writeUInt8(REPORT, 0);
  // One record: type, no auxiliary data, no sources, the group.
  message.writeUInt16BE(1, 6);
  message.writeUInt8(CHANGE_TO_EXCLUDE_MODE, 8);
  addressBytes(group).copy(message, 12);
  const packet = encodeIcmpv6({ source: UNSPECIFIED, destination: ALL_ROUTERS, hopLimit: 1 }, message, ROUTER_ALERT);
  return encodeFrame({ destinationMac: multicastMac(ALL_ROUTERS), sourceMac }, ETHERTYPE_IPV6, packet);
}
