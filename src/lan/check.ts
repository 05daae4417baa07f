/** Whether an address may be used: asked for on its network's parent, as thoroughly as was wished. */
import { type Address, formatAddress, parsePrefix } from '../address.ts';
import { PluginError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Mode, Network, ProbeProfile } from '../model.ts';
import type { Finding, Prober } from './probe.ts';

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
}

interface Parts {
  readonly prober: Prober;
  readonly usualProfile: ProbeProfile;
  /**
   * The MAC address is that of our own endpoint with this address: one that is just leaving, or, while the address is
   * guarded, the one it was for. What it says is no conflict.
   */
  readonly isOurs: (macAddress: string, address: string) => boolean;
  /** Somebody has the address. */
  readonly onHeld: (parent: string, address: string, macAddress: string) => Promise<void>;
  readonly log: Log;
}

const NOT_HELD: Finding = { held: false };

export class LanCheck {
  readonly #parts: Parts;
  /** Said once for each, until it is up again. */
  readonly #parentsDown = new Set<string>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Throws a sentence when the LAN cannot be asked. */
  async check({ parentName, mode, address, subnet, profile: wished, signal }: CheckRequest): Promise<Finding> {
    const { prober, usualProfile, isOurs, onHeld } = this.#parts;
    const profile = wished ?? usualProfile;
    if (profile === 'off') return NOT_HELD;
    const isOwn = (macAddress: string) => isOurs(macAddress, formatAddress(address));
    const request = { parentName, mode, address, profile, subnet: parsePrefix(subnet), isOwn, signal };
    const finding = await prober.probe(request).then(
      (found) => this.#fromLan(parentName, found),
      (error: unknown) => this.#withoutLan(parentName, error),
    );
    if (finding.held) await onHeld(parentName, formatAddress(address), finding.macAddress);
    return finding;
  }

  /** Makes room for a child in passthru mode, which must be alone on its parent. */
  async vacate(parentName: string): Promise<void> {
    await this.#parts.prober.vacate(parentName);
  }

  #fromLan(parent: string, finding: Finding): Finding {
    this.#parentsDown.delete(parent);
    return finding;
  }

  /** Below a parent that is down no container talks to anybody: it may start, as with the built-in driver. */
  #withoutLan(parent: string, error: unknown): Finding {
    if (!(error instanceof PluginError) || error.code !== 'PROBE_PARENT_DOWN') throw error;
    if (!this.#parentsDown.has(parent))
      this.#parts.log.warn('parent is down: addresses are given out without asking the LAN', { parent });
    this.#parentsDown.add(parent);
    return NOT_HELD;
  }
}

/** Null for an isolated network, which is on no LAN. */
export function placeOf({ parent, options }: Network): Place | null {
  return parent.recipe === 'isolated' ? null : { parentName: parent.name, mode: options.mode, profile: options.probe };
}
