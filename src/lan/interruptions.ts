/**
 * What interrupts our knowledge of a LAN, and what has to be asked again then: carrier, links that go down or away, a switch
 * port that forwards late, a host that slept.
 */
import { type Address, type Prefix, prefixOf } from '../address.ts';
import { backgroundClock, type Clock } from '../clock.ts';
import type { Links } from '../kernel/link.ts';
import type { Log } from '../log.ts';
import type { InterfaceAddress } from '../model.ts';
import { Carrier } from './carrier.ts';
import { type LifeSign, openLifeSign } from './lifesign.ts';
import { Patrol } from './patrol.ts';
import { Rechecks } from './rechecks.ts';
import { Settling } from './settling.ts';
import { SuspendWatch, type SleeplessClock } from './suspend.ts';
import type { Verdict } from './verdict.ts';

/** A container whose addresses are asked for again when its parent is back. */
export interface OnInterruptedParent {
  readonly id: string;
  readonly parentName: string;
  readonly addresses: readonly InterfaceAddress[];
}

/** What it works with, and whom it tells. */
export interface InterruptionsParts<Endpoint extends OnInterruptedParent> {
  readonly links: Pick<Links, 'byName' | 'byIndex' | 'list' | 'onChange' | 'readChanges'>;
  readonly log: Pick<Log, 'warn'>;
  /** All that is known of the parent's LAN is void, and so is what is being asked at this moment. */
  readonly outdate: (parentName: string) => void;
  /** The parent's LAN can be asked again. */
  readonly onBack: (parentName: string) => void;
  /** Whether somebody else has the address of this container by now; tells if so. Never throws. */
  readonly recheck: (endpoint: Endpoint, address: InterfaceAddress) => Promise<void>;
  /** Whether a frame may be sent on the link of this index now. */
  readonly spare: (linkIndex: number) => boolean;
  readonly clock?: Clock;
  readonly sleepless?: readonly SleeplessClock[];
  readonly listen?: (parentName: string) => Promise<LifeSign | undefined>;
}

/** A question that waits until the parent's LAN can be asked. */
export interface AwaitedAddress {
  readonly parentName: string;
  readonly address: Address;
  readonly subnet: Prefix;
  readonly signal?: AbortSignal | undefined;
}

/** Follows the parents of all LANs that are asked, and asks again for what is in use. */
export class Interruptions<Endpoint extends OnInterruptedParent> {
  readonly #parts: InterruptionsParts<Endpoint>;
  readonly #clock: Clock;
  readonly #carrier: Carrier;
  readonly #settling: Settling;
  readonly #rechecks: Rechecks<{ endpoint: Endpoint; address: InterfaceAddress }>;
  readonly #patrol: Patrol<{ endpoint: Endpoint; address: InterfaceAddress }>;
  readonly #suspend: SuspendWatch;
  readonly #endpoints = new Map<string, Endpoint>();
  /** Said once for each, until another host is heard there. */
  readonly #deaf = new Set<string>();

