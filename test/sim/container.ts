/** What an engine knows of its networks and containers, and what becomes of a start, as plain data. */
import type { Host } from './host.ts';
import type { Namespace } from './kernel/link.ts';

/** A network as the user described it. */
export interface NetworkSpec {
  readonly id: string;
  readonly subnet: string;
  readonly range: string | null;
  readonly gateway: string | null;
  /** Docker's IPAM chooses the addresses, the lowest that it knows nobody of. */
  readonly isDockersIpam: boolean;
  readonly options: Readonly<Record<string, string>>;
  /** What Docker's IPAM gives out: all of the range. */
  readonly addresses: readonly string[];
  readonly prefixLength: number;
}

/** A network that the engine has. */
export interface Network {
  readonly spec: NetworkSpec;
  poolId: string;
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
  address: string | null;
  /** The plugin's answer to RequestAddress, or Docker's own choice. */
  grantedAtMs: number | null;
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
  readonly address: string;
  linkName: string;
  macAddress: string;
  namespace: Namespace | null;
  isLeaving: boolean;
}

export type Answered =
  | { readonly ok: true; readonly body: Record<string, unknown> }
  | { readonly ok: false; readonly error: string; readonly isHeard: boolean };

/** A call for who judges it. */
export interface CallSeen {
  readonly host: Host;
  readonly name: string;
  readonly beganMonotonicMs: number;
  readonly endedMonotonicMs: number;
}
