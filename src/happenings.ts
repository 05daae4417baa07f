/**
 * What happens on this host, told at that moment to whoever listens: `tsmacvlan watch`, the hook and the metrics. What is told is
 * plain data, since watchers get it as JSON.
 */
import type { Fields, Log } from './log.ts';
import type { Conflict, Endpoint, Network, Tenancy, TenancyState } from './model.ts';

/** Whose address it is; nulls where no container here has it. */
interface Owner {
  readonly endpointId: string | null;
  readonly networkId: string | null;
}

/**
 * A conflict. `lasts`: it began before whoever is told began to listen. `changed`: somebody else has the address now. `ended` is
 * also what was forgotten by `conflicts --clear`.
 */
export interface ConflictNews extends Conflict, Owner {
  readonly what: 'conflict';
  readonly state: 'begun' | 'lasts' | 'changed' | 'ended';
}

/** A container on one of its networks. `lost`: its parent went, and its interface with it. Addresses as `192.168.1.2/24`. */
interface EndpointNews {
  readonly what: 'endpoint';
  readonly state: 'started' | 'ended' | 'lost';
  readonly endpointId: string;
  readonly networkId: string;
  readonly parent: string;
  readonly macAddress: string;
  readonly addresses: readonly string[];
}

interface NetworkNews {
  readonly what: 'network';
  readonly state: 'made' | 'removed';
  readonly networkId: string;
  readonly parent: string;
  readonly subnets: readonly string[];
}

/** The link below networks. `carrier` and `no carrier` are those of a link that is up. */
export type ParentState = 'carrier' | 'no carrier' | 'down' | 'gone';

interface ParentNews {
  readonly what: 'parent';
  readonly state: ParentState;
  readonly parent: string;
}

/**
 * A lease of a DHCP server. `lost`: see LeaseLoss, which `reason` says; `healed`: it was lost and is kept again. `refused`: a server
 * took back what it had offered. `declined`: somebody on the LAN has what a server offered, and `reason` is his MAC address.
 */
interface LeaseNews extends Owner {
  readonly what: 'lease';
  readonly state: 'lost' | 'healed' | 'refused' | 'declined';
  readonly parent: string;
  /** Of the container, or of the host's own end. */
  readonly macAddress: string;
  /** Without prefix length; null where the server named none. */
  readonly address: string | null;
  readonly server: string | null;
  readonly reason: string | null;
}

/** A line of the log. */
interface LogNews {
  readonly what: 'warning' | 'error';
  readonly message: string;
  readonly fields: Fields;
}

export type Happening = ConflictNews | EndpointNews | NetworkNews | ParentNews | LeaseNews | LogNews;

/** `time`: ISO 8601. */
export type ToldHappening = Happening & { readonly time: string };

type Listener = (happening: ToldHappening) => void;

/** Everybody who listens. */
export class Happenings {
  readonly #listeners = new Set<Listener>();
  readonly #now: () => Date;

  constructor(now: () => Date = () => new Date()) {
    this.#now = now;
  }

  /** Returns how to stop it. What a listener throws is passed over: it is no business of what happens. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** False: what is told now is told to nobody. */
  get isHeard(): boolean {
    return this.#listeners.size > 0;
  }

