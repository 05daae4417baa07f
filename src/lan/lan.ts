/**
 * What the drivers want of the LAN: whether an address may be used, asked as thoroughly as was wished; addresses on
 * standby; and a watch over those in use.
 */
import { type Address, formatAddress, formatInterfaceAddress, parsePrefix } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import { PluginError } from '../errors.ts';
import type { Log } from '../log.ts';
import { type Endpoint, type Mode, type Network, PROBE_PROFILES, type ProbeProfile } from '../model.ts';
import type { LateConflict, ProbeRequest, Prober } from './prober.ts';
import { type Loss, type LossListener, NOT_HELD, type Verdict } from './verdict.ts';
import { isStandbyMac, isProbeMac } from './frames/mac.ts';
import type { Monitor } from './monitor.ts';

export interface Place {
  readonly parentName: string;
  readonly mode: Mode;
  /** Null takes the setting PROBE. */
  readonly profile: ProbeProfile | null;
}

export interface CheckRequest extends Place {
  readonly address: Address;
  /** The subnet the address lies in, `192.168.1.0/24`. */
  readonly subnet: string;
  readonly signal?: AbortSignal | undefined;
  /** Nothing else promises that the address is free: the LAN is asked at least so, or it is an error. Null: as is usual. */
  readonly leastProfile?: ProbeProfile | null;
}

/** What the room's door works with. */
export interface LanParts {
  readonly prober: Prober;
  readonly monitor: Monitor;
  readonly usualProfile: ProbeProfile;
  /** Addresses of running containers are defended (RFC 5227 2.4 b, c). */
  readonly defends: boolean;
  /** Our own endpoint on this parent with this MAC address and this address. */
  readonly speaker: (parent: string, macAddress: string, address: string) => Pick<Endpoint, 'state'> | undefined;
  /** A stranger has the address. */
  readonly onHeld: (parent: string, address: string, macAddress: string) => Promise<void>;
  readonly log: Log;
}

/** More are an attack. */
const MOST_TAKERS = 256;

export class Lan {
  readonly #parts: LanParts;
  /** Said once for each, until it is up again. */
  readonly #parentsDown = new Set<string>();
  /** Who took an address since it was given out, while no container has it yet; by parent and address. */
  readonly #takers = new LatestMap<string, string>(MOST_TAKERS);
  /** How each who wanted an address kept lets go of it. */
  readonly #kept = new WeakMap<(loss: Loss) => void, () => void>();

  constructor(parts: LanParts) {
    this.#parts = parts;
  }

  // --- before an address is used ------------------------------------------------------------------------------------

  /** At once for an address on standby. Throws a sentence when the LAN cannot be asked. */
  async check(request: CheckRequest): Promise<Verdict> {
    const wanted = this.#probeRequest(request);
    if (wanted === null) return NOT_HELD;
    const asked = this.#ask(wanted);
    const isProof = request.leastProfile !== undefined && request.leastProfile !== null;
    const verdict = await (isProof
      ? asked
      : asked.catch((error: unknown) => this.#withoutLan(wanted.parentName, error)));
    if (verdict.held) await this.#tell(wanted, verdict.macAddress);
    return verdict;
  }

  /** Who was heard to use an address since it was found free, and before watch(). Null when nobody was. */
  takerOf({ parentName, address }: Pick<CheckRequest, 'parentName' | 'address'>): string | null {
    return this.#takers.get(takerKey(parentName, address)) ?? null;
  }

  /** Of two daemons that ask at once one gives way, perhaps to one that only wanted one on standby: so it asks once more. */
  async #ask(request: ProbeRequest): Promise<Verdict> {
    const { prober } = this.#parts;
    this.#takers.delete(takerKey(request.parentName, request.address));
    const first = await prober.probe(request);
    const verdict =
      first.held && first.simultaneous && isProbeMac(first.macAddress) ? await prober.probe(request) : first;
    this.#parentsDown.delete(request.parentName);
    return verdict;
  }

  /** Below a parent that is down no container talks to anybody: it may start, as with the built-in driver. */
  #withoutLan(parent: string, error: unknown): Verdict {
    if (!(error instanceof PluginError) || error.code !== 'PROBE_PARENT_DOWN') throw error;
    if (!this.#parentsDown.has(parent))
      this.#parts.log.warn('parent is down: addresses are given out without asking the LAN', { parent });
    this.#parentsDown.add(parent);
    return NOT_HELD;
  }

  /** Reports the holder of an address, unless it is a container of ours or another daemon that asks. */
  async #tell({ parentName, address }: ProbeRequest, macAddress: string): Promise<void> {
    if (isDaemon(macAddress)) return;
    const text = formatAddress(address);
    if (this.#parts.speaker(parentName, macAddress, text) === undefined)
      await this.#parts.onHeld(parentName, text, macAddress);
  }

  /** Makes room for a child in passthru mode, which must be alone on its parent. */
  async vacate(parentName: string): Promise<void> {
    await this.#parts.prober.vacate(parentName);
  }

  /** The address is not wanted any more although it was found free. */
  async release({ parentName, address }: CheckRequest): Promise<void> {
    this.#takers.delete(takerKey(parentName, address));
    await this.#parts.prober.release(parentName, address);
  }

  // --- on standby ---------------------------------------------------------------------------------------------------

  /** See Prober.keep(). Null where the LAN is not asked. Throws while it cannot be asked. */
  async keep(request: CheckRequest, lost: (loss: Loss) => void): Promise<'kept' | Loss | null> {
    const wanted = this.#probeRequest(request);
    if (wanted === null) return null;
    const verdict = await this.#parts.prober.keep(wanted, this.#listener(wanted, lost));
    if (!verdict.held) return 'kept';
    await this.#tell(wanted, verdict.macAddress);
    return verdict.simultaneous || isStandbyMac(verdict.macAddress) ? 'wanted' : 'used';
  }

  #listener(request: ProbeRequest, lost: (loss: Loss) => void): LossListener {
    const listener: LossListener = (loss, by) => {
      if (loss === 'used' && by !== null) void this.#tell(request, by).catch(() => undefined);
      lost(loss);
    };
    this.#kept.set(lost, () => this.#parts.prober.letGo(request, listener));
    return listener;
  }

