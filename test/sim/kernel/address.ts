/** Addresses as the product writes them; here so that the rest of the world imports one file of it. */
export {
  type Address,
  addressBytes,
  addressFromBytes,
  formatAddress,
  formatMac,
  parseAddress,
  parseInterfaceAddress,
} from '../../../src/address.ts';
export type { Family } from '../../../src/model.ts';
