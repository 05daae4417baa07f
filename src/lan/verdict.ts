/** What this room finds out about an address. Types, and the one value that needs no telling. */

import type { Address } from '../address.ts';

/** The answer to "may this address be used?", the same from the frame that decided it up to the drivers. */
export type Verdict =
  | { readonly held: false }
  | {
      readonly held: true;
      /** Who has it. */
      readonly macAddress: string;
      /** Where it was seen: the parent, or the host's own link that has the address. */
      readonly linkName: string;
      /** It only asked for the address, at the same moment as we did, and may or may not take it. */
      readonly simultaneous: boolean;
      /** This host itself has it, or a sub-interface of the parent that the kernel shows here: asking again changes nothing. */
      readonly isOnHost: boolean;
    };

/** One that says who has it. */
export type HeldVerdict = Extract<Verdict, { held: true }>;

/** Nobody else has the address. */
export const NOT_HELD: Verdict = { held: false };

/** Somebody, of this MAC address, began to use an address that was found free. */
export interface LateConflict {
  readonly parentName: string;
  readonly address: Address;
  readonly macAddress: string;
}

/**
 * Why an address is on standby no longer. `used`: somebody else has it. `wanted`: another daemon has it on standby too, or
 * somebody asks for it at this moment. `ended`: a container got it, or its parent went down, lost its carrier or went away.
 */
export type Loss = 'used' | 'wanted' | 'ended';

/** `by`: the MAC address of who uses or wants it; null when it ended. */
export type LossListener = (loss: Loss, by: string | null) => void;

/** An address that is on standby. */
export interface Kept {
  /** Whoever wanted it kept wants it no longer. A second call does nothing. */
  release(): void;
}
