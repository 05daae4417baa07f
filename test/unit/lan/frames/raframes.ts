/** Router Advertisements as frames, well-formed or not, for the tests of this room. */
import { type Address, addressBytes, linkLocalOfMac, parseInterfaceAddress } from '../../../../src/address.ts';
import { ETHERTYPE_IPV6, encodeFrame } from '../../../../src/lan/frames/ethernet.ts';
import { ALL_NODES_MAC, encodeIcmpv6 } from '../../../../src/lan/frames/nd.ts';
import { ip } from './dhcpanswers.ts';

export interface PrefixSpec {
  readonly prefix: string;
  readonly isAutonomous?: boolean;
  readonly validSeconds?: number;
  readonly preferredSeconds?: number;
}

export interface AdvertisementSpec {
  readonly routerMac?: string;
  /** Instead of the link-local address of the MAC address. */
  readonly router?: Address;
  readonly isManaged?: boolean;
  readonly lifetimeSeconds?: number;
  readonly prefixes?: readonly PrefixSpec[];
  readonly hopLimit?: number;
  /** Instead of all options. */
  readonly rawOptions?: Buffer;
}

export const ROUTER_MAC = '3c:22:fb:00:00:01';

export function prefixOption(spec: PrefixSpec): Buffer {
  const { isAutonomous = true, validSeconds = 600, preferredSeconds = 300 } = spec;
  const prefix = parseInterfaceAddress(spec.prefix);
  if (prefix === undefined) throw new TypeError(spec.prefix);
  const option = Buffer.alloc(32);
  option.set([3, 4, prefix.length, 0x80 | (isAutonomous ? 0x40 : 0)]);
  option.writeUInt32BE(validSeconds, 4);
  option.writeUInt32BE(preferredSeconds, 8);
  addressBytes(prefix).copy(option, 16);
  return option;
}

export function advertisementFrame(spec: AdvertisementSpec): Buffer {
  const { routerMac = ROUTER_MAC, isManaged = false, lifetimeSeconds = 600, prefixes = [], hopLimit = 255 } = spec;
  const head = Buffer.alloc(16);
  head.set([134, 0, 0, 0, 64, isManaged ? 0x80 : 0]);
  head.writeUInt16BE(lifetimeSeconds, 6);
  const message = Buffer.concat([head, spec.rawOptions ?? Buffer.concat(prefixes.map(prefixOption))]);
  const header = { source: spec.router ?? linkLocalOfMac(routerMac), destination: ip('ff02::1'), hopLimit };
  return encodeFrame(
    { destinationMac: ALL_NODES_MAC, sourceMac: routerMac },
    ETHERTYPE_IPV6,
    encodeIcmpv6(header, message),
  );
}
