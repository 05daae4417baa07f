/**
 * What containers had: by network and name the last address, so that a container keeps it over stop and start, a recreation, a
 * reboot, and the removal and creation of the network. Engines from 29 on say the name (moby 29.0, netlabel.EndpointName); others do not.
 *
 * A remembered address is no lease: nobody has it, and the LAN is asked for it, as for any other, before it is given. A search
 * passes it over while others are free (realm.ts), and takes those that were unused longest when nothing else is.
 */
import { type Address, formatAddress, parseAddress } from '../address.ts';
import type { Log } from '../log.ts';
import type { Lease, Pool, Remembered } from '../model.ts';
import { leaseKey, nameKey, type Store } from '../store/store.ts';
import { ByUse } from './byuse.ts';
import { realmOfPoolId } from './pool.ts';

interface Parts {
  readonly store: Pick<Store, 'names' | 'leases'>;
  readonly now: () => Date;
  /** After so many days without use a name is forgotten; 0 remembers none but the reserved ones. */
  readonly days: number;
  readonly log: Pick<Log, 'info'>;
  /** So many names are kept in a realm; left out, 16,384. */
  readonly most?: number;
}

/** Tells a realm that one of its addresses is remembered from now on, or no longer. */
type KeptListener = (address: Address, isKept: boolean) => void;

interface Entry {
  readonly key: string;
  readonly address: Address;
  readonly isReserved: boolean;
}

/** In a range without end, as IPv6 has, engines that make up names would fill the disk. */
const USUAL_MOST = 16_384;
const DAY_MS = 86_400_000;
/** The network room writes a MAC address into the record now and then. */
const ATTEMPTS = 8;

/** The names of all realms of this host. Where hosts share addresses, each remembers what its own containers had. */
export class Names {
  readonly #store: Parts['store'];
  readonly #now: () => Date;
  readonly #days: number;
  readonly #log: Pick<Log, 'info'>;
  readonly #most: number;
  /** By realm, then by address. */
  readonly #realms = new Map<string, ByUse<Entry>>();
  readonly #listeners = new Map<string, KeptListener>();
  #latestMs = Number.NEGATIVE_INFINITY;
  #loading: Promise<void> | undefined;

  constructor({ store, now, days, log, most = USUAL_MOST }: Parts) {
    this.#store = store;
    this.#now = now;
    this.#days = days;
    this.#log = log;
    this.#most = most;
  }

