/** What the IPAM room wants of the LAN, in the words of its records: where the LAN of a pool is, and what it says. */
import { type Address, formatAddress } from '../address.ts';
import { clusterUnproven, PluginError } from '../errors.ts';
import type { AddressCheck, Lan } from '../lan/lan.ts';
import { type HeldVerdict, type Kept, type Loss, NOT_HELD, type Verdict } from '../lan/verdict.ts';
import type { Log } from '../log.ts';
import {
  type ConflictPolicy,
  type Network,
  type Pool,
  type ProbeProfile,
  type Segment,
  type Tenancy,
  segmentOf,
} from '../model.ts';
import { realmOf, type Store } from '../store/store.ts';
import { isManagers } from './swarm.ts';
import type { Probe } from './offers.ts';
import { GUESSED_SPACE, isServed, known } from './pool.ts';
import type { Keeper } from './keeper.ts';
import type { Settings } from '../settings.ts';

interface Parts {
  readonly lan: Lan;
  readonly store: Pick<Store, 'networks' | 'leases' | 'tenancies'>;
  /** As in the setting PARENTS. */
  readonly aliases: ReadonlyMap<string, string>;
  /** `conflict`, where the network says nothing: whether an address that was named is given although somebody has it. */
  readonly settings: Pick<Settings, 'conflict'>;
  readonly log: Log;
}

/** The network that CreateNetwork tied to the pool tells the parent, else `--ipam-opt parent=`; without either nobody is asked. */
export class PoolLan implements Keeper {
  readonly #lan: Lan;
  readonly #store: Parts['store'];
  readonly #aliases: ReadonlyMap<string, string>;
  readonly #settings: Parts['settings'];
  readonly #log: Log;

  constructor({ lan, store, aliases, settings, log }: Parts) {
    this.#lan = lan;
    this.#store = store;
    this.#aliases = aliases;
    this.#settings = settings;
    this.#log = log;
  }

  /** See Probe. Throws CLUSTER_UNPROVEN where only the LAN could tell, and there is none to ask. */
  readonly probe: Probe = async (pool, address, { limit, refusal, isBrief = false }): Promise<Verdict> => {
    const text = formatAddress(address);
    const leastProfile = this.#store.leases.needsProof?.({ realm: realmOf(pool), address: text }) ?? null;
    const request = await this.#request(pool, address, limit?.signal, limit?.atMs);
    if (request === null && leastProfile !== null && !(await this.#isOnNoLan(pool))) throw clusterUnproven(text);
    if (request === null) return NOT_HELD;
    const tenant = isServed(pool) ? undefined : await this.#tenantOf(request);
    if (tenant !== undefined) return tenant;
    const check = { ...request, leastProfile, isBrief: isBrief && leastProfile === null };
    // A container of a lost host may have it and go on: nothing but its silence promises that it is free.
    const policy = refusal !== null && leastProfile === null ? await this.#policyOf(pool) : 'refuse';
    const isFirm = policy === 'refuse' && refusal !== null && limit !== null;
    const asked = isFirm ? this.#lan.insist(check, limit, refusal) : this.#lan.check(check);
    const verdict = await asked.catch((error: unknown) => {
      // A manager of a swarm need not be on the LAN itself: the node that gets the task asks.
      if (isManagers(pool) && error instanceof PluginError && error.code === 'PROBE_PARENT_GONE') return NOT_HELD;
      throw error;
    });
    if (!verdict.held || verdict.isOnHost || policy === 'refuse') return verdict;
    const { macAddress: by, linkName: on } = verdict;
    this.#log.warn('an address is given out although somebody else has it', { address: text, by, on, pool: pool.id });
    return NOT_HELD;
  };

  async #policyOf(pool: Pool): Promise<ConflictPolicy> {
    return (await this.#networkOf(pool))?.options.conflict ?? this.#settings.conflict;
  }

  /** See Keeper. Only for pools of our own networks. */
  async parentOf(pool: Pool): Promise<string | null> {
    const network = await this.#networkOf(pool);
    const segment = await this.#segmentOf(pool);
    if (network === undefined || network.options.mode === 'passthru' || segment === null) return null;
    return this.#lan.asks(segment) ? segment.parentName : null;
  }

  /** See Keeper. */
  get mostAtOnce(): number {
    return this.#lan.mostAtOnce;
  }

  /** See Keeper. */
  async keep(
    pool: Pool,
    address: Address,
    lost: (loss: Loss) => void,
    signal: AbortSignal,
    isGuess = pool.addressSpace === GUESSED_SPACE,
  ): Promise<Kept | Loss | null> {
    const request = await this.#request(pool, address, signal);
    if (request !== null && (await this.#tenantOf(request)) !== undefined) return 'used';
    return request === null ? null : this.#lan.keep({ ...request, isGuess }, lost);
  }

  /** See Keeper. */
  async isKept(pool: Pool, address: Address): Promise<boolean> {
    const request = await this.#request(pool, address);
    return request !== null && this.#lan.isOnStandby(request);
  }

  /** See Keeper. */
  async release(pool: Pool, address: Address): Promise<void> {
    const request = await this.#request(pool, address);
    if (request !== null) this.#lan.release(request);
  }

  /** See Keeper. */
  async askAhead(pool: Pool, addresses: readonly Address[]): Promise<void> {
    const segment = await this.#segmentOf(pool);
    if (segment !== null) this.#lan.askAhead(segment.parentName, addresses);
  }

  async #request(pool: Pool, address: Address, signal?: AbortSignal, atMs?: number): Promise<AddressCheck | null> {
    const segment = await this.#segmentOf(pool);
    return segment && { ...segment, address, subnet: known(pool.subnet), signal, atMs };
  }

  /**
   * A container of this host that has the address of the LAN's DHCP server, until its lease is over. It is not always heard: it
   * may just be made, or be stopped.
   */
  async #tenantOf({ parentName, address }: AddressCheck): Promise<HeldVerdict | undefined> {
    const text = formatAddress(address);
    const tenancies = await this.#store.tenancies.list(`${parentName} `);
    const tenancy = tenancies.find((one) => one.address.startsWith(`${text}/`) && isInForce(one));
    if (tenancy === undefined) return undefined;
    const { macAddress } = tenancy;
    return { held: true, macAddress, linkName: parentName, simultaneous: false, isOnHost: true };
  }

  async #networkOf({ networkId }: Pool): Promise<Network | undefined> {
    return networkId === null ? undefined : this.#store.networks.get(networkId);
  }

  async #isOnNoLan(pool: Pool): Promise<boolean> {
    const network = await this.#networkOf(pool);
    return network !== undefined && segmentOf(network) === null;
  }

  async #segmentOf(pool: Pool): Promise<Segment | null> {
    const { options } = pool;
    const profile = (options['probe'] as ProbeProfile | undefined) ?? null;
    const network = await this.#networkOf(pool);
    if (network !== undefined) {
      const segment = segmentOf(network);
      return segment && { ...segment, profile: profile ?? segment.profile };
    }
    const named = options['parent'];
    return named === undefined ? null : { parentName: this.#aliases.get(named) ?? named, mode: 'bridge', profile };
  }
}

/** A container has it, whatever its server says, or comes back to it. */
function isInForce({ state, obtainedAt, leaseSeconds }: Tenancy): boolean {
  return state !== 'aside' || Date.now() < Date.parse(obtainedAt) + leaseSeconds * 1000;
}
