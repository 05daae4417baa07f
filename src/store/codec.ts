/** How records are written down as JSON, in the state file and by the command line: as they are, but for addresses. */
import { formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';
import type { Endpoint, InterfaceAddress } from '../model.ts';

/** Between a record and the JSON data that stands for it. Equal records have equal JSON. */
export interface Codec<T> {
  toJson(record: T): unknown;
  /** Throws a TypeError for what toJson cannot have made. */
  fromJson(json: unknown): T;
}

/** For records that are JSON data themselves. */
export function plainCodec<T>(): Codec<T> {
  return { toJson: (record) => record, fromJson: (json) => json as T };
}

/** An endpoint with its addresses as text: `["192.168.1.2/24", "fd00::2/64"]`. */
export type WrittenEndpoint = Omit<Endpoint, 'addresses'> & { readonly addresses: readonly string[] };

/** As `tsmacvlan endpoints --json` prints it. */
export function writtenEndpoint(endpoint: Endpoint): WrittenEndpoint {
  return { ...endpoint, addresses: endpoint.addresses.map(formatInterfaceAddress) };
}

export const ENDPOINT_CODEC: Codec<Endpoint> = {
  toJson: writtenEndpoint,
  fromJson(json) {
    const written = json as WrittenEndpoint;
    return { ...written, addresses: written.addresses.map(readAddress) };
  },
};

function readAddress(text: string): InterfaceAddress {
  const address = parseInterfaceAddress(text);
  if (address === undefined) throw new TypeError(`"${text}" is no address with prefix length`);
  return address;
}