  /** The one who gave `lost` wants it kept no longer. */
  letGo(lost: (loss: Loss) => void): void {
    this.#kept.get(lost)?.();
  }

  isOnStandby(request: CheckRequest): boolean {
    return this.#parts.prober.isOnStandby(request);
  }

  // --- while it is used ---------------------------------------------------------------------------------------------

  /** Watches over the endpoint's addresses until forget(). */
  watch(endpoint: Endpoint, network: Network): void {
    const place = placeOf(network);
    const { monitor, defends, prober } = this.#parts;
    if (place === null || this.#profileOf(place) === 'off') return;
    const { id, macAddress } = endpoint;
    const { parentName, mode } = place;
    const defend = (address: Address) =>
      void prober.announce({ parentName, mode, address, macAddress, times: 1 }).catch(() => undefined);
    monitor.watch(id, {
      parentName,
      macAddress,
      addresses: endpoint.addresses,
      defend: defends ? defend : null,
    });
  }

  forget({ id }: Endpoint): void {
    this.#parts.monitor.forget(id);
  }

  /**
   * Somebody began to use an address while it was guarded: that of a container, or one just given out. The watch over a
   * container begins to hear up to half a second after it was asked for.
   */
  heardLate({ parentName, address, macAddress }: LateConflict): void {
    const { monitor, onHeld, log } = this.#parts;
    if (monitor.hear(parentName, address, macAddress)) return;
    const text = formatAddress(address);
    log.warn('somebody began to use an address that was just given out', {
      parent: parentName,
      address: text,
      by: macAddress,
    });
    if (isDaemon(macAddress)) return;
    this.#takers.put(takerKey(parentName, address), macAddress);
    void onHeld(parentName, text, macAddress).catch(() => undefined);
  }

  /** To the LAN, on behalf of a container that is up. Where nobody listens nobody is told, which is no error. */
  async announce(endpoint: Endpoint, network: Network, signal: AbortSignal): Promise<void> {
    const place = placeOf(network);
    if (place === null) return;
    const { macAddress } = endpoint;
    const announcements = endpoint.addresses.map((address) =>
      this.#parts.prober.announce({ ...place, address, macAddress, signal }),
    );
    await Promise.allSettled(announcements);
  }

  /**
   * The container is about to leave, and its kernel still answers for its addresses: from here on they are on standby, so
   * that it can start again without waiting. Not an address that somebody else was heard to use.
   */
  async keepLeft(endpoint: Endpoint, network: Network): Promise<void> {
    const place = placeOf(network);
    if (place === null) return;
    for (const address of endpoint.addresses) {
      const request = this.#probeRequest({ ...place, address, subnet: formatInterfaceAddress(address) });
      if (request === null || this.#parts.monitor.isContested(place.parentName, address)) continue;
      // A container with two interfaces on the parent answers on both.
      const isOwn = (mac: string, isGiven: boolean) =>
        mac === endpoint.macAddress ||
        this.#parts.monitor.isMonitored(place.parentName, mac) ||
        request.isOwn(mac, isGiven);
      // Without standby the next start takes a little longer.
      await this.#parts.prober.keepLeft({ ...request, isOwn }).catch(() => undefined);
    }
  }

  /** The network is gone, and with it the wish to come back. */
  endLeft({ parent, subnets }: Network): void {
    for (const prefix of subnets.map(({ subnet }) => parsePrefix(subnet)))
      if (prefix !== undefined) this.#parts.prober.endLeft(parent.name, prefix);
  }

  /** Null where the LAN is not to be asked. */
  #probeRequest(request: CheckRequest): ProbeRequest | null {
    const { parentName, mode, address, subnet, signal } = request;
    const profile = thorough(this.#profileOf(request), request.leastProfile ?? 'off');
    // Before the address is given out, only the endpoint that had it until now: networks whose addresses are not chosen by
    // one and the same can meet on a parent. After that, the one it was for.
    const isOwn = (macAddress: string, isGiven: boolean) => {
      const endpoint = this.#parts.speaker(parentName, macAddress, formatAddress(address));
      return endpoint !== undefined && (isGiven || endpoint.state === 'deleting');
    };
    return profile === 'off'
      ? null
      : { parentName, mode, address, profile, subnet: parsePrefix(subnet), isOwn, signal };
  }

  #profileOf({ profile }: Place): ProbeProfile {
    return profile ?? this.#parts.usualProfile;
  }
}

function takerKey(parentName: string, address: Address): string {
  return `${parentName} ${formatAddress(address)}`;
}

function thorough(one: ProbeProfile, other: ProbeProfile): ProbeProfile {
  return PROBE_PROFILES.indexOf(one) < PROBE_PROFILES.indexOf(other) ? other : one;
}

/** A daemon of this kind asks for the address, guards it or keeps it on standby. */
function isDaemon(macAddress: string): boolean {
  return isProbeMac(macAddress) || isStandbyMac(macAddress);
}

/** Null for an isolated network, which is on no LAN. */
export function placeOf({ parent, options }: Network): Place | null {
  return parent.recipe === 'isolated' ? null : { parentName: parent.name, mode: options.mode, profile: options.probe };
}