  /** Costs next to nothing while nobody listens. */
  tell(happening: Happening): void {
    if (this.#listeners.size === 0) return;
    const told = this.timed(happening);
    for (const listener of this.#listeners) {
      try {
        listener(told);
      } catch {
        // A field that is no JSON, as a bigint.
      }
    }
  }

  /** As it is told at this moment. */
  timed(happening: Happening): ToldHappening {
    return { time: this.#now().toISOString(), ...happening };
  }
}

/** A log whose warnings and errors are told as well, whatever LOG_LEVEL says. */
export function overheard(log: Log, happenings: Happenings): Log {
  const told =
    (what: LogNews['what'], say: Log['warn']) =>
    (message: string, fields: Fields = {}) => {
      say(message, fields);
      happenings.tell({ what, message, fields });
    };
  return {
    debug: (...line) => log.debug(...line),
    info: (...line) => log.info(...line),
    warn: told('warning', (...line) => log.warn(...line)),
    error: told('error', (...line) => log.error(...line)),
  };
}

/**
 * Null for a change that is no news: one more frame of somebody who was told of. An address that somebody was known to have before a
 * container got it all the same (`conflict=warn`) is one.
 */
export function conflictNews(
  before: Conflict | null,
  after: Conflict | null,
  owner: (conflict: Conflict) => Owner,
): ConflictNews | null {
  const [was, is] = [before?.endedAt === null, after?.endedAt === null];
  const conflict = after ?? before;
  if (conflict === null || (!was && !is)) return null;
  const tell = (state: ConflictNews['state']): ConflictNews => ({
    what: 'conflict',
    state,
    ...conflict,
    ...owner(conflict),
  });
  if (was !== is) return tell(is ? 'begun' : 'ended');
  if (before?.ourMacAddress === null && after?.ourMacAddress !== null) return tell('begun');
  return before?.macAddress === after?.macAddress ? null : tell('changed');
}

/** `addresses`: of the endpoint, as text. Null for a change that is no news, and for a start that failed. */
export function endpointNews(
  before: Endpoint | null,
  after: Endpoint | null,
  addresses: readonly string[],
): EndpointNews | null {
  const endpoint = after ?? before;
  const state = endpointState(before, after);
  if (endpoint === null || state === null) return null;
  const { id: endpointId, networkId, parent, macAddress } = endpoint;
  return { what: 'endpoint', state, endpointId, networkId, parent, macAddress, addresses };
}

function endpointState(before: Endpoint | null, after: Endpoint | null): EndpointNews['state'] | null {
  if (after?.state === 'joined' && before?.state !== 'joined') return 'started';
  if (before?.state === 'joined' && after?.state !== 'joined') return 'ended';
  return after?.lostAt !== undefined && before?.lostAt === undefined ? 'lost' : null;
}

/** Of either family. Nothing for a change that is no news: leases are renewed all the time. */
export function leaseNews(before: Tenancy | null, after: Tenancy | null): LeaseNews[] {
  if (after === null) return [];
  const { parent, macAddress, endpointId, networkId } = after;
  const changes = [[before, after] as const, [leasedIPv6(before), leasedIPv6(after)] as const];
  return changes.flatMap(([was, is]) => {
    const state = leaseChange(was?.state, is?.state);
    if (is === null || state === null) return [];
    const [address, reason] = [is.address.replace(/\/.*/, ''), is.loss ?? null];
    return { what: 'lease', state, parent, macAddress, address, server: is.server, reason, endpointId, networkId };
  });
}

function leaseChange(was?: TenancyState, is?: TenancyState): 'lost' | 'healed' | null {
  if (is === 'lost') return was === 'lost' ? null : 'lost';
  return was === 'lost' && is === 'bound' ? 'healed' : null;
}

/** Null for one that has none of a DHCPv6 server. What is put aside is so with the whole tenancy. */
function leasedIPv6(tenancy: Tenancy | null): Pick<Tenancy, 'address' | 'server' | 'state' | 'loss'> | null {
  if (tenancy?.ipv6?.how !== 'dhcpv6') return null;
  return tenancy.state === 'aside' ? { ...tenancy.ipv6, state: 'aside' } : tenancy.ipv6;
}

/** Null for a change that is neither a beginning nor an end. */
export function networkNews(before: Network | null, after: Network | null): NetworkNews | null {
  const network = after ?? before;
  if (network === null || (before !== null && after !== null)) return null;
  const { id: networkId, parent, subnets } = network;
  const state = after === null ? 'removed' : 'made';
  return { what: 'network', state, networkId, parent: parent.name, subnets: subnets.map(({ subnet }) => subnet) };
}
