/**
 * Routers that answer for every address (proxy ARP, RFC 1027; ND proxies). A control probe asks for an address of the
 * subnet that is surely free; whoever answers it answers for all, so its answers are no sign of a holder. What such a
 * router says unasked still is.
 *
 * Not recognised: a router that leaves out the control address, or answers so much later than for the address in
 * question that the probe is over. Its answers count, and the message names its MAC.
 */
import { type Address, ADDRESS_BITS, isSameAddress, type Prefix } from '../address.ts';
import { CappedMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import type { Sighting } from './frames/sighting.ts';

/** One control probe serves all probes that go out together. */
const LEAST_GAP_MS = 150;
/** A router that was seen to proxy counts as one for this long after its last answer. */
const MEMORY_MS = 60_000;
/** More are an attack. */
const MOST_PROXIES = 64;
/** With fewer host bits a random IPv6 address is not surely free. */
const LEAST_RANDOM_BITS = 32;

/**
 * IPv4: the subnet's own network address, which hosts do not have and routers do not answer for themselves. IPv6: at
 * random, because there the lowest address is every router's anycast address (RFC 4291 2.6.1). Undefined when the
 * subnet is too small to have one.
 */
export function controlAddress({ family, first, length }: Prefix, random: () => number): Address | undefined {
  const hostBits = ADDRESS_BITS[family] - length;
  if (family === 'IPv4') return hostBits < 2 ? undefined : { family, value: first };
  if (hostBits < LEAST_RANDOM_BITS) return undefined;
  const bits = Math.min(hostBits, 64);
  // A random number has 52 good bits; the two halves are drawn apart.
  const half = () => BigInt(Math.floor(random() * 2 ** 32));
  return { family, value: first | (((half() << 32n) | half()) & ((1n << BigInt(bits)) - 1n)) };
}

/** Who answers for one control address. */
export class ProxyWatch {
  readonly address: Address;
  readonly #clock: Clock;
  readonly #ask: () => void;
  readonly #onProxy: (macAddress: string) => void;
  readonly #answeredAtMs = new CappedMap<string, number>(MOST_PROXIES);
  #askedAtMs = Number.NEGATIVE_INFINITY;

  /** `ask` sends the control probe; `onProxy` is called for every answer to it. */
  constructor(address: Address, clock: Clock, ask: () => void, onProxy: (macAddress: string) => void) {
    this.address = address;
    this.#clock = clock;
    this.#ask = ask;
    this.#onProxy = onProxy;
  }

  /** Call it before a probe is sent: a proxy that answers in order then betrays itself first. */
  ask(): void {
    if (this.#clock.nowMs() - this.#askedAtMs < LEAST_GAP_MS) return;
    this.#askedAtMs = this.#clock.nowMs();
    this.#ask();
  }

  /** Any sighting on the LAN; those that answer the control probe count. */
  hear({ kind, address, macAddress, isAnswer }: Sighting): void {
    if (kind !== 'use' || !isAnswer || !isSameAddress(address, this.address)) return;
    if (this.#answeredAtMs.put(macAddress, this.#clock.nowMs())) this.#onProxy(macAddress);
  }

  /** Whether this MAC address has answered for the control address within the last minute. */
  isProxy(macAddress: string): boolean {
    const atMs = this.#answeredAtMs.get(macAddress);
    return atMs !== undefined && this.#clock.nowMs() - atMs < MEMORY_MS;
  }
}
