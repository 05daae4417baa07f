/** Addresses that this host had at another place: see LeaseTable.kept(). The LAN is asked for them, and those go that nobody has. */
import { contains, parseAddress } from '../address.ts';
import type { Clock } from '../clock.ts';
import { PluginError } from '../errors.ts';
import type { Leak } from '../leak.ts';
import type { Lease } from '../model.ts';
import { realmOf, type Store } from '../store/store.ts';
import type { Probe } from './offers.ts';
import { known } from './pool.ts';

interface Parts {
  readonly store: Pick<Store, 'pools' | 'leases'>;
  readonly probe: Probe;
  readonly clock: Clock;
}

type Named = Pick<Lease, 'realm' | 'address'>;

/** Whoever answered is asked again so much later. */
const AGAIN_MS = 60_000;
/** Questions to the LAN at a time. */
const AT_ONCE = 32;

/** What the collector is told of them: one leak, however many they are. */
export class KeptClaims {
  readonly #parts: Parts;
  #askedAtMs = Number.NEGATIVE_INFINITY;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** One leak at most. */
  async leaks(): Promise<Leak[]> {
    const { store, clock } = this.#parts;
    const kept = (await store.leases.kept?.()) ?? [];
    const [first] = kept;
    if (first === undefined || clock.nowMs() - this.#askedAtMs < AGAIN_MS) return [];
    const name = kept.length === 1 ? first.address : `${first.address} and ${kept.length - 1} more`;
    const why = 'this host had it before it booted or was copied, and nobody on the LAN has it';
    return [{ key: 'kept claims', kind: 'lease', name, why, patience: 'soon', collect: () => this.#collect(kept) }];
  }

  async #collect(kept: readonly Named[]): Promise<boolean> {
    this.#askedAtMs = this.#parts.clock.nowMs();
    let freed = 0;
    const left = kept.values();
    const work = async () => {
      for (const one of left) {
        if (!(await this.#isFree(one))) continue;
        await this.#parts.store.leases.letGo?.(one);
        freed++;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    // When nothing is left the store notes that.
    await this.#parts.store.leases.kept?.();
    return freed > 0;
  }

  /** False also where no network of this host is on that LAN. */
  async #isFree({ realm, address: text }: Named): Promise<boolean> {
    const address = parseAddress(text);
    const pools = await this.#parts.store.pools.list();
    const pool = address && pools.find((one) => realmOf(one) === realm && contains(known(one.subnet), address));
    if (address === undefined || pool === undefined) return false;
    try {
      return !(await this.#parts.probe(pool, address, { limit: null, refusal: null })).held;
    } catch (error) {
      // Another driver's network: nobody can ever be asked.
      return error instanceof PluginError && error.code === 'CLUSTER_UNPROVEN';
    }
  }
}
