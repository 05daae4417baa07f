/** The LAN's DHCP server, as pools with `--ipam-opt source=dhcp` ask it: which subnet is there, and an address for a container. */
import { type Address, contains, formatAddress, formatPrefix, isHostOf, type Prefix, prefixOf } from '../address.ts';
import * as errors from '../errors.ts';
import type { Links } from '../kernel/link.ts';
import type { CallLimit } from '../requests.ts';
import type { Store } from '../store/store.ts';
import type { Parents } from './parent.ts';
import { hostnameMac } from './request.ts';
import type { LeaseSource, Tenancies } from './tenancies.ts';
import { within } from './witness.ts';

/** What it works with. */
export interface AddressServerParts {
  readonly store: Pick<Store, 'networks' | 'tenancies'>;
  readonly links: Pick<Links, 'known' | 'list'>;
  readonly parents: Pick<Parents, 'ensure'>;
  readonly tenancies: Tenancies;
  readonly dhcp: Pick<LeaseSource, 'offer' | 'timeout'>;
  readonly parentAliases: ReadonlyMap<string, string>;
}

/** An address for a container of a network, where the engine has asked our IPAM for one. */
interface Wanted {
  readonly networkId: string;
  readonly poolId: string;
  readonly subnet: Prefix;
  /** The container's, where the engine says it. */
  readonly name: string | null;
  readonly limit: CallLimit;
}

/** Each host asks with the same MAC address each time, so that it does not use up the server's addresses. */
const LEARNER = 'subnet';
const USUAL_PREFIX = '02:42';

/** Answers the IPAM room, which does not know of networks and their parents. */
export class LanAddressServer {
  readonly #parts: AddressServerParts;
  #asked = 0;

  constructor(parts: AddressServerParts) {
    this.#parts = parts;
  }

  /** The subnet and the gateway that the server tells; nothing is taken of it. Throws DHCP_SILENT, DHCP_PARENT_GONE, DHCP_PARENT_DOWN. */
  async learn(typed: string, limit: CallLimit | null): Promise<{ subnet: Prefix; gateway: Address | null }> {
    const { links, dhcp, parentAliases } = this.#parts;
    const parentName = parentAliases.get(typed) ?? typed;
    const parent = await links.known(parentName);
    if (parent === undefined) {
      const others = await links.list(({ isLoopback, kind }) => !isLoopback && kind !== 'macvlan');
      throw errors.dhcpParentGone(
        parentName,
        others.map(({ name }) => name),
      );
    }
    const macAddress = hostnameMac(USUAL_PREFIX, parent.macAddress, LEARNER);
    const segment = { parentName, mode: 'bridge', profile: null } as const;
    const offered = await dhcp.offer({ segment, macAddress, limit: limit ?? within(dhcp.timeout * 1000) });
    const { address, prefixLength, routers } = offered;
    const subnet = prefixOf(address, prefixLength);
    return { subnet, gateway: routers.find((router) => isHostOf(subnet, router)) ?? null };
  }

  /** An address that is the container's until the engine gives it back. Throws DHCP_OUTSIDE and what Tenancies.lease() throws. */
  async lease({ networkId, poolId, subnet, name, limit }: Wanted): Promise<Address> {
    const { store, parents, tenancies } = this.#parts;
    const network = await store.networks.get(networkId);
    if (network === undefined) throw errors.networkUnknown(networkId);
    const parent = await parents.ensure(network.parent, network.id);
    const unnamed = { macAddress: null, hostname: null, wishedAddress: null, addresses: [], limit };
    const claimant = {
      ...unnamed,
      endpointId: `request ${++this.#asked}`,
      ...(name !== null && { name: { text: `${poolId} ${name}`, hostname: labelOf(name) } }),
    };
    return tenancies.claimed(claimant, network, parent, async (claim) => {
      const address = await tenancies.lease(claim, network);
      if (!contains(subnet, address)) {
        const server = (await store.tenancies.get(`${claim.parent} ${claim.macAddress}`))?.server ?? '';
        await tenancies.giveBack(claim, network);
        throw errors.dhcpOutside(server, formatAddress(address), formatPrefix(subnet));
      }
      await tenancies.putAside(claim, networkId, address);
      return address;
    });
  }

  /** The engine gives it back. */
  returned(networkId: string, address: Address): void {
    this.#parts.tenancies.returned(networkId, address);
  }
}

/** The name as a server may have it (RFC 1123): what it cannot have is a dash. Null where nothing is left. */
function labelOf(name: string): string | null {
  const label = name
    .replaceAll(/[^a-z0-9]+/gi, '-')
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, '');
  return label === '' ? null : label;
}
