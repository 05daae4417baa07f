/**
 * The store's contract. Two implementations keep it (embedded and cluster) and pass one list of cases.
 *
 * Promises: a change survives kill -9 when its promise resolves, and power loss when durable() has resolved after it, before
 * which nobody outside may be told of it. A power cut takes the last changes, never an earlier one alone. A change that was
 * refused or failed left nothing behind. "Somebody was first" is an answer (false), never an error; what
 * throws is a broken store. Records are plain JSON data and come back equal to what went in.
 */
import type { Sharing } from '../health.ts';
import type {
  Conflict,
  Endpoint,
  Lease,
  LeaseKind,
  Network,
  Pool,
  ProbeProfile,
  Remembered,
  Tenancy,
} from '../model.ts';

/** Records of one kind under their keys. */
export interface Table<T> {
  /** Undefined when there is none. */
  get(key: string): Promise<T | undefined>;
  /** All records, or those whose key starts with the prefix, in order of key (by code points, as UTF-8 bytes sort). */
  list(prefix?: string): Promise<T[]>;
  /** False when the key is taken; the record there stays as it is. */
  insert(record: T): Promise<boolean>;
  /** Writes `next` if the stored record still equals `previous`; false when it changed or went meanwhile. Same key. */
  replace(previous: T, next: T): Promise<boolean>;
  /** Removes the record if it still equals the one given; false when it changed or is gone. */
  remove(record: T): Promise<boolean>;
}

/**
 * Told what hosts take and give back. `other`: what another host than this has the address for; null when none has it. A lease of
 * this host that it had no container for, and that another host has got, is gone then too.
 */
export type LeaseListener = (
  lease: Pick<Lease, 'realm' | 'address'>,
  isTaken: boolean,
  other: LeaseKind | null,
) => void;

/** This host has an address for a container, and another host of the shared store has it too. */
export interface Contest extends Pick<Lease, 'realm' | 'address'> {
  /** Since when each of the others has it, by its clock, ISO 8601; empty while that is not known. */
  readonly others: ReadonlyMap<string, string>;
  /** Only one has it now. */
  readonly isOver: boolean;
}

/** Where hosts share addresses, leases of other hosts are among them; those can neither be replaced nor removed. */
export interface LeaseTable extends Table<Lease> {
  /** Absent where there are no other hosts. */
  follow?(listener: LeaseListener): void;
  /** Tells of addresses that two hosts have; absent where there are no others. */
  contests?(listener: (contest: Contest) => void): void;
  /** Addresses of the realm that hosts have which are lost; absent where there are no others. */
  ofLostHosts?(realm: string): string[];
  /** The LAN must have been asked for the address before it is used: the store alone cannot promise that it is free. */
  needsProof?(lease: Pick<Lease, 'realm' | 'address'>): ProbeProfile | null;
  /**
   * Addresses that this host has claimed and has no lease on, since their containers may run on another machine, of which this
   * one is a copy: they are let go of when the LAN says that nobody has them. Absent where there are no others.
   */
  kept?(): Promise<Pick<Lease, 'realm' | 'address'>[]>;
  letGo?(lease: Pick<Lease, 'realm' | 'address'>): Promise<void>;
  /**
   * Resolves when the address is this host's at this moment, whatever became of it since it was leased; absent where nobody
   * else could have got it. Throws ADDRESS_TAKEN, or why it cannot be known.
   */
  assure?(lease: Pick<Lease, 'realm' | 'address'>): Promise<void>;
}

/** All that is remembered. */
export interface Store {
  readonly networks: Table<Network>;
  readonly endpoints: Table<Endpoint>;
  readonly pools: Table<Pool>;
  readonly leases: LeaseTable;
  readonly conflicts: Table<Conflict>;
  /** What names had on this host; hosts that share addresses do not share it. */
  readonly names: Table<Remembered>;
  /** What this host's MAC addresses have of DHCP servers, which decide who has what: hosts share nothing of it. */
  readonly tenancies: Table<Tenancy>;
  /** The records were put back from a backup, and no start since then has settled what it does not know; absent for false. */
  readonly isRestored?: boolean;
  /** That is done. */
  settleRestore?(): Promise<void>;
  /** What is known at this moment of the store that hosts share; absent, or null, where this one is this host's alone. */
  sharing?(): Sharing | null;
  /** Resolves when all changes that were made before this call are on the disk; those of others may be too. Throws STORE_UNSYNCED. */
  durable(): Promise<void>;
  /** Changes under way are finished; none is taken afterwards. */
  close(): Promise<void>;
}

/** The key of a lease; addresses sort by text, not by number. */
export function leaseKey(lease: Pick<Lease, 'realm' | 'address'>): string {
  return `${lease.realm}/${lease.address}`;
}

/**
 * Where addresses are unique: an address space (`TsmacvlanLocal`), or one LAN of it when `--ipam-opt parent=` names the
 * link (`TsmacvlanLocal@eth0.10`). Subnets, ranges and pools of a realm share one set of addresses.
 */
export function realmOf({ addressSpace, options }: Pick<Pool, 'addressSpace' | 'options'>): string {
  const parent = options['parent'];
  return parent === undefined ? addressSpace : `${addressSpace}@${parent}`;
}

/** The key of what is remembered. A pool's id has no space in it, nor has a name. */
export function nameKey({ poolId, name, address }: Pick<Remembered, 'poolId' | 'name' | 'address'>): string {
  return name === '' ? `${poolId}  ${address}` : `${poolId} ${name}`;
}

/** The key of a tenancy. */
export function tenancyKey({ parent, macAddress }: Pick<Tenancy, 'parent' | 'macAddress'>): string {
  return `${parent} ${macAddress}`;
}

/** The key of a conflict: one for each parent and address, or MAC address. */
export function conflictKey(conflict: Pick<Conflict, 'kind' | 'parent' | 'address' | 'macAddress'>): string {
  const { kind, parent, address, macAddress } = conflict;
  return `${parent}/${kind === 'mac' ? macAddress : address}`;
}
