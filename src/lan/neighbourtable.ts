/**
 * The host's own neighbour table as a witness: whom the host itself talks to at an address. It hears what our link may
 * not, and remembers who is silent at this moment. An entry alone proves nothing, as a host that left stays in the table
 * for a while; so the MAC address is asked, from the parent's own, and only its answer counts. What an administrator wrote
 * there counts as it stands, unless he wrote the MAC address that the container to come will have.
 */
import { type Address, type Prefix, formatAddress, macFromIPv4, macFromIPv6 } from '../address.ts';
import type { Link, Links } from '../kernel/link.ts';
import type { Ports } from './ports.ts';

/** An address and who asks about it. */
interface TableCheck {
  readonly address: Address;
  /** The address's; without it devices that answer for every address count as holders. */
  readonly subnet?: Prefix | undefined;
  /** See DetectionSpec. */
  readonly isOwn: (macAddress: string, isGiven: boolean) => boolean;
  /** Of the container that is to have the address, where that is known by now. */
  readonly macAddress?: string | null | undefined;
}

/** States in which there is a MAC address: heard once (RFC 4861 7.3.2), or written. */
const ASKED = ['reachable', 'stale', 'delay', 'probe', 'permanent'];

/** The MAC address that has the address as the host knows it; null when the host knows of none that says so. */
export async function holderInTable(
  { links, ports }: { readonly links: Links; readonly ports: Ports },
  check: TableCheck,
  parent: Link,
  stop: AbortSignal,
): Promise<string | null> {
  const { address, subnet, isOwn } = check;
  const known = await links.neighbour(parent.index, address);
  const macAddress = known?.macAddress ?? null;
  if (known === undefined || macAddress === null || macAddress === parent.macAddress || isOwn(macAddress, false))
    return null;
  if (known.state === 'permanent' && !isOfContainer(macAddress, check)) return macAddress;
  if (!ASKED.includes(known.state)) return null;
  const port = await ports.get(parent, 'passthru', stop);
  const answerer = await port.ask(address, macAddress);
  if (answerer === null || isOwn(answerer, false)) return null;
  const isProxy = subnet !== undefined && (await port.answersForAll({ macAddress: answerer, address, subnet }));
  return isProxy && !(await isGateway(links, parent, address)) ? null : answerer;
}

/** A router that answers for every address has addresses of its own. Those that this host's routes name are known. */
async function isGateway(links: Links, { index }: Link, address: Address): Promise<boolean> {
  const text = formatAddress(address);
  return (await links.routes()).some(({ linkIndex, gateway }) => linkIndex === index && gateway === text);
}

/** Named for it, or as one is derived from the address (network/request.ts), whatever the network's prefix. */
function isOfContainer(macAddress: string, { address, macAddress: named }: TableCheck): boolean {
  const derive = address.family === 'IPv4' ? macFromIPv4 : macFromIPv6;
  return macAddress === named || macAddress === derive(macAddress.slice(0, 'xx:xx'.length), address);
}
