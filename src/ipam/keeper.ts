/** Addresses kept ready on the LANs of pools, as whoever gives out addresses wants them kept. */
import type { Address } from '../address.ts';
import type { Kept, Loss } from '../lan/verdict.ts';
import type { Pool } from '../model.ts';

/** What it needs of the LANs of the pools. */
export interface Keeper {
  /**
   * The parent on whose LAN the pool's addresses are kept; null where none are: where no LAN is asked, or a parent carries one
   * container.
   */
  parentOf(pool: Pool): Promise<string | null>;
  /** Addresses that may be asked for at a time on one LAN without going beyond its rate of frames; infinite without a limit. */
  readonly mostAtOnce: number;
  /**
   * Null when there is nothing to ask: an isolated network, the profile `off`. Throws while the parent is down or gone.
   * `isGuess`: perhaps nobody ever wants it here; see AddressCheck.
   */
  keep(
    pool: Pool,
    address: Address,
    lost: (loss: Loss) => void,
    signal: AbortSignal,
    isGuess?: boolean,
  ): Promise<Kept | Loss | null>;
  /** Whether somebody has the address kept. */
  isKept(pool: Pool, address: Address): Promise<boolean>;
  /** An address was given out; these are likely to follow soon. See Lan.askAhead(). */
  askAhead(pool: Pool, addresses: readonly Address[]): Promise<void>;
  /** Ends the guard of an address that nobody got. */
  release(pool: Pool, address: Address): Promise<void>;
}
