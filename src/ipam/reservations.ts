/** What an administrator says of names and addresses: `tsmacvlan reserve` and `unreserve`. */
import { type Address, contains, formatAddress, parseAddress } from '../address.ts';
import * as errors from '../errors.ts';
import type { Log } from '../log.ts';
import type { Lease, Pool, Remembered } from '../model.ts';
import type { CallLimit, NameRequest, ReserveRequest } from '../requests.ts';
import { leaseKey, realmOf, type Store } from '../store/store.ts';
import type { Keeper } from './keeper.ts';
import type { Leases } from './leases.ts';
import type { Names } from './names.ts';
import type { Offers } from './offers.ts';
import { excludedBy, isSearched, known, nameOf, reservedMeaning } from './pool.ts';
import type { Standby } from './standby.ts';
import { sistersOf } from './swarm.ts';

interface Parts {
  readonly store: Pick<Store, 'pools' | 'leases' | 'endpoints'>;
  readonly leases: Leases;
  readonly offers: Offers;
  readonly names: Names;
  readonly standby: Standby;
  readonly keeper: Pick<Keeper, 'keep'>;
  readonly log: Pick<Log, 'warn'>;
}

/** Longer than the LAN is asked by any profile. */
const ASK_ON_MS = 15_000;

/** Reserves addresses for names, and takes that back. What is refused changes nothing. */
export class Reservations {
  readonly #store: Parts['store'];
  readonly #leases: Leases;
  readonly #offers: Offers;
  readonly #names: Names;
  readonly #standby: Standby;
  readonly #keeper: Parts['keeper'];
  readonly #log: Parts['log'];

  constructor({ store, leases, offers, names, standby, keeper, log }: Parts) {
    this.#store = store;
    this.#leases = leases;
    this.#offers = offers;
    this.#names = names;
    this.#standby = standby;
    this.#keeper = keeper;
    this.#log = log;
  }

