/** What an engine knows of its networks and containers, and what becomes of a start, as plain data. */
import type { Host } from './host.ts';
import type { Namespace } from './kernel/link.ts';

/** One subnet of a network. */
export interface SubnetSpec {
  readonly subnet: string;
  readonly range: string | null;
  readonly gateway: string | null;
  /** What Docker's IPAM gives out: all of the range. */
  readonly addresses: readonly string[];
  readonly prefixLength: number;
}

/** A network as the user described it. */
export interface NetworkSpec {
  readonly id: string;
  /** One of IPv4, of IPv6, or of each, in this order. */
  readonly subnets: readonly SubnetSpec[];
  /** Docker's IPAM chooses the addresses, the lowest that it knows nobody of. */
  readonly isDockersIpam: boolean;
  readonly options: Readonly<Record<string, string>>;
  /** A swarm's: its engine forgets it when it is killed, and gives nothing back. */
  readonly isOfSwarm: boolean;
}

/** A network that the engine has. */
export interface Network {
  readonly spec: NetworkSpec;
  /** As its subnets. */
  readonly poolIds: string[];
  addressSpace: string;
  /** Docker's IPAM: what is given out. */
  readonly used: Set<string>;
  /** The lock. */
  turn: Promise<unknown>;
}

/** What a start came to, with the moments that tell who could have known what. */
export interface Start {
  readonly host: Host;
  readonly container: string;
  readonly wanted: string | null;
  readonly beganAtMs: number;
  /** Its addresses, and when the plugin gave each, or Docker's IPAM chose it. */
  readonly grants: Map<string, number>;
  joinedAtMs: number | null;
  /** When Join was sent. */
  joiningAtMs: number | null;
  upAtMs: number | null;
  refusal: string | null;
}

/** A container that runs, or is on its way. */
export interface Container {
  readonly name: string;
  readonly network: Network;
  readonly endpointId: string;
  /** With prefix length. */
  readonly addresses: readonly string[];
  linkName: string;
  macAddress: string;
  namespace: Namespace | null;
  isLeaving: boolean;
}

export type Answered =
  | { readonly ok: true; readonly body: Record<string, unknown>; readonly isRepeated: boolean }
  | { readonly ok: false; readonly error: string; readonly isHeard: boolean };

/** A call for who judges it. */
export interface CallSeen {
  readonly host: Host;
  readonly name: string;
  readonly beganMonotonicMs: number;
  readonly endedMonotonicMs: number;
  /** What it was refused with. */
  readonly error: string | null;
  /** The plugin was killed in it, or did not answer, and it was sent once more. */
  readonly isRepeated: boolean;
}

/** Without prefix length. */
export function bare(address: string): string {
  return address.slice(0, address.indexOf('/'));
}

export function isIPv6(text: string): boolean {
  return text.includes(':');
}
