/** The subnets of all networks, by family, and the addresses of a scenario's range. */
import type { Family } from './kernel/address.ts';

export const SUBNETS = {
  IPv4: { subnet: '192.168.77.0/24', prefix: '192.168.77.', prefixLength: 24, bits: 32, radix: 10 },
  IPv6: { subnet: 'fd00:77::/64', prefix: 'fd00:77::', prefixLength: 64, bits: 128, radix: 16 },
} as const;
const FIRST = 64;

interface Range {
  /** How many addresses it has, of each family. */
  readonly addresses: number;
  readonly family: Family | 'both';
}

/** Of the networks of a scenario, in the order in which an engine asks. */
export function familiesOf({ family }: Pick<Range, 'family'>): Family[] {
  return family === 'both' ? ['IPv4', 'IPv6'] : [family];
}

/** The addresses of the range of one family. */
export function rangeOfFamily(addresses: number, family: Family): string[] {
  const { prefix, radix } = SUBNETS[family];
  return Array.from({ length: addresses }, (_, position) => `${prefix}${(FIRST + position).toString(radix)}`);
}

/** Those of all families. */
export function rangeOf({ addresses, family }: Range): string[] {
  return familiesOf({ family }).flatMap((one) => rangeOfFamily(addresses, one));
}

/** The same for an engine. */
export function subpoolOf(addresses: number, family: Family): string {
  return `${rangeOfFamily(addresses, family)[0]}/${SUBNETS[family].bits - Math.log2(addresses)}`;
}
