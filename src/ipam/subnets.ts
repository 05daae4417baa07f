/** Subnets for networks created without `--subnet`: the blocks Docker's own IPAM takes from, and a ULA for IPv6. Pure. */
import { createHash } from 'node:crypto';
import { overlaps, type Prefix, prefixOf } from '../address.ts';
import type { Family } from '../model.ts';
import { known } from './pool.ts';

interface Block {
  readonly within: Prefix;
  /** Prefix length of the subnets cut from it when no other is asked for. */
  readonly length: number;
}

/** As moby daemon/libnetwork/ipamutils, so that a network looks as with the built-in driver. */
const IPV4_BLOCKS: readonly Block[] = [
  ...Array.from({ length: 15 }, (_, n) => ({ within: known(`172.${17 + n}.0.0/16`), length: 16 })),
  { within: known('192.168.0.0/16'), length: 20 },
];

/** A /48 that other hosts will hardly have (RFC 4193 3.2): `fd` and 40 bits of a hash of what tells this host apart. */
function uniqueLocalBlock(hostId: string): Block {
  const globalId = createHash('sha256').update(hostId).digest().subarray(0, 5);
  const value = BigInt(`0xfd${globalId.toString('hex')}`) << 80n;
  return { within: prefixOf({ family: 'IPv6', value }, 48), length: 64 };
}

/**
 * A subnet apart from those taken; undefined when there is none left, or none of this length. The engine asks until it
 * likes the answer and holds what it does not like meanwhile (libnetwork requestPoolHelper), so answers never repeat.
 */
export function freeSubnet(
  taken: readonly Prefix[],
  family: Family,
  length: number | null,
  hostId: string,
): Prefix | undefined {
  const blocks = family === 'IPv4' ? IPV4_BLOCKS : [uniqueLocalBlock(hostId)];
  for (const block of blocks) {
    const subnet = firstApart(taken, block.within, length ?? block.length);
    if (subnet !== undefined) return subnet;
  }
  return undefined;
}

/** Steps over what is taken, one conflict at a time: never more steps than subnets taken. */
function firstApart(taken: readonly Prefix[], within: Prefix, length: number): Prefix | undefined {
  if (length < within.length) return undefined;
  for (let value = within.first; value <= within.last; ) {
    const subnet = prefixOf({ family: within.family, value }, length);
    const conflict = taken.find((other) => overlaps(other, subnet));
    if (conflict === undefined) return subnet;
    value = (conflict.last > subnet.last ? conflict.last : subnet.last) + 1n;
  }
  return undefined;
}
