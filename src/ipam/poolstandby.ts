/** What is on standby for one pool, what is being asked for it, and what is to be asked next. Pure, but for the map of those avoided. */
import { type Address, formatAddress } from '../address.ts';
import type { Kept } from '../lan/verdict.ts';
import { Demand, ON_STANDBY } from './demand.ts';
import { isOfSwarm, type Pool } from '../model.ts';
import { isServed, type Layout } from './pool.ts';
import type { Realm } from './realm.ts';

/** What of a realm, or of what takes its place, tells which addresses are to be asked for, and hears what the LAN said. */
export type FreeAddresses = Pick<Realm, 'isFree' | 'isOpen' | 'next' | 'spares' | 'passOver' | 'foundFree'>;

/** An address on standby. */
interface Ready {
  readonly address: Address;
  readonly kept: Kept;
  /** Given back by a container, it costs the LAN nothing and stays until then, in ms of the clock. */
  leftUntilMs: number;
}

/** One pool's. */
export interface PoolStandby {
  readonly poolId: string;
  readonly demand: Demand;
  readonly ready: Map<string, Ready>;
  /** Addresses that are being asked for, by text. */
  readonly asked: Map<string, Address>;
  /** Called when one of them is decided. */
  readonly listeners: Set<() => void>;
  /** Callers who wait for one of them. */
  waiting: number;
  /** The first of them have all been probed: until then a higher one may be ready while a lower one is not yet. */
  isFilled: boolean;
  /** Its LAN is not asked, or not so: there is nothing to keep. */
  isWithout: boolean;
  /** The one on whose LAN its addresses are asked for; null before the first. */
  parentName: string | null;
  /** A batch is about to be asked for. */
  isChoosing: boolean;
  /** The LAN could not be asked: until then (ms of the clock) no call asks for a batch. */
  pausedUntilMs: number;
  /** Addresses that others wanted, by text, and until when (ms of the clock) they are left alone. */
  readonly avoided: Map<string, number>;
  readonly controller: AbortController;
  /** The last one given where the order is sequential. */
  after: bigint | null;
  /** Refills one after the other that found no free address. */
  misses: number;
  refilling: Promise<void> | undefined;
  cancelTimer: () => void;
  dueMs: number;
}

/** Addresses on standby or asked for, of all pools together: more than the usual ones of each, and of a few as many as may be. */
const MOST_IN_ALL = 512;
/** Addresses of all pools that are asked for at a time. */
const MOST_ASKED = 128;
/** In a small range no more than one of so many free addresses is on standby: another host may want them too. */
const SHARE = 2;

/** A pool of which nothing was asked yet. */
export function newPoolStandby(poolId: string): PoolStandby {
  return {
    poolId,
    demand: new Demand(),
    ready: new Map(),
    asked: new Map(),
    listeners: new Set(),
    waiting: 0,
    isFilled: false,
    isWithout: false,
    parentName: null,
    isChoosing: false,
    pausedUntilMs: Number.NEGATIVE_INFINITY,
    avoided: new Map(),
    controller: new AbortController(),
    after: null,
    misses: 0,
    refilling: undefined,
    cancelTimer: () => undefined,
    dueMs: Number.POSITIVE_INFINITY,
  };
}

/** Addresses that are on standby or about to be. */
export function have({ ready, asked }: PoolStandby): number {
  return ready.size + asked.size;
}

/** Those on standby that anyone may have, the one to give out next first. */
export function inOrder({ ready, after }: PoolStandby, realm: FreeAddresses): Address[] {
  const free = Array.from(ready.values(), ({ address }) => address).filter((one) => realm.isOpen(one));
  free.sort((a, b) => (a.value < b.value ? -1 : 1));
  const isLater = ({ value }: Address) => after !== null && value > after;
  return [...free.filter(isLater), ...free.filter((one) => !isLater(one))];
}

/** Of a network of ours; not of a swarm's, of which more than always are on standby nowhere. */
export function isOurs({ networkId, options }: Pool): boolean {
  return !isServed({ options }) && networkId !== null && !isOfSwarm(networkId);
}

