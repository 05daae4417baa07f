/** This host's links, addresses and routes, as the remarks on a network look at them. */
import type { Links } from '../kernel/link.ts';
import type { Network } from '../model.ts';
import { type NetworkRemark, remarksOn } from '../remarks.ts';

/** What there is to say of a network. Throws what the kernel refuses. */
export async function readRemarks(
  links: Pick<Links, 'list' | 'addresses' | 'routes'>,
): Promise<(network: Network) => NetworkRemark[]> {
  const [all, addresses, routes] = await Promise.all([links.list(), links.addresses(), links.routes()]);
  const names = new Map(all.map(({ index, name }) => [index, name]));
  const nameOf = (linkIndex: number) => names.get(linkIndex) ?? `link ${linkIndex}`;
  return (network) => {
    const parent = all.find(({ name }) => name === network.parent.name);
    return remarksOn(network, { parent, addresses, routes, nameOf });
  };
}
