/**
 * What the routers of a LAN advertise (RFC 4861 6.3). They are asked in the name of the container that is to have an address, by
 * our link for asking the LAN, and heard on the parent. What they said is kept while it counts, so that only the first start
 * waits for one that is slow to answer.
 */
import { type Address, contains, formatAddress } from '../../address.ts';
import { LatestMap } from '../../bounded.ts';
import type { Clock } from '../../clock.ts';
import type { Links } from '../../kernel/link.ts';
import type { IPv6Method } from '../../model.ts';
import { ROUTER_WORDS } from '../frames/filter.ts';
import { ALL_NODES_MAC, type NeighborSolicitation } from '../frames/nd.ts';
import { type RouterAdvertisement, decodeRouterAdvertisement, routerSolicitation } from '../frames/ra.ts';
import { Ears } from './ears.ts';
import { decodeSolicitation, presenceAnswer, wherePresent } from './presence.ts';
import { type Advertised, type HeardAdvertisement, advertisedIn, isAlive } from './slaac.ts';
import type { DhcpSegment } from './wire.ts';

/** What they are asked with. */
export interface RoutersParts {
  readonly links: Pick<Links, 'known'>;
  readonly clock: Clock;
  /** Lan.sendOn() */
  readonly sendOn: (segment: DhcpSegment, frame: Buffer) => Promise<void>;
}

interface RouterLan {
  /** Of the parent: one that is made again may be on another LAN. */
  readonly linkIndex: number;
  /** By the router's address. */
  readonly heard: LatestMap<string, HeardAdvertisement>;
  /** When they were asked last. */
  askedAtMs: number;
  /** When one of them had a prefix then. */
  foundAtMs: number;
  /** Until the routers have been asked. */
  asking: Promise<void> | undefined;
}

/** For whom. */
interface Wanted {
  readonly macAddress: string;
  /** With `slaac` a router that leaves addresses to a DHCPv6 server has nothing for it. */
  readonly method: IPv6Method;
  /** The address that it had. */
  readonly last: Address | null;
}

/** A LAN has one or two; who claims to be more of them does not fill our memory. */
const MOST_ROUTERS = 16;
const MOST_PARENTS = 1024;
/** A frame may get lost. */
const SOLICIT_AGAIN_MS = [400, 2000];
/** How long the first answer of a LAN is waited for. Where nothing else will do, as long as a router may take that has just spoken to all (RFC 4861 6.2.6). */
export const ROUTER_ANSWER_MS: Readonly<Record<IPv6Method, number>> = { auto: 1000, slaac: 4000, dhcp: 1000 };
/** Where a router is known whose word counts still: it answers within half a second (RFC 4861 6.2.6), most do at once. */
const NEXT_ANSWER_MS = 600;
/** After the word of one that has not what is hoped for: another one may have the prefix of the last address, or any at all. */
const BETTER_MS = 100;
/** Containers that start together ask once. */
const FRESH_MS = 500;

/** The routers of all LANs of this host. */
export class Routers {
  readonly #parts: RoutersParts;
  readonly #ears: Ears<RouterAdvertisement | NeighborSolicitation>;
  readonly #lans = new LatestMap<string, RouterLan>(MOST_PARENTS);

  constructor(parts: RoutersParts) {
    const { links, clock } = parts;
    this.#parts = parts;
    this.#ears = new Ears({ links, clock, filter: ROUTER_WORDS, decode });
  }

  /**
   * What they have for this MAC address; null where none has answered in time. Throws the signal's reason when it has
   * fired.
   */
  async advertised(segment: DhcpSegment, wanted: Wanted, signal: AbortSignal): Promise<Advertised | null> {
    const { links, clock } = this.#parts;
    const parent = await links.known(segment.parentName);
    if (parent === undefined) return null;
    // Who needs a prefix waits for others than who does not.
    const lan = this.#lanOn(`${wanted.method} ${segment.parentName}`, parent.index);
    if (clock.nowMs() - lan.foundAtMs > FRESH_MS)
      lan.asking ??= this.#ask(lan, segment, wanted).finally(() => (lan.asking = undefined));
    await lan.asking;
    signal.throwIfAborted();
    return this.#known(lan, wanted);
  }

