/**
 * Addresses that two hosts of a shared store have, as rows among the conflicts: on both, with which of the two containers is
 * newer. The LAN may have nothing to tell of them, since one address makes one MAC address on all hosts.
 */
import type { Log } from '../log.ts';
import type { Endpoint } from '../model.ts';
import { Serial } from '../serial.ts';
import type { Conflicts } from './conflicts.ts';
import { type Contest, leaseKey, type Store } from './store.ts';

interface Parts {
  readonly store: Pick<Store, 'leases' | 'endpoints'>;
  readonly conflicts: Pick<Conflicts, 'record' | 'end'>;
  /** What the LAN told of the address until now is over: it would be a row again, perhaps seconds later. */
  readonly forget: (address: string) => void;
  readonly log: Pick<Log, 'error'>;
}

/** A row that nobody confirms has ended after ten minutes. */
const CONFIRM_MS = 60_000;

/** Follows what the store tells of contests until stop(). */
export class Contests {
  readonly #parts: Parts;
  /** Those that last, by key of the lease, each with where its row is. */
  readonly #lasting = new Map<string, { readonly contest: Contest; parent: string | null }>();
  /** What is told of one lease one after the other: a row that is written later than its end would last. */
  readonly #serial = new Serial();
  readonly #timer: NodeJS.Timeout;

  constructor(parts: Parts) {
    this.#parts = parts;
    parts.store.leases.contests?.((contest) => {
      const key = leaseKey(contest);
      void this.#serial.run(key, () => this.#hear(key, contest)).catch(this.#failed);
    });
    this.#timer = setInterval(() => void this.#confirm().catch(this.#failed), CONFIRM_MS).unref();
  }

  /** How many last. */
  get count(): number {
    return this.#lasting.size;
  }

  /** Writes nothing any more. */
  stop(): void {
    clearInterval(this.#timer);
    this.#lasting.clear();
  }

  async #hear(key: string, contest: Contest): Promise<void> {
    const known = this.#lasting.get(key);
    if (contest.isOver) {
      this.#lasting.delete(key);
      const { address } = contest;
      if (typeof known?.parent !== 'string') return;
      this.#parts.forget(address);
      await this.#parts.conflicts.end({ parent: known.parent, address });
      return;
    }
    this.#lasting.set(key, { contest, parent: known?.parent ?? null });
    await this.#write(key);
  }

  async #confirm(): Promise<void> {
    for (const key of [...this.#lasting.keys()]) await this.#serial.run(key, () => this.#write(key));
  }

  /** Where a row was written once it is, also when the container here is gone since. */
  async #write(key: string): Promise<void> {
    const lasting = this.#lasting.get(key);
    if (lasting !== undefined) lasting.parent = (await this.#record(lasting.contest)) ?? lasting.parent;
  }

  /** The parent under which it is recorded; null while no container here has the address. */
  async #record(contest: Contest): Promise<string | null> {
    const { store, conflicts } = this.#parts;
    const lease = await store.leases.get(leaseKey(contest));
    const endpoint = await this.#endpointOf(lease?.endpointId ?? null);
    if (lease === undefined || endpoint === undefined) return null;
    const { parent, macAddress } = endpoint;
    const { address, others } = contest;
    const node = [...others.keys()].join(' ');
    const newer = newerOf(lease.changedAt, [...others.values()]);
    const report = { kind: 'address', parent, address, macAddress, ourMacAddress: macAddress, hostLink: null } as const;
    await conflicts.record({ ...report, node, newer });
    return parent;
  }

  async #endpointOf(id: string | null): Promise<Endpoint | undefined> {
    return id === null ? undefined : this.#parts.store.endpoints.get(id);
  }

  readonly #failed = (error: unknown): void => {
    this.#parts.log.error('a conflict was not recorded', { error: String(error) });
  };
}

/** `there` when one of the others is newer. Null while that is not known. */
function newerOf(ours: string, others: readonly string[]): 'here' | 'there' | null {
  if (others.some((since) => since !== '' && since >= ours)) return 'there';
  return others.includes('') ? null : 'here';
}
