/** Answers of DHCP servers as frames, well-formed or not, for the tests of this room. */
import { type Address, addressBytes, macBytes, parseAddress } from '../../../../src/address.ts';
import { encodeUdp } from '../../../../src/lan/frames/udp.ts';

/** The fixed fields and the options of an answer, each as the test wants it. */
export interface AnswerSpec {
  readonly type: number;
  readonly xid: number;
  /** The client's. */
  readonly macAddress: string;
  readonly address?: string;
  readonly server?: string;
  readonly serverMac?: string;
  readonly options?: readonly (readonly [code: number, value: Iterable<number>])[];
  /** Instead of all options: what follows the magic number. */
  readonly rawOptions?: Buffer;
  readonly bootFile?: Buffer;
  readonly serverName?: Buffer;
}

export const SERVER_MAC = '3c:22:fb:00:00:01';

export function ip(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new TypeError(text);
  return address;
}

export function bytesOf(text: string): number[] {
  return [...addressBytes(ip(text))];
}

export function seconds(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

export function option(code: number, value: Iterable<number>): Buffer {
  const bytes = [...value];
  return Buffer.from([code, bytes.length, ...bytes]);
}

/** What follows the UDP header. */
export function answerData(spec: AnswerSpec): Buffer {
  const { type, xid, macAddress, address = '0.0.0.0', server = '192.168.77.1', options = [] } = spec;
  const head = Buffer.alloc(236);
  head.set([2, 1, 6, 0]);
  head.writeUInt32BE(xid, 4);
  head.set(bytesOf(address), 16);
  head.set(macBytes(macAddress), 28);
  spec.serverName?.copy(head, 44, 0, 64);
  spec.bootFile?.copy(head, 108, 0, 128);
  const magic = Buffer.from('63825363', 'hex');
  const written = [
    option(53, [type]),
    option(54, bytesOf(server)),
    ...options.map(([code, value]) => option(code, value)),
  ];
  return Buffer.concat([head, magic, spec.rawOptions ?? Buffer.concat([...written, Buffer.of(255)])]);
}

/** The whole frame, to everybody. */
export function answerFrame(spec: AnswerSpec): Buffer {
  return frameOf(answerData(spec), spec);
}

export function frameOf(
  data: Buffer,
  { server = '192.168.77.1', serverMac = SERVER_MAC }: Partial<AnswerSpec> = {},
): Buffer {
  return encodeUdp({
    destinationMac: 'ff:ff:ff:ff:ff:ff',
    sourceMac: serverMac,
    source: ip(server),
    destination: ip('255.255.255.255'),
    sourcePort: 67,
    destinationPort: 68,
    data,
  });
}