  /**
   * The name's containers get the address from now on, and no others. Throws ADDRESS_MALFORMED, RESERVE_OUTSIDE, RESERVE_EXCLUDED,
   * ADDRESS_RESERVED, ADDRESS_HELD, RESERVE_AMBIGUOUS, RESERVE_ELSEWHERE, RESERVE_UNNAMED, ADDRESS_RESERVED_FOR, ADDRESS_TAKEN and RESERVE_HELD.
   */
  async reserve({ name, address: text, networkId, limit }: ReserveRequest): Promise<Remembered> {
    const address = parseAddress(text);
    if (address === undefined) throw errors.addressMalformed(text, `tsmacvlan reserve ${name}`);
    const pool = await this.#poolOf(address, name, networkId);
    const wanted: Lease = { ...this.#offers.lease(pool, address, 'container', name), isReserving: true };
    return this.#leases.alone(address, wanted, { option: 'address', limit }, async (claim) => {
      await this.#refuseElsewhere(pool, name, formatAddress(address));
      const existing = await this.#store.leases.get(leaseKey(wanted));
      const act = () => this.#reserve(pool, name, address);
      if (existing !== undefined && isOf(existing, name, [pool])) return act();
      const lease = await claim().catch((error: unknown) => {
        throw asOfUnnamed(existing, pool, name, error);
      });
      // A gateway of a swarm's, which is shared by whoever claims it.
      if (lease !== wanted) throw errors.reserveOutside(lease.address, [nameOf(pool)]);
      const reserved = await this.#whileFree(pool, address, lease, limit, act);
      void this.#askOn(pool, address, name).catch(() => undefined);
      return reserved;
    });
  }

  /** It has one reserved address on a network, in whichever of its pools. */
  async #reserve(pool: Pool, name: string, address: Address): Promise<Remembered> {
    const reserved = await this.#names.reserve(pool.id, name, formatAddress(address));
    for (const { id } of sistersOf(pool, await this.#store.pools.list()))
      await this.#names.forget({ poolId: id, name, address: '' });
    return reserved;
  }

  /** No search finds the address, and no other host of a shared store, while the LAN is asked for it and `act` runs. */
  async #whileFree<T>(pool: Pool, address: Address, lease: Lease, limit: CallLimit, act: () => Promise<T>): Promise<T> {
    const verdict = await this.#offers.ask(pool, address, lease, { limit, refusal: null, isBrief: true });
    if (verdict.held) {
      const { isOnHost, macAddress, linkName } = verdict;
      if (isOnHost) throw errors.addressOnHost(lease.address, macAddress, linkName, 'address');
      throw errors.reserveHeld(lease.address, macAddress, linkName);
    }
    try {
      return await act();
    } finally {
      await this.#leases.giveUp(address, lease.realm, pool.id);
      await this.#standby.released(pool, address);
    }
  }

  /**
   * Who is slow to answer, as what sleeps is, is looked for when the reservation is made: it gives the address to nobody, and the
   * start that does asks the LAN again. What is found is a conflict's record and a line in the log.
   */
  async #askOn(pool: Pool, address: Address, name: string): Promise<void> {
    const kept = await this.#keeper.keep(pool, address, () => undefined, AbortSignal.timeout(ASK_ON_MS));
    if (kept === 'used')
      this.#log.warn('somebody on the LAN has an address that was just reserved', {
        address: formatAddress(address),
        name,
      });
    else if (typeof kept === 'object') kept?.release();
  }

  async #poolOf(address: Address, name: string, networkId: string | null): Promise<Pool> {
    const pools = await this.#poolsOf(networkId);
    const found = pools.filter((pool) => contains(known(pool.subnet), address));
    const text = formatAddress(address);
    if (found.length === 0)
      throw errors.reserveOutside(
        text,
        pools.map(({ subnet }) => subnet),
      );
    const searched = found.filter((one) => isSearched(one, address));
    if (searched.length === 0) throw refusalOf(address, found);
    const named = await this.#withName(searched, name);
    const [pool, other] = named.length === 1 ? named : searched;
    if (pool === undefined || other !== undefined)
      throw errors.nameAmbiguous(
        text,
        searched.map((one) => one.networkId ?? ''),
      );
    return pool;
  }

  /** Of several networks with the address that one is meant which knows the name. */
  async #withName(pools: readonly Pool[], name: string): Promise<Pool[]> {
    const found = await Promise.all(pools.map(({ id }) => this.#names.find(id, name)));
    return pools.filter((_, index) => found[index] !== undefined);
  }

  /** Of all networks here, or of the one that was named. Throws USAGE for one that is not here. */
  async #poolsOf(networkId: string | null): Promise<Pool[]> {
    const pools = (await this.#store.pools.list()).filter((pool) => isOfNetwork(pool, networkId));
    if (networkId !== null && pools.length === 0) throw errors.networkNotNamed(networkId, 0, 'give --network');
    return pools;
  }

  /** Its container would have two addresses on one network, of which the second comes true only at its next start. */
  async #refuseElsewhere(pool: Pool, name: string, address: string): Promise<void> {
    const pools = [pool, ...sistersOf(pool, await this.#store.pools.list())];
    for (const other of await this.#perhapsIts(pools, name)) {
      const lease = await this.#store.leases.get(leaseKey({ realm: realmOf(pool), address: other }));
      if (other !== address && lease !== undefined && isOf(lease, name, pools))
        throw errors.reserveElsewhere(name, other, address);
    }
  }

  /** What the name had last, as its container may be on its way; and what containers have, as one may have been named with --ip. */
  async #perhapsIts(pools: readonly Pool[], name: string): Promise<Set<string>> {
    const last = await Promise.all(pools.map(({ id }) => this.#names.find(id, name)));
    const endpoints = (await this.#store.endpoints.list()).filter(({ networkId }) => networkId === pools[0]?.networkId);
    const had = endpoints.flatMap(({ addresses }) => addresses.map(formatAddress));
    return new Set([...last.flatMap((record) => record?.address ?? []), ...had]);
  }

  /**
   * What the name has on a network, reserved or only remembered, is anybody's again; a container that runs keeps its address
   * until it ends. Throws NAME_UNKNOWN, RESERVE_AMBIGUOUS.
   */
  async unreserve({ name, networkId }: NameRequest): Promise<Remembered[]> {
    const pools = new Map((await this.#store.pools.list()).map((pool) => [pool.id, pool]));
    const networkOf = ({ poolId }: Remembered) => pools.get(poolId)?.networkId ?? '';
    const records = (await this.#names.ofName(name)).filter(
      (record) => networkId === null || networkOf(record).startsWith(networkId),
    );
    if (records.length === 0) await this.#poolsOf(networkId);
    if (records.length === 0) throw errors.nameUnknown(name);
    const networks = [...new Set(records.map(networkOf))];
    if (networkId === null && networks.length > 1) throw errors.nameAmbiguous(name, networks);
    for (const record of records) await this.#names.forget(record);
    return records;
  }
}

/** No search gives the address out of these pools, in whose subnets it lies. */
function refusalOf(address: Address, pools: readonly Pool[]): errors.PluginError {
  const text = formatAddress(address);
  for (const pool of pools) {
    const meaning = reservedMeaning(known(pool.subnet), address);
    if (meaning !== undefined) return errors.addressReserved(text, pool.subnet, meaning, 'address');
    const entry = excludedBy(pool, address);
    if (entry !== undefined) return errors.reserveExcluded(text, entry);
  }
  return errors.reserveOutside(text, pools.map(nameOf));
}

function isOfNetwork(pool: Pool, networkId: string | null): boolean {
  return pool.networkId !== null && pool.networkId.startsWith(networkId ?? '');
}

/** An engine before 29 said no name of the container that has the address: it may well be the one that is meant. */
function asOfUnnamed(existing: Lease | undefined, { networkId }: Pool, name: string, error: unknown): unknown {
  const isTaken = error instanceof errors.PluginError && error.code === 'ADDRESS_TAKEN';
  if (!isTaken || existing?.kind !== 'container' || existing.name !== undefined) return error;
  if (existing.holder !== undefined || existing.endpointId === null) return error;
  return errors.reserveUnnamed(existing.address, existing.endpointId, networkId, name);
}

/** The container of the name has it, out of one of these pools. */
function isOf({ kind, name: container, poolIds, isReserving }: Lease, name: string, pools: readonly Pool[]): boolean {
  const isIts = kind === 'container' && container === name && isReserving !== true;
  return isIts && pools.some(({ id }) => poolIds.includes(id));
}
