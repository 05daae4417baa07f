/** Who has which address, as kernels and frames say. */
import { addressFromBytes, formatAddress } from '../../src/address.ts';
import type { Frame } from './capture.ts';
import { lastOf } from './invariant.ts';
import type { Namespace } from './namespace.ts';

interface KernelAddress {
  local: string;
  scope: string;
  dadfailed?: boolean;
  tentative?: boolean;
}

/** Duplicate address detection takes a kernel up to two seconds, and longer where it has other work. */
const DETECTION_MS = 20_000;

/** What the kernel has and may use; waits until it knows. */
export async function addressesOf(namespace: Namespace, link: string): Promise<string[]> {
  const all = async () => {
    const [shown] = await namespace.show<{ addr_info: KernelAddress[] }>(`address show dev ${link}`);
    return (shown?.addr_info ?? []).filter(({ scope }) => scope === 'global');
  };
  await lastOf(async () => (await all()).filter(({ tentative, dadfailed }) => tentative && !dadfailed), DETECTION_MS);
  return (await all()).filter(({ dadfailed, tentative }) => !dadfailed && !tentative).map(({ local }) => local);
}

/** A frame in which somebody speaks for an address. */
export interface Statement {
  readonly address: string;
  readonly macAddress: string;
  /** Since the epoch. */
  readonly atMs: number;
}

/** In the order of the frames. */
export function statements(frames: readonly Frame[]): Statement[] {
  return frames.flatMap((frame) => {
    const address = subjectOf(frame);
    return address === undefined ? [] : [{ address, macAddress: frame.sourceMac, atMs: frame.atMs }];
  });
}

/** Addresses, each with the MAC addresses that spoke for it. */
export function speakers(frames: readonly Frame[]): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const { address, macAddress } of statements(frames))
    found.set(address, (found.get(address) ?? new Set()).add(macAddress));
  return found;
}

function subjectOf({ arp, neighbour }: Frame): string | undefined {
  if (arp !== undefined) return arp.senderAddress === '0.0.0.0' ? undefined : arp.senderAddress;
  if (neighbour === undefined) return undefined;
  const address = neighbour.kind === 'advertisement' ? neighbour.target : neighbour.source;
  return /^0+$|^fe80/.test(address) ? undefined : formatAddress(addressFromBytes(Buffer.from(address, 'hex')));
}

/** Those that stand in the list more than once. */
export function doubles(addresses: readonly string[]): string[] {
  return [...new Set(addresses.filter((address, at) => addresses.indexOf(address) !== at))];
}