  constructor(parts: InterruptionsParts<Endpoint>) {
    this.#parts = parts;
    this.#clock = parts.clock ?? backgroundClock;
    const clock = this.#clock;
    const { links, listen = (name) => listenOn(parts, name) } = parts;
    this.#carrier = new Carrier({
      links,
      onLost: (name) => this.#lost(name),
      onBack: (name, isNewCable) => this.#back(name, isNewCable),
    });
    this.#settling = new Settling({
      clock,
      listen,
      likely: (name) =>
        this.#on(name).flatMap(({ address }) => [...likelyIn(prefixOf(address, address.length)), address]),
      onSettled: (name, isHeard) => this.#settled(name, isHeard),
    });
    this.#rechecks = new Rechecks({
      clock,
      inUse: (name) => this.#on(name),
      recheck: ({ endpoint, address }) => parts.recheck(endpoint, address),
    });
    this.#patrol = new Patrol({
      clock,
      all: () => [...this.#endpoints.values()].flatMap(inUse),
      ask: async ({ endpoint, address }) => {
        // A parent without a carrier asks when it is back.
        if (this.#endpoints.get(endpoint.id) !== endpoint || this.#carrier.isAway(endpoint.parentName)) return;
        await parts.recheck(endpoint, address);
      },
    });
    this.#suspend = new SuspendWatch(clock, () => this.#carrier.wake(), parts.sleepless);
  }

  /**
   * The parent's LAN is about to be asked. What the kernel has told of it until now is known when this returns; of a parent that
   * was not followed before the first reading follows.
   */
  follow(parentName: string): void {
    this.#suspend.look();
    this.#parts.links.readChanges();
    this.#carrier.follow(parentName);
  }

  /** The endpoint's addresses are in use until forget(). */
  watch(endpoint: Endpoint): void {
    this.#endpoints.set(endpoint.id, endpoint);
    this.#carrier.follow(endpoint.parentName);
  }

  /** Nobody listened for a while: the addresses in use are asked for, as on parents that are back. */
  recheck(): void {
    const parentNames = new Set([...this.#endpoints.values()].map(({ parentName }) => parentName));
    for (const parentName of parentNames) this.#rechecks.begin(parentName);
  }

  /** The endpoint goes. */
  forget(endpointId: string): void {
    this.#endpoints.delete(endpointId);
  }

  /** Silence on this parent's LAN says nothing: it has no carrier, or its port may not forward yet. */
  isDeaf(parentName: string): boolean {
    return this.#carrier.isAway(parentName) || this.#settling.has(parentName);
  }

  /**
   * What `ask` finds when it could be heard: it is called once the parent's port forwards, and again when the parent was away
   * meanwhile. At `untilMs` (performance.now()) it is called all the same, as the LAN may have no other host. Throws what
   * it throws, and the signal's reason.
   */
  async uninterrupted(awaited: AwaitedAddress, untilMs: number, ask: () => Promise<Verdict>): Promise<Verdict> {
    const { links } = this.#parts;
    for (;;) {
      links.readChanges();
      await this.#settle(awaited, untilMs);
      links.readChanges();
      const era = this.#carrier.era(awaited.parentName);
      const verdict = await ask();
      links.readChanges();
      const isSame = this.#carrier.era(awaited.parentName) === era;
      if (verdict.held || isSame || this.#clock.nowMs() >= untilMs) return verdict;
    }
  }

  async #settle({ parentName, address, subnet, signal }: AwaitedAddress, untilMs: number): Promise<void> {
    if (!this.#settling.has(parentName)) return;
    const mostMs = Math.max(0, untilMs - this.#clock.nowMs());
    const isSettled = await this.#settling.wait(parentName, [address, ...likelyIn(subnet)], mostMs, signal);
    if (isSettled || this.#deaf.has(parentName)) return;
    this.#deaf.add(parentName);
    this.#parts.log.warn(
      'no other host was heard since the parent has its carrier back: addresses are given out anyway, and checked again 15 and 35 s after its return',
      { parent: parentName },
    );
  }

  /** Follows nothing any more. */
  close(): void {
    this.#suspend.close();
    this.#carrier.close();
    this.#settling.close();
    this.#rechecks.close();
    this.#patrol.close();
    this.#endpoints.clear();
  }

  #lost(parentName: string): void {
    // A bridge that lost a port may be waiting for another.
    if (this.#carrier.isAway(parentName)) this.#settling.end(parentName);
    this.#rechecks.end(parentName);
    this.#parts.outdate(parentName);
  }

  #back(parentName: string, isNewCable: boolean): void {
    this.#deaf.delete(parentName);
    // What was asked since the loss asked nobody.
    this.#parts.outdate(parentName);
    if (isNewCable) this.#settling.begin(parentName);
    this.#rechecks.begin(parentName);
    if (!isNewCable) this.#parts.onBack(parentName);
  }

  #settled(parentName: string, isHeard: boolean): void {
    this.#parts.outdate(parentName);
    if (isHeard) this.#rechecks.again(parentName);
    this.#parts.onBack(parentName);
  }

  #on(parentName: string): { endpoint: Endpoint; address: InterfaceAddress }[] {
    return [...this.#endpoints.values()].filter((endpoint) => endpoint.parentName === parentName).flatMap(inUse);
  }
}

function inUse<Endpoint extends OnInterruptedParent>(
  endpoint: Endpoint,
): { endpoint: Endpoint; address: InterfaceAddress }[] {
  return endpoint.addresses.map((address) => ({ endpoint, address }));
}

async function listenOn(
  { links, spare }: Pick<InterruptionsParts<never>, 'links' | 'spare'>,
  parentName: string,
): Promise<LifeSign | undefined> {
  const link = await links.byName(parentName);
  return link && openLifeSign(link, () => spare(link.index));
}

/** Where routers stand: at the beginning or the end of their subnet. */
function likelyIn({ family, first, last, length }: Prefix): Address[] {
  if (family === 'IPv6') return length > 126 ? [] : [{ family, value: first + 1n }];
  return length > 30 ? [] : [first + 1n, last - 1n].map((value) => ({ family, value }));
}