  /** Nobody is heard any more. */
  close(): void {
    this.#ears.close();
  }

  #lanOn(key: string, linkIndex: number): RouterLan {
    const known = this.#lans.get(key);
    if (known?.linkIndex === linkIndex) return known;
    const lan: RouterLan = {
      linkIndex,
      heard: new LatestMap(MOST_ROUTERS),
      askedAtMs: Number.NEGATIVE_INFINITY,
      foundAtMs: Number.NEGATIVE_INFINITY,
      asking: undefined,
    };
    this.#lans.put(key, lan);
    return lan;
  }

  /** What was said to the last question goes before what is older: whoever said that may be gone. */
  #known(lan: RouterLan, { method, last }: Wanted): Advertised | null {
    const nowMs = this.#parts.clock.nowMs();
    const alive = this.#alive(lan);
    const answers = alive.filter(({ heardAtMs }) => heardAtMs >= lan.askedAtMs);
    const answered = advertisedIn(answers, nowMs, last);
    if (answered.prefix !== null || (answered.isManaged && method === 'auto')) return answered;
    return alive.length === 0 ? null : advertisedIn(alive, nowMs, last);
  }

  #hasAnswer(lan: RouterLan, method: IPv6Method): boolean {
    const alive = this.#alive(lan);
    return method === 'auto' ? alive.length > 0 : advertisedIn(alive, lan.askedAtMs, null).prefix !== null;
  }

  #alive({ heard }: RouterLan): HeardAdvertisement[] {
    const nowMs = this.#parts.clock.nowMs();
    return [...heard.values()].filter((one) => isAlive(one, nowMs));
  }

  /** Resolves when one of them has a prefix, or when the time is over. */
  async #ask(lan: RouterLan, segment: DhcpSegment, wanted: Wanted): Promise<void> {
    const { clock } = this.#parts;
    const { macAddress, method, last } = wanted;
    lan.askedAtMs = clock.nowMs();
    const { promise, resolve } = Promise.withResolvers<void>();
    const forMs = this.#hasAnswer(lan, method) ? NEXT_ANSWER_MS : ROUTER_ANSWER_MS[method];
    const cancels: (() => void)[] = [];
    let isBetterAwaited = false;
    const silence = this.#ears.listen(segment.parentName, {
      memberships: [...wherePresent(macAddress), ALL_NODES_MAC],
      hear: (word) => {
        if (word.protocol === 'NS') return void this.#send(segment, presenceAnswer(word, macAddress));
        const heard = { advertisement: word, heardAtMs: clock.nowMs() };
        lan.heard.put(formatAddress(word.router), heard);
        const { prefix, isManaged } = advertisedIn([heard], heard.heardAtMs, null);
        if (prefix !== null && (last === null || contains(prefix, last))) return resolve();
        if ((prefix === null && !(isManaged && method === 'auto')) || isBetterAwaited) return;
        isBetterAwaited = true;
        cancels.push(clock.after(BETTER_MS, resolve));
      },
    });
    // The link for questions may have to be made first.
    const solicit = () => this.#send(segment, routerSolicitation(macAddress));
    await solicit();
    cancels.push(clock.after(forMs, resolve));
    for (const atMs of SOLICIT_AGAIN_MS) if (atMs < forMs) cancels.push(clock.after(atMs, () => void solicit()));
    await promise;
    silence();
    for (const cancel of cancels) cancel();
    if (this.#known(lan, { ...wanted, last: null })?.prefix) lan.foundAtMs = clock.nowMs();
  }

  async #send(segment: DhcpSegment, frame: Buffer | undefined): Promise<void> {
    if (frame === undefined) return;
    try {
      await this.#ears.ready(segment.parentName);
      await this.#parts.sendOn(segment, frame);
    } catch {
      // It gets lost here as it may on the LAN.
    }
  }
}

function decode(frame: Buffer): RouterAdvertisement | NeighborSolicitation | undefined {
  return decodeRouterAdvertisement(frame) ?? decodeSolicitation(frame);
}