  /** Reads all that is remembered, once. */
  async load(): Promise<void> {
    this.#loading ??= this.#load().catch((error: unknown) => {
      this.#loading = undefined;
      throw error;
    });
    await this.#loading;
  }

  async #load(): Promise<void> {
    const records = await this.#store.names.list();
    for (const record of records.sort((a, b) => a.usedAt.localeCompare(b.usedAt))) {
      // Who has switched remembering off wants no address kept for a name; what only rests has none.
      const isOver = this.#days === 0 && !record.isReserved && record.name !== '';
      if (!isOver || !(await this.#store.names.remove(record))) this.#note(record);
    }
  }

  /** What the name had in the pool last, or is to have; undefined when it is not remembered. */
  async find(poolId: string, name: string): Promise<Remembered | undefined> {
    await this.load();
    const found = await this.#store.names.get(nameKey({ poolId, name, address: '' }));
    return found?.isReserved === false && this.#days === 0 ? undefined : found;
  }

  /** For whom the address is remembered; undefined when for nobody. */
  async at(realm: string, address: string): Promise<Remembered | undefined> {
    await this.load();
    const entry = this.#realms.get(realm)?.get(address);
    return entry && this.#store.names.get(entry.key);
  }

  /** The listener hears of all that is remembered in the realm now, and of each change from now on. */
  async follow(realm: string, listener: KeptListener): Promise<void> {
    await this.load();
    this.#listeners.set(realm, listener);
    for (const { address } of this.#longestUnused(realm)) listener(address, true);
  }

  /** Of the realm's remembered addresses for which `isFree` holds those that were unused longest; never a reserved one. */
  longestUnused(realm: string, isFree: (address: Address) => boolean, most: number): Address[] {
    const found: Address[] = [];
    for (const { address, isReserved } of this.#longestUnused(realm)) {
      if (found.length >= most) break;
      if (!isReserved && isFree(address)) found.push(address);
    }
    return found;
  }

  /** How many of the realm's addresses for which `isCounted` holds are reserved. */
  countReserved(realm: string, isCounted: (address: Address) => boolean): number {
    return [...this.#longestUnused(realm)].filter(({ address, isReserved }) => isReserved && isCounted(address)).length;
  }

  /** Those used last for which `isFree` holds, at most so many. */
  latest(realm: string, isFree: (address: Address) => boolean, most: number): Address[] {
    const found: Address[] = [];
    for (const { address } of this.#realms.get(realm)?.latest() ?? []) {
      if (found.length >= most) break;
      if (isFree(address)) found.push(address);
    }
    return found;
  }

  // --- what becomes of a name ------------------------------------------------------------------------------------------

  /**
   * A container got the address; `name` null where no engine says it, and where the address is none that a search would give.
   * Who it was remembered for before gets another one next time.
   */
  async given({ id: poolId }: Pool, address: Address, name: string | null): Promise<void> {
    const text = formatAddress(address);
    const before = await this.at(realmOfPoolId(poolId), text);
    const isOthers = before !== undefined && (before.poolId !== poolId || before.name !== name);
    if (isOthers && !before.isReserved) await this.#displace(before, name);
    if (name === null || this.#days === 0 || (isOthers && before.isReserved)) return;
    await this.#change({ poolId, name, address: text }, (known) => {
      if (known?.isReserved === true && known.address !== text) return known;
      const macAddress = known?.address === text ? known.macAddress : null;
      return {
        poolId,
        name,
        address: text,
        macAddress,
        isReserved: known?.isReserved ?? false,
        usedAt: this.#usedAt(),
      };
    });
    await this.#limit(realmOfPoolId(poolId));
  }

  async #displace(before: Remembered, name: string | null): Promise<void> {
    await this.forget(before);
    if (before.name === '') return;
    this.#log.info('an address is no longer remembered for a container, as another one got it', {
      address: before.address,
      name: before.name,
      to: name ?? 'a container without a name',
    });
  }

  /** A container gave the address back. `rests`: it is to be given last of all, though no name is remembered. */
  async returned({ poolIds: [poolId = ''], address, name: container = '' }: Lease, rests: boolean): Promise<void> {
    const isItsOwn = (await this.at(realmOfPoolId(poolId), address))?.name === container;
    const name = this.#days > 0 || isItsOwn ? container : '';
    if (name === '' && !rests) return;
    await this.#change({ poolId, name, address }, (known) => {
      if (known?.address === address) return { ...known, usedAt: this.#usedAt() };
      if (name !== '') return known;
      return { poolId, name, address, macAddress: null, isReserved: false, usedAt: this.#usedAt() };
    });
    await this.#limit(realmOfPoolId(poolId));
  }

  /** The name has this address from now on whenever it asks, and nobody else who does not name it. */
  async reserve(poolId: string, name: string, address: string): Promise<Remembered> {
    const before = await this.at(realmOfPoolId(poolId), address);
    if (before !== undefined && (before.poolId !== poolId || before.name !== name)) await this.#displace(before, name);
    const reserved = { poolId, name, address, macAddress: null, isReserved: true, usedAt: this.#usedAt() };
    await this.#change(reserved, (known) => ({
      ...reserved,
      macAddress: known?.address === address ? known.macAddress : null,
    }));
    return reserved;
  }

  /** Nothing is remembered for the name there any more. */
  async forget(record: Pick<Remembered, 'poolId' | 'name' | 'address'>): Promise<void> {
    await this.load();
    await this.#change(record, () => undefined);
  }

  /** All that is remembered for the name, in whatever pool. */
  async ofName(name: string): Promise<Remembered[]> {
    return (await this.#store.names.list()).filter((record) => record.name === name);
  }

  /** Forgets what nobody has used for the time that names are kept. What a container has all that time is in use. */
  async forgetUnused(): Promise<void> {
    await this.load();
    const lastMs = this.#now().getTime() - this.#days * DAY_MS;
    for (const [realm, entries] of this.#realms) {
      for (const { key, isReserved } of [...entries.longestUnused()]) {
        if (isReserved) continue;
        const record = await this.#store.names.get(key);
        // What only rests has no name; without any days it would not rest at all.
        if (record === undefined || (record.name === '' && this.#days === 0)) continue;
        if (Date.parse(record.usedAt) > lastMs) break;
        if (!(await this.#isInUse(realm, record))) await this.forget(record);
      }
    }
  }

  /** Whether this host has leased the address at this moment; then it is used as late as now. */
  async #isInUse(realm: string, record: Remembered): Promise<boolean> {
    const lease = await this.#store.leases.get(leaseKey({ realm, address: record.address }));
    if (lease === undefined || lease.holder !== undefined) return false;
    await this.#change(record, (known) => known && { ...known, usedAt: this.#usedAt() });
    return true;
  }

  // --- records and index -----------------------------------------------------------------------------------------------

  /** Undefined removes; the same record again changes nothing. */
  async #change(
    place: Pick<Remembered, 'poolId' | 'name' | 'address'>,
    next: (known: Remembered | undefined) => Remembered | undefined,
  ): Promise<void> {
    const { names } = this.#store;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const known = await names.get(nameKey(place));
      const wanted = next(known);
      if (wanted === known) return;
      if (known === undefined && wanted !== undefined && (await names.insert(wanted))) return this.#note(wanted);
      if (known === undefined) continue;
      const isDone = await (wanted === undefined ? names.remove(known) : names.replace(known, wanted));
      if (!isDone) continue;
      if (wanted?.address !== known.address) this.#drop(known);
      if (wanted !== undefined) this.#note(wanted);
      return;
    }
  }

  #longestUnused(realm: string): Iterable<Entry> {
    return this.#realms.get(realm)?.longestUnused() ?? [];
  }

  /** Used just now: it is put behind all others. */
  #note(record: Remembered): void {
    const address = parseAddress(record.address);
    if (address === undefined) return;
    const realm = realmOfPoolId(record.poolId);
    const entries = this.#realms.get(realm) ?? new ByUse<Entry>();
    this.#realms.set(realm, entries);
    entries.use(record.address, { key: nameKey(record), address, isReserved: record.isReserved });
    this.#latestMs = Math.max(this.#latestMs, Date.parse(record.usedAt));
    this.#listeners.get(realm)?.(address, true);
  }

  #drop(record: Remembered): void {
    const { poolId, address: text } = record;
    const realm = realmOfPoolId(poolId);
    const entry = this.#realms.get(realm)?.get(text);
    if (entry === undefined || entry.key !== nameKey(record)) return;
    this.#realms.get(realm)?.delete(text);
    this.#listeners.get(realm)?.(entry.address, false);
  }

  /** Beyond the limit that goes which was unused longest; what a container has was used just now. */
  async #limit(realm: string): Promise<void> {
    const entries = this.#realms.get(realm);
    if (entries === undefined || entries.size <= this.#most) return;
    for (const { key, isReserved } of [...entries.longestUnused()]) {
      const record = isReserved ? undefined : await this.#store.names.get(key);
      if (record !== undefined && !(await this.#isInUse(realm, record))) return this.forget(record);
    }
  }

  /** A clock that was set back must not make what was used just now look unused; and no two are used at once. */
  #usedAt(): string {
    return new Date(Math.max(this.#now().getTime(), this.#latestMs + 1)).toISOString();
  }
}
