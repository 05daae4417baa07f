/** Addresses as the program has them inside, written in a test as one reads them. */
import assert from 'node:assert/strict';
import { parseInterfaceAddress } from '../../src/address.ts';
import type { InterfaceAddress } from '../../src/model.ts';
import type { EndpointRequest } from '../../src/requests.ts';

/** `192.168.1.2/24` */
export function interfaceAddress(text: string): InterfaceAddress {
  const address = parseInterfaceAddress(text);
  assert.ok(address, text);
  return address;
}

/** The addresses of a CreateEndpoint, IPv4 first. */
export function requestedAddresses(
  ...texts: readonly (string | null)[]
): Pick<EndpointRequest, 'addresses' | 'malformedAddresses'> {
  return { addresses: texts.filter((text) => text !== null).map(interfaceAddress), malformedAddresses: [] };
}
