/**
 * Which addresses another IPAM gives out next, so that they are kept on standby as those of our own pools are. A network
 * driver hears of such an address in CreateEndpoint, when the container waits for it already: each of a burst would wait for a
 * window of its own. A wrong guess costs some frames, and nobody ever sees it.
 *
 * Docker's IPAM gives out the lowest free address of the subnet, or of `--ip-range` (bitmap.SetAny, which libnetwork's
 * ipams/defaultipam calls; only swarm asks for the next after the last, by com.docker.network.ipam.serial). Engines 20.10.24 and
 * 28.5.2, with range .64/26, gateway .65 and .67 auxiliary: five containers got .64, .66, .68, .69, .70; when the second was
 * removed the next got .66; and when those of .69 and .68 were, in this order, three more got .68, .69, .71. IPv6 alike. A
 * network driver is not told the range: where it begins is learnt from what endpoints get.
 */
import { type Address, formatAddress, parseAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { backgroundClock, type Clock } from '../clock.ts';
import { isOfSwarm, type Network, type NetworkSubnet, type Pool } from '../model.ts';
import { PassedOver } from './passed-over.ts';
import { GUESSED_SPACE, known, type Layout, layoutOf, nextAddress } from './pool.ts';
import type { FreeAddresses } from './poolstandby.ts';
import type { Keeper } from './keeper.ts';
import { Standby } from './standby.ts';

interface Parts {
  readonly keeper: Keeper;
  /** Whether a container on this parent has the address. */
  readonly isUsed: (parentName: string, address: Address) => boolean;
  readonly clock?: Clock;
  /** 0 to 1, as Math.random. */
  readonly random?: () => number;
}

/** Addresses of a subnet that are given out one after the other, as far as can be seen; to the standby it looks like a pool. */
interface Run {
  readonly pool: Pool;
  /** The lowest that was given. */
  readonly from: bigint;
  readonly addresses: FreeAddresses;
}

/** Of a subnet: what its IPAM chooses, and what users name beside that. */
const RUNS_A_SUBNET = 2;
/** Those that went on last. */
const MOST_RUNS = 64;
/** From the beginning of CreateEndpoint to the endpoint's record it takes no longer. */
const ARRIVAL_MS = 10_000;
const MOST_ARRIVING = 1024;
/** More containers than this in a row are on no parent. */
const MOST_STEPS = 4096;

/** What other IPAMs are likely to give out. Never throws into a call. */
export class Guesses {
  readonly #parts: Parts;
  readonly #clock: Clock;
  readonly #standby: Standby;
  /** By pool id, in the order in which they went on. */
  readonly #runs = new LatestMap<string, Run>(MOST_RUNS);
  /** By parent and address, until when an endpoint without a record may be on its way. */
  readonly #arriving = new LatestMap<string, number>(MOST_ARRIVING);

  constructor(parts: Parts) {
    const { keeper, clock = backgroundClock, random = Math.random } = parts;
    this.#parts = parts;
    this.#clock = clock;
    const pools = {
      get: async (id: string) => this.#runs.get(id)?.pool,
      // Of the other family, too, the run that went on last is likely to go on.
      list: async () => Array.from(this.#runs.values(), ({ pool }) => pool).reverse(),
    };
    const realmOf = async ({ id }: Pool) => this.#runs.get(id)?.addresses ?? NOTHING_FREE;
    this.#standby = new Standby({ pools, realmOf, keeper, clock, random });
  }

  /** The LAN of a network, or of all, can be asked again: what was guessed is kept ready again. */
  async start(networkId?: string): Promise<void> {
    await this.#standby.start(networkId);
  }

  /**
   * An endpoint of the network is being made with an address that the subnet's own IPAM chose, and the LAN is about to be asked
   * for it. `isReady`: it is on standby. In a swarm the managers choose, for all nodes together.
   */
  given(network: Network, subnet: NetworkSubnet, address: Address, isReady: boolean): void {
    if (isOfSwarm(network.id)) return;
    const parentName = network.parent.name;
    const run = this.#runWith(network, subnet, address);
    this.#arriving.put(placeOf(parentName, address), this.#clock.nowMs() + ARRIVAL_MS);
    if (run === undefined) return;
    const { pool, addresses, from } = run;
    this.#standby.expect(pool);
    this.#standby.next(pool, addresses, from - 1n);
    this.#standby.refill(pool);
    this.#standby.askAhead(pool, addresses);
    if (isReady || this.#standby.isAsked(pool, address)) this.#standby.used(pool, addresses);
    else this.#standby.missed(pool, addresses, 0);
  }

  /** The endpoint is gone, so that its address may be given again. If the LAN room has kept it, it is on standby at once. */
  async returned(network: Network, { subnet }: NetworkSubnet, address: Address): Promise<void> {
    this.#arriving.delete(placeOf(network.parent.name, address));
    const run = this.#runsOf(network.id, subnet).find(({ from }) => from <= address.value);
    if (run !== undefined) await this.#standby.released(run.pool, address);
  }

  /** The network is gone. */
  forget(networkId: string): void {
    for (const run of this.#runs.values()) if (run.pool.networkId === networkId) this.#end(run);
  }

  /** Ends the probes under way; nothing is on standby any more. */
  async close(): Promise<void> {
    await this.#standby.close();
  }

  /**
   * The run that the address goes on, or that begins with it. Undefined when it is likely that a user named it: the address
   * before it is free, so that the IPAM would have chosen that.
   */
  #runWith(network: Network, subnet: NetworkSubnet, address: Address): Run | undefined {
    const runs = this.#runsOf(network.id, subnet.subnet);
    const run = runs.find((one) => this.#goesOn(one, address));
    if (run === undefined && runs.length > 0 && !this.#isBehindUsed(network, subnet, address)) return undefined;
    if (run === undefined && runs.length >= RUNS_A_SUBNET) this.#end(runs[0] as Run);
    const going = run ?? this.#begin(network, subnet, address);
    const longestUnused = this.#runs.put(going.pool.id, going);
    if (longestUnused !== undefined) this.#standby.forget(longestUnused.pool.id);
    return going;
  }

  #runsOf(networkId: string, subnet: string): Run[] {
    const runs = [...this.#runs.values()];
    return runs.filter(({ pool }) => pool.networkId === networkId && pool.subnet === subnet);
  }

  #goesOn({ pool, addresses, from }: Run, address: Address): boolean {
    if (this.#standby.has(pool, address)) return true;
    const next = addresses.next(layoutOf(pool), from - 1n)?.value;
    return from <= address.value && next !== undefined && address.value <= next;
  }

  #isBehindUsed({ parent }: Network, { subnet, gateway }: NetworkSubnet, { family, value }: Address): boolean {
    const before = { family, value: value - 1n };
    const isReserved = before.value <= known(subnet).first || formatAddress(before) === gateway;
    return isReserved || this.#isUsed(parent.name, before);
  }

  #begin({ id: networkId, parent }: Network, { subnet, gateway }: NetworkSubnet, address: Address): Run {
    const isUsed = (one: Address) => this.#isUsed(parent.name, one);
    const begunAt = new Date().toISOString();
    const pool: Pool = {
      id: `${networkId} ${subnet} ${formatAddress(address)}`,
      addressSpace: GUESSED_SPACE,
      subnet,
      range: null,
      options: { order: 'sequential', ...(isKnown(gateway) && { exclude: gateway }) },
      networkId,
      createdAt: begunAt,
      changedAt: begunAt,
    };
    const addresses = new UnusedAddresses(isUsed, this.#clock);
    return { pool, from: address.value, addresses };
  }

  #isUsed(parentName: string, address: Address): boolean {
    const untilMs = this.#arriving.get(placeOf(parentName, address)) ?? Number.NEGATIVE_INFINITY;
    return this.#clock.nowMs() < untilMs || this.#parts.isUsed(parentName, address);
  }

  #end({ pool }: Run): void {
    this.#runs.delete(pool.id);
    this.#standby.forget(pool.id);
  }
}

/** Found by a look at each, as containers on one parent are few; what others on the LAN have is passed over for a while. */
class UnusedAddresses implements FreeAddresses {
  readonly #isUsed: (address: Address) => boolean;
  readonly #passedOver: PassedOver;

  constructor(isUsed: (address: Address) => boolean, clock: Pick<Clock, 'nowMs'>) {
    this.#isUsed = isUsed;
    this.#passedOver = new PassedOver(() => clock.nowMs());
  }

  isFree(address: Address): boolean {
    return !this.#isUsed(address) && !this.#passedOver.has(address);
  }

  isOpen(address: Address): boolean {
    return this.isFree(address);
  }

  spares(): Address[] {
    return [];
  }

  next(layout: Layout, after: bigint | null): Address | undefined {
    this.#passedOver.expire();
    const { family } = layout.subnet;
    const nextFree = (from: bigint, to: bigint) => {
      for (let value = from; value <= to && value < from + BigInt(MOST_STEPS); value++)
        if (this.isFree({ family, value })) return value;
      return undefined;
    };
    const value = nextAddress(layout, { nextFree }, after);
    return value === undefined ? undefined : { family, value };
  }

  passOver(address: Address, finding: 'used' | 'wanted'): void {
    this.#passedOver.add(address, finding);
  }

  foundFree(address: Address): void {
    this.#passedOver.forget(address);
  }
}

function isKnown(gateway: string | null): gateway is string {
  return gateway !== null && parseAddress(gateway) !== undefined;
}

/** Of a run that has ended meanwhile. */
const NOTHING_FREE: FreeAddresses = {
  isFree: () => false,
  isOpen: () => false,
  spares: () => [],
  next: () => undefined,
  passOver: () => undefined,
  foundFree: () => undefined,
};

function placeOf(parentName: string, address: Address): string {
  return `${parentName} ${formatAddress(address)}`;
}
