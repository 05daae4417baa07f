/** Answers of DHCPv6 servers as frames, well-formed or not, for the tests of this room. */
import { addressBytes, linkLocalOfMac, macBytes } from '../../../../src/address.ts';
import { encodeUdp6 } from '../../../../src/lan/frames/udp6.ts';
import { ip, seconds } from './dhcpanswers.ts';

export interface Given6 {
  readonly address: string;
  readonly preferredSeconds?: number;
  readonly validSeconds?: number;
  /** A status of this address alone. */
  readonly status?: number;
}

export interface Answer6Spec {
  /** 2 ADVERTISE, 7 REPLY. */
  readonly type: number;
  readonly xid: number;
  /** The client's. */
  readonly macAddress: string;
  /** In hexadecimal digits. */
  readonly server?: string;
  readonly preference?: number;
  readonly gives?: readonly Given6[];
  readonly t1Seconds?: number;
  readonly t2Seconds?: number;
  /** Of the identity association. */
  readonly status?: readonly [code: number, text: string];
  /** Instead of the last four bytes of the MAC address. */
  readonly associationId?: string;
  /** Instead of all options. */
  readonly rawOptions?: Buffer;
}

export const SERVER6_MAC = '3c:22:fb:00:00:01';
export const SERVER6_DUID = '000300013c22fb000001';

export function option6(code: number, value: Iterable<number>): Buffer {
  const bytes = Buffer.from([...value]);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(code, 0);
  head.writeUInt16BE(bytes.length, 2);
  return Buffer.concat([head, bytes]);
}

function statusOption(code: number, text = ''): Buffer {
  return option6(13, [code >> 8, code & 255, ...Buffer.from(text)]);
}

function addressOption({ address, preferredSeconds = 300, validSeconds = 600, status }: Given6): Buffer {
  return option6(5, [
    ...addressBytes(ip(address)),
    ...seconds(preferredSeconds),
    ...seconds(validSeconds),
    ...(status === undefined ? [] : statusOption(status)),
  ]);
}

/** What follows the UDP header. */
export function answer6Data(spec: Answer6Spec): Buffer {
  const { type, xid, macAddress, server = SERVER6_DUID, preference, gives = [], t1Seconds = 0, t2Seconds = 0 } = spec;
  const mac = macBytes(macAddress);
  const association = option6(3, [
    ...(spec.associationId === undefined ? mac.subarray(2) : Buffer.from(spec.associationId, 'hex')),
    ...seconds(t1Seconds),
    ...seconds(t2Seconds),
    ...Buffer.concat(gives.map(addressOption)),
    ...(spec.status === undefined ? [] : statusOption(...spec.status)),
  ]);
  const options = Buffer.concat([
    option6(1, [0, 3, 0, 1, ...mac]),
    option6(2, Buffer.from(server, 'hex')),
    ...(preference === undefined ? [] : [option6(7, [preference])]),
    association,
  ]);
  return Buffer.concat([Buffer.of(type, xid >> 16, (xid >> 8) & 255, xid & 255), spec.rawOptions ?? options]);
}

export function answer6Frame(spec: Answer6Spec): Buffer {
  return encodeUdp6({
    destinationMac: spec.macAddress,
    sourceMac: SERVER6_MAC,
    source: linkLocalOfMac(SERVER6_MAC),
    destination: linkLocalOfMac(spec.macAddress),
    sourcePort: 547,
    destinationPort: 546,
    data: answer6Data(spec),
  });
}