/** How many more addresses of the pool may be asked for at this moment; of `all` pools `mostOnParent` on one LAN. */
export function roomFor({ parentName }: PoolStandby, all: readonly PoolStandby[], mostOnParent: number): number {
  const asked = (pools: readonly PoolStandby[]) => pools.reduce((sum, one) => sum + one.asked.size, 0);
  const here = asked(all.filter((one) => one.parentName === parentName));
  const inAll = all.reduce((sum, one) => sum + have(one), 0);
  return Math.max(0, Math.min(mostOnParent - here, MOST_ASKED - asked(all), MOST_IN_ALL - inAll));
}

/** Of the addresses that are being asked for those that anyone may have. */
export function openAsked({ asked }: PoolStandby, realm: FreeAddresses): Address[] {
  return [...asked.values()].filter((address) => realm.isOpen(address));
}

/** One is ready, and none below it is being asked for; or none is being asked for at all. */
export function isDecided(standby: PoolStandby, realm: FreeAddresses): boolean {
  const values = openAsked(standby, realm).map(({ value }) => value);
  if (values.length === 0) return true;
  const { ready } = standby;
  const isLowest = (address: Address) => realm.isOpen(address) && values.every((value) => value > address.value);
  return Array.from(ready.values()).some(({ address }) => isLowest(address));
}

/**
 * The next free addresses that are neither on standby nor avoided nor asked for, as many as are missing to have `many`; when
 * nothing else is free those that are remembered for containers which were away longest.
 */
export function missing(
  standby: PoolStandby,
  realm: FreeAddresses,
  layout: Layout,
  many: number,
  nowMs: number,
): readonly Address[] {
  const { ready, asked, avoided } = standby;
  for (const [text, untilMs] of avoided) if (untilMs <= nowMs) avoided.delete(text);
  const passed = have(standby) + avoided.size;
  const found = new Map<string, Address>();
  let after = layout.order === 'sequential' ? standby.after : null;
  for (let step = 0; step < passed + many && have(standby) + found.size < many; step++) {
    const address = realm.next(layout, after);
    if (address === undefined || found.has(formatAddress(address))) break;
    after = address.value;
    const text = formatAddress(address);
    if (!ready.has(text) && !asked.has(text) && !avoided.has(text)) found.set(text, address);
  }
  const rest = many - have(standby) - found.size;
  const isNew = (address: Address) => [ready, asked, avoided, found].every((one) => !one.has(formatAddress(address)));
  const spares =
    rest <= 0
      ? []
      : realm
          .spares(layout, passed + rest)
          .filter(isNew)
          .slice(0, rest);
  return [...found.values(), ...spares];
}

/** As many as are wanted, but of a small range no more than a fair share of what is free, and no fewer than always. */
export function fairShare(realm: FreeAddresses, layout: Layout, wanted: number): number {
  if (wanted <= ON_STANDBY) return wanted;
  return Math.max(ON_STANDBY, Math.min(wanted, Math.floor(countFree(realm, layout, wanted * SHARE) / SHARE)));
}

/** Free addresses of the range; `most` if there are more. */
function countFree(realm: FreeAddresses, layout: Layout, most: number): number {
  let count = 0;
  let last = -1n;
  for (let next = realm.next(layout, null); count < most; next = realm.next(layout, last), count++) {
    if (next === undefined || next.value <= last) break;
    last = next.value;
  }
  return count === most ? most : count + realm.spares(layout, most - count).length;
}

/** Those on standby for containers that have come back, or are long expected; none where others could need them. */
export function longRecalled({ ready }: PoolStandby, realm: FreeAddresses, layout: Layout, nowMs: number): string[] {
  if (realm.next(layout, null) === undefined) return [];
  const isOver = ({ address, leftUntilMs }: Ready) => leftUntilMs <= nowMs && !realm.isOpen(address);
  return [...ready].flatMap(([text, one]) => (isOver(one) ? text : []));
}

/** Of those that are ready more than `wanted`, the last in order; not what was given back just now. */
export function tooMany({ ready }: PoolStandby, wanted: number, nowMs: number): string[] {
  const inOrder = [...ready].sort(([, a], [, b]) => (a.address.value > b.address.value ? -1 : 1));
  return inOrder
    .filter(([, { leftUntilMs }]) => leftUntilMs <= nowMs)
    .slice(0, Math.max(0, ready.size - wanted))
    .map(([text]) => text);
}
