/**
 * What an engine asks of the two drivers, and what they answer, in our own words: server/wire.ts makes these of Docker's
 * JSON, and the rooms take them as they are. Whatever has a form is read here at the latest; what only a room can judge
 * (`-o` options, `--ip` of a pool) stays as it was typed, for that room's sentence.
 */
import type { PluginError } from './errors.ts';
import type { InterfaceAddress, LeasedRoute, Subnet } from './model.ts';

/** By when a call is to be answered; whoever waits for the world outside goes by it. */
export interface CallLimit {
  /** Fires when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  /** When the engine is answered at the latest, as performance.now(): milliseconds. */
  readonly atMs: number;
  /**
   * What the engine is told if the answer is not there by then: who asks on and on for an address that somebody has knows more
   * than that the time is over. Null takes that back.
   */
  readonly ifLate: (sentence: PluginError | null) => void;
}

/** A request as it was read, before the server says by when it is to be answered. */
export type Unlimited<Request extends { readonly limit: CallLimit }> = Omit<Request, 'limit'>;

/** CreateNetwork. */
export interface NetworkRequest {
  readonly networkId: string;
  /** `-o` labels as given. */
  readonly options: Readonly<Record<string, string>>;
  /** Docker's `--internal`. */
  readonly internal: boolean;
  readonly enableIPv4: boolean;
  readonly enableIPv6: boolean;
  /** The engine has asked GwAllocCheck, as those from 28 on do, and makes up no gateway that is not wanted. */
  readonly skipsGateways: boolean;
  /** IPv4 first; gateways without prefix length. */
  readonly subnets: readonly Subnet[];
}

/** AllocateNetwork: a swarm's leader sets up a network for all nodes. */
export interface AllocationRequest extends Pick<NetworkRequest, 'networkId' | 'options' | 'subnets'> {
  /** A leader did so before, this one or another. */
  readonly isRepeated: boolean;
}

/** GwAllocCheck: whether a gateway that nobody named should be reserved for such a network. */
export type GatewayCheck = Omit<NetworkRequest, 'networkId' | 'subnets'>;

/** CreateEndpoint. */
export interface EndpointRequest {
  readonly networkId: string;
  readonly endpointId: string;
  /** IPv4 first; empty when the engine has none. */
  readonly addresses: readonly InterfaceAddress[];
  /** What came as an address and is none. It lies in no subnet, which the network says by the names of its own. */
  readonly malformedAddresses: readonly string[];
  /** `--mac-address` as typed; null when the choice is ours. */
  readonly macAddress: string | null;
  /** The name wished for inside the container: endpoint driver-opt `com.docker.network.endpoint.ifname`. */
  readonly interfaceName: string | null;
  /** `8080->80/tcp`; macvlan publishes nothing, so these are only warned about. */
  readonly publishedPorts: readonly string[];
  /** Endpoint option `ip=`, as typed: the address that a DHCP server should give; null for any. */
  readonly wishedAddress: string | null;
  /** Endpoint option `hostname=`, as typed: what a DHCP server should call the container; null for nothing. */
  readonly hostname: string | null;
  readonly limit: CallLimit;
}

/** What CreateEndpoint answers. */
export interface CreatedEndpoint {
  /** Null when the engine named it, which it then does not want to hear again. */
  readonly macAddress: string | null;
  /** Addresses of a DHCP server, which the engine does not know yet; absent where an IPAM gave them. */
  readonly leased?: readonly InterfaceAddress[];
}

/** What Join answers: the link to move, its name inside if the request named one, gateways without prefix length. */
export interface Attachment {
  readonly linkName: string;
  readonly interfaceName: string | null;
  readonly gateway: string | null;
  readonly gatewayIPv6: string | null;
  /** Beside the default routes. */
  readonly routes: readonly LeasedRoute[];
}

/** RequestPool. */
export interface PoolRequest {
  readonly addressSpace: string;
  /** `--subnet` as typed; null when the choice is ours. */
  readonly pool: string | null;
  /** `--ip-range` as typed. */
  readonly subPool: string | null;
  /** `--ipam-opt` as given. */
  readonly options: Readonly<Record<string, string>>;
  /** Swarm managers say false also for IPv6 (moby cnmallocator): only a request without subnet depends on it. */
  readonly v6: boolean;
}

/** `tsmacvlan unreserve`. */
export interface NameRequest {
  /** A container's. */
  readonly name: string;
  /** The beginning of its id; null for whichever network it is. */
  readonly networkId: string | null;
}

/** `tsmacvlan reserve`. */
export interface ReserveRequest extends NameRequest {
  /** As typed. */
  readonly address: string;
  readonly limit: CallLimit;
}

/** RequestAddress. */
export interface AddressRequest {
  readonly poolId: string;
  /** Without prefix length, as typed; null when the choice is ours. */
  readonly address: string | null;
  readonly isGateway: boolean;
  /** Swarm managers want the address after the last one given, so that a freed one rests a while. */
  readonly serial: boolean;
  /** Of the container, as engines from 29 on say it; null for a gateway or an auxiliary address, and from other engines. */
  readonly name: string | null;
  readonly limit: CallLimit;
}
